//! How are nginx and haproxy set up as reverse proxies, where the machine has them?

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::middle::{Middle, free_port};

/// nginx, without rules and without an access log.
pub fn nginx(server: SocketAddr) -> Result<Middle> {
    let text = |folder: &Path, port: u16| {
        let folder = folder.display();
        format!(
            "daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 20000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream origin {{ server {server}; keepalive 20000; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; }}
  }}
}}
"
        )
    };
    run("nginx", "-c", text)
}

/// haproxy with one thread, without rules and without a log.
pub fn haproxy(server: SocketAddr) -> Result<Middle> {
    let text = |_: &Path, port: u16| {
        format!(
            "global
  maxconn 9800
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend f
  bind 127.0.0.1:{port} backlog 4096
  default_backend b
backend b
  server s {server}
"
        )
    };
    run("haproxy", "-f", text)
}

fn run(program: &str, flag: &str, text: impl Fn(&Path, u16) -> String) -> Result<Middle> {
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let file = folder.path().join("configuration");
    std::fs::write(&file, text(folder.path(), port))?;
    let mut command = Command::new(program);
    command.arg(flag).arg(&file).stdin(Stdio::null());
    if std::env::var_os("AXBENCH_VERBOSE").is_none() {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    let child = command.spawn().with_context(|| format!("start {program}"))?;
    Middle::started(child, SocketAddr::from(([127, 0, 0, 1], port)), Some(folder))
}
