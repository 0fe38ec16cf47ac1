//! The command `audit`: who has decided what, when and why, as the coordinator that leads tells it; and whether the files in
//! which it stands are what was written.

use std::process::ExitCode;

use chrono::{DateTime, SecondsFormat};
use mainstem_coordinator::{AuditVerdict, verify_audit_files};
use mainstem_core::audit::AuditRecord;
use mainstem_core::time::Timestamp;
use serde_json::json;

use super::api::{AuditRequest, AuditView, Request, Response};
use super::client::{Client, block_on, unexpected};
use crate::cli::{AuditArgs, AuditCommand, AuditVerifyArgs};

/// Shows the newest decisions, or verifies files.
#[expect(clippy::print_stderr, reason = "the command's output")]
pub(crate) fn audit(args: &AuditArgs) -> anyhow::Result<ExitCode> {
    if let Some(AuditCommand::Verify(args)) = &args.files {
        return verify(args);
    }
    block_on(async {
        let request = AuditRequest { job: args.job.clone(), limit: args.limit as usize, routine: args.routine };
        let answer = Client::new(&args.client)?.ask_any(&Request::Audit(request)).await?;
        let Response::Audit(view) = answer else { return unexpected() };
        if args.json {
            crate::show(&json!(view).to_string())?;
            return super::done();
        }
        if !view.leads {
            eprintln!("note: no coordinator that leads was found; what follows may be old");
        }
        crate::show(&text(&view))?;
        super::done()
    })
}

fn text(view: &AuditView) -> String {
    let records = view.records.iter().map(|record| line(record) + "\n").collect::<String>();
    format!("{records}chain: {} records, the last one's hash is {}", view.head.seq, view.head.hash)
}

/// `SEQ TIME WHAT job=JOB FACT=VALUE … by WHO: REASON`.
fn line(record: &AuditRecord) -> String {
    let job = record.job.iter().map(|job| ("job", job.as_str()));
    let facts = record.facts.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let facts = job.chain(facts).map(|(name, value)| format!(" {name}={value}")).collect::<String>();
    let AuditRecord { seq, at, by, what, reason, .. } = record;
    // Reasons come from anywhere.
    let clean = |text: &str| text.replace(char::is_control, " ");
    format!("{seq:>6} {} {what}{}, by {}: {}", time(*at), clean(&facts), clean(by), clean(reason))
}

fn time(at: Timestamp) -> String {
    match DateTime::from_timestamp_millis(at.0) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        None => at.to_string(),
    }
}

#[expect(clippy::print_stderr, reason = "the command's output")]
fn verify(args: &AuditVerifyArgs) -> anyhow::Result<ExitCode> {
    match verify_audit_files(&args.files) {
        Ok(verdicts) => {
            let lines: Vec<String> = verdicts.iter().map(verdict).collect();
            crate::show(&lines.join("\n"))?;
            super::done()
        }
        Err(faults) => {
            for fault in &faults {
                eprintln!("error: {fault}");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn verdict(verdict: &AuditVerdict) -> String {
    let AuditVerdict { directory, files, found } = verdict;
    let trail = found.file().map(|file| file.trail.as_str()).unwrap_or_default();
    let mut text = format!(
        "{}: {files} files of '{trail}', {} records up to {}, whose hash is {}",
        directory.display(),
        found.records(),
        found.head().seq,
        found.head().hash
    );
    if found.begins_after() > 0 {
        text += &format!("; records 1 to {} are in older files", found.begins_after());
    }
    for (first, last) in found.gaps() {
        text += &format!("; records {first} to {last} are declared to be missing");
    }
    text
}
