//! The map `CONNECTIONS`, whose values belong to sockets (`BPF_MAP_TYPE_SK_STORAGE`, Linux 5.2).
//!
//! The kernel takes such a map only with BTF of its key and value. The object carries no BTF, so the map is made here and
//! pinned, and aya takes it from its pin like any other.
#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for a map with BTF of one's own")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use orlop_abi::Connection;

use crate::link::bpf;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_BTF_LOAD: libc::c_int = 18;
const BPF_MAP_TYPE_SK_STORAGE: u32 = 24;
const BPF_F_NO_PREALLOC: u32 = 1;

/// Its name, as in the object.
pub(crate) const CONNECTIONS: &str = "CONNECTIONS";

const INT: u32 = 1;
const ARRAY: u32 = 2;

/// `union bpf_attr` for `BPF_BTF_LOAD`.
#[repr(C)]
struct BtfLoad {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    padding: u32,
}

/// `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
    map_ifindex: u32,
    btf_fd: u32,
    btf_key_type_id: u32,
    btf_value_type_id: u32,
}

/// `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Makes the map and pins it at `path`.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    let btf = btf();
    let size = u32::try_from(btf.len()).map_err(io::Error::other)?;
    let attr = BtfLoad {
        btf: btf.as_ptr() as u64,
        btf_log_buf: 0,
        btf_size: size,
        btf_log_size: 0,
        btf_log_level: 0,
        padding: 0,
    };
    // SAFETY: the command reads `btf_size` bytes, which outlive the call.
    let btf_fd = owned(unsafe { bpf(BPF_BTF_LOAD, &attr) }?);
    let mut map_name = [0; 16];
    map_name.iter_mut().zip(CONNECTIONS.bytes()).for_each(|(to, from)| *to = from);
    let attr = MapCreate {
        map_type: BPF_MAP_TYPE_SK_STORAGE,
        key_size: 4,
        value_size: u32::try_from(size_of::<Connection>()).map_err(io::Error::other)?,
        max_entries: 0,
        map_flags: BPF_F_NO_PREALLOC,
        inner_map_fd: 0,
        numa_node: 0,
        map_name,
        map_ifindex: 0,
        btf_fd: u32::try_from(btf_fd.as_raw_fd()).map_err(io::Error::other)?,
        btf_key_type_id: INT,
        btf_value_type_id: ARRAY,
    };
    // SAFETY: the command takes no pointer and a file descriptor that is open for the length of the call.
    let map = owned(unsafe { bpf(BPF_MAP_CREATE, &attr) }?);
    let pathname = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjPin {
        pathname: pathname.as_ptr() as u64,
        bpf_fd: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        file_flags: 0,
    };
    // SAFETY: the command reads a C string, which outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &attr) }.map(drop)
}

fn owned(fd: libc::c_int) -> OwnedFd {
    // SAFETY: only called with what a command returned: a new file descriptor, which nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Two types (kernel documentation, "BPF Type Format"): `int`, and an array of it as big as the value.
fn btf() -> Vec<u8> {
    const KIND_INT: u32 = 1 << 24;
    const KIND_ARRAY: u32 = 3 << 24;
    const SIGNED_32_BITS: u32 = 1 << 24 | 32;
    const STRINGS: &[u8] = b"\0int\0";
    const WORDS: usize = size_of::<Connection>() / 4;
    let words = u32::try_from(WORDS).unwrap_or(u32::MAX);
    let types = [1, KIND_INT, 4, SIGNED_32_BITS, 0, KIND_ARRAY, 0, INT, INT, words];
    let types: Vec<u8> = types.into_iter().flat_map(u32::to_ne_bytes).collect();
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut btf = Vec::new();
    btf.extend(0xeb9f_u16.to_ne_bytes());
    btf.extend([1, 0]);
    for word in [24, 0, length(&types), length(&types), length(STRINGS)] {
        btf.extend(word.to_ne_bytes());
    }
    btf.extend(types);
    btf.extend(STRINGS);
    btf
}
