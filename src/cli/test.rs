//! `branchline test`: the tests that stand beside the routes. Each brings an event in, has the endpoints answer by a script, and
//! compares what was sent, when, and how it ended. Filter, plugins, signatures and decisions are those of `serve`; only clock,
//! jitter and transport are others. A test sees no secret but its own, so it comes to the same on every machine.

mod attempts; // Retries that are the same delivery.
mod judge; // What differs from what must come.
mod report; // Words, JUnit and JSON.
mod script; // An endpoint that answers from a list.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use judge::{Came, Difference};
use script::Script;
use serde_json::Value;

use super::{DEFAULT_CONFIG, Error, compiler};
use crate::accept::read_event;
use crate::app;
use crate::config::{Config, Environment, Place, PluginFixtures, PluginSpec, RouteTest, TestEvent};
use crate::dispatch::{Rehearsed, Snapshot, Transport, rehearse};
use crate::event::Event;
use crate::metrics::Metrics;
use crate::plugin::{PluginHost, fixture};

/// The id of an event that brings none: a made one would be another each time.
const ID: &str = "evt_test";

/// The variables of the process that say where compiled plugins are kept.
const CACHE_VARIABLES: [&str; 2] = ["HOME", "XDG_CACHE_HOME"];

/// What `branchline test` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Configs: TOML or JSON files, or folders of `*.toml` files.
    #[arg(default_value = DEFAULT_CONFIG, env = "BRANCHLINE_CONFIG")]
    paths: Vec<PathBuf>,
    /// Only the tests whose name contains this; that there is none is a failure.
    #[arg(short = 'k', value_name = "TEXT")]
    filter: Option<String>,
    /// Write what was sent into the files that `body_file` names.
    #[arg(long)]
    update: bool,
    /// Write a JUnit report.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The tests of one config.
struct Suite {
    config: PathBuf,
    tests: Vec<Done>,
}

/// A test that was run.
struct Done {
    name: String,
    place: Option<Place>,
    took: Duration,
    /// What became of the event.
    ends: Vec<Rehearsed>,
    differences: Vec<Difference>,
    /// Whether a body was written.
    updated: bool,
}

/// Runs the tests of each config.
pub fn run(options: &Options) -> Result<(), Error> {
    // Plugins run on threads of their own; one thread for everything else keeps the clock in one hand.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.map_err(|error| Error::Failed(format!("the runtime could not be started: {error}")))?;
    let mut suites = Vec::new();
    for path in &options.paths {
        let tests = runtime.block_on(run_config(path, options))?;
        suites.push(Suite { config: path.clone(), tests });
    }
    let count = |wanted: fn(&Done) -> bool| suites.iter().flat_map(|suite| &suite.tests).filter(|d| wanted(d)).count();
    let (all, failed) = (count(|_| true), count(Done::failed));
    if all == 0 {
        return Err(Error::Failed(match &options.filter {
            Some(part) => format!("no test's name contains `{part}`"),
            None => "there is no test; they are written as `[[tests]]` beside the routes".to_owned(),
        }));
    }
    if let Some(file) = &options.junit {
        let written = report::junit(&suites).and_then(|xml| std::fs::write(file, xml));
        written.map_err(|error| Error::Failed(format!("can't write `{}`: {error}", file.display())))?;
    }
    if options.json {
        super::terminal::print_json(&report::json(&suites));
    } else {
        outln!("\n{}", report::summary(all, failed, count(|done| done.updated)));
    }
    if failed > 0 { Err(Error::Failed(format!("{failed} of {all} tests failed"))) } else { Ok(()) }
}

impl Done {
    fn failed(&self) -> bool {
        !self.differences.is_empty()
    }
}

async fn run_config(path: &Path, options: &Options) -> Result<Vec<Done>, Error> {
    let mut stage = Stage::open(path).await?;
    let config = Arc::clone(&stage.config);
    let is_asked_for = |test: &&RouteTest| options.filter.as_ref().is_none_or(|part| test.name.contains(part));
    let mut all = Vec::new();
    for test in config.tests.iter().filter(is_asked_for) {
        // Before the time is taken: tests with the same secrets share a generation.
        let snapshot = stage.generation(&test.secrets.0).await?;
        let began = Instant::now();
        let mut done = run_test(test, &snapshot, &stage, options.update).await;
        done.took = began.elapsed();
        if !options.json {
            out!("{}", report::line(&done, &config));
        }
        all.push(done);
    }
    Ok(all)
}

/// A config ready for its tests.
struct Stage {
    path: PathBuf,
    config: Arc<Config>,
    plugins: Arc<PluginHost>,
    /// By the secrets they are made with.
    generations: HashMap<Vec<(String, String)>, Arc<Snapshot>>,
}

