//! Hides what may be a secret in the options of a table. A reference to a secret is none.

use mainstem_connectors::is_reference;

/// What stands in the place of a value.
const HIDDEN: &str = "(hidden)";

/// An option whose name has one of these in it is hidden; better one too many.
const SECRET_WORDS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "jaas",
    "authorization",
    "api-key",
    "apikey",
    "user-info",
    "private",
    ".pem",
    "cookie",
];

/// The value of an option as it may be shown.
pub(crate) fn shown(name: &str, value: &str) -> String {
    let name = name.to_ascii_lowercase();
    if is_reference(value) {
        return value.to_owned();
    }
    if SECRET_WORDS.iter().any(|word| name.contains(word)) {
        return HIDDEN.to_owned();
    }
    without_user(value)
}

/// `scheme://user:password@host` without what stands in front of the `@`, wherever in the text; and without what follows a
/// `?`, where passwords stand too.
fn without_user(value: &str) -> String {
    let mut shown = String::new();
    let mut rest = value;
    while let Some((front, behind)) = rest.split_once("://") {
        let end = behind.find(['/', '?', '#', ',', ' ']).unwrap_or(behind.len());
        let (authority, after) = behind.split_at(end);
        let host = authority.rsplit_once('@').map(|(_, host)| format!("{HIDDEN}@{host}"));
        shown += front;
        shown += "://";
        shown += &host.unwrap_or_else(|| authority.to_owned());
        rest = after;
        if let Some(query) = rest.find('?').filter(|at| !rest[..*at].contains(',')) {
            shown += &rest[..=query];
            shown += HIDDEN;
            rest = rest[query..].find([',', ' ']).map_or("", |end| &rest[query + end..]);
        }
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_may_be_secret_are_hidden_and_references_are_shown() {
        for (name, value, expected) in [
            ("properties.sasl.password", "hunter2", HIDDEN),
            ("properties.sasl.password", "${env:PW}", "${env:PW}"),
            ("connector", "kafka", "kafka"),
            ("url", "http://ada:hunter2@host:80/a", "http://(hidden)@host:80/a"),
            ("servers", "nats://t0ken@a:1,nats://b:2", "nats://(hidden)@a:1,nats://b:2"),
            ("url", "postgresql://h/db?password=hunter2", "postgresql://h/db?(hidden)"),
            ("url", "http://h/a?k=hunter2,http://i/b", "http://h/a?(hidden),http://i/b"),
            ("topic", "a@b", "a@b"),
        ] {
            assert_eq!(shown(name, value), expected, "{name}");
        }
    }
}
