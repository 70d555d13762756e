//! Who is who in the cluster: its authority, the certificates of its parts, and the files by which they find the API server.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

/// Where the API server is found: at the first node.
pub(super) const API_SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The address of the service `kubernetes`.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// Writes to `dir` what `node.sh` expects there, for `nodes` nodes.
pub(super) fn write(dir: &Path, nodes: u8) -> Result<()> {
    fs::create_dir_all(dir)?;
    let authority = Authority::new(dir)?;
    let addresses = |list: &[Ipv4Addr]| list.iter().map(|a| SanType::IpAddress(IpAddr::V4(*a))).collect();
    let mut api_server: Vec<SanType> = addresses(&[Ipv4Addr::LOCALHOST, API_SERVICE, API_SERVER]);
    for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"] {
        api_server.push(SanType::DnsName(name.try_into()?));
    }
    authority.issue("apiserver", "kube-apiserver", None, api_server)?;
    let accounts = KeyPair::generate()?;
    fs::write(dir.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(dir.join("accounts.pub"), accounts.public_key_pem())?;
    for (file, name, group) in [
        ("admin", "admin", Some(MASTERS)),
        ("controllers", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("kube-proxy", "system:kube-proxy", None),
    ] {
        authority.issue(file, name, group, Vec::new())?;
        authority.kubeconfig(file)?;
    }
    for index in 1..=nodes {
        let node = format!("node{index}");
        let mut names: Vec<SanType> = addresses(&[Ipv4Addr::LOCALHOST, super::node_address(index)]);
        names.push(SanType::DnsName(node.as_str().try_into()?));
        authority.issue(&node, &format!("system:node:{node}"), Some("system:nodes"), names)?;
        authority.kubeconfig(&node)?;
    }
    Ok(())
}

struct Authority<'a> {
    dir: &'a Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'a> Authority<'a> {
    fn new(dir: &'a Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "orlop's test cluster");
        let key = KeyPair::generate()?;
        fs::write(dir.join("ca.crt"), params.self_signed(&key)?.pem())?;
        Ok(Self { dir, issuer: Issuer::new(params, key) })
    }

    /// `FILE.crt` and `FILE.key`, for whoever the API server is to know by that name and group.
    fn issue(&self, file: &str, name: &str, group: Option<&str>, names: Vec<SanType>) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        fs::write(self.dir.join(format!("{file}.crt")), params.signed_by(&key, &self.issuer)?.pem())?;
        Ok(fs::write(self.dir.join(format!("{file}.key")), key.serialize_pem())?)
    }

    fn kubeconfig(&self, file: &str) -> Result<()> {
        let path = |kind: &str| self.dir.join(format!("{file}.{kind}"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "cluster",
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": file}}],
            "clusters": [{"name": "cluster", "cluster": {
                "server": format!("https://{API_SERVER}:6443"),
                "certificate-authority": self.dir.join("ca.crt"),
            }}],
            "users": [{"name": file, "user": {
                "client-certificate": path("crt"), "client-key": path("key"),
            }}],
        });
        Ok(fs::write(path("kubeconfig"), serde_json::to_vec(&config)?)?)
    }
}
