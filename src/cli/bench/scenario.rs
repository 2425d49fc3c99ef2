//! What is measured: each scenario is one system under one kind of work, and belongs to a group that can be asked for.

/// A group of scenarios that answers one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// What a store and a plugin cost.
    Stores,
    /// How long a producer waits, and how long an event takes, at a third of what the router can do.
    Latency,
    /// One event for many subscriptions, and many that do not want it.
    FanOut,
    /// Events from 1 KiB to 1 MiB.
    Size,
    /// One subscription to ten thousand, of which one wants the events.
    Subscriptions,
    /// Chains of no to five plugins.
    Chain,
    /// A backlog of up to `--held` events that is drained.
    Backlog,
    /// Up to `--held` deliveries that wait for a retry while events come.
    Retries,
    /// One to three routers over one Redis.
    Routers,
    /// One of ten endpoints that fails.
    Failing,
    /// Memory at rest and time to start, with ten plugins and a thousand subscriptions.
    Rest,
    /// One call of a plugin, beside a bare wasmtime.
    Host,
}

impl Group {
    pub const ALL: [Self; 12] = [
        Self::Stores,
        Self::Latency,
        Self::FanOut,
        Self::Size,
        Self::Subscriptions,
        Self::Chain,
        Self::Backlog,
        Self::Retries,
        Self::Routers,
        Self::Failing,
        Self::Rest,
        Self::Host,
    ];

    /// What grows from one scenario of the group to the next, in the words of an axis.
    pub const fn grows(self) -> Option<&'static str> {
        match self {
            Self::Size => Some("KiB of an event"),
            Self::Subscriptions => Some("subscriptions, one of which wants the events"),
            Self::Chain => Some("plugins in a chain"),
            Self::Backlog => Some("events in a backlog, drained (0: as they come)"),
            Self::Retries => Some("deliveries that wait for a retry"),
            Self::Routers => Some("routers on one Redis"),
            Self::Stores | Self::Latency | Self::FanOut | Self::Failing | Self::Rest | Self::Host => None,
        }
    }
}

/// What stands between producers and receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Accept → POST, nothing else.
    Pipe,
    /// The same through a stream of Redis, with this `appendfsync`.
    DurablePipe(&'static str),
    /// The router on Redis, with this `appendfsync`.
    Redis(&'static str),
    /// The router on its own store.
    Embedded,
}

impl System {
    /// The `appendfsync` of its Redis, if it has one.
    pub fn fsync(self) -> Option<&'static str> {
        match self {
            Self::DurablePipe(fsync) | Self::Redis(fsync) => Some(fsync),
            Self::Pipe | Self::Embedded => None,
        }
    }
}

/// What the router is given to do. The pipes know only the size; the bare one POSTs for each that wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Bytes of an event's envelope.
    pub size: usize,
    /// Plugins of each subscription: `slack` at the end, and before it ones that pass.
    pub plugins: usize,
    /// Whether the route has a `where`.
    pub condition: bool,
    /// Subscriptions that want each event, an endpoint each.
    pub wanting: usize,
    /// Subscriptions of other events.
    pub others: usize,
    /// How many of the wanting ones' endpoints answer 500.
    pub failing: usize,
    /// Routers over one store; producers share them.
    pub routers: usize,
    /// Events that the store holds before the router starts; nothing else is sent then.
    pub backlog: u64,
    /// Deliveries that wait in the store for a retry that is far away.
    pub waiting: u64,
}

/// A system under some work.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub group: Group,
    pub name: String,
    /// How much there is of what [grows](Group::grows) in its group.
    pub at: Option<u64>,
    pub system: System,
    pub work: Work,
}

impl Scenario {
    /// Deliveries that arrive for each event.
    pub fn deliveries(&self) -> usize {
        match self.system {
            System::DurablePipe(_) => 1,
            System::Pipe | System::Redis(_) | System::Embedded => self.work.wanting - self.work.failing,
        }
    }

    /// How many events keep a run about as long as one of plain events.
    pub fn events(&self, plain: u64) -> u64 {
        let weight = self.work.wanting.max(self.work.size / 8192).max(1) as u64;
        (plain / weight).max(200)
    }
}

/// The pipe, for events of this size: what the others are compared with.
pub fn pipe(group: Group, size: usize) -> Scenario {
    let name = if size == 1024 { "bare pipe".to_owned() } else { format!("bare pipe, {} KiB", size / 1024) };
    Scenario { group, name, at: None, system: System::Pipe, work: plain(size) }
}

