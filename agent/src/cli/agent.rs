//! `orlop agent`: from node.yaml to a running node, and back.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tracing::info;

use crate::admin::{AdminSocket, RUN_DIR};
use crate::config::{self, NodeConfig};
use crate::kubernetes::PodSource;
use crate::lock::NodeLock;
use crate::node::{Node, NodePods};
use crate::privilege;
use crate::takeover::{Door, Inheritance};
use crate::watch::ConfigWatch;

/// Questions that may wait for the node task.
const QUESTIONS: usize = 16;

pub(super) fn run(path: &Path, takeover: bool) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("ORLOP_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let config = match config::load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("orlop: {error}");
            return ExitCode::from(2);
        }
    };
    match serve(path, config, takeover) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orlop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(path: &Path, config: NodeConfig, takeover: bool) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!(
            "`orlop agent` needs root: it loads eBPF programs and enters network namespaces; run it with sudo"
        );
    }
    privilege::limit_process()?;
    let run_dir = Path::new(RUN_DIR).join(config.node.name.folder());
    let inherited = if takeover {
        Inheritance::take(&run_dir).context("the agent that runs did not hand over")?
    } else {
        None
    };
    let (lock, inheritance) = match inherited {
        Some((inheritance, lock)) => (NodeLock::inherit(lock)?, Some(inheritance)),
        None => (NodeLock::take(&run_dir, config.node.name.as_str())?, None),
    };
    // Control is one thread; the proxy brings threads of its own for traffic.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(async {
        let watch = ConfigWatch::start(path).with_context(|| format!("cannot watch {}", path.display()))?;
        let socket = AdminSocket::open(&run_dir)
            .with_context(|| format!("cannot open the admin socket in {}", run_dir.display()))?;
        let door = Door::open(&run_dir)
            .with_context(|| format!("cannot open the takeover socket in {}", run_dir.display()))?;
        let (asked, questions) = mpsc::channel(QUESTIONS);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut config = config;
        let mut pods = None;
        if let Some(kubernetes) = &config.kubernetes {
            let mut source = PodSource::start(kubernetes, &config.node.name, &run_dir)
                .context("kubernetes: this is no pod of a cluster")?;
            info!("waiting for the list of this node's pods");
            let newest = source.next().await;
            config.workloads = newest.workloads.clone();
            pods = Some(NodePods { source, newest });
        }
        let takeover = inheritance.as_ref().map(Inheritance::end);
        let mut node = Box::pin(Node::start(config, pods, inheritance)).await?;
        let admin = tokio::task::spawn_local(socket.serve(asked));
        node.hold_pods();
        tokio::select! {
            () = node.run(watch, questions, &door, &lock) => {
                info!("another agent has taken over");
                admin.abort();
                drop(door);
                // In a cluster this comes at once: Kubernetes replaces the agent. It kills it when its patience is over.
                let asked_twice = async {
                    terminate.recv().await;
                    info!("asked to stop (SIGTERM): with the last open connection");
                    terminate.recv().await;
                };
                tokio::select! {
                    () = node.part() => {}
                    () = asked_twice => info!("asked to stop once more (SIGTERM), open connections are cut"),
                    _ = interrupt.recv() => info!("asked to stop (SIGINT), open connections are cut"),
                }
                return anyhow::Ok(());
            }
            () = asked_to_stop(&mut terminate, takeover) => {}
            _ = interrupt.recv() => info!("asked to stop (SIGINT)"),
        }
        admin.abort();
        Box::pin(node.stop()).await;
        anyhow::Ok(())
    }))
}

/// In the middle of a takeover an agent does not stop: the one before it still takes itself for the one that serves, while the
/// programs in the kernel are this one's. Where Kubernetes replaces this one meanwhile, its successor takes over from it.
async fn asked_to_stop(terminate: &mut Signal, takeover: Option<impl Future<Output = ()>>) {
    terminate.recv().await;
    info!("asked to stop (SIGTERM)");
    if let Some(end) = takeover {
        end.await;
    }
}
