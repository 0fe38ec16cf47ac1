//! VALUES: rows that stand in the text. Called by `query.rs`.

use arrow::datatypes::DataType;
use datafusion_common::DFSchema;
use datafusion_expr::{ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion_sql::sqlparser::ast::{Ident, Spanned, Values};
use mainstem_plan::sql_type_name;

use super::{Scope, rename, select};
use crate::common_types;
use crate::context;
use crate::error::{At, ErrorCode, SqlError};
use crate::resolve::{Around, Resolver};

/// Most values of one VALUES: they are stored with the job.
const VALUES_MAX: usize = 100_000;

impl Scope<'_> {
    /// The rows; their columns are named as Flink names them.
    pub(super) fn values(&self, values: &Values) -> Result<LogicalPlan, SqlError> {
        let at = At::from(values.span());
        let none = DFSchema::empty();
        let width = values.rows.first().map_or(0, |row| row.content.len());
        if width == 0 || values.rows.len().saturating_mul(width) > VALUES_MAX {
            let message = format!("VALUES takes from 1 to {VALUES_MAX} values; put more of them into a file");
            return Err(SqlError::new(ErrorCode::Limit, at, message));
        }
        let mut rows = Vec::new();
        let mut types = vec![DataType::Null; width];
        for written in &values.rows {
            if written.content.len() != width {
                let place = written.content.first().map_or(at, |value| value.span().into());
                let message = format!("this row has {} values, the first has {width}", written.content.len());
                return Err(SqlError::new(ErrorCode::Type, place, message));
            }
            let mut row = Vec::new();
            for (value, known) in written.content.iter().zip(&mut types) {
                let place = At::from(value.span());
                let mut value = value.clone();
                Resolver { schema: &none, aliases: &[], clause: "VALUES", around: Around::default() }
                    .expr(&mut value)?;
                let planned = context::plan_expr(value, &none);
                let planned = planned.map_err(|error| SqlError::from_datafusion(&error, place))?;
                let found = planned.get_type(&none).map_err(|error| SqlError::from_datafusion(&error, place))?;
                if *known == DataType::Null {
                    *known = found.clone();
                }
                if found != DataType::Null && found.is_string() != known.is_string() {
                    let (found, known) = (sql_type_name(&found), sql_type_name(known));
                    let message = format!("this value is of type {found}, those before it are {known}; write a CAST");
                    return Err(SqlError::new(ErrorCode::Type, place, message));
                }
                row.push(planned);
            }
            rows.push(row);
        }
        let rows = common_types::rows(rows, &none);
        let plan = LogicalPlanBuilder::values(rows).and_then(LogicalPlanBuilder::build);
        let plan = plan.map_err(|error| SqlError::from_datafusion(&error, at))?;
        let plan = select::settle_types(plan).map_err(|error| error.or_at(at))?;
        let names: Vec<Ident> = (0..width).map(|column| Ident::new(format!("EXPR${column}"))).collect();
        rename(plan, &names, at)
    }
}
