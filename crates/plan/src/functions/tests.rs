//! Every Flink function with known values, evaluated through a stored plan; as a constant and over a column
//! with a NULL in it.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::array_value_to_string;
use datafusion_common::{Column, DFSchema, ScalarValue};
use datafusion_expr::Expr as Logical;

use super::registry;
use crate::error::PlanError;
use crate::eval::EvalContext;
use crate::expr::Expr;

type Outcome = Result<Vec<Option<String>>, PlanError>;

/// Calls a function over the rows of some columns, or with constants.
fn call(name: &str, args: &[ScalarValue], columns: bool, ctx: &EvalContext) -> Outcome {
    let function = registry().scalar(name).unwrap_or_else(|| panic!("no function {name}"));
    let field = |(i, v): (usize, &ScalarValue)| Field::new(format!("a{i}"), v.data_type(), true);
    // An empty batch of columns would have no rows, so a row number stands last.
    let fields = args.iter().enumerate().map(field).chain([Field::new("row", DataType::Int64, false)]);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let null_between = |v: &ScalarValue| {
        let null = ScalarValue::try_from(&v.data_type()).unwrap();
        ScalarValue::iter_to_array([v.clone(), null, v.clone()]).unwrap()
    };
    let numbers = ScalarValue::iter_to_array((0..3i64).map(ScalarValue::from)).unwrap();
    let arrays = args.iter().map(null_between).chain([numbers]).collect();
    let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
    let argument = |(i, v): (usize, &ScalarValue)| match columns {
        true => Logical::Column(Column::new_unqualified(format!("a{i}"))),
        false => Logical::Literal(v.clone(), None),
    };
    let logical = function.call(args.iter().enumerate().map(argument).collect());
    let expr = Expr::from_logical(&logical, &DFSchema::try_from(schema.as_ref().clone()).unwrap())?;
    let stored = serde_json::to_string(&expr).unwrap();
    let read: Expr = serde_json::from_str(&stored).unwrap();
    assert_eq!(read, expr, "{stored}");
    let compiled = read.compile(&schema, ctx)?;
    let result = compiled.evaluate(&batch)?.into_array(3)?;
    assert_eq!(*result.data_type(), expr.data_type(&schema)?, "{name}");
    let shown = |row| result.is_valid(row).then(|| array_value_to_string(&result, row).unwrap());
    Ok((0..3).map(shown).collect())
}

/// The value of a call, the same for constants and columns.
fn value(name: &str, args: &[ScalarValue]) -> Option<String> {
    let ctx = EvalContext::default();
    let constant = call(name, args, false, &ctx).unwrap_or_else(|e| panic!("{name}{args:?}: {e}"));
    let column = call(name, args, true, &ctx).unwrap_or_else(|e| panic!("{name}{args:?}: {e}"));
    assert_eq!(constant[0], column[0], "{name}{args:?}");
    assert_eq!(column[0], column[2], "{name}{args:?}");
    column[0].clone()
}

fn check(name: &str, args: &[ScalarValue], expected: &str) {
    assert_eq!(value(name, args).as_deref(), Some(expected), "{name}{args:?}");
}

fn check_null(name: &str, args: &[ScalarValue]) {
    assert_eq!(value(name, args), None, "{name}{args:?}");
}

fn fails(name: &str, args: &[ScalarValue]) -> String {
    call(name, args, true, &EvalContext::default()).unwrap_err().to_string()
}

fn s(text: &str) -> ScalarValue {
    ScalarValue::from(text)
}

fn n(number: i64) -> ScalarValue {
    ScalarValue::from(number)
}

fn ts(text: &str) -> ScalarValue {
    let time: chrono::NaiveDateTime = text.parse().unwrap();
    ScalarValue::TimestampMillisecond(Some(time.and_utc().timestamp_millis()), None)
}

fn strings(items: &[&str]) -> ScalarValue {
    let items: Vec<ScalarValue> = items.iter().map(|i| s(i)).collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&items, &DataType::Utf8))
}

