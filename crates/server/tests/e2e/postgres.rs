//! PostgreSQL at the ends of jobs, with a real server.

mod cdc;
mod errors;
mod kills;
mod letters;
mod lookup;
mod secrets;
pub(crate) mod server;
mod tables;

use crate::support::Sandbox;

/// A directory with a job and the password of the server.
fn sandbox(sql: &str) -> Sandbox {
    let sandbox = Sandbox::new(sql);
    sandbox.write("password", server::PASSWORD);
    sandbox
}

/// What sinks have staged and not published.
fn staged(sandbox: &Sandbox) -> Vec<std::path::PathBuf> {
    let files = crate::support::visible_files(&sandbox.path(".mainstem"));
    files.into_iter().filter(|file| file.parent().is_some_and(|parent| parent.ends_with("staged"))).collect()
}
