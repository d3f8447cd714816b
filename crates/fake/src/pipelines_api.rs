//! GitLab's API for pipelines, jobs, environments and deployments.

use serde_json::{Value, json};

use super::clock::{Millis, iso, parse, wall};
use super::front::{Input, forbidden, message, not_found, page, username};
use super::gitlab::{Home, TokenSpec};
use super::jobs::{Deployment, Job, PipelineCreation, Refusal};
use super::serve::{Call, Reply};
use super::state::State;

impl State {
    pub(crate) fn pipelines_api(
        &mut self,
        call: &Call,
        token: &TokenSpec,
        project: u64,
        rest: &[&str],
        input: &Input,
    ) -> Reply {
        let no_route = || Reply::json(404, &json!({ "error": "404 Not Found" }));
        let hidden = self.lab.projects[&project].jobs_hidden;
        match (call.method.as_str(), rest) {
            ("POST", ["pipeline"]) => self.post_pipeline(token, project, input),
            ("GET", ["pipelines"]) => page(input, self.pipeline_list(project, input)),
            (method, ["pipelines", id, rest @ ..]) => {
                match id.parse().ok().filter(|id| self.pipeline_of(project, *id)) {
                    None => not_found("Pipeline"),
                    Some(id) => self.pipeline_api(method, token, project, id, rest, input),
                }
            }
            ("GET", ["jobs"])
                if !input.list("scope").iter().all(|scope| self.knows_scope(scope)) =>
            {
                Reply::json(400, &json!({ "error": "scope does not have a valid value" }))
            }
            ("GET", ["jobs"]) => page(input, self.job_list(project, input)),
            (method, ["jobs", id, rest @ ..]) => {
                match id.parse().ok().filter(|id| !hidden && self.job_of(project, *id)) {
                    None => message(404, "404 Not Found"),
                    Some(id) => self.job_api(method, id, rest),
                }
            }
            ("GET", ["environments"]) => page(input, self.environments(project, input)),
            ("GET", ["deployments"])
                if input.text("order_by").as_deref() == Some("updated_at")
                    && input.text("updated_after").is_none() =>
            {
                message(
                    400,
                    "400 Bad request - `updated_at` filter and `updated_at` sorting must be paired",
                )
            }
            ("GET", ["deployments"]) => match self.refused_deployments(input) {
                Some(text) => message(400, &format!("400 Bad request - {text}")),
                None => page(input, self.deployments(project, input)),
            },
            _ => no_route(),
        }
    }

    /// `waiting_for_callback` came with 16.11, `canceling` with 17.0.
    fn knows_scope(&self, scope: &str) -> bool {
        let old = [
            "created",
            "pending",
            "running",
            "failed",
            "success",
            "canceled",
            "skipped",
            "waiting_for_resource",
            "manual",
            "preparing",
            "scheduled",
        ];
        old.contains(&scope)
            || (self.knobs.new_job_scopes && ["canceling", "waiting_for_callback"].contains(&scope))
    }

    fn pipeline_of(&self, project: u64, id: u64) -> bool {
        self.lab.pipelines.get(&id).is_some_and(|pipeline| pipeline.project == project)
    }

    fn job_of(&self, project: u64, id: u64) -> bool {
        self.lab.jobs.get(&id).is_some_and(|job| self.pipeline_of(project, job.pipeline))
    }

