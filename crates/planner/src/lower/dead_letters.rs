//! Where the wrong records of sources go: port 1 of each source whose table has `'bad-records' = 'dead-letter'`, written to
//! the table that `'bad-records.table'` names. Called after everything else is in the graph.

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::ast::Ident;
use mainstem_connectors::{BAD_RECORDS, BAD_RECORDS_TABLE, BadRecordPolicy, bad_record_options};
use mainstem_core::graph::Exchange;
use mainstem_core::ids::OperatorId;
use mainstem_plan::operator::{DeadLetterColumn, Operator, OperatorKind};
use mainstem_plan::sql_type_name;

use super::Lowering;
use crate::catalog::{Catalog, Relation, Table};
use crate::error::{At, ErrorCode, SqlError};

/// The sources whose wrong records go to one table.
pub(crate) struct DeadLetters<'a> {
    /// The table.
    pub(crate) table: &'a Table,
    /// The operator whose output has the table's columns.
    pub(crate) last: OperatorId,
    /// Where the first of the sources names the table.
    pub(crate) at: At,
}

impl Lowering {
    /// Sends rejected records on; gives what leads to each of the tables that take them, in the order of the sources.
    pub(crate) fn dead_letters<'a>(&mut self, catalog: &'a Catalog) -> Result<Vec<DeadLetters<'a>>, SqlError> {
        let mut by_table = BTreeMap::<&str, usize>::new();
        let mut found = Vec::<(&'a Table, At, Vec<OperatorId>)>::new();
        for (source, name) in self.dead_letter_sources()? {
            let (known, at, taker) = taker(catalog, &name)?;
            let position = *by_table.entry(known).or_insert(found.len());
            match found.get_mut(position) {
                Some((_, _, sources)) => sources.push(source),
                None => found.push((taker, at, vec![source])),
            }
        }
        found.into_iter().map(|(table, at, sources)| self.collect_letters(table, at, &sources)).collect()
    }

    /// Source operators with dead letters, and their tables' names.
    fn dead_letter_sources(&self) -> Result<Vec<(OperatorId, String)>, SqlError> {
        let mut sources = Vec::new();
        for node in &self.graph.nodes {
            if let OperatorKind::Source(source) = &node.op.kind {
                let options = bad_record_options(&source.table);
                let options = options.map_err(|error| SqlError::new(ErrorCode::Option, self.at, error.message))?;
                if options.policy == BadRecordPolicy::DeadLetter {
                    sources.push((node.id, source.table.name.clone()));
                }
            }
        }
        Ok(sources)
    }

    fn collect_letters<'a>(
        &mut self,
        table: &'a Table,
        at: At,
        sources: &[OperatorId],
    ) -> Result<DeadLetters<'a>, SqlError> {
        let schema = table.written.schema.clone();
        let union = Operator::new(schema.clone(), OperatorKind::Union);
        let last = self.add_always("bad records", union, &[])?;
        for source in sources {
            if let OperatorKind::Source(reads) = &mut self.graph.nodes[source.0 as usize].op.kind {
                reads.dead_letters = Some(schema.clone());
            }
            self.graph.connect(*source, 1, last, Exchange::Forward);
        }
        Ok(DeadLetters { table, last, at })
    }
}

/// The table that takes the wrong records of another: its name as declared, where it is named, and itself.
fn taker<'a>(catalog: &'a Catalog, source: &str) -> Result<(&'a str, At, &'a Table), SqlError> {
    let Relation::Table(table) = catalog.find(&Ident::new(source))?.1 else {
        return Err(SqlError::new(ErrorCode::Internal, At::NOWHERE, format!("'{source}' is read and no table")));
    };
    let at = table.option_at(BAD_RECORDS_TABLE);
    let name = table.spec.options.get(BAD_RECORDS_TABLE).map_or("", String::as_str);
    let ident = Ident::new(name);
    let taker = catalog.find_sink(&ident).map_err(|error| {
        let message = format!("'{BAD_RECORDS_TABLE}' of table '{source}' names '{name}': {}", error.message);
        SqlError::new(error.code, at, message)
    })?;
    if taker.spec.name == table.spec.name {
        let message = format!("'{BAD_RECORDS_TABLE}' of table '{source}' names the table itself; name another one");
        return Err(SqlError::new(ErrorCode::Option, at, message));
    }
    check_columns(taker)?;
    Ok((&taker.spec.name, at, taker.as_ref()))
}

fn check_columns(taker: &Table) -> Result<(), SqlError> {
    let wrong = |message: String| Err(SqlError::new(ErrorCode::Type, taker.at, message));
    let name = &taker.spec.name;
    for field in taker.written.schema.fields() {
        let column = field.name();
        let Some(known) = DeadLetterColumn::of_name(column) else {
            let names: Vec<&str> = DeadLetterColumn::ALL.into_iter().map(DeadLetterColumn::name).collect();
            return wrong(format!(
                "table '{name}' takes wrong records and has the column '{column}'; its columns can only be {}",
                names.join(", ")
            ));
        };
        if !known.fits(field.data_type()) {
            return wrong(format!(
                "column '{column}' of table '{name}' takes wrong records and must be {}, not {}",
                known.types(),
                sql_type_name(field.data_type())
            ));
        }
        if known.may_be_null() && !field.is_nullable() {
            return wrong(format!(
                "column '{column}' of table '{name}' takes wrong records, of which some have none: declare it without NOT NULL"
            ));
        }
    }
    Ok(())
}

/// Refuses what a table that is looked up cannot do: nobody takes its wrong records there, and nobody looks at contracts.
pub(super) fn check_lookup(table: &Table, at: At) -> Result<(), SqlError> {
    let name = &table.spec.name;
    if let Some(check) = table.checks.first() {
        let message = format!(
            "table '{name}' is looked up, where the constraint '{}' is not checked; declare the table without it",
            check.name
        );
        return Err(SqlError::unsupported(at, message));
    }
    let options = bad_record_options(&table.spec)
        .map_err(|error| SqlError::new(ErrorCode::Option, table.blamed(&error.message), error.message.clone()))?;
    if options.policy == BadRecordPolicy::DeadLetter || options.max_fraction.is_some() {
        let message = format!(
            "table '{name}' is looked up, where wrong records can only stop the job or be dropped: set '{BAD_RECORDS}' = 'drop' or 'fail', \
             without a fraction"
        );
        return Err(SqlError::unsupported(at, message));
    }
    Ok(())
}
