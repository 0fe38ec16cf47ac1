//! Folds the changes that a job has written to the rows that are there at the end, and fails where a row is taken
//! away that is not there: that is what makes a changelog more than its last state.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::visible_files;

/// The rows of a table, as a changelog leaves them. A row is its text: compact JSON with sorted keys, or what stands
/// in the brackets of a printed row.
#[derive(Debug, Default)]
pub(crate) struct ChangelogFold {
    rows: BTreeMap<String, usize>,
    /// The row of each key, where the changelog is by key.
    by_key: BTreeMap<String, String>,
}

impl ChangelogFold {
    /// Folds what a job has written below a directory as `'format' = 'debezium-json'`, epoch by epoch.
    pub(crate) fn debezium(directory: &Path) -> Result<ChangelogFold, String> {
        ChangelogFold::files(directory, ChangelogFold::envelope)
    }

    /// Folds what a job has written below a directory as `'format' = 'upsert-json'`, epoch by epoch.
    pub(crate) fn upserts(directory: &Path) -> Result<ChangelogFold, String> {
        ChangelogFold::files(directory, ChangelogFold::upsert)
    }

    /// Folds what `print` has printed in the style `row` or `json`; `prefix` stands before each row.
    pub(crate) fn printed(text: &str, prefix: &str) -> Result<ChangelogFold, String> {
        let mut fold = ChangelogFold::default();
        for line in text.lines() {
            let line = line.strip_prefix(prefix).ok_or_else(|| format!("'{prefix}' is missing in: {line}"))?;
            fold.printed_row(line)?;
        }
        Ok(fold)
    }

    /// Takes the changes of one file of `'format' = 'debezium-json'`.
    pub(crate) fn take_envelopes(&mut self, file: &Path) -> Result<(), String> {
        self.file(file, ChangelogFold::envelope)
    }

    /// Takes the changes of one file of `'format' = 'upsert-json'`.
    pub(crate) fn take_upserts(&mut self, file: &Path) -> Result<(), String> {
        self.file(file, ChangelogFold::upsert)
    }

    fn files(
        directory: &Path,
        apply: impl Fn(&mut ChangelogFold, &str) -> Result<(), String>,
    ) -> Result<ChangelogFold, String> {
        let mut files = visible_files(directory);
        files.sort_by_key(|file| order(file));
        let mut fold = ChangelogFold::default();
        for file in files {
            fold.file(&file, &apply)?;
        }
        Ok(fold)
    }

    fn file(
        &mut self,
        file: &Path,
        apply: impl Fn(&mut ChangelogFold, &str) -> Result<(), String>,
    ) -> Result<(), String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        for (number, line) in text.lines().enumerate() {
            apply(self, line).map_err(|error| format!("{}, line {}: {error}", file.display(), number + 1))?;
        }
        Ok(())
    }

    /// How often each row is there.
    pub(crate) fn rows(&self) -> BTreeMap<String, usize> {
        let mut rows = self.rows.clone();
        for row in self.by_key.values() {
            *rows.entry(row.clone()).or_default() += 1;
        }
        rows
    }

    /// Takes one change: a row is added, or taken away.
    pub(crate) fn change(&mut self, addition: bool, row: String) -> Result<(), String> {
        if addition {
            *self.rows.entry(row).or_default() += 1;
            return Ok(());
        }
        match self.rows.get_mut(&row) {
            None => Err(format!("a row is taken away that is not there: {row}")),
            Some(1) => {
                self.rows.remove(&row);
                Ok(())
            }
            Some(count) => {
                *count -= 1;
                Ok(())
            }
        }
    }

    fn envelope(&mut self, line: &str) -> Result<(), String> {
        let envelope = parse(line)?;
        let row = |side: &str| match envelope.get(side) {
            None | Some(Value::Null) => Err(format!("'{side}' is missing in: {line}")),
            Some(row) => Ok(row.to_string()),
        };
        match envelope.get("op").and_then(Value::as_str) {
            Some("c" | "r") => self.change(true, row("after")?),
            Some("d") => self.change(false, row("before")?),
            Some("u") => {
                self.change(false, row("before")?)?;
                self.change(true, row("after")?)
            }
            _ => Err(format!("'op' is unknown in: {line}")),
        }
    }

    fn upsert(&mut self, line: &str) -> Result<(), String> {
        let record = parse(line)?;
        let key = record.get("key").ok_or_else(|| format!("'key' is missing in: {line}"))?.to_string();
        match record.get("value") {
            None => Err(format!("'value' is missing in: {line}")),
            Some(Value::Null) => match self.by_key.remove(&key) {
                None => Err(format!("a key is taken away that is not there: {key}")),
                Some(_) => Ok(()),
            },
            Some(row) => {
                self.by_key.insert(key, row.to_string());
                Ok(())
            }
        }
    }

    fn printed_row(&mut self, line: &str) -> Result<(), String> {
        let addition = |op: &str| match op {
            "+I" | "+U" => Ok(true),
            "-U" | "-D" => Ok(false),
            _ => Err(format!("no kind of change stands before: {line}")),
        };
        if line.starts_with('{') {
            let mut row = parse(line)?;
            let op = row.as_object_mut().and_then(|row| row.remove("op"));
            let op = op.as_ref().and_then(Value::as_str).unwrap_or("+I");
            return self.change(addition(op)?, row.to_string());
        }
        let (op, row) = line.split_at_checked(2).ok_or_else(|| format!("no row: {line}"))?;
        let row = row.strip_prefix('[').and_then(|row| row.strip_suffix(']'));
        self.change(addition(op)?, row.ok_or_else(|| format!("no row: {line}"))?.to_owned())
    }
}

