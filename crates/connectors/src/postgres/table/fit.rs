//! Which declared types fit which of PostgreSQL's: what is written must be stored as it is, what is read must fit.

use arrow::datatypes::{DataType, TimeUnit};

use super::RealColumn;

/// What is done with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::postgres) enum Direction {
    Read,
    Write,
}

impl RealColumn {
    /// Whether values of the declared type can be written to, or read from, the column; else why not.
    pub(super) fn fits(&self, declared: &DataType, direction: Direction) -> Result<(), String> {
        match (declared, self.is_array) {
            (DataType::List(element), true) if !matches!(element.data_type(), DataType::List(_)) => {
                self.fits_scalar(element.data_type(), direction)
            }
            (DataType::List(_), true) => Err("arrays of arrays are not supported".to_owned()),
            (DataType::List(_), false) => Err("an ARRAY needs an array".to_owned()),
            (_, true) => Err("it is an array; declare it as ARRAY".to_owned()),
            (declared, false) => self.fits_scalar(declared, direction),
        }
    }

    /// The type as which values of the declared type are compared with the column: one that holds them all.
    pub(in crate::postgres) fn compared_as(&self, declared: &DataType) -> &str {
        match declared {
            DataType::Boolean => "boolean",
            DataType::Int16 => "smallint",
            DataType::Int32 => "integer",
            DataType::Int64 => "bigint",
            DataType::Float32 => "real",
            DataType::Float64 => "double precision",
            DataType::Decimal128(..) => "numeric",
            DataType::Utf8 if matches!(self.base.as_str(), "text" | "varchar") => "text",
            _ => &self.plain_type,
        }
    }

    fn fits_scalar(&self, declared: &DataType, direction: Direction) -> Result<(), String> {
        let write = direction == Direction::Write;
        let one_of = |written: &[&str], read: &[&str]| {
            let (legal, verb) = if write { (written, "be stored in") } else { (read, "hold the values of") };
            if legal.contains(&self.base.as_str()) {
                return Ok(());
            }
            let names: Vec<&str> = legal.iter().map(|name| shown(name)).collect();
            Err(match names.as_slice() {
                [] => "it cannot be read; declare another type".to_owned(),
                names => format!("it can {verb} {}", names.join(", ")),
            })
        };
        match declared {
            DataType::Boolean => one_of(&["bool"], &["bool"]),
            DataType::Int8 => one_of(&["int2", "int4", "int8", "numeric"], &[]),
            DataType::Int16 => one_of(&["int2", "int4", "int8", "numeric"], &["int2"]),
            DataType::Int32 => one_of(&["int4", "int8", "numeric"], &["int2", "int4"]),
            DataType::Int64 => one_of(&["int8", "numeric"], &["int2", "int4", "int8", "oid"]),
            DataType::Float32 => one_of(&["float4", "float8"], &["float4"]),
            DataType::Float64 => one_of(&["float8"], &["float4", "float8"]),
            DataType::Decimal128(precision, scale) => {
                one_of(&["numeric"], &["numeric", "int2", "int4", "int8"])?;
                self.fits_decimal(i32::from(*precision), i32::from(*scale), write)
            }
            DataType::Utf8 => self.fits_text(write),
            DataType::Binary => one_of(&["bytea"], &["bytea"]),
            DataType::Date32 => one_of(&["date"], &["date"]),
            DataType::Time32(_) => {
                one_of(&["time"], &["time"])?;
                self.fits_fraction(3, write)
            }
            DataType::Timestamp(unit, zone) => {
                let names: &[&str] = if zone.is_some() { &["timestamptz"] } else { &["timestamp"] };
                one_of(names, names)?;
                let digits = match unit {
                    TimeUnit::Second => 0,
                    TimeUnit::Millisecond => 3,
                    TimeUnit::Microsecond => 6,
                    TimeUnit::Nanosecond => 9,
                };
                self.fits_fraction(digits, write)
            }
            DataType::Struct(_) | DataType::Map(..) if write => one_of(&["json", "jsonb"], &[]),
            DataType::Struct(_) | DataType::Map(..) => Err("declare it as STRING to read its text".to_owned()),
            other => Err(format!("{other} has no counterpart")),
        }
    }

