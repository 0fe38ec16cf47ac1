//! The window functions of GROUP BY while a query is planned: scalar functions that give a struct with `start`
//! and `end`. They mark the place of the window; `aggregate.rs` replaces all of them, so none is ever run.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion_sql::sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value,
};

use super::interval::Shape;
use crate::error::{At, ErrorCode, SqlError};

/// Gives the window's time from the struct; users write `TUMBLE_ROWTIME(...)`.
const WINDOW_TIME_OF: &str = "__window_time_of";

/// Type of `window_start`, `window_end` and `window_time`.
pub(crate) fn window_timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

fn window_struct() -> DataType {
    let field = |name: &str| Field::new(name, window_timestamp(), true);
    DataType::Struct(Fields::from(vec![field("start"), field("end")]))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(if self.name == WINDOW_TIME_OF { window_timestamp() } else { window_struct() })
    }

    fn invoke_with_args(&self, _arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal(format!("{} was left in the plan", self.name)))
    }
}

static MARKERS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let names = ["tumble", "hop", "session", WINDOW_TIME_OF];
    let marker = |name| Marker { name, signature: Signature::variadic_any(Volatility::Stable) };
    names.into_iter().map(|name| Arc::new(ScalarUDF::new_from_impl(marker(name)))).collect()
});

/// The marker of that name (in lower case).
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    MARKERS.iter().find(|marker| marker.name() == name).cloned()
}

/// The call, if the expression is a window function.
pub(crate) fn as_window(expr: &Expr) -> Option<(Shape, &ScalarFunction)> {
    match expr {
        Expr::ScalarFunction(call) if function(call.name()).is_some() => Some((Shape::from_name(call.name())?, call)),
        Expr::Alias(alias) => as_window(&alias.expr),
        _ => None,
    }
}

/// The argument, if the expression asks for a window's time.
pub(crate) fn as_window_time(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::ScalarFunction(call) if call.name() == WINDOW_TIME_OF => call.args.first(),
        _ => None,
    }
}

/// The name of the first marker in an expression.
pub(crate) fn find(expr: &Expr) -> Option<String> {
    let mut found = None;
    expr.apply(|expr| {
        if let Expr::ScalarFunction(call) = expr
            && function(call.name()).is_some()
        {
            found = Some(call.name().to_uppercase());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .expect("the visitor never fails");
    found
}

/// `TUMBLE_START(ts, size)` and its relatives, as an expression over `TUMBLE(ts, size)`. None for other
/// functions.
pub(crate) fn replace_auxiliary(function: &Function, name: &str, at: At) -> Result<Option<ast::Expr>, SqlError> {
    let Some((shape, property)) = auxiliary(name) else { return Ok(None) };
    let span = function.name.0.first().and_then(|part| part.as_ident()).map(|ident| ident.span);
    let named = |name: &str| ObjectName::from(Ident::with_span(span.expect("the name was just read"), name));
    let window = ast::Expr::Function(Function { name: named(shape), ..function.clone() });
    let call = |name: &str, args: Vec<ast::Expr>| {
        let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
        let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] };
        ast::Expr::Function(Function { name: named(name), args: FunctionArguments::List(list), ..function.clone() })
    };
    let text = |text: &str| ast::Expr::Value(Value::SingleQuotedString(text.to_owned()).with_empty_span());
    match property {
        "start" | "end" => Ok(Some(call("get_field", vec![window, text(property)]))),
        "rowtime" => Ok(Some(call(WINDOW_TIME_OF, vec![window]))),
        _ => Err(SqlError::new(
            ErrorCode::Unsupported,
            at,
            format!("{} is not supported; select PROCTIME() instead", name.to_uppercase()),
        )),
    }
}

/// Splits `tumble_start` into `tumble` and `start`.
pub(crate) fn auxiliary(name: &str) -> Option<(&str, &str)> {
    let (shape, property) = name.split_once('_')?;
    let known =
        ["tumble", "hop", "session"].contains(&shape) && ["start", "end", "rowtime", "proctime"].contains(&property);
    known.then_some((shape, property))
}
