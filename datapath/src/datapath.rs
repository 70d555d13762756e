//! The owner of everything: opens a generation, enrols and releases workloads, and applies their plans.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aya::Ebpf;
use orlop_abi::workload_flags;
use orlop_plan::kernel::KernelPlan;
use orlop_podnet::NetNs;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use crate::connections::WayTraffic;
use crate::counters::WorkloadCounters;
use crate::drain::{DEFAULT_DRAIN_TIME, Draining};
use crate::error::Error;
use crate::exclusions;
use crate::flows::{Flow, Flows};
use crate::guard::{self, Damage, Repair, Turns, Watch};
use crate::hook::Hook;
use crate::judge::Judged;
use crate::link::{LinkTarget, PinnedLink};
use crate::listener::ListenerRole;
use crate::maps::{Capacities, MapName, MapUsage};
use crate::netns;
use crate::pins::{MapPins, NodePins, Record, WorkloadPins};
use crate::probe;
use crate::programs::{Programs, Targets};
use crate::shortage::with_less;
use crate::workload::{Enrolled, PodAddresses, WorkloadSpec, links_match, netns_inode};
use crate::writer::{Applied, Tables, Written};

/// Where and how big.
#[derive(Debug, Clone)]
pub struct DatapathConfig {
    /// The node's name. Two agents of the same name on one machine would fight for the pins: the caller locks.
    pub node: String,
    /// Folder in a BPF file system; the file system is mounted on its parent if it is not there.
    pub pin_root: PathBuf,
    /// Entries that the maps can hold.
    pub capacities: Capacities,
    /// How long connections to an endpoint that its service has lost may go on.
    pub drain_time: Duration,
}

impl DatapathConfig {
    /// Pins below `/sys/fs/bpf/orlop`, default capacities and drain time.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            pin_root: "/sys/fs/bpf/orlop".into(),
            capacities: Capacities::default(),
            drain_time: DEFAULT_DRAIN_TIME,
        }
    }
}

/// Everything of Orlop that lives in the kernel of this node. Dropped without [`shutdown`](Self::shutdown), it leaves
/// all of it as it is, like a crash.
pub struct Datapath {
    pub(crate) pins: NodePins,
    pub(crate) map_pins: MapPins,
    pub(crate) programs: Programs,
    pub(crate) capacities: Capacities,
    pub(crate) tables: Tables,
    pub(crate) workloads: BTreeMap<String, Enrolled>,
    free_indices: VecDeque<u32>,
    drain_time: Duration,
    next_sweep: Instant,
    /// Who is told of disturbed routing.
    disturbed: Option<mpsc::Sender<String>>,
    turns: Turns,
    /// The cgroup whose connections pass as probes, by its inode, once this agent's program is attached there.
    pub(crate) prober: Option<u64>,
}

/// What became of endpoints whose time was over.
#[derive(Debug, Default)]
pub struct Drained {
    /// Connections that were closed.
    pub closed: usize,
    /// What went to them, by workload: [`Datapath::traffic`] speaks no more of it.
    pub forgotten: Vec<(String, WayTraffic)>,
}

/// Disturbances that may wait to be seen to.
const DISTURBANCES: usize = 64;
/// How often connections are looked for that were chosen and never made, at most.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// Where there are many connections, a thousandth of the time goes into looking.
const SWEEP_SHARE: u32 = 1000;
/// In nanoseconds: from the choice to the SYN is one system call, which waits for nothing but memory.
const UNBORN_AFTER: u64 = 2_000_000_000;

impl Datapath {
    /// Checks the node, and makes a new generation of maps. Nothing that runs is changed yet.
    pub async fn open(config: DatapathConfig) -> Result<Self, Error> {
        probe::require(probe::probe(&config.pin_root).await)?;
        let pins = NodePins::open(&config.pin_root, &config.node)?;
        let capacities = config.capacities;
        let map_pins = pins.maps()?;
        let (programs, maps) = Programs::load(&map_pins, capacities)?;
        // What earlier agents attached goes on under its index until it is adopted or forgotten.
        let taken: BTreeSet<u32> = pins.others(&[])?.iter().filter_map(WorkloadPins::index).collect();
        let free_indices =
            (0..capacities.of(MapName::Workloads)).filter(|index| !taken.contains(index)).collect();
        Ok(Self {
            pins,
            map_pins,
            programs,
            capacities,
            tables: Tables::new(maps, capacities),
            workloads: BTreeMap::new(),
            free_indices,
            drain_time: config.drain_time,
            next_sweep: Instant::now(),
            disturbed: None,
            turns: Turns::default(),
            prober: None,
        })
    }

