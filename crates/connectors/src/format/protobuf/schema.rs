//! Where message types come from: a file of descriptors, a `.proto` file with what it imports, a schema of a registry with
//! what it refers to. Compiled by protox, in the process.

use std::collections::BTreeMap;
use std::path::Path;

use prost_reflect::{DescriptorPool, MessageDescriptor};
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::schema_registry::RegisteredSchema;

/// Largest file of descriptors, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What the schema of a registry is called while it is compiled.
const REGISTERED: &str = "registered.proto";

/// The message type of a file of descriptors (`protoc --descriptor_set_out --include_imports`).
pub(super) fn described(path: &Path, message: &str) -> Result<MessageDescriptor, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes, at most {FILE_BYTES_MAX} are read"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let pool = DescriptorPool::decode(&bytes[..]).map_err(|error| {
        format!("it holds no descriptors with all that they import ({error}); make it with protoc --include_imports")
    })?;
    named(&pool, message)
}

/// The message type of a `.proto` file; what it imports lies beside it or in the directory that its path begins with.
pub(super) fn compiled(path: &Path, message: &str) -> Result<MessageDescriptor, String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or("it names no file")?;
    let mut compiler = Compiler::new([directory]).map_err(|error| error.to_string())?;
    compiler.include_imports(true).open_file(name).map_err(|error| error.to_string())?;
    named(&compiler.descriptor_pool(), message)
}

/// The message type of a text, the first in it.
pub(super) fn of_text(text: &str) -> Result<MessageDescriptor, String> {
    at_path(&compile_text(text, &[])?, &[0])
}

/// The message type of a registry's schema at a path of indexes.
pub(super) fn registered(schema: &RegisteredSchema, path: &[usize]) -> Result<MessageDescriptor, String> {
    at_path(&compile_text(&schema.text, &schema.references)?, path)
}

fn compile_text(text: &str, references: &[(String, String)]) -> Result<DescriptorPool, String> {
    let mut texts: BTreeMap<String, String> = references.iter().cloned().collect();
    texts.insert(REGISTERED.to_owned(), text.to_owned());
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(texts));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler
        .include_imports(true)
        .open_file(REGISTERED)
        .map_err(|error| format!("the schema is no Protobuf: {error}"))?;
    Ok(compiler.descriptor_pool())
}

/// Files that are in memory.
struct Texts(BTreeMap<String, String>);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

fn named(pool: &DescriptorPool, message: &str) -> Result<MessageDescriptor, String> {
    pool.get_message_by_name(message.trim_start_matches('.')).ok_or_else(|| {
        const SHOWN_MAX: usize = 10;
        let known = pool.all_messages().filter(|known| !known.full_name().starts_with("google.protobuf."));
        let known: Vec<String> = known.take(SHOWN_MAX).map(|known| known.full_name().to_owned()).collect();
        format!("it has no message '{message}'; it has: {}", known.join(", "))
    })
}

fn at_path(pool: &DescriptorPool, path: &[usize]) -> Result<MessageDescriptor, String> {
    let none = || format!("the schema has no message at the indexes {path:?}");
    let file = pool.get_file_by_name(REGISTERED).ok_or_else(none)?;
    let (first, rest) = path.split_first().ok_or_else(none)?;
    let mut message = file.messages().nth(*first).ok_or_else(none)?;
    for index in rest {
        // Entries of maps are messages too, which the text does not show but the indexes count.
        let child = message.child_messages().nth(*index);
        message = child.ok_or_else(none)?;
    }
    Ok(message)
}
