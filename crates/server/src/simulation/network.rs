//! The simulated network: byte streams between hosts, with delay, and links that can be cut in each direction. What is sent
//! over a link that is cut waits, as TCP would send it again; when a process dies its streams end, when a host loses power
//! they fall silent until somebody sends to it after it is back.

mod lane;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mainstem_net::{Fabric, Opening, Pipe};
use rand::Rng;
use tokio::sync::mpsc;

use self::lane::{Lane, LaneId, ReadEnd, WriteEnd};
use super::weather::{Host, Weather};

/// Connections that wait to be accepted.
const BACKLOG_MAX: usize = 64;
/// Most messages take so long.
const DELAY_MS_MAX: u64 = 4;
/// Who finds no way to another host looks again after this time.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// What waited on a link that was cut comes up to so long after it is mended.
const CATCH_UP_MS_MAX: u64 = 600;

/// The network of all hosts.
#[derive(Clone)]
pub(super) struct Network {
    weather: Weather,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    now_ms: u64,
    /// Links that carry nothing, as (from, to).
    cuts: BTreeSet<(Host, Host)>,
    /// Links that are slow, with the most that they add.
    slow: BTreeMap<(Host, Host), u64>,
    /// Hosts without power.
    dark: BTreeSet<Host>,
    listeners: BTreeMap<String, mpsc::Sender<Pipe>>,
    lanes: BTreeMap<LaneId, Lane>,
    lanes_made: u64,
    /// Writes so far.
    writes: u64,
}

impl Inner {
    fn is_cut(&self, from: Host, to: Host) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Whether something that is sent now can be answered at all.
    fn reaches(&self, from: Host, to: Host) -> bool {
        !self.is_cut(from, to) && !self.is_cut(to, from) && !self.dark.contains(&to)
    }
}

impl Network {
    pub(super) fn new(weather: Weather) -> Network {
        Network { weather, inner: Arc::default() }
    }

    /// The network as a host sees it.
    pub(super) fn seen_from(&self, host: Host) -> Arc<dyn Fabric> {
        Arc::new(Socket { network: self.clone(), host })
    }

    /// Time has come so far: what is due is delivered.
    pub(super) fn advance(&self, now_ms: u64) {
        let mut inner = self.lock();
        inner.now_ms = now_ms;
        let Inner { cuts, lanes, .. } = &mut *inner;
        lanes.retain(|_, lane| !lane.is_forgotten());
        for lane in lanes.values_mut() {
            if !cuts.contains(&(lane.from, lane.to)) {
                lane.deliver(now_ms);
            }
        }
    }

    /// Cuts a link in one direction.
    pub(super) fn cut(&self, from: Host, to: Host) {
        self.lock().cuts.insert((from, to));
    }

    /// Mends a link in one direction.
    pub(super) fn mend(&self, from: Host, to: Host) {
        let late_ms = self.weather.lock().random.random_range(0..=CATCH_UP_MS_MAX);
        let mut inner = self.lock();
        if inner.cuts.remove(&(from, to)) {
            let due = inner.now_ms + late_ms;
            inner.lanes.values_mut().filter(|lane| lane.from == from && lane.to == to).for_each(|lane| lane.hold(due));
        }
    }

    /// Mends everything.
    pub(super) fn mend_all(&self) {
        let cuts = self.lock().cuts.clone();
        for (from, to) in cuts {
            self.mend(from, to);
        }
        self.lock().slow.clear();
    }

    /// Makes a link slow in one direction; no delay makes it as fast as others.
    pub(super) fn slow(&self, from: Host, to: Host, delay_ms: u64) {
        let mut inner = self.lock();
        match delay_ms {
            0 => _ = inner.slow.remove(&(from, to)),
            _ => _ = inner.slow.insert((from, to), delay_ms),
        }
    }

    /// Breaks all connections between two hosts.
    pub(super) fn reset(&self, one: Host, other: Host) {
        let mut inner = self.lock();
        let between = |lane: &&mut Lane| [(one, other), (other, one)].contains(&(lane.from, lane.to));
        inner.lanes.values_mut().filter(between).for_each(Lane::break_off);
    }

    /// From here on the host has no power, or has it again. Its process is ended afterwards, by the caller.
    pub(super) fn set_dark(&self, host: Host, is_dark: bool) {
        let mut inner = self.lock();
        match is_dark {
            true => _ = inner.dark.insert(host),
            false => _ = inner.dark.remove(&host),
        }
    }

    /// Writes so far.
    pub(super) fn writes(&self) -> u64 {
        self.lock().writes
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When what is sent now over this link arrives.
    fn due(&self, inner: &Inner, from: Host, to: Host) -> u64 {
        let slow_ms = inner.slow.get(&(from, to)).copied().unwrap_or(0);
        let mut state = self.weather.lock();
        let delay_ms = state.random.random_range(1..=DELAY_MS_MAX) + state.random.random_range(slow_ms / 2..=slow_ms);
        inner.now_ms + delay_ms
    }

    fn try_connect(&self, from: Host, address: &str) -> Attempt {
        let Some(to) = Host::of_address(address) else { return Attempt::Refused };
        let mut inner = self.lock();
        if !inner.reaches(from, to) {
            return Attempt::NoWay;
        }
        let Some(listener) = inner.listeners.get(address).filter(|listener| !listener.is_closed()).cloned() else {
            return Attempt::Refused;
        };
        let (there, back) = (LaneId(inner.lanes_made), LaneId(inner.lanes_made + 1));
        inner.lanes_made += 2;
        inner.lanes.insert(there, Lane::new(from, to, back));
        inner.lanes.insert(back, Lane::new(to, from, there));
        let wait = Duration::from_millis(self.due(&inner, from, to) - inner.now_ms);
        drop(inner);
        let pipe = |read: LaneId, write: LaneId, peer: Host| Pipe {
            reader: Box::new(ReadEnd { network: self.clone(), lane: read }),
            writer: Box::new(WriteEnd { network: self.clone(), lane: write }),
            peer: peer.to_string(),
        };
        match listener.try_send(pipe(there, back, from)) {
            Ok(()) => Attempt::Open(pipe(back, there, to), wait),
            Err(_) => Attempt::NoWay,
        }
    }
}

/// What became of an attempt to connect.
enum Attempt {
    Open(Pipe, Duration),
    /// Nobody listens there.
    Refused,
    /// No answer.
    NoWay,
}

/// The network as one host sees it.
struct Socket {
    network: Network,
    host: Host,
}

impl Fabric for Socket {
    fn connect(&self, address: &str) -> Opening {
        let (network, host, address) = (self.network.clone(), self.host, address.to_owned());
        Box::pin(async move {
            loop {
                match network.try_connect(host, &address) {
                    Attempt::Open(pipe, wait) => {
                        tokio::time::sleep(wait * 2).await;
                        return Ok(pipe);
                    }
                    Attempt::Refused => {
                        tokio::time::sleep(Duration::from_millis(DELAY_MS_MAX)).await;
                        return Err(io::ErrorKind::ConnectionRefused.into());
                    }
                    Attempt::NoWay => tokio::time::sleep(LOOK_AGAIN).await,
                }
            }
        })
    }

    fn listen(&self, address: &str) -> io::Result<mpsc::Receiver<Pipe>> {
        let (sender, pipes) = mpsc::channel(BACKLOG_MAX);
        self.network.lock().listeners.insert(address.to_owned(), sender);
        Ok(pipes)
    }
}
