//! Deploys that do not start, do not end or prove nothing: both keys stay active, and the log says
//! which job to look at.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // The pipeline is refused.
        a_pipeline_without_a_job,
        a_pipeline_that_the_workflow_filters,
        a_pipeline_on_a_protected_ref,
        pipeline_variables_are_forbidden,
        an_input_that_nobody_declared,
        a_pipeline_refused_for_another_reason,
        a_ref_that_vanishes_meanwhile,
        a_job_that_cannot_be_retried,
        // The deploy proves nothing.
        a_deploy_that_fails,
        a_deploy_that_does_nothing,
        a_listed_job_that_does_not_exist,
        a_listed_job_that_does_not_exist_again,
        a_pipeline_that_looks_like_no_deploy,
        a_job_that_waits_for_a_person,
        a_job_that_no_runner_takes,
        a_deploy_that_never_ends,
        a_pipeline_that_is_canceled,
        a_pipeline_that_is_deleted,
        a_redeployed_job_that_fails,
        a_downstream_deploy_that_fails,
        of_two_projects_one_fails,
    ]
}

/// A deploy that ended with 4: both keys work, the new pair is published.
#[track_caller]
fn keeps_both(fixture: &Fixture) {
    assert_eq!((fixture.old_is_active(), fixture.stored().0), (Some(true), fixture.new_key().id));
}

fn refused(refusal: Refusal) -> (Fixture, Ended) {
    let fixture = Fixture::of_days(75);
    fixture.fake.refuse_pipelines(PROJECT, Some(refusal));
    let ended = fixture.run().go();
    keeps_both(&fixture);
    (fixture, ended)
}

