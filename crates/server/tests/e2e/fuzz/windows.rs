//! Windows over event time: table functions and grouped functions, with aggregates, Top-N and joins over them. The batch
//! engine has no windows: it gets their bounds as columns.

use super::choices::Choices;
use super::database::{Column, EventTime, Type};
use super::expr::where_all;
use super::generator::{Generator, Query, Relation, Source};
use super::sql::{Sql, sql};

/// In milliseconds.
#[derive(Clone, Copy, Debug)]
enum Window {
    Tumble { size: usize, offset: usize },
    Hop { slide: usize, size: usize, offset: usize },
    Cumulate { step: usize, size: usize },
    Session { gap: usize },
}

impl Window {
    fn random(choices: &mut Choices, sessions: bool) -> Window {
        let step = choices.of(&[2000, 1000, 5000, 1500]);
        let (times, offset) = (choices.between(2, 4), choices.of(&[0, 0, 700]));
        match choices.below(if sessions { 4 } else { 3 }) {
            0 => Window::Tumble { size: step, offset },
            1 => Window::Hop { slide: step, size: step * times, offset },
            2 => Window::Cumulate { step, size: step * times },
            _ => Window::Session { gap: step },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Window::Tumble { .. } => "TUMBLE",
            Window::Hop { .. } => "HOP",
            Window::Cumulate { .. } => "CUMULATE",
            Window::Session { .. } => "SESSION",
        }
    }

    /// The intervals of the function, as it takes them.
    fn intervals(self) -> String {
        let offset = |offset| if offset == 0 { String::new() } else { format!(", {}", interval(offset)) };
        match self {
            Window::Tumble { size, offset: by } => format!("{}{}", interval(size), offset(by)),
            Window::Hop { slide, size, offset: by } => format!("{}, {}{}", interval(slide), interval(size), offset(by)),
            Window::Cumulate { step, size } => format!("{}, {}", interval(step), interval(size)),
            Window::Session { gap } => interval(gap),
        }
    }

    /// The rows of a source for the batch engine, each once for each of its windows, with `window_start`, `window_end`
    /// and `window_time`.
    fn batch(self, source: &str, time: &str, keys: &[&str]) -> String {
        let bin = |size: usize, offset: usize| {
            format!("date_bin({}, s.{time}, TIMESTAMP '1970-01-01 00:00:00.{offset:03}')", interval(size))
        };
        let bounds = |start: String, end: String| {
            format!("s.*, {start} AS window_start, {end} AS window_end, {end} - INTERVAL '0.001' SECOND AS window_time")
        };
        match self {
            Window::Tumble { size, offset } => {
                let start = bin(size, offset);
                let end = format!("{start} + {}", interval(size));
                format!("SELECT {} FROM {source} AS s", bounds(start, end))
            }
            Window::Hop { slide, size, offset } => {
                let each = (0..size / slide).map(|n| {
                    let start = format!("{} - {}", bin(slide, offset), interval(n * slide));
                    let end = format!("{start} + {}", interval(size));
                    format!("SELECT {} FROM {source} AS s", bounds(start, end))
                });
                each.collect::<Vec<_>>().join(" UNION ALL ")
            }
            Window::Cumulate { step, size } => {
                let each = (1..=size / step).map(|n| {
                    let start = bin(size, 0);
                    let end = format!("{start} + {}", interval(n * step));
                    format!("SELECT {} FROM {source} AS s WHERE s.{time} < {end}", bounds(start.clone(), end.clone()))
                });
                each.collect::<Vec<_>>().join(" UNION ALL ")
            }
            Window::Session { gap } => {
                let gap = interval(gap);
                let by = keys.iter().map(|key| format!("s.{key}")).collect::<Vec<_>>().join(", ");
                let by = if by.is_empty() { String::new() } else { format!("PARTITION BY {by} ") };
                let of = if by.is_empty() { "PARTITION BY s.session_".to_owned() } else { format!("{by}, s.session_") };
                let last = format!("LAG(s.{time}) OVER ({by}ORDER BY s.{time})");
                let begins = format!("CASE WHEN s.{time} <= {last} + {gap} THEN 0 ELSE 1 END AS begins_");
                let inner = format!("SELECT s.*, {begins} FROM {source} AS s");
                let number = format!("SUM(s.begins_) OVER ({by}ORDER BY s.{time}) AS session_");
                let middle = format!("SELECT s.*, {number} FROM ({inner}) AS s");
                let (start, end) = (format!("MIN(s.{time}) OVER ({of})"), format!("MAX(s.{time}) OVER ({of}) + {gap}"));
                format!("SELECT {} FROM ({middle}) AS s", bounds(start, end))
            }
        }
    }
}

pub(super) fn interval(ms: usize) -> String {
    format!("INTERVAL '{}.{:03}' SECOND", ms / 1000, ms % 1000)
}

/// The event time of a relation, without its qualifier.
pub(super) fn time_of(columns: &[Column]) -> &Column {
    columns.iter().find(|column| column.time != EventTime::No).expect("the source has an event time")
}

