//! Whether a server would lose, forget or refuse events: decided purely from what it says of itself.

use std::collections::HashMap;
use std::time::Duration;

use super::wait::Wait;

/// The lowest version whose scripts have flags.
const VERSION_MIN: (u32, u32) = (7, 0);
/// The lowest version that waits for the disk.
const VERSION_WAITAOF: (u32, u32) = (7, 2);
/// How far the two clocks may be apart.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(10);

/// What is to be done about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// No events are stored there.
    Refuse,
    /// It is told, and nothing else.
    Warn,
    /// Nothing.
    Ignore,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Check {
    /// A version before 7.0.
    Version,
    /// A replica.
    Role,
    /// No append-only file.
    Persistence,
    /// An append-only file that is synced now and then.
    Fsync,
    /// The last write to disk failed.
    Disk,
    /// Keys are thrown away when memory is full.
    Eviction,
    /// No limit on memory.
    MemoryLimit,
    /// A clock that is far from ours.
    Clock,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Version,
        Self::Role,
        Self::Persistence,
        Self::Fsync,
        Self::Disk,
        Self::Eviction,
        Self::MemoryLimit,
        Self::Clock,
    ];

    /// Its name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Role => "role",
            Self::Persistence => "persistence",
            Self::Fsync => "fsync",
            Self::Disk => "disk",
            Self::Eviction => "eviction",
            Self::MemoryLimit => "memory_limit",
            Self::Clock => "clock",
        }
    }
}

/// What is done about each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checks([OnFault; Check::ALL.len()]);

impl Default for Checks {
    /// What can't work, or deletes accepted events while all is well, is refused; what matters only once Redis crashes is told.
    fn default() -> Self {
        Self(Check::ALL.map(|check| match check {
            Check::Version | Check::Role | Check::Disk | Check::Eviction => OnFault::Refuse,
            Check::Persistence | Check::Fsync | Check::MemoryLimit | Check::Clock => OnFault::Warn,
        }))
    }
}

impl Checks {
    /// The same for all.
    pub const fn all(on_fault: OnFault) -> Self {
        Self([on_fault; Check::ALL.len()])
    }

    /// Another word on one.
    pub fn set(&mut self, check: Check, on_fault: OnFault) {
        self.0[check as usize] = on_fault;
    }

    /// What is done about one.
    pub const fn on(&self, check: Check) -> OnFault {
        self.0[check as usize]
    }
}

/// What a server says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// The fields of `INFO`.
    pub(super) info: HashMap<String, String>,
    /// `appendfsync`, where it may be read.
    pub(super) appendfsync: Option<String>,
    /// How far its clock is from ours, either way.
    pub(super) clock_skew: Duration,
}

/// What the store wants of a server beyond what every store does.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wants<'a> {
    pub(super) wait: Option<&'a Wait>,
    pub(super) has_memory_limit: bool,
}

/// What is wrong, in sentences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) refusals: Vec<String>,
    pub(super) warnings: Vec<String>,
}

impl OnFault {
    /// The same about what does no great harm.
    const fn mildly(self) -> Self {
        match self {
            Self::Refuse | Self::Warn => Self::Warn,
            Self::Ignore => Self::Ignore,
        }
    }
}

impl Findings {
    fn add(&mut self, on_fault: OnFault, sentence: String) {
        match on_fault {
            OnFault::Refuse => self.refusals.push(sentence),
            OnFault::Warn => self.warnings.push(sentence),
            OnFault::Ignore => {}
        }
    }
}

impl Facts {
    /// Takes the text of `INFO` apart.
    pub(super) fn of_info(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self { info: fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), ..Self::default() }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.info.get(name).map(String::as_str)
    }

    fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.field("redis_version")?.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

