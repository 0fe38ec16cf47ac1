//! Every function that SQL may name: DataFusion's, and Flink's under Flink's names. Where both have a name and
//! differ, Flink's is meant; DataFusion's stays reachable for the expressions that its own planner writes.
//! The planner looks names up, stored plans keep them: a name once given keeps its meaning. `docs/functions.md`
//! lists what there is.

pub(crate) mod base64;
pub(crate) mod patterns;

mod aggregates;
mod average;
mod clock;
mod collection;
mod control;
mod datetime;
mod digest;
mod json;
mod lengths;
mod numbering;
mod numeric;
mod planner;
mod regular;
mod rows;
mod text;
mod udf;
mod url;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use datafusion_expr::planner::ExprPlanner;
use datafusion_expr::{AggregateUDF, ScalarUDF, Volatility, WindowUDF};

use crate::eval::EvalContext;
use crate::expr::Varies;

pub(crate) use aggregates::LISTAGG_SEPARATOR;
pub(crate) use clock::reads_clock;
pub use patterns::similar_to_regex;
pub use rows::{RENAME_FIELDS, field_names};

/// In stored plans, marks a function of DataFusion whose plain name means Flink's.
const SHADOWED_PREFIX: &str = "datafusion.";

/// Functions of DataFusion that make no sense in a stream: they tell about files or about DataFusion itself,
/// or are rewritten before they run.
const HIDDEN: [&str; 12] = [
    "arrow_cast",
    "arrow_field",
    "arrow_metadata",
    "arrow_try_cast",
    "cast_to_type",
    "file_row_index",
    "input_file_name",
    "try_cast_to_type",
    "union_extract",
    "union_tag",
    "version",
    "with_metadata",
];

/// Names of Flink for functions that DataFusion has under another name.
const RENAMED: [(&str, &str); 7] = [
    ("array_remove", "array_remove_all"),
    ("ceiling", "ceil"),
    ("endswith", "ends_with"),
    ("map_from_arrays", "map"),
    ("sign", "signum"),
    ("startswith", "starts_with"),
    ("truncate", "trunc"),
];

/// Names of Flink for aggregates that DataFusion has under another name.
const RENAMED_AGGREGATES: [(&str, &str); 5] = [
    ("approx_count_distinct", "approx_distinct"),
    ("collect", "array_agg"),
    ("every", "bool_and"),
    ("some", "bool_or"),
    ("variance", "var_samp"),
];

/// What settles the result of a call beside its arguments, as the function declares it; none: nothing does.
pub(crate) fn varies(name: &str, arguments: usize) -> Option<Varies> {
    if reads_clock(name, arguments) {
        return Some(Varies::Clock);
    }
    let function = registry().scalar(name)?;
    // One name, with arguments, does not read the clock.
    let is_chance = function.signature().volatility == Volatility::Volatile && !reads_clock(name, 0);
    is_chance.then_some(Varies::Chance)
}

/// Finds functions by name, in any case.
pub struct FunctionRegistry {
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    windows: HashMap<String, Arc<WindowUDF>>,
    refused: BTreeMap<&'static str, &'static str>,
    planners: Vec<Arc<dyn ExprPlanner>>,
}

/// The registry. There is one, and it never changes.
#[must_use]
pub fn registry() -> &'static FunctionRegistry {
    static REGISTRY: LazyLock<FunctionRegistry> = LazyLock::new(FunctionRegistry::new);
    &REGISTRY
}

