//! Forms of expressions: taken over, stored, compiled, shown.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion_common::{Column, DFSchema, Location as SqlLocation, ScalarValue, Span, Spans};
use datafusion_expr::expr::{Between, InList, Like, Placeholder};
use datafusion_expr::{Case, Expr as Logical, ExprSchemable, binary_expr, cast, col, lit, try_cast, when};

use super::*;
use crate::eval::EvalContext;

fn schema() -> SchemaRef {
    let item = Field::new("first name", DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("person", DataType::Struct(vec![item].into()), true),
    ]))
}

fn batch() -> RecordBatch {
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("ada"), None, Some("bob")]));
    let person = arrow::array::StructArray::from(vec![(
        Arc::new(Field::new("first name", DataType::Utf8, true)),
        names.clone(),
    )]);
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![1, 2, 3])), names, Arc::new(person)]).unwrap()
}

fn convert(logical: &Logical) -> Result<Expr, PlanError> {
    Expr::from_logical(logical, &DFSchema::try_from(schema().as_ref().clone()).unwrap())
}

/// Through the stored form to values.
fn evaluate(logical: &Logical) -> Vec<String> {
    let expr = convert(logical).unwrap();
    let stored = serde_json::to_string(&expr).unwrap();
    let read: Expr = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, expr, "{stored}");
    let batch = batch();
    let result =
        read.compile(&schema(), &EvalContext::default()).unwrap().evaluate(&batch).unwrap().into_array(3).unwrap();
    assert_eq!(*result.data_type(), expr.data_type(&schema()).unwrap());
    let shown =
        |row| if result.is_null(row) { "NULL".to_owned() } else { array_value_to_string(&result, row).unwrap() };
    (0..3).map(shown).collect()
}

fn shown(logical: &Logical) -> String {
    convert(logical).unwrap().display(&schema()).to_string()
}

#[test]
fn every_form_survives_storage_and_evaluates() {
    let name = || Box::new(col("name"));
    let like = |pattern: &str, escape| Like::new(false, name(), Box::new(lit(pattern)), escape, false);
    let between = Between::new(Box::new(col("id")), true, Box::new(lit(2i64)), Box::new(lit(9i64)));
    let operand = Case::new(Some(Box::new(col("id"))), vec![(Box::new(lit(1i64)), Box::new(lit("one")))], None);
    let cases: Vec<(Logical, [&str; 3])> = vec![
        (col("id") + lit(1i64), ["2", "3", "4"]),
        (col("id").gt(lit(1i64)).and(col("name").is_not_null()), ["false", "false", "true"]),
        (!col("name").is_null(), ["true", "false", "true"]),
        (Logical::Negative(Box::new(col("id"))), ["-1", "-2", "-3"]),
        (col("name").eq(lit("ada")).is_true(), ["true", "false", "false"]),
        (col("name").eq(lit("ada")).is_not_false(), ["true", "true", "false"]),
        (col("name").eq(lit("ada")).is_unknown(), ["false", "true", "false"]),
        (when(col("id").eq(lit(1i64)), lit("a")).otherwise(lit("b")).unwrap(), ["a", "b", "b"]),
        (Logical::Case(operand), ["one", "NULL", "NULL"]),
        (cast(col("id"), DataType::Utf8), ["1", "2", "3"]),
        (try_cast(col("name"), DataType::Int64), ["NULL", "NULL", "NULL"]),
        (Logical::Like(like("%d%", None)), ["true", "NULL", "false"]),
        (Logical::Like(like("a!_a", Some('!'))), ["false", "NULL", "false"]),
        (Logical::SimilarTo(like("(a|c)_%", None)), ["true", "NULL", "false"]),
        (Logical::InList(InList::new(name(), vec![lit("bob"), lit("eve")], false)), ["false", "NULL", "true"]),
        (Logical::Between(between), ["true", "false", "false"]),
        (binary_expr(col("name"), Operator::StringConcat, lit("!")), ["ada!", "NULL", "bob!"]),
        (binary_expr(col("name"), Operator::IsDistinctFrom, lit("ada")), ["false", "true", "true"]),
    ];
    for (logical, expected) in cases {
        assert_eq!(evaluate(&logical), expected, "{logical}");
    }
}

#[test]
fn fields_of_rows_are_functions_and_shown_as_fields() {
    let field = datafusion_functions::core::expr_fn::get_field(col("person"), "first name");
    assert_eq!(evaluate(&field), ["ada", "NULL", "bob"]);
    assert_eq!(shown(&field), "person.`first name`");
}