#[test]
fn text_functions() {
    check("SPLIT_INDEX", &[s("a,b,c"), s(","), n(1)], "b");
    check("split_index", &[s("aäb"), n(0xE4), n(1)], "b");
    check_null("split_index", &[s("a,b,c"), s(","), n(3)]);
    check_null("split_index", &[s("a,b,c"), s(","), n(-1)]);
    check("split", &[s("a;b"), s(";")], "[a, b]");
    check("substring", &[s("häuser"), n(2), n(3)], "äus");
    check("substr", &[s("häuser"), n(-2)], "er");
    check("substr", &[s("häuser"), n(0)], "häuser");
    check("substr", &[s("häuser"), n(99)], "");
    check_null("substr", &[s("häuser"), n(1), n(-1)]);
    check("locate", &[s("u"), s("häuser")], "3");
    check("locate", &[s("e"), s("eher"), n(2)], "3");
    check("locate", &[s("x"), s("eher")], "0");
    check("instr", &[s("häuser"), s("u")], "3");
    check("concat", &[s("a"), s("b"), n(1)], "ab1");
    check_null("concat", &[s("a"), ScalarValue::Utf8(None)]);
    check("concat_ws", &[s("-"), s("a"), ScalarValue::Utf8(None), s("b")], "a-b");
    check("to_base64", &[s("hello")], "aGVsbG8=");
    check("from_base64", &[s("aGVsbG8=")], "hello");
    assert!(fails("from_base64", &[s("?")]).contains("'?' is not base 64"));
    check("encode", &[s("hä"), s("UTF-16BE")], "006800e4");
    check("decode", &[ScalarValue::Binary(Some(vec![0xFF, 0xFE, b'h', 0])), s("utf-16")], "h");
    check("hex", &[n(255)], "FF");
    check("hex", &[s("hi")], "6869");
    check("unhex", &[s("6869")], "6869");
    check_null("unhex", &[s("zz")]);
    check("bin", &[n(5)], "101");
    check("is_digit", &[s("12")], "true");
    check("is_alpha", &[s("a1")], "false");
    check("is_decimal", &[s("-1.5")], "true");
    check("is_decimal", &[s(".")], "false");
    check("upper", &[s("aä")], "AÄ");
    check("initcap", &[s("ab cd")], "Ab Cd");
    check("lpad", &[s("7"), n(3), s("0")], "007");
    check("rpad", &[s("7"), n(3), s("0")], "700");
    check("ltrim", &[s("  a")], "a");
    check("btrim", &[s(" a ")], "a");
    check("reverse", &[s("abc")], "cba");
    check("repeat", &[s("ab"), n(2)], "abab");
    check("overlay", &[s("xxxxx"), s("ab"), n(2)], "xabxx");
    check("char_length", &[s("hä")], "2");
    check("ascii", &[s("A")], "65");
    check("chr", &[n(65)], "A");
    check("startswith", &[s("abc"), s("ab")], "true");
    check("translate", &[s("abc"), s("ab"), s("xy")], "xyc");
}

#[test]
fn regular_expressions() {
    check("REGEXP_EXTRACT", &[s("channel_id=7&x"), s("(&|^)channel_id=([^&]*)"), n(2)], "7");
    check("regexp_extract", &[s("ab12"), s("[0-9]+")], "12");
    check_null("regexp_extract", &[s("ab"), s("[0-9]+")]);
    check_null("regexp_extract", &[s("ab"), s("a"), n(4)]);
    check("regexp_extract_all", &[s("a1b2"), s("([a-z])([0-9])"), n(2)], "[1, 2]");
    check("regexp", &[s("ab12"), s("b1")], "true");
    check("regexp_replace", &[s("foo bar foo"), s("f(o+)"), s("$1-\\$")], "oo-$ bar oo-$");
    check("regexp_replace", &[s("ab"), s("(a)"), s("$1st")], "astb");
    assert!(fails("regexp_extract", &[s("a"), s("(")]).contains("'(' is not a regular expression"));
}

