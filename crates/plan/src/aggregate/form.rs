//! How an aggregation without windows computes a call: by numbers of its own that can be put back, or by keeping
//! what it has seen. Decided here, so that the planner refuses what the engine could not run.

use arrow::datatypes::{DataType, Schema};
use arrow::row::{RowConverter, SortField};

use super::{AggregateCall, CompiledAggregate, ORDERED};
use crate::error::PlanError;
use crate::types::sql_type_name;

/// How a call is computed where its result is asked for again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateForm {
    /// A count of rows.
    Count,
    /// A sum, and how many values are in it.
    Sum,
    /// The same, divided.
    Average,
    /// The least or greatest value so far; rows cannot be taken away.
    Extreme {
        /// The greatest.
        greatest: bool,
    },
    /// All values in order, with their numbers: the least or greatest, also when rows are taken away.
    ExtremeOfAll {
        /// The greatest.
        greatest: bool,
    },
    /// Count, mean and sum of squares.
    Variance {
        /// Of a sample, otherwise of the whole population.
        sample: bool,
        /// Its square root.
        root: bool,
    },
    /// How often true and how often false.
    Boolean {
        /// True where all are, otherwise where any is.
        all: bool,
    },
    /// The first or last value to come; rows cannot be taken away.
    Picked {
        /// The last.
        last: bool,
    },
    /// The state of DataFusion's accumulator, to which rows are added; rows cannot be taken away.
    Merged,
    /// All arguments with their numbers; computed anew where they have changed.
    Multiset,
    /// All arguments in the order in which they came; computed anew where they have changed.
    Arrivals,
}

impl AggregateCall {
    /// Types of the columns in which part of a group of rows travels that only come; none where the call needs all of its
    /// rows in one place.
    ///
    /// # Errors
    /// As [`AggregateCall::form`].
    pub fn partial_types(
        &self,
        compiled: &CompiledAggregate,
        input: &Schema,
    ) -> Result<Option<Vec<DataType>>, PlanError> {
        let (form, distinct) = self.form(compiled, input, false)?;
        let types = compiled.args.iter().map(|arg| arg.data_type(input)).collect::<Result<Vec<_>, _>>()?;
        Ok(if distinct { None } else { form.partial_types(&types) })
    }

    /// How the call is computed, and whether each value is handed to it only once (DISTINCT by a table of
    /// values). `retracts`: whether rows may be taken away.
    ///
    /// # Errors
    /// Where the call's arguments cannot be kept as it needs.
    pub fn form(
        &self,
        compiled: &CompiledAggregate,
        input: &Schema,
        retracts: bool,
    ) -> Result<(AggregateForm, bool), PlanError> {
        use AggregateForm as F;
        let types = compiled.args.iter().map(|arg| arg.data_type(input)).collect::<Result<Vec<_>, _>>()?;
        let native = if self.order_by.is_empty() { self.native(compiled, &types, retracts) } else { None };
        let by_table = self.distinct && matches!(native, Some(F::Count | F::Sum | F::Average));
        let one_comparable = types.len() == 1 && comparable(&types);
        match native {
            Some(form) if !by_table || one_comparable => return Ok((form, by_table)),
            _ => {}
        }
        let ordered =
            ORDERED.contains(&self.function.as_str()) || ["any_value", "nth_value"].contains(&&*self.function);
        let form = match (ordered, retracts) {
            (true, _) => F::Arrivals,
            (false, true) => F::Multiset,
            (false, false) => F::Merged,
        };
        if form == F::Merged || RowConverter::supports_fields(&sort_fields(&types)) {
            return Ok((form, false));
        }
        let kept: Vec<String> = types.iter().map(sql_type_name).collect();
        let message = format!(
            "{} without a window has to keep its arguments, which is not possible for type {}; \
             CAST the argument or use a field of it",
            self.function.to_uppercase(),
            kept.join(", ")
        );
        Err(PlanError::unsupported(message))
    }

    /// The form without DataFusion's accumulator, where there is one for these types.
    fn native(&self, compiled: &CompiledAggregate, types: &[DataType], retracts: bool) -> Option<AggregateForm> {
        use AggregateForm as F;
        let output = compiled.output_field();
        let sums = matches!(
            output.data_type(),
            DataType::Int64 | DataType::UInt64 | DataType::Float64 | DataType::Decimal128(..)
        );
        let same_kind = types.first().is_some_and(|of| match of {
            DataType::Decimal128(..) => matches!(output.data_type(), DataType::Decimal128(..)),
            other => other == output.data_type(),
        });
        let float = types.first() == Some(&DataType::Float64);
        let averaged = float || types.iter().all(|of| of.is_signed_integer() || matches!(of, DataType::Decimal128(..)));
        let form = match self.function.as_str() {
            "count" => F::Count,
            "sum" if sums && same_kind => F::Sum,
            "avg" if same_kind && averaged => F::Average,
            "min" | "max" if comparable(types) => {
                let greatest = self.function == "max";
                if retracts { F::ExtremeOfAll { greatest } } else { F::Extreme { greatest } }
            }
            "var" if float => F::Variance { sample: true, root: false },
            "var_pop" if float => F::Variance { sample: false, root: false },
            "stddev" if float => F::Variance { sample: true, root: true },
            "stddev_pop" if float => F::Variance { sample: false, root: true },
            "bool_and" | "bool_or" if types.first() == Some(&DataType::Boolean) => {
                F::Boolean { all: self.function == "bool_and" }
            }
            "first_value" | "last_value" if !retracts && comparable(types) => {
                F::Picked { last: self.function == "last_value" }
            }
            _ => return None,
        };
        Some(form)
    }
}

impl AggregateForm {
    /// Types of the columns in which part of a group travels, where parts can be merged to exactly what all rows give
    /// in any order; `types` are those of the arguments. Of rows that only come, and not of DISTINCT.
    #[must_use]
    pub fn partial_types(self, types: &[DataType]) -> Option<Vec<DataType>> {
        use AggregateForm as F;
        let decimal = |of: &DataType| matches!(of, DataType::Decimal128(..));
        match (self, types) {
            (F::Count, _) => Some(vec![DataType::Int64]),
            (F::Sum, [of]) if of.is_integer() || decimal(of) => Some(vec![of.clone()]),
            (F::Average, [of]) if decimal(of) => Some(vec![of.clone(), DataType::Int64]),
            (F::Average, [of]) if of.is_signed_integer() => Some(vec![INTEGER_SUM, DataType::Int64]),
            (F::Extreme { .. }, [of]) => Some(vec![of.clone()]),
            (F::Boolean { .. }, _) => Some(vec![DataType::Int64, DataType::Int64]),
            _ => None,
        }
    }
}

/// A sum of integers that cannot overflow: a decimal without digits behind the point.
pub const INTEGER_SUM: DataType = DataType::Decimal128(38, 0);

/// Whether values of these types can be told apart and put in order. Maps cannot: their entries have no order.
#[must_use]
pub fn comparable(types: &[DataType]) -> bool {
    !types.iter().any(has_map) && RowConverter::supports_fields(&sort_fields(types))
}

fn sort_fields(types: &[DataType]) -> Vec<SortField> {
    types.iter().map(|t| SortField::new(t.clone())).collect()
}

fn has_map(of: &DataType) -> bool {
    match of {
        DataType::Map(..) => true,
        DataType::List(item) | DataType::FixedSizeList(item, _) => has_map(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_map(field.data_type())),
        _ => false,
    }
}
