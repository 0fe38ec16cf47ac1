//! Groups of nodes in one process, each with its own port and directory, over loopback. Everything waits with a bound.

mod cluster;
mod conformance;
mod damage;
mod disk;
mod elections;
mod identity;
mod membership;
mod snapshots;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::consensus::Replicated;

/// No step of these tests needs longer, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(15);

/// Lines in the order in which they were decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Lines {
    lines: Vec<String>,
    last_index: u64,
}

impl Replicated for Lines {
    type Command = String;
    type Reply = usize;

    fn apply(&mut self, index: u64, command: String) -> usize {
        assert!(index > self.last_index, "indexes grow");
        self.last_index = index;
        self.lines.push(command);
        self.lines.len()
    }
}

/// Waits, but not for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("the step ends in time")
}

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = timeout(DEADLINE, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never came: {what}");
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "'{message}' should say '{part}'");
    }
}
