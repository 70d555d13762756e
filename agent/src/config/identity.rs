//! Where the workloads' certificates come from.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::control_plane::{ControlPlane, host_and_port};

/// Where the workloads' certificates come from. Where the section is missing, they have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `HOST:PORT` of the mesh's authority for certificates.
    pub certificate_authority: String,
    /// PEM file with the authorities that may have signed its own certificate, and those of workloads that come from files.
    pub root_certificate: PathBuf,
    /// File with the token of the node's own service account, by which certificates for workloads are asked for; each
    /// workload's own token without.
    pub token: Option<PathBuf>,
    /// Where the authority does not trust the node's account: tokens of the pods' own accounts may be asked for, of the API
    /// server, bound to the pod.
    pub pod_tokens: bool,
    /// How long certificates should be valid; the authority may decide otherwise.
    pub certificate_lifetime: Duration,
    /// How workloads of this node know one another.
    pub same_node: SameNode,
}

/// How workloads of one node, which have certificates, know one another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SameNode {
    /// By mutual TLS, as everywhere.
    #[default]
    Tls,
    /// Where nothing but connections is asked for, the kernel attests who connects, and TLS is saved.
    Attested,
}

/// As it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawIdentity {
    certificate_authority: Option<String>,
    root_certificate: Option<PathBuf>,
    token: Option<PathBuf>,
    #[serde(default)]
    pod_tokens: bool,
    certificate_lifetime_seconds: Option<NonZeroU32>,
    #[serde(default)]
    same_node: SameNode,
}

/// As Istio's proxies ask for (`SECRET_TTL`).
const LIFETIME: Duration = Duration::from_hours(24);

impl RawIdentity {
    /// What is not said is the control plane's.
    pub(super) fn resolve(self, control_plane: &ControlPlane) -> Result<Identity, String> {
        let (address, root) = match control_plane {
            ControlPlane::Server { address, root_certificate, .. } => {
                (Some(address), root_certificate.as_ref())
            }
            ControlPlane::Directory(_) => (None, None),
        };
        let certificate_authority = match self.certificate_authority {
            Some(address) => host_and_port("identity.certificateAuthority", address)?,
            None => {
                address.cloned().ok_or("identity.certificateAuthority: controlPlane has no address to use")?
            }
        };
        let root_certificate = self.root_certificate.or_else(|| root.cloned()).ok_or(
            "identity.rootCertificate: controlPlane has none to use, and certificates come by TLS only",
        )?;
        let lifetime =
            self.certificate_lifetime_seconds.map(|seconds| Duration::from_secs(seconds.get().into()));
        Ok(Identity {
            certificate_authority,
            root_certificate,
            token: self.token,
            pod_tokens: self.pod_tokens,
            certificate_lifetime: lifetime.unwrap_or(LIFETIME),
            same_node: self.same_node,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::parse;
    use super::super::tests::{GOOD, refused};
    use super::*;

    fn secure() -> String {
        GOOD.replace("127.0.0.1:15010\" }", "istiod:15012\", rootCertificate: /root.pem }")
    }

    #[test]
    fn without_the_section_there_are_no_certificates() {
        assert_eq!(parse(Path::new("node.yaml"), GOOD).unwrap().identity, None);
    }

    #[test]
    fn what_is_not_said_is_the_control_planes() {
        let identity = |yaml: &str| parse(Path::new("node.yaml"), yaml).unwrap().identity.unwrap();
        let expected = Identity {
            certificate_authority: "istiod:15012".to_owned(),
            root_certificate: "/root.pem".into(),
            token: Some("/token".into()),
            pod_tokens: false,
            certificate_lifetime: LIFETIME,
            same_node: SameNode::Tls,
        };
        assert_eq!(identity(&format!("{}identity: {{ token: /token }}\n", secure())), expected);

        let all = "identity: { certificateAuthority: \"ca:1\", rootCertificate: /ca.pem, certificateLifetimeSeconds: 60, sameNode: attested }\n";
        let expected = Identity {
            certificate_authority: "ca:1".to_owned(),
            root_certificate: "/ca.pem".into(),
            token: None,
            pod_tokens: false,
            certificate_lifetime: Duration::from_mins(1),
            same_node: SameNode::Attested,
        };
        assert_eq!(identity(&format!("{GOOD}{all}")), expected);
    }

    #[test]
    fn an_authority_needs_an_address_and_a_root() {
        let error = refused(&format!("{GOOD}identity: {{ token: /token }}\n"));
        assert!(error.starts_with("node.yaml:"), "{error}");
        assert!(error.contains("identity.rootCertificate: controlPlane has none to use"), "{error}");

        let directory = GOOD.replace("address: \"127.0.0.1:15010\"", "directory: /xds");
        let error = refused(&format!("{directory}identity: {{ rootCertificate: /ca.pem }}\n"));
        assert!(
            error.contains("identity.certificateAuthority: controlPlane has no address to use"),
            "{error}"
        );

        let error = refused(&format!("{}identity: {{ certificateAuthority: ca }}\n", secure()));
        assert!(error.contains("identity.certificateAuthority: \"ca\" is not HOST:PORT"), "{error}");
    }

    #[test]
    fn what_the_section_does_not_know_names_line_and_field() {
        let error = refused(&format!("{}identity: {{ tokens: /token }}\n", secure()));
        assert!(error.starts_with("node.yaml:12:"), "{error}");
        assert!(error.contains("identity: unknown field `tokens`"), "{error}");
        let error = refused(&format!("{}identity: {{ certificateLifetimeSeconds: 0 }}\n", secure()));
        assert!(error.contains("identity.certificateLifetimeSeconds: invalid value: integer `0`"), "{error}");
    }
}