    fn post_pipeline(&mut self, token: &TokenSpec, project: u64, input: &Input) -> Reply {
        let Some(name) = input.text("ref") else {
            return Reply::json(400, &json!({ "error": "ref is missing" }));
        };
        let base = |text: &str| Reply::json(400, &json!({ "message": { "base": [text] } }));
        let Some(found) = self.lab.projects[&project].refs.get(&name) else {
            return base("Reference not found");
        };
        let sha = found.sha.clone();
        let may_not = format!(
            "You do not have sufficient permission to run a pipeline on '{name}'. Please select a \
             different branch or contact your administrator for assistance."
        );
        if found.protected && self.level(token, Home::Project(project)) < 40 {
            return base(&may_not);
        }
        let variables = variables_of(input.raw("variables"));
        let needed = self.lab.projects[&project].settings.level_for_variables();
        let level = self.level(token, Home::Project(project));
        if !variables.is_empty() && needed.is_none_or(|needed| level < needed) {
            return base("Insufficient permissions to set pipeline variables");
        }
        match self.lab.projects[&project].refusal.clone() {
            None => {}
            Some(Refusal::Empty) => {
                return base(
                    "The resulting pipeline would have been empty. Review the \
                     [rules](https://docs.gitlab.com/ci/yaml/#rules) configuration for the \
                     relevant jobs.",
                );
            }
            Some(Refusal::EmptyOld) => {
                return base(
                    "Pipeline will not run for the selected trigger. The rules configuration \
                     prevented any jobs from being added to the pipeline.",
                );
            }
            Some(Refusal::Workflow) => {
                return base(
                    "The pipeline did not run. Review the \
                     [workflow:rules](https://docs.gitlab.com/ci/yaml/workflow/) configuration for \
                     the pipeline.",
                );
            }
            Some(Refusal::WorkflowOld) => return base("Pipeline filtered out by workflow rules."),
            Some(Refusal::Permission) => return base(&may_not),
            Some(Refusal::VariablesForbidden) if variables.is_empty() => {}
            Some(Refusal::VariablesForbidden) => {
                return base("Insufficient permissions to set pipeline variables");
            }
            Some(Refusal::Other(text)) => return base(&text),
        }
        if self.asks_too_often(project, token.user, &sha) {
            return base("Too many pipelines created in the last minute. Try again later.");
        }
        let inputs = input.raw("inputs").cloned().unwrap_or(Value::Null);
        let unknown = inputs
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .find(|name| !self.lab.projects[&project].inputs.contains(name));
        if let Some(unknown) = unknown {
            return base(&format!(
                "Given inputs not defined in the `spec` section of the included configuration \
                 file: {unknown}"
            ));
        }
        let of = &self.lab.projects[&project];
        let specs = of.config.clone();
        if specs.iter().all(|job| of.frozen && job.not_in_a_freeze) {
            return base(
                "The resulting pipeline would have been empty. Review the \
                 [rules](https://docs.gitlab.com/ci/yaml/#rules) configuration for the relevant \
                 jobs.",
            );
        }
        let id = self.make_pipeline(project, &name, "api", token.user, specs);
        let pipeline = self.lab.pipelines.get_mut(&id).expect("just made");
        (pipeline.variables, pipeline.inputs, pipeline.started_by_program) =
            (variables, inputs, true);
        let mut reply = Reply::json(201, &self.pipeline_json(id, true)).with_effect();
        if matches!(
            self.knobs.pipeline_creation,
            PipelineCreation::Slow { .. } | PipelineCreation::Stuck { lose_reply: true }
        ) {
            reply.status = 0;
        }
        reply
    }

    /// `Gitlab::Ci::Pipeline::Chain::Limit::RateLimit`: what is refused counts too.
    fn asks_too_often(&mut self, project: u64, user: u64, sha: &str) -> bool {
        let now = self.now();
        let asked = &mut self.lab.asked_for_pipelines;
        asked.retain(|(at, ..)| at / 60_000 == now / 60_000);
        asked.push((now, project, user, sha.to_owned()));
        let same = asked
            .iter()
            .filter(|(_, of, by, commit)| (*of, *by, commit.as_str()) == (project, user, sha));
        same.count() > self.knobs.pipelines_a_minute
    }

