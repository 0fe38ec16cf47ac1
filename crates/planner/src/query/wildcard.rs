//! `*` and `table.*` over several relations, column by column: a column that USING has made of two stands first
//! and only once, and columns of equal names can be told apart. Called for each SELECT.

use datafusion_common::Column;
use datafusion_sql::sqlparser::ast::{Select, SelectItem, SelectItemQualifiedWildcardKind, Spanned};

use super::from::From;
use super::select::resolve_qualifier;
use crate::error::SqlError;
use crate::resolve::full_name;

/// Puts columns in the place of wildcards. Over a single relation DataFusion does that.
pub(super) fn expand(select: &mut Select, from: &From) -> Result<(), SqlError> {
    if !from.several {
        return Ok(());
    }
    let mut items = Vec::new();
    for item in std::mem::take(&mut select.projection) {
        let span = item.span();
        let columns = match item {
            SelectItem::Wildcard(_) => from.visible(),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(mut name), _) => {
                resolve_qualifier(&mut name, &from.plan)?;
                let table = name.0.first().and_then(|part| part.as_ident()).map(|ident| ident.value.clone());
                let is_of_table =
                    |column: &Column| column.relation.as_ref().map(|relation| relation.table()) == table.as_deref();
                from.plan.schema().columns().into_iter().filter(is_of_table).collect()
            }
            other => {
                items.push(other);
                continue;
            }
        };
        items.extend(columns.iter().map(|column| SelectItem::UnnamedExpr(full_name(column, span))));
    }
    select.projection = items;
    Ok(())
}
