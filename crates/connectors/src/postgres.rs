//! PostgreSQL: `'connector' = 'postgres'`, and Flink's `'jdbc'` with a `jdbc:postgresql:` URL. Tables are written in epochs,
//! read as a whole, and looked up by key. Values travel as text, in PostgreSQL's own notation, which its types read by
//! themselves. Called by the registry.

mod address;
mod cdc;
mod client;
mod copied;
mod error;
mod options;
mod sink;
mod source;
mod sql;
mod table;
mod text;
mod tls;

pub(crate) use cdc::source as cdc_source;
pub(crate) use sink::sink;
pub(crate) use source::source;
