//! The `mainstem` binary: reads the command line, starts the parts of a job in this process and reports how it
//! ended. All else lives in the library crates.

mod allocator;
mod cli;
mod cluster;
mod config;
mod copies;
mod deployer;
mod embedded;
mod figures;
mod file_watch;
mod hidden;
mod http;
mod inspect;
mod job;
mod lag;
mod logs;
mod memory;
mod metrics;
mod preview;
mod replay;
mod restore;
mod run;
mod shipped;
#[cfg(test)]
mod simulation;
mod sql;
mod sql_files;
mod state;
mod status;
mod traces;
mod why;

use std::process::ExitCode;

use anyhow::Context;

use crate::cli::Command;

fn main() -> ExitCode {
    allocator::configure();
    let cli = match config::parse() {
        Ok(cli) => cli,
        Err(error) => {
            report(&error);
            return ExitCode::FAILURE;
        }
    };
    logs::init(cli.log_format());
    let outcome = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Explain(args) => inspect::explain(args),
        Command::Check(args) => inspect::check(args),
        Command::ReplayDeadLetters(args) => replay::replay(args),
        Command::Sql(args) => sql::sql(args),
        Command::Cluster(args) => cluster::cluster(args),
        Command::Coordinator(args) => cluster::coordinator(args),
        Command::Worker(args) => cluster::worker(args),
        Command::Submit(args) => cluster::submit(args),
        Command::Jobs(args) => cluster::jobs(args),
        Command::Status(args) => cluster::status(args),
        Command::Why(args) => why::why(args),
        Command::Stop(args) => cluster::stop(args),
        Command::Cancel(args) => cluster::cancel(args),
        Command::Rescale(args) => cluster::rescale(args),
        Command::Drain(args) => cluster::drain(args),
        Command::Members(args) => cluster::members(args),
        Command::AddMember(args) => cluster::add_member(args),
        Command::RemoveMember(args) => cluster::remove_member(args),
        Command::Savepoint(args) => cluster::savepoint(args),
        Command::Remove(args) => cluster::remove(args),
        Command::State(args) => state::state(args),
        Command::Audit(args) => cluster::audit(args),
        Command::Completions(args) => shipped::completions(args),
        Command::Man(args) => shipped::man(args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Shows an error to the user: one message, with its causes where they say more.
#[expect(clippy::print_stderr, reason = "the command line's own output")]
fn report(error: &anyhow::Error) {
    let mut message = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many errors repeat what caused them.
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    eprint!("{}", logs::for_stderr(tracing::Level::ERROR, &format!("error: {message}")));
}

/// Writes what a command was asked for. A reader that has seen enough (`| head`) is no mistake.
fn show(text: &str) -> anyhow::Result<()> {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}
