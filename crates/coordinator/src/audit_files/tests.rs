//! Files on a disk, their ends, and what is done to them in between.

use mainstem_core::audit::{Event, Trail, What};

use super::*;

struct Node {
    directory: tempfile::TempDir,
    bytes_max: u64,
}

impl Node {
    fn new(bytes_max: u64) -> Node {
        Node { directory: tempfile::tempdir().unwrap(), bytes_max }
    }

    fn open(&self) -> AuditFiles {
        let (directory, trail) = (self.directory.path().to_owned(), "cluster c".to_owned());
        AuditFiles::open(AuditOptions { directory, trail, node: 1, bytes_max: self.bytes_max }).unwrap()
    }

    /// All files, in order.
    fn paths(&self) -> Vec<PathBuf> {
        let numbers = numbers(self.directory.path()).unwrap();
        numbers.into_iter().map(|number| self.directory.path().join(format!("audit-{number:06}.jsonl"))).collect()
    }

    fn verify(&self) -> Result<AuditVerdict, String> {
        let verdicts = verify(&self.paths()).map_err(|faults| faults[0].to_string())?;
        Ok(verdicts.into_iter().next().unwrap())
    }
}

fn decide(trail: &mut Trail, count: u64) {
    for _ in 0..count {
        let seq = trail.head().seq + 1;
        let event =
            Event::new(What::OutputPublished, None).fact("epoch", seq).because("its \u{1f} \"checkpoint\" is complete");
        trail.add(Timestamp(seq as i64), "coordinator 1", event);
    }
}

fn append(files: &mut AuditFiles, trail: &Trail) {
    let last = files.head().unwrap();
    files.append(trail.since(last.seq), Timestamp(7)).unwrap();
}

#[test]
fn files_are_rotated_and_the_chain_goes_on_over_them_and_over_restarts() {
    let (node, mut trail) = (Node::new(8 * 4_000), Trail::default());
    let mut files = node.open();
    for round in 0..40 {
        decide(&mut trail, 5);
        append(&mut files, &trail);
        if round % 7 == 0 {
            files = node.open();
            assert_eq!(files.head().unwrap(), trail.head());
        }
    }
    files.sync().unwrap();
    let paths = node.paths();
    assert_eq!(paths.len(), FILES as usize, "{paths:?}");
    let sizes: Vec<u64> = paths.iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert!(sizes.iter().all(|size| *size <= 4_000) && sizes[1] > 3_000, "{sizes:?}");
    let verdict = node.verify().unwrap();
    assert_eq!((verdict.files, verdict.found.head()), (8, trail.head()));
    assert_eq!(verdict.found.begins_after() + verdict.found.records(), 200);
    assert!(verdict.found.begins_after() > 0, "the oldest are given up");
    fs::remove_file(&paths[3]).unwrap();
    assert!(node.verify().unwrap_err().contains("audit-00"), "{:?}", node.verify());
}

/// Whatever byte is changed, and however, that is found, in its line.
#[test]
fn every_changed_byte_is_found_where_it_is() {
    let (node, mut trail) = (Node::new(1 << 20), Trail::default());
    decide(&mut trail, 2);
    append(&mut node.open(), &trail);
    let elsewhere = Trail::going_on_from(Head { seq: 9, ..trail.head() });
    node.open().append(elsewhere.since(2), Timestamp(5)).unwrap();
    let path = node.paths().remove(0);
    let whole = fs::read(&path).unwrap();
    assert_eq!(node.verify().unwrap().found.gaps(), [(3, 9)]);
    let mut line = 1;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            let (found, reason) = scan(&changed).expect_err("a changed byte");
            assert_eq!(found, line, "byte {at}, bit {bit}: {reason}");
        }
        line += u64::from(whole[at] == b'\n');
    }
    assert_eq!(line, 5);
}

