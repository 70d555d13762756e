//! Why there is no certificate, or no newer one.

use std::error::Error as _;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tonic::{Code, Status};

use crate::certificate::Flaw;

/// Why there is no certificate, or no newer one.
#[derive(Debug, Error)]
pub enum Error {
    /// The address is none.
    #[error("{address:?} is not the address of a certificate authority, HOST:PORT")]
    Address {
        /// As it was given.
        address: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A file should hold a token.
    #[error("{} holds no token", file.display())]
    NoToken {
        /// Which.
        file: PathBuf,
    },
    /// A file should hold certificates.
    #[error("{} holds no certificates in PEM", file.display())]
    NoCertificates {
        /// Which.
        file: PathBuf,
    },
    /// A file should hold a private key. What it holds is not told.
    #[error("{} holds no private key in PEM", file.display())]
    NoKey {
        /// Which.
        file: PathBuf,
    },
    /// A file's certificate is not the workload's.
    #[error("the certificate in {} is not taken: {flaw}", file.display())]
    Files {
        /// Which.
        file: PathBuf,
        /// Why.
        flaw: Flaw,
    },
    /// No key could be made.
    #[error("no key and request can be made: {0}")]
    Key(String),
    /// TLS to the authority cannot be set up.
    #[error("no connection to a certificate authority can be made with {}", file.display())]
    Roots {
        /// The authorities that may have signed its certificate.
        file: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// It takes too long.
    #[error("the certificate authority {address} does not answer within {} s", after.as_secs())]
    Silent {
        /// Which.
        address: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// It answers with an error, or cannot be reached.
    #[error("the certificate authority {address}: {:?}: {}", status.code(), status.message())]
    Status {
        /// Which.
        address: String,
        /// What it said, or the transport.
        status: Box<Status>,
        /// What was shown to it.
        token: PathBuf,
        /// As a node, for one of its workloads.
        impersonates: bool,
    },
    /// It does not trust the node, and there is no token of the workload's own.
    #[error(
        "the certificate authority {address} does not take the node's token ({refused}), and there is none of the workload's own: {reason}"
    )]
    OwnToken {
        /// Which.
        address: String,
        /// What it said to the node's.
        refused: String,
        /// Why there is no other.
        reason: String,
    },
    /// It answers with something that is not taken.
    #[error("the answer of the certificate authority {address} is not taken: {flaw}")]
    Answer {
        /// Which.
        address: String,
        /// Why.
        flaw: Flaw,
    },
}

impl Error {
    /// This, whatever caused it, and what an operator can do about it.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut source = match self {
            // The status says itself what it is.
            Self::Status { status, .. } => status.source(),
            other => other.source(),
        };
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        if let Some(advice) = self.advice() {
            text = format!("{text}; {advice}");
        }
        text
    }

    fn advice(&self) -> Option<String> {
        let Self::Status { status, token, impersonates, .. } = self else { return None };
        let token = token.display();
        match status.code() {
            Code::Unauthenticated if *impersonates => Some(format!(
                "the token in {token} has expired or is not for it (audience istio-ca), its account is not among the \
                 authority's CA_TRUSTED_NODE_ACCOUNTS, or no pod of the workload's account runs on the node of the \
                 token's pod; in a cluster, the chart's serviceAccount.podTokens is another way"
            )),
            Code::Unauthenticated => {
                Some(format!("the token in {token} has expired or is not for it (audience istio-ca)"))
            }
            _ => None,
        }
    }
}
