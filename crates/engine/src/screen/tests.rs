//! Tests of contracts, dead letters and the budget of a source.

use arrow::array::{Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use mainstem_connectors::{Origin, PositionUnit, TableSpec};
use mainstem_core::ids::OperatorId;
use mainstem_plan::expr::{BinaryOperator, Expr};
use mainstem_plan::operator::{CheckConstraint, NamedExpr, OperatorKind};

use super::*;

struct Case {
    screen: Screen,
    metrics: Arc<OperatorMetrics>,
}

/// A source of one column `v` with the constraints `positive` and `divides`.
fn case(options: &[(&str, &str)], changes: ChangeMode) -> Case {
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
    let binary =
        |left: Expr, op: BinaryOperator, right: Expr| Expr::Binary { left: Box::new(left), op, right: Box::new(right) };
    let v = Expr::Column(0);
    let quotient = binary(Expr::literal(10_i64), BinaryOperator::Divide, v.clone());
    let check = |name: &str, text: &str, expr: Expr| CheckConstraint { name: name.into(), text: text.into(), expr };
    let letters = Schema::new(vec![
        Field::new("position", DataType::Int64, false),
        Field::new("raw", DataType::Utf8, true),
        Field::new("reason", DataType::Utf8, false),
    ]);
    let takes_letters = options.contains(&("bad-records", "dead-letter"));
    let source = SourceOperator {
        table: TableSpec {
            name: "t".into(),
            schema: schema.clone(),
            primary_key: vec![],
            partition_keys: vec![],
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        },
        read_columns: vec![0],
        watermark: None,
        project: vec![NamedExpr { name: "v".into(), expr: v.clone() }],
        checks: vec![
            check("positive", "v >= 0", binary(v, BinaryOperator::GtEq, Expr::literal(0_i64))),
            check("divides", "10 / v < 10", binary(quotient, BinaryOperator::Lt, Expr::literal(10_i64))),
        ],
        computed: Vec::new(),
        dead_letters: takes_letters.then(|| Arc::new(letters)),
    };
    let mut op = Operator::new(schema, OperatorKind::Source(source.clone()));
    op.changes = changes;
    let node = Node { id: OperatorId(0), name: "source t".into(), parallelism: None, op };
    let metrics = Arc::new(OperatorMetrics::default());
    let context = EvalContext::default();
    Case { screen: Screen::new(&node, &source, &context, metrics.clone()).unwrap(), metrics }
}

const DEAD_LETTER: [(&str, &str); 2] = [("bad-records", "dead-letter"), ("bad-records.table", "d")];

fn rows(values: &[Option<i64>]) -> (RecordBatch, Origins) {
    let column: arrow::array::ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    let rows = RecordBatch::try_from_iter_with_nullable([("v", column, true)]).unwrap();
    let origin = |row: usize| Origin {
        position: 10 * row as i64,
        line: Some(row as i64 + 1),
        raw: Some(row..row + 1),
        raw_key: None,
    };
    let bytes = Arc::new((b'a'..=b'z').collect());
    (rows, Origins { unit: PositionUnit::Byte, bytes, rows: (0..values.len()).map(origin).collect() })
}

fn take(case: &mut Case, values: &[Option<i64>], changes: Option<&[ChangeKind]>) -> Result<Screened, EngineError> {
    let (rows, origins) = rows(values);
    let changes = changes.map(|kinds| Int8Array::from_iter_values(kinds.iter().map(|kind| *kind as i8)));
    case.screen.screen(&SplitId("f".into()), rows, changes, Rejected::default(), Some(&origins))
}

fn kept(screened: &Screened) -> Vec<Option<i64>> {
    screened.rows.column(0).as_primitive::<Int64Type>().iter().collect()
}

fn letters(screened: &Screened) -> Vec<(i64, String, String)> {
    let Some(batch) = &screened.letters else { return Vec::new() };
    let text = |column: usize| batch.rows.column(column).as_string::<i32>();
    let positions: &Int64Array = batch.rows.column(0).as_primitive();
    (0..positions.len())
        .map(|row| (positions.value(row), text(1).value(row).to_owned(), text(2).value(row).to_owned()))
        .collect()
}

#[test]
fn null_passes_and_a_failure_is_its_own_rows() {
    let mut case = case(&DEAD_LETTER, ChangeMode::Append);
    let screened = take(&mut case, &[Some(5), Some(-1), None, Some(0), Some(1), Some(2)], None).unwrap();
    assert_eq!(kept(&screened), [Some(5), None, Some(2)]);
    let letters = letters(&screened);
    let places: Vec<(i64, &str)> = letters.iter().map(|(position, raw, _)| (*position, raw.as_str())).collect();
    assert_eq!(places, [(10, "b"), (30, "d"), (40, "e")]);
    assert_eq!(letters[0].2, "the row breaks the constraint 'positive', CHECK (v >= 0)");
    assert!(letters[1].2.contains("'divides'") && letters[1].2.contains("ivide by zero"), "{}", letters[1].2);
    assert_eq!(letters[2].2, "the row breaks the constraint 'divides', CHECK (10 / v < 10)");
    assert_eq!(case.metrics.dead_letters.load(Relaxed), 3);
}

#[test]
fn letters_of_reader_and_contracts_are_in_order() {
    let mut case = case(&DEAD_LETTER, ChangeMode::Append);
    let (rows, origins) = rows(&[Some(-1), Some(5), Some(-2)]);
    let broken =
        DeadLetter { position: 15, line: Some(9), raw: Some(vec![b'!']), raw_key: None, reason: "broken".into() };
    let rejected = Rejected { count: 1, newest: Some("f".into()), letters: vec![broken] };
    let screened = case.screen.screen(&SplitId("f".into()), rows, None, rejected, Some(&origins)).unwrap();
    let raw: Vec<String> = letters(&screened).into_iter().map(|(_, raw, _)| raw).collect();
    assert_eq!(raw, ["a", "!", "c"]);
}

#[test]
fn dropped_rows_are_counted_and_failing_ones_located() {
    let mut dropping = case(&[("bad-records", "drop")], ChangeMode::Append);
    let screened = take(&mut dropping, &[Some(-1), Some(7)], None).unwrap();
    assert_eq!((kept(&screened), screened.letters.is_none()), (vec![Some(7)], true));
    assert_eq!(dropping.metrics.dropped_records.load(Relaxed), 1);

    let mut failing = case(&[], ChangeMode::Append);
    assert!(failing.screen.wants_origins());
    let error = take(&mut failing, &[Some(7), Some(-1)], None).err().unwrap();
    let message = error.to_string();
    assert!(message.starts_with("t: 'f', line 2, byte 10: the row breaks the constraint 'positive'"), "{message}");
    assert!(message.contains("the record is: b -- mend it"), "{message}");
    assert!(!error.into_failure().retryable);
}

#[test]
fn what_a_changelog_takes_away_was_never_there() {
    use ChangeKind::{Delete, Insert, UpdateAfter, UpdateBefore};
    let mut retracting = case(&DEAD_LETTER, ChangeMode::Retract);
    let kinds = [Insert, Delete, UpdateBefore, UpdateAfter, UpdateBefore, UpdateAfter];
    let values = [Some(-1), Some(-1), Some(5), Some(-2), Some(-2), Some(6)];
    let screened = take(&mut retracting, &values, Some(&kinds)).unwrap();
    assert_eq!(kept(&screened), [Some(5), Some(6)]);
    let left: Vec<i8> = screened.changes.as_ref().unwrap().values().to_vec();
    assert_eq!(left, [UpdateBefore as i8, UpdateAfter as i8]);
    let positions: Vec<i64> = letters(&screened).into_iter().map(|(position, ..)| position).collect();
    assert_eq!(positions, [0, 30]);

    // Deletes by key are not looked at: they know nothing else.
    let mut by_key = case(&DEAD_LETTER, ChangeMode::Upsert);
    let screened = take(&mut by_key, &[Some(-1), Some(-1)], Some(&[Delete, UpdateAfter])).unwrap();
    assert_eq!((kept(&screened), letters(&screened).len()), (vec![Some(-1)], 1));
}

#[test]
fn a_job_that_is_mostly_wrong_is_stopped() {
    let options = [("bad-records", "drop"), ("bad-records.max-fraction", "0.5"), ("bad-records.min-records", "4")];
    let mut case = case(&options, ChangeMode::Append);
    assert!(take(&mut case, &[Some(5), Some(-1)], None).is_ok());
    let error = take(&mut case, &[Some(-3), Some(-1)], None).err().unwrap();
    let message = error.to_string();
    assert!(message.contains("3 of the last 4 records that a subtask has read are wrong"), "{message}");
    assert!(message.contains("the newest is 'f', line 2, byte 10: the row breaks"), "{message}");
    assert!(!error.into_failure().retryable);
}

#[test]
fn the_reader_alone_is_trusted_where_nothing_is_declared() {
    let mut plain = case(&DEAD_LETTER, ChangeMode::Append);
    plain.screen.contracts.clear();
    assert!(!plain.screen.wants_origins());
    let texts: arrow::array::ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let rows = RecordBatch::try_from_iter([("v", texts)]).unwrap();
    let screened = plain.screen.screen(&SplitId("f".into()), rows, None, Rejected::default(), None).unwrap();
    assert_eq!((screened.rows.num_rows(), screened.letters.is_none()), (1, true));
}
