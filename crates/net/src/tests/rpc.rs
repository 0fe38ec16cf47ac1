//! Calls: many at once, slow and failing handlers, lost and stopped peers.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{assert_says, hello, soon};
use crate::{Listener, NetError, RpcClient, RpcError, Service, Transport, serve_rpc};

const LONG: Duration = Duration::from_secs(8);

/// Answers twice the number, after as many milliseconds; refuses 13 and breaks at 666.
async fn twice(number: u64) -> Result<u64, String> {
    sleep(Duration::from_millis(number % 100)).await;
    assert!(number != 666, "a handler breaks");
    if number == 13 { Err("no luck".to_owned()) } else { Ok(number * 2) }
}

fn serve(mut listener: Listener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok(connection) = listener.accept().await {
            connections.spawn(serve_rpc(connection, twice));
        }
    })
}

async fn server() -> (String, JoinHandle<()>) {
    let listener = Transport::plain().listen("127.0.0.1:0").await.expect("a port");
    (listener.local_address(), serve(listener))
}

fn client(address: &str) -> RpcClient {
    RpcClient::new(Transport::plain(), address, hello(Service::Client))
}

#[tokio::test]
async fn many_calls_share_a_connection_and_each_gets_its_own_answer() {
    let (address, _server) = server().await;
    let client = client(&address);
    let calls: Vec<_> = (100..300u64)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { (number, client.call::<_, u64>(&number, LONG).await) })
        })
        .collect();
    for call in calls {
        let (number, answer) = soon(call).await.expect("no panic");
        assert_eq!(answer, Ok(number * 2));
    }
}

#[tokio::test]
async fn a_call_that_fails_says_why_and_spoils_no_other() {
    let (address, _server) = server().await;
    let client = client(&address);
    let refused = client.call::<u64, u64>(&13, LONG).await.expect_err("refused");
    assert_eq!(refused, RpcError::Refused { peer: address.clone(), reason: "no luck".to_owned() });
    let broken = client.call::<u64, u64>(&666, LONG).await.expect_err("broken");
    assert_says(&broken.to_string(), &[&address, "bug"]);
    let misunderstood = client.call::<str, u64>("text", LONG).await.expect_err("no number");
    assert_says(&misunderstood.to_string(), &["cannot be understood"]);
    let unexpected = client.call::<u64, String>(&1, LONG).await.expect_err("no string");
    assert!(matches!(unexpected, RpcError::Malformed { .. }), "{unexpected}");
    assert_eq!(client.call::<u64, u64>(&4, LONG).await, Ok(8));
}

#[tokio::test]
async fn a_slow_call_ends_by_its_own_bound_and_the_connection_stays() {
    let (address, _server) = server().await;
    let client = client(&address);
    let slow = client.call::<u64, u64>(&199, Duration::from_millis(20)).await.expect_err("99 ms are too long");
    assert_eq!(slow, RpcError::TimedOut { peer: address, timeout_ms: 20 });
    assert_eq!(client.call::<u64, u64>(&4, LONG).await, Ok(8));
}

#[tokio::test]
async fn after_the_peer_came_back_calls_succeed_again() {
    let (address, server) = server().await;
    let client = client(&address);
    assert_eq!(client.call::<u64, u64>(&4, LONG).await, Ok(8));
    server.abort();
    let gone = async {
        while !matches!(client.call::<u64, u64>(&4, LONG).await, Err(RpcError::Unreachable(_))) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    soon(gone).await;
    let again = async {
        loop {
            match Transport::plain().listen(&address).await {
                Ok(listener) => return listener,
                Err(NetError::Listen { .. }) => sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let _server = serve(soon(again).await);
    assert_eq!(client.call::<u64, u64>(&4, LONG).await, Ok(8));
}

#[tokio::test]
async fn a_peer_without_signs_of_life_is_given_up_long_before_the_call_is() {
    let mut listener = Transport::plain().listen("127.0.0.1:0").await.expect("a port");
    let client = client(&listener.local_address());
    // Accepts and never reads again, as a stopped process does.
    let stopped = tokio::spawn(async move { listener.accept().await });
    let begun = Instant::now();
    let lost = client.call::<u64, u64>(&4, Duration::from_secs(60)).await.expect_err("nobody answers");
    assert!(matches!(lost, RpcError::Lost { .. }), "{lost}");
    assert_says(&lost.to_string(), &["says nothing any more"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    stopped.await.expect("no panic").expect("accepted");
}
