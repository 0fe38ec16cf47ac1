//! `mainstem sql`: a shell in which tables are declared, looked at and queried, and jobs are started. Statements come from a
//! terminal, from files, from the command line or through a pipe.

mod args;
mod editor;
mod jobs;
mod query;
mod result;
mod session;
mod shell;
mod split;
mod statement;

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

pub(crate) use self::args::SqlArgs;
use self::shell::Shell;
use crate::sql_files;

/// Statements of a file or a pipe may be so large.
const SQL_BYTES_MAX: u64 = 16 << 20;

/// Runs the shell to its end.
pub(crate) fn sql(args: &SqlArgs) -> anyhow::Result<ExitCode> {
    let is_typed = args.execute.is_empty() && args.file.is_empty() && std::io::stdin().is_terminal();
    let mut shell = Shell::new(args, is_typed)?;
    let outcome = run(&mut shell, args, is_typed);
    let ended = shell.end();
    outcome.and(ended)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs what is given, until its end or that of the shell.
fn run(shell: &mut Shell, args: &SqlArgs, is_typed: bool) -> anyhow::Result<()> {
    let read = |file: &Path| Ok((file.display().to_string(), sql_files::read(file, SQL_BYTES_MAX)?));
    let mut texts: Vec<(String, String)> = args.init.iter().map(|file| read(file)).collect::<anyhow::Result<_>>()?;
    for file in &args.file {
        texts.push(read(file)?);
    }
    texts.extend(args.execute.iter().map(|text| ("--execute".to_owned(), text.clone())));
    if args.execute.is_empty() && args.file.is_empty() && !is_typed {
        texts.push(("stdin".to_owned(), piped()?));
    }
    for (name, text) in &texts {
        if !run_all(shell, text, name)? {
            return Ok(());
        }
    }
    if is_typed { editor::run(shell, args.history.as_deref()) } else { Ok(()) }
}

/// Runs the statements of a text; stops at the first that fails. False: that is the end of the shell.
fn run_all(shell: &mut Shell, text: &str, name: &str) -> anyhow::Result<bool> {
    let split = split::split(text);
    for piece in split.statements.iter().chain(&split.rest) {
        match shell.run(&piece.text) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            // As `head` does when it has seen enough.
            Err(error) if error.root_cause().downcast_ref().is_some_and(is_broken_pipe) => return Ok(false),
            Err(error) => bail!("{name}, statement at line {}: {error:#}", piece.line),
        }
    }
    Ok(true)
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

fn piped() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(SQL_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .context("cannot read the statements from stdin")?;
    if text.len() as u64 > SQL_BYTES_MAX {
        bail!("stdin holds more than {SQL_BYTES_MAX} bytes of statements");
    }
    Ok(text)
}

/// Says something that is no result.
#[expect(clippy::print_stderr, reason = "the shell's own words")]
fn note(text: &str) {
    eprintln!("{text}");
}
