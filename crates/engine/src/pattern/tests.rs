//! Random rows and patterns, cut into random batches, with restores at random points: what is given is what a naive
//! search over all rows gives (`tests/naive.rs`), with conditions written as plain functions.

mod naive;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use arrow::array::{Array, AsArray, Int64Array, PrimitiveArray, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::expr::{BinaryOperator, Expr};
use mainstem_plan::operator::{
    AfterMatch, MatchEnd, NamedExpr, OperatorKind, PatternElement, PatternVariable, Reference, SortKey,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use self::naive::expected;
use super::*;
use crate::checkpointing::Checkpoints;

/// Partition, time, value, number.
type Row = (i64, i64, i64, i64);
/// Partition; first number, number of rows, last value of B, sum of A's values, value of the second B, last time.
type Given = (i64, Vec<Option<i64>>);

const VARIABLES: [&str; 4] = ["A", "B", "C", "D"];

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("p", DataType::Int64, true),
        Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("v", DataType::Int64, true),
        Field::new("id", DataType::Int64, true),
    ]))
}

/// What a variable asks of a row.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Anything,
    /// `v < x`.
    Less(i64),
    /// `v >= x`.
    NotLess(i64),
    /// `v >= LAST(self.v, 1)`, or there is no such row.
    NotLessThanLast,
    /// `SUM(self.v) < x`.
    SumLess(i64),
    /// `v > A.v`, and `v >= x`.
    GreaterThanA(i64),
}

impl Condition {
    /// Whether the row can be the variable's, behind the rows that the variables have.
    fn holds(self, variable: usize, rows: &[(usize, Row)], row: &Row) -> bool {
        let own = || rows.iter().filter(|(of, _)| *of == variable).map(|(_, row)| row.2);
        match self {
            Condition::Anything => true,
            Condition::Less(x) => row.2 < x,
            Condition::NotLess(x) => row.2 >= x,
            Condition::NotLessThanLast => own().next_back().is_none_or(|last| row.2 >= last),
            Condition::SumLess(x) => own().sum::<i64>() + row.2 < x,
            Condition::GreaterThanA(x) => {
                let a = if variable == 0 {
                    Some(row.2)
                } else {
                    rows.iter().rev().find(|(of, _)| *of == 0).map(|(_, r)| r.2)
                };
                a.is_some_and(|a| row.2 > a) && row.2 >= x
            }
        }
    }

    fn planned(self, variable: usize, references: &mut Vec<Reference>) -> (Option<Expr>, Option<Expr>) {
        let mut reference = |reference: Reference| {
            let known = references.iter().position(|known| *known == reference);
            Expr::Column(known.unwrap_or_else(|| {
                references.push(reference);
                references.len() - 1
            }))
        };
        let of = |variable: Option<usize>, offset: u32| Reference::Column {
            variable,
            from: MatchEnd::Last,
            offset,
            column: 2,
        };
        let compare = |left: Expr, op: BinaryOperator, right: Expr| Expr::Binary {
            left: Box::new(left),
            op,
            right: Box::new(right),
        };
        let v = Expr::Column(2);
        match self {
            Condition::Anything => (None, None),
            Condition::Less(x) => (Some(compare(v, BinaryOperator::Lt, Expr::literal(x))), None),
            Condition::NotLess(x) => (Some(compare(v, BinaryOperator::GtEq, Expr::literal(x))), None),
            Condition::NotLessThanLast => {
                let (own, last) = (reference(of(Some(variable), 0)), reference(of(Some(variable), 1)));
                let none =
                    Expr::Is { expr: Box::new(last.clone()), test: mainstem_plan::expr::Test::Null, negated: false };
                (None, Some(compare(none, BinaryOperator::Or, compare(own, BinaryOperator::GtEq, last))))
            }
            Condition::SumLess(x) => {
                let sum = reference(Reference::Aggregate { variable: Some(variable), call: call("sum", 2) });
                (None, Some(compare(sum, BinaryOperator::Lt, Expr::literal(x))))
            }
            Condition::GreaterThanA(x) => {
                let (own, a) = (reference(of(None, 0)), reference(of(Some(0), 0)));
                let least = compare(v, BinaryOperator::GtEq, Expr::literal(x));
                (Some(least), Some(compare(own, BinaryOperator::Gt, a)))
            }
        }
    }
}

fn call(function: &str, column: usize) -> AggregateCall {
    AggregateCall {
        name: function.to_owned(),
        function: function.to_owned(),
        args: vec![Expr::Column(column)],
        filter: None,
        distinct: false,
        order_by: vec![],
        ignore_nulls: false,
    }
}

