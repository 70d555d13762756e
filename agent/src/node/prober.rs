//! Who probes the workloads: found again and again, and told to the kernel.

use std::path::PathBuf;

use orlop_datapath::Datapath;
use tracing::{info, warn};

use crate::config::{Kubernetes, Probes};
use crate::kubernetes::Kubelet;

/// The cgroup whose connections pass as probes, if there is one.
#[derive(Debug)]
pub(super) struct Prober {
    source: Source,
    /// Why there is none.
    problem: Option<String>,
}

#[derive(Debug)]
enum Source {
    /// As node.yaml says.
    Named(PathBuf),
    /// The kubelet of the cluster's node.
    Kubelet(Kubelet),
    /// Nobody probes, or it cannot be known who.
    Nobody,
}

impl Prober {
    pub(super) fn new(named: Option<&Probes>, kubernetes: Option<&Kubernetes>) -> Self {
        match (named, kubernetes) {
            (Some(Probes { cgroup }), _) => Self { source: Source::Named(cgroup.clone()), problem: None },
            (None, Some(kubernetes)) => match Kubelet::new(kubernetes) {
                Ok(kubelet) => Self { source: Source::Kubelet(kubelet), problem: None },
                Err(reason) => {
                    warn!(%reason, "probes are treated as anybody's connections");
                    Self { source: Source::Nobody, problem: Some(reason) }
                }
            },
            (None, None) => Self { source: Source::Nobody, problem: None },
        }
    }

    /// Why probes are treated as anybody's connections, although there should be some.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Has the kernel know its cgroup, which is another one after each start of its service.
    pub(super) fn look_after(&mut self, datapath: &mut Datapath) {
        let cgroup = match &mut self.source {
            Source::Named(cgroup) => Ok(cgroup.clone()),
            Source::Kubelet(kubelet) => kubelet.cgroup(),
            Source::Nobody => return,
        };
        let admitted = cgroup.and_then(|cgroup| {
            datapath.admit_probes_of(&cgroup).map_err(|error| format!("{:#}", anyhow::Error::from(error)))
        });
        // Every second the same is said once.
        match admitted {
            Ok(()) if self.problem.take().is_some() => info!("probes are let in"),
            Ok(()) => {}
            Err(reason) if self.problem.as_ref() == Some(&reason) => {}
            Err(reason) => {
                warn!(%reason, "probes are treated as anybody's connections");
                self.problem = Some(reason);
            }
        }
    }
}
