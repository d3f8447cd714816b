//! What a person reads: which keys work now, and each step in a few words.

use credential_rotator::access_key::Key;
use credential_rotator::plan::{
    Checkpoint, Done, IdSeen, KeyRole, NewKey, Observed, Query, Refusal, SecretOwner, SecretSeen,
    Step, Waiting,
};
use credential_rotator::record::Progress;

use crate::kit::*;

/// After a second look.
fn says(seen: &Observed, sentence: &str) {
    let suspected = Some(Refusal::NoVariables);
    let confirmed = seen.clone().with(|seen| seen.run.suspected = suspected);
    assert_eq!(confirmed.state(), sentence);
}

fn off(number: u32) -> Key {
    Key { active: false, ..key(number, 75) }
}

fn holding(pair: (IdSeen, SecretSeen)) -> impl FnOnce(&mut Observed) {
    |seen| seen.targets = targets([pair])
}

#[test]
fn at_rest_the_state_tells_whether_the_named_key_works() {
    says(&idle(10), "the variables name key …0001 (active); production is not affected");
    let disabled = idle(10).with(|seen| seen.keys = vec![off(OLD)]);
    says(
        &disabled,
        "the variables name key …0001 (disabled), WHICH DOES NOT WORK: production is affected",
    );
    let unknown = idle(10).with(|seen| seen.keys.clear());
    says(
        &unknown,
        "the variables name key …0001, which this user does not have: unless it is another user's, \
         PRODUCTION IS AFFECTED",
    );
    let nothing = idle(10).with(holding((IdSeen::Absent, SecretSeen::Absent)));
    says(
        &nothing,
        "no variable names a key of this user, so what production uses cannot be told from here",
    );
    // What a finished rotation has left says no more.
    let finished = published(Progress { finished: Some(at(NOW)), ..disabled_progress() });
    says(&finished, "the variables name key …0002 (active); production is not affected");
}

fn disabled_progress() -> Progress {
    disabled(10)
}

#[test]
fn one_look_does_not_tell_that_production_is_affected() {
    let disabled = idle(10).with(|seen| seen.keys = vec![off(OLD)]);
    let may_be = "the variables name key …0001 (disabled), as one look has shown: production may \
                  be affected";
    assert_eq!(disabled.state(), may_be);
    let unknown = idle(10).with(|seen| seen.keys.clear());
    let may_be = "the variables name key …0001, which one look at this user's keys has not shown: \
                  production may be affected";
    assert_eq!(unknown.state(), may_be);
    let gone = published(publication()).with(|seen| drop(seen.keys.pop()));
    let may_be = "the variables name key …0002 (gone), as one look has shown: production may be \
                  affected; old key …0001 (active), new key …0002 (gone)";
    assert_eq!(gone.state(), may_be);
}

#[test]
fn at_rest_half_a_pair_is_told_of() {
    let broken = "project:1 HOLDS NO PAIR THAT WORKS: jobs that start now and use it fail";
    let unusable = || SecretSeen::Unusable("a reference".to_owned());
    for (pair, is_broken) in [
        ((named(OLD), SecretSeen::Absent), true),
        ((IdSeen::Absent, hidden(None)), true),
        ((IdSeen::Absent, readable(None, SecretOwner::NotAsked)), true),
        ((named(OLD), readable(None, SecretOwner::Key(id(FOREIGN)))), true),
        ((named(OLD), hidden(Some(OLD))), false),
        ((named(OLD), hidden(None)), false),
        ((named(OLD), readable(Some(OLD), SecretOwner::Key(id(OLD)))), false),
        ((named(OLD), readable(Some(FOREIGN), SecretOwner::NotAsked)), false),
        ((named(OLD), unusable()), false),
        ((IdSeen::Absent, unusable()), false),
        ((IdSeen::Unusable("a path".to_owned()), SecretSeen::Absent), false),
    ] {
        let seen = idle(10).with(holding(pair));
        assert_eq!(seen.state() == broken, is_broken, "{:?}", seen.targets);
    }
    // An operator may have left the tag beside a pair that works.
    let tagged = idle(10).with(holding((named(OLD), hidden(Some(FOREIGN)))));
    says(&tagged, &broken.replace("HOLDS", "MAY HOLD"));
}

