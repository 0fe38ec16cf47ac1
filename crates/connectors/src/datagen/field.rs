//! Makes the values of one field of a `datagen` table, a whole column at a time. Called by the generator.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, ListArray, MapArray, PrimitiveArray, StringArray,
    StructArray, Time32MillisecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt64Array, make_comparator,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{DataType, Fields, TimeUnit};

use crate::generator::{Random, below, derive, event_time_ms, hex_digits, unit};

const DAY_MS: i64 = 86_400_000;

/// The time that a row has.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowTime {
    pub(super) base_ms: i64,
    pub(super) per_second: u64,
}

/// A column, or a part of one, and how its values come about.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) data_type: DataType,
    pub(super) random: Random,
    pub(super) nulls: Random,
    /// Share of values that are null, 0 to 1.
    pub(super) null_rate: f64,
    pub(super) maker: Maker,
}

/// How values come about. Ranges include both ends.
#[derive(Clone, Debug)]
pub(super) enum Maker {
    Boolean,
    Whole {
        min: i64,
        max: i64,
    },
    Float {
        min: f64,
        max: f64,
    },
    /// Unscaled.
    Decimal {
        min: i128,
        max: i128,
    },
    /// Hexadecimal digits.
    Text {
        length: usize,
    },
    Bytes {
        length: usize,
    },
    /// The time of the row, less up to `past_ms_max`.
    Time {
        time: RowTime,
        past_ms_max: u64,
    },
    /// `start` plus the number of the row.
    Sequence {
        start: i64,
    },
    Row(Vec<Field>),
    List {
        length: usize,
        element: Box<Field>,
    },
    Map {
        length: usize,
        key: Box<Field>,
        value: Box<Field>,
    },
}

/// Where the values of a column stand: the row of each, and a place that is its own within the field.
pub(super) struct Places {
    rows: Vec<u64>,
    /// Absent: the rows.
    places: Option<Vec<u64>>,
}

impl Places {
    /// One value a row.
    pub(super) fn of_rows(rows: Vec<u64>) -> Places {
        Places { rows, places: None }
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.places.as_ref().unwrap_or(&self.rows).iter().copied()
    }

    /// `length` values where there was one.
    fn spread(&self, length: usize) -> Places {
        let rows = self.rows.iter().flat_map(|row| std::iter::repeat_n(*row, length)).collect();
        let places = self
            .iter()
            .flat_map(|place| (0..length as u64).map(move |i| place.wrapping_mul(length as u64).wrapping_add(i)));
        Places { rows, places: Some(places.collect()) }
    }
}

impl Field {
    /// An upper bound of the bytes of one value.
    pub(super) fn bytes_max(&self) -> u64 {
        match &self.maker {
            Maker::Text { length } | Maker::Bytes { length } => *length as u64 + 16,
            Maker::Row(fields) => fields.iter().map(Field::bytes_max).sum(),
            Maker::List { length, element } => *length as u64 * element.bytes_max() + 16,
            Maker::Map { length, key, value } => *length as u64 * (key.bytes_max() + value.bytes_max()) + 16,
            _ => 20,
        }
    }

    /// The values at the places.
    pub(super) fn array(&self, places: &Places) -> ArrayRef {
        let nulls = self.null_buffer(places);
        match &self.maker {
            Maker::Boolean => {
                let values: Vec<bool> = places.iter().map(|p| self.random.at(p) & 1 == 1).collect();
                Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
            }
            Maker::Whole { min, max } => {
                let span = max.wrapping_sub(*min) as u64;
                let offset = |random| if span == u64::MAX { random } else { below(random, span + 1) };
                self.whole(places.iter().map(|p| min.wrapping_add(offset(self.random.at(p)) as i64)), nulls)
            }
            Maker::Sequence { start } => {
                self.sequence(places.rows.iter().map(|row| start.saturating_add(*row as i64)), nulls)
            }
            Maker::Float { min, max } => {
                let value = |p| {
                    let share = unit(self.random.at(p));
                    // Not `min + share * (max - min)`: the difference of the greatest numbers is infinite.
                    (min * (1.0 - share) + max * share).clamp(*min, *max)
                };
                self.float(places.iter().map(value), nulls)
            }
            Maker::Decimal { min, max } => {
                let span = max.wrapping_sub(*min) as u128 + 1;
                let wide = |random: u64| (u128::from(random) << 64) | u128::from(derive(random, 1));
                let values = places.iter().map(|p| min + (wide(self.random.at(p)) % span) as i128);
                self.decimal(values.collect(), nulls)
            }
            Maker::Text { length } => self.text(*length, places, nulls),
            Maker::Bytes { length } => self.bytes(*length, places, nulls),
            Maker::Time { time, past_ms_max } => {
                let past =
                    |place| if *past_ms_max == 0 { 0 } else { below(self.random.at(place), past_ms_max + 1) as i64 };
                let ms = places.rows.iter().zip(places.iter());
                let ms = ms
                    .map(|(row, place)| event_time_ms(time.base_ms, *row, time.per_second).saturating_sub(past(place)));
                self.time(ms, nulls)
            }
            Maker::Row(fields) => self.row(fields, places, nulls),
            Maker::List { length, element } => {
                let DataType::List(item) = &self.data_type else { unreachable!("lists are made for list columns") };
                let offsets = OffsetBuffer::from_repeated_length(*length, places.len());
                Arc::new(ListArray::new(item.clone(), offsets, element.array(&places.spread(*length)), nulls))
            }
            Maker::Map { length, key, value } => self.map(*length, key, value, places, nulls),
        }
    }

