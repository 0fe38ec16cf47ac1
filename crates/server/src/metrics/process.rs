//! What the system says of this process. Linux; elsewhere nothing is told.

use std::fs;

use super::{Page, names};

/// Ticks of processor time a second, which Linux fixes for what it tells.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn add(page: &mut Page) {
    if let Some((cpu_seconds, start_seconds)) = times() {
        page.real(&names::PROCESS_CPU, &[], cpu_seconds);
        page.real(&names::PROCESS_START, &[], start_seconds);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(kib) = field(&status, "VmRSS:") {
        page.whole(&names::PROCESS_MEMORY, &[], kib * 1024);
    }
    if let Some(threads) = field(&status, "Threads:") {
        page.whole(&names::PROCESS_THREADS, &[], threads);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The directory that is read is open too.
        page.whole(&names::PROCESS_FDS, &[], (open.count() as u64).saturating_sub(1));
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(most) = field(&limits, "Max open files") {
        page.whole(&names::PROCESS_FDS_MAX, &[], most);
    }
}

/// The first number behind a name.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time, and when the process began.
fn times() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the process stands in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let cpu = (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND;
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot = field(&boot, "btime")?;
    Some((cpu, boot as f64 + ticks(19)? / TICKS_PER_SECOND))
}
