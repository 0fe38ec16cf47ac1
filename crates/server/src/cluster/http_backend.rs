//! The HTTP port of coordinators and workers. A coordinator that does not lead asks the one that does, and answers from its own
//! memory only where that cannot be reached.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mainstem_core::ids::{JobId, OperatorId};
use mainstem_core::time::Timestamp;
use mainstem_engine::MemoryBudget;
use mainstem_net::{Hello, Https, RpcClient, RpcError, Service, Transport};
use mainstem_rt::{Clock, SystemClock};
use mainstem_worker::Counters;

use super::api::{Request, Response};
use super::coordinator::Node;
use crate::cli::{CoordinatorArgs, NodeArgs, WorkerArgs};
use crate::http::{self, Asked, Backend};
use crate::metrics::{ClusterScrape, Scrape};

/// Clients of leaders that are kept, one for each user and leader.
const CLIENTS_MAX: usize = 32;

/// Serves the HTTP port of a coordinator.
pub(super) async fn serve(
    args: &CoordinatorArgs,
    node: &Arc<Node>,
    transport: Transport,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
    let https = transport.https();
    let backend = CoordinatorBackend {
        id: args.id,
        cluster: args.node.cluster.clone(),
        settings: coordinator_settings(args),
        node: node.clone(),
        transport,
        clients: Mutex::default(),
        clock: SystemClock::default(),
    };
    http::serve(&args.http, https, Arc::new(backend)).await
}

/// Serves the HTTP port of a worker, which tells of metrics and of nothing else.
pub(super) async fn serve_worker(
    args: &WorkerArgs,
    name: String,
    counters: Counters,
    memory: Arc<MemoryBudget>,
    https: Option<Https>,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
    let settings = worker_settings(args);
    let backend = WorkerBackend { name, counters, memory, settings, clock: SystemClock::default() };
    http::serve(&args.http, https, Arc::new(backend)).await
}

struct CoordinatorBackend {
    id: u64,
    cluster: String,
    settings: Vec<(String, String)>,
    node: Arc<Node>,
    transport: Transport,
    /// By user and address of the leader.
    clients: Mutex<BTreeMap<(String, String), RpcClient>>,
    clock: SystemClock,
}

impl CoordinatorBackend {
    fn client(&self, user: &str, leader: &str) -> RpcClient {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (user.to_owned(), leader.to_owned());
        if let Some(client) = clients.get(&key) {
            return client.clone();
        }
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        let hello = Hello::new(Service::Client, user.to_owned(), self.cluster.clone());
        let client = RpcClient::new(self.transport.clone(), leader, hello);
        clients.insert(key, client.clone());
        client
    }
}

#[async_trait]
impl Backend for CoordinatorBackend {
    async fn ask(&self, user: &str, request: Request) -> Asked {
        let reads = matches!(request, Request::Look(_) | Request::Jobs | Request::Members | Request::Audit(_));
        let leader = self.node.whom_to_ask().filter(|_| !self.node.leads());
        let Some(leader) = leader else {
            let response = self.node.answer(user, request).await;
            let stale = reads && !response.leads();
            return Asked { response, stale };
        };
        // Who asks travels with the address from which the port of a browser is left out: one connection for each.
        let who = user.rsplit_once(':').map_or(user, |(who, _)| who);
        let asked = self.client(who, &leader).call::<_, Response>(&request, request.answer_within()).await;
        let response = match asked {
            Ok(response) => response,
            Err(_) if reads => return Asked { response: self.node.answer(user, request).await, stale: true },
            Err(RpcError::Unreachable(_)) => Response::NotLeader { leader: None },
            Err(error) => Response::Unknown { reason: error.to_string() },
        };
        // One that has ceased to lead meanwhile tells what it knows.
        let stale = reads && !response.leads();
        Asked { response, stale }
    }

