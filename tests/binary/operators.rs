//! What operators and other tools have changed, before and meanwhile: it is named, refused, and
//! never overwritten unasked.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // Variables are not a pair of this user.
        variables_that_are_not_there,
        an_id_without_a_secret,
        a_secret_without_an_id,
        targets_that_name_different_keys,
        a_key_that_the_user_does_not_have,
        an_id_that_refers_to_another_variable,
        a_secret_that_refers_to_another_variable,
        a_file_variable,
        an_id_that_is_hidden,
        an_id_of_a_session,
        something_else_than_an_id,
        a_tag_of_another_key_on_a_hidden_secret,
        // Keys are not as the rotation left them.
        a_second_key_that_nobody_explains,
        a_second_key_is_a_warning_while_nothing_is_due,
        a_job_whose_own_pair_is_no_targets,
        a_job_whose_own_pair_is_of_a_scope_that_is_no_target,
        a_job_whose_project_is_no_target,
        a_job_from_before_the_publication_keeps_the_key_that_it_signs_with,
        an_old_key_that_was_enabled_again,
        an_old_key_that_was_enabled_again_gets_its_whole_grace_period,
        an_old_key_that_another_scope_still_names,
        a_published_key_that_was_disabled,
        a_published_key_that_was_deleted,
        an_orphan_that_something_else_uses,
        several_keys_that_could_be_the_one,
        an_operator_changes_a_variable_while_a_run_is_dead,
        a_secret_that_nobody_can_read_any_more,
        an_operator_changes_a_variable_after_the_publication,
        a_hidden_target_that_fell_behind,
        a_record_that_nobody_can_read,
        a_record_that_was_taken_away,
    ]
}

/// The project's two variables, as they are; a role signs.
fn holding(id: Option<Variable>, secret: Option<Variable>) -> Fixture {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    for variable in id.into_iter().chain(secret) {
        fixture.fake.set_variable(PROJECT, variable);
    }
    fixture
}

fn refuses(fixture: &Fixture, expected: impl snapbox::IntoData) {
    let ended = fixture.run().with_role().go();
    ended.says(3, expected);
    assert_eq!(ended.effects(), Vec::<String>::new());
    assert_eq!(
        ended.calls("GET /projects/:id/variables"),
        2,
        "such a thing is said only after a second look"
    );
}

