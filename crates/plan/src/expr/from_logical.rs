//! From DataFusion's logical expression, after type coercion, to ours. Called by the planner. What has no form
//! here is refused by name: nothing is approximated.

use std::cell::Cell;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{self, ScalarFunction};
use datafusion_expr::{Expr as Logical, ExprSchemable, Operator};

use super::{BinaryOperator, EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX, Expr, Literal, Test};
use crate::error::{Location, PlanError};
use crate::functions::{patterns, registry};
use crate::types::plain_type;

impl Expr {
    /// The stored form of a logical expression whose columns are those of `schema`. Types must have been
    /// coerced; aliases are dropped; view types become plain ones throughout.
    ///
    /// # Errors
    /// Where the expression has a form without an evaluation here (subqueries, aggregates, window functions,
    /// placeholders, lambdas), names an unknown column, or calls a function that is refused.
    pub fn from_logical(expr: &Logical, schema: &DFSchema) -> Result<Expr, PlanError> {
        let converted = Converter { schema, nodes: Cell::new(0) }.convert(expr, 0)?;
        if converted.depth() > EXPRESSION_DEPTH_MAX {
            return Err(too_deep().at(location(expr)));
        }
        Ok(converted)
    }
}

/// Where in the SQL text an expression stands: the place of the first of its columns that has one.
pub(crate) fn location(expr: &Logical) -> Option<Location> {
    let mut found = None;
    let visit = |e: &Logical| {
        let span = e.spans().and_then(|spans| spans.first());
        found = span.and_then(|s| Location::of_span(&s));
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    };
    // The visitor never fails.
    let _ = expr.apply(visit);
    found
}

fn too_deep() -> PlanError {
    PlanError::unsupported(format!(
        "the expression is nested deeper than {EXPRESSION_DEPTH_MAX}; compute parts of it in a view"
    ))
}

struct Converter<'a> {
    schema: &'a DFSchema,
    /// Nodes made so far.
    nodes: Cell<usize>,
}

type Converted = Result<Expr, PlanError>;

