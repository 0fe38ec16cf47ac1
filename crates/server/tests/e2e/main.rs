//! End-to-end tests: the real binary, as a user runs it, on real files. One test binary, to keep linking cheap.

mod errors;
mod kill;
mod oracle;
mod support;
