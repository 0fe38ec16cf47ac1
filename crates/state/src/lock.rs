//! The lock that lets one process at a time run a job (I3 within one machine). Taken by the coordinator before
//! it reads anything of the job. The file is never removed: a lock on a removed file guards nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use mainstem_core::ids::JobId;

use crate::error::StateError;

/// Longest owner text that is read back, in bytes.
const OWNER_BYTES_MAX: u64 = 512;

/// An exclusive advisory lock on `<state-dir>/jobs/<job>/lock`. Held until dropped; the system drops it with
/// the process, however it ends.
#[derive(Debug)]
pub struct JobLock {
    // Held for its lock only.
    _file: File,
}

impl JobLock {
    /// Takes the lock and writes this process into the file; creates directories as needed.
    ///
    /// # Errors
    /// [`StateError::Locked`] naming the owner where another process holds it.
    pub fn acquire(state_dir: &Path, job: &JobId) -> Result<JobLock, StateError> {
        let directory = state_dir.join("jobs").join(job.as_str());
        let path = directory.join("lock");
        let failed = |action, source| StateError::Io { action, path: path.display().to_string(), source };
        std::fs::create_dir_all(&directory).map_err(|e| failed("create the directory of", e))?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(|e| failed("open", e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let read = file.take(OWNER_BYTES_MAX).read_to_string(&mut owner);
                // Whoever holds the lock may be writing its name this moment.
                let owner = if read.is_ok() && !owner.trim().is_empty() { owner.trim() } else { "unknown process" };
                return Err(StateError::Locked { job: job.to_string(), owner: owner.to_owned() });
            }
            Err(TryLockError::Error(e)) => return Err(failed("lock", e)),
        }
        let owner = format!("{}\n", this_process());
        let written =
            file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| file.write_all(owner.as_bytes()));
        written.map_err(|e| failed("write", e))?;
        Ok(JobLock { _file: file })
    }
}

/// This process, for people to read.
#[must_use]
pub fn this_process() -> String {
    format!("pid {} on {}", std::process::id(), host_name())
}

/// Name of this machine, for people to read.
fn host_name() -> String {
    let from_system = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let known = from_system.filter(|name| !name.is_empty()).or_else(|| std::env::var("HOSTNAME").ok());
    known.unwrap_or_else(|| "an unnamed host".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_with_the_first_ones_pid() {
        let directory = tempfile::tempdir().unwrap();
        let job = JobId::new("j").unwrap();
        let lock = JobLock::acquire(directory.path(), &job).unwrap();
        let refused = JobLock::acquire(directory.path(), &job).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        JobLock::acquire(directory.path(), &JobId::new("other").unwrap()).unwrap();
        drop(lock);
        JobLock::acquire(directory.path(), &job).unwrap();
    }
}