fn variables_that_are_not_there() {
    refuses(
        &holding(None, None),
        str![[r#"
error: there are no variables to rotate
state: no variable names a key of this user, so what production uses cannot be told from here
hint: run once with ROTATOR_ACTION=setup to create the first key and both variables, or check ROTATOR_TARGETS and the variables' names

"#]],
    );
}

fn an_id_without_a_secret() {
    let fixture = Fixture::of_days(75);
    fixture.fake.operator_removes_variable(PROJECT, SECRET, "*");
    refuses(
        &fixture,
        str![[r#"
error: project:42 has the key's id but no secret
state: project:42 HOLDS NO PAIR THAT WORKS: jobs that start now and use it fail
hint: store the secret beside it, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
}

fn a_secret_without_an_id() {
    let fixture = Fixture::of_days(75);
    fixture.fake.operator_removes_variable(PROJECT, ID, "*");
    refuses(
        &fixture,
        str![[r#"
error: project:42 has a secret but no key id
state: project:42 HOLDS NO PAIR THAT WORKS: jobs that start now and use it fail
hint: store the id beside it, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
}

fn targets_that_name_different_keys() {
    let fixture = Fixture::of_days(75);
    let other = fixture.fake.add_key(USER, 20);
    fixture.name(&other.id, "[OTHER]");
    fixture.fake.add_project(43, "acme/api");
    fixture.fake.set_pair(43, &other);
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42,project:acme/api").go();
    ended.says(
        3,
        str![[r#"
error: the targets name different keys (project:42: key …[OLD], project:acme/api: key …[OTHER])
state: the variables name key …[OLD] (active); production is not affected
hint: store the same pair in all of them, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
}

fn a_key_that_the_user_does_not_have() {
    let fixture = holding(None, None);
    fixture.fake.add_user("/", "somebody");
    let other = fixture.fake.add_key("somebody", 20);
    fixture.name(&other.id, "[OTHER]");
    fixture.fake.set_pair(PROJECT, &other);
    refuses(
        &fixture,
        str![[r#"
error: project:42 names key …[OTHER], which this user does not have
state: the variables name key …[OTHER], which this user does not have: unless it is another user's, PRODUCTION IS AFFECTED
hint: check ROTATOR_IAM_USER, store a pair of this user, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
}

fn an_id_that_refers_to_another_variable() {
    let secret = Variable::new(SECRET, "${SHARED_SECRET_ACCESS_KEY}").expanded();
    refuses(
        &holding(Some(Variable::new(ID, "$SHARED_ACCESS_KEY_ID").expanded()), Some(secret)),
        str![[r#"
error: project:42: AWS_ACCESS_KEY_ID refers to another variable
state: no variable names a key of this user, so what production uses cannot be told from here
hint: store the plain pair in the two variables, or name others in ROTATOR_KEY_ID_VARIABLE and ROTATOR_SECRET_VARIABLE

"#]],
    );
}

fn a_secret_that_refers_to_another_variable() {
    let fixture = Fixture::of_days(75);
    fixture
        .fake
        .operator_sets_variable(PROJECT, Variable::new(SECRET, "$SHARED_SECRET").expanded());
    refuses(
        &fixture,
        str![[r#"
error: project:42: AWS_SECRET_ACCESS_KEY refers to another variable
state: the variables name key …[OLD] (active); production is not affected
hint: store the plain pair in the two variables, or name others in ROTATOR_KEY_ID_VARIABLE and ROTATOR_SECRET_VARIABLE

"#]],
    );
}

fn a_file_variable() {
    let fixture = Fixture::of_days(75);
    fixture.fake.operator_sets_variable(PROJECT, Variable::new(ID, "/secrets/aws/key-id").file());
    refuses(
        &fixture,
        str![[r#"
error: project:42: AWS_ACCESS_KEY_ID holds a path, not a key id
state: no variable names a key of this user, so what production uses cannot be told from here
hint: store the plain pair in the two variables, or name others in ROTATOR_KEY_ID_VARIABLE and ROTATOR_SECRET_VARIABLE

"#]],
    );
}

fn an_id_that_is_hidden() {
    let fixture = Fixture::of_days(75);
    let id = fixture.old.id.clone();
    fixture.fake.operator_sets_variable(PROJECT, Variable::new(ID, &id).hidden());
    refuses(
        &fixture,
        str![[r#"
error: project:42: AWS_ACCESS_KEY_ID is hidden, so nobody can tell which key it names; make a visible one (the id is no secret)
state: no variable names a key of this user, so what production uses cannot be told from here
hint: store the plain pair in the two variables, or name others in ROTATOR_KEY_ID_VARIABLE and ROTATOR_SECRET_VARIABLE

"#]],
    );
}

fn an_id_of_a_session() {
    let fixture = Fixture::of_days(75);
    let session = fixture.fake.user_session(USER, 3600);
    fixture.fake.operator_sets_variable(PROJECT, Variable::new(ID, &session.id));
    refuses(
        &fixture,
        str![[r#"
error: project:42: AWS_ACCESS_KEY_ID holds temporary credentials, which cannot be rotated
state: no variable names a key of this user, so what production uses cannot be told from here
hint: store the plain pair in the two variables, or name others in ROTATOR_KEY_ID_VARIABLE and ROTATOR_SECRET_VARIABLE

"#]],
    );
}

fn something_else_than_an_id() {
    let fixture = Fixture::of_days(75);
    fixture.fake.operator_sets_variable(PROJECT, Variable::new(ID, "to be done"));
    refuses(
        &fixture,
        str![[r#"
error: project:42: AWS_ACCESS_KEY_ID does not hold a key id
state: no variable names a key of this user, so what production uses cannot be told from here
hint: store the plain pair in the two variables, or name others in ROTATOR_KEY_ID_VARIABLE and ROTATOR_SECRET_VARIABLE

"#]],
    );
}

fn a_tag_of_another_key_on_a_hidden_secret() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    let other = fixture.fake.add_key(USER, 20);
    fixture.name(&other.id, "[OTHER]");
    fixture.fake.set_variable(PROJECT, Variable::new(ID, &fixture.old.id));
    let tag = format!("[credential-rotator {}]", other.id);
    fixture.fake.set_variable(
        PROJECT,
        Variable::new(SECRET, &fixture.old.secret).hidden().description(&tag),
    );
    refuses(
        &fixture,
        str![[r#"
error: project:42: the id is key …[OLD], but the secret belongs to key …[OTHER]
state: project:42 MAY HOLD NO PAIR THAT WORKS: jobs that start now and use it fail
hint: store a pair that belongs together and, where the secret is hidden, take the tag out of its description, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
}

fn a_second_key_that_nobody_explains() {
    let fixture = Fixture::of_days(75);
    let other = fixture.fake.add_key(USER, 200);
    fixture.name(&other.id, "[OTHER]");
    fixture.fake.use_key(&other.id, "s3", 86_400 * 40);
    fixture.run().go().says(3, str![[r#"
error: no room for a new key: unexplained key AKIA[OTHER], active, made [DATE], last used [DATE] (s3); published key AKIA[OLD], active, made [DATE]
state: the variables name key …[OLD] (active); production is not affected
hint: if nothing uses an unexplained key, a person removes it: `aws iam delete-access-key --access-key-id AKIA[OTHER]` (with --user-name, where it is not the caller's own)

"#]]);
    assert!(fixture.fake.keys(USER).iter().all(|key| key.active));
}

fn a_second_key_is_a_warning_while_nothing_is_due() {
    let fixture = Fixture::of_days(10);
    let other = fixture.fake.add_key(USER, 200);
    fixture.name(&other.id, "[OTHER]");
    fixture.run().go().ends(6, "not_due").sums_up(str![[r#"
Key        key …[OLD] of user deployer, created [DATE] (10 days old)
Why        not due: a key is replaced after 60 days, this one on [DATE]
Published  project:42
Deploy     none in this run
Next       the next scheduled run looks again; this key is replaced on [DATE]

warning: a second key …[OTHER] is not of this rotation and will be in its way
hint: if nothing uses it, a person removes it: `aws iam delete-access-key --access-key-id AKIA[OTHER]` (with --user-name, where it is not the caller's own)

"#]]);
}

/// A rotation whose old key is disabled and waits for its grace period.
fn disabled() -> Fixture {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_GRACE_PERIOD", "1d").go().ends(0, "rotated");
    assert_eq!(fixture.old_is_active(), Some(false));
    fixture
}

/// From the schedule's variables, say: they come before the target's.
fn a_job_whose_own_pair_is_no_targets() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_OVERLAP", "12h").go().ends(0, "rotated");
    fixture.fake.time_passes(86_400);
    let run = || fixture.run().set("ROTATOR_OVERLAP", "12h");
    let ended = run().with_pair(&fixture.old).go();
    ended.says(
        3,
        str![[r#"
error: this job started after the new pair was published, and still signs with old key …[OLD]
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: no variable that can be read names it, so the pair comes from the variables of this pipeline, of its schedule or of the job itself, which win over a target's: delete it there

"#]],
    );
    assert_eq!((ended.effects(), fixture.old_is_active()), (Vec::new(), Some(true)));
    // Its own signatures are a use.
    run().go().ends(0, "waiting");
    fixture.fake.time_passes(50 * 3600);
    run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_job_whose_own_pair_is_of_a_scope_that_is_no_target() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_OVERLAP", "12h").go().ends(0, "rotated");
    fixture.fake.time_passes(86_400);
    for (name, value) in [(ID, &fixture.old.id), (SECRET, &fixture.old.secret)] {
        let variable = Variable::new(name, value).masked().scope("rotation");
        fixture.fake.operator_sets_variable(PROJECT, variable);
    }
    let ended = fixture.run().set("ROTATOR_OVERLAP", "12h").with_pair(&fixture.old).go();
    ended.says(
        3,
        str![[r#"
error: this job started after the new pair was published, and still signs with old key …[OLD]
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: AWS_ACCESS_KEY_ID of project:42 (scope rotation: project:42@rotation in ROTATOR_TARGETS) names it: delete that, or add the place to ROTATOR_TARGETS; if the pair is not from there, look at the variables of this pipeline, of its schedule or of the job itself

"#]],
    );
    assert_eq!(fixture.old_is_active(), Some(true));
}

/// A central project that keeps its own copy of the pair.
fn a_job_whose_project_is_no_target() {
    const CENTRAL: u64 = 43;
    let fixture = Fixture::of_days(75);
    fixture.fake.add_project(CENTRAL, "acme/rotator");
    fixture.fake.set_pair(CENTRAL, &fixture.old);
    let run = |job: u64| {
        fixture.fake.add_job(CENTRAL, job, "running");
        let run = fixture.run_as(CENTRAL, job).set("ROTATOR_TARGETS", "project:42");
        run.set("ROTATOR_OVERLAP", "12h")
    };
    run(7001).go().ends(0, "rotated");
    fixture.fake.time_passes(86_400);
    run(7002).go().says(
        3,
        str![[r#"
error: this job started after the new pair was published, and still signs with old key …[OLD]
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: the project of this job is no target: add it to ROTATOR_TARGETS, or use a role; or the pair comes from the variables of this pipeline, of its schedule or of the job itself

"#]],
    );
    assert_eq!(fixture.old_is_active(), Some(true));
}

/// A second process of the job that rotated: the new secret is hidden from it.
fn a_job_from_before_the_publication_keeps_the_key_that_it_signs_with() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    let fake = &fixture.fake;
    fake.set_variable(PROJECT, Variable::new(ID, &fixture.old.id).masked());
    fake.set_variable(PROJECT, Variable::new(SECRET, &fixture.old.secret).hidden());
    let fixture = fixture.deployed();
    let run = || fixture.run().set("ROTATOR_OVERLAP", "1m");
    let first = run();
    let started = first.env("CI_JOB_STARTED_AT");
    first.go().ends(0, "rotated");
    fixture.fake.shift_clock(100);
    let second = run().with_pair(&fixture.old).set("CI_JOB_STARTED_AT", &started);
    let second = second.set("ROTATOR_OVERLAP", "0s").go();
    second.ends(0, "waiting").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        a rotation is under way and waits
Published  project:42
Deploy     none in this run
Next       this job can only sign with old key …[OLD], which a later job disables

"#]]);
    assert_eq!(fixture.old_is_active(), Some(true));
    run().set("ROTATOR_OVERLAP", "0s").go().ends(0, "resumed");
    fixture.is_rotated();
}

fn an_old_key_that_was_enabled_again() {
    let fixture = disabled();
    fixture.fake.operator_enables_key(&fixture.old.id);
    fixture.run().set("ROTATOR_GRACE_PERIOD", "1d").go().says(3, str![[r#"
error: old key …[OLD] was enabled again by someone, so something still needs it
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: move that software to the new key, then disable the old one, whose grace period begins anew: `aws iam update-access-key --status Inactive --access-key-id AKIA[OLD]` (with --user-name, where it is not the caller's own)

"#]]);
    assert_eq!(fixture.old_is_active(), Some(true));
}

/// Long after it was first disabled: what counts is when the person, as the hint says, did so again.
fn an_old_key_that_was_enabled_again_gets_its_whole_grace_period() {
    let fixture = disabled();
    let run = || fixture.run().set("ROTATOR_GRACE_PERIOD", "1d").go();
    fixture.fake.operator_enables_key(&fixture.old.id);
    fixture.fake.time_passes(10 * 86_400);
    // `check` writes nothing, and tells it all the same.
    let checked = fixture.run().set("ROTATOR_ACTION", "check").go();
    checked.ends(3, "refused");
    assert_eq!(checked.effects(), Vec::<String>::new());
    run().ends(3, "refused");
    fixture.fake.operator_disables_key(&fixture.old.id);
    run().ends(0, "resumed");
    assert_eq!(fixture.old_is_active(), Some(false), "deleted in the same night");
    fixture.fake.time_passes(86_400);
    run().ends(0, "resumed");
    fixture.is_rotated();
}

fn an_old_key_that_another_scope_still_names() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_OVERLAP", "1m").go().ends(0, "rotated");
    fixture.fake.shift_clock(100);
    fixture
        .fake
        .operator_sets_variable(PROJECT, Variable::new(ID, &fixture.old.id).scope("staging"));
    fixture.run().set("ROTATOR_OVERLAP", "1m").go().says(
        3,
        str![[r#"
error: old key …[OLD] is still named by AWS_ACCESS_KEY_ID of project:42 (scope staging: project:42@staging in ROTATOR_TARGETS)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: publish the new key there too, or delete what is named; the old key stays until then

"#]],
    );
    assert_eq!(fixture.old_is_active(), Some(true));
}

/// Published and deployed; the overlap goes on.
fn published() -> Fixture {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_OVERLAP", "1d").go().ends(0, "rotated");
    fixture
}

fn a_published_key_that_was_disabled() {
    let fixture = published();
    let new = fixture.new_key();
    fixture.name(&new.id, "[NEW]");
    fixture.fake.operator_disables_key(&new.id);
    fixture.run().with_role().set("ROTATOR_OVERLAP", "1d").go().says(
        3,
        str![[r#"
error: key …[NEW], which this rotation published, was disabled by someone
state: the variables name key …[NEW] (disabled), WHICH DOES NOT WORK: production is affected; old key …[OLD] (active), new key …[NEW] (disabled)
hint: enable it again, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
}

fn a_published_key_that_was_deleted() {
    let fixture = published();
    let new = fixture.new_key();
    fixture.name(&new.id, "[NEW]");
    fixture.fake.operator_deletes_key(&new.id);
    fixture.run().with_role().set("ROTATOR_OVERLAP", "1d").go().says(
        3,
        str![[r#"
error: key …[NEW], which this rotation published, was deleted by someone
state: the variables name key …[NEW] (gone), WHICH DOES NOT WORK: production is affected; old key …[OLD] (active), new key …[NEW] (gone)
hint: store one pair that works, readable, in every target, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
}

/// The run is killed right after this call has had its effect, and has been dead for more than two
/// minutes.
fn dies(run: &Run<'_>, after: &str) {
    let fake = &run.fixture.fake;
    let child = std::sync::Arc::new(std::sync::Mutex::new(
        run.command().spawn().expect("the binary starts"),
    ));
    let victim = std::sync::Arc::clone(&child);
    fake.on_kill(move || victim.lock().expect("nobody panics").kill().expect("it runs"));
    fake.fault_on(after, 1, Fault::KillAfter);
    until(|| fake.faults_hit().iter().all(|fault| fault.hit.is_some()).then_some(()))
        .expect("the call is made");
    // Whoever kills it needs the lock too.
    until(|| child.lock().expect("nobody panics").try_wait().expect("it can be asked"))
        .expect("it ends");
    fake.clear_faults();
    let (started, finished) = (fake.now() - 600_000, fake.now() - 300_000);
    fake.remove_job(run.job);
    fake.add_job_at(PROJECT, run.job, "failed", Some(started), Some(finished));
}

/// A run that died right after its key was made: the key is an orphan.
fn orphaned() -> Fixture {
    let fixture = Fixture::of_days(75);
    dies(&fixture.run(), "iam:CreateAccessKey");
    fixture
}

fn an_orphan_that_something_else_uses() {
    let fixture = orphaned();
    let orphan = fixture.new_key();
    fixture.name(&orphan.id, "[ORPHAN]");
    fixture.fake.use_key(&orphan.id, "ec2", 30);
    fixture.run().go().says(3, str![[r#"
error: key …[ORPHAN], which an earlier run made, was used for ec2: someone has its secret
state: the variables name a key that works; old key …[OLD] (active), new key …[ORPHAN] (active); production is not affected
hint: find out who; if nobody should, delete it: `aws iam delete-access-key --access-key-id AKIA[ORPHAN]` (with --user-name, where it is not the caller's own)

"#]]);
    // Once an operator has removed it, the next run goes on.
    fixture.fake.operator_deletes_key(&orphan.id);
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
}

fn several_keys_that_could_be_the_one() {
    let fixture = orphaned();
    fixture.fake.tune(|knobs| knobs.keys_per_user = 5);
    let (orphan, other) = (fixture.new_key(), fixture.fake.operator_creates_key(USER));
    // Five seconds later, however long this test has taken: the older one is named first.
    let made = |id: &str| {
        fixture.fake.keys(USER).into_iter().find(|key| key.id == id).map_or(0, |key| key.created)
    };
    fixture.fake.age_key(&other.id, (made(&other.id) - made(&orphan.id)) / 1000 - 5);
    fixture.name(&orphan.id, "[ORPHAN]");
    fixture.name(&other.id, "[OTHER]");
    fixture.run().go().says(
        3,
        str![[r#"
error: several keys could be the one that an earlier run made: …[ORPHAN], …[OTHER]
state: the variables name a key that works; old key …[OLD] (active), which key is the new one is not known; production is not affected
hint: delete the one that nothing uses: `aws iam get-access-key-last-used` tells which

"#]],
    );
}

fn an_operator_changes_a_variable_while_a_run_is_dead() {
    let fixture = orphaned();
    fixture.name(&fixture.new_key().id, "[ORPHAN]");
    fixture.fake.add_user("/", "somebody");
    let other = fixture.fake.add_key("somebody", 1);
    fixture.name(&other.id, "[OTHER]");
    fixture.fake.set_pair(PROJECT, &other);
    fixture.run().with_role().go().says(
        3,
        str![[r#"
error: project:42 was changed by someone while key …[ORPHAN] was being published
state: the variables name key …[OTHER], which this user does not have: unless it is another user's, PRODUCTION IS AFFECTED; old key …[OLD] (active), new key …[ORPHAN] (active)
hint: restore the pair that stood there, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
    assert_eq!(fixture.stored().0, other.id, "what an operator has stored stays");
}

fn a_secret_that_nobody_can_read_any_more() {
    // The new pair has come as far as the hidden target when the run dies; then an operator gives the
    // readable one the old pair again.
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    fake.add_project(43, "acme/api");
    fake.set_variable(43, Variable::new(ID, &fixture.old.id));
    fake.set_variable(43, Variable::new(SECRET, &fixture.old.secret).hidden());
    let targets = "project:42,project:43";
    dies(
        &fixture.run().set("ROTATOR_TARGETS", targets),
        "PUT /projects/:id/variables/:key AWS_ACCESS_KEY_ID@* 43",
    );
    assert_eq!(fake.variable(43, ID, "*").map(|id| id.value), Some(fixture.new_key().id));
    fake.set_pair(PROJECT, &fixture.old);
    fixture.run().with_role().set("ROTATOR_TARGETS", targets).go().says(
        3,
        str![[r#"
error: project:42 does not hold key …[NEW], and its secret cannot be read anywhere (hidden variables)
state: project:43 holds the new pair, project:42 the old one, and both work; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: store the old pair in every target again (GitLab shows it where it is not hidden), or delete both variables where there was none, and take the tag `[credential-rotator …]` out of the secret's description: the next run then removes the new key and begins anew

"#]],
    );
    // Force has no room for a third key, and neither of the two is in the way.
    let force =
        fixture.run().with_role().set("ROTATOR_TARGETS", targets).set("ROTATOR_FORCE", "true").go();
    force.says(
        3,
        str![[r#"
error: the targets name different keys (project:42: key …[OLD], project:43: key …[NEW])
state: project:43 holds the new pair, project:42 the old one, and both work; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: store the same pair in all of them, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
    // What the hint says helps.
    fake.set_variable(43, Variable::new(ID, &fixture.old.id));
    fake.set_variable(43, Variable::new(SECRET, &fixture.old.secret).hidden());
    fake.set_pipeline_config(43, vec![JobSpec::deploy("ship", "live")]);
    fixture.run().set("ROTATOR_TARGETS", targets).go().ends(0, "rotated");
    fixture.is_rotated();
}

fn an_operator_changes_a_variable_after_the_publication() {
    let fixture = published();
    fixture.fake.add_user("/", "somebody");
    let other = fixture.fake.add_key("somebody", 1);
    fixture.name(&other.id, "[OTHER]");
    fixture.name(&fixture.new_key().id, "[NEW]");
    fixture.fake.set_pair(PROJECT, &other);
    fixture.run().with_role().set("ROTATOR_OVERLAP", "1d").go().says(
        3,
        str![[r#"
error: project:42 was changed by someone after key …[NEW] was published
state: the variables name key …[OTHER], which this user does not have: unless it is another user's, PRODUCTION IS AFFECTED; old key …[OLD] (active), new key …[NEW] (active)
hint: restore the published pair there, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
    assert_eq!(fixture.stored().0, other.id, "what an operator has stored stays");
}

fn a_hidden_target_that_fell_behind() {
    // Two targets, one of them hidden: an operator gives the hidden one the old id again, so that its
    // secret cannot be had.
    let fixture = Fixture::of_days(75);
    fixture.fake.add_project(43, "acme/api");
    fixture.fake.set_variable(43, Variable::new(ID, &fixture.old.id));
    fixture.fake.set_variable(43, Variable::new(SECRET, &fixture.old.secret).hidden());
    fixture.fake.set_pipeline_config(43, vec![JobSpec::deploy("ship", "live")]);
    fixture
        .fake
        .set_pipeline_config(PROJECT, vec![JobSpec::deploy("deploy", "production").fails()]);
    let targets = "project:42,project:43";
    fixture.run().set("ROTATOR_TARGETS", targets).go().ends(4, "deploy_failed");
    fixture.fake.set_variable(43, Variable::new(ID, &fixture.old.id));
    fixture.run().set("ROTATOR_TARGETS", targets).go().says(
        3,
        str![[r#"
error: project:43 was changed by someone after key …[NEW] was published
state: project:43 MAY HOLD HALF OF THE NEW PAIR: jobs that start now fail until the next run; old key …[OLD] (active), new key …[NEW] (active)
hint: restore the published pair there, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
}

fn a_record_that_nobody_can_read() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_variable(
        PROJECT,
        Variable::new("CREDENTIAL_ROTATOR_8000_0badcafe", "{\"v\": 2}").scope("credential-rotator"),
    );
    fixture.run().go().says(
        3,
        str![[r#"
error: the variable CREDENTIAL_ROTATOR_8000_0badcafe (scope credential-rotator) is not a record that this version understands
state: nothing was changed; keys and variables are as they were before this run
hint: run the version that wrote it, or, if no rotation is under way, delete that variable

"#]],
    );
}

fn a_record_that_was_taken_away() {
    let fixture = Fixture::of_days(75);
    let fake = fixture.fake.clone();
    let run = fixture.run().once(
        |entry| entry.action == "iam:CreateAccessKey",
        move || {
            let records: Vec<Variable> = fake
                .variables(PROJECT)
                .into_iter()
                .filter(|variable| variable.key.starts_with("CREDENTIAL_ROTATOR_"))
                .collect();
            records.iter().for_each(|record| {
                fake.operator_removes_variable(PROJECT, &record.key, &record.scope);
            });
        },
    );
    run.go().says(
        1,
        str![[r#"
error: another run has taken over
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: nothing to do: the next run takes up where this one ended

"#]],
    );
}
