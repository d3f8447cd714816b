//! Records: whose they are, where they lie, and what a run does about one that another has left.

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_retry_waits_for_the_end_of_its_lost_job_and_completes_the_pair,
        a_retry_waits_where_gitlab_does_not_say_when_the_lost_job_ended,
        the_order_of_the_targets_may_change_while_one_is_torn,
        a_claim_at_the_home_of_another_order_is_seen,
        users_of_one_name_in_two_accounts_leave_each_other_alone,
        a_copied_tag_makes_no_record_ours,
        a_namesake_of_another_account_at_work_is_no_rival,
        a_namesake_whose_account_is_not_known_is_one,
        a_first_key_of_another_place_is_not_ours,
        a_renamed_user_goes_on_with_its_rotation,
        what_only_begins_like_a_record_is_none,
        a_line_that_nobody_understands_stops_in_a_records_variable_alone,
    ]
}

const SECRET_WRITE: &str = "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY";
const SCOPE: &str = "credential-rotator";

/// A run dies right after this call of it; its job has failed, so long ago.
fn dies_after(fixture: &Fixture, run: Run<'_>, call: &str, seconds_ago: i64) {
    let job = run.job;
    let running = run.start();
    let pid = running.pid();
    fixture.fake.on_kill(move || {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    });
    fixture.fake.fault_on(call, 1, Fault::KillAfter);
    assert_eq!(running.wait().code, -9);
    let then = fixture.fake.now() - seconds_ago * 1000;
    fixture.fake.add_job_at(PROJECT, job, "failed", Some(then - 1000), Some(then));
}

fn is_torn(fixture: &Fixture, home: Home, scope: &str) -> bool {
    let (id, secret) = fixture.stored_in(home, scope);
    id == fixture.old.id && secret != fixture.old.secret
}

fn a_retry_waits_for_the_end_of_its_lost_job_and_completes_the_pair() {
    let fixture = Fixture::of_days(75);
    dies_after(&fixture, fixture.run(), SECRET_WRITE, 115);
    assert!(is_torn(&fixture, project(PROJECT), "*"));
    let ended = fixture.run().go();
    ended.ends(0, "resumed");
    assert!(ended.stderr.contains("another run's job has just ended"), "{}", ended.stderr);
    fixture.is_rotated();
}

fn a_retry_waits_where_gitlab_does_not_say_when_the_lost_job_ended() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_job(PROJECT, 8000, "running");
    announce(&fixture, project(PROJECT), 8000, None);
    fixture.fake.add_job_at(PROJECT, 8000, "failed", Some(fixture.fake.now()), None);
    // The whole two minutes would be a long case: that it waits is enough.
    let ended = fixture.run().go_until(|entry| entry.action == "GET /projects/:id/jobs/:number");
    assert!(ended.code > 128, "{}", ended.stderr);
    assert_eq!(ended.effects(), Vec::<String>::new());
}

fn the_order_of_the_targets_may_change_while_one_is_torn() {
    let fixture = Fixture::of_days(75);
    add_project(&fixture, OTHER, "acme/other", "*");
    let run = fixture.run().set("ROTATOR_TARGETS", "project:42,project:43");
    dies_after(&fixture, run, SECRET_WRITE, 600);
    assert!(is_torn(&fixture, project(PROJECT), "*"));
    fixture.run().set("ROTATOR_TARGETS", "project:43,project:42").go().ends(0, "resumed");
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
    assert_eq!(fixture.records_in(project(PROJECT)).len(), 0, "it is taken over where it lies");
    assert_eq!(fixture.records_in(project(OTHER)).len(), 1);
}

/// A record of a run that has announced itself and nothing more.
fn announce(fixture: &Fixture, home: Home, job: u64, account: Option<&str>) {
    let now = |seconds: i64| moment(fixture.fake.now() + seconds * 1000);
    let mut record = serde_json::json!({
        "user": USER, "job": format!("{PROJECT}/{job}"), "at": now(-60), "ends": now(3000),
    });
    if let Some(account) = account {
        record["account"] = account.into();
    }
    let name = format!("CREDENTIAL_ROTATOR_{job}_0badcafe");
    fixture.fake.set_variable(home, Variable::new(&name, &record.to_string()).scope(SCOPE));
}

fn a_claim_at_the_home_of_another_order_is_seen() {
    let fixture = Fixture::of_days(75);
    add_project(&fixture, OTHER, "acme/other", "*");
    fixture.fake.add_job(PROJECT, 8000, "running");
    announce(&fixture, project(OTHER), 8000, None);
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42,project:43").go();
    ended.ends(5, "busy");
    assert_eq!(ended.effects(), Vec::<String>::new());
}

/// Account 1 publishes to production, account 2 to staging; both users are called alike.
struct TwoAccounts {
    fixture: Fixture,
    staging: Fake,
}

impl TwoAccounts {
    fn new() -> Self {
        let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
        let staging = Fake::builder().seed(8).calm().start();
        staging.set_account("210987654321");
        staging.add_user("/service/ci/", USER);
        let key = staging.add_key(USER, 75);
        store(&fixture, project(PROJECT), "production", &fixture.old);
        store(&fixture, project(PROJECT), "staging", &key);
        Self { fixture, staging }
    }

    /// A job whose environment is this scope gets the pair that stands there.
    fn run(&self, scope: &str) -> Run<'_> {
        let (id, secret) = self.fixture.stored_in(project(PROJECT), scope);
        let run = self.fixture.run().set(ID, &id).set(SECRET, &secret).beside_another();
        let run = run.set("ROTATOR_TARGETS", &format!("project:42@{scope}"));
        if scope == "staging" { run.set("AWS_ENDPOINT_URL", &self.staging.url) } else { run }
    }
}

