//! A stand-in for the proxy: listeners inside the pod's namespace, made by a process outside its cgroup.

use std::net::TcpListener;

use orlop_datapath::{Datapath, ListenerRole};
use orlop_podnet::listen_transparent;

use super::pod::Pod;
use super::process::greet_on;

/// Greets what is steered to it as `outbound` or `inbound`.
pub(crate) fn attach_proxy(datapath: &mut Datapath, pod: &Pod) {
    for (direction, greeting, addresses) in [
        (ListenerRole::Outbound, "outbound", ["127.0.0.1:15001", "[::1]:15001"]),
        (ListenerRole::Inbound, "inbound", ["127.0.0.1:15006", "[::1]:15006"]),
    ] {
        for address in addresses {
            let listener = listen(pod, address);
            datapath.set_listener(&pod.name, direction, &listener).unwrap();
            listener.set_nonblocking(false).unwrap();
            greet_on(listener, greeting.to_owned());
        }
    }
}

/// A transparent listener inside the pod's namespace.
pub(crate) fn listen(pod: &Pod, at: &str) -> TcpListener {
    pod.netns.run(|| listen_transparent(at.parse().unwrap(), 64)).unwrap().unwrap()
}
