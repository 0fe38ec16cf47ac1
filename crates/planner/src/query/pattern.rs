//! MATCH_RECOGNIZE in a FROM clause. Called by `from.rs`. What names in DEFINE and MEASURES mean is found out in
//! `pattern/references.rs`, what the pattern says in `pattern/elements.rs`.

mod elements;
mod references;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion_common::{Column, DFSchema, DFSchemaRef};
use datafusion_expr::{Expr as LogicalExpr, ExprSchemable, LogicalPlan};
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion_sql::sqlparser::ast::{
    AfterMatchSkip, Expr, FunctionArg, FunctionArgExpr, Ident, OrderByExpr, RowsPerMatch, Spanned, SymbolDefinition,
    TableFactor,
};
use mainstem_plan::operator::{AfterMatch, PatternElement};
use mainstem_plan::{expr as plan, sql_type_name};

use self::elements::Elements;
use self::references::References;
use super::Scope;
use super::from::From;
use crate::common_types;
use crate::context;
use crate::error::{At, ErrorCode, SqlError};
use crate::node::{MatchRules, Measure, OrderColumn, PatternMatch};
use crate::resolve::{Names, unique_without_case};
use crate::statement::{QUERY_INPUT, WITHIN};
use crate::time_attribute::roles;
use crate::window::interval::milliseconds;
use crate::window::node::extension;

