//! INSERTs of the shell: jobs that run in this process beside the shell, or in a cluster.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use mainstem_coordinator::JobOutcome;
use mainstem_core::ids::JobId;
use mainstem_rt::{Clock, SystemClock};

use super::session::JOB_NAME;
use super::shell::{Interrupts, Shell};
use crate::embedded::{Launch, Running, launch};
use crate::job;
use crate::run::Runtimes;
use crate::status::Totals;

/// Jobs that run in a shell at a time.
const RUNNING_MAX: usize = 64;
/// Jobs that have ended and are still listed.
const ENDED_MAX: usize = 100;

/// See the module.
#[derive(Default)]
pub(super) struct Jobs {
    running: BTreeMap<JobId, Running>,
    /// How others ended, oldest first, as SHOW JOBS lists them.
    ended: Vec<Vec<String>>,
}

impl Jobs {
    /// Runs a statement as a job. Waits for its end where nobody types, or where that is set.
    pub(super) fn insert(&mut self, shell: &mut Shell, text: &str, table: &str) -> anyhow::Result<()> {
        let script = shell.session.script(text);
        let plan = shell.session.plan(&script)?;
        if plan.explain_only {
            bail!("bug: this only explains");
        }
        let job = match shell.session.setting(JOB_NAME) {
            Some(name) => JobId::new(name).map_err(|error| anyhow::anyhow!("SET '{JOB_NAME}': {error}"))?,
            None => new_name(table)?,
        };
        if let Some(cluster) = &shell.cluster {
            let control = &shell.runtimes.control;
            control.block_on(cluster.submit(&job, script.text, shell.parallelism))?;
            super::note(&format!("job '{job}' submitted"));
            if !shell.session.waits_for_jobs() {
                return Ok(());
            }
            let mut busy = shell.interrupts.busy();
            let waited = control.block_on(async {
                tokio::select! {
                    ended = cluster.wait(&job) => ended,
                    () = busy.wait() => Ok("goes on; STOP JOB ends it".to_owned()),
                }
            });
            super::note(&format!("job '{job}' {}", waited?));
            return Ok(());
        }
        if self.running.contains_key(&job) {
            bail!(
                "job '{job}' runs in this shell already; STOP JOB '{job}' first, or SET '{JOB_NAME}' to another name"
            );
        }
        if self.running.len() >= RUNNING_MAX {
            bail!("{RUNNING_MAX} jobs run in this shell; stop some, or run this one by `mainstem run`");
        }
        let launched = Launch {
            job: job.clone(),
            parallelism: job::parallelism(shell.parallelism, &plan, job::cores)?,
            key_groups: job::key_groups(&plan)?,
            options: job::checkpoint_options(None, &plan)?,
            graph: plan.graph,
            sql: script.text,
            state_dir: shell.state_dir.clone(),
            memory: shell.memory.clone(),
            unheard: false,
        };
        let running = shell.runtimes.control.block_on(launch(&shell.runtimes, launched))?;
        if shell.is_typed && !shell.session.waits_for_jobs() {
            super::note(&format!("job '{job}' runs; SHOW JOBS lists it, STOP JOB '{job}' ends it"));
            self.running.insert(job, running);
            return Ok(());
        }
        let told = wait(&shell.runtimes, running, &mut shell.interrupts)?;
        super::note(&told.0);
        self.note_end(told.1);
        Ok(())
    }

    /// Takes a last checkpoint of a job and stops it.
    pub(super) fn stop(&mut self, shell: &mut Shell, name: &str) -> anyhow::Result<()> {
        let job = JobId::new(name).map_err(anyhow::Error::msg)?;
        if let Some(running) = self.running.remove(&job) {
            shell.runtimes.control.block_on(running.stop());
            let told = wait(&shell.runtimes, running, &mut shell.interrupts)?;
            super::note(&told.0);
            self.note_end(told.1);
            return Ok(());
        }
        let Some(cluster) = &shell.cluster else {
            bail!("no job '{job}' runs in this shell; SHOW JOBS lists those that do")
        };
        shell.runtimes.control.block_on(cluster.stop(&job))?;
        super::note(&format!("job '{job}': asked to stop"));
        Ok(())
    }

