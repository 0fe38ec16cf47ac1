//! The page of all commands and options, made from the command line's own declarations.

use std::fmt::Write;

use clap::{Arg, Command};

const HEAD: &str = "\
<!-- Made from the command line's declarations: run the unit tests of crates/server with MAINSTEM_WRITE_DOCS=1. -->
# Commands and options

Each option can be given as a flag, by a variable of the environment, or in a configuration file that `--config FILE` or
`MAINSTEM_CONFIG` names; a flag counts more than a variable, and a variable more than the file. The file is TOML. A key at its
top is for every command that has the option, one in a table named like a command is for this command alone, and any other
table is the front part of options: `[tls]` with `key` is `tls-key`. Unknown keys and wrong values are refused. `mainstem
cluster` takes its options from flags and its own table alone, and from the variables that are named at it. One file serves a
whole cluster:

```toml
cluster = \"orders\"
members = [\"1=host1:7071\", \"2=host2:7071\", \"3=host3:7071\"]
state-dir = \"/mnt/shared/mainstem\"

[tls]
certificate = \"/etc/mainstem/node.pem\"
key = \"/etc/mainstem/node.key\"
authority = \"/etc/mainstem/authority.pem\"

[coordinator]
data-dir = \"/var/lib/mainstem\"

[worker]
slots = 8
```

Workers and commands that are not told `coordinators` take the addresses of `members`. What differs from host to host is best
given by flags or variables: `mainstem coordinator --id 1`.

Settings of a job stand in its SQL: see [SET](sql.md).
";

/// The whole page.
pub(super) fn page(command: Command) -> String {
    let mut page = HEAD.to_owned();
    sections(&mut page, &command, "mainstem");
    page
}

/// A section for each subcommand, and for those that it has itself.
fn sections(page: &mut String, command: &Command, name: &str) {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        let positionals: Vec<String> = subcommand.get_positionals().map(positional).collect();
        let name = format!("{name} {}", subcommand.get_name());
        let usage = [vec![name.clone()], positionals].concat().join(" ");
        let _ = write!(page, "\n## `{usage}`\n\n{about}.\n");
        let options: Vec<&Arg> = subcommand.get_opts().filter(|arg| !arg.is_hide_set()).collect();
        if !options.is_empty() {
            page.push_str("\n| option | variable | default | meaning |\n|---|---|---|---|\n");
        }
        for arg in options {
            let _ = writeln!(page, "{}", row(arg));
        }
        sections(page, subcommand, &name);
    }
}

fn positional(arg: &Arg) -> String {
    let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
    if arg.get_num_args().is_some_and(|range| range.max_values() > 1) { format!("{name}...") } else { name }
}

fn row(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first()).filter(|_| arg.get_action().takes_values());
    let value = value.map(|name| format!(" {name}")).unwrap_or_default();
    let short = arg.get_short().map(|short| format!(", `-{short}`")).unwrap_or_default();
    let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    // What is decided only when the command runs stands at the end of its help.
    let (help, default) = match help.split_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), default.trim_end_matches(']').to_owned()),
        None if arg.is_required_set() => (help, "required".to_owned()),
        None if !arg.get_action().takes_values() => (help, "off".to_owned()),
        None => (help, defaults.join(",")),
    };
    format!("| `--{}{value}`{short} | {variable} | {default} | {help} |", arg.get_long().unwrap_or_default())
}
