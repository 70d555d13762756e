//! A pod: a network namespace with an address, a cgroup, and the identity that the mesh knows it by.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::bed::{Bed, BedName};
use crate::dns::{Answer, Question};
use crate::process::Process;
use crate::tools::workspace_binary;
use crate::traffic::{Http, Load, Tcp};
use crate::{cgroup, net};

/// What a pod is to be, before it is started.
#[derive(Debug)]
pub struct PodSpec<'a> {
    bed: &'a Bed,
    name: &'a str,
    account: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl<'a> PodSpec<'a> {
    pub(crate) fn new(bed: &'a Bed, name: &'a str) -> Self {
        Self { bed, name, account: name.to_owned(), labels: BTreeMap::new(), annotations: BTreeMap::new() }
    }

    /// Adds a label, as istiod matches them.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an annotation, as `node.yaml` has it.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Sets the service account; by default it is the pod's name.
    #[must_use]
    pub fn account(mut self, account: &str) -> Self {
        account.clone_into(&mut self.account);
        self
    }

    /// Makes the namespace and the cgroup.
    pub fn start(self) -> Result<Pod> {
        let bed = self.bed.name().clone();
        let index = self.bed.next_pod_index();
        let address = Ipv4Addr::new(10, 77, 0, index);
        cgroup::create(&bed.pod_cgroup(self.name)?)?;
        net::add_pod(&bed, self.name, index, address)?;
        Ok(Pod {
            name: self.name.to_owned(),
            account: self.account,
            labels: self.labels,
            annotations: self.annotations,
            address,
            dir: self.bed.dir(),
            bed,
            servers: RefCell::new(Vec::new()),
        })
    }
}

/// A started pod. It lives as long as its bed; the servers in it end with this handle.
#[derive(Debug)]
pub struct Pod {
    name: String,
    account: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    address: Ipv4Addr,
    dir: PathBuf,
    bed: BedName,
    servers: RefCell<Vec<(u16, Process)>>,
}

impl Pod {
    /// The pod's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The service account.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The annotations.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The pod's address.
    pub fn ip(&self) -> IpAddr {
        self.address.into()
    }

    /// The pod's address with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddrV4::new(self.address, port).into()
    }

    /// The file of the network namespace.
    pub fn netns(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.bed.netns(&self.name))
    }

    /// The cgroup.
    pub fn cgroup(&self) -> Result<PathBuf> {
        self.bed.pod_cgroup(&self.name)
    }

    /// Removes the network namespace from under the pod.
    pub fn delete_netns(&self) -> Result<()> {
        net::delete_netns(&self.bed.netns(&self.name))
    }

    /// A command that will run inside the pod.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = self.enter()?;
        command.arg("--").arg(program);
        Ok(command)
    }

    /// Like [`Pod::command`], in another group: how a redirect rule tells a sidecar from its application.
    pub fn command_in_group(&self, gid: u32, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = self.enter()?;
        command.arg("--gid").arg(gid.to_string()).arg("--").arg(program);
        Ok(command)
    }

    fn enter(&self) -> Result<Command> {
        let mut command = Command::new(workspace_binary("bed-pod")?);
        command.arg("enter").arg("--cgroup").arg(self.cgroup()?).arg("--netns").arg(self.netns());
        Ok(command)
    }

    /// Runs a command line inside the pod to its end and returns what it printed. Split at blanks, without a shell.
    pub fn run(&self, command_line: &str) -> Result<String> {
        let mut words = command_line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        let output = self.command(program)?.args(words).output()?;
        ensure!(output.status.success(), "{command_line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A command of the helper itself, inside the pod.
    pub(crate) fn helper(&self, subcommand: &str) -> Result<Command> {
        let mut command = self.command(workspace_binary("bed-pod")?)?;
        command.arg(subcommand);
        Ok(command)
    }

    /// The directory for logs and sockets of what runs in the pod.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Serves HTTP/1.1 and h2c on `port`: answers with what it was asked, as [`crate::traffic::Echo`].
    pub fn serve_http(&self, port: u16) -> Result<()> {
        self.serve("echo-http", port)
    }

    /// Serves TCP on `port`: says who it is and who it sees, as [`crate::traffic::Greeting`], then echoes.
    pub fn serve_tcp(&self, port: u16) -> Result<()> {
        self.serve("echo-tcp", port)
    }

    /// Answers DNS at port 53, see [`crate::dns`].
    pub fn serve_dns(&self) -> Result<()> {
        self.start_server("resolver", 53, self.helper("resolver")?)
    }

    /// Asks a resolver from inside the pod.
    pub fn dns(&self, question: &Question) -> Result<Answer> {
        let output = self.helper("dns")?.arg(serde_json::to_string(question)?).output()?;
        ensure!(output.status.success(), "bed-pod dns: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn serve(&self, kind: &str, port: u16) -> Result<()> {
        let mut command = self.helper(kind)?;
        command.args(["--name", &self.name, "--port", &port.to_string()]);
        self.start_server(kind, port, command)
    }

    fn start_server(&self, kind: &str, port: u16, mut command: Command) -> Result<()> {
        let server = Process::spawn(&format!("{}-{kind}-{port}", self.name), &self.dir, &mut command)?
            .ready_when(|server| Ok(server.log().contains("listening")))?;
        self.servers.borrow_mut().push((port, server));
        Ok(())
    }

    /// Kills the server on `port`, as a crash does.
    pub fn stop_serving(&self, port: u16) {
        self.servers.borrow_mut().retain(|(on, _)| *on != port);
    }

    /// HTTP requests from inside the pod to `to`.
    pub fn http(&self, to: SocketAddr) -> Http<'_> {
        Http::new(self, to)
    }

    /// TCP connections from inside the pod to `to`.
    pub fn tcp(&self, to: SocketAddr) -> Tcp<'_> {
        Tcp::new(self, to)
    }

    /// Starts traffic that goes on until it is stopped. Sends what `http` describes, over and over.
    pub fn load_http(&self, http: Http<'_>) -> Result<Load> {
        Load::start(self, "load-http", &http.into_call())
    }

    /// Starts connecting, echoing and closing, over and over, until it is stopped.
    pub fn load_tcp(&self, tcp: Tcp<'_>) -> Result<Load> {
        Load::start(self, "load-tcp", &tcp.into_call())
    }
}
