//! The `bpf(2)` commands on pinned links that aya has for XDP and tc only, or not at all: open, look at, put another
//! program in atomically (`BPF_LINK_UPDATE`, Linux 5.7 for cgroups, 5.9 for `sk_lookup`), and detach at once
//! (`BPF_LINK_DETACH`, Linux 5.9).
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for these commands")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::sys::{bpf, object_info};

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_LINK_TYPE_NETNS: u32 = 5;

/// A link that was pinned, possibly by an agent that is no more.
#[derive(Debug)]
pub(crate) struct PinnedLink {
    fd: OwnedFd,
}

/// A link as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// The program that it runs.
    pub(crate) prog_id: u32,
    pub(crate) target: LinkTarget,
}

/// What a link is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkTarget {
    /// Inode of the cgroup's folder; zero once the cgroup is gone.
    Cgroup(u64),
    /// Inode of the nsfs file; zero once the namespace is gone.
    Netns(u64),
    /// Not one of ours.
    Other,
}

/// `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
struct LinkUpdate {
    link_fd: i32,
    new_prog_fd: i32,
    flags: u32,
    old_prog_fd: u32,
}

/// `union bpf_attr` for `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link_fd: i32,
}

/// The head of `struct bpf_link_info`. `target` is `cgroup.cgroup_id`, or in its first half `netns.netns_ino`.
#[repr(C)]
#[derive(Default)]
struct RawInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    target: u64,
    rest: u64,
}

impl PinnedLink {
    /// Opens the link pinned at `path`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let pathname = CString::new(path.as_os_str().as_bytes())?;
        let attr = ObjGet { pathname: pathname.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
        // SAFETY: the command reads a C string, which outlives the call.
        let fd = unsafe { bpf(BPF_OBJ_GET, &attr) }?;
        // SAFETY: the command returns a new file descriptor, which nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// What the link is attached to.
    pub(crate) fn target(&self) -> io::Result<LinkTarget> {
        Ok(self.info()?.target)
    }

    /// What the kernel says of it.
    pub(crate) fn info(&self) -> io::Result<LinkInfo> {
        let mut info = RawInfo::default();
        // SAFETY: the struct is the head of the one for links, and holds no pointer.
        unsafe { object_info(self.fd.as_fd(), &mut info) }?;
        let [a, b, c, d, ..] = info.target.to_ne_bytes();
        let target = match info.kind {
            BPF_LINK_TYPE_CGROUP => LinkTarget::Cgroup(info.target),
            BPF_LINK_TYPE_NETNS => LinkTarget::Netns(u64::from(u32::from_ne_bytes([a, b, c, d]))),
            _ => LinkTarget::Other,
        };
        Ok(LinkInfo { prog_id: info.prog_id, target })
    }

    /// Makes the link run `program` from the next event on.
    pub(crate) fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let attr = LinkUpdate {
            link_fd: self.fd.as_raw_fd(),
            new_prog_fd: program.as_raw_fd(),
            flags: 0,
            old_prog_fd: 0,
        };
        // SAFETY: the command takes two file descriptors, both open for the length of the call.
        unsafe { bpf(BPF_LINK_UPDATE, &attr) }.map(drop)
    }

    /// Detaches the program before it returns; to close the last reference would detach it some time later.
    pub(crate) fn detach(&self) -> io::Result<()> {
        let attr = LinkDetach { link_fd: self.fd.as_raw_fd() };
        // SAFETY: the command takes a file descriptor, open for the length of the call.
        unsafe { bpf(BPF_LINK_DETACH, &attr) }.map(drop)
    }
}