    /// From now on says which workload's rules or routes somebody has disturbed, for
    /// [`repair_routing`](Self::repair_routing). To be called before the first workload is enrolled.
    pub fn watch_routing(&mut self) -> mpsc::Receiver<String> {
        let (tell, disturbed) = mpsc::channel(DISTURBANCES);
        self.disturbed = Some(tell);
        disturbed
    }

    /// Prepares the pod's namespace and attaches programs that change nothing until the first plan.
    ///
    /// If the workload still has the links of an earlier agent, that one's programs stay at work until the first plan
    /// is written. Give the listeners before it, too, then a restart is never seen from the pod.
    pub async fn enrol(&mut self, spec: WorkloadSpec) -> Result<(), Error> {
        if self.workloads.contains_key(&spec.name) {
            return Err(Error::AlreadyEnrolled(spec.name));
        }
        let addresses = PodAddresses::parse(&spec.name, &spec.addresses)?;
        let cgroup = spec.open_cgroup()?;
        spec.check_netns()?;
        spec.check_addresses()?;

        let pins = self.pins.workload(&spec.name);
        let adopted = self.adoptable(&pins, &cgroup, &spec.netns);
        if pins.exists() && adopted.is_none() {
            self.forget(&pins).await?;
        }
        let index = match adopted {
            Some(index) => index,
            None => self.free_indices.pop_front().ok_or_else(|| self.no_index())?,
        };
        let cgroup_id = cgroup.metadata().map_err(|source| spec.cgroup_error(source))?.ino();
        let targets = Targets { cgroup: cgroup.as_fd(), cgroup_id, netns: spec.netns.file().as_fd() };
        // Before anything is attached that would ask for them.
        if let Err(error) = self.tables.exclude(index, &spec.exclusions) {
            if adopted.is_none() {
                self.free_indices.push_front(index);
            }
            return Err(error);
        }
        match self.set_up(index, &spec, addresses, targets, &pins).await {
            Ok((watch, waiting)) => {
                let WorkloadSpec { name, netns, fail_open, exclusions, cgroup, .. } = spec;
                let enrolled = Enrolled {
                    index,
                    netns,
                    cgroup,
                    cgroup_id,
                    addresses,
                    fail_open,
                    exclusions,
                    records: pins.records(),
                    pins,
                    written: Written::default(),
                    draining: Draining::default(),
                    judged: Judged::new(addresses),
                    without_room: 0,
                    waiting,
                    watch,
                    astray: false,
                    repaired: 0,
                };
                self.workloads.insert(name, enrolled);
                Ok(())
            }
            Err(error) => {
                let forgotten =
                    addresses.iter().try_for_each(|address| self.tables.maps.remove_peer(address, index));
                if let Err(left) = forgotten.and_then(|()| self.tables.include(index, &spec.exclusions)) {
                    tracing::warn!(workload = spec.name, error = %left, "left behind after a failed enrolment");
                }
                if adopted.is_none() {
                    match self.undo(&pins).await {
                        Ok(()) => self.free_indices.push_front(index),
                        Err(undo) => {
                            tracing::warn!(workload = spec.name, error = %undo, "left behind after a failed enrolment");
                        }
                    }
                }
                Err(error)
            }
        }
    }

    /// Gives the workload a socket to steer to, in its place of role and family. The socket must have been made inside the
    /// pod's namespace. The kernel forgets it when it is closed.
    pub fn set_listener(
        &mut self,
        name: &str,
        role: ListenerRole,
        listener: &impl AsFd,
    ) -> Result<(), Error> {
        let workload = self.workloads.get(name).ok_or_else(|| Error::UnknownWorkload(name.to_owned()))?;
        let failed = |source| Error::Listener { workload: name.to_owned(), source };
        let address = rustix::net::getsockname(listener).map_err(|errno| failed(errno.into()))?;
        let address = SocketAddr::try_from(address).map_err(|errno| failed(errno.into()))?;
        self.tables.maps.set_listener(workload.index, role, address.ip(), listener)
    }

