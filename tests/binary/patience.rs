//! What is asked of AWS again before it is believed: errors that pass, and keys that are refused.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // Errors by class.
        iam_takes_no_change_for_ever,
        a_code_that_nobody_knows,
        errors_that_pass_by_themselves,
        a_creation_that_ends_with_a_5xx_is_not_repeated,
        // One reply says little about a key.
        an_old_key_that_is_refused_once,
        a_new_key_that_is_refused_at_each_call_once,
        a_published_key_that_a_record_dates_as_young,
        the_key_of_a_tag_replaces_the_signer_only_if_it_works,
    ]
}

fn iam_takes_no_change_for_ever() {
    let fixture = Fixture::of_days(75);
    let fault = Fault::of_aws(refusals::CONCURRENT_MODIFICATION);
    fixture.fake.fault_from("iam:CreateAccessKey", 1, fault);
    fixture.run().go().says(1, str![[r#"
error: creating a new access key: IAM takes no change to this user at the moment
state: the variables name key …[OLD] (active); production is not affected
hint: run again in a few minutes; where it stays so, look for another tool that changes the same user

"#]]);
    fixture.is_untouched();
}

fn a_code_that_nobody_knows() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("iam:ListAccessKeys", 1, Fault::of_aws(refusals::OPT_IN_REQUIRED));
    fixture.run().go().says(
        1,
        str![[r#"
error: listing the user's access keys: AWS answered OptInRequired
state: nothing was changed; keys and variables are as they were before this run
hint: run again; if it stays, look the code up in the documentation of IAM and STS

"#]],
    );
}

fn errors_that_pass_by_themselves() {
    use refusals::{
        AWAITING_REPLICATION, CONCURRENT_MODIFICATION, SERVICE_FAILURE, SERVICE_UNAVAILABLE,
        THROTTLING,
    };
    let fixture = Fixture::of_days(75);
    let strange: refusals::AwsRefusal<'_> = (529, "Overloaded", "AWS has codes of its own.");
    for (call, nth, refusal) in [
        ("iam:ListAccessKeys", 1, SERVICE_UNAVAILABLE),
        ("iam:ListAccessKeys", 2, strange),
        ("sts:GetCallerIdentity", 1, SERVICE_UNAVAILABLE),
        ("iam:CreateAccessKey", 1, CONCURRENT_MODIFICATION),
        ("iam:CreateAccessKey", 2, AWAITING_REPLICATION),
        ("iam:CreateAccessKey", 3, THROTTLING),
        ("iam:UpdateAccessKey", 1, CONCURRENT_MODIFICATION),
        ("iam:UpdateAccessKey", 2, SERVICE_FAILURE),
        ("iam:DeleteAccessKey", 1, THROTTLING),
        ("iam:DeleteAccessKey", 2, SERVICE_UNAVAILABLE),
    ] {
        fixture.fake.fault_on(call, nth, Fault::of_aws(refusal));
    }
    fixture.run().go().ends(0, "rotated");
    assert!(fixture.fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
    fixture.is_rotated();
}

fn a_creation_that_ends_with_a_5xx_is_not_repeated() {
    let fixture = Fixture::of_days(75);
    let fault = Fault::of_aws(refusals::SERVICE_UNAVAILABLE);
    fixture.fake.fault_from("iam:CreateAccessKey", 1, fault);
    let ended = fixture.run().go();
    ended.ends(1, "failed");
    let is_creation = |entry: &&Entry| entry.action == "iam:CreateAccessKey";
    assert_eq!(ended.log.iter().filter(is_creation).count(), 1);
}

fn an_old_key_that_is_refused_once() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on("iam:ListAccessKeys", 1, Fault::of_aws(refusals::UNKNOWN_KEY));
    let ended = fixture.run().go();
    ended.ends(0, "rotated");
    assert!(!ended.raw.contains("AFFECTED"));
    fixture.is_rotated();
}

fn a_new_key_that_is_refused_at_each_call_once() {
    let fixture = Fixture::of_days(75);
    // The first two lists are the old key's.
    for (call, nth) in
        [("iam:ListAccessKeys", 3), ("iam:UpdateAccessKey", 1), ("iam:DeleteAccessKey", 1)]
    {
        fixture.fake.fault_on(call, nth, Fault::of_aws(refusals::UNKNOWN_KEY));
    }
    let ended = fixture.run().go();
    ended.ends(0, "rotated");
    assert!(fixture.fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
    fixture.is_rotated();
    // Nobody else has signed in its place, neither with its secret nor with another.
    let new = fixture.new_key().id;
    let published = ended.log.iter().position(|entry| entry.what.starts_with(ID) && entry.effect);
    let later = &ended.log[published.expect("the id was written")..];
    let signed = |entry: &&Entry| entry.service == "iam" && entry.fault.is_none();
    assert!(later.iter().filter(signed).all(|entry| entry.who.starts_with(&new)));
}

fn a_published_key_that_a_record_dates_as_young() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().set("ROTATOR_OVERLAP", "12h");
    run().go().ends(0, "rotated");
    // For longer than a second look takes.
    for nth in 1..=13 {
        fixture.fake.fault_on("iam:ListAccessKeys", nth, Fault::of_aws(refusals::UNKNOWN_KEY));
    }
    let new = fixture.new_key();
    run().with_pair(&new).set("ROTATOR_VERIFY_TIMEOUT", "1m").go().ends(0, "waiting");
    assert!(fixture.fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
}

/// A job that started before the publication: its id and its secret are the old key's.
fn the_key_of_a_tag_replaces_the_signer_only_if_it_works() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().set("ROTATOR_OVERLAP", "12h");
    let first = run();
    let started = first.env("CI_JOB_STARTED_AT");
    first.go().ends(0, "rotated");
    fixture.fake.fault_on("iam:ListAccessKeys", 1, Fault::of_aws(refusals::UNKNOWN_KEY));
    let ended = run().with_pair(&fixture.old).set("CI_JOB_STARTED_AT", &started).go();
    ended.ends(0, "waiting");
    let last = ended.log.iter().rfind(|entry| entry.service == "iam").expect("a call to IAM");
    assert!(last.who.starts_with(&fixture.old.id), "{}", last.who);
}
