//! Random tables and random queries over them, of all that is supported, nested. Several run as one job: straight, killed
//! and resumed at another parallelism; and each in the batch engine. All must agree. A query that the planner refuses
//! counts as such; there must be few. What fails is made small before it is shown.

mod choices;
mod database;
mod expr;
mod generator;
mod report;
mod sql;
mod time;
mod windows;

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use self::choices::{Choices, shrink};
use self::database::Table;
use self::generator::Generator;
use self::report::Report;
use self::sql::Sql;
use crate::engines::{CaseError, Engines, Select, agreed, answer};

/// Time for the test where the number of queries is not given.
const TIME: Duration = Duration::from_secs(90);
/// Queries over the same tables, in one job.
const QUERIES_PER_JOB: u64 = 12;
/// The batch engine gets so long for a query. What takes longer says nothing about the product.
const BATCH_TIME_MAX: Duration = Duration::from_secs(3);
/// Results larger than this are left out.
const RESULT_ROWS_MAX: usize = 3000;

/// Settings that change no result, by the number of the job.
const SETTINGS: [&str; 3] = [
    "",
    "SET 'table.optimizer.distinct-agg.split.enabled' = 'true';\n",
    "SET 'table.optimizer.agg-phase-strategy' = 'ONE_PHASE';\n",
];

/// What is known of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// All ways to run it agree.
    Right { rows: usize },
    /// The planner's message.
    Refused(String),
    /// The batch engine gives no answer.
    Unanswered(String),
    /// Why the job failed, or what it says otherwise.
    Wrong(String),
}

impl Verdict {
    /// Whether both are mistakes of one kind.
    fn resembles(&self, other: &Verdict) -> bool {
        let kind = |verdict: &Verdict| match verdict {
            Verdict::Wrong(message) => {
                Some(["streaming:", "straight:"].iter().find(|kind| message.starts_with(**kind)).copied())
            }
            _ => None,
        };
        kind(self).is_some() && kind(self) == kind(other)
    }
}

/// The tables in both engines.
async fn engines(tables: &[Table], runs: usize) -> Engines {
    let mut engines = Engines::new();
    engines.runs = runs;
    engines.preamble.push_str(SETTINGS[runs % SETTINGS.len()]);
    for table in tables {
        let (create, insert) = table.statements();
        engines.create_table(&create).await.unwrap();
        if let Some(insert) = insert {
            engines.collect(&insert).await.unwrap();
        }
    }
    engines.write_tables().await.unwrap();
    engines
}

async fn batch_answer(engines: &Engines, query: &str) -> Result<Vec<RecordBatch>, CaseError> {
    let late = |_| CaseError("takes too long".to_owned());
    let batches = tokio::time::timeout(BATCH_TIME_MAX, engines.collect(query)).await.map_err(late)??;
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    if rows > RESULT_ROWS_MAX { Err(CaseError("the result is large".to_owned())) } else { Ok(batches) }
}

/// Runs the queries, those that can be, as one job.
async fn judge(engines: &mut Engines, queries: &[Sql]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut selects = Vec::new();
    let mut expected = Vec::new();
    for query in queries {
        verdicts.push(match engines.schema(&query.job) {
            Err(error) => Verdict::Refused(error.0),
            Ok(schema) => match batch_answer(engines, &query.batch).await {
                Err(error) => Verdict::Unanswered(error.0),
                Ok(batches) => {
                    let rows = answer(&batches, &schema);
                    selects.push(Select { sql: query.job.clone(), schema });
                    let count = rows.len();
                    expected.push(rows);
                    Verdict::Right { rows: count }
                }
            },
        });
    }
    if selects.is_empty() {
        return verdicts;
    }
    let ran = verdicts.iter_mut().filter(|verdict| matches!(verdict, Verdict::Right { .. }));
    match engines.run(&selects) {
        Ok([straight, resumed]) => {
            for (number, verdict) in ran.enumerate() {
                if let Err(error) = agreed(&straight[number], &resumed[number], &expected[number]) {
                    *verdict = Verdict::Wrong(error.0);
                }
            }
        }
        Err(error) => ran.for_each(|verdict| *verdict = Verdict::Wrong(error.0.clone())),
    }
    verdicts
}

/// A query over tables that goes wrong.
struct Case {
    tables: Vec<Table>,
    tape: Vec<usize>,
    runs: usize,
}

impl Case {
    fn query(&self) -> Sql {
        Generator::generate(Choices::replay(self.tape.clone()), &self.tables).0.sql
    }

