//! Redis: `'connector' = 'redis'`. Rows are kept under keys that are made of the table's primary key, as hashes or as texts.
//! Called by the registry.

mod client;
mod key;
mod options;
mod sink;

pub(crate) use sink::sink;
