//! The system call `bpf(2)`, for the commands that aya has no function for, and waiting on what it made.
#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper for all of its commands, nor has waiting on a descriptor"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoByFd {
    bpf_fd: i32,
    info_len: u32,
    info: u64,
}

/// Has the kernel fill in what it knows of a program, map or link.
///
/// # Safety
///
/// `T` must be a head of the info struct that belongs to the object; pointers and lengths in `info` must be valid for what
/// the kernel writes there.
pub(crate) unsafe fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let attr = InfoByFd {
        bpf_fd: object.as_raw_fd(),
        info_len: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
        info: std::ptr::from_mut(info) as u64,
    };
    // SAFETY: the command writes at most `info_len` bytes to `info`, which outlives the call; the rest is promised by the
    // caller.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) }.map(drop)
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

/// To wait for records of a ring buffer.
pub(crate) fn wait_on(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its map's file descriptor, which is the same one until the ring is dropped.
    unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)
}
