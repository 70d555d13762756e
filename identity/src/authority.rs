//! The certificate authority over gRPC: `istio.v1.auth.IstioCertificateService`, always in TLS.
//!
//! A node that shows its own token asks for others (`ImpersonatedIdentity`, as Istio's ztunnel does): the authority checks
//! that one of theirs runs on the token's node. Without, or where the authority does not trust the node, each workload's own
//! token is shown. All calls share a connection; the files are read for every call, so new ones take effect without a restart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use orlop_proto::certificate::{IstioCertificateRequest, IstioCertificateResponse};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::answer::Answer;
use crate::certificate::{Flaw, Identity};
use crate::error::Error;
use crate::files::{read, read_secret};
use crate::key::NewKey;
use crate::spiffe::SpiffeId;
use crate::token::{Shown, TokenSource, bearer};

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
    /// By what; nothing, where it was a file's.
    pub(crate) shown: Option<Shown>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
}

/// By what the authority is asked.
#[derive(Debug, Clone)]
pub(crate) enum Token {
    /// The node's, for one of its workloads; the workload's own where the authority does not take that.
    Node(PathBuf, Option<Arc<dyn TokenSource>>),
    /// The workload's own.
    Workload(PathBuf),
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
        let (file, own, impersonates) = match token {
            Token::Node(file, own) => (file, own.clone(), true),
            Token::Workload(file) => (file, None, false),
        };
        Ok(Call {
            channel,
            csr: key.request(id)?,
            key,
            id: id.clone(),
            options: self.options.clone(),
            token: file.clone(),
            authorization: bearer(&read_secret(file)?)
                .ok_or_else(|| Error::NoToken { file: file.clone() })?,
            impersonates,
            own,
        })
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
    csr: String,
    key: NewKey,
    id: SpiffeId,
    options: AuthorityOptions,
    token: PathBuf,
    authorization: MetadataValue<Ascii>,
    impersonates: bool,
    own: Option<Arc<dyn TokenSource>>,
}

impl Call {
    /// Asks, and checks what is answered.
    pub(crate) async fn run(self) -> Result<Issued, Error> {
        let refused = match self.ask(&self.authorization, self.impersonates).await {
            Err(Error::Status { status, .. })
                if status.code() == Code::Unauthenticated && self.own.is_some() =>
            {
                status
            }
            answer => {
                let shown = if self.impersonates { Shown::NodeToken } else { Shown::WorkloadToken };
                return self.check(&answer?, shown);
            }
        };
        let Some(own) = &self.own else { return Err(self.refused(refused, true)) };
        // The authority does not take the node's: it may come to that later, so each certificate is asked for in both ways.
        let because = refused.message().to_owned();
        let token = own.token().await.map_err(|reason| Error::OwnToken {
            address: self.options.address.clone(),
            refused: because.clone(),
            reason,
        })?;
        let authorization =
            bearer(token.as_bytes()).ok_or_else(|| Error::NoToken { file: self.token.clone() })?;
        let answer = self.ask(&authorization, false).await?;
        self.check(&answer, Shown::OwnToken { because })
    }

    async fn ask(
        &self,
        authorization: &MetadataValue<Ascii>,
        impersonates: bool,
    ) -> Result<IstioCertificateResponse, Error> {
        let mut request = Request::new(IstioCertificateRequest {
            csr: self.csr.clone(),
            validity_duration: i64::try_from(self.options.lifetime.as_secs()).unwrap_or(i64::MAX),
            metadata: impersonates.then(|| impersonated(&self.id)),
        });
        request.metadata_mut().insert("authorization", authorization.clone());
        if let Ok(cluster) = self.options.cluster.parse() {
            request.metadata_mut().insert("clusterid", cluster);
        }
        match timeout(CALL_TIMEOUT, create_certificate(self.channel.clone(), request)).await {
            Ok(answer) => answer.map_err(|status| self.refused(Box::new(status), impersonates)),
            Err(_) => Err(Error::Silent { address: self.options.address.clone(), after: CALL_TIMEOUT }),
        }
    }

    fn refused(&self, status: Box<Status>, impersonates: bool) -> Error {
        let (address, token) = (self.options.address.clone(), self.token.clone());
        Error::Status { address, status, token, impersonates }
    }

    fn check(self, answer: &IstioCertificateResponse, shown: Shown) -> Result<Issued, Error> {
        let Self { key, id, options, .. } = self;
        let checked = || -> Result<Issued, Flaw> {
            let Answer { chain, roots } = Answer::parse(&answer.cert_chain)?;
            let identity = Identity::check(&id, chain, key.into_der(), &roots, SystemTime::now())?;
            Ok(Issued { identity, shown: Some(shown), roots })
        };
        checked().map_err(|flaw| Error::Answer { address: options.address, flaw })
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
