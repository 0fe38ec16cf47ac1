//! Tests of the statement parser.

use arrow::datatypes::{DataType, TimeUnit};

use super::create_table::MetadataDefinition;
use super::*;

fn one(sql: &str) -> StatementKind {
    let mut statements = parse(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
    assert_eq!(statements.len(), 1, "{sql}");
    statements.remove(0).kind
}

fn table(columns: &str) -> CreateTable {
    match one(&format!("CREATE TABLE t ({columns}) WITH ('connector' = 'print')")) {
        StatementKind::CreateTable(table) => *table,
        other => panic!("{other:?}"),
    }
}

fn error(sql: &str) -> String {
    parse(sql).expect_err(sql).to_string()
}

fn type_of(text: &str) -> (DataType, bool) {
    match table(&format!("c {text}")).columns.remove(0).kind {
        ColumnKind::Physical { data_type, nullable } => (data_type, nullable),
        ColumnKind::Computed(_) => panic!("{text}"),
    }
}

#[test]
fn types_are_those_that_connectors_know() {
    let cases = [
        ("BOOLEAN", "BOOLEAN"),
        ("TINYINT", "TINYINT"),
        ("SMALLINT", "SMALLINT"),
        ("INT", "INT"),
        ("INTEGER", "INT"),
        ("BIGINT", "BIGINT"),
        ("FLOAT", "FLOAT"),
        ("DOUBLE", "DOUBLE"),
        ("DOUBLE PRECISION", "DOUBLE"),
        ("DECIMAL", "DECIMAL(10, 0)"),
        ("DECIMAL(5, 2)", "DECIMAL(5, 2)"),
        ("CHAR(3)", "STRING"),
        ("VARCHAR(100)", "STRING"),
        ("VARCHAR", "STRING"),
        ("STRING", "STRING"),
        ("BYTES", "BYTES"),
        ("VARBINARY(8)", "BYTES"),
        ("DATE", "DATE"),
        ("TIME", "TIME(3)"),
        ("TIMESTAMP", "TIMESTAMP(6)"),
        ("TIMESTAMP(3)", "TIMESTAMP(3)"),
        ("TIMESTAMP(9) WITHOUT TIME ZONE", "TIMESTAMP(9)"),
        ("TIMESTAMP(3) WITH LOCAL TIME ZONE", "TIMESTAMP_LTZ(3)"),
        ("TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(3)"),
        ("TIMESTAMP_LTZ", "TIMESTAMP_LTZ(6)"),
        ("ARRAY<ARRAY<INT>>", "ARRAY<ARRAY<INT>>"),
        ("MAP<STRING, ARRAY<BIGINT>>", "MAP<STRING, ARRAY<BIGINT>>"),
        ("ROW<a INT, b ROW<c STRING, d ARRAY<DOUBLE>>>", "ROW<a INT, b ROW<c STRING, d ARRAY<DOUBLE>>>"),
        ("ROW(a INT COMMENT 'x', `b c` STRING NOT NULL)", "ROW<a INT, b c STRING>"),
    ];
    for (text, shown) in cases {
        assert_eq!(mainstem_plan::sql_type_name(&type_of(text).0), shown, "{text}");
    }
    assert_eq!(type_of("TIMESTAMP(3)").0, DataType::Timestamp(TimeUnit::Millisecond, None));
    assert!(type_of("INT").1);
    assert!(!type_of("INT NOT NULL COMMENT 'x'").1);
    assert!(!type_of("INT PRIMARY KEY NOT ENFORCED").1);
}

#[test]
fn types_that_do_not_exist_are_refused_with_their_place() {
    let refused = |text: &str| error(&format!("CREATE TABLE t (a INT,\n  c {text})"));
    assert!(refused("NUMBER").starts_with("line 2, column 5: the type 'NUMBER' is unknown; known are BOOLEAN"));
    assert_eq!(
        refused("DECIMAL(50, 2)"),
        "line 2, column 5: DECIMAL(50, 2) is out of range: the precision is 1 to 38, the scale 0 to the precision"
    );
    assert_eq!(
        refused("TIMESTAMP(3) WITH TIME ZONE"),
        "line 2, column 5: TIMESTAMP WITH TIME ZONE is not supported; TIMESTAMP WITH LOCAL TIME ZONE is"
    );
    assert_eq!(refused("ROW<a INT, a INT>"), "line 2, column 16: the field 'a' appears twice in this ROW");
    assert_eq!(refused("MULTISET<INT>"), "line 2, column 5: columns of type MULTISET are not supported");
    assert!(refused(&"ARRAY<".repeat(60)).contains("nested 32 deep at most"));
}

#[test]
fn tables_have_all_of_flinks_parts() {
    let sql = "CREATE TEMPORARY TABLE IF NOT EXISTS `my table` (\n  id BIGINT, -- a comment\n  ts TIMESTAMP(3) COMMENT 'when', day AS DATE_FORMAT(ts, 'dd') COMMENT 'x',\n  \
               WATERMARK FOR ts AS ts - INTERVAL '5' SECOND,\n  CONSTRAINT pk PRIMARY KEY (id) NOT ENFORCED\n) COMMENT 'all' PARTITIONED BY (day) WITH ('a' = '1', 'b.c' = '2''3')";
    let StatementKind::CreateTable(table) = one(sql) else { panic!() };
    assert_eq!(table.name.value, "my table");
    assert!(table.if_not_exists);
    assert_eq!(table.columns.iter().map(|column| column.name.value.as_str()).collect::<Vec<_>>(), ["id", "ts", "day"]);
    assert!(
        matches!(&table.columns[2].kind, ColumnKind::Computed(expr) if expr.to_string() == "DATE_FORMAT(ts, 'dd')")
    );
    assert_eq!(table.watermark.as_ref().map(|watermark| watermark.column.value.as_str()), Some("ts"));
    assert_eq!(table.primary_key[0].value, "id");
    assert_eq!(table.partition_keys[0].value, "day");
    assert_eq!(table.options[1].value, "2'3");
}

#[test]
fn metadata_columns_have_the_name_of_the_metadata_unless_another_is_given() {
    let sql = "CREATE TABLE t (a INT METADATA, b STRING NOT NULL METADATA FROM 'topic' VIRTUAL, c INT)";
    let StatementKind::CreateTable(table) = one(sql) else { panic!() };
    let metadata: Vec<_> = table.columns.iter().map(|column| column.metadata.clone()).collect();
    let definition = |key: &str, is_virtual| Some(MetadataDefinition { key: key.to_owned(), is_virtual });
    assert_eq!(metadata, [definition("a", false), definition("topic", true), None]);
}

#[test]
fn table_parts_that_are_not_there_are_refused() {
    let refused = |text: &str| error(&format!("CREATE TABLE t {text}"));
    assert!(refused("(a INT METADATA FROM x)").contains("line 1"));
    assert_eq!(
        refused("(a INT, PRIMARY KEY (a))"),
        "line 1, column 24: a PRIMARY KEY is not checked against the data; write PRIMARY KEY (...) NOT ENFORCED"
    );
    assert!(refused("AS SELECT 1").starts_with("line 1, column 16: CREATE TABLE ... AS SELECT is not supported"));
    assert_eq!(refused("(a INT) WITH ('x' = '1', 'x' = '2')"), "line 1, column 41: the option 'x' is given twice");
    assert_eq!(
        refused("(a INT) WITH (x = '1')"),
        "line 1, column 30: expected an option's name in single quotes, found 'x'"
    );
    assert!(refused("(a INT DEFAULT 3)").contains("'DEFAULT' is not supported in the declaration of column 'a'"));
    assert!(refused("(a INT, WATERMARK FOR a.b AS a)").contains("not a nested field"));
}

#[test]
fn settings_may_be_quoted_or_not() {
    for sql in ["SET 'a.b-c' = '10 s'", "set a.b-c = 10 s;", "SET a.b-c='10 s'"] {
        let StatementKind::Set { key, value } = one(sql) else { panic!("{sql}") };
        assert_eq!((key.as_str(), value.as_str()), ("a.b-c", "10 s"), "{sql}");
    }
    assert!(error("SET;").contains("SET needs a key and a value"));
}

#[test]
fn statement_sets_are_several_inserts() {
    let inner = "INSERT INTO a SELECT 1 FROM t; INSERT INTO b (x, y) SELECT 2 FROM t;";
    for sql in [format!("EXECUTE STATEMENT SET BEGIN {inner} END;"), format!("BEGIN STATEMENT SET; {inner} END;")] {
        let statements = parse(&sql).unwrap();
        assert_eq!(statements.len(), 2, "{sql}");
        let StatementKind::Output { target: Some(target), explain: Explain::Nothing, .. } = &statements[1].kind else {
            panic!()
        };
        assert_eq!((target.table.value.as_str(), target.columns.len()), ("b", 2));
    }
    assert_eq!(
        error("EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1 FROM t;"),
        "line 1, column 1: this statement set has no END"
    );
}

#[test]
fn explain_takes_queries() {
    for sql in [
        "EXPLAIN SELECT 1 FROM t",
        "EXPLAIN PLAN FOR INSERT INTO a SELECT 1 FROM t",
        "EXPLAIN STATEMENT SET BEGIN INSERT INTO a SELECT 1 FROM t; END",
    ] {
        assert!(matches!(one(sql), StatementKind::Output { explain: Explain::Plan, .. }), "{sql}");
    }
    assert!(error("EXPLAIN CREATE TABLE t (a INT)").contains("EXPLAIN takes a SELECT or an INSERT"));
}

#[test]
fn statements_that_are_not_there_are_refused() {
    assert_eq!(
        error("\n  DROP TABLE t"),
        "line 2, column 3: DROP is not supported: a file declares the tables of one job; change the declaration instead"
    );
    for sql in [
        "SHOW TABLES",
        "DESCRIBE t",
        "RESET 'x'",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "USE CATALOG c",
        "VALUES (1)",
        "ALTER TABLE t RENAME TO u",
    ] {
        assert!(error(sql).contains(" is not supported: "), "{sql}");
    }
    assert!(error("INSERT OVERWRITE t SELECT 1").starts_with("line 1, column 1: INSERT OVERWRITE is not supported"));
    assert!(error("CREATE FUNCTION f AS 'x'").contains("CREATE FUNCTION is not supported"));
    assert!(error("CREATE OR REPLACE VIEW v AS SELECT 1").contains("CREATE OR REPLACE is not supported"));
    assert!(error("INSERT INTO c.d.t SELECT 1").contains("has several parts"));
    assert!(error("SELEKT 1").contains("'SELEKT' begins no statement"));
    assert!(
        error("SELECT a FROM t SELECT b").starts_with("line 1, column 17: expected ';' or the end of the statement")
    );
}

#[test]
fn hints_are_not_taken_for_comments() {
    assert!(parse("SELECT /* a comment */ 1 FROM t -- another\n").is_ok());
    assert!(
        error("SELECT 1 FROM t /*+ BROADCAST(t) */")
            .starts_with("line 1, column 17: a hint (/*+ ... */) stands right behind SELECT")
    );
}

#[test]
fn long_and_deep_texts_are_refused() {
    assert!(error(&" ".repeat(SQL_BYTES_MAX + 1)).contains("at most 1048576 are accepted"));
    assert!(error(&format!("SELECT {} FROM t", "1,".repeat(TOKENS_MAX))).contains("more than 100000 words and signs"));
    let deep = format!("SELECT {}1{} FROM t", "(".repeat(5_000), ")".repeat(5_000));
    assert!(error(&deep).contains("nested too deeply"), "{}", error(&deep));
}
