//! What a certificate says of whose it is.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use orlop_plan::rbac::PeerNames;
use orlop_plan::resource::tls::{SanType, SubjectAltNameMatcher};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// The names in a certificate, and its digest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// As RFC 2253 writes it.
    pub(crate) subject: String,
    /// The first of its names that is a URI: a SPIFFE identity.
    pub(crate) principal: Option<Arc<str>>,
    /// Subject alternative names that are URIs.
    pub(crate) uris: Vec<String>,
    /// Subject alternative names that are host names.
    pub(crate) dns: Vec<String>,
    emails: Vec<String>,
    addresses: Vec<String>,
    /// SHA-256 of all of it, in lower-case hexadecimal digits.
    pub(crate) sha256: String,
}

/// It cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read")]
pub(crate) struct Unreadable;

impl Certificate {
    /// Reads a certificate in DER.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, Unreadable> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Unreadable)?;
        let mut this = Self {
            subject: rfc_2253(certificate.subject()),
            sha256: hexadecimal(ring::digest::digest(&ring::digest::SHA256, der).as_ref()),
            ..Self::default()
        };
        let names = certificate.subject_alternative_name().map_err(|_| Unreadable)?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::URI(uri) => this.uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => this.dns.push((*name).to_owned()),
                GeneralName::RFC822Name(email) => this.emails.push((*email).to_owned()),
                GeneralName::IPAddress(octets) => this.addresses.extend(address(octets)),
                _ => {}
            }
        }
        this.principal = this.uris.first().map(|uri| uri.as_str().into());
        Ok(this)
    }

    /// Whether one of its names is one of those that are looked for.
    pub(super) fn matches(&self, matchers: &[SubjectAltNameMatcher]) -> bool {
        let any = |names: &[String], matcher: &SubjectAltNameMatcher| {
            names.iter().any(|name| matcher.matcher.matches(name.as_bytes()))
        };
        matchers.iter().any(|matcher| match matcher.san_type {
            Some(SanType::Uri) => any(&self.uris, matcher),
            Some(SanType::Dns) => any(&self.dns, matcher),
            Some(SanType::Email) => any(&self.emails, matcher),
            Some(SanType::IpAddress) => any(&self.addresses, matcher),
            None => {
                [&self.uris, &self.dns, &self.emails, &self.addresses].iter().any(|names| any(names, matcher))
            }
        })
    }

    /// For policies.
    pub(crate) fn names(&self) -> PeerNames<'_> {
        PeerNames { uris: &self.uris, dns: &self.dns, subject: &self.subject }
    }
}

/// The last relative name first (RFC 2253, 2.1).
fn rfc_2253(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for part in name.iter_rdn().collect::<Vec<_>>().into_iter().rev() {
        for (i, attribute) in part.iter().enumerate() {
            let between = match i {
                0 if text.is_empty() => "",
                0 => ",",
                _ => "+",
            };
            let kind = oid2abbrev(attribute.attr_type(), oid_registry())
                .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            text.push_str(between);
            text.push_str(&kind);
            text.push('=');
            escape(attribute.as_str().unwrap_or_default(), &mut text);
        }
    }
    text
}

/// RFC 2253, 2.4.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (i, character) in value.chars().enumerate() {
        let at_end = (i == 0 && matches!(character, ' ' | '#')) || (i == last && character == ' ');
        if at_end || matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            text.push('\\');
        }
        text.push(character);
    }
}

fn address(octets: &[u8]) -> Option<String> {
    let address = match octets.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?),
    };
    Some(address.to_string())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}
