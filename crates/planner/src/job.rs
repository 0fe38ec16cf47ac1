//! A whole file to one job: statements are taken in order, then all outputs are lowered together. The entry of
//! this crate.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::ast::Ident;
use mainstem_connectors::TableSpec;
use mainstem_core::ids::OperatorId;
use mainstem_core::key_group::KEY_GROUPS_DEFAULT;
use mainstem_plan::operator::JobGraph;
use serde::{Deserialize, Serialize};

use crate::catalog::{Catalog, Declaration, Relation, Table};
use crate::error::{At, ErrorCode, SqlError};
use crate::guarantee::{SinkInfo, of_sink};
use crate::insert;
use crate::lower::{Lowering, PRINT_TABLE_STYLE, Steps, arrow_schema};
use crate::optimize::optimize;
use crate::preview;
use crate::query::{Scope, rename};
use crate::replay::{self, Replay};
use crate::secrets::Secrets;
use crate::settings::{self, duration_ms, idle_timeout_ms};
use crate::statement::{self, CreateView, Explain, InsertTarget, Statement, StatementKind};

/// Stack of the planning thread, in bytes. Parser, planner and optimiser recurse over expressions; what is not
/// used of it is only address space.
const STACK_BYTES: usize = 256 << 20;

/// What a file asks to be run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobPlan {
    /// The dataflow.
    pub graph: JobGraph,
    /// What `SET` has set; later ones go before earlier ones.
    pub settings: BTreeMap<String, String>,
    /// The file only asks to be explained (`EXPLAIN`): nothing is to be run.
    pub explain_only: bool,
    /// The file asks what is guaranteed (`EXPLAIN GUARANTEES`) instead of what is done.
    #[serde(default)]
    pub explain_guarantees: bool,
    /// The sinks, in the order of their statements; those for late rows and for wrong records come last.
    pub sinks: Vec<SinkInfo>,
}

/// Plans all statements of a text as one job.
///
/// # Errors
/// The first mistake in the text, with its place.
pub fn plan(sql: &str) -> Result<JobPlan, SqlError> {
    on_a_deep_stack(|| plan_all(statement::parse(sql)?))
}

/// Plans one query of a text as a job that has only this: the last that begins at or above a line, the first where there is
/// none; without a line, the last of all. Its rows are those that would be written; nobody takes late ones.
///
/// # Errors
/// The first mistake in the declarations and in that query, with its place.
pub fn plan_preview(sql: &str, line: Option<u64>) -> Result<JobPlan, SqlError> {
    on_a_deep_stack(|| plan_all(preview::only(statement::parse(sql)?, line)))
}

/// Plans the job that feeds dead letters back, with the tables of a text.
///
/// # Errors
/// As [`plan`], and where nothing can be fed back.
pub fn plan_replay(sql: &str, replay: &Replay<'_>) -> Result<JobPlan, SqlError> {
    on_a_deep_stack(|| plan_replay_here(sql, replay))
}

/// What the statements of a text declare, in their order. Queries are not planned.
///
/// # Errors
/// The first mistake in the text, with its place.
pub fn declared(sql: &str) -> Result<Vec<Declaration>, SqlError> {
    on_a_deep_stack(|| {
        let mut file = File::default();
        for statement in statement::parse(sql)? {
            let at = statement.at;
            if !matches!(statement.kind, StatementKind::Output { .. } | StatementKind::ExplainGuarantees) {
                file.take(statement).map_err(|error| error.or_at(at))?;
            }
        }
        Ok(file.catalog.declarations())
    })
}

fn on_a_deep_stack<T: Send>(plan: impl FnOnce() -> Result<T, SqlError> + Send) -> Result<T, SqlError> {
    let failed = |what: &str| {
        SqlError::new(
            ErrorCode::Internal,
            At::NOWHERE,
            format!("{what}; this is a bug of the planner, please report the SQL"),
        )
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("planner".to_owned()).stack_size(STACK_BYTES);
        let planning = thread.spawn_scoped(scope, plan);
        let planning =
            planning.map_err(|error| failed(&format!("the planning thread could not be started ({error})")))?;
        planning.join().unwrap_or_else(|_| Err(failed("planning stopped unexpectedly")))
    })
}

fn plan_all(statements: Vec<Statement>) -> Result<JobPlan, SqlError> {
    let mut file = File::default();
    for statement in statements {
        let at = statement.at;
        file.take(statement).map_err(|error| error.or_at(at))?;
    }
    file.finish()
}

fn plan_replay_here(sql: &str, replay: &Replay<'_>) -> Result<JobPlan, SqlError> {
    let mut file = File { replay: Some(*replay), ..File::default() };
    for statement in statement::parse(sql)?.into_iter().filter(replay::counts) {
        let at = statement.at;
        file.take(statement).map_err(|error| error.or_at(at))?;
    }
    for statement in replay::statements(&file.catalog, replay)? {
        file.take(statement)?;
    }
    file.finish()
}