    fn pipeline_api(
        &mut self,
        method: &str,
        token: &TokenSpec,
        project: u64,
        id: u64,
        rest: &[&str],
        input: &Input,
    ) -> Reply {
        match (method, rest) {
            ("GET", []) => Reply::json(200, &self.pipeline_json(id, true)),
            ("DELETE", []) if self.level(token, Home::Project(project)) < 50 => forbidden(),
            ("DELETE", []) => {
                self.remove_pipeline(id);
                Reply::json(204, &Value::Null).with_effect()
            }
            ("GET", ["jobs"]) => page(input, self.jobs_of(id, input, false)),
            ("GET", ["bridges"]) => page(input, self.jobs_of(id, input, true)),
            ("GET", ["trigger_jobs"]) if self.knobs.trigger_jobs => {
                page(input, self.jobs_of(id, input, true))
            }
            ("POST", ["cancel"]) => {
                self.cancel(id);
                Reply::json(200, &self.pipeline_json(id, true)).with_effect()
            }
            _ => Reply::json(404, &json!({ "error": "404 Not Found" })),
        }
    }

    fn job_api(&mut self, method: &str, id: u64, rest: &[&str]) -> Reply {
        match (method, rest) {
            // A trigger job can be retried and played, not looked at.
            ("GET", []) if self.lab.jobs[&id].spec.bridge.is_some() => {
                message(404, "404 Not Found")
            }
            ("GET", []) => Reply::json(200, &self.job_json(id)),
            ("POST", ["retry"]) => {
                let job = &self.lab.jobs[&id];
                let ended = ["success", "failed", "canceled"].contains(&job.status.as_str());
                if !ended || job.retried || !job.retryable || job.archived {
                    return message(403, "403 Forbidden - Job is not retryable");
                }
                let new = self.retry(id, wall());
                Reply::json(201, &self.job_json(new)).with_effect()
            }
            ("POST", ["play"]) => {
                if self.lab.jobs[&id].status != "manual" {
                    return message(400, "400 Bad request - Unplayable Job");
                }
                self.play(id);
                Reply::json(200, &self.job_json(id)).with_effect()
            }
            _ => Reply::json(404, &json!({ "error": "404 Not Found" })),
        }
    }

    pub(crate) fn play(&mut self, id: u64) {
        let due = wall() + self.knobs.queue_ms;
        let job = self.lab.jobs.get_mut(&id).expect("a job that exists");
        job.status = "pending".into();
        job.due = (!job.spec.no_runner).then_some(due);
    }

    pub(crate) fn remove_pipeline(&mut self, id: u64) {
        self.lab.pipelines.remove(&id);
        self.lab.jobs.retain(|_, job| job.pipeline != id);
    }

    pub(crate) fn cancel(&mut self, pipeline: u64) {
        let jobs = self.lab.pipelines[&pipeline].jobs.clone();
        for id in jobs {
            let status = self.lab.jobs[&id].status.clone();
            if !["success", "failed", "canceled", "skipped"].contains(&status.as_str()) {
                self.finish(id, "canceled", wall());
            }
        }
    }

    fn pipeline_list(&self, project: u64, input: &Input) -> Vec<Value> {
        let moment = |name: &str| input.text(name).and_then(|text| parse(&text));
        let is = |name: &str, actual: &str| input.text(name).is_none_or(|wanted| wanted == actual);
        let mut ids: Vec<u64> = self
            .lab
            .pipelines
            .iter()
            .filter(|(_, pipeline)| pipeline.project == project)
            .map(|(id, _)| *id)
            .collect();
        ids.retain(|id| {
            let pipeline = &self.lab.pipelines[id];
            is("ref", &pipeline.name)
                && is("sha", &pipeline.sha)
                && is("source", &pipeline.source)
                && is("username", &username(pipeline.user))
                && is("status", &self.pipeline_status(*id))
                && moment("updated_after").is_none_or(|after| pipeline.updated > after)
                && moment("updated_before").is_none_or(|before| pipeline.updated < before)
                && moment("created_after").is_none_or(|after| pipeline.created > after)
                && moment("created_before").is_none_or(|before| pipeline.created < before)
        });
        match input.text("order_by").as_deref() {
            Some("updated_at") => ids.sort_by_key(|id| (self.lab.pipelines[id].updated, *id)),
            _ => ids.sort_unstable(),
        }
        if input.text("sort").as_deref() != Some("asc") {
            ids.reverse();
        }
        ids.into_iter().map(|id| self.pipeline_json(id, false)).collect()
    }