impl Scope<'_> {
    /// The plan of `input MATCH_RECOGNIZE (...)`, without its alias.
    pub(super) fn match_recognize(&self, factor: &TableFactor) -> Result<LogicalPlan, SqlError> {
        let TableFactor::MatchRecognize {
            table,
            partition_by,
            order_by,
            measures,
            rows_per_match,
            after_match_skip,
            pattern,
            symbols,
            alias: _,
        } = factor
        else {
            return Err(SqlError::new(ErrorCode::Internal, factor.span(), "no MATCH_RECOGNIZE"));
        };
        let at = At::from(factor.span());
        if matches!(rows_per_match, Some(RowsPerMatch::AllRows(_))) {
            return Err(SqlError::unsupported(at, "ALL ROWS PER MATCH is not supported"));
        }
        let input = self.pattern_input(table)?;
        let names = input.names();
        let partition = self.partition_columns(partition_by, &names)?;
        let order = self.order_columns(order_by, &input, &names, at)?;
        let Elements { variables, elements } = elements::read(pattern, at)?;
        let skip = after_match(after_match_skip.as_ref(), &variables, &elements)?;
        let (lengths, definitions): (Vec<_>, Vec<_>) = symbols.iter().partition(|definition| is_within(definition));
        let within_ms = lengths.first().map(|definition| within(definition)).transpose()?;

        let mut references = References::new(self, &names, &variables, order[0].column.clone());
        let mut conditions: Vec<Option<Expr>> = vec![None; variables.len()];
        for SymbolDefinition { symbol, definition } in definitions {
            let variable = position(symbol, &variables)?;
            if conditions[variable].is_some() {
                let message = format!("'{}' is defined twice", symbol.value);
                return Err(SqlError::new(ErrorCode::Name, symbol.span, message));
            }
            conditions[variable] = Some(references.rewrite(definition, "DEFINE")?);
        }
        let mut given = Vec::new();
        for measure in measures {
            given.push((references.rewrite(&measure.expr, "MEASURES")?, &measure.expr, &measure.alias));
        }
        let (reference_schema, references) = references.finish()?;
        let over = Over { scope: self, names: Names { schema: reference_schema.clone(), merged: Vec::new() } };
        let mut known = Vec::new();
        for (variable, condition) in variables.iter().zip(conditions) {
            let condition = condition.map(|condition| over.condition(condition, variable)).transpose()?;
            known.push((variable.value.clone(), condition));
        }
        let mut columns: Vec<String> = partition.iter().map(|column| column.name.clone()).collect();
        let mut measures = Vec::new();
        for (rewritten, original, alias) in given {
            if columns.contains(&alias.value) {
                let message =
                    format!("two columns of MATCH_RECOGNIZE are named '{}'; give one another name", alias.value);
                return Err(SqlError::new(ErrorCode::Name, alias.span, message));
            }
            columns.push(alias.value.clone());
            let is_time = references::is_match_time(original);
            measures.push(over.measure(rewritten, &alias.value, original.span().into(), is_time)?);
        }
        if columns.is_empty() {
            let message = "MATCH_RECOGNIZE gives no columns; add MEASURES or PARTITION BY";
            return Err(SqlError::unsupported(at, message));
        }
        let rules = MatchRules { variables: known, elements, measures, skip, within_ms, reference_schema };
        let node = PatternMatch::new(input.plan, partition, order, references, Arc::new(rules), at);
        node.map(extension).map_err(|error| SqlError::from_datafusion(&error, at))
    }

    fn pattern_input(&self, table: &TableFactor) -> Result<From, SqlError> {
        if let TableFactor::Table { name, args: Some(args), .. } = table
            && name.to_string() == QUERY_INPUT
            && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Subquery(query)))] = args.args.as_slice()
        {
            return Ok(From { plan: self.plan(query)?, merged: Vec::new(), several: false });
        }
        self.relation(table, false)
    }

    /// The column that an expression is; `clause` says where it stands.
    fn pattern_column(&self, expr: &Expr, names: &Names, clause: &'static str) -> Result<Column, SqlError> {
        match self.resolved(expr, names, clause)? {
            LogicalExpr::Column(column) if names.schema.maybe_index_of_column(&column).is_some() => Ok(column),
            _ => {
                let message = format!("{clause} takes columns as they are; compute them in a view or sub-query below");
                Err(SqlError::unsupported(expr.span(), message))
            }
        }
    }

    fn partition_columns(&self, partition_by: &[Expr], names: &Names) -> Result<Vec<Column>, SqlError> {
        let mut columns: Vec<Column> = Vec::new();
        for expr in partition_by {
            let column = self.pattern_column(expr, names, "PARTITION BY of MATCH_RECOGNIZE")?;
            if columns.contains(&column) {
                let message = format!("'{}' stands twice in PARTITION BY", column.name);
                return Err(SqlError::new(ErrorCode::Name, expr.span(), message));
            }
            columns.push(column);
        }
        Ok(columns)
    }

    fn order_columns(
        &self,
        order_by: &[OrderByExpr],
        input: &From,
        names: &Names,
        at: At,
    ) -> Result<Vec<OrderColumn>, SqlError> {
        let wrong = |at: At, message: &str| Err(SqlError::new(ErrorCode::Window, at, message));
        let Some(first) = order_by.first() else {
            return wrong(at, "MATCH_RECOGNIZE needs ORDER BY the event time: rows without an order match nothing");
        };
        let mut order = Vec::new();
        for key in order_by {
            let column = self.pattern_column(&key.expr, names, "ORDER BY of MATCH_RECOGNIZE")?;
            let descending = key.options.asc == Some(false);
            let nulls_first = key.options.nulls_first.unwrap_or(!descending);
            order.push(OrderColumn { column, descending, nulls_first });
        }
        let roles = roles(&input.plan);
        let role = names.schema.maybe_index_of_column(&order[0].column).map(|index| roles[index]);
        let place = At::from(first.expr.span()).or(at);
        if !role.is_some_and(|role| role.is_event_time()) {
            let message = "MATCH_RECOGNIZE must be ordered by event time first: a column with a WATERMARK, as it is";
            return wrong(place, message);
        }
        if order[0].descending {
            return wrong(place, "MATCH_RECOGNIZE goes from the oldest row to the newest; take out DESC");
        }
        Ok(order)
    }
}

/// Whether the entry of DEFINE is the length of WITHIN.
fn is_within(definition: &SymbolDefinition) -> bool {
    definition.symbol.quote_style.is_none() && definition.symbol.value == WITHIN
}

fn within(definition: &SymbolDefinition) -> Result<i64, SqlError> {
    let at = At::from(definition.symbol.span);
    let expr = context::plan_expr(definition.definition.clone(), &DFSchema::empty());
    let expr = expr.map_err(|error| SqlError::from_datafusion(&error, at))?;
    let length = milliseconds(&expr, "the length of WITHIN", at)?;
    if length <= 0 {
        return Err(SqlError::new(ErrorCode::Window, at, "the length of WITHIN must be positive"));
    }
    Ok(length)
}

