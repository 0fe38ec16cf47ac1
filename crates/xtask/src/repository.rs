//! The files of the repository: what git tracks, and what it would track. Called by the tests of `tidy`; reads
//! only, and never looks at build output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of a file that are read as text; larger ones are judged by their size alone.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// One file.
#[derive(Clone, Debug)]
pub struct RepositoryFile {
    /// From the root of the repository, with `/` between the parts.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Its content, where that is text.
    pub text: Option<String>,
}

/// The root of the repository that this crate was built from.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("the crate lies in crates/xtask").to_path_buf()
}

/// All files, in the order of their paths. The error says what git or the file system refused.
pub fn files(root: &Path) -> Result<Vec<RepositoryFile>, String> {
    let mut command = Command::new("git");
    command.arg("-C").arg(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = command.output().map_err(|e| format!("cannot run git, which tidy needs to list the files: {e}"))?;
    if !output.status.success() {
        return Err(format!("git cannot list the files: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut paths: Vec<&str> = listed.split('\0').filter(|path| !path.is_empty()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into_iter().filter_map(|path| read(root, path).transpose()).collect()
}

/// One file; none where git knows it but it has been removed.
fn read(root: &Path, path: &str) -> Result<Option<RepositoryFile>, String> {
    let full = root.join(path);
    let Ok(metadata) = fs::symlink_metadata(&full) else { return Ok(None) };
    if !metadata.is_file() {
        return Ok(None);
    }
    let size = metadata.len();
    let text = if size <= TEXT_BYTES_MAX {
        let bytes = fs::read(&full).map_err(|e| format!("cannot read '{path}': {e}"))?;
        String::from_utf8(bytes).ok()
    } else {
        None
    };
    Ok(Some(RepositoryFile { path: path.to_owned(), size, text }))
}
