//! What runs inside the pods of the test bed: servers, clients, load, and the way in. The library starts it; what it
//! is told and what it answers are the types of `orlop_integration::traffic`, as JSON.

mod authorizer;
mod client;
mod collector;
mod dns;
mod doors;
mod echo_http;
mod echo_tcp;
mod enter;
mod load;
mod relay;
mod resolver;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use orlop_integration::Call;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enter a cgroup, then a network namespace, and become another program there.
    Enter(enter::Enter),
    /// Answer HTTP/1.1 and h2c requests with what was asked.
    EchoHttp(Server),
    /// Greet TCP connections and echo them.
    EchoTcp(Server),
    /// Send HTTP requests and print the replies.
    Http { calls: Vec<String> },
    /// Make TCP connections and print what came back.
    Tcp { calls: Vec<String> },
    /// Send bytes as they are and print what came back.
    Raw { calls: Vec<String> },
    /// Send HTTP requests until stdin closes and print a report.
    LoadHttp { call: String },
    /// Make TCP connections until stdin closes and print a report.
    LoadTcp { call: String },
    /// Answer DNS at port 53, over UDP and TCP.
    Resolver,
    /// Ask a resolver and print what came back.
    Dns { question: String },
    /// Do nothing until asked to stop: holds the namespaces of a pod.
    Pause,
    /// Carry connections from a Unix socket, which is reachable from every network namespace, to an address.
    Relay { socket: PathBuf, to: SocketAddr },
}

#[derive(Debug, clap::Args)]
struct Server {
    /// The name to answer with.
    #[arg(long)]
    name: String,
    /// The port to listen on, at every address.
    #[arg(long)]
    port: u16,
}

fn main() -> Result<()> {
    let command = match Cli::parse().command {
        Command::Enter(enter) => return enter.run(),
        other => other,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Enter(_) => unreachable!("has returned above"),
            Command::EchoHttp(server) => echo_http::serve(server).await,
            Command::EchoTcp(server) => echo_tcp::serve(server).await,
            Command::Http { calls } => {
                let mut replies = Vec::new();
                for call in &calls {
                    replies.extend(client::http(&parse(call)?).await);
                }
                print(&replies)
            }
            Command::Tcp { calls } => {
                let mut replies = Vec::new();
                for call in &calls {
                    replies.extend(client::tcp(&parse(call)?).await);
                }
                print(&replies)
            }
            Command::Raw { calls } => {
                let mut replies = Vec::new();
                for call in &calls {
                    replies.push(client::raw(&parse(call)?).await);
                }
                print(&replies)
            }
            Command::LoadHttp { call } => print(&load::http(parse(&call)?).await),
            Command::LoadTcp { call } => print(&load::tcp(parse(&call)?).await),
            Command::Resolver => resolver::serve().await,
            Command::Dns { question } => print(&dns::ask(&serde_json::from_str(&question)?).await),
            Command::Pause => {
                signal(SignalKind::terminate())?.recv().await;
                Ok(())
            }
            Command::Relay { socket, to } => relay::serve(&socket, to).await,
        }
    })
}

fn parse(call: &str) -> Result<Call> {
    Ok(serde_json::from_str(call)?)
}

fn print(report: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}