#[test]
fn times() {
    check("DATE_FORMAT", &[ts("2024-03-05T15:04:09.123"), s("yyyy-MM-dd HH:mm")], "2024-03-05 15:04");
    check("date_format", &[s("2024-03-05 15:04:09"), s("yyMMdd")], "240305");
    assert!(fails("date_format", &[ts("2024-03-05T00:00:00"), s("qq")]).contains("letter 'q'"));
    check("to_timestamp", &[s("2024-03-05 15:04:09.5")], "2024-03-05T15:04:09.500");
    check("to_timestamp", &[s("05.03.2024 15:04"), s("dd.MM.yyyy HH:mm")], "2024-03-05T15:04:00");
    check_null("to_timestamp", &[s("yesterday")]);
    check("to_timestamp_ltz", &[n(1_000), n(0)], "1970-01-01T00:16:40Z");
    check("to_timestamp_ltz", &[n(1_000)], "1970-01-01T00:00:01Z");
    check(
        "to_timestamp_ltz",
        &[s("2024-07-05 12:00:00"), s("yyyy-MM-dd HH:mm:ss"), s("Europe/Berlin")],
        "2024-07-05T10:00:00Z",
    );
    assert!(fails("to_timestamp_ltz", &[n(1), n(6)]).contains("not 6"));
    check("to_date", &[s("2024-03-05")], "2024-03-05");
    check("to_date", &[s("05/03/2024"), s("dd/MM/yyyy")], "2024-03-05");
    check("from_unixtime", &[n(44)], "1970-01-01 00:00:44");
    check("from_unixtime", &[n(44), s("HH:mm:ss")], "00:00:44");
    check("unix_timestamp", &[s("1970-01-01 00:01:00")], "60");
    check("unix_timestamp", &[s("1970-01-02"), s("yyyy-MM-dd")], "86400");
    check("convert_tz", &[s("1970-01-01 00:00:00"), s("UTC"), s("America/Los_Angeles")], "1969-12-31 16:00:00");
    check("convert_tz", &[s("2024-01-01 00:00:00"), s("GMT+08:00"), s("UTC")], "2023-12-31 16:00:00");
    assert!(fails("convert_tz", &[s("1970-01-01 00:00:00"), s("UTC"), s("Mars")]).contains("unknown time zone 'Mars'"));
    let at = ts("2024-03-05T15:04:09.123");
    for (name, expected) in [("year", "2024"), ("quarter", "1"), ("month", "3"), ("week", "10"), ("dayofyear", "65")] {
        check(name, std::slice::from_ref(&at), expected);
    }
    for (name, expected) in [("dayofmonth", "5"), ("dayofweek", "3"), ("hour", "15"), ("minute", "4"), ("second", "9")]
    {
        check(name, std::slice::from_ref(&at), expected);
    }
    check("year", &[ScalarValue::Date32(Some(0))], "1970");
    check("extract", &[s("EPOCH"), ts("1970-01-01T01:00:00")], "3600");
    check("timestampadd", &[s("MONTH"), n(1), ts("2024-01-31T00:00:00")], "2024-02-29T00:00:00");
    check("timestampadd", &[s("minute"), n(-5), at.clone()], "2024-03-05T14:59:09.123");
    check("timestampdiff", &[s("MINUTE"), ts("2024-03-05T15:00:00"), at.clone()], "4");
    check("timestampdiff", &[s("SQL_TSI_YEAR"), at.clone(), ts("2020-01-01T00:00:00")], "-4");
    check("flink_floor", &[s("HOUR"), at.clone()], "2024-03-05T15:00:00");
    check("flink_ceil", &[s("MONTH"), at.clone()], "2024-04-01T00:00:00");
    check("flink_floor", &[s("YEAR"), ScalarValue::Date32(Some(400))], "1971-01-01");
    assert!(fails("timestampadd", &[s("FORTNIGHT"), n(1), at]).contains("unknown unit of time 'FORTNIGHT'"));
}