#[test]
fn a_line_without_an_end_is_cut_off_and_written_again() {
    let (node, mut trail) = (Node::new(1 << 20), Trail::default());
    decide(&mut trail, 3);
    append(&mut node.open(), &trail);
    let path = node.paths().remove(0);
    let whole = fs::read(&path).unwrap();
    let lines: Vec<usize> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    // Within the first line, the second, the last; without the last end.
    for end in [5, lines[0] + 5, lines[2] + 9, whole.len() - 1, lines[1] + 1, 0] {
        fs::write(&path, &whole[..end]).unwrap();
        if !lines.contains(&end.wrapping_sub(1)) && end > 0 {
            assert!(node.verify().unwrap_err().contains("it has no end"), "{end}");
        }
        append(&mut node.open(), &trail);
        assert_eq!(fs::read(&path).unwrap(), whole, "{end}");
    }
    // Power was lost: the file had grown before its content came.
    fs::write(&path, [&whole[..lines[2] + 1], &[0; 50]].concat()).unwrap();
    append(&mut node.open(), &trail);
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn a_damaged_file_is_left_as_it_is_and_another_one_goes_on() {
    let (node, mut trail) = (Node::new(1 << 20), Trail::default());
    decide(&mut trail, 3);
    append(&mut node.open(), &trail);
    let path = node.paths().remove(0);
    let mut damaged = fs::read(&path).unwrap();
    let at = damaged.iter().position(|byte| *byte == b'\n').unwrap() + 20;
    damaged[at] ^= 1;
    fs::write(&path, &damaged).unwrap();
    decide(&mut trail, 2);
    append(&mut node.open(), &trail);
    assert_eq!(fs::read(&path).unwrap(), damaged);
    let paths = node.paths();
    assert_eq!(paths.len(), 2);
    assert!(node.verify().unwrap_err().contains("audit-000001.jsonl: line 2: "), "{:?}", node.verify());
    let newest = verify(&paths[1..]).unwrap();
    assert_eq!((newest[0].found.begins_after(), newest[0].found.head()), (3, trail.head()));
}

#[test]
fn what_was_missed_is_declared_and_what_does_not_follow_is_not_hidden() {
    let (node, mut trail) = (Node::new(64 << 20), Trail::default());
    decide(&mut trail, 3);
    append(&mut node.open(), &trail);
    decide(&mut trail, 1_000);
    append(&mut node.open(), &trail);
    let verdict = node.verify().unwrap();
    assert_eq!((verdict.found.gaps(), verdict.found.head()), (&[(4, 491)][..], trail.head()));
    // The state of another cluster, or of one that was begun anew.
    let mut other = Trail::default();
    decide(&mut other, 10);
    other.add(Timestamp(1), "somebody", Event::new(What::JobForgotten, None));
    decide(&mut other, 1_500);
    append(&mut node.open(), &other);
    assert!(node.verify().unwrap_err().contains("audit-000002.jsonl: line 1: the file goes on behind record"));
}

#[test]
fn nodes_are_compared() {
    let (one, two, mut trail) = (Node::new(1 << 20), Node::new(1 << 20), Trail::default());
    decide(&mut trail, 5);
    append(&mut one.open(), &trail);
    append(&mut two.open(), &trail);
    let all = |one: &Node, two: &Node| verify(&[one.paths(), two.paths()].concat());
    assert_eq!(all(&one, &two).unwrap().len(), 2);
    let forged = Node::new(1 << 20);
    let mut made_anew = Trail::default();
    decide(&mut made_anew, 2);
    made_anew.add(Timestamp(1), "somebody else", Event::new(What::JobForgotten, None));
    decide(&mut made_anew, 2);
    append(&mut forged.open(), &made_anew);
    let faults = all(&one, &forged).unwrap_err();
    assert!(matches!(faults[..], [AuditFault::Disagree { seq: 3, .. }]), "{faults:?}");
    assert!(matches!(verify(&[PathBuf::from("/nowhere/audit")]).unwrap_err()[..], [AuditFault::Unreadable { .. }]));
}
