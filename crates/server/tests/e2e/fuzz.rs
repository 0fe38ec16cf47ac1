//! Random tables and random queries over them: joins, sub-queries, aggregation without windows, Top-N and unions, nested.
//! Each runs straight, killed and resumed, and in the batch engine, and all must agree. A query that the planner refuses
//! counts as such; there must be few.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::engines::Engines;

/// Time for the test where the number of queries is not given.
const TIME: Duration = Duration::from_secs(90);
/// Queries over the same tables.
const QUERIES_PER_DATABASE: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Integer,
    Text,
    Double,
    Boolean,
}

impl Type {
    const ALL: [Type; 4] = [Type::Integer, Type::Text, Type::Double, Type::Boolean];

    fn name(self) -> &'static str {
        match self {
            Type::Integer => "BIGINT",
            Type::Text => "STRING",
            Type::Double => "DOUBLE",
            Type::Boolean => "BOOLEAN",
        }
    }
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    data_type: Type,
}

/// A relation in FROM: its text and its columns, which are qualified by its alias.
struct Relation {
    text: String,
    columns: Vec<Column>,
}

struct Generator {
    random: SmallRng,
    tables: Vec<(String, Vec<Column>)>,
    aliases: usize,
}

impl Generator {
    fn new(seed: u64) -> Generator {
        Generator { random: SmallRng::seed_from_u64(seed), tables: Vec::new(), aliases: 0 }
    }

