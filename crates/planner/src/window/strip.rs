//! Takes a window table function out from below an aggregation, looking through filters, projections and
//! aliases that do not touch the window's columns, so that both become one operator that never writes a row
//! once for each window. Called by `aggregate.rs`.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, Result};
use datafusion_expr::{Expr, Filter, LogicalPlan, Projection};
use mainstem_plan::operator::{WindowKind, WindowProperty};

use super::node::{WindowTableFunction, downcast};

/// A plan without its window.
pub(crate) struct Stripped {
    /// The rows before windows are assigned.
    pub(crate) plan: LogicalPlan,
    pub(crate) window: WindowKind,
    /// The event time, in `plan`.
    pub(crate) time: Column,
    /// The keys of a session window, in `plan`.
    pub(crate) partition_by: Vec<Column>,
    /// What each column of the original plan is.
    columns: Vec<Source>,
}

#[derive(Clone, Debug)]
enum Source {
    /// A column of the stripped plan.
    Input(Column),
    Window(WindowProperty),
}

impl Stripped {
    /// What of the window an original column is.
    pub(crate) fn property(&self, column: usize) -> Option<WindowProperty> {
        match self.columns[column] {
            Source::Window(property) => Some(property),
            Source::Input(_) => None,
        }
    }

    /// The expression over the stripped plan; none where it reads the window's columns.
    pub(crate) fn rewrite(&self, expr: &Expr, original: &DFSchema) -> Result<Option<Expr>> {
        let mut reads_window = false;
        let rewritten = expr.clone().transform_up(|expr| {
            let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
            match &self.columns[original.index_of_column(column)?] {
                Source::Input(input) => {
                    let mut input = input.clone();
                    input.spans = column.spans.clone();
                    Ok(Transformed::yes(Expr::Column(input)))
                }
                Source::Window(_) => {
                    reads_window = true;
                    Ok(Transformed::no(expr))
                }
            }
        })?;
        Ok((!reads_window).then_some(rewritten.data))
    }
}

/// The plan without its window table function; none where it has none that can be taken out.
pub(crate) fn strip(plan: &LogicalPlan) -> Result<Option<Stripped>> {
    match plan {
        LogicalPlan::Extension(_) => Ok(downcast::<WindowTableFunction>(plan).map(strip_function)),
        LogicalPlan::SubqueryAlias(alias) => strip(&alias.input),
        LogicalPlan::Filter(filter) => {
            let Some(mut stripped) = strip(&filter.input)? else { return Ok(None) };
            let Some(predicate) = stripped.rewrite(&filter.predicate, filter.input.schema())? else { return Ok(None) };
            stripped.plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(stripped.plan))?);
            Ok(Some(stripped))
        }
        LogicalPlan::Projection(projection) => strip_projection(projection),
        _ => Ok(None),
    }
}

fn strip_function(node: &WindowTableFunction) -> Stripped {
    let columns = node.input.schema().columns().into_iter().map(Source::Input);
    let window = [WindowProperty::Start, WindowProperty::End, WindowProperty::Time].map(Source::Window);
    Stripped {
        plan: node.input.as_ref().clone(),
        window: node.window.clone(),
        time: node.time.clone(),
        partition_by: node.partition_by.clone(),
        columns: columns.chain(window).collect(),
    }
}

fn strip_projection(projection: &Projection) -> Result<Option<Stripped>> {
    let Some(stripped) = strip(&projection.input)? else { return Ok(None) };
    let original = projection.input.schema();
    let mut exprs = Vec::new();
    let mut columns = Vec::new();
    let mut kept = Vec::<Expr>::new();
    // What is there already is not computed a second time; the keys of a session are found again by that.
    let mut keep = |expr: Expr| {
        let position = kept.iter().position(|known| *known == expr).unwrap_or(kept.len());
        let name = format!("__column_{position}");
        if position == kept.len() {
            exprs.push(expr.clone().alias(name.clone()));
            kept.push(expr);
        }
        Column::new_unqualified(name)
    };
    for expr in &projection.expr {
        let plain = expr.clone().unalias();
        if let Expr::Column(column) = &plain
            && let Source::Window(property) = stripped.columns[original.index_of_column(column)?]
        {
            columns.push(Source::Window(property));
            continue;
        }
        let Some(rewritten) = stripped.rewrite(&plain, original)? else { return Ok(None) };
        columns.push(Source::Input(keep(rewritten)));
    }
    // The window needs these even where the query does not pass them on.
    let time = keep(Expr::Column(stripped.time.clone()));
    let partition_by = stripped.partition_by.iter().map(|column| keep(Expr::Column(column.clone()))).collect();
    let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(stripped.plan))?);
    Ok(Some(Stripped { plan, window: stripped.window, time, partition_by, columns }))
}
