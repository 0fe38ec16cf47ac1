//! The configuration file and the environment, behind the command line: each option of a command can be given by any of
//! them. There is one list of options, the command line's ([`crate::cli`]); the file's keys and the names of the
//! variables follow from it, so none can be forgotten and an unknown key is found at once.
//!
//! What is given by a flag counts more than a variable, and a variable more than the file.

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};
use toml::de::{DeTable, DeValue};

use crate::cli::Cli;

/// Variables are named by this and the option.
const PREFIX: &str = "MAINSTEM_";
/// The option that names the file.
const CONFIG: &str = "config";
/// Members of a cluster, which are also the coordinators that workers and users look for.
const MEMBERS: &str = "members";
const COORDINATORS: &str = "coordinators";
/// The command that starts a whole cluster here; its options are numbers of nodes, not what a node is told.
const CLUSTER: &str = "cluster";
/// A file is not larger, so that a wrong path does no harm.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The command line of this process with the environment and the configuration file behind it. Ends the process where the
/// command line is wrong or only asks for help.
///
/// # Errors
/// A configuration file that cannot be read, an unknown key or a wrong value in it, each with its place.
pub(crate) fn parse() -> anyhow::Result<Cli> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let mut command = command();
    if let Some(path) = config_path(&arguments) {
        let size =
            fs::metadata(&path).with_context(|| format!("cannot read the configuration file '{}'", path.display()))?;
        if size.len() > FILE_BYTES_MAX {
            bail!(
                "the configuration file '{}' has {} bytes, at most {FILE_BYTES_MAX} are read",
                path.display(),
                size.len()
            );
        }
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read the configuration file '{}'", path.display()))?;
        command = apply(command, &path.display().to_string(), &text)?;
    }
    let matches = command.clone().get_matches_from(arguments);
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command).exit())
}

/// The command line with a variable for each option that takes a value.
pub(crate) fn command() -> Command {
    let config = Arg::new(CONFIG).long(CONFIG).value_name("FILE").env(format!("{PREFIX}CONFIG")).global(true);
    let mut command = Cli::command().arg(config.help("A configuration file (TOML); see docs/reference.md"));
    for name in subcommands(&command).into_iter().filter(|name| name != CLUSTER) {
        command = command.mut_subcommand(name, |subcommand| subcommand.mut_args(with_variable));
    }
    command
}

/// The variables that stand for options, the file's among them.
pub(crate) fn variables() -> Vec<OsString> {
    let command = command();
    let of_subcommands = command.get_subcommands().flat_map(Command::get_arguments);
    command.get_arguments().chain(of_subcommands).filter_map(|arg| Some(arg.get_env()?.to_owned())).collect()
}

fn with_variable(arg: Arg) -> Arg {
    match arg.get_long().filter(|_| arg.get_env().is_none() && !arg.is_hide_set() && takes_value(&arg)) {
        Some(long) => {
            let name = format!("{PREFIX}{}", long.replace('-', "_").to_uppercase());
            arg.env(name)
        }
        None => arg,
    }
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn subcommands(command: &Command) -> Vec<String> {
    command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect()
}

/// The file must be known before the command line is read with its values.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let flag = format!("--{CONFIG}");
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if *argument == *flag {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|a| a.strip_prefix(&flag)?.strip_prefix('=')) {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os(format!("{PREFIX}CONFIG")).map(PathBuf::from)
}

/// One value of the file.
struct Setting {
    /// The command that it is for; every command that has the option, where not set.
    command: Option<String>,
    /// The option, without dashes in front.
    option: String,
    /// As the user wrote it, for messages.
    key: String,
    values: Vec<String>,
    /// `line L, column C`.
    place: String,
}

/// Makes the values of a configuration file the defaults of the options.
fn apply(mut command: Command, file: &str, text: &str) -> anyhow::Result<Command> {
    // Those of one command after those of all.
    let mut settings = settings(&command, text).map_err(|message| anyhow::anyhow!("{file}: {message}"))?;
    settings.sort_by_key(|setting| setting.command.is_some());
    for setting in settings {
        let name = &setting.command;
        let concerned: Vec<String> = subcommands(&command)
            .into_iter()
            .filter(|subcommand| name.as_deref().map_or(subcommand != CLUSTER, |name| name == subcommand))
            .filter(|subcommand| option(&command, subcommand, &setting.option).is_some())
            .collect();
        let Some(arg) = concerned.first().and_then(|subcommand| option(&command, subcommand, &setting.option)) else {
            bail!("{file}: {}: {}", setting.place, unknown(&command, &setting));
        };
        check(arg, &setting).map_err(|reason| anyhow::anyhow!("{file}: {}: {reason}", setting.place))?;
        for subcommand in concerned {
            command = with_default(command, &subcommand, &setting.option, &setting.values);
        }
        if setting.option == MEMBERS && setting.command.is_none() {
            let addresses: Vec<String> =
                setting.values.iter().filter_map(|member| Some(member.split_once('=')?.1.to_owned())).collect();
            for subcommand in subcommands(&command) {
                if option(&command, &subcommand, COORDINATORS).is_some_and(|arg| arg.get_default_values().is_empty())
                    && option(&command, &subcommand, MEMBERS).is_none()
                {
                    command = with_default(command, &subcommand, COORDINATORS, &addresses);
                }
            }
        }
    }
    Ok(command)
}

fn with_default(command: Command, subcommand: &str, long: &str, values: &[String]) -> Command {
    let values: Vec<clap::builder::OsStr> = values.iter().map(Into::into).collect();
    command.mut_subcommand(subcommand, |subcommand| {
        subcommand.mut_args(|arg| {
            if arg.get_long() == Some(long) { arg.required(false).default_values(values.clone()) } else { arg }
        })
    })
}

/// The option of a subcommand, where it has one that a file may set.
fn option<'a>(command: &'a Command, subcommand: &str, long: &str) -> Option<&'a Arg> {
    let mut arguments = command.find_subcommand(subcommand)?.get_arguments();
    arguments.find(|arg| arg.get_long() == Some(long) && !arg.is_hide_set() && !arg.is_global_set())
}

