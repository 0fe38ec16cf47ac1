//! The rules, each a function from a file (or all files) to what is wrong with it, one sentence a finding, with
//! the path and where possible the line. The tests run them over the repository.

#[cfg(test)]
mod tests;

use crate::repository::RepositoryFile;

/// Lines of production code in a file, at most.
pub const PRODUCTION_LINES_MAX: usize = 1000;
/// Bytes of a file, at most.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Where the crates of `Cargo.lock` come from.
const PUBLIC_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Ends of host names that nobody outside can reach.
const PRIVATE_HOST_ENDS: [&str; 5] = [".internal", ".local", ".lan", ".corp", ".intranet"];
/// Address ranges that nobody outside can reach.
const PRIVATE_ADDRESS_STARTS: [&str; 2] = ["10.", "192.168."];

/// Every Rust file opens with what it is for.
#[must_use]
pub fn header(file: &RepositoryFile) -> Vec<String> {
    let Some(text) = rust(file) else { return Vec::new() };
    if text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!("{}: open the file with '//! ' and what it is for, who calls it, what it must never do", file.path)]
}

/// No file of production code is too long to know.
#[must_use]
pub fn length(file: &RepositoryFile) -> Vec<String> {
    let Some(text) = rust(file).filter(|_| !is_test(&file.path)) else { return Vec::new() };
    let lines = production_lines(text);
    if lines <= PRODUCTION_LINES_MAX {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines of production code, at most {PRODUCTION_LINES_MAX}; split it", file.path)]
}

/// Lines before the unit tests that stand at the end of a file.
fn production_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    tests.unwrap_or(lines.len())
}

/// Modules are `foo.rs` with `foo/`.
#[must_use]
pub fn module_name(file: &RepositoryFile) -> Vec<String> {
    if !file.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    vec![format!("{}: name it after its module and put it beside the directory", file.path)]
}

/// What must be mended before it is merged is mended.
#[must_use]
pub fn marks(file: &RepositoryFile) -> Vec<String> {
    // In two parts, so that this file does not find itself.
    let mark = concat!("FIX", "ME");
    matching_lines(
        file,
        |line| line.contains(mark),
        &format!("'{mark}' is left; mend it, or say as TODO what is missing and where it is tracked"),
    )
}

/// No large files: they stay in the history for ever.
#[must_use]
pub fn size(file: &RepositoryFile) -> Vec<String> {
    if file.size <= FILE_BYTES_MAX {
        return Vec::new();
    }
    vec![format!("{}: {} bytes, at most {FILE_BYTES_MAX}; make the data when it is needed", file.path, file.size)]
}

/// Nothing that only exists on the machine of the person who wrote it: paths, hosts, addresses.
#[must_use]
pub fn machine_names(file: &RepositoryFile) -> Vec<String> {
    let homes = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let mut findings = matching_lines(
        file,
        |line| homes.iter().any(|home| names_path(line, home)),
        "a path of one machine; use a relative one",
    );
    findings.extend(matching_lines(file, names_private_host, "a host that others cannot reach; use a public one"));
    findings
}

/// Whether a line has an absolute path that begins with this directory; as a part of a longer path or of an
/// address it does not count.
fn names_path(line: &str, directory: &str) -> bool {
    line.match_indices(directory).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_-.}~*)".contains(c))
    })
}

fn names_private_host(line: &str) -> bool {
    let hosts = line.split("://").skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || ".-_@".contains(c))).unwrap_or(rest.len());
        let host = &rest[..end];
        host.rsplit('@').next().unwrap_or(host)
    });
    hosts.into_iter().any(|host| {
        let is_address = host.chars().all(|c| c.is_ascii_digit() || c == '.');
        PRIVATE_HOST_ENDS.iter().any(|end| host.ends_with(end))
            || (is_address && PRIVATE_ADDRESS_STARTS.iter().any(|start| host.starts_with(start)))
    })
}

/// All crates come from the public registry, so that everybody can build.
#[must_use]
pub fn lock_sources(file: &RepositoryFile) -> Vec<String> {
    if file.path != "Cargo.lock" {
        return Vec::new();
    }
    let is_other = |line: &str| {
        line.strip_prefix("source = \"").is_some_and(|source| source.trim_end_matches('"') != PUBLIC_REGISTRY)
    };
    matching_lines(file, is_other, "a crate that is not from the public registry")
}

/// Versions of dependencies stand once, in the workspace's `Cargo.toml`.
#[must_use]
pub fn dependency_versions(file: &RepositoryFile) -> Vec<String> {
    let is_crate = file.path.starts_with("crates/") && file.path.ends_with("/Cargo.toml");
    let Some(text) = file.text.as_deref().filter(|_| is_crate) else { return Vec::new() };
    let mut findings = Vec::new();
    let mut in_dependencies = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with('[') {
            in_dependencies = line.trim_end_matches(']').ends_with("dependencies");
        } else if in_dependencies
            && line.contains('=')
            && !line.trim_start().starts_with('#')
            && !line.contains("workspace = true")
        {
            findings.push(format!("{}:{number}: take the dependency from [workspace.dependencies]", file.path));
        }
    }
    findings
}

/// Every crate has a root.
#[must_use]
pub fn crate_roots(files: &[RepositoryFile]) -> Vec<String> {
    let exists = |path: &str| files.iter().any(|file| file.path == path);
    let manifests = files.iter().filter_map(|file| file.path.strip_suffix("/Cargo.toml"));
    let rootless =
        manifests.filter(|dir| !exists(&format!("{dir}/src/lib.rs")) && !exists(&format!("{dir}/src/main.rs")));
    rootless.map(|dir| format!("{dir}: has neither src/lib.rs nor src/main.rs")).collect()
}

/// Links between documents lead somewhere.
#[must_use]
pub fn document_links(files: &[RepositoryFile]) -> Vec<String> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for (number, line) in (1..).zip(file.text.as_deref().unwrap_or_default().lines()) {
            for target in link_targets(line) {
                let path = resolve(&file.path, target);
                let is_there =
                    path.is_empty() || files.iter().any(|f| f.path == path || f.path.starts_with(&format!("{path}/")));
                if !is_there {
                    findings.push(format!("{}:{number}: the link '{target}' leads nowhere", file.path));
                }
            }
        }
    }
    findings
}

/// Targets of `[text](target)` that are files of the repository.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.map(|target| target.split('#').next().unwrap_or(target));
    targets.filter(|target| !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:"))
}

/// A relative link of a document, from the root of the repository.
fn resolve(document: &str, target: &str) -> String {
    let mut parts: Vec<&str> = document.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

fn rust(file: &RepositoryFile) -> Option<&str> {
    file.text.as_deref().filter(|_| file.path.ends_with(".rs"))
}

fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.contains("/examples/")
}

fn matching_lines(file: &RepositoryFile, is_wrong: impl Fn(&str) -> bool, what: &str) -> Vec<String> {
    let lines = (1..).zip(file.text.as_deref().unwrap_or_default().lines());
    lines.filter(|(_, line)| is_wrong(line)).map(|(number, _)| format!("{}:{number}: {what}", file.path)).collect()
}
