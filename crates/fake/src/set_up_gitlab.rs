//! How a test sets GitLab up, and what it asks afterwards.

use super::Fake;
use super::aws::Pair;
use super::clock::{iso_seconds, wall};
use super::gitlab::{Group, Home, Project, Ref, TokenSpec};
use super::jobs::{Job, JobSpec, JobView, Pipeline, PipelineView, Refusal};
use super::settings::Settings;
use super::state::State;
use super::variables::Variable;

impl Fake {
    /// With a protected branch `main` and a branch `feature`, and no pipeline configuration yet.
    pub fn add_project(&self, id: u64, path: &str) {
        let mut state = self.lock();
        let sha = |state: &mut State| state.random("0123456789abcdef", 40);
        let (main, feature) = (sha(&mut state), sha(&mut state));
        let refs = [
            ("main".into(), Ref { sha: main, protected: true }),
            ("feature".into(), Ref { sha: feature, protected: false }),
        ]
        .into();
        let project = Project {
            path: path.into(),
            old_paths: Vec::new(),
            default_branch: "main".into(),
            archived: false,
            refs,
            variables: Vec::new(),
            config: Vec::new(),
            inputs: Vec::new(),
            refusal: None,
            settings: Settings::default(),
            jobs_hidden: false,
            frozen: false,
        };
        state.lab.projects.insert(id, project);
    }

    pub fn add_group(&self, id: u64, path: &str) {
        self.lock().lab.groups.insert(id, Group { path: path.into(), variables: Vec::new() });
    }

    pub fn add_branch(&self, project: u64, name: &str, protected: bool) {
        let mut state = self.lock();
        let sha = state.random("0123456789abcdef", 40);
        state.project(project).refs.insert(name.into(), Ref { sha, protected });
    }

    /// Sets a variable, or replaces the one of the same key and scope, as an operator would. A key
    /// that it names becomes ours.
    pub fn set_variable(&self, home: impl Into<Home>, variable: Variable) {
        let home = home.into();
        let mut state = self.lock();
        for key in state.aws.keys.iter_mut().filter(|key| key.id == variable.value) {
            key.ours = true;
        }
        state.as_operator(|state| {
            let variables = state.lab.variables_mut(home).expect("the home exists");
            match variables
                .iter_mut()
                .find(|known| known.key == variable.key && known.scope == variable.scope)
            {
                Some(known) => *known = variable,
                None => variables.push(variable),
            }
        });
    }

    /// Both variables of a pair, masked, scope `*`, by their usual names.
    pub fn set_pair(&self, home: impl Into<Home>, pair: &Pair) {
        let home = home.into();
        self.set_variable(home, Variable::new("AWS_ACCESS_KEY_ID", &pair.id).masked());
        self.set_variable(home, Variable::new("AWS_SECRET_ACCESS_KEY", &pair.secret).masked());
    }

    pub fn variables(&self, home: impl Into<Home>) -> Vec<Variable> {
        self.lock().lab.variables(home.into()).cloned().unwrap_or_default()
    }

    pub fn variable(&self, home: impl Into<Home>, key: &str, scope: &str) -> Option<Variable> {
        self.variables(home)
            .into_iter()
            .find(|variable| variable.key == key && variable.scope == scope)
    }

    /// Adds a token, or replaces it. Returns the token itself.
    pub fn add_token(&self, spec: TokenSpec) -> String {
        let mut state = self.lock();
        state.keep_secret(&spec.token);
        state.lab.tokens.retain(|known| known.token != spec.token);
        state.lab.tokens.push(spec.clone());
        spec.token
    }

    /// Changes a token (the fake's own, or another) as it is.
    pub fn change_token(&self, token: &str, change: impl FnOnce(&mut TokenSpec)) {
        change(
            self.lock()
                .lab
                .tokens
                .iter_mut()
                .find(|known| known.token == token)
                .expect("a known token"),
        );
    }

