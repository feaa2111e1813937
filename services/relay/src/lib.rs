//! Hubble Relay: one observer over the observers of all nodes.
#![forbid(unsafe_code)]

mod args;
mod merge;
mod observer;
mod pool;

use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use hubble::{
    Listeners, ServeError,
    client::{InvalidAddress, Tls},
    rpc::observer::observer_server::ObserverServer,
    server::{serve_routes, with_health},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::{error, info};

pub use args::{Serve, listen_address};
pub use observer::{Relay, Settings};
pub use pool::{Pool, PoolSettings};

/// Why relay ended.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// An address to listen on.
    #[error("--{flag} {text}: want host:port or :port")]
    ListenAddress {
        /// The flag.
        flag: &'static str,
        /// What was given.
        text: String,
    },
    /// The peer service's address.
    #[error("--peer-service: {0}")]
    PeerService(#[from] InvalidAddress),
    /// A certificate or key that cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// TLS towards clients.
    #[error(
        "TLS towards clients is not available yet: start relay with --disable-server-tls, on an address that only trusted clients reach"
    )]
    ServerTls,
    /// Half of a key pair.
    #[error(
        "--tls-hubble-client-cert-file and --tls-hubble-client-key-file are required together, but only one was given"
    )]
    HalfIdentity,
    /// The server.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The runtime or signals.
    #[error("start: {0}")]
    Start(io::Error),
}

/// The command `hubble-relay`; the first argument is its name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match args::Command::try_parse_from(arguments) {
        Ok(command) => command,
        Err(error) => {
            // Help and version come here as well, with status 0.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    match command.action {
        args::Action::Version => {
            #[allow(clippy::print_stdout)]
            {
                println!("hubble-relay v{}", env!("CARGO_PKG_VERSION"));
            }
            ExitCode::SUCCESS
        }
        args::Action::Serve(options) => match serve_until_signal(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                error!(%failure, "relay ends");
                #[allow(clippy::print_stderr)]
                {
                    eprintln!("Error: {failure}");
                }
                ExitCode::FAILURE
            }
        },
    }
}

fn serve_until_signal(options: &Serve) -> Result<(), RelayError> {
    // A caller that set up logging before keeps it.
    let level = if options.debug { tracing::Level::DEBUG } else { tracing::Level::INFO };
    let terminal = io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(terminal).with_max_level(level).try_init();
    let runtime = tokio::runtime::Runtime::new().map_err(RelayError::Start)?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).map_err(RelayError::Start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RelayError::Start)?;
        let signalled = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            signalled.cancel();
        });
        serve(options, stop).await
    })
}

/// Serves until stopped.
pub async fn serve(options: &Serve, stop: CancellationToken) -> Result<(), RelayError> {
    if !options.disable_server_tls {
        return Err(RelayError::ServerTls);
    }
    let address = listen_address("listen-address", &options.listen_address)?;
    let health = listen_address("health-listen-address", &options.health_listen_address)?;
    let pool = Pool::start(pool_settings(options)?, stop.clone());
    let relay = Relay::new(pool, Settings::from(options));
    let (routes, _reporter) = with_health(Routes::new(ObserverServer::new(relay))).await?;
    let mut listeners = Listeners::new().with_tcp(address).await?;
    if health != address {
        // Health is a help, not a condition.
        match Listeners::new().with_tcp(health).await {
            Ok(more) => listeners.tcp.extend(more.tcp),
            Err(failure) => error!(%failure, "health is not served on its own address"),
        }
    }
    info!(%address, peer_service = options.peer_service, "relay serves");
    serve_routes(routes, listeners, stop).await?;
    Ok(())
}

fn pool_settings(options: &Serve) -> Result<PoolSettings, RelayError> {
    let read = |path: &PathBuf| fs::read(path).map_err(|source| RelayError::Read { path: path.clone(), source });
    let identity = match (&options.tls_hubble_client_cert_file, &options.tls_hubble_client_key_file) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        (None, None) => None,
        _ => return Err(RelayError::HalfIdentity),
    };
    let authorities = options.tls_hubble_server_ca_files.iter().map(read).collect::<Result<_, _>>()?;
    let tls = Tls { authorities, identity, server_name: None, insecure: false };
    Ok(PoolSettings {
        peer_service: options.peer_service.parse()?,
        retry: options.retry_timeout,
        tls: (!options.disable_client_tls).then_some(tls),
    })
}
