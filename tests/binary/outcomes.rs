//! Each outcome and its exit code, in words and in calls.

use std::time::Duration;

use snapbox::str;

use fake::*;

const DAY: i64 = 86_400;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // A run ends as the key needs it.
        a_key_that_is_not_due_costs_one_round_trip,
        a_due_key_is_replaced_from_end_to_end,
        a_gitlab_without_dates_ends_a_run_of_stages_too,
        the_old_key_signs_nothing_once_the_new_one_is_published,
        the_days_of_a_rotation_are_waited_for_by_scheduled_runs,
        an_old_key_that_is_still_used_stays_until_nothing_has_used_it_for_two_days,
        an_old_key_that_is_in_use_days_after_its_overlap_is_a_warning,
        a_use_that_aws_shows_late_is_seen_within_twelve_hours,
        a_deploy_is_left_to_the_next_run,
        a_deploy_that_was_left_and_failed_is_told_each_night,
        a_deploy_that_was_left_and_waits_for_a_person_is_told_each_night,
        a_redeploy_that_was_left_and_failed_is_told,
        a_dry_run_changes_nothing,
        another_run_at_work_is_left_alone,
        of_two_runs_at_once_one_rotates,
        what_a_run_needs_an_operator_for_is_refused,
        a_definite_failure_can_be_run_again,
        a_failed_deploy_keeps_both_keys,
        a_hostile_fake_is_rotated_all_the_same,
        a_disabled_published_key_is_replaced_whatever_its_age,
        a_run_that_is_told_to_stop_leaves_nothing_behind,
        a_run_that_is_told_to_stop_while_it_waits_leaves_the_rest_to_the_next,
        // Every action does its part.
        check_says_what_a_run_would_do,
        check_fails_where_a_key_is_too_old,
        check_refuses_what_rotate_would_refuse,
        setup_makes_the_first_pair,
        setup_makes_a_hidden_secret,
        setup_on_an_unprotected_branch_makes_unprotected_variables,
        setup_leaves_a_pair_alone,
        retire_takes_a_proven_deploy_of_its_own_pipeline,
        retire_waits_for_no_deploy_that_did_not_run,
        retire_does_not_take_a_deploy_that_started_too_early,
        retire_by_hand_takes_the_callers_word,
        retire_without_a_rotation_has_nothing_to_do,
        force_replaces_a_young_key_once,
        force_keeps_the_old_key_through_its_overlap,
        force_refuses_while_an_earlier_rotation_waits,
        force_goes_on_with_an_earlier_deploy,
        // Every shape of project is served.
        a_role_rotates_within_six_calls_to_iam,
        a_chain_of_roles_rotates,
        two_projects_are_published_and_deployed,
        a_hidden_secret_is_replaced_unread,
        a_group_is_published_and_its_project_deployed,
        an_environment_is_redeployed_from_the_live_commit,
        a_named_ref_is_deployed_with_inputs,
        pipeline_variables_are_sent_where_they_are_asked_for,
        an_in_flight_job_is_waited_for,
        a_scoped_pair_under_other_names_is_rotated,
        a_persons_words_and_flags_stay,
    ]
}

