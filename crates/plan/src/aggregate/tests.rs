//! Every aggregate function in one phase and in several, with DISTINCT, ORDER BY and FILTER, its states through
//! Arrow's stream format: the results must agree.

use std::collections::BTreeSet;
use std::io::Cursor;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMillisecondArray, UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::array_value_to_string;
use datafusion_expr::{EmitTo, ExprFunctionExt, col, lit};

use super::*;

const ROWS: i64 = 60;
const GROUPS: usize = 3;

/// Columns of every type, with NULLs and repetitions; `o` is different in every row.
fn input() -> RecordBatch {
    let value = |i: i64| (i % 7 != 3).then_some((i * 37) % 11);
    let rows = || (0..ROWS).map(value);
    let decimals: Decimal128Array = rows().map(|v| v.map(i128::from)).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(rows().collect::<Int64Array>())),
        ("f", Arc::new(rows().map(|v| v.map(|v| v as f64 * 0.5)).collect::<Float64Array>())),
        ("f2", Arc::new((0..ROWS).map(|i| Some(((i * i) % 13) as f64)).collect::<Float64Array>())),
        ("d", Arc::new(decimals.with_precision_and_scale(10, 2).unwrap())),
        ("s", Arc::new(rows().map(|v| v.map(|v| format!("s{v}"))).collect::<StringArray>())),
        ("b", Arc::new(rows().map(|v| v.map(|v| v % 3 == 0)).collect::<BooleanArray>())),
        ("t", Arc::new(rows().collect::<TimestampMillisecondArray>())),
        ("day", Arc::new(rows().map(|v| v.map(|v| v as i32)).collect::<Date32Array>())),
        (
            "o",
            Arc::new(
                (0..ROWS)
                    .map(|i| (i * 7) % ROWS)
                    .map(|o| if o % 2 == 0 { o } else { 1000 - o })
                    .map(Some)
                    .collect::<Int64Array>(),
            ),
        ),
    ];
    let nullable = columns.into_iter().map(|(n, c)| (n, c, true));
    RecordBatch::try_from_iter_with_nullable(nullable).unwrap()
}

/// The group of each row. The last group has rows at the end only, so that some partial states are empty.
fn groups(rows: &[u32]) -> Vec<usize> {
    rows.iter().map(|r| if *r >= 50 { 2 } else { (*r % 2) as usize }).collect()
}

/// Suitable arguments of a function.
fn arguments(function: &str) -> Vec<Vec<Logical>> {
    let each = |columns: &[&str]| columns.iter().map(|c| vec![col(*c)]).collect();
    match function {
        "any_value" | "array_agg" | "count" | "first_value" | "last_value" | "max" | "min" => {
            each(&["i", "f", "d", "s", "b", "t", "day"])
        }
        "approx_distinct" => each(&["i", "s", "t", "day"]),
        "sum" | "avg" | "median" => each(&["i", "f", "d"]),
        "bit_and" | "bit_or" | "bit_xor" => each(&["i"]),
        "bool_and" | "bool_or" => each(&["b"]),
        "string_agg" => vec![vec![col("s"), lit("-")]],
        "listagg" => vec![vec![col("s"), lit("-")], vec![col("s")]],
        "nth_value" => vec![vec![col("i"), lit(2i64)], vec![col("s"), lit(2i64)]],
        "approx_percentile_cont" | "percentile_cont" => vec![vec![col("f"), lit(0.25)]],
        "approx_percentile_cont_with_weight" => vec![vec![col("f"), col("f2"), lit(0.25)]],
        "grouping" => each(&["i"]),
        name if name.starts_with("regr") || name.starts_with("cov") || name == "corr" => {
            vec![vec![col("f"), col("f2")]]
        }
        _ => each(&["f"]),
    }
}

fn evaluated(expr: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> ArrayRef {
    expr.evaluate(rows).unwrap().into_array(rows.num_rows()).unwrap()
}

fn update(accumulator: &mut dyn GroupsAccumulator, call: &CompiledAggregate, all: &RecordBatch, rows: &[u32]) {
    let batch = take_record_batch(all, &UInt32Array::from(rows.to_vec())).unwrap();
    let args: Vec<ArrayRef> = call.args.iter().map(|e| evaluated(e, &batch)).collect();
    let filter = call.filter.as_ref().map(|e| evaluated(e, &batch));
    let filter = filter.as_ref().map(|f| f.as_boolean());
    accumulator.update_batch(&args, &groups(rows), filter, GROUPS).unwrap();
}

/// States as they come back from a file or a peer.
fn travel(call: &CompiledAggregate, states: Vec<ArrayRef>) -> Vec<ArrayRef> {
    let fields = call.state_fields().unwrap();
    for (state, field) in states.iter().zip(&fields) {
        assert_eq!(state.data_type(), field.data_type(), "{}", field.name());
    }
    let fields: Vec<Field> = fields.iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), states).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    writer.write(&batch).unwrap();
    let bytes = writer.into_inner().unwrap();
    let read = StreamReader::try_new(Cursor::new(bytes), None).unwrap().next().unwrap().unwrap();
    assert_eq!(read, batch);
    read.columns().to_vec()
}

