//! What an object store's refusals mean, in the words of the person who has to do something about it. Services hide a
//! code in the text of their answer; that code is what tells a bucket that is missing from an object that is.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use crate::url::{ObjectUrl, Scheme};

/// Most of what a service says that is repeated, in characters.
const SAID_CHARS_MAX: usize = 300;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectErrorKind {
    /// There is no such object.
    Missing,
    /// Something is there, or is no longer what it was: a condition was not met.
    Condition,
    /// Refused for good: credentials, permission, a bucket that does not exist, a wrong address.
    Refused,
    /// It may pass: time-out, connection, overload.
    Transient,
}

/// A failed operation on an object.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ObjectError {
    /// What to do about it.
    pub kind: ObjectErrorKind,
    /// What the service or the network says, and what to do; does not name the object.
    pub message: String,
}

impl ObjectError {
    pub(crate) fn refused(message: impl Into<String>) -> ObjectError {
        ObjectError { kind: ObjectErrorKind::Refused, message: message.into() }
    }

    /// Whether another try, with nothing changed by the user, can succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.kind == ObjectErrorKind::Transient
    }

    /// What a store said about an operation below `url`.
    #[must_use]
    pub fn of(url: &ObjectUrl, error: &Error) -> ObjectError {
        use ObjectErrorKind as Kind;
        let text = error.to_string();
        let code = between(&text, "<Code>", "</Code>");
        let said = said(&text, code);
        let (kind, message) = match (code, error) {
            (Some("NoSuchBucket" | "ContainerNotFound"), _) => (Kind::Refused, no_bucket(url)),
            (Some(code), _) if is_about_credentials(code) => {
                let message = format!("the credentials are refused ({said}); check {}", url.scheme.credentials());
                (Kind::Refused, message)
            }
            (Some("RequestTimeout" | "SlowDown" | "InternalError" | "ServiceUnavailable" | "Throttling"), _) => {
                (Kind::Transient, format!("{said}; the service is overloaded"))
            }
            (_, Error::NotFound { .. }) => (Kind::Missing, "there is no such object".to_owned()),
            (_, Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. }) => {
                (Kind::Condition, format!("a condition was not met ({said})"))
            }
            (_, Error::PermissionDenied { .. }) => (
                Kind::Refused,
                format!(
                    "permission denied ({said}); whoever the credentials stand for must be allowed to read, write, \
                     delete and list in bucket '{}'",
                    url.bucket
                ),
            ),
            (_, Error::Unauthenticated { .. }) => {
                (Kind::Refused, format!("the credentials are refused ({said}); check {}", url.scheme.credentials()))
            }
            (_, Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::InvalidPath { .. }) => {
                (Kind::Refused, said)
            }
            _ => of_transport(url, error, &text, said),
        };
        ObjectError { kind, message }
    }
}

/// What the network did, or what a service said that has no better word.
fn of_transport(url: &ObjectUrl, error: &Error, text: &str, said: String) -> (ObjectErrorKind, String) {
    use ObjectErrorKind as Kind;
    let causes = || causes(error);
    let root = causes().last().map(ToString::to_string).unwrap_or_default();
    if text.contains("instance metadata") || text.contains("169.254.") || text.contains("metadata.google") {
        let message = format!(
            "there are no credentials ({root}); set {}, or run where a role is given to the machine",
            url.scheme.credentials()
        );
        return (Kind::Refused, message);
    }
    let http = causes().find_map(|e| e.downcast_ref::<HttpError>());
    let endpoint = endpoint_advice(url.scheme);
    match http.map(HttpError::kind) {
        Some(HttpErrorKind::Timeout) => {
            (Kind::Transient, format!("no answer in time; check the network, and the service behind {endpoint}"))
        }
        Some(HttpErrorKind::Connect | HttpErrorKind::Request) => {
            (Kind::Transient, format!("the service cannot be reached ({root}); check the network and {endpoint}"))
        }
        Some(_) => (Kind::Transient, format!("the connection broke ({root}); check the network and {endpoint}")),
        None if text.contains("without LOCATION") || text.contains("PermanentRedirect") => (
            Kind::Refused,
            format!("bucket '{}' is in another region; set AWS_REGION, or add ?region=REGION to the URL", url.bucket),
        ),
        None if text.contains("status code: 4") && !text.contains("408 ") && !text.contains("429 ") => {
            (Kind::Refused, said)
        }
        None => (Kind::Transient, format!("{said}; the service is overloaded or broken, or something before it is")),
    }
}

/// The error and what caused it, the root last.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |e| (*e).source())
}

/// What says where the service is.
fn endpoint_advice(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => "its address (AWS_ENDPOINT_URL or ?endpoint=URL)",
        Scheme::Gcs | Scheme::Azure => "its address (?endpoint=URL)",
    }
}

fn no_bucket(url: &ObjectUrl) -> String {
    format!("there is no bucket '{}'; create it, or correct its name, region and address", url.bucket)
}

fn is_about_credentials(code: &str) -> bool {
    matches!(
        code,
        "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "InvalidClientTokenId"
            | "TokenRefreshRequired"
            | "AuthenticationFailed"
            | "InvalidAuthenticationInfo"
            | "RequestTimeTooSkewed"
    )
}

/// What the service itself says: its code and its message where it gives them. All else of its answer may hold the names
/// of keys.
fn said(text: &str, code: Option<&str>) -> String {
    match (code, between(text, "<Message>", "</Message>")) {
        (Some(code), Some(message)) => cut(&format!("{code}: {message}")),
        (Some(code), None) => cut(code),
        (None, _) => {
            // Ends of the messages of the client; what stands before repeats the address of the object.
            let end = text.rsplit_once(" - ").map_or(text, |(_, end)| end);
            cut(end.split('<').next().unwrap_or(end).trim())
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SAID_CHARS_MAX).collect()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split_once(end).map(|(inner, _)| inner)
}
