//! What a plugin's verdict means for its chain: one decision, for deliveries and for whoever asks what they would become.

use std::sync::Arc;

use super::call::Report;
use super::host::{Chain, ChainEnd, ChainRun, Link, Plugin, PluginHost};
use super::imports::{Standing, Subject};
use super::verdict::{Fault, Verdict};
use crate::delivery::{NoteKind, PluginFaultKind, PluginNote};
use crate::event::Event;
use crate::route::{OnError, PluginMode};

/// How often a call is made for an explanation that runs past its deadline: on a busy machine that may not be the plugin's
/// doing, and the same event gives the same verdict.
const TRIES: u32 = 3;

/// How a chain goes on after a call.
pub(super) enum After {
    /// With the event as it was.
    Unchanged,
    /// With this event.
    Changed(Arc<Event>),
    /// With the event as it was; what the plugin did is noted.
    Noted(NoteKind, String),
    /// Not at all.
    End(ChainEnd),
}

/// Decides.
pub(super) fn after(link: &Link, event: &Event, verdict: Result<Verdict, Fault>) -> After {
    if link.mode == PluginMode::Shadow {
        return After::Noted(NoteKind::Shadow, describe(&verdict));
    }
    let plugin = Arc::clone(&link.plugin.name);
    match verdict {
        Ok(Verdict::Pass) => After::Unchanged,
        Ok(Verdict::Replace(replaced)) if *replaced == *event => After::Unchanged,
        Ok(Verdict::Replace(replaced)) => After::Changed(replaced),
        Ok(Verdict::Send(request)) => After::End(ChainEnd::Send(request)),
        Ok(Verdict::Drop(reason)) => After::End(ChainEnd::Dropped { plugin, reason }),
        Ok(Verdict::DeadLetter(reason)) => After::End(ChainEnd::DeadLetter { plugin, reason }),
        Err(fault) => match link.on_error {
            OnError::PassThrough => After::Noted(NoteKind::PassedThrough, describe(&Err(fault))),
            OnError::Retry | OnError::DeadLetter => {
                let Fault { kind, detail, retryable } = fault;
                let retryable = retryable && link.on_error == OnError::Retry;
                After::End(ChainEnd::Fault { plugin, kind, detail, retryable })
            }
        },
    }
}

/// A verdict or fault in a few words, without what it would send.
pub(super) fn describe(verdict: &Result<Verdict, Fault>) -> String {
    match verdict {
        Ok(Verdict::Drop(reason)) => format!("drop: {reason}"),
        Ok(Verdict::DeadLetter(reason)) => format!("dead-letter: {reason}"),
        Ok(verdict @ (Verdict::Pass | Verdict::Replace(_) | Verdict::Send(_))) => verdict.as_str().to_owned(),
        Err(fault) => format!("{}: {}", fault.kind.as_str(), fault.detail),
    }
}

/// One plugin's part in a chain.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The plugin's name.
    pub plugin: Arc<str>,
    /// The component's SHA-256, in hex.
    pub sha256: String,
    /// Whether what it says is done.
    pub mode: PluginMode,
    /// The call.
    pub report: Report,
}

impl PluginHost {
    /// Runs a chain call by call and tells all about each: the calls that a delivery would make, whatever its breakers say.
    pub async fn trace(&self, chain: &Chain, event: &Arc<Event>) -> (ChainRun, Vec<Traced>) {
        let (mut event, mut changed) = (Arc::clone(event), false);
        let (mut traced, mut notes) = (Vec::new(), Vec::new());
        for (position, link) in chain.links.iter().enumerate() {
            let report = self.call_patiently(&link.plugin, chain.standing(position), &event).await;
            let plugin = &link.plugin;
            let after = after(link, &event, report.verdict.clone());
            traced.push(Traced { plugin: Arc::clone(&plugin.name), sha256: plugin.sha256(), mode: link.mode, report });
            match after {
                After::Unchanged => {}
                After::Changed(replaced) => (event, changed) = (replaced, true),
                After::Noted(kind, detail) => {
                    notes.push(PluginNote { plugin: plugin.name.to_string(), kind, detail });
                }
                After::End(end) => return (ChainRun { end, notes }, traced),
            }
        }
        (ChainRun { end: ChainEnd::Event { event, changed }, notes }, traced)
    }

    async fn call_patiently(&self, plugin: &Arc<Plugin>, standing: &Arc<Standing>, event: &Arc<Event>) -> Report {
        let mut tries = 1;
        loop {
            let subject = Subject { event: Some(Arc::clone(event)), standing: Arc::clone(standing) };
            let report = self.call(plugin, subject, Arc::clone(event)).await;
            let is_late = report.verdict.as_ref().is_err_and(|fault| fault.kind == PluginFaultKind::Deadline);
            if !is_late || tries == TRIES {
                return report;
            }
            tries += 1;
        }
    }
}
