//! Object stores by URL (`s3://`, `gs://`, `az://`): how they are opened, how long an answer may take, what is tried
//! again, how a write whose answer was lost is known as one's own, and what their errors mean to a user. Called by the
//! checkpoint store and by the filesystem connector. Knows nothing of what the objects hold, and decides nothing about
//! when they come or go.

mod answers;
mod create;
mod error;
mod open;
mod pieces;
mod place;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod transfer;
mod uploads;
mod url;

pub use create::{CreateError, is_content};
pub use error::{ObjectError, ObjectErrorKind};
pub use open::{Credentials, Objects, Version};
pub use pieces::{checksum_of, pieces};
pub use place::Place;
pub use transfer::Content;
pub use url::ObjectUrl;

#[cfg(test)]
mod tests;
