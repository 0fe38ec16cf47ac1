//! Keeps the depth of what was parsed within bounds, before anything recurses over it. The parser limits
//! nesting by parentheses, but a chain `a OR b OR c ...` becomes a tree as deep as the chain is long. Called by
//! the statement layer for every query and expression.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, Query, SetExpr, VisitMut, VisitorMut};

use crate::error::{At, ErrorCode, SqlError};
use crate::forms;

/// Most operands of one chain of AND, OR or `||`.
const CHAIN_MAX: usize = 2_000;
/// Most operands of one chain of other operators.
const DEEP_CHAIN_MAX: usize = 500;
/// Chains up to this length stay as they are. A balanced tree's side is far shorter.
const BALANCED_FROM: usize = 64;
/// Most members of one UNION ALL.
const UNION_MAX: usize = 500;

/// Balances long chains and refuses those that are too long.
pub(super) fn check_query(query: &mut Query) -> Result<(), SqlError> {
    into_result(VisitMut::visit(query, &mut Guard))
}

/// The same for one expression.
pub(super) fn check_expr(expr: &mut Expr) -> Result<(), SqlError> {
    into_result(VisitMut::visit(expr, &mut Guard))
}

fn into_result(flow: ControlFlow<SqlError>) -> Result<(), SqlError> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Guard;

impl VisitorMut for Guard {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<SqlError> {
        let mut members = 1;
        let mut body = query.body.as_ref();
        while let SetExpr::SetOperation { left, .. } = body {
            members += 1;
            body = left;
        }
        if members > UNION_MAX {
            return too_long(format!(
                "a UNION ALL joins {members} queries, at most {UNION_MAX} are accepted; use views"
            ));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        if let Err(error) = forms::interval(expr) {
            return ControlFlow::Break(error);
        }
        let length = side_length(expr);
        if length < BALANCED_FROM {
            return ControlFlow::Continue(());
        }
        let Expr::BinaryOp { op, .. } = expr else { return ControlFlow::Continue(()) };
        let op = op.clone();
        let associative = matches!(op, BinaryOperator::And | BinaryOperator::Or | BinaryOperator::StringConcat);
        let most = if associative { CHAIN_MAX } else { DEEP_CHAIN_MAX };
        if length > most {
            return too_long(format!(
                "a chain of '{op}' has {length} operands, at most {most} are accepted; use IN (...), or compute parts of it in a view"
            ));
        }
        if associative {
            let operands = unwind(expr, &op);
            *expr = balanced(operands, &op);
        }
        ControlFlow::Continue(())
    }
}

fn too_long(message: String) -> ControlFlow<SqlError> {
    ControlFlow::Break(SqlError::new(ErrorCode::Limit, At::NOWHERE, message))
}

/// Operands along the left side, whatever the operators.
fn side_length(expr: &Expr) -> usize {
    let mut length = 1;
    let mut node = expr;
    while let Expr::BinaryOp { left, .. } = node {
        length += 1;
        node = left;
    }
    length
}

/// Takes a chain of one operator apart, first operand first.
fn unwind(expr: &mut Expr, op: &BinaryOperator) -> Vec<Expr> {
    let hole = || Expr::Tuple(vec![]);
    let mut operands = Vec::new();
    let mut node = std::mem::replace(expr, hole());
    loop {
        match node {
            Expr::BinaryOp { left, op: found, right } if found == *op => {
                operands.push(*right);
                node = *left;
            }
            first => {
                operands.push(first);
                operands.reverse();
                return operands;
            }
        }
    }
}

fn balanced(mut operands: Vec<Expr>, op: &BinaryOperator) -> Expr {
    if operands.len() == 1 {
        return operands.remove(0);
    }
    let right = operands.split_off(operands.len() / 2);
    let (left, right) = (balanced(operands, op), balanced(right, op));
    Expr::BinaryOp { left: Box::new(left), op: op.clone(), right: Box::new(right) }
}
