//! `retire` proves the deploy of the pipeline that it is part of, and starts nothing.

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_job_of_the_own_pipeline_that_waits_for_an_operator_is_waited_for,
        a_job_of_the_own_pipeline_that_failed_is_given_up_at_once,
        a_job_of_a_child_of_the_own_pipeline_is_waited_for,
        a_child_of_the_own_pipeline_that_was_not_begun_is_not_waited_for,
        the_rotations_own_jobs_prove_nothing,
        the_callers_word_does_not_count_in_a_freeze,
        the_callers_word_does_not_count_for_a_deploy_before_the_pair_was_in_place,
        a_job_that_a_freeze_left_out_of_the_own_pipeline_is_given_up,
    ]
}

/// The rotator's job, what deploys, and the rotator's job again: the first one has run.
fn rotated(jobs: Vec<JobSpec>) -> Fixture {
    begun(Fixture::of_days(75), "schedule", jobs)
}

fn begun(fixture: Fixture, source: &str, jobs: Vec<JobSpec>) -> Fixture {
    fixture.fake.tune(|knobs| knobs.queue_ms = 3000);
    let rotator = |name: &str, stage: &str| JobSpec::new(name).stage(stage).never_ends();
    let mut jobs = [vec![rotator("rotate", "1"), rotator("retire", "3")], jobs].concat();
    jobs.sort_by(|one, other| one.stage.cmp(&other.stage));
    fixture.fake.start_pipeline_with(PROJECT, source, "main", jobs);
    as_job(&fixture, "rotate").go().ends(0, "deploying");
    fixture
}

fn as_job<'a>(fixture: &'a Fixture, name: &str) -> Run<'a> {
    let job = fixture.running_job(PROJECT, name).id;
    let action = if name == "rotate" { "rotate" } else { "retire" };
    fixture.run_as(PROJECT, job).set("ROTATOR_DEPLOY", "none").set("ROTATOR_ACTION", action)
}

fn retire<'a>(fixture: &'a Fixture, jobs: &str) -> Run<'a> {
    as_job(fixture, "retire").set("ROTATOR_DEPLOY_JOBS", jobs)
}

fn deploy() -> JobSpec {
    JobSpec::deploy("deploy", "production").stage("2")
}

/// At once: no wait, no pipeline.
#[track_caller]
fn gives_up(fixture: &Fixture, ended: &Ended, why: &str) {
    ended.ends(4, "deploy_failed");
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
    assert!(!ended.stderr.contains("waiting: "), "{}", ended.stderr);
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 0);
    holds_both_keys(fixture);
}

fn a_job_of_the_own_pipeline_that_waits_for_an_operator_is_waited_for() {
    let fixture = rotated(vec![deploy().manual().allow_failure()]);
    let fake = fixture.fake.clone();
    let play = move || {
        let jobs = fake.jobs(PROJECT).into_iter().filter(|job| job.status == "manual");
        fake.operator_plays_job(jobs.map(|job| job.id).max().expect("it waits"));
    };
    let looked = |entry: &Entry| entry.action == "GET /projects/:id/pipelines/:number/bridges";
    retire(&fixture, "deploy").once(looked, play).go().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_job_of_the_own_pipeline_that_failed_is_given_up_at_once() {
    let fixture = rotated(vec![deploy().allow_failure().fails()]);
    gives_up(&fixture, &retire(&fixture, "deploy").go(), "job deploy failed");
}

fn a_job_of_a_child_of_the_own_pipeline_is_waited_for() {
    let child = JobSpec::child("release", vec![deploy().ms(2000)], false).stage("2");
    let fixture = rotated(vec![child]);
    let ended = retire(&fixture, "deploy").go();
    ended.ends(0, "resumed");
    assert!(ended.stderr.contains("waiting: "), "{}", ended.stderr);
    fixture.is_rotated();
}

/// It waits for the job that would wait for it.
fn a_child_of_the_own_pipeline_that_was_not_begun_is_not_waited_for() {
    let child = JobSpec::child("release", vec![deploy()], false).stage("4");
    let fixture = rotated(vec![JobSpec::new("build").stage("2"), child]);
    gives_up(&fixture, &retire(&fixture, "deploy").go(), "there is no job deploy");
}

fn the_rotations_own_jobs_prove_nothing() {
    let fixture = rotated(vec![deploy()]);
    gives_up(&fixture, &retire(&fixture, "deploy,retire").go(), "there is no job retire");
}

fn the_callers_word_does_not_count_in_a_freeze() {
    let fixture = begun(Fixture::of_days(75), "web", vec![deploy().not_in_a_freeze()]);
    fixture.fake.set_frozen(PROJECT, true);
    gives_up(&fixture, &as_job(&fixture, "retire").go(), "a deploy freeze is on");
}

/// The pipeline deploys what an operator has put back; then the new pair is restored.
fn the_callers_word_does_not_count_for_a_deploy_before_the_pair_was_in_place() {
    let fixture = begun(Fixture::of_days(75), "web", vec![deploy()]);
    let new = fixture.new_key();
    fixture.fake.set_pair(PROJECT, &fixture.old);
    let job = fixture.running_job(PROJECT, "retire").id;
    as_job(&fixture, "retire").go().ends(3, "refused");
    fixture.fake.set_pair(PROJECT, &new);
    fixture.fake.operator_retries_job(job);
    gives_up(&fixture, &as_job(&fixture, "retire").go(), "in place");
}

fn a_job_that_a_freeze_left_out_of_the_own_pipeline_is_given_up() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_frozen(PROJECT, true);
    let fixture = begun(fixture, "schedule", vec![deploy().not_in_a_freeze()]);
    gives_up(&fixture, &retire(&fixture, "deploy").go(), "there is no job deploy");
}
