//! Queries by event time beside windows: sources that keep it, OVER, and interval joins. And OVER by other columns.

use super::database::{Column, EventTime, Type};
use super::expr::where_all;
use super::generator::{Generator, Query, Source};
use super::sql::{Sql, sql};
use super::windows::{interval, time_of};

impl Generator<'_> {
    /// A table or a query that has an event time.
    pub(super) fn timed_source(&mut self, depth: usize) -> Source {
        if depth == 0 || self.choices.chance(50) {
            return self.timed_table();
        }
        let query = match self.choices.below(6) {
            0 | 1 => self.timed_selection(depth - 1),
            2 => self.timed_union(depth - 1),
            3 => self.timed_over(depth - 1),
            4 => self.timed_interval_join(depth - 1),
            _ => self.window_aggregate(depth - 1),
        };
        match query.columns.iter().any(|column| column.time != EventTime::No) {
            true => Source::Query(query),
            false => self.timed_table(),
        }
    }

    /// Filtered and projected rows with their time.
    fn timed_selection(&mut self, depth: usize) -> Query {
        let source = self.timed_source(depth);
        let relation = self.aliased(source);
        let filter = self.filter(&relation.columns, 0);
        let (mut items, mut columns) = self.items(&relation.columns);
        keep_time(&relation.columns, &mut items, &mut columns);
        let sql = sql!("SELECT {} FROM {}{}", Sql::join(&items, ", "), relation.text, filter);
        Query { sql, columns, size: relation.size }
    }

    fn timed_union(&mut self, depth: usize) -> Query {
        self.seen("UNION ALL with event time");
        let mut sides = Vec::new();
        let mut size = 0;
        for _ in 0..2 {
            let source = self.timed_source(depth);
            let relation = self.aliased(source);
            let number = self.expr(&relation.columns, Type::Integer, 1);
            let text = self.expr(&relation.columns, Type::Text, 1);
            let time = &time_of(&relation.columns).name;
            sides.push(sql!("SELECT {} AS e0, {} AS e1, {} AS ts FROM {}", number, text, time, relation.text));
            size += relation.size;
        }
        let columns = vec![
            Column::new("e0", Type::Integer),
            Column::new("e1", Type::Text),
            Column { name: "ts".to_owned(), data_type: Type::Timestamp, time: EventTime::Ties },
        ];
        Query { sql: Sql::join(&sides, " UNION ALL "), columns, size }
    }

    pub(super) fn over(&mut self, depth: usize) -> Query {
        if self.choices.chance(35) { self.over_columns(depth) } else { self.timed_over(depth) }
    }

    /// OVER by event time. What depends on the order of rows stands over times without ties.
    fn timed_over(&mut self, depth: usize) -> Query {
        self.seen("OVER by event time");
        let source = self.timed_source(depth);
        let relation = self.aliased(source);
        let filter = self.filter(&relation.columns, 0);
        let (mut items, mut columns) = self.items(&relation.columns);
        keep_time(&relation.columns, &mut items, &mut columns);
        let time = time_of(&relation.columns).clone();
        let plain: Vec<Column> = relation.columns.iter().filter(|c| c.time == EventTime::No).cloned().collect();
        let by = match self.choices.chance(70) {
            true => format!("PARTITION BY {} ", self.any_column(&plain).name),
            false => String::new(),
        };
        let window = format!("{by}ORDER BY {}", time.name);
        let unique = time.time == EventTime::Unique;
        for number in 0..self.choices.between(1, 3) {
            let (call, data_type) = self.over_call(&relation.columns, &window, unique, true);
            items.push(sql!("{} AS o{}", call, number.to_string()));
            columns.push(Column::new(format!("o{number}"), data_type));
        }
        let sql = sql!("SELECT {} FROM {}{}", Sql::join(&items, ", "), relation.text, filter);
        Query { sql, columns, size: relation.size }
    }

    /// OVER by all columns, of rows that may change.
    fn over_columns(&mut self, depth: usize) -> Query {
        self.seen("OVER by columns");
        let source = self.source(depth);
        let relation = self.aliased(source);
        let order = self.order(&relation.columns).join(", ");
        let by = match self.choices.chance(70) {
            true => format!("PARTITION BY {} ", self.any_column(&relation.columns).name),
            false => String::new(),
        };
        let window = format!("{by}ORDER BY {order}");
        let (mut items, mut columns) = self.items(&relation.columns);
        for number in 0..self.choices.between(1, 2) {
            let (call, data_type) = self.over_call(&relation.columns, &window, true, false);
            items.push(sql!("{} AS o{}", call, number.to_string()));
            columns.push(Column::new(format!("o{number}"), data_type));
        }
        let sql = sql!("SELECT {} FROM {}", Sql::join(&items, ", "), relation.text);
        Query { sql, columns, size: relation.size }
    }

    /// A function over `window`. `unique`: rows have an order; `time`: it is that of event time.
    fn over_call(&mut self, columns: &[Column], window: &str, unique: bool, time: bool) -> (Sql, Type) {
        let any = self.data_type(columns);
        let frame = match self.choices.below(5) {
            0 => String::new(),
            1 => " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW".to_owned(),
            2 if time => {
                let length = self.choices.of(&[2000, 500, 6000]);
                format!(" RANGE BETWEEN {} PRECEDING AND CURRENT ROW", interval(length))
            }
            3 if unique => " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW".to_owned(),
            _ if unique => format!(" ROWS BETWEEN {} PRECEDING AND CURRENT ROW", self.choices.between(1, 3)),
            _ => String::new(),
        };
        let window = format!("OVER ({window}");
        match self.choices.below(if unique { 9 } else { 5 }) {
            0 => (format!("COUNT(*) {window}{frame})").into(), Type::Integer),
            1 => {
                let number = self.choices.of(&[Type::Integer, Type::Double]);
                (sql!("SUM({}) {}{})", self.expr(columns, number, 1), window, frame), number)
            }
            2 | 3 => {
                let any = if any == Type::Boolean { Type::Text } else { any };
                let function = self.choices.of(&["MIN", "MAX"]);
                (sql!("{}({}) {}{})", function, self.expr(columns, any, 1), window, frame), any)
            }
            4 => (sql!("AVG({}) {}{})", self.expr(columns, Type::Double, 1), window, frame), Type::Inexact),
            5 => {
                self.seen("LAG");
                let back = self.choices.of(&["", ", 2", ", 1"]);
                (sql!("LAG({}{}) {})", self.expr(columns, any, 1), back, window), any)
            }
            6 => {
                self.seen("FIRST_VALUE, LAST_VALUE");
                let function = self.choices.of(&["FIRST_VALUE", "LAST_VALUE"]);
                (sql!("{}({}) {}{})", function, self.expr(columns, any, 1), window, frame), any)
            }
            7 if !time => {
                self.seen("LEAD");
                (sql!("LEAD({}) {})", self.expr(columns, any, 1), window), any)
            }
            _ => (format!("ROW_NUMBER() {window})").into(), Type::Integer),
        }
    }

    pub(super) fn interval_join(&mut self, depth: usize) -> Query {
        if self.choices.chance(40) {
            return self.timed_interval_join(depth);
        }
        let (left, right) = (self.timed_source(depth), self.timed_source(depth));
        let (left, right) = (self.aliased(left), self.aliased(right));
        let conditions = self.near(&left.columns, &right.columns);
        if self.choices.chance(30) {
            self.seen("EXISTS in an interval");
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
        self.seen("interval join");
        let kind = self.choices.of(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let both = [left.columns, right.columns].concat();
        let (items, columns) = self.items(&both);
        let (items, on) = (Sql::join(&items, ", "), Sql::join(&conditions, " AND "));
        let sql = sql!("SELECT {} FROM {} {} {} ON {}", items, left.text, kind, right.text, on);
        Query { sql, columns, size: left.size * 2 }
    }

    /// An interval join that keeps the time of its left side.
    fn timed_interval_join(&mut self, depth: usize) -> Query {
        self.seen("interval join");
        let (left, right) = (self.timed_source(depth), self.timed_source(depth));
        let (left, right) = (self.aliased(left), self.aliased(right));
        let conditions = self.near(&left.columns, &right.columns);
        let kind = self.choices.of(&["JOIN", "LEFT JOIN"]);
        let both = [&left.columns[..], &right.columns[..]].concat();
        let (mut items, mut columns) = self.items(&both);
        items.push(format!("{} AS ts", time_of(&left.columns).name).into());
        columns.push(Column { name: "ts".to_owned(), data_type: Type::Timestamp, time: EventTime::Ties });
        let (items, on) = (Sql::join(&items, ", "), Sql::join(&conditions, " AND "));
        let sql = sql!("SELECT {} FROM {} {} {} ON {}", items, left.text, kind, right.text, on);
        Query { sql, columns, size: left.size * 2 }
    }

    /// Conditions of an interval join.
    fn near(&mut self, left: &[Column], right: &[Column]) -> Vec<Sql> {
        let mut conditions = Vec::new();
        let by = self.shared_type(&left[..1], &right[..1]);
        if let (Some(a), Some(b)) = (self.column(left, by), self.column(right, by))
            && self.choices.chance(85)
        {
            conditions.push(format!("{a} = {b}").into());
        }
        let (a, b) = (&time_of(left).name, &time_of(right).name);
        let (before, after) = (self.choices.of(&[1000, 0, 3000, 8000]), self.choices.of(&[0, 2000, 5000]));
        conditions.push(match self.choices.below(3) {
            0 => format!("{a} BETWEEN {b} - {} AND {b} + {}", interval(before), interval(after)).into(),
            1 => format!("{b} >= {a} - {} AND {b} < {a} + {}", interval(before), interval(after + 1000)).into(),
            _ => format!("{a} > {b} + {} AND {a} <= {b} + {}", interval(after), interval(after + before + 500)).into(),
        });
        if self.choices.chance(25) {
            let both = [left, right].concat();
            conditions.push(self.condition(&both, 1));
        }
        conditions
    }
}

/// The time of the rows as a further item, `ts`.
fn keep_time(of: &[Column], items: &mut Vec<Sql>, columns: &mut Vec<Column>) {
    let time = time_of(of);
    items.push(format!("{} AS ts", time.name).into());
    columns.push(Column { name: "ts".to_owned(), ..time.clone() });
}
