//! The job that feeds dead letters back: the rows of a table that holds some, maybe corrected ones, are written as they are
//! to where the table that they were read for reads. Called by the command `replay-dead-letters`. It is a job like any other,
//! so it has its exactly-once.

use mainstem_connectors::{BAD_RECORDS_TABLE, METADATA_KEY};
use mainstem_plan::operator::DeadLetterColumn;
use mainstem_plan::sql_type_name;

use crate::catalog::{Catalog, Relation, Table};
use crate::error::{At, ErrorCode, SqlError};
use crate::statement::{CreateTable, Statement, StatementKind, TableOption};

/// Name of the table that stands for where records go back to.
const BACK: &str = "replayed records";

/// What is to be fed back.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// The table with the letters.
    pub from: &'a str,
    /// The table that they were read for; absent where only one names `from` as its `'bad-records.table'`.
    pub to: Option<&'a str>,
}

/// Bounds what a topic with letters gives: what is there when the job begins.
pub(crate) fn bound(create: &mut CreateTable, replay: &Replay<'_>) {
    let is_kafka = create.options.iter().any(|option| option.key == "connector" && option.value == "kafka");
    if !is_kafka || create.name.value != replay.from {
        return;
    }
    for (key, value) in [("scan.startup.mode", "earliest-offset"), ("scan.bounded.mode", "latest-offset")] {
        if !create.options.iter().any(|option| option.key == key) {
            let (key, value) = (key.to_owned(), value.to_owned());
            create.options.push(TableOption { at: create.name.span.into(), key, value });
        }
    }
}

/// The statements that feed letters back, behind the tables of the file.
pub(crate) fn statements(catalog: &Catalog, replay: &Replay<'_>) -> Result<Vec<Statement>, SqlError> {
    let from = table(catalog, replay.from)?;
    let to = match replay.to {
        Some(name) => table(catalog, name)?,
        None => only_source(catalog, &from.spec.name)?,
    };
    let letters = &from.spec.name;
    let column = |column: DeadLetterColumn| from.schema.index_of(column.name()).ok();
    let Some(raw) = column(DeadLetterColumn::Raw) else {
        let message = format!("table '{letters}' has no column 'raw', so there is nothing to feed back");
        return Err(SqlError::new(ErrorCode::Name, from.at, message));
    };
    let (options, takes_key) = back_options(to)?;
    let key = column(DeadLetterColumn::RawKey).filter(|_| takes_key);
    let mut columns = vec![("raw", raw)];
    columns.extend(key.map(|key| ("raw_key", key)));
    let declared = columns
        .iter()
        .map(|(name, index)| format!("`{name}` {}", sql_type_name(from.schema.field(*index).data_type())));
    let declared = declared.collect::<Vec<_>>().join(", ");
    let mut options = options;
    if takes_key && key.is_some() {
        options.extend([
            ("key.format".to_owned(), "raw".to_owned()),
            ("key.fields".to_owned(), "raw_key".to_owned()),
            ("value.fields-include".to_owned(), "EXCEPT_KEY".to_owned()),
        ]);
    }
    let options: Vec<String> =
        options.iter().map(|(key, value)| format!("{} = {}", quoted(key), quoted(value))).collect();
    let names: Vec<String> = columns.iter().map(|(name, _)| format!("`{name}`")).collect();
    let mut filter = "`raw` IS NOT NULL".to_owned();
    if column(DeadLetterColumn::Source).is_some() {
        filter += &format!(" AND `source` = {}", quoted(&to.spec.name));
    }
    let sql = format!(
        "CREATE TABLE `{BACK}` ({declared}) WITH ({}); INSERT INTO `{BACK}` SELECT {} FROM `{letters}` WHERE {filter}",
        options.join(", "),
        names.join(", ")
    );
    let mut statements = crate::statement::parse(&sql)?;
    // Their text is not the user's.
    statements.iter_mut().for_each(|statement| statement.at = from.at);
    Ok(statements)
}

