//! How does a program of the lab start, run and end?

use std::error::Error;
use std::future::Future;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

/// Runs `work` until it ends or the process is told to end (SIGTERM, SIGINT). The latter is success, at once: threads that
/// still wait for a name server are left behind.
pub fn run<E: Into<Box<dyn Error + Send + Sync>>>(name: &str, work: impl Future<Output = Result<(), E>>) -> ExitCode {
    log();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return refuse(name, &format!("no runtime: {e}")),
    };
    let code = runtime.block_on(async {
        tokio::select! {
            ended = work => outcome(name, ended),
            () = told_to_end() => ExitCode::SUCCESS,
        }
    });
    runtime.shutdown_background();
    code
}

/// Says why a program does not start.
pub fn refuse(name: &str, problem: &str) -> ExitCode {
    eprintln!("{name}: {problem}");
    ExitCode::from(2)
}

/// Waits for SIGTERM or SIGINT. Handling them is needed: the kernel keeps them from a first process that does not.
pub async fn told_to_end() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        error!("signals cannot be received: only SIGKILL will end this program");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => info!("told to end"),
        _ = interrupt.recv() => info!("told to end"),
    }
}

fn outcome<E: Into<Box<dyn Error + Send + Sync>>>(name: &str, ended: Result<(), E>) -> ExitCode {
    let Err(e) = ended else { return ExitCode::SUCCESS };
    let e: Box<dyn Error + Send + Sync> = e.into();
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    eprintln!("{name}: {text}");
    ExitCode::FAILURE
}

/// Logs to standard error unless the program that this is part of has already said where.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube=warn,hyper=warn"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
