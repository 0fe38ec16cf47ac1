//! The late-rows output of a job: port 1 of every windowed aggregation, written to the table that
//! `SET 'late-rows.table'` names. Called after everything else is in the graph.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{LATE_ROW_COLUMNS, NamedExpr, Operator, OperatorKind};
use mainstem_plan::sql_type_name;

use super::Lowering;
use crate::catalog::Table;
use crate::error::{At, ErrorCode, SqlError};

impl Lowering {
    /// Sends late rows on; gives the operator whose output has the table's columns. An error where the job
    /// has no windows.
    pub(crate) fn late_rows(&mut self, table: &Table, at: At) -> Result<OperatorId, SqlError> {
        self.at = at;
        let project = late_columns(table)?;
        let schema = table.written.schema.clone();
        let windows: Vec<OperatorId> = self.turn_on_late_output();
        if windows.is_empty() {
            let message =
                "'late-rows.table' is set, but no query of this file groups by a window, so that no row can be late";
            return Err(SqlError::new(ErrorCode::Option, at, message));
        }
        let mut outputs = Vec::new();
        for window in windows {
            let kind = OperatorKind::Calc { filter: None, project: Some(project.clone()) };
            let output = self.add_always("late rows", Operator::new(schema.clone(), kind), &[])?;
            self.graph.connect(window, 1, output, Exchange::Forward);
            outputs.push((output, Exchange::Forward));
        }
        match outputs.as_slice() {
            [(one, _)] => Ok(*one),
            _ => self.add_always("union", Operator::new(schema, OperatorKind::Union), &outputs),
        }
    }

    /// Gives the first steps of all windowed aggregations.
    fn turn_on_late_output(&mut self) -> Vec<OperatorId> {
        let mut first_steps = Vec::new();
        for node in &mut self.graph.nodes {
            match &mut node.op.kind {
                OperatorKind::WindowPartial(aggregate) => {
                    aggregate.late_output = true;
                    first_steps.push(node.id);
                }
                OperatorKind::WindowFinal(aggregate) => aggregate.late_output = true,
                _ => {}
            }
        }
        first_steps
    }
}

/// Columns of port 1.
pub(crate) fn late_schema() -> SchemaRef {
    let timestamp = || DataType::Timestamp(TimeUnit::Millisecond, None);
    let types = [DataType::Utf8, timestamp(), timestamp(), DataType::Utf8];
    let fields = LATE_ROW_COLUMNS.iter().zip(types).map(|(name, data_type)| Field::new(*name, data_type, true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn late_columns(table: &Table) -> Result<Vec<NamedExpr>, SqlError> {
    let late = late_schema();
    let fields = table.written.schema.fields().iter();
    let columns = fields.map(|field| {
        let Ok(position) = late.index_of(field.name()) else {
            let known = LATE_ROW_COLUMNS.join(", ");
            let message = format!(
                "table '{}' takes late rows and has the column '{}'; its columns can only be {known}",
                table.spec.name,
                field.name()
            );
            return Err(SqlError::new(ErrorCode::Type, table.at, message));
        };
        let (given, wanted) = (late.field(position).data_type(), field.data_type());
        let column = Expr::Column(position);
        let expr = match (given, wanted) {
            (given, wanted) if given == wanted => column,
            (DataType::Timestamp(..), DataType::Timestamp(..)) => {
                Expr::Cast { expr: Box::new(column), to: wanted.clone() }
            }
            _ => {
                let message = format!(
                    "column '{}' of table '{}' takes late rows and must be {}, not {}",
                    field.name(),
                    table.spec.name,
                    sql_type_name(given),
                    sql_type_name(wanted)
                );
                return Err(SqlError::new(ErrorCode::Type, table.at, message));
            }
        };
        Ok(NamedExpr { name: field.name().clone(), expr })
    });
    columns.collect()
}
