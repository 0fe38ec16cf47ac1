//! `ROW_NUMBER`, `RANK` and `DENSE_RANK` as in Flink: they give a BIGINT. DataFusion's give an unsigned number. They are
//! named in plans only; the operators that number rows compute them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{DataFusionError, Result};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Arc<WindowUDF>> {
    let function = |name| Numbering { name, signature: Signature::nullary(Volatility::Immutable) };
    ["row_number", "rank", "dense_rank"].into_iter().map(move |name| Arc::new(WindowUDF::from(function(name))))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Numbering {
    name: &'static str,
    signature: Signature,
}

impl WindowUDFImpl for Numbering {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Err(DataFusionError::Internal(format!("{} is computed by operators only", self.name)))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Int64, false)))
    }
}
