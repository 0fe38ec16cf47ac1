//! Tables kept in Redis, with a real server.

mod kills;
mod tables;

use crate::support::Sandbox;
use crate::support::redis::PASSWORD;

/// A directory with a job and the password of the server.
fn sandbox(sql: &str) -> Sandbox {
    let sandbox = Sandbox::new(sql);
    sandbox.write("password", PASSWORD);
    sandbox
}
