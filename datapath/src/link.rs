//! The `bpf(2)` commands on pinned links that aya has for XDP and tc only, or not at all: open, look at, put another
//! program in atomically (`BPF_LINK_UPDATE`, Linux 5.7 for cgroups, 5.9 for `sk_lookup`), and detach at once
//! (`BPF_LINK_DETACH`, Linux 5.9).
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for these commands")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
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

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoByFd {
    bpf_fd: i32,
    info_len: u32,
    info: u64,
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
        let attr = InfoByFd {
            bpf_fd: self.fd.as_raw_fd(),
            info_len: u32::try_from(size_of::<RawInfo>()).map_err(io::Error::other)?,
            info: (&raw mut info) as u64,
        };
        // SAFETY: the command writes at most `info_len` bytes to `info`, which outlives the call.
        unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) }?;
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

/// # Safety
///
/// `attr` must be the part of `union bpf_attr` that belongs to `command`, and its pointers valid during the call.
pub(crate) unsafe fn bpf<A>(command: libc::c_int, attr: &A) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads `size` bytes of `attr`; the rest is promised by the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}
