//! Jobs and pipelines: as they are configured, as they run, and as tests see them.

use serde_json::Value;

use super::aws::Pair;
use super::clock::Millis;

/// A job as `.gitlab-ci.yml` would have it.
#[derive(Clone, Debug)]
pub struct JobSpec {
    pub name: String,
    pub stage: String,
    pub manual: bool,
    pub allow_failure: bool,
    pub ms: i64,
    pub outcome: JobEnd,
    /// It signs a real STS call with the pair it is given, at its start, and fails where that is
    /// refused.
    pub reads: Option<(String, String)>,
    pub environment: Option<String>,
    /// Production runs with what this job has read, once it has succeeded.
    pub deploys: bool,
    /// A trigger job: the downstream project, and whether it waits for its pipeline (`strategy:
    /// depend`).
    pub bridge: Option<(u64, bool)>,
    /// A trigger job of a child pipeline: the jobs of the child, in this very project.
    pub child: Option<Vec<Self>>,
    /// `when: on_failure`: it runs where a job of an earlier stage failed, and is skipped else.
    pub on_failure: bool,
    /// Its rules leave it out of each pipeline that is made in a deploy freeze.
    pub not_in_a_freeze: bool,
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
            child: None,
            on_failure: false,
            not_in_a_freeze: false,
            no_runner: false,
        }
    }

    /// A deploy that reads the usual pair; no environment where the name is empty.
    pub fn deploy(name: &str, environment: &str) -> Self {
        let environment = Some(environment.to_owned()).filter(|name| !name.is_empty());
        Self { environment, deploys: true, stage: "deploy".into(), ..Self::new(name) }
            .reads("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    }

    pub fn bridge(name: &str, project: u64, depend: bool) -> Self {
        Self { bridge: Some((project, depend)), stage: "deploy".into(), ..Self::new(name) }
    }

    /// A trigger job of a child pipeline with these jobs.
    pub fn child(name: &str, jobs: Vec<Self>, depend: bool) -> Self {
        Self { child: Some(jobs), ..Self::bridge(name, 0, depend) }
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

    pub fn on_failure(mut self) -> Self {
        self.on_failure = true;
        self
    }

    pub fn not_in_a_freeze(mut self) -> Self {
        self.not_in_a_freeze = true;
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
    /// Its pipeline is archived: too old to run again.
    pub(crate) archived: bool,
    pub(crate) pair: Option<Pair>,
    /// Why the pair it was given does not sign.
    pub(crate) error: Option<String>,
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
    pub error: Option<String>,
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
