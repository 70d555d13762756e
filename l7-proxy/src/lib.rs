//! The shared proxy of the node: TCP, HTTP/1.1 and HTTP/2 for every enrolled pod.
//!
//! In: one [`ProxyPlan`](orlop_plan::proxy::ProxyPlan) for each pod, and the pod's network namespace. Out: listeners inside
//! that namespace (for the datapath to steer connections to), traffic, and [`stats`].
//!
//! A connection's way: `worker` (accept) → `listener` (sniff, choose the filter chain) → `tcp` or `http` (route) →
//! `upstream` and `balance` (cluster, endpoint, pool) → `dialer` (a socket of the pod's namespace). `tls` is at both ends, where a
//! chain terminates it and where an endpoint is owed it. What became of a request is noted on its way and ends in `telemetry`,
//! `access_log` and `trace`.
//!
//! Threads: each traffic worker is an OS thread with a current-thread runtime, apart from the runtime of the agent. What
//! a worker owns is `Rc`; what threads share is the plan (`ArcSwap`) and counters that one worker writes and anyone reads.

mod access_log;
mod collect;
mod names;
mod outlier;
pub mod stats;
pub mod telemetry;

mod balance;
mod dialer;
mod http;
mod listener;
mod pod;
mod proxy;
mod tcp;
mod tls;
mod trace;
mod upstream;
mod worker;

pub use proxy::{Description, PodFacts, PodListeners, Proxy, ProxyConfig, ProxyError};
