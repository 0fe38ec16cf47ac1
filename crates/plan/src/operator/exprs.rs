//! The expressions that an operator evaluates.

use super::{NamedExpr, OperatorKind, OverCall, Reference};
use crate::aggregate::AggregateCall;
use crate::expr::Expr;

impl OperatorKind {
    /// All expressions that are evaluated on rows, and all calls of aggregates, whose own expressions are not among the
    /// former.
    #[must_use]
    pub fn exprs(&self) -> (Vec<&Expr>, Vec<&AggregateCall>) {
        match self {
            OperatorKind::Source(source) => {
                let mut exprs = [named(&source.project), named(&source.computed)].concat();
                exprs.extend(source.watermark.iter().flat_map(|watermark| [&watermark.time, &watermark.watermark]));
                exprs.extend(source.checks.iter().map(|check| &check.expr));
                (exprs, Vec::new())
            }
            OperatorKind::Calc { filter, project } => {
                let mut exprs = project.as_deref().map(named).unwrap_or_default();
                exprs.extend(filter);
                (exprs, Vec::new())
            }
            OperatorKind::WindowPartial(window) => (named(&window.keys), window.aggregates.iter().collect()),
            OperatorKind::GroupAggregate(aggregate) => (Vec::new(), aggregate.aggregates.iter().collect()),
            OperatorKind::Join(join) => (join.on.condition.iter().collect(), Vec::new()),
            OperatorKind::IntervalJoin(join) => (join.on.condition.iter().collect(), Vec::new()),
            OperatorKind::WindowJoin(join) => (join.on.condition.iter().collect(), Vec::new()),
            OperatorKind::TemporalJoin(join) => (join.on.condition.iter().collect(), Vec::new()),
            OperatorKind::LookupJoin(join) => (join.on.condition.iter().collect(), Vec::new()),
            OperatorKind::OverAggregate(over) => {
                let mut calls = Vec::new();
                for call in &over.calls {
                    if let OverCall::Aggregate(call) = call {
                        calls.push(call);
                    }
                }
                (Vec::new(), calls)
            }
            OperatorKind::PatternMatch(pattern) => {
                let mut exprs = named(&pattern.measures);
                for variable in &pattern.variables {
                    exprs.extend(variable.row_condition.iter().chain(&variable.match_condition));
                }
                let mut calls = Vec::new();
                for reference in &pattern.references {
                    if let Reference::Aggregate { call, .. } = reference {
                        calls.push(call);
                    }
                }
                (exprs, calls)
            }
            // Of two steps one says what both compute.
            OperatorKind::WindowFinal(_)
            | OperatorKind::GroupPartial { .. }
            | OperatorKind::Union
            | OperatorKind::WindowAssign { .. }
            | OperatorKind::Rank(_)
            | OperatorKind::Sort(_)
            | OperatorKind::Unnest(_)
            | OperatorKind::SetOperation(_)
            | OperatorKind::Normalize { .. }
            | OperatorKind::Sink(_) => (Vec::new(), Vec::new()),
        }
    }
}

fn named(exprs: &[NamedExpr]) -> Vec<&Expr> {
    exprs.iter().map(|named| &named.expr).collect()
}
