//! A job whose answer is known, and a watch over what must never go back while it is disturbed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::Sandbox;
use super::cluster::Jobs;

/// A count by key and window of the rows that a generator makes at a given rate.
pub(crate) fn windows(events: u64, per_second: u64, limited: bool, aligned: &str) -> String {
    format!(
        "SET 'execution.checkpointing.interval' = '200 ms';
         SET 'execution.checkpointing.aligned-checkpoint-timeout' = '{aligned}';
         CREATE TABLE bid (auction BIGINT, price BIGINT, bidder BIGINT, `dateTime` TIMESTAMP(3),
             WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '1' SECOND)
         WITH ('connector' = 'nexmark', 'table' = 'bid', 'events.num' = '{events}', 'rate.limited' = '{limited}',
             'first-event.rate' = '{per_second}', 'next-event.rate' = '{per_second}', 'splits' = '4');
         CREATE TABLE counts (auction BIGINT, bids BIGINT, sum_of_prices BIGINT, ended TIMESTAMP(3))
         WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
         INSERT INTO counts
         SELECT auction, COUNT(*), SUM(price), window_end
         FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '500' MILLISECOND))
         GROUP BY auction, window_start, window_end;"
    )
}

/// What one undisturbed process makes of the same rows.
pub(crate) fn undisturbed(events: u64, per_second: u64) -> BTreeMap<String, usize> {
    let sandbox = Sandbox::new(&windows(events, per_second, false, "none"));
    sandbox.run_ok(&["run", "job.sql"]);
    sandbox.lines("out")
}

/// How many lines are missing and how many there are too many.
pub(crate) fn difference(expected: &BTreeMap<String, usize>, found: &BTreeMap<String, usize>) -> (usize, usize) {
    let missing = expected.iter().filter(|(line, count)| found.get(*line) != Some(count)).count();
    let extra = found.iter().filter(|(line, count)| expected.get(*line) != Some(count)).count();
    (missing, extra)
}

/// Of this run; to repeat one, set MAINSTEM_SEED.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("MAINSTEM_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()))
}

/// How far a split has been read; of one that has been read to its end, more than any other.
type Progress = (u64, i64);

/// Epochs and attempts never go back, whoever answers; nor do offsets and watermarks of any split from one complete
/// checkpoint to the next.
pub(crate) struct Forward {
    pub(crate) published: u64,
    pub(crate) attempt: u64,
    manifests: PathBuf,
    read: u64,
    splits: BTreeMap<String, Progress>,
    /// Manifests that were compared with one before.
    pub(crate) compared: u64,
}

impl Forward {
    /// Over the job `job`, whose checkpoints lie in the directory.
    pub(crate) fn new(state_directory: &std::path::Path) -> Forward {
        let manifests = state_directory.join("jobs/job/manifests");
        Forward { published: 0, attempt: 0, manifests, read: 0, splits: BTreeMap::new(), compared: 0 }
    }

    /// Checks an answer. True where it says that the job has ended.
    pub(crate) fn look(&mut self, jobs: Option<&Jobs>) -> bool {
        let Some(jobs) = jobs else { return false };
        // Who does not lead may be behind.
        let Some(job) = jobs.job("job").filter(|_| jobs.leads()) else { return false };
        if jobs.has_ended("job") || !job["status"].is_null() {
            let (published, attempt) = (jobs.number("job", "committed"), jobs.number("job", "generation"));
            assert!(published >= self.published, "epoch {published} after {}", self.published);
            assert!(attempt >= self.attempt, "attempt {attempt} after {}", self.attempt);
            (self.published, self.attempt) = (published, attempt);
            self.look_at_manifests();
        }
        jobs.has_ended("job")
    }

    /// Reads the manifests of published epochs that are new. Of several of one epoch the one of the newest attempt counts:
    /// attempts before it have died before they could record theirs. So it is with coordinators of one attempt.
    fn look_at_manifests(&mut self) {
        let mut newest = BTreeMap::<u64, (u64, u64)>::new();
        for entry in std::fs::read_dir(&self.manifests).into_iter().flatten().map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((epoch, generation)) = name.strip_suffix(".manifest").and_then(|name| name.split_once("-g"))
            else {
                continue;
            };
            let (generation, adoptions) = generation.split_once("-a").unwrap_or((generation, "0"));
            let epoch: u64 = epoch.parse().unwrap();
            let writer: (u64, u64) = (generation.parse().unwrap(), adoptions.parse().unwrap());
            if epoch > self.read && epoch <= self.published {
                let known = newest.entry(epoch).or_default();
                *known = writer.max(*known);
            }
        }
        for (epoch, (generation, adoptions)) in newest {
            // It may have been retired meanwhile.
            let after = if adoptions == 0 { String::new() } else { format!("-a{adoptions}") };
            let path = self.manifests.join(format!("{epoch}-g{generation}{after}.manifest"));
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            let (_, json) = text.split_once('\n').unwrap();
            self.check(epoch, &serde_json::from_str(json).unwrap());
            self.read = epoch;
        }
    }

    fn check(&mut self, epoch: u64, manifest: &Value) {
        for (operator, splits) in manifest["sources"].as_object().unwrap() {
            for split in splits.as_array().unwrap() {
                let name = format!("{operator}/{}", split["split"]["id"].as_str().unwrap());
                let now = progress(&split["progress"]);
                let before = self.splits.entry(name.clone()).or_insert(now);
                assert!(
                    now.0 >= before.0 && now.1 >= before.1,
                    "{name} at {now:?} in epoch {epoch}, before {before:?}"
                );
                *before = now;
            }
        }
        self.compared += u64::from(self.read > 0);
    }
}

fn progress(progress: &Value) -> Progress {
    match progress {
        Value::Null => (0, i64::MIN),
        Value::String(finished) if finished == "Finished" => (u64::MAX, i64::MAX),
        reading => {
            let reading = &reading["Reading"];
            (reading["position"].as_str().unwrap().parse().unwrap(), reading["watermark"].as_i64().unwrap())
        }
    }
}
