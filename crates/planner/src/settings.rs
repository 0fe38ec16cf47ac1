//! What `SET` may set. Called by the planner for every `SET`, and by the documentation. Gives no setting a
//! meaning: the server and the engine do; here unknown keys and values of the wrong form are refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::Schema;
use mainstem_connectors::TableSpec;
use mainstem_plan::operator::IDLE_TIMEOUT_MIN_MS;

use crate::suggest::nearest;

/// A key of `SET`.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key.
    pub key: &'static str,
    /// What its value looks like.
    pub kind: SettingKind,
    /// What it does, with unit and default.
    pub help: &'static str,
}

/// The form of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettingKind {
    /// Any text.
    Text,
    /// A whole number in this range.
    Number(u64, u64),
    /// A duration such as `10 s`.
    Duration,
    /// A duration, or this word.
    DurationOr(&'static str),
    /// Zero, or a duration of at least [`IDLE_TIMEOUT_MIN_MS`].
    IdleTimeout,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// Every key that is known.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "execution.checkpointing.aligned-checkpoint-timeout",
        kind: SettingKind::DurationOr("none"),
        help: "So long after it has left the sources a checkpoint's barrier no longer waits for rows that are in flight; they are stored with the checkpoint. 0 is at once, none is never. Default 1 min.",
    },
    Setting {
        key: "execution.checkpointing.auto.recovery-time",
        kind: SettingKind::Duration,
        help: "With 'execution.checkpointing.interval' = 'auto': a failure is to be over after so long. Default 1 min.",
    },
    Setting {
        key: "execution.checkpointing.auto.visibility-latency",
        kind: SettingKind::Duration,
        help: "With 'execution.checkpointing.interval' = 'auto': output is to be visible so long after what it follows from has come. Default 10 s.",
    },
    Setting {
        key: "execution.checkpointing.interval",
        kind: SettingKind::DurationOr("auto"),
        help: "Time between checkpoints, or auto: it is chosen from what checkpoints and failures are measured to cost. Default 10 s.",
    },
    Setting {
        key: "execution.checkpointing.min-pause",
        kind: SettingKind::Duration,
        help: "Least time between the end of a checkpoint and the beginning of the next one. Default 0.",
    },
    Setting {
        key: "execution.checkpointing.timeout",
        kind: SettingKind::Duration,
        help: "A checkpoint that takes longer ends the attempt of the job; the time in which state is read back does not count, which may take 16 times as long. Default 10 min.",
    },
    Setting {
        key: "execution.checkpointing.unaligned.enabled",
        kind: SettingKind::Word(&["true", "false"]),
        help: "false: barriers always wait, as with 'execution.checkpointing.aligned-checkpoint-timeout' = 'none'; true: they do not, unless that setting gives a time.",
    },
    Setting {
        key: "execution.runtime-mode",
        kind: SettingKind::Word(&["streaming"]),
        help: "Only streaming is there.",
    },
    Setting {
        key: "late-rows.table",
        kind: SettingKind::Text,
        help: "The table that rows are written to which come too late for their window; without it they are counted and dropped.",
    },
    Setting {
        key: "metrics.latency.interval",
        kind: SettingKind::Duration,
        help: "Least time between two latency markers of a source subtask, by which it is measured how long rows take; at least 10 ms, 0 is none. Default 200 ms.",
    },
    Setting { key: "parallelism.default", kind: SettingKind::Number(1, 32_768), help: "Subtasks of each operator." },
    Setting {
        key: "pipeline.max-parallelism",
        kind: SettingKind::Number(1, 32_768),
        help: "Key groups of the job, fixed for its life; the parallelism can never be above it. Default 256.",
    },
    Setting { key: "pipeline.name", kind: SettingKind::Text, help: "The job's name. Default: the file's name." },
    Setting {
        key: "restart-strategy.fixed-delay.attempts",
        kind: SettingKind::Number(1, 1_000_000),
        help: "With 'restart-strategy.type' = 'fixed-delay': how often the job is started again. Default 1.",
    },
    Setting {
        key: "restart-strategy.fixed-delay.delay",
        kind: SettingKind::Duration,
        help: "With 'restart-strategy.type' = 'fixed-delay': the wait before each attempt. Default 1 s.",
    },
    Setting {
        key: "restart-strategy.type",
        kind: SettingKind::Word(&["exponential-delay", "fixed-delay", "none"]),
        help: "What follows a failure that may pass. Default exponential-delay: ten attempts in a row, half a second to a minute apart.",
    },
    Setting {
        key: "state.checkpoints.num-retained",
        kind: SettingKind::Number(1, 1_000),
        help: "How many completed checkpoints are kept.",
    },
    Setting {
        key: "standby",
        kind: SettingKind::Number(0, 3),
        help: "On a cluster: other workers that follow the state of each slot after every checkpoint, so that who takes it over has it on its own disk. Default 0.",
    },
    Setting {
        key: "table.exec.mini-batch.allow-latency",
        kind: SettingKind::Duration,
        help: "How long an aggregation without a window may hold changes back, so that a group that changes often gives one change in this time.",
    },
    Setting {
        key: "table.exec.mini-batch.enabled",
        kind: SettingKind::Word(&["true", "false"]),
        help: "Whether aggregations without a window hold changes back; needs table.exec.mini-batch.allow-latency. Default false.",
    },
    Setting {
        key: "table.exec.mini-batch.size",
        kind: SettingKind::Number(1, 1_000_000_000),
        help: "Rows after which changes are no longer held back.",
    },
    Setting {
        key: "table.exec.source.idle-timeout",
        kind: SettingKind::IdleTimeout,
        help: "A split that shows nothing for so long no longer holds back event time; at least 100 ms, 0 is never. A table's 'scan.watermark.idle-timeout' goes before it.",
    },
    Setting {
        key: "table.exec.state.ttl",
        kind: SettingKind::Duration,
        help: "State that nothing has changed for so long is forgotten: results that need it later are then wrong in the way that EXPLAIN says; 0, the default, is never.",
    },
    Setting {
        key: "table.optimizer.agg-phase-strategy",
        kind: SettingKind::Word(&["AUTO", "ONE_PHASE", "TWO_PHASE"]),
        help: "Whether an aggregation without a window adds up each batch by key before rows go to the subtask of their key, so that a hot key is not the work of one: TWO_PHASE wherever the result is exactly the same, AUTO also only while keys come often enough for it to pay, ONE_PHASE never. Default AUTO.",
    },
    Setting {
        key: "table.optimizer.distinct-agg.split.enabled",
        kind: SettingKind::Word(&["true", "false"]),
        help: "Whether an aggregation without a window with DISTINCT over one column runs as two, so that the distinct values of a hot key are spread over all subtasks. Default false.",
    },
    Setting { key: "table.local-time-zone", kind: SettingKind::Word(&["UTC"]), help: "Only UTC is there." },
];

