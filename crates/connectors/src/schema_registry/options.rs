//! The options of a schema registry, under the name of the format that uses it; Flink's names where it has them.

use std::fmt;
use std::path::PathBuf;

use reqwest::Url;

use crate::error::ConnectorError;
use crate::table::Options;

/// How a registry is reached and what it is used for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RegistryOptions {
    /// The table, for messages.
    pub(crate) table: String,
    /// The format, which the names of the options begin with.
    pub(crate) format: String,
    /// Its addresses, tried one after the other.
    pub(crate) urls: Vec<Url>,
    /// What the schema is registered under; none: what the connector says.
    pub(crate) subject: Option<String>,
    /// Whether a schema that is not there is registered by a sink.
    pub(crate) auto_register: bool,
    pub(crate) changes: SchemaChanges,
    pub(super) credentials: Credentials,
    /// Certificates that are trusted instead of the system's, in PEM.
    pub(super) ca: Option<PathBuf>,
}

/// What becomes of a schema that is not the table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemaChanges {
    /// What can be read as the table is; anything else stops the job.
    Adapt,
    /// Anything that differs stops the job.
    Fail,
    /// What can be read as the table is; records of anything else are bad records.
    BadRecord,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    None,
    Basic { user: String, password: String },
    Bearer(String),
}

impl RegistryOptions {
    /// Reads the options that begin with the format's name.
    pub(crate) fn read(options: &mut Options<'_>, format: &str) -> Result<RegistryOptions, ConnectorError> {
        let table = options.table().name.clone();
        let url_key = format!("{format}.url");
        let text = options.required(&url_key)?;
        let wrong = |text: &str, why: &str| {
            Err(ConnectorError::option(format!(
                "option '{url_key}' of table '{table}' has the value '{text}': {why}; expected an address such as 'http://registry:8081'"
            )))
        };
        let mut urls = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if crate::secret::has_reference(part) {
                // Its value is looked at where it is known.
                continue;
            }
            match Url::parse(part) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                    if !url.username().is_empty() || url.password().is_some() {
                        let help =
                            format!("it holds a user; set '{format}.basic-auth.user-info' = 'user:password' instead");
                        return wrong(url.host_str().unwrap_or_default(), &help);
                    }
                    urls.push(url);
                }
                Ok(_) => return wrong(part, "it is not of http or https"),
                Err(error) => return wrong(part, &error.to_string()),
            }
        }
        if urls.is_empty() && !crate::secret::has_reference(text) {
            return wrong(text, "it is empty");
        }
        let changes = options.one_of(&format!("{format}.schema-changes"), "adapt", &["adapt", "fail", "bad-record"])?;
        Ok(RegistryOptions {
            subject: options.get(&format!("{format}.subject")).map(str::to_owned),
            auto_register: options.parse(&format!("{format}.auto.register.schemas"), true)?,
            changes: match changes {
                "fail" => SchemaChanges::Fail,
                "bad-record" => SchemaChanges::BadRecord,
                _ => SchemaChanges::Adapt,
            },
            credentials: credentials(options, format)?,
            ca: options.get(&format!("{format}.ssl.ca.location")).map(PathBuf::from),
            table,
            format: format.to_owned(),
            urls,
        })
    }

    /// Where it is, for messages.
    pub(crate) fn shown(&self) -> String {
        let urls: Vec<&str> = self.urls.iter().map(|url| url.as_str().trim_end_matches('/')).collect();
        format!("'{}'", urls.join(","))
    }
}

fn credentials(options: &mut Options<'_>, format: &str) -> Result<Credentials, ConnectorError> {
    let table = options.table().name.clone();
    let user_key = format!("{format}.basic-auth.user-info");
    let token_key = format!("{format}.bearer-auth.token");
    // The sources that are possible are those of the options below, so that the words say nothing more.
    options.one_of(&format!("{format}.basic-auth.credentials-source"), "USER_INFO", &["USER_INFO"])?;
    options.one_of(&format!("{format}.bearer-auth.credentials-source"), "STATIC_TOKEN", &["STATIC_TOKEN"])?;
    match (options.get(&user_key), options.get(&token_key)) {
        (None, None) => Ok(Credentials::None),
        (Some(_), Some(_)) => Err(ConnectorError::option(format!(
            "the options '{user_key}' and '{token_key}' of table '{table}' exclude each other: give one of them"
        ))),
        (None, Some(token)) => Ok(Credentials::Bearer(token.to_owned())),
        (Some(info), None) => match info.split_once(':') {
            Some((user, password)) => Ok(Credentials::Basic { user: user.to_owned(), password: password.to_owned() }),
            None if crate::secret::has_reference(info) => Ok(Credentials::None),
            None => Err(ConnectorError::option(format!(
                "option '{user_key}' of table '{table}' has no ':': expected 'user:password'"
            ))),
        },
    }
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryOptions")
            .field("table", &self.table)
            .field("urls", &self.shown())
            .field("subject", &self.subject)
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}