fn window_columns(alias: &str) -> [Column; 3] {
    [
        Column::new(format!("{alias}window_start"), Type::Timestamp),
        Column::new(format!("{alias}window_end"), Type::Timestamp),
        Column { name: format!("{alias}window_time"), data_type: Type::Timestamp, time: EventTime::Ties },
    ]
}

impl Generator<'_> {
    /// A table function over a source; sessions are by `keys`.
    fn table_function(&mut self, window: Window, source: &Source, keys: &[&str]) -> Relation {
        self.seen(window.name());
        let time = &time_of(source.columns()).name;
        let data = match source {
            Source::Table(table) if keys.is_empty() => format!("TABLE {}", table.name),
            Source::Table(table) => format!("TABLE {} PARTITION BY {}", table.name, keys.join(", ")),
            Source::Query(query) => format!("({})", query.sql.job),
        };
        let alias = self.alias();
        let job = format!("TABLE({}({data}, DESCRIPTOR({time}), {})) AS {alias}", window.name(), window.intervals());
        let batch = format!("({}) AS {alias}", window.batch(&source.text().batch, time, keys));
        let qualified = |column: &Column| Column::new(format!("{alias}.{}", column.name), column.data_type);
        let mut columns: Vec<Column> = source.columns().iter().map(qualified).collect();
        columns.extend(window_columns(&format!("{alias}.")));
        Relation { text: Sql { job, batch }, columns, size: source.size() * 3 }
    }

    pub(super) fn window_aggregate(&mut self, depth: usize) -> Query {
        if self.choices.chance(25) { self.grouped_window(depth) } else { self.windowed(depth, true) }
    }

    /// Aggregates of a table function's windows. `sessions`: they may be among them.
    fn windowed(&mut self, depth: usize, sessions: bool) -> Query {
        self.seen("window aggregate");
        let window = Window::random(&mut self.choices, sessions);
        let session = matches!(window, Window::Session { .. });
        // The function cannot say by which columns of a query sessions are.
        let source = if session { self.timed_table() } else { self.timed_source(depth) };
        let plain: Vec<Column> = source.columns().iter().filter(|c| c.time == EventTime::No).cloned().collect();
        let keys = self.keys(&plain, 0);
        let by: Vec<&str> = if session { keys.iter().map(|key| key.name.as_str()).collect() } else { Vec::new() };
        let relation = self.table_function(window, &source, &by);
        let alias = relation.columns[0].name.split('.').next().unwrap_or_default().to_owned();
        let keys: Vec<Column> =
            keys.into_iter().map(|key| Column { name: format!("{alias}.{}", key.name), ..key }).collect();
        let filter = if session { Sql::default() } else { self.filter(&relation.columns, 0) };
        let (mut items, mut columns) = self.aggregated(&keys, &relation.columns);
        let mut by: Vec<Sql> = keys.iter().map(|key| key.name.as_str().into()).collect();
        let shown = if self.choices.chance(40) { 3 } else { 2 };
        for (number, column) in window_columns("").into_iter().take(shown).enumerate() {
            items.push(format!("{alias}.{} AS w{number}", column.name).into());
            by.push(format!("{alias}.{}", column.name).into());
            columns.push(Column { name: format!("w{number}"), ..column });
        }
        let having = self.having(&relation.columns);
        let (items, by) = (Sql::join(&items, ", "), Sql::join(&by, ", "));
        let sql = sql!("SELECT {} FROM {}{} GROUP BY {}{}", items, relation.text, filter, by, having);
        Query { sql, columns, size: relation.size }
    }

    /// `GROUP BY TUMBLE(ts, ..)`, HOP or SESSION.
    fn grouped_window(&mut self, depth: usize) -> Query {
        self.seen("grouped window function");
        let mut window = Window::random(&mut self.choices, true);
        match &mut window {
            Window::Tumble { offset, .. } | Window::Hop { offset, .. } => *offset = 0,
            Window::Cumulate { step, .. } => window = Window::Session { gap: *step },
            Window::Session { .. } => {}
        }
        self.seen(window.name());
        let source = self.timed_source(depth);
        let relation = self.aliased(source.clone());
        let alias = relation.columns[0].name.split('.').next().unwrap_or_default().to_owned();
        let filter = self.filter(&relation.columns, 0);
        let plain: Vec<Column> = relation.columns.iter().filter(|c| c.time == EventTime::No).cloned().collect();
        let keys = self.keys(&plain, 0);
        let (mut items, mut columns) = self.aggregated(&keys, &relation.columns);
        let time = &time_of(source.columns()).name;
        let call = |suffix: &str| format!("{}{suffix}({alias}.{time}, {})", window.name(), window.intervals());
        let mut by: Vec<Sql> = keys.iter().map(|key| key.name.as_str().into()).collect();
        by.push(Sql::differing(call(""), format!("{alias}.window_start, {alias}.window_end")));
        for (number, (suffix, column)) in [("_START", "window_start"), ("_END", "window_end")].into_iter().enumerate() {
            items.push(sql!(
                "{} AS w{}",
                Sql::differing(call(suffix), format!("{alias}.{column}")),
                number.to_string()
            ));
            columns.push(Column::new(format!("w{number}"), Type::Timestamp));
        }
        let unqualified: Vec<&str> =
            keys.iter().map(|key| key.name.split('.').next_back().unwrap_or_default()).collect();
        // WHERE goes before the windows.
        let rows = format!("(SELECT * FROM {} AS {alias}{})", source.text().batch, filter.batch);
        let from = Sql::differing(
            format!("{}{}", relation.text.job, filter.job),
            format!("({}) AS {alias}", window.batch(&rows, time, &unqualified)),
        );
        let having = self.having(&relation.columns);
        let (items, by) = (Sql::join(&items, ", "), Sql::join(&by, ", "));
        Query { sql: sql!("SELECT {} FROM {} GROUP BY {}{}", items, from, by, having), columns, size: relation.size }
    }

    /// The rows of windows.
    pub(super) fn window_rows(&mut self, depth: usize) -> Query {
        self.seen("rows of windows");
        let window = Window::random(&mut self.choices, false);
        let source = self.timed_source(depth);
        let relation = self.table_function(window, &source, &[]);
        let filter = self.filter(&relation.columns, 0);
        let (mut items, mut columns) = self.items(&relation.columns);
        for (number, column) in relation.columns[relation.columns.len() - 3..].iter().enumerate() {
            items.push(format!("{} AS w{number}", column.name).into());
            columns.push(Column { name: format!("w{number}"), ..column.clone() });
        }
        let sql = sql!("SELECT {} FROM {}{}", Sql::join(&items, ", "), relation.text, filter);
        Query { sql, columns, size: relation.size }
    }

    /// The first rows of each window.
    pub(super) fn window_top_n(&mut self, depth: usize) -> Query {
        self.seen("window Top-N");
        let rows = self.choices.chance(30);
        let inner = if rows { self.window_rows(depth) } else { self.windowed(depth, true) };
        let columns: Vec<Column> = inner.columns.iter().map(|c| Column::new(c.name.clone(), c.data_type)).collect();
        let mut partition = "w0, w1".to_owned();
        if self.choices.chance(30) {
            partition = format!("{partition}, {}", self.any_column(&columns).name);
        }
        let order = self.order(&columns).join(", ");
        let bound = self.choices.of(&["place <= 2", "place = 1", "place < 4"]);
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let (names, first, second) = (names.join(", "), self.alias(), self.alias());
        let sql = sql!(
            "SELECT {} FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {} ORDER BY {}) AS place FROM ({}) AS {}) AS {} \
             WHERE {}",
            names,
            partition,
            order,
            inner.sql,
            first,
            second,
            bound
        );
        Query { sql, columns, size: inner.size }
    }

    /// A join of the rows of equal windows.
    pub(super) fn window_join(&mut self, depth: usize) -> Query {
        self.seen("window join");
        let window = Window::random(&mut self.choices, false);
        let (left, right) = (self.timed_source(depth), self.timed_source(depth));
        let (left, right) = (self.table_function(window, &left, &[]), self.table_function(window, &right, &[]));
        let end = |of: &Relation, name: &str| {
            let alias = of.columns[0].name.split('.').next().unwrap_or_default();
            format!("{alias}.{name}")
        };
        let equal = |name| format!("{} = {}", end(&left, name), end(&right, name));
        let mut conditions: Vec<Sql> = vec![equal("window_start").into(), equal("window_end").into()];
        let by = self.shared_type(&left.columns[..1], &right.columns[..1]);
        if let (Some(a), Some(b)) = (self.column(&left.columns, by), self.column(&right.columns, by)) {
            conditions.push(format!("{a} = {b}").into());
        }
        let both = [&left.columns[..], &right.columns[..]].concat();
        let both: Vec<Column> = both.into_iter().map(|c| Column { time: EventTime::No, ..c }).collect();
        if self.choices.chance(30) {
            conditions.push(self.condition(&both, 1));
        }
        if self.choices.chance(25) {
            self.seen("EXISTS in a window");
            let not = if self.choices.chance(50) { "NOT " } else { "" };
            let (items, columns) = self.items(&left.columns);
            let sql = sql!(
                "SELECT {} FROM {} WHERE {}EXISTS (SELECT 1 FROM {}{})",
                Sql::join(&items, ", "),
                left.text,
                not,
                right.text,
                where_all(&conditions)
            );
            return Query { sql, columns, size: left.size };
        }
        let kind = self.choices.of(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let (items, columns) = self.items(&both);
        let (items, on) = (Sql::join(&items, ", "), Sql::join(&conditions, " AND "));
        let sql = sql!("SELECT {} FROM {} {} {} ON {}", items, left.text, kind, right.text, on);
        Query { sql, columns, size: left.size * 2 }
    }
}
