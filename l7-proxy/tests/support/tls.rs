//! Certificates of an authority made for the test, contexts as istiod writes them, and peers that speak TLS by `rustls`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};

use orlop_plan::proxy::ProxyPlan;
use orlop_plan::resource::matcher::{StringMatcher, StringPattern};
use orlop_plan::resource::secret::{CertificateValidationContext, Secret};
use orlop_plan::resource::tls::{
    CertificateSource, CommonTlsContext, DownstreamTlsContext, SanType, SecretSource, SubjectAltNameMatcher,
    UpstreamTlsContext, Validation,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::tcp::serve;

pub const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";
pub const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";
pub const SNI: &str = "outbound_.8080_._.web.default.svc.cluster.local";

pub struct Authority {
    pub certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Issued {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).unwrap()
    }
}

impl Authority {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::default();
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn issue(&self, identity: &str) -> Issued {
        self.issue_until(identity, 2100)
    }

    /// A certificate that is good until that year.
    pub fn issue_until(&self, identity: &str, year: i32) -> Issued {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(identity.try_into().unwrap())];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Issued { certificate, key: key.serialize_der() }
    }

    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }
}

/// Gives a plan the workload's identity and the mesh's authorities.
pub fn with_identity(mut plan: ProxyPlan, own: &Issued, trusted: &Authority) -> ProxyPlan {
    let secrets = Arc::make_mut(&mut plan.secrets);
    for secret in [
        Secret::certificate("default", vec![own.certificate.clone()], own.key()),
        Secret::trusted_ca("ROOTCA", vec![trusted.certificate.clone()]),
    ] {
        secrets.insert(SecretSource::Node(Arc::clone(&secret.name)), Arc::new(secret));
    }
    plan
}

fn common(pattern: StringPattern, alpn: &[&str]) -> CommonTlsContext {
    let matcher = StringMatcher { pattern, ignore_case: false };
    CommonTlsContext {
        certificates: vec![CertificateSource::Sds(SecretSource::Node("default".into()))],
        validation: Validation {
            context: CertificateValidationContext {
                subject_alt_names: vec![SubjectAltNameMatcher { san_type: Some(SanType::Uri), matcher }],
                ..CertificateValidationContext::default()
            },
            secret: Some(SecretSource::Node("ROOTCA".into())),
        },
        alpn_protocols: alpn.iter().map(ToString::to_string).collect(),
        ..CommonTlsContext::default()
    }
}

/// `ISTIO_MUTUAL` to a service whose account has this identity.
pub fn upstream(identity: &str) -> Arc<UpstreamTlsContext> {
    Arc::new(UpstreamTlsContext {
        common: common(StringPattern::Exact(identity.to_owned()), &["istio-peer-exchange", "istio"]),
        sni: SNI.to_owned(),
        ..UpstreamTlsContext::default()
    })
}

/// Mutual TLS with whoever is of the trust domain.
pub fn downstream(alpn: &[&str]) -> Arc<DownstreamTlsContext> {
    Arc::new(DownstreamTlsContext {
        common: common(StringPattern::Prefix("spiffe://cluster.local/".to_owned()), alpn),
        require_client_certificate: true,
        require_sni: false,
    })
}

/// What a server saw of a client.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub sni: Option<String>,
    pub alpn: Option<String>,
    pub certificate: Option<CertificateDer<'static>>,
    pub resumed: bool,
}

/// A server that requires a certificate of its authority, chooses among these protocols, and hands every connection to `serve`.
pub fn serve_tls(
    listener: TcpListener,
    own: &Issued,
    trusted: &Authority,
    alpn: &[&str],
    handler: impl Fn(StreamOwned<ServerConnection, TcpStream>) + Clone + Send + 'static,
) -> mpsc::Receiver<Seen> {
    let provider = Arc::new(default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted.roots()), provider.clone());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![own.certificate.clone()], own.key())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let config = Arc::new(config);
    let (send, seen) = mpsc::channel();
    serve(listener, move |mut tcp, _| {
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        while connection.is_handshaking() {
            if connection.complete_io(&mut tcp).is_err() {
                return;
            }
        }
        let _seen = send.send(Seen {
            sni: connection.server_name().map(str::to_owned),
            alpn: connection.alpn_protocol().map(|name| String::from_utf8(name.to_vec()).unwrap()),
            certificate: connection.peer_certificates().map(|chain| chain[0].clone().into_owned()),
            resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        });
        handler(StreamOwned::new(connection, tcp));
    });
    seen
}

/// Sends back what it gets, and ends when the client does.
pub fn echo(mut tls: StreamOwned<ServerConnection, TcpStream>) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = tls.read(&mut buffer) {
        if tls.write_all(&buffer[..n]).and_then(|()| tls.flush()).is_err() {
            return;
        }
    }
    tls.conn.send_close_notify();
    let _flushed = tls.flush();
}

pub type TlsClient = StreamOwned<ClientConnection, TcpStream>;

/// Speaks TLS with a server of `trusted`, with a certificate or without. An error is what the handshake, or the server after it,
/// said.
pub fn connect_tls(
    mut tcp: TcpStream,
    trusted: &Authority,
    own: Option<&Issued>,
    alpn: &[&str],
) -> std::io::Result<TlsClient> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OfAuthority(trusted.roots())));
    let mut config = match own {
        Some(own) => builder.with_client_auth_cert(vec![own.certificate.clone()], own.key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(SNI).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    Ok(StreamOwned::new(connection, tcp))
}

/// What a peer says that refuses a client, be it only after the client has finished its part of the handshake.
pub fn refusal(connected: std::io::Result<TlsClient>) -> String {
    let error = match connected {
        Err(error) => error,
        Ok(mut client) => client.read(&mut [0]).map(|n| panic!("{n} bytes")).unwrap_err(),
    };
    error.to_string()
}

/// Trusts whoever the authority has issued a certificate to: SPIFFE identities are no host names.
#[derive(Debug)]
struct OfAuthority(RootCertStore);

impl rustls::client::danger::ServerCertVerifier for OfAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &rustls::server::ParsedCertificate::try_from(end_entity)?,
            &self.0,
            intermediates,
            now,
            default_provider().signature_verification_algorithms.all,
        )?;
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
