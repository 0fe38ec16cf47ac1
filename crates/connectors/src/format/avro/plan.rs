//! Reads records by the plan that was made for their schema, straight into columns. The inner loop of all Avro formats.

use super::resolve::{Convert, FieldPlan, Fill, RowPlan, Step};
use super::schema::AvroSchema;
use super::wire::Wire;
use crate::format::column::ScalarColumn;
use crate::format::fault::{Fault, Faulty};
use crate::format::tree::TreeColumn;

impl RowPlan {
    /// Reads a record; each column gets one value. `name` is that of a column, for messages.
    pub(super) fn read<'n>(
        &self,
        schema: &AvroSchema,
        columns: &mut [TreeColumn],
        name: &dyn Fn(usize) -> &'n str,
        wire: &mut Wire<'_>,
    ) -> Faulty<()> {
        for field in &self.reads {
            match field {
                FieldPlan::Column(index, step) => {
                    step.read(schema, &mut columns[*index], wire).map_err(|fault| fault.inside(name(*index)))?;
                }
                FieldPlan::Skip(of) => wire.skip(schema, *of)?,
            }
        }
        for (index, fill) in &self.fills {
            match fill {
                Fill::Null => columns[*index].append_null(),
                Fill::Default(bytes, step) => step.read(schema, &mut columns[*index], &mut Wire::new(bytes)),
            }
            .map_err(|fault| fault.inside(name(*index)))?;
        }
        Ok(())
    }
}

impl Step {
    /// Reads a value and appends it.
    #[inline]
    pub(super) fn read(&self, schema: &AvroSchema, column: &mut TreeColumn, wire: &mut Wire<'_>) -> Faulty<()> {
        let start = wire.at;
        let done = match (self, column) {
            (Step::Nullable(null, step), column) => {
                return match wire.index(2, "branch")? == *null {
                    true => column.append_null().map_err(|fault| fault.located(start)),
                    false => step.read(schema, column, wire),
                };
            }
            (Step::Whole(Convert::Same), TreeColumn::Scalar(column)) => column.append_whole(wire.long()?),
            (Step::Text, TreeColumn::Scalar(column)) => column.append_utf8(wire.bytes()?),
            (step, TreeColumn::Scalar(column)) => step.read_scalar(column, wire),
            (step, column) => return step.read_nested(schema, column, wire),
        };
        done.map_err(|fault| if fault.at == 0 { fault.located(start) } else { fault })
    }

    fn read_scalar(&self, column: &mut ScalarColumn, wire: &mut Wire<'_>) -> Faulty<()> {
        match self {
            Step::Null => column.append_null(),
            Step::Boolean => column.append_boolean(wire.boolean()?),
            Step::Whole(convert) => {
                let at = wire.at;
                let value = wire.long()?;
                let converted = match convert {
                    Convert::Same => Some(value),
                    Convert::Times(factor) => value.checked_mul(*factor),
                    Convert::Divided(divisor) => Some(value.div_euclid(*divisor)),
                };
                match converted {
                    Some(value) => column.append_whole(value),
                    None => Err(Fault::new(at, format!("the time '{value}' is out of range for its column"))),
                }
            }
            Step::Float => {
                let bytes = wire.take(4)?.try_into().expect("four bytes were taken");
                column.append_float(f32::from_le_bytes(bytes).into())
            }
            Step::Double => {
                let bytes = wire.take(8)?.try_into().expect("eight bytes were taken");
                column.append_float(f64::from_le_bytes(bytes))
            }
            Step::Decimal(size, up) => {
                let at = wire.at;
                let bytes = if let Some(size) = size { wire.take(*size)? } else { wire.bytes()? };
                match unscaled(bytes).and_then(|value| value.checked_mul(*up)) {
                    Some(value) => column.append_scaled(value),
                    None => Err(Fault::new(at, "the decimal has more than 38 digits")),
                }
            }
            Step::Text => column.append_utf8(wire.bytes()?),
            Step::Bytes => column.append_bytes(wire.bytes()?),
            Step::Fixed(size) => column.append_bytes(wire.take(*size)?),
            Step::Enum(symbols) => column.append_text(symbols[wire.index(symbols.len(), "symbol")?].as_bytes()),
            Step::Union(branches) => match &branches[wire.index(branches.len(), "branch")?] {
                Ok(step) => step.read_scalar(column, wire),
                Err(reason) => Err(Fault::new(wire.at, reason.clone())),
            },
            Step::Nullable(null, step) => match wire.index(2, "branch")? == *null {
                true => column.append_null(),
                false => step.read_scalar(column, wire),
            },
            Step::Row(_) | Step::List(_) | Step::Map(_) => unreachable!("a scalar column has no plan of a nested one"),
        }
    }

    fn read_nested(&self, schema: &AvroSchema, column: &mut TreeColumn, wire: &mut Wire<'_>) -> Faulty<()> {
        match (self, column) {
            (Step::Null, column) => column.append_null().map_err(|fault| fault.located(wire.at)),
            (Step::Row(plan), TreeColumn::Row(row)) => {
                let fields = row.fields.clone();
                plan.read(schema, &mut row.columns, &|index| fields[index].name(), wire)?;
                row.close();
                Ok(())
            }
            (Step::List(step), TreeColumn::List(list)) => {
                while let (count @ 1.., _) = wire.block()? {
                    for _ in 0..count {
                        step.read(schema, &mut list.items, wire)?;
                    }
                }
                list.close()
            }
            (Step::Map(step), TreeColumn::Map(map)) => {
                while let (count @ 1.., _) = wire.block()? {
                    for _ in 0..count {
                        let TreeColumn::Scalar(keys) = &mut map.keys else { unreachable!("keys are texts") };
                        let at = wire.at;
                        keys.append_utf8(wire.bytes()?).map_err(|fault| fault.located(at))?;
                        step.read(schema, &mut map.values, wire)?;
                    }
                }
                map.close()
            }
            (Step::Union(branches), column) => match &branches[wire.index(branches.len(), "branch")?] {
                Ok(step) => step.read(schema, column, wire),
                Err(reason) => Err(Fault::new(wire.at, reason.clone())),
            },
            (step, _) => unreachable!("a plan is made for its columns: {step:?}"),
        }
    }
}

/// The big-endian two's complement of a decimal; none where it takes more than 16 bytes.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let surplus = bytes.len().saturating_sub(16);
    // Writers may pad with bytes that say no more than the sign.
    let (padding, rest) = bytes.split_at(surplus);
    let same_sign = rest.first().is_none_or(|byte| (byte & 0x80 != 0) == (sign == 0xff));
    if padding.iter().any(|byte| *byte != sign) || (surplus > 0 && !same_sign) {
        return None;
    }
    let mut wide = [sign; 16];
    wide[16 - rest.len()..].copy_from_slice(rest);
    Some(i128::from_be_bytes(wide))
}
