//! The roles of a cluster, and the commands that speak to one.

pub(crate) mod api;
mod audit;
mod client;
mod coordinator;
mod factory;
mod http_backend;
mod local;
mod operate;
mod savepoints;
mod shell;
mod submission;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use mainstem_net::{TlsFiles, Transport};
use mainstem_objects::Place;
use mainstem_state::CheckpointStore;
use tokio::runtime::{Builder, Runtime};

pub(crate) use self::api::JobSummary;
#[cfg(test)]
pub(crate) use self::api::{Request, Response, SubmitRequest};
pub(crate) use self::audit::audit;
pub(crate) use self::client::{cancel, jobs, remove, rescale, status, submit};
#[cfg(test)]
pub(crate) use self::coordinator::Node as CoordinatorNode;
pub(crate) use self::coordinator::coordinator;
pub(crate) use self::local::{cluster, started_here};
pub(crate) use self::operate::{add_member, drain, members, remove_member};
pub(crate) use self::savepoints::{new_id, savepoint, stop};
pub(crate) use self::shell::ShellClient;
pub(crate) use self::worker::worker;
use crate::cli::NodeArgs;
use crate::file_watch::FileWatch;

/// A runtime for what must not be starved by the work of jobs.
fn control_runtime() -> anyhow::Result<Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build();
    runtime.context("cannot start threads")
}

/// How a node speaks to others: by TLS where any of its files is given, then all must be.
fn transport(args: &NodeArgs) -> anyhow::Result<Transport> {
    let files = [&args.tls_certificate, &args.tls_key, &args.tls_authority];
    match files {
        [Some(certificate), Some(key), Some(authority)] => {
            let files = TlsFiles { certificate: certificate.clone(), key: key.clone(), authority: authority.clone() };
            Ok(Transport::tls(&files)?)
        }
        [None, None, None] => Ok(Transport::plain()),
        _ => anyhow::bail!("TLS needs --tls-certificate, --tls-key and --tls-authority together"),
    }
}

/// The same for a node that runs for long: certificates that are renewed are used from then on.
fn lasting_transport(args: &NodeArgs) -> anyhow::Result<Transport> {
    let files = [&args.tls_certificate, &args.tls_key, &args.tls_authority].into_iter().flatten().cloned().collect();
    let watch = FileWatch::new("certificates", files);
    let transport = transport(args)?;
    if transport.is_tls() {
        let renewed = transport.clone();
        tokio::spawn(watch.run(move || Ok(renewed.reload()?)));
    }
    Ok(transport)
}

/// Waits for a wish to end: a signal, or the end of stdin where a parent keeps it open for us.
async fn ended(with_parent: bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = async {
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return std::future::pending().await;
        };
        tokio::select! {
            // A parent that is interrupted together with us ends us in its own order.
            _ = interrupt.recv(), if !with_parent => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::select! {
        () = signals => {}
        () = parent_gone(), if with_parent => {}
    }
}

/// Waits until nobody holds the other end of stdin any more, however the parent has ended.
async fn parent_gone() {
    let (sender, gone) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = sender.send(());
    });
    let _ = gone.await;
}

/// An absolute path to a directory that is created.
fn directory(path: &PathBuf) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot create the directory '{}'", path.display()))?;
    path.canonicalize().with_context(|| format!("cannot resolve the directory '{}'", path.display()))
}

/// Where checkpoints lie: an absolute path to a directory that is created, or the URL of an object store.
fn state_dir(place: &Path) -> anyhow::Result<PathBuf> {
    match Place::parse(place).map_err(|message| anyhow::anyhow!("--state-dir: {message}"))? {
        Place::Local(path) => directory(&path),
        Place::Objects(_) => {
            // What is wrong with its address or with the environment shows here, not in the first job.
            CheckpointStore::open(place)?;
            Ok(place.to_owned())
        }
    }
}

fn done() -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
