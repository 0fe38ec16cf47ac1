//! Calls with OVER that have become the same, as `SUM(v + 1)` and `SUM(v + (0 + 1))` do when constants are folded, are
//! made one. A rule of the optimiser; it must come before the one that gives common expressions a column of their own,
//! which would take the whole call for such an expression and put it where no OVER can stand.

use std::sync::Arc;

use datafusion_common::tree_node::Transformed;
use datafusion_common::{Column, Result};
use datafusion_expr::{Expr, LogicalPlan, Projection, Window};
use datafusion_optimizer::optimizer::ApplyOrder;
use datafusion_optimizer::{OptimizerConfig, OptimizerRule};

use super::without_alias;

/// See the module.
#[derive(Debug)]
pub(crate) struct SameCalls;

impl OptimizerRule for SameCalls {
    fn name(&self) -> &str {
        "same_calls"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Window(window) = &plan else { return Ok(Transformed::no(plan)) };
        let columns = window.schema.columns();
        let (below, calls) = columns.split_at(columns.len() - window.window_expr.len());
        let mut kept: Vec<(&Expr, &Column)> = Vec::new();
        let mut exprs: Vec<Expr> = below.iter().cloned().map(Expr::Column).collect();
        for (call, column) in window.window_expr.iter().zip(calls) {
            let same = kept.iter().find(|(known, _)| without_alias(known) == without_alias(call));
            if let Some((_, known)) = same {
                exprs.push(Expr::Column((*known).clone()).alias_qualified(column.relation.clone(), &column.name));
            } else {
                kept.push((call, column));
                exprs.push(Expr::Column(column.clone()));
            }
        }
        if kept.len() == calls.len() {
            return Ok(Transformed::no(plan));
        }
        let kept = kept.into_iter().map(|(call, _)| call.clone()).collect();
        let window = LogicalPlan::Window(Window::try_new(kept, window.input.clone())?);
        Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(window))?)))
    }
}
