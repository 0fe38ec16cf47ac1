//! What goes wrong in a run: drawn from its seed, some kinds wholly off, each with its time.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::weather::{COORDINATORS, Host, WORKERS};

/// A host that is chosen when its time has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whom {
    /// The coordinator that leads, or any where none does.
    Leader,
    This(Host),
}

/// What happens to the links between hosts.
#[derive(Clone, Debug)]
pub(super) enum Cut {
    /// One host hears nobody and nobody hears it.
    Alone(Whom),
    /// Nothing passes from the first to the second.
    OneWay(Whom, Host),
    /// Nothing passes between the two.
    Pair(Host, Host),
    /// These on one side, all others on the other.
    Sides(Vec<Host>),
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The process is killed and started again after so long.
    Kill(Whom, u64),
    /// The power goes for so long.
    PowerCut(Whom, u64),
    /// Every node of the cluster is killed, and they are started again within so long.
    KillAll(u64),
    /// The process is stopped for so long, and goes on.
    Stall(Whom, u64),
    /// Links are cut for so long.
    Cut(Cut, u64),
    /// Links are cut and mended again and again, for so long.
    Flap(Cut, u64),
    /// Links of a host are slow, by up to so much, for so long.
    Slow(Host, u64, u64),
    /// The connections between two hosts break.
    Reset(Host, Host),
    /// Of 1000 calls of the store so many fail, and of so many the answer is lost, for so long.
    Store(u32, u32, u64),
    /// A call of the store takes up to so long, for so long.
    SlowStore(u64, u64),
    /// The store is full for so long.
    FullStore(u64),
    /// A host does not reach the store for so long.
    NoStore(Host, u64),
    /// As for the store, of the sink's system.
    Sink(u32, u32, u64),
    /// The disk of a coordinator is full for so long.
    FullDisk(Whom, u64),
    /// The time of day of a host is off by so much.
    Clock(Host, i64),
}

/// Kinds of faults.
const KINDS: u32 = 15;
/// Faults begin so long after the start, so that there is something to disturb.
const CALM_MS: u64 = 1_500;

/// The faults of a run until `end_ms`, in the order of their times.
pub(super) fn draw(random: &mut SmallRng, end_ms: u64) -> Vec<(u64, Fault)> {
    let mut kinds: Vec<u32> = (0..KINDS).collect();
    kinds.shuffle(random);
    // Some seeds have few kinds, so that one fault is not always mended by the next.
    kinds.truncate(random.random_range(3..=KINDS as usize));
    let count = random.random_range(12..=30);
    let mut faults: Vec<(u64, Fault)> = (0..count)
        .map(|_| {
            let kind = *kinds.choose(random).expect("there are some");
            (random.random_range(CALM_MS..end_ms), fault(random, kind))
        })
        .collect();
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn fault(random: &mut SmallRng, kind: u32) -> Fault {
    let short = random.random_range(100..900);
    let long = random.random_range(500..5_000);
    let often = random.random_range(20..400);
    match kind {
        0 | 1 => Fault::Kill(whom(random), long),
        2 => Fault::PowerCut(whom(random), long),
        3 => Fault::Stall(whom(random), long),
        4 => Fault::Cut(cut(random), long),
        5 => Fault::Flap(cut(random), long),
        6 => Fault::Slow(node(random), random.random_range(20..600), long),
        7 => Fault::Reset(node(random), node(random)),
        8 => Fault::Store(often, random.random_range(0..200), long),
        9 => Fault::SlowStore(random.random_range(100..1_500), long),
        10 => Fault::FullStore(short),
        11 => Fault::NoStore(node(random), long),
        12 => Fault::Sink(often, random.random_range(0..300), long),
        13 => Fault::FullDisk(coordinator(random), short),
        _ if random.random_bool(0.25) => Fault::KillAll(long),
        _ => Fault::Clock(node(random), random.random_range(-60_000..60_000)),
    }
}

fn cut(random: &mut SmallRng) -> Cut {
    match random.random_range(0..6) {
        0 | 1 => Cut::Alone(whom(random)),
        2 => Cut::OneWay(whom(random), node(random)),
        3 => Cut::Pair(worker(random), worker(random)),
        4 => Cut::Pair(node(random), node(random)),
        _ => {
            let mut nodes: Vec<Host> = Host::nodes().collect();
            nodes.shuffle(random);
            nodes.truncate(random.random_range(1..nodes.len()));
            Cut::Sides(nodes)
        }
    }
}

fn whom(random: &mut SmallRng) -> Whom {
    match random.random_range(0..3) {
        0 => Whom::Leader,
        1 => coordinator(random),
        _ => Whom::This(worker(random)),
    }
}

fn coordinator(random: &mut SmallRng) -> Whom {
    if random.random_bool(0.4) { Whom::Leader } else { Whom::This(Host(random.random_range(0..COORDINATORS))) }
}

fn worker(random: &mut SmallRng) -> Host {
    Host(COORDINATORS + random.random_range(0..WORKERS))
}

fn node(random: &mut SmallRng) -> Host {
    Host(random.random_range(0..COORDINATORS + WORKERS))
}