/// Whether a statement of the file counts: tables and settings do, what it runs does not.
pub(crate) fn counts(statement: &Statement) -> bool {
    !matches!(statement.kind, StatementKind::Output { .. } | StatementKind::ExplainGuarantees)
}

fn table<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a Table, SqlError> {
    match catalog.find(&datafusion_sql::sqlparser::ast::Ident::new(name))? {
        (_, Relation::Table(table)) => Ok(table.as_ref()),
        (known, Relation::View(_)) => {
            Err(SqlError::new(ErrorCode::Name, At::NOWHERE, format!("'{known}' is a view; a table is needed")))
        }
    }
}

fn only_source<'a>(catalog: &'a Catalog, letters: &str) -> Result<&'a Table, SqlError> {
    let names = |table: &&Table| {
        table.spec.options.get(BAD_RECORDS_TABLE).is_some_and(|name| name.eq_ignore_ascii_case(letters))
    };
    let found: Vec<&Table> = catalog.tables().filter(names).collect();
    match found.as_slice() {
        [only] => Ok(*only),
        several => {
            let names: Vec<&str> = several.iter().map(|table| table.spec.name.as_str()).collect();
            let which = if names.is_empty() { "none does".to_owned() } else { names.join(", ") };
            let message = format!(
                "not one table alone has '{BAD_RECORDS_TABLE}' = '{letters}' ({which}): say where the records go back to with --to TABLE"
            );
            Err(SqlError::new(ErrorCode::Name, At::NOWHERE, message))
        }
    }
}

/// The options of a table that writes where another reads, and whether it can write keys.
fn back_options(to: &Table) -> Result<(Vec<(String, String)>, bool), SqlError> {
    let name = &to.spec.name;
    let refused = |key: &str, why: &str| {
        let message = format!("records cannot be fed back to table '{name}': {why}");
        Err(SqlError::new(ErrorCode::Option, to.option_at(key), message))
    };
    let option = |key: &str| to.spec.options.get(key).map(String::as_str);
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    match option("connector") {
        Some("kafka" | "upsert-kafka") => {
            let topic = match option("topic") {
                Some(topic) if !topic.contains(';') => topic,
                _ => return refused("topic", "it does not read one topic alone"),
            };
            let mut options = vec![pair("connector", "kafka"), pair("topic", topic), pair("value.format", "raw")];
            let properties = to.spec.options.iter().filter(|(key, _)| key.starts_with("properties."));
            let of_readers = ["properties.group.id", "properties.auto.offset.reset", "properties.isolation.level"];
            let properties = properties.filter(|(key, _)| !of_readers.contains(&key.as_str()));
            options.extend(properties.map(|(key, value)| pair(key, value)));
            let metadata = to.spec.schema.fields().iter().filter(|field| field.metadata().contains_key(METADATA_KEY));
            // Headers and times of the message are not in a letter.
            if metadata.filter(|field| field.metadata()[METADATA_KEY] == "headers").count() > 0 {
                return refused("connector", "it reads headers, which dead letters do not hold");
            }
            Ok((options, true))
        }
        Some("filesystem") => {
            let path = option("path").unwrap_or_default();
            if path.contains(['*', '?', '[']) {
                return refused("path", "its 'path' is a glob; records go back to a directory");
            }
            if option("csv.header").is_some_and(|header| header.trim() == "true") {
                return refused("csv.header", "its files begin with a header, which a file of single records does not");
            }
            if option("format").is_some_and(|format| format.eq_ignore_ascii_case("parquet")) {
                return refused("format", "dead letters of Parquet have no bytes");
            }
            if option("compression").is_some_and(|word| !matches!(word, "auto" | "none")) {
                return refused(
                    "compression",
                    "its files are packed; set 'compression' = 'auto', which looks at each name",
                );
            }
            Ok((vec![pair("connector", "filesystem"), pair("path", path), pair("format", "raw")], false))
        }
        _ => refused("connector", "only those of 'kafka', 'upsert-kafka' and 'filesystem' can be written to"),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
