//! Another generation of the config in place of this one: checked and loaded whole, then swapped in one step, or not at all.
//!
//! Events that are being walked end on the generation they began with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;

use super::identities::Identities;
use super::{load, source_names};
use crate::accept::Intake;
use crate::admin::operations::times::Time;
use crate::admin::operations::{Caller, audit};
use crate::clock::{Clock, Timestamp};
use crate::config::{
    Comparison, Config, Description, Draft, Environment, Errors, Fault, Place, SecretPrints, Severity,
};
use crate::dispatch::Snapshot;
use crate::plugin::PluginHost;
use crate::secret::Secret;
use crate::send::Sender;
use crate::store::Store;

/// Reads the config anew when it is told to.
pub struct Reloader {
    path: PathBuf,
    plugins: Arc<PluginHost>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    intake: Arc<Intake>,
    store: Arc<dyn Store>,
    sender: Arc<Sender>,
    identities: Identities,
    clock: Clock,
    /// What only a restart can change, as it was at start.
    fixed: Fixed,
    in_use: Mutex<InUse>,
    one_at_a_time: tokio::sync::Mutex<()>,
    /// The files of the plugins of the config that was read last, whether it is in use or not.
    plugin_files: Mutex<Vec<PathBuf>>,
}

/// The config in use.
struct InUse {
    status: Status,
    /// Its [`Description`] as JSON: it is asked for now and then, and takes many times the room otherwise.
    description: Vec<u8>,
    /// What the JSON leaves out.
    secrets: BTreeMap<String, Secret>,
}

/// Which generation is in use, and what became of the last try to replace it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Counts the generations of this process, from 1.
    pub generation: u64,
    /// A digest of what the config says and of its plugins' components, but for what may be secret: secrets, the configs of plugins, the
    /// paths of URLs. That of another router with the same is the same; `branchline plan` compares those as well.
    pub digest: String,
    /// When it was loaded.
    pub loaded_at: Time,
    /// Why the last reload was refused; absent when it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<String>,
}

/// A reload that changed nothing.
#[derive(Clone, Debug)]
pub struct Refused {
    /// What stays in use.
    pub status: Status,
    /// What is wrong with what was read.
    pub errors: Errors,
}

/// The settings that are read once, at start. Printed forms are compared: secrets print as `***` and are left out by that.
#[derive(PartialEq, Eq)]
struct Fixed {
    sections: [(&'static str, String); 4],
}

impl Fixed {
    fn of(config: &Config) -> Self {
        let Config { ingest, admin, store, delivery, .. } = config;
        Self {
            sections: [
                ("ingest", format!("{ingest:?}")),
                ("admin", format!("{admin:?}")),
                ("store", format!("{store:?}")),
                ("delivery", format!("{delivery:?}")),
            ],
        }
    }

    fn differing(&self, other: &Self) -> Vec<&'static str> {
        let pairs = self.sections.iter().zip(&other.sections);
        pairs.filter(|(ours, theirs)| ours != theirs).map(|(ours, _)| ours.0).collect()
    }
}

impl InUse {
    fn new(generation: u64, mut description: Description, loaded_at: Timestamp) -> Self {
        let status = Status { generation, digest: description.digest(), loaded_at: Time(loaded_at), last_fault: None };
        let secrets = std::mem::take(&mut description.secrets);
        let description = serde_json::to_vec(&description).expect("a description has string keys only");
        Self { status, description, secrets }
    }

    fn description(&self) -> Description {
        let description = serde_json::from_slice(&self.description).expect("it was written from a description");
        Description { secrets: self.secrets.clone(), ..description }
    }
}

impl Reloader {
    #[expect(clippy::too_many_arguments, reason = "a reload concerns all of these")]
    pub(super) fn new(
        path: &Path,
        config: &Config,
        description: Description,
        plugins: Arc<PluginHost>,
        snapshot: Arc<ArcSwap<Snapshot>>,
        intake: Arc<Intake>,
        store: Arc<dyn Store>,
        sender: Arc<Sender>,
        identities: Identities,
        clock: Clock,
    ) -> Self {
        let generation = snapshot.load().generation;
        Self {
            path: path.to_owned(),
            plugins,
            snapshot,
            intake,
            store,
            sender,
            identities,
            clock,
            fixed: Fixed::of(config),
            in_use: Mutex::new(InUse::new(generation, description, clock.now())),
            one_at_a_time: tokio::sync::Mutex::default(),
            plugin_files: Mutex::new(plugin_files(config)),
        }
    }

    /// Which generation is in use.
    pub fn status(&self) -> Status {
        self.in_use().status.clone()
    }

