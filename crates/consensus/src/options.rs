//! What a node is told at its start.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use mainstem_net::Transport;

/// Entries kept behind a snapshot, for followers that are only a little behind.
pub(crate) const ENTRIES_KEPT: u64 = 64;
/// Bytes of one command, at most.
pub(crate) const COMMAND_BYTES_MAX: usize = 16 << 20;
/// Bytes of log after which a snapshot is taken and the log cut, however few entries they are.
pub(crate) const LOG_BYTES_MAX: u64 = 8 << 20;
/// Bytes of entries in one message, unless a single entry is larger.
pub(crate) const APPEND_BYTES_MAX: usize = 1 << 20;
/// Entries in one message, at most.
pub(crate) const APPEND_ENTRIES_MAX: u64 = 256;
/// Bytes of a snapshot in one message.
pub(crate) const SNAPSHOT_CHUNK_BYTES: u64 = 512 << 10;
/// How long a part of a snapshot may take to be sent, and the last one to be taken in.
pub(crate) const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);
/// Proposals in work at a time; further ones wait for their turn, within their time-out.
pub(crate) const PROPOSALS_MAX: usize = 256;
/// Members of a cluster, and ids that a node remembers.
pub(crate) const MEMBERS_MAX: usize = 64;

/// The times by which nodes judge each other. All nodes of a cluster should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The leader shows itself this often.
    pub heartbeat: Duration,
    /// A follower that has heard nothing for a random time between these two stands for election. A leader that has heard
    /// of no majority for the shorter one no longer calls itself a leader.
    pub election_min: Duration,
    /// See `election_min`, which must be above half of this and a heartbeat together.
    pub election_max: Duration,
    /// How long a proposal, a read or a change of members waits for a majority.
    pub answer_max: Duration,
    /// How long a node that is being added may take to catch up.
    pub catch_up_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(800),
            election_max: Duration::from_millis(1200),
            answer_max: Duration::from_secs(5),
            catch_up_max: Duration::from_secs(30),
        }
    }
}

/// What a node is told at its start.
#[derive(Clone)]
pub struct Options {
    /// This node's id, 1 or more; never used again for another one.
    pub node: u64,
    /// Where it keeps its log; belongs to it alone.
    pub directory: PathBuf,
    /// The members with whom the cluster begins, by id, with the address (`host:port`) under which each is reached; the
    /// same on all of them. A node that is not among them waits to be added. For a node that has started before, only the
    /// addresses count, and go before those that were recorded when a member was added.
    pub members: BTreeMap<u64, String>,
    /// The name of the cluster.
    pub cluster: String,
    /// How members are reached.
    pub transport: Transport,
    /// When members are given up.
    pub timing: Timing,
    /// A snapshot is taken, and the log cut, after so many entries.
    pub snapshot_after_entries: u64,
    /// A simulated node keeps its log here, and not in its directory.
    #[cfg(feature = "simulation")]
    pub disk: Option<crate::simulation::Disk>,
}

impl Options {
    /// Options with the usual times and limits.
    pub fn new(
        node: u64,
        directory: impl Into<PathBuf>,
        members: BTreeMap<u64, String>,
        cluster: impl Into<String>,
        transport: Transport,
    ) -> Options {
        Options {
            node,
            directory: directory.into(),
            members,
            cluster: cluster.into(),
            transport,
            timing: Timing::default(),
            snapshot_after_entries: 1000,
            #[cfg(feature = "simulation")]
            disk: None,
        }
    }

    /// Checks what can be told without the disk; the error says what to change.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let Timing { heartbeat, election_min, election_max, answer_max, catch_up_max: _ } = self.timing;
        if self.node == 0 || self.members.contains_key(&0) {
            return Err("ids begin at 1".to_owned());
        }
        if self.members.len() > MEMBERS_MAX {
            return Err(format!("{} members are too many, at most {MEMBERS_MAX}", self.members.len()));
        }
        if self.cluster.is_empty() {
            return Err("the cluster needs a name".to_owned());
        }
        if let Some((id, _)) = self.members.iter().find(|(_, address)| address.is_empty()) {
            return Err(format!("node {id} needs an address"));
        }
        let mut addresses: Vec<&String> = self.members.values().collect();
        addresses.sort();
        if let Some(pair) = addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two members have the address '{}'", pair[0]));
        }
        if heartbeat.as_millis() == 0 || election_min <= election_max / 2 + heartbeat || election_max <= election_min {
            return Err(format!(
                "the election times ({election_min:?} to {election_max:?}) must be a range that begins above half of its end \
                 and a heartbeat ({heartbeat:?}) together"
            ));
        }
        if answer_max < election_max {
            return Err(format!("an answer must be given {election_max:?} or more, which an election may take"));
        }
        if self.snapshot_after_entries == 0 {
            return Err("a snapshot needs one entry at least".to_owned());
        }
        Ok(())
    }

    /// What openraft is told.
    pub(crate) fn raft_config(&self) -> Result<openraft::Config, String> {
        // openraft waits until the leader's lease is over, which is its own upper bound, and then for the random time.
        let lease = self.timing.election_max / 2;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: millis(self.timing.heartbeat),
            election_timeout_min: millis(self.timing.election_min.saturating_sub(lease)),
            election_timeout_max: millis(lease),
            install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
            max_payload_entries: APPEND_ENTRIES_MAX,
            // Above the distance of snapshots, or a follower would be sent one after another.
            replication_lag_threshold: self.snapshot_after_entries + ENTRIES_KEPT,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_after_entries),
            snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
            max_in_snapshot_log_to_keep: ENTRIES_KEPT.min(self.snapshot_after_entries),
            purge_batch_size: 1,
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| error.to_string())
    }
}