    /// Makes the kernel follow `plan`: writes what differs from the last one, nothing if nothing does.
    ///
    /// Maps that are too small grow. What finds no room even so is left to the proxy, where it knows it. [`Error::MapFull`] and
    /// faults of the plan leave the last plan in force.
    pub fn apply(&mut self, name: &str, plan: &KernelPlan) -> Result<Applied, Error> {
        let (mut smaller, mut without_room) = (None, 0);
        loop {
            let applied = self.with_room(|this| this.apply_once(name, smaller.as_ref().unwrap_or(plan)));
            let workload =
                self.workloads.get_mut(name).ok_or_else(|| Error::UnknownWorkload(name.to_owned()))?;
            let less = match &applied {
                Ok(_) => {
                    workload.without_room = without_room;
                    return applied.map(|applied| Applied { without_room, ..applied });
                }
                Err(Error::MapFull { map, .. }) => {
                    with_less(smaller.as_ref().unwrap_or(plan), &workload.written, *map)
                        .map(|less| (*map, less))
                }
                Err(_) => None,
            };
            let Some((map, (less, left))) = less else { return applied };
            tracing::warn!(workload = name, %map, left, "no room: destinations or ports are left to the proxy");
            smaller = Some(less);
            without_room += left;
        }
    }

    fn apply_once(&mut self, name: &str, plan: &KernelPlan) -> Result<Applied, Error> {
        let workload = self.workloads.get_mut(name).ok_or_else(|| Error::UnknownWorkload(name.to_owned()))?;
        let until = Instant::now() + self.drain_time;
        let Enrolled { index, written, draining, fail_open, exclusions, .. } = workload;
        let mut flags = exclusions::flags(exclusions);
        if *fail_open {
            flags |= workload_flags::FAIL_OPEN;
        }
        let applied = self.tables.apply(*index, written, plan, flags, |frontend, before, after| {
            draining.changed(frontend, before, after, until);
        })?;
        if let Some(steer) = &mut workload.waiting {
            self.programs.swap(steer, &workload.pins)?;
            workload.waiting = None;
            workload.draining.adopt(workload.index, &workload.netns, &self.tables.maps, plan, until)?;
        }
        let connections = &self.tables.maps.connections;
        workload.judged.follow(plan, &workload.netns, &workload.exclusions, connections)?;
        Ok(applied)
    }

    /// Closes connections to endpoints that their services lost longer than the drain time ago, and forgets what went
    /// there. To be called about once a second. An error is that of one workload, and the others were looked at.
    pub fn close_drained(&mut self) -> Result<Drained, Error> {
        let now = Instant::now();
        if now >= self.next_sweep {
            self.tables
                .maps
                .connections
                .forget_unborn(monotonic_nanoseconds().saturating_sub(UNBORN_AFTER))?;
            self.next_sweep = now + SWEEP_EVERY.max(now.elapsed() * SWEEP_SHARE);
        }
        let (mut drained, mut failed) = (Drained::default(), Ok(()));
        for (name, Enrolled { index, netns, draining, .. }) in &mut self.workloads {
            match draining.close_due(*index, netns, &mut self.tables.maps, now) {
                Ok((closed, forgotten)) => {
                    drained.closed += closed;
                    drained.forgotten.extend(forgotten.into_iter().map(|way| (name.clone(), way)));
                }
                Err(error) => failed = Err(error),
            }
        }
        failed.map(|()| drained)
    }

    /// What went each way from a frontend of a workload to an endpoint.
    pub fn traffic(&self, name: &str) -> Result<Vec<WayTraffic>, Error> {
        let workload = self.workloads.get(name).ok_or_else(|| Error::UnknownWorkload(name.to_owned()))?;
        self.tables.maps.connections.traffic(workload.index)
    }

