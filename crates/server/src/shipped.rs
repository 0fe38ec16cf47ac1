//! `mainstem completions` and `mainstem man`: what packages ship beside the binary, made from the command line's own
//! declarations.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use clap_complete::Shell;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write a page for each command into this directory, which is created [default: all pages to stdout].
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Prints the script with which a shell completes commands and options.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::config::command(), "mainstem", &mut script);
    crate::show(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes manual pages.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let mut command = without_help(crate::config::command());
    command.build();
    match &args.directory {
        Some(directory) => {
            let failed = || format!("cannot write manual pages into '{}'", directory.display());
            std::fs::create_dir_all(directory).with_context(failed)?;
            clap_mangen::generate_to(command, directory).with_context(failed)?;
        }
        None => {
            let mut pages = Vec::new();
            render(command, &mut pages).context("cannot make manual pages")?;
            crate::show(&String::from_utf8_lossy(&pages))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The same command without `help COMMAND`, which needs no pages: they would say what others say.
fn without_help(command: clap::Command) -> clap::Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

/// The page of a command, then those of its subcommands.
fn render(command: clap::Command, pages: &mut Vec<u8>) -> std::io::Result<()> {
    let inner: Vec<clap::Command> = command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned().collect();
    clap_mangen::Man::new(command).render(pages)?;
    inner.into_iter().try_for_each(|inner| render(inner, pages))
}
