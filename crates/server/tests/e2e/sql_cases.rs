//! The SQL corpus: `tests/sql/*.slt`, in the format of sqllogictest. See `tests/sql/README.md`.

use std::fmt::Write as _;
use std::path::Path;

use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};

use crate::engines::{BATCH_FORM, CaseError, Engines};

#[async_trait]
#[expect(clippy::print_stdout, reason = "tells how far the test is")]
impl AsyncDB for Engines {
    type Error = CaseError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, CaseError> {
        let first = sql.split_whitespace().next().unwrap_or_default().to_uppercase();
        let rows = match first.as_str() {
            "CREATE" if sql.to_uppercase().starts_with("CREATE TABLE") => {
                self.create_table(sql).await?;
                return Ok(DBOutput::StatementComplete(0));
            }
            "CREATE" => {
                self.collect(sql.split(BATCH_FORM).last().unwrap_or(sql)).await?;
                let _ = writeln!(self.preamble, "{};", sql.split(BATCH_FORM).next().unwrap_or(sql));
                return Ok(DBOutput::StatementComplete(0));
            }
            "SET" => {
                let _ = writeln!(self.preamble, "{sql};");
                return Ok(DBOutput::StatementComplete(0));
            }
            "INSERT" if sql.to_uppercase().contains(" VALUES") => {
                self.collect(sql).await?;
                return Ok(DBOutput::StatementComplete(0));
            }
            "EXPLAIN" => self.explain(sql)?,
            _ => self.query(sql).await?,
        };
        let width = rows.first().map_or(1, Vec::len);
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; width], rows })
    }

    async fn shutdown(&mut self) {
        println!("    {} queries, {} of them killed and resumed", self.queries, self.kills);
    }
}

/// Only some files: `MAINSTEM_SQL=joins`. Writes what queries give into the files instead of comparing with
/// `MAINSTEM_SQL_COMPLETE=1`; look at the difference before it is kept.
#[tokio::test(flavor = "multi_thread")]
async fn sql_cases() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    let wanted = std::env::var("MAINSTEM_SQL").unwrap_or_default();
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        file.extension().is_some_and(|e| e == "slt") && file.file_stem().unwrap().to_str().unwrap().contains(&wanted)
    });
    files.sort();
    let mut mistakes = Vec::new();
    for file in &files {
        println!("{}", file.file_name().unwrap().to_str().unwrap());
        let mut runner = Runner::new(|| async { Ok::<_, CaseError>(Engines::new()) });
        let done = match std::env::var_os("MAINSTEM_SQL_COMPLETE") {
            Some(_) => {
                let updated = runner.update_test_file(
                    file,
                    " ",
                    sqllogictest::default_validator,
                    sqllogictest::default_normalizer,
                    sqllogictest::default_column_validator,
                );
                updated.await.map_err(|error| error.to_string())
            }
            None => runner.run_file_async(file).await.map_err(|error| error.display(false).to_string()),
        };
        runner.shutdown_async().await;
        mistakes.extend(done.err());
    }
    assert!(!files.is_empty(), "no file of cases is named '{wanted}'");
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n\n"));
}
