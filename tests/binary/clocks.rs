//! Time: GitLab's `Date` beside IAM's, the runner's, and the time that has passed.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        the_runners_clock_is_behind,
        the_runners_clock_is_ahead,
        gitlabs_clock_is_ahead,
        gitlabs_clock_is_behind,
        the_first_replies_of_gitlab_have_a_wrong_date,
        later_replies_have_a_wrong_date,
        all_clocks_leap_and_come_back,
    ]
}

const DAY: i64 = 86_400;
const VARIABLES: &str = "GET /projects/:id/variables";
const TOKEN: &str = "GET /personal_access_tokens/self";

fn the_runners_clock_is_behind() {
    let fixture = Fixture::of_days(75);
    fixture.fake.shift_clock(900);
    fixture.run().go().says(
        1,
        str![[r#"
error: the runner's clock is [N] seconds behind the servers', so AWS rejects its signatures
state: nothing was changed; keys and variables are as they were before this run
hint: fix the time synchronisation of the runner's host, then run again

"#]],
    );
    fixture.is_untouched();
}

fn the_runners_clock_is_ahead() {
    let fixture = Fixture::of_days(75);
    fixture.fake.shift_clock(-900);
    fixture.run().go().says(
        1,
        str![[r#"
error: the runner's clock is [N] seconds ahead of the servers', so AWS rejects its signatures
state: nothing was changed; keys and variables are as they were before this run
hint: fix the time synchronisation of the runner's host, then run again

"#]],
    );
    fixture.is_untouched();
}

fn gitlabs_clock_is_ahead() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.gitlab_ahead = 400);
    fixture.run().go().says(1, str![[r#"
error: GitLab's clock is [N] seconds ahead of AWS's, so this run disables and deletes nothing
state: nothing was changed; keys and variables are as they were before this run
hint: run again; where it stays so, fix the time synchronisation of the GitLab server, or of the proxy that writes `Date`

"#]]);
    fixture.is_untouched();
}

fn gitlabs_clock_is_behind() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.gitlab_ahead = -400);
    fixture.run().go().says(1, str![[r#"
error: GitLab's clock is [N] seconds behind AWS's, so this run disables and deletes nothing
state: nothing was changed; keys and variables are as they were before this run
hint: run again; where it stays so, fix the time synchronisation of the GitLab server, or of the proxy that writes `Date`

"#]]);
    fixture.is_untouched();
}

/// The old key is disabled, and its grace period is over by that date: it stays.
fn the_first_replies_of_gitlab_have_a_wrong_date() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().set("ROTATOR_GRACE_PERIOD", "7d");
    run().go().ends(0, "rotated");
    for first in [VARIABLES, TOKEN] {
        fixture.fake.fault_on(first, 1, Fault::Misdate { seconds: 8 * DAY });
    }
    let ended = run().with_pair(&fixture.new_key()).go();
    ended.ends(1, "failed");
    assert_eq!(fixture.old_is_active(), Some(false));
    run().with_pair(&fixture.new_key()).go().ends(0, "waiting");
    assert_eq!(fixture.old_is_active(), Some(false));
}

fn later_replies_have_a_wrong_date() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().set("ROTATOR_GRACE_PERIOD", "7d");
    for (call, nth, days) in [
        (VARIABLES, 2, 8),
        (VARIABLES, 3, -8),
        ("iam:CreateAccessKey", 1, 8),
        ("PUT /projects/:id/variables/:key AWS_ACCESS_KEY_ID", 1, 8),
        ("POST /projects/:id/pipeline", 1, 8),
        ("iam:UpdateAccessKey", 1, 8),
    ] {
        fixture.fake.fault_on(call, nth, Fault::Misdate { seconds: days * DAY });
    }
    run().go().ends(0, "rotated");
    assert!(fixture.fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
    assert_eq!(fixture.old_is_active(), Some(false));
    run().with_pair(&fixture.new_key()).go().ends(0, "waiting");
    assert_eq!(fixture.old_is_active(), Some(false));
}

fn all_clocks_leap_and_come_back() {
    let fixture = Fixture::of_days(75);
    let (ahead, back) = (fixture.fake.clone(), fixture.fake.clone());
    let leap = ahead.now() + 4 * DAY * 1000;
    let run = fixture
        .run()
        .set("ROTATOR_GRACE_PERIOD", "7d")
        .once(|entry| entry.action == "iam:UpdateAccessKey", move || ahead.shift_clock(8 * DAY))
        .once(
            move |entry| entry.service == "gitlab" && entry.at > leap,
            move || {
                back.shift_clock(0);
            },
        );
    run.go().ends(0, "rotated");
    assert_eq!(fixture.old_is_active(), Some(false));
}
