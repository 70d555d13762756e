//! The workloads' certificates: from the mesh's authority or from files, checked, kept and renewed.
//!
//! [`Identities`] owns them in a task of its own; who subscribes for a workload is told of its certificate, of the roots to
//! trust, and of what went wrong, whenever that changes. Private keys are made here, stay in memory, and are wiped when the
//! last who holds them lets go; nothing prints or writes them.

mod answer;
mod authority;
mod bundle;
mod certificate;
mod details;
mod error;
mod files;
#[cfg(fuzzing)]
pub mod fuzz;
mod keeper;
mod key;
mod schedule;
mod spiffe;
mod state;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use authority::AuthorityOptions;
pub use certificate::{Flaw, Identity};
pub use details::CertificateDetails;
pub use error::Error;
pub use spiffe::SpiffeId;
pub use state::{State, Subscription};
pub use token::{Shown, TokenSource};

use authority::{Authority, Token};
use files::Paths;
use keeper::{Command, Keeper, Source};

/// By what a workload gets its certificate.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The node asks for it with its own token; where the authority does not take that, with one of the workload's own.
    NodeToken(PathBuf, Option<Arc<dyn TokenSource>>),
    /// It is asked for with the workload's own.
    WorkloadToken(PathBuf),
    /// It is there, in PEM, and somebody else renews it.
    Files {
        /// The chain, the workload's own certificate first.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
}

/// The certificates of a node. Ends with this handle.
#[derive(Debug)]
pub struct Identities {
    root_certificate: PathBuf,
    commands: mpsc::UnboundedSender<Command>,
    subscriptions: u64,
    task: JoinHandle<()>,
}

impl Identities {
    /// Asks nobody before the first subscription. Must be called within a Tokio runtime.
    pub fn start(options: AuthorityOptions) -> Result<Self, Error> {
        let root_certificate = options.root_certificate.clone();
        let authority = Authority::new(options)?;
        let (commands, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(Keeper::new(authority, receiver).run());
        Ok(Self { root_certificate, commands, subscriptions: 0, task })
    }

    /// Has a workload's certificate kept until the subscription is dropped.
    pub fn subscribe(&mut self, id: SpiffeId, credential: Credential) -> Subscription {
        let source = match credential {
            Credential::NodeToken(file, own) => Source::Authority(Token::Node(file, own)),
            Credential::WorkloadToken(file) => Source::Authority(Token::Workload(file)),
            Credential::Files { certificate, key } => {
                Source::Files(Paths { certificate, key, roots: self.root_certificate.clone() })
            }
        };
        self.subscriptions += 1;
        let (state, receiver) = watch::channel(State::default());
        let command = Command::Subscribe { number: self.subscriptions, id, source, state };
        // The task ends after this handle.
        let _ = self.commands.send(command);
        Subscription::new(self.subscriptions, receiver, self.commands.clone())
    }
}

impl Drop for Identities {
    fn drop(&mut self) {
        self.task.abort();
    }
}
