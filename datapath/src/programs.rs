//! The loaded programs of one generation: one instance for all cgroups, and one for each network namespace.
//!
//! To verify a program costs more than all the rest of an enrolment, so the programs of cgroups are loaded once and
//! attached many times; the kernel keeps a [`Pod`] beside each attachment. `sk_lookup` has no such place, so each pod's
//! `steer` is loaded with a map of its own. The map of the attachments outlives generations: the kernel gives a link its
//! value when it is attached, and goes on with that value when another program is put into the link.
#![expect(
    deprecated,
    reason = "its successor tells the cgroup of a task, not the one that a program is attached to"
)]

use std::os::fd::BorrowedFd;
use std::path::Path;

use aya::maps::{Array, CgroupStorage, CgroupStorageKey, MapData, MapError};
use aya::{Ebpf, EbpfLoader};
use orlop_abi::Pod;

use crate::error::Error;
use crate::hook::{self, Hook};
use crate::link::{LinkTarget, PinnedLink};
use crate::maps::{Capacities, MapName, Maps, in_map, take};
use crate::pins::{MapPins, WorkloadPins};
use crate::program_info::ProgramInfo;
use crate::raw::Raw;

/// What `cargo xtask build-ebpf` makes of `ebpf/`.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!("orlop.bpf.o");

/// The programs, and whose each attachment is.
pub(crate) struct Programs {
    loader: EbpfLoader<'static>,
    /// Of cgroups, the pods' and the prober's; its maps have been taken out.
    shared: Ebpf,
    pods: CgroupStorage<MapData, Raw<Pod>>,
    pods_id: u32,
}

/// What a workload's programs are attached to.
#[derive(Clone, Copy)]
pub(crate) struct Targets<'a> {
    pub(crate) cgroup: BorrowedFd<'a>,
    /// The inode of the cgroup's folder.
    pub(crate) cgroup_id: u64,
    pub(crate) netns: BorrowedFd<'a>,
}

impl Programs {
    /// Makes the maps that are not pinned yet, and has the kernel verify what all pods share.
    pub(crate) fn load(pins: &MapPins, capacities: Capacities) -> Result<(Self, Maps), Error> {
        let mut loader = EbpfLoader::new();
        // The kernel's own types are read by the constructor and of no use here: nothing is relocated by them.
        loader.btf(None);
        for map in MapName::ALL {
            loader.map_max_entries(map.name(), capacities.of(map));
            loader.map_pin_path(map.name(), pins.path(map));
        }
        loader.map_pin_path(MapName::Pods.name(), pins.pods.clone());
        let mut shared = loader.load(OBJECT)?;
        let maps = Maps::take(&mut shared)?;
        let data: MapData = match shared.take_map(MapName::Pods.name()) {
            Some(aya::maps::Map::CgroupStorage(data)) => data,
            _ => return Err(in_map(MapName::Pods)(MapError::InvalidName { name: "PODS".to_owned() })),
        };
        let pods_id = data.info().map_err(in_map(MapName::Pods))?.id();
        let pods = aya::maps::Map::CgroupStorage(data).try_into().map_err(in_map(MapName::Pods))?;
        for hook in Hook::CGROUP.into_iter().chain([Hook::Prober]) {
            hook::load(&mut shared, hook)?;
        }
        Ok((Self { loader, shared, pods, pods_id }, maps))
    }

    /// A loaded `steer` for the pod.
    pub(crate) fn steer(&mut self, pod: Pod) -> Result<Ebpf, Error> {
        let mut ebpf = self.loader.load(OBJECT)?;
        let mut steered: Array<MapData, Raw<Pod>> = take(&mut ebpf, MapName::Steered)?;
        steered.set(0, Raw(pod), 0).map_err(in_map(MapName::Steered))?;
        hook::load(&mut ebpf, Hook::Steer)?;
        Ok(ebpf)
    }

    /// Attaches the programs whose links are not pinned yet. Returns whether some were.
    pub(crate) fn attach(
        &mut self,
        steer: &mut Ebpf,
        pod: Pod,
        targets: Targets<'_>,
        pins: &WorkloadPins,
    ) -> Result<bool, Error> {
        let mut some_are_pinned = false;
        for hook in Hook::ALL {
            let pin = pins.hook(hook);
            if pin.exists() {
                some_are_pinned = true;
            } else {
                let (ebpf, target) = match hook.attach_type() {
                    Some(_) => (&mut self.shared, targets.cgroup),
                    None => (&mut *steer, targets.netns),
                };
                hook::attach(ebpf, hook, target, &pin)?;
            }
            if let Some(key) = key(targets.cgroup_id, hook) {
                self.pods.insert(key, Raw(pod), 0).map_err(in_map(MapName::Pods))?;
            }
        }
        Ok(some_are_pinned)
    }

    /// Attaches anew what is not pinned any more.
    pub(crate) fn attach_missing(
        &mut self,
        pod: Pod,
        targets: Targets<'_>,
        pins: &WorkloadPins,
    ) -> Result<(), Error> {
        let mut steer = self.steer(pod)?;
        self.attach(&mut steer, pod, targets, pins).map(drop)
    }

    /// Attaches the prober's program.
    pub(crate) fn attach_prober(&mut self, cgroup: BorrowedFd<'_>, pin: &Path) -> Result<(), Error> {
        hook::attach(&mut self.shared, Hook::Prober, cgroup, pin)
    }

    /// Makes the prober's pinned link run this program.
    pub(crate) fn swap_prober(&mut self, pin: &Path) -> Result<(), Error> {
        hook::swap(&mut self.shared, Hook::Prober, pin)
    }

    /// Makes the pinned links run these programs.
    pub(crate) fn swap(&mut self, steer: &mut Ebpf, pins: &WorkloadPins) -> Result<(), Error> {
        for hook in Hook::ALL {
            let ebpf = if hook.attach_type().is_some() { &mut self.shared } else { &mut *steer };
            hook::swap(ebpf, hook, &pins.hook(hook))?;
        }
        Ok(())
    }

    /// Detaches whatever is pinned and unpins it. The value beside the attachment is the cgroup's for as long as that
    /// lives, so it is emptied for whoever comes next.
    pub(crate) fn detach(&mut self, pins: &WorkloadPins) -> Result<(), Error> {
        for hook in Hook::CGROUP {
            let target = PinnedLink::open(&pins.hook(hook)).and_then(|link| link.target());
            if let Ok(LinkTarget::Cgroup(cgroup)) = target
                && let Some(key) = key(cgroup, hook)
            {
                // Fails where the cgroup is gone, and its value with it, or where the value is of an older layout.
                drop(self.pods.insert(key, Raw(Pod::default()), 0));
            }
        }
        pins.detach()
    }

    /// Whether these programs may be put into the links: a link's value is of the map that its program had when it was
    /// attached, and the kernel does not compare.
    pub(crate) fn fit_into(&self, pins: &WorkloadPins) -> bool {
        Hook::CGROUP.into_iter().map(|hook| pins.hook(hook)).filter(|pin| pin.exists()).all(|pin| {
            PinnedLink::open(&pin)
                .and_then(|link| ProgramInfo::of(link.info()?.prog_id))
                .is_ok_and(|program| program.maps.contains(&self.pods_id))
        })
    }
}

fn key(cgroup: u64, hook: Hook) -> Option<CgroupStorageKey> {
    Some(CgroupStorageKey::new(cgroup, hook.attach_type()?))
}
