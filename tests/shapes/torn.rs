//! Half-written states of two targets, set up by hand: the next run heals each as the plan says.

use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use crate::scene::*;
use fake::*;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Half {
    Old,
    /// The new secret beside the old id.
    Torn,
    New,
}

/// What a run that died has left in the first target (readable) and the second one.
fn left(first: Half, second: Half, hidden: bool) -> (Fixture, Pair) {
    let fixture = Fixture::of_days(75);
    let old = fixture.old.clone();
    fixture.fake.add_project(OTHER, "acme/other");
    fixture.fake.set_pipeline_config(OTHER, vec![JobSpec::deploy("deploy", "production")]);
    let secret = Variable::new(SECRET, &old.secret);
    fixture.fake.set_variable(OTHER, Variable::new(ID, &old.id).masked());
    fixture.fake.set_variable(OTHER, if hidden { secret.hidden() } else { secret.masked() });
    fixture.fake.watch_target(OTHER, "*", ID, SECRET);
    fixture.deploy(OTHER);
    let creating = moment(fixture.fake.now() - 1000);
    let new = made_by_an_earlier_run(&fixture);
    for (id, half) in [(PROJECT, first), (OTHER, second)] {
        if half != Half::Old {
            fixture.fake.operator_edits_variable(id, SECRET, "*", |variable| {
                variable.value.clone_from(&new.secret);
                variable.description = Some(format!("of the shop [credential-rotator {}]", new.id));
            });
        }
        if half == Half::New {
            fixture.fake.operator_edits_variable(id, ID, "*", |variable| {
                variable.value.clone_from(&new.id);
            });
        }
    }
    leave_record(
        &fixture,
        project(PROJECT),
        &serde_json::json!({ "from": [old.id], "creating": creating, "previous": [old.id] }),
    );
    (fixture, new)
}

fn heals(first: Half, second: Half, hidden: bool) {
    let (fixture, new) = left(first, second, hidden);
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42,project:43").go();
    let orphaned = (first, second) == (Half::Old, Half::Old);
    ended.ends(0, if orphaned { "rotated" } else { "resumed" });
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
    assert_eq!(
        fixture.new_key().id == new.id,
        !orphaned,
        "a key whose secret is lost is replaced, any other is kept"
    );
    assert_eq!(ended.calls("iam:CreateAccessKey"), usize::from(orphaned));
    for id in [PROJECT, OTHER] {
        production_is_new(&fixture, id);
    }
    assert_eq!(fixture.records().len(), 1);
    let kept = fixture.fake.variable(OTHER, SECRET, "*").unwrap();
    assert_eq!(kept.hidden, hidden);
}

pub(crate) fn healed() -> Vec<Trial> {
    use Half::{New, Old, Torn};
    let mut cases: Vec<Trial> = Vec::new();
    let mut add = |name: String, act: Box<dyn FnOnce() + Send>| {
        cases.push(case(module_path!(), &name, act));
    };
    for first in [Old, Torn, New] {
        for second in [Old, Torn, New] {
            let name = format!("{first:?} and {second:?}");
            add(name, Box::new(move || heals(first, second, false)));
        }
    }
    // A hidden target is written last, so these are all that a run can leave.
    for (first, second) in [(Old, Old), (Torn, Old), (New, Old), (New, Torn), (New, New)] {
        let name = format!("{first:?} and {second:?}, hidden");
        add(name, Box::new(move || heals(first, second, true)));
    }
    for half in [Torn, New] {
        add(format!("a group's scope, {half:?}"), Box::new(move || heals_a_group(half)));
        let heals = move || heals_what_is_hidden(half, 0);
        add(format!("one hidden target, {half:?}"), Box::new(heals));
    }
    // For longer than a second look takes: the record dates the key as young.
    let heals = || heals_what_is_hidden(Torn, 12);
    add("one hidden target, Torn, its key unknown for a while".to_owned(), Box::new(heals));
    cases
}

/// What only an operator can have left is refused with both keys alive.
pub(crate) fn refused() -> Vec<Trial> {
    let hidden = [("Torn", Half::Torn), ("New", Half::New)];
    let mut cases = for_each(module_path!(), "Old and hidden", &hidden, lost_behind_a_hidden_one);
    cases.push(case(module_path!(), "a third key in one target", a_third_key_in_one_target));
    cases
}

