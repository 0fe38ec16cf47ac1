//! Golden files: what the first build of each version of a format wrote, kept in the directory `golden` of the crate. Each
//! build must still read them, and must still write the same. Compiled into tests alone, also those of the metadata log.

use std::path::{Path, PathBuf};

/// Set to write the golden files that are missing. One that is there is never written anew.
const WRITE: &str = "MAINSTEM_WRITE_GOLDEN";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// The bytes of a golden file, which are `written` where it is missing and is to be made.
#[track_caller]
pub(crate) fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = path(name);
    if !path.exists() && std::env::var_os(WRITE).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, written).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|error| panic!("'{}': {error}; {WRITE}=1 makes it", path.display()))
}

/// Checks that what this build writes are the bytes of a golden file. `document`: where the format is described.
#[track_caller]
pub(crate) fn assert_still_written(name: &str, golden: &[u8], written: &[u8], document: &str) {
    let place = golden.iter().zip(written).position(|(then, now)| then != now);
    let place = place.unwrap_or_else(|| golden.len().min(written.len()));
    assert!(
        golden == written,
        "this build writes other bytes than the golden file '{}' from byte {place} on ({} bytes, the file has {}).\n\
         If the format has changed: raise its version in the code and in {document}, still read the version before and its \
         golden file (its test stays, without this comparison), say in docs/upgrade.md what becomes of what is stored, and add \
         a golden file of the new version under a new name ({WRITE}=1 makes those that are missing).\n\
         If the format is the same and only a library writes it in another way, such as a compressor: see that the build \
         before reads the new bytes, then remove the file and make it anew.",
        path(name).display(),
        written.len(),
        golden.len()
    );
}
