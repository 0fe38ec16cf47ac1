//! Named places at the edges of durability where a test can stop the process for good, to kill it just there, or have it
//! die by itself. Compiled in only with the feature `failpoints`, which nothing but tests turns on.

/// The epoch is recorded as complete; nothing of its output is visible yet.
pub const EPOCH_COMPLETE: &str = "epoch-complete";
/// Some of the files of an epoch have been published, others not.
pub const PUBLISHING: &str = "publishing";
/// The output of the epoch is visible; that it is, is not recorded yet.
pub const PUBLISHED: &str = "published";
/// State files and hidden output are durable; the manifest is not written yet.
pub const SNAPSHOTS_DURABLE: &str = "snapshots-durable";
/// The manifest is durable; the epoch is not recorded as complete yet.
pub const MANIFEST_DURABLE: &str = "manifest-durable";
/// A new attempt is recorded; nothing of it runs yet.
pub const ATTEMPT_RECORDED: &str = "attempt-recorded";
/// The workers of an attempt have been sent their orders; none has answered.
pub const ORDERS_SENT: &str = "orders-sent";
/// All subtasks of an attempt run; none has been told what to read.
pub const ATTEMPT_DEPLOYED: &str = "attempt-deployed";
/// Another parallelism is agreed on; the job has not been told.
pub const RESCALE_AGREED: &str = "rescale-agreed";
/// The attempt with another parallelism is about to begin; the checkpoint that was taken for it is published.
pub const RESCALE_BEGINS: &str = "rescale-begins";
/// A worker has its order; its subtasks do not run yet.
pub const ORDER_RECEIVED: &str = "order-received";
/// The subtasks of a worker run; the coordinator does not know it yet.
pub const SUBTASKS_STARTED: &str = "subtasks-started";
/// A subtask's part of a checkpoint is durable; the coordinator does not know it yet.
pub const SNAPSHOT_DURABLE: &str = "snapshot-durable";
/// A worker has been told to stop its subtasks; they still run.
pub const SUBTASKS_STOP: &str = "subtasks-stop";

/// Some of the files of a savepoint are copied.
pub const SAVEPOINT_COPYING: &str = "savepoint-copying";
/// A savepoint is complete and durable; that it is taken is not recorded yet.
pub const SAVEPOINT_COPIED: &str = "savepoint-copied";

/// All of an epoch is written within a transaction of a sink, which is not committed.
pub const TRANSACTION_WRITTEN: &str = "transaction-written";
/// The transaction is committed; nobody knows but the system that holds it.
pub const TRANSACTION_COMMITTED: &str = "transaction-committed";

/// How far a sink has to look for what it has published is durable; nothing of the epoch is published yet.
pub const OUTPUT_NOTED: &str = "output-noted";
/// Some messages of an epoch are published, where a sink publishes them one by one.
pub const OUTPUT_SENDING: &str = "output-sending";
/// All messages of an epoch are published; nobody knows but the system that holds them.
pub const OUTPUT_SENT: &str = "output-sent";
/// A receiver has answered a request; nobody knows but the receiver.
pub const REQUEST_ANSWERED: &str = "request-answered";

/// Rows are given to a sink.
pub const SINK_WRITE: &str = "sink-write";
/// A state file is given to the store.
pub const STATE_WRITE: &str = "state-write";

/// Waits here for so long, where the environment variable `MAINSTEM_DELAY` is `<name>:<milliseconds>`: makes a part of a job
/// slow for tests.
#[cfg(feature = "failpoints")]
pub async fn slow(name: &str) {
    static WANTED: std::sync::OnceLock<Option<(String, u64)>> = std::sync::OnceLock::new();
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("MAINSTEM_DELAY").ok()?;
        let (name, ms) = text.split_once(':')?;
        Some((name.to_owned(), ms.parse().ok()?))
    });
    if let Some((_, ms)) = wanted.as_ref().filter(|(wanted, _)| wanted == name) {
        tokio::time::sleep(std::time::Duration::from_millis(*ms)).await;
    }
}

/// Nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub async fn slow(_name: &str) {}

/// Stops here for ever, where the environment variable `MAINSTEM_FAILPOINT` is `<name>:<n>` and this is the
/// n-th time (counted from 1) that the place is reached. With `<name>:<n>:<file>` only the first process of all that
/// creates the file stops; it writes its id into it.
///
/// Dies here, where `MAINSTEM_FAILPOINTS` is a directory with a file of this name. The file is taken away, so of several
/// processes the first to get here dies, once.
#[cfg(feature = "failpoints")]
#[expect(clippy::print_stderr, reason = "the test waits for this line")]
pub fn hit(name: &str) {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64, Option<String>)>> = OnceLock::new();
    static HITS: AtomicU64 = AtomicU64::new(0);
    static ARMED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| std::env::var_os("MAINSTEM_FAILPOINTS").map(PathBuf::from));
    if armed.as_ref().is_some_and(|directory| std::fs::remove_file(directory.join(name)).is_ok()) {
        eprintln!("failpoint {name}: dies");
        std::process::abort();
    }
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("MAINSTEM_FAILPOINT").ok()?;
        let (name, rest) = text.split_once(':')?;
        let (count, file) = rest.split_once(':').map_or((rest, None), |(count, file)| (count, Some(file.to_owned())));
        Some((name.to_owned(), count.parse().ok()?, file))
    });
    let Some((wanted, count, file)) = wanted else { return };
    if wanted == name && HITS.fetch_add(1, Ordering::SeqCst) + 1 == *count {
        if let Some(file) = file
            && !std::fs::File::create_new(file).is_ok_and(is_written)
        {
            return;
        }
        eprintln!("failpoint {name}");
        loop {
            std::thread::park();
        }
    }
}

#[cfg(feature = "failpoints")]
fn is_written(mut file: std::fs::File) -> bool {
    use std::io::Write;
    write!(file, "{}", std::process::id()).is_ok()
}

/// Does nothing without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
pub fn hit(_name: &str) {}