    fn null_buffer(&self, places: &Places) -> Option<NullBuffer> {
        if self.null_rate == 0.0 {
            return None;
        }
        let valid: Vec<bool> = places.iter().map(|p| unit(self.nulls.at(p)) >= self.null_rate).collect();
        Some(NullBuffer::from(valid))
    }

    fn whole(&self, values: impl Iterator<Item = i64>, nulls: Option<NullBuffer>) -> ArrayRef {
        // The narrowing casts keep the value: the range was checked against the type.
        match &self.data_type {
            DataType::Int8 => Arc::new(Int8Array::new(values.map(|v| v as i8).collect(), nulls)),
            DataType::Int16 => Arc::new(Int16Array::new(values.map(|v| v as i16).collect(), nulls)),
            DataType::Int32 => Arc::new(Int32Array::new(values.map(|v| v as i32).collect(), nulls)),
            _ => Arc::new(Int64Array::new(values.collect(), nulls)),
        }
    }

    fn float(&self, values: impl Iterator<Item = f64>, nulls: Option<NullBuffer>) -> ArrayRef {
        match &self.data_type {
            DataType::Float32 => Arc::new(Float32Array::new(values.map(|v| v as f32).collect(), nulls)),
            _ => Arc::new(Float64Array::new(values.collect(), nulls)),
        }
    }

    fn decimal(&self, values: Vec<i128>, nulls: Option<NullBuffer>) -> ArrayRef {
        let array = Decimal128Array::new(values.into(), nulls).with_data_type(self.data_type.clone());
        Arc::new(array)
    }

    fn sequence(&self, values: impl Iterator<Item = i64>, nulls: Option<NullBuffer>) -> ArrayRef {
        match &self.data_type {
            DataType::Float32 | DataType::Float64 => self.float(values.map(|v| v as f64), nulls),
            DataType::Decimal128(_, scale) => {
                let factor = 10_i128.pow(u32::try_from(*scale).unwrap_or(0));
                self.decimal(values.map(|v| i128::from(v) * factor).collect(), nulls)
            }
            DataType::Utf8 => {
                let texts: Vec<String> = values.map(|v| v.to_string()).collect();
                let (offsets, data, _) = StringArray::from_iter_values(&texts).into_parts();
                Arc::new(StringArray::new(offsets, data, nulls))
            }
            _ => self.whole(values, nulls),
        }
    }

    fn text(&self, length: usize, places: &Places, nulls: Option<NullBuffer>) -> ArrayRef {
        let mut values = Vec::with_capacity(length * places.len() + 16);
        for place in places.iter() {
            let end = values.len() + length;
            let random = self.random.at(place);
            for word in 0..length.div_ceil(16) as u64 {
                values.extend_from_slice(&hex_digits(derive(random, word + 1)));
            }
            values.truncate(end);
        }
        let offsets = OffsetBuffer::from_repeated_length(length, places.len());
        Arc::new(StringArray::try_new(offsets, values.into(), nulls).expect("hexadecimal digits are ASCII"))
    }

