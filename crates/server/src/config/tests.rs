//! Precedence, places in messages, and the page of all options.

use clap::{CommandFactory, FromArgMatches};

use super::*;
use crate::cli::Command as Subcommand;

const FILE: &str = r#"
cluster = "orders"
members = ["1=a:1", "2=b:2"]
state-dir = "/shared"

[tls]
certificate = "node.pem"

[coordinator]
id = 2
data-dir = "/data"

[worker]
slots = 8
compress = true
"#;

fn parsed(text: &str, arguments: &[&str]) -> Subcommand {
    let command = apply(Cli::command(), "c.toml", text).expect("the file is right");
    let matches = command.try_get_matches_from(arguments).unwrap_or_else(|error| panic!("{error}"));
    Cli::from_arg_matches(&matches).expect("as it was declared").command
}

fn refused(text: &str) -> String {
    apply(Cli::command(), "c.toml", text).expect_err("the file is wrong").to_string()
}

#[test]
fn a_file_is_for_all_nodes_and_flags_count_more() {
    let Subcommand::Coordinator(coordinator) = parsed(FILE, &["mainstem", "coordinator", "--data-dir", "/other"])
    else {
        panic!("a coordinator");
    };
    assert_eq!((coordinator.id, coordinator.members.len()), (2, 2));
    assert_eq!(coordinator.data_dir, PathBuf::from("/other"), "the flag counts more than the file");
    assert_eq!(coordinator.node.cluster, "orders");
    assert_eq!(coordinator.node.tls_certificate, Some(PathBuf::from("node.pem")));
    let Subcommand::Worker(worker) = parsed(FILE, &["mainstem", "worker"]) else { panic!("a worker") };
    assert_eq!((worker.slots, worker.compress), (8, true));
    assert_eq!(worker.coordinators, ["a:1", "b:2"], "the members are where a worker looks");
    let Subcommand::Jobs(jobs) = parsed(FILE, &["mainstem", "jobs"]) else { panic!("jobs") };
    assert_eq!(jobs.client.coordinators, ["a:1", "b:2"]);
    let addresses = "coordinators = [\"a:1\"]\n[cluster]\nworkers = 5\n";
    let Subcommand::Cluster(cluster) = parsed(addresses, &["mainstem", "cluster"]) else { panic!("a cluster") };
    assert_eq!(cluster.workers, 5);
    assert_eq!(cluster.coordinators, 3, "a number of coordinators is not their addresses");
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_place() {
    for (text, wanted) in [
        ("slots = 3\nslotz = 4\n", "c.toml: line 2, column 1: there is no option 'slotz'; there are: "),
        ("[worker]\n  id = 4\n", "c.toml: line 2, column 3: there is no option 'worker.id'; there are: advertise, "),
        (
            "[worker]\nslots = 0\n",
            "c.toml: line 2, column 1: 'worker.slots': invalid value '0' for '--slots <SLOTS>': 0 is not in 1..=1024",
        ),
        ("[worker]\ncompress = 3\n", "c.toml: line 2, column 1: 'worker.compress' is true or false"),
        ("members = [\"x\"]\n", "c.toml: line 1, column 1: 'members': invalid value 'x'"),
        ("[tls]\nkeys = \"a\"\n", "c.toml: line 2, column 1: there is no option 'tls.keys'; there are: "),
        (
            "[worker]\nslots = { a = 1 }\n",
            "c.toml: line 2, column 1: 'worker.slots' is no text, number, or list of them",
        ),
        ("slots = \n", "c.toml: line 1, column 9: "),
        ("[worker]\nwith-parent = true\n", "c.toml: line 2, column 1: there is no option 'worker.with-parent'"),
        ("config = \"other\"\n", "c.toml: line 1, column 1: there is no option 'config'"),
    ] {
        let message = refused(text);
        assert!(message.starts_with(wanted), "{text}: {message}");
    }
}

#[test]
fn the_file_is_found_however_it_is_given() {
    let path = |arguments: &[&str]| config_path(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
    assert_eq!(path(&["mainstem", "--config", "a.toml", "worker"]), Some(PathBuf::from("a.toml")));
    assert_eq!(path(&["mainstem", "worker", "--config=a.toml"]), Some(PathBuf::from("a.toml")));
}

#[test]
fn every_option_that_takes_a_value_has_a_variable() {
    let command = command();
    let worker = command.find_subcommand("worker").expect("there");
    let variable = |long: &str| {
        let mut arguments = worker.get_arguments();
        arguments.find(|arg| arg.get_long() == Some(long)).and_then(Arg::get_env).map(|name| name.to_owned())
    };
    assert_eq!(variable("slots"), Some("MAINSTEM_SLOTS".into()));
    assert_eq!(variable("tls-key"), Some("MAINSTEM_TLS_KEY".into()));
    assert_eq!(variable("with-parent"), None);
    assert!(variables().contains(&"MAINSTEM_CONFIG".into()));
}

/// `docs/reference.md` is made by this test: run it with MAINSTEM_WRITE_DOCS=1.
#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference.md");
    let page = reference::page(command());
    if std::env::var_os("MAINSTEM_WRITE_DOCS").is_some() {
        fs::write(path, &page).expect("docs can be written");
    }
    let written = fs::read_to_string(path).expect("docs/reference.md");
    assert!(written == page, "docs/reference.md is old: run this test with MAINSTEM_WRITE_DOCS=1");
}
