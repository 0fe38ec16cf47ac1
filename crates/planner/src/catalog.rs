//! The tables and views of a file. Filled by [`crate::plan`] statement by statement, asked by `query.rs` and
//! the lowering. Opens nothing outside.

mod declaration;
mod table;

use std::sync::Arc;

use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::ast::Ident;

pub use self::declaration::{Declaration, DeclarationKind, DeclaredColumn};
pub(crate) use self::table::{ColumnSource, Table};
use crate::error::{ErrorCode, SqlError};
use crate::resolve::unique_without_case;
use crate::suggest::advice;

/// What a name in FROM stands for.
#[derive(Clone, Debug)]
pub(crate) enum Relation {
    Table(Arc<Table>),
    View(Arc<LogicalPlan>),
}

/// Tables and views by name, in the order of their declaration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    entries: Vec<(String, Relation)>,
}

impl Catalog {
    /// Whether something of exactly that name is declared.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.entries.iter().any(|(known, _)| known == name)
    }

    /// Adds a relation under a new name.
    pub(crate) fn add(&mut self, name: &Ident, relation: Relation) -> Result<(), SqlError> {
        if self.contains(&name.value) {
            let message = format!("'{}' is declared twice; give one of the two another name", name.value);
            return Err(SqlError::new(ErrorCode::Name, name.span, message));
        }
        self.entries.push((name.value.clone(), relation));
        Ok(())
    }

    /// What the name stands for and its name as declared; a difference of case only is forgiven where it is
    /// clear.
    pub(crate) fn find(&self, name: &Ident) -> Result<(&str, &Relation), SqlError> {
        let names = || self.entries.iter().map(|(known, _)| known.as_str());
        let exact = self.contains(&name.value).then(|| name.value.clone());
        let found = match exact {
            Some(exact) => Some(exact),
            None => unique_without_case(&name.value, names(), name.span)?,
        };
        let Some(found) = found else {
            let names: Vec<&str> = names().collect();
            let message = format!("unknown table '{}'{}", name.value, advice(&name.value, "declared are", &names));
            return Err(SqlError::new(ErrorCode::Name, name.span, message));
        };
        let (name, relation) = self.entries.iter().find(|(known, _)| *known == found).expect("found among the entries");
        Ok((name, relation))
    }

    /// All tables, in the order of their declaration.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &Table> {
        self.entries.iter().filter_map(|(_, relation)| match relation {
            Relation::Table(table) => Some(table.as_ref()),
            Relation::View(_) => None,
        })
    }

    /// All tables and views as they are shown to users, in the order of their declaration.
    pub(crate) fn declarations(&self) -> Vec<Declaration> {
        self.entries.iter().map(|(name, relation)| Declaration::of(name, relation)).collect()
    }

    /// The line in which a table is declared; 0: nowhere.
    pub(crate) fn line_of(&self, table: &str) -> u64 {
        self.tables().find(|known| known.spec.name == table).map_or(0, |table| table.at.0.line)
    }

    /// The table of that name; views cannot be written.
    pub(crate) fn find_sink(&self, name: &Ident) -> Result<&Arc<Table>, SqlError> {
        match self.find(name)? {
            (known, Relation::Table(table)) => match table.checks.first() {
                None => Ok(table),
                Some(check) => {
                    let message = format!(
                        "'{known}' has the constraint '{}', which is checked where a table is read; declare the table that is written without it",
                        check.name
                    );
                    Err(SqlError::unsupported(name.span, message))
                }
            },
            (known, Relation::View(_)) => Err(SqlError::new(
                ErrorCode::Name,
                name.span,
                format!("'{known}' is a view; INSERT INTO needs a table"),
            )),
        }
    }
}
