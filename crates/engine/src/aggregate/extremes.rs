//! MIN, MAX, FIRST_VALUE and LAST_VALUE of rows that only come: one value a group.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray, downcast_primitive,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::DataType;
use datafusion_common::{DataFusionError, Result};

use super::accumulator::{Accumulator, Changes, only_selected};
use super::row_codec::RowCodec;
use crate::memory;

/// Least or greatest values of one primitive type.
pub(super) struct Extreme<P: ArrowPrimitiveType> {
    best: Vec<Option<P::Native>>,
    greatest: bool,
    output: DataType,
}

impl<P: ArrowPrimitiveType> Extreme<P> {
    fn better(&mut self, values: &PrimitiveArray<P>, changes: &Changes<'_>, better: fn(P::Native, P::Native) -> bool) {
        let numbers = values.values();
        changes.for_each(values.nulls(), |row, group, _| {
            let (best, value) = (&mut self.best[group], numbers[row]);
            if best.is_none_or(|best| better(value, best)) {
                *best = Some(value);
            }
        });
    }
}

/// The accumulator for values of a type that can be put in order.
pub(super) fn extreme(of: &DataType, greatest: bool) -> Result<Box<dyn Accumulator>> {
    macro_rules! primitive {
        ($t:ty) => {
            Box::new(Extreme::<$t> { best: Vec::new(), greatest, output: of.clone() }) as Box<dyn Accumulator>
        };
    }
    Ok(downcast_primitive! {
        of => (primitive),
        _ => {
            let rule = if greatest { Rule::Greatest } else { Rule::Least };
            Box::new(Picked::new(of, rule, true)?)
        }
    })
}

impl<P: ArrowPrimitiveType> Accumulator for Extreme<P> {
    fn bytes(&self) -> usize {
        memory::of_vec(&self.best)
    }

    fn reserve(&mut self, more: usize) {
        self.best.reserve_exact(more);
    }

    fn grow(&mut self, groups: usize) {
        self.best.resize(groups.max(self.best.len()), None);
    }

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        let values = args[0].as_primitive::<P>();
        if self.greatest {
            self.better(values, changes, |value, best| value.is_gt(best));
        } else {
            self.better(values, changes, |value, best| value.is_lt(best));
        }
        Ok(())
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let values: Vec<P::Native> =
            groups.iter().map(|group| self.best[*group as usize].unwrap_or_default()).collect();
        let valid = |row: usize| self.best[groups[row] as usize].is_some();
        let valid = NullBuffer::new(BooleanBuffer::collect_bool(groups.len(), valid));
        let nulls = Some(valid).filter(|valid| valid.null_count() > 0);
        Ok(Arc::new(PrimitiveArray::<P>::new(values.into(), nulls).with_data_type(self.output.clone())))
    }

    fn reset(&mut self, group: u32) {
        self.best[group as usize] = None;
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.output.clone()]
    }

    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values(groups)?])
    }

    fn partial(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values(groups)?])
    }

    fn partial_of_rows(
        &self,
        args: &[ArrayRef],
        only: Option<&BooleanBuffer>,
        _rows: usize,
    ) -> Option<Result<Vec<ArrayRef>>> {
        Some(only_selected(&args[0], only).map(|values| vec![values]))
    }

    fn merge(&mut self, partial: &[ArrayRef], groups: &[u32]) -> Result<()> {
        self.update(partial, &Changes { groups, signs: None, only: None })
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        let values = state[0].as_primitive::<P>();
        groups.iter().zip(values).for_each(|(group, value)| self.best[*group as usize] = value);
        Ok(())
    }
}

/// Which value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The first to come.
    First,
    /// The last to come.
    Last,
    /// The least.
    Least,
    /// The greatest.
    Greatest,
}

/// One value a group, of any type, as a comparable row.
pub(super) struct Picked {
    codec: RowCodec,
    rule: Rule,
    skip_nulls: bool,
    /// Empty: none yet. No value is encoded as nothing.
    kept: Vec<Vec<u8>>,
    output: DataType,
}

impl Picked {
    /// For values of a type that can be put in order; `skip_nulls`: whether a null is a value.
    pub(super) fn new(of: &DataType, rule: Rule, skip_nulls: bool) -> Result<Self> {
        let codec = RowCodec::new(std::slice::from_ref(of))?;
        Ok(Picked { codec, rule, skip_nulls, kept: Vec::new(), output: of.clone() })
    }
}

impl Accumulator for Picked {
    fn bytes(&self) -> usize {
        let kept = &self.kept;
        memory::of_vec(kept) + memory::of_sampled(kept.len(), kept.iter(), |bytes| bytes.capacity() + memory::SMALL)
    }

    fn grow(&mut self, groups: usize) {
        self.kept.resize(groups.max(self.kept.len()), Vec::new());
    }

    fn update(&mut self, args: &[ArrayRef], changes: &Changes<'_>) -> Result<()> {
        if changes.signs.is_some() {
            return Err(DataFusionError::Internal("a row was taken away that cannot be".to_owned()));
        }
        let rows = self.codec.encode(args)?;
        let nulls = if self.skip_nulls { args[0].logical_nulls() } else { None };
        let rule = self.rule;
        changes.for_each(nulls.as_ref(), |row, group, _| {
            let (kept, value) = (&mut self.kept[group], rows.row(row));
            let replace = kept.is_empty()
                || match rule {
                    Rule::First => false,
                    Rule::Last => true,
                    Rule::Least => value.as_ref() < kept.as_slice(),
                    Rule::Greatest => value.as_ref() > kept.as_slice(),
                };
            if replace {
                kept.clear();
                kept.extend_from_slice(value.as_ref());
            }
        });
        Ok(())
    }

    fn values(&mut self, groups: &[u32]) -> Result<ArrayRef> {
        let kept = groups.iter().map(|group| Some(self.kept[*group as usize].as_slice()).filter(|row| !row.is_empty()));
        Ok(self.codec.decode(kept)?.remove(0))
    }

    fn reset(&mut self, group: u32) {
        self.kept[group as usize] = Vec::new();
    }

    fn state_types(&self) -> Vec<DataType> {
        vec![self.output.clone(), DataType::Boolean]
    }

    fn state(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let there: BooleanArray = groups.iter().map(|group| Some(!self.kept[*group as usize].is_empty())).collect();
        Ok(vec![self.values(groups)?, Arc::new(there)])
    }

    fn partial(&mut self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values(groups)?])
    }

    fn partial_of_rows(
        &self,
        args: &[ArrayRef],
        only: Option<&BooleanBuffer>,
        _rows: usize,
    ) -> Option<Result<Vec<ArrayRef>>> {
        Some(only_selected(&args[0], only).map(|values| vec![values]))
    }

    fn merge(&mut self, partial: &[ArrayRef], groups: &[u32]) -> Result<()> {
        self.update(partial, &Changes { groups, signs: None, only: None })
    }

    fn restore(&mut self, groups: &[u32], state: &[ArrayRef]) -> Result<()> {
        let rows = self.codec.encode(&state[..1])?;
        let there = state[1].as_boolean();
        for (row, group) in groups.iter().enumerate() {
            let kept = if there.value(row) { rows.row(row).as_ref().to_vec() } else { Vec::new() };
            self.kept[*group as usize] = kept;
        }
        Ok(())
    }
}