    /// All jobs: those of this process, then those of the cluster.
    pub(super) fn list(&self, shell: &Shell) -> anyhow::Result<Vec<Vec<String>>> {
        let mut rows = self.ended.clone();
        for running in self.running.values() {
            let status = running.status.borrow().clone();
            rows.push(row(running, &status.state.to_string()));
        }
        if let Some(cluster) = &shell.cluster {
            rows.extend(shell.runtimes.control.block_on(cluster.jobs())?);
        }
        Ok(rows)
    }

    /// Which jobs have ended by themselves since the last time, and how.
    pub(super) fn news(&mut self, runtimes: &Runtimes) -> Vec<String> {
        let ended: Vec<JobId> =
            self.running.iter().filter(|(_, job)| job.outcome.is_finished()).map(|(job, _)| job.clone()).collect();
        let mut news = Vec::new();
        for job in ended {
            let Some(mut running) = self.running.remove(&job) else { continue };
            let outcome = runtimes.control.block_on(&mut running.outcome).context("bug: its coordinator has died");
            match outcome.and_then(|outcome| told(&running, outcome)) {
                Ok((text, row)) => {
                    news.push(text);
                    self.note_end(row);
                }
                Err(error) => {
                    news.push(format!("error: {error:#}"));
                    self.note_end(row(&running, "failed"));
                }
            }
        }
        news
    }

    /// Stops all that run here.
    pub(super) fn end(&mut self, runtimes: &Runtimes, interrupts: &mut Interrupts) -> anyhow::Result<()> {
        for running in self.running.values() {
            super::note(&format!("stopping job '{}' with a last checkpoint", running.job));
            runtimes.control.block_on(running.stop());
        }
        let mut outcome = Ok(());
        for (_, running) in std::mem::take(&mut self.running) {
            match wait(runtimes, running, interrupts) {
                Ok((text, _)) => super::note(&text),
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn note_end(&mut self, row: Vec<String>) {
        if self.ended.len() >= ENDED_MAX {
            self.ended.remove(0);
        }
        self.ended.push(row);
    }
}

/// Waits until a job has ended; the first Ctrl-C asks for a last checkpoint.
fn wait(
    runtimes: &Runtimes,
    mut running: Running,
    interrupts: &mut Interrupts,
) -> anyhow::Result<(String, Vec<String>)> {
    let mut busy = interrupts.busy();
    let outcome = runtimes.control.block_on(async {
        tokio::select! {
            outcome = &mut running.outcome => return outcome,
            () = busy.wait() => running.stop().await,
        }
        (&mut running.outcome).await
    });
    told(&running, outcome.context("bug: its coordinator has died")?)
}

/// How a job has ended, and its line for SHOW JOBS.
fn told(running: &Running, outcome: JobOutcome) -> anyhow::Result<(String, Vec<String>)> {
    let job = &running.job;
    let Totals { rows_in, rows_out, .. } = running.totals();
    let word = match outcome {
        JobOutcome::Finished => "finished",
        JobOutcome::AlreadyFinished => "had finished before; nothing to do",
        JobOutcome::Stopped => "stopped",
        JobOutcome::Failed(failure) => bail!("job '{job}' failed: {}", failure.message),
    };
    Ok((format!("job '{job}' {word}: {rows_in} rows in, {rows_out} rows out"), row(running, word)))
}

fn row(running: &Running, state: &str) -> Vec<String> {
    let status = running.status.borrow().clone();
    let Totals { rows_in, rows_out, .. } = running.totals();
    let epochs = status.last_committed.map_or_else(|| "0".to_owned(), |epoch| epoch.to_string());
    let parallelism = running.parallelism.to_string();
    vec![running.job.to_string(), state.to_owned(), parallelism, epochs, rows_in.to_string(), rows_out.to_string()]
}

/// A job of its own for each INSERT, unless the user names it.
fn new_name(table: &str) -> anyhow::Result<JobId> {
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
    let table: String = table.chars().map(legal).take(64).collect();
    let now = SystemClock::default().now().0;
    JobId::new(format!("sql-{table}-{now}")).map_err(anyhow::Error::msg)
}
