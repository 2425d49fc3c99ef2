//! Whether a fault was felt: one that met nothing shows nothing, and its test must not pass.

use crate::fault::{self, Fault};
use crate::run::Ran;

/// What a router says that was taken over from, or whose claims are gone.
const TAKEN_OVER: &str = "going on under a new name";
/// What it says when a settlement is refused because the claim is another's by now.
const REFUSALS: [&str; 2] = ["another router has taken the event over", "the delivery's lease had ended"];

impl Fault {
    /// How many traces it left where it must leave some.
    fn traces(self, ran: &Ran) -> usize {
        match self {
            // Nobody answers on the port of a router that is not there.
            Self::KillRouter
            | Self::KillRouterAsItStarts
            | Self::KillRouterForLong
            | Self::RestartRouter
            | Self::RollingRestart => ran.unanswered,
            Self::PauseRouter => ran.log.matches(TAKEN_OVER).count(),
            Self::PauseRouterPastLease => REFUSALS.iter().map(|said| ran.log.matches(said).count()).sum(),
            // Nothing can be stored.
            Self::PauseRedis
            | Self::PauseRedisPastLease
            | Self::KillMaster
            | Self::StopMaster
            | Self::FullRedis
            | Self::FillDisk => ran.refused + ran.unanswered,
            // What was on its way was held back, lost, cut or broken off.
            Self::ResetStoreLinks
            | Self::LoseStoreAnswers
            | Self::TruncateStoreAnswers
            | Self::PartitionStoreLink
            | Self::DeafStoreLink
            | Self::SlowStoreLink
            | Self::PartitionReceiverLink => ran.hindered,
            // Attempts failed at receivers that never answer badly.
            Self::ResetReceiverLink => ran.retried,
            // A success that the router never heard of is repeated.
            Self::LoseReceiverAnswers | Self::TruncateReceiverAnswers => ran.findings.repeats,
            // These go on until their effect is there: routers have connected to another process, the other config or time
            // is in use, a sync was met.
            Self::KillRedis
            | Self::Reload
            | Self::StepClock
            | Self::StepRedisClock
            | Self::TearWrite
            | Self::FailSyncs => ran.faults,
        }
    }

    /// Fails when nothing was seen of it.
    pub fn must_have_been_felt(self, ran: &Ran) {
        let traces = self.traces(ran);
        println!("{traces} traces of {}", self.name());
        assert!(traces > 0, "nothing was seen of {}: it may not have been done", self.name());
    }
}

#[test]
fn a_run_in_which_nothing_happened_has_no_trace_of_any_fault() {
    for fault in fault::every() {
        assert_eq!(fault.traces(&Ran::default()), 0, "{}", fault.name());
    }
}
