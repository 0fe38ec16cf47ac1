//! The operator against a recomputation of each group by DataFusion's accumulators: random changes, cut into
//! batches at random, with checkpoints and restores at random.

use super::*;

mod changelog;
mod hot_keys;
mod oracle;
mod small;

use self::oracle::{Aggregation, Random};
use mainstem_plan::aggregate::AggregateCall;
use mainstem_plan::expr::Expr;

/// Columns of the input: key, integer, float, text, boolean, decimal, another key.
const K: usize = 0;
const I: usize = 1;
const F: usize = 2;
const S: usize = 3;
const B: usize = 4;
const D: usize = 5;
const T: usize = 6;

fn call(function: &str, args: &[Expr]) -> AggregateCall {
    AggregateCall {
        name: function.to_owned(),
        function: function.to_owned(),
        args: args.to_vec(),
        filter: None,
        distinct: false,
        order_by: vec![],
        ignore_nulls: false,
    }
}

fn of(function: &str, column: usize) -> AggregateCall {
    call(function, &[Expr::Column(column)])
}

fn distinct(function: &str, column: usize) -> AggregateCall {
    AggregateCall { distinct: true, ..of(function, column) }
}

fn only_true(call: AggregateCall) -> AggregateCall {
    AggregateCall { filter: Some(Expr::Column(B)), ..call }
}

fn count_all() -> AggregateCall {
    call("count", &[Expr::literal(1_i64)])
}

/// Every form of every kind of call.
fn all_calls() -> Vec<AggregateCall> {
    vec![
        count_all(),
        of("count", I),
        only_true(count_all()),
        of("sum", I),
        of("sum", F),
        of("sum", D),
        only_true(of("sum", I)),
        of("avg", F),
        of("avg", D),
        of("avg", I),
        distinct("avg", I),
        of("min", I),
        of("max", I),
        of("min", S),
        only_true(of("max", S)),
        of("max", D),
        of("min", F),
        of("max", B),
        distinct("count", I),
        only_true(distinct("count", I)),
        distinct("sum", I),
        distinct("count", S),
        distinct("avg", F),
        distinct("max", I),
        of("bool_and", B),
        of("bool_or", B),
        of("var_pop", F),
        of("stddev", F),
        of("first_value", I),
        only_true(of("last_value", S)),
        AggregateCall { ignore_nulls: true, ..of("last_value", I) },
        of("array_agg", I),
        call("listagg", &[Expr::Column(S), Expr::literal("-")]),
        only_true(of("median", F)),
        of("bit_xor", I),
        call("corr", &[Expr::Column(F), Expr::Column(F)]),
        AggregateCall { order_by: vec![(Expr::Column(I), false, false)], ..of("first_value", S) },
        of("approx_distinct", S),
    ]
}

fn check(keys: &[usize], calls: Vec<AggregateCall>, retracts: bool, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        run(Aggregation::new(keys, calls.clone(), retracts, seed), seed);
    }
}

fn run(mut aggregation: Aggregation, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..30 {
        match random.below(10) {
            0 => aggregation.checkpoint(false),
            1 => aggregation.checkpoint(true),
            _ => aggregation.batch(&mut random),
        }
    }
    aggregation.flush();
    aggregation.compare();
}

#[test]
fn rows_that_only_come() {
    check(&[K], all_calls(), false, 0..6);
    check(&[S], all_calls(), false, 6..9);
    check(&[K, T], all_calls(), false, 9..12);
    check(&[], all_calls(), false, 12..15);
}

/// Calls that may have a step before the exchange; of others `first_step` fails.
fn calls_with_parts() -> Vec<AggregateCall> {
    vec![
        count_all(),
        of("count", I),
        only_true(count_all()),
        of("sum", I),
        of("sum", D),
        only_true(of("sum", I)),
        of("avg", D),
        of("avg", I),
        only_true(of("avg", I)),
        of("min", I),
        of("min", S),
        only_true(of("max", S)),
        of("max", D),
        of("min", F),
        of("max", B),
        distinct("max", I),
        of("bool_and", B),
        only_true(of("bool_or", B)),
    ]
}

#[test]
fn two_steps_give_what_one_does() {
    for (keys, seeds) in [(&[K][..], 100..106), (&[S], 106..109), (&[K, T], 109..112), (&[], 112..115)] {
        seeds.clone().for_each(|seed| run(Aggregation::in_two_steps(keys, calls_with_parts(), seed), seed));
        seeds.for_each(|seed| {
            if !keys.is_empty() {
                run(Aggregation::in_two_steps(keys, vec![], seed), seed);
            }
        });
    }
}

#[test]
fn rows_that_come_and_go() {
    check(&[K], all_calls(), true, 20..26);
    check(&[S], all_calls(), true, 26..29);
    check(&[K, T], all_calls(), true, 29..32);
    check(&[], all_calls(), true, 32..35);
}

#[test]
fn few_calls_over_many_changes() {
    let few = || vec![count_all(), of("sum", I), of("min", I), distinct("count", S)];
    check(&[K], few(), true, 40..70);
    check(&[T], few(), false, 70..90);
    check(&[S, K], vec![], true, 90..100);
}
