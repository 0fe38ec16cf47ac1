//! Tests of the client against a server that answers as it is told.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::table::TableSpec;

/// Answers each request by its first line, and counts them.
async fn server(answer: impl Fn(&str, usize) -> (u16, String) + Send + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/apis/v7/", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut part = [0; 4096];
                let length = socket.read(&mut part).await.unwrap();
                if length == 0 {
                    break;
                }
                request.extend_from_slice(&part[..length]);
            }
            let head = String::from_utf8_lossy(&request).into_owned();
            let (status, body) = answer(&head, count.fetch_add(1, Ordering::SeqCst));
            let text =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            socket.write_all(text.as_bytes()).await.unwrap();
        }
    });
    (url, asked)
}

fn registry(options: &[(&str, &str)]) -> Result<SchemaRegistry, ConnectorError> {
    let table = TableSpec {
        name: "t".to_owned(),
        schema: Arc::new(arrow::datatypes::Schema::empty()),
        primary_key: vec![],
        partition_keys: vec![],
        options: options.iter().map(|(k, v)| (format!("avro-confluent.{k}"), (*v).to_owned())).collect(),
    };
    RegistryOptions::read(&mut table.options(), "avro-confluent").map(SchemaRegistry::new)
}

#[tokio::test]
async fn schemas_are_asked_for_once_and_what_is_unknown_is_told_apart() {
    let (url, asked) = server(|head, _| match head.lines().next().unwrap() {
        line if line.starts_with("GET /apis/v7/schemas/ids/7 ") => {
            assert!(head.contains("authorization: Basic dTpwOnE="), "{head}");
            let refers = r#"{"schema":"\"int\"","references":[{"name":"a.B","subject":"b/c","version":2}]}"#;
            (200, refers.to_owned())
        }
        line if line.starts_with("GET /apis/v7/subjects/b%2Fc/versions/2 ") => {
            (200, r#"{"schema":"B","schemaType":"PROTOBUF"}"#.to_owned())
        }
        _ => (404, r#"{"error_code":40403,"message":"no such schema"}"#.to_owned()),
    })
    .await;
    let registry = registry(&[("url", &url), ("basic-auth.user-info", "u:p:q")]).unwrap();
    for _ in 0..2 {
        let schema = registry.schema(7).await.unwrap().unwrap();
        assert_eq!((schema.kind, schema.text.as_str()), (SchemaKind::Avro, "\"int\""));
        assert_eq!(schema.references, [("a.B".to_owned(), "B".to_owned())]);
        assert_eq!(registry.schema(8).await.unwrap(), None);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    assert!(registry.is_news((7, 0)) && !registry.is_news((7, 0)) && registry.is_news((7, 1)));
    assert!(!format!("{registry:?}").contains("p:q"));
}

#[tokio::test]
async fn answers_that_pass_are_waited_for() {
    let (url, asked) = server(|_, number| match number {
        0 => (503, "busy".to_owned()),
        1 => (429, String::new()),
        _ => (200, r#"{"id":12}"#.to_owned()),
    })
    .await;
    let registry = registry(&[("url", &url)]).unwrap();
    assert_eq!(registry.register("s", SchemaKind::Avro, "\"int\"").await.unwrap(), 12);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    for (status, body, part, kind) in [
        (401, "", "does not let this user in; check 'avro-confluent.basic-auth.user-info'", ErrorKind::External),
        (404, "<html>", "check the path in 'avro-confluent.url'", ErrorKind::External),
        (
            409,
            "{\"error_code\":409,\"message\":\"no\"}",
            "is not compatible with what the subject has",
            ErrorKind::External,
        ),
        (200, "hello", "is no schema registry", ErrorKind::External),
    ] {
        let (url, _) = server(move |_, _| (status, body.to_owned())).await;
        let registry = registry(&[("url", &url)]).unwrap();
        let error = registry.register("s", SchemaKind::Avro, "\"int\"").await.unwrap_err();
        assert!(error.message.contains(part) && error.kind == kind, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_not_there_may_come_back() {
    // The port of a listener that is gone again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let registry = registry(&[("url", &format!("http://127.0.0.1:{port}"))]).unwrap();
    let error = registry.schema(1).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert!(error.message.contains("does not answer after 7 attempts"), "{error}");
    assert!(error.message.contains("check 'avro-confluent.url', and whether it runs"), "{error}");
}

#[test]
fn options_that_are_wrong_are_named() {
    let message = |options: &[(&str, &str)]| registry(options).unwrap_err().message;
    assert!(message(&[]).contains("needs the option 'avro-confluent.url'"));
    for (url, part) in [
        ("registry:8081", "it is not of http or https"),
        ("http://", "empty host"),
        (" ", "it is empty"),
        ("http://u:secret@h", "it holds a user; set 'avro-confluent.basic-auth.user-info'"),
    ] {
        let message = message(&[("url", url)]);
        assert!(message.contains(part) && !message.contains("secret"), "{message}");
    }
    let url = ("url", "http://a:1,https://b/x/");
    assert_eq!(registry(&[url]).unwrap().options.shown(), "'http://a:1,https://b/x'");
    assert!(message(&[url, ("basic-auth.user-info", "joe")]).contains("expected 'user:password'"));
    assert!(
        message(&[url, ("basic-auth.user-info", "a:b"), ("bearer-auth.token", "x")]).contains("exclude each other")
    );
    assert!(message(&[url, ("schema-changes", "maybe")]).contains("expected one of adapt, fail, bad-record"));
    assert!(registry(&[("url", "${env:URL}"), ("basic-auth.user-info", "${env:INFO}")]).is_ok());
}
