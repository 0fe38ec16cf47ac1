//! From a SQL file to everything that an attempt of its job needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use mainstem_connectors::{CommitterContext, EnumeratorContext, Staging};
use mainstem_coordinator::{CadenceBounds, CheckpointOptions, JobEnd, JobStatus, SourceSpec, TaskSpec};
use mainstem_core::cluster::STANDBYS_MAX;
use mainstem_core::graph::StreamGraph;
use mainstem_core::ids::{JobId, OperatorId};
use mainstem_core::key_group::KEY_GROUPS_DEFAULT;
use mainstem_core::retry::RetryPolicy;
use mainstem_plan::operator::{JobGraph, Operator, OperatorKind};
use mainstem_planner::JobPlan;

/// Where a job stands.
pub(crate) fn state_in_a_word(status: Option<&JobStatus>, end: Option<&JobEnd>, is_active: bool) -> String {
    match (status, end, is_active) {
        (_, Some(JobEnd::Finished), false) => "finished".to_owned(),
        (_, Some(JobEnd::Stopped), false) => "stopped".to_owned(),
        (_, Some(JobEnd::Failed { .. }), false) => "failed".to_owned(),
        (Some(status), _, true) if status.waiting.is_some() => "waiting".to_owned(),
        (Some(status), _, true) => status.state.to_string(),
        (None, _, true) => "active".to_owned(),
        (_, None, false) => "ended".to_owned(),
    }
}

/// Latency markers that come more often would say no more.
const LATENCY_INTERVAL_MS_MIN: u64 = 10;
/// Time between checkpoints unless the user says otherwise.
const CHECKPOINT_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// Where that time is chosen: until output is visible, and until a failure is over.
const VISIBILITY_DEFAULT: Duration = Duration::from_secs(10);
const RECOVERY_DEFAULT: Duration = Duration::from_secs(60);

/// Subtasks of each operator: the flag, else the setting, else what is given.
pub(crate) fn parallelism(flag: Option<u32>, plan: &JobPlan, otherwise: impl FnOnce() -> u32) -> anyhow::Result<u32> {
    let setting = match plan.settings.get("parallelism.default") {
        Some(text) => Some(text.parse::<u32>().with_context(|| format!("SET 'parallelism.default' = '{text}'"))?),
        None => None,
    };
    let parallelism = flag.or(setting).unwrap_or_else(otherwise);
    let groups = u32::from(key_groups(plan)?);
    if parallelism == 0 || parallelism > groups {
        bail!(
            "parallelism {parallelism} is not between 1 and the job's {groups} key groups (SET 'pipeline.max-parallelism')"
        );
    }
    Ok(parallelism)
}

/// Cores of this machine.
pub(crate) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1))
}

/// Key groups of the job; fixed for its life.
pub(crate) fn key_groups(plan: &JobPlan) -> anyhow::Result<u16> {
    match plan.settings.get("pipeline.max-parallelism") {
        Some(text) => {
            let groups = text.parse::<u16>().ok().filter(|n| (1..=32768).contains(n));
            groups.with_context(|| format!("SET 'pipeline.max-parallelism' = '{text}': expected 1 to 32768"))
        }
        None => Ok(KEY_GROUPS_DEFAULT),
    }
}

const INTERVAL: &str = "execution.checkpointing.interval";

/// A setting that is a time, and not none.
fn time(plan: &JobPlan, key: &str) -> anyhow::Result<Option<Duration>> {
    let Some(text) = plan.settings.get(key) else { return Ok(None) };
    let parsed = mainstem_connectors::parse_duration(text).filter(|duration| !duration.is_zero());
    Ok(Some(parsed.with_context(|| format!("SET '{key}' = '{text}': expected a duration such as '1 s'"))?))
}

fn whole_ms(time: Duration, what: &str) -> anyhow::Result<i64> {
    i64::try_from(time.as_millis()).with_context(|| format!("{what} is too long"))
}

/// Time between checkpoints: the flag, else the setting, else the default; and, where it is to be chosen, within which bounds.
fn checkpoint_interval(flag: Option<Duration>, plan: &JobPlan) -> anyhow::Result<(Duration, Option<CadenceBounds>)> {
    let is_auto = plan.settings.get(INTERVAL).is_some_and(|text| text.trim().eq_ignore_ascii_case("auto"));
    let bound = |name: &str, default: Duration| {
        let key = format!("execution.checkpointing.auto.{name}");
        let time = time(plan, &key)?;
        if time.is_some() && (!is_auto || flag.is_some()) {
            let cause = if is_auto {
                "with --checkpoint-interval"
            } else {
                "without SET 'execution.checkpointing.interval' = 'auto'"
            };
            bail!("SET '{key}' has no effect {cause}");
        }
        whole_ms(time.unwrap_or(default), &format!("'{key}'"))
    };
    let bounds = CadenceBounds {
        visibility_ms: bound("visibility-latency", VISIBILITY_DEFAULT)?,
        recovery_ms: bound("recovery-time", RECOVERY_DEFAULT)?,
    };
    match flag {
        Some(interval) => Ok((interval, None)),
        None if is_auto => Ok((CHECKPOINT_INTERVAL_DEFAULT, Some(bounds))),
        None => Ok((time(plan, INTERVAL)?.unwrap_or(CHECKPOINT_INTERVAL_DEFAULT), None)),
    }
}

