//! What each sink of a job promises end to end, and why not more: what the user asked for, what the sink can
//! keep, and whether every source above it can be read again. Called when a plan is finished; a promise that
//! cannot be kept is refused here. [`paths`] says of a finished plan what holds from each source to each sink.

mod causes;
mod paths;
mod text;

use std::collections::BTreeSet;

use mainstem_connectors::Delivery;
use mainstem_core::ids::OperatorId;
use mainstem_plan::operator::{JobGraph, OperatorKind};
use serde::{Deserialize, Serialize};

pub use self::causes::{Cause, CauseKind, Effect};
pub use self::paths::{PathGuarantee, paths};
pub use self::text::explain_guarantees;
use crate::catalog::{Catalog, Table};
use crate::error::{At, ErrorCode, SqlError};

/// A sink of the job and its guarantee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkInfo {
    /// Its operator.
    pub operator: OperatorId,
    /// Its table; for a bare SELECT a name made up for it.
    pub table: String,
    /// What `'delivery'` asks for.
    pub requested: Option<Delivery>,
    /// The strongest that the sink can keep.
    pub strongest: Delivery,
    /// How it keeps it, in one sentence.
    pub mechanism: String,
    /// What holds from the sources to this sink.
    pub delivery: Delivery,
    /// Why it is that, in one sentence.
    pub reason: String,
    /// The sources that feed it.
    pub sources: Vec<SourceInfo>,
    /// Line of the statement that writes it; 0: there is none.
    #[serde(default)]
    pub statement_line: u64,
    /// Line of its declaration; 0: there is none.
    #[serde(default)]
    pub table_line: u64,
}

/// A source of the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Its table.
    pub table: String,
    /// Whether it can be read again from a position.
    pub replayable: bool,
    /// Its operator.
    #[serde(default)]
    pub operator: OperatorId,
    /// Line of its declaration; 0: there is none.
    #[serde(default)]
    pub line: u64,
}

/// The guarantee of a sink operator. `table` is its declaration, absent for a bare SELECT.
pub(crate) fn of_sink(
    graph: &JobGraph,
    operator: OperatorId,
    table: Option<&Table>,
    at: At,
    catalog: &Catalog,
) -> Result<SinkInfo, SqlError> {
    let OperatorKind::Sink(sink) = &graph.node(operator).op.kind else {
        return Err(SqlError::new(ErrorCode::Internal, at, format!("{operator} is no sink")));
    };
    let blamed = |message: &str| table.map_or(at, |table| table.blamed(message));
    let refused = |error: &mainstem_connectors::ConnectorError| {
        SqlError::new(ErrorCode::Option, blamed(&error.message), error.message.clone())
    };
    let (strongest, mechanism) =
        mainstem_connectors::sink(&sink.table).map_err(|error| refused(&error))?.strongest_delivery();
    let mut sources = Vec::new();
    for source in upstream_sources(graph, operator) {
        let OperatorKind::Source(reads) = &graph.node(source).op.kind else { continue };
        let replayable = mainstem_connectors::source(&reads.table).map_err(|error| refused(&error))?.is_replayable();
        let line = catalog.line_of(&reads.table.name);
        sources.push(SourceInfo { table: reads.table.name.clone(), replayable, operator: source, line });
    }
    let requested = table.and_then(|table| table.delivery.map(|(delivery, _)| delivery));
    let (possible, limit) = match sources.iter().find(|source| !source.replayable) {
        Some(source) => {
            (Delivery::BestEffort, format!("the source '{}' cannot be read again after a failure", source.table))
        }
        None => (strongest, mechanism.clone()),
    };
    if let Some(requested) = requested
        && requested > possible
    {
        let place = table.map_or(at, |table| table.option_at("delivery"));
        let message = format!(
            "table '{}' asks for 'delivery' = '{requested}', but at most {possible} can be kept: {limit}",
            sink.table.name
        );
        return Err(SqlError::new(ErrorCode::Delivery, place, message));
    }
    let delivery = requested.unwrap_or(possible);
    let reason = match requested {
        Some(requested) if requested < possible => format!("asked for, though {possible} could be kept"),
        _ if possible == Delivery::BestEffort && sources.iter().any(|source| !source.replayable) => limit,
        _ => "every source can be read again; ".to_owned() + &limit,
    };
    Ok(SinkInfo {
        operator,
        table: sink.table.name.clone(),
        requested,
        strongest,
        mechanism,
        delivery,
        reason,
        sources,
        statement_line: at.0.line,
        table_line: table.map_or(0, |table| table.at.0.line),
    })
}

fn upstream_sources(graph: &JobGraph, sink: OperatorId) -> BTreeSet<OperatorId> {
    let mut seen = BTreeSet::new();
    let mut open = vec![sink];
    while let Some(operator) = open.pop() {
        if seen.insert(operator) {
            open.extend(graph.inputs(operator).map(|edge| edge.from));
        }
    }
    seen.retain(|operator| matches!(graph.node(*operator).op.kind, OperatorKind::Source(_)));
    seen
}
