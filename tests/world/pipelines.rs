//! Pipelines that run by themselves: jobs are picked up, read the variables at that very moment, end, and leave a production behind.

use serde_json::Value;

use super::aws::Pair;
use super::clock::{Millis, wall};
use super::gitlab::Home;
use super::judge::Mutation;
use super::policy::glob;
use super::serve::pairs;
use super::state::State;

/// A job as `.gitlab-ci.yml` would have it.
#[derive(Clone, Debug)]
pub struct JobSpec {
    pub name: String,
    pub stage: String,
    pub manual: bool,
    pub allow_failure: bool,
    pub ms: i64,
    pub outcome: JobEnd,
    /// It signs a real STS call with the pair it is given, at its start, and fails where that is refused.
    pub reads: Option<(String, String)>,
    pub environment: Option<String>,
    /// Production runs with what this job has read, once it has succeeded.
    pub deploys: bool,
    /// A trigger job: the downstream project, and whether it waits for its pipeline (`strategy: depend`).
    pub bridge: Option<(u64, bool)>,
    /// No runner takes it.
    pub no_runner: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobEnd {
    Success,
    Failure,
    /// It fails, and a retry of it succeeds.
    FailsOnce,
    /// It runs for ever.
    Never,
}

impl JobSpec {
    /// Stage `test`, 30 ms, succeeds, reads nothing.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            stage: "test".into(),
            manual: false,
            allow_failure: false,
            ms: 30,
            outcome: JobEnd::Success,
            reads: None,
            environment: None,
            deploys: false,
            bridge: None,
            no_runner: false,
        }
    }

    /// A deploy that reads the usual pair; no environment where the name is empty.
    pub fn deploy(name: &str, environment: &str) -> Self {
        let environment = Some(environment.to_owned()).filter(|name| !name.is_empty());
        Self { environment, deploys: true, stage: "deploy".into(), ..Self::new(name) }.reads("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }

    pub fn bridge(name: &str, project: u64, depend: bool) -> Self {
        Self { bridge: Some((project, depend)), stage: "deploy".into(), ..Self::new(name) }
    }

    pub fn reads(mut self, id: &str, secret: &str) -> Self {
        self.reads = Some((id.into(), secret.into()));
        self
    }

    pub fn stage(mut self, stage: &str) -> Self {
        self.stage = stage.into();
        self
    }

    /// Manual; it blocks the pipeline unless it is allowed to fail.
    pub fn manual(mut self) -> Self {
        self.manual = true;
        self
    }

    pub fn allow_failure(mut self) -> Self {
        self.allow_failure = true;
        self
    }

    pub fn ms(mut self, ms: i64) -> Self {
        self.ms = ms;
        self
    }

    pub fn fails(mut self) -> Self {
        self.outcome = JobEnd::Failure;
        self
    }

    pub fn fails_once(mut self) -> Self {
        self.outcome = JobEnd::FailsOnce;
        self
    }

    pub fn never_ends(mut self) -> Self {
        self.outcome = JobEnd::Never;
        self
    }

    pub fn no_runner(mut self) -> Self {
        self.no_runner = true;
        self
    }
}

/// How a pipeline comes into being once it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PipelineCreation {
    AtOnce,
    /// The reply is lost, the pipeline appears so many milliseconds later.
    Slow {
        ms: i64,
    },
    /// It stays `created`, without jobs; the reply is lost too where `lose_reply`.
    Stuck {
        lose_reply: bool,
    },
}

/// Why no pipeline is made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    Empty,
    /// The older text.
    EmptyOld,
    Workflow,
    WorkflowOld,
    Permission,
    /// Only where variables are sent.
    VariablesForbidden,
    Other(String),
}

pub(crate) struct Pipeline {
    pub(crate) project: u64,
    pub(crate) iid: u64,
    pub(crate) name: String,
    pub(crate) sha: String,
    pub(crate) source: String,
    pub(crate) user: u64,
    pub(crate) created: Millis,
    pub(crate) updated: Millis,
    pub(crate) jobs: Vec<u64>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) inputs: Value,
    /// Jobs that are still to be made, and when (real time; never, where stuck).
    pub(crate) planned: Option<(Vec<JobSpec>, Millis)>,
    pub(crate) bridge: Option<u64>,
    pub(crate) forced: Option<String>,
    pub(crate) started_by_program: bool,
}

pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) pipeline: u64,
    pub(crate) spec: JobSpec,
    pub(crate) status: String,
    pub(crate) created: Millis,
    pub(crate) started: Option<Millis>,
    pub(crate) finished: Option<Millis>,
    /// Real time of its next step; none where it waits for somebody.
    pub(crate) due: Option<Millis>,
    pub(crate) retried: bool,
    pub(crate) retryable: bool,
    pub(crate) pair: Option<Pair>,
    /// Why the pair it was given does not sign.
    pub(crate) trouble: Option<String>,
    pub(crate) downstream: Option<u64>,
    pub(crate) user: u64,
}

pub(crate) struct Deployment {
    pub(crate) id: u64,
    pub(crate) project: u64,
    pub(crate) environment: String,
    pub(crate) job: u64,
    pub(crate) status: String,
    pub(crate) created: Millis,
    pub(crate) updated: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    pub id: u64,
    pub project: u64,
    pub pipeline: u64,
    pub name: String,
    pub status: String,
    pub started: Option<i64>,
    pub finished: Option<i64>,
    pub retried: bool,
    /// What it read at its start.
    pub pair: Option<Pair>,
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineView {
    pub id: u64,
    pub project: u64,
    pub name: String,
    pub source: String,
    pub status: String,
    pub created: i64,
    pub user: u64,
    pub jobs: Vec<u64>,
    pub variables: Vec<(String, String)>,
    pub inputs: Value,
    pub started_by_program: bool,
}

pub(crate) const LIVE: [&str; 7] = ["pending", "running", "canceling", "preparing", "waiting_for_callback", "waiting_for_resource", "created"];
const DONE: [&str; 4] = ["success", "failed", "canceled", "skipped"];

impl State {
    /// Lets everything happen that is due by now, in its order.
    pub(crate) fn advance(&mut self) {
        self.advance_to(wall());
    }

    pub(crate) fn advance_to(&mut self, until: Millis) {
        loop {
            let job = self.lab.jobs.values().filter_map(|job| Some((job.due?, 1, job.id))).min();
            let planned = self.lab.pipelines.iter().filter_map(|(id, pipeline)| Some((pipeline.planned.as_ref()?.1, 0, *id))).min();
            match job.into_iter().chain(planned).min() {
                Some((due, 0, pipeline)) if due <= until => self.fill(pipeline, due),
                Some((due, _, job)) if due <= until => match self.lab.jobs[&job].status.as_str() {
                    "pending" => self.pick_up(job, due),
                    _ => self.end(job, due),
                },
                _ => return,
            }
        }
    }

    /// The moment of the next event, real time.
    pub(crate) fn next_event(&self) -> Option<Millis> {
        let jobs = self.lab.jobs.values().filter_map(|job| job.due);
        let pipelines = self.lab.pipelines.values().filter_map(|pipeline| Some(pipeline.planned.as_ref()?.1));
        jobs.chain(pipelines).filter(|due| *due < Millis::MAX).min()
    }

    pub(crate) fn make_pipeline(&mut self, project: u64, name: &str, source: &str, user: u64, jobs: Vec<JobSpec>) -> u64 {
        let at = wall();
        let fill_at = match self.knobs.pipeline_creation {
            _ if source != "api" => at,
            PipelineCreation::AtOnce => at,
            PipelineCreation::Slow { ms } => at + ms,
            PipelineCreation::Stuck { .. } => Millis::MAX,
        };
        let id = self.lab.next_id();
        let iid = self.lab.pipelines.values().filter(|pipeline| pipeline.project == project).count() as u64 + 1;
        let sha = self.lab.projects[&project].refs.get(name).map_or_else(|| "0".repeat(40), |found| found.sha.clone());
        let now = self.now();
        let pipeline = Pipeline {
            project,
            iid,
            name: name.into(),
            sha,
            source: source.into(),
            user,
            created: now,
            updated: now,
            jobs: Vec::new(),
            variables: Vec::new(),
            inputs: Value::Null,
            planned: Some((jobs, fill_at)),
            bridge: None,
            forced: None,
            started_by_program: false,
        };
        self.lab.pipelines.insert(id, pipeline);
        if fill_at <= at {
            self.fill(id, at);
        }
        id
    }

