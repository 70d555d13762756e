//! Programs of others on the hooks that Orlop uses: Cilium's, Beyla's, a kube-proxy replacement's.
//!
//! Where cgroups hold programs at several levels, the kernel runs those of the inner cgroup first (`compute_effective_progs`,
//! `kernel/bpf/cgroup.c`). So what is attached above the pods sees the destination that Orlop has chosen, and may change it
//! again; what is attached to a pod's own cgroup or below comes before Orlop or in the order of attaching.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for this command")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::hook::Hook;
use crate::link::{LinkInfo, LinkTarget, PinnedLink};
use crate::probe::cgroup2_mount;
use crate::program_info::ProgramInfo;
use crate::sys::bpf;

const BPF_PROG_QUERY: libc::c_int = 16;
/// `BPF_CGROUP_MAX_PROGS`.
const MOST: usize = 64;

/// A program of somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// The hook that it is on as well.
    pub hook: &'static str,
    /// The cgroup that it is attached to.
    pub cgroup: PathBuf,
    /// Its name, as far as the kernel keeps it.
    pub program: String,
    /// Its id.
    pub id: u32,
    /// Whether it is in an enrolled pod's own cgroup or below, so that it may run before Orlop's there.
    pub inside_a_pod: bool,
}

/// `union bpf_attr` for `BPF_PROG_QUERY`, up to what it writes back.
#[repr(C)]
struct ProgQuery {
    target_fd: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    rest: [u64; 4],
}

/// Looks at every cgroup. Programs that hang on pins below `pin_root` are Orlop's, of whatever node.
pub fn neighbours(pin_root: &Path) -> io::Result<Vec<Neighbour>> {
    let (mut programs, mut pods) = (BTreeSet::new(), BTreeSet::new());
    for LinkInfo { prog_id, target } in pinned(pin_root) {
        programs.insert(prog_id);
        if let LinkTarget::Cgroup(inode) = target {
            pods.insert(inode);
        }
    }
    let mount = cgroup2_mount().ok_or_else(|| io::Error::other("no cgroup2 file system is mounted"))?;
    let mut found = Vec::new();
    let mut open = vec![(mount, false)];
    while let Some((cgroup, below_a_pod)) = open.pop() {
        // Gone meanwhile.
        let Ok(file) = File::open(&cgroup) else { continue };
        let inside_a_pod = below_a_pod || file.metadata().is_ok_and(|meta| pods.contains(&meta.ino()));
        for hook in Hook::CGROUP {
            for id in attached(&file, hook)?.into_iter().filter(|id| !programs.contains(id)) {
                let program = ProgramInfo::of(id).map_or_else(|_| String::new(), |info| info.name);
                let cgroup = cgroup.clone();
                found.push(Neighbour { hook: hook.name(), cgroup, program, id, inside_a_pod });
            }
        }
        let Ok(entries) = fs::read_dir(&cgroup) else { continue };
        let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(folders.map(|entry| (entry.path(), inside_a_pod)));
    }
    Ok(found)
}

/// The links of every node's workloads.
fn pinned(pin_root: &Path) -> Vec<LinkInfo> {
    let folders =
        |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    folders(pin_root.to_owned())
        .flat_map(|node| folders(node.join("links")))
        .flat_map(|workload| Hook::CGROUP.map(|hook| workload.join(hook.name())))
        .filter_map(|pin| PinnedLink::open(&pin).and_then(|link| link.info()).ok())
        .collect()
}

/// The ids of the programs that are attached to the cgroup itself.
fn attached(cgroup: &File, hook: Hook) -> io::Result<Vec<u32>> {
    let Some(attach_type) = hook.attach_type() else { return Ok(Vec::new()) };
    let mut ids = vec![0_u32; MOST];
    let query = ProgQuery {
        target_fd: cgroup.as_fd().as_raw_fd(),
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: u32::try_from(MOST).map_err(io::Error::other)?,
        padding: 0,
        rest: [0; 4],
    };
    let query = std::cell::UnsafeCell::new(query);
    // SAFETY: the command writes at most `prog_cnt` numbers to `prog_ids`, which outlives the call, and the count of them
    // into the struct, which is in a cell for that.
    unsafe { bpf(BPF_PROG_QUERY, &query) }?;
    ids.truncate(query.into_inner().prog_cnt as usize);
    Ok(ids)
}
