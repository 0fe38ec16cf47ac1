//! Attempts that a leader before this one has deployed, over loopback.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mainstem_core::cluster::FleetConfig;
use mainstem_core::cluster::messages::{FromWorker, SlotFiles, ToWorker, WorkerId, WorkerOffer};
use mainstem_core::ids::{Epoch, Generation, JobId, OperatorId, SubtaskId};
use mainstem_core::protocol::{Failure, FromSubtask, ToSubtask};
use mainstem_core::time::Timestamp;
use mainstem_net::{Connection, Hello, Service, Transport};
use mainstem_rt::SystemClock;
use tokio::sync::watch;

use super::{ClusterDeployer, FleetService};
use crate::meta_log::DeployedAttempt;
use crate::spec::{Attempt, Deployer, JobStatus, TaskSpec};

const TASK: OperatorId = OperatorId(0);
const COMPLETE: Epoch = Epoch(7);

/// A coordinator that has just come to lead.
struct Leader {
    fleet: Arc<FleetService>,
    address: String,
    deployer: ClusterDeployer,
}

impl Leader {
    async fn new() -> Leader {
        let fleet =
            FleetService::new(Arc::new(SystemClock::new()), FleetConfig { silence_ms: 1_000 }, Transport::plain());
        fleet.lead(3, Default::default(), Default::default());
        let mut listener = Transport::plain().listen("127.0.0.1:0").await.unwrap().of_cluster("test".to_owned());
        let address = listener.local_address();
        let serving = fleet.clone();
        tokio::spawn(async move {
            while let Ok(connection) = listener.accept().await {
                tokio::spawn(serving.clone().serve(connection));
            }
        });
        let deployer = ClusterDeployer {
            job: JobId::new("j").unwrap(),
            graph_json: "{}".to_owned(),
            key_groups: 8,
            working_dir: "/".to_owned(),
            store: "/".to_owned(),
            standbys: 0,
            tasks: vec![TaskSpec {
                head: TASK,
                operators: vec![TASK],
                parallelism: 2,
                scales: true,
                source: Some(TASK),
            }],
            fleet: fleet.clone(),
            status: watch::Sender::new(JobStatus::default()),
        };
        Leader { fleet, address, deployer }
    }

    async fn adopt(&mut self, workers: &[WorkerOffer]) -> Result<Attempt, String> {
        let deployed = DeployedAttempt {
            generation: Generation(4),
            restored: Epoch(0),
            parallelism: 2,
            first_epoch_now: Timestamp(0),
            replay_until: None,
            slots: workers.to_vec(),
        };
        self.deployer.adopt(&deployed, COMPLETE).await
    }
}

/// A worker, as far as the coordinator sees it.
struct Worker {
    connection: Connection,
}

impl Worker {
    async fn join(leader: &str, offer: &WorkerOffer) -> Worker {
        let hello = Hello::new(Service::Worker, &offer.worker.0, "test");
        let mut connection = Transport::plain().connect(leader, &hello).await.unwrap();
        connection.writer.write_message(&FromWorker::Register(offer.clone())).await.unwrap();
        let mut worker = Worker { connection };
        assert!(matches!(worker.hear().await, ToWorker::Welcome { term: 3, .. }));
        worker
    }

    /// The next message that is news.
    async fn hear(&mut self) -> ToWorker {
        loop {
            match self.connection.reader.read_message::<ToWorker>().await.unwrap().unwrap() {
                ToWorker::Alive => {}
                message => return message,
            }
        }
    }

    /// Answers the question whether it runs a part of the attempt.
    async fn answer(&mut self, index: u32, result: Result<(), Failure>) {
        let ToWorker::Adopt { attempt, subtasks, complete } = self.hear().await else { panic!("not asked") };
        assert_eq!((attempt.generation, complete), (Generation(4), COMPLETE));
        assert_eq!(subtasks, BTreeSet::from([subtask(index)]));
        self.say(&FromWorker::Deployed { attempt, result }).await;
    }