impl Converter<'_> {
    fn convert(&self, logical: &Logical, depth: usize) -> Converted {
        if depth >= EXPRESSION_DEPTH_MAX {
            return Err(too_deep().at(location(logical)));
        }
        self.count(1)?;
        self.convert_form(logical, depth + 1).map_err(|e| e.at(location(logical)))
    }

    fn count(&self, nodes: usize) -> Result<(), PlanError> {
        self.nodes.set(self.nodes.get() + nodes);
        if self.nodes.get() > EXPRESSION_NODES_MAX {
            let message =
                format!("the expression has more than {EXPRESSION_NODES_MAX} parts; compute some of them in a view");
            return Err(PlanError::unsupported(message));
        }
        Ok(())
    }

    fn boxed(&self, logical: &Logical, depth: usize) -> Result<Box<Expr>, PlanError> {
        self.convert(logical, depth).map(Box::new)
    }

    fn all(&self, logical: &[Logical], depth: usize) -> Result<Vec<Expr>, PlanError> {
        logical.iter().map(|e| self.convert(e, depth)).collect()
    }

    fn convert_form(&self, logical: &Logical, depth: usize) -> Converted {
        let is = |expr: &Logical, test, negated| Ok(Expr::Is { expr: self.boxed(expr, depth)?, test, negated });
        match logical {
            Logical::Alias(alias) => self.convert(&alias.expr, depth),
            Logical::Column(column) => {
                let index = self.schema.maybe_index_of_column(column);
                index
                    .map(Expr::Column)
                    .ok_or_else(|| PlanError::invalid(format!("there is no column '{}' here", column.flat_name())))
            }
            Logical::Literal(value, _) => Ok(Expr::Literal(Literal::plain(value)?)),
            Logical::BinaryExpr(binary) => self.binary(logical, binary, depth),
            Logical::Not(expr) => Ok(Expr::Not(self.boxed(expr, depth)?)),
            Logical::IsNull(expr) => is(expr, Test::Null, false),
            Logical::IsNotNull(expr) => is(expr, Test::Null, true),
            Logical::IsTrue(expr) => is(expr, Test::True, false),
            Logical::IsNotTrue(expr) => is(expr, Test::True, true),
            Logical::IsFalse(expr) => is(expr, Test::False, false),
            Logical::IsNotFalse(expr) => is(expr, Test::False, true),
            Logical::IsUnknown(expr) => is(expr, Test::Unknown, false),
            Logical::IsNotUnknown(expr) => is(expr, Test::Unknown, true),
            Logical::Negative(expr) => Ok(Expr::Negative(self.boxed(expr, depth)?)),
            Logical::Between(between) => Ok(Expr::Between {
                expr: self.boxed(&between.expr, depth)?,
                negated: between.negated,
                low: self.boxed(&between.low, depth)?,
                high: self.boxed(&between.high, depth)?,
            }),
            Logical::Case(case) => self.case(case, depth),
            Logical::Cast(cast) => {
                Ok(Expr::Cast { expr: self.boxed(&cast.expr, depth)?, to: plain_type(cast.field.data_type()) })
            }
            Logical::TryCast(cast) => {
                Ok(Expr::TryCast { expr: self.boxed(&cast.expr, depth)?, to: plain_type(cast.field.data_type()) })
            }
            Logical::Like(like) => self.like(like, depth),
            Logical::SimilarTo(like) => self.similar_to(like, depth),
            Logical::InList(list) => Ok(Expr::InList {
                expr: self.boxed(&list.expr, depth)?,
                list: self.all(&list.list, depth)?,
                negated: list.negated,
            }),
            Logical::ScalarFunction(function) => self.function(logical, function, depth),
            other => Err(PlanError::unsupported(format!("{} is not supported in an expression", construct(other)))),
        }
    }

    fn binary(&self, logical: &Logical, binary: &expr::BinaryExpr, depth: usize) -> Converted {
        let op = BinaryOperator::from_logical(binary.op)
            .ok_or_else(|| PlanError::unsupported(format!("the operator {} is not supported", binary.op)))?;
        if matches!(binary.op, Operator::And | Operator::Or | Operator::StringConcat) {
            let operands = chain(logical, binary.op);
            // A balanced tree of n operands adds log2(n) levels, whatever the shape of the written chain.
            let levels = operands.len().ilog2() as usize;
            let operands = operands.into_iter().map(|e| self.convert(e, depth + levels));
            return Ok(balance(operands.collect::<Result<_, _>>()?, op));
        }
        Ok(Expr::Binary { left: self.boxed(&binary.left, depth)?, op, right: self.boxed(&binary.right, depth)? })
    }

    fn case(&self, case: &expr::Case, depth: usize) -> Converted {
        let branch = |(when, then): &(Box<Logical>, Box<Logical>)| {
            Ok::<_, PlanError>((self.convert(when, depth)?, self.convert(then, depth)?))
        };
        Ok(Expr::Case {
            operand: case.expr.as_ref().map(|e| self.boxed(e, depth)).transpose()?,
            branches: case.when_then_expr.iter().map(branch).collect::<Result<_, _>>()?,
            otherwise: case.else_expr.as_ref().map(|e| self.boxed(e, depth)).transpose()?,
        })
    }

    fn like(&self, like: &expr::Like, depth: usize) -> Converted {
        let mut pattern = self.convert(&like.pattern, depth)?;
        if let Some(escape) = like.escape_char.filter(|c| *c != '\\') {
            let Some(text) = literal_text(&pattern) else {
                return Err(PlanError::unsupported("LIKE with ESCAPE needs a constant pattern"));
            };
            pattern = Expr::literal(patterns::like_with_backslash(text, escape));
        }
        Ok(Expr::Like {
            negated: like.negated,
            case_insensitive: like.case_insensitive,
            expr: self.boxed(&like.expr, depth)?,
            pattern: Box::new(pattern),
        })
    }

    fn similar_to(&self, like: &expr::Like, depth: usize) -> Converted {
        let pattern = self.convert(&like.pattern, depth)?;
        let Some(text) = literal_text(&pattern) else {
            return Err(PlanError::unsupported("SIMILAR TO needs a constant pattern"));
        };
        let pattern = Expr::literal(patterns::similar_to_regex(text, like.escape_char).map_err(PlanError::invalid)?);
        Ok(Expr::SimilarTo { negated: like.negated, expr: self.boxed(&like.expr, depth)?, pattern: Box::new(pattern) })
    }

    fn function(&self, logical: &Logical, function: &ScalarFunction, depth: usize) -> Converted {
        let name = function.func.name();
        if let Some(reason) = registry().refused(name) {
            return Err(PlanError::unsupported(reason));
        }
        let return_type = plain_type(&logical.get_type(self.schema)?);
        let args = self.all(&function.args, depth)?;
        match name {
            "coalesce" | "nvl" | "nvl2" | "if" => self.conditional(name, &function.args, args, &return_type),
            _ => {
                let name = registry()
                    .identify(&function.func)
                    .ok_or_else(|| PlanError::unsupported(format!("the function {name} is not supported")))?;
                Ok(Expr::ScalarFunction { name, args, return_type })
            }
        }
    }

    /// Functions that must not evaluate all of their arguments on every row become CASE.
    fn conditional(&self, name: &str, logical: &[Logical], args: Vec<Expr>, to: &DataType) -> Converted {
        // The tested arguments stand twice in the CASE.
        self.count(args.iter().map(Expr::size).sum())?;
        let typed = |expr: Expr, source: &Logical| -> Converted {
            let same = plain_type(&source.get_type(self.schema)?) == *to;
            Ok(if same { expr } else { Expr::Cast { expr: Box::new(expr), to: to.clone() } })
        };
        let not_null = |e: &Expr| Expr::Is { expr: Box::new(e.clone()), test: Test::Null, negated: true };
        let wrong = || PlanError::invalid(format!("{} does not take {} arguments", name.to_uppercase(), args.len()));
        if name == "coalesce" || name == "nvl" {
            let (last, first) = args.split_last().ok_or_else(wrong)?;
            let (last_source, _) = logical.split_last().ok_or_else(wrong)?;
            let otherwise = typed(last.clone(), last_source)?;
            if first.is_empty() {
                return Ok(otherwise);
            }
            let branch = |(e, source): (&Expr, &Logical)| Ok::<_, PlanError>((not_null(e), typed(e.clone(), source)?));
            let branches = first.iter().zip(logical).map(branch).collect::<Result<_, _>>()?;
            return Ok(Expr::Case { operand: None, branches, otherwise: Some(Box::new(otherwise)) });
        }
        let [condition, yes, no] = args.as_slice() else { return Err(wrong()) };
        let condition = if name == "nvl2" { not_null(condition) } else { condition.clone() };
        let branches = vec![(condition, typed(yes.clone(), &logical[1])?)];
        Ok(Expr::Case { operand: None, branches, otherwise: Some(Box::new(typed(no.clone(), &logical[2])?)) })
    }
}