    /// The jobs or the trigger jobs of a pipeline, the newest try of each unless all are asked for.
    fn jobs_of(&self, pipeline: u64, input: &Input, bridges: bool) -> Vec<Value> {
        let scopes = input.list("scope");
        let retried = input.flag("include_retried").unwrap_or(false);
        let mut ids: Vec<u64> = self.lab.pipelines[&pipeline].jobs.clone();
        ids.retain(|id| {
            let job = &self.lab.jobs[id];
            job.spec.bridge.is_some() == bridges
                && (retried || !job.retried)
                && (scopes.is_empty() || scopes.contains(&job.status))
        });
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.into_iter().map(|id| self.job_json(id)).collect()
    }

    fn job_list(&self, project: u64, input: &Input) -> Vec<Value> {
        let scopes = input.list("scope");
        let jobs = self.lab.jobs.values().rev().filter(|job| {
            self.pipeline_of(project, job.pipeline)
                && job.spec.bridge.is_none()
                && (scopes.is_empty() || scopes.contains(&job.status))
        });
        if self.lab.projects[&project].jobs_hidden {
            Vec::new()
        } else {
            jobs.map(|job| self.job_json(job.id)).collect()
        }
    }

    fn environments(&self, project: u64, input: &Input) -> Vec<Value> {
        let mut names: Vec<&str> = Vec::new();
        // An environment comes into being with the pipeline that has a job for it.
        let of = self.lab.jobs.values().filter(|job| self.pipeline_of(project, job.pipeline));
        let configured = of.filter_map(|job| job.spec.environment.as_deref());
        let deployed = self
            .lab
            .deployments
            .iter()
            .filter(|deployment| deployment.project == project)
            .map(|deployment| deployment.environment.as_str());
        for name in configured.chain(deployed) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let wanted = input.text("name");
        names.retain(|name| wanted.as_deref().is_none_or(|wanted| wanted == *name));
        names.into_iter().map(environment_json).collect()
    }

