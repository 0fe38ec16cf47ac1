//! How SQL's special forms become calls: Flink's functions first, DataFusion's planners after them.

use std::sync::Arc;

use datafusion_common::Result;
use datafusion_expr::Expr;
use datafusion_expr::planner::{ExprPlanner, PlannerResult};

/// In the order in which they are asked.
pub(super) fn all() -> Vec<Arc<dyn ExprPlanner>> {
    vec![
        Arc::new(FlinkPlanner),
        Arc::new(datafusion_functions::core::planner::CoreFunctionPlanner::default()),
        Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
        Arc::new(datafusion_functions_nested::planner::NestedFunctionPlanner),
        Arc::new(datafusion_functions_nested::planner::FieldAccessPlanner),
        Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
        Arc::new(datafusion_functions_window::planner::WindowFunctionPlanner),
    ]
}

/// Special forms whose function is Flink's.
#[derive(Debug)]
struct FlinkPlanner;

type Planned = Result<PlannerResult<Vec<Expr>>>;

fn call(name: &str, args: Vec<Expr>) -> Planned {
    Ok(match super::registry().scalar(name) {
        Some(function) => PlannerResult::Planned(function.call(args)),
        None => PlannerResult::Original(args),
    })
}

impl ExprPlanner for FlinkPlanner {
    fn plan_extract(&self, args: Vec<Expr>) -> Planned {
        call("extract", args)
    }

    fn plan_substring(&self, args: Vec<Expr>) -> Planned {
        call("substr", args)
    }
}
