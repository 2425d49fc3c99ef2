//! Compiled plugins on disk, so that a restart does not compile again. Machine code is trusted only when this program
//! wrote it: each artifact carries an HMAC under a key that lives in the same folder, readable by its owner alone.
//! Whatever is wrong with an artifact, it is deleted and made again; a cache is never a reason to fail.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit, Mac};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, Timespec, Timestamps};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::compiler::Compiler;
use super::error::Refusal;

/// First in every artifact; the number is the layout's version.
const MAGIC: &[u8; 20] = b"branchline compiled\x01";
const MAC_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
/// The largest artifact that is read back: 32 MiB of WebAssembly make about 100 MiB of machine code.
const ARTIFACT_BYTES_MAX: u64 = 512 << 20;
/// How many files the folder may hold; the least recently used are removed.
const FILES_MAX: usize = 256;

/// Machine code that may be run: it was made by this program's [`Compiler`], or read from the cache and found authentic.
struct Artifact(Vec<u8>);

/// What the cache did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Components that were loaded without compiling.
    pub hits: u64,
    /// Components that were compiled.
    pub compiled: u64,
    /// Artifacts that were not authentic or not readable, and were deleted.
    pub rejected: u64,
}

/// The folder of compiled plugins, or nothing.
pub(super) struct Cache {
    folder: Option<Folder>,
    hits: AtomicU64,
    compiled: AtomicU64,
    rejected: AtomicU64,
}

struct Folder {
    directory: OwnedFd,
    key: [u8; KEY_BYTES],
}

impl Cache {
    /// Opens the folder, making it where it does not exist. A folder that others could write to is not used.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let folder = path.and_then(|path| match Folder::open(path) {
            Ok(folder) => Some(folder),
            Err(error) => {
                tracing::warn!("compiled plugins are not kept in {}: {error}", path.display());
                None
            }
        });
        Self { folder, hits: AtomicU64::new(0), compiled: AtomicU64::new(0), rejected: AtomicU64::new(0) }
    }

    pub(super) fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            compiled: self.compiled.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }

    /// The component of the WebAssembly `binary`, whose SHA-256 is `digest`: from the folder, or compiled.
    pub(super) fn component(
        &self,
        engine: &Engine,
        compiler: &Compiler,
        binary: &[u8],
        digest: &[u8; 32],
    ) -> Result<Component, Refusal> {
        let name = self.folder.as_ref().map(|_| artifact_name(engine, digest));
        if let (Some(folder), Some(name)) = (&self.folder, &name) {
            match folder.read(name) {
                Ok(None) => {}
                Ok(Some(artifact)) => match load(engine, &artifact) {
                    Ok(component) => {
                        self.hits.fetch_add(1, Ordering::Relaxed);
                        return Ok(component);
                    }
                    Err(error) => self.reject(folder, name, &error),
                },
                Err(error) => self.reject(folder, name, &error.to_string()),
            }
        }
        let artifact = Artifact(compiler.compile(engine, binary)?);
        self.compiled.fetch_add(1, Ordering::Relaxed);
        let component = load(engine, &artifact).map_err(Refusal::Unloadable)?;
        if let (Some(folder), Some(name)) = (&self.folder, &name)
            && let Err(error) = folder.write(name, &artifact)
        {
            tracing::warn!("a compiled plugin could not be kept: {error}");
        }
        Ok(component)
    }

    fn reject(&self, folder: &Folder, name: &str, why: &str) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(artifact = name, "a compiled plugin is not used and will be made again: {why}");
        if let Err(error) = rustix::fs::unlinkat(&folder.directory, name, AtFlags::empty()) {
            tracing::warn!(artifact = name, "it could not be deleted: {error}");
        }
    }
}

/// Maps an artifact's machine code.
#[expect(unsafe_code, reason = "wasmtime can't check machine code; an `Artifact` is one that this program made")]
fn load(engine: &Engine, artifact: &Artifact) -> Result<Component, String> {
    // SAFETY: the bytes came from `Engine::precompile_component`. Either this process or its own child just called it, or
    // they were written to the cache and their HMAC was checked on the very bytes given here; wasmtime itself refuses other
    // versions.
    unsafe { Component::deserialize(engine, &artifact.0) }.map_err(|error| format!("{error:#}"))
}

/// The same component for another engine of the same settings.
#[expect(unsafe_code, reason = "the machine code is that of a component in use")]
pub(super) fn copy(component: &Component, engine: &Engine) -> wasmtime::Result<Component> {
    let code = component.serialize()?;
    // SAFETY: the bytes are the machine code of a component that this process has loaded from an `Artifact`.
    unsafe { Component::deserialize(engine, code) }
}

/// A name that changes with everything the machine code depends on: the plugin, the engine's settings, wasmtime's
/// version (part of the hash below) and the target.
fn artifact_name(engine: &Engine, digest: &[u8; 32]) -> String {
    struct Feed(Sha256);
    impl Hasher for Feed {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0 // Never asked for: the digest is taken out of `Feed`.
        }
    }
    let mut feed = Feed(Sha256::new());
    feed.write(digest);
    engine.precompile_compatibility_hash().hash(&mut feed);
    for part in [env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS] {
        part.hash(&mut feed);
    }
    format!("{}.cwasm", super::load::hex(&feed.0.finalize()))
}

