//! The options of the writing side.

use crate::error::ConnectorError;
use crate::sink::Delivery;
use crate::table::Options;

use super::super::layout::{Layout, Metadata};
use super::super::subject::is_subject;

/// The writing side of a table.
#[derive(Clone, Debug)]
pub(super) struct SinkOptions {
    pub(super) delivery: Delivery,
    /// Where rows go that do not say it themselves.
    pub(super) subject: Option<String>,
    /// Whether what may have been published is published again where the stream no longer tells; else the job stops.
    pub(super) sends_again: bool,
}

impl SinkOptions {
    /// Reads the options of the writing side.
    pub(super) fn read(options: &mut Options<'_>, layout: &Layout) -> Result<SinkOptions, ConnectorError> {
        let table = options.table().name.clone();
        let subject = options.get("subject").map(|text| text.trim().to_owned());
        if let Some(subject) = subject.as_ref().filter(|subject| !is_subject(subject)) {
            return Err(ConnectorError::option(format!(
                "option 'subject' of table '{table}' has the value '{subject}': expected a subject without wildcards, such as 'orders.created'"
            )));
        }
        if subject.is_none() && layout.column_of(Metadata::Subject).is_none() {
            return Err(ConnectorError::option(format!(
                "table '{table}' needs the option 'subject' to be written, or a column 'subject STRING METADATA' that says it for each row"
            )));
        }
        let sends_again = options.one_of("sink.unknown-progress", "fail", &["fail", "send-again"])? == "send-again";
        Ok(SinkOptions { delivery: delivery(options, &table)?, subject, sends_again })
    }
}

/// `'sink.delivery-guarantee'` is Flink's name, `'delivery'` the one that all connectors share.
fn delivery(options: &mut Options<'_>, table: &str) -> Result<Delivery, ConnectorError> {
    let key = "sink.delivery-guarantee";
    let levels = ["exactly-once", "at-least-once", "best-effort"];
    let own = options.one_of(key, "exactly-once", &levels)?;
    let wanted = options.get("delivery").unwrap_or(own);
    if options.get(key).is_some() && wanted != own {
        return Err(ConnectorError::option(format!(
            "the options '{key}' and 'delivery' of table '{table}' contradict each other: give one of them"
        )));
    }
    Ok(match wanted {
        "at-least-once" => Delivery::AtLeastOnce,
        "best-effort" => Delivery::BestEffort,
        _ => Delivery::ExactlyOnce,
    })
}
