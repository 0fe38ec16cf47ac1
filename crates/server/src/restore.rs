//! A job that begins with a savepoint: which dataflow goes on. A restore never plans again; but the SQL file is there,
//! and what it asks for must be what the state was made by. Where tables are written to, or looked up, may have changed;
//! what is read, and what is done with it, may not.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use mainstem_connectors::{Staging, absolute_references, is_path_option};
use mainstem_coordinator::RestoreFrom;
use mainstem_core::ids::JobId;
use mainstem_objects::Place;
use mainstem_plan::operator::{JobGraph, Operator, OperatorKind};
use mainstem_state::{OpenSavepoint, Savepoint};

use crate::job;

/// Differences that are named to the user, of those that there are.
const DIFFERENCES_SHOWN: usize = 5;

/// What a job that begins with a savepoint takes from it.
pub(crate) struct Restored {
    /// The dataflow that goes on.
    pub(crate) graph: JobGraph,
    /// The key groups in which its state lies.
    pub(crate) key_groups: u16,
    /// For the driver.
    pub(crate) from: RestoreFrom,
}

/// What the user asks for.
pub(crate) struct Wanted<'a> {
    /// The savepoint.
    pub(crate) path: &'a Path,
    /// Name of the job that begins.
    pub(crate) job: &'a JobId,
    /// The SQL file, planned anew.
    pub(crate) planned: &'a JobGraph,
    /// Of its text.
    pub(crate) sql_hash: &'a str,
    /// Where relative paths start.
    pub(crate) working_dir: &'a Path,
    /// Whether output that is there already may be written once more; none: the job exists, and does not begin now.
    pub(crate) repeat_output: Option<bool>,
}

/// Opens a savepoint and fits it to a SQL file.
///
/// # Errors
/// Where there is none, it is damaged, it belongs to other SQL, or its job has gone on since.
pub(crate) async fn restore(wanted: Wanted<'_>) -> anyhow::Result<Restored> {
    let path = Place::absolute(wanted.working_dir, wanted.path);
    let opened = OpenSavepoint::open(&path).await?;
    let savepoint = opened.savepoint();
    let directory = opened.directory().display().to_string();
    let graph = graph(savepoint, wanted.planned, wanted.sql_hash, wanted.working_dir)
        .with_context(|| format!("the savepoint '{directory}' does not fit"))?;
    if wanted.repeat_output == Some(false) {
        check_output(&graph, savepoint, wanted.job).await?;
    }
    let from = RestoreFrom { path: directory, id: savepoint.id.clone() };
    Ok(Restored { graph, key_groups: savepoint.manifest.key_groups, from })
}

/// The savepoint's dataflow, with the tables that are written or looked up as the SQL file has them now.
fn graph(savepoint: &Savepoint, planned: &JobGraph, sql_hash: &str, working_dir: &Path) -> anyhow::Result<JobGraph> {
    let mut graph: JobGraph = serde_json::from_str(&savepoint.graph_json)
        .with_context(|| format!("its plan, of version {}, cannot be read by this one", savepoint.version))?;
    let differences = differences(&graph, planned);
    // The same SQL may be planned in another way by another version; the stored plan is the one with the state.
    if !differences.is_empty() && savepoint.sql_hash != sql_hash {
        let shown = differences.iter().take(DIFFERENCES_SHOWN).cloned().collect::<Vec<_>>().join("; ");
        let more = match differences.len().saturating_sub(DIFFERENCES_SHOWN) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        bail!("it has the state of another query: {shown}{more}; state goes on only where the query is the same");
    }
    for node in &mut graph.nodes {
        let reads = matches!(node.op.kind, OperatorKind::Source(_));
        let now = planned.nodes.iter().find(|planned| tables_match(&node.op.kind, &planned.op.kind));
        let now = now.and_then(|planned| planned.op.kind.table());
        let (Some(now), Some(table)) = (now, node.op.kind.table_mut()) else { continue };
        let options = now.options.clone();
        let changed = changed_options(&table.options, &options, working_dir);
        if let Some((name, now, before)) = changed.iter().find(|(name, ..)| reads || name == "connector") {
            bail!(
                "option '{name}' of table '{}' is {now} and was {before} when it was taken; what has been read, and how \
                 far, holds for that one only",
                table.name
            );
        }
        if !reads {
            table.options = options;
        }
    }
    Ok(graph)
}

/// What differs between two dataflows, apart from the options of tables.
fn differences(before: &JobGraph, now: &JobGraph) -> Vec<String> {
    let without_options = |op: &Operator| {
        let mut op = op.clone();
        if let Some(table) = op.kind.table_mut() {
            table.options.clear();
        }
        op
    };
    let mut differences = Vec::new();
    for position in 0..before.nodes.len().max(now.nodes.len()) {
        match (before.nodes.get(position), now.nodes.get(position)) {
            (Some(was), Some(is)) if was.name != is.name => {
                differences.push(format!("operator {position} is '{}' and was '{}'", is.name, was.name));
            }
            (Some(was), Some(is))
                if without_options(&was.op) != without_options(&is.op) || was.parallelism != is.parallelism =>
            {
                differences.push(format!("operator {position} ('{}') does something else than before", is.name));
            }
            (Some(was), None) => differences.push(format!("operator {position} ('{}') is there no more", was.name)),
            (None, Some(is)) => differences.push(format!("operator {position} ('{}') is new", is.name)),
            _ => {}
        }
    }
    if differences.is_empty() && before.edges != now.edges {
        differences.push("the same operators are connected in another way".to_owned());
    }
    differences
}

