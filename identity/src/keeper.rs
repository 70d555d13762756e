//! The task that owns every certificate of the node: asks for those that are due, takes what comes, and tells the
//! subscribers.
//!
//! In: subscriptions, the authority's answers, files, time. Out: a [`State`] for each subscriber whenever it changes. One
//! certificate serves all workloads of a service account.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};
use tracing::{info, warn};

use crate::authority::{Authority, Issued, Token};
use crate::bundle::TrustBundle;
use crate::error::Error;
use crate::files::{Files, Paths};
use crate::schedule::{LONGEST_SLEEP, Now, Schedule};
use crate::spiffe::SpiffeId;
use crate::state::State;

/// Questions to the authority that are under way at once.
const CALLS: usize = 16;

/// What subscriptions ask of the task.
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe { number: u64, id: SpiffeId, source: Source, state: watch::Sender<State> },
    Unsubscribe(u64),
}

/// Where one workload's certificate comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Authority(Token),
    Files(Paths),
}

/// Workloads of equal keys share a certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Authority(SpiffeId),
    Files(SpiffeId, Paths),
}

impl Key {
    fn new(id: SpiffeId, source: &Source) -> Self {
        match source {
            Source::Authority(_) => Self::Authority(id),
            Source::Files(paths) => Self::Files(id, paths.clone()),
        }
    }

    fn id(&self) -> &SpiffeId {
        let (Self::Authority(id) | Self::Files(id, _)) = self;
        id
    }
}

/// One certificate, and who wants it.
#[derive(Debug)]
struct Account {
    origin: Origin,
    state: State,
    subscribers: BTreeMap<u64, watch::Sender<State>>,
}

#[derive(Debug)]
enum Origin {
    /// The tokens are the subscribers'.
    Authority {
        schedule: Schedule,
        tokens: BTreeMap<u64, Token>,
    },
    Files(Files),
}

/// The task's state.
#[derive(Debug)]
pub(crate) struct Keeper {
    authority: Authority,
    commands: mpsc::UnboundedReceiver<Command>,
    accounts: BTreeMap<Key, Account>,
    bundle: TrustBundle,
    roots: Arc<[CertificateDer<'static>]>,
    calls: JoinSet<(Key, Result<Issued, Error>)>,
}

impl Keeper {
    pub(crate) fn new(authority: Authority, commands: mpsc::UnboundedReceiver<Command>) -> Self {
        Self {
            authority,
            commands,
            accounts: BTreeMap::new(),
            bundle: TrustBundle::default(),
            roots: Arc::default(),
            calls: JoinSet::new(),
        }
    }

    /// Runs until nobody can subscribe any more, or until it is aborted.
    pub(crate) async fn run(mut self) {
        loop {
            let wake_in = self.look_after(Now::read());
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(done) = self.calls.join_next(), if !self.calls.is_empty() => {
                    if let Ok((key, outcome)) = done {
                        self.take(&key, outcome, Now::read());
                    }
                }
                () = sleep(wake_in) => {}
            }
        }
    }

    /// Obeys this and whatever came with it: a node that starts has hundreds.
    fn obey(&mut self, first: Command) {
        let mut next = Some(first);
        while let Some(command) = next {
            self.command(command);
            next = self.commands.try_recv().ok();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Subscribe { number, id, source, state } => {
                let account = self.accounts.entry(Key::new(id, &source)).or_insert_with(|| Account {
                    origin: match &source {
                        Source::Authority(_) => {
                            Origin::Authority { schedule: Schedule::new(), tokens: BTreeMap::new() }
                        }
                        Source::Files(paths) => Origin::Files(Files::new(paths.clone())),
                    },
                    state: State { roots: Arc::clone(&self.roots), ..State::default() },
                    subscribers: BTreeMap::new(),
                });
                if let (Origin::Authority { tokens, .. }, Source::Authority(token)) =
                    (&mut account.origin, source)
                {
                    tokens.insert(number, token);
                }
                state.send_replace(account.state.clone());
                account.subscribers.insert(number, state);
            }
            Command::Unsubscribe(number) => self.accounts.retain(|_, account| {
                account.subscribers.remove(&number);
                if let Origin::Authority { tokens, .. } = &mut account.origin {
                    tokens.remove(&number);
                }
                !account.subscribers.is_empty()
            }),
        }
    }