    fn fill(&mut self, pipeline: u64, at: Millis) {
        let Some((specs, _)) = self.lab.pipelines.get_mut(&pipeline).and_then(|pipeline| pipeline.planned.take()) else { return };
        for spec in specs {
            self.make_job(pipeline, spec, at);
        }
        self.settle(pipeline, at);
    }

    pub(crate) fn make_job(&mut self, pipeline: u64, spec: JobSpec, at: Millis) -> u64 {
        let id = self.lab.next_id();
        self.insert_job(id, pipeline, spec, at);
        id
    }

    pub(crate) fn insert_job(&mut self, id: u64, pipeline: u64, spec: JobSpec, at: Millis) {
        let of = self.lab.pipelines.get_mut(&pipeline).expect("the pipeline of a job exists");
        of.jobs.push(id);
        let user = of.user;
        let job = Job {
            id,
            pipeline,
            spec,
            status: "created".into(),
            created: at + self.shift,
            started: None,
            finished: None,
            due: None,
            retried: false,
            retryable: true,
            pair: None,
            trouble: None,
            downstream: None,
            user,
        };
        self.lab.jobs.insert(id, job);
    }

    /// Sets off the jobs whose turn it is.
    pub(crate) fn settle(&mut self, pipeline: u64, at: Millis) {
        let Some(of) = self.lab.pipelines.get(&pipeline) else { return };
        let ids: Vec<u64> = of.jobs.iter().copied().filter(|id| !self.lab.jobs[id].retried).collect();
        let mut stages: Vec<String> = Vec::new();
        for id in &of.jobs {
            let stage = &self.lab.jobs[id].spec.stage;
            if !stages.contains(stage) {
                stages.push(stage.clone());
            }
        }
        let queue = self.knobs.queue_ms;
        let mut passed = true;
        for stage in stages {
            let mut waits = false;
            for id in &ids {
                let job = self.lab.jobs.get_mut(id).expect("listed");
                if job.spec.stage != stage {
                    continue;
                }
                if job.status == "created" {
                    if !passed {
                        job.status = "skipped".into();
                    } else if job.spec.manual {
                        job.status = "manual".into();
                    } else {
                        job.status = "pending".into();
                        job.due = (!job.spec.no_runner).then_some(at + queue);
                    }
                }
                waits |= !(DONE.contains(&job.status.as_str()) || (job.status == "manual" && job.spec.allow_failure));
            }
            if waits {
                break;
            }
            passed &= ids
                .iter()
                .map(|id| &self.lab.jobs[id])
                .filter(|job| job.spec.stage == stage)
                .all(|job| job.spec.allow_failure || !["failed", "canceled", "skipped"].contains(&job.status.as_str()));
        }
        let now = at + self.shift;
        let status = self.pipeline_status(pipeline);
        let of = self.lab.pipelines.get_mut(&pipeline).expect("seen above");
        of.updated = of.updated.max(now);
        if let (Some(bridge), true) = (of.bridge, DONE.contains(&status.as_str())) {
            let waiting = self.lab.jobs.get(&bridge).is_some_and(|job| job.status == "running" && job.due.is_none());
            if waiting {
                self.finish(bridge, if status == "success" { "success" } else { "failed" }, at);
            }
        }
    }

