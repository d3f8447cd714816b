//! Jobs that run with the old pair are waited for before a deploy starts: none of them may be what
//! stays deployed.

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        an_in_flight_job_push_pipeline_is_over_before_the_deploy_starts,
        a_pair_that_was_put_back_during_the_wait_is_not_deployed,
        an_environment_is_redeployed_as_the_in_flight_job_leaves_it,
        an_in_flight_job_that_outlasts_the_run_is_left_to_the_next_one,
        an_in_flight_job_of_a_deploy_project_counts,
        an_in_flight_job_that_is_being_canceled_counts,
        an_in_flight_job_on_the_second_page_is_seen,
        an_old_gitlab_without_canceling_jobs_is_asked_all_the_same,
        a_job_that_waits_for_its_runner_is_no_elder,
    ]
}

/// A push pipeline that has picked up the old pair and does not end by itself.
fn push(fixture: &Fixture, id: u64) -> JobView {
    fixture.fake.start_pipeline_with(
        id,
        "push",
        "main",
        vec![JobSpec::deploy("deploy", "production").never_ends()],
    );
    let job = fixture.running_job(id, "deploy");
    assert_eq!(job.pair.as_ref().map(|pair| &pair.id), Some(&fixture.old.id));
    job
}

fn ends(fake: &Fake, job: u64) {
    fake.finish_job(job);
}

fn an_in_flight_job_push_pipeline_is_over_before_the_deploy_starts() {
    let fixture = Fixture::of_days(75);
    let in_flight = push(&fixture, PROJECT);
    let fake = fixture.fake.clone();
    let ended =
        fixture.run().once(Entry::looks_for_running_jobs, move || ends(&fake, in_flight.id)).go();
    ended.ends(0, "rotated");
    let over = only(&ended.log, "the push ends", |entry| {
        entry.action == "job success" && entry.what.ends_with(&fixture.old.id)
    });
    let started = only(&ended.log, "the deploy starts", |entry| {
        entry.action == "POST /projects/:id/pipeline"
    });
    assert!(over < started && started < disabled_at(&fixture, &ended.log));
    production_is_new(&fixture, PROJECT);
    fixture.is_rotated();
}

/// An operator puts the old pair back while the push is waited for: a deploy that started now would
/// ship it and count as proof of the new one.
fn a_pair_that_was_put_back_during_the_wait_is_not_deployed() {
    let fixture = Fixture::of_days(75);
    let in_flight = push(&fixture, PROJECT);
    let (fake, old) = (fixture.fake.clone(), fixture.old.clone());
    let put_back = move || {
        fake.set_pair(PROJECT, &old);
        ends(&fake, in_flight.id);
    };
    let ended = fixture.run().once(Entry::looks_for_running_jobs, put_back).go();
    ended.ends(3, "refused");
    assert!(ended.stderr.contains("was changed by someone after key"), "{}", ended.stderr);
    let starts = |entry: &&Entry| entry.action == "POST /projects/:id/pipeline";
    assert_eq!(ended.log.iter().filter(starts).count(), 0);
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 1));
}

/// The push ships a newer commit and ends last: its job is the live one then, and that one is
/// retried.
fn an_environment_is_redeployed_as_the_in_flight_job_leaves_it() {
    let fixture = Fixture::of_days(75);
    let in_flight = push(&fixture, PROJECT);
    fixture.fake.set_job_end("deploy", JobEnd::Success);
    let (fake, id) = (fixture.fake.clone(), in_flight.id);
    let run = fixture.run().set("ROTATOR_DEPLOY", "environment/production");
    let ended = run.once(Entry::looks_for_running_jobs, move || ends(&fake, id)).go();
    ended.ends(0, "rotated");
    let retried = only(&ended.log, "one retry", |entry| {
        entry.action == "POST /projects/:id/jobs/:number/retry"
    });
    assert!(
        only(&ended.log, "the push ends", |entry| entry.action == "job success"
            && entry.what.ends_with(&fixture.old.id))
            < retried
    );
    let last = fixture
        .fake
        .jobs(PROJECT)
        .into_iter()
        .filter(|job| job.name == "deploy")
        .max_by_key(|job| job.id)
        .unwrap();
    assert_eq!((last.pipeline, last.status.as_str()), (in_flight.pipeline, "success"));
    production_is_new(&fixture, PROJECT);
    fixture.is_rotated();
}