/// The variable of that name.
fn position(name: &Ident, variables: &[Ident]) -> Result<usize, SqlError> {
    let by_name = |name: &str| variables.iter().position(|variable| variable.value == name);
    let known = || variables.iter().map(|variable| variable.value.as_str());
    let found = match by_name(&name.value) {
        Some(found) => Some(found),
        None => unique_without_case(&name.value, known(), name.span)?.and_then(|name| by_name(&name)),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> = known().collect();
        let advice = crate::suggest::advice(&name.value, "it has", &known);
        SqlError::new(ErrorCode::Name, name.span, format!("the pattern has no variable '{}'{advice}", name.value))
    })
}

fn after_match(
    skip: Option<&AfterMatchSkip>,
    variables: &[Ident],
    elements: &[PatternElement],
) -> Result<AfterMatch, SqlError> {
    let first = &elements[0];
    let refuse_first = |name: &Ident, always: bool| {
        if !always {
            return Ok(());
        }
        let message = format!(
            "'{}' is always the first row of a match, so that the next match would be the same; skip TO NEXT ROW",
            name.value
        );
        Err(SqlError::unsupported(name.span, message))
    };
    Ok(match skip {
        None | Some(AfterMatchSkip::PastLastRow) => AfterMatch::PastLastRow,
        Some(AfterMatchSkip::ToNextRow) => AfterMatch::ToNextRow,
        Some(AfterMatchSkip::ToFirst(name)) => {
            let variable = position(name, variables)?;
            refuse_first(name, first.variable == variable && first.min > 0)?;
            AfterMatch::ToFirst(variable)
        }
        Some(AfterMatchSkip::ToLast(name)) => {
            let variable = position(name, variables)?;
            let elsewhere = elements[1..].iter().any(|element| element.variable == variable);
            let always = first.variable == variable && first.min > 0 && first.max == Some(1);
            refuse_first(name, always && !elsewhere)?;
            AfterMatch::ToLast(variable)
        }
    })
}

/// Plans expressions over the references.
struct Over<'a> {
    scope: &'a Scope<'a>,
    names: Names,
}

impl Over<'_> {
    /// The expression with its types settled, and its type.
    fn settled(&self, expr: Expr, clause: &'static str, at: At) -> Result<(plan::Expr, Field), SqlError> {
        let planned = self.scope.resolved(&expr, &self.names, clause)?;
        let failed = |error| SqlError::from_datafusion(&error, at);
        let planned = settle(planned, &self.names.schema).map_err(failed)?;
        let data_type = planned.get_type(self.names.schema.as_ref()).map_err(failed)?;
        let nullable = planned.nullable(self.names.schema.as_ref()).map_err(failed)?;
        let stored = plan::Expr::from_logical(&planned, &self.names.schema);
        let stored = stored.map_err(|error| SqlError::unsupported(at, error.message))?;
        Ok((stored, Field::new("", mainstem_plan::plain_type(&data_type), nullable)))
    }

    fn condition(&self, condition: Expr, variable: &Ident) -> Result<plan::Expr, SqlError> {
        let at = At::from(condition.span()).or(variable.span.into());
        let (stored, field) = self.settled(condition, "DEFINE", at)?;
        if !matches!(field.data_type(), DataType::Boolean | DataType::Null) {
            let found = sql_type_name(field.data_type());
            let message = format!("DEFINE needs a condition for '{}', this is of type {found}", variable.value);
            return Err(SqlError::new(ErrorCode::Type, at, message));
        }
        if stored.reads_clock() {
            let message = "DEFINE cannot read the clock or the watermark: after a restart other rows would match";
            return Err(SqlError::unsupported(at, message));
        }
        Ok(stored)
    }

    fn measure(&self, expr: Expr, name: &str, at: At, is_time: bool) -> Result<Measure, SqlError> {
        let (expr, field) = self.settled(expr, "MEASURES", at)?;
        Ok(Measure { field: field.with_name(name), expr, is_time })
    }
}

/// Makes the types of operands and arguments fit, and folds what is constant.
fn settle(expr: LogicalExpr, schema: &DFSchemaRef) -> datafusion_common::Result<LogicalExpr> {
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(schema.clone()).build());
    let expr = common_types::expression(expr, schema)?;
    simplifier.simplify(simplifier.coerce(expr, schema)?)
}
