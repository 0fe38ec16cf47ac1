//! Lookup joins over small files: what rows meet, when a newer version counts, and how large a table may be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use mainstem_connectors::TableSpec;
use mainstem_plan::expr::{BinaryOperator, Expr};
use mainstem_plan::operator::JoinOn;

use super::*;
use crate::operator::process_whole;

/// A file of its own for each table.
struct Rows(PathBuf);

impl Rows {
    fn new(text: &str) -> Rows {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("mainstem-lookup-{}-{}.csv", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let rows = Rows(std::env::temp_dir().join(name));
        rows.replace(text);
        rows
    }

    fn replace(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn table(path: &Path) -> TableSpec {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let schema = Schema::new(vec![
        field("unused", DataType::Utf8),
        field("key", DataType::Int64),
        field("name", DataType::Utf8),
    ]);
    let options = [("connector", "filesystem"), ("path", path.to_str().unwrap()), ("format", "csv")];
    TableSpec {
        name: "names".into(),
        schema: Arc::new(schema),
        primary_key: vec![],
        partition_keys: vec![],
        options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
    }
}

/// Joins (n, key) with (key, name) on the keys; under a condition names are not `b`.
fn operator(
    rows: &Rows,
    kind: JoinKind,
    reload_ms: Option<u64>,
    with_condition: bool,
    context: &EvalContext,
) -> LookupJoin {
    let table = table(&rows.0);
    let left = Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("k", DataType::Int64, true)]);
    let columns = vec![1, 2];
    let right = Arc::new(table.schema.project(&columns).unwrap());
    let condition = Expr::Binary {
        left: Box::new(Expr::Column(3)),
        op: BinaryOperator::NotEq,
        right: Box::new(Expr::literal("b")),
    };
    let output = Arc::new(Schema::new([left.fields().to_vec(), right.fields().to_vec()].concat()));
    let on = JoinOn {
        left_keys: vec![1],
        right_keys: vec![0],
        null_equal: vec![false],
        condition: with_condition.then_some(condition),
        left_schema: Arc::new(left),
        right_schema: right.clone(),
    };
    let loader = LookupLoader {
        table: "names".into(),
        source: mainstem_connectors::source(&table).unwrap(),
        columns: columns.clone(),
        schema: right,
        keys: Arc::new(KeyFormat::new("join", &on).unwrap()),
        dropped_records: Arc::default(),
        bytes_read: Arc::default(),
        bytes_max: 1 << 20,
    };
    let spec = Spec { kind, on, table, columns, reload_ms, by_key: None };
    LookupJoin::new("join", &spec, output, loader, None, context).unwrap()
}

/// What keys, numbered from 0, give: the names for each number.
fn names(join: &mut LookupJoin, keys: &[Option<i64>]) -> BTreeMap<i64, Vec<Option<String>>> {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..keys.len() as i64));
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    let rows = RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("k", keys, true)]).unwrap();
    let out = process_whole(join, 0, StreamBatch::on_time(rows));
    let mut found = BTreeMap::<i64, Vec<Option<String>>>::new();
    for batch in out.main {
        let names: &StringArray = batch.rows.column(3).as_string();
        let numbers = batch.rows.column(0).as_primitive::<Int64Type>();
        for (number, name) in numbers.values().iter().zip(names) {
            found.entry(*number).or_default().push(name.map(str::to_owned));
        }
    }
    found
}

fn some(names: &[&str]) -> Vec<Option<String>> {
    names.iter().map(|name| Some((*name).to_owned())).collect()
}

#[tokio::test]
async fn rows_meet_all_rows_of_their_key() {
    let rows = Rows::new("x,1,a\nx,2,b\nx,1,c\nx,,d\n");
    let keys = [Some(1), Some(3), None, Some(2)];
    let mut join = operator(&rows, JoinKind::Inner, None, false, &EvalContext::default());
    join.prepare().unwrap().await.unwrap();
    assert_eq!(names(&mut join, &keys), [(0, some(&["a", "c"])), (3, some(&["b"]))].into());
    let mut join = operator(&rows, JoinKind::Left, None, true, &EvalContext::default());
    join.prepare().unwrap().await.unwrap();
    let alone = || vec![None];
    assert_eq!(names(&mut join, &keys), [(0, some(&["a", "c"])), (1, alone()), (2, alone()), (3, alone())].into());
}

#[tokio::test]
async fn a_newer_version_counts_from_an_epoch_on() {
    let rows = Rows::new("x,1,old\n");
    let context = EvalContext::default();
    context.set_now_ms(1_000);
    let mut join = operator(&rows, JoinKind::Inner, Some(500), false, &context);
    join.prepare().unwrap().await.unwrap();
    rows.replace("x,1,new\n");
    let capture = |join: &mut LookupJoin| assert!(join.capture(Epoch(1)).unwrap().is_none());
    context.set_now_ms(1_499);
    capture(&mut join);
    assert!(join.loading.is_empty(), "not old enough");
    context.set_now_ms(1_500);
    capture(&mut join);
    assert_eq!(join.loading.len(), 1);
    let loaded = async {
        while names(&mut join, &[Some(1)]) == [(0, some(&["old"]))].into() {
            tokio::task::yield_now().await;
            assert_eq!(names(&mut join, &[Some(1)]), [(0, some(&["old"]))].into(), "within an epoch nothing changes");
            capture(&mut join);
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, loaded).await.expect("it is loaded again");
    assert_eq!(names(&mut join, &[Some(1)]), [(0, some(&["new"]))].into());
}

#[tokio::test]
async fn a_table_that_is_too_large_says_what_to_do() {
    let rows = Rows::new(&"x,1,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n".repeat(40_000));
    let mut join = operator(&rows, JoinKind::Inner, None, false, &EvalContext::default());
    let error = join.prepare().unwrap().await.unwrap_err().to_string();
    assert!(error.starts_with("names: the table is looked up by FOR SYSTEM_TIME AS OF, "), "{error}");
    assert!(error.contains("more than 1 MiB; read fewer columns"), "{error}");
}
