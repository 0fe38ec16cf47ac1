//! What the journal of systemd understands: it takes stderr line by line, and the priority of a line from `<N>` in front of
//! it (sd-daemon(3)).

use std::fmt::{self, Write};
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

/// Names the stream to the journal that systemd has connected, as `DEVICE:INODE` (systemd.exec(5)).
const STREAM: &str = "JOURNAL_STREAM";

/// Whether stderr goes to the journal. The variable alone does not say so: it is inherited by processes whose stderr goes
/// elsewhere.
pub(super) fn is_read_at_stderr() -> bool {
    let Ok(stream) = std::env::var(STREAM) else { return false };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().and_then(|stderr| File::from(stderr).metadata());
    stderr.is_ok_and(|stderr| is_stream(&stream, &stderr))
}

fn is_stream(stream: &str, file: &Metadata) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(device, inode)| device.parse() == Ok(file.dev()) && inode.parse() == Ok(file.ino()))
}

/// The text with a priority in front of each line: what stands on further lines belongs to the first one.
pub(super) fn prioritized(level: Level, text: &str) -> String {
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    text.lines().fold(String::with_capacity(text.len() + 4), |mut lines, line| {
        // Writing to a string does not fail.
        let _ = writeln!(lines, "<{priority}>{line}");
        lines
    })
}

/// Another format with priorities.
pub(super) struct Prioritized<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(ctx, Writer::new(&mut text), event)?;
        writer.write_str(&prioritized(*event.metadata().level(), &text))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Kept;

        fn make_writer(&self) -> Kept {
            self.clone()
        }
    }

    #[test]
    fn each_line_begins_with_the_priority_of_its_level() {
        let kept = Kept::default();
        let logs = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_target(false).without_time();
        let logs = logs.with_ansi(false).with_writer(kept.clone()).map_event_format(Prioritized).finish();
        tracing::subscriber::with_default(logs, || {
            let _entered = tracing::error_span!("subtask", job = "j", generation = 2).entered();
            tracing::error!(epoch = 7, "lost");
            tracing::warn!("late\nby an hour");
            tracing::info!("as always");
            tracing::debug!("in detail");
            tracing::trace!("in more detail");
        });
        let written = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let span = "subtask{job=\"j\" generation=2}:";
        let expected = [
            format!("<3>ERROR {span} lost epoch=7"),
            format!("<4> WARN {span} late"),
            "<4>by an hour".to_owned(),
            format!("<6> INFO {span} as always"),
            format!("<7>DEBUG {span} in detail"),
            format!("<7>TRACE {span} in more detail"),
        ];
        assert_eq!(written.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn only_the_stream_that_is_named_goes_to_the_journal() {
        let (ours, other) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let ours = ours.as_file().metadata().unwrap();
        let named = format!("{}:{}", ours.dev(), ours.ino());
        assert!(is_stream(&named, &ours));
        assert!(!is_stream(&named, &other.as_file().metadata().unwrap()));
        for wrong in ["", ":", "1", "a:b", &format!("{named}0"), &format!("{}:", ours.dev())] {
            assert!(!is_stream(wrong, &ours), "{wrong}");
        }
    }
}