/// The operands of a chain of one associative operator, left to right, without recursion.
fn chain(expr: &Logical, op: Operator) -> Vec<&Logical> {
    let mut operands = Vec::new();
    let mut stack = vec![expr];
    while let Some(next) = stack.pop() {
        match next {
            Logical::BinaryExpr(binary) if binary.op == op => {
                stack.extend([binary.right.as_ref(), binary.left.as_ref()])
            }
            other => operands.push(other),
        }
    }
    operands
}

fn balance(mut operands: Vec<Expr>, op: BinaryOperator) -> Expr {
    if operands.len() == 1 {
        return operands.remove(0);
    }
    let right = operands.split_off(operands.len().div_ceil(2));
    Expr::Binary { left: Box::new(balance(operands, op)), op, right: Box::new(balance(right, op)) }
}

fn literal_text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(Literal(ScalarValue::Utf8(Some(text)))) => Some(text),
        Expr::Cast { expr, to: DataType::Utf8 } => literal_text(expr),
        _ => None,
    }
}

/// What the user calls a form that is refused.
fn construct(expr: &Logical) -> String {
    match expr {
        Logical::AggregateFunction(call) => format!("the aggregate {}", call.func.name().to_uppercase()),
        Logical::WindowFunction(call) => format!("the window function {}", call.fun.name().to_uppercase()),
        Logical::Exists(_) => "EXISTS".to_owned(),
        Logical::InSubquery(_) => "IN with a subquery".to_owned(),
        Logical::SetComparison(_) => "a comparison with ANY or ALL of a subquery".to_owned(),
        Logical::ScalarSubquery(_) => "a subquery".to_owned(),
        Logical::OuterReferenceColumn(_, column) => format!("the column '{}' of an outer query", column.flat_name()),
        Logical::GroupingSet(_) => "GROUPING SETS, CUBE or ROLLUP".to_owned(),
        Logical::Placeholder(placeholder) => format!("the placeholder {}", placeholder.id),
        Logical::Unnest(_) => "UNNEST".to_owned(),
        Logical::ScalarVariable(_, names) => format!("the variable {}", names.join(".")),
        Logical::HigherOrderFunction(call) => format!("the function {} with a lambda", call.func.name()),
        Logical::Lambda(_) | Logical::LambdaVariable(_) => "a lambda".to_owned(),
        other => format!("'{other}'"),
    }
}
