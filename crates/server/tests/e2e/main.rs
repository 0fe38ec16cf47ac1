//! End-to-end tests: the real binary, as a user runs it, on real files. One test binary, to keep linking cheap.

#![expect(clippy::unwrap_used, reason = "a test may fail by a panic")]
#![expect(clippy::disallowed_methods, reason = "tests watch real processes by the real clock")]

mod aggregates;
mod bad_records;
mod bank;
mod cadence;
mod changelogs;
mod cluster;
mod copies;
mod disk;
mod docs;
mod engines;
mod errors;
mod flat_state;
mod fuzz;
mod guarantees;
mod http;
mod http_api;
mod idle;
mod kafka;
mod kill;
mod logs;
mod memory;
mod memory_steps;
mod named_points;
mod nats;
mod nested;
mod oracle;
mod partitions;
mod permissions;
mod postgres;
mod redis;
mod s3;
mod savepoints;
mod schemas;
mod shipped;
mod sql_cases;
mod sql_shell;
mod state_commands;
mod support;
mod traces;
mod unaligned;
mod why;
