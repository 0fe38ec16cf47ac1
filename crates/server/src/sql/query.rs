//! A query of the shell: a job as any other, whose rows come to this process. It ends with its input, or when the user has
//! seen enough. Its state goes with it, and it writes to no table.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use mainstem_connectors::{Collector, RowForm, collect};
use mainstem_coordinator::JobOutcome;
use mainstem_core::change::ChangeMode;
use mainstem_core::ids::JobId;
use mainstem_core::retry::RetryPolicy;
use mainstem_planner::JobPlan;
use mainstem_rt::{Clock, SystemClock};

use super::result::{Column, Kept, Lines};
use super::session::ResultMode;
use super::shell::Shell;
use crate::embedded::{Launch, Running, Scratch, launch, watched};
use crate::job;

/// Time between checkpoints of a query, unless the user sets one: what waits for the end of an epoch is shown soon.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two pictures of a table that is kept up to date.
const REDRAW_EVERY: Duration = Duration::from_millis(250);
/// Rows that are shown of a table when it is stopped on a terminal.
const ROWS_AT_END: usize = 1_000;

/// Runs a query until it ends or is stopped.
pub(super) fn run(shell: &mut Shell, text: &str) -> anyhow::Result<()> {
    // Its late rows would be written to a table.
    let script = shell.session.script_with(text, |key| key != "late-rows.table" && key != "pipeline.name");
    let plan = shell.session.plan(&script)?;
    let screen = shell.screen();
    let view = View::of(&plan, shell.session.result_mode(), shell.json, shell.session.result_rows_max())?;
    let collector = collect(view.form());
    let graph = watched(&plan, &collector);
    let is_set = plan.settings.contains_key("execution.checkpointing.interval");
    let interval = (!is_set).then_some(CHECKPOINT_INTERVAL);
    let mut options = job::checkpoint_options(interval, &plan)?;
    // After a restart rows would be shown twice.
    options.restart = RetryPolicy { retries_max: 0, ..RetryPolicy::RESTART };
    let scratch = Scratch::new("sql")?;
    let launched = Launch {
        job: JobId::new("query").expect("a legal name"),
        graph,
        sql: script.text,
        state_dir: scratch.path().to_owned(),
        parallelism: job::parallelism(shell.parallelism, &plan, job::cores)?,
        key_groups: job::key_groups(&plan)?,
        options,
        memory: shell.memory.clone(),
        unheard: false,
    };
    let (runtimes, interrupts) = (&shell.runtimes, &mut shell.interrupts);
    runtimes.control.block_on(async {
        let outcome = match launch(runtimes, launched).await {
            Ok(running) => watch(running, collector, view, screen, interrupts).await,
            Err(error) => Err(error),
        };
        scratch.remove().await;
        outcome
    })
}

/// How the rows are shown.
enum View {
    /// As they come.
    Lines(Lines),
    /// Each as a JSON object, as they come.
    Json,
    /// As the table that they add up to; as JSON where there are no columns.
    Table { kept: Kept, columns: Option<Vec<Column>> },
}

impl View {
    fn of(plan: &JobPlan, mode: ResultMode, json: bool, rows_max: usize) -> anyhow::Result<View> {
        let sink = plan.sinks.first().context("bug: the query has no end")?;
        let op = &plan.graph.node(sink.operator).op;
        let updating = op.changes != ChangeMode::Append;
        let columns: Vec<Column> = op
            .schema
            .fields()
            .iter()
            .map(|field| Column { name: field.name().clone(), is_number: field.data_type().is_numeric() })
            .collect();
        let as_table = mode == ResultMode::Table || (mode == ResultMode::Auto && updating);
        Ok(match (as_table, json) {
            (true, json) => View::Table { kept: Kept::new(rows_max), columns: (!json).then_some(columns) },
            (false, true) => View::Json,
            (false, false) => View::Lines(Lines::new(columns, updating)),
        })
    }

    fn form(&self) -> RowForm {
        match self {
            View::Json => RowForm::Json { with_kinds: true },
            View::Table { columns: None, .. } => RowForm::Json { with_kinds: false },
            View::Lines(_) | View::Table { .. } => RowForm::Cells,
        }
    }
}