/// Says what is wrong with a key or its value.
pub(crate) fn check(key: &str, value: &str) -> Result<(), String> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
        let keys: Vec<_> = SETTINGS.iter().map(|setting| setting.key).collect();
        let advice = match nearest(key, keys.iter().copied()) {
            Some(known) => format!("did you mean '{known}'?"),
            None => format!("known are {}", keys.join(", ")),
        };
        return Err(format!("the setting '{key}' is unknown; {advice}"));
    };
    let wrong = |expected: String| Err(format!("the setting '{key}' has the value '{value}': expected {expected}"));
    match setting.kind {
        SettingKind::Text if value.trim().is_empty() => wrong("a text that is not empty".to_owned()),
        SettingKind::Text => Ok(()),
        SettingKind::Number(least, most) => match value.trim().parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(()),
            _ => wrong(format!("a whole number from {least} to {most}")),
        },
        SettingKind::Duration => match duration_ms(value) {
            Some(_) => Ok(()),
            None => wrong("a duration such as '10 s' or '500 ms'".to_owned()),
        },
        SettingKind::DurationOr(word) if value.trim().eq_ignore_ascii_case(word) => Ok(()),
        SettingKind::DurationOr(word) => match duration_ms(value) {
            Some(_) => Ok(()),
            None => wrong(format!("a duration such as '30 s', or {word}")),
        },
        SettingKind::IdleTimeout => match idle_timeout_ms(value) {
            Some(_) => Ok(()),
            None => wrong(IDLE_TIMEOUT_FORM.to_owned()),
        },
        SettingKind::Word(words) if words.iter().any(|word| word.eq_ignore_ascii_case(value)) => Ok(()),
        SettingKind::Word(words) => wrong(words.join(" or ")),
    }
}

/// What an idle time-out looks like.
pub(crate) const IDLE_TIMEOUT_FORM: &str = "0, or a duration of at least 100 ms, such as '10 s'";

/// What the greatest drift of aligned sources looks like.
pub(crate) const MAX_DRIFT_FORM: &str = "a duration such as '1 min'";

/// An idle time-out, in milliseconds.
pub(crate) fn idle_timeout_ms(text: &str) -> Option<u64> {
    duration_ms(text).filter(|ms| *ms == 0 || *ms >= IDLE_TIMEOUT_MIN_MS)
}

/// A duration in Flink's notation, in milliseconds.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    // The connectors own the notation; their typed reading of options is the way to it.
    let options = BTreeMap::from([("duration".to_owned(), text.to_owned())]);
    let table = TableSpec {
        name: String::new(),
        schema: Arc::new(Schema::empty()),
        primary_key: vec![],
        partition_keys: vec![],
        options,
    };
    let duration = table.options().duration("duration").ok()??;
    u64::try_from(duration.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_wrong_values_are_refused() {
        assert_eq!(check("parallelism.default", "4"), Ok(()));
        assert_eq!(
            check("paralelism.default", "4"),
            Err("the setting 'paralelism.default' is unknown; did you mean 'parallelism.default'?".to_owned())
        );
        assert!(check("xyz", "4").unwrap_err().contains("known are execution.checkpointing.aligned"));
        assert_eq!(
            check("parallelism.default", "0"),
            Err("the setting 'parallelism.default' has the value '0': expected a whole number from 1 to 32768"
                .to_owned())
        );
        assert!(check("execution.checkpointing.interval", "soon").is_err());
        assert_eq!(check("table.exec.source.idle-timeout", "0"), Ok(()));
        assert_eq!(check("table.exec.source.idle-timeout", "100 ms"), Ok(()));
        assert!(check("table.exec.source.idle-timeout", "99 ms").unwrap_err().contains("at least 100 ms"));
        assert_eq!(check("execution.checkpointing.interval", "10s"), Ok(()));
        let aligned = "execution.checkpointing.aligned-checkpoint-timeout";
        assert_eq!((check(aligned, "none"), check(aligned, "0 ms")), (Ok(()), Ok(())));
        assert!(check(aligned, "never").unwrap_err().ends_with("expected a duration such as '30 s', or none"));
        assert!(check("table.local-time-zone", "Europe/Berlin").unwrap_err().ends_with("expected UTC"));
    }
}
