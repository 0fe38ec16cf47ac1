//! Tests of the CSV decoder.

use arrow::array::{AsArray, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type};

use super::*;
use crate::format::block::{BlockRows, TextDecoder};

fn table() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Utf8, true),
        Field::new("c", DataType::Float64, true),
    ]))
}

fn decode(options: &CsvOptions, header: Option<&[u8]>, text: &str) -> BlockRows {
    TextDecoder::csv(&table(), &[0, 1], options, header).unwrap().decode(text.as_bytes(), 0, 100)
}

fn rows(options: &CsvOptions, text: &str) -> Vec<(Option<i32>, Option<String>)> {
    let decoded = decode(options, None, text);
    assert_eq!(decoded.fault, None, "{text}");
    let pairs = decoded.batches.iter().flat_map(|batch| {
        let numbers = batch.rows.column(0).as_primitive::<Int32Type>().iter();
        let texts: &StringArray = batch.rows.column(1).as_string();
        let texts: Vec<_> = texts.iter().map(|t| t.map(str::to_owned)).collect();
        numbers.zip(texts).collect::<Vec<_>>()
    });
    pairs.collect()
}

fn some(number: i32, text: &str) -> (Option<i32>, Option<String>) {
    (Some(number), Some(text.to_owned()))
}

#[test]
fn fields_quotes_and_line_ends() {
    let text = "1,x,0.5\r\n2,\"a,b\",1\n3,\"say \"\"hi\"\"\",\n\n4,\"two\nlines\",2\n 5 ,it's 5\" wide,3";
    let expected =
        [some(1, "x"), some(2, "a,b"), some(3, "say \"hi\""), some(4, "two\nlines"), some(5, "it's 5\" wide")];
    assert_eq!(rows(&CsvOptions::default(), text), expected);
    let decoded = decode(&CsvOptions::default(), None, text);
    assert_eq!(decoded.lines, 7);
}

#[test]
fn nulls_comments_escapes_and_delimiters() {
    let options = CsvOptions {
        delimiter: b';',
        quote: Some(b'\''),
        escape: Some(b'\\'),
        allow_comments: true,
        null_literal: Some("n/a".to_owned()),
        ..CsvOptions::default()
    };
    let text = "# it's a ;'comment\n1;'a\\'b';\nn/a;n/a;n/a\n2;'n/a';1\n;;\n3;x\\;y\\\\;1\n";
    let expected = [some(1, "a'b"), (None, None), some(2, "n/a"), (None, Some(String::new())), some(3, "x;y\\")];
    assert_eq!(rows(&options, text), expected);
    let unquoted = CsvOptions { quote: None, ..CsvOptions::default() };
    assert_eq!(rows(&unquoted, "1,\"x\",2\n"), [some(1, "\"x\"")]);
}

#[test]
fn a_header_names_the_fields() {
    let options = CsvOptions { header: true, ..CsvOptions::default() };
    let decoded = decode(&options, Some(b"b, \"z\" ,a\r"), "x,9,1\n");
    assert_eq!(decoded.fault, None);
    assert_eq!(decoded.batches[0].rows.column(0).as_primitive::<Int32Type>().values(), &[1]);
    assert_eq!(decoded.batches[0].rows.column(1).as_string::<i32>().value(0), "x");
    let error = TextDecoder::csv(&table(), &[0], &options, Some(b"x,y")).err().unwrap();
    assert_eq!(error, "the header has no field 'a'; it has x, y");
}

#[test]
fn broken_records_are_named() {
    for (text, reason) in [
        ("1,x\n", "the record has 2 fields, 3 are expected"),
        ("1,x,2,3\n", "the record has more than 3 fields"),
        ("1,\"x\"y,2\n", "there is text between the closing quote of a field and the delimiter"),
        ("1,\"x,2\n", "a quoted field that begins here has no closing quote"),
        ("x,y,2\n", "column 'a': expected INT, found the text 'x'"),
    ] {
        assert_eq!(decode(&CsvOptions::default(), None, text).fault.unwrap().reason, reason, "{text}");
    }
    let options = CsvOptions { ignore_parse_errors: true, ..CsvOptions::default() };
    let decoded = decode(&options, None, "x,y,1\n1,y,1\n1\n");
    assert_eq!((decoded.rejected(), decoded.batches[0].rows.num_rows()), (2, 1));
}

#[test]
fn the_last_record_end_is_never_inside_of_quotes() {
    let dialect = CsvDialect::new(&CsvOptions::default());
    let text = b"a,b\n\"x\ny\",\"p\"\"\n\"\"q\"\n5\",\"\n\"z\n";
    let ends: Vec<usize> = (0..=text.len()).map(|length| dialect.last_record_end(&text[..length])).collect();
    // The quote after the 5 opens no field, since it is not the first byte of one.
    let expected: Vec<usize> =
        (0..=text.len()).map(|length| [28, 20, 4, 0].into_iter().find(|&end| end <= length).unwrap()).collect();
    assert_eq!(ends, expected);
}

#[test]
fn nested_types_are_refused() {
    let schema = Arc::new(Schema::new(vec![Field::new(
        "r",
        DataType::Struct(vec![Field::new("x", DataType::Int32, true)].into()),
        true,
    )]));
    let error = TextDecoder::csv(&schema, &[0], &CsvOptions::default(), None).err().unwrap();
    assert_eq!(error, "column 'r': csv cannot hold the type ROW");
}
