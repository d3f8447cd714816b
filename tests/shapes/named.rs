//! Named jobs decide: whatever else their pipeline does, in children and by trigger jobs too.

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_named_job_decides_though_a_later_job_waits_for_a_person,
        a_named_job_decides_though_a_later_job_failed,
        a_named_job_decides_while_another_still_runs,
        a_named_job_that_waits_for_a_person_is_not_started_again,
        a_named_job_behind_an_approval_is_not_started_again,
        a_named_job_that_an_approval_sets_off_is_not_started_again,
        a_named_job_that_failed_may_be_retried_while_its_pipeline_runs,
        a_named_job_that_failed_is_started_again_by_the_next_run,
        of_a_named_job_the_newest_try_counts,
        a_named_job_counts_in_every_child,
        a_named_job_of_a_child_that_an_operator_starts_is_waited_for,
        a_named_job_is_proof_beside_a_pipeline_that_the_token_cannot_see,
        a_named_job_in_a_pipeline_that_the_token_cannot_see_is_no_proof,
        a_named_trigger_job_counts_with_what_it_triggers,
        a_named_trigger_job_that_waits_for_nobody_counts_with_what_it_triggers,
        a_named_trigger_job_waits_for_an_operator_in_what_it_triggers,
        a_named_trigger_job_fails_with_what_it_triggers,
        a_job_that_a_freeze_left_out_is_there_after_it,
        two_pipelines_without_the_named_job_are_enough,
    ]
}

const PIPELINE: &str = "POST /projects/:id/pipeline";

fn of(jobs: Vec<JobSpec>) -> Fixture {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_pipeline_config(PROJECT, jobs);
    fixture
}

fn deploy() -> JobSpec {
    JobSpec::deploy("deploy", "production")
}

fn named<'a>(fixture: &'a Fixture, jobs: &str) -> Run<'a> {
    fixture.run().set("ROTATOR_DEPLOY_JOBS", jobs).set("ROTATOR_DEPLOY_TIMEOUT", "3s")
}

/// How many deploy pipelines the program has started.
fn started(fixture: &Fixture) -> usize {
    let pipelines = fixture.fake.pipelines(PROJECT).into_iter();
    pipelines.filter(|pipeline| pipeline.started_by_program).count()
}

fn job(fixture: &Fixture, project: u64, name: &str, status: &str) -> u64 {
    let jobs = fixture.fake.jobs(project).into_iter();
    let of_name = jobs.filter(|job| job.name == name && job.status == status);
    of_name.map(|job| job.id).max().unwrap_or_else(|| panic!("no job {name} is {status}"))
}

#[track_caller]
fn fails(fixture: &Fixture, ended: &Ended, why: &str) {
    ended.ends(4, "deploy_failed");
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
    holds_both_keys(fixture);
}

/// An operator starts this job, and everything runs to its end.
fn play(fixture: &Fixture, project: u64, name: &str) {
    fixture.fake.operator_plays_job(job(fixture, project, name, "manual"));
    fixture.fake.finish_pipelines();
}

/// The next run proves the deploy that is there already.
#[track_caller]
fn proves(fixture: &Fixture, jobs: &str) {
    let ended = named(fixture, jobs).go();
    ended.ends(0, "resumed");
    assert_eq!((ended.calls(PIPELINE), started(fixture)), (0, 1));
    fixture.is_rotated();
}

fn a_named_job_decides_though_a_later_job_waits_for_a_person() {
    let fixture = of(vec![deploy(), JobSpec::new("promote").stage("promote").manual()]);
    named(&fixture, "deploy").go().ends(0, "rotated");
    fixture.is_rotated();
}

fn a_named_job_decides_though_a_later_job_failed() {
    let fixture = of(vec![deploy(), JobSpec::new("notify").stage("notify").fails()]);
    let ended = named(&fixture, "deploy").go();
    ended.ends(0, "rotated");
    assert_eq!(ended.report["deploys"][0]["status"], "success");
    fixture.is_rotated();
    assert_eq!(started(&fixture), 1);
}

fn a_named_job_decides_while_another_still_runs() {
    let fixture = of(vec![deploy(), JobSpec::new("soak").stage("soak").never_ends()]);
    named(&fixture, "deploy").go().ends(0, "rotated");
    fixture.is_rotated();
}

fn a_named_job_that_waits_for_a_person_is_not_started_again() {
    let fixture = of(vec![JobSpec::new("build"), deploy().manual().allow_failure()]);
    for _ in 0..2 {
        fails(&fixture, &named(&fixture, "deploy").go(), "job deploy waits for a person");
    }
    play(&fixture, PROJECT, "deploy");
    proves(&fixture, "deploy");
}

fn a_named_job_behind_an_approval_is_not_started_again() {
    let fixture = of(vec![JobSpec::new("approve").stage("approve").manual(), deploy()]);
    for _ in 0..2 {
        fails(&fixture, &named(&fixture, "deploy").go(), "job deploy is created");
    }
    play(&fixture, PROJECT, "approve");
    proves(&fixture, "deploy");
}

