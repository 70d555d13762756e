//! A certificate authority that answers as a test tells it, in TLS, in the same process.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use orlop_identity::{AuthorityOptions, Identities};
use orlop_proto::certificate::{IstioCertificateRequest, IstioCertificateResponse};
use prost::Message;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::mesh::Mesh;

/// One request as the authority saw it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) authorization: String,
    pub(crate) cluster: String,
    /// The name in the signing request.
    pub(crate) uri: String,
    pub(crate) impersonated: Option<String>,
    pub(crate) lifetime: Duration,
    pub(crate) key: PublicKey,
}

/// The key that a certificate is wanted for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Elements of the answer, or a gRPC status.
pub(crate) type Answer = Result<Vec<String>, (u16, &'static str)>;
type Answers = Box<dyn Fn(&Asked) -> Answer + Send>;

pub(crate) struct Authority {
    pub(crate) dir: TempDir,
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<Option<Answers>>,
    asked: Mutex<Vec<Asked>>,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Authority {
    /// Its own certificate is of `mesh`.
    pub(crate) async fn start(mesh: &Mesh, answers: impl Fn(&Asked) -> Answer + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("root.pem"), &mesh.root).unwrap();
        let (certificate, key) = mesh.server("istiod.istio-system.svc");
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let this = Self { dir, address, shared: Arc::clone(&shared) };
        this.answer(answers);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(connection) = acceptor.accept(connection).await else { return };
                    let service = service_fn(move |request| serve(request, Arc::clone(&shared)));
                    let serve = http2::Builder::new(TokioExecutor::new());
                    // Its end is the client's business.
                    let _ = serve.serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        this
    }

    /// From now on.
    pub(crate) fn answer(&self, answers: impl Fn(&Asked) -> Answer + Send + 'static) {
        *self.shared.answers.lock().unwrap() = Some(Box::new(answers));
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The most requests that were under way at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    pub(crate) fn identities(&self) -> Identities {
        let options = AuthorityOptions {
            address: self.address.to_string(),
            root_certificate: self.dir.path().join("root.pem"),
            cluster: "cluster-1".to_owned(),
            lifetime: Duration::from_hours(24),
        };
        Identities::start(options).unwrap()
    }

    /// A file beside the others.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

/// A certificate as it is compared.
pub(crate) fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

async fn serve(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, hyper::Error> {
    let under_way = shared.under_way.fetch_add(1, Ordering::SeqCst) + 1;
    shared.most.fetch_max(under_way, Ordering::SeqCst);
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (authorization, cluster) = (header("authorization"), header("clusterid"));
    let body = request.into_body().collect().await?.to_bytes();
    // The message follows a flag and its length.
    let message = IstioCertificateRequest::decode(body.slice(5..)).unwrap();
    let asked = describe(message, authorization, cluster);
    // Others that come meanwhile are under way at once.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let answer = shared.answers.lock().unwrap().as_ref().unwrap()(&asked);
    shared.asked.lock().unwrap().push(asked);
    shared.under_way.fetch_sub(1, Ordering::SeqCst);
    let mut trailers = HeaderMap::new();
    let mut framed = Vec::new();
    match answer {
        Ok(cert_chain) => {
            let message = IstioCertificateResponse { cert_chain }.encode_to_vec();
            framed.push(0);
            framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            framed.extend(message);
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
        }
        Err((code, text)) => {
            trailers.insert("grpc-status", code.into());
            trailers.insert("grpc-message", HeaderValue::from_static(text));
        }
    }
    let body = Full::from(framed).map_err(|never| match never {});
    let body = body.with_trailers(async move { Some(Ok(trailers)) }).boxed();
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

fn describe(message: IstioCertificateRequest, authorization: String, cluster: String) -> Asked {
    let der = CertificateSigningRequestDer::from_pem_slice(message.csr.as_bytes()).unwrap();
    let (_, request) = X509CertificationRequest::from_der(&der).unwrap();
    let names = request.requested_extensions().unwrap().find_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(names),
        _ => None,
    });
    let [GeneralName::URI(uri)] = names.unwrap().general_names[..] else { panic!("one URI") };
    let impersonated = message.metadata.map(|metadata| {
        let value = metadata.fields["ImpersonatedIdentity"].kind.clone().unwrap();
        let envoy_types::pb::google::protobuf::value::Kind::StringValue(text) = value else { panic!("text") };
        text
    });
    Asked {
        authorization,
        cluster,
        uri: uri.to_owned(),
        impersonated,
        lifetime: Duration::from_secs(message.validity_duration.try_into().unwrap()),
        key: PublicKey(
            request.certification_request_info.subject_pki.subject_public_key.data.clone().into_owned(),
        ),
    }
}
