//! What the agent's threads may do: no more than their part needs.
//!
//! The process gives up what no part of it needs before it begins; the threads that carry traffic and answer DNS are started
//! with less still, and without the system calls by which the rest could be misused. Threads of one process share its memory:
//! this is a fence against what a part does by mistake or is made to ask for, not a wall within the process.

mod report;
mod system_calls;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, io, thread};

use anyhow::Context;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};

pub(crate) use report::{ThreadGroup, thread_groups};

/// What the agent needs as long as it runs.
const AGENT: CapabilitySet = TRAFFIC
    .union(DNS)
    // Programs and maps, on kernels that ask for these.
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::PERFMON)
    // Namespaces of processes that may do more than the agent (`/proc/PID/ns/net`).
    .union(CapabilitySet::SYS_PTRACE)
    // Tokens and certificates of other owners.
    .union(CapabilitySet::DAC_OVERRIDE);

/// What carries traffic: `setns` to make each socket in its pod's namespace, `IP_TRANSPARENT` and `SO_MARK`, and clients' ports
/// below 1024.
const TRAFFIC: CapabilitySet =
    CapabilitySet::SYS_ADMIN.union(CapabilitySet::NET_ADMIN).union(CapabilitySet::NET_BIND_SERVICE);

/// What answers DNS: the same, and answers that are written with their IP headers.
const DNS: CapabilitySet = TRAFFIC.union(CapabilitySet::NET_RAW);

/// A part of the agent with threads of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part {
    Traffic,
    Dns,
}

/// Gives up what the agent does not need, for every thread that there is and will be.
///
/// Some are there before `main`, and a thread can only give up its own: so the process limits what a program that it starts
/// may have (the bounding set), and starts itself anew. To be called before anything is opened.
pub(crate) fn limit_process() -> anyhow::Result<()> {
    let beyond = CapabilitySet::all().difference(AGENT);
    let excess: Vec<_> =
        beyond.iter().filter(|one| capability_is_in_bounding_set(*one) == Ok(true)).collect();
    let bounded = excess.iter().try_for_each(|one| remove_capability_from_bounding_set(*one));
    limit_thread(AGENT).context("cannot give up capabilities")?;
    if excess.is_empty() || bounded.is_err() {
        // Whoever may not change the bounding set (CAP_SETPCAP) has been limited by somebody else.
        return Ok(());
    }
    let program = env::current_exe().context("cannot find the agent's own program")?;
    let error = Command::new(&program).args(env::args_os().skip(1)).exec();
    Err(error).with_context(|| format!("cannot start {} anew with fewer capabilities", program.display()))
}

/// Runs `start` so that the threads that it starts may do what the part needs and nothing else.
pub(crate) fn start<T: Send>(part: Part, start: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    let limited = move || -> anyhow::Result<T> {
        limit_thread(match part {
            Part::Traffic => TRAFFIC,
            Part::Dns => DNS,
        })
        .with_context(|| format!("cannot give up capabilities of {part:?}"))?;
        system_calls::limit_thread().with_context(|| format!("cannot limit system calls of {part:?}"))?;
        Ok(start())
    };
    // A thread has the rights of the one that starts it.
    thread::scope(|scope| {
        let starter = thread::Builder::new().name("orlop-start".to_owned()).spawn_scoped(scope, limited)?;
        starter.join().unwrap_or_else(|_| anyhow::bail!("the start of {part:?} ended in a panic"))
    })
}

/// Leaves the calling thread what it has of `needed`.
fn limit_thread(needed: CapabilitySet) -> io::Result<()> {
    let CapabilitySets { effective, permitted, .. } = capabilities(None)?;
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: effective & needed, permitted: permitted & needed, inheritable };
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_part_starts_may_start_no_program_and_others_may() {
        let spawn = || Command::new("/bin/true").status().map(|status| status.success());
        let (inside, of_a_thread) =
            start(Part::Traffic, || (spawn(), thread::spawn(spawn).join().unwrap())).unwrap();
        for outcome in [inside, of_a_thread] {
            assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        assert!(spawn().unwrap());
    }

    #[test]
    fn what_a_part_starts_has_no_capability_beyond_its_own() {
        let held = |part| start(part, || capabilities(None).unwrap().permitted).unwrap();
        assert!(TRAFFIC.contains(held(Part::Traffic)));
        assert!(DNS.contains(held(Part::Dns)));
    }
}