/// `needs:` an optional manual job: the pipeline passes and the deploy is skipped until somebody
/// approves.
fn a_named_job_that_an_approval_sets_off_is_not_started_again() {
    let approve = JobSpec::new("approve").stage("approve").manual().allow_failure();
    let fixture = of(vec![approve, deploy().no_runner()]);
    named(&fixture, "deploy").set("ROTATOR_DEPLOY_TIMEOUT", "0s").go().ends(0, "deploying");
    let waits = job(&fixture, PROJECT, "deploy", "pending");
    fixture.fake.job_set_status(waits, "skipped");
    fails(&fixture, &named(&fixture, "deploy").go(), "job approve waits for a person");
    assert_eq!(started(&fixture), 1);
}

fn a_named_job_that_failed_may_be_retried_while_its_pipeline_runs() {
    let slow = JobSpec::new("test").stage("deploy").ms(4000);
    let fixture = of(vec![deploy().allow_failure().fails_once(), slow]);
    let fake = fixture.fake.clone();
    let retried = move || {
        let jobs = fake.jobs(PROJECT).into_iter();
        let failed = jobs.filter(|job| job.name == "deploy" && job.status == "failed");
        fake.operator_retries_job(failed.map(|job| job.id).max().expect("it has failed"));
    };
    let failed = |entry: &Entry| entry.action == "job failed" && entry.what.starts_with("deploy ");
    let run = named(&fixture, "deploy").set("ROTATOR_DEPLOY_TIMEOUT", "1m").once(failed, retried);
    run.go().ends(0, "rotated");
    assert_eq!(started(&fixture), 1);
    fixture.is_rotated();
}

fn a_named_job_that_failed_is_started_again_by_the_next_run() {
    let fixture = of(vec![JobSpec::new("build"), deploy().allow_failure().fails()]);
    fails(&fixture, &named(&fixture, "deploy").go(), "job deploy failed");
    fixture.fake.set_pipeline_config(PROJECT, vec![JobSpec::new("build"), deploy()]);
    named(&fixture, "deploy").go().ends(0, "resumed");
    assert_eq!(started(&fixture), 2);
    fixture.is_rotated();
}

/// It succeeded, somebody ran it again, and that try failed: what runs now is not known.
fn of_a_named_job_the_newest_try_counts() {
    let fixture = of(vec![JobSpec::new("build"), deploy().ms(9000)]);
    named(&fixture, "deploy").set("ROTATOR_DEPLOY_TIMEOUT", "0s").go().ends(0, "deploying");
    fixture.fake.finish_pipelines();
    fixture.fake.set_job_end("deploy", JobEnd::Failure);
    fixture.fake.operator_retries_job(job(&fixture, PROJECT, "deploy", "success"));
    fixture.fake.finish_pipelines();
    fixture.fake.set_pipeline_config(PROJECT, vec![deploy().fails()]);
    fails(&fixture, &named(&fixture, "deploy").go(), "job deploy failed");
    assert_eq!(started(&fixture), 2);
}

/// The second child comes later: the job in the first one is a part, not the whole.
fn a_named_job_counts_in_every_child() {
    let child =
        |job: JobSpec, stage: &str, name: &str| JobSpec::child(name, vec![job], false).stage(stage);
    let fixture = of(vec![
        child(JobSpec::deploy("deploy", "staging"), "one", "first"),
        JobSpec::new("wait").stage("two").ms(2500),
        child(deploy().ms(1500), "three", "second"),
    ]);
    let ended = named(&fixture, "deploy").set("ROTATOR_DEPLOY_TIMEOUT", "1m").go();
    ended.ends(0, "rotated");
    let new = fixture.new_key().id;
    let text = format!("deploy of {PROJECT} success with {new}");
    let both = ended.log.iter().filter(|entry| entry.action == "job success" && entry.what == text);
    let both: Vec<usize> = both.map(|entry| entry.seq).collect();
    assert!(both.len() == 2 && both.iter().all(|seq| *seq < disabled_at(&fixture, &ended.log)));
    fixture.is_rotated();
}

fn a_named_job_of_a_child_that_an_operator_starts_is_waited_for() {
    let child = JobSpec::child("deployment", vec![deploy()], false).manual().allow_failure();
    let fixture = of(vec![JobSpec::new("build"), child]);
    for _ in 0..2 {
        let ended = named(&fixture, "deploy").go();
        fails(&fixture, &ended, "there is no job deploy, but trigger job deployment waits for a");
    }
    play(&fixture, PROJECT, "deployment");
    proves(&fixture, "deploy");
}

/// Project 43 is not this token's to see.
fn with_a_hidden_project(jobs: Vec<JobSpec>) -> Fixture {
    let fixture = of(jobs);
    fixture.fake.add_project(OTHER, "acme/quality");
    fixture.fake.set_pipeline_config(OTHER, vec![JobSpec::new("check")]);
    let token = fixture.fake.token.clone();
    fixture.fake.change_token(&token, |token| {
        token.levels.insert(project(OTHER), 0);
    });
    fixture
}

