//! Where configuration comes from, and by what workloads are known there.

use std::path::PathBuf;

use serde::Deserialize;

/// Where configuration comes from: exactly one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawControlPlane")]
pub enum ControlPlane {
    /// istiod, or another xDS server.
    Server {
        /// `HOST:PORT`.
        address: String,
        /// How it says what changed.
        protocol: Protocol,
        /// PEM file with the authorities that may have signed its certificate; plaintext without.
        root_certificate: Option<PathBuf>,
    },
    /// A directory of xDS files in Envoy's `path_config_source` form.
    Directory(PathBuf),
}

/// How an xDS server says what changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Protocol {
    /// Incremental.
    #[default]
    Delta,
    /// The state of the world each time.
    Sotw,
}

impl std::fmt::Display for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server { address, .. } => f.write_str(address),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawControlPlane {
    address: Option<String>,
    directory: Option<PathBuf>,
    protocol: Option<Protocol>,
    root_certificate: Option<PathBuf>,
}

impl TryFrom<RawControlPlane> for ControlPlane {
    type Error = String;
    fn try_from(raw: RawControlPlane) -> Result<Self, String> {
        let RawControlPlane { address, directory, protocol, root_certificate } = raw;
        match (address, directory) {
            (Some(address), None) => Ok(Self::Server {
                address: host_and_port("controlPlane.address", address)?,
                protocol: protocol.unwrap_or_default(),
                root_certificate,
            }),
            (None, Some(_)) if protocol.is_some() || root_certificate.is_some() => {
                Err("controlPlane: protocol and rootCertificate belong to an address".to_owned())
            }
            (None, Some(directory)) => Ok(Self::Directory(directory)),
            _ => Err("controlPlane: set exactly one of address and directory".to_owned()),
        }
    }
}

/// The address, if it is one.
pub(super) fn host_and_port(field: &str, address: String) -> Result<String, String> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p != 0) => Ok(address),
        _ => Err(format!("{field}: {address:?} is not HOST:PORT")),
    }
}

/// By what a workload shows the control plane, and the authority for certificates, who it is. A certificate is shown to its
/// peers as well.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawCredentials")]
pub enum Credentials {
    /// A file with a service account's token.
    Token(PathBuf),
    /// A certificate of its own.
    Certificate {
        /// PEM file: the chain, the workload's certificate first.
        certificate: PathBuf,
        /// PEM file: its key.
        key: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCredentials {
    token: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TryFrom<RawCredentials> for Credentials {
    type Error = String;
    fn try_from(raw: RawCredentials) -> Result<Self, String> {
        match (raw.token, raw.certificate, raw.key) {
            (Some(token), None, None) => Ok(Self::Token(token)),
            (None, Some(certificate), Some(key)) => Ok(Self::Certificate { certificate, key }),
            _ => Err("credentials: set either token, or certificate and key".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::{GOOD, refused};
    use super::super::{WorkloadId, parse};
    use super::*;

    #[test]
    fn control_plane_is_an_address_or_a_directory_not_both() {
        let error = refused(&GOOD.replace("{ address:", "{ directory: /xds, address:"));
        assert!(error.contains("controlPlane: set exactly one of address and directory"), "{error}");
        let error = refused(&GOOD.replace("127.0.0.1:15010", "127.0.0.1"));
        assert!(error.contains("controlPlane.address: \"127.0.0.1\" is not HOST:PORT"), "{error}");
    }

    #[test]
    fn the_protocol_is_delta_or_sotw() {
        let with = |protocol: &str| GOOD.replace("15010\" }", &format!("15010\", protocol: {protocol} }}"));

        let config = parse(Path::new("node.yaml"), &with("sotw")).unwrap();
        assert!(matches!(config.control_plane, ControlPlane::Server { protocol: Protocol::Sotw, .. }));

        let error = refused(&with("rest"));
        assert!(error.starts_with("node.yaml:3:"), "{error}");
        assert!(error.contains("controlPlane.protocol: unknown variant `rest`"), "{error}");
    }

    #[test]
    fn a_workload_has_a_token_or_a_certificate_with_its_key() {
        let tls = GOOD.replace("15010\" }", "15012\", rootCertificate: /root.pem }");
        let credentials = |text: &str| format!("{tls}    credentials: {text}\n");

        let config = parse(Path::new("node.yaml"), &credentials("{ token: /token }")).unwrap();
        let id = WorkloadId { namespace: "default".into(), name: "client-0".into() };
        assert_eq!(config.workloads.0[&id].credentials, Some(Credentials::Token("/token".into())));
        assert!(matches!(config.control_plane, ControlPlane::Server { root_certificate: Some(_), .. }));

        let error = refused(&credentials("{ token: /token, key: /key }"));
        let reason = "workloads[0]: credentials: set either token, or certificate and key";
        assert_eq!(error, format!("node.yaml:5:5: {reason}"));
    }

    #[test]
    fn nothing_secret_goes_over_plaintext() {
        let error = refused(&format!("{GOOD}    credentials: {{ token: /token }}\n"));
        assert!(error.contains("default/client-0: credentials need controlPlane.rootCertificate"), "{error}");
    }
}
