//! One `HAProxy` thread: HTTP with shared connections to the backend on one port, plain TCP on another.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

/// Writes the configuration and completes the command that starts `HAProxy` with it.
pub(super) fn configure(
    command: &mut Command,
    dir: &Path,
    http: SocketAddr,
    tcp: SocketAddr,
    backend: SocketAddr,
) -> Result<()> {
    let file = dir.join("haproxy.cfg");
    let text = format!(
        "global
    nbthread 1
    maxconn 4096
defaults
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend http
    mode http
    bind {http}
    default_backend http
backend http
    mode http
    http-reuse always
    server backend {backend}
frontend tcp
    mode tcp
    bind {tcp}
    default_backend tcp
backend tcp
    mode tcp
    server backend {backend}
"
    );
    std::fs::write(&file, text)?;
    command.arg("-db").arg("-f").arg(file);
    Ok(())
}