    /// A job that does what the test says: the rotator's own, or one that still runs. In a pipeline
    /// of its own (`schedule`). The status `running` has started now, one that has ended has ended
    /// now.
    pub fn add_job(&self, project: u64, id: u64, status: &str) {
        let mut state = self.lock();
        let (now, at) = (state.now(), wall());
        let pipeline = state.lab.next_id();
        let sha = state.lab.projects[&project].refs["main"].sha.clone();
        let mut spec = JobSpec::new("rotate");
        spec.stage = "rotate".into();
        let iid = pipeline;
        state.lab.pipelines.insert(
            pipeline,
            Pipeline {
                project,
                iid,
                name: "main".into(),
                sha,
                source: "schedule".into(),
                user: 5,
                created: now,
                updated: now,
                jobs: Vec::new(),
                variables: Vec::new(),
                inputs: serde_json::Value::Null,
                planned: None,
                bridge: None,
                forced: None,
                started_by_program: false,
            },
        );
        state.insert_job(id, pipeline, spec, at);
        drop(state);
        self.job_set_status(id, status);
    }

    /// With the moments given, in milliseconds since 1970.
    pub fn add_job_at(
        &self,
        project: u64,
        id: u64,
        status: &str,
        started: Option<i64>,
        finished: Option<i64>,
    ) {
        self.add_job(project, id, status);
        let mut state = self.lock();
        let job = state.lab.jobs.get_mut(&id).expect("just added");
        (job.started, job.finished) = (started, finished);
        job.created = started.unwrap_or(job.created);
        let (pipeline, created) = (job.pipeline, job.created);
        state.lab.pipelines.get_mut(&pipeline).expect("just added").created = created;
    }

    pub fn job_set_status(&self, id: u64, status: &str) {
        let mut state = self.lock();
        let now = state.now();
        let job = state.lab.jobs.get_mut(&id).expect("a job that exists");
        job.status = status.into();
        job.due = None;
        let ended = ["success", "failed", "canceled", "skipped"].contains(&status);
        if ended || ["running", "canceling"].contains(&status) {
            job.started.get_or_insert(now);
        }
        job.finished = ended.then(|| job.finished.unwrap_or(now));
        let pipeline = job.pipeline;
        state.settle(pipeline, wall());
    }

    /// The job is called so; else it has the name of the rotator's own.
    pub fn rename_job(&self, id: u64, name: &str) {
        let mut state = self.lock();
        state.lab.jobs.get_mut(&id).expect("a job that exists").spec.name = name.to_owned();
    }

    /// GitLab forgets the job.
    pub fn remove_job(&self, id: u64) {
        let mut state = self.lock();
        if let Some(job) = state.lab.jobs.remove(&id)
            && let Some(pipeline) = state.lab.pipelines.get_mut(&job.pipeline)
        {
            pipeline.jobs.retain(|known| *known != id);
        }
    }

    /// What every new pipeline of this project consists of.
    pub fn set_pipeline_config(&self, project: u64, jobs: Vec<JobSpec>) {
        self.lock().project(project).config = jobs;
    }

    /// The inputs that `spec: inputs` declares.
    pub fn set_pipeline_inputs(&self, project: u64, names: &[&str]) {
        self.lock().project(project).inputs = names.iter().map(|name| (*name).to_owned()).collect();
    }

    pub fn refuse_pipelines(&self, project: u64, refusal: Option<Refusal>) {
        self.lock().project(project).refusal = refusal;
    }

    pub fn set_archived(&self, project: u64, archived: bool) {
        self.lock().project(project).archived = archived;
    }

    /// As right after its creation: no commit, no ref.
    pub fn empty_repository(&self, project: u64) {
        self.lock().project(project).refs.clear();
    }

    /// The project gets another path; the old one answers 301 and 405.
    pub fn move_project(&self, project: u64, path: &str) {
        let mut state = self.lock();
        let project = state.project(project);
        let old = std::mem::replace(&mut project.path, path.into());
        project.old_paths.push(old);
    }

    /// A deploy freeze begins or ends.
    pub fn set_frozen(&self, project: u64, frozen: bool) {
        self.lock().project(project).frozen = frozen;
    }

    /// Its jobs are 404 (another token's project, or jobs not visible).
    pub fn hide_jobs(&self, project: u64, hidden: bool) {
        self.lock().project(project).jobs_hidden = hidden;
    }

    pub fn pipelines(&self, project: u64) -> Vec<PipelineView> {
        let state = self.lock();
        let of = state.lab.pipelines.iter().filter(|(_, pipeline)| pipeline.project == project);
        of.map(|(id, pipeline)| PipelineView {
            id: *id,
            project,
            name: pipeline.name.clone(),
            source: pipeline.source.clone(),
            status: state.pipeline_status(*id),
            created: pipeline.created,
            user: pipeline.user,
            jobs: pipeline.jobs.clone(),
            variables: pipeline.variables.clone(),
            inputs: pipeline.inputs.clone(),
            started_by_program: pipeline.started_by_program,
        })
        .collect()
    }

