//! What a run tells: the job log with its sections, a summary for people, and the files for
//! machines.
//!
//! In the log keys go by role and last four characters: the runner masks a full id that is a
//! variable's value. Full ids go to the report file. Nothing here has ever seen a secret.

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::access_key::AccessKeyId;
use crate::config::Config;
use crate::deploy::Deployed;
use crate::error::{Error, exit};
use crate::outcome::End;
use crate::outcome::Outcome;
use crate::plan::{Checkpoint, Done, Observed, Query, Refusal, Step, Waiting};

/// The version of the report's form.
const SCHEMA: u32 = 1;

/// The JSON report.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: u32,
    action: String,
    pub outcome: Outcome,
    user: Option<String>,
    key: Option<String>,
    previous_key: Option<String>,
    key_age_days: Option<i64>,
    next_due: Option<Timestamp>,
    targets: Vec<String>,
    deploys: Vec<Deployed>,
    steps: Vec<StepRun>,
    calls: Calls,
    state: String,
    hint: Option<String>,
    #[serde(skip)]
    open: Option<Phase>,
    #[serde(skip)]
    in_job: bool,
    #[serde(skip)]
    summary: Vec<(&'static str, String)>,
    #[serde(skip)]
    created: bool,
}

#[derive(Debug, Serialize)]
struct StepRun {
    step: String,
    started_at: Option<Timestamp>,
    duration_ms: u128,
    outcome: &'static str,
}

#[derive(Debug, Default, Serialize)]
struct Calls {
    iam: u32,
    sts: u32,
    gitlab: u32,
}

/// A step that has begun.
pub struct Started {
    at: Option<Timestamp>,
    clock: Instant,
}

/// The sections of the job log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Look,
    Publish,
    Deploy,
    Retire,
}

impl Phase {
    fn of(step: &Step) -> Self {
        match step {
            Step::Create
            | Step::Verify(_)
            | Step::WriteSecret { .. }
            | Step::WriteId { .. }
            | Step::Record(Checkpoint::Begin | Checkpoint::Nothing | Checkpoint::Published)
            | Step::Disable(_, crate::plan::KeyRole::Orphan)
            | Step::Delete(_, crate::plan::KeyRole::Orphan) => Self::Publish,
            Step::StartDeploy(_)
            | Step::Wait(_)
            | Step::Record(Checkpoint::Drained | Checkpoint::Proven)
            | Step::Ask(Query::InFlightJobs | Query::Deploys) => Self::Deploy,
            Step::Disable(..)
            | Step::Delete(..)
            | Step::Record(Checkpoint::Disabled | Checkpoint::Finished) => Self::Retire,
            Step::Ask(_)
            | Step::Claim
            | Step::TakeOver
            | Step::Observe(_)
            | Step::Confirm(_)
            | Step::Abandon(_)
            | Step::Retry
            | Step::Done(_)
            | Step::Refuse(_)
            | Step::Stop => Self::Look,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Look => "rotator_look",
            Self::Publish => "rotator_publish",
            Self::Deploy => "rotator_deploy",
            Self::Retire => "rotator_retire",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Look => "Looking at keys and variables",
            Self::Publish => "A new key: create, verify, publish",
            Self::Deploy => "The deploy",
            Self::Retire => "The old key",
        }
    }
}

impl Report {
    pub fn new(config: &Config) -> Self {
        Self {
            schema: SCHEMA,
            action: config.action.to_string(),
            outcome: Outcome::Failed,
            user: config.iam_user.clone(),
            key: None,
            previous_key: None,
            key_age_days: None,
            next_due: None,
            targets: config.targets.iter().map(ToString::to_string).collect(),
            deploys: Vec::new(),
            steps: Vec::new(),
            calls: Calls::default(),
            state: String::new(),
            hint: None,
            open: None,
            in_job: config.job.id.is_some(),
            summary: Vec::new(),
            created: false,
        }
    }