#[derive(Clone, Debug)]
struct Case {
    conditions: Vec<Condition>,
    elements: Vec<PatternElement>,
    skip: AfterMatch,
    within_ms: Option<i64>,
}

fn spec(case: &Case) -> PatternSpec {
    let mut references = Vec::new();
    let mut variables = Vec::new();
    for (variable, condition) in case.conditions.iter().enumerate() {
        let (row_condition, match_condition) = condition.planned(variable, &mut references);
        variables.push(PatternVariable { name: VARIABLES[variable].to_owned(), row_condition, match_condition });
    }
    let mut measures = Vec::new();
    let last = |variable, from, offset, column| Reference::Column { variable, from, offset, column };
    for reference in [
        last(None, MatchEnd::First, 0, 3),
        Reference::Aggregate { variable: None, call: call("count", 3) },
        last(Some(1), MatchEnd::Last, 0, 2),
        Reference::Aggregate { variable: Some(0), call: call("sum", 2) },
        last(Some(1), MatchEnd::First, 1, 2),
        last(None, MatchEnd::Last, 0, 1),
    ] {
        measures.push(NamedExpr { name: format!("m{}", measures.len()), expr: Expr::Column(references.len()) });
        references.push(reference);
    }
    let data_type = |reference: &Reference| match reference {
        Reference::Column { column, .. } => input_schema().field(*column).data_type().clone(),
        Reference::Aggregate { .. } => DataType::Int64,
    };
    let field = |(n, reference): (usize, &Reference)| Field::new(format!("r{n}"), data_type(reference), true);
    let fields: Vec<Field> = references.iter().enumerate().map(field).collect();
    let key = |column| SortKey { column, descending: false, nulls_first: true };
    PatternSpec {
        partition: vec![0],
        order: vec![key(1), key(3)],
        variables,
        elements: case.elements.clone(),
        references,
        reference_schema: Arc::new(Schema::new(fields)),
        measures,
        skip: case.skip,
        within_ms: case.within_ms,
        input_schema: input_schema(),
    }
}

fn start(case: &Case, late: &Arc<AtomicU64>) -> PatternMatch {
    let spec = spec(case);
    let mut fields = vec![Field::new("p", DataType::Int64, true)];
    for measure in &spec.measures {
        let Expr::Column(reference) = measure.expr else { panic!("measures are references") };
        fields.push(Field::new(&measure.name, spec.reference_schema.field(reference).data_type().clone(), true));
    }
    let op = Spec::new(Arc::new(Schema::new(fields)), OperatorKind::PatternMatch(spec.clone()));
    PatternMatch::new("match", &spec, &op, LateRows::new("match", late.clone(), false), &EvalContext::default())
        .unwrap()
}

fn batch(rows: &[Row]) -> StreamBatch {
    let number = |pick: fn(&Row) -> i64| Int64Array::from_iter_values(rows.iter().map(pick));
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(number(|row| row.0)),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(number(|row| row.2)),
        Arc::new(number(|row| row.3)),
    ];
    StreamBatch::on_time(RecordBatch::try_new(input_schema(), columns).unwrap())
}

fn given(out: Collector) -> Vec<Given> {
    let mut given = Vec::new();
    for batch in out.main {
        assert!(batch.changes.is_none());
        let as_numbers = |column: &Arc<dyn Array>| arrow::compute::cast(column, &DataType::Int64).unwrap();
        let columns: Vec<_> = batch.rows.columns().iter().map(as_numbers).collect();
        let value = |column: usize, row: usize| {
            let column: &PrimitiveArray<Int64Type> = columns[column].as_primitive();
            column.is_valid(row).then(|| column.value(row))
        };
        for row in 0..batch.rows.num_rows() {
            given.push((value(0, row).unwrap(), (1..columns.len()).map(|column| value(column, row)).collect()));
        }
    }
    given
}

fn advance(operator: &mut PatternMatch, watermark: i64) -> Vec<Given> {
    let mut out = Collector::default();
    while operator.on_watermark(Timestamp(watermark), &mut out).unwrap() == Release::Continue {}
    given(out)
}

fn random_condition(random: &mut SmallRng) -> Condition {
    match random.random_range(0..6) {
        0 => Condition::Anything,
        1 => Condition::Less(random.random_range(2..9)),
        2 => Condition::NotLess(random.random_range(1..8)),
        3 => Condition::NotLessThanLast,
        4 => Condition::SumLess(random.random_range(5..30)),
        _ => Condition::GreaterThanA(random.random_range(0..4)),
    }
}

