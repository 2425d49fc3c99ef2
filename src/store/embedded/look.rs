//! What a router would find at its start, looked at without writing: whether the folder can be used or made, whether there is
//! room, and whether the database in it is one of ours. Another process may have it: it is most likely the router.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Access, access};

use super::super::Error;
use super::{folder, schema};

const DATABASE: &str = "branchline.db";

/// The head of a database, as far as it is looked at: SQLite's file format, section 1.3.
const HEAD_BYTES: usize = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
const SCHEMA_CHANGES_AT: usize = 40;
const VERSION_AT: usize = 60;
const APPLICATION_ID_AT: usize = 68;

/// Whether a router has ever opened its store in this folder.
pub fn is_there(path: &Path) -> bool {
    path.join(DATABASE).exists()
}

/// Looks at the store's folder. What a router would refuse is the error.
pub fn look(path: &Path) -> Result<(), Error> {
    let unusable = |what: &str| Error::Unusable(format!("the store's folder `{}` {what}", path.display()));
    // What is not there yet is made, in the nearest folder that is.
    let there = path.ancestors().find(|folder| folder.as_os_str().is_empty() || folder.exists()).unwrap_or(path);
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if !there.is_dir() {
        return Err(unusable(&format!("can't be made: `{}` is not a folder", there.display())));
    }
    if let Err(error) = access(there, Access::WRITE_OK | Access::EXEC_OK) {
        let what = if there == path { "can't be written to" } else { "can't be made" };
        return Err(unusable(&format!("{what}: {error}")));
    }
    folder::has_room(there)?;
    let Ok(mut file) = File::open(path.join(DATABASE)) else { return Ok(()) };
    let mut head = [0; HEAD_BYTES];
    // A database whose first pages are still in the log only has no head yet, or one without a table.
    if file.read_exact(&mut head).is_err() {
        return Ok(());
    }
    let number = |at: usize| i64::from(i32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let fits = if head.starts_with(MAGIC) && number(SCHEMA_CHANGES_AT) == 0 {
        Ok(())
    } else if head.starts_with(MAGIC) {
        schema::fits(number(APPLICATION_ID_AT), number(VERSION_AT))
    } else {
        Err(schema::Error::Foreign)
    };
    fits.map_err(|error| Error::Unusable(format!("the store in `{}` can't be used: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::super::EmbeddedStore;
    use super::*;
    use crate::clock::Clock;
    use crate::store::{Store, StoreOptions};

    #[tokio::test]
    async fn a_folder_is_looked_at_and_left_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/data");
        look(&path).unwrap();
        assert!(!parent.path().join("a").exists());
        let store = EmbeddedStore::open(&path, StoreOptions::default(), Clock::system()).await.unwrap();
        look(&path).unwrap();
        store.close().await.unwrap();
        look(&path).unwrap();

        let said = |path: &Path| look(path).unwrap_err().to_string();
        let file = parent.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert!(said(&file).contains("is not a folder"), "{}", said(&file));
        assert!(said(&file.join("data")).contains("is not a folder"));
        let database = path.join("branchline.db");
        let mut bytes = std::fs::read(&database).unwrap();
        bytes[VERSION_AT + 3] = 9;
        std::fs::write(&database, &bytes).unwrap();
        assert!(said(&path).contains("it has layout 9"), "{}", said(&path));
        bytes[APPLICATION_ID_AT] = 0;
        std::fs::write(&database, &bytes).unwrap();
        assert!(said(&path).contains("a database of another program"), "{}", said(&path));
    }
}
