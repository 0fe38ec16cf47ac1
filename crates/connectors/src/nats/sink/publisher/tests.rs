//! The publisher against a model of a stream, under a seed: several processes publish the same epochs at the same time, one of
//! them the newest and the others left over; they die at any point, messages are lost, come late, or their answers are lost,
//! the window of identities is short, and others write to the stream as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use arrow::ipc::writer::FileWriter;
use async_trait::async_trait;
use futures::executor::block_on;
use mainstem_core::ids::Generation;

use super::super::log::Extent;
use super::super::outgoing::OutgoingBuilder;
use super::super::progress::Search;
use super::*;
use crate::staging::testing::in_memory;

const EPOCHS: u64 = 4;
const SEEDS: u64 = 400;
/// From this step on nothing goes wrong any more, and everything must come to an end.
const CALM_FROM: u64 = 3_000;
const STEPS_MAX: u64 = 200_000;

/// Numbers that a seed gives.
#[derive(Clone, Debug)]
struct Random(Arc<Mutex<u64>>);

impl Random {
    fn new(seed: u64) -> Random {
        Random(Arc::new(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)))
    }

    fn below(&self, end: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        (*state >> 11) % end
    }

    fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Lets others go on for a while.
async fn others(random: &Random) {
    for _ in 0..random.below(3) {
        let mut waited = false;
        std::future::poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending })
            .await;
    }
}

/// A condition that a server does not look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Weakness {
    #[default]
    None,
    Sequence,
    Identity,
}

#[derive(Debug, Default)]
struct Stream {
    weakness: Weakness,
    /// Identity of each message that is there, by sequence.
    messages: BTreeMap<u64, Option<String>>,
    last: u64,
    last_id: Option<String>,
    /// Identities that are still remembered.
    window: BTreeSet<String>,
    /// Everything of ours that was ever stored, in order.
    stored: Vec<String>,
}

impl Stream {
    fn store(&mut self, id: Option<String>) -> u64 {
        self.last += 1;
        self.messages.insert(self.last, id.clone());
        self.stored.extend(id.clone());
        self.window.extend(id.clone());
        self.last_id = id;
        self.last
    }

    /// What the server does with a message.
    fn take(&mut self, message: &Conditional) -> Answer {
        let is_known = self.window.contains(&message.id);
        let in_place = message.last == self.last || self.weakness == Weakness::Sequence;
        let is_behind = message.behind.is_none() || message.behind == self.last_id;
        let fits = in_place && (is_behind || self.weakness == Weakness::Identity);
        if is_known || !fits { Answer::Refused } else { Answer::Stored(self.store(Some(message.id.clone()))) }
    }
}

#[derive(Clone)]
struct World {
    random: Random,
    stream: Arc<Mutex<Stream>>,
    /// Messages that clients have kept and will send when they are connected again.
    late: Arc<Mutex<VecDeque<Conditional>>>,
    /// Whether messages are removed from the stream.
    removes: bool,
    /// Whether nothing goes wrong any more.
    calm: Arc<Mutex<bool>>,
}

impl World {
    fn new(random: &Random, removes: bool) -> World {
        let (random, stream, late, calm) = (random.clone(), Arc::default(), Arc::default(), Arc::default());
        World { random, stream, late, removes, calm }
    }

    fn is_calm(&self) -> bool {
        *self.calm.lock().unwrap()
    }

    /// Something that happens beside the publishers.
    fn step(&self) {
        let random = &self.random;
        let mut stream = self.stream.lock().unwrap();
        // What clients have kept comes some time.
        if random.one_in(6)
            && let Some(message) = self.late.lock().unwrap().pop_front()
        {
            stream.take(&message);
        }
        if self.is_calm() {
            return;
        }
        if random.one_in(12) {
            stream.store(None);
        }
        if random.one_in(8) {
            stream.window.clear();
        }
        if random.one_in(20) {
            // After a restart the server knows the last identity only while it is in the window.
            stream.last_id = None;
        }
        if self.removes && random.one_in(30) {
            let kept = random.below(4);
            let below = stream.last.saturating_sub(kept);
            stream.messages = stream.messages.split_off(&below);
        }
    }
}

