//! Files as the config names them: a relative path is relative to the file that it stands in.

use std::path::PathBuf;

use super::reader::{Entry, Table};

impl Entry<'_> {
    /// As a path.
    pub fn path(&self) -> Option<PathBuf> {
        let text = self.text()?;
        if text.is_empty() {
            self.fault("is empty");
            return None;
        }
        Some(self.reading.origins.folder(&self.key).join(&*text))
    }
}

/// What the router shows to others, and whom it believes: PEM files.
pub struct OwnTls {
    /// `cert` and `key`.
    pub own: Option<(PathBuf, PathBuf)>,
    /// `ca`.
    pub ca: Option<PathBuf>,
}

impl Table<'_> {
    /// A file that need not be there.
    pub fn file(&mut self, name: &'static str) -> Option<PathBuf> {
        self.find(name)?.path()
    }

    /// `cert` and `key`, which go together, and `ca`. `entry` is the table's own.
    pub fn own_tls(&mut self, entry: &Entry<'_>) -> Option<OwnTls> {
        let ca = self.file("ca");
        let own = match (self.file("cert"), self.file("key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                entry.fault(
                    "must have both `cert` and `key`, or neither: this router's certificate and its private key",
                );
                return None;
            }
        };
        Some(OwnTls { own, ca })
    }
}