/// When checkpoints are taken and how failures are met: the flag, else the settings, else the defaults.
pub(crate) fn checkpoint_options(flag: Option<Duration>, plan: &JobPlan) -> anyhow::Result<CheckpointOptions> {
    let (interval, auto) = checkpoint_interval(flag, plan)?;
    let interval_ms = whole_ms(interval, "the checkpoint interval")?;
    let restart = restart_policy(plan)?;
    let mut options = CheckpointOptions { interval_ms, auto, restart, ..CheckpointOptions::default() };
    options.latency_interval_ms = latency_interval(plan, options.latency_interval_ms)?;
    options.aligned_timeout_ms = aligned_timeout(plan, options.aligned_timeout_ms)?;
    if let Some(timeout) = time(plan, "execution.checkpointing.timeout")? {
        options.timeout_ms = whole_ms(timeout, "'execution.checkpointing.timeout'")?;
    }
    if let Some(text) = plan.settings.get("execution.checkpointing.min-pause") {
        let pause = mainstem_connectors::parse_duration(text);
        let pause = pause.with_context(|| {
            format!("SET 'execution.checkpointing.min-pause' = '{text}': expected a duration such as '1 s'")
        })?;
        options.min_pause_ms = whole_ms(pause, "'execution.checkpointing.min-pause'")?;
    }
    if let Some(text) = plan.settings.get("state.checkpoints.num-retained") {
        let retained = text.parse::<u32>().ok().filter(|n| *n > 0);
        options.retained = retained
            .with_context(|| format!("SET 'state.checkpoints.num-retained' = '{text}': expected a positive number"))?;
    }
    if let Some(text) = plan.settings.get("standby") {
        let standbys = text.trim().parse::<u32>().ok().filter(|n| *n <= STANDBYS_MAX);
        options.standbys =
            standbys.with_context(|| format!("SET 'standby' = '{text}': expected 0 to {STANDBYS_MAX}"))?;
    }
    Ok(options)
}

/// Least time between two latency markers of a source subtask; 0: there are none.
fn latency_interval(plan: &JobPlan, otherwise: u64) -> anyhow::Result<u64> {
    let key = "metrics.latency.interval";
    let Some(text) = plan.settings.get(key) else { return Ok(otherwise) };
    let parsed = mainstem_connectors::parse_duration(text).and_then(|time| u64::try_from(time.as_millis()).ok());
    let parsed = parsed.filter(|ms| *ms == 0 || *ms >= LATENCY_INTERVAL_MS_MIN);
    parsed.with_context(|| {
        format!("SET '{key}' = '{text}': expected 0, or a duration of at least {LATENCY_INTERVAL_MS_MIN} ms")
    })
}

/// How long barriers are aligned, in milliseconds; none: always.
fn aligned_timeout(plan: &JobPlan, otherwise: Option<u64>) -> anyhow::Result<Option<u64>> {
    let (enabled, timeout) =
        ("execution.checkpointing.unaligned.enabled", "execution.checkpointing.aligned-checkpoint-timeout");
    let setting = |key: &str| plan.settings.get(key).map(|text| text.trim());
    let wanted = match setting(timeout) {
        None => None,
        Some(text) if text.eq_ignore_ascii_case("none") => Some(None),
        Some(text) => {
            let parsed = mainstem_connectors::parse_duration(text);
            let parsed = parsed.with_context(|| format!("SET '{timeout}' = '{text}': expected a duration or none"))?;
            Some(Some(u64::try_from(parsed.as_millis()).context("the time to align is too long")?))
        }
    };
    match setting(enabled) {
        Some(text) if text.eq_ignore_ascii_case("false") => match wanted.flatten() {
            None => Ok(None),
            Some(_) => bail!("SET '{timeout}' has no effect with SET '{enabled}' = 'false'"),
        },
        Some(_) => Ok(wanted.unwrap_or(Some(0))),
        None => Ok(wanted.unwrap_or(otherwise)),
    }
}

/// Tells SQL texts apart.
pub(crate) fn hash(sql: &str) -> String {
    // FNV-1a (Fowler, Noll, Vo) over 128 bits: is the same in every version.
    let prime = 0x0000_0000_0100_0000_0000_0000_0000_013b_u128;
    let basis = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
    format!("{:032x}", sql.bytes().fold(basis, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(prime)))
}

