//! One run of a scenario: warm up, send, wait until all has arrived, and read what it cost.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::load::Producers;
use super::process::Child;
use super::scenario::{Scenario, System, Work};
use super::setup::Setup;
use super::{Options, receiver};
use crate::cli::Error;

/// How long a run may take before it is given up.
const RUN_TIMEOUT: Duration = Duration::from_secs(900);
/// How long an open loop goes on.
const OPEN_LOOP: Duration = Duration::from_secs(8);

/// One run's figures.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    pub events_per_second: f64,
    /// Those that arrived; an event has one for each subscription that wants it and whose endpoint is well.
    pub deliveries_per_second: f64,
    pub router_cpu_micros_per_event: f64,
    pub store_cpu_micros_per_event: f64,
    pub accept_p50_ms: f64,
    pub accept_p99_ms: f64,
    pub peak_memory_mib: f64,
}

/// How long things take at a rate that the system can do.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    pub events_per_second: f64,
    pub accept_p50_ms: f64,
    pub accept_p99_ms: f64,
    pub end_to_end_p50_ms: f64,
    pub end_to_end_p99_ms: f64,
}

/// A router that has nothing to do.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rest {
    pub memory_mib: f64,
    /// Its plugins were compiled before.
    pub start_to_ready_ms: f64,
}

/// Runs a scenario once.
pub async fn run(scenario: &Scenario, options: &Options) -> Result<Figures, Error> {
    let run = async {
        if scenario.work.backlog == 0 { closed_loop(scenario, options).await } else { drain(scenario, options).await }
    };
    in_time(&scenario.name, run).await
}

/// As fast as the producers' connections can: a closed loop.
async fn closed_loop(scenario: &Scenario, options: &Options) -> Result<Figures, Error> {
    // `slack` comes with this program; a chain wants another before it.
    let plugins = (scenario.work.plugins > 1).then_some(options.plugins.as_path());
    let setup = Setup::start(scenario.system, &scenario.work, plugins, &options.redis).await?;
    let events = scenario.events(options.events());
    let deliveries = scenario.deliveries() as u64;
    let producers = Producers { ports: &setup.ports, connections: options.connections, size: scenario.work.size };
    // What comes before the first counted event (start-up, first connections) is not measured.
    let warm_up = (events / 20).clamp(100, 2_000);
    producers.send(0, warm_up).await?;
    receiver::wait_for_count(setup.receiver_port, warm_up * deliveries).await?;

    let cpu_before = cpu(&setup)?;
    let began = Instant::now();
    let mut latencies = producers.send(warm_up, events).await?;
    receiver::wait_for_count(setup.receiver_port, (warm_up + events) * deliveries).await?;
    let took = began.elapsed().as_secs_f64();
    let cpu_after = cpu(&setup)?;

    let per_event = |before: Duration, after: Duration| (after - before).as_secs_f64() * 1e6 / events as f64;
    latencies.sort_unstable();
    Ok(Figures {
        events_per_second: events as f64 / took,
        deliveries_per_second: (events * deliveries) as f64 / took,
        router_cpu_micros_per_event: per_event(cpu_before.0, cpu_after.0),
        store_cpu_micros_per_event: per_event(cpu_before.1, cpu_after.1),
        accept_p50_ms: percentile_ms(&latencies, 0.5),
        accept_p99_ms: percentile_ms(&latencies, 0.99),
        peak_memory_mib: peak_memory_mib(&setup)?,
    })
}

