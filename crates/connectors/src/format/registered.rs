//! Records that name their schema: the magic byte, the id in the registry, and what is known of the schemas that have come
//! up. Shared by Avro and Protobuf. The registry itself is asked before records are decoded, by the reader, which may wait.

use std::collections::BTreeMap;

use super::fault::{Fault, Faulty};
use crate::schema_registry::{RegisteredSchema, SchemaChanges, SchemaKind, SchemaRegistry};

/// Bytes before the record: the magic byte and the id.
pub(super) const HEAD: usize = 5;
/// Schemas that a decoder keeps the plans of.
const KEPT_MAX: usize = 1_000;

/// What a record says of its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SchemaKey {
    /// Its id in the registry.
    pub(super) id: u32,
    /// Which message of the schema, packed, where a schema has several; else 0.
    pub(super) message: u128,
}

/// How records of a schema are read, or why they are not.
pub(super) enum Learned<P> {
    Plan(P),
    Refused(Box<Fault>),
}

/// The schemas that have come up. One that is not among them is none that the registry knows: whoever decodes has asked it
/// about all of [`LearnedSchemas::unknown`] before.
pub(super) struct LearnedSchemas<P>(BTreeMap<SchemaKey, Learned<P>>);

impl<P> Default for LearnedSchemas<P> {
    fn default() -> Self {
        LearnedSchemas(BTreeMap::new())
    }
}

impl<P> LearnedSchemas<P> {
    /// The schema, if it is not known.
    pub(super) fn unknown(&self, key: SchemaKey) -> Option<SchemaKey> {
        (!self.0.contains_key(&key)).then_some(key)
    }

    /// Forgets all schemas where there are too many for some more; they are asked for again as they come up.
    pub(super) fn make_room(&mut self, wanted: usize) {
        if self.0.len() + wanted > KEPT_MAX {
            self.0.clear();
        }
    }

    /// Takes note of a schema; without one the registry has none of that id.
    pub(super) fn learn(&mut self, key: SchemaKey, learned: Option<Learned<P>>) {
        if let Some(learned) = learned {
            self.0.insert(key, learned);
        }
    }

    /// What is known of a schema.
    #[inline]
    pub(super) fn plan(&self, key: SchemaKey) -> Faulty<&Learned<P>> {
        match self.0.get(&key) {
            Some(plan) => Ok(plan),
            None => Err(Fault::new(1, format!("the schema registry does not know the schema id {}", key.id))),
        }
    }
}