    /// What is told of connections, once: they are told while they are [wanted](Self::want_flows).
    pub fn flows(&mut self) -> Result<Flows, Error> {
        self.tables.maps.flows()
    }

    /// From now on connections are told of, or are no more.
    pub fn want_flows(&mut self, wanted: bool) -> Result<(), Error> {
        self.tables.maps.want_flows(wanted)
    }

    /// Which workload a flow is of; `None` once it is released.
    pub fn workload_of(&self, flow: &Flow) -> Option<&str> {
        let found = self.workloads.iter().find(|(_, workload)| workload.index == flow.workload)?;
        Some(found.0)
    }

    /// Detaches the workload's programs and puts its namespace back as it was found. Connections that go by the proxy
    /// at this moment end.
    pub async fn release(&mut self, name: &str) -> Result<(), Error> {
        let mut workload =
            self.workloads.remove(name).ok_or_else(|| Error::UnknownWorkload(name.to_owned()))?;
        drop(workload.watch.take());
        self.programs.detach(&workload.pins)?;
        for address in workload.addresses.iter() {
            self.tables.maps.remove_peer(address, workload.index)?;
        }
        self.tables.clear(workload.index, &mut workload.written)?;
        self.tables.include(workload.index, &workload.exclusions)?;
        self.free_indices.push_back(workload.index);
        restore(&workload.netns, &workload.pins).await
    }

    /// Releases what earlier agents left of workloads that are neither enrolled nor among `names`, and their prober, if there
    /// is none now.
    pub async fn forget_stale(&mut self, names: &[&str]) -> Result<(), Error> {
        if self.prober.is_none() {
            self.admit_no_probes()?;
        }
        let enrolled = self.workloads.keys().map(String::as_str);
        let known: Vec<_> = names.iter().copied().chain(enrolled).collect();
        for pins in self.pins.others(&known)? {
            self.forget(&pins).await?;
        }
        Ok(())
    }

    /// What happened to the workload's connections.
    pub fn counters(&self, name: &str) -> Result<WorkloadCounters, Error> {
        let workload = self.workloads.get(name).ok_or_else(|| Error::UnknownWorkload(name.to_owned()))?;
        let drained = workload.draining.closed();
        Ok(WorkloadCounters {
            drained,
            denied_closed: workload.judged.closed(),
            without_room: workload.without_room as u64,
            repaired: workload.repaired,
            ..self.tables.maps.counters(workload.index)?
        })
    }

    /// Puts the workload's rules and routes back. `None` if it is not enrolled any more.
    pub async fn repair_routing(&mut self, name: &str) -> Option<Repair> {
        let workload = self.workloads.get_mut(name)?;
        let outcome = netns::add_routes(&workload.netns, workload.addresses).await;
        workload.astray = outcome.is_err();
        workload.repaired += u64::from(outcome.is_ok());
        Some(Repair { workload: name.to_owned(), damage: Damage::Routing, outcome })
    }

    /// Looks whether attachments and sysctls are as they should be, each time of other workloads, and puts back what is
    /// missing. To be called about once a second.
    pub async fn inspect(&mut self) -> Vec<Repair> {
        let mut repairs = Vec::new();
        for name in self.turns.next(&self.workloads) {
            let Some(workload) = self.workloads.get_mut(&name) else { continue };
            if workload.astray {
                repairs.extend(self.repair_routing(&name).await);
            }
            let Some(workload) = self.workloads.get_mut(&name) else { continue };
            for (damage, outcome) in guard::repair(workload, &mut self.programs) {
                workload.repaired += u64::from(outcome.is_ok());
                repairs.push(Repair { workload: name.clone(), damage, outcome });
            }
        }
        repairs
    }

    /// How full the maps are.
    pub fn usage(&self) -> Vec<MapUsage> {
        self.tables.usage(u32::try_from(self.workloads.len()).unwrap_or(u32::MAX))
    }

    /// Ends. With `keep`, the kernel path goes on with the last plans and the next agent takes over; without, nothing
    /// is left behind.
    pub async fn shutdown(mut self, keep: bool) -> Result<(), Error> {
        if keep {
            return Ok(());
        }
        let names: Vec<_> = self.workloads.keys().cloned().collect();
        for name in names {
            self.release(&name).await?;
        }
        self.admit_no_probes()?;
        self.forget_stale(&[]).await?;
        self.pins.remove()
    }