impl FunctionRegistry {
    fn new() -> Self {
        let mut scalars = HashMap::new();
        let theirs = datafusion_functions::all_default_functions().into_iter();
        let theirs = theirs.chain(datafusion_functions_nested::all_default_nested_functions());
        for function in theirs.filter(|f| !HIDDEN.contains(&f.name())) {
            add_scalar(&mut scalars, &lengths::bounded(&function));
        }
        for (name, target) in RENAMED {
            let function: Option<Arc<ScalarUDF>> = scalars.get(target).cloned();
            let shadowed = function.and_then(|f| scalars.insert(name.to_owned(), f));
            scalars.extend(shadowed.map(|f| (format!("{SHADOWED_PREFIX}{name}"), f)));
        }
        for function in flink_scalars() {
            for name in std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str)) {
                if let Some(theirs) = scalars.get(name).filter(|f| f.name() == name).cloned() {
                    scalars.insert(format!("{SHADOWED_PREFIX}{name}"), theirs);
                }
            }
            add_scalar(&mut scalars, &function);
        }
        let mut aggregates = HashMap::new();
        let theirs = datafusion_functions_aggregate::all_default_aggregate_functions();
        for function in theirs.into_iter().chain(aggregates::all()) {
            let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
            aggregates.extend(names.map(|n| (n.to_lowercase(), function.clone())));
        }
        for (name, target) in RENAMED_AGGREGATES {
            let function: Option<Arc<AggregateUDF>> = aggregates.get(target).cloned();
            aggregates.extend(function.map(|f| (name.to_owned(), f)));
        }
        let mut windows = HashMap::new();
        for function in datafusion_functions_window::all_default_window_functions().into_iter().chain(numbering::all())
        {
            let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
            windows.extend(names.map(|n| (n.to_lowercase(), function.clone())));
        }
        let refused = control::REFUSED.iter().copied().collect();
        FunctionRegistry { scalars, aggregates, windows, refused, planners: planner::all() }
    }

    /// The scalar function of that name. A refused one (see [`FunctionRegistry::refused`]) is found as well:
    /// its planning fails with the reason.
    #[must_use]
    pub fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalars.get(&name.to_lowercase()).cloned()
    }

    /// The aggregate function of that name.
    #[must_use]
    pub fn aggregate(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.aggregates.get(&name.to_lowercase()).cloned()
    }

    /// The window function of that name.
    #[must_use]
    pub fn window(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.windows.get(&name.to_lowercase()).cloned()
    }

    /// Why a function that other systems have is refused here.
    #[must_use]
    pub fn refused(&self, name: &str) -> Option<&'static str> {
        self.refused.get(name.to_lowercase().as_str()).copied()
    }

    /// Names of all scalar functions that may be called, sorted.
    #[must_use]
    pub fn scalar_names(&self) -> Vec<String> {
        let usable = |n: &&String| !n.starts_with(SHADOWED_PREFIX) && self.refused(n).is_none();
        sorted(self.scalars.keys().filter(usable))
    }

    /// Names of all aggregate functions, sorted.
    #[must_use]
    pub fn aggregate_names(&self) -> Vec<String> {
        sorted(self.aggregates.keys())
    }

    /// Names of all window functions, sorted.
    #[must_use]
    pub fn window_names(&self) -> Vec<String> {
        sorted(self.windows.keys())
    }

    /// What turns SQL's special forms (`EXTRACT`, `POSITION`, `ROW`, `ARRAY[..]`, field access) into calls.
    #[must_use]
    pub fn expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    /// The name under which a stored plan finds exactly this function again.
    pub(crate) fn identify(&self, function: &ScalarUDF) -> Option<String> {
        let name = function.name().to_lowercase();
        let candidates = [format!("{SHADOWED_PREFIX}{name}"), name];
        candidates.into_iter().rev().find(|n| self.scalars.get(n).is_some_and(|known| known.as_ref() == function))
    }

    /// The function of a stored plan, bound to the cells that it reads.
    pub(crate) fn bound(&self, name: &str, ctx: &EvalContext) -> Option<Arc<ScalarUDF>> {
        let function = self.scalars.get(name)?;
        let bound = clock::bind(function, ctx).or_else(|| lengths::bind(function, ctx));
        Some(bound.unwrap_or_else(|| function.clone()))
    }
}

fn add_scalar(scalars: &mut HashMap<String, Arc<ScalarUDF>>, function: &Arc<ScalarUDF>) {
    let names = std::iter::once(function.name()).chain(function.aliases().iter().map(String::as_str));
    scalars.extend(names.map(|n| (n.to_lowercase(), function.clone())));
}

fn flink_scalars() -> Vec<Arc<ScalarUDF>> {
    let tables = [
        text::FUNCTIONS,
        regular::FUNCTIONS,
        url::FUNCTIONS,
        digest::FUNCTIONS,
        numeric::FUNCTIONS,
        datetime::FUNCTIONS,
        json::FUNCTIONS,
        collection::FUNCTIONS,
        control::FUNCTIONS,
    ];
    let defined = tables.into_iter().flatten().map(|d| Arc::new(ScalarUDF::from(udf::Function::new(d))));
    defined.chain(clock::all()).chain(control::special()).chain(rows::all()).collect()
}

fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = names.cloned().collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
