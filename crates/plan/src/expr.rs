//! Expressions in the form in which they are stored with a job. The planner makes them from DataFusion's
//! logical expressions, the engine compiles them. Their stored form (see `expr/stored.rs`) must stay readable
//! by every later version: variants and fields are added, never renamed.

mod compile;
mod display;
mod from_logical;
mod literal;
mod stored;

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, Schema};
use datafusion_expr::Operator;
use serde::{Deserialize, Serialize};

use crate::error::PlanError;

pub use literal::Literal;

pub(crate) use compile::cast_argument;
pub(crate) use from_logical::location;

/// Greatest nesting of an expression: it is compiled, evaluated and dropped by recursion, on the stack of a
/// worker thread. Chains of AND, OR and `||` are stored as balanced trees, so that their length is not nesting.
pub const EXPRESSION_DEPTH_MAX: usize = 200;

/// Greatest number of nodes of an expression. Functions such as COALESCE repeat their arguments when they
/// become CASE; without a bound, a short text could fill the memory.
pub const EXPRESSION_NODES_MAX: usize = 100_000;

/// An expression over the columns of an operator's input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub enum Expr {
    /// The input column at that position.
    Column(usize),
    /// A constant.
    Literal(Literal),
    /// An operator between two expressions of types that fit (casts are explicit).
    Binary {
        /// Left operand.
        left: Box<Expr>,
        /// The operator.
        op: BinaryOperator,
        /// Right operand.
        right: Box<Expr>,
    },
    /// `NOT e`.
    Not(Box<Expr>),
    /// `e IS [NOT] NULL|TRUE|FALSE|UNKNOWN`.
    Is {
        /// What is tested.
        expr: Box<Expr>,
        /// For what.
        test: Test,
        /// Whether the answer is turned round.
        negated: bool,
    },
    /// `-e`.
    Negative(Box<Expr>),
    /// `CASE [operand] WHEN .. THEN .. [ELSE ..] END`; all results have one type.
    Case {
        /// What the WHENs are compared with; absent: they are conditions.
        operand: Option<Box<Expr>>,
        /// WHEN and THEN.
        branches: Vec<(Expr, Expr)>,
        /// ELSE; absent: NULL.
        otherwise: Option<Box<Expr>>,
    },
    /// `CAST(e AS t)`; a value that does not fit fails the job.
    Cast {
        /// The value.
        expr: Box<Expr>,
        /// The type.
        to: DataType,
    },
    /// `TRY_CAST(e AS t)`; a value that does not fit gives NULL.
    TryCast {
        /// The value.
        expr: Box<Expr>,
        /// The type.
        to: DataType,
    },
    /// `e [NOT] LIKE pattern`, where a backslash escapes.
    Like {
        /// Whether the answer is turned round.
        negated: bool,
        /// `ILIKE`.
        case_insensitive: bool,
        /// The string.
        expr: Box<Expr>,
        /// The pattern.
        pattern: Box<Expr>,
    },
    /// `e [NOT] SIMILAR TO pattern`, the pattern already turned into an anchored regular expression.
    SimilarTo {
        /// Whether the answer is turned round.
        negated: bool,
        /// The string.
        expr: Box<Expr>,
        /// The regular expression.
        pattern: Box<Expr>,
    },
    /// `e [NOT] IN (list)`.
    InList {
        /// The value.
        expr: Box<Expr>,
        /// What it may equal.
        list: Vec<Expr>,
        /// Whether the answer is turned round.
        negated: bool,
    },
    /// `e [NOT] BETWEEN low AND high`.
    Between {
        /// The value.
        expr: Box<Expr>,
        /// Whether the answer is turned round.
        negated: bool,
        /// Lower bound, inclusive.
        low: Box<Expr>,
        /// Upper bound, inclusive.
        high: Box<Expr>,
    },
    /// A function of the registry.
    ScalarFunction {
        /// Its name there.
        name: String,
        /// Arguments.
        args: Vec<Expr>,
        /// What it gives. Where a later version of the function gives another type, its result is cast.
        return_type: DataType,
    },
}

/// What settles the result of a function beside its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Varies {
    /// The clock of the epoch or the watermark, which a replay reads again.
    Clock,
    /// Chance.
    Chance,
}

/// What [`Expr::Is`] tests for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Test {
    /// `IS NULL`.
    Null,
    /// `IS TRUE`.
    True,
    /// `IS FALSE`.
    False,
    /// `IS UNKNOWN`: NULL of type BOOLEAN.
    Unknown,
}

macro_rules! binary_operators {
    ($($name:ident),* $(,)?) => {
        /// Operators between two expressions. Names are those of DataFusion's [`Operator`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum BinaryOperator { $($name),* }

        impl BinaryOperator {
            /// DataFusion's name of it.
            #[must_use]
            pub fn to_logical(self) -> Operator {
                match self { $(BinaryOperator::$name => Operator::$name),* }
            }

            /// From DataFusion's operator, where it has an evaluation.
            #[must_use]
            pub fn from_logical(op: Operator) -> Option<BinaryOperator> {
                match op { $(Operator::$name => Some(BinaryOperator::$name),)* _ => None }
            }
        }
    };
}

binary_operators!(
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    Plus,
    Minus,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
    IsDistinctFrom,
    IsNotDistinctFrom,
    RegexMatch,
    RegexIMatch,
    RegexNotMatch,
    RegexNotIMatch,
    LikeMatch,
    ILikeMatch,
    NotLikeMatch,
    NotILikeMatch,
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    BitwiseShiftRight,
    BitwiseShiftLeft,
    StringConcat,
);

