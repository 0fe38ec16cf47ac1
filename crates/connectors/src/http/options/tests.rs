//! Which options make sense, and that no message repeats what may be secret.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::*;

fn table(options: &[(&str, &str)]) -> TableSpec {
    let given =
        [("connector", "http"), ("url", "https://u:geheim77@hooks.example:8443/T0/sesame-sesame?token=open-open")];
    let format = [("format", "json")];
    let all = given.iter().chain(&format).chain(options);
    TableSpec {
        name: "t".into(),
        schema: Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true)])),
        primary_key: Vec::new(),
        partition_keys: Vec::new(),
        options: all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

#[test]
fn batches_have_a_shape_and_a_type() {
    let read = |options: &[(&str, &str)]| {
        let read = HttpOptions::read(&table(options)).unwrap_or_else(|error| panic!("{error}"));
        let content_type = read.address().unwrap().headers[CONTENT_TYPE].to_str().unwrap().to_owned();
        (read.shape, content_type)
    };
    assert_eq!(read(&[]), (Shape::Single, "application/json".to_owned()));
    assert_eq!(read(&[("batch-size", "10")]), (Shape::Array, "application/json".to_owned()));
    assert_eq!(read(&[("batch-format", "lines")]), (Shape::Lines, "application/x-ndjson".to_owned()));
    assert_eq!(read(&[("format", "csv"), ("batch-size", "2")]), (Shape::Lines, "text/csv".to_owned()));
    assert_eq!(read(&[("format", "raw"), ("headers.content-type", "a/b")]), (Shape::Single, "a/b".to_owned()));
}

#[test]
fn wrong_options_are_refused() {
    for (options, expected) in [
        (&[("batch-size", "0")][..], "expected a number from 1 to"),
        (&[("requests-in-flight", "1000")], "expected a number from 1 to 256"),
        (&[("batch-bytes", "1 gb")], "option 'batch-bytes'"),
        (&[("request-timeout", "0 s")], "at most 50s"),
        (&[("connect-timeout", "2 min")], "at most 50s"),
        (&[("format", "parquet")], "none of the formats"),
        (&[("format", "csv"), ("batch-format", "array")], "holds JSON and nothing else"),
        (&[("headers.Content-Length", "3")], "cannot be set"),
        (&[("headers.a b", "3")], "not the name of a header"),
        (&[("headers.x", "geheim\n")], "a line end"),
        (&[("headers.x", "1"), ("headers.X", "2")], "given twice"),
        (&[("headers.idempotency-key", "1")], "another one for the key"),
        (&[("idempotency-key.header", "ä b")], "not the name of a header"),
        (&[("url", "ftp://u:geheim@h/")], "http:// or https://"),
        (&[("url", "geheim")], "is not an address"),
        (&[("delivery", "best-effort"), ("sink.delivery-guarantee", "exactly-once")], "contradict"),
        (&[("no.such", "1")], "unknown option"),
    ] {
        let message = HttpOptions::read(&table(options)).expect_err(expected).message;
        assert!(message.contains(expected) && !message.contains("geheim"), "{options:?}: {message}");
    }
}

#[test]
fn references_leave_the_address_open() {
    let read = HttpOptions::read(&table(&[("headers.Authorization", "Bearer ${env:TOKEN}")])).unwrap();
    assert!(read.address().is_err());
    let read = HttpOptions::read(&table(&[("url", "${env:HOOK}")])).unwrap();
    assert!(read.address().is_err());
}

#[test]
fn what_may_be_secret_is_known() {
    let read = HttpOptions::read(&table(&[("headers.Authorization", "Bearer abcdefgh-1")])).unwrap();
    let address = read.address().unwrap();
    assert_eq!(address.shown(), "https://hooks.example:8443");
    let hidden = address.hidden();
    for part in ["geheim77", "sesame-sesame", "token=open-open", "open-open", "abcdefgh-1", "Bearer abcdefgh-1"] {
        assert!(hidden.iter().any(|hidden| hidden == part), "{part} in {hidden:?}");
    }
    assert!(!hidden.iter().any(|part| part == "Bearer" || part == "application/json"));
}