/// The only copy of the secret is hidden, and the readable target does not have it.
fn lost_behind_a_hidden_one(second: Half) {
    let (fixture, new) = left(Half::Old, second, true);
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42,project:43").go();
    ended.ends(3, "refused");
    assert_eq!(
        (fixture.old_is_active(), fixture.new_key().id.as_str()),
        (Some(true), new.id.as_str())
    );
    assert_eq!(fixture.stored(), (fixture.old.id.clone(), fixture.old.secret.clone()));
    // What was torn is whole: each target names a pair that works.
    assert_eq!(fixture.stored_in(project(OTHER), "*"), (new.id, new.secret));
}

fn a_third_key_in_one_target() {
    let (fixture, new) = left(Half::New, Half::Old, false);
    let foreign = fixture.fake.add_key("stranger", 3);
    store(&fixture, project(OTHER), "*", &foreign);
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42,project:43").go();
    ended.ends(3, "refused");
    assert_eq!((fixture.old_is_active(), fixture.stored().0), (Some(true), new.id));
    assert_eq!(fixture.stored_in(project(OTHER), "*").0, foreign.id);
}

/// A run that has written the new secret (and the id) to the group died before the project's turn.
/// The group has another pair of that name.
fn heals_a_group(half: Half) {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    fixture.fake.add_user("/", "stranger");
    let foreign = fixture.fake.add_key("stranger", 5);
    store(&fixture, group(7), "*", &foreign);
    publish(&fixture, group(7), "review/*");
    let old = &fixture.old;
    let creating = moment(fixture.fake.now() - 1000);
    let new = made_by_an_earlier_run(&fixture);
    fixture.fake.operator_edits_variable(group(7), SECRET, "review/*", |variable| {
        variable.value.clone_from(&new.secret);
        variable.description = Some(format!("[credential-rotator {}]", new.id));
    });
    if half == Half::New {
        fixture.fake.operator_edits_variable(group(7), ID, "review/*", |variable| {
            variable.value.clone_from(&new.id);
        });
    }
    leave_record(
        &fixture,
        group(7),
        &serde_json::json!({ "from": [old.id], "creating": creating, "previous": [old.id] }),
    );
    fixture.run().set("ROTATOR_TARGETS", "group:acme@review/*,project:42").go().ends(0, "resumed");
    holds_the_new_key(&fixture, &[(group(7), "review/*"), (project(PROJECT), "*")]);
    assert_eq!(fixture.new_key().id, new.id);
    assert_eq!(fixture.stored_in(group(7), "*"), (foreign.id, foreign.secret));
    production_is_new(&fixture, PROJECT);
}

