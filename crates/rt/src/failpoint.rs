//! Named places at the edges of durability where a test can stop the process for good, to kill it just there.
//! Compiled in only with the feature `failpoints`, which nothing but tests turns on.

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

/// Some of the files of a savepoint are copied.
pub const SAVEPOINT_COPYING: &str = "savepoint-copying";
/// A savepoint is complete and durable; that it is taken is not recorded yet.
pub const SAVEPOINT_COPIED: &str = "savepoint-copied";

/// Stops here for ever, where the environment variable `MAINSTEM_FAILPOINT` is `<name>:<n>` and this is the
/// n-th time (counted from 1) that the place is reached. With `<name>:<n>:<file>` only the first process of all that
/// creates the file stops; it writes its id into it.
#[cfg(feature = "failpoints")]
#[expect(clippy::print_stderr, reason = "the test waits for this line")]
pub fn hit(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: OnceLock<Option<(String, u64, Option<String>)>> = OnceLock::new();
    static HITS: AtomicU64 = AtomicU64::new(0);
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
