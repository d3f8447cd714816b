//! How a deploy is started, adopted and started anew: pipelines, and the job of an environment's
//! live deployment.

use crate::scene::*;
use fake::*;

pub(crate) fn pipelines() -> Vec<Trial> {
    cases![
        a_pipeline_whose_creation_was_slow_is_adopted,
        a_pipeline_whose_reply_was_lost_is_adopted,
        a_pipeline_whose_reply_was_cut_is_adopted,
        a_pipeline_whose_reply_was_an_error_is_adopted,
        a_pipeline_of_a_run_that_died_before_it_noted_it_is_adopted,
        a_pipeline_that_never_gets_jobs_is_replaced,
        a_pipeline_that_never_got_jobs_and_no_reply_is_replaced,
        a_canceled_pipeline_is_replaced,
        a_deleted_pipeline_is_replaced,
        a_failed_pipeline_that_an_operator_fixed_is_proof,
        a_failed_pipeline_is_replaced_by_the_next_run,
        a_pipeline_of_somebody_else_is_not_adopted,
        of_two_pipelines_of_our_user_none_is_adopted,
        without_a_known_user_no_pipeline_is_adopted,
        a_lost_reply_that_cannot_be_noted_is_told,
        after_a_refusal_no_pipeline_is_adopted,
        after_a_failed_deploy_no_pipeline_is_adopted,
        a_pipeline_that_another_rotation_may_have_asked_for_is_nobodys,
        two_rotations_at_once_start_a_pipeline_each,
    ]
}

fn ours(fixture: &Fixture, project: u64) -> Vec<PipelineView> {
    fixture
        .fake
        .pipelines(project)
        .into_iter()
        .filter(|pipeline| pipeline.started_by_program)
        .collect()
}

/// The time until which what a request has made may show up, by GitLab's clock, in seconds.
const WINDOW: i64 = 160;

/// The record tells that a deploy was asked for without an answer.
fn is_unanswered(fake: &Fake) -> impl Fn(&Entry) -> bool + use<> {
    let fake = fake.clone();
    move |entry| {
        entry.action.starts_with("PUT ")
            && fake.variables(project(PROJECT)).iter().any(|other| other.value.contains("closed"))
    }
}

/// A run whose first request for a pipeline gets no answer. What happens until nothing can show up
/// any more, and that this time is over.
fn unanswered<'a>(fixture: &'a Fixture, meanwhile: impl FnOnce(&Fake) + Send + 'static) -> Run<'a> {
    let fake = fixture.fake.clone();
    fixture.run().once(is_unanswered(&fixture.fake), move || {
        meanwhile(&fake);
        fake.shift_clock(WINDOW);
    })
}

fn a_pipeline_whose_creation_was_slow_is_adopted() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.pipeline_creation = PipelineCreation::Slow { ms: 3000 });
    unanswered(&fixture, |_| ()).go().ends(0, "rotated");
    assert_eq!(ours(&fixture, PROJECT).len(), 1);
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_pipeline_whose_reply_was_lost_is_adopted() {
    adopts_the_pipeline(Fault::LoseReply);
}

fn a_pipeline_whose_reply_was_cut_is_adopted() {
    adopts_the_pipeline(Fault::Truncate);
}

fn a_pipeline_whose_reply_was_an_error_is_adopted() {
    adopts_the_pipeline(Fault::Instead { status: 502, body: "<html>".into(), headers: vec![] });
}