fn an_in_flight_job_that_outlasts_the_run_is_left_to_the_next_one() {
    let fixture = Fixture::of_days(75);
    let in_flight = push(&fixture, PROJECT);
    let ended = fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "2s").go();
    ended.ends(0, "deploying");
    assert!(
        ended.stderr.contains("deploy ("),
        "the job that is waited for is named: {}",
        ended.stderr
    );
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 0);
    holds_both_keys(&fixture);
    ends(&fixture.fake, in_flight.id);
    assert_eq!(fixture.fake.productions(PROJECT)[0].1.id, fixture.old.id);
    fixture.run().go().ends(0, "resumed");
    production_is_new(&fixture, PROJECT);
    fixture.is_rotated();
}

fn an_in_flight_job_of_a_deploy_project_counts() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    publish(&fixture, group(7), "*");
    add_project(&fixture, OTHER, "acme/other", "*");
    fixture.fake.operator_removes_variable(OTHER, ID, "*");
    fixture.fake.operator_removes_variable(OTHER, SECRET, "*");
    fixture.fake.unwatch_target(OTHER);
    let in_flight = push(&fixture, OTHER);
    let run = |fixture| {
        Fixture::run(fixture)
            .set("ROTATOR_TARGETS", "group:7,project:42")
            .set("ROTATOR_DEPLOY_PROJECTS", "42,acme/other")
    };
    let ended = run(&fixture).set("ROTATOR_DEPLOY_TIMEOUT", "2s").go();
    ended.ends(0, "deploying");
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 0);
    ends(&fixture.fake, in_flight.id);
    run(&fixture).go().ends(0, "resumed");
    production_is_new(&fixture, PROJECT);
    production_is_new(&fixture, OTHER);
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (group(7), "*")]);
}

fn an_in_flight_job_that_is_being_canceled_counts() {
    let fixture = Fixture::of_days(75);
    let in_flight = push(&fixture, PROJECT);
    fixture.fake.job_set_status(in_flight.id, "canceling");
    let ended = fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "2s").go();
    ended.ends(0, "deploying");
    fixture.fake.job_set_status(in_flight.id, "canceled");
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn an_in_flight_job_on_the_second_page_is_seen() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_job_at(PROJECT, 500, "running", Some(fixture.fake.now() - 60_000), None);
    // A hundred and thirty that will have begun after the publication; the list is newest first.
    let young = fixture.fake.now() + 600_000;
    for id in 7000..7130 {
        fixture.fake.add_job_at(PROJECT, id, "running", Some(young), None);
    }
    let ended = fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "2s").go();
    ended.ends(0, "deploying");
    assert!(ended.stderr.contains("/-/jobs/500"), "{}", ended.stderr);
    let second = |entry: &&Entry| {
        entry.action == "GET /projects/:id/jobs"
            && entry.what.contains("page=2")
            && entry.what.contains("running")
    };
    assert!(
        ended.log.iter().any(|entry| second(&entry)),
        "no second page of the running ones was asked for"
    );
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 0);
    fixture.fake.job_set_status(500, "success");
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn an_old_gitlab_without_canceling_jobs_is_asked_all_the_same() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| (knobs.new_job_scopes, knobs.trigger_jobs) = (false, false));
    let in_flight = push(&fixture, PROJECT);
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "2s").go().ends(0, "deploying");
    ends(&fixture.fake, in_flight.id);
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
    production_is_new(&fixture, PROJECT);
}

fn a_job_that_waits_for_its_runner_is_no_elder() {
    let fixture = Fixture::of_days(75);
    fixture.fake.start_pipeline_with(
        PROJECT,
        "push",
        "main",
        vec![JobSpec::new("build").no_runner()],
    );
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
}
