//! What the figures should be: each aim beside what was measured. An aim whose scenarios did not run is left out.

use std::fmt;

use serde::Serialize;

use super::report::{Report, Row};
use super::run::{Latency, Rest};

/// A figure and its limit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Aim {
    pub what: &'static str,
    pub unit: &'static str,
    pub measured: f64,
    #[serde(flatten)]
    pub limit: Limit,
    pub is_met: bool,
}

/// On which side of a number a figure should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    fn is_kept_by(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(least) => figure >= least,
            Self::AtMost(most) => figure <= most,
        }
    }
}

impl fmt::Display for Aim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, unit, measured, limit, is_met } = self;
        let limit = match limit {
            Limit::AtLeast(least) => format!("≥ {least} {unit}"),
            Limit::AtMost(most) => format!("≤ {most} {unit}"),
        };
        write!(f, "{what:<72} {measured:>9.1} {limit:>18}{}", if *is_met { "" } else { "   missed" })
    }
}

/// The aims that a report has figures for.
pub fn of(report: &Report) -> Vec<Aim> {
    use Limit::{AtLeast, AtMost};
    let row = |name: &str| report.scenarios.iter().find(|row| row.scenario == name);
    let rows = |one: &str, other: &str| Some((row(one)?, row(other)?));
    let cpu = |row: &Row| row.figures.router_cpu_micros_per_event;
    let all_cpu = |row: &Row| row.figures.router_cpu_micros_per_event + row.figures.store_cpu_micros_per_event;
    let events = |row: &Row| row.figures.events_per_second;
    let percent = |part: f64, whole: f64| part / whole * 100.0;
    let mut aims = Vec::new();
    let mut aim = |what, measured: Option<f64>, unit, limit: Limit| {
        aims.extend(measured.map(|measured| Aim { what, unit, measured, limit, is_met: limit.is_kept_by(measured) }));
    };

    let plain = row("redis everysec");
    aim("redis everysec, of the bare pipe", plain.map(|row| row.of_the_pipe * 100.0), "%", AtLeast(60.0));
    let durable = plain.and_then(|row| row.of_the_durable_pipe);
    aim("redis everysec, of the durable pipe", durable.map(|share| share * 100.0), "%", AtLeast(85.0));
    aim("redis everysec, router CPU per event", plain.map(cpu), "µs", AtMost(50.0));
    let plugin = row("redis everysec + where + slack");
    aim("with a where and a plugin, of the bare pipe", plugin.map(|row| row.of_the_pipe * 100.0), "%", AtLeast(45.0));
    aim("with a where and a plugin, router CPU per event", plugin.map(cpu), "µs", AtMost(75.0));
    let fsynced = rows("embedded", "redis always");
    let share = fsynced.map(|(embedded, redis)| percent(events(embedded), events(redis)));
    aim("embedded, events/s of Redis with appendfsync always", share, "%", AtLeast(100.0));
    let share = fsynced.map(|(embedded, redis)| percent(cpu(embedded), all_cpu(redis)));
    aim("embedded, CPU of router and Redis with appendfsync always", share, "%", AtMost(50.0));

    let wide = rows("10 subscriptions", "1 subscription");
    let share = wide.map(|(ten, one)| percent(cpu(ten), 10.0 * cpu(one)));
    aim("10 subscriptions, router CPU of 10 events to one each", share, "%", AtMost(110.0));
    let more = |name| rows(name, "1 subscription").map(|(many, one)| cpu(many) - cpu(one));
    aim(
        "100 subscriptions of other events, router CPU per event",
        more("1, and 100 of other events"),
        "µs",
        AtMost(5.0),
    );
    aim("10,000 subscriptions of other events", more("1, and 10,000 of other events"), "µs", AtMost(20.0));
    let failing = rows("10 endpoints, one fails", "9 endpoints");
    let share = failing
        .map(|(one_fails, nine)| percent(one_fails.figures.deliveries_per_second, nine.figures.deliveries_per_second));
    aim("deliveries/s of 9 endpoints while a tenth fails, of 9 alone", share, "%", AtLeast(90.0));

    let latency = |pick: fn(&Latency) -> f64| report.latency.get(1).map(|router| pick(&router.latency));
    aim("202 at a third of capacity, p50", latency(|l| l.accept_p50_ms), "ms", AtMost(1.0));
    aim("202 at a third of capacity, p99", latency(|l| l.accept_p99_ms), "ms", AtMost(10.0));
    aim("arrival at a third of capacity, p50", latency(|l| l.end_to_end_p50_ms), "ms", AtMost(2.0));
    let pipe = report.latency.first().map(|pipe| pipe.latency.end_to_end_p50_ms);
    let times = latency(|l| l.end_to_end_p50_ms).zip(pipe).map(|(router, pipe)| router / pipe);
    aim("arrival at a third of capacity, p50, over the bare pipe's", times, "×", AtMost(1.5));

    let rest = |pick: fn(&Rest) -> f64| report.rest.as_ref().map(pick);
    aim("memory at rest, 10 plugins and 1,000 subscriptions", rest(|r| r.memory_mib), "MiB", AtMost(60.0));
    aim("start to ready", rest(|r| r.start_to_ready_ms), "ms", AtMost(300.0));
    let peak =
        plain.zip(plugin).map(|(plain, plugin)| plain.figures.peak_memory_mib.max(plugin.figures.peak_memory_mib));
    aim("memory at full load", peak, "MiB", AtMost(200.0));
    let backlog: Vec<&Row> = report.scenarios.iter().filter(|row| row.group == super::Group::Backlog).collect();
    let ends = backlog.first().zip(backlog.last()).filter(|(least, most)| least.at == Some(0) && most.at > Some(0));
    let share = ends.map(|(none, most)| percent(events(most), events(none)));
    aim("the largest backlog drained, of events as they come", share, "%", AtLeast(100.0));
    let share = ends.map(|(none, most)| percent(most.figures.peak_memory_mib, none.figures.peak_memory_mib));
    aim("the router's memory over the largest backlog, of that without", share, "%", AtMost(110.0));
    aims
}

#[cfg(test)]
mod tests {
    use super::super::run::Figures;
    use super::super::{report, scenario};
    use super::*;

    #[test]
    fn an_aim_is_met_or_missed_by_its_figure_and_left_out_without_one() {
        let figures = |events_per_second: f64, router_cpu_micros_per_event: f64| {
            vec![Figures {
                events_per_second,
                deliveries_per_second: events_per_second,
                router_cpu_micros_per_event,
                store_cpu_micros_per_event: 0.0,
                accept_p50_ms: 0.0,
                accept_p99_ms: 0.0,
                peak_memory_mib: 0.0,
            }]
        };
        let mut scenarios =
            vec![scenario::pipe(scenario::Group::Stores, 1024), scenario::durable_pipe(1024, "everysec")];
        scenarios.extend(scenario::of(scenario::Group::Stores, 1024, 0).into_iter().take(1));
        let runs = [figures(200.0, 1.0), figures(100.0, 1.0), figures(90.0, 51.0)];
        let report = Report { scenarios: report::rows(&scenarios, &runs), ..Report::default() };
        let aims = of(&report);
        let found: Vec<_> = aims.iter().map(|aim| (aim.what, aim.measured, aim.is_met)).collect();
        let expected = [
            ("redis everysec, of the bare pipe", 45.0, false),
            ("redis everysec, of the durable pipe", 90.0, true),
            ("redis everysec, router CPU per event", 51.0, false),
        ];
        assert_eq!(found, expected);
        assert!(aims[0].to_string().ends_with("≥ 60 %   missed"), "{}", aims[0]);
    }
}
