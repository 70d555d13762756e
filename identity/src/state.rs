//! What a subscriber is told, and the end of it.

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};

use crate::certificate::Identity;
use crate::keeper::Command;
use crate::token::Shown;

/// What is known for a workload.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The certificate to show; the last good one, until another is there.
    pub identity: Option<Arc<Identity>>,
    /// Whose certificates to accept.
    pub roots: Arc<[CertificateDer<'static>]>,
    /// How often it was asked for, or its files were read.
    pub attempts: u64,
    /// When the certificate came.
    pub since: Option<SystemTime>,
    /// By what it was asked for; nothing, where it is a file's.
    pub shown: Option<Shown>,
    /// Why there is none, or no newer one.
    pub last_error: Option<String>,
}

/// A workload's interest in a certificate: ends when dropped, and the certificate with the last of its account.
#[derive(Debug)]
pub struct Subscription {
    number: u64,
    state: watch::Receiver<State>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Subscription {
    pub(crate) fn new(
        number: u64,
        state: watch::Receiver<State>,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self { number, state, commands }
    }

    /// What is known, now and whenever it changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // The keeper may have ended before.
        let _ = self.commands.send(Command::Unsubscribe(self.number));
    }
}