#[test]
fn while_a_rotation_is_under_way_the_state_tells_of_both_keys() {
    let both = "the variables name a key that works; old key …0001 (active), new key …0002 \
         (active); production is not affected";
    says(&publishing(), both);
    says(&published(publication()), both);
    let retired = published(disabled(10)).with(|seen| seen.keys[0].active = false);
    says(
        &retired,
        "the variables name a key that works; old key …0001 (disabled), new key …0002 (active); \
         production is not affected",
    );
    let deleted = published(disabled(10)).with(|seen| drop(seen.keys.remove(0)));
    says(
        &deleted,
        "the variables name a key that works; new key …0002 (active); production is not affected",
    );
    let nothing_made = publishing().with(|seen| drop(seen.keys.pop()));
    says(
        &nothing_made,
        "the variables name a key that works; old key …0001 (active), no new key was made; \
         production is not affected",
    );
    let several =
        publishing().with(|seen| seen.keys.push(Key { created: at(NOW - 59), ..key(FOREIGN, 0) }));
    says(
        &several,
        "the variables name a key that works; old key …0001 (active), which key is the new one is \
         not known; production is not affected",
    );
}

#[test]
fn while_a_rotation_is_under_way_a_broken_pair_comes_first() {
    let torn = with_new_key(true)
        .with(holding((named(OLD), readable(Some(NEW), SecretOwner::Key(id(NEW))))));
    says(
        &torn,
        "project:1 HOLDS HALF OF THE NEW PAIR: jobs that start now fail until the next run; old \
         key …0001 (active), new key …0002 (active)",
    );
    // An operator may have left the tag beside a pair that works.
    for secret in [hidden(Some(NEW)), readable(Some(NEW), SecretOwner::NotAsked)] {
        says(
            &publishing().with(holding((named(OLD), secret))),
            "project:1 MAY HOLD HALF OF THE NEW PAIR: jobs that start now fail until the next run; \
             old key …0001 (active), new key …0002 (active)",
        );
    }
    for pair in [
        (named(OLD), readable(Some(NEW), SecretOwner::Nobody)),
        (named(OLD), readable(Some(NEW), SecretOwner::Key(id(OLD)))),
        (named(FOREIGN), readable(Some(NEW), SecretOwner::Nobody)),
        (named(FOREIGN), hidden(Some(NEW))),
    ] {
        let state = publishing().with(holding(pair)).state();
        assert!(!state.contains("HALF"), "{state}");
    }
    // The first pair of a user.
    let first = with_new_key(true).with(|seen| {
        seen.targets = targets([(IdSeen::Absent, readable(Some(NEW), SecretOwner::Key(id(NEW))))]);
        seen.keys.remove(0);
    });
    says(
        &first,
        "project:1 HOLDS HALF OF THE NEW PAIR: jobs that start now fail until the next run; new \
         key …0002 (active)",
    );
    let empty = with_new_key(true).with(holding((IdSeen::Absent, SecretSeen::Absent)));
    says(&empty, "no variable names a key of this user; new key …0002 (active)");
    let dead = publishing().with(|seen| seen.keys[0].active = false);
    says(
        &dead,
        "the variables name key …0001 (disabled), WHICH DOES NOT WORK: production is affected; old \
         key …0001 (disabled), new key …0002 (active)",
    );
    let gone = published(publication()).with(|seen| drop(seen.keys.pop()));
    says(
        &gone,
        "the variables name key …0002 (gone), WHICH DOES NOT WORK: production is affected; old key \
         …0001 (active), new key …0002 (gone)",
    );
    let old_gone = with_new_key(true).with(|seen| drop(seen.keys.remove(0)));
    says(
        &old_gone,
        "the variables name key …0001 (gone), WHICH DOES NOT WORK: production is affected; new key \
         …0002 (active)",
    );
    let another =
        publishing().with(holding((named(FOREIGN), readable(None, SecretOwner::NotAsked))));
    says(
        &another,
        "the variables name key …0003, which this user does not have: unless it is another user's, \
         PRODUCTION IS AFFECTED; old key …0001 (active), new key …0002 (active)",
    );
    let ours_but_strange = publishing().with(|seen| {
        seen.keys.push(Key { created: at(NOW - 5 * DAY), ..off(FOREIGN) });
        seen.targets = targets([(named(FOREIGN), readable(None, SecretOwner::NotAsked))]);
    });
    says(
        &ours_but_strange,
        "the variables name key …0003 (disabled), WHICH DOES NOT WORK: production is affected; old \
         key …0001 (active), new key …0002 (active)",
    );
    // One of two is enough.
    let one_of_two = publishing()
        .with(|seen| seen.targets = targets([on(OLD), (IdSeen::Absent, SecretSeen::Absent)]));
    says(
        &one_of_two,
        "the variables name a key that works; old key …0001 (active), new key …0002 (active); \
         production is not affected",
    );
}

