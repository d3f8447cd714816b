//! The proof by a whole pipeline, where no job is named: all its jobs, and it should look like a
//! deploy.

use jiff::Timestamp;

use super::proof::Proof;
use super::tree::{JobSeen, PipelineSeen, Tree};
use crate::config::Name;
use crate::gitlab::{ApiError, Gitlab, Phase, Status};

/// What jobs and stages that deploy are called.
const WORDS: [&str; 7] = ["deploy", "release", "publish", "apply", "ship", "rollout", "prod"];

/// The proof by all jobs of a pipeline that succeeded.
pub(super) async fn of_all(
    gitlab: &Gitlab,
    tree: &Tree,
    created: Option<Timestamp>,
) -> Result<Proof, ApiError> {
    let whole = Whole::of(&tree.below(0));
    if !whole.running.is_empty() {
        return Ok(Proof::Running(whole.running.join(", ")));
    }
    let left_out = [&whole.manual[..], &whole.canceled, &whole.may_fail, &whole.hidden].concat();
    Ok(if !whole.failed.is_empty() {
        Proof::Failed(whole.failed.join(", "))
    } else if !left_out.is_empty() {
        // Alone, a skipped job is one that runs only where another fails.
        Proof::LeftOut([left_out, whole.skipped].concat().join(", "))
    } else if tree.jobs().next().is_none() {
        Proof::InVain("it has no jobs".to_owned())
    } else if looks_like_a_deploy(gitlab, tree, created).await? {
        Proof::Proven
    } else {
        Proof::NoDeploy
    })
}

/// Whether a job or a stage is called like a deploy, or a job has made a deployment. Where GitLab
/// does not show the deployments, nothing speaks against it.
async fn looks_like_a_deploy(
    gitlab: &Gitlab,
    tree: &Tree,
    created: Option<Timestamp>,
) -> Result<bool, ApiError> {
    let is_called_so = |text: &str| {
        let text = text.to_lowercase();
        WORDS.iter().any(|word| text.contains(word))
    };
    if tree.jobs().any(|(_, seen)| is_called_so(&seen.job.name) || is_called_so(&seen.job.stage)) {
        return Ok(true);
    }
    let Some(created) = created else { return Ok(true) };
    let mut asked: Vec<&Name> = Vec::new();
    for pipeline in &tree.pipelines {
        if asked.contains(&&pipeline.project) {
            continue;
        }
        asked.push(&pipeline.project);
        let Some(deployed) = gitlab.deployed_jobs(&pipeline.project, created).await? else {
            tracing::warn!(
                "the deployments of project {} cannot be read with this token, so nothing tells \
                 whether its pipeline deploys",
                pipeline.project
            );
            return Ok(true);
        };
        if tree.jobs().any(|(_, seen)| deployed.contains(&seen.job.id)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What all jobs of a pipeline, and of those below it, show.
#[derive(Default)]
pub(super) struct Whole {
    pub(super) running: Vec<String>,
    pub(super) failed: Vec<String>,
    pub(super) manual: Vec<String>,
    pub(super) canceled: Vec<String>,
    /// Failed, which they may.
    pub(super) may_fail: Vec<String>,
    pub(super) skipped: Vec<String>,
    /// Pipelines that the token does not see.
    pub(super) hidden: Vec<String>,
}

impl Whole {
    pub(super) fn of(pipelines: &[&PipelineSeen]) -> Self {
        let mut whole = Self::default();
        for pipeline in pipelines {
            if pipeline.status.is_alive() {
                let status = pipeline.status.explained();
                whole.running.push(format!("{pipeline} is {status}"));
            }
            if pipeline.hidden {
                whole.hidden.push(pipeline.as_hidden());
            }
            for seen in &pipeline.jobs {
                whole.add(seen);
            }
        }
        whole
    }

    fn add(&mut self, seen: &JobSeen) {
        let status = &seen.job.status;
        let text = format!("{} is {status} ({})", seen.called(), seen.job.link());
        match status.phase() {
            Phase::Succeeded => {}
            Phase::Alive => self.running.push(seen.as_it_is()),
            Phase::Blocked => self.manual.push(text),
            Phase::Failed if *status == Status::Skipped => self.skipped.push(text),
            Phase::Failed if *status == Status::Canceled => self.canceled.push(text),
            Phase::Failed if seen.job.allow_failure => {
                self.may_fail.push(format!("{text}, which it may"));
            }
            Phase::Failed => self.failed.push(text),
        }
    }
}
