//! Random tables: few values, so that keys meet, NULLs everywhere, and times that are out of order by less than the
//! watermark allows.

use super::choices::Choices;

/// Of values and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Integer,
    Text,
    Double,
    Boolean,
    Decimal,
    Date,
    Timestamp,
    /// A number that depends on the order of its terms in its last digits: it is shown, and nothing else.
    Inexact,
}

impl Type {
    /// Those of which values are made.
    pub(crate) const ALL: [Type; 7] =
        [Type::Integer, Type::Text, Type::Double, Type::Boolean, Type::Decimal, Type::Date, Type::Timestamp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::Integer => "BIGINT",
            Type::Text => "STRING",
            Type::Double | Type::Inexact => "DOUBLE",
            Type::Boolean => "BOOLEAN",
            Type::Decimal => "DECIMAL(10, 2)",
            Type::Date => "DATE",
            Type::Timestamp => "TIMESTAMP(3)",
        }
    }
}

/// Whether a column is its relation's event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventTime {
    No,
    /// Several rows may come at once.
    Ties,
    Unique,
}

#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) data_type: Type,
    pub(crate) time: EventTime,
}

impl Column {
    /// A column that is not event time.
    pub(crate) fn new(name: impl Into<String>, data_type: Type) -> Column {
        Column { name: name.into(), data_type, time: EventTime::No }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// Each row as `(value, ...)`.
    pub(crate) rows: Vec<String>,
}

/// Rows are out of order by less than this.
const DELAY_MS: usize = 4000;

impl Table {
    fn random(choices: &mut Choices, name: String, time: EventTime) -> Table {
        let mut columns = vec![Column::new("id", Type::Integer)];
        for column in 0..choices.between(2, 5) {
            let data_type = choices.of(&Type::ALL);
            columns.push(Column::new(format!("c{column}"), data_type));
        }
        if time != EventTime::No {
            columns.push(Column { name: "ts".to_owned(), data_type: Type::Timestamp, time });
        }
        let mut times = Times { clock_ms: 0, unique: time == EventTime::Unique, given: Vec::new() };
        let count = choices.weighted(&[(1, 0), (2, 8), (12, 40)]);
        let count = choices.between(count / 2, count);
        let rows = (0..count).map(|id| row(choices, id, &columns, &mut times)).collect();
        Table { name, columns, rows }
    }

    /// `CREATE TABLE` and `INSERT`; none without rows.
    pub(crate) fn statements(&self) -> (String, Option<String>) {
        let mut lines: Vec<String> = Vec::new();
        lines.extend(self.columns.iter().map(|column| format!("  {} {}", column.name, column.data_type.name())));
        if self.columns.iter().any(|column| column.time != EventTime::No) {
            lines.push(format!("  WATERMARK FOR ts AS ts - INTERVAL '{}' SECOND", DELAY_MS / 1000));
        }
        let create = format!("CREATE TABLE {} (\n{}\n)", self.name, lines.join(",\n"));
        let insert =
            (!self.rows.is_empty()).then(|| format!("INSERT INTO {} VALUES {}", self.name, self.rows.join(", ")));
        (create, insert)
    }
}

/// Event times of the rows of a table.
struct Times {
    clock_ms: usize,
    unique: bool,
    given: Vec<usize>,
}

impl Times {
    fn next(&mut self, choices: &mut Choices) -> usize {
        self.clock_ms += choices.of(&[0, 250, 1000, 1700, 6000]);
        let back = choices.of(&[0, 0, 1, 900, DELAY_MS - 1]).min(self.clock_ms);
        let mut at = self.clock_ms - back;
        while self.unique && self.given.contains(&at) {
            at += 1;
            // A later row may go back as far from here.
            self.clock_ms = self.clock_ms.max(at);
        }
        self.given.push(at);
        at
    }
}

/// Three tables: event time of which no two rows are equal, event time with ties, and none.
pub(crate) fn tables(choices: &mut Choices) -> Vec<Table> {
    let times = [EventTime::Unique, EventTime::Ties, EventTime::No];
    times.into_iter().enumerate().map(|(n, time)| Table::random(choices, format!("t{n}"), time)).collect()
}

fn row(choices: &mut Choices, id: usize, columns: &[Column], times: &mut Times) -> String {
    let values = columns.iter().map(|column| match column.name.as_str() {
        "id" => id.to_string(),
        "ts" => timestamp(times.next(choices)),
        _ if choices.chance(12) => "NULL".to_owned(),
        _ => literal(choices, column.data_type),
    });
    format!("({})", values.collect::<Vec<_>>().join(", "))
}

fn timestamp(ms: usize) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    format!("TIMESTAMP '2026-01-01 {:02}:{:02}:{:02}.{ms:03}'", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Few values; doubles are such that their sums are exact.
pub(crate) fn literal(choices: &mut Choices, data_type: Type) -> String {
    match data_type {
        Type::Integer => choices.of(&["1", "0", "2", "3", "4", "7", "-1", "-3"]).to_owned(),
        Type::Text => format!("'{}'", choices.of(&["a", "b", "c", "dd", "", "x y", "Ä", "7"])),
        Type::Double | Type::Inexact => {
            format!("CAST({} AS DOUBLE)", choices.of(&["1.5", "0.0", "0.25", "-2.0", "4.75", "3.0"]))
        }
        Type::Boolean => choices.of(&["TRUE", "FALSE"]).to_owned(),
        Type::Decimal => {
            format!("CAST({} AS DECIMAL(10, 2))", choices.of(&["1.50", "0.00", "0.01", "-2.30", "12.99", "7.00"]))
        }
        Type::Date => format!("DATE '{}'", choices.of(&["2026-01-01", "2026-01-02", "2025-12-31", "2024-02-29"])),
        Type::Timestamp => timestamp(choices.of(&[0, 1000, 5000, 12_345, 60_000])),
    }
}
