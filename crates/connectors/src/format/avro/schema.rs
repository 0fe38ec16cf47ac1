//! Avro schemas: JSON text to types in one list, which refer to each other by their place in it, since a record may hold
//! itself. Called by everybody who reads or writes Avro. Follows the specification of Avro 1.12.

use std::collections::BTreeMap;

use arrow::datatypes::TimeUnit;
use serde_json::{Map, Value};

/// A schema.
#[derive(Clone, Debug)]
pub(crate) struct AvroSchema {
    types: Vec<AvroType>,
    root: TypeId,
}

/// The place of a type in its schema.
pub(super) type TypeId = usize;

/// A type: how it lies on the wire, and what it means.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AvroType {
    pub(super) shape: Shape,
    pub(super) logical: Option<Logical>,
}

/// How values of a type lie on the wire.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(TypeId),
    Map(TypeId),
    Record(Vec<RecordField>),
    Union(Vec<TypeId>),
}

/// What values of a type mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logical {
    Decimal {
        precision: u32,
        scale: u32,
    },
    Date,
    TimeMillis,
    TimeMicros,
    /// Since 1970; `local`: of no time zone.
    Timestamp {
        unit: TimeUnit,
        local: bool,
    },
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RecordField {
    pub(super) name: String,
    pub(super) of: TypeId,
    /// What a reader takes for it where the writer has none.
    pub(super) default: Option<Value>,
}

/// What logical types of times are called.
const TIMES: [(&str, Shape, Logical); 9] = [
    ("date", Shape::Int, Logical::Date),
    ("time-millis", Shape::Int, Logical::TimeMillis),
    ("time-micros", Shape::Long, Logical::TimeMicros),
    ("timestamp-millis", Shape::Long, Logical::Timestamp { unit: TimeUnit::Millisecond, local: false }),
    ("timestamp-micros", Shape::Long, Logical::Timestamp { unit: TimeUnit::Microsecond, local: false }),
    ("timestamp-nanos", Shape::Long, Logical::Timestamp { unit: TimeUnit::Nanosecond, local: false }),
    ("local-timestamp-millis", Shape::Long, Logical::Timestamp { unit: TimeUnit::Millisecond, local: true }),
    ("local-timestamp-micros", Shape::Long, Logical::Timestamp { unit: TimeUnit::Microsecond, local: true }),
    ("local-timestamp-nanos", Shape::Long, Logical::Timestamp { unit: TimeUnit::Nanosecond, local: true }),
];

impl AvroSchema {
    /// Reads a schema; `known` are those that it may refer to by name, each after what it refers to itself.
    pub(crate) fn parse(text: &str, known: &[String]) -> Result<AvroSchema, String> {
        let mut parser = Parser { types: Vec::new(), names: BTreeMap::new() };
        for text in known {
            parser.text(text)?;
        }
        let root = parser.text(text)?;
        Ok(AvroSchema { types: parser.types, root })
    }

    /// The type of the values themselves.
    pub(super) fn root(&self) -> TypeId {
        self.root
    }

    /// A type of the schema.
    pub(super) fn get(&self, id: TypeId) -> &AvroType {
        &self.types[id]
    }

    /// What a type is called, for messages.
    pub(super) fn name(&self, id: TypeId) -> String {
        let of = self.get(id);
        let base = match &of.shape {
            Shape::Null => "null",
            Shape::Boolean => "boolean",
            Shape::Int => "int",
            Shape::Long => "long",
            Shape::Float => "float",
            Shape::Double => "double",
            Shape::Bytes => "bytes",
            Shape::String => "string",
            Shape::Fixed(_) => "fixed",
            Shape::Enum(_) => "enum",
            Shape::Array(_) => "array",
            Shape::Map(_) => "map",
            Shape::Record(_) => "record",
            Shape::Union(branches) => {
                let names: Vec<String> = branches.iter().map(|branch| self.name(*branch)).collect();
                return format!("union of {}", names.join(", "));
            }
        };
        match of.logical {
            None => base.to_owned(),
            Some(Logical::Decimal { precision, scale }) => format!("decimal({precision}, {scale})"),
            Some(logical) => {
                let time = TIMES.iter().find(|(_, _, known)| *known == logical);
                time.map_or_else(|| base.to_owned(), |(name, _, _)| (*name).to_owned())
            }
        }
    }
}

