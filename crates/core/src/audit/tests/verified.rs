//! Files of lines, and what is done to them.

use super::super::lines::{FileHead, Gap, Line, Verifier};
use super::*;

const TRAIL: &str = "cluster c";

/// Records 1 to `count`.
fn records(count: u64) -> Vec<AuditRecord> {
    let mut head = Head::default();
    let next = |number| {
        let record = AuditRecord::chained(head, Timestamp(number as i64), "coordinator 1", event(number));
        head = record.head();
        record
    };
    (1..=count).map(next).collect()
}

fn file(number: u64, after: Head, records: &[AuditRecord]) -> Vec<Line> {
    let head = Line::File(FileHead::new(TRAIL, 1, number, after));
    std::iter::once(head).chain(records.iter().cloned().map(Line::Record)).collect()
}

/// Two files with five records each.
fn two_files() -> Vec<Vec<Line>> {
    let records = records(10);
    vec![file(1, Head::default(), &records[..5]), file(2, records[4].head(), &records[5..])]
}

/// The error with the file and the line, both from 1 on.
fn verify(files: &[Vec<Line>]) -> Result<Verifier, (usize, usize, String)> {
    let mut verifier = Verifier::default();
    for (file, lines) in files.iter().enumerate() {
        verifier.begin_file();
        for (number, line) in lines.iter().enumerate() {
            verifier.on(line).map_err(|reason| (file + 1, number + 1, reason))?;
        }
    }
    Ok(verifier)
}

#[test]
fn files_as_they_were_written_are_right_also_without_the_oldest() {
    let files = two_files();
    let whole = verify(&files).unwrap();
    assert_eq!((whole.records(), whole.begins_after(), whole.head().seq), (10, 0, 10));
    let newest = verify(&files[1..]).unwrap();
    assert_eq!((newest.records(), newest.begins_after(), newest.head()), (5, 5, whole.head()));
}

#[test]
fn lines_that_are_removed_swapped_doubled_or_replaced_are_found_where_they_are() {
    let check = |change: fn(&mut Vec<Vec<Line>>), place: (usize, usize), said: &str| {
        let mut files = two_files();
        change(&mut files);
        let (file, line, reason) = verify(&files).unwrap_err();
        assert_eq!((file, line), place, "{reason}");
        assert!(reason.contains(said), "{reason}");
    };
    check(|files| _ = files[0].remove(3), (1, 4), "record 4 follows record 2");
    check(|files| files[0].swap(2, 3), (1, 3), "record 3 follows record 1");
    check(
        |files| {
            let twice = files[0][3].clone();
            files[0].insert(4, twice);
        },
        (1, 5),
        "record 3 follows record 3",
    );
    check(
        |files| _ = files[0].pop(),
        (2, 1),
        "the file goes on behind record 5, and the one before ends with record 4",
    );
    check(|files| _ = files[1].remove(0), (2, 1), "the line that a file begins with is missing");
    check(
        |files| {
            let head = files[0][0].clone();
            files[1].insert(2, head);
        },
        (2, 3),
        "in the middle",
    );
    check(|files| files.swap(0, 1), (2, 1), "file 1 follows file 2");
    // Made anew, hash and all: the next record gives it away.
    check(
        |files| {
            let Line::Record(record) = &mut files[0][2] else { unreachable!() };
            let before = Head { seq: 1, hash: record.before };
            *record = AuditRecord::chained(before, Timestamp(2), "somebody else", event(2));
        },
        (1, 4),
        "record 3 does not follow this record 2",
    );
    check(
        |files| {
            let Line::Record(record) = &mut files[1][2] else { unreachable!() };
            record.by = "somebody else".to_owned();
        },
        (2, 3),
        "record 7 was changed",
    );
    check(
        |files| {
            let Line::File(head) = &mut files[0][0] else { unreachable!() };
            head.after.seq = 1;
        },
        (1, 1),
        "begins with was changed",
    );
}

#[test]
fn a_declared_gap_is_right_and_a_changed_one_is_not() {
    let records = records(10);
    let gap = Gap::behind(records[2].head(), records[6].head(), Timestamp(1), "it was down");
    let mut lines = file(1, Head::default(), &records[..3]);
    lines.push(Line::Gap(gap));
    lines.extend(records[7..].iter().cloned().map(Line::Record));
    let right = verify(&[lines.clone()]).unwrap();
    assert_eq!((right.records(), right.gaps(), right.head()), (6, &[(4, 7)][..], records[9].head()));
    for change in [
        |gap: &mut Gap| gap.last = 8,
        |gap: &mut Gap| gap.first = 5,
        |gap: &mut Gap| gap.last = 3,
        |gap: &mut Gap| gap.chain = gap.seal,
        |gap: &mut Gap| gap.at = Timestamp(2),
        |gap: &mut Gap| gap.reason.clear(),
    ] {
        let mut changed = lines.clone();
        let Line::Gap(gap) = &mut changed[4] else { unreachable!() };
        change(gap);
        let (file, line, reason) = verify(&[changed]).unwrap_err();
        assert_eq!((file, line), (1, 5), "{reason}");
        assert!(reason.contains("the gap of records"), "{reason}");
    }
    // Not declared.
    lines.remove(4);
    assert_eq!(verify(&[lines]).unwrap_err().1, 5);
}

#[test]
fn two_nodes_of_one_trail_must_have_the_same_records() {
    let records = records(10);
    let whole = verify(&two_files()).unwrap();
    let mut behind = file(1, Head::default(), &[]);
    behind.push(Line::Gap(Gap::behind(Head::default(), records[7].head(), Timestamp(1), "it was down")));
    behind.extend(records[8..].iter().cloned().map(Line::Record));
    let behind = verify(&[behind]).unwrap();
    assert_eq!((whole.disagrees_with(&behind), behind.disagrees_with(&whole)), (None, None));
    // Made anew from record 6 on, without a fault in itself.
    let mut forged = records[..5].to_vec();
    for number in 6..=10 {
        let before = forged.last().unwrap().head();
        forged.push(AuditRecord::chained(before, Timestamp(1), "somebody else", event(number)));
    }
    let forged = verify(&[file(1, Head::default(), &forged)]).unwrap();
    assert_eq!(forged.disagrees_with(&whole), Some(6));
    assert_eq!(forged.disagrees_with(&behind), Some(8));
    let mut other = file(1, Head::default(), &records[1..1]);
    other[0] = Line::File(FileHead::new("cluster d", 1, 1, Head::default()));
    assert_eq!(forged.disagrees_with(&verify(&[other]).unwrap()), None);
}

#[test]
fn lines_are_read_as_they_were_written() {
    let records = records(1);
    let mut lines = file(1, Head::default(), &records);
    lines.push(Line::Gap(Gap::behind(records[0].head(), records[0].head(), Timestamp(1), "x")));
    for line in lines {
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line);
    }
}
