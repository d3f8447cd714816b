//! The job log: its sections, the line for each effect, and what is printed at the end.

use std::io::{self, Write};

use jiff::Timestamp;

use super::summary::Summary;
use crate::config::Config;
use crate::error::Notice;
use crate::outcome::End;
use crate::plan::{Checkpoint, Done, KeyRole, Query, Step};

/// The sections of the job log. A section is opened by its first step with an effect, so a run that
/// changes nothing has none.
pub(super) struct JobLog {
    in_job: bool,
    open: Option<Section>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Look,
    Publish,
    Deploy,
    Retire,
}

impl JobLog {
    pub(super) fn new(config: &Config) -> Self {
        Self { in_job: config.job.id.is_some(), open: None }
    }

    /// Opens the section of this step where it is not open yet.
    pub(super) fn begin(&mut self, step: &Step, now: Timestamp) {
        let section = Section::of(step);
        if self.open != Some(section) && (step.has_effect() || matches!(step, Step::Wait(_))) {
            self.end_section(now);
            self.open = Some(section);
            if self.in_job {
                marker("start", section, section.title(), now);
            } else {
                write(section.title());
            }
        }
    }

    pub(super) fn end_section(&mut self, now: Timestamp) {
        if let Some(section) = self.open.take()
            && self.in_job
        {
            marker("end", section, "", now);
        }
    }
}

/// <https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections>
fn marker(edge: &str, section: Section, title: &str, now: Timestamp) {
    let (at, name) = (now.as_second(), section.name());
    write(&format!("\x1b[0Ksection_{edge}:{at}:{name}\r\x1b[0K{title}"));
}

/// A rotation goes on where nobody reads its log any more.
fn write(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

impl Section {
    fn of(step: &Step) -> Self {
        match step {
            Step::Create
            | Step::Verify(_)
            | Step::WriteSecret { .. }
            | Step::WriteId { .. }
            | Step::Record(Checkpoint::Begin | Checkpoint::Nothing | Checkpoint::Published)
            | Step::Disable(_, KeyRole::Orphan)
            | Step::Delete(_, KeyRole::Orphan) => Self::Publish,
            Step::StartDeploy(_)
            | Step::Wait(_)
            | Step::Record(
                Checkpoint::NotInPlace
                | Checkpoint::Drained
                | Checkpoint::Attempt(_)
                | Checkpoint::AttemptClosed(_)
                | Checkpoint::AttemptWithdrawn(_)
                | Checkpoint::Adopted(_)
                | Checkpoint::Proven,
            )
            | Step::Ask(Query::InFlightJobs | Query::Deploys) => Self::Deploy,
            Step::Disable(_, KeyRole::Old)
            | Step::Delete(_, KeyRole::Old)
            | Step::Record(
                Checkpoint::Disabled
                | Checkpoint::EnabledAgain
                | Checkpoint::Finished
                | Checkpoint::Superseded,
            ) => Self::Retire,
            Step::Ask(Query::WhoseSecrets | Query::LastUse(_) | Query::Preflight)
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

/// The line that the log gets once a step is done. Targets and deployed projects go by their names.
pub(super) fn past(step: &Step, targets: &[String], projects: &[String]) -> String {
    let name = |target: usize| targets.get(target).map_or("a target", String::as_str);
    let project = |place: usize| projects.get(place).map_or("a project", String::as_str);
    match step {
        Step::Claim => "claimed the rotation: no other run is working on this key".to_owned(),
        Step::TakeOver => "took over the record of an earlier run".to_owned(),
        Step::Record(checkpoint) => match checkpoint {
            Checkpoint::Begin
            | Checkpoint::Nothing
            | Checkpoint::Published
            | Checkpoint::NotInPlace
            | Checkpoint::Superseded
            | Checkpoint::Disabled
            | Checkpoint::EnabledAgain => format!("recorded that {checkpoint}"),
            Checkpoint::Drained | Checkpoint::Finished => checkpoint.to_string(),
            Checkpoint::Attempt(place) => {
                format!("asking for the deploy of project {}", project(*place))
            }
            Checkpoint::AttemptClosed(place) => format!(
                "whether the deploy of project {} was started is not known yet",
                project(*place)
            ),
            Checkpoint::AttemptWithdrawn(place) => {
                format!("the deploy of project {} was not started", project(*place))
            }
            Checkpoint::Adopted(place) => {
                format!("found the deploy of project {} that was asked for", project(*place))
            }
            Checkpoint::Proven => "the deploy succeeded with the new key".to_owned(),
        },
        Step::Create => "created a new key".to_owned(),
        Step::Verify(key) => format!("verified new key {key} with its own credentials"),
        Step::WriteSecret { target, .. } => format!("wrote the new secret to {}", name(*target)),
        Step::WriteId { target, .. } => format!("wrote the new id to {}", name(*target)),
        Step::StartDeploy(place) => format!("started the deploy of project {}", project(*place)),
        Step::Disable(key, role) => format!("disabled {role} key {key}"),
        Step::Delete(key, role) => format!("deleted {role} key {key}"),
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

/// The end of the log: the plan of a dry run, the summary, the notices, and the three lines of an
/// error.
pub(super) fn print_end(
    end: &End,
    summary: Option<&Summary>,
    notices: &[Notice],
    state: &str,
) -> io::Result<()> {
    let mut out = io::stderr().lock();
    if let End::Done(Done::DryRun(steps)) = end {
        writeln!(out, "A run would:")?;
        for (number, step) in steps.iter().enumerate() {
            writeln!(out, "{:>4}. {step}", number + 1)?;
        }
    }
    if let Some(summary) = summary {
        write!(out, "\n{summary}")?;
    }
    for notice in notices {
        writeln!(out, "\nwarning: {notice}\nhint: {}", notice.hint())?;
    }
    if let End::Error(error) = end {
        writeln!(out, "\nerror: {error}\nstate: {state}\nhint: {}", error.hint())?;
    }
    out.flush()
}
