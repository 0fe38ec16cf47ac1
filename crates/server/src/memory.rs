//! How much memory a worker may use, where nobody says it, and what is shown of its use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs};

use mainstem_core::cluster::messages::StateMemory;
use mainstem_core::ids::OperatorId;
use mainstem_engine::MemoryBudget;
use serde::{Deserialize, Serialize};

use crate::cli::MemoryArgs;
use crate::{allocator, copies};

/// Of the memory that the process may use, in percent.
const DEFAULT_PERCENT: u64 = 60;
/// How often the budget is told what the process takes.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// Where the system does not say how much there is.
const UNKNOWN_BYTES: u64 = 4 << 30;
/// Where control groups are, and the file of one with the most that it may use: version 2, version 1.
const GROUPS: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

/// The memory of this worker.
pub(crate) fn budget(args: &MemoryArgs) -> Arc<MemoryBudget> {
    let bytes = args.memory.unwrap_or_else(|| default_bytes(u64::from(args.memory_shared_by)));
    let scratch = args.scratch_dir.clone().unwrap_or_else(scratch);
    let budget = MemoryBudget::new(bytes, &scratch, allocator::give_back_soon);
    follow(&budget);
    budget
}

/// Tells the budget what the process takes, for as long as somebody has it. A thread, as the others may be busy when it counts.
fn follow(budget: &Arc<MemoryBudget>) {
    let budget = Arc::downgrade(budget);
    let tell = move || {
        while let (Some(budget), Some(bytes)) = (budget.upgrade(), resident_bytes()) {
            budget.note_resident(bytes);
            drop(budget);
            std::thread::park_timeout(SAMPLE_INTERVAL);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("memory".to_owned()).spawn(tell) {
        tracing::warn!(%error, "no thread to look at the memory of the process; state has a fixed share of it");
    }
}

/// What the process has in memory, without the files that it shares. Linux says it.
fn resident_bytes() -> Option<u64> {
    resident(&fs::read_to_string("/proc/self/status").ok()?)
}

/// `RssAnon` of a `/proc/PID/status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    kilobytes(status, "RssAnon:")
}

/// What each of so many workers on this machine uses where nobody says it.
fn default_bytes(workers: u64) -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let groups = limit_files(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    let limits = groups.iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok());
    let there = limits.chain(machine).min().unwrap_or(UNKNOWN_BYTES);
    there / 100 * DEFAULT_PERCENT / workers.max(1)
}

/// Files with the limits of a process, by its `/proc/PID/cgroup`: each group is limited by those that it is in, too.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let of_line = |line: &str| {
        let (_, named) = line.split_once(':')?;
        let (controllers, path) = named.split_once(':')?;
        let (root, file) = match controllers {
            "" => GROUPS[0],
            _ if controllers.split(',').any(|controller| controller == "memory") => GROUPS[1],
            _ => return None,
        };
        let own = Path::new(path.trim_start_matches('/'));
        Some(own.ancestors().map(|group| Path::new(root).join(group).join(file)).collect::<Vec<_>>())
    };
    groups.lines().filter_map(of_line).flatten().collect()
}

fn scratch() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(copies::temporary, PathBuf::from)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(text: &str) -> Option<u64> {
    kilobytes(text, "MemTotal:")
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// What the state of an operator takes in memory, as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OperatorMemory {
    pub(crate) operator: u32,
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) memory: StateMemory,
}

impl OperatorMemory {
    /// Of an operator that has any.
    pub(crate) fn of(operator: OperatorId, name: &str, memory: StateMemory) -> Option<OperatorMemory> {
        let has_any = memory.bytes > 0 || memory.parts_hot + memory.parts_cold > 0;
        has_any.then(|| OperatorMemory { operator: operator.0, name: name.to_owned(), memory })
    }
}

impl fmt::Display for OperatorMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StateMemory { bytes, parts_hot, parts_cold, part_loads, deferred_rows } = self.memory;
        write!(f, "{} {} holds {bytes} bytes", self.operator, self.name)?;
        if parts_cold + part_loads > 0 {
            let parts = parts_hot + parts_cold;
            write!(f, ", {parts_hot} of {parts} parts; {part_loads} read again, {deferred_rows} rows waited")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_the_machine_is_found() {
        assert_eq!(total("MemTotal:       24576 kB\nMemFree:  1 kB\n"), Some(24576 << 10));
        assert_eq!(total("nothing"), None);
        assert_eq!(resident("VmRSS:\t  4096 kB\nRssAnon:\t    2048 kB\n"), Some(2048 << 10));
        let groups = limit_files("4:memory:/a\n2:cpu,cpuacct:/b\n0::/system.slice/x.service\n");
        let groups: Vec<&str> = groups.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            groups,
            [
                "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/system.slice/x.service/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        assert!(default_bytes(1) >= 64 << 20 && default_bytes(2) <= default_bytes(1) / 2 + 1);
    }
}
