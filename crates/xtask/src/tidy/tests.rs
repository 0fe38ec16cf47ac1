//! Runs the rules over the repository, and each rule over a file that breaks it.

use super::*;
use crate::repository;

fn all_files() -> Vec<RepositoryFile> {
    let files = repository::files(&repository::root()).expect("the repository can be read");
    assert!(files.iter().any(|file| file.path == "Cargo.toml"), "the list of files is not that of the repository");
    files
}

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

fn assert_each_file_passes(rule: impl Fn(&RepositoryFile) -> Vec<String>) {
    let findings: Vec<String> = all_files().iter().flat_map(rule).collect();
    assert_none(&findings);
}

fn file(path: &str, text: &str) -> RepositoryFile {
    RepositoryFile { path: path.to_owned(), size: text.len() as u64, text: Some(text.to_owned()) }
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    assert_eq!(header(&file("a.rs", "use std::fmt;\n")).len(), 1);
    assert_each_file_passes(header);
}

#[test]
fn no_file_is_too_long() {
    let long = "let a = 1;\n".repeat(PRODUCTION_LINES_MAX + 1);
    assert_eq!(length(&file("a.rs", &long)).len(), 1);
    assert_eq!(length(&file("a/tests.rs", &long)).len(), 0);
    let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(length(&file("a.rs", &tested)).len(), 0);
    assert_each_file_passes(length);
}

#[test]
fn no_module_file_is_called_mod() {
    assert_eq!(module_name(&file("src/a/mod.rs", "")).len(), 1);
    assert_each_file_passes(module_name);
}

#[test]
fn nothing_is_left_to_fix() {
    let unfinished = file("a.rs", concat!("fn a() {}\n// FIX", "ME: later\n"));
    assert!(marks(&unfinished)[0].starts_with("a.rs:2: "));
    assert_each_file_passes(marks);
}

#[test]
fn no_file_is_too_large() {
    let large = RepositoryFile { path: "a.bin".to_owned(), size: FILE_BYTES_MAX + 1, text: None };
    assert_eq!(size(&large).len(), 1);
    assert_each_file_passes(size);
}

#[test]
fn nothing_names_a_machine() {
    let wrong = [
        concat!("see /wo", "rk/main"),
        concat!("\"/ro", "ot/.cache\""),
        concat!("https:/", "/packages.internal/simple"),
        concat!("http:/", "/10.1.2.3:8080/"),
    ];
    for line in wrong {
        assert_eq!(machine_names(&file("a.md", line)).len(), 1, "{line}");
    }
    for line in [concat!("src/wo", "rk/a.rs"), "https://crates.io/", "http://127.0.0.1:8081", "version 10.1.2"] {
        assert_eq!(machine_names(&file("a.md", line)), Vec::<String>::new(), "{line}");
    }
    assert_each_file_passes(machine_names);
}

#[test]
fn all_crates_come_from_the_public_registry() {
    assert_eq!(lock_sources(&file("Cargo.lock", "source = \"git+https://example.com/a\"\n")).len(), 1);
    assert_each_file_passes(lock_sources);
}

#[test]
fn versions_stand_once() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\nb = \"1\"\nc.workspace = true\nd = { workspace = true }\n";
    let findings = dependency_versions(&file("crates/a/Cargo.toml", manifest));
    assert_eq!(findings, ["crates/a/Cargo.toml:4: take the dependency from [workspace.dependencies]"]);
    assert_each_file_passes(dependency_versions);
}

#[test]
fn every_crate_has_a_root() {
    assert_eq!(crate_roots(&[file("crates/a/Cargo.toml", "")]).len(), 1);
    let files: Vec<_> = all_files().into_iter().filter(|file| file.path != "Cargo.toml").collect();
    assert_none(&crate_roots(&files));
}

#[test]
fn links_lead_somewhere() {
    let files = [
        file("docs/a.md", "[b](b.md#part), [c](../c.md), [d](d/), [web](https://example.com/x)"),
        file("docs/b.md", ""),
    ];
    assert_eq!(document_links(&files).len(), 2);
    assert_none(&document_links(&all_files()));
}
