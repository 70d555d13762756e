//! The pages of the program's own code that its start alone needed, given back to the node.
//!
//! The kernel maps code in pieces of 64 KiB around what runs, and what ran once stays mapped: most of it belongs to
//! reading configuration, to loading eBPF programs and to libraries' set-up.
#![expect(unsafe_code, reason = "a mapping is named by its address")]

use std::fs;
use std::io;

/// Unmaps all of the program's code; what runs on is mapped again as it is reached. Returns how many bytes that was at most.
pub(crate) fn give_back() -> io::Result<usize> {
    let program = fs::read_link("/proc/self/exe")?;
    let program = program.to_string_lossy();
    let mut given_back = 0;
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        if let Some((start, len)) = code_of(&program, line) {
            let start = std::ptr::with_exposed_provenance_mut(start);
            // SAFETY: the mapping is the file's, private and not writable, so that its pages hold what the file holds:
            // whoever touches one that is gone gets the same bytes again. The kernel rejects a range that is not mapped.
            if unsafe { libc::madvise(start, len, libc::MADV_DONTNEED) } != 0 {
                return Err(io::Error::last_os_error());
            }
            given_back += len;
        }
    }
    Ok(given_back)
}

/// Start and length of a mapping, where a line of `/proc/self/maps` is about code of `program` that nobody can write to.
fn code_of(program: &str, line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    if permissions != "r-xp" || !line.ends_with(program) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_runs_on_after_it_was_given_back() {
        let before = code_of("x", "1000-3000 r-xp 00001000 fe:00 12 /usr/bin/x");
        let given_back = give_back().unwrap();

        assert!(given_back > 1 << 20, "{given_back} bytes: a test program has more code than that");
        assert_eq!(code_of("x", "1000-3000 r-xp 00001000 fe:00 12 /usr/bin/x"), before);
    }

    #[test]
    fn what_could_have_been_written_to_is_kept() {
        for line in [
            "1000-3000 r--p 00001000 fe:00 12 /usr/bin/x",
            "1000-3000 rwxp 00001000 fe:00 12 /usr/bin/x",
            "1000-3000 r-xp 00001000 fe:00 12 /usr/lib/y",
            "1000-3000 r-xp 00000000 00:00 0",
        ] {
            assert_eq!(code_of("/usr/bin/x", line), None, "{line}");
        }
    }
}
