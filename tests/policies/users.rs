//! The key rotates itself: policies of a user.

use crate::readme::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        a_user_without_a_path_rotates_itself,
        a_user_under_a_path_needs_the_form_with_the_path,
        the_form_with_a_path_is_for_that_path_only,
        a_user_may_touch_no_key_of_another_user,
        another_users_rotation_is_refused,
        no_action_is_superfluous,
        no_action_is_superfluous_under_a_path,
    ]
}

fn with(path: &str, document: &str) -> Fixture {
    let fixture = user_at(path);
    fixture.fake.set_policy_json(USER, &policy(document).to_string());
    fixture
}

fn a_user_without_a_path_rotates_itself() {
    let fixture = with("/", "self");
    rotate(&fixture, |run| run).ends(0, "resumed");
    fixture.is_rotated();
}

fn a_user_under_a_path_needs_the_form_with_the_path() {
    let fixture = with("/service/ci/", "self");
    let ended = rotate(&fixture, |run| run);
    lacks(&fixture, &ended, "iam:ListAccessKeys");
    assert!(
        ended.report["hint"].as_str().unwrap_or_default().contains("path"),
        "{}",
        ended.report["hint"]
    );
    fixture.is_untouched();
    fixture.fake.set_policy_json(USER, &policy("self-path").to_string());
    rotate(&fixture, |run| run).ends(0, "resumed");
    fixture.is_rotated();
}

fn the_form_with_a_path_is_for_that_path_only() {
    for path in ["/", "/service/", "/service/ci/eu/"] {
        let fixture = with(path, "self-path");
        let ended = rotate(&fixture, |run| run);
        lacks(&fixture, &ended, "iam:ListAccessKeys");
        fixture.is_untouched();
    }
}

/// Each action by itself, signed and sent as any caller would.
fn a_user_may_touch_no_key_of_another_user() {
    for (path, document) in [("/", "self"), ("/service/ci/", "self-path")] {
        let fixture = with(path, document);
        let fake = &fixture.fake;
        fake.add_user(path, "other");
        // Its name only begins like the user's.
        fake.add_user(path, "deployer2");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ask = |name: &str, key: &str, action: &str| {
            let form = match action {
                "iam:UpdateAccessKey" => format!(
                    "Action=UpdateAccessKey&UserName={name}&AccessKeyId={key}&Status=Active"
                ),
                "iam:DeleteAccessKey" => {
                    format!("Action=DeleteAccessKey&UserName={name}&AccessKeyId={key}")
                }
                "iam:GetAccessKeyLastUsed" => {
                    format!("Action=GetAccessKeyLastUsed&AccessKeyId={key}")
                }
                action => format!("Action={}&UserName={name}", &action[4..]),
            };
            runtime.block_on(fake.aws("iam", &fixture.old, &form)).unwrap().status
        };
        for name in ["other", "deployer2"] {
            let foreign = fake.add_key(name, 5);
            for action in ACTIONS {
                assert_eq!(ask(name, &foreign.id, action), 403, "{document}: {action} on {name}");
            }
            assert_eq!(fake.keys(name).len(), 1);
        }
        let spare = fake.add_key(USER, 1);
        fake.ours(&spare.id);
        for action in [
            "iam:ListAccessKeys",
            "iam:UpdateAccessKey",
            "iam:GetAccessKeyLastUsed",
            "iam:DeleteAccessKey",
            "iam:CreateAccessKey",
        ] {
            assert_eq!(ask(USER, &spare.id, action), 200, "{document}: {action} on itself");
        }
    }
}

fn another_users_rotation_is_refused() {
    let fixture = with("/", "self");
    fixture.fake.add_user("/", "other");
    let foreign = fixture.fake.add_key("other", 90);
    let ended = fixture.run().set("ROTATOR_IAM_USER", "other").go();
    lacks(&fixture, &ended, "iam:ListAccessKeys");
    fixture.is_untouched();
    assert_eq!(fixture.fake.keys("other").len(), 1, "{}", foreign.id);
}

fn no_action_is_superfluous() {
    each_action_is_named_where_it_is_missing("/", "self");
}

fn no_action_is_superfluous_under_a_path() {
    each_action_is_named_where_it_is_missing("/service/ci/", "self-path");
}

fn each_action_is_named_where_it_is_missing(path: &str, document: &str) {
    let whole = policy(document);
    let mut actions: Vec<&str> = whole["Statement"][0]["Action"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|action| action.as_str())
        .collect();
    actions.sort_unstable();
    let mut known = ACTIONS;
    known.sort_unstable();
    assert_eq!(actions, known);
    let run_without = |action: &str| {
        let fixture = with(path, document);
        fixture.fake.set_policy_json(USER, &without(&whole, action).to_string());
        let ended = rotate(&fixture, |run| run);
        lacks(&fixture, &ended, action);
        // What the hint says fixes it.
        fixture.fake.set_policy_json(USER, &whole.to_string());
        assert_eq!(rotate(&fixture, |run| run).code, 0, "{action}");
        fixture.is_rotated();
    };
    std::thread::scope(|scope| {
        let cases = ACTIONS.map(|action| scope.spawn(move || run_without(action)));
        for (case, action) in cases.into_iter().zip(ACTIONS) {
            assert!(case.join().is_ok(), "without {action}");
        }
    });
}
