//! The system that the jobs write to: rows wait hidden under a name until they are published. Whatever is published is
//! checked at that moment against what the coordinators have agreed on (I1, I2).

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{ArrayRef, Int8Array, RecordBatch};
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use mainstem_connectors::{
    Committer, CommitterContext, ConnectorError, Delivery, ErrorKind, Sink, SinkWriter, WriterContext,
};
use mainstem_core::ids::{Epoch, Generation, JobId};
use mainstem_core::protocol::Committable;

use super::checks::Witness;
use super::weather::{Fate, Weather};

/// What waits hidden.
struct Hidden {
    job: JobId,
    generation: Generation,
    rows: Vec<String>,
}

#[derive(Default)]
struct Contents {
    /// Hidden output by its name.
    hidden: BTreeMap<String, Hidden>,
    /// Visible output by its name.
    visible: BTreeMap<String, Vec<String>>,
    /// The newest epoch of each job of which something was published.
    published: BTreeMap<JobId, Epoch>,
}

/// The system.
#[derive(Clone)]
pub(super) struct Outlet {
    weather: Weather,
    witness: Witness,
    contents: Arc<Mutex<Contents>>,
}

impl Outlet {
    pub(super) fn new(weather: Weather, witness: Witness) -> Outlet {
        Outlet { weather, witness, contents: Arc::default() }
    }

    /// The table of the connector `simulated`.
    pub(super) fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(SimulatedSink { outlet: self.clone() })
    }

    /// All visible rows of a job, sorted.
    pub(super) fn rows(&self, job: &JobId) -> Vec<String> {
        let prefix = format!("{job}/");
        let contents = self.lock();
        let of_job = contents.visible.iter().filter(|(name, _)| name.starts_with(&prefix));
        let mut rows: Vec<String> = of_job.flat_map(|(_, rows)| rows.clone()).collect();
        rows.sort_unstable();
        rows
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as the call does, and fails where it has no effect; gives whether its answer is lost.
    async fn call(&self) -> Result<bool, ConnectorError> {
        let (fate, latency) = self.weather.fate(|state| &state.sink, true);
        tokio::time::sleep(latency).await;
        match fate {
            Fate::Succeeds => Ok(false),
            Fate::SeemsToFail => {
                self.weather.count("lost answers of the sink");
                Ok(true)
            }
            Fate::Fails | Fate::TimesOut | Fate::Full => Err(busy()),
        }
    }

    fn hide(&self, name: &str, job: &JobId, generation: Generation, rows: Vec<String>) {
        let hidden = Hidden { job: job.clone(), generation, rows };
        if self.lock().hidden.insert(name.to_owned(), hidden).is_some() {
            self.weather.violation(format!("two writers hide their rows under '{name}'"));
        }
    }

    fn publish(&self, job: &JobId, epoch: Epoch, name: &str) -> Result<(), ConnectorError> {
        let mut contents = self.lock();
        let Some(hidden) = contents.hidden.remove(name) else {
            if contents.visible.contains_key(name) {
                self.weather.count("epochs published again");
                return Ok(());
            }
            return Err(ConnectorError::new(ErrorKind::Lost, format!("output '{name}' is gone")));
        };
        let newest = contents.published.get(job).copied().unwrap_or_default();
        if epoch < newest {
            self.weather.violation(format!("job '{job}': epoch {epoch} is published after epoch {newest}"));
        }
        if !self.witness.is_complete(job, epoch) {
            self.weather
                .violation(format!("job '{job}': epoch {epoch} is published, and no coordinator knows it as complete"));
        }
        contents.published.insert(job.clone(), epoch);
        contents.visible.insert(name.to_owned(), hidden.rows);
        Ok(())
    }
}

fn busy() -> ConnectorError {
    ConnectorError::new(ErrorKind::Transient, "the simulated sink is busy")
}

struct SimulatedSink {
    outlet: Outlet,
}

impl Sink for SimulatedSink {
    fn strongest_delivery(&self) -> (Delivery, String) {
        (Delivery::ExactlyOnce, "rows are hidden until their epoch is published".to_owned())
    }

    fn writer(&self, context: WriterContext) -> Box<dyn SinkWriter> {
        Box::new(Writer { outlet: self.outlet.clone(), context, rows: Vec::new() })
    }

    fn committer(&self, ctx: CommitterContext) -> Option<Box<dyn Committer>> {
        Some(Box::new(Publisher { outlet: self.outlet.clone(), job: ctx.job }))
    }
}

struct Writer {
    outlet: Outlet,
    context: WriterContext,
    rows: Vec<String>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, rows: &RecordBatch, changes: Option<&Int8Array>) -> Result<(), ConnectorError> {
        assert!(changes.is_none(), "only inserts are accepted");
        for row in 0..rows.num_rows() {
            let value = |column: &ArrayRef| array_value_to_string(column, row).expect("a value that can be shown");
            self.rows.push(rows.columns().iter().map(value).collect::<Vec<_>>().join(" "));
        }
        Ok(())
    }

    async fn seal(
        &mut self,
        epoch: Epoch,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>, ConnectorError>>, ConnectorError> {
        let rows = std::mem::take(&mut self.rows);
        let (outlet, context) = (self.outlet.clone(), self.context.clone());
        let sealing = async move {
            if rows.is_empty() {
                return Ok(Vec::new());
            }
            let WriterContext { job, operator, subtask, generation, .. } = &context;
            let name = format!("{job}/{operator}/{:05}-g{generation}-{subtask}", epoch.0);
            let is_lost = outlet.call().await?;
            outlet.hide(&name, job, *generation, rows);
            if is_lost { Err(busy()) } else { Ok(vec![Committable { payload: name }]) }
        };
        Ok(sealing.boxed())
    }
}

struct Publisher {
    outlet: Outlet,
    job: JobId,
}

#[async_trait]
impl Committer for Publisher {
    async fn commit(&mut self, epoch: Epoch, committables: &[Committable]) -> Result<(), ConnectorError> {
        for Committable { payload: name } in committables {
            let is_lost = self.outlet.call().await?;
            self.outlet.publish(&self.job, epoch, name)?;
            if is_lost {
                return Err(busy());
            }
        }
        Ok(())
    }

    async fn visible_after(&mut self, job: &JobId, epoch: Epoch) -> Result<(Vec<String>, u64), ConnectorError> {
        if self.outlet.call().await? {
            return Err(busy());
        }
        let prefix = format!("{job}/");
        let epoch_of = |name: &str| name.rsplit('/').next()?.split_once('-')?.0.parse().ok();
        let contents = self.outlet.lock();
        let later = contents.visible.keys().filter(|name| name.starts_with(&prefix) && epoch_of(name) > Some(epoch.0));
        let names: Vec<String> = later.cloned().collect();
        let count = names.len() as u64;
        Ok((names.into_iter().take(3).collect(), count))
    }

    async fn clean_up(&mut self, generations: Range<Generation>) -> Result<(), ConnectorError> {
        let is_lost = self.outlet.call().await?;
        let is_left = |hidden: &Hidden| hidden.job == self.job && generations.contains(&hidden.generation);
        self.outlet.lock().hidden.retain(|_, hidden| !is_left(hidden));
        if is_lost { Err(busy()) } else { Ok(()) }
    }
}