fn adopts_the_pipeline(fault: Fault) {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on("POST /projects/:id/pipeline", 1, fault);
    // Neither a push nor another user's pipeline says that our request was heard.
    let meanwhile = |fake: &Fake| {
        fake.start_pipeline_with(PROJECT, "api", "main", vec![JobSpec::new("nightly")]);
        fake.start_pipeline_with(PROJECT, "push", "main", vec![JobSpec::new("build")]);
    };
    unanswered(&fixture, meanwhile).go().ends(0, "rotated");
    assert!(fixture.fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
    assert_eq!(ours(&fixture, PROJECT).len(), 1);
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

/// The request was never heard, and somebody else's pipelines do not answer it.
fn a_pipeline_of_somebody_else_is_not_adopted() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on("POST /projects/:id/pipeline", 1, Fault::Hang { effect: false });
    let meanwhile = |fake: &Fake| {
        fake.start_pipeline_with(PROJECT, "api", "main", vec![JobSpec::new("nightly")]);
        fake.start_pipeline_with(PROJECT, "push", "main", vec![JobSpec::new("build")]);
    };
    let run = unanswered(&fixture, meanwhile).set("ROTATOR_HTTP_TIMEOUT", "1s");
    run.go().ends(0, "rotated");
    assert_eq!(ours(&fixture, PROJECT).len(), 1, "a request of its own is heard");
    production_is_new(&fixture, PROJECT);
}

/// Of two pipelines of the same user one is the deploy, and nothing tells which.
fn of_two_pipelines_of_our_user_none_is_adopted() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on("POST /projects/:id/pipeline", 1, Fault::LoseReply);
    let meanwhile = |fake: &Fake| {
        fake.another_tool_starts_pipeline(PROJECT, vec![JobSpec::new("lint")]);
    };
    unanswered(&fixture, meanwhile).go().ends(0, "rotated");
    assert_eq!(ours(&fixture, PROJECT).len(), 2);
    production_is_new(&fixture, PROJECT);
}

/// A token that is not told about itself does not know whose pipelines are its own.
fn without_a_known_user_no_pipeline_is_adopted() {
    let fixture = Fixture::of_days(75);
    fixture.fake.change_token(&fixture.fake.token, |token| token.tells_about_itself = false);
    fixture.fake.fault_on("POST /projects/:id/pipeline", 1, Fault::LoseReply);
    // Nothing could tell it from anybody's, so it is not waited for either.
    fixture.run().go().ends(0, "rotated");
    assert!(fixture.fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
    assert_eq!(ours(&fixture, PROJECT).len(), 2);
    production_is_new(&fixture, PROJECT);
}

/// What was refused has made nothing, so no pipeline is what it has made.
/// GitLab goes away with the request and stays away.
fn a_lost_reply_that_cannot_be_noted_is_told() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on("POST /projects/:id/pipeline", 1, Fault::Html(502));
    // Two writes of the pair and four of the record come before.
    fixture.fake.fault_from("PUT /projects/:id/variables/:key", 7, Fault::refuse(403));
    let ended = fixture.run().go();
    ended.ends(1, "failed");
    assert!(ended.stderr.contains("error: starting the deploy pipeline"), "{}", ended.stderr);
    holds_both_keys(&fixture);
}

fn after_a_refusal_no_pipeline_is_adopted() {
    let fixture = Fixture::of_days(75);
    fixture.fake.refuse_pipelines(PROJECT, Some(Refusal::Workflow));
    fixture.run().go().ends(4, "deploy_failed");
    let record = fixture.records().remove(0).value;
    assert!(!record.contains("attempts"), "{record}");
    fixture.fake.refuse_pipelines(PROJECT, None);
    fixture.fake.another_tool_starts_pipeline(PROJECT, vec![JobSpec::new("lint")]);
    fixture.fake.finish_pipelines();
    fixture.run().go().ends(0, "resumed");
    assert_eq!(ours(&fixture, PROJECT).len(), 1);
    production_is_new(&fixture, PROJECT);
}

/// A deploy that failed is no attempt: what another tool starts the next day is not taken for it.
fn after_a_failed_deploy_no_pipeline_is_adopted() {
    for told in [true, false] {
        let fixture = Fixture::of_days(75);
        fixture.fake.change_token(&fixture.fake.token, |token| token.tells_about_itself = told);
        let failing = vec![JobSpec::deploy("deploy", "production").fails()];
        fixture.fake.set_pipeline_config(PROJECT, failing);
        fixture.run().go().ends(4, "deploy_failed");
        fixture.fake.another_tool_starts_pipeline(PROJECT, vec![JobSpec::new("nightly-tests")]);
        fixture.fake.finish_pipelines();
        fixture.fake.set_pipeline_config(PROJECT, good());
        fixture.run().go().ends(0, "resumed");
        assert_eq!(ours(&fixture, PROJECT).len(), 2);
        production_is_new(&fixture, PROJECT);
    }
}

