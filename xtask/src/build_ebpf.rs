//! Builds the kernel programs of `ebpf/` into `datapath/src/orlop.bpf.o`, which is checked in so that plain stable Rust
//! builds everything else.
//!
//! The BPF target has no precompiled `core`, so a compiler with its source is needed; where rustup cannot fetch one,
//! Debian's `rustc-web` has it. The object carries no debug information: it changes with the code and with the compiler,
//! never with a comment, a path or the machine. CI builds it again and compares byte for byte.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::setup::{cache, install, run, say, workspace};

const TARGET: &str = "bpfel-unknown-none";
const BPF_LINKER_VERSION: &str = "0.13.0";
/// What bpf-linker is linked with; not older than the LLVM of the compiler.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const RUSTC: &str = "/usr/bin/rustc";
const PACKAGES: [&str; 8] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
    "libxml2-dev",
];

/// Builds the object and writes it to its place, or with `check` compares it with what is there.
pub(crate) fn build(check: bool) -> Result<()> {
    install(&PACKAGES, "they build the kernel programs")?;
    let built = compile(&bpf_linker()?)?;
    let place = workspace()?.join("datapath/src/orlop.bpf.o");
    let new = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    if check {
        let present = fs::read(&place).with_context(|| format!("cannot read {}", place.display()))?;
        ensure!(
            present == new,
            "{} is not what ebpf/ builds to ({} bytes, not {}).\nRun `cargo xtask build-ebpf` and commit the result. \
             If nothing in ebpf/ was edited, the compiler is another one than last time; this one is {}.",
            place.display(),
            new.len(),
            present.len(),
            compiler()?
        );
        say("the checked-in object is what ebpf/ builds to");
        return Ok(());
    }
    fs::write(&place, new).with_context(|| format!("cannot write {}", place.display()))?;
    say(&format!("wrote {}", place.display()));
    Ok(())
}

/// Compiles the programs and returns where the object is.
fn compile(linker: &Path) -> Result<PathBuf> {
    let workspace = workspace()?;
    let target_dir = cache()?.join("target/ebpf");
    let linker_dir = linker.parent().context("bpf-linker lies in a folder")?.to_owned();
    let path = env::join_paths(
        [linker_dir].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    )?;
    let flags = format!("--remap-path-prefix={}=/orlop", workspace.display());
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The flags and wrappers of whoever calls are for another target.
    for name in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
    {
        cargo.env_remove(name);
    }
    cargo
        .args(["build", "--release", "--locked", "--target", TARGET, "-Z", "build-std=core"])
        .current_dir(workspace.join("ebpf"))
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("PATH", path)
        .env("RUSTC", RUSTC)
        // `-Z build-std` and one instruction in assembly are unstable, and there is no stable way to them.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", flags);
    run(&mut cargo)?;
    Ok(target_dir.join(TARGET).join("release/orlop"))
}

/// Where bpf-linker is, after building it if it is not there.
fn bpf_linker() -> Result<PathBuf> {
    let root = cache()?.join("tools");
    let binary = root.join("bin/bpf-linker");
    let version = Command::new(&binary).arg("--version").output();
    if version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(BPF_LINKER_VERSION)) {
        return Ok(binary);
    }
    say(&format!("building bpf-linker {BPF_LINKER_VERSION} (about a minute): it links the kernel programs"));
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["install", "--quiet", "--locked", "--force", "bpf-linker", "--version", BPF_LINKER_VERSION])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(&root)
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env("LLVM_SYS_221_PREFIX", LLVM_PREFIX)
        // As this command's own build may have set them for the checkout.
        .env_remove("CARGO_TARGET_DIR");
    run(&mut cargo)?;
    Ok(binary)
}

fn compiler() -> Result<String> {
    let version =
        Command::new(RUSTC).arg("--version").output().with_context(|| format!("cannot run {RUSTC}"))?;
    Ok(String::from_utf8_lossy(&version.stdout).trim().to_owned())
}
