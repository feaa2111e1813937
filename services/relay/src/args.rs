//! What can `hubble-relay` be told?

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

use crate::RelayError;

/// Hubble Relay is a proxy server for the hubble API.
#[derive(Debug, Parser)]
#[command(name = "hubble-relay", bin_name = "hubble-relay", disable_version_flag = true)]
pub(crate) struct Command {
    #[command(subcommand)]
    pub action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Run the gRPC proxy server.
    Serve(Box<Serve>),
    /// Display detailed version information
    Version,
}

/// Options of `hubble-relay serve`.
#[derive(Clone, Debug, Parser)]
pub struct Serve {
    /// Name of the current cluster
    #[arg(long, default_value = "default")]
    pub cluster_name: String,
    /// Speak to the nodes' observers in the clear
    #[arg(long)]
    pub disable_client_tls: bool,
    /// Let clients connect in the clear
    #[arg(long)]
    pub disable_server_tls: bool,
    /// Accepted for compatibility, without effect
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, default_value = "true")]
    pub gops: bool,
    /// Accepted for compatibility, without effect
    #[arg(long, default_value_t = 9893)]
    pub gops_port: u16,
    /// Address on which to listen for the gRPC health service
    #[arg(long, default_value = ":4222")]
    pub health_listen_address: String,
    /// Address on which to listen
    #[arg(long, default_value = ":4245")]
    pub listen_address: String,
    /// Accepted for compatibility, without effect
    #[arg(long)]
    pub log_format: Option<String>,
    /// Accepted for compatibility, without effect
    #[arg(long)]
    pub log_level: Option<String>,
    /// Accepted for compatibility, without effect
    #[arg(long)]
    pub metrics_listen_address: Option<String>,
    /// Address of the server that implements the peer gRPC service
    #[arg(long, default_value = "unix:///var/run/cilium/hubble.sock")]
    pub peer_service: String,
    /// Accepted for compatibility, without effect
    #[arg(long)]
    pub pprof: bool,
    /// Accepted for compatibility, without effect
    #[arg(long, default_value = "localhost")]
    pub pprof_address: String,
    /// Accepted for compatibility, without effect
    #[arg(long, default_value_t = 6062)]
    pub pprof_port: u16,
    /// Longest time to wait before attempting to reconnect to a hubble peer when the connection is lost
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub retry_timeout: Duration,
    /// How long flows wait for older ones of other nodes (in follow mode)
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub sort_buffer_drain_timeout: Duration,
    /// Max number of flows that can be buffered for sorting before being sent to the client (per request)
    #[arg(long, default_value_t = 100)]
    pub sort_buffer_len_max: usize,
    /// Certificate of relay towards the nodes' observers (PEM)
    #[arg(long)]
    pub tls_hubble_client_cert_file: Option<PathBuf>,
    /// Key of relay towards the nodes' observers (PEM)
    #[arg(long)]
    pub tls_hubble_client_key_file: Option<PathBuf>,
    /// Certificates of the authorities of the nodes' observers (PEM)
    #[arg(long, value_delimiter = ',')]
    pub tls_hubble_server_ca_files: Vec<PathBuf>,
    /// Certificates of the authorities of relay's clients (PEM)
    #[arg(long, value_delimiter = ',')]
    pub tls_relay_client_ca_files: Vec<PathBuf>,
    /// Certificate of relay towards its clients (PEM)
    #[arg(long)]
    pub tls_relay_server_cert_file: Option<PathBuf>,
    /// Key of relay towards its clients (PEM)
    #[arg(long)]
    pub tls_relay_server_key_file: Option<PathBuf>,
    /// Enable debug messages
    #[arg(short = 'D', long)]
    pub debug: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let nanos = flow::time::parse_duration(text).and_then(|nanos| u64::try_from(nanos).ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| format!("{text:?} is no duration: want e.g. 500ms, 30s or 1m"))
}

/// `:port` is every address of the machine, by both families.
pub fn listen_address(flag: &'static str, text: &str) -> Result<SocketAddr, RelayError> {
    let full = match text.strip_prefix(':') {
        Some(port) => format!("[::]:{port}"),
        None => text.replacen("localhost:", "127.0.0.1:", 1),
    };
    full.parse().map_err(|_| RelayError::ListenAddress { flag, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn flags_of_the_stock_command_are_understood() {
        let command = Command::try_parse_from([
            "hubble-relay",
            "serve",
            "--disable-client-tls",
            "--disable-server-tls",
            "--gops=false",
            "--peer-service=unix:///x.sock",
            "--sort-buffer-drain-timeout",
            "1m30s",
            "--tls-hubble-server-ca-files=a,b",
            "-D",
        ]);
        let Action::Serve(serve) = command.unwrap().action else { panic!() };
        assert_eq!(serve.sort_buffer_drain_timeout, Duration::from_secs(90));
        assert_eq!((serve.gops, serve.debug, serve.tls_hubble_server_ca_files.len()), (false, true, 2));
        assert!(Command::try_parse_from(["hubble-relay", "serve", "--retry-timeout", "soon"]).is_err());
    }

    #[test]
    fn addresses_to_listen_on() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(listen_address("x", text).ok().map(|a| a.to_string()).as_deref(), expected, "{text}");
        };
        check(":4245", Some("[::]:4245"));
        check("127.0.0.1:1", Some("127.0.0.1:1"));
        check("localhost:80", Some("127.0.0.1:80"));
        check("[fd00::1]:80", Some("[fd00::1]:80"));
        check("4245", None);
        check(":x", None);
    }
}