    fn bytes(&self, length: usize, places: &Places, nulls: Option<NullBuffer>) -> ArrayRef {
        let mut values = Vec::with_capacity(length * places.len() + 8);
        for place in places.iter() {
            let end = values.len() + length;
            let random = self.random.at(place);
            for word in 0..length.div_ceil(8) as u64 {
                values.extend_from_slice(&derive(random, word + 1).to_le_bytes());
            }
            values.truncate(end);
        }
        let offsets = OffsetBuffer::from_repeated_length(length, places.len());
        Arc::new(BinaryArray::new(offsets, values.into(), nulls))
    }

    fn time(&self, ms: impl Iterator<Item = i64>, nulls: Option<NullBuffer>) -> ArrayRef {
        fn array<T: ArrowPrimitiveType<Native = i64>>(
            values: impl Iterator<Item = i64>,
            nulls: Option<NullBuffer>,
        ) -> PrimitiveArray<T> {
            PrimitiveArray::new(values.collect::<ScalarBuffer<i64>>(), nulls)
        }
        match &self.data_type {
            DataType::Date32 => Arc::new(Date32Array::new(ms.map(|v| v.div_euclid(DAY_MS) as i32).collect(), nulls)),
            DataType::Time32(_) => {
                Arc::new(Time32MillisecondArray::new(ms.map(|v| v.rem_euclid(DAY_MS) as i32).collect(), nulls))
            }
            DataType::Timestamp(unit, zone) => {
                let zone = zone.clone();
                match unit {
                    TimeUnit::Second => {
                        let seconds: TimestampSecondArray = array(ms.map(|v| v.div_euclid(1000)), nulls);
                        Arc::new(seconds.with_timezone_opt(zone))
                    }
                    TimeUnit::Millisecond => {
                        let millis: TimestampMillisecondArray = array(ms, nulls);
                        Arc::new(millis.with_timezone_opt(zone))
                    }
                    TimeUnit::Microsecond => {
                        let micros: TimestampMicrosecondArray = array(ms.map(|v| v.saturating_mul(1000)), nulls);
                        Arc::new(micros.with_timezone_opt(zone))
                    }
                    TimeUnit::Nanosecond => {
                        let nanos: TimestampNanosecondArray = array(ms.map(|v| v.saturating_mul(1_000_000)), nulls);
                        Arc::new(nanos.with_timezone_opt(zone))
                    }
                }
            }
            _ => unreachable!("times are made for columns of dates and times"),
        }
    }

    fn row(&self, fields: &[Field], places: &Places, nulls: Option<NullBuffer>) -> ArrayRef {
        let DataType::Struct(declared) = &self.data_type else { unreachable!("rows are made for row columns") };
        let arrays = fields.iter().map(|f| f.array(places)).collect();
        let row = StructArray::try_new_with_length(declared.clone(), arrays, nulls, places.len());
        Arc::new(row.expect("parts are made to the declared type"))
    }

    fn map(&self, length: usize, key: &Field, value: &Field, places: &Places, nulls: Option<NullBuffer>) -> ArrayRef {
        let DataType::Map(entries, ordered) = &self.data_type else { unreachable!("maps are made for map columns") };
        let DataType::Struct(pair) = entries.data_type() else { unreachable!("the entries of a map are a struct") };
        let spread = places.spread(length);
        let (keys, values) = (key.array(&spread), value.array(&spread));
        let (kept, offsets) = distinct(&keys, length, places.len());
        let pick = |array: &ArrayRef| take(array, &kept, None).expect("the indices are within the array");
        let pairs = StructArray::new(Fields::clone(pair), vec![pick(&keys), pick(&values)], None);
        Arc::new(MapArray::new(entries.clone(), offsets, pairs, nulls, *ordered))
    }
}

/// Entries of maps of `length` entries each, without those whose key came before in the same map.
fn distinct(keys: &ArrayRef, length: usize, maps: usize) -> (UInt64Array, OffsetBuffer<i32>) {
    let compare = make_comparator(keys, keys, SortOptions::default()).expect("keys of any type can be compared");
    let mut kept = Vec::with_capacity(keys.len());
    let mut lengths = Vec::with_capacity(maps);
    for map in 0..maps {
        let first = kept.len();
        for entry in map * length..(map + 1) * length {
            let doubled = kept[first..].iter().any(|other: &u64| compare(*other as usize, entry).is_eq());
            if !doubled {
                kept.push(entry as u64);
            }
        }
        lengths.push(kept.len() - first);
    }
    (kept.into(), OffsetBuffer::from_lengths(lengths))
}
