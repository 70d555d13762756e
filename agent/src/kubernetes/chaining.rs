//! Keeps the CNI plug-in on the node as long as Orlop is installed in the cluster.

use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::cni::Installation;
use crate::watch::FolderWatch;

/// Before what went wrong is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Looks without a cause.
const LOOK: Duration = Duration::from_secs(30);

/// Installs the plug-in, and puts it back into the chain where somebody else has dropped it. Runs until it is aborted.
pub(super) async fn keep(installation: Installation, problem: watch::Sender<Option<String>>) {
    let mut program_is_there = false;
    let mut watch = None;
    loop {
        let outcome = async {
            if !program_is_there {
                let installation = installation.clone();
                let installed = spawn_blocking(move || installation.install_program()).await;
                installed.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                program_is_there = true;
            }
            if watch.is_none() {
                watch = Some(FolderWatch::start(&installation.chains).map_err(|error| error.to_string())?);
            }
            let written = installation.look_after().map_err(|error| error.to_string())?;
            if written {
                info!(chains = %installation.chains.display(), "the CNI plug-in is in the node's chain");
            }
            Ok::<_, String>(())
        }
        .await
        .map_err(|reason| format!("pods that start are not held, the CNI plug-in is not there: {reason}"));
        if let Err(reason) = &outcome
            && problem.borrow().as_deref() != Some(reason)
        {
            warn!("{reason}; will be tried again");
        }
        let pause = if outcome.is_ok() { LOOK } else { RETRY };
        problem.send_replace(outcome.err());
        match &mut watch {
            // Whoever writes the chain has written it by the end of a pause.
            Some(watch) => {
                let _ = tokio::time::timeout(pause, watch.changed()).await;
            }
            None => tokio::time::sleep(pause).await,
        }
    }
}

/// Takes the plug-in off the node, if Orlop is taken out of the cluster, and not if the agent is only started anew.
pub(super) async fn end(client: Client, daemon_set: &str, installation: Installation) {
    let daemon_sets: Api<DaemonSet> = Api::default_namespaced(client);
    let stays = match daemon_sets.get_metadata_opt(daemon_set).await {
        Ok(found) => found.is_some_and(|found| found.metadata.deletion_timestamp.is_none()),
        // The agent's rights are gone before it is.
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => false,
        Err(_) => true,
    };
    if stays {
        return;
    }
    match spawn_blocking(move || installation.remove()).await {
        Ok(Ok(())) => info!("the CNI plug-in is off the node"),
        Ok(Err(error)) => warn!(%error, "the CNI plug-in is not off the node"),
        Err(error) => warn!(%error, "the CNI plug-in is not off the node"),
    }
}
