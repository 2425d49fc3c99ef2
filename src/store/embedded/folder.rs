//! The store's folder: made private, locked for one process, and watched for room.
//!
//! The lock is `flock`'s, so it ends with the process however that ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::super::Error;

/// Below this much free room nothing more is accepted, so that settlements and the log still have some.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// On a large disk a hundredth is kept free instead, up to this much.
const FREE_BYTES_MIN_MOST: u64 = 1 << 30;

/// A folder that this process alone uses.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Holds the lock for as long as it is open.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there, and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, Error> {
        let unusable = |what: &str, error: &dyn std::fmt::Display| {
            Error::Unusable(format!("the store's folder `{}` {what}: {error}", path.display()))
        };
        // Payloads are in it: nobody else may read them.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| unusable("can't be made", &error))?;
        let lock = private_file(&path.join("store.lock")).map_err(|error| unusable("can't be written to", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Unusable(format!(
                "the store's folder `{}` is in use by another process; an embedded store serves one router",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(unusable("can't be locked", &error)),
        }
    }

    /// The database's path; the file is made here, so that it is private from its first byte.
    pub(super) fn database(&self) -> Result<PathBuf, Error> {
        let path = self.path.join("branchline.db");
        let log = self.path.join("branchline.db-wal");
        let length = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
        // SQLite would take this for a new database and throw the log away.
        if length(&path) == 0 && length(&log) > 0 {
            return Err(self.unusable("its database file is gone, but not the log of its last changes"));
        }
        private_file(&path).map_err(|error| self.unusable(error))?;
        Ok(path)
    }

    /// Refuses when there is too little room to accept more.
    pub(super) fn has_room(&self) -> Result<(), Error> {
        has_room(&self.path)
    }

    /// An error that names the folder.
    pub(super) fn unusable(&self, detail: impl std::fmt::Display) -> Error {
        Error::Unusable(format!("the store in `{}` can't be used: {detail}", self.path.display()))
    }
}

/// Refuses when there is too little room in a folder.
pub(super) fn has_room(path: &Path) -> Result<(), Error> {
    let disk = match rustix::fs::statvfs(path) {
        Ok(disk) => disk,
        Err(error) => return Err(Error::Full(format!("how full the disk is can't be told: {error}"))),
    };
    let free_bytes_min = (disk.f_blocks.saturating_mul(disk.f_frsize) / 100).clamp(FREE_BYTES_MIN, FREE_BYTES_MIN_MOST);
    if disk.f_bavail.saturating_mul(disk.f_frsize) < free_bytes_min {
        let free_mib_min = free_bytes_min >> 20;
        return Err(Error::Full(format!("less than {free_mib_min} MiB are free in `{}`", path.display())));
    }
    Ok(())
}

fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_private_and_serves_one_process() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/data");
        let folder = Folder::lock(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(folder.database().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let error = Folder::lock(&path).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("a/data"), "{error}");
        drop(folder);
        Folder::lock(&path).unwrap();
    }

    #[test]
    fn a_log_without_its_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("branchline.db-wal"), b"changes").unwrap();
        assert!(matches!(Folder::lock(folder.path()).unwrap().database(), Err(Error::Unusable(_))));
    }
}
