//! One nginx worker with keep-alive connections to the backend.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

/// Writes the configuration and completes the command that starts nginx with it.
pub(super) fn configure(
    command: &mut Command,
    dir: &Path,
    listen: SocketAddr,
    backend: SocketAddr,
) -> Result<()> {
    let file = dir.join("nginx.conf");
    // The limits on requests a connection are lifted because reconnecting is another cell's work.
    let text = format!(
        "daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    upstream backend {{ server {backend}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen {listen};
        location / {{
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
        }}
    }}
}}
",
        dir = dir.display()
    );
    std::fs::write(&file, text)?;
    command.arg("-c").arg(file);
    Ok(())
}
