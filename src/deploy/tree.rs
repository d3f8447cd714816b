//! A pipeline and those that it triggers, with all their jobs: what a proof is read off.

use crate::config::Name;
use crate::gitlab::jobs::Job;
use crate::gitlab::jobs::PipelineRef;
use crate::gitlab::{ApiError, Gitlab, Phase, Status};

/// Downstream pipelines of downstream pipelines; GitLab's own limit is two levels for children.
const DEPTH: u8 = 4;

/// The pipeline itself comes first.
pub(super) struct Tree {
    pub(super) pipelines: Vec<PipelineSeen>,
}

pub(super) struct PipelineSeen {
    pub(super) project: Name,
    pub(super) id: u64,
    pub(super) status: Status,
    /// The newest try of each.
    pub(super) jobs: Vec<JobSeen>,
    /// GitLab does not show its jobs to this token.
    pub(super) hidden: bool,
}

pub(super) struct JobSeen {
    pub(super) job: Job,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Job,
    /// The place in [`Tree::pipelines`] of the pipeline that it has triggered, if it shows one.
    Trigger(Option<usize>),
}

impl Tree {
    pub(super) async fn read(
        gitlab: &Gitlab,
        project: &Name,
        pipeline: u64,
        status: Status,
    ) -> Result<Self, ApiError> {
        let root = PipelineSeen::new(project.clone(), pipeline, status);
        let mut tree = Self { pipelines: vec![root] };
        let mut depths = vec![0];
        let mut next = 0;
        while let Some(open) = tree.pipelines.get(next) {
            let (project, depth) = (open.project.clone(), depths[next]);
            let read = PipelineSeen::read(gitlab, &project, open.id).await;
            let (jobs, triggers) = match read {
                Ok(read) => read,
                Err(ApiError::Denied { status: 403 | 404, .. }) if depth > 0 => {
                    tree.pipelines[next].hidden = true;
                    next += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut seen: Vec<JobSeen> =
                jobs.into_iter().map(|job| JobSeen { job, kind: Kind::Job }).collect();
            for (job, downstream) in triggers {
                let below = downstream.filter(|_| depth < DEPTH).map(|below| {
                    let project = below.project_id.map_or_else(|| project.clone(), Name::Id);
                    // A pipeline without a status is on its way.
                    let status = below.status.unwrap_or(Status::Created);
                    tree.pipelines.push(PipelineSeen::new(project, below.id, status));
                    depths.push(depth + 1);
                    tree.pipelines.len() - 1
                });
                seen.push(JobSeen { job, kind: Kind::Trigger(below) });
            }
            tree.pipelines[next].jobs = newest_tries(seen);
            next += 1;
        }
        Ok(tree)
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = (&PipelineSeen, &JobSeen)> {
        self.pipelines
            .iter()
            .flat_map(|pipeline| pipeline.jobs.iter().map(move |job| (pipeline, job)))
    }

    /// A pipeline and what it has triggered.
    pub(super) fn below(&self, top: usize) -> Vec<&PipelineSeen> {
        let mut found = Vec::new();
        let mut open = vec![top];
        while let Some(index) = open.pop() {
            let pipeline = &self.pipelines[index];
            found.push(pipeline);
            open.extend(pipeline.jobs.iter().filter_map(|job| match job.kind {
                Kind::Trigger(below) => below,
                Kind::Job => None,
            }));
        }
        found
    }
}

impl PipelineSeen {
    fn new(project: Name, id: u64, status: Status) -> Self {
        Self { project, id, status, jobs: Vec::new(), hidden: false }
    }

    async fn read(
        gitlab: &Gitlab,
        project: &Name,
        pipeline: u64,
    ) -> Result<(Vec<Job>, Vec<(Job, Option<PipelineRef>)>), ApiError> {
        let jobs = gitlab.pipeline_jobs(project, pipeline).await?;
        let triggers = gitlab.trigger_jobs(project, pipeline).await?;
        let triggers =
            triggers.into_iter().map(|trigger| (trigger.job, trigger.downstream_pipeline));
        Ok((jobs, triggers.collect()))
    }

    pub(super) fn as_hidden(&self) -> String {
        format!("{self} cannot be read with this token")
    }

    pub(super) fn has_ended(&self) -> bool {
        self.status.has_ended()
    }

    /// What may still bring jobs into being by itself: a trigger job without its pipeline, or a
    /// large configuration whose jobs are not there yet.
    pub(super) fn to_come(&self) -> Vec<String> {
        if !self.status.is_alive() || self.hidden {
            return Vec::new();
        }
        if self.jobs.is_empty() {
            return vec![format!("{self} is {} and has no jobs yet", self.status.explained())];
        }
        let open = self.jobs.iter().filter(|job| matches!(job.kind, Kind::Trigger(None)));
        open.filter(|trigger| trigger.job.status.is_alive()).map(JobSeen::as_it_is).collect()
    }
}

impl std::fmt::Display for PipelineSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pipeline {} of project {}", self.id, self.project)
    }
}

impl JobSeen {
    /// `job deploy`, `trigger job deploy`.
    pub(super) fn called(&self) -> String {
        match self.kind {
            Kind::Job => format!("job {}", self.job.name),
            Kind::Trigger(_) => format!("trigger job {}", self.job.name),
        }
    }

    /// Skipped, though no job failed: it runs only where one does, or needs one that did not run.
    pub(super) fn is_left_out_of(&self, pipeline: &PipelineSeen) -> bool {
        self.job.status == Status::Skipped && pipeline.status == Status::Success
    }

    /// What it does, in words.
    pub(super) fn as_it_is(&self) -> String {
        let (called, status) = (self.called(), &self.job.status);
        match status.phase() {
            Phase::Alive => format!("{called} is {}", status.explained()),
            Phase::Blocked => format!("{called} waits for a person ({})", self.job.link()),
            Phase::Succeeded | Phase::Failed => {
                format!("{called} {status} ({})", self.job.link())
            }
        }
    }
}

/// GitLab lists the newest tries; between a retry and the end of the list there may be two.
fn newest_tries(mut jobs: Vec<JobSeen>) -> Vec<JobSeen> {
    jobs.sort_by(|one, other| {
        one.job.name.cmp(&other.job.name).then(other.job.id.cmp(&one.job.id))
    });
    jobs.dedup_by(|older, newer| older.job.name == newer.job.name);
    jobs.sort_by_key(|job| job.job.id);
    jobs
}