#[test]
fn each_step_and_each_wait_is_told_in_a_few_words() {
    let (old, new_key_state) = (id(OLD), id(NEW));
    let waits = [
        (
            Waiting::Unsettled { until: at(NOW) },
            "an earlier run may have made a key that IAM shows late, until 2027-01-15T08:00:00Z",
        ),
        (
            Waiting::InFlightJobs(vec!["a".to_owned(), "b".to_owned()]),
            "jobs that started with the old pair still run: a, b",
        ),
        (Waiting::Deploys(vec!["pipeline 7 is running".to_owned()]), "pipeline 7 is running"),
        (
            Waiting::Afterlife { until: at(NOW) },
            "another run's job has just ended; this one goes on at 2027-01-15T08:00:00Z",
        ),
        (
            Waiting::OwnDeploy,
            "the pipeline's own deploy comes next, then its `retire` job proves it",
        ),
        (
            Waiting::OwnSigner { old: old.clone() },
            "this job can only sign with old key …0001, which a later job disables",
        ),
        (
            Waiting::Overlap { old: old.clone(), until: at(NOW) },
            "old key …0001 stays active until 2027-01-15T08:00:00Z",
        ),
        (
            Waiting::StillUsed {
                old: old.clone(),
                last: at(NOW),
                service: "s3".to_owned(),
                until: at(NOW),
                late: true,
            },
            "old key …0001 was still used at 2027-01-15T08:00:00Z (s3), so it stays active until \
             2027-01-15T08:00:00Z, or longer where it is used again",
        ),
        (
            Waiting::Grace { old: old.clone(), until: at(NOW) },
            "old key …0001 stays disabled until 2027-01-15T08:00:00Z, then it is deleted",
        ),
    ];
    for (waiting, words) in waits {
        assert_eq!(waiting.to_string(), words);
        assert_eq!(Step::Wait(waiting.clone()).to_string(), format!("wait: {words}"));
        assert_eq!(Step::Done(Done::Waiting(waiting)).to_string(), format!("wait: {words}"));
    }
    for (step, words) in [
        (Step::Ask(Query::WhoseSecrets), "ask STS which key each secret belongs to"),
        (Step::Ask(Query::LastUse(old.clone())), "ask IAM when key …0001 was last used"),
        (Step::Claim, "claim the rotation"),
        (Step::Record(Checkpoint::Begin), "record that a rotation begins"),
        (Step::Create, "create a new key"),
        (Step::Verify(new_key_state.clone()), "verify new key …0002 with its own credentials"),
        (
            Step::WriteSecret { target: 0, key: new_key_state.clone() },
            "write the secret of new key …0002 to target 1",
        ),
        (
            Step::WriteId { target: 1, key: new_key_state.clone() },
            "write the id of new key …0002 to target 2",
        ),
        (Step::Record(Checkpoint::Attempt(0)), "record that deploy 1 is asked for"),
        (
            Step::Record(Checkpoint::AttemptClosed(0)),
            "record that it is not known whether deploy 1 was started",
        ),
        (Step::Record(Checkpoint::AttemptWithdrawn(0)), "record that deploy 1 was not started"),
        (Step::Record(Checkpoint::Adopted(0)), "record that deploy 1 was started after all"),
        (Step::StartDeploy(0), "start deploy 1"),
        (Step::Disable(old.clone(), KeyRole::Old), "disable old key …0001"),
        (Step::Delete(new_key_state.clone(), KeyRole::Orphan), "delete orphaned key …0002"),
        (Step::Done(Done::Tried), "nothing"),
        (Step::Refuse(Refusal::Busy), "refuse"),
    ] {
        assert_eq!(step.to_string(), words);
    }
}

/// A second look is for what a person or a list that lags may have done, never for what a look
/// cannot change.
#[test]
fn what_may_be_an_external_change_is_looked_at_twice() {
    let key = || id(OLD);
    for refusal in
        [Refusal::NoVariables, Refusal::EnabledAgain { key: key() }, Refusal::Several(vec![key()])]
    {
        assert!(refusal.needs_confirmation(), "{refusal:?}");
    }
    for refusal in [
        Refusal::Busy,
        Refusal::Preflight(Vec::new()),
        Refusal::TooOld { key: key(), created: at(NOW) },
        Refusal::DeployFailed(Vec::new()),
    ] {
        assert!(!refusal.needs_confirmation(), "{refusal:?}");
    }
}

#[test]
fn an_abandoned_key_is_still_told_of() {
    let seen = publishing().with(|seen| {
        seen.run.new_key = Some(NewKey { key: id(NEW), verified: false, abandoned: true });
    });
    says(
        &seen,
        "the variables name a key that works; old key …0001 (active), new key …0002 (active); \
         production is not affected",
    );
}