    pub fn start(&mut self, step: &Step, now: Option<Timestamp>) -> Started {
        let phase = Phase::of(step);
        if self.open != Some(phase) && (step.has_effect() || matches!(step, Step::Wait(_))) {
            self.end_section(now);
            self.open = Some(phase);
            self.section("start", phase, now);
        }
        if let Step::Wait(what) = step
            && !matches!(what, Waiting::Margin { .. })
            && self.steps.last().is_none_or(|last| last.step != step.to_string())
        {
            tracing::info!("waiting: {what}");
        }
        Started { at: now, clock: Instant::now() }
    }

    pub fn end(&mut self, started: &Started, step: &Step, ok: bool) {
        let text = step.to_string();
        let took = started.clock.elapsed().as_millis();
        if let (Step::Wait(_), Some(last)) =
            (step, self.steps.last_mut().filter(|last| last.step == text))
        {
            last.duration_ms += took;
            return;
        }
        if ok && step.has_effect() {
            self.created |= matches!(step, Step::Create);
            tracing::info!("{}", past(step, &self.targets));
        }
        let outcome = if ok { "done" } else { "failed" };
        let is_told = match step {
            Step::Ask(Query::InFlightJobs | Query::Deploys)
            | Step::Observe(_)
            | Step::Confirm(_)
            | Step::Abandon(_)
            | Step::Retry => false,
            Step::Wait(waiting) => !matches!(waiting, Waiting::Margin { .. }),
            _ => true,
        };
        if is_told {
            self.steps.push(StepRun {
                step: text,
                started_at: started.at,
                duration_ms: took,
                outcome,
            });
        }
    }

    fn end_section(&mut self, now: Option<Timestamp>) {
        if let Some(open) = self.open.take() {
            self.section("end", open, now);
        }
    }

    /// <https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections>
    fn section(&self, edge: &str, phase: Phase, now: Option<Timestamp>) {
        let at = now.unwrap_or_else(Timestamp::now).as_second();
        let title = if edge == "start" { phase.title() } else { "" };
        let line = match (self.in_job, edge) {
            (true, _) => format!("\x1b[0Ksection_{edge}:{at}:{}\r\x1b[0K{title}\n", phase.name()),
            (false, "start") => format!("{title}\n"),
            (false, _) => return,
        };
        let _ = io::stderr().write_all(line.as_bytes());
    }

    /// Everything that is known at the end.
    #[allow(clippy::too_many_arguments, reason = "the end of a run is where everything meets")]
    pub fn close(
        &mut self,
        config: &Config,
        end: &End,
        seen: Option<&Observed>,
        deploys: Vec<Deployed>,
        effects: u32,
        gitlab: u32,
        (iam, sts): (u32, u32),
    ) {
        self.end_section(seen.map(|seen| seen.now));
        self.calls = Calls { iam, sts, gitlab };
        self.deploys = deploys;
        self.outcome = self.outcome_of(end, effects);
        self.state = match end {
            End::Error(error) => error.state(seen),
            End::Done(_) => seen.map(Observed::state).unwrap_or_default(),
        };
        if let End::Error(error) = end {
            self.hint = Some(error.lines().hint);
        }
        let Some(seen) = seen else { return };
        self.user = Some(seen.user.clone());
        let named = seen.targets.iter().find_map(|target| target.id.key());
        let old = seen
            .progress()
            .and_then(|progress| progress.previous.iter().flatten().find(|id| Some(*id) != named))
            .cloned();
        self.key = named.map(|id| id.full().to_owned());
        self.previous_key = old.as_ref().map(|id| id.full().to_owned());
        let key = named.and_then(|id| seen.key(id));
        self.key_age_days = key.map(|key| days(seen.now.duration_since(key.created)));
        self.next_due = key.map(|key| key.created + config.rotate_after);
        self.summary = self.summarise(config, end, seen, old.as_ref());
    }

