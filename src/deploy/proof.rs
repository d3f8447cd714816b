//! The proof of a deploy: what the jobs of its pipeline, and of the pipelines that it triggers,
//! show.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::config::Name;
use crate::gitlab::jobs::Job;
use crate::gitlab::pipelines::TriggerJob;
use crate::gitlab::{ApiError, Gitlab, Phase, Status};
use crate::plan::{DeploySeen, START_MARGIN};
use crate::record::RecordedDeploy;

/// Downstream pipelines of downstream pipelines; GitLab's own limit is two levels for children.
const DEPTH: u8 = 4;

pub(super) enum Proof {
    Proven,
    Running(String),
    Missing(String),
}

impl Proof {
    pub(super) fn seen(self, recorded: &RecordedDeploy, link: &str) -> DeploySeen {
        match self {
            Self::Proven => DeploySeen::Proven(recorded.clone()),
            Self::Running(what) => DeploySeen::Running(format!("{link}: {what}")),
            Self::Missing(what) => DeploySeen::Unproven(format!("{link}: {what}")),
        }
    }
}

/// Looks for the proof that the `wanted` jobs ran, all where none is named. With `drained` the
/// pipeline is the one that this job is in, and each must have started later than that.
pub(super) async fn prove(
    gitlab: &Gitlab,
    project: &Name,
    pipeline: u64,
    wanted: &[String],
    drained: Option<Timestamp>,
) -> Result<Proof, ApiError> {
    let tree = Tree::read(gitlab, project, pipeline).await?;
    Ok(if !wanted.is_empty() {
        tree.proves(wanted, drained)
    } else if tree.to_come.is_empty() {
        tree.proves_all()
    } else {
        Proof::Running(tree.to_come.join(", "))
    })
}

/// A pipeline and those below it.
#[derive(Default)]
struct Tree {
    jobs: Vec<Job>,
    /// Trigger jobs without a pipeline that could show anything.
    holes: Vec<String>,
    /// A pipeline that nobody waits for succeeds while what it triggers is yet to come.
    to_come: Vec<String>,
}

impl Tree {
    async fn read(gitlab: &Gitlab, project: &Name, pipeline: u64) -> Result<Self, ApiError> {
        let mut tree = Self::default();
        let mut open = vec![(project.clone(), pipeline, 0)];
        while let Some((project, pipeline, depth)) = open.pop() {
            tree.jobs.extend(gitlab.pipeline_jobs(&project, pipeline).await?);
            for trigger in gitlab.trigger_jobs(&project, pipeline).await? {
                match &trigger.downstream_pipeline {
                    Some(next) if depth < DEPTH => {
                        let project = next.project_id.map_or_else(|| project.clone(), Name::Id);
                        if let Some(status) = next.status.as_ref().filter(|next| next.is_alive()) {
                            tree.to_come.push(format!(
                                "pipeline {} of project {project} is {}",
                                next.id,
                                status.explained()
                            ));
                        }
                        open.push((project, next.id, depth + 1));
                    }
                    Some(_) | None => tree.add_trigger(&trigger),
                }
            }
        }
        Ok(tree)
    }

    /// A trigger job whose pipeline is not there, or too far down.
    fn add_trigger(&mut self, trigger: &TriggerJob) {
        let TriggerJob { name, status, .. } = trigger;
        match status.phase() {
            Phase::Succeeded => {}
            Phase::Alive => {
                self.to_come.push(format!("trigger job {name} is {}", status.explained()));
            }
            Phase::Failed | Phase::Blocked
                if trigger.allow_failure && *status == Status::Failed =>
            {
                self.holes.push(format!("trigger job {name} {status}, which it may"));
            }
            Phase::Failed | Phase::Blocked => self.holes.push(format!(
                "trigger job {name} is {status} ({})",
                trigger.web_url.as_deref().unwrap_or_default()
            )),
        }
    }

    fn proves(&self, wanted: &[String], drained: Option<Timestamp>) -> Proof {
        let (mut running, mut missing) = (Vec::new(), Vec::new());
        for (name, found) in self.by_name(wanted) {
            // In our own pipeline what is to come waits for this very job.
            if found.is_empty() && (self.to_come.is_empty() || drained.is_some()) {
                missing.push(format!("there is no job {name}"));
            } else if found.is_empty() {
                running
                    .push(format!("there is no job {name} yet, but {}", self.to_come.join(", ")));
            }
            for job in found {
                let is_late = |drained: Timestamp| {
                    job.started_at.is_some_and(|start| start > drained + START_MARGIN)
                };
                let (name, status, link) = (&job.name, &job.status, job.link());
                match status.phase() {
                    Phase::Succeeded if drained.is_none_or(is_late) => {}
                    Phase::Succeeded => missing.push(format!(
                        "job {name} started before the new pair was in place ({link})"
                    )),
                    Phase::Blocked => {
                        missing.push(format!("job {name} waits for a person ({link})"));
                    }
                    Phase::Alive => running.push(format!("job {name} is {}", status.explained())),
                    Phase::Failed => missing.push(format!("job {name} {status} ({link})")),
                }
            }
        }
        match (&missing[..], &running[..]) {
            ([_, ..], _) => Proof::Missing(missing.join(", ")),
            ([], [_, ..]) => Proof::Running(running.join(", ")),
            ([], []) => Proof::Proven,
        }
    }

    /// The jobs of each wanted name, and the parts that GitLab has made of it.
    fn by_name<'a>(&'a self, wanted: &'a [String]) -> BTreeMap<&'a str, Vec<&'a Job>> {
        let mut by_name: BTreeMap<&str, Vec<&Job>> =
            wanted.iter().map(|name| (name.as_str(), Vec::new())).collect();
        for job in &self.jobs {
            if let Some(list) = by_name.get_mut(stem(&job.name)) {
                list.push(job);
            } else if let Some(list) = by_name.get_mut(job.name.as_str()) {
                list.push(job);
            }
        }
        by_name
    }

    /// Without a list no job may have been left out.
    fn proves_all(mut self) -> Proof {
        if let Some(running) = self.jobs.iter().find(|job| job.status.is_alive()) {
            let (name, status) = (&running.name, running.status.explained());
            return Proof::Running(format!("job {name} is {status}"));
        }
        let left_out = self.jobs.iter().filter(|job| job.status != Status::Success);
        self.holes.extend(
            left_out.map(|job| format!("job {} is {} ({})", job.name, job.status, job.link())),
        );
        match (&self.holes[..], &self.jobs[..]) {
            ([], []) => Proof::Missing("it has no jobs".to_owned()),
            ([], _) => Proof::Proven,
            ([_, ..], _) => Proof::Missing(self.holes.join(", ")),
        }
    }
}

/// The name of a job without what GitLab adds for its parts: `NAME 1/3`, `NAME: [a, b]`.
fn stem(name: &str) -> &str {
    let name = name.split_once(": [").map_or(name, |(stem, _)| stem);
    match name.rsplit_once([' ', ':']) {
        Some((stem, part))
            if part.split_once('/').is_some_and(|(n, of)| is_number(n) && is_number(of)) =>
        {
            stem.trim_end()
        }
        _ => name,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
