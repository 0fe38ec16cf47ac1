//! Tells aggregates and keys apart that differ in a CAST only. DataFusion names an expression without its casts, and
//! refuses two columns of one name: `SUM(v)` beside `SUM(CAST(v AS DOUBLE))`. Where that would happen, the casts of the
//! SELECT become arguments of a function that gives them back and has the type in its name; the optimiser takes it away
//! again. Called for each SELECT.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{ColumnarValue, Expr as LogicalExpr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl};
use datafusion_expr::{Signature, Volatility};
use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident,
    ObjectName, Query, SetExpr, Value, Visit, VisitMut, Visitor, VisitorMut,
};
use mainstem_plan::functions;

const NAME: &str = "__named_cast";

/// Puts the marker round all casts of a query that has expressions which DataFusion could not tell apart. Round all of
/// them, because an expression of SELECT or HAVING must stay equal to the key that it stands for.
pub(super) fn tell_apart(query: &mut Query) {
    let mut calls = Texts::default();
    let _ = Visit::visit(query, &mut calls);
    let mut keys = Texts::default();
    if let SetExpr::Select(select) = query.body.as_ref()
        && let GroupByExpr::Expressions(exprs, _) = &select.group_by
    {
        exprs.iter().for_each(|expr| keys.key(expr));
    }
    if calls.collide() || keys.collide() {
        let _ = VisitMut::visit(query, &mut MarkCasts);
    }
}

/// The marker, if that is its name.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::variadic_any(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(NamedCast { signature }))
    });
    (name == NAME).then(|| FUNCTION.clone())
}

/// Texts of expressions by what is left of them without casts.
#[derive(Default)]
struct Texts {
    texts: BTreeMap<String, BTreeSet<String>>,
}

impl Texts {
    fn add(&mut self, expr: &Expr) {
        self.texts.entry(without_casts(expr)).or_default().insert(expr.to_string());
    }

    /// A key of GROUP BY, or the keys of its grouping sets.
    fn key(&mut self, expr: &Expr) {
        match expr {
            Expr::GroupingSets(sets) | Expr::Rollup(sets) | Expr::Cube(sets) => {
                sets.iter().flatten().for_each(|e| self.key(e))
            }
            Expr::Tuple(exprs) => exprs.iter().for_each(|e| self.key(e)),
            key => self.add(key),
        }
    }

    fn collide(&self) -> bool {
        self.texts.values().any(|texts| texts.len() > 1)
    }
}

/// Takes aggregates and OVER calls.
impl Visitor for Texts {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(call) = expr
            && (call.over.is_some() || functions::registry().aggregate(&call.name.to_string().to_lowercase()).is_some())
        {
            self.add(expr);
        }
        ControlFlow::Continue(())
    }
}

struct MarkCasts;

impl VisitorMut for MarkCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { data_type, .. } = expr {
            let name = Expr::Value(Value::SingleQuotedString(data_type.to_string()).with_empty_span());
            *expr = marked(expr.clone(), name);
        }
        ControlFlow::Continue(())
    }
}

fn marked(cast: Expr, name: Expr) -> Expr {
    let args = [cast, name].map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).into();
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] };
    Expr::Function(Function {
        name: ObjectName::from(Ident::new(NAME)),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

struct RemoveCasts;

impl VisitorMut for RemoveCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Cast { expr: inner, .. } = expr {
            *expr = inner.as_ref().clone();
        }
        ControlFlow::Continue(())
    }
}

fn without_casts(expr: &Expr) -> String {
    let mut plain = expr.clone();
    let _ = VisitMut::visit(&mut plain, &mut RemoveCasts);
    if let Expr::Function(call) = &mut plain
        && let FunctionArguments::List(list) = &mut call.args
        && let [FunctionArg::Unnamed(arg @ FunctionArgExpr::Wildcard)] = list.args.as_mut_slice()
    {
        // DataFusion counts ones.
        *arg = FunctionArgExpr::Expr(Expr::Value(Value::Number("1".to_owned(), false).with_empty_span()));
    }
    plain.to_string()
}

/// Gives its first argument back. The second is the type that it has been cast to.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NamedCast {
    signature: Signature,
}

impl ScalarUDFImpl for NamedCast {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let first = arguments.first().cloned();
        first.ok_or_else(|| DataFusionError::Internal(format!("{NAME} has no argument")))
    }

    fn simplify(&self, args: Vec<LogicalExpr>, _info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let first = args.into_iter().next();
        let first = first.ok_or_else(|| DataFusionError::Internal(format!("{NAME} has no argument")))?;
        Ok(ExprSimplifyResult::Simplified(first))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let first = arguments.args.into_iter().next();
        first.ok_or_else(|| DataFusionError::Internal(format!("{NAME} has no argument")))
    }
}
