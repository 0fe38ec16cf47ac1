//! `debezium-avro-confluent`: the envelope in which Debezium sends the changes of a database's table. An update gives two
//! rows, what was there and what is there now.

use arrow::datatypes::Fields;
use mainstem_core::change::ChangeKind;

use super::resolve::{Resolver, RowPlan};
use super::schema::{AvroSchema, RecordField, Shape, TypeId};
use super::wire::Wire;
use crate::format::fault::{Fault, Faulty, excerpt};
use crate::format::json::Kinds;
use crate::format::tree::TreeColumn;

/// How envelopes of a schema are read.
pub(super) struct EnvelopePlan {
    /// For each field of the envelope, in the order of the wire.
    fields: Vec<Part>,
    before: Side,
    after: Side,
    /// Rows replace each other by key.
    upsert: bool,
}

/// A field of the envelope.
enum Part {
    Before(TypeId),
    After(TypeId),
    Op(TypeId),
    Other(TypeId),
}

/// A row in the envelope: its plan, and the branches of the union that it is in, with that of the row.
struct Side {
    plan: RowPlan,
    union: Option<(usize, usize)>,
}

impl EnvelopePlan {
    /// A plan for the columns; an error says why the schema is no envelope of them.
    pub(super) fn new(resolver: &mut Resolver<'_>, columns: &Fields, upsert: bool) -> Result<EnvelopePlan, String> {
        let writer = resolver.writer;
        let no_envelope =
            || "the schema is no envelope of Debezium's: a record with 'before', 'after' and 'op'".to_owned();
        let Shape::Record(fields) = &writer.get(writer.root()).shape else { return Err(no_envelope()) };
        let field = |name: &str| fields.iter().find(|field| field.name == name).ok_or_else(no_envelope);
        let op = field("op")?.of;
        let is_text = |of: TypeId| matches!(writer.get(of).shape, Shape::String);
        let op_is_text = match &writer.get(op).shape {
            Shape::Union(branches) => branches.iter().any(|branch| is_text(*branch)),
            _ => is_text(op),
        };
        if !op_is_text {
            return Err(no_envelope());
        }
        let after = Side::new(resolver, field("after")?, columns)?;
        // Both sides have the same type, so that nothing new is to be said of this one.
        let notes = resolver.notes.len();
        let before = Side::new(resolver, field("before")?, columns)?;
        resolver.notes.truncate(notes);
        let part = |field: &RecordField| match field.name.as_str() {
            "before" => Part::Before(field.of),
            "after" => Part::After(field.of),
            "op" => Part::Op(field.of),
            _ => Part::Other(field.of),
        };
        Ok(EnvelopePlan { fields: fields.iter().map(part).collect(), before, after, upsert })
    }

    /// Reads a change and appends its rows.
    pub(super) fn read(
        &self,
        schema: &AvroSchema,
        fields: &Fields,
        columns: &mut [TreeColumn],
        kinds: &mut Kinds,
        wire: &mut Wire<'_>,
    ) -> Faulty<usize> {
        let (mut before, mut after, mut op) = (wire.at, wire.at, (wire.at, &b""[..]));
        for part in &self.fields {
            let at = wire.at;
            match part {
                Part::Before(of) => {
                    before = at;
                    wire.skip(schema, *of)?;
                }
                Part::After(of) => {
                    after = at;
                    wire.skip(schema, *of)?;
                }
                Part::Op(of) => {
                    op = (at, text(schema, *of, wire)?);
                }
                Part::Other(of) => wire.skip(schema, *of)?,
            }
        }
        let end = wire.at;
        let mut row = |side: &Side, at: usize, name: &str, kind: ChangeKind| {
            wire.at = at;
            if !side.read(schema, fields, columns, wire).map_err(|fault| fault.inside(name))? {
                return Err(lacks(op.0, op.1, name));
            }
            kinds.push(kind);
            Ok(())
        };
        let rows = match (op.1, self.upsert) {
            (b"c" | b"r", _) => row(&self.after, after, "after", ChangeKind::Insert).map(|()| 1),
            (b"u", true) => row(&self.after, after, "after", ChangeKind::UpdateAfter).map(|()| 1),
            (b"u", false) => row(&self.before, before, "before", ChangeKind::UpdateBefore)
                .and_then(|()| row(&self.after, after, "after", ChangeKind::UpdateAfter))
                .map(|()| 2),
            (b"d", _) => row(&self.before, before, "before", ChangeKind::Delete).map(|()| 1),
            (other, _) => {
                let other = excerpt(other, 0, 20);
                Err(Fault::new(op.0, format!("the 'op' is '{other}', expected c, r, u or d")))
            }
        }?;
        wire.at = end;
        Ok(rows)
    }
}

impl Side {
    fn new(resolver: &mut Resolver<'_>, field: &RecordField, columns: &Fields) -> Result<Side, String> {
        let writer = resolver.writer;
        let (of, union) = match &writer.get(field.of).shape {
            Shape::Union(branches) => {
                let is_record = |branch: &TypeId| matches!(writer.get(*branch).shape, Shape::Record(_));
                let row = branches.iter().position(is_record);
                let row = row.ok_or_else(|| format!("'{}' of the envelope holds no record", field.name))?;
                (branches[row], Some((branches.len(), row)))
            }
            _ => (field.of, None),
        };
        let Shape::Record(fields) = &writer.get(of).shape else {
            return Err(format!("'{}' of the envelope is no record", field.name));
        };
        Ok(Side { plan: resolver.record(fields, columns, None, "")?, union })
    }

    /// Reads the row; false where there is none.
    fn read(
        &self,
        schema: &AvroSchema,
        fields: &Fields,
        columns: &mut [TreeColumn],
        wire: &mut Wire<'_>,
    ) -> Faulty<bool> {
        if let Some((branches, row)) = self.union
            && wire.index(branches, "branch")? != row
        {
            return Ok(false);
        }
        self.plan.read(schema, columns, &|index| fields[index].name(), wire)?;
        Ok(true)
    }
}

/// A text, which may be in a union.
fn text<'a>(schema: &AvroSchema, of: TypeId, wire: &mut Wire<'a>) -> Faulty<&'a [u8]> {
    match &schema.get(of).shape {
        Shape::String => wire.bytes(),
        Shape::Union(branches) => {
            let branch = branches[wire.index(branches.len(), "branch")?];
            match schema.get(branch).shape {
                Shape::String => wire.bytes(),
                _ => wire.skip(schema, branch).map(|()| &b""[..]),
            }
        }
        _ => wire.skip(schema, of).map(|()| &b""[..]),
    }
}

#[cold]
fn lacks(at: usize, op: &[u8], side: &str) -> Box<Fault> {
    let (what, help) = match op {
        b"u" => ("an update", FULL_IDENTITY),
        b"d" => ("a delete", FULL_IDENTITY),
        _ => ("an insert", ""),
    };
    Fault::new(at, format!("{what} has no '{side}'{}", if side == "before" { help } else { "" }))
}

/// What helps where a database does not send what stood before.
const FULL_IDENTITY: &str = "; make the database send whole rows (PostgreSQL: ALTER TABLE ... REPLICA IDENTITY FULL), or \
     declare the table's PRIMARY KEY and set 'debezium-avro-confluent.upsert' = 'true'";