    /// Everything that an enrolment changes. Returns the watch over it, and the programs if they wait for the first plan.
    async fn set_up(
        &mut self,
        index: u32,
        WorkloadSpec { name, netns, attested, .. }: &WorkloadSpec,
        addresses: PodAddresses,
        targets: Targets<'_>,
        pins: &WorkloadPins,
    ) -> Result<(Option<Watch>, Option<Ebpf>), Error> {
        if !pins.exists() {
            pins.create()?;
            pins.write(Record::Index, Path::new(&index.to_string()))?;
        }
        if pins.read(Record::Netns).is_none() {
            pins.write(Record::Netns, netns.path())?;
        }
        if pins.read(Record::Sysctls).is_none() {
            pins.write(Record::Sysctls, Path::new(&netns::sysctls(netns)?))?;
        }
        netns::turn_sysctls_on(netns)?;
        let watch = self.disturbed.clone().map(|tell| Watch::start(netns, addresses, name.clone(), tell));
        let watch = watch.transpose()?;
        netns::add_routes(netns, addresses).await?;
        self.tables.maps.reset_counters(index)?;
        if *attested {
            addresses.iter().try_for_each(|address| self.tables.maps.add_peer(address, index))?;
        }

        let pod = addresses.pod(index);
        let mut steer = self.programs.steer(pod)?;
        let swap = self.programs.attach(&mut steer, pod, targets, pins)?;
        Ok((watch, swap.then_some(steer)))
    }

    /// The index of what an earlier agent has attached, if it can be taken over: to this very cgroup and namespace, and
    /// with programs that these may replace.
    fn adoptable(&self, pins: &WorkloadPins, cgroup: &File, netns: &NetNs) -> Option<u32> {
        let fits = links_match(pins, cgroup, netns) && self.programs.fit_into(pins);
        pins.index().filter(|index| fits && *index < self.capacities.of(MapName::Workloads))
    }

    /// Releases a workload of an earlier agent, of which only the pins are known.
    async fn forget(&mut self, pins: &WorkloadPins) -> Result<(), Error> {
        let index = pins.index();
        self.undo(pins).await?;
        self.free_indices.extend(index.filter(|index| *index < self.capacities.of(MapName::Workloads)));
        Ok(())
    }

    /// Undoes whatever the pins speak of.
    async fn undo(&mut self, pins: &WorkloadPins) -> Result<(), Error> {
        let netns = recorded_netns(pins);
        self.programs.detach(pins)?;
        if let Some(index) = pins.index() {
            self.tables.maps.connections.forget(index)?;
        }
        match netns {
            Some(netns) => restore(&netns, pins).await,
            None if pins.exists() => pins.remove(),
            None => Ok(()),
        }
    }

    fn no_index(&self) -> Error {
        let capacity = self.capacities.of(MapName::Workloads);
        Error::MapFull { map: MapName::Workloads, needed: u64::from(capacity) + 1, capacity }
    }
}

/// The clock of `bpf_ktime_get_coarse_ns`, which is a tick behind at most.
fn monotonic_nanoseconds() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(0)
}

/// The namespace that the pins speak of, if it is still there under its path.
fn recorded_netns(pins: &WorkloadPins) -> Option<NetNs> {
    let netns = NetNs::open(&pins.read(Record::Netns)?).ok()?;
    match PinnedLink::open(&pins.hook(Hook::Steer)).and_then(|link| link.target()) {
        Ok(target) => (netns_inode(&netns).map(LinkTarget::Netns) == Some(target)).then_some(netns),
        // An enrolment that never came to attaching.
        Err(_) => Some(netns),
    }
}

/// Puts the namespace back as the records say it was, and removes the records.
async fn restore(netns: &NetNs, pins: &WorkloadPins) -> Result<(), Error> {
    netns::remove_routes(netns).await?;
    if let Some(values) = pins.read(Record::Sysctls) {
        netns::set_sysctls(netns, &values.to_string_lossy())?;
    }
    pins.remove()
}