    /// Does what is due, and says when to look again.
    fn look_after(&mut self, now: Now) -> Duration {
        self.read_files(now);
        if self.bundle.expire(now.wall) {
            self.roots_changed();
        }
        let mut due: Vec<_> = Vec::new();
        let mut wake_in = LONGEST_SLEEP;
        for (key, account) in &self.accounts {
            let Origin::Authority { schedule, .. } = &account.origin else { continue };
            match schedule.due_in(now) {
                Some(Duration::ZERO) => due.push((account.state.identity.as_ref().map(|i| i.not_after), key)),
                Some(later) => wake_in = wake_in.min(later),
                None => {}
            }
        }
        // Who has none first, then whose ends first.
        due.sort_by_key(|(not_after, _)| *not_after);
        let free = CALLS.saturating_sub(self.calls.len());
        let due: Vec<_> = due.into_iter().take(free).map(|(_, key)| key.clone()).collect();
        for key in due {
            if !self.ask(&key) {
                // It may be tried again at once.
                wake_in = Duration::ZERO;
            }
        }
        wake_in
    }

    /// Returns whether a question is under way.
    fn ask(&mut self, key: &Key) -> bool {
        let Some(account) = self.accounts.get_mut(key) else { return true };
        let Origin::Authority { schedule, tokens } = &mut account.origin else { return true };
        schedule.asked();
        // One workload's token may be bad where another's is good.
        let turn = usize::try_from(account.state.attempts).unwrap_or_default() % tokens.len().max(1);
        account.state.attempts += 1;
        let Some(token) = tokens.values().nth(turn) else { return true };
        match self.authority.call(key.id(), token) {
            Ok(call) => {
                let key = key.clone();
                self.calls.spawn(async move { (key, call.run().await) });
                true
            }
            Err(error) => {
                self.take(key, Err(error), Now::read());
                false
            }
        }
    }

    fn read_files(&mut self, now: Now) {
        let changed = self.accounts.iter_mut().filter_map(|(key, account)| {
            let Origin::Files(files) = &mut account.origin else { return None };
            let outcome = files.changed(key.id(), now.wall)?;
            account.state.attempts += 1;
            Some((key.clone(), outcome))
        });
        for (key, outcome) in changed.collect::<Vec<_>>() {
            self.take(&key, outcome, now);
        }
    }

    /// Goes on with a new certificate, or with the old one.
    fn take(&mut self, key: &Key, outcome: Result<Issued, Error>, now: Now) {
        // Its last workload may have gone meanwhile.
        let Some(account) = self.accounts.get_mut(key) else { return };
        let schedule = match &mut account.origin {
            Origin::Authority { schedule, .. } => Some(schedule),
            Origin::Files(_) => None,
        };
        match outcome {
            Ok(Issued { identity, shown, roots }) => {
                let id = key.id();
                info!(%id, serial = identity.serial_number, remaining = ?identity.remaining(now.wall), "a certificate came");
                if let Some(schedule) = schedule {
                    schedule.issued(now, identity.not_after, fastrand::f64());
                }
                let not_after = identity.not_after;
                account.state.identity = Some(Arc::new(identity));
                account.state.since = Some(now.wall);
                account.state.shown = shown;
                account.state.last_error = None;
                if self.bundle.add(&roots, not_after) {
                    self.roots_changed();
                    return;
                }
            }
            Err(error) => {
                if matches!(error, Error::Silent { .. }) {
                    self.authority.reconnect();
                }
                if let Some(schedule) = schedule {
                    schedule.failed(now, fastrand::f64());
                }
                let error = error.describe();
                warn!(id = %key.id(), error, "no certificate came; the last one stays");
                account.state.last_error = Some(error);
            }
        }
        account.publish();
    }

    /// The roots are everybody's, so everybody is told.
    fn roots_changed(&mut self) {
        self.roots = self.bundle.roots();
        for account in self.accounts.values_mut() {
            account.state.roots = Arc::clone(&self.roots);
            account.publish();
        }
    }
}

impl Account {
    fn publish(&self) {
        for subscriber in self.subscribers.values() {
            subscriber.send_replace(self.state.clone());
        }
    }
}