fn one_phase(call: &CompiledAggregate, all: &RecordBatch, rows: &[u32]) -> ArrayRef {
    let mut accumulator = call.groups_accumulator().unwrap();
    update(accumulator.as_mut(), call, all, rows);
    accumulator.evaluate(EmitTo::All).unwrap()
}

/// Two partial states, merged, stored, merged into a third, evaluated.
fn several_phases(call: &CompiledAggregate, all: &RecordBatch) -> ArrayRef {
    let rows: Vec<u32> = (0..u32::try_from(ROWS).unwrap()).collect();
    let everyone: Vec<usize> = (0..GROUPS).collect();
    let mut middle = call.groups_accumulator().unwrap();
    for part in [&rows[..25], &rows[25..25], &rows[25..]] {
        let mut partial = call.groups_accumulator().unwrap();
        for batch in part.chunks(10) {
            update(partial.as_mut(), call, all, batch);
        }
        let states = travel(call, partial.state(EmitTo::All).unwrap());
        let everyone = if part.is_empty() { &[][..] } else { &everyone };
        assert_eq!(states[0].len(), everyone.len(), "as many states as groups");
        if !part.is_empty() {
            middle.merge_batch(&states, everyone, GROUPS).unwrap();
        }
    }
    let states = travel(call, middle.state(EmitTo::All).unwrap());
    let mut last = call.groups_accumulator().unwrap();
    last.merge_batch(&states, &everyone, GROUPS).unwrap();
    let result = last.evaluate(EmitTo::All).unwrap();
    assert_eq!(result.data_type(), call.output_field().data_type());
    result
}

/// Results as text; parts of a collection in no order, where there is none.
fn shown(result: &ArrayRef, ordered: bool) -> Vec<String> {
    let one = |row| {
        if result.is_null(row) {
            return "NULL".to_owned();
        }
        let text = array_value_to_string(result, row).unwrap();
        let separated = |c: char| ", []-".contains(c);
        let mut parts: Vec<&str> = text.split(separated).filter(|p| !p.is_empty()).collect();
        if !ordered {
            parts.sort_unstable();
        }
        if result.data_type().is_temporal() { text } else { parts.join(" ") }
    };
    (0..result.len()).map(one).collect()
}

fn agree(function: &str, left: &ArrayRef, right: &ArrayRef, ordered: bool) -> bool {
    if left.data_type() != &DataType::Float64 {
        return shown(left, ordered) == shown(right, ordered);
    }
    // Sums of floats depend on the order of addition, sketches on the way in which they were merged.
    let tolerance = if function.starts_with("approx") { 0.1 } else { 1e-9 };
    let close =
        |(l, r): (f64, f64)| l == r || (l.is_nan() && r.is_nan()) || (l - r).abs() <= tolerance * (1.0 + l.abs());
    let (left, right) = (left.as_primitive::<Float64Type>(), right.as_primitive::<Float64Type>());
    left.iter().zip(right).all(|(l, r)| l.is_some() == r.is_some() && l.zip(r).is_none_or(close))
}

/// The first row of each group with each value of the arguments: what DISTINCT must be equal to.
fn without_repetitions(call: &CompiledAggregate, all: &RecordBatch, arguments: usize) -> Vec<u32> {
    let args: Vec<ArrayRef> = call.args[..arguments].iter().map(|e| evaluated(e, all)).collect();
    let filter = call.filter.as_ref().map(|e| evaluated(e, all));
    let mut seen = BTreeSet::new();
    let rows = 0..u32::try_from(ROWS).unwrap();
    let first = |row: &u32| {
        let index = *row as usize;
        let kept = filter.as_ref().is_none_or(|f| f.is_valid(index) && f.as_boolean().value(index));
        let text = |a: &ArrayRef| (a.is_null(index), array_value_to_string(a, index).unwrap());
        kept && seen.insert((groups(&[*row]), args.iter().map(text).collect::<Vec<_>>()))
    };
    rows.filter(first).collect()
}

