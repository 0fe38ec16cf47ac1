//! Which parts of a query may be there at all. Called before anything is planned. Takes every AST node apart
//! field by field, so that a part that the parser learns later cannot be ignored silently.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Distinct, Expr, GroupByExpr, Query, Select, SelectItem, Spanned, TableFactor, TableVersion, TableWithJoins, Visit,
    Visitor, WildcardAdditionalOptions,
};
use mainstem_plan::functions::registry;

use crate::error::{At, SqlError};

/// Refuses the clauses around a query's body that are not supported.
pub(super) fn check_query(query: &Query) -> Result<(), SqlError> {
    let Query {
        with,
        body,
        order_by: _,
        limit_clause: _,
        fetch: _,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    let at = At::from(body.span());
    if !locks.is_empty()
        || for_clause.is_some()
        || settings.is_some()
        || format_clause.is_some()
        || !pipe_operators.is_empty()
    {
        return Err(SqlError::unsupported(at, "FOR, SETTINGS, FORMAT and |> are not supported in a query"));
    }
    let Some(with) = with else { return Ok(()) };
    if with.recursive {
        return Err(SqlError::unsupported(with.with_token.0.span, "WITH RECURSIVE is not supported"));
    }
    match with.cte_tables.iter().find(|cte| cte.from.is_some() || cte.materialized.is_some()) {
        Some(cte) => Err(SqlError::unsupported(cte.alias.name.span, "FROM and MATERIALIZED are not supported in WITH")),
        None => Ok(()),
    }
}

/// Refuses the clauses of a SELECT that are not supported.
pub(super) fn check_select(select: &Select) -> Result<(), SqlError> {
    let Select {
        select_token,
        // Read by `hint.rs`.
        optimizer_hints: _,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into,
        from,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by,
        distribute_by,
        sort_by,
        having,
        named_window: _,
        qualify: _,
        window_before_qualify: _,
        value_table_mode,
        flavor: _,
    } = select;
    let at = At::from(select_token.0.span);
    let refuse = |at: At, what: &str| Err(SqlError::unsupported(at, what));
    if matches!(distinct, Some(Distinct::On(_))) {
        return refuse(at, "SELECT DISTINCT ON is not supported; ROW_NUMBER() with a bound says which row is meant");
    }
    if top.is_some() || exclude.is_some() || into.is_some() || value_table_mode.is_some() || select_modifiers.is_some()
    {
        return refuse(at, "TOP, EXCLUDE, INTO, AS STRUCT and other modifiers of SELECT are not supported");
    }
    if !lateral_views.is_empty() || prewhere.is_some() || !connect_by.is_empty() {
        return refuse(at, "LATERAL VIEW, PREWHERE and CONNECT BY are not supported");
    }
    if !cluster_by.is_empty() || !distribute_by.is_empty() || !sort_by.is_empty() {
        return refuse(at, "CLUSTER BY, DISTRIBUTE BY and SORT BY are not supported");
    }
    match group_by {
        GroupByExpr::All(_) => return refuse(at, "GROUP BY ALL is not supported; name the columns"),
        GroupByExpr::Expressions(_, modifiers) if !modifiers.is_empty() => {
            return refuse(
                at,
                "WITH ROLLUP, WITH CUBE and WITH TOTALS are not supported; write ROLLUP (...) or CUBE (...)",
            );
        }
        GroupByExpr::Expressions(exprs, _) if exprs.is_empty() => {
            if let Some(having) = having.as_ref().filter(|having| !has_aggregate(projection, having)) {
                let message = "HAVING needs a GROUP BY or aggregates; use WHERE for conditions on single rows";
                return refuse(having.span().into(), message);
            }
        }
        GroupByExpr::Expressions(..) => {}
    }
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    if from.is_empty() && projection.iter().any(is_wildcard) {
        return refuse(at, "SELECT * needs a FROM");
    }
    check_items(projection, at)?;
    check_from(from, at)
}

/// Whether a SELECT without GROUP BY aggregates all rows.
fn has_aggregate(items: &[SelectItem], having: &Expr) -> bool {
    struct Finder;
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(function) if registry().aggregate(&function.name.to_string()).is_some() => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    having.visit(&mut Finder).is_break() || items.iter().any(|item| item.visit(&mut Finder).is_break())
}

fn check_from(from: &[TableWithJoins], at: At) -> Result<(), SqlError> {
    for tables in from {
        check_factor(&tables.relation, at)?;
        for join in &tables.joins {
            check_factor(&join.relation, at)?;
        }
    }
    Ok(())
}

fn check_items(items: &[SelectItem], at: At) -> Result<(), SqlError> {
    if items.is_empty() {
        return Err(SqlError::unsupported(at, "a SELECT needs columns"));
    }
    for item in items {
        let options = match item {
            SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => options,
            SelectItem::ExprWithAliases { expr, .. } => {
                return Err(SqlError::unsupported(expr.span(), "several aliases for one expression are not supported"));
            }
            SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. } => continue,
        };
        let WildcardAdditionalOptions {
            wildcard_token,
            opt_ilike,
            opt_exclude,
            opt_except,
            opt_replace,
            opt_rename,
            opt_alias,
        } = options;
        let modified = opt_ilike.is_some() || opt_exclude.is_some() || opt_except.is_some() || opt_replace.is_some();
        if modified || opt_rename.is_some() || opt_alias.is_some() {
            let message =
                "modifiers of * (EXCLUDE, EXCEPT, REPLACE, RENAME, ILIKE) are not supported; name the columns";
            return Err(SqlError::unsupported(At::from(wildcard_token.0.span).or(at), message));
        }
    }
    Ok(())
}

fn check_factor(factor: &TableFactor, fallback: At) -> Result<(), SqlError> {
    let at = At::from(factor.span()).or(fallback);
    let refuse = |what: &str| Err(SqlError::unsupported(at, what));
    match factor {
        TableFactor::Table {
            name: _,
            alias: _,
            args: _,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            if !matches!(version, None | Some(TableVersion::ForSystemTimeAsOf(_))) {
                return refuse("of the versions of a table, only FOR SYSTEM_TIME AS OF is supported");
            }
            if sample.is_some() {
                return refuse("TABLESAMPLE is not supported");
            }
            if !with_hints.is_empty()
                || !index_hints.is_empty()
                || *with_ordinality
                || !partitions.is_empty()
                || json_path.is_some()
            {
                return refuse("hints, partitions and WITH ORDINALITY are not supported after a table's name");
            }
            Ok(())
        }
        TableFactor::Derived { lateral, subquery: _, alias: _, sample } => {
            if *lateral {
                return refuse("LATERAL before a sub-query is not supported; before TABLE(UNNEST(...)) it is");
            }
            if sample.is_some() { refuse("TABLESAMPLE is not supported") } else { Ok(()) }
        }
        TableFactor::TableFunction { .. } => Ok(()),
        TableFactor::UNNEST { .. } => Ok(()),
        TableFactor::Function { .. } if super::unnest::call(factor)?.is_some() => Ok(()),
        TableFactor::Function { .. } => refuse("this table function is not supported; TABLE(UNNEST(...)) is"),
        TableFactor::NestedJoin { table_with_joins, alias: _ } => {
            check_from(std::slice::from_ref(table_with_joins), at)
        }
        TableFactor::MatchRecognize { table, .. } => check_factor(table, at),
        TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => refuse("PIVOT and UNPIVOT are not supported"),
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } | TableFactor::XmlTable { .. } => {
            refuse("JSON_TABLE and XMLTABLE are not supported")
        }
        TableFactor::SemanticView { .. } => refuse("SEMANTIC_VIEW is not supported"),
    }
}
