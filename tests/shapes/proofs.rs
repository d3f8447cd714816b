//! What proves a deploy: jobs of the pipeline and of those that it triggers, numbered parts, all
//! pages.

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_downstream_pipeline_that_is_waited_for_is_proof,
        a_downstream_pipeline_that_nobody_waits_for_is_proof_once_it_is_done,
        a_named_job_of_a_downstream_pipeline_is_proof_once_it_is_done,
        a_downstream_deploy_that_failed_is_no_proof_until_somebody_fixes_it,
        a_named_job_of_a_downstream_pipeline_of_a_downstream_pipeline_counts,
        a_downstream_pipeline_of_a_downstream_pipeline_counts,
        a_downstream_pipeline_without_jobs_yet_is_no_proof,
        the_successor_of_bridges_is_asked_where_they_are_gone,
        numbered_jobs_all_count,
        a_matrix_counts_whole,
        one_part_that_waits_for_an_operator_is_no_proof,
        jobs_beyond_the_first_page_count,
        a_missing_job_is_no_proof,
        a_manual_deploy_is_no_proof_without_a_list,
        a_job_that_runs_only_after_a_failure_may_be_skipped,
        a_job_that_failed_as_it_may_is_no_proof_without_a_list,
        a_canceled_job_is_no_proof_without_a_list,
        a_pipeline_that_was_skipped_is_replaced_once,
        a_child_that_failed_is_replaced_by_the_next_run,
        a_pipeline_that_looks_like_no_deploy_is_told,
        a_pipeline_that_looks_like_no_deploy_is_no_proof_without_an_overlap,
        a_deployment_is_the_sign_of_a_deploy,
        a_deployment_of_a_child_is_the_sign_of_a_deploy,
        a_name_in_a_child_is_the_sign_of_a_deploy,
        deployments_that_cannot_be_read_are_told_and_judge_nothing,
    ]
}

/// The deploy is a trigger job; what it triggers deploys project 43.
fn with_downstream(depend: bool, downstream: Vec<JobSpec>) -> Fixture {
    let fixture = Fixture::of_days(75);
    add_project(&fixture, OTHER, "acme/deployer", "*");
    fixture.fake.set_pipeline_config(
        PROJECT,
        vec![JobSpec::new("build"), JobSpec::bridge("release", OTHER, depend)],
    );
    fixture.fake.set_pipeline_config(OTHER, downstream);
    fixture
}

/// Project 42 itself deploys nothing any more, so the invariants watch 43 alone.
fn run(fixture: &Fixture) -> Run<'_> {
    fixture
        .run()
        .set("ROTATOR_TARGETS", "project:42,project:43")
        .set("ROTATOR_DEPLOY_PROJECTS", "42")
}

/// The production of 42 has moved to 43.
fn moved(fixture: Fixture) -> Fixture {
    fixture.fake.unwatch_deploy(PROJECT);
    fixture
}