#[test]
fn clocks_read_the_cells_and_nothing_else() {
    let ctx = EvalContext::default();
    ctx.set_now_ms(86_400_000 + 3_661_001);
    let now = |name: &str, args: &[ScalarValue]| call(name, args, false, &ctx).unwrap()[1].clone();
    assert_eq!(now("NOW", &[]).as_deref(), Some("1970-01-02T01:01:01.001Z"));
    assert_eq!(now("current_timestamp", &[]), now("proctime", &[]));
    assert_eq!(now("localtimestamp", &[]).as_deref(), Some("1970-01-02T01:01:01.001"));
    assert_eq!(now("current_date", &[]).as_deref(), Some("1970-01-02"));
    assert_eq!(now("localtime", &[]).as_deref(), Some("01:01:01.001"));
    assert_eq!(now("unix_timestamp", &[]).as_deref(), Some("90061"));
    assert_eq!(now("current_watermark", &[ts("2024-01-01T00:00:00")]), None);
    ctx.set_watermark_ms(1000);
    assert_eq!(now("current_watermark", &[ts("2024-01-01T00:00:00")]).as_deref(), Some("1970-01-01T00:00:01"));
}

#[test]
fn a_compiled_clock_follows_its_cell() {
    let ctx = EvalContext::default();
    let function = registry().scalar("now").unwrap();
    assert!(function.signature().volatility == datafusion_expr::Volatility::Volatile, "or planning would fold it");
    let expr = Expr::from_logical(&function.call(vec![]), &DFSchema::empty()).unwrap();
    assert!(expr.reads_clock());
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let compiled = expr.compile(&schema, &ctx).unwrap();
    let batch = RecordBatch::new_empty(schema);
    let mut seen = Vec::new();
    for ms in [1, 2] {
        ctx.set_now_ms(ms);
        seen.push(compiled.evaluate(&batch).unwrap().to_string());
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn numbers() {
    check("mod", &[n(-7), n(3)], "-1");
    check("mod", &[ScalarValue::from(7.5), n(2)], "1.5");
    check("log", &[ScalarValue::from(std::f64::consts::E)], "1.0");
    check("log", &[n(2), n(8)], "3.0");
    check("sqrt", &[ScalarValue::from(-1.0)], "NaN");
    check("power", &[n(0), n(-1)], "inf");
    check("pow", &[ScalarValue::from(1.5), n(2)], "2.25");
    check("log10", &[ScalarValue::from(100.0)], "2.0");
    check("e", &[], "2.718281828459045");
    check("truncate", &[ScalarValue::from(1.29), n(1)], "1.2");
    check("round", &[ScalarValue::from(1.25), n(1)], "1.3");
    check("sign", &[ScalarValue::from(-2.0)], "-1.0");
    check("ceiling", &[ScalarValue::from(1.2)], "2.0");
    check("power", &[ScalarValue::from(2.0), ScalarValue::from(3.0)], "8.0");
    assert!(fails("mod", &[n(1), n(0)]).to_lowercase().contains("divide by zero"));
}

#[test]
fn digests_are_hexadecimal() {
    check("md5", &[s("abc")], "900150983cd24fb0d6963f7d28e17f72");
    check("sha1", &[s("abc")], "a9993e364706816aba3e25717850c26c9cd0d89d");
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    check("sha256", &[s("abc")], sha256);
    check("sha2", &[s("abc"), n(256)], sha256);
    assert!(fails("sha2", &[s("abc"), n(1)]).contains("1 bits do not exist"));
    for (name, digits) in [("sha224", 56), ("sha384", 96), ("sha512", 128)] {
        assert_eq!(value(name, &[s("abc")]).unwrap().len(), digits);
    }
}

#[test]
fn urls() {
    let url = "http://user@flink.apache.org:80/path/f.html?query=1&k=v#Ref";
    for (part, expected) in [
        ("HOST", "flink.apache.org"),
        ("PATH", "/path/f.html"),
        ("QUERY", "query=1&k=v"),
        ("REF", "Ref"),
        ("PROTOCOL", "http"),
        ("AUTHORITY", "user@flink.apache.org:80"),
        ("USERINFO", "user"),
        ("FILE", "/path/f.html?query=1&k=v"),
    ] {
        check("parse_url", &[s(url), s(part)], expected);
    }
    check("parse_url", &[s(url), s("QUERY"), s("k")], "v");
    check_null("parse_url", &[s(url), s("QUERY"), s("z")]);
    check_null("parse_url", &[s("no url"), s("HOST")]);
    check("url_encode", &[s("a b/ä")], "a+b%2F%C3%A4");
    check("url_decode", &[s("a+b%2F%C3%A4")], "a b/ä");
    check_null("url_decode", &[s("%4")]);
    check_null("url_decode", &[s("%+1")]);
}

#[test]
fn json() {
    let json = s(r#"{"a": {"b": [1, "x\ty"], "c": null}}"#);
    check("JSON_VALUE", &[json.clone(), s("$.a.b[0]")], "1");
    check("json_value", &[json.clone(), s("lax $.a.b[1]")], "x\ty");
    check_null("json_value", &[json.clone(), s("$.a.c")]);
    check_null("json_value", &[json.clone(), s("$.a")]);
    check_null("json_value", &[s("{broken"), s("$.a")]);
    check("json_query", &[json.clone(), s("$.a.b")], r#"[1, "x\ty"]"#);
    check_null("json_query", &[json.clone(), s("$.a.b[0]")]);
    check("json_exists", &[json.clone(), s("$.a.c")], "true");
    check("json_exists", &[json.clone(), s("$.z")], "false");
    check("is_json", &[s("[1]")], "true");
    check("is_json", &[s("[1")], "false");
    check("json_quote", &[s("a\"b")], r#""a\"b""#);
    check("json_unquote", &[s(r#""a\"b""#)], "a\"b");
    assert!(fails("json_value", &[json, s("$..a")]).contains("the path '$..a' is not supported"));
}

#[test]
fn collections() {
    check("cardinality", &[strings(&["a", "b"])], "2");
    check("element", &[strings(&["a"])], "a");
    check_null("element", &[strings(&[])]);
    check("str_to_map", &[s("a=1,b,a=2")], "{b: , a: 2}");
    check("str_to_map", &[s("a:1;b:2"), s(";"), s(":")], "{a: 1, b: 2}");
    check("array_contains", &[strings(&["a", "b"]), s("b")], "true");
    check("array_remove", &[strings(&["a", "b", "a"]), s("a")], "[b]");
    check("array_join", &[strings(&["a", "b"]), s("-")], "a-b");
    check("map_from_arrays", &[strings(&["k"]), strings(&["v"])], "{k: v}");
}

#[test]
fn conditions() {
    check("if", &[ScalarValue::from(true), n(1), n(2)], "1");
    check("if", &[ScalarValue::Boolean(None), n(1), n(2)], "2");
    check("ifnull", &[ScalarValue::Int64(None), n(2)], "2");
    check("coalesce", &[ScalarValue::Int64(None), ScalarValue::Int64(None), n(3)], "3");
    check("nvl2", &[ScalarValue::Int64(None), n(1), n(2)], "2");
    check_null("nullif", &[n(1), n(1)]);
    check("greatest", &[n(1), n(3), n(2)], "3");
    check_null("greatest", &[n(1), ScalarValue::Int64(None)]);
    check("least", &[s("b"), s("a")], "a");
    check("typeof", &[ts("2024-01-01T00:00:00")], "TIMESTAMP(3)");
}

#[test]
fn what_is_random_is_refused_with_a_reason() {
    for name in ["RAND", "uuid", "random", "rand_integer"] {
        let message = call(name, &[], false, &EvalContext::default()).unwrap_err().to_string();
        assert!(message.contains("not deterministic"), "{name}: {message}");
        assert!(!registry().scalar_names().contains(&name.to_lowercase()));
    }
}

#[test]
fn wrong_arguments_are_told_with_what_is_right() {
    assert_eq!(
        fails("split_index", &[n(1)]),
        "SPLIT_INDEX(BIGINT) does not exist; it is called as SPLIT_INDEX(string, string, integer) or \
         SPLIT_INDEX(string, integer, integer)"
    );
}

#[test]
fn functions_that_flink_means_otherwise_stay_reachable() {
    let theirs = datafusion_functions::unicode::substr();
    assert_ne!(registry().scalar("substr"), Some(theirs.clone()));
    assert_eq!(registry().identify(&theirs).as_deref(), Some("datafusion.substr"));
    assert_eq!(registry().scalar("datafusion.substr"), Some(theirs));
}

/// Names in the first column of the tables of `docs/functions.md`, with the heading that they stand under.
fn documented() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/functions.md")).unwrap();
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.to_owned();
        }
        let Some(cell) = line.strip_prefix("| ").and_then(|l| l.split(" | ").next()) else { continue };
        let names = cell.split(", ").filter_map(|n| n.strip_prefix('`')?.strip_suffix('`'));
        found.extend(names.map(|n| (section.clone(), n.to_owned())));
    }
    found
}

#[test]
fn every_documented_function_exists_and_every_function_is_documented() {
    let documented = documented();
    assert!(documented.len() > 200, "{}", documented.len());
    for (section, name) in &documented {
        let known = match section.as_str() {
            "Aggregates" => registry().aggregate(name).is_some(),
            "Refused" => registry().refused(name).is_some() || name == "GROUPING",
            _ => registry().scalar(name).is_some() && registry().refused(name).is_none(),
        };
        assert!(known, "{name} of the section {section} is not in the registry");
    }
    let named: Vec<String> = documented.iter().map(|(_, n)| n.to_lowercase()).collect();
    let names = registry().scalar_names().into_iter().chain(registry().aggregate_names());
    let missing: Vec<String> = names.filter(|n| !named.contains(n)).collect();
    assert!(missing.is_empty(), "not in docs/functions.md: {}", missing.join(" "));
}

#[test]
fn only_clocks_and_refused_functions_are_volatile() {
    let volatile = |name: &String| {
        let function = registry().scalar(name).unwrap();
        function.signature().volatility == datafusion_expr::Volatility::Volatile && !super::reads_clock(name, 0)
    };
    let found: Vec<String> = registry().scalar_names().into_iter().filter(volatile).collect();
    assert!(found.is_empty(), "a replay would differ: {found:?}");
}

#[test]
fn names_that_mean_something_else_are_stored_under_their_own() {
    let theirs = registry().scalar("list_remove").unwrap();
    assert_eq!(registry().identify(&theirs).as_deref(), Some("datafusion.array_remove"));
    check("list_remove", &[strings(&["a", "b", "a"]), s("a")], "[b, a]");
}

#[test]
fn what_would_be_too_long_is_not_made() {
    let refused = |name: &str, args: &[ScalarValue], columns: bool, ctx: &EvalContext| {
        call(name, args, columns, ctx).unwrap_err().to_string()
    };
    let (many, ctx) = (n(2_000_000_000), EvalContext::default());
    for columns in [false, true] {
        for (name, args) in [
            ("repeat", vec![s("x"), many.clone()]),
            ("lpad", vec![s("x"), many.clone(), s("y")]),
            ("rpad", vec![s("x"), many.clone(), s("y")]),
            ("array_repeat", vec![s("x"), many.clone()]),
            ("generate_series", vec![n(1), many.clone()]),
            ("range", vec![n(-1_000_000_000), n(1_000_000_000), n(2)]),
        ] {
            let refused = refused(name, &args, columns, &ctx);
            assert!(refused.contains(&format!("{} would make a value of", name.to_uppercase())), "{refused}");
        }
    }
    // 60 bytes for each of two rows.
    let ctx = EvalContext { column_bytes_max: 100, ..EvalContext::default() };
    let args = [s("ab"), n(30)];
    assert!(refused("repeat", &args, true, &ctx).contains("REPEAT would make values of 120 bytes for 3 rows"));
    assert_eq!(call("repeat", &args, false, &ctx).unwrap()[0].as_deref(), Some("ab".repeat(30).as_str()));
}

#[test]
fn a_length_below_nothing_has_no_result() {
    for name in ["lpad", "rpad"] {
        for columns in [false, true] {
            let padded =
                |length: i64| call(name, &[s("ab"), n(length), s("x")], columns, &EvalContext::default()).unwrap();
            assert_eq!((padded(-1)[0].as_deref(), padded(1)[0].as_deref()), (None, Some("a")), "{name} {columns}");
        }
    }
}
