//! End-to-end tests: the real binary, as a user runs it, on real files. One test binary, to keep linking cheap.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![expect(clippy::disallowed_methods, reason = "tests watch real processes by the real clock")]

mod aggregates;
mod bank;
mod changelogs;
mod cluster;
mod disk;
mod engines;
mod errors;
mod flat_state;
mod fuzz;
mod idle;
mod kill;
mod named_points;
mod oracle;
mod partitions;
mod permissions;
mod savepoints;
mod sql_cases;
mod support;
mod unaligned;
