//! Random expressions, conditions and aggregates over columns. Both engines have DataFusion's functions, so this is less
//! about single functions than about how they stand in plans.

use super::database::{Column, Type, literal};
use super::generator::{Generator, Source};
use super::sql::{Sql, sql};

impl Generator<'_> {
    /// A column of a type.
    pub(super) fn column(&mut self, columns: &[Column], data_type: Type) -> Option<String> {
        let fitting: Vec<&Column> = columns.iter().filter(|c| c.data_type == data_type).collect();
        if fitting.is_empty() { None } else { Some(fitting[self.choices.below(fitting.len())].name.clone()) }
    }

    /// A column of any type that can be compared.
    pub(super) fn any_column(&mut self, columns: &[Column]) -> Column {
        let exact: Vec<&Column> = columns.iter().filter(|c| c.data_type != Type::Inexact).collect();
        exact[self.choices.below(exact.len())].clone()
    }

    /// A type, mostly one of which there is a column, so that few expressions are constant.
    pub(super) fn data_type(&mut self, columns: &[Column]) -> Type {
        let there = |data_type: &Type| columns.iter().any(|column| column.data_type == *data_type);
        let there: Vec<Type> = Type::ALL.into_iter().filter(there).collect();
        if there.is_empty() || self.choices.chance(10) { self.choices.of(&Type::ALL) } else { self.choices.of(&there) }
    }

    pub(super) fn expr(&mut self, columns: &[Column], data_type: Type, depth: usize) -> Sql {
        if depth == 0 || self.choices.chance(50) {
            let of_type = self.column(columns, data_type);
            return match of_type.filter(|_| !self.choices.chance(15)) {
                Some(column) => column.into(),
                None if self.choices.chance(10) => format!("CAST(NULL AS {})", data_type.name()).into(),
                None => literal(&mut self.choices, data_type).into(),
            };
        }
        let form = self.choices.below(10);
        let a = self.expr(columns, data_type, depth - 1);
        match form {
            0 => {
                let (condition, b) = (self.condition(columns, depth - 1), self.expr(columns, data_type, depth - 1));
                return sql!("CASE WHEN {} THEN {} ELSE {} END", condition, a, b);
            }
            1 => {
                let (condition, b) = (self.condition(columns, depth - 1), self.expr(columns, data_type, 0));
                let second = self.condition(columns, 0);
                return sql!("CASE WHEN {} THEN {} WHEN {} THEN {} END", condition, a, second, b);
            }
            2 => return sql!("COALESCE({}, {})", a, self.expr(columns, data_type, depth - 1)),
            3 => return sql!("NULLIF({}, {})", a, self.expr(columns, data_type, 0)),
            _ => {}
        }
        let mut sub = |data_type| self.expr(columns, data_type, depth - 1);
        match (data_type, form) {
            (Type::Integer, 4) => sql!("({} + {})", a, sub(Type::Integer)),
            (Type::Integer, 5) => sql!("({} * 2 - {})", a, sub(Type::Integer)),
            (Type::Integer, 6) => sql!("CHAR_LENGTH({})", sub(Type::Text)),
            (Type::Integer, 7) => sql!("({} % 3)", a),
            (Type::Integer, 8) => sql!("CAST({} AS BIGINT)", sub(Type::Double)),
            (Type::Integer, _) => sql!("CAST(EXTRACT(DAY FROM {}) AS BIGINT)", sub(Type::Date)),
            (Type::Text, 4) => sql!("({} || '-' || {})", a, sub(Type::Text)),
            (Type::Text, 5) => sql!("UPPER({})", a),
            (Type::Text, 6) => sql!("SUBSTRING({} FROM 1 FOR 2)", a),
            (Type::Text, 7) => sql!("CAST({} AS STRING)", sub(Type::Integer)),
            (Type::Text, 8) => sql!("TRIM({})", a),
            (Type::Text, _) => sql!("REPLACE({}, 'a', 'bc')", a),
            (Type::Double, 4) => sql!("({} - {})", a, sub(Type::Double)),
            (Type::Double, 5) => sql!("FLOOR({})", a),
            (Type::Double, 6) => sql!("CAST({} AS DOUBLE)", sub(Type::Integer)),
            (Type::Double, 7) => sql!("CAST({} AS DOUBLE)", sub(Type::Decimal)),
            (Type::Double, _) => sql!("ABS({})", a),
            (Type::Boolean, _) => self.condition(columns, depth - 1),
            (Type::Decimal, 4) => sql!("CAST({} + {} AS DECIMAL(10, 2))", a, sub(Type::Decimal)),
            (Type::Decimal, 5) => sql!("CAST({} * {} AS DECIMAL(10, 2))", a, sub(Type::Decimal)),
            (Type::Decimal, 6) => sql!("CAST({} AS DECIMAL(10, 2))", sub(Type::Integer)),
            (Type::Decimal, _) => sql!("CAST(ABS({}) AS DECIMAL(10, 2))", a),
            (Type::Date, 4..=6) => sql!("CAST({} AS DATE)", sub(Type::Timestamp)),
            (Type::Date, _) => sql!("({} + INTERVAL '1' DAY)", a),
            (Type::Timestamp, 4..=6) => sql!("CAST({} AS TIMESTAMP(3))", sub(Type::Date)),
            (Type::Timestamp, _) => sql!("({} - INTERVAL '2' SECOND)", a),
            (Type::Inexact, _) => a,
        }
    }

    /// A condition without sub-queries.
    pub(super) fn condition(&mut self, columns: &[Column], depth: usize) -> Sql {
        if depth > 0 && self.choices.chance(40) {
            let (a, b) = (self.condition(columns, depth - 1), self.condition(columns, depth - 1));
            return match self.choices.below(3) {
                0 => sql!("({} AND {})", a, b),
                1 => sql!("({} OR {})", a, b),
                _ => sql!("(NOT {})", a),
            };
        }
        let data_type = self.data_type(columns);
        let a = match self.column(columns, data_type) {
            Some(column) if depth < 2 => column.into(),
            _ => self.expr(columns, data_type, depth.saturating_sub(1)),
        };
        let form = self.choices.below(9);
        let b = self.expr(columns, data_type, 0);
        match form {
            0 => sql!("({} = {})", a, b),
            1 => sql!("({} IS NOT NULL)", a),
            2 if self.choices.chance(30) => sql!("({} IS NULL)", a),
            2 => sql!("({} <= {})", a, b),
            3 => sql!("({} <> {})", a, b),
            4 if data_type == Type::Text => sql!("({} LIKE '%a%')", a),
            5 if data_type == Type::Boolean => sql!("({} IS NOT TRUE)", a),
            6 => sql!("({} IN ({}, {}))", a, b, literal(&mut self.choices, data_type)),
            7 if data_type != Type::Boolean => {
                sql!("({} BETWEEN {} AND {})", a, literal(&mut self.choices, data_type), b)
            }
            8 => sql!("({} IS DISTINCT FROM {})", a, b),
            4 if data_type != Type::Boolean => sql!("({} < {})", a, b),
            5 => sql!("({} >= {})", a, b),
            _ => sql!("({} <> {})", a, b),
        }
    }

    /// `WHERE` with sub-queries where `depth` allows for them; may be nothing.
    pub(super) fn filter(&mut self, columns: &[Column], depth: usize) -> Sql {
        if !self.choices.chance(40) {
            return Sql::default();
        }
        if depth == 0 || self.choices.chance(50) {
            return sql!(" WHERE {}", self.condition(columns, 2));
        }
        let first = self.sub_query_condition(columns, depth - 1);
        match self.choices.below(6) {
            0..3 => sql!(" WHERE {}", first),
            3 => sql!(" WHERE {} AND {}", self.condition(columns, 1), first),
            4 => sql!(" WHERE {} AND {}", self.sub_query_condition(columns, depth - 1), first),
            _ => {
                // NOT IN cannot stand beside OR.
                let mark = self.exists(columns, depth - 1, false);
                self.seen("EXISTS beside OR");
                sql!(" WHERE {} OR {}", self.condition(columns, 1), mark)
            }
        }
    }

    fn sub_query_condition(&mut self, columns: &[Column], depth: usize) -> Sql {
        match self.choices.below(6) {
            0 => self.member(columns, depth, false),
            1 => self.member(columns, depth, true),
            2 | 3 => self.exists(columns, depth, false),
            4 => self.exists(columns, depth, true),
            _ => {
                let data_type = self.choices.of(&[Type::Integer, Type::Double, Type::Text]);
                let value = self.scalar(columns, data_type, depth);
                let operator = self.choices.of(&["=", "<", ">=", "<>"]);
                sql!("{} {} {}", self.expr(columns, data_type, 1), operator, value)
            }
        }
    }

    /// A relation of a sub-query in an expression, under an alias, and its columns.
    fn inner(&mut self, depth: usize) -> (Sql, Vec<Column>) {
        let source = if depth > 0 && self.choices.chance(40) {
            let query = self.query(depth - 1);
            Source::Query(query)
        } else {
            self.table()
        };
        let relation = self.aliased(source);
        (relation.text, relation.columns)
    }

    fn member(&mut self, outer: &[Column], depth: usize, negated: bool) -> Sql {
        self.seen(if negated { "NOT IN" } else { "IN" });
        let (from, columns) = self.inner(depth);
        let data_type = self.shared_type(outer, &columns);
        let (Some(value), Some(element)) = (self.column(outer, data_type), self.column(&columns, data_type)) else {
            return "TRUE".into();
        };
        let mut conditions = Vec::new();
        if self.choices.chance(30) {
            conditions.push(self.condition(&columns, 1));
        }
        if self.choices.chance(25) {
            self.seen("correlated IN");
            conditions.extend(self.correlation(outer, &columns));
        }
        if !negated {
            let filter = where_all(&conditions);
            return sql!("{} IN (SELECT {} FROM {}{})", value, element, from, filter);
        }
        let job = sql!("{} NOT IN (SELECT {} FROM {}{})", value, element, from, where_all(&conditions)).job;
        conditions.push(format!("({element} = {value} OR {element} IS NULL OR {value} IS NULL)").into());
        let batch = sql!("NOT EXISTS (SELECT 1 FROM {}{})", from, where_all(&conditions)).batch;
        Sql { job, batch }
    }

    fn exists(&mut self, outer: &[Column], depth: usize, negated: bool) -> Sql {
        self.seen(if negated { "NOT EXISTS" } else { "EXISTS" });
        let (from, columns) = self.inner(depth);
        let mut conditions: Vec<Sql> = self.correlation(outer, &columns).into_iter().collect();
        if self.choices.chance(30) {
            let both = [outer, &columns].concat();
            conditions.push(self.condition(&both, 1));
        }
        let not = if negated { "NOT " } else { "" };
        sql!("{}EXISTS (SELECT 1 FROM {}{})", not, from, where_all(&conditions))
    }

    /// A sub-query of one row and column.
    pub(super) fn scalar(&mut self, outer: &[Column], data_type: Type, depth: usize) -> Sql {
        self.seen("scalar sub-query");
        let (from, columns) = self.inner(depth);
        let value = self.expr(&columns, data_type, 1);
        let call = match self.choices.below(4) {
            0 => sql!("MAX({})", value),
            1 => sql!("MIN({})", value),
            2 if matches!(data_type, Type::Integer | Type::Double) => sql!("SUM({})", value),
            3 if data_type == Type::Integer => "COUNT(*)".into(),
            _ => sql!("MAX({})", value),
        };
        let mut conditions: Vec<Sql> = Vec::new();
        if self.choices.chance(60) {
            self.seen("correlated scalar sub-query");
            conditions.extend(self.correlation(outer, &columns));
        }
        sql!("(SELECT {} FROM {}{})", call, from, where_all(&conditions))
    }

    /// A column of each side is the same.
    fn correlation(&mut self, outer: &[Column], inner: &[Column]) -> Option<Sql> {
        let data_type = self.shared_type(outer, inner);
        let (a, b) = (self.column(outer, data_type)?, self.column(inner, data_type)?);
        Some(format!("{b} = {a}").into())
    }

    /// A type of which both sides have a column; integers where there is none.
    pub(super) fn shared_type(&mut self, a: &[Column], b: &[Column]) -> Type {
        let has = |columns: &[Column], data_type| columns.iter().any(|column| column.data_type == data_type);
        // With two values only, nearly each row would find each.
        let keys = Type::ALL.into_iter().filter(|t| *t != Type::Boolean && has(a, *t) && has(b, *t));
        let keys: Vec<Type> = keys.collect();
        if keys.is_empty() { Type::Integer } else { self.choices.of(&keys) }
    }

    /// A call of an aggregate and its type.
    pub(super) fn aggregate(&mut self, columns: &[Column]) -> (Sql, Type) {
        let number = self.choices.of(&[Type::Integer, Type::Double, Type::Decimal]);
        let any = self.data_type(columns);
        let orderly = if any == Type::Boolean { Type::Text } else { any };
        let (call, data_type) = match self.choices.below(11) {
            0 => ("COUNT(*)".into(), Type::Integer),
            1 => (sql!("COUNT({})", self.expr(columns, any, 1)), Type::Integer),
            2 => (sql!("COUNT(DISTINCT {})", self.expr(columns, any, 1)), Type::Integer),
            3 | 4 => (sql!("SUM({})", self.expr(columns, number, 1)), number),
            5 => (sql!("MIN({})", self.expr(columns, orderly, 1)), orderly),
            6 => (sql!("MAX({})", self.expr(columns, orderly, 1)), orderly),
            7 => (sql!("SUM(DISTINCT {})", self.expr(columns, number, 1)), number),
            8 => (sql!("AVG({})", self.expr(columns, Type::Double, 1)), Type::Inexact),
            9 => (sql!("AVG(DISTINCT {})", self.expr(columns, Type::Double, 1)), Type::Inexact),
            _ => {
                let value = self.expr(columns, Type::Integer, 1);
                // As in Flink, of the type of its argument.
                let batch = sql!("CAST(AVG({}) AS BIGINT)", value).batch;
                return (Sql { job: sql!("AVG({})", value).job, batch }, Type::Integer);
            }
        };
        // Sums have more digits than their terms.
        let narrow =
            |call: Sql| if data_type == Type::Decimal { sql!("CAST({} AS DECIMAL(10, 2))", call) } else { call };
        if self.choices.chance(20) {
            self.seen("FILTER");
            return (narrow(sql!("{} FILTER (WHERE {})", call, self.condition(columns, 1))), data_type);
        }
        (narrow(call), data_type)
    }
}

pub(super) fn where_all(conditions: &[Sql]) -> Sql {
    if conditions.is_empty() { Sql::default() } else { sql!(" WHERE {}", Sql::join(conditions, " AND ")) }
}