#[test]
fn literals_of_every_kind_are_stored_exactly() {
    let zone = Some("UTC".into());
    let list = ScalarValue::new_list_nullable(&[ScalarValue::from(1i64)], &DataType::Int64);
    for value in [
        ScalarValue::Boolean(Some(true)),
        ScalarValue::Int8(Some(-1)),
        ScalarValue::UInt64(Some(u64::MAX)),
        ScalarValue::Float64(Some(0.1 + 0.2)),
        ScalarValue::Float64(Some(f64::NEG_INFINITY)),
        ScalarValue::Float32(Some(0.1)),
        ScalarValue::Decimal128(Some(-170_141_183_460_469_231), 38, 10),
        ScalarValue::Utf8(Some("ä'\u{0}".into())),
        ScalarValue::Utf8(None),
        ScalarValue::Binary(Some(vec![0, 255])),
        ScalarValue::Date32(Some(-5)),
        ScalarValue::TimestampMillisecond(Some(1), zone.clone()),
        ScalarValue::TimestampNanosecond(None, zone),
        ScalarValue::new_interval_mdn(1, 2, 3),
        ScalarValue::Null,
        ScalarValue::List(list),
    ] {
        let expr = Expr::literal(value.clone());
        let read: Expr = serde_json::from_str(&serde_json::to_string(&expr).unwrap()).unwrap();
        assert_eq!(read, expr, "{value:?}");
    }
    let view = convert(&Logical::Literal(ScalarValue::Utf8View(Some("x".into())), None)).unwrap();
    assert_eq!(view, Expr::literal("x"), "views become plain");
}

#[test]
fn long_chains_are_balanced_and_deep_nesting_is_refused() {
    let chain = (0..5000).map(|i| col("id").eq(lit(i))).reduce(Logical::or).unwrap();
    assert!(convert(&chain).unwrap().depth() < 20);
    let deep = |levels| (0..levels).fold(col("id"), |e, _| e + lit(1i64));
    // 200 is the limit: such an expression must survive storage, compilation and evaluation on a small stack.
    assert_eq!(evaluate(&deep(EXPRESSION_DEPTH_MAX - 1)), ["200", "201", "202"]);
    let error = convert(&deep(EXPRESSION_DEPTH_MAX)).unwrap_err();
    assert!(error.to_string().contains("nested deeper than 200"), "{error}");
}

#[test]
fn doubling_expressions_are_refused_before_they_fill_the_memory() {
    let coalesce = crate::functions::registry().scalar("coalesce").unwrap();
    let nested = (0..40).fold(col("name"), |e, _| coalesce.call(vec![e, lit("x")]));
    assert!(convert(&nested).unwrap_err().to_string().contains("more than 100000 parts"));
}

