//! One bed: a name that nothing else on the machine has, and everything that carries it.
//!
//! The name is `<pid>-<n>`, so a bed whose process is gone is known to be left over. Its state directory is made first
//! and removed last; whatever else exists is found by the name.

use std::cell::{Cell, RefCell};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::pod::{Pod, PodSpec};
use crate::{cgroup, net};

const STATE_ROOT: &str = "/run/orlop-bed";
/// Where an agent keeps its pins and its run directory, by node name.
const AGENT_ROOTS: [&str; 2] = ["/sys/fs/bpf/orlop", "/run/orlop"];
const KEEP_FILE: &str = "keep";

/// A private network with pods. Dropping it kills every process in it and removes it from the machine.
#[derive(Debug)]
pub struct Bed {
    name: BedName,
    next_pod: RefCell<u8>,
    resolver: Cell<Option<IpAddr>>,
}

/// The name of a bed, and the names of everything derived from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BedName(String);

/// Whether a sweep spares the beds that were kept on purpose to be explored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// Leave them.
    Spare,
    /// Remove them as well.
    Remove,
}

impl Bed {
    /// Makes an empty bed: its state directory, its cgroup and the bridge that its pods will hang on.
    ///
    /// Needs root. Sweeps the beds of dead processes first.
    pub fn new() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!(
                "the test bed makes network namespaces and cgroups: run it as root (`sudo -E cargo xtask …`)"
            );
        }
        sweep(Kept::Spare)?;
        let bed = Self { name: BedName::claim()?, next_pod: RefCell::new(0), resolver: Cell::new(None) };
        cgroup::create(&bed.name.cgroup()?)?;
        net::add_switch(&bed.name)?;
        Ok(bed)
    }

    /// The bed's name.
    pub fn name(&self) -> &BedName {
        &self.name
    }

    /// A directory for the files of the bed: logs, configuration, sockets. Removed with the bed.
    pub fn dir(&self) -> PathBuf {
        self.name.state_dir()
    }

    /// The cgroup of the processes that belong to the node and not to a pod: agent, istiod.
    pub fn node_cgroup(&self) -> Result<PathBuf> {
        let path = self.name.cgroup()?.join("node");
        cgroup::create(&path)?;
        Ok(path)
    }

    /// The node name that the bed's agent bears.
    pub fn node_name(&self) -> &str {
        &self.name.0
    }

    /// Describes a pod to be started: `bed.pod("web").label("app", "web").start()`.
    pub fn pod<'a>(&'a self, name: &'a str) -> PodSpec<'a> {
        PodSpec::new(self, name)
    }

    /// Starts a pod that has only a name.
    pub fn plain_pod(&self, name: &str) -> Result<Pod> {
        self.pod(name).start()
    }

    /// Starts a pod that answers for names ([`crate::dns`]), whom agents and Envoys ask that are started from now on.
    pub fn resolver(&self, name: &str) -> Result<Pod> {
        let pod = self.plain_pod(name)?;
        pod.serve_dns()?;
        self.resolver.set(Some(pod.ip()));
        Ok(pod)
    }

    /// Whom to ask for names.
    pub(crate) fn resolver_address(&self) -> Option<IpAddr> {
        self.resolver.get()
    }

    pub(crate) fn next_pod_index(&self) -> u8 {
        let mut next = self.next_pod.borrow_mut();
        *next += 1;
        *next
    }

    /// Marks the bed as one to be explored after this process has ended: only a sweep with [`Kept::Remove`] removes it.
    /// The caller forgets the handles of the bed instead of dropping them.
    pub fn keep(&self) -> Result<()> {
        Ok(fs::write(self.dir().join(KEEP_FILE), "")?)
    }

    /// Removes the bed and returns what could not be removed: nothing, when all is well.
    pub fn remove(self) -> Result<Vec<String>> {
        let name = self.name.clone();
        drop(self);
        name.remains()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Err(e) = self.name.tear_down() {
            eprintln!("bed {}: {e:#}", self.name.0);
        }
    }
}