/// A terminal on which a table can be drawn again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// Shows rows until the job ends or the user has seen enough.
async fn watch(
    mut running: Running,
    mut collector: Collector,
    mut view: View,
    screen: Option<Screen>,
    interrupts: &mut super::shell::Interrupts,
) -> anyhow::Result<()> {
    let clock = SystemClock::default();
    let begun = clock.now();
    let (mut seen, mut drawn_lines) = (0_u64, 0_usize);
    let mut redraw = tokio::time::interval(REDRAW_EVERY);
    redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut drawn_at = 0;
    let mut busy = interrupts.busy();
    let outcome = loop {
        tokio::select! {
            rows = collector.next() => {
                seen += rows.rows.len() as u64;
                show(&mut view, rows)?;
            }
            outcome = &mut running.outcome => break Some(outcome),
            () = busy.wait() => break None,
            _ = redraw.tick(), if screen.is_some() && drawn_at != seen => {
                if let (View::Table { kept, columns: Some(columns) }, Some(screen)) = (&view, screen) {
                    drawn_lines = draw(kept, columns, screen, drawn_lines, seen)?;
                    drawn_at = seen;
                }
            }
        }
    };
    drop(busy);
    while let Some(rows) = collector.waiting() {
        seen += rows.rows.len() as u64;
        show(&mut view, rows)?;
    }
    let is_stopped = outcome.is_none();
    if is_stopped {
        // Nobody waits for its last checkpoint, which goes with it.
        running.outcome.abort();
        let _ = (&mut running.outcome).await;
    }
    if let Some(outcome) = outcome {
        match outcome.context("bug: the query's coordinator has ended unexpectedly")? {
            JobOutcome::Failed(failure) => bail!("the query failed: {}", failure.message),
            JobOutcome::Finished | JobOutcome::AlreadyFinished | JobOutcome::Stopped => {}
        }
    }
    end(&view, screen, drawn_lines)?;
    let word = if is_stopped { "stopped" } else { "done" };
    let rows = match &view {
        View::Table { kept, .. } => format!("{} rows after {seen} changes", kept.len()),
        View::Lines(_) | View::Json => format!("{seen} rows"),
    };
    super::note(&format!("{word}: {rows}, {:.1} s", clock.now().since_ms(begun) as f64 / 1000.0));
    if let View::Table { kept, .. } = &view
        && kept.missing > 0
    {
        super::note(&format!("{} rows were to be taken away that were not there", kept.missing));
    }
    Ok(())
}

fn show(view: &mut View, rows: mainstem_connectors::CollectedRows) -> anyhow::Result<()> {
    let (kinds, rows) = rows.into_texts();
    match view {
        View::Lines(lines) => print(&lines.show(&kinds, rows)),
        View::Json => print(&rows.iter().map(|row| row.concat() + "\n").collect::<String>()),
        View::Table { kept, .. } => kept.apply(&kinds, rows).map_err(anyhow::Error::msg),
    }
}

/// What is shown when nothing more comes.
fn end(view: &View, screen: Option<Screen>, drawn_lines: usize) -> anyhow::Result<()> {
    match view {
        View::Lines(lines) => lines.empty().map_or(Ok(()), |head| print(&head)),
        View::Json => Ok(()),
        View::Table { kept, columns: None } => print(&kept.plain().map(|row| row.concat() + "\n").collect::<String>()),
        View::Table { kept, columns: Some(columns) } => {
            let most = if screen.is_some() { ROWS_AT_END } else { usize::MAX };
            let mut text = above(drawn_lines) + &kept.show(columns, most);
            if kept.len() > most {
                text += &format!("({} more rows)\n", kept.len() - most);
            }
            print(&text)
        }
    }
}

/// Draws the part of the table that fits, in the place of the picture before. Gives the number of its lines.
fn draw(kept: &Kept, columns: &[Column], screen: Screen, before: usize, changes: u64) -> anyhow::Result<usize> {
    let fits = screen.rows.saturating_sub(4).max(1);
    let mut text = kept.show(columns, fits);
    text += &format!("{} rows after {changes} changes; Ctrl-C ends the query\n", kept.len());
    // A line that wraps would be two.
    let text: String = text.lines().map(|line| line.chars().take(screen.columns).collect::<String>() + "\n").collect();
    print(&(above(before) + &text))?;
    Ok(text.lines().count())
}

/// Moves the cursor so many lines up and clears what is below it.
fn above(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\r\x1b[J") }
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to stdout")
}