    async fn say(&mut self, message: &FromWorker) {
        self.connection.writer.write_message(message).await.unwrap();
    }
}

fn subtask(index: u32) -> SubtaskId {
    SubtaskId { operator: TASK, index }
}

/// A worker with an address on which it listens, or nobody does any more.
async fn offer(name: &str, listens: bool) -> WorkerOffer {
    let listener = Transport::plain().listen("127.0.0.1:0").await.unwrap();
    let data_address = listener.local_address();
    if listens {
        // As long as the test.
        tokio::spawn(async move {
            let _listener = listener;
            std::future::pending::<()>().await;
        });
    }
    WorkerOffer { worker: WorkerId(name.to_owned()), data_address, slots: 1, draining: false }
}

#[tokio::test]
async fn an_attempt_is_adopted_and_left_alone_unless_it_is_ended() {
    let mut leader = Leader::new().await;
    let offers = [offer("a", true).await, offer("b", true).await];
    let mut a = Worker::join(&leader.address, &offers[0]).await;
    let address = leader.address.clone();
    let (adopted, (mut a, mut b)) = tokio::join!(leader.adopt(&offers), async {
        a.answer(0, Ok(())).await;
        // The other one comes later.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut b = Worker::join(&address, &offers[1]).await;
        b.answer(1, Ok(())).await;
        (a, b)
    });
    let mut attempt = adopted.unwrap();
    assert_eq!(attempt.subtasks.keys().copied().collect::<Vec<_>>(), [subtask(0), subtask(1)]);
    let used: Vec<u32> = leader.fleet.workers().iter().map(|worker| worker.used).collect();
    assert_eq!(used, [1, 1]);
    attempt.subtasks[&subtask(1)].send(ToSubtask::Resume).await.unwrap();
    let ToWorker::Tell { attempt: id, subtask: told, message: ToSubtask::Resume } = b.hear().await else { panic!() };
    assert_eq!(told, subtask(1));
    let event = FromSubtask::RequestSplit { subtask: subtask(0) };
    a.say(&FromWorker::Report { attempt: id, event: event.clone() }).await;
    assert_eq!(attempt.events.recv().await, Some(event));
    attempt.hold.complete(Epoch(8), &SlotFiles::new());
    assert!(matches!(a.hear().await, ToWorker::Complete { epoch: Epoch(8), .. }));
    assert!(matches!(b.hear().await, ToWorker::Complete { epoch: Epoch(8), .. }));
    // A driver that is dropped leaves it to the next one, who ends it.
    drop(attempt);
    let (adopted, ()) = tokio::join!(leader.adopt(&offers), async {
        a.answer(0, Ok(())).await;
        b.answer(1, Ok(())).await;
    });
    let mut attempt = adopted.unwrap();
    attempt.hold.end();
    drop(attempt);
    for worker in [&mut a, &mut b] {
        assert!(matches!(worker.hear().await, ToWorker::Fence { generation: Generation(5), .. }));
    }
    assert!(leader.fleet.workers().iter().all(|worker| worker.used == 0));
}

#[tokio::test]
async fn an_attempt_is_not_adopted_where_a_part_of_it_is_missing() {
    let gone = |message: &str| Failure { message: message.to_owned(), retryable: true, consequence: true };
    let mut leader = Leader::new().await;
    let offers = [offer("a", true).await, offer("b", false).await];
    let mut a = Worker::join(&leader.address, &offers[0]).await;
    let (refused, ()) = tokio::join!(leader.adopt(&offers), a.answer(0, Err(gone("it does not run here"))));
    assert!(refused.err().unwrap().contains("it does not run here"));
    let (refused, ()) = tokio::join!(leader.adopt(&offers), a.answer(0, Ok(())));
    assert!(refused.err().unwrap().contains("nobody listens at"));
    // One that may live is waited for.
    let silent = offer("c", true).await;
    let offers = [offers[0].clone(), silent];
    let (refused, ()) = tokio::join!(leader.adopt(&offers), a.answer(0, Ok(())));
    assert_eq!(refused.err().unwrap(), "nothing was heard in time of c");
}
