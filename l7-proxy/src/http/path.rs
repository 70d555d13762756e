//! Normalization of paths (`normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`), as Envoy does it, which
//! for the first is RFC 3986, 6.2.2 with the URL standard's set of characters to escape.

use orlop_plan::resource::http_connection_manager::{EscapedSlashes, HttpConnectionManager};

/// What became of a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NormalizedPath {
    /// It is normal already.
    Unchanged,
    /// It is this.
    Changed(String),
    /// The client is to ask for this (`UNESCAPE_AND_REDIRECT`).
    Redirect(String),
}

/// A path that is answered with 400.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidPath;

/// Normalizes the path of a target, leaving the query alone.
pub(crate) fn normalize(target: &str, config: &HttpConnectionManager) -> Result<NormalizedPath, InvalidPath> {
    if target.contains('#') {
        return Err(InvalidPath);
    }
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut changed = None;
    let mut redirects = false;
    if config.normalize_path && needs_normalization(path) {
        changed = Some(canonical(path)?);
    }
    if config.escaped_slashes != EscapedSlashes::KeepUnchanged {
        let unescaped = unescape_slashes(changed.as_deref().unwrap_or(path));
        if let Some(unescaped) = unescaped {
            match config.escaped_slashes {
                EscapedSlashes::RejectRequest => return Err(InvalidPath),
                EscapedSlashes::UnescapeAndRedirect => redirects = true,
                EscapedSlashes::UnescapeAndForward | EscapedSlashes::KeepUnchanged => {}
            }
            // Dots between slashes that were hidden are dots all the same.
            changed = Some(if config.normalize_path { canonical(&unescaped)? } else { unescaped });
        }
    }
    if config.merge_slashes && changed.as_deref().unwrap_or(path).contains("//") {
        changed = Some(merge_slashes(changed.as_deref().unwrap_or(path)));
    }
    Ok(match changed {
        None => NormalizedPath::Unchanged,
        Some(path) if redirects => NormalizedPath::Redirect(path + query),
        Some(path) => NormalizedPath::Changed(path + query),
    })
}

/// Cheap, for the common path, which is normal.
fn needs_normalization(path: &str) -> bool {
    path.contains("/.") || path.bytes().any(|byte| byte == b'%' || byte == b'\\' || is_escaped(byte))
}

/// Characters that a path may not hold as they are.
fn is_escaped(byte: u8) -> bool {
    matches!(byte, b'|' | b'"' | b'{' | b'}' | b'<' | b'>' | b'^' | b'`')
}

fn canonical(path: &str) -> Result<String, InvalidPath> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match *byte {
            b'\\' => out.push(b'/'),
            b'%' => match escaped(tail) {
                Some(0) => return Err(InvalidPath),
                Some(plain) if is_unreserved(plain) => {
                    out.push(plain);
                    rest = tail.get(2..).unwrap_or_default();
                }
                _ => out.push(b'%'),
            },
            byte if is_escaped(byte) => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            byte => out.push(byte),
        }
    }
    String::from_utf8(remove_dot_segments(&out)).map_err(|_| InvalidPath)
}

/// RFC 3986, 5.2.4.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut parts = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            b"." | b".." => {
                if part == b".." {
                    segments.pop();
                }
                if last {
                    segments.push(b"");
                }
            }
            other => segments.push(other),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in &segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// `%2F` and `%5C` as slashes; `None` where there are none.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    let mut found = false;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let slash = match escaped(escape.as_bytes().get(1..).unwrap_or_default()) {
            Some(b'/') => Some('/'),
            Some(b'\\') => Some('\\'),
            _ => None,
        };
        found |= slash.is_some();
        out.push(slash.unwrap_or('%'));
        rest = escape.get(if slash.is_some() { 3 } else { 1 }..).unwrap_or_default();
    }
    out.push_str(rest);
    found.then_some(out)
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

/// The byte that two hexadecimal digits stand for.
fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| digits.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}