fn both(fixture: &Fixture) {
    holds_the_new_key(fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
    production_is_new(fixture, OTHER);
}

fn a_downstream_pipeline_that_is_waited_for_is_proof() {
    let fixture =
        moved(with_downstream(true, vec![JobSpec::deploy("deploy", "production").ms(500)]));
    let ended = run(&fixture).go();
    ended.ends(0, "rotated");
    both(&fixture);
    assert!(deployed_at(&fixture, &ended.log, OTHER, "deploy") < disabled_at(&fixture, &ended.log));
}

fn a_downstream_pipeline_that_nobody_waits_for_is_proof_once_it_is_done() {
    is_waited_for("");
}

fn a_named_job_of_a_downstream_pipeline_is_proof_once_it_is_done() {
    is_waited_for("deploy");
}

fn is_waited_for(list: &str) {
    let fixture = moved(with_downstream(
        false,
        vec![JobSpec::new("prepare").ms(500), JobSpec::deploy("deploy", "production").ms(2500)],
    ));
    let ended = run(&fixture).set("ROTATOR_DEPLOY_JOBS", list).go();
    ended.ends(0, "rotated");
    both(&fixture);
    assert!(deployed_at(&fixture, &ended.log, OTHER, "deploy") < disabled_at(&fixture, &ended.log));
}

fn a_downstream_deploy_that_failed_is_no_proof_until_somebody_fixes_it() {
    let fixture =
        moved(with_downstream(false, vec![JobSpec::deploy("deploy", "production").fails_once()]));
    let ended = run(&fixture).set("ROTATOR_DEPLOY_JOBS", "deploy").go();
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    holds_both_keys(&fixture);
    let failed = fixture.fake.jobs(OTHER).into_iter().find(|job| job.status == "failed").unwrap();
    fixture.fake.operator_retries_job(failed.id);
    fixture.fake.finish_pipelines();
    run(&fixture).set("ROTATOR_DEPLOY_JOBS", "deploy").go().ends(0, "resumed");
    both(&fixture);
}

fn a_named_job_of_a_downstream_pipeline_of_a_downstream_pipeline_counts() {
    through_two_pipelines("deploy");
}

fn a_downstream_pipeline_of_a_downstream_pipeline_counts() {
    through_two_pipelines("");
}

fn through_two_pipelines(list: &str) {
    let fixture =
        moved(with_downstream(false, vec![JobSpec::deploy("deploy", "production").ms(1500)]));
    fixture.fake.tune(|knobs| knobs.queue_ms = 2000);
    fixture.fake.add_project(44, "acme/between");
    fixture.fake.set_pipeline_config(44, vec![JobSpec::bridge("next", OTHER, false)]);
    fixture.fake.set_pipeline_config(PROJECT, vec![JobSpec::bridge("release", 44, false)]);
    let ended = run(&fixture).set("ROTATOR_DEPLOY_JOBS", list).go();
    ended.ends(0, "rotated");
    both(&fixture);
    assert!(deployed_at(&fixture, &ended.log, OTHER, "deploy") < disabled_at(&fixture, &ended.log));
}

/// A large configuration: the pipeline is there, its jobs come later, and nobody in the pipeline
/// above waits for them.
fn a_downstream_pipeline_without_jobs_yet_is_no_proof() {
    let fixture = moved(with_downstream(false, vec![]));
    let fake = fixture.fake.clone();
    let jobs_come = move || {
        let downstream = fake
            .pipelines(OTHER)
            .into_iter()
            .map(|pipeline| pipeline.id)
            .max()
            .expect("a downstream pipeline");
        fake.add_pipeline_job(downstream, JobSpec::deploy("deploy", "production").ms(4000));
    };
    // Not at the first look, nor at the one that makes sure of it.
    let looks = std::sync::atomic::AtomicUsize::new(0);
    let looked_at = move |entry: &Entry| {
        let is_look = entry.action == "GET /projects/:id/pipelines/:number/bridges"
            && entry.what.starts_with("43 ");
        is_look && looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 3
    };
    let ended = run(&fixture).once(looked_at, jobs_come).go();
    ended.ends(0, "rotated");
    both(&fixture);
    assert!(deployed_at(&fixture, &ended.log, OTHER, "deploy") < disabled_at(&fixture, &ended.log));
}

fn the_successor_of_bridges_is_asked_where_they_are_gone() {
    let fixture = moved(with_downstream(true, vec![JobSpec::deploy("deploy", "production")]));
    let gone = Fault::Refuse {
        status: 404,
        body: r#"{"error":"404 Not Found"}"#.into(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    fixture.fake.fault_from("GET /projects/:id/pipelines/:number/bridges", 1, gone);
    let ended = run(&fixture).set("ROTATOR_DEPLOY_JOBS", "deploy").go();
    ended.ends(0, "rotated");
    assert!(ended.calls("GET /projects/:id/pipelines/:number/trigger_jobs") > 0);
    both(&fixture);
}

fn numbered_jobs_all_count() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_pipeline_config(
        PROJECT,
        vec![
            JobSpec::deploy("deploy 1/2", "production"),
            JobSpec::deploy("deploy 2/2", "production").allow_failure().fails_once(),
        ],
    );
    let ended = fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy").go();
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("deploy 2/2"), "{}", ended.stderr);
    holds_both_keys(&fixture);
    let failed =
        fixture.fake.jobs(PROJECT).into_iter().find(|job| job.name == "deploy 2/2").unwrap();
    fixture.fake.operator_retries_job(failed.id);
    fixture.fake.finish_pipelines();
    fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy").go().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_matrix_counts_whole() {
    let fixture = Fixture::of_days(75);
    let job = |name: &str, environment: &str| JobSpec::deploy(name, environment);
    fixture.fake.set_pipeline_config(
        PROJECT,
        vec![job("deploy: [eu, prod]", "eu"), job("deploy: [us, prod]", "production").ms(1500)],
    );
    let ended = fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy").go();
    ended.ends(0, "rotated");
    let disabled = disabled_at(&fixture, &ended.log);
    for name in ["deploy: [eu, prod]", "deploy: [us, prod]"] {
        assert!(deployed_at(&fixture, &ended.log, PROJECT, name) < disabled, "{name}");
    }
    production_is_new(&fixture, PROJECT);
}

