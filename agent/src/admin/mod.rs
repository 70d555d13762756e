//! The admin socket: one JSON request a connection, one JSON answer, or one for each line of what goes on.
//!
//! Owns the socket file. Questions go to the node task, which owns the state; the answer is text ready to print, so that
//! the command line needs to know nothing of the agent's types.

use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use crate::run_file::RunFile;

/// Under it, each node's agent has a folder of its own.
pub const RUN_DIR: &str = "/run/orlop";
/// The socket's name in the node's folder.
pub const SOCKET: &str = "admin.sock";
/// A request that is longer is not one.
const LONGEST_REQUEST: u64 = 64 * 1024;

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// The whole node.
    Status {
        /// Machine-readable.
        json: bool,
    },
    /// Whether a workload is carried; looks at it at once instead of with the next tick.
    Enrolled {
        /// NAME or NAMESPACE/NAME.
        workload: String,
    },
    /// A pod has its network and does not run yet: the answer comes when it is carried, or is not to be.
    Starting(Starting),
    /// What becomes of connections from now on.
    Flows {
        /// NAME or NAMESPACE/NAME; without, all workloads.
        workload: Option<String>,
        /// Machine-readable.
        json: bool,
    },
    /// The path of one connection.
    Explain {
        /// NAME or NAMESPACE/NAME.
        workload: String,
        /// HOST:PORT.
        destination: String,
        /// Machine-readable.
        json: bool,
    },
}

/// A pod that is about to run, as the container runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Starting {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// By which it is told from another of that name.
    pub uid: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// The addresses that it has there.
    pub addresses: Vec<IpAddr>,
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// Ready to print.
    Done(String),
    /// Why there is none.
    Refused(String),
}

/// What the node task gives back.
#[derive(Debug)]
pub enum Reply {
    /// The one answer.
    Once(Answer),
    /// Line by line, until the asker goes.
    Lines(mpsc::Receiver<String>),
}

/// A request on its way to the node task.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// The listening socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    _file: RunFile,
}

impl AdminSocket {
    /// Opens `run_dir/admin.sock` for root alone. The caller holds the node's lock, so a file that is there is stale.
    pub fn open(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(SOCKET);
        RunFile::clear(&path)?;
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, _file: RunFile::made(path)? })
    }

    /// Answers until the node task is gone.
    pub async fn serve(self, node: mpsc::Sender<Asked>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::task::spawn_local(answer(stream, node.clone()));
                }
                Err(error) => {
                    warn!(%error, "admin socket: accept failed");
                    return;
                }
            }
        }
    }
}

async fn answer(stream: UnixStream, node: mpsc::Sender<Asked>) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LONGEST_REQUEST));
    let reply = match read.read_line(&mut line).await {
        Err(_) | Ok(0) => return,
        Ok(_) => match serde_json::from_str(&line) {
            Err(error) => Reply::Once(Answer::Refused(format!("not a request: {error}"))),
            Ok(request) => {
                let (reply, answered) = oneshot::channel();
                let stopping = || Reply::Once(Answer::Refused("the agent is stopping".to_owned()));
                if node.send(Asked { request, reply }).await.is_err() {
                    stopping()
                } else {
                    tokio::select! {
                        answer = answered => answer.unwrap_or_else(|_| stopping()),
                        // Nothing more is asked for: this is the end of the connection.
                        _ = read.read_line(&mut line) => return,
                    }
                }
            }
        },
    };
    match reply {
        // A client that went away does not want the answer.
        Reply::Once(answer) => drop(say(&mut write, &answer).await),
        Reply::Lines(mut lines) => {
            line.clear();
            loop {
                tokio::select! {
                    Some(line) = lines.recv() => if say(&mut write, &Answer::Done(line)).await.is_err() { return },
                    // Nothing more is asked for: this is the end of the connection.
                    _ = read.read_line(&mut line) => return,
                    else => return,
                }
            }
        }
    }
}

async fn say(write: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut text = serde_json::to_string(answer)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}
