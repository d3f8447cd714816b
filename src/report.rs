//! What a run tells: the job log as it goes, a summary for people at its end, and the files for
//! machines.
//!
//! In the log, keys go by role and last four characters: GitLab masks a full id that is the value
//! of a variable. Full ids go to the report file. Nothing here has ever seen a secret.

use std::io;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use crate::access_key::Key;
use crate::config::Config;
use crate::deploy::Deployed;
use crate::error::{Error, Notice, Refusal, exit};
use crate::outcome::{End, Outcome};
use crate::plan::{Checkpoint, KeyRole, Observed, Query, Step, Waiting};

mod files;
mod job_log;
mod output;
mod summary;

pub use files::{Calls, check_files};
use files::{Json, StepRun, Warning};
use job_log::JobLog;
pub use output::remove_earlier_files;
use summary::Summary;

pub struct Report {
    json: Json,
    log: JobLog,
    /// The projects that are deployed, in the order of the configuration.
    deploys: Vec<String>,
    did: Did,
    notices: Vec<Notice>,
    summary: Option<Summary>,
}

/// What this run has done, as far as its outcome and its summary tell it.
#[derive(Default)]
struct Did {
    effects: u32,
    /// It made a key.
    created: bool,
    /// The key that the variables named when it began a rotation.
    replaced: Option<Key>,
    /// What it did to old keys, in the words of the log.
    retired: Vec<String>,
}

/// A step that has begun.
pub struct Started {
    at: Timestamp,
    clock: Instant,
}

/// What is known at the end of a run besides the end itself.
#[derive(Default)]
pub struct Ending<'a> {
    /// The last observation; none where the first one failed.
    pub seen: Option<&'a Observed>,
    pub deploys: Vec<Deployed>,
    pub calls: Calls,
}

impl Report {
    pub fn new(config: &Config) -> Self {
        Self {
            json: Json::new(config),
            log: JobLog::new(config),
            deploys: config.deploy.projects.iter().map(ToString::to_string).collect(),
            did: Did::default(),
            notices: Vec::new(),
            summary: None,
        }
    }

    /// The targets and deploy projects of this configuration are meant: it knows which names mean the
    /// same.
    pub fn places_of(&mut self, config: &Config) {
        self.json.targets = config.targets.iter().map(ToString::to_string).collect();
        self.deploys = config.deploy.projects.iter().map(ToString::to_string).collect();
    }

    /// A step begins, planned from what is seen.
    pub fn start(&mut self, step: &Step, seen: &Observed) -> Started {
        if *step == Step::Record(Checkpoint::Begin) {
            let named = seen.targets.iter().find_map(|target| target.id.key());
            self.did.replaced = named.and_then(|id| seen.key(id)).cloned();
        }
        self.log.begin(step, seen.now);
        if let Step::Wait(what) = step
            && is_told(step)
            && !self.is_same_wait(step)
        {
            tracing::info!("waiting: {what}");
        }
        Started { at: seen.now, clock: Instant::now() }
    }

    /// A step has ended, well or not. Waits for one thing count as one step.
    pub fn end(&mut self, started: &Started, step: &Step, ok: bool) {
        let took = started.clock.elapsed().as_millis();
        let is_same_wait = self.is_same_wait(step);
        if let Some(last) = self.json.steps.last_mut().filter(|_| is_same_wait) {
            last.duration_ms += took;
            return;
        }
        if ok && step.has_effect() {
            self.tell_effect(step);
        }
        if is_told(step) {
            self.json.steps.push(StepRun {
                step: step.to_string(),
                started_at: started.at,
                duration_ms: took,
                outcome: if ok { "done" } else { "failed" },
            });
        }
    }

    fn is_same_wait(&self, step: &Step) -> bool {
        let last = self.json.steps.last();
        matches!(step, Step::Wait(_)) && last.is_some_and(|last| last.step == step.to_string())
    }

    fn tell_effect(&mut self, step: &Step) {
        let done = job_log::past(step, &self.json.targets, &self.deploys);
        tracing::info!("{done}");
        self.did.effects += 1;
        self.did.created |= *step == Step::Create;
        if matches!(step, Step::Disable(_, KeyRole::Old) | Step::Delete(_, KeyRole::Old)) {
            self.did.retired.push(done);
        }
    }

    /// Something that a person should look at before long. Each is told once.
    pub fn notice(&mut self, notice: Notice) {
        if !self.notices.contains(&notice) {
            self.notices.push(notice);
        }
    }

    /// The run has ended: everything that is known goes into the report.
    pub fn close(&mut self, config: &Config, end: &End, ending: Ending<'_>) {
        let Ending { seen, deploys, calls } = ending;
        if let End::Done(done) = end
            && let Some(notice) = done.notice()
        {
            self.notice(notice);
        }
        if let Some(seen) = seen {
            self.tell_blockers(end, seen);
        }
        let json = &mut self.json;
        json.warnings = self.notices.iter().map(Warning::new).collect();
        json.calls = calls;
        json.deploys = deploys;
        json.outcome = Outcome::of(end, self.did.effects, self.did.created);
        json.state = end.state(seen);
        if let End::Error(error) = end {
            json.hint = Some(error.hint());
        }
        let Some(seen) = seen else { return };
        self.log.end_section(seen.now);
        let named = seen.targets.iter().find_map(|target| target.id.key());
        let key = named.and_then(|id| seen.key(id));
        let old = seen
            .progress()
            .and_then(|progress| progress.previous.iter().flatten().find(|id| Some(*id) != named));
        json.user = Some(seen.user.clone());
        json.key = named.map(|id| id.full().to_owned());
        json.previous_key = old.map(|id| id.full().to_owned());
        json.key_age_days = key.map(|key| days(seen.now.duration_since(key.created)));
        json.next_due = key.map(|key| key.created + config.rotate_after);
        self.summary = Some(Summary::new(config, end, seen, &self.did, json, old));
    }

    /// What stands in a rotation's way, where the run ends with something else.
    fn tell_blockers(&mut self, end: &End, seen: &Observed) {
        if !matches!(end, End::Error(Error::Refused(Refusal::Preflight(_)))) {
            for blocker in seen.preflight.iter().flatten() {
                self.notice(Notice::Blocked(blocker.clone()));
            }
        }
    }

    /// Prints the end of the job log.
    ///
    /// # Errors
    /// Where nobody reads the log any more.
    pub fn print(&self, end: &End) -> io::Result<()> {
        job_log::print_end(end, self.summary.as_ref(), &self.notices, &self.json.state)
    }

    pub fn exit_code(&self, end: &End) -> u8 {
        match end {
            End::Done(_) if self.notices.is_empty() => exit::OK,
            End::Done(_) => exit::NOTICE,
            End::Error(error) => error.exit_code(),
        }
    }

    /// Writes the files that were asked for.
    pub fn write(&self, config: &Config) {
        self.json.write(config);
    }
}

/// Whether the report lists this step: what is asked again and again, and the plan's own moves,
/// would hide the rest.
fn is_told(step: &Step) -> bool {
    !matches!(
        step,
        Step::Ask(Query::InFlightJobs | Query::Deploys)
            | Step::Wait(Waiting::Margin { .. })
            | Step::Observe(_)
            | Step::Confirm(_)
            | Step::Abandon(_)
            | Step::Retry
    )
}

fn days(span: SignedDuration) -> i64 {
    span.as_hours() / 24
}
