//! A client of schema registries that speak Confluent's REST protocol: which schema an id stands for, and the id of a
//! schema that is to be written with. Called by the readers of formats with a registry before they decode, and by writers
//! before their first record. What a schema means is the formats' business.
//!
//! Invariants:
//! - A registry that cannot be reached is never taken for one that does not know an id: the first is tried again and then
//!   fails the attempt, the second is the record's fault.
//! - What is kept is bounded, as is each answer, each wait and each number of attempts.

mod client;
mod options;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::error::{ConnectorError, ErrorKind};

use client::{Answer, RestClient};

pub(crate) use options::{RegistryOptions, SchemaChanges};

/// Schemas that are kept.
const KEPT_MAX: usize = 1_000;
/// How long an id counts as unknown before it is asked for again: it may be registered later.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);
/// Schemas that one schema may refer to, and those in turn.
const REFERENCES_MAX: usize = 64;

/// A registry, as one table uses it.
pub(crate) struct SchemaRegistry {
    pub(crate) options: RegistryOptions,
    /// Made with the first request; none: that has failed.
    client: tokio::sync::OnceCell<RestClient>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    schemas: BTreeMap<u32, Arc<RegisteredSchema>>,
    unknown: BTreeMap<u32, Instant>,
    /// Ids whose schema was compared with the table, and the user told of it.
    told: BTreeSet<(u32, u128)>,
}

/// What a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemaKind {
    Avro,
    Protobuf,
    Json,
}

/// A schema that a registry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegisteredSchema {
    pub(crate) kind: SchemaKind,
    pub(crate) text: String,
    /// Those that it refers to, by the name that it uses, each after what it refers to itself.
    pub(crate) references: Vec<(String, String)>,
}

/// A schema in an answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    schema: String,
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

