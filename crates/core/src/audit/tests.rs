//! The chain, what stays of it, what becomes a record, and that no change of a file goes unseen.

mod decided;
mod verified;

use super::*;
use crate::ids::Generation;

pub(super) fn job() -> JobId {
    JobId::new("j").unwrap()
}

fn event(number: u64) -> Event {
    Event::new(What::AttemptStarted, Some(&job()))
        .fact("attempt", Generation(number))
        .because(format!("reason {number}"))
}

#[test]
fn names_are_read_as_written_and_each_has_its_own() {
    let names: std::collections::BTreeSet<&str> = What::ALL.iter().map(|what| what.name()).collect();
    assert_eq!(names.len(), What::ALL.len());
    for what in What::ALL {
        let json = serde_json::to_string(what).unwrap();
        assert_eq!(json, format!("\"{what}\""));
        assert_eq!(serde_json::from_str::<What>(&json).unwrap(), *what);
    }
    assert!(serde_json::from_str::<What>("\"other\"").is_err());
}

#[test]
fn hashes_have_one_form() {
    let hash = AuditRecord::chained(Head::default(), Timestamp(1), "x", event(1)).hash;
    let text = hash.to_string();
    assert_eq!(AuditHash::try_from(text.clone()), Ok(hash));
    for wrong in [text[1..].to_owned(), format!("{text}0"), text.to_uppercase(), format!("g{}", &text[1..])] {
        assert!(AuditHash::try_from(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn every_part_of_a_record_is_in_its_hash() {
    let whole =
        AuditRecord::chained(Head { seq: 6, hash: AuditHash::default() }, Timestamp(5), "coordinator 1", event(3));
    assert!(whole.is_whole());
    assert_eq!(whole.head(), Head { seq: 7, hash: whole.hash });
    let changes: [fn(&mut AuditRecord); 9] = [
        |record| record.seq += 1,
        |record| record.at = Timestamp(6),
        |record| record.by.push(' '),
        |record| record.job = None,
        |record| record.what = What::AttemptAdopted,
        |record| record.reason.clear(),
        |record| record.before = record.hash,
        |record| _ = record.facts.insert("more".to_owned(), String::new()),
        // What moves from one part to the next.
        |record| {
            record.by.pop();
            record.job = Some(JobId::new("1j").unwrap());
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = whole.clone();
        change(&mut changed);
        assert!(!changed.is_whole(), "change {number}");
    }
}

/// Worked out by another program from `docs/formats/audit.md`.
#[test]
fn the_canonical_form_is_the_documented_one() {
    let first = AuditRecord::chained(Head::default(), Timestamp(1_700_000_000_123), "coordinator 1", event(1));
    assert_eq!(first.hash.to_string(), "4de291e2a9819eacd11109318663256930af67d1202c5f00b1d144a418dceb34");
    let head = lines::FileHead::new("cluster mainstem", 2, 3, first.head());
    assert_eq!(head.seal.to_string(), "f6baedfa6e28ee1ab0374661dab5637c3377926f6eb041951744268e921ff1ba");
    let gap = lines::Gap::behind(first.head(), Head { seq: 9, hash: first.hash }, Timestamp(-5), "läuft nicht");
    assert_eq!(gap.seal.to_string(), "e86076bff5702ebb141750b968ca3445f76ebd4f3e0ef2e90614aee25fe91f86");
}

#[test]
fn long_texts_are_cut_where_a_letter_ends() {
    let long = "ä".repeat(REASON_BYTES_MAX);
    let record = AuditRecord::chained(Head::default(), Timestamp(1), &long, event(1).because(long.clone()));
    assert_eq!(record.reason.len(), REASON_BYTES_MAX + '…'.len_utf8());
    assert!(record.by.len() <= FACT_BYTES_MAX + '…'.len_utf8() && record.by.ends_with("ä…"));
}

#[test]
fn each_class_keeps_its_own_newest_records() {
    let mut trail = Trail::default();
    let submitted = Event::new(What::JobSubmitted, Some(&job()));
    trail.add(Timestamp(1), "ada", submitted);
    for number in 0..5_000 {
        trail.add(Timestamp(number), "coordinator 1", Event::new(What::OutputPublished, Some(&job())));
    }
    trail.add(Timestamp(9), "coordinator 1", event(2));
    assert_eq!(trail.head().seq, 5_002);
    let all = trail.newest(10_000, |_| true);
    assert_eq!((all.len(), all[0].what, all[513].what), (514, What::JobSubmitted, What::AttemptStarted));
    assert!(all.is_sorted_by_key(|record| record.seq));
    let asked = trail.newest(10, |record| record.what.class() != Class::Routine);
    assert_eq!(asked.iter().map(|record| record.seq).collect::<Vec<_>>(), [1, 5_002]);
    assert_eq!(trail.newest(1, |record| record.what.class() != Class::Routine)[0].seq, 5_002);
    let json = serde_json::to_string(&trail).unwrap();
    assert!(json.len() < 500_000, "{}", json.len());
    assert_eq!(serde_json::from_str::<Trail>(&json).unwrap(), trail);
}

#[test]
fn what_is_kept_no_more_is_a_gap_with_its_end() {
    let mut trail = Trail::default();
    trail.add(Timestamp(1), "ada", Event::new(What::JobSubmitted, Some(&job())));
    assert_eq!(trail.since(0).len(), 1);
    assert_eq!(trail.since(1), []);
    for number in 0..600 {
        trail.add(Timestamp(number), "coordinator 1", Event::new(What::OutputPublished, Some(&job())));
    }
    let parts = trail.since(0);
    assert_eq!(parts.len(), 1 + 1 + 512);
    let (Part::Record(first), Part::Gap { first: 2, last }, Part::Record(next)) = (&parts[0], &parts[1], &parts[2])
    else {
        panic!("{:?}", &parts[..3]);
    };
    assert_eq!((first.seq, last.seq, next.seq), (1, 89, 90));
    assert_eq!(last.hash, next.before);
    let elsewhere = Trail::going_on_from(trail.head());
    assert_eq!(elsewhere.since(600), [Part::Gap { first: 601, last: trail.head() }]);
}
