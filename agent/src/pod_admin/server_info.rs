//! `/server_info`: `envoy.admin.v3.ServerInfo`.

use serde::Serialize;
use serde_json::Value as Json;

use super::envoy_json;
use super::server::Pod;
use super::view::ServerState;

/// The fields of `envoy.admin.v3.ServerInfo` that mean something here.
#[derive(Debug, Serialize)]
pub(super) struct ServerInfo {
    version: &'static str,
    state: String,
    /// Since the pod was enrolled.
    uptime_current_epoch: String,
    uptime_all_epochs: String,
    hot_restart_version: &'static str,
    node: Json,
}

pub(super) fn server_info(pod: &Pod, state: ServerState) -> ServerInfo {
    let uptime = format!("{}s", pod.since.elapsed().as_secs());
    ServerInfo {
        version: concat!("orlop/", env!("CARGO_PKG_VERSION")),
        state: state.to_string(),
        uptime_current_epoch: uptime.clone(),
        uptime_all_epochs: uptime,
        hot_restart_version: "disabled",
        node: envoy_json::node(pod.node.message()),
    }
}