#[test]
fn every_aggregate_agrees_with_itself_in_several_phases() {
    let all = input();
    let schema = DFSchema::try_from(all.schema().as_ref().clone()).unwrap();
    let rows: Vec<u32> = (0..u32::try_from(ROWS).unwrap()).collect();
    let (mut refused, mut differ, mut not_distinct) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut functions = datafusion_functions_aggregate::all_default_aggregate_functions();
    functions.push(registry().aggregate("listagg").unwrap());
    // Where Flink's differs from DataFusion's, it is the one that is called.
    let functions = functions.into_iter().map(|f| registry().aggregate(f.name()).unwrap_or(f));
    for function in functions {
        let within_group = ORDERED_SET.contains(&function.name());
        for args in arguments(function.name()) {
            for case in 0..8 {
                let (distinct, ordered, filtered) = (case & 1 > 0, case & 2 > 0 || within_group, case & 4 > 0);
                // With DISTINCT, only the argument may be the order.
                let order = if distinct || within_group { args[0].clone() } else { col("o") };
                let mut builder =
                    function.call(args.clone()).order_by(if ordered { vec![order.sort(true, false)] } else { vec![] });
                if distinct {
                    builder = builder.distinct();
                }
                if filtered {
                    builder = builder.filter(col("o").gt(lit(9i64)));
                }
                let what =
                    format!("{} {args:?} distinct {distinct} ordered {ordered} filtered {filtered}", function.name());
                let call = match AggregateCall::from_logical(&builder.build().unwrap().alias("x"), &schema, "x") {
                    Ok(call) => call,
                    Err(_) => {
                        let with = if distinct {
                            " DISTINCT"
                        } else if ordered && !within_group {
                            " ORDER BY"
                        } else {
                            ""
                        };
                        refused.insert(format!("{}{with}", function.name()));
                        continue;
                    }
                };
                let stored = serde_json::to_string(&call).unwrap();
                assert_eq!(serde_json::from_str::<AggregateCall>(&stored).unwrap(), call);
                let compiled = call.compile(&all.schema(), &EvalContext::default()).unwrap();
                let single = one_phase(&compiled, &all, &rows);
                let several = several_phases(&compiled, &all);
                if !agree(function.name(), &single, &several, ordered || !distinct) {
                    differ.insert(format!("{what}: {single:?} and {several:?}"));
                }
                if distinct {
                    let plain = AggregateCall { distinct: false, ..call.clone() };
                    let plain = plain.compile(&all.schema(), &EvalContext::default()).unwrap();
                    let first = one_phase(&plain, &all, &without_repetitions(&compiled, &all, args.len()));
                    if !agree(function.name(), &first, &several, ordered) {
                        not_distinct.insert(function.name().to_owned());
                    }
                }
            }
        }
    }
    assert_eq!(differ, BTreeSet::new(), "results in one and in several phases");
    assert_eq!(not_distinct, BTreeSet::new(), "DISTINCT was accepted and not obeyed");
    let (distinct, others): (Vec<&str>, Vec<&str>) =
        refused.iter().map(String::as_str).partition(|r| r.ends_with(" DISTINCT"));
    assert_eq!(others, ["grouping", "grouping ORDER BY", "nth_value ORDER BY"]);
    let allowed = |name: &&str| DISTINCT.contains(&name.trim_end_matches(" DISTINCT"));
    assert_eq!(distinct.iter().filter(|d| allowed(d)).count(), 0, "{distinct:?}");
}

#[test]
fn an_empty_accumulator_gives_empty_columns() {
    let all = input();
    let schema = DFSchema::try_from(all.schema().as_ref().clone()).unwrap();
    for name in ["median", "sum", "string_agg"] {
        let function = registry().aggregate(name).unwrap();
        let call = AggregateCall::from_logical(&function.call(arguments(name)[0].clone()), &schema, "x").unwrap();
        let compiled = call.compile(&all.schema(), &EvalContext::default()).unwrap();
        let mut accumulator = compiled.groups_accumulator().unwrap();
        assert_eq!(accumulator.evaluate(EmitTo::All).unwrap().len(), 0);
        assert_eq!(accumulator.state(EmitTo::All).unwrap().len(), compiled.state_fields().unwrap().len());
    }
}

#[test]
fn refusals_name_the_function_and_the_reason() {
    let schema = DFSchema::try_from(input().schema().as_ref().clone()).unwrap();
    let nth = registry().aggregate("nth_value").unwrap().call(vec![col("i"), lit(1i64)]);
    let nth = nth.order_by(vec![col("o").sort(true, false)]).build().unwrap();
    let error = AggregateCall::from_logical(&nth, &schema, "x").unwrap_err().to_string();
    assert!(error.starts_with("NTH_VALUE with ORDER BY needs its whole input sorted"), "{error}");
    let error = AggregateCall::from_logical(&col("i"), &schema, "x").unwrap_err().to_string();
    assert!(error.contains("not a call of an aggregate function"), "{error}");
}

#[test]
fn calls_are_shown_as_sql() {
    let all = input();
    let schema = DFSchema::try_from(all.schema().as_ref().clone()).unwrap();
    let call = registry().aggregate("ARRAY_AGG").unwrap().call(vec![col("s")]);
    let call = call.order_by(vec![col("o").sort(false, true)]).filter(col("b")).build().unwrap();
    let mut call = AggregateCall::from_logical(&call, &schema, "x").unwrap();
    assert_eq!(call.display(&all.schema()), "ARRAY_AGG(s ORDER BY o DESC NULLS FIRST) FILTER (WHERE b)");
    assert_eq!(call.columns().into_iter().collect::<Vec<_>>(), [4, 5, 8]);
    assert!(!call.depends_on_order());
    call.remap_columns(&|i| i + 1);
    assert_eq!(call.columns().into_iter().collect::<Vec<_>>(), [5, 6, 9]);
}