/// The only copy of the new secret is where nobody can read it; its tag says whose it is.
fn heals_what_is_hidden(half: Half, refused: usize) {
    let fixture = Fixture::of_days(75);
    let old = fixture.old.clone();
    let creating = moment(fixture.fake.now() - 1000);
    let new = made_by_an_earlier_run(&fixture);
    let tagged = Variable::new(SECRET, &new.secret)
        .hidden()
        .description(&format!("[credential-rotator {}]", new.id));
    fixture.fake.set_variable(PROJECT, tagged);
    if half == Half::New {
        fixture.fake.operator_edits_variable(PROJECT, ID, "*", |variable| {
            variable.value.clone_from(&new.id);
        });
    }
    leave_record(
        &fixture,
        project(PROJECT),
        &serde_json::json!({ "from": [old.id], "creating": creating, "previous": [old.id] }),
    );
    // The id of the job's own pair is asked first, then the two by turns.
    for nth in 1..=refused {
        let refusal = Fault::of_aws(refusals::UNKNOWN_KEY);
        fixture.fake.fault_on("iam:ListAccessKeys", 2 * nth, refusal);
    }
    fixture.run().set("ROTATOR_VERIFY_TIMEOUT", "1m").go().ends(0, "resumed");
    assert!(fixture.fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
    fixture.is_rotated();
    assert_eq!(fixture.new_key().id, new.id);
    production_is_new(&fixture, PROJECT);
}

/// The pair is torn while GitLab answers nothing, or something that is only old.
pub(crate) fn while_gitlab_is_away() -> Vec<Trial> {
    vec![
        case(module_path!(), "GitLab is away for a minute", away_for_a_minute),
        case(module_path!(), "canceled while GitLab is away", canceled_while_away),
        case(module_path!(), "a job that counts as pending", || counts_as("pending")),
        case(module_path!(), "a job that is being canceled", || counts_as("canceling")),
        case(module_path!(), "a target that refuses the secret", refuses_the_secret),
    ]
}

const WRITE_SECRET: &str = "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY";
const WRITE_ID: &str = "PUT /projects/:id/variables/:key AWS_ACCESS_KEY_ID";
/// Longer than a reply about the job holds.
const AWAY: Duration = Duration::from_secs(63);

fn writes_the_id(entry: &Entry) -> bool {
    entry.action.starts_with("PUT ") && entry.what.starts_with(ID)
}

/// GitLab answers nothing that a torn pair needs.
fn go_away(fake: &Fake) {
    for action in ["GET /projects/:id/jobs/:number", "GET /projects/:id/variables"] {
        fake.fault_from(action, 1, Fault::refuse(502));
    }
}

fn away_for_a_minute() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from(WRITE_ID, 1, Fault::refuse(502));
    let fake = fixture.fake.clone();
    let away = move || {
        go_away(&fake);
        thread::sleep(AWAY);
        fake.clear_faults();
    };
    fixture.run().once(writes_the_id, away).go().ends(0, "rotated");
    fixture.is_rotated();
    assert!(!fixture.records()[0].value.contains("ends"), "the record is released");
}

/// The first words that GitLab says again are that the job is being canceled, and the runner has
/// sent its signal.
fn canceled_while_away() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from(WRITE_ID, 1, Fault::refuse(502));
    let run = fixture.run();
    let (fake, job) = (fixture.fake.clone(), run.job);
    let running = run.start();
    let pid = running.pid();
    let person = thread::spawn(move || {
        until(|| fake.log().iter().any(writes_the_id).then_some(())).expect("the id is written");
        go_away(&fake);
        thread::sleep(AWAY);
        fake.job_set_status(job, "canceling");
        fake.clear_faults();
        kill_process(pid, Signal::TERM).expect("it runs");
    });
    let ended = running.wait();
    person.join().expect("a person's part does not panic");
    assert_eq!(ended.code, 143, "{}", ended.stderr);
    assert_eq!(ended.holds(), Ok(()));
    let new = fixture.new_key();
    assert_eq!(fixture.stored(), (new.id, new.secret), "the pair is left torn\n{}", ended.stderr);
}

fn counts_as(status: &'static str) {
    let fixture = Fixture::of_days(75);
    let run = fixture.run();
    fixture.fake.job_set_status(run.job, status);
    run.go().ends(0, "rotated");
    fixture.is_rotated();
}

/// It is as it was, and the other one is published: nothing is torn, so nothing is repeated.
fn refuses_the_secret() {
    let fixture = Fixture::of_days(75);
    add_project(&fixture, OTHER, "acme/other", "*");
    let forbidden = Fault::Refuse {
        status: 403,
        body: r#"{"message":"403 Forbidden"}"#.into(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    fixture.fake.fault_from(&format!("{WRITE_SECRET}@* {OTHER}"), 1, forbidden);
    let run = || fixture.run().set("ROTATOR_TARGETS", "project:42,project:43");
    let ended = run().go();
    ended.ends(3, "refused");
    assert!(
        ended.stderr.contains("state: project:42 holds the new pair, project:43 the old one"),
        "{}",
        ended.stderr
    );
    let tries = ended.log.iter().filter(|entry| entry.status == 403).count();
    assert_eq!(tries, 1, "what is refused is repeated");
    let (old, new) = (fixture.old.clone(), fixture.new_key());
    assert_eq!(fixture.stored().0, new.id);
    assert_eq!(fixture.stored_in(project(OTHER), "*"), (old.id, old.secret));
    // It goes on from there.
    fixture.fake.clear_faults();
    run().go().ends(0, "resumed");
    holds_the_new_key(&fixture, &[(project(PROJECT), "*"), (project(OTHER), "*")]);
}
