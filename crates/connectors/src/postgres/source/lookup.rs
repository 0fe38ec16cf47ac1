//! Looks rows up by key: one query for all keys of a batch.

use std::sync::Arc;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::Origin;
use crate::error::ConnectorError;
use crate::postgres::client::Session;
use crate::postgres::sql::{identifier, joined};
use crate::postgres::text::{RowsBuilder, write_array_literal};
use crate::source::{Lookup, LookupContext};

/// How long a query may take, so that a job whose attempt has ended does not wait for it for ever.
const QUERY_TIMEOUT: &str = "SET statement_timeout TO '60s'";

/// See the module.
pub(super) struct PostgresLookup {
    origin: Arc<Origin>,
    ctx: LookupContext,
    open: Option<(Session, Statement)>,
}

impl PostgresLookup {
    pub(super) fn new(origin: Arc<Origin>, ctx: LookupContext) -> PostgresLookup {
        PostgresLookup { origin, ctx, open: None }
    }

    async fn open(&self) -> Result<(Session, Statement), ConnectorError> {
        let (session, real) = self.origin.open(&self.ctx.columns).await?;
        session.execute("prepare the connection", QUERY_TIMEOUT).await?;
        let schema = self.origin.projected(&self.ctx.columns)?;
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        // As texts, which both sides write in the same way whatever the types.
        let columns = joined(names.iter().map(|name| format!("t.{}::text", identifier(name))), ", ");
        let keys = self.ctx.keys.iter().map(|key| names[*key]);
        let compared_as = |key: &usize| {
            let field = schema.field(*key);
            let column = real.columns.iter().find(|column| column.name == *field.name());
            column.map_or("text", |column| column.compared_as(field.data_type()))
        };
        let types = self.ctx.keys.iter().map(compared_as);
        let arrays = types.enumerate().map(|(at, name)| format!("${}::text::{name}[]", at + 1));
        let condition = match self.ctx.keys.as_slice() {
            [_] => joined(keys.zip(arrays).map(|(name, array)| format!("t.{} = ANY({array})", identifier(name))), ""),
            _ => format!(
                "({}) IN (SELECT * FROM unnest({}))",
                joined(keys.map(|name| format!("t.{}", identifier(name))), ", "),
                joined(arrays, ", ")
            ),
        };
        let query = format!("SELECT {columns} FROM {} t WHERE {condition}", real.name);
        let prepared = session.client.prepare(&query).await;
        let statement = prepared.map_err(|error| session.failed("prepare a lookup", &error))?;
        Ok((session, statement))
    }
}

#[async_trait]
impl Lookup for PostgresLookup {
    async fn find(&mut self, keys: &RecordBatch) -> Result<RecordBatch, ConnectorError> {
        let (session, statement) = match self.open.take().filter(|(session, _)| !session.client.is_closed()) {
            Some(open) => open,
            None => self.open().await?,
        };
        let literal = |column: &arrow::array::ArrayRef| {
            let mut text = Vec::new();
            write_array_literal(column.as_ref(), &mut text)?;
            String::from_utf8(text).map_err(|e| ConnectorError::data(format!("keys of a lookup: {e}")))
        };
        let literals = keys.columns().iter().map(literal).collect::<Result<Vec<_>, _>>()?;
        let parameters: Vec<&(dyn ToSql + Sync)> = literals.iter().map(|text| text as &(dyn ToSql + Sync)).collect();
        let rows = session.client.query(&statement, &parameters).await;
        let rows = rows.map_err(|error| session.failed("look rows up", &error))?;
        let mut builder = RowsBuilder::new(self.origin.projected(&self.ctx.columns)?)?;
        for row in &rows {
            builder.push((0..self.ctx.columns.len()).map(|column| text(row, column)))?;
        }
        // Kept only after success: an error may have left anything.
        self.open = Some((session, statement));
        builder.finish()
    }
}

fn text(row: &Row, column: usize) -> Option<&[u8]> {
    row.get::<_, Option<&str>>(column).map(str::as_bytes)
}