/// A planned output of the file.
struct Output {
    at: At,
    plan: LogicalPlan,
    /// Absent: the rows are printed.
    table: Option<Arc<Table>>,
}

#[derive(Default)]
struct File<'a> {
    catalog: Catalog,
    /// The tables as they were declared, for those that are `LIKE` them.
    declared: BTreeMap<String, statement::CreateTable>,
    /// Absent: what the file says is run.
    replay: Option<Replay<'a>>,
    secrets: Secrets,
    settings: BTreeMap<String, (String, At)>,
    outputs: Vec<Output>,
    /// Places of the first output that is to be run and the first that is to be explained.
    run_at: Option<At>,
    explain_at: Option<At>,
    /// Whether it is the guarantees that are to be explained.
    guarantees: bool,
    /// Whether those of all outputs are: `EXPLAIN GUARANTEES` stands alone.
    all_guarantees: bool,
}

impl File<'_> {
    fn take(&mut self, statement: Statement) -> Result<(), SqlError> {
        let at = statement.at;
        match statement.kind {
            StatementKind::Set { key, value } => self.set(key, value, at),
            StatementKind::CreateTable(create) => self.create_table(*create),
            StatementKind::CreateView(create) => self.create_view(&create),
            StatementKind::CreateSecret { name, if_not_exists, reference, reference_at } => {
                if if_not_exists && self.secrets.contains(&name.value) {
                    return Ok(());
                }
                self.secrets.add(&name, reference, reference_at)
            }
            StatementKind::ExplainGuarantees => {
                (self.guarantees, self.all_guarantees) = (true, true);
                Ok(())
            }
            StatementKind::Output { target, query, explain } => {
                let first = if explain == Explain::Nothing { &mut self.run_at } else { &mut self.explain_at };
                first.get_or_insert(at);
                self.guarantees |= explain == Explain::Guarantees;
                self.output(target.as_ref(), &query, at)
            }
        }
    }

    fn set(&mut self, key: String, value: String, at: At) -> Result<(), SqlError> {
        settings::check(&key, &value).map_err(|message| SqlError::new(ErrorCode::Option, at, message))?;
        self.settings.insert(key, (value, at));
        Ok(())
    }

    fn create_table(&mut self, mut create: statement::CreateTable) -> Result<(), SqlError> {
        if create.if_not_exists && self.catalog.contains(&create.name.value) {
            return Ok(());
        }
        let name = create.name.clone();
        if let Some(like) = create.like.take() {
            let (source, relation) = self.catalog.find(&like.source)?;
            let Relation::Table(_) = relation else {
                let message = format!("'{source}' is a view; LIKE and OPTIONS take a table");
                return Err(SqlError::new(ErrorCode::Name, like.source.span, message));
            };
            like.merge(&self.declared[source], &mut create)?;
        }
        self.declared.insert(name.value.clone(), create.clone());
        if let Some(replay) = &self.replay {
            replay::bound(&mut create, replay);
        }
        self.secrets.fill(&mut create.options)?;
        let table = Table::new(create)?;
        self.catalog.add(&name, Relation::Table(Arc::new(table)))
    }

    fn create_view(&mut self, create: &CreateView) -> Result<(), SqlError> {
        if create.if_not_exists && self.catalog.contains(&create.name.value) {
            return Ok(());
        }
        let plan = Scope::new(&self.catalog).plan(&create.query)?;
        let plan = rename(plan, &create.columns, create.name.span.into())?;
        self.catalog.add(&create.name, Relation::View(Arc::new(plan)))
    }

    fn output(
        &mut self,
        target: Option<&InsertTarget>,
        query: &datafusion_sql::sqlparser::ast::Query,
        at: At,
    ) -> Result<(), SqlError> {
        let table = target.map(|target| self.catalog.find_sink(&target.table).cloned()).transpose()?;
        let mut plan = Scope::new(&self.catalog).plan(query)?;
        if let (Some(target), Some(table)) = (target, &table) {
            plan = insert::to_sink(plan, query, target, table)?;
        }
        let plan = optimize(plan, at)?;
        self.outputs.push(Output { at, plan, table });
        Ok(())
    }

    fn finish(self) -> Result<JobPlan, SqlError> {
        if self.outputs.is_empty() {
            return Err(SqlError::new(
                ErrorCode::Syntax,
                At::NOWHERE,
                "the file has no INSERT and no SELECT, so there is nothing to run",
            ));
        }
        if let (Some(_), Some(explain), false) = (self.run_at, self.explain_at, self.all_guarantees) {
            let message =
                "EXPLAIN cannot stand beside statements that are to be run; put it before all of them or none";
            return Err(SqlError::unsupported(explain, message));
        }
        self.check_parallelism()?;
        let mini_batch = self.mini_batch()?;
        let setting = |key: &str| self.settings.get(key).map(|(text, _)| text.as_str());
        let plans = self.outputs.iter().map(|output| &output.plan);
        let lowering = Lowering::new(plans, setting("table.exec.source.idle-timeout").and_then(idle_timeout_ms));
        let mut lowering = lowering.with_state_ttl(setting("table.exec.state.ttl").and_then(duration_ms));
        lowering.set_mini_batch(mini_batch);
        lowering.set_steps(Steps::of(setting));
        let mut written = Vec::<(OperatorId, Option<Arc<Table>>, At)>::new();
        let mut printed = 0;
        for output in &self.outputs {
            let spec = match &output.table {
                Some(table) => table.written.clone(),
                None => {
                    printed += 1;
                    print_table(printed, &output.plan)
                }
            };
            let last =
                lowering.output(&output.plan, &spec.schema, output.at).map_err(|error| error.or_at(output.at))?;
            let declared = output.table.as_ref().map_or(output.at, |table| table.at);
            let sink = lowering.sink(spec, last, declared)?;
            written.push((sink, output.table.clone(), output.at));
        }
        if let Some((name, at)) = self.settings.get("late-rows.table") {
            let table = self.late_table(name, *at)?;
            let last = lowering.late_rows(table, *at)?;
            let sink = lowering.sink(table.written.clone(), last, *at)?;
            written.push((sink, Some(table.clone()), *at));
        }
        for letters in lowering.dead_letters(&self.catalog)? {
            let table = letters.table;
            let sink = lowering.sink(table.written.clone(), letters.last, letters.at)?;
            let declared = self.catalog.find_sink(&Ident::new(&table.spec.name))?;
            written.push((sink, Some(declared.clone()), letters.at));
        }
        lowering.check_hints()?;
        let graph = lowering.finish();
        let sinks =
            written.iter().map(|(sink, table, at)| of_sink(&graph, *sink, table.as_deref(), *at, &self.catalog));
        let sinks = sinks.collect::<Result<Vec<_>, _>>()?;
        let settings = self.settings.into_iter().map(|(key, (value, _))| (key, value)).collect();
        let explain_only = self.explain_at.is_some() || self.all_guarantees;
        Ok(JobPlan { graph, settings, explain_only, explain_guarantees: self.guarantees, sinks })
    }

    /// How long aggregations may hold changes back (ms), and for how many rows at most.
    fn mini_batch(&self) -> Result<Option<(u64, Option<u64>)>, SqlError> {
        let get = |key: &str| self.settings.get(key).map(|(value, at)| (value.trim(), *at));
        let Some((_, at)) =
            get("table.exec.mini-batch.enabled").filter(|(value, _)| value.eq_ignore_ascii_case("true"))
        else {
            return Ok(None);
        };
        let latency = get("table.exec.mini-batch.allow-latency").and_then(|(value, _)| duration_ms(value));
        let Some(latency) = latency.filter(|latency| *latency > 0) else {
            let message = "'table.exec.mini-batch.enabled' needs 'table.exec.mini-batch.allow-latency': \
                           how long changes may be held back, such as '1 s'";
            return Err(SqlError::new(ErrorCode::Option, at, message));
        };
        let size = get("table.exec.mini-batch.size").and_then(|(value, _)| value.parse().ok());
        Ok(Some((latency, size)))
    }

    /// A subtask without a key group would have nothing to do.
    fn check_parallelism(&self) -> Result<(), SqlError> {
        let number =
            |key: &str| self.settings.get(key).and_then(|(value, at)| Some((value.trim().parse::<u64>().ok()?, *at)));
        let Some((parallelism, at)) = number("parallelism.default") else { return Ok(()) };
        let most = number("pipeline.max-parallelism").map_or(u64::from(KEY_GROUPS_DEFAULT), |(most, _)| most);
        if parallelism <= most {
            return Ok(());
        }
        let message = format!(
            "'parallelism.default' is {parallelism}, above 'pipeline.max-parallelism', which is {most}; raise that one too"
        );
        Err(SqlError::new(ErrorCode::Option, at, message))
    }

    fn late_table(&self, name: &str, at: At) -> Result<&Arc<Table>, SqlError> {
        let ident = Ident::new(name);
        self.catalog.find_sink(&ident).map_err(|error| {
            let message = format!("'late-rows.table' names the table '{name}': {}", error.message);
            SqlError::new(error.code, at, message)
        })
    }
}

/// The table that stands for the rows of a bare SELECT.
fn print_table(number: usize, plan: &LogicalPlan) -> TableSpec {
    let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    TableSpec {
        name: format!("select {number}"),
        schema: arrow_schema(plan.schema()),
        primary_key: vec![],
        partition_keys: vec![],
        options: BTreeMap::from([option("connector", "print"), option("print.style", PRINT_TABLE_STYLE)]),
    }
}

#[cfg(test)]
mod tests;
