//! The options of the Protobuf formats. `protobuf.ignore-parse-errors` and `protobuf.read-default-values` are Flink's; its class
//! names give way to files that say what the messages are.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::Fields;
use prost_reflect::MessageDescriptor;

use super::derive::derive;
use super::encode::ProtobufEncoder;
use super::schema;
use crate::error::ConnectorError;
use crate::format::encode::Registration;
use crate::schema_registry::{RegistryOptions, SchemaKind, SchemaRegistry};
use crate::table::Options;

/// Settings of `protobuf` and `protobuf-confluent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProtobufOptions {
    /// Drop and count records that cannot be decoded, instead of failing.
    pub(crate) ignore_parse_errors: bool,
    /// What records name their schema of; none: they are of the one message.
    pub(crate) registry: Option<Arc<SchemaRegistry>>,
    /// What a message of proto2 does not have reads as its default.
    pub(crate) read_default_values: bool,
    pub(crate) message: Message,
}

/// The type of the messages. Two are the same where their names are.
#[derive(Clone, Debug)]
pub(crate) struct Message(Option<MessageDescriptor>);

impl Message {
    /// None: messages name theirs.
    pub(crate) fn descriptor(&self) -> Option<&MessageDescriptor> {
        self.0.as_ref()
    }

    fn name(&self) -> Option<&str> {
        self.0.as_ref().map(MessageDescriptor::full_name)
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Message {}

impl ProtobufOptions {
    /// Reads the options of `protobuf`, and the file that says what the messages are.
    pub(crate) fn plain(options: &mut Options<'_>) -> Result<ProtobufOptions, ConnectorError> {
        let table = options.table().name.clone();
        let message = options.required("protobuf.message-name")?;
        let (descriptors, text) = (options.get("protobuf.descriptor-file"), options.get("protobuf.schema-file"));
        let (key, path, found) = match (descriptors, text) {
            (Some(path), None) => ("protobuf.descriptor-file", path, schema::described(Path::new(path), message)),
            (None, Some(path)) => ("protobuf.schema-file", path, schema::compiled(Path::new(path), message)),
            _ => {
                return Err(ConnectorError::option(format!(
                    "table '{table}' with 'format' = 'protobuf' needs one of 'protobuf.schema-file', a .proto file, and 'protobuf.descriptor-file', what protoc makes of it"
                )));
            }
        };
        let found = found.map_err(|reason| {
            ConnectorError::option(format!("option '{key}' of table '{table}' names '{path}': {reason}"))
        })?;
        Ok(ProtobufOptions {
            ignore_parse_errors: options.parse("protobuf.ignore-parse-errors", false)?,
            registry: None,
            read_default_values: options.parse("protobuf.read-default-values", false)?,
            message: Message(Some(found)),
        })
    }

    /// Reads the options of `protobuf-confluent`.
    pub(crate) fn confluent(options: &mut Options<'_>) -> Result<ProtobufOptions, ConnectorError> {
        let registry = Arc::new(SchemaRegistry::new(RegistryOptions::read(options, "protobuf-confluent")?));
        Ok(ProtobufOptions {
            ignore_parse_errors: options.parse("protobuf-confluent.ignore-parse-errors", false)?,
            registry: Some(registry),
            read_default_values: options.parse("protobuf-confluent.read-default-values", false)?,
            message: Message(None),
        })
    }

    /// Of messages of one type.
    #[cfg(test)]
    pub(super) fn of(message: MessageDescriptor) -> ProtobufOptions {
        let message = Message(Some(message));
        ProtobufOptions { ignore_parse_errors: false, registry: None, read_default_values: false, message }
    }

    /// What writes rows with these fields; an error names what does not fit.
    pub(crate) fn encoder(&self, fields: &Fields) -> Result<ProtobufEncoder, String> {
        match self.message.descriptor() {
            Some(message) => ProtobufEncoder::new(message, fields),
            None => ProtobufEncoder::new(&schema::of_text(&derive(fields)?)?, fields),
        }
    }

    /// What must be registered before rows with these fields are written.
    pub(crate) fn registration(&self, fields: &Fields) -> Result<Option<Registration>, String> {
        let Some(registry) = &self.registry else { return Ok(None) };
        let (registry, schema) = (registry.clone(), derive(fields)?);
        Ok(Some(Registration { registry, kind: SchemaKind::Protobuf, schema }))
    }
}
