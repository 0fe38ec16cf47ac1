//! What checkpoints keep of splits, as JSON text. Older checkpoints must stay readable: fields may be added with defaults, never
//! renamed.

use mainstem_core::ids::SplitId;
use serde::{Deserialize, Serialize};

use crate::error::{ConnectorError, ErrorKind};

/// Positions and splits as text.
pub(crate) fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain numbers and text are JSON")
}

/// Reads a `what` (position, split) of a `kind` of split (file, partition) back; `guess` asks why it may be another one's.
pub(crate) fn from_json<T: for<'a> Deserialize<'a>>(
    text: &str,
    what: &str,
    kind: &str,
    id: &SplitId,
    guess: &str,
) -> Result<T, ConnectorError> {
    serde_json::from_str(text).map_err(|error| {
        let message = format!(
            "the {what} of the {kind} '{id}' in the checkpoint cannot be read ({error}): {guess}? start the job afresh"
        );
        ConnectorError::new(ErrorKind::External, message)
    })
}