struct Parser {
    types: Vec<AvroType>,
    /// Named types by their full names.
    names: BTreeMap<String, TypeId>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<TypeId, String> {
        let text = text.trim();
        // A registry keeps a schema that is a name alone with or without its quotes.
        let value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_') => {
                Value::String(text.to_owned())
            }
            Err(error) => return Err(format!("the schema is no JSON: {error}")),
        };
        self.any(&value, "")
    }

    fn add(&mut self, shape: Shape, logical: Option<Logical>) -> TypeId {
        self.types.push(AvroType { shape, logical });
        self.types.len() - 1
    }

    fn any(&mut self, value: &Value, namespace: &str) -> Result<TypeId, String> {
        match value {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => {
                let branches: Result<Vec<_>, _> = branches.iter().map(|branch| self.any(branch, namespace)).collect();
                let branches = branches?;
                if branches.iter().any(|branch| matches!(self.types[*branch].shape, Shape::Union(_))) {
                    return Err("a union holds another union".to_owned());
                }
                Ok(self.add(Shape::Union(branches), None))
            }
            Value::Object(object) => self.object(object, namespace),
            other => Err(format!("'{other}' is no schema")),
        }
    }

    fn named(&mut self, name: &str, namespace: &str) -> Result<TypeId, String> {
        if let Some(shape) = primitive(name) {
            return Ok(self.add(shape, None));
        }
        let found = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
        found.copied().ok_or_else(|| format!("the schema names the type '{name}', which it does not define"))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let of = object.get("type").ok_or("a part of the schema has no 'type'")?;
        let Value::String(name) = of else { return self.any(of, namespace) };
        match name.as_str() {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let symbols = strings(object, "symbols")?;
                self.define(object, namespace, Shape::Enum(symbols), None).map(|(id, _)| id)
            }
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or("a 'fixed' has no 'size'")?;
                let logical = decimal(object)?;
                self.define(object, namespace, Shape::Fixed(size), logical).map(|(id, _)| id)
            }
            "array" => {
                let items = self.any(object.get("items").ok_or("an 'array' has no 'items'")?, namespace)?;
                Ok(self.add(Shape::Array(items), None))
            }
            "map" => {
                let values = self.any(object.get("values").ok_or("a 'map' has no 'values'")?, namespace)?;
                Ok(self.add(Shape::Map(values), None))
            }
            other => match primitive(other) {
                Some(shape) => {
                    let logical = logical(object, &shape)?;
                    Ok(self.add(shape, logical))
                }
                None => self.named(other, namespace),
            },
        }
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        // It gets its name before its fields are read, which may refer to it.
        let (id, namespace) = self.define(object, namespace, Shape::Record(Vec::new()), None)?;
        let Some(Value::Array(parts)) = object.get("fields") else {
            return Err("a 'record' has no 'fields'".to_owned());
        };
        let mut fields: Vec<RecordField> = Vec::with_capacity(parts.len());
        for part in parts {
            let name = part.get("name").and_then(Value::as_str).ok_or("a field has no 'name'")?;
            let of = part.get("type").ok_or_else(|| format!("the field '{name}' has no 'type'"))?;
            let of = self.any(of, &namespace)?;
            if fields.iter().any(|field| field.name == name) {
                return Err(format!("a record has two fields '{name}'"));
            }
            fields.push(RecordField { name: name.to_owned(), of, default: part.get("default").cloned() });
        }
        self.types[id].shape = Shape::Record(fields);
        Ok(id)
    }

    /// Adds a named type; gives its namespace too.
    fn define(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
        shape: Shape,
        logical: Option<Logical>,
    ) -> Result<(TypeId, String), String> {
        let name = object.get("name").and_then(Value::as_str).ok_or("a named type has no 'name'")?;
        let own = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, own);
        let id = self.add(shape, logical);
        let namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        if self.names.contains_key(&full) {
            return Err(format!("the schema defines the type '{full}' twice"));
        }
        self.names.insert(full, id);
        Ok((id, namespace))
    }
}