impl Stage {
    /// Reads the config and refuses what `serve` would refuse of it.
    async fn open(path: &Path) -> Result<Self, Error> {
        let config = Config::load_with_environment(path, &environment(&[]))?;
        let plugins = PluginHost::start_with(&config.sandbox, compiler()?, Metrics::default());
        let plugins = Arc::new(plugins.map_err(app::Error::from)?);
        let snapshot = Arc::new(app::generation(&config, &plugins).await?);
        let generations = HashMap::from([(Vec::new(), snapshot)]);
        Ok(Self { path: path.to_owned(), config: Arc::new(config), plugins, generations })
    }

    /// The config with these secrets.
    async fn generation(&mut self, secrets: &[(String, String)]) -> Result<Arc<Snapshot>, Error> {
        if let Some(known) = self.generations.get(secrets) {
            return Ok(Arc::clone(known));
        }
        let mut config = Config::load_with_environment(&self.path, &environment(secrets))?;
        for spec in &mut config.plugins {
            // They were run when the stage was opened.
            *spec = Arc::new(PluginSpec { fixtures: PluginFixtures::Off, ..PluginSpec::clone(spec) });
        }
        let snapshot = Arc::new(app::generation(&config, &self.plugins).await?);
        self.generations.insert(secrets.to_vec(), Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Whether the URL of a subscription's endpoint may be shown: one that the config writes out may hold a token, and one
    /// that it takes from elsewhere is the test's own or a stand-in.
    fn shows_url(&self, snapshot: &Snapshot, subscription: &str) -> bool {
        let endpoint = snapshot.consumer(subscription).map(|consumer| &consumer.endpoint.endpoint.name);
        endpoint.is_some_and(|name| {
            ["env", "file"].iter().any(|key| self.config.sets(&format!("endpoints.{name}.url.{key}")))
        })
    }
}

/// The variables that a test sees: where the cache of compiled plugins is, and its own secrets.
fn environment(secrets: &[(String, String)]) -> Environment {
    let process = Environment::of_process();
    let places = CACHE_VARIABLES.iter().filter_map(|name| Some((*name, process.get(name)?)));
    places.collect::<Environment>().with(secrets.iter().cloned()).with_stand_ins_for_files()
}

async fn run_test(test: &RouteTest, snapshot: &Snapshot, stage: &Stage, update: bool) -> Done {
    let place = stage.config.place(&format!("{}.name", test.key));
    let name = test.name.clone();
    let mut done = Done { name, place, took: Duration::ZERO, ends: vec![], differences: vec![], updated: false };
    let event = match event_of(test) {
        Ok(event) => Arc::new(event),
        Err(why) => {
            done.differences.push(Difference::of(&test.key, why));
            return done;
        }
    };
    let script = Arc::new(Script::new(test));
    let on_stage = |clock| Arc::new(script.at(clock)) as Arc<dyn Transport>;
    done.ends = rehearse(snapshot, &stage.plugins, &event, on_stage).await;
    for expectation in &test.expected {
        let subscription = &expectation.subscription;
        let end = done.ends.iter().find(|end| end.subscription == *subscription);
        let shows_url = stage.shows_url(snapshot, subscription);
        let came = Came { end, sent: script.sent(subscription), shows_url };
        if update && let Some(file) = &expectation.request.body_file {
            match came.write_body(file) {
                Ok(changed) => done.updated |= changed,
                Err(why) => done.differences.push(Difference::of(&expectation.key, why)),
            }
        }
        done.differences.extend(judge::judge(expectation, &came));
    }
    for end in &done.ends {
        let own = test.expected.iter().find(|own| own.subscription == end.subscription);
        let key = own.map_or(&test.key, |own| &own.key);
        let consumer = snapshot.consumer(&end.subscription);
        let keys = consumer.map_or(&[][..], |consumer| &consumer.endpoint.endpoint.signing_keys);
        done.differences.extend(attempts::judge(key, &end.subscription, &script.sent(&end.subscription), keys));
    }
    if test.only {
        done.differences.extend(judge::others(test, &done.ends));
    }
    done
}

/// The event, by the rules that producers meet.
fn event_of(test: &RouteTest) -> Result<Event, String> {
    let text = match &test.event {
        TestEvent::Envelope(text) => text.clone(),
        TestEvent::File(path) => fixture::read_text(path)?,
    };
    let mut event = read_event(&text, &test.source, test.at).map_err(|why| format!("the event is refused: {why}"))?;
    let has_id = serde_json::from_str::<Value>(&text).is_ok_and(|envelope| envelope.get("id").is_some());
    if !has_id {
        event.id = ID.into();
    }
    Ok(event)
}
