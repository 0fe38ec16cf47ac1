//! Places in object stores as text: `scheme://bucket/prefix?name=value&...`. The parameters say how the store is reached,
//! so that a URL means the same to every node that is handed it; who may use it never stands in one.

use std::fmt;

/// Schemes, with those that mean the same.
const SCHEMES: [(&str, Scheme); 6] = [
    ("s3", Scheme::S3),
    ("s3a", Scheme::S3),
    ("gs", Scheme::Gcs),
    ("az", Scheme::Azure),
    ("abfs", Scheme::Azure),
    ("abfss", Scheme::Azure),
];

/// Which kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scheme {
    S3,
    Gcs,
    Azure,
}

impl Scheme {
    /// Parameters that a URL may have.
    fn parameters(self) -> &'static [&'static str] {
        match self {
            Scheme::S3 => &["endpoint", "region", "virtual-hosted"],
            Scheme::Gcs => &["endpoint"],
            Scheme::Azure => &["account", "endpoint"],
        }
    }

    /// Where credentials come from, for messages.
    pub(crate) fn credentials(self) -> &'static str {
        match self {
            Scheme::S3 => "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary ones, AWS_SESSION_TOKEN",
            Scheme::Gcs => "GOOGLE_APPLICATION_CREDENTIALS",
            Scheme::Azure => "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        }
    }
}

/// A place in an object store: a bucket, and what the keys below it begin with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectUrl {
    pub(crate) scheme: Scheme,
    /// The scheme as the user wrote it.
    word: String,
    pub(crate) bucket: String,
    /// Without `/` at either end; may be empty.
    key: String,
    /// As they were written.
    pub(crate) parameters: Vec<(String, String)>,
}

impl ObjectUrl {
    /// Reads a URL; none where the text is a path of the local file system, `file:` among them.
    ///
    /// # Errors
    /// In one sentence, what is wrong with it.
    pub fn parse(text: &str) -> Result<Option<ObjectUrl>, String> {
        let Some((word, rest)) = text.split_once("://").filter(|(word, _)| *word != "file") else { return Ok(None) };
        let is_scheme = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !is_scheme {
            return Ok(None);
        }
        let Some((_, scheme)) = SCHEMES.iter().find(|(known, _)| *known == word) else {
            return Err(format!(
                "the scheme '{word}' is not known; give a path, or a URL that begins with s3://, gs:// or az://"
            ));
        };
        // A question mark in front of a parameter begins the parameters; any other is a part of a glob.
        let (place, query) = match rest.rsplit_once('?') {
            Some((place, query)) if query.contains('=') => (place, query),
            _ => (rest, ""),
        };
        let (bucket, key) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() || bucket.contains(['@', ':', ' ']) {
            return Err(format!(
                "'{word}://{bucket}' names no bucket: give {word}://BUCKET/PREFIX; credentials and addresses do not \
                 belong in front of it"
            ));
        }
        let key = key.trim_matches('/').to_owned();
        if key.split('/').any(|part| part == "." || part == ".." || (part.is_empty() && !key.is_empty())) {
            return Err(format!("'{key}' is no key of an object: it has an empty part, '.' or '..'"));
        }
        let parameters = parameters(*scheme, query)?;
        Ok(Some(ObjectUrl { scheme: *scheme, word: word.to_owned(), bucket: bucket.to_owned(), key, parameters }))
    }

    /// Whether the store speaks S3.
    #[must_use]
    pub fn is_s3(&self) -> bool {
        self.scheme == Scheme::S3
    }

    /// What the keys begin with, without `/` at either end; may be empty.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The bucket alone.
    #[must_use]
    pub fn bucket_url(&self) -> ObjectUrl {
        ObjectUrl { key: String::new(), ..self.clone() }
    }

    /// The place of a relative key below this one.
    #[must_use]
    pub fn join(&self, relative: &str) -> ObjectUrl {
        let relative = relative.trim_matches('/');
        let key = match (self.key.is_empty(), relative.is_empty()) {
            (true, _) => relative.to_owned(),
            (false, true) => self.key.clone(),
            (false, false) => format!("{}/{relative}", self.key),
        };
        ObjectUrl { key, ..self.clone() }
    }

    /// The same place with a parameter of another value.
    ///
    /// # Errors
    /// Where a URL of this kind has no such parameter.
    pub fn with_parameter(mut self, name: &str, value: &str) -> Result<ObjectUrl, String> {
        let added = parameters(self.scheme, &format!("{name}={value}"))?;
        self.parameters.retain(|(known, _)| known != name);
        self.parameters.extend(added);
        Ok(self)
    }

    /// The last part of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// The place without its parameters, as messages name it.
    #[must_use]
    pub fn shown(&self) -> String {
        let slash = if self.key.is_empty() { "" } else { "/" };
        format!("{}://{}{slash}{}", self.word, self.bucket, self.key)
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// All of it; what was read gives the same text.
impl fmt::Display for ObjectUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())?;
        for (position, (name, value)) in self.parameters.iter().enumerate() {
            let mark = if position == 0 { '?' } else { '&' };
            write!(f, "{mark}{name}={value}")?;
        }
        Ok(())
    }
}

fn parameters(scheme: Scheme, query: &str) -> Result<Vec<(String, String)>, String> {
    let known = scheme.parameters();
    let mut found = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if !known.contains(&name) {
            // The value may be a secret that was put here by mistake.
            return Err(format!(
                "the parameter '{name}' is not known; there are: {}. Credentials come from the environment ({})",
                known.join(", "),
                scheme.credentials()
            ));
        }
        if value.is_empty() {
            return Err(format!("the parameter '{name}' has no value"));
        }
        found.push((name.to_owned(), value.to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> ObjectUrl {
        ObjectUrl::parse(text).unwrap().unwrap()
    }

    #[test]
    fn a_url_is_a_bucket_a_key_and_how_to_get_there() {
        let url = parsed("s3://bucket/a/b c/?region=eu-central-1&endpoint=http://127.0.0.1:9000");
        assert_eq!((url.bucket.as_str(), url.key(), url.name()), ("bucket", "a/b c", "b c"));
        assert_eq!(url.shown(), "s3://bucket/a/b c");
        assert_eq!(url.parameter("endpoint"), Some("http://127.0.0.1:9000"));
        assert_eq!(url.join("d").to_string(), "s3://bucket/a/b c/d?region=eu-central-1&endpoint=http://127.0.0.1:9000");
        assert_eq!(parsed(&url.to_string()), url);
        assert_eq!(parsed("gs://b").join("x/").shown(), "gs://b/x");
        assert_eq!(parsed("s3a://b/in/part-?.json?region=x").key(), "in/part-?.json");
        assert_eq!(parsed("s3a://b/in/part-?.json").key(), "in/part-?.json");
        for path in ["/a/b", "relative", "file:///a", "a b://c"] {
            assert_eq!(ObjectUrl::parse(path), Ok(None), "{path}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_no_value_is_repeated() {
        let refused = |text: &str| ObjectUrl::parse(text).unwrap_err();
        assert!(refused("ftp://x/y").contains("'ftp'"));
        assert!(refused("s3:///key").contains("names no bucket"));
        assert!(refused("s3://key:secret@bucket/x").contains("names no bucket"), "no user info");
        assert!(refused("s3://b/a/../c").contains("'..'"));
        let secret = refused("s3://b/a?secret-access-key=hunter2");
        assert!(secret.contains("AWS_SECRET_ACCESS_KEY") && !secret.contains("hunter2"), "{secret}");
    }
}