/// The files that a job has written below a directory, by epoch, in the order in which their changes were made.
pub(crate) fn files_by_epoch(directory: &Path) -> BTreeMap<u64, Vec<PathBuf>> {
    let mut files = visible_files(directory);
    files.sort_by_key(|file| order(file));
    let mut epochs = BTreeMap::<u64, Vec<PathBuf>>::new();
    for file in files {
        epochs.entry(order(&file).0).or_default().push(file);
    }
    epochs
}

fn parse(line: &str) -> Result<Value, String> {
    serde_json::from_str(line).map_err(|error| format!("{error} in: {line}"))
}

/// Epoch, subtask and number of a file that a job has written, `part-JOB-OPERATOR-gGENERATION-SUBTASK-EPOCH-NUMBER`:
/// in this order the changes of each row come as they were made.
fn order(file: &Path) -> (u64, u64, u64, PathBuf) {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let stem = name.split('.').next().unwrap_or_default();
    let mut numbers = stem.rsplit('-').map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let (number, epoch, subtask) = (next(), next(), next());
    (epoch, subtask, number, file.to_owned())
}

#[test]
fn envelopes_fold_to_the_rows_that_are_left() {
    let sandbox = super::Sandbox::new("");
    // By name, the file of epoch 10 comes before that of epoch 9.
    sandbox.write(
        "out/part-j-op1-g1-0-9-0.json",
        "{\"before\":null,\"after\":{\"b\":2,\"a\":1},\"op\":\"c\"}\n{\"after\":{\"a\":1,\"b\":2},\"op\":\"r\"}\n",
    );
    sandbox.write(
        "out/part-j-op1-g2-0-10-0.json",
        "{\"before\":{\"a\":1,\"b\":2},\"after\":{\"a\":3},\"op\":\"u\"}\n{\"before\":{\"a\":3},\"after\":null,\"op\":\"d\"}\n",
    );
    let fold = ChangelogFold::debezium(&sandbox.path("out")).unwrap();
    assert_eq!(fold.rows(), BTreeMap::from([("{\"a\":1,\"b\":2}".to_owned(), 1)]));
    sandbox.write("out/part-j-op1-g2-1-10-0.json", "{\"before\":{\"a\":9},\"after\":null,\"op\":\"d\"}\n");
    let error = ChangelogFold::debezium(&sandbox.path("out")).unwrap_err();
    assert!(error.ends_with("line 1: a row is taken away that is not there: {\"a\":9}"), "{error}");
}

#[test]
fn upserts_fold_by_key() {
    let sandbox = super::Sandbox::new("");
    let [first, second, gone] = [
        r#"{"key":{"a":1},"value":{"a":1,"b":2}}"#,
        r#"{"key":{"a":1},"value":{"a":1,"b":3}}"#,
        r#"{"key":{"a":1},"value":null}"#,
    ];
    let fold = |lines: &[&str]| {
        sandbox.write("out/part-j-op1-g1-0-1-0.json", lines.join("\n"));
        ChangelogFold::upserts(&sandbox.path("out")).map(|fold| fold.rows())
    };
    assert_eq!(fold(&[first, second]).unwrap(), BTreeMap::from([("{\"a\":1,\"b\":3}".to_owned(), 1)]));
    assert_eq!(fold(&[first, second, gone]).unwrap(), BTreeMap::new());
    assert!(fold(&[first, gone, gone]).unwrap_err().ends_with("a key is taken away that is not there: {\"a\":1}"));
}

#[test]
fn printed_rows_fold() {
    let fold =
        ChangelogFold::printed("x> +I[1, a]\nx> -U[1, a]\nx> +U[1, b]\nx> +I[2, c]\nx> -D[2, c]", "x> ").unwrap();
    assert_eq!(fold.rows(), BTreeMap::from([("1, b".to_owned(), 1)]));
    let fold = ChangelogFold::printed("{\"op\":\"+I\",\"n\":1}\n{\"op\":\"-U\",\"n\":1}\n{\"op\":\"+U\",\"n\":2}", "");
    assert_eq!(fold.unwrap().rows(), BTreeMap::from([("{\"n\":2}".to_owned(), 1)]));
    assert!(ChangelogFold::printed("-U[1]", "").is_err());
    assert!(ChangelogFold::printed("1 | 2", "").is_err());
}
