//! A savepoint's description as the first version of the format has it. A whole one, with its state, is restored by the
//! end-to-end tests.

use super::*;
use crate::golden::{assert_still_written, golden};

const FILE: &str = "savepoint-1";

#[tokio::test]
async fn the_first_version_is_read_and_written_as_ever() {
    let mut expected = savepoint(&CheckpointStore::in_memory(), &FILES).await;
    expected.id = SavepointId::of(0x0123_4567_89ab_cdef);
    expected.version = "0.1.0".to_owned();
    expected.graph_json = "{\"nodes\":[]}".to_owned();
    let written = expected.description().unwrap();
    let golden = golden(FILE, &written);
    assert_eq!(read::parse(&golden).unwrap(), expected);
    assert_still_written(FILE, &golden, &written, "docs/formats/savepoint.md");
    // The line that nothing but its version tells from that of another format.
    assert!(golden.starts_with(b"mainstem-savepoint 1 crc32c="));
    let newer = String::from_utf8(golden).unwrap().replacen("savepoint 1", "savepoint 2", 1);
    assert!(read::parse(newer.as_bytes()).unwrap_err().contains("unknown version"));
}
