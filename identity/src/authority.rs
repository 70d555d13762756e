//! The certificate authority over gRPC: `istio.v1.auth.IstioCertificateService`, always in TLS.
//!
//! A node that shows its own token asks for others (`ImpersonatedIdentity`, as Istio's ztunnel does): the authority checks
//! that one of theirs runs on the token's node. Without, each workload's own token is shown. All calls share a
//! connection; the files are read for every call, so new ones take effect without a restart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use orlop_proto::certificate::{IstioCertificateRequest, IstioCertificateResponse};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::answer::Answer;
use crate::certificate::{Flaw, Identity};
use crate::error::Error;
use crate::files::{read, read_secret};
use crate::key::NewKey;
use crate::spiffe::SpiffeId;

const METHOD: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// In the request's metadata: whose certificate a node asks for.
const IMPERSONATED: &str = "ImpersonatedIdentity";
/// What istiod's certificate is for, where only its IP address is known.
const ISTIOD: &str = "istiod.istio-system.svc";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the whole call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A chain with its roots has some kilobytes.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// Where certificates come from.
#[derive(Debug, Clone)]
pub struct AuthorityOptions {
    /// `HOST:PORT`.
    pub address: String,
    /// PEM file: who may have signed the authority's own certificate.
    pub root_certificate: PathBuf,
    /// The cluster that tokens are of.
    pub cluster: String,
    /// How long certificates should be valid; the authority may decide otherwise.
    pub lifetime: Duration,
}

/// The authority, and the connection to it.
#[derive(Debug)]
pub(crate) struct Authority {
    options: AuthorityOptions,
    endpoint: Endpoint,
    server_name: String,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    /// What it was made with.
    roots: Vec<u8>,
    channel: Channel,
}

/// A certificate that was checked, and the roots that came with it.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) identity: Identity,
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

/// By what the authority is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Token {
    /// The node's, for one of its workloads.
    Node(PathBuf),
    /// The workload's own.
    Workload(PathBuf),
}

impl Token {
    fn file(&self) -> &Path {
        let (Self::Node(file) | Self::Workload(file)) = self;
        file
    }
}

impl Authority {
    /// Connects when it is first asked.
    pub(crate) fn new(options: AuthorityOptions) -> Result<Self, Error> {
        let address = || Error::Address { address: options.address.clone() };
        let endpoint = Endpoint::from_shared(format!("https://{}", options.address))
            .ok()
            .filter(|endpoint| endpoint.uri().port().is_some())
            .ok_or_else(address)?
            .connect_timeout(CONNECT_TIMEOUT);
        let host = endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']);
        let server_name = if host.parse::<IpAddr>().is_ok() { ISTIOD } else { host }.to_owned();
        Ok(Self { options, endpoint, server_name, connection: None })
    }

    /// Makes a key and everything that is to be sent.
    pub(crate) fn call(&mut self, id: &SpiffeId, token: &Token) -> Result<Call, Error> {
        let channel = self.channel()?;
        let key = NewKey::generate()?;
        let impersonates = matches!(token, Token::Node(_));
        let mut request = Request::new(IstioCertificateRequest {
            csr: key.request(id)?,
            validity_duration: i64::try_from(self.options.lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: impersonates.then(|| impersonated(id)),
        });
        request.metadata_mut().insert("authorization", authorization(token.file())?);
        if let Ok(cluster) = self.options.cluster.parse() {
            request.metadata_mut().insert("clusterid", cluster);
        }
        let (id, address) = (id.clone(), self.options.address.clone());
        Ok(Call { channel, request, key, id, address, token: token.file().to_owned(), impersonates })
    }

    /// The next call has a connection of its own: the one that is there may be dead, which TCP tells late.
    pub(crate) fn reconnect(&mut self) {
        self.connection = None;
    }

    fn channel(&mut self) -> Result<Channel, Error> {
        let roots = read(&self.options.root_certificate)?;
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.roots == roots) {
            return Ok(connection.channel.clone());
        }
        let tls = ClientTlsConfig::new()
            .domain_name(&self.server_name)
            .ca_certificate(Certificate::from_pem(&roots));
        let file = || self.options.root_certificate.clone();
        let endpoint = self.endpoint.clone().tls_config(tls);
        let channel = endpoint.map_err(|source| Error::Roots { file: file(), source })?.connect_lazy();
        self.connection = Some(Connection { roots, channel: channel.clone() });
        Ok(channel)
    }
}

/// One call on its way. Its key goes with it.
#[derive(Debug)]
pub(crate) struct Call {
    channel: Channel,
    request: Request<IstioCertificateRequest>,
    key: NewKey,
    id: SpiffeId,
    address: String,
    token: PathBuf,
    impersonates: bool,
}

impl Call {
    /// Asks, and checks what is answered.
    pub(crate) async fn run(self) -> Result<Issued, Error> {
        let Self { channel, request, key, id, address, token, impersonates } = self;
        let answer = match timeout(CALL_TIMEOUT, create_certificate(channel, request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(status)) => {
                return Err(Error::Status { address, status: Box::new(status), token, impersonates });
            }
            Err(_) => return Err(Error::Silent { address, after: CALL_TIMEOUT }),
        };
        let checked = || -> Result<Issued, Flaw> {
            let Answer { chain, roots } = Answer::parse(&answer.cert_chain)?;
            let identity = Identity::check(&id, chain, key.into_der(), &roots, SystemTime::now())?;
            Ok(Issued { identity, roots })
        };
        checked().map_err(|flaw| Error::Answer { address, flaw })
    }
}

async fn create_certificate(
    channel: Channel,
    request: Request<IstioCertificateRequest>,
) -> Result<IstioCertificateResponse, Status> {
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let codec = ProstCodec::<IstioCertificateRequest, IstioCertificateResponse>::default();
    let method = http::uri::PathAndQuery::from_static(METHOD);
    Ok(client.unary(request, method, codec).await?.into_inner())
}

fn impersonated(id: &SpiffeId) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(id.to_string())) };
    Struct { fields: HashMap::from([(IMPERSONATED.to_owned(), value)]) }
}

fn authorization(file: &Path) -> Result<MetadataValue<Ascii>, Error> {
    let text = read_secret(file)?;
    let token = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .ok()
        .filter(|_| !token.is_empty())
        .ok_or_else(|| Error::NoToken { file: file.to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}
