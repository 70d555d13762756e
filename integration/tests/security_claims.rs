//! `docs/security.md` names a test behind each claim: each of them exists.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Tests that are named as `` [`name`](../file) ``.
fn named(text: &str) -> Vec<(&str, &str)> {
    text.split("[`")
        .filter_map(|part| {
            let (name, rest) = part.split_once("`](../")?;
            Some((rest.split_once(')')?.0, name))
        })
        .collect()
}

/// The file has a function of this name, with the attribute of a test right above it.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let line = line.trim_start_matches("async ");
        line.strip_prefix("fn ")
            .and_then(|rest| rest.strip_prefix(name))
            .is_some_and(|rest| rest.starts_with('('))
    };
    let is_attribute = |line: &str| line == "#[test]" || line.starts_with("#[tokio::test");
    lines.iter().zip(lines.iter().skip(1)).any(|(above, line)| is_attribute(above) && is_it(line))
}

#[test]
fn every_test_that_a_claim_names_is_there() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/security.md"))?;
    let named = named(&text);
    ensure!(named.len() > 40, "only {} tests are named", named.len());
    for (file, name) in named {
        let source = fs::read_to_string(root.join(file)).with_context(|| format!("{file} of {name}"))?;
        ensure!(has_test(&source, name), "{file} has no test {name}");
    }
    Ok(())
}