    fn choose<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.random).expect("there is something to choose from").clone()
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    /// `CREATE TABLE` and `INSERT` of a few tables.
    fn database(&mut self) -> Vec<(String, Option<String>)> {
        let mut statements = Vec::new();
        for number in 0..3 {
            let mut columns = vec![Column { name: "id".to_owned(), data_type: Type::Integer }];
            for column in 0..self.random.random_range(2..5) {
                let data_type = self.choose(&Type::ALL);
                columns.push(Column { name: format!("c{column}"), data_type });
            }
            let name = format!("t{number}");
            let declared: Vec<String> = columns.iter().map(|c| format!("{} {}", c.name, c.data_type.name())).collect();
            let create = format!("CREATE TABLE {name} ({})", declared.join(", "));
            let rows: Vec<String> = (0..self.random.random_range(0..40)).map(|id| self.row(id, &columns)).collect();
            let insert = (!rows.is_empty()).then(|| format!("INSERT INTO {name} VALUES {}", rows.join(", ")));
            statements.push((create, insert));
            self.tables.push((name, columns));
        }
        statements
    }

    fn row(&mut self, id: usize, columns: &[Column]) -> String {
        let values = columns.iter().map(|column| match column.name.as_str() {
            "id" => id.to_string(),
            _ if self.chance(0.12) => "NULL".to_owned(),
            _ => self.literal(column.data_type),
        });
        format!("({})", values.collect::<Vec<_>>().join(", "))
    }

    /// Few values, so that keys meet; doubles are such that their sums are exact.
    fn literal(&mut self, data_type: Type) -> String {
        match data_type {
            Type::Integer => self.random.random_range(-3..8).to_string(),
            Type::Text => format!("'{}'", self.choose(&["a", "b", "c", "dd", "", "x y"])),
            Type::Double => format!("CAST({} AS DOUBLE)", f64::from(self.random.random_range(-8..20)) / 4.0),
            Type::Boolean => self.choose(&["TRUE", "FALSE"]).to_owned(),
        }
    }

    fn column(&mut self, columns: &[Column], data_type: Type) -> Option<String> {
        let fitting: Vec<&Column> = columns.iter().filter(|c| c.data_type == data_type).collect();
        fitting.choose(&mut self.random).map(|c| c.name.clone())
    }

    fn expr(&mut self, columns: &[Column], data_type: Type, depth: usize) -> String {
        let leaf = depth == 0 || self.chance(0.5);
        if leaf {
            let column = self.column(columns, data_type).filter(|_| self.random.random_bool(0.85));
            return column.unwrap_or_else(|| self.literal(data_type));
        }
        let mut sub = |data_type| self.expr(columns, data_type, depth - 1);
        let (a, b) = (sub(data_type), sub(data_type));
        match (data_type, self.random.random_range(0..4)) {
            (_, 0) => {
                let condition = self.condition(columns, depth - 1);
                format!("CASE WHEN {condition} THEN {a} ELSE {b} END")
            }
            (_, 1) => format!("COALESCE({a}, {b})"),
            (Type::Integer, 2) => format!("({a} + {b})"),
            (Type::Integer, _) => format!("({a} * 2 - {b})"),
            (Type::Double, 2) => format!("({a} - {b})"),
            (Type::Double, _) => format!("ABS({a})"),
            (Type::Text, 2) => format!("({a} || '-' || {b})"),
            (Type::Text, _) => format!("UPPER({a})"),
            (Type::Boolean, _) => self.condition(columns, depth - 1),
        }
    }

    fn condition(&mut self, columns: &[Column], depth: usize) -> String {
        if depth > 0 && self.chance(0.4) {
            let (a, b) = (self.condition(columns, depth - 1), self.condition(columns, depth - 1));
            return match self.random.random_range(0..3) {
                0 => format!("({a} AND {b})"),
                1 => format!("({a} OR {b})"),
                _ => format!("(NOT {a})"),
            };
        }
        let data_type = self.choose(&Type::ALL);
        let a = self.expr(columns, data_type, depth.saturating_sub(1));
        let b = self.expr(columns, data_type, 0);
        match self.random.random_range(0..6) {
            0 => format!("({a} IS NULL)"),
            1 => format!("({a} IS NOT NULL)"),
            2 => format!("({a} <> {b})"),
            3 if data_type != Type::Boolean => format!("({a} < {b})"),
            4 if data_type != Type::Boolean => format!("({a} >= {b})"),
            _ => format!("({a} = {b})"),
        }
    }

    fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("r{}", self.aliases)
    }

    /// A table or a sub-query, under an alias.
    fn factor(&mut self, depth: usize) -> Relation {
        let alias = self.alias();
        let (text, columns) = if depth > 0 && self.chance(0.5) {
            let (query, columns) = self.query(depth - 1);
            (format!("({query}) AS {alias}"), columns)
        } else {
            let (name, columns) = self.choose(&self.tables.clone());
            (format!("{name} AS {alias}"), columns)
        };
        let qualified = columns.into_iter().map(|c| Column { name: format!("{alias}.{}", c.name), ..c });
        Relation { text, columns: qualified.collect() }
    }

    fn relation(&mut self, depth: usize) -> Relation {
        let left = self.factor(depth);
        if !self.chance(0.5) {
            return left;
        }
        let right = self.factor(depth);
        let kind = self.choose(&["JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
        let shared: Vec<Type> = Type::ALL
            .into_iter()
            .filter(|t| [&left, &right].iter().all(|side| side.columns.iter().any(|c| c.data_type == *t)))
            .collect();
        // Each relation has an integer, its id or another.
        let Some(by) = shared.choose(&mut self.random).copied() else { return left };
        let (Some(a), Some(b)) = (self.column(&left.columns, by), self.column(&right.columns, by)) else { return left };
        let mut on = format!("{a} = {b}");
        let mut columns = left.columns;
        columns.extend(right.columns);
        if self.chance(0.3) {
            let _ = write!(on, " AND {}", self.condition(&columns, 1));
        }
        Relation { text: format!("{} {kind} {} ON {on}", left.text, right.text), columns }
    }

    /// A query and its columns.
    fn query(&mut self, depth: usize) -> (String, Vec<Column>) {
        match self.random.random_range(0..10) {
            0..3 => self.plain(depth),
            3..7 => self.grouped(depth),
            7 => self.top_n(depth),
            8 => self.union(depth),
            _ => self.distinct(depth),
        }
    }

    fn filter(&mut self, relation: &Relation, depth: usize) -> String {
        if !self.chance(0.5) {
            return String::new();
        }
        if depth == 0 || self.chance(0.6) {
            return format!(" WHERE {}", self.condition(&relation.columns, 2));
        }
        let (name, columns) = self.choose(&self.tables.clone());
        let data_type = self.choose(&[Type::Integer, Type::Text]);
        let (outer, inner) = (self.column(&relation.columns, data_type), self.column(&columns, data_type));
        let (Some(outer), Some(inner)) = (outer, inner) else { return String::new() };
        match self.random.random_range(0..4) {
            0 => format!(" WHERE {outer} IN (SELECT {inner} FROM {name})"),
            1 => format!(" WHERE {outer} NOT IN (SELECT {inner} FROM {name} WHERE {inner} IS NOT NULL)"),
            2 => format!(" WHERE EXISTS (SELECT 1 FROM {name} WHERE {name}.{inner} = {outer})"),
            _ => format!(" WHERE NOT EXISTS (SELECT 1 FROM {name} WHERE {name}.{inner} = {outer})"),
        }
    }

    fn plain(&mut self, depth: usize) -> (String, Vec<Column>) {
        let relation = self.relation(depth);
        let filter = self.filter(&relation, depth);
        let (items, columns) = self.items(&relation, 1);
        (format!("SELECT {items} FROM {}{filter}", relation.text), columns)
    }

    fn distinct(&mut self, depth: usize) -> (String, Vec<Column>) {
        let (query, columns) = self.plain(depth);
        (query.replacen("SELECT ", "SELECT DISTINCT ", 1), columns)
    }

    fn items(&mut self, relation: &Relation, least: usize) -> (String, Vec<Column>) {
        let mut items = Vec::new();
        let mut columns = Vec::new();
        for number in 0..self.random.random_range(least..least + 3) {
            let data_type = if number == 0 { Type::Integer } else { self.choose(&Type::ALL) };
            let name = format!("e{number}");
            items.push(format!("{} AS {name}", self.expr(&relation.columns, data_type, 2)));
            columns.push(Column { name, data_type });
        }
        (items.join(", "), columns)
    }

    fn grouped(&mut self, depth: usize) -> (String, Vec<Column>) {
        let relation = self.relation(depth);
        let filter = self.filter(&relation, depth);
        let mut keys: Vec<Column> = Vec::new();
        for _ in 0..self.random.random_range(1..3) {
            let column = self.choose(&relation.columns);
            if keys.iter().all(|key| key.name != column.name) {
                keys.push(column);
            }
        }
        let mut items: Vec<String> = keys.iter().enumerate().map(|(n, key)| format!("{} AS k{n}", key.name)).collect();
        let named = |(n, key): (usize, &Column)| Column { name: format!("k{n}"), data_type: key.data_type };
        let mut columns: Vec<Column> = keys.iter().enumerate().map(named).collect();
        for number in 0..self.random.random_range(1..4) {
            let (call, data_type) = self.aggregate(&relation.columns);
            items.push(format!("{call} AS a{number}"));
            columns.push(Column { name: format!("a{number}"), data_type });
        }
        let having = if self.chance(0.2) { " HAVING COUNT(*) > 1" } else { "" };
        let by: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        let (items, by) = (items.join(", "), by.join(", "));
        (format!("SELECT {items} FROM {}{filter} GROUP BY {by}{having}", relation.text), columns)
    }

    fn aggregate(&mut self, columns: &[Column]) -> (String, Type) {
        let number = self.choose(&[Type::Integer, Type::Double]);
        let any = self.choose(&[Type::Integer, Type::Double, Type::Text]);
        let (call, data_type) = match self.random.random_range(0..8) {
            0 => ("COUNT(*)".to_owned(), Type::Integer),
            1 => (format!("COUNT({})", self.column(columns, any).unwrap_or("*".to_owned())), Type::Integer),
            2 => (format!("COUNT(DISTINCT {})", self.expr(columns, any, 1)), Type::Integer),
            3 | 4 => (format!("SUM({})", self.expr(columns, number, 1)), number),
            5 => (format!("MIN({})", self.expr(columns, any, 1)), any),
            6 => (format!("MAX({})", self.expr(columns, any, 1)), any),
            _ => (format!("SUM(DISTINCT {})", self.expr(columns, Type::Integer, 1)), Type::Integer),
        };
        if self.chance(0.2) {
            return (format!("{call} FILTER (WHERE {})", self.condition(columns, 1)), data_type);
        }
        (call, data_type)
    }

    /// Rows are ordered by all of their columns, so that the answer does not depend on which of equal rows comes first.
    fn top_n(&mut self, depth: usize) -> (String, Vec<Column>) {
        let (query, columns) = self.query(depth.saturating_sub(1));
        let partition = self.choose(&columns).name;
        let mut order: Vec<String> = Vec::new();
        for column in &columns {
            let direction = self.choose(&["ASC NULLS FIRST", "DESC NULLS LAST"]);
            order.push(format!("{} {direction}", column.name));
        }
        let n = self.random.random_range(1..4);
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let (order, names) = (order.join(", "), names.join(", "));
        let (inner, outer) = (self.alias(), self.alias());
        let sql = format!(
            "SELECT {names} FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY {order}) AS place \
             FROM ({query}) AS {inner}) AS {outer} WHERE place <= {n}"
        );
        (sql, columns)
    }

    fn union(&mut self, depth: usize) -> (String, Vec<Column>) {
        let mut side = || {
            let relation = self.relation(depth.saturating_sub(1));
            let (a, b) = (self.expr(&relation.columns, Type::Integer, 1), self.expr(&relation.columns, Type::Text, 1));
            format!("SELECT {a} AS e0, {b} AS e1 FROM {}", relation.text)
        };
        let (left, right) = (side(), side());
        let all = if self.chance(0.5) { " ALL" } else { "" };
        let columns = [("e0", Type::Integer), ("e1", Type::Text)];
        let columns = columns.map(|(name, data_type)| Column { name: name.to_owned(), data_type });
        (format!("{left} UNION{all} {right}"), columns.into())
    }
}

/// Repeat a database with `MAINSTEM_SEED=n cargo test -p mainstem --test e2e random_queries`; a number of queries instead
/// of a time with `MAINSTEM_QUERIES=n`.
#[tokio::test(flavor = "multi_thread")]
async fn random_queries_equal_batch() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    let (first, wanted) = (number("MAINSTEM_SEED"), number("MAINSTEM_QUERIES"));
    let begun = Instant::now();
    let (mut queries, mut kills, mut refused) = (0, 0, BTreeMap::<String, usize>::new());
    for seed in first.unwrap_or(0).. {
        let mut generator = Generator::new(seed);
        let mut engines = Engines::new();
        for (create, insert) in generator.database() {
            engines.create_table(&create).await.unwrap();
            if let Some(insert) = insert {
                engines.collect(&insert).await.unwrap();
            }
        }
        for _ in 0..QUERIES_PER_DATABASE {
            let (query, _) = generator.query(2);
            match engines.query(&query).await {
                Ok(_) => queries += 1,
                Err(error) if error.0.contains("not supported") => {
                    *refused.entry(error.0.lines().next().unwrap_or_default().to_owned()).or_default() += 1;
                }
                Err(error) => panic!("seed {seed}: {error}\n{query}\n{}", engines.preamble),
            }
        }
        kills += engines.kills;
        let enough = wanted.map_or_else(|| begun.elapsed() > TIME, |wanted| queries >= wanted);
        if first.is_some() || enough {
            break;
        }
    }
    println!("{queries} queries, {kills} killed and resumed; refused: {refused:?}");
    let refusals: usize = refused.values().sum();
    assert!(refusals as u64 * 10 <= queries, "too much is refused: {refused:?}");
}
