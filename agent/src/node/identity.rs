//! A workload's certificate and the roots it trusts: from the task that keeps them to the snapshot, as the secrets
//! `default` and `ROOTCA`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use orlop_identity::{Credential, Identity, Shown, SpiffeId, State, Subscription};
use orlop_plan::resource::secret::Secret;
use orlop_plan::snapshot::{Changes, Snapshot};
use orlop_xds_client::KeptCertificate;
use rustls::sign::CertifiedKey;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::warn;

use super::NodeIdentities;
use crate::config::{self, Credentials, NodeConfig, WorkloadId};
use crate::pod_admin::NodeSecret;

/// The name that Istio's proxies know the roots by.
const ROOTS: &str = "ROOTCA";

/// How long an agent that takes over waits for certificates.
const PATIENCE: Duration = Duration::from_secs(5);

/// Word to the node task that what is kept for a workload has changed.
#[derive(Debug)]
pub(crate) struct Renewed {
    pub(crate) workload: WorkloadId,
    /// Which enrolment of that name it is for.
    pub(crate) enrolment: u64,
}

/// The identity of one enrolled workload. Ends with this.
pub(crate) struct WorkloadIdentity {
    id: SpiffeId,
    /// `None` where nothing says who it is.
    kept: Option<Kept>,
}

struct Kept {
    _subscription: Subscription,
    state: watch::Receiver<State>,
    forward: AbortHandle,
    /// For the control plane, where the workload has nothing else to show there.
    shown: Option<watch::Sender<Option<Arc<CertifiedKey>>>>,
    certificate: Option<NodeSecret>,
    roots: Option<NodeSecret>,
}

/// What an operator is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Standing {
    spiffe_id: String,
    serial_number: Option<String>,
    /// When the certificate came.
    since: Option<SystemTime>,
    /// How long it is still valid.
    remaining_seconds: Option<u64>,
    /// By what the certificate came, where it is not a file's.
    shown: Option<String>,
    /// How many roots are trusted.
    roots: usize,
    /// How often a certificate was asked for.
    attempts: u64,
    /// Why there is none, or no newer one.
    problem: Option<String>,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { spiffe_id, remaining_seconds, shown, attempts, problem, .. } = self;
        match remaining_seconds {
            None => write!(f, "{spiffe_id}, no certificate")?,
            Some(0) => write!(f, "{spiffe_id}, its certificate has expired")?,
            Some(seconds) => {
                let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                write!(f, "{spiffe_id}, valid for {hours}:{minutes:02}:{seconds:02}")?;
            }
        }
        if let Some(shown) = shown {
            write!(f, ", by {shown}")?;
        }
        problem.as_ref().map_or(Ok(()), |problem| write!(f, "; asked for {attempts} times: {problem}"))
    }
}

/// By what a workload gets its certificate: its own files, else the node's token, where need be with one of its own, else its own.
pub(super) fn credential(spec: &config::Workload, node: &NodeIdentities) -> Option<Credential> {
    match (&spec.credentials, &node.token) {
        (Some(Credentials::Certificate { certificate, key }), _) => {
            Some(Credential::Files { certificate: certificate.clone(), key: key.clone() })
        }
        (_, Some(token)) => {
            let own = node.pod_tokens.as_ref().map(|tokens| tokens.of(spec));
            Some(Credential::NodeToken(token.clone(), own))
        }
        (Some(Credentials::Token(token)), None) => Some(Credential::WorkloadToken(token.clone())),
        (None, None) => None,
    }
}

fn describe(shown: &Shown) -> String {
    match shown {
        Shown::NodeToken => "the node's token".to_owned(),
        Shown::WorkloadToken => "its own token".to_owned(),
        Shown::OwnToken { because } => {
            format!("a token bound to the pod, since the authority does not take the node's: {because}")
        }
    }
}

/// Has the certificates of all workloads asked for, and waits until each has come or cannot, but not for ever: an agent that
/// takes over serves from the moment when it enrols. They are there as long as what is returned.
pub(super) async fn ask_ahead(config: &NodeConfig, node: &mut NodeIdentities) -> Vec<Subscription> {
    let workloads = config.workloads.0.values();
    let subscriptions: Vec<_> = workloads
        .filter_map(|spec| {
            let credential = credential(spec, node)?;
            Some(node.identities.subscribe(spiffe_id(spec, &config.node.trust_domain), credential))
        })
        .collect();
    let all = async {
        for subscription in &subscriptions {
            let answered = |state: &State| state.identity.is_some() || state.last_error.is_some();
            // An error says that nobody keeps it any more.
            let _ = subscription.state().wait_for(answered).await;
        }
    };
    if timeout(PATIENCE, all).await.is_err() {
        warn!("not every certificate came in time; the agent of before is taken over from all the same");
    }
    subscriptions
}

