//! A real Envoy as the sidecar of a pod: the oracle that Orlop is compared with.
//!
//! Gets everything from the same istiod and intercepts as Istio's sidecar does, with a REDIRECT rule that spares
//! Envoy's own group. The rule lives in the pod's namespace.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::bed::Bed;
use crate::istiod::Istiod;
use crate::pod::Pod;
use crate::process::Process;
use crate::tools::{ENVOY_ENV, SDSD_ENV, prepared, workspace_binary};
use crate::wait::until;

/// The group that Istio runs its sidecar in.
const GID: u32 = 1337;
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// An Envoy that carries all outbound connections of its pod. Ends with this handle.
#[derive(Debug)]
pub struct Envoy {
    /// In the order in which they are ended, Envoy first.
    processes: [Process; 3],
}

impl Envoy {
    /// Starts Envoy in the pod and waits until it has all of istiod's configuration.
    pub fn start(bed: &Bed, pod: &Pod, istiod: &Istiod) -> Result<Self> {
        Self::start_as(bed, pod, istiod, None)
    }

    /// The same; carries connections to the pod, too.
    pub fn start_with_inbound(bed: &Bed, pod: &Pod, istiod: &Istiod) -> Result<Self> {
        Self::start_as(bed, pod, istiod, None)?.with_inbound(pod)
    }

    /// The same, with a certificate of this authority for the pod's account.
    pub fn start_with_identity(bed: &Bed, pod: &Pod, istiod: &Istiod, authority: &Authority) -> Result<Self> {
        Self::start_as(bed, pod, istiod, Some(authority))?.with_inbound(pod)
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        let [envoy, ..] = &self.processes;
        envoy.log()
    }

    fn with_inbound(self, pod: &Pod) -> Result<Self> {
        pod.run("iptables -w -t nat -A PREROUTING -p tcp -j REDIRECT --to-ports 15006")?;
        Ok(self)
    }

    fn start_as(bed: &Bed, pod: &Pod, istiod: &Istiod, authority: Option<&Authority>) -> Result<Self> {
        let dir = bed.dir();
        let xds_socket = dir.join(format!("{}-xds.sock", pod.name()));
        let sds_socket = dir.join(format!("{}-sds.sock", pod.name()));
        let relay = on_node(bed, "relay", &workspace_binary("bed-pod")?, |command| {
            command.arg("relay").arg(&xds_socket).arg(istiod.address().to_string());
        })?;
        let mut arguments = vec![OsString::from("-socket"), sds_socket.clone().into()];
        if let Some(authority) = authority {
            let issued = authority.issue(pod.account())?;
            let files = [
                ("certificate", issued.certificate.as_str()),
                ("key", &issued.key),
                ("root", authority.certificate()),
            ];
            for (what, pem) in files {
                let file = dir.join(format!("{}-{what}.pem", pod.name()));
                fs::write(&file, pem)?;
                arguments.extend([OsString::from(format!("-{what}")), file.into()]);
            }
        }
        let sdsd = on_node(bed, "sdsd", &prepared(SDSD_ENV)?, |command| {
            command.args(&arguments);
        })?;
        until("the sockets of Envoy's servers", Duration::from_secs(10), || {
            Ok((xds_socket.exists() && sds_socket.exists()).then_some(()))
        })?;

        let bootstrap = dir.join(format!("{}-bootstrap.json", pod.name()));
        fs::write(&bootstrap, serde_json::to_vec_pretty(&bootstrap_of(pod, &xds_socket, &sds_socket))?)?;
        if let Some(resolver) = bed.resolver_address() {
            ask(pod, resolver)?;
        }
        let mut command = pod.command_in_group(GID, prepared(ENVOY_ENV)?)?;
        command
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            // Access logs are written at once.
            .args(["--file-flush-interval-msec", "10", "-c"])
            .arg(bootstrap);
        let envoy = Process::spawn(&format!("{}-envoy", pod.name()), &dir, &mut command)?
            .ready_when(|_| Ok(pod.http(ADMIN).path("/ready").send()?.status == 200))?;
        redirect(pod)?;
        Ok(Self { processes: [envoy, sdsd, relay] })
    }
}

fn on_node(bed: &Bed, name: &str, program: &Path, arguments: impl FnOnce(&mut Command)) -> Result<Process> {
    let mut command = Command::new(workspace_binary("bed-pod")?);
    command.arg("enter").arg("--cgroup").arg(bed.node_cgroup()?).arg("--").arg(program);
    arguments(&mut command);
    Process::spawn(name, &bed.dir(), &mut command)
}

fn redirect(pod: &Pod) -> Result<()> {
    for rule in [
        format!("-m owner --gid-owner {GID} -j RETURN"),
        "-d 127.0.0.0/8 -j RETURN".to_owned(),
        "-j REDIRECT --to-ports 15001".to_owned(),
    ] {
        pod.run(&format!("iptables -w -t nat -A OUTPUT -p tcp {rule}"))?;
    }
    Ok(())
}

/// Envoy asks whom the machine's `/etc/resolv.conf` names; istiod's clusters leave it no other way.
fn ask(pod: &Pod, resolver: IpAddr) -> Result<()> {
    pod.run("sysctl -qw net.ipv4.conf.all.route_localnet=1")?;
    for rule in [
        format!("OUTPUT -p udp --dport 53 -j DNAT --to-destination {resolver}:53"),
        format!("POSTROUTING -p udp -d {resolver} --dport 53 -j MASQUERADE"),
    ] {
        pod.run(&format!("iptables -w -t nat -A {rule}"))?;
    }
    Ok(())
}

fn bootstrap_of(pod: &Pod, xds_socket: &Path, sds_socket: &Path) -> Value {
    let (name, ip) = (pod.name(), pod.ip());
    let ads = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    json!({
        "node": {
            "id": format!("sidecar~{ip}~{name}.default~default.svc.cluster.local"),
            "cluster": format!("{}.default", pod.labels().get("app").map_or(name, String::as_str)),
            "metadata": {
                "ISTIO_VERSION": "1.31.0",
                "NAME": name,
                "NAMESPACE": "default",
                "SERVICE_ACCOUNT": pod.account(),
                "CLUSTER_ID": "Kubernetes",
                "INSTANCE_IPS": ip,
                "INTERCEPTION_MODE": "REDIRECT",
                "LABELS": pod.labels(),
                "MESH_ID": "cluster.local",
                "PROXY_CONFIG": {},
            },
        },
        "admin": {"address": socket_address(ADMIN)},
        // Istio's configuration uses a field that Envoy wants to be asked for by name.
        "layered_runtime": {"layers": [{"name": "istio", "static_layer": {
            "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": true,
        }}]},
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "set_node_on_first_message_only": true,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {"clusters": [
            static_cluster("xds-grpc", &pipe(xds_socket)),
            static_cluster("sds-grpc", &pipe(sds_socket)),
            // Istio's inbound listener refers to these two by name.
            static_cluster("prometheus_stats", &socket_address(ADMIN)),
            static_cluster("agent", &socket_address(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 15020))),
        ]},
    })
}

fn static_cluster(name: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    })
}

fn pipe(path: &Path) -> Value {
    json!({"pipe": {"path": path}})
}

fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip(), "port_value": address.port()}})
}
