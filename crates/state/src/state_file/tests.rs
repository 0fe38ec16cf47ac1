//! The bytes of state files.

mod golden;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};

use super::*;

fn delta(table: &str, key_groups: Vec<u16>) -> TableDelta {
    let rows = key_groups.len() as i64;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..rows).map(|i| (i % 3 > 0).then_some(i))));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|i| format!("name {i}"))));
    let rows = RecordBatch::try_from_iter_with_nullable([("n", numbers, true), ("s", names, false)]).unwrap();
    TableDelta { table: table.to_owned(), version: 4, key: vec![1], key_groups, rows }
}

fn decode(bytes: &[u8], range: KeyGroupRange) -> Result<Vec<TableDelta>, String> {
    if !is_readable(bytes, HEADER) {
        return Err("header".to_owned());
    }
    let start = Footer::start(bytes, bytes.len() as u64)?;
    let footer = Footer::decode(&bytes[start as usize..], start)?;
    let mut deltas = Vec::new();
    for table in &footer.tables {
        for block in &table.blocks {
            let content = &bytes[block.offset as usize..(block.offset + block.length) as usize];
            deltas.extend(decode_block(&table.head, block, content, range)?);
        }
    }
    Ok(deltas)
}

fn encode(tables: &[TableDelta]) -> Result<(Vec<u8>, KeyGroupRange), StateError> {
    let tables: Vec<GroupedTable> = tables.iter().cloned().map(GroupedTable::from).collect();
    let encoded = super::encode(&tables)?;
    let bytes = encoded.bytes.iter().flatten().copied().collect::<Vec<u8>>();
    assert_eq!(crc32c::crc32c(&bytes), encoded.crc32c);
    Ok((bytes, encoded.key_groups))
}

const ALL: KeyGroupRange = KeyGroupRange { start: 0, end: u16::MAX };

#[test]
fn tables_come_back_as_they_went() {
    let tables = [delta("a", vec![1, 1, 5, 9]), delta("b", vec![0; 3]), delta("empty", vec![])];
    let (bytes, key_groups) = encode(&tables).unwrap();
    assert_eq!(key_groups, KeyGroupRange { start: 0, end: 10 });
    assert_eq!(decode(&bytes, ALL).unwrap(), tables[..2]);
    let (nothing, _) = encode(&[]).unwrap();
    assert_eq!(decode(&nothing, ALL).unwrap(), vec![]);
}

#[test]
fn only_the_rows_of_the_range_come() {
    let table = delta("a", vec![1, 1, 5, 9]);
    let (bytes, _) = encode(std::slice::from_ref(&table)).unwrap();
    for (start, end, first, count) in [(0, 2, 0, 2), (2, 9, 2, 1), (5, 10, 2, 2), (6, 9, 0, 0), (10, 20, 0, 0)] {
        let got = decode(&bytes, KeyGroupRange { start, end }).unwrap();
        let rows: usize = got.iter().map(|d| d.rows.num_rows()).sum();
        assert_eq!(rows, count);
        for got in got {
            assert_eq!(got.key_groups, table.key_groups[first..first + count]);
            assert_eq!(got.rows, table.rows.slice(first, count));
        }
    }
}

#[test]
fn rows_of_several_batches_are_written_in_the_order_asked_for() {
    let all = delta("a", vec![1, 1, 5, 9, 9]);
    let batches = vec![all.rows.slice(3, 2), all.rows.slice(0, 3)];
    let places = Some(vec![(1, 0), (1, 1), (1, 2), (0, 0), (0, 1)]);
    let table = GroupedTable { batches, places, ..GroupedTable::from(all.clone()) };
    let bytes: Vec<u8> = super::encode(std::slice::from_ref(&table)).unwrap().bytes.iter().flatten().copied().collect();
    assert_eq!(decode(&bytes, ALL).unwrap(), [all]);
    let orderless = GroupedTable { places: None, ..table };
    assert!(matches!(super::encode(&[orderless]), Err(StateError::Bug(_))));
}

#[test]
fn large_tables_are_cut_into_blocks_at_key_groups() {
    // 10 MB of rows in 100 groups, and one group that is a third of them.
    let key_groups: Vec<u16> = (0..100_000u32).map(|i| if i > 66_000 { 200 } else { (i / 660) as u16 }).collect();
    let bounds = block_bounds(&key_groups, 40 << 20);
    assert_eq!(bounds.first().map(|b| b.0), Some(0));
    assert_eq!(bounds.last().map(|b| b.1), Some(key_groups.len()));
    assert!(bounds.windows(2).all(|pair| pair[0].1 == pair[1].0));
    assert!((8..=12).contains(&bounds.len()), "{bounds:?}");
    let cuts_in_groups =
        bounds.iter().filter(|(_, end)| *end < key_groups.len() && key_groups[*end - 1] == key_groups[*end]);
    assert!(cuts_in_groups.count() <= 3);
    let table = delta("big", key_groups);
    let (bytes, _) = encode(std::slice::from_ref(&table)).unwrap();
    let got = decode(&bytes, ALL).unwrap();
    let rows: Vec<_> = got.iter().map(|d| d.rows.clone()).collect();
    assert_eq!(arrow::compute::concat_batches(table.rows.schema_ref(), &rows).unwrap(), table.rows);
    assert_eq!(got.into_iter().flat_map(|d| d.key_groups).collect::<Vec<_>>(), table.key_groups);
}

#[test]
fn every_changed_byte_and_every_truncation_is_noticed() {
    let (bytes, _) = encode(&[delta("a", vec![1, 1, 5, 9]), delta("b", vec![3])]).unwrap();
    decode(&bytes, ALL).unwrap();
    for position in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[position] ^= 1 << (position % 8);
        assert!(decode(&damaged, ALL).is_err(), "byte {position}");
        assert!(decode(&bytes[..position], ALL).is_err(), "cut at {position}");
    }
}

#[test]
fn forged_bytes_with_good_checksums_are_errors() {
    let mut forged = HEADER.to_vec();
    forged.extend_from_slice(&[0xff; 64]);
    let crc32c = crc32c::crc32c(&forged[8..]);
    let block = Block { offset: 8, length: 64, crc32c, runs: vec![(0, 1)] };
    let head = TableHead { name: "a".to_owned(), version: 1, key: Vec::new() };
    let footer = Footer { tables: vec![Table { head, blocks: vec![block] }] };
    encode_footer(&footer, &mut forged).unwrap();
    assert!(decode(&forged, ALL).is_err());
}

#[test]
fn unsorted_key_groups_are_a_bug() {
    assert!(matches!(encode(&[delta("a", vec![2, 1])]), Err(StateError::Bug(_))));
    let short = TableDelta { key_groups: vec![1], ..delta("a", vec![1, 2]) };
    assert!(matches!(encode(&[short]), Err(StateError::Bug(_))));
}
