//! TLS towards endpoints: `UpstreamTlsContext`.

use std::cell::RefCell;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use orlop_plan::resource::cluster::UpstreamTransportSocket;
use orlop_plan::resource::endpoint::LbEndpoint;
use orlop_plan::resource::tls::UpstreamTlsContext;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::material::{MaterialError, Taking, Used};
use super::verifier::ServerVerifier;
use super::{Secrets, Stream, TlsFailure, alpn_protocols, parameters};

/// Sessions that are kept to be resumed: those with one server name, mostly.
const SESSIONS: usize = 8;

/// What a cluster's TLS contexts were made into, with the workload's secrets. Goes on from version to version of the cluster, so
/// that sessions are resumed and connections found again where its context has stayed the same.
#[derive(Debug, Default)]
pub(crate) struct ClientContexts(RefCell<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    context: Arc<UpstreamTlsContext>,
    used: Used,
    tls: Rc<ClientTls>,
}

/// A TLS context with its secrets. Connections that were made with the same one may stand for each other; no two workloads and no
/// two certificates have the same.
pub(crate) struct ClientTls {
    config: ClientConfig,
    server_name: Option<ServerName<'static>>,
    auto_host_sni: bool,
    /// By the ALPN that is offered.
    connectors: RefCell<Vec<(Vec<Vec<u8>>, TlsConnector)>>,
}

impl ClientContexts {
    /// What there is for a context; an error is said, and counted by whoever refuses the connection.
    pub(crate) fn get(
        &self,
        context: &Arc<UpstreamTlsContext>,
        secrets: &Secrets,
    ) -> Result<Rc<ClientTls>, CannotSpeak> {
        let mut entries = self.0.borrow_mut();
        let is_for = |entry: &Entry| Arc::ptr_eq(&entry.context, context) || entry.context == *context;
        let known = entries.iter().position(is_for);
        if let Some(entry) = known.and_then(|known| entries.get_mut(known))
            && entry.used.are_still_in(secrets)
        {
            return Ok(Rc::clone(&entry.tls));
        }
        let (tls, used) = ClientTls::new(context, secrets).map_err(|error| {
            tracing::debug!(%error, "TLS cannot be spoken to an endpoint");
            CannotSpeak
        })?;
        let entry = Entry { context: Arc::clone(context), used, tls: Rc::new(tls) };
        let tls = Rc::clone(&entry.tls);
        match known.and_then(|known| entries.get_mut(known)) {
            Some(before) => *before = entry,
            None => entries.push(entry),
        }
        Ok(tls)
    }

    /// Forgets all contexts but those that the cluster has now.
    pub(crate) fn retain(&self, socket: &UpstreamTransportSocket) {
        self.0.borrow_mut().retain(|entry| socket.contexts().any(|context| *context == entry.context));
    }
}

/// A secret is not there, or is of no use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CannotSpeak;

impl ClientTls {
    fn new(context: &UpstreamTlsContext, secrets: &Secrets) -> Result<(Self, Used), MaterialError> {
        let UpstreamTlsContext { common, sni, auto_host_sni, auto_sni_san_validation } = context;
        let provider = parameters::provider(&common.parameters);
        let mut taking = Taking::from(secrets);
        let certificates = taking.certificates(common, &provider)?;
        let expected = taking.expected(&common.validation)?;
        let verifier = ServerVerifier::new(expected, *auto_sni_san_validation, Arc::clone(&provider))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&parameters::versions(&common.parameters))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match certificates.into_iter().next() {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate)))
            }
        };
        config.alpn_protocols = alpn_protocols(&common.alpn_protocols);
        let server_name = (!sni.is_empty()).then(|| server_name(sni)).transpose()?;
        let this =
            Self { config, server_name, auto_host_sni: *auto_host_sni, connectors: RefCell::default() };
        Ok((this, taking.used()))
    }

    /// Whether the endpoint is shown a certificate.
    pub(crate) fn shows_certificate(&self) -> bool {
        self.config.client_auth_cert_resolver.has_certs()
    }

    /// Speaks TLS on a connection. `alpn` is offered in the place of the context's own.
    pub(crate) async fn connect(
        &self,
        endpoint: &LbEndpoint,
        alpn: Option<&[String]>,
        tcp: TcpStream,
    ) -> Result<Stream, TlsFailure> {
        let hostname = &endpoint.about.hostname;
        let by_host = (self.auto_host_sni && !hostname.is_empty()).then(|| server_name(hostname).ok());
        let name = by_host.flatten().or_else(|| self.server_name.clone());
        // An address is not sent as a name.
        let name = name.unwrap_or_else(|| nameless(endpoint.address.ip()));
        let connecting = self.connector(alpn).connect(name, tcp);
        Ok(Stream::Client(Box::new(connecting.await?)))
    }

    fn connector(&self, alpn: Option<&[String]>) -> TlsConnector {
        let alpn = alpn.map_or_else(|| self.config.alpn_protocols.clone(), alpn_protocols);
        let mut connectors = self.connectors.borrow_mut();
        if let Some((_, known)) = connectors.iter().find(|(offered, _)| *offered == alpn) {
            return known.clone();
        }
        let mut config = self.config.clone();
        config.alpn_protocols.clone_from(&alpn);
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let connector = TlsConnector::from(Arc::new(config));
        connectors.push((alpn, connector.clone()));
        connector
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, MaterialError> {
    ServerName::try_from(name.to_owned()).map_err(|_| MaterialError::ServerName(name.to_owned()))
}

fn nameless(address: IpAddr) -> ServerName<'static> {
    ServerName::IpAddress(address.into())
}
