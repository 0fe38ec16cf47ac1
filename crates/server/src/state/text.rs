//! What is told of checkpoints and savepoints, as text.

use std::fmt::Write;

use mainstem_core::ids::JobId;
use mainstem_core::time::Timestamp;
use mainstem_state::{HotKey, TableContent};

use super::content::{Content, Listed, ListedJob, OperatorContent, SourceContent};
use super::time;
use super::verify::Report;

/// Text that is longer is cut: keys come from anywhere.
const KEY_CHARS_MAX: usize = 80;

/// The jobs of a state directory.
pub(super) fn jobs(jobs: &[ListedJob]) -> String {
    let mut text =
        format!("{:<32} {:>11} {:>10} {:>9} {:>10}  TAKEN\n", "JOB", "CHECKPOINTS", "EPOCH", "FILES", "SIZE");
    for job in jobs {
        let (name, count) = (&job.job, job.checkpoints);
        let newest = match &job.newest {
            Some(Listed { epoch, files, bytes, taken_at_ms, .. }) => {
                format!("{epoch:>10} {files:>9} {:>10}  {}", size(*bytes), time(Timestamp(*taken_at_ms)))
            }
            None => format!("{:>10} {:>9} {:>10}  -", "-", "-", "-"),
        };
        let _ = writeln!(text, "{name:<32} {count:>11} {newest}");
    }
    let notes: Vec<String> =
        jobs.iter().flat_map(|job| job.notes.iter().map(move |note| format!("job '{}': {note}", job.job))).collect();
    text + &noted(&notes)
}

/// The checkpoints of a job.
pub(super) fn checkpoints(job: &JobId, listed: &[Listed], notes: &[String]) -> String {
    if listed.is_empty() {
        return format!("job '{job}' has no checkpoints\n{}", noted(notes));
    }
    let head = format!(
        "{:>10} {:>8} {:>9} {:>9} {:>10}  {:<24}  STATE\n",
        "EPOCH", "ATTEMPT", "OPERATORS", "FILES", "SIZE", "TAKEN"
    );
    let line = |listed: &Listed| {
        let Listed { epoch, generation, operators, files, bytes, taken_at_ms, .. } = listed;
        let state = match (listed.complete, listed.unaligned) {
            (Some(false), _) => "not recorded as complete",
            (_, true) => "unaligned",
            (Some(true), false) => "complete",
            (None, false) => "-",
        };
        let (bytes, taken) = (size(*bytes), time(Timestamp(*taken_at_ms)));
        format!("{epoch:>10} {generation:>8} {operators:>9} {files:>9} {bytes:>10}  {taken:<24}  {state}\n")
    };
    listed.iter().map(line).fold(head, |text, line| text + &line) + &noted(notes)
}

/// Savepoints.
pub(super) fn savepoints(listed: &[Listed]) -> String {
    let head = format!("{:<32} {:>10} {:>9} {:>10}  {:<24}  PLACE\n", "JOB", "EPOCH", "FILES", "SIZE", "TAKEN");
    let line = |listed: &Listed| {
        let Listed { job, epoch, files, bytes, taken_at_ms, place, .. } = listed;
        let (bytes, taken) = (size(*bytes), time(Timestamp(*taken_at_ms)));
        format!("{job:<32} {epoch:>10} {files:>9} {bytes:>10}  {taken:<24}  {place}\n")
    };
    listed.iter().map(line).fold(head, |text, line| text + &line)
}

/// What a checkpoint or savepoint holds.
pub(super) fn content(content: &Content) -> String {
    let Listed { job, epoch, generation, taken_at_ms, files, bytes, place, .. } = &content.listed;
    let mut text = format!(
        "epoch {epoch} of job '{job}', attempt {generation}, taken {}\n{place}\n{files} files, {}, {} key groups",
        time(Timestamp(*taken_at_ms)),
        size(*bytes),
        content.key_groups
    );
    if let Some(in_flight) = content.in_flight_bytes {
        let _ = write!(text, "; unaligned, {} in flight", size(in_flight));
    }
    text += "\nsources\n";
    content.sources.iter().for_each(|source| text += &source_line(source));
    text += "state\n";
    if content.state.is_empty() {
        text += "  none\n";
    }
    content.state.iter().for_each(|operator| text += &operator_lines(operator));
    text
}

fn source_line(source: &SourceContent) -> String {
    let SourceContent { operator, splits, finished, reading, waiting, .. } = source;
    let name = source.name.as_deref().unwrap_or("source");
    let watermark =
        source.watermark_ms.map_or(String::new(), |ms| format!("; least watermark {}", time(Timestamp(ms))));
    format!(
        "  [{operator}] {name}: {splits} splits, {reading} begun, {waiting} waiting, {finished} finished{watermark}\n"
    )
}

fn operator_lines(operator: &OperatorContent) -> String {
    let OperatorContent { operator: id, subtasks, files, bytes, .. } = operator;
    let name = operator.name.as_deref().unwrap_or("operator");
    let rows = operator.rows.map_or(String::new(), |rows| format!("{rows} rows kept, "));
    let mut text = format!("  [{id}] {name}: {rows}{subtasks} subtasks, {files} files, {}\n", size(*bytes));
    for table in &operator.tables {
        text += &table_lines(table);
    }
    text
}

fn table_lines(table: &TableContent) -> String {
    let TableContent { table: name, rows, bytes, spread, .. } = table;
    let keys = table
        .keys
        .as_ref()
        .map_or(String::new(), |keys| format!(", {} keys by ({})", keys.keys, keys.columns.join(", ")));
    let mut text = format!(
        "      table '{name}': {rows} rows in files, {}{keys}, in {} of {} key groups, the fullest {:.1} times the average\n",
        size(*bytes),
        spread.used,
        spread.key_groups,
        spread.skew
    );
    let hot = table.keys.iter().flat_map(|keys| &keys.hot);
    let hot: Vec<String> = hot.map(|HotKey { key, rows }| format!("{} {rows}", plain(&key.join(", ")))).collect();
    if !hot.is_empty() {
        let _ = writeln!(text, "        keys with most rows: {}", hot.join("; "));
    } else if spread.used > 1 {
        let groups: Vec<String> = spread.fullest.iter().map(|(group, rows)| format!("{group} {rows}")).collect();
        let _ = writeln!(text, "        key groups with most rows: {}", groups.join("; "));
    }
    text
}

/// What verification has found.
pub(super) fn report(report: &Report) -> String {
    let mut text = String::new();
    for verified in &report.verified {
        let outcome = match verified.damaged {
            0 => "as written".to_owned(),
            damaged => format!("{damaged} damaged"),
        };
        let (what, files) = (&verified.what, verified.files);
        let _ = writeln!(text, "{what}: {files} files, {}, {outcome}", size(verified.bytes));
    }
    if report.verified.is_empty() && report.damaged.is_empty() {
        text += "there are no checkpoints\n";
    }
    text + &noted(&report.notes)
}

fn noted(notes: &[String]) -> String {
    notes.iter().map(|note| format!("note: {note}\n")).collect()
}

/// `(text)`, without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    let shown: String = text.chars().take(KEY_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let more = if text.chars().count() > KEY_CHARS_MAX { ".." } else { "" };
    format!("({shown}{more})")
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
