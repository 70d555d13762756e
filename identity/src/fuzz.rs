//! The entry for fuzzing: any bytes are an authority's answer.

use std::time::{Duration, SystemTime};

use orlop_proto::certificate::IstioCertificateResponse;
use prost::Message;

use crate::answer::Answer;
use crate::certificate::vouched;
use crate::details::CertificateDetails;

/// Within the validity of the seeds.
const NOW: Duration = Duration::from_hours(24 * 365 * 57);

/// Reads the answer as it is read from the authority, apart from the key, which no bytes can match.
pub fn answer(bytes: &[u8]) {
    let Ok(response) = IstioCertificateResponse::decode(bytes) else { return };
    let Ok(Answer { chain, roots }) = Answer::parse(&response.cert_chain) else { return };
    for certificate in chain.iter().chain(&roots) {
        drop(CertificateDetails::of(certificate));
    }
    let Some((own, others)) = chain.split_first() else { return };
    // What is found is the fuzzer's business.
    let _ = vouched(own, others, &roots, SystemTime::UNIX_EPOCH + NOW);
}
