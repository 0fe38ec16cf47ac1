//! How this process logs: what is said, as text or JSON, and with priorities where the journal of systemd reads along.
//! Called once, before anything is logged.

mod journal;

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::EnvFilter;

use self::journal::Prioritized;

/// Says what is logged.
const FILTER: &str = "MAINSTEM_LOG";

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// An object a line.
    Json,
}

/// Sends what is logged from here on to stderr.
pub(crate) fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match (format, journal::is_read_at_stderr()) {
        (LogFormat::Text, false) => logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).init(),
        // The journal has times of its own.
        (LogFormat::Text, true) => {
            logs.with_target(false).with_ansi(false).without_time().map_event_format(Prioritized).init();
        }
        (LogFormat::Json, false) => logs.json().init(),
        (LogFormat::Json, true) => logs.json().map_event_format(Prioritized).init(),
    }
}

/// A text as it is written to stderr by other means than a log.
pub(crate) fn for_stderr(level: Level, text: &str) -> String {
    if journal::is_read_at_stderr() { journal::prioritized(level, text) } else { format!("{text}\n") }
}
