//! Values as PostgreSQL writes and reads them: the text format of COPY, and array literals.

mod decode;
mod encode;

pub(super) use decode::{RowsBuilder, split_line};
pub(super) use encode::{CopyEncoder, write_array_literal};

#[cfg(test)]
mod tests;