fn random_case(random: &mut SmallRng) -> Case {
    let variables = random.random_range(1..=4_usize);
    let conditions = (0..variables).map(|_| random_condition(random)).collect();
    let mut elements: Vec<PatternElement> = (0..variables)
        .map(|variable| {
            let quantifiers =
                [(1, Some(1)), (0, None), (1, None), (0, Some(1)), (2, Some(2)), (2, None), (1, Some(3)), (0, Some(2))];
            let (min, max) = quantifiers[if random.random_bool(0.4) { 0 } else { random.random_range(0..8) }];
            let greedy = (min, max) == (0, Some(1)) || random.random_bool(0.5);
            PatternElement { variable, min, max, greedy }
        })
        .collect();
    if random.random_bool(0.1) {
        // A variable may stand in two places.
        elements.insert(0, PatternElement { variable: variables - 1, min: 1, max: Some(1), greedy: true });
    }
    // At least one must take a row; from there on none is greedy.
    let last = elements.iter().rposition(|element| element.min > 0).unwrap_or_else(|| {
        let last = elements.len() - 1;
        elements[last].min = 1;
        last
    });
    for element in &mut elements[last..] {
        if element.max == Some(1) && element.min == 0 {
            element.max = None;
        }
        element.greedy = element.max == Some(element.min);
    }
    let variable = random.random_range(0..variables);
    let skip = match random.random_range(0..6) {
        0 => AfterMatch::ToNextRow,
        1 => AfterMatch::ToFirst(variable),
        2 => AfterMatch::ToLast(variable),
        _ => AfterMatch::PastLastRow,
    };
    Case { conditions, elements, skip, within_ms: random.random_bool(0.4).then(|| random.random_range(5..60)) }
}

#[test]
fn matches_are_those_of_a_naive_search_whatever_the_batches_and_restarts() {
    let (mut total, mut failures) = (0, 0);
    for seed in 0..500 {
        let mut random = SmallRng::seed_from_u64(seed);
        let case = random_case(&mut random);
        let late = Arc::new(AtomicU64::new(0));
        let mut operator = start(&case, &late);
        let mut checkpoints = Checkpoints::default();
        let (mut rows, mut all, mut dropped) = (Vec::<Row>::new(), Vec::<Given>::new(), 0);
        let (mut watermark, mut passed_on) = (i64::MIN, i64::MIN);
        let mut failed = false;
        'rounds: for round in 0..25_i64 {
            let mut fresh: Vec<Row> = Vec::new();
            for _ in 0..random.random_range(0..12) {
                let time = round * 5 + random.random_range(-4..20);
                fresh.push((random.random_range(0..3), time, random.random_range(0..10), random.random_range(0..40)));
            }
            if !fresh.is_empty() {
                operator.process(0, batch(&fresh), &mut Collector::default()).unwrap();
            }
            dropped += fresh.iter().filter(|row| row.1 <= watermark).count();
            rows.extend(fresh.into_iter().filter(|row| row.1 > watermark));
            if random.random_bool(0.6) {
                watermark = round * 5;
                let mut out = Collector::default();
                loop {
                    match operator.on_watermark(Timestamp(watermark), &mut out) {
                        Ok(Release::Continue) => {}
                        Ok(Release::Done) => break,
                        Err(error) => {
                            assert!(error.to_string().contains("AFTER MATCH SKIP"), "seed {seed}: {error}");
                            failed = true;
                            break 'rounds;
                        }
                    }
                }
                let found = given(out);
                assert!(found.iter().all(|(_, given)| given[5].unwrap() > passed_on), "seed {seed}: late {found:?}");
                all.extend(found);
                let next = operator.watermark_out(Timestamp(watermark)).0;
                assert!((passed_on..=watermark).contains(&next), "seed {seed}");
                passed_on = next;
            }
            if random.random_bool(0.3) {
                checkpoints.take(&mut operator);
                if random.random_bool(0.5) {
                    operator = start(&case, &late);
                    checkpoints.restore(&mut operator);
                    assert_eq!(operator.watermark_out(Timestamp(watermark)).0, passed_on, "seed {seed}");
                }
            }
        }
        let mut out = Collector::default();
        while !failed {
            match operator.on_watermark(Timestamp::MAX, &mut out) {
                Ok(Release::Continue) => {}
                Ok(Release::Done) => break,
                Err(_) => failed = true,
            }
        }
        all.extend(given(out));
        all.sort();
        match expected(&case, &rows) {
            Some(expected) => {
                assert!(!failed, "seed {seed}: {case:?}");
                assert_eq!(all, expected, "seed {seed}: {case:?}");
                total += expected.len();
                assert_eq!(operator.store.len(), 0, "seed {seed}: {case:?}");
            }
            None => {
                assert!(failed, "seed {seed}: {case:?}");
                failures += 1;
            }
        }
        if !failed {
            assert_eq!(late.load(Atomic::Relaxed), dropped as u64, "seed {seed}");
        }
    }
    assert!(total > 4_000 && failures > 10, "{total} matches, {failures} cases whose skipping fails");
}

