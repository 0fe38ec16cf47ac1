//! The hash that decides a row's key group. It is part of the state format: the same key must give the same
//! hash in every version and on every machine, so it depends on nothing but the key's value (not on Arrow's
//! layout, not on a library's private seed). Used by the exchange and by snapshots.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use xxhash_rust::xxh3::xxh3_64;

use crate::keys::typed;

const NULL_HASH: u64 = 0x9ae1_6a3b_2f90_404f;
const SEED: u64 = 0x2d35_8dcc_aa6c_78a5;

/// One hash a row over all key columns; without columns the same hash for all of the `rows`.
pub(crate) fn hash_rows(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>, ArrowError> {
    let mut hashes = vec![SEED; rows];
    for column in columns {
        combine(column, &mut hashes)?;
    }
    Ok(hashes)
}

/// The finaliser of MurmurHash3 (Appleby), a bijection with full avalanche.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    value = (value ^ (value >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

fn add(hash: &mut u64, value: u64) {
    *hash = mix(hash.rotate_left(23) ^ value);
}

fn combine(column: &ArrayRef, hashes: &mut [u64]) -> Result<(), ArrowError> {
    use DataType as T;
    match column.data_type() {
        T::Int8
        | T::Int16
        | T::Int32
        | T::Int64
        | T::UInt8
        | T::UInt16
        | T::UInt32
        | T::Boolean
        | T::Date32
        | T::Date64
        | T::Time32(_)
        | T::Time64(_)
        | T::Timestamp(_, _)
        | T::Duration(_) => {
            let integers = typed(column, &T::Int64)?;
            let integers = integers.as_primitive::<Int64Type>();
            if integers.null_count() == 0 {
                hashes.iter_mut().zip(integers.values()).for_each(|(hash, value)| add(hash, mix(*value as u64)));
            } else {
                let values = integers.iter().map(|v| v.map_or(NULL_HASH, |v| mix(v as u64)));
                hashes.iter_mut().zip(values).for_each(|(hash, value)| add(hash, value));
            }
        }
        T::Utf8 => combine_bytes(hashes, column.as_string::<i32>().iter().map(|v| v.map(str::as_bytes))),
        T::Binary => combine_bytes(hashes, column.as_binary::<i32>().iter()),
        T::Utf8View => combine_bytes(hashes, column.as_string_view().iter().map(|v| v.map(str::as_bytes))),
        // Floats, decimals and nested values go through Arrow's comparable rows: equal values, equal bytes.
        other => {
            let converter = RowConverter::new(vec![SortField::new(other.clone())])?;
            let rows = converter.convert_columns(std::slice::from_ref(column))?;
            combine_bytes(
                hashes,
                rows.iter().enumerate().map(|(i, row)| column.is_valid(i).then(|| row.data().to_vec())),
            );
        }
    }
    Ok(())
}

fn combine_bytes<B: AsRef<[u8]>>(hashes: &mut [u64], values: impl Iterator<Item = Option<B>>) {
    for (hash, value) in hashes.iter_mut().zip(values) {
        add(hash, value.map_or(NULL_HASH, |bytes| xxh3_64(bytes.as_ref())));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn hashes_are_fixed_for_ever() {
        // These numbers decide where state lies. A change here orphans the state of every running job.
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(-1), None]));
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), Some(""), None, Some("köln")]));
        let hashes = hash_rows(&[ints, text], 4).unwrap();
        let golden = include_str!("key_hash/golden.txt").lines().map(|l| l.parse::<u64>().unwrap());
        assert_eq!(hashes, golden.collect::<Vec<_>>());
    }

    #[test]
    fn equal_numbers_of_other_width_hash_alike() {
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![7, -7]));
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![7, -7]));
        assert_eq!(hash_rows(&[wide], 2).unwrap(), hash_rows(&[narrow], 2).unwrap());
    }

    #[test]
    fn no_columns_give_one_hash() {
        assert_eq!(hash_rows(&[], 2).unwrap(), vec![SEED, SEED]);
    }
}