fn broken() -> ConnectorError {
    ConnectorError::new(ErrorKind::Transient, "the connection is broken")
}

#[async_trait]
impl StreamLog for World {
    async fn extent(&mut self) -> Result<Extent, ConnectorError> {
        others(&self.random).await;
        let last = self.stream.lock().unwrap().last;
        others(&self.random).await;
        Ok(Extent { created: 1, last })
    }

    async fn publish(&mut self, messages: Vec<Conditional>) -> Vec<Answer> {
        let mut answers = Vec::new();
        for message in messages {
            others(&self.random).await;
            let luck = if self.is_calm() { 40 } else { self.random.below(40) };
            answers.push(match luck {
                0 => Answer::Failed(broken()),
                1 => {
                    self.late.lock().unwrap().push_back(message);
                    Answer::Failed(broken())
                }
                2 => {
                    self.stream.lock().unwrap().take(&message);
                    Answer::Failed(broken())
                }
                _ => self.stream.lock().unwrap().take(&message),
            });
        }
        answers
    }

    async fn search(
        &mut self,
        known: Progress,
        last: u64,
        prefix: &str,
        total: u64,
    ) -> Result<Result<Progress, Uncertain>, ConnectorError> {
        let mut search = Search::behind(known);
        let mut at = known.last;
        while at < last {
            others(&self.random).await;
            let stream = self.stream.lock().unwrap();
            let Some((sequence, id)) = stream.messages.range(at + 1..).next() else { break };
            at = *sequence;
            search.found(at, id.as_ref().and_then(|id| id.strip_prefix(prefix)?.parse().ok()));
        }
        Ok(search.end(last, total))
    }
}

/// Files of one epoch.
fn staged(staging: &Staging, epoch: u64, random: &Random) -> Vec<StagedFile> {
    let file = |number: u64| {
        let mut messages = OutgoingBuilder::new();
        let rows = 1 + random.below(60);
        for _ in 0..rows {
            messages.push("s", std::iter::empty(), b"x").unwrap();
        }
        let batch = messages.finish().unwrap();
        let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        let bytes = Bytes::from(writer.into_inner().unwrap());
        let name = format!("{}-g1-op0-0.arrow", epoch * 10 + number);
        let (size, crc32c) = (bytes.len() as u64, crc32c::crc32c(&bytes));
        block_on(staging.store().put(&name, bytes)).unwrap();
        StagedFile { name, generation: Generation(1), nonce: 7, size, rows, crc32c }
    };
    (0..1 + random.below(2)).map(file).collect()
}

type Process = Pin<Box<dyn Future<Output = Result<(), ConnectorError>>>>;

fn record(recorded: &Mutex<u64>, epoch: u64) {
    let mut newest = recorded.lock().unwrap();
    *newest = epoch.max(*newest);
}

/// Publishes epochs as the coordinator does: from the first that is not recorded as published.
fn process(world: World, staging: Staging, files: Arc<Vec<Vec<StagedFile>>>, recorded: Arc<Mutex<u64>>) -> Process {
    Box::pin(async move {
        let mut world = world;
        let mut publisher = Publisher::new();
        let job = JobId::new("j").unwrap();
        let first = *recorded.lock().unwrap() + 1;
        for epoch in first..=EPOCHS {
            let files = &files[epoch as usize - 1];
            let output = Output::new(("t", "S"), &job, OperatorId(0), Epoch(epoch), files, &staging, false);
            loop {
                match publisher.publish(&mut world, &output).await {
                    Ok(()) => break,
                    Err(error) if error.is_retryable() => others(&world.random).await,
                    Err(error) => return Err(error),
                }
            }
            for file in files {
                others(&world.random).await;
                staging.store().remove(&file.name).await?;
            }
            others(&world.random).await;
            record(&recorded, epoch);
            others(&world.random).await;
            staging.store().remove(&output.note()).await?;
        }
        Ok(())
    })
}