/// The record of another rotation tells that it has asked for a pipeline of this ref: what is found
/// may be its own.
fn a_pipeline_that_another_rotation_may_have_asked_for_is_nobodys() {
    for (branch, pipelines) in [("main", 2), ("next", 1)] {
        let fixture = Fixture::of_days(75);
        fixture.fake.fault_on("POST /projects/:id/pipeline", 1, Fault::LoseReply);
        let asked_at = moment(fixture.fake.now() - 1000);
        let line = serde_json::json!({
            "user": "backup", "at": asked_at, "progress": {
                "from": [], "creating": asked_at,
                "attempts": [{
                    "place": { "project": PROJECT, "deploy": "pipeline" },
                    "asked": { "ref": branch }, "at": asked_at,
                }],
            },
        });
        fixture.fake.set_variable(
            project(PROJECT),
            Variable::new("CREDENTIAL_ROTATOR_8000_00c0ffee", &line.to_string())
                .scope("credential-rotator"),
        );
        unanswered(&fixture, |_| ()).go().ends(0, "rotated");
        assert_eq!(ours(&fixture, PROJECT).len(), pipelines, "{branch}");
        production_is_new(&fixture, PROJECT);
    }
}

/// Each with its own inputs, with one token, at the same time.
fn two_rotations_at_once_start_a_pipeline_each() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_user("/", "backup");
    let backup = fixture.fake.add_key("backup", 75);
    fixture.fake.set_variable(project(PROJECT), Variable::new("BACKUP_ID", &backup.id).masked());
    let secret = Variable::new("BACKUP_SECRET", &backup.secret).masked();
    fixture.fake.set_variable(project(PROJECT), secret);
    fixture.fake.set_pipeline_inputs(PROJECT, &["service"]);
    let jobs = [9101, 9102];
    for job in jobs {
        fixture.fake.add_job(PROJECT, job, "running");
    }
    let runs = [
        fixture.run_as(PROJECT, jobs[0]).set("ROTATOR_DEPLOY_INPUTS", r#"{"service":"shop"}"#),
        fixture
            .run_as(PROJECT, jobs[1])
            .with_pair(&backup)
            .set("ROTATOR_KEY_ID_VARIABLE", "BACKUP_ID")
            .set("ROTATOR_SECRET_VARIABLE", "BACKUP_SECRET")
            .set("ROTATOR_DEPLOY_INPUTS", r#"{"service":"backup"}"#),
    ];
    std::thread::scope(|scope| {
        for run in runs {
            let run = run.beside_another().set("ROTATOR_OVERLAP", "12h");
            scope.spawn(|| {
                run.go().ends(0, "rotated");
            });
        }
    });
    let mut inputs: Vec<String> =
        ours(&fixture, PROJECT).iter().map(|pipeline| pipeline.inputs.to_string()).collect();
    inputs.sort();
    assert_eq!(inputs, [r#"{"service":"backup"}"#, r#"{"service":"shop"}"#]);
}

fn a_pipeline_of_a_run_that_died_before_it_noted_it_is_adopted() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run();
    let mut child = run.command().stderr(std::process::Stdio::null()).spawn().unwrap();
    let killed = child.id();
    fixture.fake.on_kill(move || {
        let _ = std::process::Command::new("kill").args(["-9", &killed.to_string()]).status();
    });
    fixture.fake.fault_on("POST /projects/:id/pipeline", 1, Fault::KillAfter);
    child.wait().unwrap();
    fixture.fake.job_set_status(run.job, "failed");
    // Its job has ended, but for two minutes the run may still be alive: let GitLab forget the job,
    // and the record's word count.
    fixture.fake.finish_pipelines();
    let record = fixture.records().remove(0);
    fixture.fake.operator_edits_variable(PROJECT, &record.key, &record.scope, |record| {
        let mut line: serde_json::Value = serde_json::from_str(&record.value).unwrap();
        line.as_object_mut().unwrap().remove("ends");
        record.value = line.to_string();
    });
    fixture.fake.shift_clock(WINDOW);
    assert_eq!(ours(&fixture, PROJECT).len(), 1);
    fixture.run().go().ends(0, "resumed");
    assert_eq!(ours(&fixture, PROJECT).len(), 1);
    fixture.is_rotated();
}

fn a_pipeline_that_never_gets_jobs_is_replaced() {
    stuck(false);
}

fn a_pipeline_that_never_got_jobs_and_no_reply_is_replaced() {
    stuck(true);
}

/// Nine minutes lie between the two runs, by the fake's clock.
fn stuck(lose_reply: bool) {
    let fixture = Fixture::of_days(75);
    fixture.fake.shift_clock(-280);
    fixture.fake.tune(|knobs| knobs.pipeline_creation = PipelineCreation::Stuck { lose_reply });
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "0s").go().ends(0, "deploying");
    assert_eq!(ours(&fixture, PROJECT).len(), 1);
    fixture.fake.shift_clock(280);
    fixture.fake.tune(|knobs| knobs.pipeline_creation = PipelineCreation::AtOnce);
    fixture.run().go().ends(0, "resumed");
    assert_eq!(ours(&fixture, PROJECT).len(), 2);
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

/// A run that has started the deploy and left it to the next one.
fn left_deploying(jobs: Vec<JobSpec>) -> (Fixture, u64) {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_pipeline_config(PROJECT, jobs);
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "0s").go().ends(0, "deploying");
    let [pipeline] = &ours(&fixture, PROJECT)[..] else { panic!("one deploy") };
    let id = pipeline.id;
    (fixture, id)
}

fn good() -> Vec<JobSpec> {
    vec![JobSpec::new("build"), JobSpec::deploy("deploy", "production")]
}

fn a_canceled_pipeline_is_replaced() {
    let (fixture, pipeline) =
        left_deploying(vec![JobSpec::deploy("deploy", "production").never_ends()]);
    fixture.fake.operator_cancels_pipeline(pipeline);
    fixture.fake.set_pipeline_config(PROJECT, good());
    fixture.run().go().ends(0, "resumed");
    assert_eq!(ours(&fixture, PROJECT).len(), 2);
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_deleted_pipeline_is_replaced() {
    let (fixture, pipeline) =
        left_deploying(vec![JobSpec::deploy("deploy", "production").never_ends()]);
    fixture.fake.operator_deletes_pipeline(pipeline);
    fixture.fake.set_pipeline_config(PROJECT, good());
    fixture.run().go().ends(0, "resumed");
    assert_eq!(ours(&fixture, PROJECT).len(), 1);
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_failed_pipeline_that_an_operator_fixed_is_proof() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_pipeline_config(
        PROJECT,
        vec![
            JobSpec::deploy("deploy", "production").fails_once(),
            JobSpec::new("smoke").stage("verify"),
        ],
    );
    let ended = fixture.run().go();
    ended.ends(4, "deploy_failed");
    holds_both_keys(&fixture);
    let failed = fixture
        .fake
        .jobs(PROJECT)
        .into_iter()
        .find(|job| job.name == "deploy" && job.status == "failed")
        .unwrap();
    fixture.fake.operator_retries_job(failed.id);
    fixture.fake.finish_pipelines();
    let ended = fixture.run().go();
    ended.ends(0, "resumed");
    assert_eq!((ended.calls("POST /projects/:id/pipeline"), ours(&fixture, PROJECT).len()), (0, 1));
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_failed_pipeline_is_replaced_by_the_next_run() {
    let fixture = Fixture::of_days(75);
    fixture
        .fake
        .set_pipeline_config(PROJECT, vec![JobSpec::deploy("deploy", "production").fails()]);
    let ended = fixture.run().go();
    ended.ends(4, "deploy_failed");
    assert!(
        ended.stderr.contains("deploy ("),
        "the hint or the error names the job: {}",
        ended.stderr
    );
    assert_eq!(ours(&fixture, PROJECT).len(), 1);
    fixture.run().go().ends(4, "deploy_failed");
    assert_eq!(ours(&fixture, PROJECT).len(), 2, "one more for each run");
    holds_both_keys(&fixture);
    fixture.fake.set_pipeline_config(PROJECT, good());
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
}

pub(crate) fn environments() -> Vec<Trial> {
    cases![
        a_retry_whose_reply_was_lost_is_adopted,
        a_retry_whose_reply_was_cut_is_adopted,
        a_retry_whose_reply_was_an_error_is_adopted,
        a_redeploy_that_failed_is_tried_again_by_the_next_run,
        a_redeploy_that_an_operator_retried_is_proof,
        a_redeploy_that_was_deleted_is_started_anew,
        a_canceled_redeploy_is_started_anew,
        a_job_that_cannot_be_retried_is_named,
        an_environment_without_a_live_job_is_found_before_anything_is_written,
        an_older_commit_is_never_deployed_in_place_of_the_live_one,
        each_job_of_an_environment_is_run_again_in_its_order,
        each_named_job_of_an_environment_is_run_again,
        of_an_environment_what_ended_last_is_live_whatever_its_id,
        a_gitlab_that_does_not_sort_by_the_end_is_asked_otherwise,
        what_is_being_deployed_is_never_taken_back,
        a_job_that_waits_for_a_person_is_not_waited_for_in_place_of_the_live_one,
        what_somebody_else_has_deployed_with_the_new_pair_is_proof,
    ]
}

const ENVIRONMENT: (&str, &str) = ("ROTATOR_DEPLOY", "environment/production");

fn redeploying(fixture: &Fixture) -> Run<'_> {
    fixture.run().set(ENVIRONMENT.0, ENVIRONMENT.1)
}

/// The job of the live deployment; retries of it end like this from now on.
fn from_now_on(fixture: &Fixture, outcome: JobEnd) -> u64 {
    fixture.fake.set_job_end("deploy", outcome);
    deploys(fixture).iter().map(|job| job.id).max().expect("a deploy")
}

fn deploys(fixture: &Fixture) -> Vec<JobView> {
    fixture.fake.jobs(PROJECT).into_iter().filter(|job| job.name == "deploy").collect()
}

fn a_retry_whose_reply_was_lost_is_adopted() {
    adopts_the_retry(Fault::LoseReply);
}

fn a_retry_whose_reply_was_cut_is_adopted() {
    adopts_the_retry(Fault::Truncate);
}

fn a_retry_whose_reply_was_an_error_is_adopted() {
    adopts_the_retry(Fault::Instead { status: 500, body: "{}".into(), headers: vec![] });
}

fn adopts_the_retry(fault: Fault) {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on("POST /projects/:id/jobs/:number/retry", 1, fault);
    redeploying(&fixture).go().ends(0, "rotated");
    assert!(fixture.fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
    assert_eq!(deploys(&fixture).len(), 2, "the live one and one retry");
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_redeploy_that_failed_is_tried_again_by_the_next_run() {
    let fixture = Fixture::of_days(75);
    from_now_on(&fixture, JobEnd::Failure);
    let ended = redeploying(&fixture).go();
    ended.ends(4, "deploy_failed");
    holds_both_keys(&fixture);
    assert_eq!(deploys(&fixture).len(), 2, "once per run");
    from_now_on(&fixture, JobEnd::Success);
    redeploying(&fixture).go().ends(0, "resumed");
    assert_eq!(deploys(&fixture).len(), 3);
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_redeploy_that_an_operator_retried_is_proof() {
    let fixture = Fixture::of_days(75);
    from_now_on(&fixture, JobEnd::Failure);
    redeploying(&fixture).go().ends(4, "deploy_failed");
    let failed = from_now_on(&fixture, JobEnd::Success);
    fixture.fake.operator_retries_job(failed);
    fixture.fake.finish_pipelines();
    let ended = redeploying(&fixture).go();
    ended.ends(0, "resumed");
    assert_eq!(ended.calls("POST /projects/:id/jobs/:number/retry"), 0);
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_redeploy_that_was_deleted_is_started_anew() {
    let fixture = Fixture::of_days(75);
    from_now_on(&fixture, JobEnd::Never);
    redeploying(&fixture).set("ROTATOR_DEPLOY_TIMEOUT", "0s").go().ends(0, "deploying");
    let pipeline = deploys(&fixture)[0].pipeline;
    fixture.fake.operator_deletes_pipeline(pipeline);
    let ended = redeploying(&fixture).go();
    assert!([3, 4].contains(&ended.code), "{} {}", ended.code, ended.stderr);
    holds_both_keys(&fixture);
    // Somebody deploys; that is the live job now.
    fixture.deploy(PROJECT);
    redeploying(&fixture).go().ends(0, "resumed");
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_canceled_redeploy_is_started_anew() {
    let fixture = Fixture::of_days(75);
    from_now_on(&fixture, JobEnd::Never);
    redeploying(&fixture).set("ROTATOR_DEPLOY_TIMEOUT", "0s").go().ends(0, "deploying");
    let pipeline = deploys(&fixture)[0].pipeline;
    fixture.fake.operator_cancels_pipeline(pipeline);
    from_now_on(&fixture, JobEnd::Success);
    redeploying(&fixture).go().ends(0, "resumed");
    assert_eq!(deploys(&fixture).len(), 3);
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_job_that_cannot_be_retried_is_named() {
    let fixture = Fixture::of_days(75);
    fixture.fake.job_not_retryable(deploys(&fixture)[0].id);
    let ended = redeploying(&fixture).go();
    assert_ne!(ended.code, 0);
    holds_both_keys(&fixture);
    assert!(ended.stderr.contains("redeploying production of project 42"), "{}", ended.stderr);
    fixture.deploy(PROJECT);
    redeploying(&fixture).go().ends(0, "resumed");
    fixture.is_rotated();
}

fn an_environment_without_a_live_job_is_found_before_anything_is_written() {
    let fixture = Fixture::of_days(75);
    let ended = fixture.run().set("ROTATOR_DEPLOY", "environment/staging").go();
    ended.ends(3, "refused");
    assert!(ended.stderr.contains("staging"), "{}", ended.stderr);
    fixture.is_untouched();
}

/// A deployment made through the API, or one whose pipeline was deleted, has no job.
fn an_older_commit_is_never_deployed_in_place_of_the_live_one() {
    let fixture = Fixture::of_days(75);
    let job = deploys(&fixture)[0].id;
    let old_job = fixture.fake.job_json(job);
    let live = serde_json::json!([{ "id": 9, "iid": 9, "status": "success", "deployable": null }, { "id": 8, "iid": 8, "status": "success", "deployable": old_job }]);
    let fault = Fault::Instead {
        status: 200,
        body: live.to_string(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    fixture.fake.fault_from("GET /projects/:id/deployments", 1, fault);
    let ended = redeploying(&fixture).go();
    ended.ends(3, "refused");
    assert_eq!(deploys(&fixture).len(), 1);
    fixture.is_untouched();
}

fn deployed_by(jobs: Vec<JobSpec>) -> Fixture {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.set_pair(PROJECT, &fixture.old);
    fixture.fake.set_pipeline_config(PROJECT, jobs);
    fixture.deploy(PROJECT);
    fixture
}

fn two_jobs() -> Vec<JobSpec> {
    vec![
        JobSpec::deploy("deploy-worker", "production").stage("first"),
        JobSpec::deploy("deploy-api", "production").stage("second"),
    ]
}

/// The jobs that ran with the new key, in the order of their starts.
fn rerun(fixture: &Fixture) -> Vec<String> {
    let new = fixture.new_key().id;
    let mut jobs: Vec<JobView> = fixture.fake.jobs(PROJECT);
    jobs.retain(|job| job.pair.as_ref().is_some_and(|pair| pair.id == new));
    jobs.sort_by_key(|job| job.started);
    jobs.into_iter().map(|job| job.name).collect()
}

fn each_job_of_an_environment_is_run_again_in_its_order() {
    let fixture = deployed_by(two_jobs());
    redeploying(&fixture).go().ends(0, "rotated");
    assert_eq!(rerun(&fixture), ["deploy-worker", "deploy-api"]);
    assert_eq!(fixture.old_is_active(), None);
}

fn each_named_job_of_an_environment_is_run_again() {
    let fixture = deployed_by(two_jobs());
    let ended = redeploying(&fixture).set("ROTATOR_DEPLOY_JOBS", "deploy-api").go();
    ended.ends(0, "rotated");
    assert_eq!(rerun(&fixture), ["deploy-api"]);
}

/// A row is made when its job can be played: that of the live deployment is the older one.
fn of_an_environment_what_ended_last_is_live_whatever_its_id() {
    for by_end in [true, false] {
        let fixture = deployed_by(vec![JobSpec::deploy("deploy", "production").manual()]);
        fixture.fake.tune(|knobs| knobs.deployments_by_end = by_end);
        let manual = || {
            let jobs = fixture.fake.jobs(PROJECT).into_iter();
            jobs.filter(|job| job.status == "manual").map(|job| (job.pipeline, job.id)).min()
        };
        let first = manual().expect("it waits");
        fixture.fake.start_pipeline(PROJECT, "push");
        let jobs = fixture.fake.jobs(PROJECT).into_iter();
        let second = jobs.map(|job| job.id).max().expect("another waits");
        fixture.fake.operator_plays_job(second);
        fixture.fake.finish_pipelines();
        std::thread::sleep(std::time::Duration::from_millis(50));
        fixture.fake.operator_plays_job(first.1);
        fixture.fake.finish_pipelines();
        redeploying(&fixture).go().ends(0, "rotated");
        let jobs = deploys(&fixture);
        let newest = jobs.iter().max_by_key(|job| job.id).expect("a deploy");
        assert_eq!(newest.pipeline, first.0, "by end: {by_end}");
    }
}

fn a_gitlab_that_does_not_sort_by_the_end_is_asked_otherwise() {
    let fixture = deployed_by(two_jobs());
    fixture.fake.tune(|knobs| knobs.deployments_by_end = false);
    redeploying(&fixture).go().ends(0, "rotated");
    assert_eq!(rerun(&fixture), ["deploy-worker", "deploy-api"]);
}

/// A newer commit is being deployed when the run looks: it is waited for, and proves the deploy.
fn what_is_being_deployed_is_never_taken_back() {
    let fixture = Fixture::of_days(75);
    let fake = fixture.fake.clone();
    let push = move || {
        let jobs = vec![JobSpec::deploy("deploy", "production").ms(4000)];
        fake.start_pipeline_with(PROJECT, "push", "main", jobs);
    };
    let drained = |entry: &Entry| entry.looks_for_running_jobs();
    let ended = redeploying(&fixture).once(drained, push).go();
    ended.ends(0, "rotated");
    let jobs = deploys(&fixture);
    let last = jobs.iter().max_by_key(|job| job.finished).expect("a deploy");
    let newest = jobs.iter().map(|job| job.pipeline).max().expect("a deploy");
    assert_eq!(last.pipeline, newest, "the newer commit is live in the end");
    production_is_new(&fixture, PROJECT);
}

fn a_job_that_waits_for_a_person_is_not_waited_for_in_place_of_the_live_one() {
    let fixture = Fixture::of_days(75);
    let waits = vec![JobSpec::deploy("deploy", "production").manual()];
    fixture.fake.start_pipeline_with(PROJECT, "push", "main", waits);
    redeploying(&fixture).go().ends(0, "rotated");
    production_is_new(&fixture, PROJECT);
}

fn what_somebody_else_has_deployed_with_the_new_pair_is_proof() {
    let fixture = Fixture::of_days(75);
    fixture.fake.job_not_retryable(deploys(&fixture)[0].id);
    redeploying(&fixture).go().ends(4, "deploy_failed");
    std::thread::sleep(std::time::Duration::from_secs(3));
    fixture.deploy(PROJECT);
    let ended = redeploying(&fixture).go();
    ended.ends(0, "resumed");
    assert_eq!(ended.calls("POST /projects/:id/jobs/:number/retry"), 0);
    production_is_new(&fixture, PROJECT);
}
