//! The handshake without TLS: who comes in, who does not and learns why, and that strangers keep nobody waiting.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{assert_says, hello, pair, refusals, soon};
use crate::{Hello, NetError, PROTOCOL_VERSION, Service, Transport};

#[tokio::test]
async fn both_sides_know_each_other_and_speak() {
    let transport = Transport::plain();
    let mut listener = transport.listen("127.0.0.1:0").await.expect("a port").of_cluster("test");
    let (mut called, mut accepted) = pair(&mut listener, &transport).await;
    assert_eq!(accepted.hello, hello(Service::Data));
    called.writer.write_message("there").await.expect("sent");
    assert_eq!(soon(accepted.reader.read_message::<String>()).await.expect("read").as_deref(), Some("there"));
    accepted.writer.write_message("and back").await.expect("sent");
    assert_eq!(soon(called.reader.read_message::<String>()).await.expect("read").as_deref(), Some("and back"));
    drop(called);
    assert!(soon(accepted.reader.read()).await.expect("a clean end").is_none());
}

#[tokio::test]
async fn another_version_cluster_or_service_is_refused_with_the_reason() {
    let transport = Transport::plain();
    let listener = transport.listen("127.0.0.1:0").await.expect("a port");
    let mut listener = listener.of_cluster("right").serving(&[Service::Data]);
    let address = listener.local_address();
    let right = Hello::new(Service::Data, "one", "right");
    let wrong = [
        (Hello { version: PROTOCOL_VERSION + 1, ..right.clone() }, vec!["version", "same release"]),
        (Hello { cluster: "left".to_owned(), ..right.clone() }, vec!["cluster 'right'", "'left'"]),
        (Hello { service: Service::Raft, ..right.clone() }, vec!["serves [Data]", "Raft"]),
    ];
    for (hello, parts) in wrong {
        let error = tokio::select! {
            connected = transport.connect(&address, &hello) => connected.err().expect("refused"),
            _ = listener.accept() => panic!("{hello:?} was let in"),
        };
        assert!(matches!(error, NetError::Refused { .. }), "{error}");
        assert_says(&error.to_string(), &parts);
        assert!(!error.is_retryable());
    }
    let (called, accepted) = soon(async { tokio::join!(transport.connect(&address, &right), listener.accept()) }).await;
    called.expect("let in");
    accepted.expect("let in");
    assert_eq!(listener.refused(), 3);
}

#[tokio::test]
async fn strangers_and_slow_peers_keep_nobody_waiting() {
    let transport = Transport::plain().with_connect_timeout(Duration::from_millis(300));
    let mut listener = transport.listen("127.0.0.1:0").await.expect("a port");
    let address = listener.local_address();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(&address).await.expect("connects"));
    }
    let mut stranger = TcpStream::connect(&address).await.expect("connects");
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").await.expect("sent");
    let mut liar = TcpStream::connect(&address).await.expect("connects");
    liar.write_all(&[2, 0, 0, 0, b'{', b'}']).await.expect("sent");
    pair(&mut listener, &Transport::plain()).await;

    let counted = async {
        while listener.refused() < 22 {
            let _ = tokio::time::timeout(Duration::from_millis(10), listener.accept()).await;
        }
    };
    soon(counted).await;
    let mut answer = Vec::new();
    soon(stranger.read_to_end(&mut answer)).await.expect("an answer, then the end");
    assert_says(&String::from_utf8_lossy(&answer), &["no hello of Mainstem", "port"]);
    assert!(listener.last_refusal().is_some_and(|reason| reason.contains("no hello within 300 ms")));
}

#[tokio::test]
async fn a_hello_is_bounded() {
    let transport = Transport::plain();
    let mut listener = transport.listen("127.0.0.1:0").await.expect("a port");
    let address = listener.local_address();
    let mut stream = TcpStream::connect(&address).await.expect("connects");
    stream.write_all(&5000u32.to_le_bytes()).await.expect("sent");
    stream.write_all(&[b' '; 5000]).await.expect("sent");
    let (error, refusal) = refusals(&mut listener, &transport, "127.0.0.1:1").await;
    assert!(matches!(error, NetError::Connect { .. }) && error.is_retryable(), "{error}");
    assert_says(&refusal, &["no hello"]);

    let huge = Hello::new(Service::Data, "n".repeat(5000), "test");
    let error = transport.connect(&address, &huge).await.err().expect("too large");
    assert!(matches!(error, NetError::FrameTooLarge { .. }), "{error}");
}

#[tokio::test]
async fn whoever_does_not_answer_is_given_up() {
    let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = deaf.local_addr().expect("an address").to_string();
    let transport = Transport::plain().with_connect_timeout(Duration::from_millis(200));
    let error = soon(transport.connect(&address, &hello(Service::Client))).await.err().expect("no answer");
    assert!(matches!(error, NetError::TimedOut { timeout_ms: 200, .. }), "{error}");
    assert_says(&error.to_string(), &[&address, "200 ms"]);
}
