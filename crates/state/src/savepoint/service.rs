//! Savepoints in an object store. Nothing is renamed there: the description is written last, and on the condition that
//! there is none, so it is what makes the savepoint; what lies below a name without one is unfinished. Called by
//! `read` and `write`, which know the same of directories.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use mainstem_core::ids::SavepointId;
use mainstem_objects::{CreateError, ObjectUrl, Objects};

use super::error::service_error;
use super::read::parse;
use super::{DESCRIPTION, OpenSavepoint, PREFIX, Savepoint, SavepointError, SavepointProgress, UNFINISHED};
use crate::store::CheckpointStore;

/// Objects that a savepoint, or a directory of savepoints, may have.
const OBJECTS_MAX: usize = 1_000_000;

fn opened(url: &ObjectUrl) -> Result<Objects, SavepointError> {
    Objects::open(url).map_err(|error| service_error("open", &url.shown(), error))
}

/// Makes sure that objects can be written and deleted there, and removes what earlier tries of this savepoint have left.
pub(super) async fn prepare(url: &ObjectUrl, id: &SavepointId) -> Result<(), SavepointError> {
    prepare_in(&opened(url)?, id).await
}

pub(super) async fn prepare_in(objects: &Objects, id: &SavepointId) -> Result<(), SavepointError> {
    let failed = |action, key: &str, error| service_error(action, &objects.shown(key), error);
    let (names, _) = objects.names("").await.map_err(|e| failed("list", "", e))?;
    for name in names.iter().filter(|name| name.starts_with(PREFIX) && name.ends_with(&format!("-{id}"))) {
        // First what makes it a savepoint.
        let description = format!("{name}/{DESCRIPTION}");
        objects.remove(&description).await.map_err(|e| failed("remove", &description, e))?;
        for (key, _) in objects.list(name, OBJECTS_MAX).await.map_err(|e| failed("list", name, e))? {
            objects.remove(&key).await.map_err(|e| failed("remove", &key, e))?;
        }
    }
    let probe = format!("{UNFINISHED}{id}");
    let content = Bytes::from_static(b"whether one can write here");
    match objects.create(&probe, content).await {
        Ok(()) | Err(CreateError::Taken) => {}
        Err(CreateError::Failed(error)) => return Err(failed("write", &probe, error)),
    }
    objects.remove(&probe).await.map_err(|e| failed("remove", &probe, e))
}

impl Savepoint {
    /// See [`Savepoint::write`].
    pub(super) async fn write_to_service(
        &self,
        store: &CheckpointStore,
        url: &ObjectUrl,
        told: &(dyn Fn(SavepointProgress) + Send + Sync),
    ) -> Result<PathBuf, SavepointError> {
        self.write_in(store, &opened(&url.join(&self.name()))?, told).await
    }

    /// Writes all of it to where it is to lie.
    pub(super) async fn write_in(
        &self,
        store: &CheckpointStore,
        objects: &Objects,
        told: &(dyn Fn(SavepointProgress) + Send + Sync),
    ) -> Result<PathBuf, SavepointError> {
        let mut progress = self.progress();
        told(progress);
        for file in self.files() {
            let bytes = store.get_checked(&self.manifest.job, file).await?;
            // An earlier try has written the very same.
            objects.create(&file.path, bytes).await.map_err(|error| failed_write(objects, &file.path, error))?;
            progress.files += 1;
            progress.bytes += file.size;
            told(progress);
        }
        let described = objects.create(DESCRIPTION, self.description()?).await;
        described.map_err(|error| failed_write(objects, DESCRIPTION, error))?;
        Ok(PathBuf::from(objects.url().to_string()))
    }
}

fn failed_write(objects: &Objects, key: &str, error: CreateError) -> SavepointError {
    match error {
        CreateError::Failed(error) => service_error("write", &objects.shown(key), error),
        CreateError::Taken => SavepointError::Service {
            action: "write",
            path: objects.shown(key),
            message: "other content is there; take the savepoint in another place".to_owned(),
            retryable: false,
        },
    }
}

