//! TLS of filter chains: `DownstreamTlsContext`.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use orlop_plan::resource::tls::DownstreamTlsContext;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

use super::certificate::Certificate;
use super::material::{MaterialError, Taking, Used};
use super::verifier::ClientVerifier;
use super::{Secrets, Stream, TlsFailure, alpn_protocols, parameters};
use crate::listener::PrefixedStream;

/// What a pod's TLS contexts were made into, with its secrets. Equal ones are one, and resume each other's sessions.
#[derive(Debug, Default)]
pub(crate) struct ServerContexts(RefCell<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    /// Gone with the listener that it came with.
    context: Weak<DownstreamTlsContext>,
    used: Used,
    tls: Rc<ServerTls>,
}

/// A TLS context with its secrets.
#[derive(Debug)]
pub(crate) struct ServerTls {
    /// Chooses a protocol of the client's.
    with_alpn: Arc<ServerConfig>,
    /// For clients that offer nothing that is spoken: they are told nothing, as by Envoy, and not refused.
    without_alpn: Arc<ServerConfig>,
    require_sni: bool,
    own: Rc<Certificate>,
    verifies: bool,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// What is inside.
    pub(crate) stream: Stream,
    /// Who the client has shown to be, where it was verified.
    pub(crate) peer: Option<Certificate>,
    /// What the client was shown.
    pub(crate) own: Rc<Certificate>,
}

impl ServerContexts {
    /// What there is for a context; `None` is said, and counted by whoever refuses the connection.
    pub(crate) fn get(
        &self,
        context: &Arc<DownstreamTlsContext>,
        secrets: &Secrets,
    ) -> Option<Rc<ServerTls>> {
        let mut entries = self.0.borrow_mut();
        let known = entries.iter().position(|entry| {
            std::ptr::eq(entry.context.as_ptr(), Arc::as_ptr(context))
                || entry.context.upgrade().is_some_and(|known| known == *context)
        });
        if let Some(entry) = known.and_then(|known| entries.get_mut(known))
            && entry.used.are_still_in(secrets)
        {
            return Some(Rc::clone(&entry.tls));
        }
        let made = ServerTls::new(context, secrets);
        let (tls, used) =
            made.inspect_err(|error| tracing::debug!(%error, "TLS cannot be terminated")).ok()?;
        let entry = Entry { context: Arc::downgrade(context), used, tls: Rc::new(tls) };
        let tls = Rc::clone(&entry.tls);
        match known.and_then(|known| entries.get_mut(known)) {
            Some(before) => *before = entry,
            None => entries.push(entry),
        }
        Some(tls)
    }

    /// Forgets contexts that are in no plan any more.
    pub(crate) fn sweep(&self) {
        self.0.borrow_mut().retain(|entry| entry.context.strong_count() > 0);
    }
}

impl ServerTls {
    fn new(context: &DownstreamTlsContext, secrets: &Secrets) -> Result<(Self, Used), MaterialError> {
        let DownstreamTlsContext { common, require_client_certificate, require_sni } = context;
        let provider = parameters::provider(&common.parameters);
        let mut taking = Taking::from(secrets);
        let certificates = taking.certificates(common, &provider)?;
        if certificates.is_empty() {
            return Err(MaterialError::NothingToShow);
        }
        let expected = taking.expected(&common.validation)?;
        let asks = *require_client_certificate || expected.authorities.is_some();
        let clients = ClientVerifier::new(expected, *require_client_certificate, Arc::clone(&provider))?;
        let verifies = clients.verifies();
        let shown = certificates.first().and_then(|certified| certified.cert.first());
        let own = shown.and_then(|der| Certificate::read(der).ok()).unwrap_or_default();
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&parameters::versions(&common.parameters))?;
        let builder = if asks {
            builder.with_client_cert_verifier(Arc::new(clients))
        } else {
            builder.with_no_client_auth()
        };
        let without_alpn = builder.with_cert_resolver(Arc::new(Certificates(certificates)));
        let mut with_alpn = without_alpn.clone();
        with_alpn.alpn_protocols = alpn_protocols(&common.alpn_protocols);
        let this = Self {
            with_alpn: Arc::new(with_alpn),
            without_alpn: Arc::new(without_alpn),
            require_sni: *require_sni,
            own: Rc::new(own),
            verifies,
        };
        Ok((this, taking.used()))
    }

    fn config(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let spoken = |offer: &[u8]| self.with_alpn.alpn_protocols.iter().any(|protocol| protocol == offer);
        let overlaps = hello.alpn().is_some_and(|mut offers| offers.any(spoken));
        Arc::clone(if overlaps { &self.with_alpn } else { &self.without_alpn })
    }
}

/// Terminates TLS on a connection from which `prefix` was read already. A client that is refused is told by an alert.
pub(crate) async fn accept(
    tls: Rc<ServerTls>,
    prefix: Bytes,
    tcp: TcpStream,
) -> Result<Accepted, TlsFailure> {
    let io = PrefixedStream::new(prefix, tcp);
    let start = LazyConfigAcceptor::new(Acceptor::default(), io).await?;
    let hello = start.client_hello();
    if tls.require_sni && hello.server_name().is_none() {
        return Err(TlsFailure::NoServerName);
    }
    let config = tls.config(&hello);
    let stream = start.into_stream(config).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = shown.filter(|_| tls.verifies).and_then(|der| Certificate::read(der).ok());
    Ok(Accepted { stream: Stream::Server(Box::new(stream)), peer, own: Rc::clone(&tls.own) })
}

/// The first that can sign as the client asks.
#[derive(Debug)]
struct Certificates(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        self.0.iter().find(|certified| certified.key.choose_scheme(schemes).is_some()).cloned()
    }
}
