//! A table's place in an object store: opened when it is first used, since a table is also declared where it is only
//! planned. Called by source and sink.

use std::sync::OnceLock;

use mainstem_objects::{Credentials, ObjectError, ObjectErrorKind, ObjectUrl, Objects};

use crate::error::{ConnectorError, ErrorKind};

/// Objects below a URL.
#[derive(Debug)]
pub(crate) struct Service {
    url: ObjectUrl,
    /// Where the table has some of its own.
    credentials: Option<Credentials>,
    opened: OnceLock<Objects>,
}

impl Service {
    /// Opens nothing yet.
    pub(crate) fn new(url: ObjectUrl, credentials: Option<Credentials>) -> Service {
        Service { url, credentials, opened: OnceLock::new() }
    }

    /// Objects that are open already.
    #[cfg(test)]
    pub(crate) fn over(objects: Objects) -> Service {
        Service { url: objects.url().clone(), credentials: None, opened: OnceLock::from(objects) }
    }

    pub(crate) fn url(&self) -> &ObjectUrl {
        &self.url
    }

    /// The objects.
    ///
    /// # Errors
    /// What of the URL or the environment makes no sense.
    pub(crate) fn objects(&self) -> Result<&Objects, ConnectorError> {
        if let Some(objects) = self.opened.get() {
            return Ok(objects);
        }
        let opened = Objects::open_as(&self.url, self.credentials.as_ref());
        let opened = opened.map_err(|error| ConnectorError::new(kind(&error), error.message))?;
        // Where somebody else was faster, that one is as good.
        Ok(self.opened.get_or_init(|| opened))
    }

    /// A failed operation on an object below.
    pub(crate) fn failed(&self, action: &str, key: &str, error: &ObjectError) -> ConnectorError {
        let place = self.url.join(key).shown();
        ConnectorError::new(kind(error), format!("cannot {action} '{place}': {}", error.message))
    }
}

fn kind(error: &ObjectError) -> ErrorKind {
    match error.kind {
        ObjectErrorKind::Transient => ErrorKind::Transient,
        ObjectErrorKind::Missing | ObjectErrorKind::Condition | ObjectErrorKind::Refused => ErrorKind::External,
    }
}