impl Folder {
    fn open(path: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => refused("it is a symbolic link, or no folder"),
            other => other.into(),
        })?;
        let stat = rustix::fs::fstat(&directory)?;
        if !is_ours(&stat) {
            return Err(refused("it belongs to another user"));
        }
        if stat.st_mode & 0o022 != 0 {
            return Err(refused("others may write to it; `chmod go-w` it, or set `sandbox.cache` to another folder"));
        }
        let key = read_key(&directory)?;
        Ok(Self { directory, key })
    }

    /// The artifact of this name, if there is one. An error is an artifact to be deleted.
    fn read(&self, name: &str) -> io::Result<Option<Artifact>> {
        let Some(mut bytes) = read_file(&self.directory, name, ARTIFACT_BYTES_MAX)? else { return Ok(None) };
        let start = MAGIC.len() + MAC_BYTES;
        if bytes.len() < start || &bytes[..MAGIC.len()] != MAGIC {
            return Err(refused("its beginning is not that of an artifact"));
        }
        let authentic = self.mac(name, &bytes[start..]).verify_slice(&bytes[MAGIC.len()..start]).is_ok();
        if !authentic {
            return Err(refused("its authentication code is wrong"));
        }
        bytes.drain(..start);
        Ok(Some(Artifact(bytes)))
    }

    /// Keeps an artifact. Readers see none of it or all of it; of several writers the last one wins, with the same content.
    fn write(&self, name: &str, artifact: &Artifact) -> io::Result<()> {
        let temporary = temporary_name()?;
        let written = self.write_as(&temporary, name, artifact).and_then(|()| {
            rustix::fs::renameat(&self.directory, &temporary, &self.directory, name).map_err(io::Error::from)
        });
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.directory, &temporary, AtFlags::empty());
        }
        written?;
        self.prune()
    }

    fn write_as(&self, temporary: &str, name: &str, artifact: &Artifact) -> io::Result<()> {
        let mut file = create_file(&self.directory, temporary)?;
        file.write_all(MAGIC)?;
        file.write_all(&self.mac(name, &artifact.0).finalize().into_bytes())?;
        file.write_all(&artifact.0)?;
        file.sync_all()
    }

    /// The code over layout, name and machine code. The name is part of it, so that no artifact passes for another's.
    fn mac(&self, name: &str, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key).expect("an HMAC takes a key of any length");
        mac.update(MAGIC);
        mac.update(&(name.len() as u64).to_le_bytes());
        mac.update(name.as_bytes());
        mac.update(code);
        mac
    }

    /// Removes the files that were not used for longest, so that the folder does not grow for ever.
    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.ends_with(".cwasm") || name.ends_with(".tmp") {
                let stat = rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                files.push((stat.st_mtime, name.to_owned()));
            }
        }
        files.sort();
        for (_, name) in files.iter().take(files.len().saturating_sub(FILES_MAX)) {
            rustix::fs::unlinkat(&self.directory, name.as_str(), AtFlags::empty())?;
        }
        Ok(())
    }
}

/// The folder's key; made when there is none yet. Of several processes that make one, all use the first.
fn read_key(directory: &OwnedFd) -> io::Result<[u8; KEY_BYTES]> {
    const NAME: &str = "key";
    if read_file(directory, NAME, KEY_BYTES as u64)?.is_none() {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let temporary = temporary_name()?;
        let mut file = create_file(directory, &temporary)?;
        file.write_all(&key)?;
        file.sync_all()?;
        let linked = rustix::fs::linkat(directory, &temporary, directory, NAME, AtFlags::empty());
        rustix::fs::unlinkat(directory, &temporary, AtFlags::empty())?;
        match linked {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let key = read_file(directory, NAME, KEY_BYTES as u64)?.ok_or_else(|| refused("its key vanished"))?;
    key.try_into().map_err(|_| refused("its file `key` is not a key; delete it"))
}

/// The whole of a file that only its owner, who is us, may touch. `None` when there is none.
fn read_file(directory: &OwnedFd, name: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    if !is_file || !is_ours(&stat) || stat.st_mode & 0o077 != 0 {
        return Err(refused(&format!("the file `{name}` is not private to this user (mode 0600)")));
    }
    // The time of use, for `prune`. Where it can't be set, files are removed in another order.
    let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let _ = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
    let mut bytes = Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(bytes_max as usize));
    File::from(file).take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(refused(&format!("the file `{name}` is too large")));
    }
    Ok(Some(bytes))
}

fn create_file(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?))
}

fn temporary_name() -> io::Result<String> {
    Ok(format!("{:016x}.tmp", getrandom::u64().map_err(io::Error::other)?))
}

fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_does_not_grow_for_ever() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        for number in 0..FILES_MAX + 40 {
            let extension = if number % 2 == 0 { "cwasm" } else { "tmp" };
            let file = File::create(place.path().join(format!("{number}.{extension}"))).unwrap();
            file.set_modified(old + std::time::Duration::from_secs(number as u64)).unwrap();
        }
        std::fs::write(place.path().join("note"), "not the cache's").unwrap();
        folder.write("new.cwasm", &Artifact(vec![1, 2, 3])).unwrap();
        let names: Vec<_> = std::fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), FILES_MAX + 2, "the artifacts, the key and the note");
        for (name, kept) in
            [("0.cwasm", false), ("40.cwasm", false), ("41.tmp", true), ("new.cwasm", true), ("key", true)]
        {
            assert_eq!(names.iter().any(|it| it == name), kept, "{name}");
        }
        assert_eq!(folder.read("new.cwasm").unwrap().unwrap().0, [1, 2, 3]);
        assert!(folder.read("none.cwasm").unwrap().is_none());
        assert!(folder.read("41.tmp").is_err(), "others may read it");
    }
}
