//! The command line.

mod agent;
pub(crate) mod ask;
mod check;
mod check_cluster;
mod enrol;
mod kubectl;
mod migrate;
mod ready;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::kubectl::Remote;
use crate::cni;

/// A service mesh below decks: one agent per node takes the place of every sidecar.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Carry the node's workloads until asked to stop (SIGTERM or SIGINT gives every pod back as it was found).
    Agent {
        /// The node's file; watched for workloads that come and go.
        #[arg(long)]
        config: PathBuf,
        /// Take the place of the agent that runs for the node, if one does: it hands its connections' queues over, and ends
        /// with the last connection that it has.
        #[arg(long)]
        takeover: bool,
    },
    /// Whether a workload is carried: datapath and configuration in force. For hooks that start a pod.
    Enrol {
        /// NAME or NAMESPACE/NAME, as node.yaml names it or is about to.
        workload: String,
        /// Come back when it is.
        #[arg(long)]
        wait: bool,
        /// For how long at most, in seconds.
        #[arg(long, default_value_t = 30, requires = "wait")]
        timeout: u64,
        /// The agent's socket; found by itself where one agent runs.
        #[arg(long)]
        socket: Option<PathBuf>,
    },
    /// As the container runtime runs it, under the name `orlop-cni`: holds a pod that starts until it is carried.
    Cni,
    /// Whether everything that runs here is carried, by the agent of this container. For the probe of its pod.
    Ready {
        /// The agent's socket; found by itself where one agent runs.
        #[arg(long)]
        socket: Option<PathBuf>,
    },
    /// What the running agent does: control plane, workloads, counters, refusals.
    Status(Question),
    /// Which path a connection takes, and which field of the configuration decided.
    Explain {
        /// NAME or NAMESPACE/NAME.
        workload: String,
        /// Where the workload connects to, `10.96.0.20:8080` or `backend.default.svc.cluster.local:8080`.
        destination: String,
        #[command(flatten)]
        question: Question,
    },
    /// What becomes of the workloads' connections from now on, one line each, until interrupted: those that the kernel
    /// balances when they end, all others when they are made or refused.
    Flows {
        /// NAME or NAMESPACE/NAME; without, all of them.
        workload: Option<String>,
        #[command(flatten)]
        question: Question,
    },
    /// Take a namespace from sidecars to the agents, by kubectl: one workload after another is restarted, and no request fails
    /// that its rollout strategy alone would not fail.
    Migrate(migrate::Args),
    /// What this machine's kernel can do of what the agent needs, or what a cluster has of it.
    Check {
        /// Look at the cluster that kubectl reaches, before agents are installed: its nodes, what else runs there, istiod's
        /// settings, and your rights.
        #[arg(long)]
        cluster: bool,
        /// The namespace of istiod, where the agents are to be.
        #[arg(long, default_value = "istio-system", requires = "cluster")]
        namespace: String,
        /// Machine-readable.
        #[arg(long)]
        json: bool,
    },
}

/// How a running agent is asked.
#[derive(Debug, clap::Args)]
struct Question {
    /// Machine-readable.
    #[arg(long)]
    json: bool,
    /// The agent's socket; found by itself where one agent runs.
    #[arg(long)]
    socket: Option<PathBuf>,
    #[command(flatten)]
    remote: Remote,
}

impl Question {
    /// Has it asked on another machine, where that is meant; then this process ends with that.
    fn elsewhere(&self, words: &[&str]) -> anyhow::Result<()> {
        let json = self.json.then_some("--json");
        self.remote.ask(&words.iter().copied().chain(json).collect::<Vec<_>>())
    }
}

impl Cli {
    /// Of this process.
    pub fn from_arguments() -> Self {
        let program = std::env::args_os().next().map(PathBuf::from);
        if program.as_deref().and_then(Path::file_name).is_some_and(|name| name == cni::NAME) {
            return Self { command: Command::Cni };
        }
        Self::parse()
    }

    /// Runs the command. Exit code 0: done; 1: it failed, the reason is on stderr; 2: the arguments or node.yaml are wrong.
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Agent { config, takeover } => return agent::run(&config, takeover),
            Command::Enrol { workload, wait, timeout, socket } => {
                enrol::run(&workload, wait.then(|| Duration::from_secs(timeout)), socket)
            }
            Command::Cni => return cni::run(),
            Command::Ready { socket } => ready::run(socket),
            Command::Status(question) => ask::status(&question),
            Command::Explain { workload, destination, question } => {
                ask::explain(workload, destination, &question)
            }
            Command::Flows { workload, question } => ask::flows(workload, &question),
            Command::Migrate(arguments) => migrate::run(&arguments).map(|()| ExitCode::SUCCESS),
            Command::Check { cluster: true, namespace, json } => check_cluster::run(&namespace, json),
            Command::Check { cluster: false, json, .. } => check::run(json),
        };
        outcome.unwrap_or_else(|error| {
            eprintln!("orlop: {error:#}");
            ExitCode::FAILURE
        })
    }
}