/// The durable pipe that a router on Redis is compared with.
pub fn durable_pipe(size: usize, fsync: &'static str) -> Scenario {
    let size_text = if size == 1024 { String::new() } else { format!(", {} KiB", size / 1024) };
    let name = format!("durable pipe, {fsync}{size_text}");
    Scenario { group: Group::Stores, name, at: None, system: System::DurablePipe(fsync), work: plain(size) }
}

/// One router, one subscription that wants every event, no plugin.
pub fn plain(size: usize) -> Work {
    Work { size, plugins: 0, condition: false, wanting: 1, others: 0, failing: 0, routers: 1, backlog: 0, waiting: 0 }
}

/// The scenarios of a group, but for the pipes, and those of groups that are measured in another way.
/// `held` is the most that a store holds beforehand.
pub fn of(group: Group, size: usize, held: u64) -> Vec<Scenario> {
    let plain = plain(size);
    let everysec = System::Redis("everysec");
    let scenario = |name: &str, system, work| Scenario { group, name: name.to_owned(), at: None, system, work };
    let point = |at: u64, name: String, work| Scenario { group, name, at: Some(at), system: everysec, work };
    let held = [0, held / 100, held / 10, held];
    match group {
        Group::Stores => vec![
            scenario("redis everysec", everysec, plain),
            scenario("redis everysec + slack", everysec, Work { plugins: 1, ..plain }),
            scenario("redis everysec + where + slack", everysec, Work { plugins: 1, condition: true, ..plain }),
            scenario("redis always", System::Redis("always"), plain),
            scenario("embedded", System::Embedded, plain),
            scenario("embedded + slack", System::Embedded, Work { plugins: 1, ..plain }),
        ],
        Group::FanOut => vec![
            scenario("1 subscription", everysec, plain),
            scenario("10 subscriptions", everysec, Work { wanting: 10, ..plain }),
            scenario("bare pipe, 10 POSTs", System::Pipe, Work { wanting: 10, ..plain }),
            scenario("1, and 100 of other events", everysec, Work { others: 100, ..plain }),
            scenario("1, and 10,000 of other events", everysec, Work { others: 10_000, ..plain }),
        ],
        Group::Size => [1, 4, 16, 64, 256, 1024]
            .map(|kib: usize| {
                point(kib as u64, format!("redis everysec, {kib} KiB"), Work { size: kib * 1024, ..plain })
            })
            .to_vec(),
        Group::Subscriptions => [1, 10, 100, 1_000, 10_000]
            .map(|count: usize| {
                point(count as u64, format!("subscriptions: {count}"), Work { others: count - 1, ..plain })
            })
            .to_vec(),
        Group::Chain => (0..=5)
            .map(|plugins| point(plugins as u64, format!("chain of {plugins}"), Work { plugins, ..plain }))
            .collect(),
        Group::Backlog => {
            held.map(|backlog| point(backlog, format!("backlog: {backlog}"), Work { backlog, ..plain })).to_vec()
        }
        Group::Retries => held
            .map(|waiting| point(waiting, format!("retries waiting: {waiting}"), Work { waiting, ..plain }))
            .to_vec(),
        Group::Routers => (1..=3)
            .map(|routers| point(routers as u64, format!("routers: {routers}"), Work { routers, ..plain }))
            .collect(),
        Group::Failing => vec![
            scenario("10 endpoints", everysec, Work { wanting: 10, ..plain }),
            scenario("10 endpoints, one fails", everysec, Work { wanting: 10, failing: 1, ..plain }),
            scenario("9 endpoints", everysec, Work { wanting: 9, ..plain }),
        ],
        Group::Latency | Group::Rest | Group::Host => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_is_listed_and_names_are_told_apart() {
        use clap::ValueEnum;
        assert_eq!(Group::ALL.as_slice(), Group::value_variants());
        for group in Group::ALL {
            let mut names: Vec<_> = of(group, 1024, 1_000_000).into_iter().map(|scenario| scenario.name).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), count, "{group:?}");
        }
    }

    #[test]
    fn runs_are_about_as_long_whatever_an_event_costs() {
        let work = Work { wanting: 10, failing: 1, ..plain(1024) };
        let wide = Scenario { group: Group::FanOut, name: String::new(), at: None, system: System::Embedded, work };
        assert_eq!((wide.events(60_000), wide.deliveries()), (6_000, 9));
        assert_eq!(pipe(Group::Size, 1 << 20).events(60_000), 468);
        assert_eq!(pipe(Group::Size, 1 << 20).events(600), 200, "never so few that chance decides");
    }
}