    /// What the config in use says, and which secrets are others than in the config of whoever asks.
    pub fn compare(&self, prints: &SecretPrints) -> Comparison {
        let in_use = self.in_use();
        let (generation, description) = (in_use.status.generation, in_use.description());
        drop(in_use);
        Comparison { generation, differing: prints.differing(&description), description }
    }

    fn in_use(&self) -> MutexGuard<'_, InUse> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads, checks and loads the config; replaces the generation in use, or leaves it and says why. The audit log has both, and
    /// that it was `who`'s doing.
    pub async fn reload(&self, who: &str) -> Result<Status, Refused> {
        let _turn = self.one_at_a_time.lock().await;
        let loaded = self.load().await;
        let done = self.take(loaded);
        let detail = match &done {
            Ok(status) => format!("generation {} is in use", status.generation),
            Err(refused) => refused.sentence(),
        };
        let caller = Caller { who: who.to_owned(), now: self.clock.now() };
        audit::note(&*self.store, &caller, "reload", "config", detail).await;
        done
    }

    /// Remembers what came of a reload.
    fn take(&self, loaded: Result<(u64, Description), Errors>) -> Result<Status, Refused> {
        let mut in_use = self.in_use();
        match loaded {
            Ok((generation, description)) => {
                *in_use = InUse::new(generation, description, self.clock.now());
                tracing::info!(generation, "config reloaded");
                Ok(in_use.status.clone())
            }
            Err(errors) => {
                let status = &mut in_use.status;
                tracing::error!(generation = status.generation, "config not reloaded, the one in use stays: {errors}");
                status.last_fault = Some(errors.to_string());
                Err(Refused { status: status.clone(), errors })
            }
        }
    }

    /// The config's file or folder, and the files of its plugins.
    pub(super) fn files(&self) -> (PathBuf, Vec<PathBuf>) {
        (self.path.clone(), self.plugin_files.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn load(&self) -> Result<(u64, Description), Errors> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || Draft::read(&path, &Environment::of_process())).await;
        let draft = read.map_err(|error| self.fault_of_all(&error))??;
        let config = load::finish(draft, &self.plugins).await?;
        *self.plugin_files.lock().unwrap_or_else(PoisonError::into_inner) = plugin_files(&config);
        let before = self.snapshot.load_full();
        let loaded = load::load(&config, &self.plugins, &before).await?;
        let load::Loaded { snapshot, description, warnings } = loaded;
        let credentials = self.identities.read_again().map_err(|error| self.fault_of_all(&error))?;
        for warning in &warnings {
            tracing::warn!("{}", warning.line());
        }
        for section in self.fixed.differing(&Fixed::of(&config)) {
            tracing::warn!(
                "`[{section}]` has changed: it is read at start only, so the router keeps what it began with"
            );
        }
        match self.store.endpoint_marks().await {
            Ok(marks) => drop(snapshot.apply_marks(&marks)),
            // They are read every few seconds anyway; only an endpoint that is new here could be sent something until then.
            Err(error) => tracing::warn!(%error, "the marks on endpoints could not be read"),
        }
        if let Err(error) = self.store.remember_sources(&source_names(&config)).await {
            tracing::warn!(%error, "new sources could not be remembered: their events are found by id and source only");
        }
        let generation = snapshot.generation;
        for (identity, credentials) in credentials {
            identity.replace(credentials);
        }
        // Routes first: an event of a new source must never meet the old routes.
        let snapshot = Arc::new(snapshot);
        self.snapshot.store(Arc::clone(&snapshot));
        // After them: what begins from here on knows the new endpoints only.
        self.sender.keep_connections_of(snapshot.endpoints().map(|state| &*state.endpoint));
        self.intake.replace_sources(&config.sources);
        Ok((generation, description))
    }

    /// A fault of no key.
    fn fault_of_all(&self, error: &dyn std::error::Error) -> Errors {
        let place = Place::Whole { file: self.path.clone() };
        Errors { faults: vec![Fault::new(Severity::Error, place, error.to_string())], warnings: Vec::new() }
    }
}

impl Refused {
    /// The first fault, and how many there are, in a line.
    pub fn sentence(&self) -> String {
        let generation = self.status.generation;
        let first = self.errors.faults.first().map(Fault::line).unwrap_or_default();
        let more = match self.errors.faults.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        format!("not reloaded, generation {generation} stays in use: {first}{more}")
    }
}

fn plugin_files(config: &Config) -> Vec<PathBuf> {
    config.plugins.iter().map(|plugin| plugin.path.clone()).collect()
}
