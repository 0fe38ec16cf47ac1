//! Random queries: sub-queries in FROM, joins, aggregation, sets and Top-N, nested. Windows and OVER are in `time.rs`.

use std::collections::BTreeSet;

use super::choices::Choices;
use super::database::{Column, EventTime, Table, Type};
use super::sql::{Sql, sql};

/// Pairs of rows that a join may make, as far as can be told.
const PAIRS_MAX: usize = 4000;

/// A query with its columns.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) sql: Sql,
    pub(crate) columns: Vec<Column>,
    /// About how many rows it gives.
    pub(crate) size: usize,
}

/// What can stand in FROM.
#[derive(Clone)]
pub(super) enum Source {
    Table(Table),
    Query(Query),
}

impl Source {
    /// Its text where a relation is expected.
    pub(super) fn text(&self) -> Sql {
        match self {
            Source::Table(table) => table.name.as_str().into(),
            Source::Query(query) => sql!("({})", query.sql),
        }
    }

    pub(super) fn columns(&self) -> &[Column] {
        match self {
            Source::Table(table) => &table.columns,
            Source::Query(query) => &query.columns,
        }
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Source::Table(table) => table.rows.len(),
            Source::Query(query) => query.size,
        }
    }
}

/// Relations in FROM: their text, and their columns, which are qualified.
pub(super) struct Relation {
    pub(super) text: Sql,
    pub(super) columns: Vec<Column>,
    pub(super) size: usize,
}

pub(crate) struct Generator<'a> {
    pub(super) choices: Choices,
    tables: &'a [Table],
    aliases: usize,
    /// What the query has in it.
    seen: BTreeSet<&'static str>,
}

impl<'a> Generator<'a> {
    /// A random query over these tables; with the decisions that led to it, and what is in it.
    pub(crate) fn generate(choices: Choices, tables: &'a [Table]) -> (Query, Vec<usize>, BTreeSet<&'static str>) {
        let mut generator = Generator { choices, tables, aliases: 0, seen: BTreeSet::new() };
        let depth = generator.choices.below(3);
        let query = generator.query(depth);
        (query, generator.choices.tape(), generator.seen)
    }

    pub(super) fn seen(&mut self, what: &'static str) {
        self.seen.insert(what);
    }

