//! `orlop-cni`: the plug-in of the Container Network Interface (CNI, <https://www.cni.dev/docs/spec/>) by which a pod is
//! carried before its first process runs.
//!
//! The container runtime runs it as the last of the node's chain, when the pod has its network and nothing runs in it yet. It
//! changes nothing: it tells the agent, waits until the pod is carried, and hands on what the plug-ins before it have made.
//! `conf` is what stands in the chain, `plugin` what the runtime runs, `install` how both come onto the node.

mod conf;
mod install;
mod plugin;

pub(crate) use conf::Entry;
pub use conf::WhenAway;
pub(crate) use install::Installation;
pub(crate) use plugin::run;

/// The plug-in's name: in the chain, and as a program.
pub(crate) const NAME: &str = "orlop-cni";
/// In the node's folder: of each pod that was not held, a file that is named by its uid and says why.
pub(crate) const NOT_HELD: &str = "not-held";
