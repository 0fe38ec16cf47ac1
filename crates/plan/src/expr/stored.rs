//! The stored form of an expression: the list of its nodes, children before parents, where a child is written
//! as `Column(position of the child in the list)`. A list and not a tree, because readers of JSON refuse deep
//! nesting, and a job that was accepted must never turn out to be unreadable at a restore.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{EXPRESSION_DEPTH_MAX, Expr};

/// A node whose children are leaves, in the derived form.
struct Node(Expr);

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The derived functions of `remote = "Self"`, not the trait's.
        Expr::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Expr::deserialize(deserializer).map(Node)
    }
}

impl Serialize for Expr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut nodes = Vec::new();
        flatten(self, &mut nodes);
        nodes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Expr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        rebuild(Vec::<Node>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Appends the nodes of an expression and gives the position of its root.
fn flatten(expr: &Expr, nodes: &mut Vec<Node>) -> usize {
    let positions: Vec<usize> = expr.children().into_iter().map(|child| flatten(child, nodes)).collect();
    let mut node = shallow(expr);
    for (child, position) in node.children_mut().into_iter().zip(positions) {
        *child = Expr::Column(position);
    }
    nodes.push(Node(node));
    nodes.len() - 1
}

/// A copy of a node whose children are placeholders; a full clone at each level would cost its square.
fn shallow(expr: &Expr) -> Expr {
    let hole = || Expr::Column(0);
    let boxed = || Box::new(Expr::Column(0));
    match expr {
        Expr::Column(_) | Expr::Literal(_) => expr.clone(),
        Expr::Binary { op, .. } => Expr::Binary { left: boxed(), op: *op, right: boxed() },
        Expr::Not(_) => Expr::Not(boxed()),
        Expr::Is { test, negated, .. } => Expr::Is { expr: boxed(), test: *test, negated: *negated },
        Expr::Negative(_) => Expr::Negative(boxed()),
        Expr::Case { operand, branches, otherwise } => Expr::Case {
            operand: operand.as_ref().map(|_| boxed()),
            branches: branches.iter().map(|_| (hole(), hole())).collect(),
            otherwise: otherwise.as_ref().map(|_| boxed()),
        },
        Expr::Cast { to, .. } => Expr::Cast { expr: boxed(), to: to.clone() },
        Expr::TryCast { to, .. } => Expr::TryCast { expr: boxed(), to: to.clone() },
        Expr::Like { negated, case_insensitive, .. } => {
            Expr::Like { negated: *negated, case_insensitive: *case_insensitive, expr: boxed(), pattern: boxed() }
        }
        Expr::SimilarTo { negated, .. } => Expr::SimilarTo { negated: *negated, expr: boxed(), pattern: boxed() },
        Expr::InList { list, negated, .. } => {
            Expr::InList { expr: boxed(), list: list.iter().map(|_| hole()).collect(), negated: *negated }
        }
        Expr::Between { negated, .. } => {
            Expr::Between { expr: boxed(), negated: *negated, low: boxed(), high: boxed() }
        }
        Expr::ScalarFunction { name, args, return_type } => Expr::ScalarFunction {
            name: name.clone(),
            args: args.iter().map(|_| hole()).collect(),
            return_type: return_type.clone(),
        },
    }
}

/// Puts a list of nodes together again. Every node but the last is the child of exactly one later node.
fn rebuild(nodes: Vec<Node>) -> Result<Expr, String> {
    let mut built: Vec<Option<(Expr, usize)>> = Vec::with_capacity(nodes.len());
    for Node(mut node) in nodes {
        let mut depth = 0;
        for child in node.children_mut() {
            let Expr::Column(position) = *child else {
                return Err("a stored expression has a node whose child is not a reference".to_owned());
            };
            let taken = built.get_mut(position).and_then(Option::take);
            let (expr, child_depth) = taken.ok_or("a stored expression refers to a node that is not there")?;
            *child = expr;
            depth = depth.max(child_depth);
        }
        if depth >= EXPRESSION_DEPTH_MAX {
            return Err(format!("a stored expression is nested deeper than {EXPRESSION_DEPTH_MAX}"));
        }
        built.push(Some((node, depth + 1)));
    }
    let root = built.pop().flatten().ok_or("a stored expression is empty")?;
    if built.iter().any(Option::is_some) {
        return Err("a stored expression has nodes that belong to nothing".to_owned());
    }
    Ok(root.0)
}
