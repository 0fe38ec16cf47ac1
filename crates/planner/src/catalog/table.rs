//! A declared table: its columns with computed ones resolved to expressions over the physical ones, and its
//! watermark. Made from `CREATE TABLE`, read by the SQL planner (as a table source) and by the lowering.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema};
use datafusion_expr::utils::find_aggregate_exprs;
use datafusion_expr::{Expr, ExprSchemable, TableSource};
use datafusion_optimizer::simplify_expressions::{ExprSimplifier, SimplifyContext};
use datafusion_sql::sqlparser::ast::{self, Ident, Spanned};
use mainstem_connectors::{Delivery, METADATA_KEY, TableSpec};
use mainstem_plan::operator::WatermarkAlignment;
use mainstem_plan::sql_type_name;

use crate::common_types;
use crate::context;
use crate::error::{At, ErrorCode, SqlError};
use crate::resolve::{Around, Resolver};
use crate::settings::{IDLE_TIMEOUT_FORM, MAX_DRIFT_FORM, duration_ms, idle_timeout_ms};
use crate::statement::{CheckDefinition, ColumnDefinition, ColumnKind, CreateTable, TableOption};
use crate::suggest::advice;
use crate::window::marker;

/// Most columns of a table.
const COLUMNS_MAX: usize = 2_000;

/// Where a column's values come from.
#[derive(Clone, Debug)]
pub(crate) enum ColumnSource {
    /// A physical column, by position in the table's specification.
    Physical(usize),
    /// An expression over the physical columns.
    Computed(Box<Expr>),
}

/// `WATERMARK FOR`.
#[derive(Clone, Debug)]
pub(crate) struct Watermark {
    /// Position of the event-time column.
    pub(crate) column: usize,
    /// The watermark, over the physical columns.
    pub(crate) expr: Expr,
}

/// `CHECK`.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    /// The condition as it is written.
    pub(crate) text: String,
    /// The condition, over the physical columns.
    pub(crate) expr: Expr,
}

/// A declared table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) at: At,
    pub(crate) spec: TableSpec,
    /// The table as it is written: without METADATA that is VIRTUAL.
    pub(crate) written: TableSpec,
    /// All columns, computed ones included, in the order of declaration.
    pub(crate) schema: SchemaRef,
    pub(crate) sources: Vec<ColumnSource>,
    pub(crate) watermark: Option<Watermark>,
    /// What must not be false of a row that is read.
    pub(crate) checks: Vec<Check>,
    /// The table's own idle time-out, in milliseconds.
    pub(crate) idle_timeout_ms: Option<u64>,
    /// How far its splits may be ahead of others.
    pub(crate) alignment: Option<WatermarkAlignment>,
    /// What `'delivery'` asks for, and where.
    pub(crate) delivery: Option<(Delivery, At)>,
    options: Vec<TableOption>,
}

impl TableSource for Table {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

impl Table {
    /// Resolves a declaration.
    pub(crate) fn new(mut create: CreateTable) -> Result<Table, SqlError> {
        check_columns(&create)?;
        for column in &mut create.columns {
            if let ColumnKind::Physical { nullable, .. } = &mut column.kind
                && create.primary_key.iter().any(|key| key.value == column.name.value)
            {
                *nullable = false;
            }
        }
        let physical = physical_schema(&create.columns);
        let mut builder = Builder { physical: physical.clone(), fields: Vec::new(), sources: Vec::new() };
        // Physical columns come first, so that a computed column may stand before those that it reads.
        for column in &create.columns {
            builder.add_physical(column);
        }
        let mut computed = Vec::new();
        for column in &create.columns {
            if let ColumnKind::Computed(expr) = &column.kind {
                computed.push(builder.computed(&column.name, expr.as_ref().clone())?);
            }
        }
        let (fields, sources) = in_declared_order(&create.columns, &builder, computed);
        let schema = Arc::new(Schema::new(fields));
        let watermark = match &create.watermark {
            Some(definition) => {
                let name = find_column(&schema, &definition.column)?;
                let column = schema.index_of(&name).expect("found in the schema");
                check_event_time(&schema.field(column).clone(), definition.at)?;
                Some(Watermark { column, expr: builder.watermark(definition.expr.clone())? })
            }
            None => None,
        };
        let checks = builder.checks(&create.name.value, &create.checks)?;
        let primary_key = column_list(&schema, &create.primary_key)?;
        let partition_keys = column_list(&schema, &create.partition_keys)?;
        let options = create.options.iter().map(|option| (option.key.clone(), option.value.clone())).collect();
        let delivered = connector_schema(&create.columns, |_| true);
        let spec = TableSpec { name: create.name.value, schema: delivered, primary_key, partition_keys, options };
        let is_written = |column: &ColumnDefinition| column.metadata.as_ref().is_none_or(|m| !m.is_virtual);
        let written = TableSpec { schema: connector_schema(&create.columns, is_written), ..spec.clone() };
        let mut table = Table {
            at: create.name.span.into(),
            spec,
            written,
            schema,
            sources,
            watermark,
            checks,
            idle_timeout_ms: None,
            alignment: None,
            delivery: None,
            options: create.options,
        };
        table.read_options()?;
        Ok(table)
    }

