//! Values that come with a type of their own, as formats with a schema have them: no text is parsed. The caller has
//! checked which kinds of values a column takes; what does not fit is the value alone.

use super::{ScalarColumn, Values, type_name};
use crate::format::fault::{Fault, Faulty};

impl ScalarColumn {
    /// Appends a whole number.
    #[inline]
    pub(crate) fn append_whole(&mut self, value: i64) -> Faulty<()> {
        let fits = match &mut self.values {
            Values::Int64(values) | Values::Timestamp { values, .. } => {
                values.push(value);
                true
            }
            Values::Int32(values) | Values::Date(values) | Values::Time(values) => narrow(values, value),
            Values::Int16(values) => narrow(values, value),
            Values::Int8(values) => narrow(values, value),
            Values::Float64(values) => {
                values.push(value as f64);
                true
            }
            Values::Float32(values) => {
                values.push(value as f32);
                true
            }
            _ => return Err(self.mismatch("the number", value.to_string().as_bytes())),
        };
        if !fits {
            return Err(self.out_of_range(&value));
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends a number with a fraction.
    #[inline]
    pub(crate) fn append_float(&mut self, value: f64) -> Faulty<()> {
        match &mut self.values {
            Values::Float64(values) => values.push(value),
            // Only what was narrow before comes here.
            Values::Float32(values) => values.push(value as f32),
            _ => return Err(self.mismatch("the number", value.to_string().as_bytes())),
        }
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends the unscaled value of a decimal of the column's scale.
    pub(crate) fn append_scaled(&mut self, unscaled: i128) -> Faulty<()> {
        let Values::Decimal { values, bound, .. } = &mut self.values else {
            return Err(self.mismatch("the decimal", unscaled.to_string().as_bytes()));
        };
        if unscaled <= -*bound || *bound <= unscaled {
            return Err(self.out_of_range(&unscaled));
        }
        values.push(unscaled);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Appends text that may not be UTF-8, to a column of STRING.
    #[inline]
    pub(crate) fn append_utf8(&mut self, text: &[u8]) -> Faulty<()> {
        if let Err(error) = std::str::from_utf8(text) {
            return Err(Fault::new(error.valid_up_to(), "the text is not valid UTF-8"));
        }
        let Values::Text(values) = &mut self.values else { return Err(self.mismatch("the text", text)) };
        values.push(text);
        self.nulls.append_non_null();
        Ok(())
    }

    #[cold]
    fn out_of_range(&self, value: &dyn std::fmt::Display) -> Box<Fault> {
        Fault::new(0, format!("the number '{value}' is out of range for {}", type_name(&self.data_type)))
    }
}

#[inline]
fn narrow<T: TryFrom<i64>>(values: &mut Vec<T>, value: i64) -> bool {
    T::try_from(value).map(|value| values.push(value)).is_ok()
}
