//! Pipelines, which run by themselves: a job starts, reads the variables at that moment, ends, and
//! is deployed.

use serde_json::Value;

use super::aws::Pair;
use super::clock::{Millis, wall};
use super::invariants::Mutation;
use super::jobs::{Deployment, Job, JobEnd, JobSpec, Pipeline, PipelineCreation};
use super::state::State;

const DONE: [&str; 4] = ["success", "failed", "canceled", "skipped"];

impl State {
    /// Lets everything happen that is due by now, in its order.
    pub(crate) fn advance(&mut self) {
        self.advance_to(wall());
    }

    pub(crate) fn advance_to(&mut self, until: Millis) {
        loop {
            let job = self.lab.jobs.values().filter_map(|job| Some((job.due?, 1, job.id))).min();
            let planned = self
                .lab
                .pipelines
                .iter()
                .filter_map(|(id, pipeline)| Some((pipeline.planned.as_ref()?.1, 0, *id)))
                .min();
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
        let pipelines =
            self.lab.pipelines.values().filter_map(|pipeline| Some(pipeline.planned.as_ref()?.1));
        jobs.chain(pipelines).filter(|due| *due < Millis::MAX).min()
    }

    pub(crate) fn make_pipeline(
        &mut self,
        project: u64,
        name: &str,
        source: &str,
        user: u64,
        mut jobs: Vec<JobSpec>,
    ) -> u64 {
        let at = wall();
        let frozen = self.lab.projects[&project].frozen;
        jobs.retain(|job| !(frozen && job.not_in_a_freeze));
        let fill_at = match self.knobs.pipeline_creation {
            _ if source != "api" => at,
            PipelineCreation::AtOnce => at,
            PipelineCreation::Slow { ms } => at + ms,
            PipelineCreation::Stuck { .. } => Millis::MAX,
        };
        let id = self.lab.next_id();
        let iid = self.lab.pipelines.values().filter(|pipeline| pipeline.project == project).count()
            as u64
            + 1;
        let sha = self.lab.projects[&project]
            .refs
            .get(name)
            .map_or_else(|| "0".repeat(40), |found| found.sha.clone());
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
        let Some((specs, _)) =
            self.lab.pipelines.get_mut(&pipeline).and_then(|pipeline| pipeline.planned.take())
        else {
            return;
        };
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
            archived: false,
            pair: None,
            error: None,
            downstream: None,
            user,
        };
        self.lab.jobs.insert(id, job);
    }

    /// Sets off the jobs whose turn it is.
    pub(crate) fn settle(&mut self, pipeline: u64, at: Millis) {
        let Some(of) = self.lab.pipelines.get(&pipeline) else { return };
        let ids: Vec<u64> =
            of.jobs.iter().copied().filter(|id| !self.lab.jobs[id].retried).collect();
        let mut stages: Vec<String> = Vec::new();
        for id in &of.jobs {
            let stage = &self.lab.jobs[id].spec.stage;
            if !stages.contains(stage) {
                stages.push(stage.clone());
            }
        }
        let queue = self.knobs.queue_ms;
        let mut playable: Vec<u64> = Vec::new();
        let mut passed = true;
        for stage in stages {
            let mut waits = false;
            for id in &ids {
                let job = self.lab.jobs.get_mut(id).expect("listed");
                if job.spec.stage != stage {
                    continue;
                }
                if job.status == "created" {
                    playable.push(*id);
                    if passed == job.spec.on_failure {
                        job.status = "skipped".into();
                    } else if job.spec.manual {
                        job.status = "manual".into();
                    } else {
                        job.status = "pending".into();
                        job.due = (!job.spec.no_runner).then_some(at + queue);
                    }
                }
                waits |= !(DONE.contains(&job.status.as_str())
                    || (job.status == "manual" && job.spec.allow_failure));
            }
            if waits {
                break;
            }
            passed &= ids
                .iter()
                .map(|id| &self.lab.jobs[id])
                .filter(|job| job.spec.stage == stage)
                .all(|job| {
                    job.spec.allow_failure || !["failed", "canceled"].contains(&job.status.as_str())
                });
        }
        let now = at + self.shift;
        playable.retain(|job| self.lab.jobs[job].status != "skipped");
        playable.into_iter().for_each(|job| self.make_deployment(job, now));
        let status = self.pipeline_status(pipeline);
        let of = self.lab.pipelines.get_mut(&pipeline).expect("seen above");
        of.updated = of.updated.max(now);
        if let (Some(bridge), true) = (of.bridge, DONE.contains(&status.as_str())) {
            let waiting = self
                .lab
                .jobs
                .get(&bridge)
                .is_some_and(|job| job.status == "running" && job.due.is_none());
            if waiting {
                self.finish(bridge, if status == "success" { "success" } else { "failed" }, at);
            }
        }
    }