    /// The precision of a `numeric` is in its modifier; without one it takes any number.
    fn fits_decimal(&self, precision: i32, scale: i32, write: bool) -> Result<(), String> {
        if self.base != "numeric" || self.modifier < 4 {
            return Ok(());
        }
        let (real_precision, real_scale) = ((self.modifier - 4) >> 16 & 0xffff, (self.modifier - 4) & 0x7ff);
        // A negative scale is stored in eleven bits.
        let real_scale = if real_scale >= 1024 { real_scale - 2048 } else { real_scale };
        let (from, to) = if write {
            ((precision, scale), (real_precision, real_scale))
        } else {
            ((real_precision, real_scale), (precision, scale))
        };
        if to.1 < from.1 {
            return Err("digits after the point would be lost".to_owned());
        }
        if to.0 - to.1 < from.0 - from.1 {
            return Err("it has fewer digits in front of the point".to_owned());
        }
        Ok(())
    }

    /// Digits of a second. PostgreSQL keeps six unless told fewer.
    fn fits_fraction(&self, declared: i32, write: bool) -> Result<(), String> {
        let real = if self.modifier < 0 { 6 } else { self.modifier };
        if write && declared > real {
            return Err(format!("it keeps {real} digits of a second; declare fewer"));
        }
        Ok(())
    }

    fn fits_text(&self, write: bool) -> Result<(), String> {
        // PostgreSQL reads the text by the column's type.
        let others = [
            "bool",
            "int2",
            "int4",
            "int8",
            "float4",
            "float8",
            "numeric",
            "date",
            "time",
            "timestamp",
            "timestamptz",
            "bytea",
        ];
        if write && self.kind != "e" && others.contains(&self.base.as_str()) {
            return Err("a STRING is not turned into it; cast it in the query".to_owned());
        }
        Ok(())
    }
}

/// A type as users write it.
fn shown(name: &str) -> &str {
    match name {
        "bool" => "boolean",
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "float4" => "real",
        "float8" => "double precision",
        "timestamptz" => "timestamp with time zone",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(base: &str, modifier: i32, is_array: bool) -> RealColumn {
        RealColumn {
            name: "c".into(),
            type_name: base.into(),
            base: base.into(),
            is_array,
            kind: "b".into(),
            modifier,
            plain_type: base.into(),
            not_null: false,
            has_default: false,
            generated: false,
        }
    }

    #[test]
    fn types_fit_where_every_value_does() {
        let numeric = |precision: i32, scale: i32| column("numeric", (precision << 16 | scale) + 4, false);
        let (read, write) = (Direction::Read, Direction::Write);
        assert!(column("int8", -1, false).fits(&DataType::Int32, write).is_ok());
        assert!(column("int8", -1, false).fits(&DataType::Int32, read).is_err());
        assert!(column("int4", -1, false).fits(&DataType::Int64, read).is_ok());
        assert!(column("int4", -1, false).fits(&DataType::Int64, write).is_err());
        assert!(numeric(10, 2).fits(&DataType::Decimal128(10, 2), write).is_ok());
        assert!(numeric(10, 2).fits(&DataType::Decimal128(9, 3), write).is_err(), "rounded");
        assert!(numeric(10, 2).fits(&DataType::Decimal128(12, 2), write).is_err(), "too large");
        assert!(numeric(10, 2).fits(&DataType::Decimal128(12, 2), read).is_ok());
        assert!(column("numeric", -1, false).fits(&DataType::Decimal128(38, 9), write).is_ok());
        let timestamp = |unit| DataType::Timestamp(unit, None);
        assert!(column("timestamp", -1, false).fits(&timestamp(TimeUnit::Microsecond), write).is_ok());
        assert!(column("timestamp", -1, false).fits(&timestamp(TimeUnit::Nanosecond), write).is_err());
        assert!(column("timestamptz", -1, false).fits(&timestamp(TimeUnit::Millisecond), write).is_err());
        assert!(column("uuid", -1, false).fits(&DataType::Utf8, write).is_ok());
        assert!(column("int4", -1, false).fits(&DataType::Utf8, write).is_err());
        assert!(column("int4", -1, false).fits(&DataType::Utf8, read).is_ok());
        let list = DataType::new_list(DataType::Int32, true);
        assert!(column("int4", -1, true).fits(&list, write).is_ok());
        assert!(column("text", -1, true).fits(&list, write).is_err());
        assert!(column("int4", -1, false).fits(&list, write).is_err());
    }
}