/// Whether two operators use the same table in the same way.
fn tables_match(one: &OperatorKind, other: &OperatorKind) -> bool {
    let is_same = one.table().zip(other.table()).is_some_and(|(one, other)| one.name == other.name);
    is_same && std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// Options that are not the same: name, what it is now and what it was, in words.
fn changed_options(
    before: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
    working_dir: &Path,
) -> Vec<(String, String, String)> {
    let words = |value: Option<&String>| value.map_or_else(|| "not set".to_owned(), |value| format!("'{value}'"));
    let meant = |name: &str, value: Option<&String>| match (name, value) {
        // A cluster keeps paths as absolute ones.
        (name, Some(path)) if is_path_option(name) && !path.contains("://") => {
            Some(working_dir.join(path).display().to_string())
        }
        (_, value) => value.map(|value| absolute_references(value, working_dir)),
    };
    let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
    let changed = names.filter(|name| meant(name, before.get(*name)) != meant(name, now.get(*name)));
    changed.map(|name| (name.clone(), words(now.get(name)), words(before.get(name)))).collect()
}

/// Refuses to write rows a second time where the job, under its old or its new name, has gone on since.
async fn check_output(graph: &JobGraph, savepoint: &Savepoint, new_name: &JobId) -> anyhow::Result<()> {
    let (job, epoch) = (&savepoint.manifest.job, savepoint.manifest.epoch);
    let mut names = vec![job];
    names.extend((new_name != job).then_some(new_name));
    // They are only asked what is visible, and publish nothing.
    for (operator, mut committer) in job::committers(graph, new_name, &Staging::nowhere())? {
        for name in &names {
            let looked = committer.visible_after(name, epoch).await;
            let (files, count) = looked.map_err(|error| anyhow::anyhow!("{}", error.message))?;
            if count > 0 {
                let table = &graph.node(operator).name;
                bail!(
                    "'{table}' holds output that job '{name}' has published after epoch {epoch}, of which the savepoint \
                     is, {count} files or sinks such as '{}'; with this savepoint its rows come once more. Remove it \
                     first, or have the rows twice by --repeat-output",
                    files.join("', '")
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mainstem_core::ids::{Epoch, Generation, SavepointId};
    use mainstem_core::time::Timestamp;
    use mainstem_state::Manifest;

    use super::*;

    fn plan(read_from: &str, write_to: &str, query: &str) -> JobGraph {
        let sql = format!(
            "CREATE TABLE t (a BIGINT, b BIGINT) WITH ('connector' = 'filesystem', 'path' = '{read_from}', 'format' = 'json');
             CREATE TABLE o (a BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{write_to}', 'format' = 'upsert-json');
             INSERT INTO o {query};"
        )
        .replace("n BIGINT) WITH", "n BIGINT, PRIMARY KEY (a) NOT ENFORCED) WITH");
        mainstem_planner::plan(&sql).unwrap().graph
    }

    const QUERY: &str = "SELECT a, COUNT(*) FROM t GROUP BY a";

    fn taken(graph: &JobGraph) -> Savepoint {
        let graph_json = serde_json::to_string(graph).unwrap();
        let manifest = Manifest {
            job: JobId::new("j").unwrap(),
            epoch: Epoch(3),
            generation: Generation(1),
            next_epoch_now: Timestamp(0),
            graph_hash: String::new(),
            key_groups: 8,
            parallelism: BTreeMap::new(),
            operators: BTreeMap::new(),
            sources: BTreeMap::new(),
            created_at: Timestamp(0),
        };
        let (version, sql_hash) = ("1".to_owned(), "before".to_owned());
        Savepoint { id: SavepointId::of(1), version, graph_json, sql_hash, manifest }
    }

    fn fit(before: &JobGraph, now: &JobGraph, sql_hash: &str) -> Result<JobGraph, String> {
        graph(&taken(before), now, sql_hash, Path::new("/data")).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_place_of_the_output_may_change_and_nothing_else() {
        let before = plan("/data/in", "/data/out", QUERY);
        let now = plan("in", "elsewhere", QUERY);
        let graph = fit(&before, &now, "now").unwrap();
        let expected = plan("/data/in", "elsewhere", QUERY);
        assert_eq!(graph, expected);
        let refused = fit(&before, &plan("in2", "out", QUERY), "now").unwrap_err();
        assert_eq!(
            refused,
            "option 'path' of table 't' is 'in2' and was '/data/in' when it was taken; what has been read, and how far, \
             holds for that one only"
        );
    }

    #[test]
    fn another_query_is_refused_with_what_differs() {
        let before = plan("in", "out", QUERY);
        let refused = fit(&before, &plan("in", "out", "SELECT a, SUM(b) FROM t GROUP BY a"), "now").unwrap_err();
        assert!(refused.contains("does something else than before"), "{refused}");
        let refused = fit(&before, &plan("in", "out", "SELECT a, b FROM t"), "now").unwrap_err();
        assert!(refused.contains("it has the state of another query: operator "), "{refused}");
        // The same text, planned by another version: the stored plan goes on.
        let other = plan("in", "out2", "SELECT a, b FROM t");
        assert_eq!(fit(&before, &other, "before").unwrap(), plan("in", "out2", QUERY));
    }
}