/// The id in a record's head.
#[inline]
pub(super) fn id_of(record: &[u8]) -> Faulty<u32> {
    match record {
        [0, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        [0, ..] => Err(Fault::new(0, format!("the record has {} bytes, too few for the id of a schema", record.len()))),
        [magic, ..] => Err(Fault::new(
            0,
            format!("the record has the magic byte {magic}, expected 0: it was not written with a schema registry"),
        )),
        [] => Err(Fault::new(0, "the record is empty, without magic byte and id of a schema")),
    }
}

/// Compares a schema with the table by `plan`, which gives a plan and the differences that do no harm, and decides by the
/// user's rule. Told once of each schema.
pub(super) fn resolved<P>(
    registry: &SchemaRegistry,
    key: SchemaKey,
    kind: SchemaKind,
    found: Option<&RegisteredSchema>,
    plan: impl FnOnce(&RegisteredSchema) -> Result<(P, Vec<String>), String>,
) -> Option<Learned<P>> {
    let found = found?;
    let options = &registry.options;
    let compared = match found.kind == kind {
        true => plan(found),
        false => Err(format!("it is of the type {}, not {}", found.kind.name(), kind.name())),
    };
    let SchemaKey { id, message } = key;
    let is_news = registry.is_news((id, message));
    let verdict = judge(options.changes, compared);
    let (table, schema) = (&options.table, id);
    Some(match verdict {
        Verdict::Accepted(plan, notes) => {
            if is_news && !notes.is_empty() {
                tracing::info!(table, schema, differences = notes.join("; "), "records of another schema are adapted");
            }
            Learned::Plan(plan)
        }
        Verdict::Refused { reason, stops } => {
            if is_news {
                tracing::warn!(table, schema, reason, "a schema does not fit the table");
            }
            let format = &options.format;
            let help = match (stops, options.changes) {
                (true, SchemaChanges::Fail) => format!(
                    "; '{format}.schema-changes' = 'fail' lets nothing differ: change the declared columns, or set it to 'adapt'"
                ),
                (true, _) => format!(
                    "; change the declared columns, or set '{format}.schema-changes' = 'bad-record' to have such records go by 'bad-records'"
                ),
                (false, _) => String::new(),
            };
            let fault =
                Fault::new(1, format!("the schema {id} of the registry does not fit the table: {reason}{help}"));
            Learned::Refused(if stops { fault.stopping() } else { fault })
        }
    })
}

/// What is done with a schema.
#[derive(Debug, PartialEq)]
enum Verdict<P> {
    Accepted(P, Vec<String>),
    /// Its records cannot be read; whether that stops the job whatever becomes of bad records.
    Refused {
        reason: String,
        stops: bool,
    },
}

/// The compatibility rule.
fn judge<P>(rule: SchemaChanges, compared: Result<(P, Vec<String>), String>) -> Verdict<P> {
    match (compared, rule) {
        (Ok((_, notes)), SchemaChanges::Fail) if !notes.is_empty() => {
            Verdict::Refused { reason: notes.join("; "), stops: true }
        }
        (Ok((plan, notes)), _) => Verdict::Accepted(plan, notes),
        (Err(reason), rule) => Verdict::Refused { reason, stops: rule != SchemaChanges::BadRecord },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_looked_at_before_anything_else() {
        assert_eq!(id_of(&[0, 0, 0, 1, 2, 9]).unwrap(), 258);
        for (record, part) in [
            (&[][..], "the record is empty"),
            (&[0, 1, 2], "3 bytes, too few"),
            (b"{\"a\":1}", "the magic byte 123, expected 0"),
        ] {
            let fault = id_of(record).unwrap_err();
            assert!(fault.describe().contains(part), "{}", fault.describe());
        }
    }

    #[test]
    fn the_rule_decides_about_differences() {
        let same = || Ok(((), vec![]));
        let differs = || Ok(((), vec!["more".to_owned()]));
        let wrong = || Err("wrong".to_owned());
        let refused = |reason: &str, stops| Verdict::Refused { reason: reason.to_owned(), stops };
        use SchemaChanges::{Adapt, BadRecord, Fail};
        for rule in [Adapt, Fail, BadRecord] {
            assert_eq!(judge(rule, same()), Verdict::Accepted((), vec![]));
        }
        assert_eq!(judge(Adapt, differs()), Verdict::Accepted((), vec!["more".to_owned()]));
        assert_eq!(judge(BadRecord, differs()), Verdict::Accepted((), vec!["more".to_owned()]));
        assert_eq!(judge(Fail, differs()), refused("more", true));
        assert_eq!(judge(Adapt, wrong()), refused("wrong", true));
        assert_eq!(judge(Fail, wrong()), refused("wrong", true));
        assert_eq!(judge(BadRecord, wrong()), refused("wrong", false));
    }

    #[test]
    fn what_is_unknown_is_asked_for_again() {
        let mut schemas = LearnedSchemas::<u8>::default();
        let key = SchemaKey { id: 7, message: 1 };
        assert_eq!(schemas.unknown(key), Some(key));
        schemas.learn(key, None);
        assert!(schemas.plan(key).is_err_and(|fault| fault.describe().contains("does not know the schema id 7")));
        assert_eq!(schemas.unknown(key), Some(key));
        schemas.learn(key, Some(Learned::Plan(1)));
        assert_eq!(schemas.unknown(key), None);
        assert!(matches!(schemas.plan(key), Ok(Learned::Plan(1))));
        assert_eq!(schemas.unknown(SchemaKey { message: 2, ..key }), Some(SchemaKey { message: 2, ..key }));
    }
}
