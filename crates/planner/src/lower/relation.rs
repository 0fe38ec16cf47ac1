//! UNNEST, INTERSECT, EXCEPT and rows that stand in the text, to operators.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_expr::{Expr as LogicalExpr, Values};
use mainstem_core::graph::Exchange;
use mainstem_plan::expr::Expr;
use mainstem_plan::operator::{NamedExpr, Operator, OperatorKind, SetOperation, SourceOperator, Unnest};

use super::{Lowering, Stream, arrow_schema};
use crate::error::{At, ErrorCode, SqlError};
use crate::node;

impl Lowering {
    pub(super) fn unnest(&mut self, node: &node::Unnest) -> Result<Stream, SqlError> {
        let base = self.lower(&node.input)?;
        let position = node.input.schema().index_of_column(&node.collection);
        let position = position.map_err(|error| SqlError::from_datafusion(&error, self.at))?;
        let (input, mut keep) = (base.operator, base.columns);
        let collection = keep.remove(position);
        let spec = Unnest { collection, keep, outer: node.outer, ordinality: node.ordinality };
        let op = Operator::new(distinct_names(&arrow_schema(&node.schema)), OperatorKind::Unnest(spec));
        let operator = self.add("unnest", op, &[(input, Exchange::Forward)])?;
        Ok(self.whole(operator))
    }

    pub(super) fn set_operation(&mut self, node: &node::SetOperation) -> Result<Stream, SqlError> {
        let schema = distinct_names(&arrow_schema(&node.schema));
        let mut inputs = Vec::new();
        for plan in [&node.left, &node.right] {
            let stream = self.lower(plan)?;
            let mut operator = self.materialize(stream, &schema, false)?;
            if inputs.contains(&operator) {
                operator = self.copy(operator)?;
            }
            inputs.push(operator);
        }
        let keys = (0..schema.fields().len()).collect();
        let exchange = Exchange::Hash { keys };
        let inputs: Vec<_> = inputs.into_iter().map(|input| (input, exchange.clone())).collect();
        let spec = SetOperation { kind: node.kind, all: node.all, ttl_ms: self.state_ttl_ms };
        let op = Operator::new(schema, OperatorKind::SetOperation(spec));
        let operator = self.add(&node.kind.keyword().to_lowercase(), op, &inputs)?;
        Ok(self.whole(operator))
    }

    /// Rows that stand in the text.
    pub(super) fn values(&mut self, values: &Values) -> Result<Stream, SqlError> {
        let schema = arrow_schema(&values.schema);
        let mut columns = Vec::<ArrayRef>::new();
        for (column, field) in schema.fields().iter().enumerate() {
            let scalars = values.values.iter().map(|row| self.constant(&row[column], field.data_type()));
            let scalars = scalars.collect::<Result<Vec<_>, _>>()?;
            let array = ScalarValue::iter_to_array(scalars);
            columns.push(array.map_err(|error| SqlError::from_datafusion(&error, self.at))?);
        }
        let rows = RecordBatch::try_new(schema, columns);
        let rows = rows.map_err(|error| self.internal(format!("the rows of VALUES: {error}")))?;
        let columns = (0..rows.num_columns()).collect();
        self.rows(&rows, columns)
    }

    /// One row without columns.
    pub(super) fn one_row(&mut self) -> Result<Stream, SqlError> {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0]));
        let rows = RecordBatch::try_from_iter([("row", column)]).expect("one column of one row");
        self.rows(&rows, vec![])
    }

    fn constant(&self, expr: &LogicalExpr, data_type: &DataType) -> Result<ScalarValue, SqlError> {
        match expr {
            LogicalExpr::Alias(alias) => self.constant(&alias.expr, data_type),
            LogicalExpr::Literal(value, _) => {
                value.cast_to(data_type).map_err(|error| SqlError::from_datafusion(&error, self.at))
            }
            other => {
                let at = other.spans().and_then(|spans| spans.first()).map_or(self.at, |span| {
                    At(datafusion_sql::sqlparser::tokenizer::Location {
                        line: span.start.line,
                        column: span.start.column,
                    })
                });
                let message = format!("VALUES takes constants, and {other} is none; write SELECT ... UNION ALL");
                Err(SqlError::unsupported(at, message))
            }
        }
    }

    fn rows(&mut self, rows: &RecordBatch, read_columns: Vec<usize>) -> Result<Stream, SqlError> {
        let table = mainstem_connectors::values_table("values", rows);
        let table = table.map_err(|error| SqlError::new(ErrorCode::Type, self.at, error.message))?;
        let schema = rows.schema().project(&read_columns).expect("columns of these rows");
        let project = schema.fields().iter().enumerate();
        let project = project.map(|(at, field)| NamedExpr { name: field.name().clone(), expr: Expr::Column(at) });
        let source = SourceOperator {
            table,
            read_columns,
            watermark: None,
            project: project.collect(),
            checks: vec![],
            computed: vec![],
            dead_letters: None,
        };
        let operator = self.add("values", Operator::new(Arc::new(schema), OperatorKind::Source(source)), &[])?;
        Ok(self.whole(operator))
    }
}

/// The columns under names of which each occurs once.
pub(super) fn distinct_names(schema: &SchemaRef) -> SchemaRef {
    let mut fields = Vec::<Field>::new();
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut number = 0;
        while fields.iter().any(|known| *known.name() == name) {
            name = format!("{}{number}", field.name());
            number += 1;
        }
        fields.push(field.as_ref().clone().with_name(name));
    }
    Arc::new(Schema::new(fields))
}
