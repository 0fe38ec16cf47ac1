//! Where a process keeps local copies of state files: a directory that the user names, or, for a worker, one below the
//! system's directory for files that may be lost.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use mainstem_state::LocalCopies;

use crate::cli::CopiesArgs;

/// Workers of one name on one machine each have a directory, of at most so many.
const SAME_NAME_MAX: usize = 16;

/// The copies of `mainstem run`: none unless a directory is named, since its state directory is mostly on the same disk.
///
/// # Errors
/// Where the directory cannot be used.
pub(crate) fn of_run(args: &CopiesArgs) -> anyhow::Result<Option<LocalCopies>> {
    match &args.copies_dir {
        Some(directory) if args.copies_max > 0 => Ok(Some(named(directory, args.copies_max)?)),
        _ => Ok(None),
    }
}

/// The copies of a worker. The next life of a worker of this name gets the same directory.
///
/// # Errors
/// Where the directory that the user has named cannot be used. A worker runs without one of its own choice.
pub(crate) fn of_worker(args: &CopiesArgs, cluster: &str, name: &str) -> anyhow::Result<Option<LocalCopies>> {
    if args.copies_max == 0 || args.copies_dir.is_some() {
        return of_run(args);
    }
    match own(&temporary(), cluster, name, args.copies_max) {
        Ok(copies) => Ok(Some(copies)),
        Err(error) => {
            let reason = format!("{error:#}");
            tracing::warn!(
                reason,
                "no local copies of state files are kept; name a directory for them by --copies-dir"
            );
            Ok(None)
        }
    }
}

fn named(directory: &Path, bytes_max: u64) -> anyhow::Result<LocalCopies> {
    let opened = LocalCopies::open(directory, bytes_max)?;
    opened.with_context(|| {
        let shown = directory.display();
        format!("another process keeps its local copies in '{shown}'; name another directory by --copies-dir")
    })
}

/// Where files lie that may be lost, and that are mostly on a disk.
pub(crate) fn temporary() -> PathBuf {
    let of_system = || Some(PathBuf::from("/var/tmp")).filter(|directory| directory.is_dir());
    let of_user = std::env::var_os("TMPDIR").filter(|directory| !directory.is_empty()).map(PathBuf::from);
    of_user.or_else(of_system).unwrap_or_else(std::env::temp_dir)
}

/// The first directory for workers of the name that nobody uses.
fn own(temporary: &Path, cluster: &str, name: &str, bytes_max: u64) -> anyhow::Result<LocalCopies> {
    let user = fs::metadata("/proc/self").context("cannot tell whose process this is")?.uid();
    let root = temporary.join(format!("mainstem-{user}"));
    private(&root, user)?;
    for number in 1..=SAME_NAME_MAX {
        let after = if number == 1 { String::new() } else { format!("-{number}") };
        let directory = root.join(plain(cluster)).join(format!("{}{after}", plain(name)));
        if let Some(copies) = LocalCopies::open(&directory, bytes_max)? {
            return Ok(copies);
        }
    }
    bail!("{SAME_NAME_MAX} workers of the name '{name}' use '{}' already", root.display())
}

/// Creates a directory into which nobody else can write. Others can write beside it, so it may be theirs.
fn private(directory: &Path, user: u32) -> anyhow::Result<()> {
    let shown = directory.display();
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("cannot create '{shown}'")),
    }
    let found = fs::symlink_metadata(directory).with_context(|| format!("cannot look at '{shown}'"))?;
    if !found.is_dir() || found.uid() != user || found.mode() & 0o077 != 0 {
        bail!("'{shown}' is not a directory of this user alone");
    }
    Ok(())
}

/// A name that can be part of a path.
fn plain(name: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    name.chars().map(legal).take(64).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn workers_of_one_name_have_a_directory_each_and_the_next_life_has_the_same() {
        let temporary = tempfile::tempdir().unwrap();
        let directories = || {
            let root = fs::read_dir(temporary.path()).unwrap().next().unwrap().unwrap().path();
            let mut names: Vec<_> = fs::read_dir(root.join("a_b"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let first = own(temporary.path(), "a/b", "worker", 1).unwrap();
        let second = own(temporary.path(), "a/b", "worker", 1).unwrap();
        assert_eq!(directories(), ["worker", "worker-2"]);
        drop(first);
        let third = own(temporary.path(), "a/b", "worker", 1).unwrap();
        assert_eq!(directories(), ["worker", "worker-2"]);
        drop((second, third));
    }

    #[test]
    fn a_directory_that_others_can_use_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        drop(own(temporary.path(), "c", "w", 1).unwrap());
        let root = fs::read_dir(temporary.path()).unwrap().next().unwrap().unwrap().path();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = own(temporary.path(), "c", "w", 1).unwrap_err().to_string();
        assert!(refused.contains("is not a directory of this user alone"), "{refused}");
    }
}
