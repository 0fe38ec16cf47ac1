//! Completions and manual pages, which are made from the command line's declarations.

use crate::support::{Sandbox, assert_says, output_of, text};

#[test]
fn completions_are_scripts_that_know_every_command() {
    let sandbox = Sandbox::new("");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&sandbox.run_ok(&["completions", shell]).stdout);
        assert_says(&script, &["replay-dead-letters", "checkpoint-interval", "guarantees"]);
    }
    // A shell that is there runs it, and completes.
    sandbox.run_ok(&["completions", "bash"]);
    let script = sandbox.run_ok(&["completions", "bash"]).stdout;
    sandbox.write("completions", script);
    let mut bash = std::process::Command::new("bash");
    let complete = "source completions && COMP_WORDS=(mainstem state ver) COMP_CWORD=2 && _mainstem mainstem ver state && echo ${COMPREPLY[@]}";
    bash.args(["-c", complete]).current_dir(sandbox.dir.path());
    assert_eq!(text(&output_of(bash).stdout).trim(), "verify");
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let sandbox = Sandbox::new("");
    sandbox.run_ok(&["man", "pages"]);
    let page = |name: &str| std::fs::read_to_string(sandbox.path(&format!("pages/{name}.1"))).unwrap();
    assert_says(&page("mainstem"), &[".TH mainstem 1", "SUBCOMMANDS"]);
    assert_says(&page("mainstem-state-inspect"), &["state", "inspect", "hot keys"]);
    assert!(!sandbox.path("pages/mainstem-state-help.1").exists());
    let all = text(&sandbox.run_ok(&["man"]).stdout);
    assert_says(&all, &[".TH mainstem 1", "savepoint"]);
}