    pub fn jobs(&self, project: u64) -> Vec<JobView> {
        let state = self.lock();
        let view = |job: &Job| JobView {
            id: job.id,
            project,
            pipeline: job.pipeline,
            name: job.spec.name.clone(),
            status: job.status.clone(),
            started: job.started,
            finished: job.finished,
            retried: job.retried,
            pair: job.pair.clone(),
            error: job.error.clone(),
        };
        state
            .lab
            .jobs
            .values()
            .filter(|job| {
                state
                    .lab
                    .pipelines
                    .get(&job.pipeline)
                    .is_some_and(|pipeline| pipeline.project == project)
            })
            .map(view)
            .collect()
    }

    /// The job as GitLab's API shows it.
    pub fn job_json(&self, job: u64) -> serde_json::Value {
        self.lock().job_json(job)
    }

    /// What runs of this project, by environment.
    pub fn productions(&self, project: u64) -> Vec<(String, Pair)> {
        let state = self.lock();
        let of = state.check.productions.iter().filter(|((of, _), _)| *of == project);
        of.map(|((_, environment), pair)| (environment.clone(), pair.clone())).collect()
    }

    /// The environment that this job gets, whole: GitLab's predefined variables, the project's (by
    /// their scope and protection), the token, and where AWS and its region are. Change it as you
    /// like before it is used.
    pub fn env(&self, project: u64, job: u64) -> Vec<(String, String)> {
        let state = self.lock();
        let of = &state.lab.jobs[&job];
        let (pipeline, home) = (&state.lab.pipelines[&of.pipeline], &state.lab.projects[&project]);
        let web = state.web(project);
        let protected = home.refs.get(&pipeline.name).is_some_and(|found| found.protected);
        let mut env: Vec<(String, String)> = [
            ("CI", "true".to_owned()),
            ("GITLAB_CI", "true".into()),
            ("CI_SERVER_VERSION", "18.11.0-ee".into()),
            ("CI_API_V4_URL", format!("{}{}", state.url, state.lab.api())),
            (
                "CI_SERVER_URL",
                format!("{}{}", state.url, state.lab.api().trim_end_matches("/api/v4")),
            ),
            ("CI_SERVER_VERSION", "18.11.0-ee".into()),
            ("CI_PROJECT_ID", project.to_string()),
            ("CI_PROJECT_PATH", home.path.clone()),
            ("CI_PROJECT_URL", web.clone()),
            ("CI_DEFAULT_BRANCH", home.default_branch.clone()),
            ("CI_COMMIT_REF_NAME", pipeline.name.clone()),
            ("CI_COMMIT_BRANCH", pipeline.name.clone()),
            ("CI_COMMIT_REF_PROTECTED", protected.to_string()),
            ("CI_COMMIT_SHA", pipeline.sha.clone()),
            ("CI_PIPELINE_ID", of.pipeline.to_string()),
            ("CI_PIPELINE_SOURCE", pipeline.source.clone()),
            ("CI_PIPELINE_CREATED_AT", iso_seconds(pipeline.created)),
            ("CI_PIPELINE_URL", format!("{web}/-/pipelines/{}", of.pipeline)),
            ("CI_JOB_ID", job.to_string()),
            ("CI_JOB_NAME", of.spec.name.clone()),
            ("CI_JOB_STAGE", of.spec.stage.clone()),
            ("CI_JOB_URL", format!("{web}/-/jobs/{job}")),
            ("CI_JOB_STARTED_AT", iso_seconds(of.started.unwrap_or(of.created))),
            ("CI_JOB_TIMEOUT", "3600".into()),
            ("ROTATOR_GITLAB_TOKEN", self.token.clone()),
            ("AWS_ENDPOINT_URL", state.url.clone()),
            ("AWS_REGION", "us-east-1".into()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        if home.frozen {
            env.push(("CI_DEPLOY_FREEZE".into(), "true".into()));
        }
        for (name, value) in state.job_variables(job) {
            env.retain(|(known, _)| *known != name);
            env.push((name, value));
        }
        env
    }
}

impl State {
    pub(crate) fn project(&mut self, id: u64) -> &mut Project {
        self.lab.projects.get_mut(&id).expect("a project that exists")
    }
}
