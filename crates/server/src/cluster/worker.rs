//! `mainstem worker`: runs subtasks for a cluster.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use mainstem_core::cluster::messages::WorkerId;
use mainstem_rt::SystemClock;
use mainstem_worker::{Counters, WorkerOptions};
use tokio::runtime::Builder;

use super::http_backend;
use crate::cli::WorkerArgs;
use crate::{copies, memory};

/// Runs a worker until it is told to end.
pub(crate) fn worker(args: &WorkerArgs) -> anyhow::Result<ExitCode> {
    let control = super::control_runtime()?;
    // Subtasks have threads of their own: a busy operator must not keep the worker from its heartbeats.
    let data = Builder::new_multi_thread().thread_name("data").enable_all().build().context("cannot start threads")?;
    let outcome = control.block_on(async {
        let transport = super::lasting_transport(&args.node)?;
        let listen = args.node.listen.as_deref().unwrap_or("127.0.0.1:0");
        let listener = transport.listen(listen).await?.of_cluster(args.node.cluster.clone());
        let address = listener.local_address();
        let name = args.name.clone().unwrap_or_else(|| "worker".to_owned());
        if args.advertise.is_none() && (address.starts_with("0.0.0.0:") || address.starts_with("[::]:")) {
            bail!("other workers cannot reach '{address}'; say under which address they can, by --advertise HOST:PORT");
        }
        let reached = args.advertise.clone().unwrap_or(address);
        // Another life of a worker of this name is another worker. Hashers of the standard library are seeded at random.
        let life = RandomState::new().build_hasher().finish();
        let worker = WorkerId(format!("{name}@{reached}#{life:016x}"));
        tracing::info!(%worker, "worker listens");
        let copies = copies::of_worker(&args.copies, &args.node.cluster, &name)?;
        let (counters, shown, https) = (Counters::default(), name.clone(), transport.https());
        let memory = memory::budget(&args.memory);
        let options = WorkerOptions {
            worker,
            cluster: args.node.cluster.clone(),
            coordinators: args.coordinators.clone(),
            advertise: args.advertise.clone(),
            slots: args.slots,
            compress: args.compress,
            transport,
            copies,
            memory: memory.clone(),
            clock: Arc::new(SystemClock::default()),
            data_runtime: data.handle().clone(),
            counters: counters.clone(),
        };
        let serving = http_backend::serve_worker(args, shown, counters, memory, https).await?;
        tokio::select! {
            outcome = serving => outcome,
            outcome = mainstem_worker::run(options, listener) => outcome.map_err(anyhow::Error::from),
            () = super::ended(args.node.with_parent) => Ok(()),
        }
    });
    control.shutdown_background();
    data.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}
