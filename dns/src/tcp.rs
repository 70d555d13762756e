//! DNS over TCP (RFC 7766).
//!
//! The first question that is not the node's to answer opens a connection to whom the application asked. From then on
//! whatever comes from there goes to the client, message by message between the node's own answers: clients may ask several
//! questions at once and take the answers in any order, and a zone transfer is many answers to one question.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::answer::{Carrier, server_failure};
use crate::forward::connect;
use crate::messages::{Messages, write};
use crate::pod::Pod;
use crate::resolve::Resolution;

/// Connections of a pod at a time; more wait in the kernel.
const CONNECTIONS: usize = 64;
/// A connection on which nothing happens this long is closed, as resolvers do (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);
/// How long to wait where the node is out of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves until aborted; the connections end with it.
pub(crate) async fn serve(listener: Arc<TcpListener>, pod: Arc<Pod>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    // The semaphore is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, Arc::clone(&pod), place));
            }
            Err(error) => {
                warn!(%error, "DNS over TCP: accept failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, pod: Arc<Pod>, _place: OwnedSemaphorePermit) {
    let served = async {
        // The address that the client asked for is the socket's own.
        let asked = stream.local_addr()?;
        Connection::new(stream, asked, pod).serve().await
    };
    // What goes wrong here is the client's doing, or the resolver's, and the client sees it.
    if let Err(error) = served.await {
        debug!(%error, "DNS over TCP: a connection ended");
    }
}

struct Connection {
    pod: Arc<Pod>,
    asked: SocketAddr,
    questions: Messages<OwnedReadHalf>,
    client: OwnedWriteHalf,
    resolver: Option<Resolver>,
    /// The client has said that it asks no more.
    asks: bool,
}

/// The connection to whom the application asked.
struct Resolver {
    answers: Messages<OwnedReadHalf>,
    questions: OwnedWriteHalf,
}

impl Connection {
    fn new(stream: TcpStream, asked: SocketAddr, pod: Arc<Pod>) -> Self {
        let (questions, client) = stream.into_split();
        Self { pod, asked, questions: Messages::new(questions), client, resolver: None, asks: true }
    }

    async fn serve(mut self) -> io::Result<()> {
        while self.asks || self.resolver.is_some() {
            let answers = async {
                match &mut self.resolver {
                    Some(resolver) => resolver.answers.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                question = self.questions.next(), if self.asks => match question? {
                    Some(question) => timeout(IDLE, self.question(&question)).await??,
                    None => self.no_more_questions().await?,
                },
                answer = answers => match answer? {
                    Some(answer) => timeout(IDLE, write(&mut self.client, &answer)).await??,
                    // With it go the questions that it has not answered: the client may ask again.
                    None => return Ok(()),
                },
                () = tokio::time::sleep(IDLE) => return Ok(()),
            }
        }
        Ok(())
    }

    async fn question(&mut self, question: &[u8]) -> io::Result<()> {
        match self.pod.resolve(question, Carrier::Tcp) {
            Resolution::Answer(answer) => write(&mut self.client, &answer).await,
            Resolution::Malformed => Err(io::ErrorKind::InvalidData.into()),
            Resolution::Forward => match self.forward(question).await {
                Ok(()) => Ok(()),
                Err(error) => {
                    debug!(%error, asked = %self.asked, "a question could not be forwarded");
                    self.pod.counters.failed.inc();
                    match server_failure(question) {
                        Some(answer) => write(&mut self.client, &answer).await,
                        None => Err(error),
                    }
                }
            },
        }
    }

    async fn forward(&mut self, question: &[u8]) -> io::Result<()> {
        let resolver = match &mut self.resolver {
            Some(resolver) => resolver,
            none => {
                let (answers, questions) = connect(&self.pod, self.asked).await?.into_split();
                none.insert(Resolver { answers: Messages::new(answers), questions })
            }
        };
        self.pod.counters.forwarded.inc();
        write(&mut resolver.questions, question).await
    }

    async fn no_more_questions(&mut self) -> io::Result<()> {
        self.asks = false;
        match &mut self.resolver {
            Some(resolver) => resolver.questions.shutdown().await,
            None => Ok(()),
        }
    }
}
