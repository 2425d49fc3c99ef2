//! What was measured: medians over the rounds, as a table for people, and as JSON.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};

use super::aims::Aim;
use super::host::Call;
use super::run::{Figures, Latency, Rest};
use super::scenario::{self, Group, Scenario, System};

/// All of a bench's figures.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub version: &'static str,
    pub cores: usize,
    pub events: u64,
    pub connections: usize,
    pub rounds: usize,
    /// What Redis servers are told besides `appendfsync`; nothing where there is no Redis.
    pub redis: Vec<String>,
    pub scenarios: Vec<Row>,
    pub latency: Vec<LatencyRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest: Option<Rest>,
    pub host: Vec<Call>,
    pub aims: Vec<Aim>,
}

/// A scenario's medians.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    #[serde(serialize_with = "as_name")]
    pub group: Group,
    pub scenario: String,
    /// How much there is of what grows in its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u64>,
    pub event_bytes: usize,
    /// Its deliveries per second over the events per second of the pipe, for events of this size.
    pub of_the_pipe: f64,
    /// The same over the durable pipe's, on the same kind of Redis; there is none for what runs without Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_the_durable_pipe: Option<f64>,
    #[serde(flatten)]
    pub figures: Figures,
}

/// A system's times at a rate.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyRow {
    pub scenario: String,
    #[serde(flatten)]
    pub latency: Latency,
}

/// Rows of the medians of each scenario's runs.
pub fn rows(scenarios: &[Scenario], runs: &[Vec<Figures>]) -> Vec<Row> {
    let medians: Vec<Figures> = runs.iter().map(|runs| medians(runs)).collect();
    let rate_of = |system: System, size: usize| {
        let is_it = |other: &Scenario| other.system == system && other.work == scenario::plain(size);
        scenarios.iter().position(is_it).map(|place| medians[place].events_per_second)
    };
    let rows = scenarios.iter().zip(&medians).map(|(scenario, figures)| {
        let (size, rate) = (scenario.work.size, figures.deliveries_per_second);
        let durable = scenario.system.fsync().and_then(|fsync| rate_of(System::DurablePipe(fsync), size));
        Row {
            group: scenario.group,
            scenario: scenario.name.clone(),
            at: scenario.at,
            event_bytes: size,
            of_the_pipe: rate / rate_of(System::Pipe, size).unwrap_or(f64::NAN),
            of_the_durable_pipe: durable.map(|durable| rate / durable),
            figures: *figures,
        }
    });
    rows.collect()
}

fn as_name<S: Serializer>(group: &Group, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{group:?}"))
}

fn medians(runs: &[Figures]) -> Figures {
    let median = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        events_per_second: median(|f| f.events_per_second),
        deliveries_per_second: median(|f| f.deliveries_per_second),
        router_cpu_micros_per_event: median(|f| f.router_cpu_micros_per_event),
        store_cpu_micros_per_event: median(|f| f.store_cpu_micros_per_event),
        accept_p50_ms: median(|f| f.accept_p50_ms),
        accept_p99_ms: median(|f| f.accept_p99_ms),
        peak_memory_mib: median(|f| f.peak_memory_mib),
    }
}

