//! The policies as the documentation has them, and what a case does with them.

use std::time::Duration;

use serde_json::Value;

use fake::*;

/// What a rotation may need, all on the one user.
pub(crate) const ACTIONS: [&str; 5] = [
    "iam:ListAccessKeys",
    "iam:CreateAccessKey",
    "iam:UpdateAccessKey",
    "iam:DeleteAccessKey",
    "iam:GetAccessKeyLastUsed",
];

/// The JSON after `<!-- policy: NAME -->`.
#[track_caller]
pub(crate) fn policy(name: &str) -> Value {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/aws.md")).unwrap();
    let marker = format!("<!-- policy: {name} -->\n```json\n");
    let (_, rest) =
        page.split_once(&marker).unwrap_or_else(|| panic!("docs/aws.md has no policy {name}"));
    assert!(!rest.contains(&marker), "docs/aws.md has two policies {name}");
    serde_json::from_str(rest.split_once("\n```").expect("a block ends").0)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// With the fake's account and user in the place of the page's.
pub(crate) fn for_user(document: &Value, user: &str) -> Value {
    let text = document
        .to_string()
        .replace("111111111111", "123456789012")
        .replace("222222222222", "123456789012");
    serde_json::from_str(&text.replace("user/shop-deployer", &format!("user{user}"))).unwrap()
}

/// The same without this action.
#[track_caller]
pub(crate) fn without(document: &Value, action: &str) -> Value {
    let mut document = document.clone();
    let actions = document["Statement"][0]["Action"].as_array_mut().expect("a list of actions");
    let before = actions.len();
    actions.retain(|known| known != action);
    assert_eq!(actions.len() + 1, before, "{action}");
    document
}

/// The user of every case, here without or with a path.
pub(crate) fn user_at(path: &str) -> Fixture {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_user_path(USER, path);
    fixture
}

/// Runs until the old key is gone or a run fails; its overlap makes a rotation ask for the last use
/// too.
pub(crate) fn rotate<'a>(fixture: &'a Fixture, prepare: impl Fn(Run<'a>) -> Run<'a>) -> Ended {
    for _ in 0..10 {
        let ended = prepare(fixture.run().set("ROTATOR_OVERLAP", "1s")).go();
        if ended.code != 0 || fixture.old_is_active().is_none() {
            return ended;
        }
        std::thread::sleep(Duration::from_millis(700));
    }
    panic!("the old key stays");
}

/// The run ended for want of this action, and says so by its name and no other.
#[track_caller]
pub(crate) fn lacks(fixture: &Fixture, ended: &Ended, action: &str) {
    assert_eq!(ended.code, 3, "without {action}\n{}", ended.stderr);
    let error = ended.stderr.rfind("error: ").map_or("", |at| &ended.stderr[at..]);
    let hint = match error.split_once("a rotation would not end well:\n- ") {
        // What is needed later is found before: the hint stands in the list.
        Some((_, list)) => list.lines().next().unwrap_or_default(),
        None => ended.report["hint"].as_str().unwrap_or_default(),
    };
    assert!(hint.contains(&format!("\"{action}\"")), "without {action}: {hint}");
    for other in ACTIONS.iter().filter(|other| **other != action) {
        assert!(!hint.contains(other), "without {action}: {hint}");
    }
    let is_named = |end| error.contains(&format!("may not call {action}{end}"));
    assert!([' ', ','].into_iter().any(is_named), "{error}");
    let denied: Vec<&Entry> = ended.log.iter().filter(|entry| entry.status == 403).collect();
    assert!(!denied.is_empty() && denied.iter().all(|entry| entry.action == action), "{denied:?}");
    // Whatever was reached, production runs and the published pair works.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(fixture.fake.production_signs(PROJECT)).unwrap();
    let (id, secret) = fixture.stored();
    runtime.block_on(fixture.fake.signs(&Pair { id, secret, token: None })).unwrap();
}
