//! What operators and other tools do meanwhile. It is never a violation of an invariant.

use super::Fake;
use super::aws::{Pair, Principal};
use super::clock::wall;
use super::gitlab::Home;
use super::jobs::{JobEnd, JobSpec};
use super::variables::Variable;

/// AWS.
impl Fake {
    /// An operator makes a key now; it is not ours.
    pub fn operator_creates_key(&self, user: &str) -> Pair {
        self.add_key(user, 0)
    }

    pub fn operator_disables_key(&self, id: &str) {
        self.lock().as_operator(|state| state.set_key_active(id, false));
    }

    pub fn operator_enables_key(&self, id: &str) {
        self.lock().as_operator(|state| state.set_key_active(id, true));
    }

    pub fn operator_deletes_key(&self, id: &str) {
        self.lock().as_operator(|state| state.delete_key(id));
    }

    pub fn operator_deletes_user(&self, user: &str) {
        self.lock().as_operator(|state| {
            state.aws.users.retain(|known| known.name != user);
            let owner = Principal::User(user.into());
            for key in state.aws.keys.iter_mut().filter(|key| key.owner == owner) {
                (key.active, key.deleted) = (false, true);
            }
        });
    }
}

/// GitLab.
impl Fake {
    pub fn operator_sets_variable(&self, home: impl Into<Home>, variable: Variable) {
        self.set_variable(home, variable);
    }

    /// Changes a variable as it is.
    pub fn operator_edits_variable(
        &self,
        home: impl Into<Home>,
        key: &str,
        scope: &str,
        edit: impl FnOnce(&mut Variable),
    ) {
        let home = home.into();
        self.lock().as_operator(|state| {
            let variables = state.lab.variables_mut(home).expect("the home exists");
            edit(
                variables
                    .iter_mut()
                    .find(|known| known.key == key && known.scope == scope)
                    .expect("a variable that exists"),
            );
        });
    }

    pub fn operator_removes_variable(&self, home: impl Into<Home>, key: &str, scope: &str) {
        let home = home.into();
        self.lock().as_operator(|state| {
            state
                .lab
                .variables_mut(home)
                .expect("the home exists")
                .retain(|known| !(known.key == key && known.scope == scope));
        });
    }

    /// A pipeline of the project's configuration on its default branch, by `source` (`push`,
    /// `schedule`, `web`). Returns its id.
    pub fn start_pipeline(&self, project: u64, source: &str) -> u64 {
        let (jobs, branch) = {
            let state = self.lock();
            let project = &state.lab.projects[&project];
            (project.config.clone(), project.default_branch.clone())
        };
        self.start_pipeline_with(project, source, &branch, jobs)
    }

    /// The same with jobs of its own.
    pub fn start_pipeline_with(
        &self,
        project: u64,
        source: &str,
        branch: &str,
        jobs: Vec<JobSpec>,
    ) -> u64 {
        self.lock().make_pipeline(project, branch, source, 5, jobs)
    }

    /// Another tool starts a pipeline by the API, with the token of the rotation.
    pub fn another_tool_starts_pipeline(&self, project: u64, jobs: Vec<JobSpec>) -> u64 {
        let mut state = self.lock();
        let ours = state.lab.tokens.iter().find(|known| known.token == self.token);
        let user = ours.expect("a known token").user;
        let branch = state.lab.projects[&project].default_branch.clone();
        state.make_pipeline(project, &branch, "api", user, jobs)
    }

    /// Lets all that is under way in pipelines happen at once, until nothing moves by itself any
    /// more. The moments are written down as they would have been, so they may lie a little ahead.
    pub fn finish_pipelines(&self) {
        let mut state = self.lock();
        while let Some(next) = state.next_event() {
            state.advance_to(next);
        }
    }

    pub fn operator_retries_job(&self, job: u64) -> u64 {
        self.lock().retry(job, wall())
    }

    pub fn operator_plays_job(&self, job: u64) {
        self.lock().play(job);
    }

    pub fn operator_cancels_pipeline(&self, pipeline: u64) {
        self.lock().cancel(pipeline);
    }

    pub fn operator_cancels_job(&self, job: u64) {
        self.lock().finish(job, "canceled", wall());
    }

    /// The branch has a new commit; no pipeline runs for it.
    pub fn operator_pushes(&self, project: u64, branch: &str) {
        let mut state = self.lock();
        let sha = state.random("0123456789abcdef", 40);
        let project = state.lab.projects.get_mut(&project).expect("a project that exists");
        project.refs.get_mut(branch).expect("a branch that exists").sha = sha;
    }

    pub fn operator_deletes_pipeline(&self, pipeline: u64) {
        self.lock().remove_pipeline(pipeline);
    }

    /// The pipeline says this whatever its jobs do; `None` lets them speak again.
    pub fn force_pipeline_status(&self, pipeline: u64, status: Option<&str>) {
        self.lock().lab.pipelines.get_mut(&pipeline).expect("a pipeline that exists").forced =
            status.map(str::to_owned);
    }

    /// `POST …/retry` of this job is refused from now on.
    pub fn job_not_retryable(&self, job: u64) {
        self.lock().lab.jobs.get_mut(&job).expect("a job that exists").retryable = false;
    }

    /// The pipeline has become too old: none of its jobs runs again.
    pub fn archive_pipeline(&self, pipeline: u64) {
        let mut state = self.lock();
        for job in state.lab.jobs.values_mut().filter(|job| job.pipeline == pipeline) {
            job.archived = true;
        }
    }

    pub fn job_started_at(&self, job: u64, ms: i64) {
        self.lock().lab.jobs.get_mut(&job).expect("a job that exists").started = Some(ms);
    }

    /// This job, which runs, succeeds now.
    pub fn finish_job(&self, job: u64) {
        self.lock().finish(job, "success", wall());
    }

    /// How the jobs of this name that exist, and retries of them, end from now on.
    pub fn set_job_end(&self, name: &str, end: JobEnd) {
        let mut state = self.lock();
        for job in state.lab.jobs.values_mut().filter(|job| job.spec.name == name) {
            job.spec.outcome = end;
        }
    }

    /// A job that joins a pipeline that is there already.
    pub fn add_pipeline_job(&self, pipeline: u64, job: JobSpec) {
        let mut state = self.lock();
        state.make_job(pipeline, job, wall());
        state.settle(pipeline, wall());
    }
}