#[test]
fn damaged_storage_is_refused() {
    let read = |text: &str| serde_json::from_str::<Expr>(text).map_err(|e| e.to_string());
    assert!(read("[]").unwrap_err().contains("empty"));
    assert!(read(r#"[{"Not":[{"Column":0}]}]"#).unwrap_err().contains("not there"));
    assert!(read(r#"[{"Column":0},{"Column":1}]"#).unwrap_err().contains("belong to nothing"));
    assert!(read(r#"[{"Column":0},{"Not":[{"Literal":{"Int64":1}}]}]"#).unwrap_err().contains("not a reference"));
    let error = Expr::Column(9).compile(&schema(), &EvalContext::default()).unwrap_err();
    assert!(error.to_string().contains("input column 9"), "{error}");
}

#[test]
fn the_stored_form_does_not_change() {
    let expr = convert(&(col("id").gt(lit(1i64)))).unwrap();
    let stored =
        r#"[{"Column":0},{"Literal":{"Int64":1}},{"Binary":{"left":[{"Column":0}],"op":"Gt","right":[{"Column":1}]}}]"#;
    assert_eq!(serde_json::to_string(&expr).unwrap(), stored);
}

#[test]
fn columns_are_found_moved_and_shown() {
    let logical = col("name").eq(lit("it's")).and(col("id").lt(lit(3i64)).or(col("id").gt(lit(7i64))));
    let mut expr = convert(&logical).unwrap();
    assert_eq!(expr.columns().into_iter().collect::<Vec<_>>(), [0, 1]);
    assert_eq!(shown(&logical), "(name = 'it''s') AND ((id < 3) OR (id > 7))");
    expr.remap_columns(&|i| i + 10);
    assert_eq!(expr.columns().into_iter().collect::<Vec<_>>(), [10, 11]);
    let time = Logical::Literal(ScalarValue::TimestampMillisecond(Some(0), None), None);
    let time = cast(time, DataType::Timestamp(TimeUnit::Microsecond, None));
    assert_eq!(shown(&time), "CAST(TIMESTAMP '1970-01-01 00:00:00' AS TIMESTAMP(6))");
    assert_eq!(shown(&col("name").is_not_null()), "name IS NOT NULL");
}

#[test]
fn columns_of_one_name_are_told_apart_by_position() {
    let field = || Field::new("x", DataType::Int64, true);
    let schema = Arc::new(Schema::new(vec![field(), field()]));
    let column = |v: i64| Arc::new(Int64Array::from(vec![v])) as ArrayRef;
    let batch = RecordBatch::try_new(schema.clone(), vec![column(1), column(2)]).unwrap();
    let sum =
        Expr::Binary { left: Box::new(Expr::Column(0)), op: BinaryOperator::Minus, right: Box::new(Expr::Column(1)) };
    let result =
        sum.compile(&schema, &EvalContext::default()).unwrap().evaluate(&batch).unwrap().into_array(1).unwrap();
    assert_eq!(array_value_to_string(&result, 0).unwrap(), "-1");
}

#[test]
fn refused_forms_are_named_with_their_place() {
    let mut column = Column::new_unqualified("id");
    let place = |line, column| SqlLocation { line, column };
    column.spans = Spans(vec![Span::new(place(4, 8), place(4, 10))]);
    let placeholder = Logical::Placeholder(Placeholder::new_with_field("$1".into(), None));
    let error = convert(&(Logical::Column(column) + placeholder)).unwrap_err();
    assert_eq!(error.to_string(), "line 4, column 8: the placeholder $1 is not supported in an expression");
    let error = convert(&col("nowhere")).unwrap_err();
    assert_eq!(error.to_string(), "there is no column 'nowhere' here");
}

#[test]
fn views_of_datafusion_functions_become_strings() {
    // `left` of DataFusion gives a view.
    let left = crate::functions::registry().scalar("left").unwrap().call(vec![col("name"), lit(2i64)]);
    let dfschema = DFSchema::try_from(schema().as_ref().clone()).unwrap();
    let theirs = left.get_type(&dfschema).unwrap();
    let compared = binary_expr(left.clone(), Operator::Eq, cast(lit("ad"), theirs));
    assert_eq!(evaluate(&left), ["ad", "NULL", "bo"]);
    assert_eq!(evaluate(&compared), ["true", "NULL", "false"]);
    assert_eq!(convert(&left).unwrap().data_type(&schema()).unwrap(), DataType::Utf8);
}

#[test]
fn an_interval_of_a_fixed_length_adds_like_any_other() {
    use arrow::array::{IntervalMonthDayNanoArray, TimestampMillisecondArray};
    use arrow::datatypes::{IntervalMonthDayNano, IntervalUnit};

    let times = TimestampMillisecondArray::from(vec![Some(0), None, Some(-1), Some(1_709_164_800_123)]);
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        for zone in [None, Some("+02:00".into())] {
            let time = DataType::Timestamp(unit, zone);
            let column = arrow::compute::cast(&times, &time).unwrap();
            for interval in [(0, 0, 4_000_000_000), (0, 1, -3_000_000), (0, -7, 1), (1, 0, 0), (0, 0, 999)] {
                let interval = IntervalMonthDayNano::new(interval.0, interval.1, interval.2);
                let fields = [
                    Field::new("time", time.clone(), true),
                    Field::new("by", DataType::Interval(IntervalUnit::MonthDayNano), false),
                ];
                let schema = Arc::new(Schema::new(fields.to_vec()));
                let by = Arc::new(IntervalMonthDayNanoArray::from(vec![interval; 4]));
                let rows = RecordBatch::try_new(schema.clone(), vec![column.clone(), by]).unwrap();
                for op in [BinaryOperator::Plus, BinaryOperator::Minus] {
                    let sum = |right| {
                        let expr = Expr::Binary { left: Box::new(Expr::Column(0)), op, right: Box::new(right) };
                        assert_eq!(expr.data_type(&schema).unwrap(), time);
                        let compiled = expr.compile(&schema, &EvalContext::default()).unwrap();
                        compiled.evaluate(&rows).unwrap().into_array(4).unwrap()
                    };
                    let constant = Expr::literal(ScalarValue::IntervalMonthDayNano(Some(interval)));
                    assert_eq!(&sum(constant), &sum(Expr::Column(1)), "{time} {op:?} {interval:?}");
                }
            }
        }
    }
}
