//! Rules of the house that a machine can check, and the compiler does not: they run as plain tests over the
//! files of the repository, with nothing but the standard library. Nothing else depends on this crate.

pub mod repository;
pub mod tidy;
