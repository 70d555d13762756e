//! The programs of the object, what each is attached to, and how.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, Program, ProgramError, SkLookup, SockOps};

use crate::error::Error;
use crate::link::PinnedLink;

/// A program of the object, named as in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// `cgroup/connect4`.
    Connect4,
    /// `cgroup/connect6`.
    Connect6,
    /// `sock_ops`.
    Track,
    /// `cgroup/sendmsg4`.
    Sendmsg4,
    /// `cgroup/sendmsg6`.
    Sendmsg6,
    /// `sk_lookup`.
    Steer,
    /// `sock_ops`, of what probes the pods.
    Prober,
}

impl Hook {
    /// Those of a pod, in the order of attaching: what is marked at connect must find the new `steer`, what is chosen be counted.
    pub(crate) const ALL: [Self; 6] =
        [Self::Steer, Self::Track, Self::Connect4, Self::Connect6, Self::Sendmsg4, Self::Sendmsg6];

    /// Those of a pod's cgroup.
    pub(crate) const CGROUP: [Self; 5] =
        [Self::Track, Self::Connect4, Self::Connect6, Self::Sendmsg4, Self::Sendmsg6];

    /// `enum bpf_attach_type`, for a program of cgroups.
    pub(crate) const fn attach_type(self) -> Option<u32> {
        match self {
            Self::Connect4 => Some(10),
            Self::Connect6 => Some(11),
            Self::Track | Self::Prober => Some(3),
            Self::Sendmsg4 => Some(14),
            Self::Sendmsg6 => Some(15),
            Self::Steer => None,
        }
    }

    /// The program's name in the object, and its link's in the pin folder.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Track => "track",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Steer => "steer",
            Self::Prober => "prober",
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Has the kernel verify the program.
pub(crate) fn load(ebpf: &mut Ebpf, hook: Hook) -> Result<(), Error> {
    let result = match program(ebpf, hook)? {
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    result.map_err(|source| Error::Program { hook, source })
}

/// Attaches the loaded program and pins its link at `pin`.
pub(crate) fn attach(ebpf: &mut Ebpf, hook: Hook, target: BorrowedFd<'_>, pin: &Path) -> Result<(), Error> {
    let failed = |source| Error::Program { hook, source };
    let link = match program(ebpf, hook)? {
        Program::CgroupSockAddr(program) => attach_cgroup(program, target),
        Program::SockOps(program) => attach_sock_ops(program, target),
        Program::SkLookup(program) => attach_netns(program, target),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
    .map_err(failed)?;
    link.pin(pin).map_err(|source| Error::PinLink { path: pin.to_owned(), source })?;
    Ok(())
}

/// Makes the link that is pinned at `pin` run the loaded program instead of its present one.
pub(crate) fn swap(ebpf: &mut Ebpf, hook: Hook, pin: &Path) -> Result<(), Error> {
    let fd = match program(ebpf, hook)? {
        Program::CgroupSockAddr(program) => program.fd(),
        Program::SockOps(program) => program.fd(),
        Program::SkLookup(program) => program.fd(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
    .map_err(|source| Error::Program { hook, source })?;
    PinnedLink::open(pin)
        .and_then(|link| link.update(fd.as_fd()))
        .map_err(|source| Error::SwapLink { path: pin.to_owned(), source })
}

fn program(ebpf: &mut Ebpf, hook: Hook) -> Result<&mut Program, Error> {
    let missing = || Error::Program { hook, source: ProgramError::NotLoaded };
    ebpf.program_mut(hook.name()).ok_or_else(missing)
}

fn attach_cgroup(program: &mut CgroupSockAddr, cgroup: BorrowedFd<'_>) -> Result<FdLink, ProgramError> {
    // Links stack whatever the mode; the flag of `AllowMultiple` is for BPF_PROG_ATTACH and refused here.
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    program.take_link(id)?.try_into().map_err(|_| ProgramError::NotAttached)
}

fn attach_sock_ops(program: &mut SockOps, cgroup: BorrowedFd<'_>) -> Result<FdLink, ProgramError> {
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    program.take_link(id)?.try_into().map_err(|_| ProgramError::NotAttached)
}

fn attach_netns(program: &mut SkLookup, netns: BorrowedFd<'_>) -> Result<FdLink, ProgramError> {
    let id = program.attach(netns)?;
    Ok(program.take_link(id)?.into())
}