fn a_named_job_is_proof_beside_a_pipeline_that_the_token_cannot_see() {
    let fixture = with_a_hidden_project(vec![deploy(), JobSpec::bridge("check", OTHER, false)]);
    named(&fixture, "deploy").go().ends(0, "rotated");
    fixture.is_rotated();
}

fn a_named_job_in_a_pipeline_that_the_token_cannot_see_is_no_proof() {
    let fixture = with_a_hidden_project(vec![deploy(), JobSpec::bridge("release", OTHER, true)]);
    for jobs in ["deploy,check", "release"] {
        let ended = named(&fixture, jobs).go();
        fails(&fixture, &ended, "of project 43 cannot be read with this token");
    }
    assert_eq!(started(&fixture), 1);
}

/// The deploy is a trigger job; what it triggers deploys project 43.
fn triggering(depend: bool, downstream: Vec<JobSpec>) -> Fixture {
    let fixture = of(vec![JobSpec::new("build"), JobSpec::bridge("release", OTHER, depend)]);
    add_project(&fixture, OTHER, "acme/deployer", "*");
    fixture.fake.set_pipeline_config(OTHER, downstream);
    fixture.fake.unwatch_deploy(PROJECT);
    fixture
}

fn released(fixture: &Fixture) -> Run<'_> {
    named(fixture, "release")
        .set("ROTATOR_TARGETS", "project:42,project:43")
        .set("ROTATOR_DEPLOY_PROJECTS", "42")
}

fn is_released(fixture: &Fixture) {
    holds_the_new_key(fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
    production_is_new(fixture, OTHER);
}

fn a_named_trigger_job_counts_with_what_it_triggers() {
    counts_with_what_it_triggers(true);
}

fn a_named_trigger_job_that_waits_for_nobody_counts_with_what_it_triggers() {
    counts_with_what_it_triggers(false);
}

fn counts_with_what_it_triggers(depend: bool) {
    let fixture = triggering(depend, vec![JobSpec::deploy("go", "production").ms(1500)]);
    let ended = released(&fixture).set("ROTATOR_DEPLOY_TIMEOUT", "1m").go();
    ended.ends(0, "rotated");
    assert!(deployed_at(&fixture, &ended.log, OTHER, "go") < disabled_at(&fixture, &ended.log));
    is_released(&fixture);
}

fn a_named_trigger_job_waits_for_an_operator_in_what_it_triggers() {
    let go = JobSpec::deploy("go", "production").manual().allow_failure();
    let fixture = triggering(true, vec![JobSpec::new("prepare"), go]);
    for _ in 0..2 {
        let ended = released(&fixture).go();
        ended.ends(4, "deploy_failed");
        assert!(ended.stderr.contains("job go is manual"), "{}", ended.stderr);
    }
    play(&fixture, OTHER, "go");
    released(&fixture).go().ends(0, "resumed");
    assert_eq!(started(&fixture), 1);
    is_released(&fixture);
}

fn a_named_trigger_job_fails_with_what_it_triggers() {
    for depend in [true, false] {
        let fixture = triggering(depend, vec![JobSpec::deploy("go", "production").fails_once()]);
        let ended = released(&fixture).go();
        ended.ends(4, "deploy_failed");
        fixture.fake.operator_retries_job(job(&fixture, OTHER, "go", "failed"));
        fixture.fake.finish_pipelines();
        released(&fixture).go().ends(0, "resumed");
        assert_eq!(started(&fixture), 1);
        is_released(&fixture);
    }
}

/// A freeze of many nights costs two pipelines, and the first run after it deploys.
fn a_job_that_a_freeze_left_out_is_there_after_it() {
    let fixture = of(vec![JobSpec::new("build"), deploy().not_in_a_freeze()]);
    fixture.fake.set_frozen(PROJECT, true);
    for night in 1..=4 {
        fails(&fixture, &named(&fixture, "deploy").go(), "there is no job deploy");
        assert_eq!(started(&fixture), night.min(2));
    }
    fixture.fake.set_frozen(PROJECT, false);
    named(&fixture, "deploy").go().ends(0, "resumed");
    assert_eq!(started(&fixture), 3);
    fixture.is_rotated();
}

/// Until the ref has another commit or a setting changes.
fn two_pipelines_without_the_named_job_are_enough() {
    let fixture = of(vec![JobSpec::new("build"), deploy()]);
    let lacks = |jobs: &str, pipelines: usize, why: &str| {
        fails(&fixture, &named(&fixture, jobs).go(), why);
        assert_eq!(started(&fixture), pipelines);
    };
    let (first, third) = ("there is no job migrate", "the pipeline before it ended the same way");
    lacks("deploy,migrate", 1, first);
    lacks("deploy,migrate", 2, first);
    lacks("deploy,migrate", 2, third);
    fixture.fake.operator_pushes(PROJECT, "main");
    lacks("deploy,migrate", 3, first);
    lacks("deploy,migrate", 4, first);
    lacks("deploy,migrate", 4, third);
    lacks("deploy,migrate,smoke", 5, "there is no job smoke");
    named(&fixture, "deploy").go().ends(0, "resumed");
    assert_eq!(started(&fixture), 5);
    fixture.is_rotated();
}
