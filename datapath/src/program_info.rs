//! What the kernel says of a loaded program, anybody's: its name and its maps.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for these commands")]

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use crate::sys::{bpf, object_info};

const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
/// `MAX_USED_MAPS`, of any program.
const MAPS: usize = 64;

/// A loaded program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgramInfo {
    /// As far as the kernel keeps it: 15 bytes.
    pub(crate) name: String,
    /// Ids of its maps.
    pub(crate) maps: Vec<u32>,
}

/// `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct GetById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// The head of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_prog_len: u32,
    xlated_prog_len: u32,
    jited_prog_insns: u64,
    xlated_prog_insns: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
}

impl ProgramInfo {
    /// The program of this id.
    pub(crate) fn of(id: u32) -> io::Result<Self> {
        let attr = GetById { id, next_id: 0, open_flags: 0 };
        // SAFETY: the command reads numbers only.
        let fd = unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &attr) }?;
        // SAFETY: the command returns a new file descriptor, which nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };

        let mut maps = vec![0_u32; MAPS];
        let mut info = Info {
            nr_map_ids: u32::try_from(MAPS).map_err(io::Error::other)?,
            map_ids: maps.as_mut_ptr() as u64,
            ..Info::default()
        };
        // SAFETY: the struct is the head of the one for programs; the kernel writes at most `nr_map_ids` numbers to
        // `map_ids`, which outlives the call.
        unsafe { object_info(fd.as_fd(), &mut info) }?;
        maps.truncate(info.nr_map_ids as usize);
        let name = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Self { name: String::from_utf8_lossy(name).into_owned(), maps })
    }
}