fn a_key_that_is_not_due_costs_one_round_trip() {
    let fixture = Fixture::of_days(10);
    let ended = fixture.run().go();
    ended.ends(0, "not_due");
    assert_eq!((ended.calls("iam"), ended.calls("sts"), ended.calls("gitlab")), (1, 0, 2));
    assert_eq!(
        (
            ended.calls("GET /projects/:id/variables"),
            ended.calls("GET /personal_access_tokens/self")
        ),
        (1, 1)
    );
    assert_eq!(ended.effects(), Vec::<String>::new());
    ended.shows(str![[r#"

Key        key …[OLD] of user deployer, created [DATE] (10 days old)
Why        not due: a key is replaced after 60 days, this one on [DATE]
Published  project:42
Deploy     none in this run
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
}

/// Without a clock of GitLab's the run must not wait for a moment that never comes.
fn a_gitlab_without_dates_ends_a_run_of_stages_too() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.no_date = true);
    let ended = fixture.run().set("ROTATOR_DEPLOY", "none").go();
    ended.ends(0, "deploying");
    assert!(ended.took < Duration::from_secs(30), "{:?}", ended.took);
}

/// A call of this run would count as a use of the old key, which would then stay in use.
fn the_old_key_signs_nothing_once_the_new_one_is_published() {
    let fixture = Fixture::of_days(75);
    let ended = fixture.run().set("ROTATOR_OVERLAP", "0s").go();
    ended.ends(0, "rotated");
    let is_publication =
        |entry: &Entry| entry.action.starts_with("PUT") && entry.what.starts_with(ID);
    let published = ended.log.iter().position(is_publication).expect("the id is written");
    let later: Vec<&Entry> =
        ended.log[published..].iter().filter(|entry| entry.service == "iam").collect();
    assert!(!later.is_empty(), "IAM was asked nothing");
    assert!(later.iter().all(|entry| !entry.who.contains(&fixture.old.id)), "{later:?}");
}

fn a_due_key_is_replaced_from_end_to_end() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.queue_ms = 500);
    let ended = fixture.run().go();
    ended.ends(0, "rotated");
    ended.shows(str![[r#"
section_start:[TIME]:rotator_look Looking at keys and variables
 INFO claimed the rotation: no other run is working on this key
section_end:[TIME]:rotator_look
section_start:[TIME]:rotator_publish A new key: create, verify, publish
 INFO recorded that a rotation begins
 INFO created a new key
 INFO verified new key …[NEW] with its own credentials
 INFO wrote the new secret to project:42
 INFO wrote the new id to project:42
 INFO recorded that the new key is published
section_end:[TIME]:rotator_publish
section_start:[TIME]:rotator_deploy The deploy
 INFO every job that started before the publication has ended
 INFO asking for the deploy of project 42
 INFO started the deploy of project 42
 INFO the deploy succeeded with the new key
section_end:[TIME]:rotator_deploy
section_start:[TIME]:rotator_retire The old key
 INFO disabled old key …[OLD]
 INFO recorded that the old key is disabled
 INFO deleted old key …[OLD]
 INFO the rotation is finished
section_end:[TIME]:rotator_retire

Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was older than 60 days
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    fixture.is_rotated();
    let new = fixture.new_key();
    assert_eq!(ended.report["key"], new.id);
    assert_eq!(ended.report["previous_key"], fixture.old.id);
    assert_eq!(ended.report["user"], USER);
    assert_eq!(ended.report["deploys"][0]["status"], "success");
    assert!(ended.report["steps"].as_array().is_some_and(
        |steps| steps.len() > 10 && steps.iter().all(|step| step["outcome"] == "done")
    ));
    let pipeline =
        fixture.fake.pipelines(PROJECT).last().map(|pipeline| pipeline.id).expect("a pipeline");
    let dotenv = format!(
        "ROTATION_OUTCOME=rotated\nROTATION_KEY_ID={}\nROTATION_PREVIOUS_KEY_ID={}\nROTATION_DEPLOY_PIPELINES={pipeline}\n",
        new.id, fixture.old.id
    );
    assert_eq!(ended.dotenv, dotenv);
    let link = format!("{}/acme/shop/-/pipelines/{pipeline}", fixture.fake.url);
    assert_eq!(ended.annotations["rotation"][0]["external_link"]["url"], link);
    // What an operator finds in the settings: masked, raw, tagged; and a released record without
    // `ends`.
    let secret = fixture.fake.variable(PROJECT, SECRET, "*").expect("the secret");
    assert_eq!(secret.description, Some(format!("[credential-rotator {}]", new.id)));
    assert!(secret.masked && secret.raw);
    let [record] = &fixture.records()[..] else { panic!("one record is left") };
    assert!(
        record.scope == "credential-rotator"
            && !record.value.contains("\"ends\"")
            && record.value.contains("\"finished\"")
    );
}

fn the_days_of_a_rotation_are_waited_for_by_scheduled_runs() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().set("ROTATOR_OVERLAP", "1m").set("ROTATOR_GRACE_PERIOD", "1m").go();
    run().ends(0, "rotated").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was older than 60 days
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run after [TIME] disables old key …[OLD], and a run 1 min later deletes it; AWS shows a use late, so an overlap under 12 hours can miss one

"#]]);
    assert_eq!(fixture.old_is_active(), Some(true));
    let waiting = run();
    waiting.ends(0, "waiting").shows(str![[r#"

Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        a rotation is under way and waits
Published  project:42
Deploy     none in this run
Next       the next scheduled run after [TIME] disables old key …[OLD], and a run 1 min later deletes it; AWS shows a use late, so an overlap under 12 hours can miss one

"#]]);
    assert_eq!((waiting.effects(), waiting.calls("iam")), (Vec::new(), 1));

    fixture.fake.shift_clock(100);
    run().ends(0, "resumed").shows(str![[r#"
 WARN AWS may not show a use of old key …[OLD] yet: ROTATOR_OVERLAP is under 12 hours
section_start:[TIME]:rotator_look Looking at keys and variables
 INFO claimed the rotation: no other run is working on this key
 INFO took over the record of an earlier run
section_end:[TIME]:rotator_look
section_start:[TIME]:rotator_retire The old key
 INFO disabled old key …[OLD]
 INFO recorded that the old key is disabled
section_end:[TIME]:rotator_retire

Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        went on with a rotation that an earlier run had begun
Published  project:42
Deploy     none in this run
Next       the next scheduled run after [TIME] deletes old key …[OLD]

"#]]);
    assert_eq!(fixture.old_is_active(), Some(false));
    let waiting = run();
    waiting.ends(0, "waiting").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        a rotation is under way and waits
Published  project:42
Deploy     none in this run
Next       the next scheduled run after [TIME] deletes old key …[OLD]

"#]]);
    assert_eq!((waiting.effects(), waiting.calls("iam")), (Vec::new(), 1));

    fixture.fake.shift_clock(200);
    run().ends(0, "resumed").shows(str![[r#"
section_start:[TIME]:rotator_look Looking at keys and variables
 INFO claimed the rotation: no other run is working on this key
 INFO took over the record of an earlier run
section_end:[TIME]:rotator_look
section_start:[TIME]:rotator_retire The old key
 INFO deleted old key …[OLD]
 INFO the rotation is finished
section_end:[TIME]:rotator_retire

Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        went on with a rotation that an earlier run had begun
Published  project:42
Deploy     none in this run
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    fixture.is_rotated();
    run().ends(0, "not_due");
}

fn an_old_key_that_is_still_used_stays_until_nothing_has_used_it_for_two_days() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().set("ROTATOR_OVERLAP", "1m").set("ROTATOR_GRACE_PERIOD", "0s").go();
    run().ends(0, "rotated");
    fixture.fake.shift_clock(100);
    fixture.fake.use_key(&fixture.old.id, "s3", 30);
    let ended = run();
    ended.ends(0, "waiting").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        a rotation is under way and waits
Published  project:42
Deploy     none in this run
Next       old key …[OLD] was still used at [TIME] (s3), so it stays active until [TIME], or longer where it is used again; then it is disabled

"#]]);
    assert_eq!(ended.calls("iam:GetAccessKeyLastUsed"), 1);
    assert_eq!(fixture.old_is_active(), Some(true));
    // It comes once a day; then it has the new key.
    fixture.fake.time_passes(DAY);
    fixture.fake.use_key(&fixture.old.id, "s3", 30);
    fixture.fake.time_passes(47 * 3600);
    run().ends(0, "waiting");
    assert_eq!(fixture.old_is_active(), Some(true));
    fixture.fake.time_passes(2 * 3600);
    run().ends(0, "resumed");
    fixture.is_rotated();
}

fn an_old_key_that_is_in_use_days_after_its_overlap_is_a_warning() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().set("ROTATOR_OVERLAP", "12h").go();
    run().ends(0, "rotated");
    fixture.fake.time_passes(3 * DAY);
    fixture.fake.use_key(&fixture.old.id, "s3", 3600);
    run().ends(0, "waiting");
    fixture.fake.time_passes(DAY);
    fixture.fake.use_key(&fixture.old.id, "s3", 3600);
    run().ends(6, "waiting").shows(str![[r#"

Key        key …[NEW] of user deployer, created [DATE] (4 days old); replaces key …[OLD]
Why        a rotation is under way and waits
Published  project:42
Deploy     none in this run
Next       old key …[OLD] was still used at [TIME] (s3), so it stays active until [TIME], or longer where it is used again; then it is disabled

warning: old key …[OLD] is still in use days after its overlap (last used [DATE] for s3)
hint: move that software to the new key: the old one is disabled once nothing has used it for two days, or, whatever uses it, with `overlap: 0s`

"#]]);
    assert_eq!(fixture.old_is_active(), Some(true));
}

/// With the default overlap no use is missed; a shorter one is told.
fn a_use_that_aws_shows_late_is_seen_within_twelve_hours() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.last_used_lag = 4 * 3600);
    let run = |overlap| fixture.run().set("ROTATOR_OVERLAP", overlap).go();
    run("12h").ends(0, "rotated");
    fixture.fake.time_passes(3600);
    fixture.fake.use_key(&fixture.old.id, "s3", 10);
    fixture.fake.time_passes(12 * 3600);
    let long = run("12h");
    long.ends(0, "waiting");
    assert_eq!(fixture.old_is_active(), Some(true));
    assert!(!long.stderr.contains("may not show"), "{}", long.stderr);
    let short = run("11h");
    short.ends(0, "waiting").shows(str![[r#"
 WARN AWS may not show a use of old key …[OLD] yet: ROTATOR_OVERLAP is under 12 hours

Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        a rotation is under way and waits
Published  project:42
Deploy     none in this run
Next       old key …[OLD] was still used at [TIME] (s3), so it stays active until [TIME], or longer where it is used again; then it is disabled

"#]]);
    assert_eq!(fixture.old_is_active(), Some(true));
}

fn a_deploy_is_left_to_the_next_run() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.queue_ms = 60_000);
    let run = || fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "0s").go();
    run().ends(0, "deploying").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was older than 60 days
Published  project:42
Deploy     project 42 of commit [SHA]: pending http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       pipeline http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE] is pending: no runner has taken it yet; the next run goes on; both keys work until then

"#]]);
    assert_eq!(fixture.old_is_active(), Some(true));
    fixture.fake.finish_pipelines();
    let ended = run();
    ended.ends(0, "resumed").shows(str![[r#"
section_start:[TIME]:rotator_look Looking at keys and variables
 INFO claimed the rotation: no other run is working on this key
 INFO took over the record of an earlier run
section_end:[TIME]:rotator_look
section_start:[TIME]:rotator_deploy The deploy
 INFO the deploy succeeded with the new key
section_end:[TIME]:rotator_deploy
section_start:[TIME]:rotator_retire The old key
 INFO disabled old key …[OLD]
 INFO recorded that the old key is disabled
 INFO deleted old key …[OLD]
 INFO the rotation is finished
section_end:[TIME]:rotator_retire

Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        went on with a rotation that an earlier run had begun
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 0);
    fixture.is_rotated();
}

/// The run that finds it starts another, and is not green for it.
fn a_deploy_that_was_left_and_failed_is_told_each_night() {
    let fixture = Fixture::of_days(75);
    let deploy = JobSpec::deploy("deploy", "production");
    fixture.fake.set_pipeline_config(PROJECT, vec![deploy.clone().fails()]);
    fixture.fake.tune(|knobs| knobs.queue_ms = 60_000);
    let run = || fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "0s").go();
    run().ends(0, "deploying");
    for night in 1..=2 {
        fixture.fake.finish_pipelines();
        let ended = run();
        ended.ends(4, "deploy_failed");
        assert_eq!(ended.calls("POST /projects/:id/pipeline"), 1, "night {night}");
        assert!(ended.stderr.contains("error: the deploy failed: pipeline failed"), "{night}");
        assert!(ended.stderr.contains("production is not affected"), "{night}");
    }
    // The fourth night's deploy is fixed.
    fixture.fake.set_pipeline_config(PROJECT, vec![deploy]);
    fixture.fake.finish_pipelines();
    run().ends(4, "deploy_failed");
    fixture.fake.finish_pipelines();
    run().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_deploy_that_was_left_and_waits_for_a_person_is_told_each_night() {
    let fixture = Fixture::of_days(75);
    let jobs = vec![JobSpec::new("build"), JobSpec::deploy("deploy", "production").manual()];
    fixture.fake.set_pipeline_config(PROJECT, jobs);
    let run = || fixture.run().set("ROTATOR_DEPLOY_TIMEOUT", "0s").go();
    run().ends(0, "deploying");
    fixture.fake.finish_pipelines();
    for night in 1..=2 {
        let ended = run();
        ended.ends(4, "deploy_failed");
        assert_eq!(ended.calls("POST /projects/:id/pipeline"), 0, "night {night}");
        assert!(ended.stderr.contains("error: the deploy has not ended in time: "), "{night}");
    }
    let jobs = fixture.fake.jobs(PROJECT);
    let manual = jobs.iter().find(|job| job.status == "manual").map(|job| job.id);
    fixture.fake.operator_plays_job(manual.unwrap_or_default());
    fixture.fake.finish_pipelines();
    run().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_redeploy_that_was_left_and_failed_is_told() {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_job_end("deploy", JobEnd::Failure);
    fixture.fake.tune(|knobs| knobs.queue_ms = 60_000);
    let run = || {
        let run = fixture.run().set("ROTATOR_DEPLOY", "environment/production");
        run.set("ROTATOR_DEPLOY_TIMEOUT", "0s").go()
    };
    run().ends(0, "deploying");
    fixture.fake.finish_pipelines();
    fixture.fake.set_job_end("deploy", JobEnd::Success);
    let ended = run();
    ended.ends(4, "deploy_failed");
    assert_eq!(ended.calls("POST /projects/:id/jobs/:number/retry"), 1);
    fixture.fake.finish_pipelines();
    run().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_dry_run_changes_nothing() {
    let fixture = Fixture::of_days(75);
    let ended = fixture.run().set("ROTATOR_DRY_RUN", "true").go();
    ended.ends(0, "dry_run").shows(str![[r#"
A run would:
   1. claim the rotation
   2. record that a rotation begins
   3. create a new key
   4. verify new key …[KEY] with its own credentials
   5. write the secret of new key …[KEY] to target 1
   6. write the id of new key …[KEY] to target 1
   7. record that the new key is published
   8. record that every job that started before the publication has ended
   9. record that deploy 1 is asked for
  10. start deploy 1
  11. record that the deploy runs with the new key
  12. disable old key …[OLD]
  13. record that the old key is disabled
  14. delete old key …[OLD]
  15. record that the rotation is finished

Key        key …[OLD] of user deployer, created [DATE] (75 days old)
Why        dry run: nothing was changed
Published  project:42
Deploy     none in this run
Next       run without ROTATOR_DRY_RUN

"#]]);
    assert_eq!(ended.effects(), Vec::<String>::new());
    fixture.is_untouched();
}

/// A record of a run that has announced itself and nothing more.
fn announce(fixture: &Fixture, job: u64) {
    let now = |seconds: i64| iso(fixture.fake.now() + seconds * 1000);
    let record = serde_json::json!({ "user": USER, "job": format!("{PROJECT}/{job}"), "at": now(-60), "ends": now(3000) });
    let name = format!("CREDENTIAL_ROTATOR_{job}_0badcafe");
    fixture.fake.set_variable(
        PROJECT,
        Variable::new(&name, &record.to_string()).scope("credential-rotator"),
    );
}

fn another_run_at_work_is_left_alone() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_job(PROJECT, 8000, "running");
    announce(&fixture, 8000);
    let ended = fixture.run().go();
    ended.ends(5, "busy").says(
        5,
        str![[r#"
error: another run is at work on this user's key
state: the variables name key …[OLD] (active); production is not affected
hint: nothing to do: it finishes by itself; a run that died is replaced once GitLab says that its job has ended

"#]],
    );
    assert_eq!(ended.effects(), Vec::<String>::new());
    // It died long ago: its job has ended, so its record counts no more.
    fixture.fake.remove_job(8000);
    let before = fixture.fake.now() - 600_000;
    fixture.fake.add_job_at(PROJECT, 8000, "failed", Some(before), Some(before));
    fixture.run().go().ends(0, "rotated");
}

fn of_two_runs_at_once_one_rotates() {
    let fixture = Fixture::of_days(75);
    let (one, other) = (fixture.run().beside_another(), fixture.run().beside_another());
    let [one, other] = std::thread::scope(|scope| {
        let runs = [one, other].map(|run| scope.spawn(|| run.go()));
        runs.map(|run| run.join().expect("a run ends"))
    });
    let mut codes = [one.code, other.code];
    codes.sort_unstable();
    assert!(codes == [0, 5] || codes == [0, 0], "{codes:?}\n{}\n{}", one.stderr, other.stderr);
    let creates =
        fixture.fake.log().iter().filter(|entry| entry.action == "iam:CreateAccessKey").count();
    assert_eq!(creates, 1);
    fixture.is_rotated();
}

fn what_a_run_needs_an_operator_for_is_refused() {
    let fixture = Fixture::of_days(75);
    fixture.fake.operator_creates_key(USER);
    let ended = fixture.run().go();
    ended.ends(3, "refused");
    assert_eq!(ended.effects(), Vec::<String>::new());
}

fn a_definite_failure_can_be_run_again() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("iam:CreateAccessKey", 1, Fault::refuse(400));
    fixture.run().go().ends(1, "failed").says(
        1,
        str![[r#"
error: creating a new access key: AWS throttles this account's calls
state: the variables name key …[OLD] (active); production is not affected
hint: run again; spread the schedules of many projects over the day

"#]],
    );
    fixture.is_untouched();
    fixture.fake.clear_faults();
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
}

fn a_failed_deploy_keeps_both_keys() {
    let fixture = Fixture::of_days(75);
    fixture
        .fake
        .set_pipeline_config(PROJECT, vec![JobSpec::deploy("deploy", "production").fails()]);
    fixture.run().go().ends(4, "deploy_failed");
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 1));
    // An operator fixes it and retries: the next run proves that.
    fixture.fake.set_pipeline_config(PROJECT, vec![JobSpec::deploy("deploy", "production")]);
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_hostile_fake_is_rotated_all_the_same() {
    for seed in [11, 12] {
        let fixture = Fixture::hostile(seed, 75);
        fixture.run().go().ends(0, "rotated");
        fixture.is_rotated();
    }
}

fn a_run_that_is_told_to_stop_leaves_nothing_behind() {
    let fixture = Fixture::of_days(75);
    fixture.run().go_until(|entry| entry.action == "iam:CreateAccessKey").says(
        143,
        str![[r#"
error: the run was stopped by a signal
state: the variables name key …[OLD] (active); production is not affected
hint: run again: it goes on from here

"#]],
    );
    fixture.is_untouched();
    fixture.run().go().ends(0, "rotated");
}

fn a_run_that_is_told_to_stop_while_it_waits_leaves_the_rest_to_the_next() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.queue_ms = 5000);
    fixture.run().go_until(|entry| entry.action == "POST /projects/:id/pipeline").says(
        143,
        str![[r#"
error: the run was stopped by a signal
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: run again: it goes on from here

"#]],
    );
    fixture.fake.tune(|knobs| knobs.queue_ms = 10);
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn a_disabled_published_key_is_replaced_whatever_its_age() {
    let fixture = Fixture::of_days(10);
    fixture.fake.operator_disables_key(&fixture.old.id);
    fixture.run().with_role().go().ends(0, "rotated").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was disabled
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    fixture.is_rotated();
}

fn check_says_what_a_run_would_do() {
    let fixture = Fixture::of_days(75);
    let ended = fixture.run().set("ROTATOR_ACTION", "check").go();
    ended.ends(0, "due").sums_up(str![[r#"
Key        key …[OLD] of user deployer, created [DATE] (75 days old)
Why        checked only; a rotation would: replace the key
Published  project:42
Deploy     none in this run
Next       the next scheduled run of the rotation replaces this key

"#]]);
    assert_eq!((ended.effects(), ended.calls("iam")), (Vec::new(), 1));

    let fixture = Fixture::of_days(10);
    let check = || fixture.run().with_role().set("ROTATOR_ACTION", "check").go();
    check().ends(0, "healthy").sums_up(str![[r#"
Key        key …[OLD] of user deployer, created [DATE] (10 days old)
Why        checked only; not due: a key is replaced after 60 days, this one on [DATE]
Published  project:42
Deploy     none in this run
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    fixture.fake.operator_disables_key(&fixture.old.id);
    check().ends(0, "due").sums_up(str![[r#"
Key        key …[OLD] of user deployer, created [DATE] (10 days old)
Why        checked only; a rotation would: replace the key
Published  project:42
Deploy     none in this run
Next       the next scheduled run of the rotation replaces this key

"#]]);
}

fn check_fails_where_a_key_is_too_old() {
    let fixture = Fixture::of_days(95);
    let ended = fixture.run().set("ROTATOR_ACTION", "check").go();
    ended.ends(3, "refused").says(
        3,
        str![[r#"
error: key …[OLD] is older than ROTATOR_MAX_AGE (made [DATE])
state: the variables name key …[OLD] (active); production is not affected
hint: look at the last scheduled runs of the rotation, or run one now

"#]],
    );
    fixture.is_untouched();
}

fn check_refuses_what_rotate_would_refuse() {
    let fixture = Fixture::of_days(10);
    fixture.fake.operator_removes_variable(PROJECT, SECRET, "*");
    let ended = fixture.run().with_role().set("ROTATOR_ACTION", "check").go();
    ended.ends(3, "refused").says(
        3,
        str![[r#"
error: project:42 has the key's id but no secret
state: project:42 HOLDS NO PAIR THAT WORKS: jobs that start now and use it fail
hint: store the secret beside it, or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere

"#]],
    );
}

fn unpublished() -> Fixture {
    Fixture::bare(Fake::builder().seed(7).calm().start(), 5)
}

fn setup_makes_the_first_pair() {
    let fixture = unpublished();
    let ended = fixture.run().with_role().set("ROTATOR_ACTION", "setup").go();
    ended.ends(0, "rotated").shows(str![[r#"
section_start:[TIME]:rotator_look Looking at keys and variables
 INFO claimed the rotation: no other run is working on this key
section_end:[TIME]:rotator_look
section_start:[TIME]:rotator_publish A new key: create, verify, publish
 INFO recorded that a rotation begins
 INFO created a new key
 INFO verified new key …[NEW] with its own credentials
 INFO wrote the new secret to project:42
 INFO wrote the new id to project:42
 INFO recorded that the new key is published
section_end:[TIME]:rotator_publish
section_start:[TIME]:rotator_deploy The deploy
 INFO every job that started before the publication has ended
 INFO asking for the deploy of project 42
 INFO started the deploy of project 42
 INFO the deploy succeeded with the new key
section_end:[TIME]:rotator_deploy
section_start:[TIME]:rotator_retire The old key
 INFO the rotation is finished
section_end:[TIME]:rotator_retire

Key        key …[NEW] of user deployer, created [DATE] (0 days old)
Why        set up: the first key, and the variables that hold it
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    let new = fixture.new_key();
    assert_eq!(fixture.stored(), (new.id, new.secret));
    for name in [ID, SECRET] {
        let variable = fixture.fake.variable(PROJECT, name, "*").expect("made");
        assert!(
            variable.masked && variable.raw && variable.protected && !variable.hidden,
            "{name}"
        );
    }
    assert_eq!(fixture.old_is_active(), Some(true), "keys that were there stay");
}

fn setup_makes_a_hidden_secret() {
    let fixture = unpublished();
    fixture
        .run()
        .with_role()
        .set("ROTATOR_ACTION", "setup")
        .set("ROTATOR_HIDDEN", "true")
        .go()
        .ends(0, "rotated");
    assert!(fixture.fake.variable(PROJECT, SECRET, "*").is_some_and(|secret| secret.hidden));
    assert!(fixture.fake.variable(PROJECT, ID, "*").is_some_and(|id| !id.hidden));
}

fn setup_on_an_unprotected_branch_makes_unprotected_variables() {
    let fixture = unpublished();
    fixture.fake.start_pipeline_with(
        PROJECT,
        "web",
        "feature",
        vec![JobSpec::new("rotate").never_ends()],
    );
    let job = fixture.running_job(PROJECT, "rotate").id;
    fixture.run_as(PROJECT, job).with_role().set("ROTATOR_ACTION", "setup").go().ends(0, "rotated");
    assert!(
        [ID, SECRET].iter().all(|name| !fixture
            .fake
            .variable(PROJECT, name, "*")
            .expect("made")
            .protected)
    );
}

fn setup_leaves_a_pair_alone() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_ACTION", "setup").go().ends(0, "not_due").sums_up(str![[r#"
Key        key …[OLD] of user deployer, created [DATE] (75 days old)
Why        the variables are there already, so nothing was set up
Published  project:42
Deploy     none in this run
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    fixture.is_untouched();
}

/// A pipeline of stages: the rotator's job, what `deploy` is, and the rotator's job again.
pub(crate) fn staged(fixture: &Fixture, source: &str, jobs: Vec<JobSpec>) {
    fixture.fake.tune(|knobs| knobs.queue_ms = 3000);
    fixture.fake.start_pipeline_with(PROJECT, source, "main", jobs);
}

pub(crate) fn in_job<'a>(fixture: &'a Fixture, name: &str, action: &str) -> Run<'a> {
    let job = fixture.running_job(PROJECT, name).id;
    let run =
        fixture.run_as(PROJECT, job).set("ROTATOR_DEPLOY", "none").set("ROTATOR_ACTION", action);
    if action == "retire" { run.set("ROTATOR_DEPLOY_JOBS", "deploy") } else { run }
}

pub(crate) fn rotate_job() -> JobSpec {
    JobSpec::new("rotate").stage("1").never_ends()
}

pub(crate) fn retire_job() -> JobSpec {
    JobSpec::new("retire").stage("3").never_ends()
}

fn retire_takes_a_proven_deploy_of_its_own_pipeline() {
    let fixture = Fixture::of_days(75);
    staged(
        &fixture,
        "schedule",
        vec![rotate_job(), JobSpec::deploy("deploy", "production").stage("2"), retire_job()],
    );
    in_job(&fixture, "rotate", "rotate").go().ends(0, "deploying").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was older than 60 days
Published  project:42
Deploy     none in this run
Next       the pipeline's own deploy comes next, then its `retire` job proves it; both keys work until then

"#]]);
    assert_eq!(fixture.old_is_active(), Some(true));
    let ended = in_job(&fixture, "retire", "retire").go();
    ended.ends(0, "resumed").shows(str![[r#"
section_start:[TIME]:rotator_look Looking at keys and variables
 INFO claimed the rotation: no other run is working on this key
 INFO took over the record of an earlier run
section_end:[TIME]:rotator_look
section_start:[TIME]:rotator_deploy The deploy
 INFO the deploy succeeded with the new key
section_end:[TIME]:rotator_deploy
section_start:[TIME]:rotator_retire The old key
 INFO disabled old key …[OLD]
 INFO recorded that the old key is disabled
 INFO deleted old key …[OLD]
 INFO the rotation is finished
section_end:[TIME]:rotator_retire

Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        finished the rotation: disabled old key …[OLD], deleted old key …[OLD]
Published  project:42
Deploy     project 42: success
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    fixture.is_rotated();
}

fn retire_waits_for_no_deploy_that_did_not_run() {
    let fixture = Fixture::of_days(75);
    staged(
        &fixture,
        "schedule",
        vec![
            rotate_job(),
            JobSpec::deploy("deploy", "production").stage("2").manual().allow_failure(),
            retire_job(),
        ],
    );
    in_job(&fixture, "rotate", "rotate").go().ends(0, "deploying");
    let retire = in_job(&fixture, "retire", "retire").set("ROTATOR_DEPLOY_TIMEOUT", "3s");
    retire.go().ends(4, "deploy_failed").says(
        4,
        str![[r#"
error: the deploy has not ended in time: pipeline [PIPELINE]: job deploy waits for a person (http://127.0.0.1:[PORT]/acme/shop/-/jobs/[JOB])
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: if it waits for a runner or a person, give it one; the next run goes on; ROTATOR_DEPLOY_TIMEOUT sets how long a run waits

"#]],
    );
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 1));
}

fn retire_does_not_take_a_deploy_that_started_too_early() {
    let fixture = Fixture::of_days(75);
    // The deploy comes before the rotation: it has the old pair.
    let deploy = JobSpec::deploy("deploy", "production").stage("0");
    staged(&fixture, "schedule", vec![deploy, rotate_job(), retire_job()]);
    in_job(&fixture, "rotate", "rotate").go().ends(0, "deploying");
    in_job(&fixture, "retire", "retire").go().ends(4, "deploy_failed").says(4, str![[r#"
error: nothing proves that the deploy ran: pipeline [PIPELINE]: job deploy started before the new pair was in place (http://127.0.0.1:[PORT]/acme/shop/-/jobs/[JOB])
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: run the job that did not run, or let ROTATOR_DEPLOY_JOBS name the jobs that deploy, so that only those must have run; then run this again

"#]]);
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 1));
}

fn retire_by_hand_takes_the_callers_word() {
    let fixture = Fixture::of_days(75);
    staged(
        &fixture,
        "web",
        vec![rotate_job(), JobSpec::deploy("deploy", "production").stage("2"), retire_job()],
    );
    in_job(&fixture, "rotate", "rotate").go().ends(0, "deploying");
    let ended = in_job(&fixture, "retire", "retire").unset("ROTATOR_DEPLOY_JOBS").go();
    ended.ends(0, "resumed").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        finished the rotation: disabled old key …[OLD], deleted old key …[OLD]
Published  project:42
Deploy     project 42: taken on trust
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    fixture.is_rotated();
}

fn retire_without_a_rotation_has_nothing_to_do() {
    let fixture = Fixture::of_days(10);
    let run = fixture
        .run()
        .set("ROTATOR_DEPLOY", "none")
        .set("ROTATOR_ACTION", "retire")
        .set("ROTATOR_DEPLOY_JOBS", "deploy");
    run.go().ends(0, "not_due").sums_up(str![[r#"
Key        key …[OLD] of user deployer, created [DATE] (10 days old)
Why        no rotation is under way, so there is nothing to retire
Published  project:42
Deploy     none in this run
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    fixture.is_untouched();
}

fn force_replaces_a_young_key_once() {
    let fixture = Fixture::of_days(10);
    let first = fixture.run().set("ROTATOR_FORCE", "true");
    let pipeline = first.env("CI_PIPELINE_CREATED_AT");
    first.go().ends(0, "rotated").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because it was forced
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    fixture.is_rotated();
    // The job is retried: another job of the same pipeline.
    let retried =
        fixture.run().set("ROTATOR_FORCE", "true").set("CI_PIPELINE_CREATED_AT", &pipeline).go();
    retried.ends(0, "not_due");
    fixture.is_rotated();
}

/// Who tries the tool with force does not lose the old key in the same run, nor by a retry of it.
fn force_keeps_the_old_key_through_its_overlap() {
    let fixture = Fixture::of_days(10);
    let run = || {
        let run = fixture.run().unset("ROTATOR_OVERLAP").unset("ROTATOR_GRACE_PERIOD");
        run.set("ROTATOR_FORCE", "true")
    };
    let first = run();
    let pipeline = first.env("CI_PIPELINE_CREATED_AT");
    first.go().ends(0, "rotated").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because it was forced
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run after [TIME] disables old key …[OLD], and a run 7 days later deletes it

"#]]);
    assert_eq!(fixture.old_is_active(), Some(true));
    let new = fixture.new_key();
    let retried = run().set("CI_PIPELINE_CREATED_AT", &pipeline).go();
    retried.ends(0, "waiting");
    assert_eq!((fixture.old_is_active(), fixture.new_key().id), (Some(true), new.id));
}

fn force_refuses_while_an_earlier_rotation_waits() {
    let fixture = Fixture::of_days(75);
    let run = |force: &str, overlap: &str, grace: &str| {
        let run = fixture.run().set("ROTATOR_FORCE", force);
        run.set("ROTATOR_OVERLAP", overlap).set("ROTATOR_GRACE_PERIOD", grace).go()
    };
    run("false", "12h", "7d").ends(0, "rotated");
    let second = fixture.new_key();
    // A later pipeline: a key of this very second is not older than it.
    fixture.fake.shift_clock(5);
    let refused = run("true", "12h", "7d");
    refused.says(
        3,
        str![[r#"
error: an earlier rotation is not over: old key …[OLD] stays active until [TIME] (last use: [DATE] for iam)
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: force shortens no wait: the grace period follows, then a key can be made; or, where nothing needs the old key, run it with `overlap: 0s` and `grace_period: 0s`, which disable and delete it at once

"#]],
    );
    assert_eq!((refused.effects(), fixture.old_is_active()), (Vec::new(), Some(true)));
    fixture.fake.time_passes(13 * 3600);
    run("false", "12h", "7d").ends(0, "resumed");
    assert_eq!(fixture.old_is_active(), Some(false));
    let refused = run("true", "12h", "7d");
    refused.says(
        3,
        str![[r#"
error: an earlier rotation is not over: old key …[OLD] stays disabled until [TIME] (last use: [DATE] for iam)
state: the variables name a key that works; old key …[OLD] (disabled), new key …[NEW] (active); production is not affected
hint: force shortens no wait: run it again after that date; or, where nothing needs the old key, with `grace_period: 0s`, which deletes it at once

"#]],
    );
    assert_eq!((refused.effects(), fixture.old_is_active()), (Vec::new(), Some(false)));
    // What the hint says.
    run("true", "0s", "0s").ends(0, "rotated");
    fixture.is_rotated();
    assert_ne!(fixture.new_key().id, second.id);
}

fn force_goes_on_with_an_earlier_deploy() {
    let fixture = Fixture::of_days(75);
    let deploy = JobSpec::deploy("deploy", "production");
    fixture.fake.set_pipeline_config(PROJECT, vec![deploy.clone().fails()]);
    fixture.run().set("ROTATOR_OVERLAP", "12h").go().ends(4, "deploy_failed");
    let second = fixture.new_key();
    fixture.fake.shift_clock(5);
    fixture.fake.set_pipeline_config(PROJECT, vec![deploy]);
    let run = || fixture.run().set("ROTATOR_FORCE", "true").set("ROTATOR_OVERLAP", "12h").go();
    run().ends(3, "refused");
    assert_eq!((fixture.old_is_active(), fixture.stored().0), (Some(true), second.id));
}

fn a_role_rotates_within_six_calls_to_iam() {
    let fixture = Fixture::of_days(75);
    let ended = fixture.run().with_role().go();
    ended.ends(0, "rotated");
    fixture.is_rotated();
    assert!(ended.calls("iam") <= 6, "{} calls", ended.calls("iam"));
    let signed_by_the_pair = ended
        .log
        .iter()
        .filter(|entry| entry.service == "iam" && entry.who.contains("AKIA"))
        .count();
    assert_eq!(signed_by_the_pair, 0, "with a role nothing is signed by keys of the environment");
    // Nothing due: one level more than self mode, and no more.
    let ended = fixture.run().with_role().go();
    assert_eq!((ended.calls("iam"), ended.calls("sts")), (1, 1));
}

fn a_chain_of_roles_rotates() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let first = run.env("ROTATOR_AWS_ROLE_ARN");
    let fake = &fixture.fake;
    let second =
        fake.add_role("keys", Trust::Principal(first.clone()), 3600, &fake.rotation_policy(USER));
    let ended = run.set("ROTATOR_AWS_ROLE_ARN", &format!("{first},{second}")).go();
    ended.ends(0, "rotated");
    assert!(
        ended
            .log
            .iter()
            .filter(|entry| entry.service == "iam")
            .all(|entry| entry.who.contains("assumed-role/keys/"))
    );
    assert!(ended.calls("iam") <= 6, "{} calls", ended.calls("iam"));
    fixture.is_rotated();
}

fn two_projects_are_published_and_deployed() {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    fake.add_project(43, "acme/api");
    // The first deploy is proven by a look that shows this one under way.
    fake.set_pipeline_config(43, vec![JobSpec::deploy("ship", "live").ms(2500)]);
    fake.set_pair(43, &fixture.old);
    fake.start_pipeline(43, "push");
    fake.finish_pipelines();
    fake.watch_target(43, "*", ID, SECRET);
    fake.watch_deploy(43);
    let ended = fixture.run().set("ROTATOR_TARGETS", "project:42,project:acme/api").go();
    ended.ends(0, "rotated").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was older than 60 days
Published  project:42, project:acme/api
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]; project acme/api of commit [SHA]: success http://127.0.0.1:[PORT]/acme/api/-/pipelines/[PIPELINE]
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    assert_eq!(ended.report["deploys"].as_array().map(Vec::len), Some(2));
    fixture.is_rotated();
    assert_eq!(
        fake.variable(43, ID, "*").map(|variable| variable.value),
        Some(fixture.new_key().id)
    );
}

fn a_hidden_secret_is_replaced_unread() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.set_variable(PROJECT, Variable::new(ID, &fixture.old.id).masked());
    fixture.fake.set_variable(PROJECT, Variable::new(SECRET, &fixture.old.secret).hidden());
    let fixture = fixture.deployed();
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
    assert!(fixture.fake.variable(PROJECT, SECRET, "*").is_some_and(|secret| secret.hidden));
}

fn a_group_is_published_and_its_project_deployed() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    let fake = &fixture.fake;
    fake.add_group(7, "acme");
    fake.set_pair(group(7), &fixture.old);
    fake.start_pipeline(PROJECT, "push");
    fake.finish_pipelines();
    fake.watch_target(group(7), "*", ID, SECRET);
    fake.watch_deploy(PROJECT);
    let run =
        fixture.run().set("ROTATOR_TARGETS", "group:acme").set("ROTATOR_DEPLOY_PROJECTS", "42");
    run.go().ends(0, "rotated").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was older than 60 days
Published  group:acme
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    let new = fixture.new_key();
    assert_eq!(fake.variable(group(7), ID, "*").map(|variable| variable.value), Some(new.id));
    assert_eq!(
        fake.variable(group(7), SECRET, "*").map(|variable| variable.value),
        Some(new.secret)
    );
    assert_eq!(fixture.old_is_active(), None);
}

fn an_environment_is_redeployed_from_the_live_commit() {
    let fixture = Fixture::of_days(75);
    let live = fixture
        .fake
        .jobs(PROJECT)
        .into_iter()
        .find(|job| job.name == "deploy")
        .expect("the live deploy");
    let ended = fixture.run().set("ROTATOR_DEPLOY", "environment/production").go();
    ended.ends(0, "rotated").sums_up(str![[r#"
Key        key …[NEW] of user deployer, created [DATE] (0 days old); replaces key …[OLD]
Why        rotated because the key was older than 60 days
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/jobs/[JOB]
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    assert_eq!(ended.calls("POST /projects/:id/pipeline"), 0);
    let again = fixture
        .fake
        .jobs(PROJECT)
        .into_iter()
        .filter(|job| job.name == "deploy")
        .max_by_key(|job| job.id)
        .expect("a deploy");
    assert!(
        again.id != live.id && again.pipeline == live.pipeline,
        "the live pipeline's own job was retried"
    );
    fixture.is_rotated();
}

fn a_named_ref_is_deployed_with_inputs() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_branch(PROJECT, "release/1.2", true);
    fixture.fake.set_pipeline_inputs(PROJECT, &["tier", "count"]);
    let run = fixture
        .run()
        .set("ROTATOR_DEPLOY", "pipeline@release/1.2")
        .set("ROTATOR_DEPLOY_INPUTS", r#"{"tier": "blue", "count": 3}"#);
    run.go().ends(0, "rotated");
    let pipeline = fixture
        .fake
        .pipelines(PROJECT)
        .into_iter()
        .find(|pipeline| pipeline.started_by_program)
        .expect("a pipeline");
    assert_eq!(pipeline.name, "release/1.2");
    assert_eq!(pipeline.inputs, serde_json::json!({ "tier": "blue", "count": 3 }));
    assert_eq!(pipeline.variables, Vec::new());
    fixture.is_rotated();
}

fn pipeline_variables_are_sent_where_they_are_asked_for() {
    let fixture = Fixture::of_days(75);
    fixture
        .run()
        .set("ROTATOR_DEPLOY_VARIABLES", r#"{"REASON": "rotation"}"#)
        .go()
        .ends(0, "rotated");
    let pipeline = fixture
        .fake
        .pipelines(PROJECT)
        .into_iter()
        .find(|pipeline| pipeline.started_by_program)
        .expect("a pipeline");
    assert_eq!(pipeline.variables, [("REASON".to_owned(), "rotation".to_owned())]);
}

fn an_in_flight_job_is_waited_for() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_job(PROJECT, 7777, "running");
    fixture.fake.rename_job(7777, "seed");
    let fake = fixture.fake.clone();
    let run = fixture
        .run()
        .once(Entry::looks_for_running_jobs, move || fake.job_set_status(7777, "success"));
    let ended = run.go();
    ended.ends(0, "rotated");
    assert!(
        ended.text().contains(
            "waiting: jobs that started with the old pair still run: seed \
             (http://127.0.0.1:[PORT]/acme/shop/-/jobs/[JOB] of project 42)"
        ),
        "{}",
        ended.text()
    );
    let finished = fixture
        .fake
        .jobs(PROJECT)
        .into_iter()
        .find(|job| job.id == 7777)
        .and_then(|job| job.finished)
        .expect("it ended");
    let deploy = ended
        .log
        .iter()
        .find(|entry| entry.action == "POST /projects/:id/pipeline")
        .expect("a deploy");
    assert!(deploy.at >= finished, "the deploy started while an in-flight job job ran");
    fixture.is_rotated();
}

fn a_scoped_pair_under_other_names_is_rotated() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    let fake = &fixture.fake;
    let variable = |name: &str, value: &str| {
        Variable::new(name, value).scope("production").masked().protected()
    };
    fake.set_variable(PROJECT, variable("DEPLOY_KEY", &fixture.old.id));
    fake.set_variable(PROJECT, variable("DEPLOY_SECRET", &fixture.old.secret));
    fake.set_pipeline_config(
        PROJECT,
        vec![JobSpec::deploy("deploy", "production").reads("DEPLOY_KEY", "DEPLOY_SECRET")],
    );
    fake.start_pipeline(PROJECT, "push");
    fake.finish_pipelines();
    fake.watch_target(PROJECT, "production", "DEPLOY_KEY", "DEPLOY_SECRET");
    fake.watch_deploy(PROJECT);
    let run = fixture.run().with_role().set("ROTATOR_TARGETS", "project:42@production");
    run.set("ROTATOR_KEY_ID_VARIABLE", "DEPLOY_KEY")
        .set("ROTATOR_SECRET_VARIABLE", "DEPLOY_SECRET")
        .go()
        .ends(0, "rotated");
    let new = fixture.new_key();
    assert_eq!(
        fake.variable(PROJECT, "DEPLOY_KEY", "production").map(|variable| variable.value),
        Some(new.id)
    );
    assert_eq!(fixture.old_is_active(), None);
}

fn a_persons_words_and_flags_stay() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    let fake = &fixture.fake;
    fake.set_variable(PROJECT, Variable::new(ID, &fixture.old.id).description("shop key"));
    fake.set_variable(
        PROJECT,
        Variable::new(SECRET, &fixture.old.secret).protected().description("deploys the shop"),
    );
    let fixture = fixture.deployed();
    fixture.run().go().ends(0, "rotated");
    let variable = |name| fixture.fake.variable(PROJECT, name, "*").expect("it is there");
    assert_eq!(variable(ID).description.as_deref(), Some("shop key"));
    assert_eq!(
        variable(SECRET).description,
        Some(format!("deploys the shop [credential-rotator {}]", fixture.new_key().id))
    );
    assert!(variable(SECRET).protected && !variable(ID).protected);
    assert!(
        variable(ID).masked && variable(SECRET).masked,
        "a value is masked with its first rotation"
    );
    fixture.is_rotated();
}