/// Judges a server.
pub(super) fn judge(facts: &Facts, wants: Wants<'_>, checks: &Checks) -> Findings {
    let mut findings = Findings::default();
    let version = facts.version();
    if version.is_some_and(|version| version < VERSION_MIN) {
        let version = facts.field("redis_version").unwrap_or_default();
        findings.add(checks.on(Check::Version), format!("Redis {version} is too old: scripts need 7.0 or newer"));
    }
    if facts.field("role") == Some("slave") {
        findings.add(
            checks.on(Check::Role),
            "this Redis is a replica; give the master's address, or the Sentinels'".to_owned(),
        );
    }
    let no_aof = facts.field("aof_enabled") == Some("0");
    if no_aof {
        let sentence = "Redis keeps no append-only file: when it crashes, accepted events are lost (`appendonly yes`)";
        findings.add(checks.on(Check::Persistence), sentence.to_owned());
    }
    let waits_for_disk = wants.wait.is_some_and(|wait| wait.fsync);
    if let Some(policy) =
        facts.appendfsync.as_deref().filter(|policy| !no_aof && !waits_for_disk && *policy != "always")
    {
        findings.add(
            checks.on(Check::Fsync),
            format!(
                "Redis has appendfsync `{policy}`: when it crashes, the last seconds of accepted events can be lost; \
                 `always` or `store.redis.wait` loses none"
            ),
        );
    }
    let disk = checks.on(Check::Disk);
    // Where a failed snapshot matters, Redis refuses writes by itself.
    let files =
        [("aof_last_write_status", "append-only file", disk), ("rdb_last_bgsave_status", "snapshot", disk.mildly())];
    for (field, what, on_fault) in files {
        if facts.field(field) == Some("err") {
            findings
                .add(on_fault, format!("Redis could not write its {what}; look at its log and its disk ({field}:err)"));
        }
    }
    match facts.field("maxmemory_policy") {
        None | Some("noeviction") => {}
        Some(policy) if policy.starts_with("allkeys") => findings.add(
            checks.on(Check::Eviction),
            format!(
                "Redis has maxmemory-policy `{policy}`, which deletes accepted events when memory is full; use `noeviction`"
            ),
        ),
        // Only ids have an expiry: events are safe.
        Some(policy) => findings.add(
            checks.on(Check::Eviction).mildly(),
            format!("Redis has maxmemory-policy `{policy}`: ids may be forgotten before their time; use `noeviction`"),
        ),
    }
    if facts.field("maxmemory") == Some("0") && !wants.has_memory_limit {
        findings.add(
            checks.on(Check::MemoryLimit),
            "Redis has no maxmemory: it grows until the machine has none left; set it, or `store.redis.memory_bytes_max`"
                .to_owned(),
        );
    }
    if facts.clock_skew > CLOCK_SKEW_MAX {
        let apart = facts.clock_skew.as_secs();
        findings.add(checks.on(Check::Clock), format!("the clocks of Redis and this router are {apart} s apart"));
    }
    // What can't be done is refused whatever the config says.
    if waits_for_disk && version.is_some_and(|version| version < VERSION_WAITAOF) {
        findings.refusals.push("`store.redis.wait.fsync` needs Redis 7.2 or newer, or Valkey".to_owned());
    } else if waits_for_disk && no_aof {
        findings.refusals.push("`store.redis.wait.fsync` needs an append-only file (`appendonly yes`)".to_owned());
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "redis_version:7.0.15\r\nrole:master\r\naof_enabled:1\r\naof_last_write_status:ok\r\n\
                        rdb_last_bgsave_status:ok\r\nmaxmemory:1000\r\nmaxmemory_policy:noeviction\r\n";

    /// The words of a refusal and of a warning that a server with one fault gets; empty for none.
    fn judged(field: &str, value: &str, checks: &Checks) -> (String, String) {
        let mut facts = Facts::of_info(GOOD);
        facts.appendfsync = Some("always".to_owned());
        match field {
            "appendfsync" => facts.appendfsync = Some(value.to_owned()),
            "clock" => facts.clock_skew = Duration::from_secs(value.parse().unwrap()),
            _ => drop(facts.info.insert(field.to_owned(), value.to_owned())),
        }
        let findings = judge(&facts, Wants::default(), checks);
        (findings.refusals.join("; "), findings.warnings.join("; "))
    }

    #[test]
    fn each_fault_of_a_server_is_refused_or_told() {
        let defaults = Checks::default();
        for (field, value, refused, told) in [
            ("role", "master", "", ""),
            ("redis_version", "6.2.14", "too old", ""),
            ("redis_version", "7.2.4", "", ""),
            ("redis_version", "8.2.3", "", ""),
            ("role", "slave", "a replica", ""),
            ("aof_enabled", "0", "", "no append-only file"),
            ("appendfsync", "everysec", "", "appendfsync `everysec`"),
            ("aof_last_write_status", "err", "could not write its append-only file", ""),
            ("rdb_last_bgsave_status", "err", "", "could not write its snapshot"),
            ("maxmemory_policy", "allkeys-lru", "`allkeys-lru`", ""),
            ("maxmemory_policy", "volatile-ttl", "", "`volatile-ttl`"),
            ("maxmemory", "0", "", "no maxmemory"),
            ("clock", "9", "", ""),
            ("clock", "11", "", "11 s apart"),
        ] {
            let (refusals, warnings) = judged(field, value, &defaults);
            let fits = |text: &str, part: &str| if part.is_empty() { text.is_empty() } else { text.contains(part) };
            assert!(fits(&refusals, refused) && fits(&warnings, told), "{field}:{value}: {refusals} / {warnings}");
            let (refusals, warnings) = judged(field, value, &Checks::all(OnFault::Ignore));
            assert_eq!((refusals.as_str(), warnings.as_str()), ("", ""), "{field}:{value}");
        }
    }

    #[test]
    fn the_config_says_what_is_done() {
        let mut checks = Checks::default();
        checks.set(Check::Persistence, OnFault::Refuse);
        checks.set(Check::Eviction, OnFault::Warn);
        assert!(judged("aof_enabled", "0", &checks).0.contains("no append-only file"));
        assert!(judged("maxmemory_policy", "allkeys-lru", &checks).1.contains("`allkeys-lru`"));
    }

    #[test]
    fn a_server_that_says_nothing_has_no_faults() {
        assert_eq!(judge(&Facts::default(), Wants::default(), &Checks::all(OnFault::Refuse)), Findings::default());
    }

    #[test]
    fn waiting_for_the_disk_needs_a_server_that_can() {
        let wait = Wait { fsync: true, ..Wait::default() };
        let wants = Wants { wait: Some(&wait), has_memory_limit: true };
        let refusals =
            |text: &str| judge(&Facts::of_info(text), wants, &Checks::all(OnFault::Ignore)).refusals.join("");
        assert!(refusals("redis_version:7.0.15\naof_enabled:1").contains("7.2"));
        assert!(refusals("redis_version:7.2.4\naof_enabled:0").contains("append-only"));
        assert_eq!(refusals("redis_version:7.2.4\naof_enabled:1"), "");
    }
}
