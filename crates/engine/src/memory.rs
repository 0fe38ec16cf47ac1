//! How much memory things take, for those that keep state: about what the allocator has given for them, found without
//! looking at each element.

use std::collections::{BTreeMap, HashMap};
use std::mem::size_of;

use arrow::array::{Array, RecordBatch};

/// Elements that are looked at where lengths differ.
const SAMPLE: usize = 64;
/// What the allocator and the map add to what stands in a B-tree: nodes are about three quarters full.
const TREE_NUM: usize = 4;
const TREE_DEN: usize = 3;
/// What a small allocation takes beside its bytes, rounding included.
pub(crate) const SMALL: usize = 8;
/// The two counts in front of what an `Arc` holds.
pub(crate) const ARC: usize = 16;

/// Of a vector, without what its elements point at.
pub(crate) fn of_vec<T>(elements: &Vec<T>) -> usize {
    elements.capacity() * size_of::<T>()
}

/// Of a hash map, without what its entries point at: a byte more for each, and an eighth stays free.
pub(crate) fn of_map<K, V>(map: &HashMap<K, V>) -> usize {
    map.capacity() * (size_of::<(K, V)>() + 1) * 8 / 7
}

/// Of a B-tree map with so many entries, without what they point at.
pub(crate) fn of_tree<K, V>(map: &BTreeMap<K, V>) -> usize {
    of_tree_len::<K, V>(map.len())
}

/// The same where only the number of entries is known.
pub(crate) fn of_tree_len<K, V>(len: usize) -> usize {
    len * (size_of::<K>() + size_of::<V>()) * TREE_NUM / TREE_DEN
}

/// Of a B-tree of lists, most of which have few elements.
pub(crate) fn of_lists<K, V>(map: &BTreeMap<K, Vec<V>>) -> usize {
    of_tree(map) + of_sampled(map.len(), map.values(), of_vec)
}

/// Of what the elements point at, from a sample of them; `len`: how many there are.
pub(crate) fn of_sampled<T>(len: usize, elements: impl Iterator<Item = T>, bytes: impl Fn(T) -> usize) -> usize {
    let (mut looked_at, mut sum) = (0, 0);
    for element in elements.take(SAMPLE) {
        looked_at += 1;
        sum += bytes(element);
    }
    (sum * len).checked_div(looked_at).unwrap_or(0)
}

/// Of rows: what they show, not what they share with others.
pub(crate) fn of_rows(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| of_column(column.as_ref())).sum()
}

/// Of a column, in the same way.
pub(crate) fn of_column(column: &dyn Array) -> usize {
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}