impl Report {
    /// As text for a terminal.
    pub fn table(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a string does not fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { events, connections, rounds, cores, redis, .. } = self;
        writeln!(
            text,
            "{cores} cores for all processes, {events} events a run, {connections} connections, medians of {rounds} rounds"
        )?;
        if !redis.is_empty() {
            writeln!(text, "Redis with {}", redis.join(", "))?;
        }
        if !self.scenarios.is_empty() {
            writeln!(
                text,
                "\n{:<31} {:>9} {:>12} {:>8} {:>11} {:>13} {:>12} {:>11} {:>11} {:>8}",
                "scenario",
                "events/s",
                "deliveries/s",
                "of pipe",
                "of durable",
                "router µs/ev",
                "redis µs/ev",
                "202 p50 ms",
                "202 p99 ms",
                "peak MiB"
            )?;
        }
        for Row { scenario, of_the_pipe, of_the_durable_pipe, figures: f, .. } in &self.scenarios {
            let share = of_the_pipe * 100.0;
            let durable = of_the_durable_pipe.map_or("–".to_owned(), |share| format!("{:.0}%", share * 100.0));
            let (events, deliveries) = (f.events_per_second, f.deliveries_per_second);
            let (router, store) = (f.router_cpu_micros_per_event, f.store_cpu_micros_per_event);
            let (p50, p99, memory) = (f.accept_p50_ms, f.accept_p99_ms, f.peak_memory_mib);
            writeln!(
                text,
                "{scenario:<31} {events:>9.0} {deliveries:>12.0} {share:>7.0}% {durable:>11} {router:>13.1} {store:>12.1} {p50:>11.2} {p99:>11.2} {memory:>8.0}"
            )?;
        }
        if !self.latency.is_empty() {
            writeln!(
                text,
                "\n{:<31} {:>9} {:>11} {:>11} {:>16} {:>16}",
                "open loop", "events/s", "202 p50 ms", "202 p99 ms", "arrived p50 ms", "arrived p99 ms"
            )?;
        }
        for LatencyRow { scenario, latency: l } in &self.latency {
            writeln!(
                text,
                "{scenario:<31} {:>9.0} {:>11.2} {:>11.2} {:>16.2} {:>16.2}",
                l.events_per_second, l.accept_p50_ms, l.accept_p99_ms, l.end_to_end_p50_ms, l.end_to_end_p99_ms
            )?;
        }
        if let Some(Rest { memory_mib, start_to_ready_ms }) = self.rest {
            writeln!(
                text,
                "\nat rest with 10 plugins and 1,000 subscriptions: {memory_mib:.0} MiB; ready {start_to_ready_ms:.0} ms after its start"
            )?;
        }
        if !self.host.is_empty() {
            writeln!(
                text,
                "\n{:<42} {:>9} {:>9} {:>9} {:>10} {:>12} {:>14}",
                "one plugin call, a fresh instance",
                "median µs",
                "p99 µs",
                "bare µs",
                "over bare",
                "two threads",
                "two processes"
            )?;
        }
        for call in &self.host {
            writeln!(
                text,
                "{:<42} {:>9.1} {:>9.1} {:>9.1} {:>9.0}% {:>11.2}× {:>13.2}×",
                call.name,
                call.median_micros,
                call.p99_micros,
                call.bare_median_micros,
                call.over_bare * 100.0,
                call.two_threads,
                call.two_processes
            )?;
        }
        if !self.aims.is_empty() {
            writeln!(text, "\n{:<72} {:>9} {:>18}", "aim", "measured", "aimed at")?;
        }
        for aim in &self.aims {
            writeln!(text, "{aim}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::{Group, Work, pipe};
    use super::*;

    fn figures(events_per_second: f64, deliveries: f64) -> Figures {
        Figures {
            events_per_second,
            deliveries_per_second: events_per_second * deliveries,
            router_cpu_micros_per_event: 1.0,
            store_cpu_micros_per_event: 0.0,
            accept_p50_ms: 1.0,
            accept_p99_ms: 2.0,
            peak_memory_mib: 3.0,
        }
    }

    #[test]
    fn a_scenario_is_compared_with_the_pipe_of_its_events_size() {
        let (small, large) = (pipe(Group::Size, 1024), pipe(Group::Size, 4096));
        let work = Work { wanting: 10, ..large.work };
        let wide = Scenario { system: System::Embedded, name: "wide".to_owned(), work, ..large.clone() };
        let runs = [
            vec![figures(100.0, 1.0); 3],
            vec![figures(50.0, 1.0)],
            [4.0, 2.0, 3.0].map(|f| figures(f, 10.0)).to_vec(),
        ];
        let rows = rows(&[small, large, wide], &runs);
        assert_eq!(rows.iter().map(|row| row.of_the_pipe).collect::<Vec<_>>(), [1.0, 1.0, 0.6]);
        let table = Report { scenarios: rows, ..Report::default() }.table();
        assert!(table.lines().any(|line| line.starts_with("wide") && line.contains("60%")), "{table}");
    }
}
