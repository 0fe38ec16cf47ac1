//! Names for secrets: `CREATE SECRET name AS '${env:X}'`, after which `${secret:name}` in the options of a table stands for
//! that reference. Values are never seen here. Called by `job.rs`, statement by statement.

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::ast::Ident;

use crate::error::{At, ErrorCode, SqlError};
use crate::statement::TableOption;
use crate::suggest::advice;

/// What begins the use of a name.
const USE: &str = "${secret:";

/// The names that are declared so far, with the references that they stand for.
#[derive(Debug, Default)]
pub(crate) struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Whether the name is declared.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Declares a name.
    ///
    /// # Errors
    /// A name that is there already, and anything but one reference: a value itself would be stored with the job.
    pub(crate) fn add(&mut self, name: &Ident, reference: String, at: At) -> Result<(), SqlError> {
        if self.contains(&name.value) {
            let message = format!("the secret '{}' is declared twice; give one of the two another name", name.value);
            return Err(SqlError::new(ErrorCode::Name, name.span, message));
        }
        if !mainstem_connectors::is_reference(&reference) {
            let message = format!(
                "a secret is declared by where its value is to be found, since this text is stored with the job: CREATE \
                 SECRET {} AS '${{env:NAME}}', or AS '${{file:PATH}}'",
                name.value
            );
            return Err(SqlError::new(ErrorCode::Option, at, message));
        }
        self.0.insert(name.value.clone(), reference);
        Ok(())
    }

    /// Puts references in the place of names.
    ///
    /// # Errors
    /// A name that is not declared.
    pub(crate) fn fill(&self, options: &mut [TableOption]) -> Result<(), SqlError> {
        for option in options {
            option.value = self.filled(option)?;
        }
        Ok(())
    }

    fn filled(&self, option: &TableOption) -> Result<String, SqlError> {
        let mut filled = String::new();
        let mut rest = option.value.as_str();
        while let Some((before, (name, after))) =
            rest.split_once(USE).and_then(|(before, behind)| Some((before, behind.split_once('}')?)))
        {
            let Some(reference) = self.0.get(name) else {
                let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
                let message = format!(
                    "option '{}' names the secret '{name}', which no CREATE SECRET before it declares{}",
                    option.key,
                    advice(name, "declared are", &names)
                );
                return Err(SqlError::new(ErrorCode::Name, option.at, message));
            };
            filled += before;
            filled += reference;
            rest = after;
        }
        Ok(filled + rest)
    }
}