fn users_of_one_name_in_two_accounts_leave_each_other_alone() {
    let two = TwoAccounts::new();
    dies_after(&two.fixture, two.run("production"), SECRET_WRITE, 600);
    let torn = two.fixture.records().remove(0).value;
    // Production's own deploy would fail with the torn pair.
    let production = vec![JobSpec::deploy("deploy", "production")];
    two.fixture.fake.set_pipeline_config(PROJECT, vec![JobSpec::new("deploy-staging")]);
    two.run("staging").set("ROTATOR_OVERLAP", "12h").go().ends(0, "rotated");
    assert!(two.fixture.records().iter().any(|record| record.value == torn), "it was taken over");
    let waiting = two.fixture.records().len();
    two.fixture.fake.set_pipeline_config(PROJECT, production);
    two.run("production").go().ends(0, "resumed");
    holds_the_new_key(&two.fixture, &[(project(PROJECT), "production")]);
    assert_eq!(two.fixture.records().len(), waiting, "each has a record of its own");
    two.run("staging").go().ends(0, "resumed");
    assert_eq!(two.staging.keys(USER).len(), 1);
}

/// Whoever copied production's variables to staging pasted staging's pair, and left the description.
fn a_copied_tag_makes_no_record_ours() {
    let two = TwoAccounts::new();
    let fake = &two.fixture.fake;
    two.run("production").set("ROTATOR_OVERLAP", "12h").go().ends(0, "rotated");
    let tag = fake.variable(PROJECT, SECRET, "production").unwrap().description;
    fake.operator_edits_variable(PROJECT, SECRET, "staging", |variable| {
        variable.description.clone_from(&tag);
    });
    fake.time_passes(600);
    let waiting = two.fixture.records().remove(0);
    fake.set_pipeline_config(PROJECT, vec![JobSpec::new("deploy-staging")]);
    two.run("staging").go().ends(0, "rotated");
    let is_left = |record: &Variable| record.value == waiting.value;
    assert!(two.fixture.records().iter().any(is_left), "it was taken over");
    assert_eq!(two.staging.keys(USER).len(), 1);
}

fn a_namesake_of_another_account_at_work_is_no_rival() {
    let two = TwoAccounts::new();
    two.fixture.fake.add_job(PROJECT, 8000, "running");
    announce(&two.fixture, project(PROJECT), 8000, Some("123456789012"));
    two.run("production").go().ends(5, "busy");
    two.run("staging").go().ends(0, "rotated");
}

fn a_namesake_whose_account_is_not_known_is_one() {
    let two = TwoAccounts::new();
    two.fixture.fake.add_job(PROJECT, 8000, "running");
    announce(&two.fixture, project(PROJECT), 8000, None);
    two.run("staging").go().ends(5, "busy");
}

/// It names no key, so user and place decide.
fn a_first_key_of_another_place_is_not_ours() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    store(&fixture, project(PROJECT), "production", &fixture.old);
    let creating = moment(fixture.fake.now() - 600_000);
    let place = |scope: &str| serde_json::json!([{ "place": { "owner": { "project": 42 }, "scope": scope } }]);
    let progress = |scope| serde_json::json!({ "from": [], "creating": creating, "previous": [null], "targets": place(scope) });
    leave_record(&fixture, project(PROJECT), &progress("staging"));
    let run = || fixture.run().set("ROTATOR_TARGETS", "project:42@production");
    let ended = run().with_pair(&fixture.old).go();
    ended.ends(0, "rotated");
    assert_eq!(fixture.records().len(), 2, "the other place's record is left where it is");
}

fn a_renamed_user_goes_on_with_its_rotation() {
    let fixture = Fixture::of_days(75);
    let creating = moment(fixture.fake.now() - 600_000);
    let at = moment(fixture.fake.now() - 500_000);
    let progress = serde_json::json!({
        "from": [fixture.old.id], "creating": creating, "previous": [fixture.old.id],
    });
    let line = serde_json::json!({ "user": "formerly", "at": at, "progress": progress });
    let name = "CREDENTIAL_ROTATOR_8000_00c0ffee";
    fixture.fake.set_variable(PROJECT, Variable::new(name, &line.to_string()).scope(SCOPE));
    fixture.run().go().ends(0, "rotated");
    assert!(fixture.records().iter().all(|record| record.key != name));
}

fn what_only_begins_like_a_record_is_none() {
    let fixture = Fixture::of_days(75);
    let own = [
        ("CREDENTIAL_ROTATOR_TOKEN", "*"),
        ("CREDENTIAL_ROTATOR_TOKEN", SCOPE),
        // The whole name, in a scope where no record of a project lies.
        ("CREDENTIAL_ROTATOR_8000_00c0ffee", "*"),
    ];
    for (name, scope) in own {
        fixture.fake.set_variable(PROJECT, Variable::new(name, "a token").scope(scope));
    }
    fixture.run().go().ends(0, "rotated");
    for (name, scope) in own {
        assert!(fixture.fake.variable(PROJECT, name, scope).is_some(), "{name}@{scope} is gone");
    }
}

fn a_line_that_nobody_understands_stops_in_a_records_variable_alone() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    publish(&fixture, group(7), "*");
    let name = "CREDENTIAL_ROTATOR_8000_00c0ffee";
    fixture.fake.set_variable(group(7), Variable::new(name, "a token"));
    let run = || fixture.run().set("ROTATOR_TARGETS", "project:42,group:7");
    run().go().ends(3, "refused");
    fixture.fake.operator_removes_variable(group(7), name, "*");
    run().go().ends(0, "rotated");
}
