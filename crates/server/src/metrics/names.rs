//! Every metric: its name, its unit, and what it says. docs/metrics.md tells of each, which a test sees to; so are the names in
//! the dashboard and the alerts.

/// A metric.
#[derive(Debug)]
pub(super) struct Metric {
    /// Without unit and `_total`.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) unit: Unit,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    None,
    Bytes,
    Seconds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows, until its process or its attempt begins anew.
    Counter,
    Gauge,
    /// Of times; only grows as a counter does.
    Histogram,
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $unit:ident $name:literal $help:literal;)*) => {
        $(
            pub(super) static $constant: Metric =
                Metric { name: $name, help: $help, unit: Unit::$unit, kind: Kind::$kind };
        )*

        /// All of them.
        #[cfg(test)]
        pub(super) static ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    BUILD Gauge None "mainstem_build_info" "1, with the version and the kind of the node as labels.";

    JOB_STATE Gauge None "mainstem_job_state" "1 for the state in which a job is.";
    JOB_ACTIVE Gauge None "mainstem_job_active" "1 while a job is to run, 0 once it has ended.";
    JOB_FAILED Gauge None "mainstem_job_failed" "1 where a job has failed for good.";
    JOB_WAITING Gauge None "mainstem_job_waiting" "1 while a job waits for slots.";
    JOB_PARALLELISM Gauge None "mainstem_job_parallelism" "Subtasks of each operator that does not say otherwise.";
    JOB_ATTEMPT Gauge None "mainstem_job_attempt" "Number of the newest attempt of a job.";
    JOB_FAILURES Counter None "mainstem_job_failures" "Attempts of a job that have failed, since this process drives it.";
    JOB_ROWS_IN Counter None "mainstem_job_rows_in" "Rows read by the sources of a job, in its newest attempt.";
    JOB_ROWS_OUT Counter None "mainstem_job_rows_out" "Rows written by the sinks of a job, in its newest attempt.";
    JOB_LATE_ROWS Counter None "mainstem_job_late_rows" "Rows of a job that were late, in its newest attempt: dropped, or versions of a temporal join that count later than their times say.";
    JOB_DROPPED Counter None "mainstem_job_dropped_records" "Wrong or refused records that a job has dropped, in its newest attempt.";
    JOB_DEAD_LETTERS Counter None "mainstem_job_dead_letters" "Wrong records that went to a table of dead letters, in its newest attempt.";
    JOB_WATERMARK Gauge Seconds "mainstem_job_watermark_timestamp" "Event time up to which a job has all rows; not there before the first, nor at the end of the input.";
    JOB_WATERMARK_LAG Gauge Seconds "mainstem_job_watermark_lag" "Time of day less the watermark of a job.";

    CHECKPOINTS_COMPLETED Counter None "mainstem_checkpoints_completed" "Checkpoints of a job that are complete, since this process drives it.";
    CHECKPOINTS_FAILED Counter None "mainstem_checkpoints_failed" "Checkpoints of a job that had begun when their attempt failed.";
    CHECKPOINTS_UNALIGNED Counter None "mainstem_checkpoints_unaligned" "Complete checkpoints of a job whose barrier overtook rows.";
    CHECKPOINT_TIME Counter Seconds "mainstem_checkpoints_duration" "Time that the complete checkpoints of a job have taken together.";
    CHECKPOINT_DURATION Gauge Seconds "mainstem_checkpoint_last_duration" "Time that the newest checkpoint of a job took, from its barrier to its record.";
    CHECKPOINT_ALIGNMENT Gauge Seconds "mainstem_checkpoint_last_alignment" "Longest time that a subtask aligned the barrier of the newest checkpoint.";
    CHECKPOINT_SIZE Gauge Bytes "mainstem_checkpoint_last_size" "State that the newest checkpoint of a job refers to.";
    CHECKPOINT_AGE Gauge Seconds "mainstem_checkpoint_age" "Time since the newest checkpoint of a job was complete; without one, since the job was handed in.";
    CHECKPOINT_INTERVAL Gauge Seconds "mainstem_checkpoint_interval" "Time between two checkpoints that the user of a job wants.";
    CHECKPOINT_TIMES Histogram Seconds "mainstem_checkpoint_duration" "Times that complete checkpoints of a job took, from their barrier to their record.";
    PUBLISH_TIMES Histogram Seconds "mainstem_publish_duration" "Times from when a checkpoint of a job was complete until the output of its epoch was visible.";
    VISIBLE_LATENCY Histogram Seconds "mainstem_row_visible_latency" "Times from when rows were read by a source until what they caused at a sink was published, by latency markers.";
    EPOCH_COMPLETE Gauge None "mainstem_epoch_complete" "Newest epoch of a job that is complete.";
    EPOCH_PUBLISHED Gauge None "mainstem_epoch_published" "Newest epoch of a job whose output is visible.";

    STANDBYS_WANTED Gauge None "mainstem_standbys_wanted" "Standbys that each slot of a job should have.";
    STANDBYS_MISSING Gauge None "mainstem_standbys_missing" "Standbys that the slots of a job lack together.";
    STANDBY_LAG Gauge None "mainstem_standby_lag_epochs" "Complete epochs that the best standby of a slot does not have whole yet.";
    STANDBY_FILES Gauge None "mainstem_standby_waiting_files" "State files that the standbys of a slot have still to fetch.";
    STANDBY_BYTES Gauge Bytes "mainstem_standby_waiting" "Bytes of state that the standbys of a slot have still to fetch.";

    OPERATOR_INFO Gauge None "mainstem_operator_info" "1, with the name and the kind of an operator as labels.";
    ROWS_IN Counter None "mainstem_operator_rows_in" "Rows that came in; for a source, rows read.";
    ROWS_OUT Counter None "mainstem_operator_rows_out" "Rows that went out; for a sink, rows written.";
    BYTES_READ Counter Bytes "mainstem_operator_read" "Bytes read from outside.";
    LATE_ROWS Counter None "mainstem_operator_late_rows" "Rows that were late: dropped, or versions of a temporal join that count later than their times say.";
    DROPPED Counter None "mainstem_operator_dropped_records" "Records that were wrong and were dropped as the user chose.";
    DEAD_LETTERS Counter None "mainstem_operator_dead_letters" "Records that were wrong and went to the table that takes them.";
    UNMATCHED Counter None "mainstem_operator_unmatched_changes" "Changes that were to take away a row that was not there.";
    BUSY Counter Seconds "mainstem_operator_busy" "Time that the subtasks of a task have worked; told at its first operator.";
    BACKPRESSURED Counter Seconds "mainstem_operator_backpressured" "Time that the subtasks of a task have waited for room at their receivers.";
    IDLE Counter Seconds "mainstem_operator_idle" "Time that the subtasks of a task have waited for something to do.";
    SUBTASK_BACKPRESSURED Counter Seconds "mainstem_subtask_backpressured" "Time that one subtask of a task has waited for room at its receivers; told at the task's first operator.";
    WATERMARK Gauge Seconds "mainstem_operator_watermark_timestamp" "Least watermark of the subtasks of an operator that run here.";
    ROW_LATENCY Histogram Seconds "mainstem_row_latency" "Times from when rows were read by a source until they had come to a sink, by latency markers.";
    STATE_ROWS Gauge None "mainstem_operator_state_rows" "Rows that an operator kept in the newest checkpoint.";
    STATE_SIZE Gauge Bytes "mainstem_operator_state_size" "Bytes of an operator's state in the newest checkpoint.";
    STATE_MEMORY Gauge Bytes "mainstem_operator_state_memory" "Memory that the state of an operator takes, with rows that wait for it.";
    STATE_PARTS_ON_DISK Gauge None "mainstem_operator_state_parts_on_disk" "Parts of an operator's state that are not in memory.";
    STATE_PART_LOADS Counter None "mainstem_operator_state_part_loads" "Parts of an operator's state that were read again because rows came for them.";
    DEFERRED_ROWS Counter None "mainstem_operator_deferred_rows" "Rows that had to wait for a part of the state that was not in memory.";
    LAG_RECORDS Gauge None "mainstem_source_lag_records" "Records that a source has not read yet, as far as its readers know.";
    LAG_BYTES Gauge Bytes "mainstem_source_lag" "Bytes that a source has not read yet, as far as its readers know.";

    MEMORY_LIMIT Gauge Bytes "mainstem_memory_limit" "Memory that what runs subtasks may use (--memory).";
    MEMORY_STATE Gauge Bytes "mainstem_state_memory" "Memory that the state of all operators takes, with rows that wait for it.";
    MEMORY_STATE_LIMIT Gauge Bytes "mainstem_state_memory_limit" "Memory that state may take before it is put aside on disk: half of all, less where the rest of the process takes more.";

    LEADS Gauge None "mainstem_coordinator_leads" "1 where this coordinator leads.";
    TERM Gauge None "mainstem_raft_term" "Raft's term.";
    COMMITTED Gauge None "mainstem_raft_committed_index" "Last entry that this coordinator knows to be agreed on.";
    APPLIED Gauge None "mainstem_raft_applied_index" "Last entry that is in this coordinator's state.";
    MEMBERS Gauge None "mainstem_coordinators" "Coordinators that vote.";
    WORKERS Gauge None "mainstem_workers" "Workers of the coordinator that leads.";
    SLOTS Gauge None "mainstem_slots" "Slots of all workers.";
    SLOTS_USED Gauge None "mainstem_slots_used" "Slots in use.";

    TRACE_SPANS Counter None "mainstem_trace_spans_exported" "Spans that the collector of traces has taken.";
    TRACE_SPANS_DROPPED Counter None "mainstem_trace_spans_dropped" "Spans that were dropped, by reason: queue_full, or not_taken by the collector.";
    TRACE_RECORDS_DROPPED Counter None "mainstem_trace_records_dropped" "Records that were to be traced and for which there was no room on their way.";

    PROCESS_CPU Counter Seconds "process_cpu" "Processor time that this process has used.";
    PROCESS_MEMORY Gauge Bytes "process_resident_memory" "Memory of this process that is in RAM.";
    PROCESS_FDS Gauge None "process_open_fds" "Files and connections that this process has open.";
    PROCESS_FDS_MAX Gauge None "process_max_fds" "Files and connections that this process may have open.";
    PROCESS_THREADS Gauge None "process_threads" "Threads of this process.";
    PROCESS_START Gauge Seconds "process_start_time" "When this process began, since 1970-01-01 UTC.";
}

impl Metric {
    /// As it stands in what Prometheus reads.
    #[cfg(test)]
    pub(super) fn full_name(&self) -> String {
        let unit = match self.unit {
            Unit::None => "",
            Unit::Bytes => "_bytes",
            Unit::Seconds => "_seconds",
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{unit}{total}", self.name)
    }
}