impl Expr {
    /// A literal.
    pub fn literal(value: impl Into<datafusion_common::ScalarValue>) -> Expr {
        Expr::Literal(Literal(value.into()))
    }

    /// The type of the result over an input with these columns.
    pub fn data_type(&self, input: &Schema) -> Result<DataType, PlanError> {
        match self {
            Expr::Column(index) => column(*index, input).map(|f| f.data_type().clone()),
            Expr::Cast { to, .. } | Expr::TryCast { to, .. } | Expr::ScalarFunction { return_type: to, .. } => {
                Ok(to.clone())
            }
            _ => Ok(self.compile_here(input)?.data_type(input)?),
        }
    }

    /// Whether the result may be NULL over an input with these columns.
    pub fn nullable(&self, input: &Schema) -> Result<bool, PlanError> {
        Ok(self.compile_here(input)?.nullable(input)?)
    }

    /// Positions of the input columns that the expression reads.
    #[must_use]
    pub fn columns(&self) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        self.collect_columns(&mut found);
        found
    }

    fn collect_columns(&self, found: &mut BTreeSet<usize>) {
        if let Expr::Column(index) = self {
            found.insert(*index);
        }
        self.children().into_iter().for_each(|child| child.collect_columns(found));
    }

    /// Replaces every column position by what the function makes of it.
    pub fn remap_columns(&mut self, position: &dyn Fn(usize) -> usize) {
        if let Expr::Column(index) = self {
            *index = position(*index);
        }
        self.children_mut().into_iter().for_each(|child| child.remap_columns(position));
    }

    /// Replaces every part that is equal to `part`.
    pub fn replace(&mut self, part: &Expr, by: &Expr) {
        if self == part {
            *self = by.clone();
        } else {
            self.children_mut().into_iter().for_each(|child| child.replace(part, by));
        }
    }

    /// Whether the expression reads the clock or the watermark, and so may differ from epoch to epoch.
    #[must_use]
    pub fn reads_clock(&self) -> bool {
        let here =
            matches!(self, Expr::ScalarFunction { name, args, .. } if crate::functions::reads_clock(name, args.len()));
        here || self.children().into_iter().any(Expr::reads_clock)
    }

    /// The functions in the expression whose result is not settled by their arguments, in upper case, and what settles it.
    #[must_use]
    pub fn varying_calls(&self) -> BTreeMap<String, Varies> {
        let mut found = BTreeMap::new();
        self.collect_varying(&mut found);
        found
    }

    fn collect_varying(&self, found: &mut BTreeMap<String, Varies>) {
        if let Expr::ScalarFunction { name, args, .. } = self
            && let Some(varies) = crate::functions::varies(name, args.len())
        {
            found.insert(name.to_uppercase(), varies);
        }
        self.children().into_iter().for_each(|child| child.collect_varying(found));
    }

    /// Number of nodes.
    pub(crate) fn size(&self) -> usize {
        1 + self.children().into_iter().map(Expr::size).sum::<usize>()
    }

    /// Number of levels.
    pub(crate) fn depth(&self) -> usize {
        1 + self.children().into_iter().map(Expr::depth).max().unwrap_or(0)
    }

    /// The expressions directly below, left to right.
    #[must_use]
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Column(_) | Expr::Literal(_) => Vec::new(),
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::Not(expr)
            | Expr::Negative(expr)
            | Expr::Is { expr, .. }
            | Expr::Cast { expr, .. }
            | Expr::TryCast { expr, .. } => vec![expr],
            Expr::Case { operand, branches, otherwise } => {
                let branches = branches.iter().flat_map(|(when, then)| [when, then]);
                operand.iter().map(AsRef::as_ref).chain(branches).chain(otherwise.iter().map(AsRef::as_ref)).collect()
            }
            Expr::Like { expr, pattern, .. } | Expr::SimilarTo { expr, pattern, .. } => vec![expr, pattern],
            Expr::InList { expr, list, .. } => std::iter::once(expr.as_ref()).chain(list).collect(),
            Expr::Between { expr, low, high, .. } => vec![expr, low, high],
            Expr::ScalarFunction { args, .. } => args.iter().collect(),
        }
    }

    /// The expressions directly below, left to right, to be changed.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Expr::Column(_) | Expr::Literal(_) => Vec::new(),
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::Not(expr)
            | Expr::Negative(expr)
            | Expr::Is { expr, .. }
            | Expr::Cast { expr, .. }
            | Expr::TryCast { expr, .. } => vec![expr],
            Expr::Case { operand, branches, otherwise } => {
                let branches = branches.iter_mut().flat_map(|(when, then)| [when, then]);
                let operand = operand.iter_mut().map(AsMut::as_mut);
                operand.chain(branches).chain(otherwise.iter_mut().map(AsMut::as_mut)).collect()
            }
            Expr::Like { expr, pattern, .. } | Expr::SimilarTo { expr, pattern, .. } => vec![expr, pattern],
            Expr::InList { expr, list, .. } => std::iter::once(expr.as_mut()).chain(list).collect(),
            Expr::Between { expr, low, high, .. } => vec![expr, low, high],
            Expr::ScalarFunction { args, .. } => args.iter_mut().collect(),
        }
    }
}

/// The input column at a position; a plan that names one that is not there is damaged.
fn column(index: usize, input: &Schema) -> Result<&arrow::datatypes::FieldRef, PlanError> {
    let count = input.fields().len();
    input.fields().get(index).ok_or_else(|| {
        PlanError::stored(format!("the plan reads input column {index} of an operator that has {count} input columns"))
    })
}

#[cfg(test)]
mod tests;