    pub(super) fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("r{}", self.aliases)
    }

    pub(super) fn table(&mut self) -> Source {
        Source::Table(self.choices.of(self.tables))
    }

    /// A table with an event time.
    pub(super) fn timed_table(&mut self) -> Source {
        let timed = self.tables.iter().filter(|table| table.columns.iter().any(|c| c.time != EventTime::No));
        let timed: Vec<&Table> = timed.collect();
        Source::Table(self.choices.of(&timed).clone())
    }

    pub(super) fn query(&mut self, depth: usize) -> Query {
        type Make<'a> = fn(&mut Generator<'a>, usize) -> Query;
        let kinds: [(usize, Make<'a>); 13] = [
            (4, Generator::plain),
            (2, Generator::distinct),
            (6, Generator::grouped),
            (1, Generator::total),
            (2, Generator::grouping_sets),
            (3, Generator::top_n),
            (4, Generator::set),
            (5, Generator::window_aggregate),
            (2, Generator::window_top_n),
            (1, Generator::window_rows),
            (3, Generator::over),
            (2, Generator::interval_join),
            (2, Generator::window_join),
        ];
        self.choices.weighted(&kinds)(self, depth)
    }

    pub(super) fn source(&mut self, depth: usize) -> Source {
        if depth > 0 && self.choices.chance(50) { Source::Query(self.query(depth - 1)) } else { self.table() }
    }

    /// The source under a new alias, which qualifies its columns.
    pub(super) fn aliased(&mut self, source: Source) -> Relation {
        let alias = self.alias();
        let qualified = |column: &Column| Column { name: format!("{alias}.{}", column.name), ..column.clone() };
        let columns = source.columns().iter().map(qualified).collect();
        Relation { text: sql!("{} AS {}", source.text(), alias), columns, size: source.size() }
    }

    fn relation(&mut self, depth: usize) -> Relation {
        let source = self.source(depth);
        let mut relation = self.aliased(source);
        for _ in 0..self.choices.weighted(&[(5, 0), (4, 1), (1, 2)]) {
            relation = self.join(relation, depth);
            self.seen("join");
        }
        relation
    }

    fn join(&mut self, left: Relation, depth: usize) -> Relation {
        let source = self.source(depth);
        let right = self.aliased(source);
        let by = self.shared_type(&left.columns, &right.columns);
        let (Some(a), Some(b)) = (self.column(&left.columns, by), self.column(&right.columns, by)) else { return left };
        let pairs = left.size * right.size;
        if pairs / 3 > PAIRS_MAX {
            return left;
        }
        let kind = self.choices.of(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"]);
        let columns = [left.columns, right.columns].concat();
        // A join takes event time away.
        let columns: Vec<Column> = columns.into_iter().map(|c| Column { time: EventTime::No, ..c }).collect();
        if kind == "CROSS JOIN" && pairs < 400 {
            return Relation { text: sql!("{} CROSS JOIN {}", left.text, right.text), columns, size: pairs };
        }
        let kind = if kind == "CROSS JOIN" { "JOIN" } else { kind };
        let mut on: Sql = format!("{a} = {b}").into();
        if self.choices.chance(30) {
            on = sql!("{} AND {}", on, self.condition(&columns, 1));
        }
        let size = (pairs / 3).max(left.size).max(right.size);
        Relation { text: sql!("{} {} {} ON {}", left.text, kind, right.text, on), columns, size }
    }

    pub(super) fn plain(&mut self, depth: usize) -> Query {
        self.seen("projection and filter");
        let relation = self.relation(depth);
        let filter = self.filter(&relation.columns, depth);
        let (mut items, mut columns) = self.items(&relation.columns);
        if depth > 0 && self.choices.chance(15) {
            let data_type = self.choices.of(&[Type::Integer, Type::Text]);
            items.push(sql!("{} AS s0", self.scalar(&relation.columns, data_type, depth - 1)));
            columns.push(Column::new("s0", data_type));
        }
        let sql = sql!("SELECT {} FROM {}{}", Sql::join(&items, ", "), relation.text, filter);
        Query { sql, columns, size: relation.size }
    }

    fn distinct(&mut self, depth: usize) -> Query {
        self.seen("DISTINCT");
        let relation = self.relation(depth);
        let filter = self.filter(&relation.columns, depth);
        let (items, columns) = self.items(&relation.columns);
        let sql = sql!("SELECT DISTINCT {} FROM {}{}", Sql::join(&items, ", "), relation.text, filter);
        Query { sql, columns, size: relation.size }
    }

    pub(super) fn items(&mut self, of: &[Column]) -> (Vec<Sql>, Vec<Column>) {
        let mut items = Vec::new();
        let mut columns = Vec::new();
        for number in 0..self.choices.between(1, 4) {
            let data_type = if number == 0 { Type::Integer } else { self.data_type(of) };
            let name = format!("e{number}");
            items.push(sql!("{} AS {}", self.expr(of, data_type, 2), name));
            columns.push(Column::new(name, data_type));
        }
        (items, columns)
    }

    /// One or two columns to group by.
    pub(super) fn keys(&mut self, columns: &[Column], least: usize) -> Vec<Column> {
        let mut keys: Vec<Column> = Vec::new();
        for _ in 0..self.choices.between(least, 2) {
            let column = self.any_column(columns);
            if keys.iter().all(|key| key.name != column.name) {
                keys.push(column);
            }
        }
        keys
    }

    /// The items of an aggregation by keys: `k0`, .., `a0`, ..
    pub(super) fn aggregated(&mut self, keys: &[Column], columns: &[Column]) -> (Vec<Sql>, Vec<Column>) {
        let mut items = Vec::new();
        let mut named = Vec::new();
        for (number, key) in keys.iter().enumerate() {
            items.push(format!("{} AS k{number}", key.name).into());
            named.push(Column::new(format!("k{number}"), key.data_type));
        }
        for number in 0..self.choices.between(1, 3) {
            let (call, data_type) = self.aggregate(columns);
            items.push(sql!("{} AS a{}", call, number.to_string()));
            named.push(Column::new(format!("a{number}"), data_type));
        }
        (items, named)
    }

    pub(super) fn having(&mut self, columns: &[Column]) -> Sql {
        if !self.choices.chance(20) {
            return Sql::default();
        }
        self.seen("HAVING");
        match self.choices.below(3) {
            0 => " HAVING COUNT(*) > 1".into(),
            1 => sql!(" HAVING SUM({}) > 3", self.expr(columns, Type::Integer, 1)),
            _ => sql!(" HAVING COUNT({}) < 4", self.expr(columns, Type::Text, 1)),
        }
    }

    fn grouped(&mut self, depth: usize) -> Query {
        self.seen("GROUP BY");
        let relation = self.relation(depth);
        let filter = self.filter(&relation.columns, depth);
        let keys = self.keys(&relation.columns, 1);
        let (items, columns) = self.aggregated(&keys, &relation.columns);
        let by: Vec<Sql> = keys.iter().map(|key| key.name.as_str().into()).collect();
        let having = self.having(&relation.columns);
        let (items, by) = (Sql::join(&items, ", "), Sql::join(&by, ", "));
        let sql = sql!("SELECT {} FROM {}{} GROUP BY {}{}", items, relation.text, filter, by, having);
        Query { sql, columns, size: relation.size.min(20) }
    }

    /// Aggregates of all rows. Of no rows a stream says nothing.
    fn total(&mut self, depth: usize) -> Query {
        self.seen("aggregates of all rows");
        let relation = self.relation(depth);
        let filter = self.filter(&relation.columns, depth);
        let (mut items, mut columns) = self.aggregated(&[], &relation.columns);
        items.push("COUNT(*) AS n".into());
        columns.push(Column::new("n", Type::Integer));
        let sql = sql!("SELECT {} FROM {}{} HAVING COUNT(*) > 0", Sql::join(&items, ", "), relation.text, filter);
        Query { sql, columns, size: 1 }
    }

    fn grouping_sets(&mut self, depth: usize) -> Query {
        self.seen("GROUPING SETS");
        let relation = self.relation(depth);
        let filter = self.filter(&relation.columns, depth);
        let keys = self.keys(&relation.columns, 1);
        let (mut items, mut columns) = self.aggregated(&keys, &relation.columns);
        if self.choices.chance(40) {
            items.push(format!("GROUPING({}) AS g0", keys[0].name).into());
            columns.push(Column::new("g0", Type::Integer));
        }
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        let all = names.join(", ");
        let by = match self.choices.below(4) {
            0 => format!("ROLLUP ({all})"),
            1 => format!("CUBE ({all})"),
            2 => format!("GROUPING SETS (({all}), ({}))", names[0]),
            _ => format!("GROUPING SETS (({all}), ())"),
        };
        let items = Sql::join(&items, ", ");
        let sql = sql!("SELECT {} FROM {}{} GROUP BY {} HAVING COUNT(*) > 0", items, relation.text, filter, by);
        Query { sql, columns, size: 2 * relation.size.min(20) }
    }

    /// All columns in some directions; those that come first decide about ties.
    pub(super) fn order(&mut self, columns: &[Column]) -> Vec<String> {
        let mut order = Vec::new();
        for column in columns {
            let direction = self.choices.of(&["", " DESC", " ASC NULLS LAST", " DESC NULLS FIRST"]);
            order.push(format!("{}{direction}", column.name));
        }
        let first = self.choices.below(order.len());
        order.rotate_left(first);
        order
    }

    /// A rank with a bound. For ROW_NUMBER rows are ordered by all of their columns, so that the answer does not depend
    /// on which of equal rows comes first.
    fn top_n(&mut self, depth: usize) -> Query {
        let inner = self.query(depth.saturating_sub(1));
        let columns: Vec<Column> = inner.columns.iter().map(|c| Column::new(c.name.clone(), c.data_type)).collect();
        let size = inner.size;
        let by = if self.choices.chance(70) {
            format!("PARTITION BY {} ", self.any_column(&columns).name)
        } else {
            String::new()
        };
        let function = self.choices.of(&["ROW_NUMBER", "RANK", "DENSE_RANK"]);
        self.seen(function);
        let mut order = self.order(&columns);
        if function != "ROW_NUMBER" {
            order.truncate(self.choices.between(1, 2));
        }
        let place = format!("n{}", self.aliases);
        let bound = self.choices.of(&[" <= 2", " = 1", " < 4", " BETWEEN 2 AND 3"]);
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let (order, mut names) = (order.join(", "), names.join(", "));
        let mut columns = columns.clone();
        if self.choices.chance(40) {
            names = format!("{names}, {place}");
            columns.push(Column::new(place.clone(), Type::Integer));
        }
        let (first, second) = (self.alias(), self.alias());
        let sql = sql!(
            "SELECT {} FROM (SELECT *, {}() OVER ({}ORDER BY {}) AS {} FROM ({}) AS {}) AS {} WHERE {}{}",
            names,
            function,
            by,
            order,
            place,
            inner.sql,
            first,
            second,
            place,
            bound
        );
        Query { sql, columns, size }
    }

    fn set(&mut self, depth: usize) -> Query {
        let types: Vec<Type> = (0..self.choices.between(1, 2)).map(|_| self.choices.of(&Type::ALL)).collect();
        let mut side = || {
            let relation = self.relation(depth.saturating_sub(1));
            let filter = self.filter(&relation.columns, 0);
            let items = types.iter().enumerate();
            let items: Vec<Sql> = items
                .map(|(n, data_type)| sql!("{} AS e{}", self.expr(&relation.columns, *data_type, 1), n.to_string()))
                .collect();
            (sql!("SELECT {} FROM {}{}", Sql::join(&items, ", "), relation.text, filter), relation.size)
        };
        let ((left, left_size), (right, right_size)) = (side(), side());
        let operator = self.choices.of(&["UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"]);
        self.seen(operator);
        let columns = types.iter().enumerate().map(|(n, data_type)| Column::new(format!("e{n}"), *data_type));
        let columns: Vec<Column> = columns.collect();
        let mut sql = sql!("{} {} {}", left, operator, right);
        if let Some(plain) = operator.strip_suffix(" ALL").filter(|plain| *plain != "UNION") {
            // The batch engine does not count equal rows: they are numbered.
            let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
            let names = names.join(", ");
            let numbered = |side: &Sql| {
                let numbered = format!("ROW_NUMBER() OVER (PARTITION BY {names}) AS number");
                format!("SELECT {names}, {numbered} FROM ({}) AS side", side.batch)
            };
            let (left, right) = (numbered(&left), numbered(&right));
            sql.batch = format!("SELECT {names} FROM ({left} {plain} {right}) AS counted");
        }
        Query { sql, columns, size: left_size + right_size }
    }
}