fn primitive(name: &str) -> Option<Shape> {
    Some(match name {
        "null" => Shape::Null,
        "boolean" => Shape::Boolean,
        "int" => Shape::Int,
        "long" => Shape::Long,
        "float" => Shape::Float,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "string" => Shape::String,
        _ => return None,
    })
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// A logical type on top of a primitive one; one that is unknown, or does not go with it, means nothing.
fn logical(object: &Map<String, Value>, shape: &Shape) -> Result<Option<Logical>, String> {
    if *shape == Shape::Bytes {
        return decimal(object);
    }
    let Some(name) = object.get("logicalType").and_then(Value::as_str) else { return Ok(None) };
    let known = TIMES.iter().find(|(known, on, _)| *known == name && on == shape);
    Ok(known.map(|(_, _, logical)| *logical))
}

fn decimal(object: &Map<String, Value>) -> Result<Option<Logical>, String> {
    if object.get("logicalType").and_then(Value::as_str) != Some("decimal") {
        return Ok(None);
    }
    let number = |key: &str| object.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let precision = number("precision").filter(|precision| *precision > 0).ok_or("a decimal has no 'precision'")?;
    let scale = if object.contains_key("scale") { number("scale").ok_or("a decimal has a wrong 'scale'")? } else { 0 };
    Ok((scale <= precision).then_some(Logical::Decimal { precision, scale }))
}

fn strings(object: &Map<String, Value>, key: &str) -> Result<Vec<String>, String> {
    let list = object.get(key).and_then(Value::as_array).ok_or_else(|| format!("a type has no '{key}'"))?;
    let texts = list.iter().map(|value| value.as_str().map(str::to_owned));
    texts.collect::<Option<_>>().ok_or_else(|| format!("'{key}' holds something that is no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> String {
        match AvroSchema::parse(text, &[]) {
            Ok(schema) => schema.name(schema.root()),
            Err(error) => error,
        }
    }

    #[test]
    fn types_have_names() {
        for (text, expected) in [
            ("\"int\"", "int"),
            ("int", "int"),
            (r#"{"type":"int","logicalType":"date"}"#, "date"),
            (r#"{"type":"string","logicalType":"date"}"#, "string"),
            (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, "local-timestamp-micros"),
            (r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#, "decimal(10, 2)"),
            (r#"["null",{"type":"array","items":"string"}]"#, "union of null, array"),
            (r#"{"type":{"type":"map","values":"long"}}"#, "map"),
            ("{", "the schema is no JSON: EOF while parsing an object at line 1 column 1"),
            ("[\"null\",[\"int\"]]", "a union holds another union"),
            ("\"other\"", "the schema names the type 'other', which it does not define"),
            (r#"{"type":"fixed","name":"f"}"#, "a 'fixed' has no 'size'"),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }

    #[test]
    fn records_may_hold_themselves_and_types_of_other_texts() {
        let node = r#"{"type":"record","name":"Node","namespace":"a.b","fields":[
            {"name":"next","type":["null","Node"]},{"name":"also","type":"a.b.Node"},{"name":"other","type":"x.Other"}]}"#;
        let other = r#"{"type":"enum","name":"x.Other","symbols":["A"]}"#;
        let schema = AvroSchema::parse(node, &[other.to_owned()]).unwrap();
        let Shape::Record(fields) = &schema.get(schema.root()).shape else { panic!("a record") };
        assert_eq!(fields[1].of, schema.root());
        assert_eq!(schema.get(fields[2].of).shape, Shape::Enum(vec!["A".to_owned()]));
        assert!(AvroSchema::parse(node, &[]).unwrap_err().contains("'x.Other'"));
    }
}
