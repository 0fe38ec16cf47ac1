//! A place that a user names: a path of the local file system, or one in an object store.

use std::path::{Path, PathBuf};

use crate::url::ObjectUrl;

/// Where something lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the local file system.
    Local(PathBuf),
    /// In an object store.
    Objects(ObjectUrl),
}

impl Place {
    /// Reads what a user has written: a path, `file://` and a path, or the URL of an object store.
    ///
    /// # Errors
    /// In one sentence, what is wrong with a URL.
    pub fn parse(text: &Path) -> Result<Place, String> {
        let Some(words) = text.to_str() else { return Ok(Place::Local(text.to_owned())) };
        match ObjectUrl::parse(words)? {
            Some(url) => Ok(Place::Objects(url)),
            None => {
                let path = words.strip_prefix("file://").or_else(|| words.strip_prefix("file:")).unwrap_or(words);
                Ok(Place::Local(PathBuf::from(path)))
            }
        }
    }

    /// What a user has written, as messages name it: without the parameters of a URL, among which a secret may stand that
    /// was put there by mistake.
    #[must_use]
    pub fn shown(text: &Path) -> String {
        let words = text.display().to_string();
        match words.split_once("://").and_then(|(_, rest)| rest.split_once('?')) {
            Some((_, query)) => words[..words.len() - query.len() - 1].to_owned(),
            None => words,
        }
    }

    /// The same place wherever it is named from: a relative path is completed, a URL stays.
    #[must_use]
    pub fn absolute(working_dir: &Path, text: &Path) -> PathBuf {
        match Place::parse(text) {
            Ok(Place::Local(path)) => working_dir.join(path),
            // What is wrong with it is said where it is used.
            Ok(Place::Objects(_)) | Err(_) => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_completed_and_urls_are_not() {
        let absolute = |text: &str| Place::absolute(Path::new("/data"), Path::new(text)).display().to_string();
        assert_eq!(absolute("a/b"), "/data/a/b");
        assert_eq!(absolute("/a"), "/a");
        assert_eq!(absolute("file:///a"), "/a");
        assert_eq!(absolute("s3://b/x?region=y"), "s3://b/x?region=y");
        assert!(Place::parse(Path::new("http://x/y")).is_err());
        assert_eq!(Place::shown(Path::new("s3://b/x?secret=y")), "s3://b/x");
        assert_eq!(Place::shown(Path::new("/a?b")), "/a?b");
    }
}