/// What follows a failed attempt, by the settings that Flink has for it.
fn restart_policy(plan: &JobPlan) -> anyhow::Result<RetryPolicy> {
    let (attempts, delay) = ("restart-strategy.fixed-delay.attempts", "restart-strategy.fixed-delay.delay");
    let setting = |key: &str| plan.settings.get(key).map(String::as_str);
    let strategy = setting("restart-strategy.type").unwrap_or("exponential-delay").to_ascii_lowercase();
    if strategy != "fixed-delay" {
        if let Some(key) = [attempts, delay].into_iter().find(|key| setting(key).is_some()) {
            bail!("SET '{key}' has no effect without SET 'restart-strategy.type' = 'fixed-delay'");
        }
        let default = RetryPolicy::RESTART;
        return Ok(if strategy == "none" { RetryPolicy { retries_max: 0, ..default } } else { default });
    }
    let retries_max = setting(attempts).map_or(Ok(1), |text| {
        text.trim().parse().with_context(|| format!("SET '{attempts}' = '{text}': expected a whole number"))
    })?;
    let delay = setting(delay).map_or(Ok(Duration::from_secs(1)), |text| {
        let parsed = mainstem_connectors::parse_duration(text);
        parsed.with_context(|| format!("SET '{delay}' = '{text}': expected a duration such as '1 s'"))
    })?;
    let delay_ms = u64::try_from(delay.as_millis()).context("the delay between attempts is too long")?;
    // Never forgotten, as in Flink: the attempts are those of the whole run.
    Ok(RetryPolicy { first_delay_ms: delay_ms, delay_ms_max: delay_ms, retries_max, quiet_ms: u64::MAX })
}

/// The job's name: the flag, else the setting, else the name of the (last) file.
pub(crate) fn job_id(flag: Option<&JobId>, plan: &JobPlan, path: &Path) -> anyhow::Result<JobId> {
    if let Some(id) = flag {
        return Ok(id.clone());
    }
    if let Some(name) = plan.settings.get("pipeline.name") {
        return JobId::new(name.clone()).map_err(|e| anyhow::anyhow!("SET 'pipeline.name': {e}"));
    }
    let stem = path.file_stem().map(|s| s.to_string_lossy()).unwrap_or_default();
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
    let name: String = stem.chars().map(legal).take(JobId::LENGTH_MAX).collect();
    JobId::new(name)
        .map_err(|e| anyhow::anyhow!("no job id can be made of '{}': {e}; give one by --job-id", path.display()))
}

/// The tasks of a job as the coordinator sees them.
pub(crate) fn tasks(graph: &JobGraph, parallelism: u32) -> Vec<TaskSpec> {
    let task = |chain: mainstem_core::graph::Chain| {
        let head = chain.head();
        let source = matches!(graph.node(head).op.kind, OperatorKind::Source(_)).then_some(head);
        let scales = graph.node(head).parallelism.is_none();
        TaskSpec { head, parallelism: graph.parallelism(head, parallelism), scales, operators: chain.operators, source }
    };
    graph.chains().into_iter().map(task).collect()
}

/// The enumerators of a job's sources.
pub(crate) fn sources(graph: &JobGraph, parallelism: u32) -> anyhow::Result<BTreeMap<OperatorId, SourceSpec>> {
    let mut sources = BTreeMap::new();
    let groups = mainstem_plan::operator::source_groups(graph);
    for node in &graph.nodes {
        if let OperatorKind::Source(spec) = &node.op.kind {
            let source = mainstem_connectors::open_source(&spec.table)?;
            let context = EnumeratorContext { parallelism: graph.parallelism(node.id, parallelism) };
            let spec = SourceSpec {
                enumerator: source.enumerator(context),
                monitor_interval: source.monitor_interval(),
                side_by_side: source.splits_at_once() > 1,
                group: groups.get(&node.id).copied(),
            };
            sources.insert(node.id, spec);
        }
    }
    Ok(sources)
}

/// The committers of a job's sinks. `staging`: where its writers stage output.
pub(crate) fn committers(
    graph: &JobGraph,
    job: &JobId,
    staging: &Staging,
) -> anyhow::Result<BTreeMap<OperatorId, Box<dyn mainstem_connectors::Committer>>> {
    let mut committers = BTreeMap::new();
    for node in &graph.nodes {
        if let OperatorKind::Sink(spec) = &node.op.kind {
            let sink = mainstem_connectors::open_sink(&spec.table)?;
            let context = CommitterContext { job: job.clone(), operator: node.id, staging: staging.clone() };
            if let Some(committer) = sink.committer(context) {
                committers.insert(node.id, committer);
            }
        }
    }
    Ok(committers)
}

/// Ids of the operators of some kind.
pub(crate) fn operators_of(graph: &StreamGraph<Operator>, kind: impl Fn(&OperatorKind) -> bool) -> Vec<OperatorId> {
    graph.nodes.iter().filter(|n| kind(&n.op.kind)).map(|n| n.id).collect()
}
