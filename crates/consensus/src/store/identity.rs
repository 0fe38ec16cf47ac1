//! Whose directory it is. A directory moves with its node and to no other one, and a node does not begin anew where it
//! has been before.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::io_error;
use crate::error::{ConsensusError, StoreError};

/// The format of everything in the file; raised when an older build would misread it.
pub(crate) const FORMAT: u32 = 1;
/// The file beside the log that tells whether there ought to be one.
const MARK_NAME: &str = "node.json";

/// Who keeps this file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// See [`FORMAT`].
    pub(crate) format: u32,
    /// The node's id.
    pub(crate) node: u64,
    /// The name of its cluster.
    pub(crate) cluster: String,
    /// Drawn when the file was made: tells a node from one that has its id and an empty disk.
    pub(crate) incarnation: u64,
    /// With whom the cluster began, where this node was among them and has begun.
    pub(crate) founders: BTreeSet<u64>,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    node: u64,
    cluster: String,
}

impl Identity {
    pub(crate) fn check(&self, node: u64, cluster: &str, directory: &Path) -> Result<(), ConsensusError> {
        let refused = |reason| ConsensusError::Identity { node, directory: directory.display().to_string(), reason };
        if self.format != FORMAT {
            return Err(refused(format!(
                "it was written in format {}, this build reads format {FORMAT}; run the release that wrote it",
                self.format
            )));
        }
        check_owner(self.node, &self.cluster, node, cluster).map_err(refused)
    }
}

fn check_owner(owner: u64, owner_cluster: &str, node: u64, cluster: &str) -> Result<(), String> {
    if owner == node && owner_cluster == cluster {
        return Ok(());
    }
    Err(format!(
        "it belongs to node {owner} of cluster '{owner_cluster}', this is node {node} of cluster '{cluster}'; give each node \
         a directory of its own"
    ))
}

/// Makes the directory where it is missing; whether it ever had a log. Refuses one that has lost it.
pub(super) fn prepare_directory(
    directory: &Path,
    log: &Path,
    node: u64,
    cluster: &str,
) -> Result<bool, ConsensusError> {
    std::fs::create_dir_all(directory).map_err(|error| io_error("make the directory", directory, &error))?;
    let path = directory.join(MARK_NAME);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(io_error("read", &path, &error).into()),
    };
    let mark: Mark = serde_json::from_slice(&text)
        .map_err(|error| StoreError::Damaged { path: path.display().to_string(), reason: error.to_string() })?;
    let refused = |reason| ConsensusError::Identity { node, directory: directory.display().to_string(), reason };
    check_owner(mark.node, &mark.cluster, node, cluster).map_err(refused)?;
    // An empty file would be taken for a new one.
    if std::fs::metadata(log).is_ok_and(|found| found.len() > 0) {
        return Ok(true);
    }
    Err(refused(
        "its log is gone, and with it what this node has promised to the others; bring the file back, or remove the node \
         from the cluster and add one with a new id and an empty directory"
            .to_owned(),
    ))
}

/// Records that there is a log here, and makes both names last.
pub(super) fn mark_directory(directory: &Path, node: u64, cluster: &str) -> Result<(), StoreError> {
    let path = directory.join(MARK_NAME);
    let failed = |error: std::io::Error| io_error("write", &path, &error);
    if !path.exists() {
        let mark = Mark { node, cluster: cluster.to_owned() };
        let text = serde_json::to_vec(&mark).map_err(|error| failed(error.into()))?;
        // Under another name first: half a mark would be taken for a damaged one.
        let draft = directory.join("node.json.new");
        let mut file = File::create(&draft).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&draft, &path).map_err(failed)?;
    }
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(failed)
}