impl SchemaRegistry {
    /// The registry of a table; connects to nothing.
    pub(crate) fn new(options: RegistryOptions) -> SchemaRegistry {
        SchemaRegistry { options, client: tokio::sync::OnceCell::new(), kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn client(&self) -> Result<&RestClient, ConnectorError> {
        self.client.get_or_try_init(|| async { RestClient::new(&self.options) }).await
    }

    /// The schema of an id; none where the registry does not know it.
    ///
    /// # Errors
    /// Transient where the registry has not answered after several attempts; else it refuses.
    pub(crate) async fn schema(&self, id: u32) -> Result<Option<Arc<RegisteredSchema>>, ConnectorError> {
        {
            let mut kept = self.kept();
            if let Some(schema) = kept.schemas.get(&id) {
                return Ok(Some(schema.clone()));
            }
            match kept.unknown.get(&id) {
                Some(since) if since.elapsed() < UNKNOWN_FOR => return Ok(None),
                Some(_) => drop(kept.unknown.remove(&id)),
                None => {}
            }
        }
        let id_text = id.to_string();
        let answer = self.client().await?.get(&["schemas", "ids", &id_text]).await?;
        let Answer::Found(body) = answer else {
            let mut kept = self.kept();
            kept.unknown.insert(id, Instant::now());
            if kept.unknown.len() > KEPT_MAX {
                kept.unknown.pop_first();
            }
            return Ok(None);
        };
        let described = self.described(&body)?;
        let kind = self.kind(described.schema_type.as_deref())?;
        let references = self.references(described.references).await?;
        let schema = Arc::new(RegisteredSchema { kind, text: described.schema, references });
        let mut kept = self.kept();
        kept.schemas.insert(id, schema.clone());
        if kept.schemas.len() > KEPT_MAX {
            kept.schemas.pop_first();
        }
        Ok(Some(schema))
    }

    /// Registers the schema that a table is written with, unless it is there, and gives its id.
    ///
    /// # Errors
    /// As [`SchemaRegistry::schema`], and where it is not compatible with what the subject has.
    pub(crate) async fn register(&self, subject: &str, kind: SchemaKind, text: &str) -> Result<i32, ConnectorError> {
        #[derive(Deserialize)]
        struct Registered {
            id: i32,
        }
        let mut body = serde_json::json!({ "schema": text });
        if kind != SchemaKind::Avro {
            // Registries from before there were several kinds do not know the member.
            body["schemaType"] = serde_json::json!(kind.name());
        }
        let client = self.client().await?;
        let path = ["subjects", subject, "versions"];
        let answer = match self.options.auto_register {
            true => client.post(&path, &body).await?,
            // Only asks whether the subject has it.
            false => client.post(&path[..2], &body).await?,
        };
        let Answer::Found(answer) = answer else {
            let message = format!(
                "the schema registry at {} has not got the schema of table '{}' under the subject '{subject}'; register it, or set '{}.auto.register.schemas' = 'true'. The schema is: {text}",
                self.options.shown(),
                self.options.table,
                self.options.format
            );
            return Err(ConnectorError::new(ErrorKind::External, message));
        };
        let registered: Registered = self.parsed(&answer)?;
        Ok(registered.id)
    }

    /// True the first time that an id, with the number of a message of it, is asked about.
    pub(crate) fn is_news(&self, schema: (u32, u128)) -> bool {
        let mut kept = self.kept();
        if kept.told.len() > KEPT_MAX {
            kept.told.pop_first();
        }
        kept.told.insert(schema)
    }

    /// All that is referred to, innermost first, each once.
    async fn references(&self, first: Vec<Reference>) -> Result<Vec<(String, String)>, ConnectorError> {
        // Depth first without recursion: what is found later is needed earlier.
        let mut wanted: Vec<Reference> = first;
        let mut found: Vec<(String, String)> = Vec::new();
        let mut asked = 0;
        while let Some(Reference { name, subject, version }) = wanted.pop() {
            asked += 1;
            if asked > REFERENCES_MAX {
                let message = format!(
                    "a schema in the registry at {} refers to more than {REFERENCES_MAX} others (the last is '{name}')",
                    self.options.shown()
                );
                return Err(ConnectorError::data(message));
            }
            let path = ["subjects", &subject, "versions", &version.to_string()];
            let Answer::Found(body) = self.client().await?.get(&path).await? else {
                let message = format!(
                    "a schema in the registry at {} refers to version {version} of the subject '{subject}', which is not there",
                    self.options.shown()
                );
                return Err(ConnectorError::data(message));
            };
            let described = self.described(&body)?;
            wanted.extend(described.references);
            found.retain(|(known, _)| *known != name);
            found.push((name, described.schema));
        }
        found.reverse();
        Ok(found)
    }

    fn described(&self, body: &[u8]) -> Result<Described, ConnectorError> {
        self.parsed(body)
    }

    fn kind(&self, name: Option<&str>) -> Result<SchemaKind, ConnectorError> {
        match name {
            None | Some("AVRO") => Ok(SchemaKind::Avro),
            Some("PROTOBUF") => Ok(SchemaKind::Protobuf),
            Some("JSON") => Ok(SchemaKind::Json),
            Some(other) => Err(ConnectorError::data(format!(
                "the schema registry at {} has a schema of the type '{other}', which is none of AVRO, PROTOBUF, JSON",
                self.options.shown()
            ))),
        }
    }

    fn parsed<'a, T: Deserialize<'a>>(&self, body: &'a [u8]) -> Result<T, ConnectorError> {
        serde_json::from_slice(body).map_err(|error| {
            ConnectorError::new(
                ErrorKind::External,
                format!(
                    "what answers at {} is no schema registry ({error}); check '{}.url'",
                    self.options.shown(),
                    self.options.format
                ),
            )
        })
    }
}

impl SchemaKind {
    /// The registry's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            SchemaKind::Avro => "AVRO",
            SchemaKind::Protobuf => "PROTOBUF",
            SchemaKind::Json => "JSON",
        }
    }
}

/// Two are the same where they are used in the same way.
impl PartialEq for SchemaRegistry {
    fn eq(&self, other: &SchemaRegistry) -> bool {
        self.options == other.options
    }
}

impl Eq for SchemaRegistry {}

impl fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SchemaRegistry").field(&self.options).finish()
    }
}

#[cfg(test)]
mod tests;