    fn outcome_of(&self, end: &End, effects: u32) -> Outcome {
        let acted = if self.created { Outcome::Rotated } else { Outcome::Resumed };
        match end {
            End::Done(Done::DryRun(_)) => Outcome::DryRun,
            End::Done(Done::Waiting(
                Waiting::InFlightJobs(_) | Waiting::Deploys(_) | Waiting::OwnDeploy,
            )) => Outcome::Deploying,
            End::Done(Done::Waiting(_)) if effects == 0 => Outcome::Waiting,
            End::Done(
                Done::NotDue { .. }
                | Done::NothingToRetire { .. }
                | Done::AlreadySetUp { .. }
                | Done::Checked { .. }
                | Done::Tried
                | Done::InOwnDeploy,
            ) if effects == 0 => Outcome::NotDue,
            End::Done(_) => acted,
            End::Error(Error::Refused(Refusal::Busy)) => Outcome::Busy,
            End::Error(error) => match error.exit() {
                exit::DEPLOY => Outcome::DeployFailed,
                exit::REFUSED | exit::CONFIGURATION => Outcome::Refused,
                _ => Outcome::Failed,
            },
        }
    }

    /// Five lines that a person understands without knowing the program.
    fn summarise(
        &self,
        config: &Config,
        end: &End,
        seen: &Observed,
        old: Option<&AccessKeyId>,
    ) -> Vec<(&'static str, String)> {
        let named = seen.targets.iter().find_map(|target| target.id.key());
        let key = named.and_then(|id| seen.key(id));
        let key_line = match (named, key) {
            (Some(id), Some(key)) => {
                let age = days(seen.now.duration_since(key.created));
                let old = old.map(|old| format!("; before: key {old}")).unwrap_or_default();
                format!(
                    "key {id} of user {}, made {}, {age} days old{old}",
                    seen.user,
                    date(key.created)
                )
            }
            (Some(id), None) => format!("key {id}, which the user {} does not have", seen.user),
            (None, _) => format!("the user {} has no published key", seen.user),
        };
        let why = match end {
            End::Done(Done::NotDue { due, .. }) if self.outcome == Outcome::NotDue => {
                format!(
                    "not due: a key is replaced after {}, this one on {}",
                    span(config.rotate_after),
                    date(*due)
                )
            }
            End::Done(Done::Checked { next, .. }) => {
                let due = **next == Step::Record(Checkpoint::Begin);
                format!(
                    "checked only; a rotation would: {}",
                    if due { "replace the key".to_owned() } else { next.to_string() }
                )
            }
            End::Done(Done::NothingToRetire { .. }) => {
                "no rotation is under way, so there is nothing to retire".to_owned()
            }
            End::Done(Done::AlreadySetUp { .. }) if self.created => {
                "set up: the first key, and the variables that hold it".to_owned()
            }
            End::Done(Done::AlreadySetUp { .. }) => {
                "the variables are there already, so nothing was set up".to_owned()
            }
            End::Done(Done::InOwnDeploy) => {
                "this job is part of the rotation's own deploy, so it does nothing".to_owned()
            }
            End::Done(Done::DryRun(_)) => "dry run: nothing was changed".to_owned(),
            End::Done(_) if self.created && config.force => {
                "rotated because it was forced".to_owned()
            }
            End::Done(_) if self.created => format!(
                "rotated because the key was due: older than {}, or disabled",
                span(config.rotate_after)
            ),
            End::Done(_) if self.outcome == Outcome::Resumed => {
                "went on with a rotation that an earlier run had begun".to_owned()
            }
            End::Done(_) => "a rotation is under way and waits".to_owned(),
            End::Error(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        let deploys = self.deploys.iter().map(|deploy| {
            let sha = deploy
                .sha
                .as_deref()
                .map(|sha| format!(" of commit {}", sha.get(..8).unwrap_or(sha)))
                .unwrap_or_default();
            let link = deploy.url.as_deref().map(|url| format!(" {url}")).unwrap_or_default();
            format!("project {}{sha}: {}{link}", deploy.project, deploy.status)
        });
        let deploy_line = if self.deploys.is_empty() {
            "none in this run".to_owned()
        } else {
            deploys.collect::<Vec<_>>().join("; ")
        };
        let next = match end {
            End::Done(Done::Waiting(waiting)) => next_after(waiting, config),
            End::Done(Done::DryRun(_)) => "run without ROTATOR_DRY_RUN".to_owned(),
            End::Error(error) => error.lines().hint,
            End::Done(Done::Checked { .. })
                if key.is_some_and(|key| key.created + config.rotate_after <= seen.now) =>
            {
                "the next scheduled run of the rotation replaces this key".to_owned()
            }
            End::Done(_) => key.map_or_else(
                || "nothing".to_owned(),
                |key| {
                    format!(
                        "the next scheduled run looks again; this key is replaced on {}",
                        date(key.created + config.rotate_after)
                    )
                },
            ),
        };
        let mut lines = vec![
            ("Key", key_line),
            ("Why", why),
            ("Published", self.targets.join(", ")),
            ("Deploy", deploy_line),
            ("Next", next),
        ];
        if let End::Done(Done::NotDue { unexplained: Some(other), .. }) = end {
            lines[0].1 +=
                &format!("; a second key {other} is not of this rotation and will be in its way");
        }
        lines
    }

    /// The end of the job log: the plan of a dry run, the summary, and the three lines of an error.
    pub fn print(&self, end: &End) -> io::Result<()> {
        let mut out = io::stderr().lock();
        if let End::Done(Done::DryRun(steps)) = end {
            writeln!(out, "A run would:")?;
            for (number, step) in steps.iter().enumerate() {
                writeln!(out, "{:>4}. {step}", number + 1)?;
            }
        }
        if !self.summary.is_empty() {
            writeln!(out)?;
        }
        for (name, text) in &self.summary {
            writeln!(out, "{name:<10} {text}")?;
        }
        if let End::Error(error) = end {
            let lines = error.lines();
            writeln!(out, "\nerror: {}\nstate: {}\nhint: {}", lines.error, self.state, lines.hint)?;
        }
        out.flush()
    }

    /// Writes the files that were asked for; a failure is a warning, for the rotation is over.
    pub fn write(&self, config: &Config) {
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        let outcome = serde_json::to_value(self.outcome)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default();
        let pipelines: Vec<String> = self
            .deploys
            .iter()
            .filter_map(|deploy| deploy.pipeline)
            .map(|id| id.to_string())
            .collect();
        let dotenv = format!(
            "ROTATION_OUTCOME={outcome}\nROTATION_KEY_ID={}\nROTATION_PREVIOUS_KEY_ID={}\nROTATION_DEPLOY_PIPELINES={}\n",
            self.key.as_deref().unwrap_or_default(),
            self.previous_key.as_deref().unwrap_or_default(),
            pipelines.join(",")
        );
        let links = self.deploys.iter().filter_map(|deploy| {
            let url = deploy.url.as_deref()?;
            Some(serde_json::json!({ "external_link": { "label": format!("deploy of project {}: {}", deploy.project, deploy.status), "url": url } }))
        });
        let annotations = serde_json::json!({ "rotation": links.collect::<Vec<_>>() }).to_string();
        for (path, text) in [
            (&config.report, json + "\n"),
            (&config.dotenv, dotenv),
            (&config.annotations, annotations + "\n"),
        ] {
            if let Some(path) = path
                && std::fs::write(path, text).is_err()
            {
                tracing::warn!("the file {} could not be written", path.display());
            }
        }
    }
}

/// Opens the files that will be written, so that a wrong path costs nothing but a clear exit.
///
/// # Errors
/// The first file that cannot be written.
pub fn open_files(config: &Config) -> Result<(), Error> {
    let files = [
        (&config.report, "ROTATOR_REPORT"),
        (&config.dotenv, "ROTATOR_DOTENV"),
        (&config.annotations, "ROTATOR_ANNOTATIONS"),
    ];
    for (path, variable) in files {
        if let Some(path) = path {
            open(path)
                .map_err(|_| Error::ReportFile { path: path.display().to_string(), variable })?;
        }
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<()> {
    std::fs::OpenOptions::new().append(true).create(true).open(path).map(drop)
}

fn next_after(waiting: &Waiting, config: &Config) -> String {
    match waiting {
        Waiting::InFlightJobs(_) | Waiting::Deploys(_) => {
            format!("{waiting}; the next run goes on; both keys work until then")
        }
        Waiting::Unsettled { .. } => format!("{waiting}; the next run looks again"),
        Waiting::Margin { .. } => format!("{waiting}; the next run goes on"),
        Waiting::OwnDeploy => format!("{waiting}; both keys work until then"),
        Waiting::Overlap { old, until } => {
            let grace = match days(config.grace_period) {
                0 => format!("{} min", config.grace_period.as_mins()),
                1 => "a day".to_owned(),
                days => format!("{days} days"),
            };
            format!(
                "old key {old} is disabled after {} and deleted {grace} later, each by the next \
                 scheduled run",
                time(*until)
            )
        }
        Waiting::StillUsed { .. } => format!("{waiting}; it is disabled once nothing uses it"),
        Waiting::Grace { old, until } => {
            format!("old key {old} is deleted after {} by the next scheduled run", time(*until))
        }
    }
}

/// The line that the log gets once a step is done.
fn past(step: &Step, targets: &[String]) -> String {
    let name = |target: usize| targets.get(target).map_or("a target", String::as_str);
    match step {
        Step::Claim => "claimed the rotation".to_owned(),
        Step::TakeOver => "took over the record of an earlier run".to_owned(),
        Step::Record(checkpoint) => match checkpoint {
            Checkpoint::Begin => "recorded that a rotation begins".to_owned(),
            Checkpoint::Nothing => "recorded that nothing came of the rotation".to_owned(),
            Checkpoint::Published => "recorded that the new key is published".to_owned(),
            Checkpoint::Drained => "no in-flight job runs any more".to_owned(),
            Checkpoint::Proven => "the deploy is proven to run with the new key".to_owned(),
            Checkpoint::Disabled => "recorded that the old key is disabled".to_owned(),
            Checkpoint::Finished => "the rotation is finished".to_owned(),
        },
        Step::Create => "created a new key".to_owned(),
        Step::Verify(key) => format!("verified new key {key} with its own credentials"),
        Step::WriteSecret { target, .. } => format!("wrote the new secret to {}", name(*target)),
        Step::WriteId { target, .. } => format!("wrote the new id to {}", name(*target)),
        Step::StartDeploy(place) => format!("started deploy {}", place + 1),
        Step::Disable(key, crate::plan::KeyRole::Old) => format!("disabled old key {key}"),
        Step::Disable(key, crate::plan::KeyRole::Orphan) => format!("disabled orphaned key {key}"),
        Step::Delete(key, crate::plan::KeyRole::Old) => format!("deleted old key {key}"),
        Step::Delete(key, crate::plan::KeyRole::Orphan) => format!("deleted orphaned key {key}"),
        Step::Ask(_)
        | Step::Wait(_)
        | Step::Observe(_)
        | Step::Confirm(_)
        | Step::Abandon(_)
        | Step::Retry
        | Step::Done(_)
        | Step::Refuse(_)
        | Step::Stop => step.to_string(),
    }
}

fn days(span: SignedDuration) -> i64 {
    span.as_hours() / 24
}

/// A duration as the configuration is written, in its largest whole unit.
fn span(span: SignedDuration) -> String {
    match span.as_secs() {
        seconds if seconds >= 86_400 && seconds % 86_400 == 0 => {
            format!("{} days", seconds / 86_400)
        }
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{} hours", seconds / 3600),
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