/// Runs a seed; gives what was stored of ours, what should have been, and whether somebody had to give up.
fn run(seed: u64, removes: bool, weakness: Weakness) -> (Vec<String>, Vec<String>, bool) {
    let random = Random::new(seed);
    let world = World::new(&random, removes);
    world.stream.lock().unwrap().weakness = weakness;
    let staging = in_memory();
    let files: Arc<Vec<_>> = Arc::new((1..=EPOCHS).map(|epoch| staged(&staging, epoch, &random)).collect());
    let recorded = Arc::new(Mutex::new(0));
    let begin = || process(world.clone(), staging.clone(), files.clone(), recorded.clone());
    let mut running = vec![begin()];
    let mut gave_up = false;
    let mut steps = 0_u64;
    // Left-overs go on for a while when all is done.
    let mut rest = 200;
    while rest > 0 {
        steps += 1;
        assert!(steps < STEPS_MAX, "seed {seed} does not come to an end");
        *world.calm.lock().unwrap() = steps >= CALM_FROM;
        world.step();
        let is_done = *recorded.lock().unwrap() == EPOCHS || gave_up;
        rest -= u64::from(is_done);
        if !is_done && (running.is_empty() || (running.len() < 3 && random.one_in(150))) {
            running.push(begin());
        }
        if running.is_empty() {
            continue;
        }
        let chosen = random.below(running.len() as u64) as usize;
        if !world.is_calm() && random.one_in(250) {
            drop(running.swap_remove(chosen));
            continue;
        }
        match running[chosen].as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => drop(running.swap_remove(chosen)),
            Poll::Ready(Err(error)) => {
                assert_eq!(error.kind, ErrorKind::Lost, "{error}");
                gave_up |= error.message.contains("cannot tell how far");
                drop(running.swap_remove(chosen));
            }
        }
    }
    let job = JobId::new("j").unwrap();
    let mut expected = Vec::new();
    for (number, files) in files.iter().enumerate() {
        let output = Output::new(("t", "S"), &job, OperatorId(0), Epoch(number as u64 + 1), files, &staging, false);
        expected.extend((0..output.total).map(|number| output.id(number)));
    }
    let stored = world.stream.lock().unwrap().stored.clone();
    (stored, expected, gave_up)
}

#[test]
fn each_message_is_stored_once_and_in_order_whatever_happens() {
    for seed in 0..SEEDS {
        let (stored, expected, gave_up) = run(seed, false, Weakness::None);
        assert!(!gave_up, "seed {seed}: nothing was removed from the stream");
        assert_eq!(stored, expected, "seed {seed}");
    }
}

#[test]
fn both_conditions_are_needed() {
    for weakness in [Weakness::Sequence, Weakness::Identity] {
        let is_wrong = |seed| {
            let (stored, expected, _) = run(seed, false, weakness);
            stored != expected
        };
        assert!((0..SEEDS).any(is_wrong), "nobody notices a server with the weakness {weakness:?}");
    }
}

#[test]
fn where_messages_are_removed_the_job_stops_rather_than_publish_one_again() {
    let mut stopped = 0;
    for seed in 0..SEEDS {
        let (stored, expected, gave_up) = run(seed, true, Weakness::None);
        assert_eq!(stored[..], expected[..stored.len()], "seed {seed}");
        assert!(gave_up || stored.len() == expected.len(), "seed {seed}");
        stopped += u64::from(gave_up);
    }
    assert!(stopped > 0, "no seed removes what has to be known");
}

#[test]
fn what_is_staged_nowhere_and_noted_nowhere_is_lost() {
    let (random, staging) = (Random::new(1), in_memory());
    let mut world = World::new(&random, false);
    let files = staged(&staging, 1, &random);
    block_on(staging.store().remove(&files[0].name)).unwrap();
    let job = JobId::new("j").unwrap();
    let output = Output::new(("t", "S"), &job, OperatorId(0), Epoch(1), &files, &staging, false);
    let mut publisher = Publisher::new();
    let mut publish = std::pin::pin!(publisher.publish(&mut world, &output));
    let error = loop {
        if let Poll::Ready(ended) = publish.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            break ended.unwrap_err();
        }
    };
    assert_eq!(error.kind, ErrorKind::Lost);
}
