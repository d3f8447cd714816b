//! Shapes on the one fixture: more places that hold the pair, and what they hold in the end.

use fake::*;

pub(crate) const OTHER: u64 = 43;

/// A project with the old pair in a scope, its production running with it; the invariants watch
/// both.
pub(crate) fn add_project(fixture: &Fixture, id: u64, path: &str, scope: &str) {
    let fake = &fixture.fake;
    fake.add_project(id, path);
    fake.set_pipeline_config(
        id,
        vec![JobSpec::new("build"), JobSpec::deploy("deploy", "production")],
    );
    publish(fixture, project(id), scope);
    fixture.deploy(id);
}

/// The old pair in this scope, watched.
pub(crate) fn publish(fixture: &Fixture, home: Home, scope: &str) {
    store(fixture, home, scope, &fixture.old);
    fixture.fake.watch_target(home, scope, ID, SECRET);
}

pub(crate) fn store(fixture: &Fixture, home: Home, scope: &str, pair: &Pair) {
    fixture.fake.set_variable(home, Variable::new(ID, &pair.id).masked().scope(scope));
    fixture.fake.set_variable(home, Variable::new(SECRET, &pair.secret).masked().scope(scope));
}

/// Every place holds the one key that is left, and it is a new one.
#[track_caller]
pub(crate) fn holds_the_new_key(fixture: &Fixture, places: &[(Home, &str)]) {
    let new = fixture.new_key();
    assert_eq!(fixture.old_is_active(), None, "the old key is left");
    for (home, scope) in places {
        assert_eq!(
            fixture.stored_in(*home, scope),
            (new.id.clone(), new.secret.clone()),
            "{home}@{scope}"
        );
    }
}

/// Both keys work and the new one is published.
#[track_caller]
pub(crate) fn holds_both_keys(fixture: &Fixture) {
    let new = fixture.new_key();
    assert_eq!((fixture.stored().0, fixture.old_is_active()), (new.id, Some(true)));
}

/// The place in the log of the one entry that is meant.
#[track_caller]
pub(crate) fn only(log: &[Entry], which: &str, is: impl Fn(&Entry) -> bool) -> usize {
    let found: Vec<usize> = log.iter().filter(|entry| is(entry)).map(|entry| entry.seq).collect();
    let [seq] = found[..] else { panic!("{which}: {found:?}") };
    seq
}

/// When the old key was disabled.
#[track_caller]
pub(crate) fn disabled_at(fixture: &Fixture, log: &[Entry]) -> usize {
    only(log, "the old key is disabled", |entry| {
        entry.action == "iam:UpdateAccessKey"
            && entry.effect
            && entry.what.contains(&fixture.old.id)
    })
}

/// When the job of this name of this project succeeded with the new key.
#[track_caller]
pub(crate) fn deployed_at(fixture: &Fixture, log: &[Entry], project: u64, job: &str) -> usize {
    let new = fixture.new_key().id;
    let text = format!("{job} of {project} success with {new}");
    only(log, &text, |entry| entry.action == "job success" && entry.what == text)
}

/// What runs of this project was deployed with the new key, and it works.
#[track_caller]
pub(crate) fn production_is_new(fixture: &Fixture, project: u64) {
    let new = fixture.new_key();
    let productions = fixture.fake.productions(project);
    assert!(!productions.is_empty(), "nothing of {project} was deployed");
    for (environment, pair) in productions {
        assert_eq!(pair.id, new.id, "{environment} of {project}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fixture.fake.production_signs(project)).unwrap();
}

/// A date as a record has it.
pub(crate) fn moment(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap().to_string()
}

/// Leaves a record as `src/record.rs` writes it, released: its run has ended in order.
pub(crate) fn leave_record(fixture: &Fixture, home: Home, progress: &serde_json::Value) {
    let at = moment(fixture.fake.now() - 60_000);
    let line = serde_json::json!({ "user": USER, "at": at, "progress": progress });
    fixture.fake.set_variable(
        home,
        Variable::new("CREDENTIAL_ROTATOR_8000_00c0ffee", &line.to_string())
            .scope("credential-rotator"),
    );
}

/// A key that an earlier run of ours has made just now.
pub(crate) fn made_by_an_earlier_run(fixture: &Fixture) -> Pair {
    let new = fixture.fake.add_key(USER, 0);
    fixture.fake.ours(&new.id);
    new
}
