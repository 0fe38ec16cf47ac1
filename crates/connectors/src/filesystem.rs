//! Files and objects of object stores as tables: `'connector' = 'filesystem'`. A file is a split; files of a directory or of a glob are
//! found by the enumerator and read in blocks by the reader. Called by the registry; must never change or
//! remove a file that it reads.

mod options;
mod service;
mod sink;
mod source;

pub(crate) use sink::sink;
pub(crate) use source::source;