fn one_part_that_waits_for_an_operator_is_no_proof() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_pipeline_config(
        PROJECT,
        vec![
            JobSpec::deploy("deploy: [eu, prod]", "eu"),
            JobSpec::deploy("deploy: [us, prod]", "production").manual().allow_failure(),
        ],
    );
    let ended =
        fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy").set("ROTATOR_DEPLOY_TIMEOUT", "3s").go();
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("deploy: [us, prod]"), "{}", ended.stderr);
    holds_both_keys(&fixture);
    let manual = fixture.fake.jobs(PROJECT).into_iter().find(|job| job.status == "manual").unwrap();
    fixture.fake.operator_plays_job(manual.id);
    fixture.fake.finish_pipelines();
    fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy").go().ends(0, "resumed");
    fixture.is_rotated();
}

/// The list is newest first, so what was made first is on the last page.
fn jobs_beyond_the_first_page_count() {
    let fixture = Fixture::of_days(75);
    let mut jobs =
        vec![JobSpec::deploy("deploy", "production").stage("a").allow_failure().fails_once()];
    jobs.extend((0..250).map(|number| JobSpec::new(&format!("check {number}")).stage("b")));
    fixture.fake.set_pipeline_config(PROJECT, jobs);
    let ended = fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy").go();
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("deploy"), "{}", ended.stderr);
    assert!(ended.calls("GET /projects/:id/pipelines/:number/jobs") >= 3);
    holds_both_keys(&fixture);
    let failed = fixture
        .fake
        .jobs(PROJECT)
        .into_iter()
        .find(|job| job.name == "deploy" && job.status == "failed")
        .unwrap();
    fixture.fake.operator_retries_job(failed.id);
    fixture.fake.finish_pipelines();
    fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy").go().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_missing_job_is_no_proof() {
    let fixture = Fixture::of_days(75);
    let ended = fixture.run().set("ROTATOR_DEPLOY_JOBS", "deploy,migrate").go();
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("there is no job migrate"), "{}", ended.stderr);
    holds_both_keys(&fixture);
}

fn a_manual_deploy_is_no_proof_without_a_list() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_pipeline_config(
        PROJECT,
        vec![
            JobSpec::new("build"),
            JobSpec::deploy("deploy", "production").manual().allow_failure(),
        ],
    );
    let ended = fixture.run().go();
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.stderr.contains("deploy is manual"), "{}", ended.stderr);
    holds_both_keys(&fixture);
}

fn of(jobs: Vec<JobSpec>) -> Fixture {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_pipeline_config(PROJECT, jobs);
    fixture
}

fn started(fixture: &Fixture) -> usize {
    let pipelines = fixture.fake.pipelines(PROJECT).into_iter();
    pipelines.filter(|pipeline| pipeline.started_by_program).count()
}

fn newest(fixture: &Fixture, name: &str) -> u64 {
    let jobs = fixture.fake.jobs(PROJECT).into_iter().filter(|job| job.name == name);
    jobs.map(|job| job.id).max().unwrap()
}

fn a_job_that_runs_only_after_a_failure_may_be_skipped() {
    let rollback = JobSpec::new("rollback").stage("rollback").on_failure();
    let fixture = of(vec![JobSpec::deploy("deploy", "production"), rollback]);
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
}

fn a_job_that_failed_as_it_may_is_no_proof_without_a_list() {
    let fixture = of(vec![
        JobSpec::deploy("deploy", "production").allow_failure().fails_once(),
        JobSpec::new("rollback").stage("rollback").on_failure(),
    ]);
    let ended = fixture.run().go();
    ended.ends(4, "deploy_failed");
    assert!(ended.stderr.contains("job deploy is failed"), "{}", ended.stderr);
    assert!(ended.stderr.contains("job rollback is skipped"), "{}", ended.stderr);
    holds_both_keys(&fixture);
    fixture.fake.operator_retries_job(newest(&fixture, "deploy"));
    fixture.fake.finish_pipelines();
    fixture.run().go().ends(0, "resumed");
    assert_eq!(started(&fixture), 1);
    fixture.is_rotated();
}