/// Whether the option takes the value.
fn check(arg: &Arg, setting: &Setting) -> Result<(), String> {
    if !takes_value(arg) {
        let truth = matches!(setting.values.as_slice(), [value] if value == "true" || value == "false");
        return if truth { Ok(()) } else { Err(format!("'{}' is true or false", setting.key)) };
    }
    let flag = format!("--{}", setting.option);
    let arguments = setting.values.iter().flat_map(|value| [flag.clone(), value.clone()]);
    // Alone, so that the message is about this value.
    let arg = arg.clone().required(false).env(None::<&str>);
    match Command::new("config").no_binary_name(true).arg(arg).try_get_matches_from(arguments) {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default();
            Err(format!("'{}': {}", setting.key, first.strip_prefix("error: ").unwrap_or(first)))
        }
    }
}

fn unknown(command: &Command, setting: &Setting) -> String {
    let wanted = |subcommand: &&Command| setting.command.as_ref().is_none_or(|name| name == subcommand.get_name());
    let arguments = command.get_subcommands().filter(wanted).flat_map(Command::get_arguments);
    let visible = arguments.filter(|arg| !arg.is_hide_set() && !arg.is_global_set() && arg.get_long() != Some("help"));
    let mut known: Vec<&str> = visible.filter_map(Arg::get_long).collect();
    known.sort_unstable();
    known.dedup();
    format!("there is no option '{}'; there are: {}", setting.key, known.join(", "))
}

/// What the file says. A table is a command (`[worker]`), or the front part of options (`[tls]`).
fn settings(command: &Command, text: &str) -> Result<Vec<Setting>, String> {
    let table = DeTable::parse(text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| format!("{}: ", place(text, &span)));
        format!("{place}{}", error.message())
    })?;
    let commands = subcommands(command);
    let mut settings = Vec::new();
    let mut add = |command: Option<String>, option: String, key: String, value: &DeValue<'_>, span: Range<usize>| {
        let place = place(text, &span);
        let values = values(value).ok_or_else(|| format!("{place}: '{key}' is no text, number, or list of them"))?;
        settings.push(Setting { command, option, key, values, place });
        Ok::<_, String>(())
    };
    for (key, value) in table.get_ref() {
        let name = key.get_ref();
        let DeValue::Table(section) = value.get_ref() else {
            add(None, name.to_string(), name.to_string(), value.get_ref(), key.span())?;
            continue;
        };
        let command = commands.iter().find(|command| *command == name);
        for (inner, value) in section {
            let (option, whole) = (inner.get_ref(), format!("{name}.{}", inner.get_ref()));
            let option = if command.is_some() { option.to_string() } else { format!("{name}-{option}") };
            add(command.cloned(), option, whole, value.get_ref(), inner.span())?;
        }
    }
    Ok(settings)
}

/// A value, or each of a list, as it would stand on the command line.
fn values(value: &DeValue<'_>) -> Option<Vec<String>> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(integer) => Some(integer.as_str().to_owned()),
        DeValue::Boolean(truth) => Some(truth.to_string()),
        _ => None,
    };
    match value {
        DeValue::Array(list) => list.iter().map(|value| one(value.get_ref())).collect(),
        single => Some(vec![one(single)?]),
    }
}

fn place(text: &str, span: &Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    format!("line {}, column {}", before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
