//! How far the sources of a job are behind, as it is shown.

use std::collections::BTreeMap;
use std::fmt;

use mainstem_core::ids::OperatorId;
use mainstem_core::lag::{LagUnit, SourceLag};
use mainstem_plan::operator::{JobGraph, OperatorKind};
use serde::{Deserialize, Serialize};

/// Splits that are named in a line.
const SPLITS_IN_LINE_MAX: usize = 4;

/// The lag of a table that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableLag {
    /// Name of the table.
    pub(crate) table: String,
    pub(crate) unit: LagUnit,
    /// Over all splits.
    pub(crate) total: u64,
    /// The splits with the largest lag, largest first.
    pub(crate) splits: Vec<SplitLag>,
}

/// The lag of a split of such a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SplitLag {
    pub(crate) split: String,
    pub(crate) lag: u64,
}

impl fmt::Display for TableLag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of '{}'", self.total, self.unit, self.table)?;
        let behind: Vec<&SplitLag> = self.splits.iter().filter(|split| split.lag > 0).collect();
        for (n, SplitLag { split, lag }) in behind.iter().take(SPLITS_IN_LINE_MAX).enumerate() {
            write!(f, "{}{split} {lag}", if n == 0 { ": " } else { ", " })?;
        }
        if behind.len() > SPLITS_IN_LINE_MAX { f.write_str(", ..") } else { Ok(()) }
    }
}

/// The tables that a job reads, by the operators that read them.
pub(crate) fn tables_read(graph: &JobGraph) -> BTreeMap<OperatorId, String> {
    let read = graph.nodes.iter().filter_map(|node| match &node.op.kind {
        OperatorKind::Source(source) => Some((node.id, source.table.name.clone())),
        _ => None,
    });
    read.collect()
}

/// The lag of those tables of which it is known.
pub(crate) fn of_tables(
    tables: &BTreeMap<OperatorId, String>,
    lag_of: impl Fn(OperatorId) -> Option<SourceLag>,
) -> Vec<TableLag> {
    let of = |(id, table): (&OperatorId, &String)| {
        let SourceLag { unit, total, splits } = lag_of(*id)?;
        let splits = splits.into_iter().map(|(split, lag)| SplitLag { split: split.0, lag }).collect();
        Some(TableLag { table: table.clone(), unit, total, splits })
    };
    tables.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_splits_that_are_behind_most() {
        let lag = |lags: &[u64]| {
            let split = |(n, lag): (usize, &u64)| SplitLag { split: format!("t/{n}"), lag: *lag };
            let splits = lags.iter().enumerate().map(split).collect();
            TableLag { table: "orders".to_owned(), unit: LagUnit::Records, total: lags.iter().sum(), splits }
        };
        assert_eq!(lag(&[0, 0]).to_string(), "0 records of 'orders'");
        assert_eq!(lag(&[5, 3, 0]).to_string(), "8 records of 'orders': t/0 5, t/1 3");
        assert_eq!(lag(&[5, 4, 3, 2, 1]).to_string(), "15 records of 'orders': t/0 5, t/1 4, t/2 3, t/3 2, ..");
    }
}