    /// The filter by a date and the order by it go together, and those by the end with `success`.
    fn refused_deployments(&self, input: &Input) -> Option<&'static str> {
        let by_end = input.text("order_by").as_deref() == Some("finished_at");
        let after = input.text("finished_after").is_some();
        if by_end && !self.knobs.deployments_by_end {
            Some("order_by does not have a valid value")
        } else if by_end != after {
            Some("`finished_at` filter and `finished_at` sorting must be paired")
        } else if after && input.text("status").as_deref() != Some("success") {
            Some("`finished_at` filter must be combined with `success` status filter.")
        } else {
            None
        }
    }

    fn deployments(&self, project: u64, input: &Input) -> Vec<Value> {
        let updated_after = input.text("updated_after").and_then(|text| parse(&text));
        let is = |name: &str, actual: &str| input.text(name).is_none_or(|wanted| wanted == actual);
        let mut found: Vec<_> = self
            .lab
            .deployments
            .iter()
            .filter(|deployment| {
                deployment.project == project
                    && self
                        .lab
                        .jobs
                        .get(&deployment.job)
                        .is_some_and(|job| self.lab.pipelines.contains_key(&job.pipeline))
                    && is("environment", &deployment.environment)
                    && is("status", &deployment.status)
                    && updated_after.is_none_or(|after| deployment.updated > after)
            })
            .collect();
        match input.text("order_by").as_deref() {
            Some("finished_at") => {
                let ended = |deployment: &Deployment| self.lab.jobs[&deployment.job].finished;
                found.retain(|deployment| ended(deployment).is_some());
                found.sort_by_key(|deployment| (ended(deployment), deployment.id));
            }
            Some("updated_at") => {
                found.sort_by_key(|deployment| (deployment.updated, deployment.id));
            }
            _ => found.sort_by_key(|deployment| deployment.id),
        }
        if input.text("sort").as_deref() == Some("desc") {
            found.reverse();
        }
        let json = |deployment: &Deployment| {
            let pipeline = &self.lab.pipelines[&self.lab.jobs[&deployment.job].pipeline];
            json!({
                "id": deployment.id, "iid": deployment.id, "ref": pipeline.name, "sha": pipeline.sha, "status": deployment.status,
                "created_at": iso(deployment.created), "updated_at": iso(deployment.updated), "user": self.user_json(pipeline.user),
                "environment": environment_json(&deployment.environment), "deployable": self.job_json(deployment.job),
            })
        };
        found.into_iter().map(json).collect()
    }

    pub(crate) fn pipeline_json(&self, id: u64, whole: bool) -> Value {
        let pipeline = &self.lab.pipelines[&id];
        let mut json = json!({
            "id": id, "iid": pipeline.iid, "project_id": pipeline.project, "sha": pipeline.sha, "ref": pipeline.name,
            "status": self.pipeline_status(id), "source": pipeline.source, "created_at": iso(pipeline.created), "updated_at": iso(pipeline.updated),
            "web_url": format!("{}/-/pipelines/{id}", self.web(pipeline.project)), "name": null,
        });
        if whole {
            let started = pipeline.jobs.iter().filter_map(|job| self.lab.jobs[job].started).min();
            json["user"] = self.user_json(pipeline.user);
            json["started_at"] = started.map(iso).into();
            json["finished_at"] = self.finished_at(id).map(iso).into();
            for name in ["yaml_errors", "committed_at", "duration", "queued_duration", "coverage"] {
                json[name] = Value::Null;
            }
            json["tag"] = false.into();
            json["before_sha"] = "0".repeat(40).into();
        }
        json
    }

    fn finished_at(&self, id: u64) -> Option<Millis> {
        let ended = ["success", "failed", "canceled", "skipped"]
            .contains(&self.pipeline_status(id).as_str());
        self.lab.pipelines[&id]
            .jobs
            .iter()
            .filter_map(|job| self.lab.jobs[job].finished)
            .max()
            .filter(|_| ended)
    }

    pub(crate) fn job_json(&self, id: u64) -> Value {
        let job: &Job = &self.lab.jobs[&id];
        let pipeline = &self.lab.pipelines[&job.pipeline];
        let duration = job
            .started
            .zip(job.finished.or_else(|| Some(self.now())))
            .map(|(from, to)| to.saturating_sub(from) as f64 / 1000.0);
        let mut json = json!({
            "id": id, "status": job.status, "stage": job.spec.stage, "name": job.spec.name, "ref": pipeline.name, "tag": false, "coverage": null,
            "allow_failure": job.spec.allow_failure, "created_at": iso(job.created), "started_at": job.started.map(iso), "finished_at": job.finished.map(iso),
            "erased_at": null, "duration": duration, "queued_duration": null, "user": self.user_json(job.user),
            "commit": self.commit_json(pipeline.project, &pipeline.sha), "pipeline": self.pipeline_json(job.pipeline, false),
            "web_url": format!("{}/-/jobs/{id}", self.web(pipeline.project)), "archived": job.archived, "artifacts": [], "tag_list": [], "runner": null,
        });
        if job.status == "failed" {
            json["failure_reason"] = "script_failure".into();
        }
        if job.spec.bridge.is_some() {
            let downstream = job.downstream.filter(|id| self.lab.pipelines.contains_key(id));
            json["downstream_pipeline"] =
                downstream.map_or(Value::Null, |id| self.pipeline_json(id, false));
        }
        json
    }
}

fn environment_json(name: &str) -> Value {
    let id = name.bytes().fold(1u64, |sum, byte| (sum * 31 + u64::from(byte)) % 100_000);
    json!({ "id": id, "name": name, "slug": name.replace('/', "-"), "external_url": null, "state": "available", "tier": "other" })
}

/// JSON: a list of objects; in a form GitLab takes `variables[][key]=…&variables[][value]=…`.
fn variables_of(value: Option<&Value>) -> Vec<(String, String)> {
    let text = |item: &Value, name: &str| item[name].as_str().unwrap_or_default().to_owned();
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|item| (text(item, "key"), text(item, "value")))
        .collect()
}
