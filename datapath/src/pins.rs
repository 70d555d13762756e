//! What of Orlop is in the BPF file system, where it outlives the agent.
//!
//! ```text
//! <pin root>/<node>/gen-7/FRONTENDS-2 …                   the maps of the running agent; this one has grown
//! <pin root>/<node>/PODS-1                                whose each attachment is; of one layout, for all agents
//! <pin root>/<node>/sockets-4/CONNECTIONS, OPEN           what is known of open connections, for all agents of one ABI
//! <pin root>/<node>/prober                                the program on the cgroup of what probes the pods
//! <pin root>/<node>/links/<workload>/connect4 …           attached programs
//! <pin root>/<node>/links/<workload>/index                symbolic link: the workload's index
//! <pin root>/<node>/links/<workload>/netns                symbolic link: where the workload's namespace was
//! <pin root>/<node>/links/<workload>/tcp_fwmark_accept    symbolic link: the sysctls' values before Orlop
//! ```
//!
//! The records are symbolic links because that is the only content a file there can have. A dot in a name is reserved
//! by the file system, so names are escaped.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use orlop_abi::{ABI_VERSION, POD_LAYOUT};
use rustix::fs::statfs;
use rustix::mount::{MountFlags, mount};

use crate::error::Error;
use crate::hook::Hook;
use crate::link::PinnedLink;
use crate::maps::MapName;

/// `BPF_FS_MAGIC`.
const BPF_FS: u32 = 0xcafe_4a11;

/// The node's folder.
#[derive(Debug)]
pub(crate) struct NodePins {
    dir: PathBuf,
}

/// Where each map is pinned.
#[derive(Debug, Clone)]
pub(crate) struct MapPins {
    generation: PathBuf,
    sockets: PathBuf,
    /// The map of the attachments.
    pub(crate) pods: PathBuf,
    /// Of maps that have grown, how often.
    grown: BTreeMap<MapName, u32>,
}

impl MapPins {
    pub(crate) fn path(&self, map: MapName) -> PathBuf {
        if map.outlives_the_agent() {
            return self.sockets.join(map.name());
        }
        match self.grown.get(&map) {
            Some(times) => self.generation.join(format!("{}-{}", map.name(), times + 1)),
            None => self.generation.join(map.name()),
        }
    }

    /// The same with another place for a map.
    pub(crate) fn with_another(&self, map: MapName) -> Self {
        let mut pins = self.clone();
        *pins.grown.entry(map).or_default() += 1;
        pins
    }
}

/// A workload's folder, which need not exist.
#[derive(Debug)]
pub(crate) struct WorkloadPins {
    dir: PathBuf,
}

/// A fact about the pod from before Orlop touched it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Record {
    Index,
    Netns,
    Sysctls,
}

impl NodePins {
    /// Makes the node's folder, and mounts the file system above `root` if need be.
    pub(crate) fn open(root: &Path, node: &str) -> Result<Self, Error> {
        mount_bpffs(root)?;
        let dir = root.join(escape(node));
        let links = dir.join("links");
        fs::create_dir_all(&links).map_err(at(&links))?;
        Ok(Self { dir })
    }

    /// Places for the maps of a new generation, in a new folder but for what outlives the agent.
    pub(crate) fn maps(&self) -> Result<MapPins, Error> {
        let pods = self.dir.join(format!("PODS-{POD_LAYOUT}"));
        Ok(MapPins {
            generation: self.new_generation()?,
            sockets: self.sockets()?,
            pods,
            grown: BTreeMap::new(),
        })
    }

    /// A new folder for maps. Those of earlier agents go: their programs hold the maps that they still need.
    fn new_generation(&self) -> Result<PathBuf, Error> {
        let mut last = 0;
        for entry in list(&self.dir)? {
            let Some(number) = entry.strip_prefix("gen-").and_then(|n| n.parse::<u64>().ok()) else {
                continue;
            };
            last = last.max(number);
            let old = self.dir.join(&entry);
            fs::remove_dir_all(&old).map_err(at(&old))?;
        }
        let dir = self.dir.join(format!("gen-{}", last + 1));
        fs::create_dir(&dir).map_err(at(&dir))?;
        Ok(dir)
    }

    /// The folder of the maps that outlive the agent, made if need be. What an agent of another ABI left goes: its
    /// programs hold what they still need.
    fn sockets(&self) -> Result<PathBuf, Error> {
        let name = format!("sockets-{ABI_VERSION}");
        for entry in
            list(&self.dir)?.into_iter().filter(|entry| entry.starts_with("sockets-") && *entry != name)
        {
            let old = self.dir.join(entry);
            fs::remove_dir_all(&old).map_err(at(&old))?;
        }
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        Ok(dir)
    }

