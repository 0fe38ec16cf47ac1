//! The conditional writes on bad days, and what errors say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::{ObjectStore, PutPayload};

use crate::simulation::{Fault, FaultyStore, Operation};
use crate::{Content, CreateError, ObjectError, ObjectErrorKind, ObjectUrl, Objects, is_content};

fn url() -> ObjectUrl {
    ObjectUrl::parse("s3://bucket/below").unwrap().unwrap()
}

fn faulty() -> (Arc<FaultyStore>, Objects) {
    let store = Arc::new(FaultyStore::default());
    (store.clone(), Objects::over(store, &url()).unwrap())
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_ones_own() {
    let (store, objects) = faulty();
    store.plan(Operation::Put, Fault::LostAnswer);
    objects.create("a", bytes("mine")).await.unwrap();
    assert_eq!(store.calls(Operation::Put), 2, "the second try met the first");
    assert_eq!(objects.read("a").await.unwrap().unwrap().0, bytes("mine"));
    assert!(matches!(objects.create("a", bytes("other")).await, Err(CreateError::Taken)));
    assert_eq!(objects.read("a").await.unwrap().unwrap().0, bytes("mine"));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_without_a_cause_is_tried_again() {
    let (store, objects) = faulty();
    for fault in [Fault::Conflict, Fault::Conflict, Fault::Overload, Fault::Delay(Duration::from_secs(2))] {
        store.plan(Operation::Put, fault);
    }
    objects.create("a", bytes("mine")).await.unwrap();
    assert_eq!(store.calls(Operation::Put), 4);
    for _ in 0..20 {
        store.plan(Operation::Put, Fault::Conflict);
    }
    let Err(CreateError::Failed(error)) = objects.create("b", bytes("mine")).await else {
        panic!("it cannot be there")
    };
    assert!(error.is_transient(), "{error}");
    assert_eq!(objects.look("b").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn whoever_has_read_an_older_version_does_not_write() {
    let (store, objects) = faulty();
    let first = objects.create_versioned("log", bytes("1")).await.unwrap();
    store.plan(Operation::Put, Fault::LostAnswer);
    let second = objects.replace("log", bytes("2"), &first).await.unwrap();
    assert_ne!(first, second);
    assert!(matches!(objects.replace("log", bytes("other 2"), &first).await, Err(CreateError::Taken)));
    // The old version is still there: nobody else has written.
    store.plan(Operation::Put, Fault::Conflict);
    let third = objects.replace("log", bytes("3"), &second).await.unwrap();
    assert_eq!(objects.read("log").await.unwrap().unwrap(), (bytes("3"), third));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_final() {
    let (store, objects) = faulty();
    store.plan(Operation::Put, Fault::Denied);
    let Err(CreateError::Failed(error)) = objects.create("a", bytes("x")).await else { panic!("it is denied") };
    assert_eq!((error.kind, store.calls(Operation::Put)), (ObjectErrorKind::Refused, 1));
    assert!(error.message.contains("AccessDenied: Access Denied") && error.message.contains("'bucket'"), "{error}");
}

#[tokio::test]
async fn large_objects_go_in_parts_and_are_known_again() {
    let (store, objects) = faulty();
    let large: Bytes = (0..33_u32 << 20).map(|i| (i % 251) as u8).collect::<Vec<u8>>().into();
    for _ in 0..2 {
        objects.create("large", large.clone()).await.unwrap();
    }
    assert_eq!(store.calls(Operation::Multipart), 1, "the second time it was there");
    assert_eq!(objects.checksum("large").await.unwrap(), Some((large.len() as u64, crc32c::crc32c(&large))));
    // The same in pieces, of which parts begin and end within.
    let pieces: PutPayload = large.chunks(1_000_003).map(|piece| large.slice_ref(piece)).collect();
    objects.create("large", pieces.clone()).await.unwrap();
    objects.create("of pieces", pieces.clone()).await.unwrap();
    assert_eq!(objects.read("of pieces").await.unwrap().unwrap().0, large);
    assert!(is_content(&large, &pieces) && !is_content(&large[1..], &pieces));
    assert!(!is_content(&[&large[..], b"x"].concat(), &pieces));
    let mut other = large.to_vec();
    other[7] ^= 1;
    assert!(matches!(objects.create("large", other).await, Err(CreateError::Taken)));
    let directory = std::env::temp_dir().join(format!("mainstem-objects-{}", std::process::id()));
    std::fs::write(&directory, &large).unwrap();
    let file = Content::File(Arc::new(std::fs::File::open(&directory).unwrap()), large.len() as u64);
    std::fs::remove_file(&directory).unwrap();
    objects.put("of a file", &file, crc32c::crc32c(&large)).await.unwrap();
    assert_eq!(objects.read("of a file").await.unwrap().unwrap().0, large);
}

#[tokio::test]
async fn what_is_listed_and_removed_lies_below_the_url() {
    let bucket = Arc::new(InMemory::new());
    let objects = Objects::over(bucket.clone(), &url()).unwrap();
    for key in ["b/x", "a", "b/c/y"] {
        objects.create(key, bytes("1")).await.unwrap();
    }
    let keys = |found: Vec<(String, _)>| found.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(objects.list("", 10).await.unwrap()), ["a", "b/c/y", "b/x"]);
    assert_eq!(keys(objects.list("b", 10).await.unwrap()), ["b/c/y", "b/x"]);
    assert_eq!(objects.names("b").await.unwrap(), (vec!["c".to_owned()], vec!["x".to_owned()]));
    for _ in 0..2 {
        objects.remove("a").await.unwrap();
    }
    assert_eq!(objects.read("a").await.unwrap(), None);
    let all: Vec<_> = futures::TryStreamExt::try_collect(bucket.list(None)).await.unwrap();
    assert!(all.iter().all(|meta| meta.location.as_ref().starts_with("below/")), "{all:?}");
    assert!(objects.look("../a").await.is_err());
}

#[test]
fn the_words_of_a_service_become_advice() {
    let of = |text: &str| {
        let source: Box<dyn std::error::Error + Send + Sync> = text.to_owned().into();
        ObjectError::of(&url(), &object_store::Error::Generic { store: "S3", source })
    };
    let source = "status code: 404 Not Found: <Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>".into();
    let missing = ObjectError::of(&url(), &object_store::Error::NotFound { path: "x".to_owned(), source });
    assert_eq!(missing.kind, ObjectErrorKind::Refused);
    assert!(missing.message.contains("there is no bucket 'bucket'"), "{missing}");
    let wrong = of("status code: 403 Forbidden: <Code>SignatureDoesNotMatch</Code><Message>m</Message><Key>AKIA</Key>");
    assert!(wrong.message.contains("AWS_SECRET_ACCESS_KEY") && !wrong.message.contains("AKIA"), "{wrong}");
    assert_eq!(wrong.kind, ObjectErrorKind::Refused);
    let busy = of("status code: 503 Slow Down: <Code>SlowDown</Code><Message>reduce your rate</Message>");
    assert!(busy.is_transient() && busy.message.contains("reduce your rate"), "{busy}");
    assert!(of("Received redirect without LOCATION").message.contains("AWS_REGION"));
    assert!(of("status code: 400 Bad Request: <Code>X</Code>").kind == ObjectErrorKind::Refused);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_named_and_may_come_back() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let http = object_store::client::HttpError::new(
        object_store::client::HttpErrorKind::Connect,
        std::io::Error::other(format!("{address} refuses")),
    );
    let error = object_store::Error::Generic { store: "S3", source: Box::new(http) };
    let error = ObjectError::of(&url(), &error);
    assert!(error.is_transient());
    assert!(error.message.contains("cannot be reached") && error.message.contains("AWS_ENDPOINT_URL"), "{error}");
}
