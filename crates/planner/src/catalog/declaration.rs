//! Tables and views as they are shown to users: what `DESCRIBE` tells, and what names can be completed.

use arrow::datatypes::Field;
use datafusion_common::DFSchema;
use datafusion_expr::Expr as LogicalExpr;
use mainstem_plan::expr::Expr;
use mainstem_plan::sql_type_name;
use serde::{Deserialize, Serialize};

use super::{ColumnSource, Relation, Table};
use crate::lower::arrow_schema;

/// A table or a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// Its name.
    pub name: String,
    /// Which of the two.
    pub kind: DeclarationKind,
    /// How a table is read and written.
    pub connector: Option<String>,
    /// In their order.
    pub columns: Vec<DeclaredColumn>,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeclarationKind {
    /// A table.
    Table,
    /// A view.
    View,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredColumn {
    /// Its name.
    pub name: String,
    /// Its type as SQL has it.
    pub data_type: String,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether it is part of the primary key.
    pub is_key: bool,
    /// What else is known of it: computed, metadata, event time with its watermark.
    pub extras: String,
}

impl Declaration {
    /// Of a name in the catalog.
    pub(super) fn of(name: &str, relation: &Relation) -> Declaration {
        match relation {
            Relation::Table(table) => Declaration {
                name: name.to_owned(),
                kind: DeclarationKind::Table,
                connector: table.spec.options.get("connector").cloned(),
                columns: (0..table.schema.fields().len()).map(|position| column_of(table, position)).collect(),
            },
            Relation::View(plan) => Declaration {
                name: name.to_owned(),
                kind: DeclarationKind::View,
                connector: None,
                columns: arrow_schema(plan.schema()).fields().iter().map(|field| column(field, false, "")).collect(),
            },
        }
    }
}

fn column_of(table: &Table, position: usize) -> DeclaredColumn {
    let field = table.schema.field(position);
    let mut extras = Vec::new();
    match &table.sources[position] {
        ColumnSource::Computed(expr) => extras.push(format!("computed: {}", shown(expr, table))),
        ColumnSource::Physical(physical) => {
            extras.extend(table.spec.metadata_of(*physical).map(|key| format!("metadata '{key}'")));
        }
    }
    if let Some(watermark) = table.watermark.as_ref().filter(|watermark| watermark.column == position) {
        extras.push(format!("event time, watermark {}", shown(&watermark.expr, table)));
    }
    column(field, table.spec.primary_key.contains(field.name()), &extras.join("; "))
}

/// An expression over the physical columns, as `EXPLAIN` shows it.
fn shown(expr: &LogicalExpr, table: &Table) -> String {
    let physical = &table.spec.schema;
    let stored = DFSchema::try_from(physical.as_ref().clone()).map(|schema| Expr::from_logical(expr, &schema));
    match stored {
        Ok(Ok(stored)) => stored.display(physical).to_string(),
        _ => expr.to_string(),
    }
}

fn column(field: &Field, is_key: bool, extras: &str) -> DeclaredColumn {
    DeclaredColumn {
        name: field.name().clone(),
        data_type: sql_type_name(field.data_type()),
        nullable: field.is_nullable(),
        is_key,
        extras: extras.to_owned(),
    }
}