    /// Where the prober's link is pinned.
    pub(crate) fn prober(&self) -> PathBuf {
        self.dir.join(Hook::Prober.name())
    }

    pub(crate) fn workload(&self, name: &str) -> WorkloadPins {
        WorkloadPins { dir: self.dir.join("links").join(escape(name)) }
    }

    /// The folders of workloads that are not among `names`.
    pub(crate) fn others(&self, names: &[&str]) -> Result<Vec<WorkloadPins>, Error> {
        let links = self.dir.join("links");
        let known: Vec<_> = names.iter().map(|name| escape(name)).collect();
        let others = list(&links)?.into_iter().filter(|entry| !known.contains(entry));
        Ok(others.map(|entry| WorkloadPins { dir: links.join(entry) }).collect())
    }

    /// Removes the node's folder with everything in it.
    pub(crate) fn remove(self) -> Result<(), Error> {
        fs::remove_dir_all(&self.dir).map_err(at(&self.dir))
    }
}

impl WorkloadPins {
    pub(crate) fn exists(&self) -> bool {
        self.dir.exists()
    }

    pub(crate) fn create(&self) -> Result<(), Error> {
        fs::create_dir(&self.dir).map_err(at(&self.dir))
    }

    /// Where the hook's link is pinned.
    pub(crate) fn hook(&self, hook: Hook) -> PathBuf {
        self.dir.join(hook.name())
    }

    pub(crate) fn write(&self, record: Record, value: &Path) -> Result<(), Error> {
        let path = self.dir.join(record.name());
        std::os::unix::fs::symlink(value, &path).map_err(at(&path))
    }

    pub(crate) fn read(&self, record: Record) -> Option<PathBuf> {
        fs::read_link(self.dir.join(record.name())).ok()
    }

    /// All that is recorded.
    pub(crate) fn records(&self) -> Vec<(Record, PathBuf)> {
        let all = [Record::Index, Record::Netns, Record::Sysctls].into_iter();
        all.filter_map(|record| Some((record, self.read(record)?))).collect()
    }

    /// Makes the folder with these records, if it is not there.
    pub(crate) fn restore(&self, records: &[(Record, PathBuf)]) -> Result<(), Error> {
        if self.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(at(&self.dir))?;
        records.iter().try_for_each(|(record, value)| self.write(*record, value))
    }

    /// The workload's index, which is beside its attachments.
    pub(crate) fn index(&self) -> Option<u32> {
        self.read(Record::Index)?.to_str()?.parse().ok()
    }

    /// Detaches the programs and unpins their links.
    pub(crate) fn detach(&self) -> Result<(), Error> {
        Hook::ALL.into_iter().try_for_each(|hook| detach(&self.hook(hook)))
    }

    /// Removes the hook's pin, if there is one.
    pub(crate) fn unpin(&self, hook: Hook) -> Result<(), Error> {
        let path = self.hook(hook);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Removes the folder with all that is left in it.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        fs::remove_dir_all(&self.dir).map_err(at(&self.dir))
    }
}

impl Record {
    const fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Netns => "netns",
            // By the first of them, which once was the only one.
            Self::Sysctls => "tcp_fwmark_accept",
        }
    }
}

/// Detaches the link that is pinned at `path` and unpins it, if there is one.
pub(crate) fn detach(path: &Path) -> Result<(), Error> {
    match PinnedLink::open(path).and_then(|link| link.detach()) {
        Ok(()) => fs::remove_file(path).map_err(at(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at(path)(error)),
    }
}

/// Makes sure that `root` is, or can be made, on a BPF file system: mounts one on its parent if it is not.
pub(crate) fn mount_bpffs(root: &Path) -> Result<(), Error> {
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(root);
    if is_bpffs(existing) {
        return Ok(());
    }
    let path = root.parent().unwrap_or(root);
    let failed = |source: io::Error| Error::MountBpffs { path: path.to_owned(), source };
    mount("bpf", path, "bpf", MountFlags::empty(), None).map_err(|errno| failed(errno.into()))
}

/// Whether `path` is on a BPF file system.
pub(crate) fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| u32::try_from(stat.f_type) == Ok(BPF_FS))
}

fn list(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(dir).map_err(at(dir))?;
    entries.map(|entry| Ok(entry.map_err(at(dir))?.file_name().to_string_lossy().into_owned())).collect()
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Pins { path: path.clone(), source }
}

/// Letters, digits and dashes as they are, every other byte as `_xx`.
fn escape(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
        other => format!("_{other:02x}"),
    };
    name.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_without_dots_and_slashes_and_stay_distinct() {
        assert_eq!(escape("web-0"), "web-0");
        assert_eq!(escape("default/web.v1"), "default_2fweb_2ev1");
        assert_ne!(escape("a_2eb"), escape("a.b"));
    }
}
