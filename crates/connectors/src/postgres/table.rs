//! The real table behind a declared one: found, and compared with the declaration before anything is read or written.

mod fit;

use arrow::datatypes::{DataType, Schema};

use super::client::Session;
use super::sql::identifier;
use crate::error::{ConnectorError, ErrorKind};
use crate::format::type_name;

pub(super) use fit::Direction;

/// A table as the server describes it.
pub(super) struct RealTable {
    /// Schema and name, quoted.
    pub(super) name: String,
    /// Its schema, quoted.
    pub(super) schema: String,
    /// Both, as they are.
    pub(super) plain_schema: String,
    pub(super) plain_name: String,
    pub(super) columns: Vec<RealColumn>,
    /// The columns of each unique index without conditions.
    pub(super) unique: Vec<Vec<String>>,
}

/// A column as the server describes it.
pub(super) struct RealColumn {
    pub(super) name: String,
    /// As users write it: `numeric(10,2)`.
    type_name: String,
    /// Name of the type in the catalog, of an array's elements where it is one, of what a domain is made of.
    base: String,
    is_array: bool,
    /// `e` for an enumeration.
    kind: String,
    /// Of the type: lengths, digits; -1 for none.
    modifier: i32,
    /// Schema and name of the type without lengths, quoted.
    pub(super) plain_type: String,
    pub(super) not_null: bool,
    has_default: bool,
    /// Computed, or given by the server alone.
    generated: bool,
}

/// `$1`: the table's name, quoted where needed by the caller.
const COLUMNS: &str = "
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), e.typname, (t.typelem <> 0 AND t.typlen = -1 AND t.typcategory = 'A'),
           e.typtype::text, CASE WHEN d.typtype = 'd' THEN d.typtypmod ELSE a.atttypmod END, a.attnotnull,
           a.atthasdef OR a.attidentity <> '', a.attgenerated <> '' OR a.attidentity = 'a',
           format('%I.%I', n.nspname, d.typname)
    FROM pg_attribute a
    JOIN pg_type d ON d.oid = a.atttypid
    JOIN pg_namespace n ON n.oid = d.typnamespace
    JOIN pg_type t ON t.oid = CASE WHEN d.typtype = 'd' THEN d.typbasetype ELSE d.oid END
    JOIN pg_type e ON e.oid = CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN t.typelem ELSE t.oid END
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum";

const UNIQUE: &str = "
    SELECT array_agg(a.attname::text ORDER BY a.attname)
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])
    WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
    GROUP BY i.indexrelid";

impl RealTable {
    /// Asks for a table. `shown`: as the user wrote it.
    pub(super) async fn find(
        session: &Session,
        schema: Option<&str>,
        name: &str,
        shown: &str,
    ) -> Result<RealTable, ConnectorError> {
        let action = format!("look at the table '{shown}'");
        let failed = |error: tokio_postgres::Error| session.failed(&action, &error);
        let quoted = schema.map_or(identifier(name), |schema| format!("{}.{}", identifier(schema), identifier(name)));
        let found = "SELECT c.oid, n.nspname, c.relname, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = \
                     c.relnamespace WHERE c.oid = to_regclass($1)";
        let row = session.client.query_opt(found, &[&quoted]).await.map_err(failed)?.ok_or_else(|| {
            let message = format!(
                "there is no table '{shown}' in PostgreSQL at {}; check 'table-name' (upper and lower case count) and \
                 'schema-name', or create it",
                session.address.shown()
            );
            ConnectorError::new(ErrorKind::External, message)
        })?;
        let (oid, schema, name): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
        let columns = session.client.query(COLUMNS, &[&oid]).await.map_err(failed)?;
        let column = |row: &tokio_postgres::Row| RealColumn {
            name: row.get(0),
            type_name: row.get(1),
            base: row.get(2),
            is_array: row.get(3),
            kind: row.get(4),
            modifier: row.get(5),
            not_null: row.get(6),
            has_default: row.get(7),
            generated: row.get(8),
            plain_type: row.get(9),
        };
        let columns = columns.iter().map(column).collect();
        let unique = session.client.query(UNIQUE, &[&oid]).await.map_err(failed)?;
        let unique = unique.iter().map(|row| row.get(0)).collect();
        let quoted = identifier(&schema);
        Ok(RealTable {
            name: format!("{quoted}.{}", identifier(&name)),
            schema: quoted,
            plain_schema: schema,
            plain_name: name,
            columns,
            unique,
        })
    }

    fn column(&self, name: &str) -> Option<&RealColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Refuses a declaration that does not fit, with the first column that does not. `declared`: name of the declared
    /// table; `key`: the primary key by which rows are replaced, if they are.
    pub(super) fn check(
        &self,
        declared: &str,
        schema: &Schema,
        key: &[String],
        direction: Direction,
    ) -> Result<(), ConnectorError> {
        let wrong =
            |message: String| ConnectorError::new(ErrorKind::External, format!("table '{declared}': {message}"));
        for field in schema.fields() {
            let name = field.name();
            let Some(real) = self.column(name) else {
                let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
                return Err(wrong(format!(
                    "the column '{name}' is not in PostgreSQL's table {}, which has: {}",
                    self.name,
                    names.join(", ")
                )));
            };
            if let Err(why) = real.fits(field.data_type(), direction) {
                return Err(wrong(format!(
                    "the column '{name}' is declared as {} and is {} in PostgreSQL's table {}: {why}",
                    full_type_name(field.data_type()),
                    real.type_name,
                    self.name
                )));
            }
            if direction == Direction::Write && real.generated {
                return Err(wrong(format!(
                    "the column '{name}' of PostgreSQL's table {} is generated there; leave it out",
                    self.name
                )));
            }
        }
        if direction == Direction::Write {
            let left_out = self.columns.iter().find(|real| {
                real.not_null && !real.has_default && !real.generated && schema.index_of(&real.name).is_err()
            });
            if let Some(real) = left_out {
                return Err(wrong(format!(
                    "the column '{}' ({}) of PostgreSQL's table {} is NOT NULL without a default and is not declared; \
                     declare it, or give it a default",
                    real.name, real.type_name, self.name
                )));
            }
            self.check_key(key).map_err(wrong)?;
        }
        Ok(())
    }

    fn check_key(&self, key: &[String]) -> Result<(), String> {
        let mut sorted = key.to_vec();
        sorted.sort_unstable();
        if key.is_empty() || self.unique.contains(&sorted) {
            return Ok(());
        }
        Err(format!(
            "rows are replaced by the PRIMARY KEY ({}), for which PostgreSQL's table {} needs a primary key or a unique \
             index on exactly these columns",
            key.join(", "),
            self.name
        ))
    }
}

fn full_type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::List(element) => format!("ARRAY<{}>", full_type_name(element.data_type())),
        other => type_name(other),
    }
}
