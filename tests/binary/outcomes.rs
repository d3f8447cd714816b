//! Each outcome and its exit code, in words and in calls.

use snapbox::str;

use crate::at_once;
use crate::run::*;

#[test]
fn a_run_ends_as_the_key_needs_it() {
    at_once![
        a_key_that_is_not_due_costs_one_round_trip,
        a_due_key_is_replaced_from_end_to_end,
    ];
}

fn a_key_that_is_not_due_costs_one_round_trip() {
    let setting = Setting::of_days(10);
    let ended = setting.run().go();
    ended.ends(0, "not_due");
    assert_eq!((ended.calls("iam"), ended.calls("sts"), ended.calls("gitlab")), (1, 0, 2));
    assert_eq!(ended.calls("GET /projects/:id/variables"), 1);
    assert_eq!(ended.effects(), Vec::<String>::new());
    ended.shows(str![[r#"

Key        key …[OLD] of user deployer, made [DATE], 10 days old
Why        not due: a key is replaced after 60 days, this one on [DATE]
Published  project:42
Deploy     none in this run
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
}

fn a_due_key_is_replaced_from_end_to_end() {
    let setting = Setting::of_days(75);
    let ended = setting.run().go();
    ended.ends(0, "rotated");
    ended.shows(str![[r#"
section_start:[TIME]:rotator_look Looking at keys and variables
 INFO claimed the rotation
section_end:[TIME]:rotator_look 
section_start:[TIME]:rotator_publish A new key: create, verify, publish
 INFO recorded that a rotation begins
 INFO created a new key
 INFO verified new key …[NEW] with its own credentials
 INFO wrote the new secret to target 1
 INFO wrote the new id to target 1
 INFO recorded that the new key is published
section_end:[TIME]:rotator_publish 
section_start:[TIME]:rotator_deploy The deploy
 INFO no older job runs any more
 INFO started deploy 1
 INFO waiting: pipeline http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE] is pending: no runner has taken it yet
 INFO the deploy is proven to run with the new key
section_end:[TIME]:rotator_deploy 
section_start:[TIME]:rotator_retire The old key
 INFO disabled old key …[OLD]
 INFO recorded that the old key is disabled
 INFO deleted old key …[OLD]
 INFO the rotation is finished
section_end:[TIME]:rotator_retire 

Key        key …[NEW] of user deployer, made [DATE], 0 days old; before: key …[OLD]
Why        rotated because the key was due: older than 60 days, or disabled
Published  project:42
Deploy     project 42 of commit [SHA]: success http://127.0.0.1:[PORT]/acme/shop/-/pipelines/[PIPELINE]
Next       the next scheduled run looks again; this key is replaced on [DATE]

"#]]);
    let fresh = setting.fresh();
    assert_eq!(setting.stored(), (fresh[0].id.clone(), fresh[0].secret.clone()));
    assert_eq!(setting.old_is_active(), None);
}
