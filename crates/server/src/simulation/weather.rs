//! What every part of the simulated world shares: the time, chance, the faults of the moment, and the trace.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::trace::Trace;

/// Coordinators of the cluster.
pub(super) const COORDINATORS: usize = 3;
/// Workers of the cluster.
pub(super) const WORKERS: usize = 3;

/// A host of the simulated network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Host(pub(super) usize);

impl Host {
    /// Where the user sits.
    pub(super) const CLIENT: Host = Host(COORDINATORS + WORKERS);

    /// All that can fail.
    pub(super) fn nodes() -> impl Iterator<Item = Host> {
        (0..COORDINATORS + WORKERS).map(Host)
    }

    pub(super) fn coordinators() -> impl Iterator<Item = Host> {
        (0..COORDINATORS).map(Host)
    }

    pub(super) fn is_coordinator(self) -> bool {
        self.0 < COORDINATORS
    }

    /// Where its process listens.
    pub(super) fn address(self) -> String {
        format!("{self}:7071")
    }

    /// The host of an address.
    pub(super) fn of_address(address: &str) -> Option<Host> {
        Host::nodes().chain([Host::CLIENT]).find(|host| host.address() == address)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            i if i < COORDINATORS => write!(f, "c{}", i + 1),
            i if i < COORDINATORS + WORKERS => write!(f, "w{}", i - COORDINATORS + 1),
            _ => f.write_str("client"),
        }
    }
}

/// How something outside of the cluster behaves: the object store, the sink's system.
#[derive(Clone, Debug, Default)]
pub(super) struct Outside {
    /// Of 1000 calls, how many fail without effect.
    pub(super) failures: u32,
    /// Of 1000 calls, how many have their effect and seem to have failed.
    pub(super) lost_answers: u32,
    /// A call takes up to so long.
    pub(super) latency_ms: u64,
    /// Nothing can be written.
    pub(super) is_full: bool,
    /// Hosts that do not reach it.
    pub(super) out_of_reach: BTreeSet<Host>,
}

/// How a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Succeeds,
    /// Without effect.
    Fails,
    /// With effect.
    SeemsToFail,
    /// Nobody is reached.
    TimesOut,
    /// No room for what was to be written.
    Full,
}

/// The state of the world.
pub(super) struct State {
    pub(super) now_ms: u64,
    /// Whose code runs.
    pub(super) current: Host,
    pub(super) random: SmallRng,
    pub(super) trace: Trace,
    pub(super) store: Outside,
    pub(super) sink: Outside,
}

/// The world, shared by all of its parts.
#[derive(Clone)]
pub(super) struct Weather {
    state: Arc<Mutex<State>>,
}

impl Weather {
    pub(super) fn new(seed: u64) -> Weather {
        let state = State {
            now_ms: 0,
            current: Host::CLIENT,
            random: SmallRng::seed_from_u64(seed),
            trace: Trace::default(),
            store: Outside { latency_ms: 8, ..Outside::default() },
            sink: Outside { latency_ms: 20, ..Outside::default() },
        };
        Weather { state: Arc::new(Mutex::new(state)) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, line: &str) {
        let mut state = self.lock();
        let now_ms = state.now_ms;
        state.trace.note(now_ms, line);
    }

    pub(super) fn count(&self, what: &'static str) {
        self.lock().trace.count(what);
    }

    pub(super) fn violation(&self, what: String) {
        let mut state = self.lock();
        let now_ms = state.now_ms;
        state.trace.violation(now_ms, what);
    }

    /// How a call of the current host goes, and how long it takes.
    pub(super) fn fate(&self, of: fn(&State) -> &Outside, writes: bool) -> (Fate, Duration) {
        let mut state = self.lock();
        let outside = of(&state).clone();
        let latency = Duration::from_millis(1 + state.random.random_range(0..=outside.latency_ms));
        if outside.out_of_reach.contains(&state.current) {
            return (Fate::TimesOut, Duration::from_secs(1));
        }
        if writes && outside.is_full {
            return (Fate::Full, latency);
        }
        let fate = match state.random.random_range(0..1000) {
            roll if roll < outside.failures => Fate::Fails,
            roll if roll < outside.failures + outside.lost_answers => Fate::SeemsToFail,
            _ => Fate::Succeeds,
        };
        (fate, latency)
    }
}