impl BedName {
    fn claim() -> Result<Self> {
        fs::create_dir_all(STATE_ROOT)?;
        for n in 0..u16::MAX {
            let name = Self(format!("{}-{n}", std::process::id()));
            match fs::create_dir(name.state_dir()) {
                Ok(()) => return Ok(name),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(e).with_context(|| format!("cannot create a directory in {STATE_ROOT}"));
                }
            }
        }
        bail!("no free bed name in {STATE_ROOT}")
    }

    fn owner_is_alive(&self) -> bool {
        self.0.split_once('-').is_some_and(|(pid, _)| Path::new("/proc").join(pid).exists())
    }

    fn state_dir(&self) -> PathBuf {
        Path::new(STATE_ROOT).join(&self.0)
    }

    fn cgroup(&self) -> Result<PathBuf> {
        Ok(cgroup::root()?.join(format!("orlop-bed-{}", self.0)))
    }

    pub(crate) fn pod_cgroup(&self, pod: &str) -> Result<PathBuf> {
        Ok(self.cgroup()?.join(pod))
    }

    /// The name, under `/run/netns`, of a pod's network namespace.
    pub(crate) fn netns(&self, pod: &str) -> String {
        format!("{}{pod}", self.netns_prefix())
    }

    fn netns_prefix(&self) -> String {
        format!("orlop-{}-", self.0)
    }

    fn netns_names(&self) -> Vec<String> {
        let prefix = self.netns_prefix();
        file_names(Path::new("/run/netns")).into_iter().filter(|name| name.starts_with(&prefix)).collect()
    }

    fn agent_dirs(&self) -> Vec<PathBuf> {
        AGENT_ROOTS.iter().map(|root| Path::new(root).join(&self.0)).filter(|dir| dir.exists()).collect()
    }

    /// Goes on after a failure, so that one stubborn piece does not leave the rest behind; reports the first.
    fn tear_down(&self) -> Result<()> {
        let mut outcomes = vec![self.cgroup().and_then(|path| cgroup::kill_and_remove(&path))];
        outcomes.extend(self.netns_names().iter().map(|name| net::delete_netns(name)));
        for dir in self.agent_dirs() {
            outcomes.push(remove_tree(&dir));
        }
        for root in AGENT_ROOTS {
            // Only succeeds when no other agent uses it.
            let _ = fs::remove_dir(root);
        }
        outcomes.push(fs::remove_dir_all(self.state_dir()).context("cannot remove the bed's directory"));
        outcomes.into_iter().collect()
    }

    /// What of the bed is still on the machine, in words.
    pub fn remains(&self) -> Result<Vec<String>> {
        let mut left: Vec<String> =
            self.netns_names().into_iter().map(|name| format!("network namespace {name}")).collect();
        let mut dirs = self.agent_dirs();
        dirs.extend([self.cgroup()?, self.state_dir()]);
        left.extend(dirs.iter().filter(|dir| dir.exists()).map(|dir| dir.display().to_string()));
        left.extend(self.processes().into_iter().map(|pid| format!("process {pid}")));
        Ok(left)
    }

    /// The processes whose command line names something of the bed.
    fn processes(&self) -> Vec<String> {
        let marks = [self.netns_prefix(), format!("orlop-bed-{}/", self.0), format!("orlop-bed/{}/", self.0)];
        file_names(Path::new("/proc"))
            .into_iter()
            .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
            .filter(|pid| {
                let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let cmdline = String::from_utf8_lossy(&cmdline);
                marks.iter().any(|mark| cmdline.contains(mark))
            })
            .collect()
    }
}

impl std::fmt::Display for BedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Removes every bed whose process is gone, and returns their names.
pub fn sweep(kept: Kept) -> Result<Vec<BedName>> {
    let mut swept = Vec::new();
    for name in file_names(Path::new(STATE_ROOT)).into_iter().map(BedName) {
        let spared = kept == Kept::Spare && name.state_dir().join(KEEP_FILE).exists();
        if spared || name.owner_is_alive() {
            continue;
        }
        match name.tear_down() {
            Ok(()) => swept.push(name),
            // Another process may be sweeping the same bed.
            Err(_) if !name.state_dir().exists() => {}
            Err(e) => return Err(e.context(format!("cannot remove the bed {name} of a dead run"))),
        }
    }
    Ok(swept)
}

fn file_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Like `remove_dir_all`, for the BPF file system too, whose entries have no type that `remove_dir_all` would trust.
fn remove_tree(dir: &Path) -> Result<()> {
    for name in file_names(dir) {
        let path = dir.join(name);
        if path.is_dir() { remove_tree(&path)? } else { fs::remove_file(&path)? }
    }
    fs::remove_dir(dir).with_context(|| format!("cannot remove {}", dir.display()))
}