    /// The runner takes it: now, and not before, the variables are read.
    fn pick_up(&mut self, id: u64, at: Millis) {
        let started = at + self.shift;
        let job = self.lab.jobs.get_mut(&id).expect("due, so it exists");
        job.status = "running".into();
        job.started = Some(started);
        job.due = (job.spec.outcome != JobEnd::Never).then_some(at + job.spec.ms);
        let (spec, pipeline) = (job.spec.clone(), job.pipeline);
        let project = self.lab.pipelines[&pipeline].project;
        if let Some(environment) = &spec.environment {
            let id_of = self.lab.next_id();
            let (environment, status) = (environment.clone(), "running".into());
            self.lab.deployments.push(Deployment { id: id_of, project, environment, job: id, status, created: started, updated: started });
        }
        if let Some((id_variable, secret_variable)) = &spec.reads {
            let given = self.job_variables(id);
            let find = |name: &str| given.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).filter(|value| !value.is_empty());
            let pair = match (find(id_variable), find(secret_variable)) {
                (Some(id), Some(secret)) => Some(Pair { id, secret, token: find("AWS_SESSION_TOKEN") }),
                _ => None,
            };
            let trouble = match &pair {
                Some(pair) => self.job_signs(id, pair).err(),
                None => Some(format!("{id_variable} or {secret_variable} is not there")),
            };
            let job = self.lab.jobs.get_mut(&id).expect("just seen");
            (job.pair, job.trouble) = (pair, trouble);
        }
        if let Some((project, depend)) = spec.bridge {
            let (config, branch) = self
                .lab
                .projects
                .get(&project)
                .map_or_else(|| (Vec::new(), String::new()), |project| (project.config.clone(), project.default_branch.clone()));
            let user = self.lab.pipelines[&pipeline].user;
            let downstream = self.make_pipeline(project, &branch, "pipeline", user, config);
            self.lab.pipelines.get_mut(&downstream).expect("just made").bridge = Some(id);
            let job = self.lab.jobs.get_mut(&id).expect("just seen");
            job.downstream = Some(downstream);
            job.due = (!depend).then_some(at);
        }
        if let Some(of) = self.lab.pipelines.get_mut(&pipeline) {
            of.updated = of.updated.max(started);
        }
    }

    fn end(&mut self, id: u64, at: Millis) {
        let job = &self.lab.jobs[&id];
        let failed = match job.spec.outcome {
            JobEnd::Success | JobEnd::Never => job.trouble.is_some(),
            JobEnd::Failure | JobEnd::FailsOnce => true,
        };
        self.finish(id, if failed { "failed" } else { "success" }, at);
    }

    pub(crate) fn finish(&mut self, id: u64, status: &str, at: Millis) {
        let finished = at + self.shift;
        let Some(job) = self.lab.jobs.get_mut(&id) else { return };
        job.status = status.into();
        job.finished = Some(finished);
        job.due = None;
        let (spec, pair, pipeline) = (job.spec.clone(), job.pair.clone(), job.pipeline);
        let project = self.lab.pipelines.get(&pipeline).map_or(0, |pipeline| pipeline.project);
        for deployment in self.lab.deployments.iter_mut().filter(|deployment| deployment.job == id) {
            deployment.status = status.into();
            deployment.updated = finished;
        }
        let with = pair.as_ref().map_or("nothing", |pair| pair.id.as_str()).to_owned();
        self.note(finished, &format!("job {status}"), &format!("job {id}"), &format!("{} of {project} {status} with {with}", spec.name));
        if let (true, "success", Some(pair)) = (spec.deploys, status, pair) {
            self.mutated(&Mutation::Deployed { project, environment: spec.environment.unwrap_or_default(), pair });
        }
        self.settle(pipeline, at);
    }

    pub(crate) fn retry(&mut self, id: u64, at: Millis) -> u64 {
        let job = self.lab.jobs.get_mut(&id).expect("checked by the caller");
        job.retried = true;
        let (mut spec, pipeline) = (job.spec.clone(), job.pipeline);
        spec.manual = false;
        if spec.outcome == JobEnd::FailsOnce {
            spec.outcome = JobEnd::Success;
        }
        let new = self.make_job(pipeline, spec, at);
        let of = &self.lab.pipelines[&pipeline];
        for other in of.jobs.clone() {
            let job = self.lab.jobs.get_mut(&other).expect("listed");
            if job.status == "skipped" && !job.retried {
                job.status = "created".into();
            }
        }
        self.settle(pipeline, at);
        new
    }

    pub(crate) fn pipeline_status(&self, id: u64) -> String {
        let pipeline = &self.lab.pipelines[&id];
        if let Some(forced) = &pipeline.forced {
            return forced.clone();
        }
        let jobs: Vec<&Job> = pipeline.jobs.iter().map(|id| &self.lab.jobs[id]).filter(|job| !job.retried).collect();
        let any = |status: &str| {
            jobs.iter().any(|job| job.status == status && !(job.spec.allow_failure && ["failed", "canceled", "manual"].contains(&status)))
        };
        let begun = jobs.iter().any(|job| job.started.is_some());
        if jobs.is_empty() {
            "created"
        } else if any("running") || any("canceling") || (begun && any("pending")) {
            "running"
        } else if let Some(status) = ["pending", "waiting_for_resource", "preparing", "waiting_for_callback"].into_iter().find(|status| any(status)) {
            status
        } else if any("manual") {
            "manual"
        } else if any("scheduled") {
            "scheduled"
        } else if any("created") {
            if begun { "running" } else { "created" }
        } else if any("failed") {
            "failed"
        } else if any("canceled") {
            "canceled"
        } else if jobs.iter().all(|job| job.status == "skipped") {
            "skipped"
        } else {
            "success"
        }
        .to_owned()
    }