/// See [`OpenSavepoint::open`].
pub(super) async fn open(url: &ObjectUrl) -> Result<OpenSavepoint, SavepointError> {
    open_in(&opened(url)?).await
}

/// The savepoint that lies there, or the only one below it, with every file in its size.
pub(super) async fn open_in(objects: &Objects) -> Result<OpenSavepoint, SavepointError> {
    let (objects, savepoint) = describe_in(objects).await?;
    check_sizes(&objects, &savepoint).await?;
    Ok(OpenSavepoint::of_service(objects, savepoint))
}

/// See [`OpenSavepoint::describe`].
pub(super) async fn describe(url: &ObjectUrl) -> Result<OpenSavepoint, SavepointError> {
    let (objects, savepoint) = describe_in(&opened(url)?).await?;
    Ok(OpenSavepoint::of_service(objects, savepoint))
}

async fn describe_in(objects: &Objects) -> Result<(Objects, Savepoint), SavepointError> {
    let objects = find(objects).await?;
    let shown = objects.url().shown();
    let damaged = |file: &str, reason: String| SavepointError::Damaged {
        savepoint: shown.clone(),
        file: file.to_owned(),
        reason,
    };
    let bytes = match read(&objects, DESCRIPTION).await? {
        Ok(bytes) => bytes,
        Err(_) if is_empty(&objects).await? => {
            return Err(SavepointError::None { path: shown, what: "there is nothing".to_owned() });
        }
        Err(_) => return Err(SavepointError::Unfinished { path: shown }),
    };
    let savepoint = parse(&bytes).map_err(|reason| damaged(DESCRIPTION, reason))?;
    Ok((objects, savepoint))
}

async fn check_sizes(objects: &Objects, savepoint: &Savepoint) -> Result<(), SavepointError> {
    let damaged = |file: &str, reason: String| SavepointError::Damaged {
        savepoint: objects.url().shown(),
        file: file.to_owned(),
        reason,
    };
    for file in savepoint.files() {
        let failed = |error| service_error("look at", &objects.shown(&file.path), error);
        match objects.look(&file.path).await.map_err(failed)? {
            Some((size, _)) if size == file.size => {}
            Some((size, _)) => {
                let reason = format!("has {size} bytes and was written with {}", file.size);
                return Err(damaged(&file.path, reason));
            }
            None => return Err(damaged(&file.path, "is missing".to_owned())),
        }
    }
    Ok(())
}

/// The bytes of an object; in the words of a file where there is none.
pub(super) async fn read(objects: &Objects, key: &str) -> Result<io::Result<Bytes>, SavepointError> {
    let found = objects.read(key).await.map_err(|error| service_error("read", &objects.shown(key), error))?;
    Ok(found.map(|(bytes, _)| bytes).ok_or_else(|| io::ErrorKind::NotFound.into()))
}

async fn is_empty(objects: &Objects) -> Result<bool, SavepointError> {
    let failed = |error| service_error("list", &objects.url().shown(), error);
    Ok(objects.list("", 0).await.map_err(failed)?.is_empty())
}

/// Where the savepoint that is meant lies.
async fn find(objects: &Objects) -> Result<Objects, SavepointError> {
    let none = |what: String| SavepointError::None { path: objects.url().shown(), what };
    let failed = |error| service_error("list", &objects.url().shown(), error);
    let (directories, files) = objects.names("").await.map_err(failed)?;
    let is_one = files.iter().any(|name| name == DESCRIPTION) || objects.url().name().starts_with(PREFIX);
    if is_one {
        return Ok(objects.clone());
    }
    let mut found: Vec<_> = directories.into_iter().filter(|name| name.starts_with(PREFIX)).collect();
    found.sort();
    match found.as_slice() {
        [one] => objects.below(one).map_err(failed),
        [] => Err(none("it holds none".to_owned())),
        several => {
            let names: Vec<&str> = several.iter().take(5).map(String::as_str).collect();
            Err(none(format!("it holds {}, among them {}", several.len(), names.join(", "))))
        }
    }
}
