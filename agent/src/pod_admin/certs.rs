//! `/certs`: `envoy.admin.v3.Certificates`.

use std::time::SystemTime;

use orlop_identity::CertificateDetails;
use orlop_plan::resource::secret::{Secret, SecretContent};
use rustls_pki_types::CertificateDer;
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::envoy_json::timestamp;
use super::secrets::certificates as held;
use super::view::Resources;

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// `envoy.admin.v3.Certificates`.
#[derive(Debug, Serialize)]
pub(super) struct Certificates {
    certificates: Vec<Certificate>,
}

/// `envoy.admin.v3.Certificate`.
#[derive(Debug, Default, Serialize)]
struct Certificate {
    ca_cert: Vec<Json>,
    cert_chain: Vec<Json>,
}

/// What the node provides belongs together; each secret of the control plane stands by itself.
pub(super) fn certificates(resources: &Resources) -> Certificates {
    let now = SystemTime::now();
    let mut own = Certificate::default();
    for provided in &resources.node_secrets {
        own.add(&provided.secret, now);
    }
    let sent = resources.secrets.iter().map(|stored| {
        let mut certificate = Certificate::default();
        certificate.add(&stored.resource, now);
        certificate
    });
    let certificates = std::iter::once(own).chain(sent).filter(|certificate| !certificate.is_empty());
    Certificates { certificates: certificates.collect() }
}

impl Certificate {
    fn add(&mut self, secret: &Secret, now: SystemTime) {
        match secret.content {
            // Of a chain, Envoy shows the own one.
            SecretContent::TlsCertificate(_) => {
                self.cert_chain.extend(held(secret).first().and_then(|of| details(of, now)));
            }
            SecretContent::ValidationContext(_) => {
                self.ca_cert.extend(held(secret).iter().filter_map(|of| details(of, now)));
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.ca_cert.is_empty() && self.cert_chain.is_empty()
    }
}

/// `envoy.admin.v3.CertificateDetails`.
fn details(certificate: &CertificateDer<'_>, now: SystemTime) -> Option<Json> {
    let details = CertificateDetails::of(certificate)?;
    let uris = details.uris.iter().map(|uri| json!({ "uri": uri }));
    let dns = details.dns_names.iter().map(|name| json!({ "dns": name }));
    let remaining = details.not_after.duration_since(now).unwrap_or_default();
    Some(json!({
        "path": "<inline>",
        "serial_number": details.serial_number,
        "subject_alt_names": uris.chain(dns).collect::<Vec<_>>(),
        "days_until_expiration": (remaining.as_secs() / DAY_SECONDS).to_string(),
        "valid_from": timestamp(details.not_before),
        "expiration_time": timestamp(details.not_after),
    }))
}