/// From when the router takes connections until all that the store held has arrived. Nothing else is sent.
async fn drain(scenario: &Scenario, options: &Options) -> Result<Figures, Error> {
    let setup = Setup::start(scenario.system, &scenario.work, None, &options.redis).await?;
    let (began, cpu_before) = (Instant::now(), cpu(&setup)?);
    let before = receiver::count(setup.receiver_port).await?;
    receiver::wait_for_count(setup.receiver_port, scenario.work.backlog).await?;
    let took = began.elapsed().as_secs_f64();
    let cpu_after = cpu(&setup)?;
    let events = (scenario.work.backlog - before) as f64;
    let per_event = |before: Duration, after: Duration| (after - before).as_secs_f64() * 1e6 / events;
    Ok(Figures {
        events_per_second: events / took,
        deliveries_per_second: events / took,
        router_cpu_micros_per_event: per_event(cpu_before.0, cpu_after.0),
        store_cpu_micros_per_event: per_event(cpu_before.1, cpu_after.1),
        // Nothing is accepted meanwhile.
        accept_p50_ms: 0.0,
        accept_p99_ms: 0.0,
        peak_memory_mib: peak_memory_mib(&setup)?,
    })
}

/// At a rate of events per second, whether answers come or not: an open loop. A late answer makes the requests that it
/// delays late too, and that counts: times run from when a request was due, not from when it could be sent.
pub async fn open_loop(
    name: &str,
    system: System,
    work: &Work,
    rate: f64,
    options: &Options,
) -> Result<Latency, Error> {
    let run = async {
        let setup = Setup::start(system, work, None, &options.redis).await?;
        let producers = Producers { ports: &setup.ports, connections: options.connections, size: work.size };
        producers.send(0, 2_000).await?;
        receiver::wait_for_count(setup.receiver_port, 2_000).await?;
        let duration = if options.quick { OPEN_LOOP / 4 } else { OPEN_LOOP };
        let events = (rate * duration.as_secs_f64()) as u64;
        let mut accepted = producers.send_at_rate(2_000, events, rate).await?;
        receiver::wait_for_count(setup.receiver_port, 2_000 + events).await?;
        accepted.sort_unstable();
        let arrived = receiver::arrivals(setup.receiver_port).await?;
        if arrived.count != events {
            return Err(Error::Failed(format!("{} of {events} arrivals have a time", arrived.count)));
        }
        Ok(Latency {
            events_per_second: rate,
            accept_p50_ms: percentile_ms(&accepted, 0.5),
            accept_p99_ms: percentile_ms(&accepted, 0.99),
            end_to_end_p50_ms: arrived.p50_ms,
            end_to_end_p99_ms: arrived.p99_ms,
        })
    };
    in_time(name, run).await
}

/// Starts a router twice, the second time with compiled plugins, and looks at it while nothing comes.
pub async fn rest(system: System, work: &Work, options: &Options) -> Result<Rest, Error> {
    let start = || Setup::start(system, work, Some(&options.plugins), &options.redis);
    drop(start().await?);
    let setup = start().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(Rest { memory_mib: setup.systems[0].memory_mib()?, start_to_ready_ms: setup.started_in.as_secs_f64() * 1e3 })
}

async fn in_time<T>(name: &str, run: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let ended = tokio::time::timeout(RUN_TIMEOUT, run).await;
    ended.unwrap_or_else(|_| Err(Error::Failed(format!("`{name}` did not end within {RUN_TIMEOUT:?}"))))
}

/// CPU time of the systems and of their store's server.
fn cpu(setup: &Setup) -> Result<(Duration, Duration), Error> {
    let store = setup.redis.as_ref().map(Child::cpu_time).transpose()?;
    let systems: Result<Duration, Error> = setup.systems.iter().map(Child::cpu_time).sum();
    Ok((systems?, store.unwrap_or_default()))
}

/// The most memory that any of the systems had.
fn peak_memory_mib(setup: &Setup) -> Result<f64, Error> {
    setup.systems.iter().try_fold(0.0, |most, system| Ok(system.peak_memory_mib()?.max(most)))
}

/// Of times in ascending order.
pub fn percentile_ms(sorted: &[Duration], share: f64) -> f64 {
    let place = ((sorted.len().saturating_sub(1)) as f64 * share) as usize;
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
