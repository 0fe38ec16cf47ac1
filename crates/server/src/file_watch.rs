//! Files that somebody else renews while the process runs, such as a mounted secret: they are looked at now and then, and
//! what is new in them is put in force. What is wrong in them changes nothing.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstem_rt::run_blocking;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So much of a file is looked at, which is more than any of these has.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Files that belong together.
pub(crate) struct FileWatch {
    /// What they hold, for the log.
    what: &'static str,
    files: Vec<PathBuf>,
    /// As of which they are in force, or were refused.
    seen: Vec<Option<u64>>,
}

impl FileWatch {
    /// To be called before the files are read for the first time: what changes from here on is noticed.
    pub(crate) fn new(what: &'static str, files: Vec<PathBuf>) -> FileWatch {
        let seen = marks(&files);
        FileWatch { what, files, seen }
    }

    /// Calls `reread` after each change of a file, until dropped. Several files are changed one after the other, so it waits
    /// until a look finds them as the one before did.
    pub(crate) async fn run(mut self, reread: impl Fn() -> anyhow::Result<()> + Clone + Send + 'static) {
        if self.files.is_empty() {
            return std::future::pending().await;
        }
        let mut last = self.seen.clone();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let (files, reread) = (self.files.clone(), reread.clone());
            let Ok(now) = run_blocking(move || marks(&files)).await else { continue };
            let is_settled = now == last;
            last.clone_from(&now);
            if !is_settled || now == self.seen {
                continue;
            }
            let outcome = run_blocking(reread).await.unwrap_or_else(|error| Err(anyhow::anyhow!("a bug: {error}")));
            self.seen = now;
            match outcome {
                Ok(()) => tracing::info!(files = ?self.files, "{} were read anew and are in force", self.what),
                Err(error) => tracing::warn!(
                    error = format!("{error:#}"),
                    "{} have changed and are refused; those from before stay in force",
                    self.what
                ),
            }
        }
    }
}

/// By which contents are told apart; none for a file that cannot be read.
fn marks(files: &[PathBuf]) -> Vec<Option<u64>> {
    let mark = |file: &PathBuf| {
        let mut hasher = DefaultHasher::new();
        hasher.write(&content(file).ok()?);
        Some(hasher.finish())
    };
    files.iter().map(mark).collect()
}

fn content(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_change_is_read_once_and_nothing_without_one() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&a, "1").unwrap();
        let watch = FileWatch::new("files", vec![a.clone(), b.clone()]);
        let (sender, mut reads) = mpsc::unbounded_channel();
        let reread = {
            let (a, b) = (a.clone(), b.clone());
            move || {
                let text = std::fs::read_to_string(&a)? + &std::fs::read_to_string(&b)?;
                sender.send(text.clone())?;
                anyhow::ensure!(text != "bad", "it is bad");
                Ok(())
            }
        };
        let watching = tokio::spawn(watch.run(reread));
        std::fs::write(&b, "2").unwrap();
        assert_eq!(reads.recv().await.unwrap(), "12");
        for (file, text, expected) in [(&a, "ba", "ba2"), (&b, "d", "bad"), (&a, "3", "3d")] {
            std::fs::write(file, text).unwrap();
            assert_eq!(reads.recv().await.unwrap(), expected);
        }
        std::fs::write(&a, "3").unwrap();
        tokio::time::sleep(LOOK_EVERY * 5).await;
        assert!(reads.try_recv().is_err(), "the same content is no change");
        // A secret that is mounted is replaced by a rename.
        std::fs::write(directory.path().join("new"), "4").unwrap();
        std::fs::rename(directory.path().join("new"), &a).unwrap();
        assert_eq!(reads.recv().await.unwrap(), "4d");
        watching.abort();
    }
}