    /// The variables that a job of this pipeline and environment gets, by GitLab's precedence.
    pub(crate) fn job_variables(&self, job: u64) -> Vec<(String, String)> {
        let job = &self.lab.jobs[&job];
        let pipeline = &self.lab.pipelines[&job.pipeline];
        let project = &self.lab.projects[&pipeline.project];
        let protected = project.refs.get(&pipeline.name).is_some_and(|found| found.protected);
        let environment = job.spec.environment.as_deref();
        let mut groups: Vec<_> = self.lab.groups.iter().filter(|(_, group)| project.path.starts_with(&format!("{}/", group.path))).collect();
        groups.sort_by_key(|(_, group)| group.path.len());
        let homes = groups.iter().map(|(id, _)| Home::Group(**id)).chain([Home::Project(pipeline.project)]);
        let mut given: Vec<(String, String, bool)> = Vec::new();
        let mut give = |key: &str, value: String, raw: bool| {
            given.retain(|(known, ..)| known != key);
            given.push((key.to_owned(), value, raw));
        };
        for home in homes {
            let mut here: Vec<_> = self.lab.variables(home).into_iter().flatten().collect();
            here.retain(|variable| (!variable.protected || protected) && covers(&variable.scope, environment));
            here.sort_by_key(|variable| (!variable.scope.contains('*'), variable.scope.len()));
            for variable in here {
                let path = format!("/builds/{}.tmp/{}", project.path, variable.key);
                give(&variable.key, if variable.file { path } else { variable.value.clone() }, variable.raw || variable.file);
            }
        }
        for (key, value) in &pipeline.variables {
            give(key, value.clone(), true);
        }
        let plain: Vec<(String, String)> = given.iter().map(|(key, value, _)| (key.clone(), value.clone())).collect();
        given.into_iter().map(|(key, value, raw)| (key, if raw { value } else { expand(&value, &plain) })).collect()
    }
}

/// Without an environment a job gets what is there for `*` only.
fn covers(scope: &str, environment: Option<&str>) -> bool {
    scope == "*" || environment.is_some_and(|environment| glob(scope, environment))
}

/// `$X` and `${X}`, once; what is not there is empty.
fn expand(value: &str, given: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        let braced = rest.starts_with('{');
        let name_from = usize::from(braced);
        let length = rest[name_from..].chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').count();
        let name = &rest[name_from..name_from + length];
        if name.is_empty() {
            out.push('$');
            continue;
        }
        out += given.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
        rest = &rest[name_from + length..];
        rest = if braced { rest.strip_prefix('}').unwrap_or(rest) } else { rest };
    }
    out + rest
}

impl State {
    /// A job's own STS call, signed as any other and checked as any other, without the way over the network.
    fn job_signs(&mut self, job: u64, pair: &Pair) -> Result<(), String> {
        let form = "Action=GetCallerIdentity&Version=2011-06-15";
        let url = "http://world";
        let mut headers = http::HeaderMap::new();
        headers.insert("host", http::HeaderValue::from_static("world"));
        for (name, value) in super::client::signed(url, "sts", pair, form, self.shift / 1000) {
            let name: http::HeaderName = name.parse().map_err(|_| "no header")?;
            headers.insert(name, value.parse().map_err(|_| "the pair does not fit into a header")?);
        }
        let call = super::serve::Call {
            method: "POST".into(),
            path: "/".into(),
            query: String::new(),
            headers,
            body: form.into(),
            form: pairs(form),
            connection: 0,
            harness: true,
        };
        let reply = self.aws(&call);
        let now = self.now();
        self.note(now, "sts:GetCallerIdentity", &format!("job {job}"), &pair.id);
        let entry = self.log.last_mut().expect("just noted");
        (entry.status, entry.effect, entry.service) = (reply.status, false, "sts".into());
        if reply.status == 200 { Ok(()) } else { Err(format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body))) }
    }
}
