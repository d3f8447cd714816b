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
        rotations_of_two_homes_do_not_wait_for_jobs_of_their_own_name,
        a_rotation_that_a_record_names_is_not_waited_for,
        a_rotation_whose_record_comes_later_is_not_waited_for_any_more,
        a_job_of_the_own_name_in_another_project_is_waited_for,
        of_two_rotations_that_wait_for_each_other_the_older_goes_on,
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
    fixture.fake.rename_job(500, "seed");
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

const CENTRAL: u64 = 50;

/// Two users with homes of their own, and one project that runs both jobs and is deployed by both.
struct TwoHomes {
    fixture: Fixture,
    backup: Pair,
}

impl TwoHomes {
    fn with_jobs(names: [&str; 2]) -> Self {
        let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
        let fake = &fixture.fake;
        fake.set_pair(PROJECT, &fixture.old);
        fake.add_project(OTHER, "acme/other");
        fake.add_user("/", "backup");
        let backup = fake.add_key("backup", 75);
        fake.set_pair(OTHER, &backup);
        fake.add_project(CENTRAL, "acme/central");
        fake.set_pipeline_config(CENTRAL, vec![JobSpec::new("deploy")]);
        for (job, name) in [500, 501].into_iter().zip(names) {
            fake.add_job(CENTRAL, job, "running");
            fake.rename_job(job, name);
        }
        Self { fixture, backup }
    }

    /// Both at once; how each ended.
    fn go(&self, timeout: &str) -> [Ended; 2] {
        let run = |job, home: &str, pair: &Pair| {
            let run = self.fixture.run_as(CENTRAL, job).with_pair(pair).beside_another();
            run.set("ROTATOR_TARGETS", home)
                .set("ROTATOR_DEPLOY_PROJECTS", "50")
                .set("ROTATOR_DEPLOY_TIMEOUT", timeout)
                .go()
        };
        std::thread::scope(|scope| {
            let one = scope.spawn(|| run(500, "project:42", &self.fixture.old));
            let two = scope.spawn(|| run(501, "project:43", &self.backup));
            [one.join().unwrap(), two.join().unwrap()]
        })
    }
}

fn rotations_of_two_homes_do_not_wait_for_jobs_of_their_own_name() {
    for names in
        [["rotate", "rotate"], ["rotate: [shop]", "rotate: [backup]"], ["rotate 1/2", "rotate 2/2"]]
    {
        let [one, two] = TwoHomes::with_jobs(names).go("60s");
        one.ends(0, "rotated");
        two.ends(0, "rotated");
        for ended in [one, two] {
            assert!(!ended.stderr.contains("still run: rotate"), "{names:?}: {}", ended.stderr);
        }
    }
}

/// Neither reads the other's home, and their names tell nothing.
fn of_two_rotations_that_wait_for_each_other_the_older_goes_on() {
    let two = TwoHomes::with_jobs(["rotate-shop", "rotate-backup"]);
    let [older, younger] = two.go("16s");
    older.ends(0, "rotated");
    younger.ends(0, "deploying");
    let (id, secret) = two.fixture.stored_in(project(OTHER), "*");
    let run = two.fixture.run().set(ID, &id).set(SECRET, &secret).beside_another();
    run.set("ROTATOR_TARGETS", "project:43")
        .set("ROTATOR_DEPLOY_PROJECTS", "50")
        .go()
        .ends(0, "resumed");
    assert_eq!(two.fixture.fake.keys("backup").len(), 1, "the next run has finished it");
}

/// The job runs in the target's project under another name.
fn rotation_of_another_user(fixture: &Fixture) -> impl FnOnce() + Send + 'static + use<> {
    fixture.fake.add_job(PROJECT, 500, "running");
    fixture.fake.rename_job(500, "rotate-backup");
    let now = |seconds: i64| moment(fixture.fake.now() + seconds * 1000);
    let record = serde_json::json!({
        "user": "backup", "job": "42/500", "at": now(-60), "ends": now(3000),
    });
    let record = Variable::new("CREDENTIAL_ROTATOR_500_0badcafe", &record.to_string());
    let fake = fixture.fake.clone();
    move || fake.set_variable(PROJECT, record.scope("credential-rotator"))
}

fn a_rotation_that_a_record_names_is_not_waited_for() {
    let fixture = Fixture::of_days(75);
    rotation_of_another_user(&fixture)();
    fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "10s").go().ends(0, "rotated");
}

fn a_rotation_whose_record_comes_later_is_not_waited_for_any_more() {
    let fixture = Fixture::of_days(75);
    let claims = rotation_of_another_user(&fixture);
    let run = fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "20s");
    run.once(|entry| entry.looks_for_running_jobs(), claims).go().ends(0, "rotated");
}

/// Every project may have a job of that name; there it is no rotation.
fn a_job_of_the_own_name_in_another_project_is_waited_for() {
    let fixture = Fixture::of_days(75);
    add_project(&fixture, OTHER, "acme/other", "*");
    fixture.fake.add_job(OTHER, 500, "running");
    let run = fixture.run().set("ROTATOR_TARGETS", "project:42,project:43");
    run.set("ROTATOR_DEPLOY_TIMEOUT", "2s").go().ends(0, "deploying");
    holds_both_keys(&fixture);
}