    /// Computed columns, in the order of declaration.
    pub(crate) fn computed(&self) -> impl Iterator<Item = (&String, &Expr)> {
        self.schema.fields().iter().zip(&self.sources).filter_map(|(field, source)| match source {
            ColumnSource::Computed(expr) => Some((field.name(), expr.as_ref())),
            ColumnSource::Physical(_) => None,
        })
    }

    /// Position of the option, or of the table where it has no such option.
    pub(crate) fn option_at(&self, key: &str) -> At {
        self.options.iter().find(|option| option.key == key).map_or(self.at, |option| option.at)
    }

    /// The place that a connector's message about options speaks of.
    pub(crate) fn blamed(&self, message: &str) -> At {
        // A value may also be quoted in a message; the option's name comes first.
        let quoted =
            self.options.iter().filter_map(|option| Some((message.find(&format!("'{}'", option.key))?, option.at)));
        let first = quoted.min_by_key(|(position, _)| *position).map(|(_, at)| at);
        first.unwrap_or_else(|| if message.contains("the connector '") { self.option_at("connector") } else { self.at })
    }

    fn read_options(&mut self) -> Result<(), SqlError> {
        let wrong = |option: &TableOption, expected: &str| {
            let message = format!(
                "option '{}' of table '{}' has the value '{}': expected {expected}",
                option.key, self.spec.name, option.value
            );
            SqlError::new(ErrorCode::Option, option.at, message)
        };
        for option in &self.options {
            match option.key.as_str() {
                "scan.watermark.idle-timeout" => {
                    self.idle_timeout_ms =
                        Some(idle_timeout_ms(&option.value).ok_or_else(|| wrong(option, IDLE_TIMEOUT_FORM))?);
                }
                "scan.watermark.alignment.max-drift" => {
                    let max_drift_ms = duration_ms(&option.value).ok_or_else(|| wrong(option, MAX_DRIFT_FORM))?;
                    let group = self.spec.options.get("scan.watermark.alignment.group").cloned();
                    if self.watermark.is_none() {
                        let message = format!("option '{}' needs a table with a WATERMARK", option.key);
                        return Err(SqlError::new(ErrorCode::Option, option.at, message));
                    }
                    self.alignment = Some(WatermarkAlignment { group, max_drift_ms });
                }
                "scan.watermark.alignment.group"
                    if !self.spec.options.contains_key("scan.watermark.alignment.max-drift") =>
                {
                    let message =
                        format!("option '{}' needs 'scan.watermark.alignment.max-drift' beside it", option.key);
                    return Err(SqlError::new(ErrorCode::Option, option.at, message));
                }
                "delivery" => {
                    let levels = [Delivery::ExactlyOnce, Delivery::AtLeastOnce, Delivery::BestEffort];
                    let level = levels.into_iter().find(|level| level.to_string() == option.value);
                    let level = level.ok_or_else(|| wrong(option, "exactly-once, at-least-once or best-effort"))?;
                    self.delivery = Some((level, option.at));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn check_columns(create: &CreateTable) -> Result<(), SqlError> {
    if create.columns.is_empty() {
        let message = format!("table '{}' has no columns", create.name.value);
        return Err(SqlError::new(ErrorCode::Name, create.name.span, message));
    }
    if create.columns.len() > COLUMNS_MAX {
        let message = format!(
            "table '{}' has {} columns, at most {COLUMNS_MAX} are accepted",
            create.name.value,
            create.columns.len()
        );
        return Err(SqlError::new(ErrorCode::Limit, create.name.span, message));
    }
    for (index, column) in create.columns.iter().enumerate() {
        if create.columns[..index].iter().any(|other| other.name.value == column.name.value) {
            let message = format!("the column '{}' appears twice in table '{}'", column.name.value, create.name.value);
            return Err(SqlError::new(ErrorCode::Name, column.name.span, message));
        }
    }
    Ok(())
}

fn physical_field(column: &ColumnDefinition) -> Option<FieldRef> {
    match &column.kind {
        ColumnKind::Physical { data_type, nullable } => {
            Some(Arc::new(Field::new(&column.name.value, data_type.clone(), *nullable)))
        }
        ColumnKind::Computed(_) => None,
    }
}

fn physical_schema(columns: &[ColumnDefinition]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().filter_map(physical_field).collect::<Vec<_>>()))
}

/// The columns that the connector delivers or takes, with which metadata of a record each is, if it is.
fn connector_schema(columns: &[ColumnDefinition], wanted: impl Fn(&ColumnDefinition) -> bool) -> SchemaRef {
    let field = |column: &ColumnDefinition| {
        let field = physical_field(column)?.as_ref().clone();
        Some(match &column.metadata {
            Some(metadata) => field.with_metadata([(METADATA_KEY.to_owned(), metadata.key.clone())].into()),
            None => field,
        })
    };
    Arc::new(Schema::new(columns.iter().filter(|column| wanted(column)).filter_map(field).collect::<Vec<_>>()))
}

fn in_declared_order(
    columns: &[ColumnDefinition],
    builder: &Builder,
    computed: Vec<(FieldRef, Expr)>,
) -> (Vec<FieldRef>, Vec<ColumnSource>) {
    let mut computed = computed.into_iter();
    let mut next_physical = 0;
    columns
        .iter()
        .map(|column| match &column.kind {
            ColumnKind::Physical { .. } => {
                let position = next_physical;
                next_physical += 1;
                (builder.fields[position].clone(), ColumnSource::Physical(position))
            }
            ColumnKind::Computed(_) => {
                let (field, expr) = computed.next().expect("one for each computed column");
                (field, ColumnSource::Computed(Box::new(expr)))
            }
        })
        .unzip()
}

fn find_column(schema: &Schema, name: &Ident) -> Result<String, SqlError> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if names.contains(&name.value.as_str()) {
        return Ok(name.value.clone());
    }
    if let Some(found) = crate::resolve::unique_without_case(&name.value, names.iter().copied(), name.span)? {
        return Ok(found);
    }
    let message = format!("unknown column '{}'{}", name.value, advice(&name.value, "the table has", &names));
    Err(SqlError::new(ErrorCode::Name, name.span, message))
}

fn column_list(schema: &Schema, names: &[Ident]) -> Result<Vec<String>, SqlError> {
    names.iter().map(|name| find_column(schema, name)).collect()
}

fn check_event_time(field: &Field, at: At) -> Result<(), SqlError> {
    if matches!(field.data_type(), DataType::Timestamp(..)) {
        return Ok(());
    }
    let message = format!(
        "WATERMARK FOR needs a TIMESTAMP or TIMESTAMP_LTZ column, '{}' is of type {}; declare a computed column such as ts AS TO_TIMESTAMP({})",
        field.name(),
        sql_type_name(field.data_type()),
        field.name()
    );
    Err(SqlError::new(ErrorCode::Window, at, message))
}

/// Resolves expressions over physical columns and the computed ones before.
struct Builder {
    physical: SchemaRef,
    /// Physical columns first, then computed ones.
    fields: Vec<FieldRef>,
    /// The same columns as expressions over the physical ones.
    sources: Vec<Expr>,
}

impl Builder {
    fn add_physical(&mut self, column: &ColumnDefinition) {
        if let Some(field) = physical_field(column) {
            self.sources.push(Expr::Column(Column::new_unqualified(field.name())));
            self.fields.push(field);
        }
    }

    fn computed(&mut self, name: &Ident, expr: ast::Expr) -> Result<(FieldRef, Expr), SqlError> {
        let at = At::from(expr.span()).or(name.span.into());
        let expr = self.resolve(expr, at, "a computed column")?;
        let schema = self.physical_df_schema();
        let planned = |error: &datafusion_common::DataFusionError| SqlError::from_datafusion(error, at);
        let data_type = expr.get_type(&schema).map_err(|error| planned(&error))?;
        let nullable = expr.nullable(&schema).map_err(|error| planned(&error))?;
        let field = Arc::new(Field::new(&name.value, data_type, nullable));
        self.fields.push(field.clone());
        self.sources.push(expr.clone());
        Ok((field, expr))
    }

    fn watermark(&self, expr: ast::Expr) -> Result<Expr, SqlError> {
        let at = At::from(expr.span());
        let expr = self.resolve(expr, at, "the watermark")?;
        let data_type =
            expr.get_type(&self.physical_df_schema()).map_err(|error| SqlError::from_datafusion(&error, at))?;
        if !matches!(data_type, DataType::Timestamp(..)) {
            let message = format!(
                "a watermark is a timestamp such as ts - INTERVAL '5' SECOND, this one is of type {}",
                sql_type_name(&data_type)
            );
            return Err(SqlError::new(ErrorCode::Window, at, message));
        }
        Ok(expr)
    }

    fn checks(&self, table: &str, definitions: &[CheckDefinition]) -> Result<Vec<Check>, SqlError> {
        let mut checks = Vec::<Check>::new();
        for (number, CheckDefinition { at, name, expr }) in (1..).zip(definitions) {
            let text = expr.to_string();
            let name = name.as_ref().map_or_else(|| format!("{table}_check_{number}"), |name| name.value.clone());
            if checks.iter().any(|known| known.name == name) {
                return Err(SqlError::new(ErrorCode::Name, *at, format!("the constraint '{name}' is given twice")));
            }
            let expr = self.resolve(expr.clone(), *at, "a CHECK")?;
            let data_type =
                expr.get_type(&self.physical_df_schema()).map_err(|error| SqlError::from_datafusion(&error, *at))?;
            if data_type != DataType::Boolean {
                let message = format!(
                    "a CHECK is a condition such as (amount > 0), this one is of type {}",
                    sql_type_name(&data_type)
                );
                return Err(SqlError::new(ErrorCode::Type, *at, message));
            }
            checks.push(Check { name, text, expr });
        }
        Ok(checks)
    }

    fn physical_df_schema(&self) -> DFSchema {
        DFSchema::try_from(self.physical.clone()).expect("column names are unique, that was checked")
    }

    /// The expression over the physical columns alone, with its types made to fit.
    fn resolve(&self, mut expr: ast::Expr, at: At, clause: &'static str) -> Result<Expr, SqlError> {
        let schema =
            DFSchema::try_from(Schema::new(self.fields.clone())).expect("column names are unique, that was checked");
        Resolver { schema: &schema, aliases: &[], clause, around: Around::default() }.expr(&mut expr)?;
        let planned = |error: datafusion_common::DataFusionError| SqlError::from_datafusion(&error, at);
        let expr = context::plan_expr(expr, &schema).map_err(planned)?;
        if !find_aggregate_exprs([&expr]).is_empty() || marker::find(&expr).is_some() {
            return Err(SqlError::unsupported(
                at,
                format!("{clause} is computed from one row; aggregates and windows are not allowed in it"),
            ));
        }
        let expr = expr.transform_up(|expr| self.physical_expr(expr)).map_err(planned)?.data;
        let physical = Arc::new(self.physical_df_schema());
        let context = SimplifyContext::builder().with_schema(physical.clone()).build();
        let simplifier = ExprSimplifier::new(context);
        let expr = common_types::expression(expr, &physical).and_then(|expr| simplifier.coerce(expr, &physical));
        let expr = expr.map_err(planned)?;
        simplifier.simplify(expr).map_err(planned)
    }

    fn physical_expr(&self, expr: Expr) -> datafusion_common::Result<Transformed<Expr>> {
        match &expr {
            Expr::Column(column) => {
                let index = self.fields.iter().position(|field| *field.name() == column.name);
                match index {
                    // Bottom-up: the physical columns in the replacement are not looked at again.
                    Some(index) => Ok(Transformed::yes(self.sources[index].clone())),
                    _ => Ok(Transformed::no(expr)),
                }
            }
            _ => Ok(Transformed::no(expr)),
        }
    }
}
