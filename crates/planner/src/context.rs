//! What DataFusion's SQL planner asks of its surroundings: functions, types, options, and the one relation of
//! the SELECT that is being planned. Used by `query.rs` and `catalog.rs`. FROM clauses are planned by our own
//! code, so a table is never looked up here.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion_common::config::ConfigOptions;
use datafusion_common::{DFSchema, DFSchemaRef, DataFusionError, Result, TableReference};
use datafusion_expr::planner::{
    ContextProvider, ExprPlanner, PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
    TypePlanner,
};
use datafusion_expr::{AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF};
use datafusion_sql::planner::{NullOrdering, ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast::{self, TableFactor};
use mainstem_plan::functions;

use crate::query::casts;
use crate::types::FlinkTypes;
use crate::window::marker;

static OPTIONS: LazyLock<ConfigOptions> = LazyLock::new(|| {
    let mut options = ConfigOptions::default();
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.sql_parser.parse_float_as_decimal = true;
    // There is no other way to evaluate them than as joins.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    options
});

/// The options that planning, analysis and optimisation share.
pub(crate) fn options() -> &'static ConfigOptions {
    &OPTIONS
}

/// What an expression may refer to besides the columns of its FROM clause.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings {
    /// Columns of the queries around this one, outermost first.
    pub(crate) outer: Vec<DFSchemaRef>,
    /// Planned sub-queries, for which [`placeholder_name`] stands by their number.
    pub(crate) subqueries: Vec<LogicalPlan>,
}

/// The name of the table that stands for a planned sub-query. No name of a user's gets as far as that.
pub(crate) fn placeholder_name(subquery: usize) -> String {
    format!("subquery {subquery}")
}

/// Plans a query block whose FROM clause (any placeholder) stands for `input`.
pub(crate) fn plan_select(
    statement: ast::Statement,
    input: LogicalPlan,
    surroundings: &Surroundings,
) -> Result<LogicalPlan> {
    let context = Context { relations: vec![relations(Some(input), surroundings)] };
    sql_to_rel(&context).sql_statement_to_plan_with_context(statement, &mut planner_context(surroundings))
}

/// Plans an expression over the given columns.
pub(crate) fn plan_expr(expr: ast::Expr, schema: &DFSchema) -> Result<Expr> {
    plan_expr_within(expr, schema, &Surroundings::default())
}

/// The same where there is more that the expression may refer to.
pub(crate) fn plan_expr_within(expr: ast::Expr, schema: &DFSchema, surroundings: &Surroundings) -> Result<Expr> {
    let context = Context { relations: vec![relations(None, surroundings)] };
    sql_to_rel(&context).sql_to_expr(expr, schema, &mut planner_context(surroundings))
}

fn relations(input: Option<LogicalPlan>, surroundings: &Surroundings) -> Arc<dyn RelationPlanner> {
    Arc::new(PlannedRelations { input, subqueries: surroundings.subqueries.clone() })
}

fn planner_context(surroundings: &Surroundings) -> PlannerContext {
    let mut context = PlannerContext::new();
    for schema in &surroundings.outer {
        context.append_outer_query_schema(schema.clone());
    }
    context
}

fn sql_to_rel(context: &Context) -> SqlToRel<'_, Context> {
    let options = ParserOptions::new()
        .with_enable_ident_normalization(false)
        .with_map_string_types_to_utf8view(false)
        .with_parse_float_as_decimal(true)
        .with_default_null_ordering(NullOrdering::NullsMin)
        .with_collect_spans(true);
    SqlToRel::new_with_options(context, options)
}

/// Whether a function of that name (in lower case) exists.
pub(crate) fn function_exists(name: &str) -> bool {
    let registry = functions::registry();
    marker::function(name).is_some()
        || registry.scalar(name).is_some()
        || registry.aggregate(name).is_some()
        || registry.window(name).is_some()
}

/// All function names, for suggestions.
pub(crate) fn function_names() -> Vec<String> {
    let registry = functions::registry();
    let mut names = registry.scalar_names();
    names.extend(registry.aggregate_names());
    names.extend(["tumble", "hop", "session"].map(str::to_owned));
    names.sort();
    names
}

struct Context {
    relations: Vec<Arc<dyn RelationPlanner>>,
}

#[derive(Debug)]
struct PlannedRelations {
    /// The FROM clause.
    input: Option<LogicalPlan>,
    subqueries: Vec<LogicalPlan>,
}

impl RelationPlanner for PlannedRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        _context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let name = match &relation {
            TableFactor::Table { name, .. } => name.to_string(),
            _ => String::new(),
        };
        let subqueries = self.subqueries.iter().enumerate();
        let mut subqueries = subqueries.filter(|(number, _)| placeholder_name(*number) == name);
        let planned = subqueries.next().map(|(_, plan)| plan).or(self.input.as_ref());
        Ok(match planned {
            Some(plan) => RelationPlanning::Planned(Box::new(PlannedRelation::new(plan.clone(), None))),
            None => RelationPlanning::Original(Box::new(relation)),
        })
    }
}

impl ContextProvider for Context {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        Err(DataFusionError::Internal(format!("the table '{name}' was looked up by the SQL planner")))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        functions::registry().expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relations
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(FlinkTypes))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let planning = marker::function(name).or_else(|| casts::function(name));
        planning.or_else(|| functions::registry().scalar(name))
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        functions::registry().aggregate(name)
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        functions::registry().window(name)
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        options()
    }

    fn udf_names(&self) -> Vec<String> {
        functions::registry().scalar_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        functions::registry().aggregate_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        functions::registry().window_names()
    }
}
