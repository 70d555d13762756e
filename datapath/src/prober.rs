//! Whose connections pass as probes: those of one cgroup of the node, the kubelet's, to the ports that a workload has probed.
//!
//! An address proves nothing: every process in the node's network namespace has the kubelet's. So a program on its cgroup notes
//! each connection that it makes, and `steer` looks an arrival up. The link is pinned, so that probes go on while there is no
//! agent.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use orlop_podnet::NetNs;

use crate::datapath::Datapath;
use crate::error::Error;
use crate::link::{LinkTarget, PinnedLink};
use crate::pins;
use crate::sock_diag::SockDiag;
use crate::workload::open_own_cgroup;

impl Datapath {
    /// From now on connections that sockets of this cgroup make, or of one below it, pass as probes, and no others. Changes
    /// nothing if that is so; to be called about once a second, because a service that is started anew has another cgroup of
    /// the same name.
    pub fn admit_probes_of(&mut self, cgroup: &Path) -> Result<(), Error> {
        let failed = |source| Error::Prober { path: cgroup.to_owned(), source };
        let folder = open_own_cgroup(cgroup).map_err(failed)?;
        let folder = folder.ok_or_else(|| Error::NotAProber { path: cgroup.to_owned() })?;
        let inode = folder.metadata().map_err(failed)?.ino();
        let pin = self.pins.prober();
        let attached = PinnedLink::open(&pin).and_then(|link| link.target()).ok();
        if attached == Some(LinkTarget::Cgroup(inode)) {
            if self.prober != Some(inode) {
                // An earlier agent's program is there.
                self.programs.swap_prober(&pin)?;
            }
        } else {
            pins::detach(&pin)?;
            self.programs.attach_prober(folder.as_fd(), &pin)?;
        }
        self.prober = Some(inode);
        Ok(())
    }

    /// From now on no connection passes as a probe.
    pub fn admit_no_probes(&mut self) -> Result<(), Error> {
        self.prober = None;
        pins::detach(&self.pins.prober())
    }
}

/// The cgroups (v2, by the inodes of their folders) of whoever listens at a TCP port in a network namespace.
pub fn cgroups_listening_at(netns: &NetNs, port: u16) -> Result<BTreeSet<u64>, Error> {
    let failed = |source| Error::Listeners { path: netns.path().to_owned(), source };
    netns.run(|| SockDiag::open()?.cgroups_listening_at(port))?.map_err(failed)
}
