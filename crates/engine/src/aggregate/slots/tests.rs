//! Tests of the slots of groups: values find their slot again, and freed slots are used again.

use std::sync::Arc;

use arrow::array::{Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::TimeUnit;

use super::*;

fn slots_of(index: &mut SlotIndex, columns: &[ArrayRef], space: u32) -> Vec<(u32, bool)> {
    let mut slots = Vec::new();
    index.intern(columns, columns[0].len(), |_| Some(space), |_, slot, new| slots.push((slot, new))).unwrap();
    slots
}

#[track_caller]
fn check_reuse(columns: &[ArrayRef]) {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let mut index = SlotIndex::new(&types).unwrap();
    let first = slots_of(&mut index, columns, 0);
    let slots: Vec<u32> = (0..columns[0].len() as u32).collect();
    assert_eq!(first, slots.iter().map(|slot| (*slot, true)).collect::<Vec<_>>(), "each key is different");
    assert_eq!(index.columns(&slots).unwrap(), columns);
    // Every second key goes; the others stay where they are, and what is freed is used again.
    slots.iter().filter(|slot| **slot % 2 == 1).for_each(|slot| index.remove(*slot));
    assert_eq!(index.len(), slots.len().div_ceil(2));
    let again = slots_of(&mut index, columns, 0);
    assert_eq!(index.slots(), slots.len(), "freed slots come first");
    for (slot, (now, new)) in slots.iter().zip(&again) {
        assert_eq!(*new, slot % 2 == 1);
        assert!(*new || now == slot);
    }
    let now: Vec<u32> = again.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(index.columns(&now).unwrap(), columns);
}

#[test]
fn freed_slots_are_used_again() {
    let integers: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(0), Some(-7), Some(i64::MIN)]));
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![Some(1), None, Some(3), Some(4), Some(5)]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some(""), Some("longer"), Some("köln")]));
    assert_eq!(*times.data_type(), DataType::Timestamp(TimeUnit::Millisecond, None));
    check_reuse(std::slice::from_ref(&integers));
    check_reuse(std::slice::from_ref(&times));
    check_reuse(std::slice::from_ref(&texts));
    check_reuse(&[texts, integers, times]);
}

#[test]
fn many_freed_texts_are_moved_together() {
    let text = |n: usize| format!("{n:0>200}");
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..10_000).map(text)));
    let mut index = SlotIndex::new(&[DataType::Utf8]).unwrap();
    slots_of(&mut index, &[texts], 0);
    (0..9_000).for_each(|slot| index.remove(slot));
    let Keys::Bytes(keys) = &index.keys else { panic!() };
    assert!(keys.bytes_held() < 10_000 * 200 / 2);
    let left: ArrayRef = Arc::new(StringArray::from_iter_values((9_000..10_000).map(text)));
    assert_eq!(index.columns(&(9_000..10_000).collect::<Vec<_>>()).unwrap(), std::slice::from_ref(&left));
    assert!(slots_of(&mut index, &[left], 0).iter().all(|(_, new)| !new));
}

#[test]
fn a_key_has_a_slot_in_each_space() {
    let key: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let mut index = SlotIndex::new(&[DataType::Int64]).unwrap();
    let slots: Vec<_> = (0..3).map(|space| slots_of(&mut index, std::slice::from_ref(&key), space)[0]).collect();
    assert_eq!(slots, [(0, true), (1, true), (2, true)]);
    assert_eq!(slots_of(&mut index, &[key], 1), [(1, false)]);
}