fn a_canceled_job_is_no_proof_without_a_list() {
    let fixture = of(vec![JobSpec::deploy("deploy", "production").allow_failure().never_ends()]);
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "0s").go().ends(0, "deploying");
    fixture.fake.operator_cancels_job(newest(&fixture, "deploy"));
    let ended = fixture.run().go();
    ended.ends(4, "deploy_failed");
    assert!(ended.stderr.contains("job deploy is canceled"), "{}", ended.stderr);
    holds_both_keys(&fixture);
}

/// Each of its jobs runs only where another fails.
fn a_pipeline_that_was_skipped_is_replaced_once() {
    let fixture = of(vec![JobSpec::new("rollback").on_failure()]);
    for pipelines in [1, 2, 2] {
        let ended = fixture.run().go();
        ended.ends(4, "deploy_failed");
        assert!(ended.stderr.contains("all its jobs were skipped"), "{}", ended.stderr);
        assert_eq!(started(&fixture), pipelines);
    }
    holds_both_keys(&fixture);
}

/// Nobody in the pipeline above waits for it, so that one is green.
fn a_child_that_failed_is_replaced_by_the_next_run() {
    let child = |job| vec![JobSpec::child("release", vec![job], false)];
    let fixture = of(child(JobSpec::deploy("deploy", "production").fails()));
    let ended = fixture.run().go();
    ended.ends(4, "deploy_failed");
    assert!(ended.stderr.contains("job deploy is failed"), "{}", ended.stderr);
    holds_both_keys(&fixture);
    fixture.fake.set_pipeline_config(PROJECT, child(JobSpec::deploy("deploy", "production")));
    fixture.run().go().ends(0, "resumed");
    assert_eq!(started(&fixture), 2);
    fixture.is_rotated();
}

fn no_deploy() -> Vec<JobSpec> {
    vec![JobSpec::new("build"), JobSpec::new("check")]
}

fn a_pipeline_that_looks_like_no_deploy_is_told() {
    let fixture = of(no_deploy());
    let ended = fixture.run().set("ROTATOR_OVERLAP", "12h").go();
    ended.ends(6, "rotated");
    assert!(ended.stderr.contains("nothing in it looks like one"), "{}", ended.stderr);
    holds_both_keys(&fixture);
}

/// The rules of the deploy job leave out the source `api`, say.
fn a_pipeline_that_looks_like_no_deploy_is_no_proof_without_an_overlap() {
    let fixture = of(no_deploy());
    for pipelines in [1, 2, 2] {
        let ended = fixture.run().go();
        ended.ends(4, "deploy_failed");
        assert!(ended.stderr.contains("nothing in it looks like a deploy"), "{}", ended.stderr);
        holds_both_keys(&fixture);
        assert_eq!(started(&fixture), pipelines);
    }
    fixture.fake.operator_pushes(PROJECT, "main");
    let jobs = [no_deploy(), vec![JobSpec::deploy("deploy", "production")]].concat();
    fixture.fake.set_pipeline_config(PROJECT, jobs);
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn live() -> JobSpec {
    JobSpec::deploy("go", "production").stage("live")
}

fn a_deployment_is_the_sign_of_a_deploy() {
    let fixture = of(vec![JobSpec::new("build"), live()]);
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
}

fn a_deployment_of_a_child_is_the_sign_of_a_deploy() {
    let fixture = of(vec![JobSpec::child("next", vec![live()], true).stage("next")]);
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
}

fn a_name_in_a_child_is_the_sign_of_a_deploy() {
    let job = JobSpec::deploy("Rollout-EU", "").stage("live");
    let fixture = moved(of(vec![JobSpec::child("next", vec![job], true).stage("next")]));
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
}

fn deployments_that_cannot_be_read_are_told_and_judge_nothing() {
    let fixture = moved(of(no_deploy()));
    let token = fixture.fake.token.clone();
    fixture.fake.change_token(&token, |token| token.lacks = vec!["Deployment: Read".into()]);
    let ended = fixture.run().go();
    ended.ends(0, "rotated");
    assert!(ended.stderr.contains("the deployments of project 42 cannot"), "{}", ended.stderr);
    fixture.is_rotated();
}
