//! Sinks: whether a sink can take the changes of its query, and how they must reach it.

use mainstem_connectors::TableSpec;
use mainstem_core::change::ChangeMode;
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::operator::{Operator, OperatorKind, SinkOperator};

use super::{Lowering, changes};
use crate::error::{At, ErrorCode, SqlError};

/// How the rows of a bare SELECT are printed.
pub(crate) const PRINT_TABLE_STYLE: &str = "table";

impl Lowering {
    /// Adds a sink behind an operator that gives exactly the table's columns. `at`: where the table is declared,
    /// or the query, if it has no table.
    pub(crate) fn sink(&mut self, table: TableSpec, input: OperatorId, at: At) -> Result<OperatorId, SqlError> {
        let connector = mainstem_connectors::sink(&table);
        let accepts = connector.map_err(|error| SqlError::new(ErrorCode::Option, at, error.message.clone()))?.accepts();
        let updating = self.graph.node(input).op.changes != ChangeMode::Append;
        if updating {
            self.check_accepts(&table, accepts, input)?;
        }
        let name = format!("sink {}", table.name);
        // A table for people has one header and one order: a single subtask prints it.
        if table.options.get("print.style").is_some_and(|style| style == PRINT_TABLE_STYLE) {
            let op = Operator::new(table.schema.clone(), OperatorKind::Sink(SinkOperator { table }));
            let id = self.add_always(&name, op, &[(input, Exchange::Hash { keys: vec![] })])?;
            self.run_alone(id);
            return Ok(id);
        }
        let mut key: Vec<usize> =
            table.primary_key.iter().filter_map(|name| table.schema.index_of(name).ok()).collect();
        key.sort_unstable();
        let upserts = accepts == ChangeMode::Upsert && !key.is_empty();
        let by_key = changes::unique_key(&self.graph, input).is_some_and(|unique| unique == key);
        let op = Operator::new(table.schema.clone(), OperatorKind::Sink(SinkOperator { table }));
        if !upserts || by_key {
            let id = self.add_always(&name, op, &[(input, Exchange::Forward)])?;
            if upserts {
                self.upsert_sinks.insert(id);
            }
            return Ok(id);
        }
        // Rows of one key come from several places: they must meet before the last of them can be told.
        let exchange = Exchange::Hash { keys: key.clone() };
        if !updating {
            return self.add_always(&name, op, &[(input, exchange)]);
        }
        let schema = self.graph.node(input).op.schema.clone();
        let normalize = Operator::new(schema, OperatorKind::Normalize { key });
        let newest = self.add("newest row of each key", normalize, &[(input, exchange)])?;
        let id = self.add_always(&name, op, &[(newest, Exchange::Forward)])?;
        self.upsert_sinks.insert(id);
        Ok(id)
    }

    fn check_accepts(&self, table: &TableSpec, accepts: ChangeMode, input: OperatorId) -> Result<(), SqlError> {
        let help = match accepts {
            ChangeMode::Retract => return Ok(()),
            ChangeMode::Upsert if !table.primary_key.is_empty() => return Ok(()),
            ChangeMode::Upsert => {
                "it can replace rows by key: declare PRIMARY KEY (...) NOT ENFORCED on the table".to_owned()
            }
            ChangeMode::Append => {
                "aggregate over windows, which give each result once, or write to a table that takes \
                                   changes (such as 'format' = 'debezium-json' or 'connector' = 'print')"
                    .to_owned()
            }
        };
        let origin = self.origin_of_updates(input);
        let message = format!(
            "table '{}' takes new rows only, and this query changes rows that it gave before ({} from '{origin}'); {help}",
            table.name,
            ChangeMode::Retract.symbols()
        );
        Err(SqlError::new(ErrorCode::Unsupported, self.at, message))
    }

    /// Name of the operator that makes the stream an updating one.
    pub(super) fn origin_of_updates(&self, id: OperatorId) -> String {
        let mut id = id;
        loop {
            let updating = |from: &OperatorId| self.graph.node(*from).op.changes != ChangeMode::Append;
            match self.graph.inputs(id).map(|edge| edge.from).find(updating) {
                Some(input) => id = input,
                None => return self.graph.node(id).name.clone(),
            }
        }
    }
}