    fn mode(&self) -> &'static str {
        "cluster"
    }

    fn name(&self) -> String {
        format!("coordinator {}", self.id)
    }

    fn is_ready(&self) -> Result<(), String> {
        if self.node.leads() || self.node.leader().is_some() { Ok(()) } else { Err("no leader".to_owned()) }
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn scrape(&self) -> Scrape {
        let leads = self.node.leads();
        Scrape {
            mode: self.mode(),
            now: self.clock.now(),
            // What others know of jobs is old, and would be counted twice.
            jobs: if leads { self.node.figures.known() } else { Vec::new() },
            running: Vec::new(),
            cluster: Some(ClusterScrape {
                raft: self.node.consensus.status(),
                leads,
                workers: leads.then(|| self.node.workers()),
            }),
            memory: None,
            traces: self.node.traces.as_ref().map(|traces| traces.counts()),
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

struct WorkerBackend {
    name: String,
    counters: Counters,
    memory: Arc<MemoryBudget>,
    settings: Vec<(String, String)>,
    clock: SystemClock,
}

#[async_trait]
impl Backend for WorkerBackend {
    async fn ask(&self, _user: &str, _request: Request) -> Asked {
        let reason = "a worker knows nothing of jobs as a whole; ask a coordinator".to_owned();
        Asked { response: Response::NotHere { reason }, stale: false }
    }

    fn mode(&self) -> &'static str {
        "worker"
    }

    fn name(&self) -> String {
        format!("worker {}", self.name)
    }

    fn is_ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    fn scrape(&self) -> Scrape {
        // Of each job the newest attempt: one before it may still be ending.
        let counted = self.counters.read().into_iter().map(|(attempt, counters)| (attempt.job, counters));
        let running: BTreeMap<JobId, BTreeMap<OperatorId, _>> = counted.collect();
        let (now, running, memory) = (self.clock.now(), running.into_iter().collect(), Some(self.memory.clone()));
        Scrape { mode: self.mode(), now, jobs: Vec::new(), running, cluster: None, memory, traces: None }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn announce(&self, url: &str) {
        http::announce("metrics", url);
    }
}

fn coordinator_settings(args: &CoordinatorArgs) -> Vec<(String, String)> {
    let members = args.members.iter().map(|(id, address)| format!("{id}={address}")).collect::<Vec<_>>().join(",");
    let mut settings = vec![
        ("id".to_owned(), args.id.to_string()),
        ("members".to_owned(), members),
        ("data-dir".to_owned(), args.data_dir.display().to_string()),
        ("state-dir".to_owned(), args.state_dir.display().to_string()),
        ("worker-timeout".to_owned(), format!("{} ms", args.worker_timeout.as_millis())),
        ("audit-size".to_owned(), args.audit_size.to_string()),
    ];
    settings.extend(node_settings(&args.node, &args.http.http));
    settings
}

fn worker_settings(args: &WorkerArgs) -> Vec<(String, String)> {
    let mut settings = vec![
        ("coordinators".to_owned(), args.coordinators.join(",")),
        ("slots".to_owned(), args.slots.to_string()),
        ("compress".to_owned(), args.compress.to_string()),
        ("copies-max".to_owned(), args.copies.copies_max.to_string()),
    ];
    settings.extend(node_settings(&args.node, &args.http.http));
    settings
}

fn node_settings(args: &NodeArgs, http: &Option<String>) -> Vec<(String, String)> {
    let shown = |name: &str, value: &Option<String>| Some((name.to_owned(), value.clone()?));
    let file =
        |name: &str, path: &Option<std::path::PathBuf>| Some((name.to_owned(), path.as_ref()?.display().to_string()));
    let known = [
        Some(("cluster".to_owned(), args.cluster.clone())),
        shown("listen", &args.listen),
        shown("http", http),
        file("tls-certificate", &args.tls_certificate),
        // The path of the key is none of its secrets.
        file("tls-key", &args.tls_key),
        file("tls-authority", &args.tls_authority),
    ];
    known.into_iter().flatten().collect()
}