fn element(variable: usize, min: u32, max: Option<u32>) -> PatternElement {
    PatternElement { variable, min, max, greedy: true }
}

#[test]
fn within_a_time_state_stays_small_however_long_it_goes_on() {
    // A B* C, where C never comes: only time ends matches.
    let case = Case {
        conditions: vec![Condition::Anything, Condition::Anything, Condition::Less(-1)],
        elements: vec![element(0, 1, Some(1)), element(1, 0, None), element(2, 1, Some(1))],
        skip: AfterMatch::PastLastRow,
        within_ms: Some(50),
    };
    let mut operator = start(&case, &Arc::default());
    let mut checkpoints = Checkpoints::default();
    for round in 0..1_000_i64 {
        // Partitions that never come back are let go of as well.
        let rows: Vec<Row> = (0..10).map(|n| (round / 10, round * 10 + n, n, n)).collect();
        operator.process(0, batch(&rows), &mut Collector::default()).unwrap();
        assert!(advance(&mut operator, round * 10 + 9).is_empty());
        checkpoints.take(&mut operator);
        assert!(operator.store.len() <= 60, "{} rows", operator.store.len());
        assert!(operator.partitions.len() <= 2, "{} partitions", operator.partitions.len());
        assert!(operator.deadlines.len() <= 2);
        assert!(checkpoints.rows() <= 32 * 20 + 200, "{} rows in the files", checkpoints.rows());
    }
}

#[test]
fn rows_that_begin_no_match_leave_nothing_behind() {
    let case = Case {
        conditions: vec![Condition::NotLess(5), Condition::NotLess(5)],
        elements: vec![element(0, 1, Some(1)), element(1, 1, Some(1))],
        skip: AfterMatch::PastLastRow,
        within_ms: None,
    };
    let mut operator = start(&case, &Arc::default());
    for round in 0..100_i64 {
        let rows: Vec<Row> = (0..100).map(|n| (round * 100 + n, round, n % 5, n)).collect();
        operator.process(0, batch(&rows), &mut Collector::default()).unwrap();
        assert!(advance(&mut operator, round).is_empty());
        assert_eq!((operator.store.len(), operator.partitions.len()), (0, 0));
    }
}

#[test]
fn matches_without_an_end_fail_with_advice_before_they_fill_the_memory() {
    let case = Case {
        conditions: vec![Condition::Anything, Condition::Anything, Condition::Less(-1)],
        elements: vec![element(0, 1, Some(1)), element(1, 0, None), element(2, 1, Some(1))],
        skip: AfterMatch::PastLastRow,
        within_ms: None,
    };
    let mut operator = start(&case, &Arc::default());
    let rows: Vec<Row> = (0..MATCHES_MAX as i64 + 2).map(|n| (7, n, n, n)).collect();
    operator.process(0, batch(&rows), &mut Collector::default()).unwrap();
    let mut out = Collector::default();
    let error = loop {
        match operator.on_watermark(Timestamp(100_000), &mut out) {
            Ok(Release::Continue) => {}
            Ok(Release::Done) => panic!("all rows were taken"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(
        error.contains("the partition (7) has more than 10000 matches under way") && error.contains("WITHIN"),
        "{error}"
    );
}

#[test]
fn greedy_and_reluctant_as_in_the_documentation_of_flink() {
    let prices = [10, 11, 12, 13, 14, 16];
    let found = |greedy: bool| {
        let case = Case {
            conditions: vec![Condition::NotLess(11), Condition::Less(15), Condition::NotLess(13)],
            elements: vec![
                element(0, 1, Some(1)),
                PatternElement { greedy, ..element(1, 0, None) },
                element(2, 1, Some(1)),
            ],
            skip: AfterMatch::PastLastRow,
            within_ms: None,
        };
        let mut operator = start(&case, &Arc::default());
        let rows: Vec<Row> = prices.iter().zip(2..).map(|(price, time)| (1, time, *price, time)).collect();
        operator.process(0, batch(&rows), &mut Collector::default()).unwrap();
        let given = advance(&mut operator, i64::MAX);
        let number_of_rows: BTreeMap<i64, i64> =
            given.iter().map(|(_, given)| (given[0].unwrap(), given[1].unwrap())).collect();
        number_of_rows.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(found(true), [(3, 5)], "11, then 12 to 14, then 16");
    assert_eq!(found(false), [(3, 3), (6, 2)], "11, 12, 13; then 14, 16");
}