    async fn verdict(&self) -> Verdict {
        judge(&mut engines(&self.tables, self.runs).await, &[self.query()]).await.remove(0)
    }

    /// The case with a smaller query and fewer rows that goes wrong in the same way.
    async fn small(mut self, wrong: &Verdict) -> Case {
        let (tables, runs) = (self.tables.clone(), self.runs);
        self.tape = shrink(self.tape, async |tape| {
            Case { tables: tables.clone(), tape: tape.to_vec(), runs }.verdict().await.resembles(wrong)
        })
        .await;
        for table in 0..tables.len() {
            let mut share = self.tables[table].rows.len();
            while share > 0 {
                let mut at = 0;
                while at < self.tables[table].rows.len() {
                    let mut fewer = self.tables.clone();
                    let end = fewer[table].rows.len().min(at + share);
                    fewer[table].rows.drain(at..end);
                    let case = Case { tables: fewer, tape: self.tape.clone(), runs };
                    if case.verdict().await.resembles(wrong) { self = case } else { at = end }
                }
                share /= 2;
            }
        }
        self
    }
}

/// What is wrong with a query of a job, as small as it can be said.
async fn explanation(case: Case, wrong: &Verdict) -> String {
    let alone = case.verdict().await;
    if !matches!(alone, Verdict::Wrong(_)) {
        return format!("only together with the others, or sometimes: {wrong:?}\n{}", case.query().job);
    }
    let small = case.small(&alone).await;
    let statements = small.tables.iter().map(|table| {
        let (create, insert) = table.statements();
        format!("{create};\n{};", insert.unwrap_or_default())
    });
    let (query, tables) = (small.query(), statements.collect::<Vec<_>>().join("\n"));
    let Verdict::Wrong(message) = small.verdict().await else { return format!("{alone:?} sometimes\n{}", query.job) };
    let settings = SETTINGS[small.runs % SETTINGS.len()];
    format!("{message}\n{settings}{tables}\n{};\n-- batch: {};", query.job, query.batch)
}

/// Repeat a job with `MAINSTEM_SEED=n cargo test -p mainstem --test e2e random_queries`; a number of queries instead of a time
/// with `MAINSTEM_QUERIES=n`, from that seed on; more failures than one with `MAINSTEM_FAILURES=n`.
#[tokio::test(flavor = "multi_thread")]
async fn random_queries_equal_batch() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect("a number"));
    let (first, wanted) = (number("MAINSTEM_SEED"), number("MAINSTEM_QUERIES"));
    let failures_max = number("MAINSTEM_FAILURES").unwrap_or(1) as usize;
    let begun = Instant::now();
    let mut report = Report::default();
    for seed in first.unwrap_or(0).. {
        let tables = database::tables(&mut Choices::random(seed));
        let mut engines = engines(&tables, seed as usize).await;
        let runs = engines.runs;
        let made = (0..QUERIES_PER_JOB)
            .map(|n| Generator::generate(Choices::random((seed + 1) * QUERIES_PER_JOB + n), &tables));
        let made: Vec<_> = made.collect();
        let queries: Vec<Sql> = made.iter().map(|(query, _, _)| query.sql.clone()).collect();
        let verdicts = judge(&mut engines, &queries).await;
        report.kills += engines.kills;
        for ((query, tape, seen), verdict) in made.into_iter().zip(&verdicts) {
            report.add(&query.sql, verdict, seen);
            if matches!(verdict, Verdict::Wrong(_)) && report.failures.len() < failures_max {
                let case = Case { tables: tables.clone(), tape, runs };
                // Where a job fails as a whole, the others may be right.
                let others_fail = verdicts.iter().filter(|other| *other == verdict).count() > 1;
                if others_fail && !matches!(case.verdict().await, Verdict::Wrong(_)) {
                    continue;
                }
                report.failures.push(format!("MAINSTEM_SEED={seed}: {}", explanation(case, verdict).await));
            }
        }
        let enough = match wanted {
            Some(wanted) => report.queries() >= wanted as usize,
            None => first.is_some() || begun.elapsed() > TIME,
        };
        if enough || report.failures.len() >= failures_max {
            break;
        }
    }
    println!("{report}\n{} s", begun.elapsed().as_secs());
    assert!(report.failures.is_empty(), "\n{}", report.failures.join("\n\n"));
    assert_eq!(report.wrong, 0, "a job failed of which each query runs alone");
    assert!(report.refusals() * 10 <= report.queries(), "too much is refused");
}