pub(super) fn spiffe_id(spec: &config::Workload, trust_domain: &str) -> SpiffeId {
    SpiffeId::new(trust_domain, &spec.namespace, &spec.service_account)
}

impl WorkloadIdentity {
    /// With what is kept already.
    pub(super) async fn open(
        spec: &config::Workload,
        enrolment: u64,
        trust_domain: &str,
        node: &mut NodeIdentities,
    ) -> Self {
        let id = spiffe_id(spec, trust_domain);
        let Some(credential) = credential(spec, node) else { return Self { id, kept: None } };
        let subscription = node.identities.subscribe(id.clone(), credential);
        let (mut changed, renewed, workload) = (subscription.state(), node.renewed.clone(), spec.id());
        // What is known is said at once, be it that nothing is.
        let _ = changed.changed().await;
        let forward = tokio::task::spawn_local(async move {
            while changed.changed().await.is_ok() {
                if renewed.send(Renewed { workload: workload.clone(), enrolment }).await.is_err() {
                    return;
                }
            }
        });
        let kept = Kept {
            state: subscription.state(),
            _subscription: subscription,
            forward: forward.abort_handle(),
            shown: node.serve_control_plane.then(|| watch::Sender::new(None)),
            certificate: None,
            roots: None,
        };
        Self { id, kept: Some(kept) }
    }

    /// Gives the snapshot the certificate, and as roots those of the authority and those that the control plane names, where
    /// they are others than before.
    pub(super) fn provide(&mut self, snapshot: &mut Snapshot) -> Changes {
        let mut changes = Changes::default();
        let Some(kept) = &mut self.kept else { return changes };
        let State { identity, roots, since, .. } = kept.state.borrow_and_update().clone();
        let now = SystemTime::now();
        let Some(identity) = identity else { return changes };
        let present = kept.certificate.as_ref();
        if !present.is_some_and(|present| Arc::ptr_eq(&present.secret, &identity.secret)) {
            let secret = Arc::clone(&identity.secret);
            kept.certificate =
                Some(NodeSecret { secret: Arc::clone(&secret), last_updated: since.unwrap_or(now) });
            changes.merge(snapshot.provide(secret));
            if let Some(shown) = &kept.shown {
                shown.send_replace(Some(Arc::clone(&identity.certified)));
            }
        }
        let mut trusted = roots.to_vec();
        let meshs = snapshot.proxy_config().map(|config| config.ca_certificates.as_slice());
        for root in meshs.unwrap_or_default() {
            if !trusted.contains(root) {
                trusted.push(root.clone());
            }
        }
        let secret = Arc::new(Secret::trusted_ca(ROOTS, trusted));
        if !kept.roots.as_ref().is_some_and(|present| present.secret.content == secret.content) {
            kept.roots = Some(NodeSecret { secret: Arc::clone(&secret), last_updated: now });
            changes.merge(snapshot.provide(secret));
        }
        changes
    }

    /// Who it is: a SPIFFE identity.
    pub(super) fn principal(&self) -> String {
        self.id.to_string()
    }

    /// The certificate as it will be from time to time, for a control plane that is spoken to in TLS.
    pub(super) fn for_control_plane(&self) -> Option<KeptCertificate> {
        Some(KeptCertificate(self.kept.as_ref()?.shown.as_ref()?.subscribe()))
    }

    /// There should be a valid certificate, and there is none.
    pub(crate) fn is_missing(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| {
            let state = kept.state.borrow();
            let valid = |identity: &Identity| !identity.remaining(SystemTime::now()).is_zero();
            kept.certificate.is_none() || !state.identity.as_deref().is_some_and(valid)
        })
    }

    /// Why there is none, or no newer one.
    pub(crate) fn problem(&self) -> Option<String> {
        match &self.kept {
            Some(kept) => kept.state.borrow().last_error.clone(),
            None => Some(
                "no certificate can be asked for: set identity.token or the workload's credentials in node.yaml"
                    .to_owned(),
            ),
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        let state = self.kept.as_ref().map(|kept| kept.state.borrow().clone()).unwrap_or_default();
        let identity = state.identity.as_ref();
        let roots = self.kept.as_ref().and_then(|kept| kept.roots.as_ref());
        Standing {
            spiffe_id: self.id.to_string(),
            serial_number: identity.map(|identity| identity.serial_number.clone()),
            since: state.since,
            remaining_seconds: identity.map(|identity| identity.remaining(SystemTime::now()).as_secs()),
            shown: state.shown.as_ref().map(describe),
            roots: roots.map_or(0, |roots| roots.certificates().len()),
            attempts: state.attempts,
            problem: self.problem(),
        }
    }

    /// What the node provides in the place of a sidecar's own agent.
    pub(crate) fn secrets(&self) -> Vec<NodeSecret> {
        let kept = self.kept.iter();
        kept.flat_map(|kept| kept.certificate.iter().chain(&kept.roots)).cloned().collect()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.forward.abort();
    }
}