    /// GitLab makes the deployment of a job when the job can be played, long before it runs, if it
    /// ever does.
    fn make_deployment(&mut self, job: u64, now: Millis) {
        let Job { spec, pipeline, status, .. } = &self.lab.jobs[&job];
        let Some(environment) = spec.environment.clone() else { return };
        let project = self.lab.pipelines[pipeline].project;
        let status = if status == "manual" { "blocked" } else { "created" }.into();
        let id = self.lab.next_id();
        let (created, updated) = (now, now);
        self.lab.deployments.push(Deployment {
            id,
            project,
            environment,
            job,
            status,
            created,
            updated,
        });
    }

    /// The runner takes it: now, and not before, the variables are read.
    fn pick_up(&mut self, id: u64, at: Millis) {
        let started = at + self.shift;
        let job = self.lab.jobs.get_mut(&id).expect("due, so it exists");
        job.status = "running".into();
        job.started = Some(started);
        job.due = (job.spec.outcome != JobEnd::Never).then_some(at + job.spec.ms);
        let (spec, pipeline) = (job.spec.clone(), job.pipeline);
        for deployment in self.lab.deployments.iter_mut().filter(|deployment| deployment.job == id)
        {
            (deployment.status, deployment.updated) = ("running".into(), started);
        }
        if let Some((id_variable, secret_variable)) = &spec.reads {
            let given = self.job_variables(id);
            let find = |name: &str| {
                given
                    .iter()
                    .find(|(key, _)| key == name)
                    .map(|(_, value)| value.clone())
                    .filter(|value| !value.is_empty())
            };
            let pair = match (find(id_variable), find(secret_variable)) {
                (Some(id), Some(secret)) => {
                    Some(Pair { id, secret, token: find("AWS_SESSION_TOKEN") })
                }
                _ => None,
            };
            let error = match &pair {
                Some(pair) => self.job_signs(id, pair).err(),
                None => Some(format!("{id_variable} or {secret_variable} is not there")),
            };
            let job = self.lab.jobs.get_mut(&id).expect("just seen");
            (job.pair, job.error) = (pair, error);
        }
        if let Some((project, depend)) = spec.bridge {
            let above = &self.lab.pipelines[&pipeline];
            let user = above.user;
            let downstream = if let Some(jobs) = spec.child {
                let (project, name) = (above.project, above.name.clone());
                self.make_pipeline(project, &name, "parent_pipeline", user, jobs)
            } else {
                let (config, branch) = self.lab.projects.get(&project).map_or_else(
                    || (Vec::new(), String::new()),
                    |project| (project.config.clone(), project.default_branch.clone()),
                );
                self.make_pipeline(project, &branch, "pipeline", user, config)
            };
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
            JobEnd::Success | JobEnd::Never => job.error.is_some(),
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
        for deployment in self.lab.deployments.iter_mut().filter(|deployment| deployment.job == id)
        {
            deployment.status = status.into();
            deployment.updated = finished;
        }
        let with = pair.as_ref().map_or("nothing", |pair| pair.id.as_str()).to_owned();
        self.note(
            finished,
            &format!("job {status}"),
            &format!("job {id}"),
            &format!("{} of {project} {status} with {with}", spec.name),
        );
        if let (true, "success", Some(pair)) = (spec.deploys, status, pair) {
            self.mutated(&Mutation::Deployed {
                project,
                environment: spec.environment.unwrap_or_default(),
                pair,
            });
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
        self.unskip(pipeline);
        // The trigger job that waits for this pipeline waits again.
        let waits = |job: &Job| job.spec.bridge.is_some_and(|(_, depend)| depend);
        let above = self.lab.pipelines[&pipeline].bridge;
        if let Some(bridge) =
            above.and_then(|id| self.lab.jobs.get_mut(&id)).filter(|job| waits(job))
        {
            (bridge.status, bridge.finished, bridge.due) = ("running".into(), None, None);
            let above = bridge.pipeline;
            self.unskip(above);
        }
        self.settle(pipeline, at);
        new
    }

    /// What was skipped because a job failed may have its turn after all.
    fn unskip(&mut self, pipeline: u64) {
        for id in self.lab.pipelines[&pipeline].jobs.clone() {
            let job = self.lab.jobs.get_mut(&id).expect("listed");
            if job.status == "skipped" && !job.retried {
                job.status = "created".into();
            }
        }
    }

    pub(crate) fn pipeline_status(&self, id: u64) -> String {
        let pipeline = &self.lab.pipelines[&id];
        if let Some(forced) = &pipeline.forced {
            return forced.clone();
        }
        let jobs: Vec<&Job> =
            pipeline.jobs.iter().map(|id| &self.lab.jobs[id]).filter(|job| !job.retried).collect();
        let any = |status: &str| {
            jobs.iter().any(|job| {
                job.status == status
                    && !(job.spec.allow_failure
                        && ["failed", "canceled", "manual"].contains(&status))
            })
        };
        let begun = jobs.iter().any(|job| job.started.is_some());
        if jobs.is_empty() {
            "created"
        } else if any("running") || any("canceling") || (begun && any("pending")) {
            "running"
        } else if let Some(status) =
            ["pending", "waiting_for_resource", "preparing", "waiting_for_callback"]
                .into_iter()
                .find(|status| any(status))
        {
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
}
