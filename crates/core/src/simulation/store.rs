//! What lies outside of every process: checkpoint files, hidden output, published output. And whatever is done to it,
//! as something that may also be done later than anybody wants, by a process that was given up.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::plan::{Cell, Out};
use crate::ids::{Epoch, Generation, JobId, OperatorId};
use crate::protocol::{Barrier, Committable, OperatorSnapshot, SplitState};

/// A manifest, as far as the simulated job needs one.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) barrier: Barrier,
    pub(super) parallelism: u32,
    pub(super) operators: BTreeMap<OperatorId, Vec<(u32, OperatorSnapshot)>>,
    pub(super) splits: Vec<SplitState>,
}

impl Manifest {
    pub(super) fn state_paths(&self) -> BTreeSet<String> {
        let parts = self.operators.values().flatten();
        parts.flat_map(|(_, part)| &part.state).map(|handle| handle.path.clone()).collect()
    }
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    State(Rc<Vec<(Cell, u32)>>),
    Manifest(Rc<Manifest>),
}

#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) job: JobId,
    pub(super) generation: Generation,
    pub(super) content: Content,
}

/// Hidden output of one subtask in one epoch.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    pub(super) job: JobId,
    pub(super) generation: Generation,
    pub(super) rows: Rc<Vec<Out>>,
}

#[derive(Default)]
pub(super) struct Store {
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) damaged: BTreeSet<String>,
    pub(super) staged: BTreeMap<String, Staged>,
    pub(super) published: BTreeMap<String, Rc<Vec<Out>>>,
}

/// Something done to the outside. Each can be done twice.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Put {
        path: String,
        object: Object,
    },
    Stage {
        name: String,
        staged: Staged,
    },
    Publish {
        job: JobId,
        epoch: Epoch,
        committables: BTreeMap<OperatorId, Vec<Committable>>,
    },
    /// Removes hidden output of attempts below the generation.
    CleanUp {
        job: JobId,
        below: Generation,
    },
    /// Removes objects of attempts below the generation that are not named.
    RemoveOrphans {
        job: JobId,
        named: Rc<BTreeSet<String>>,
        below: Generation,
    },
    Delete {
        paths: Vec<String>,
    },
}

impl Store {
    /// The manifest at a path, unless it is damaged or gone.
    pub(super) fn manifest(&self, path: &str) -> Option<Rc<Manifest>> {
        match &self.objects.get(path)?.content {
            Content::Manifest(manifest) if !self.damaged.contains(path) => Some(manifest.clone()),
            _ => None,
        }
    }

    pub(super) fn state(&self, path: &str) -> Option<Rc<Vec<(Cell, u32)>>> {
        match &self.objects.get(path)?.content {
            Content::State(content) => Some(content.clone()),
            Content::Manifest(_) => None,
        }
    }

    /// Output under a name, hidden or not.
    pub(super) fn output(&self, name: &str) -> Option<&Rc<Vec<Out>>> {
        self.published.get(name).or_else(|| self.staged.get(name).map(|staged| &staged.rows))
    }

    /// What an orphan removal takes away.
    pub(super) fn orphans(&self, job: &JobId, named: &BTreeSet<String>, below: Generation) -> Vec<String> {
        let is_orphan =
            |path: &String, object: &Object| object.job == *job && object.generation < below && !named.contains(path);
        self.objects.iter().filter(|(path, object)| is_orphan(path, object)).map(|(path, _)| path.clone()).collect()
    }
}

pub(super) fn manifest_path(job: &JobId, epoch: Epoch, generation: Generation) -> String {
    format!("{job}/manifest e{epoch} g{generation}")
}

pub(super) fn state_path(job: &JobId, epoch: Epoch, generation: Generation, index: u32) -> String {
    format!("{job}/state e{epoch} g{generation} i{index}")
}

pub(super) fn output_name(job: &JobId, epoch: Epoch, generation: Generation, index: u32) -> String {
    format!("{job}/output e{epoch} g{generation} i{index}")
}
