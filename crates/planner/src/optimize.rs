//! Which of DataFusion's rules a plan goes through. Called once for each INSERT. Rules that are made for batch
//! (limits, sorting, joins turned round, plans cut short where they are empty) are left out. Sub-queries in
//! expressions become joins here.

use std::sync::Arc;

use datafusion_expr::LogicalPlan;
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion_optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion_optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion_optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::optimizer::{Optimizer, OptimizerContext, OptimizerRule};
use datafusion_optimizer::push_down_filter::PushDownFilter;
use datafusion_optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;

use crate::context;
use crate::error::{At, SqlError};
use crate::order::{self, SameCalls};

/// The plan with constants folded, filters pushed down, and columns that nobody needs removed.
pub(crate) fn optimize(plan: LogicalPlan, at: At) -> Result<LogicalPlan, SqlError> {
    let rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(SimplifyExpressions::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(SameCalls),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ];
    // Without a start time NOW() stays a function: its value is fixed for each epoch, not for the job.
    let config = OptimizerContext::new_with_config_options(Arc::new(context::options().clone()))
        .without_query_execution_start_time()
        .with_skip_failing_rules(false)
        .with_max_passes(3);
    let optimized = Optimizer::with_rules(rules).optimize(plan, &config, |_, _| {});
    let optimized = optimized.map_err(|error| SqlError::from_datafusion(&error, at))?;
    // A condition on the number of a row may have stood above a join.
    order::convert(optimized, at)
}
