//! The `mainstem` binary: reads the command line, starts the parts of a job in this process and reports how it
//! ended. All else lives in the library crates.

mod allocator;
mod cli;
mod deployer;
mod inspect;
mod job;
mod run;
mod sql_files;
mod status;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    allocator::configure();
    let cli = Cli::parse();
    init_logs(cli.json_logs());
    let outcome = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Explain(args) => inspect::explain(args),
        Command::Check(args) => inspect::check(args),
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
    eprintln!("error: {message}");
}

fn init_logs(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MAINSTEM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { logs.json().init() } else { logs.with_target(false).init() }
}