fn a_pipeline_without_a_job() {
    let (fixture, ended) = refused(Refusal::Empty);
    ended.says(
        4,
        str![[r#"
error: starting the deploy pipeline of project 42: the pipeline would have no job (400)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: a pipeline started by the API has the source `api`: let the deploy job's `rules:` allow it

"#]],
    );
    // The next run takes it up once the cause is fixed.
    fixture.fake.refuse_pipelines(PROJECT, None);
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_pipeline_that_the_workflow_filters() {
    refused(Refusal::Workflow).1.says(
        4,
        str![[r#"
error: starting the deploy pipeline of project 42: `workflow:rules` keep the pipeline from running (400)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: let them allow $CI_PIPELINE_SOURCE == "api"

"#]],
    );
}

fn a_pipeline_on_a_protected_ref() {
    refused(Refusal::Permission).1.says(
        4,
        str![[r#"
error: starting the deploy pipeline of project 42: the token's user may not run a pipeline on this ref (400)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: let it push or merge to the protected branch, or deploy from another ref

"#]],
    );
}

fn pipeline_variables_are_forbidden() {
    let fixture = Fixture::of_days(75);
    fixture.fake.refuse_pipelines(PROJECT, Some(Refusal::VariablesForbidden));
    fixture.run().set("ROTATOR_DEPLOY_VARIABLES", r#"{"REASON": "rotation"}"#).go().says(
        4,
        str![[r#"
error: starting the deploy pipeline of project 42: the project does not allow pipeline variables (400)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: use ROTATOR_DEPLOY_INPUTS instead, or allow the token's role to set pipeline variables in the project's CI/CD settings

"#]],
    );
    keeps_both(&fixture);
}

fn an_input_that_nobody_declared() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_DEPLOY_INPUTS", r#"{"tier": "blue"}"#).go().says(
        4,
        str![[r#"
error: starting the deploy pipeline of project 42: the pipeline does not take these inputs (400)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: compare ROTATOR_DEPLOY_INPUTS with `spec: inputs` of the project

"#]],
    );
    keeps_both(&fixture);
}

fn a_pipeline_refused_for_another_reason() {
    refused(Refusal::Other("Too many pipelines".into())).1.says(
        4,
        str![[r#"
error: starting the deploy pipeline of project 42: GitLab does not make the pipeline (400)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: run a pipeline on that ref by hand (Build, Pipelines, New pipeline): GitLab shows its reason there, such as a mistake in .gitlab-ci.yml

"#]],
    );
}

fn a_ref_that_vanishes_meanwhile() {
    let fixture = Fixture::of_days(75);
    let body = r#"{"message":{"base":["Reference not found"]}}"#.to_owned();
    fixture.fake.fault_from(
        "POST /projects/:id/pipeline",
        1,
        Fault::Refuse { status: 400, body, headers: Vec::new() },
    );
    fixture.run().go().says(
        4,
        str![[r#"
error: starting the deploy pipeline of project 42: there is no such ref, or it has no pipeline configuration (400)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: check the ref in ROTATOR_DEPLOY=pipeline@REF

"#]],
    );
    keeps_both(&fixture);
}

fn a_job_that_cannot_be_retried() {
    let fixture = Fixture::of_days(75);
    let live = fixture
        .fake
        .jobs(PROJECT)
        .into_iter()
        .find(|job| job.name == "deploy")
        .expect("the live deploy");
    fixture.fake.job_not_retryable(live.id);
    fixture.run().set("ROTATOR_DEPLOY", "environment/production").go().says(
        4,
        str![[r#"
error: redeploying production of project 42: the deployment's job cannot be retried (403)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: deploy once by hand, or use ROTATOR_DEPLOY=pipeline: an archived or already retried job cannot run again

"#]],
    );
    keeps_both(&fixture);
}

fn deployed_by(jobs: Vec<JobSpec>) -> Fixture {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_pipeline_config(PROJECT, jobs);
    fixture
}

fn a_deploy_that_fails() {
    let fixture =
        deployed_by(vec![JobSpec::new("build"), JobSpec::deploy("deploy", "production").fails()]);
    fixture.run().go().says(4, str![[r#"
error: the deploy failed: pipeline failed (http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]): deploy (http://127.0.0.1:[PORT]/acme/shop/-/jobs/[JOB])
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: fix the deploy and retry it; the next run proves it, or starts another

"#]]);
    keeps_both(&fixture);
}

fn a_deploy_that_does_nothing() {
    let fixture = deployed_by(vec![
        JobSpec::new("build"),
        JobSpec::deploy("deploy", "production").manual().allow_failure(),
    ]);
    fixture.run().go().says(4, str![[r#"
error: nothing proves that the deploy ran: http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]: job deploy is manual (http://127.0.0.1:[PORT]/acme/shop/-/jobs/[JOB])
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: run the job that did not run, or let ROTATOR_DEPLOY_JOBS name the jobs that deploy, so that only those must have run; then run this again

"#]]);
    keeps_both(&fixture);
}

fn a_listed_job_that_does_not_exist() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy-prod").go().says(
        4,
        str![[r#"
error: nothing proves that the deploy ran: http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]: there is no job deploy-prod
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: run the job that did not run, or let ROTATOR_DEPLOY_JOBS name the jobs that deploy, so that only those must have run; then run this again

"#]],
    );
    keeps_both(&fixture);
}

fn a_listed_job_that_does_not_exist_again() {
    let fixture = Fixture::of_days(75);
    for _ in 0..2 {
        fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy-prod").go().ends(4, "deploy_failed");
    }
    fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy-prod").go().says(4, str![[r#"
error: nothing proves that the deploy ran: http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]: there is no job deploy-prod; the pipeline before it ended the same way, so none is started until the ref has another commit or a setting changes
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: run the job that did not run, or let ROTATOR_DEPLOY_JOBS name the jobs that deploy, so that only those must have run; then run this again

"#]]);
    keeps_both(&fixture);
}

fn a_pipeline_that_looks_like_no_deploy() {
    let fixture = deployed_by(vec![JobSpec::new("build"), JobSpec::new("check")]);
    let ended = fixture.run().set("ROTATOR_OVERLAP", "12h").go();
    ended.ends(6, "rotated").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was older than 60 days
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run after [TIME] disables old key …[OLD], and a run 0 min later deletes it

warning: http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE] counts as the deploy, but nothing in it looks like one
hint: name the jobs that deploy in ROTATOR_DEPLOY_JOBS; if this pipeline leaves them out, let their rules allow the source `api`

"#]]);
    keeps_both(&fixture);
}

fn a_job_that_waits_for_a_person() {
    let fixture =
        deployed_by(vec![JobSpec::new("build"), JobSpec::deploy("deploy", "production").manual()]);
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "3s").go().says(4, str![[r#"
error: the deploy has not ended in time: pipeline http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE] is blocked: it waits for a person to start a manual job
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: if it waits for a runner or a person, give it one; the next run goes on; ROTATOR_DEPLOY_TIMEOUT sets how long a run waits

"#]]);
    keeps_both(&fixture);
    // Somebody starts it; the next run proves it.
    let job = fixture
        .fake
        .jobs(PROJECT)
        .into_iter()
        .find(|job| job.status == "manual")
        .expect("it waits");
    fixture.fake.operator_plays_job(job.id);
    fixture.fake.finish_pipelines();
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_job_that_no_runner_takes() {
    let fixture = deployed_by(vec![JobSpec::deploy("deploy", "production").no_runner()]);
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "3s").go().says(
        4,
        str![[r#"
error: the deploy has not ended in time: pipeline http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE] is pending: no runner has taken it yet
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: if it waits for a runner or a person, give it one; the next run goes on; ROTATOR_DEPLOY_TIMEOUT sets how long a run waits

"#]],
    );
    keeps_both(&fixture);
}

fn a_deploy_that_never_ends() {
    let fixture = deployed_by(vec![JobSpec::deploy("deploy", "production").never_ends()]);
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "3s").go().says(
        4,
        str![[r#"
error: the deploy has not ended in time: pipeline http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE] is running
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: if it waits for a runner or a person, give it one; the next run goes on; ROTATOR_DEPLOY_TIMEOUT sets how long a run waits

"#]],
    );
    keeps_both(&fixture);
}

/// As soon as the program has started its pipeline, this happens to it, whichever try it is.
fn happens(to_each: impl Fn(&Fake, u64) + Send + Clone + 'static) -> Ended {
    let fixture = deployed_by(vec![JobSpec::deploy("deploy", "production").never_ends()]);
    let mut run = fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "1m");
    let started = |entry: &Entry| entry.action == "POST /projects/:id/pipeline";
    let (fake, act) = (fixture.fake.clone(), to_each);
    run = run.once(started, move || {
        let pipelines =
            fake.pipelines(PROJECT).into_iter().filter(|pipeline| pipeline.started_by_program);
        pipelines.for_each(|pipeline| act(&fake, pipeline.id));
    });
    let ended = run.go();
    keeps_both(&fixture);
    ended
}

fn a_pipeline_that_is_canceled() {
    happens(Fake::operator_cancels_pipeline).says(
        4,
        str![[r#"
error: the deploy failed: pipeline canceled (http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]): no job failed
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: fix the deploy and retry it; the next run proves it, or starts another

"#]],
    );
}

fn a_pipeline_that_is_deleted() {
    happens(Fake::operator_deletes_pipeline).says(
        4,
        str![[r#"
error: the deploy failed: pipeline [PIPELINE] of project 42 was deleted
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: fix the deploy and retry it; the next run proves it, or starts another

"#]],
    );
}

fn a_redeployed_job_that_fails() {
    let fixture = Fixture::of_days(75);
    let fake = fixture.fake.clone();
    // What it was given does not work where it runs.
    let run = fixture.run().set("ROTATOR_DEPLOY", "environment/production").once(
        |entry| entry.action == "POST /projects/:id/jobs/:number/retry",
        move || {
            let newest = fake
                .jobs(PROJECT)
                .into_iter()
                .filter(|job| job.name == "deploy")
                .max_by_key(|job| job.id)
                .expect("a deploy");
            fake.job_set_status(newest.id, "failed");
        },
    );
    fixture.fake.tune(|knobs| knobs.queue_ms = 60_000);
    run.go().says(
        4,
        str![[r#"
error: the deploy failed: job deploy failed (http://127.0.0.1:[PORT]/acme/shop/-/jobs/[JOB])
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: fix the deploy and retry it; the next run proves it, or starts another

"#]],
    );
    keeps_both(&fixture);
}

fn a_downstream_deploy_that_fails() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_project(50, "acme/shop-deploy");
    fixture.fake.set_pipeline_config(50, vec![JobSpec::new("ship").fails()]);
    fixture.fake.set_pipeline_config(
        PROJECT,
        vec![JobSpec::new("build"), JobSpec::bridge("downstream", 50, true)],
    );
    fixture.run().go().says(4, str![[r#"
error: the deploy failed: pipeline failed (http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]): trigger job downstream (http://127.0.0.1:[PORT]/acme/shop/-/jobs/[JOB])
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: fix the deploy and retry it; the next run proves it, or starts another

"#]]);
    keeps_both(&fixture);
}

fn of_two_projects_one_fails() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_project(43, "acme/api");
    fixture.fake.set_pipeline_config(43, vec![JobSpec::new("ship").fails()]);
    fixture.run().set("ROTATOR_DEPLOY_PROJECTS", "42,acme/api").go().says(4, str![[r#"
error: the deploy failed: pipeline failed (http://127.0.0.1:[PORT]/acme/api/-/pipelines/[PIPELINE]): ship (http://127.0.0.1:[PORT]/acme/api/-/jobs/[JOB])
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: fix the deploy and retry it; the next run proves it, or starts another

"#]]);
    keeps_both(&fixture);
}
