//! A role rotates the key: its policy, and whom it trusts.

use serde_json::Value;

use crate::readme::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        the_role_rotates_a_user,
        the_role_rotates_a_user_under_a_path,
        the_role_may_touch_no_other_user,
        no_action_of_the_role_is_superfluous,
        another_project_branch_or_audience_is_not_trusted,
        a_chain_of_roles_rotates_a_user,
        a_chain_begins_with_the_role_that_is_trusted,
    ]
}

/// Audience and subject of the page's trust policy, which must be exact. The id of the project is
/// GitLab.com's alone; `.ci/policies.sh` judges it.
fn trusted() -> (String, String) {
    let document = policy("role-trust");
    let statements = document["Statement"].as_array().unwrap();
    let [statement] = &statements[..] else { panic!("one statement") };
    assert_eq!(statement["Effect"], "Allow");
    assert_eq!(statement["Action"], "sts:AssumeRoleWithWebIdentity");
    let conditions = statement["Condition"].as_object().unwrap();
    assert_eq!(conditions.keys().collect::<Vec<_>>(), ["StringEquals"], "exact, not like");
    let value = |claim: &str| {
        let (_, value) = conditions["StringEquals"]
            .as_object()
            .unwrap()
            .iter()
            .find(|(key, _)| key.ends_with(claim))
            .expect("a condition");
        value.as_str().expect("one value").to_owned()
    };
    let (aud, sub) = (value(":aud"), value(":sub"));
    assert!(value(":project_id").chars().all(|digit| digit.is_ascii_digit()));
    assert!(
        !aud.contains('*')
            && !sub.contains('*')
            && sub.starts_with("project_path:")
            && sub.contains(":ref_type:branch:ref:"),
        "{aud} {sub}"
    );
    (aud, sub)
}

fn role(fixture: &Fixture, name: &str, document: &Value) -> String {
    let (aud, sub) = trusted();
    fixture.fake.add_role(name, Trust::WebIdentity { aud, sub }, 3600, &document.to_string())
}

fn token(fixture: &Fixture) -> String {
    let (aud, sub) = trusted();
    fixture.fake.issue_id_token(&aud, &sub, 3600)
}

/// Nothing of the project's own pair signs.
fn by<'a>(run: Run<'a>, roles: &str, token: &str) -> Run<'a> {
    let run = run
        .set("ROTATOR_AWS_ROLE_ARN", roles)
        .set("ROTATOR_AWS_ID_TOKEN", token)
        .set("ROTATOR_IAM_USER", USER);
    run.unset(ID).unset(SECRET)
}

/// The user itself may nothing at all.
fn helpless(path: &str) -> Fixture {
    let fixture = user_at(path);
    fixture.fake.set_policy(USER, &[]);
    fixture
}

fn the_role_rotates_a_user() {
    rotates("/");
}

fn the_role_rotates_a_user_under_a_path() {
    rotates("/service/ci/");
}

fn rotates(path: &str) {
    let fixture = helpless(path);
    let arn =
        role(&fixture, "credential-rotator", &for_user(&policy("role"), &format!("{path}{USER}")));
    let token = token(&fixture);
    rotate(&fixture, |run| by(run, &arn, &token)).ends(0, "resumed");
    fixture.is_rotated();
}

fn the_role_may_touch_no_other_user() {
    let fixture = helpless("/");
    let arn = role(&fixture, "credential-rotator", &for_user(&policy("role"), &format!("/{USER}")));
    for other in ["other", "deployer2"] {
        fixture.fake.add_user("/", other);
        fixture.fake.add_key(other, 90);
        let ended = by(fixture.run(), &arn, &token(&fixture)).set("ROTATOR_IAM_USER", other).go();
        lacks(&fixture, &ended, "iam:ListAccessKeys");
        assert_eq!(fixture.fake.keys(other).len(), 1);
    }
    let session = fixture.fake.role_session("credential-rotator", 3600);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = &fixture.fake.keys("other")[0].id;
    for form in [
        "Action=ListAccessKeys&UserName=other".to_owned(),
        "Action=CreateAccessKey&UserName=other".into(),
        format!("Action=UpdateAccessKey&UserName=other&AccessKeyId={key}&Status=Inactive"),
        format!("Action=DeleteAccessKey&UserName=other&AccessKeyId={key}"),
        format!("Action=GetAccessKeyLastUsed&AccessKeyId={key}"),
    ] {
        assert_eq!(
            runtime.block_on(fixture.fake.aws("iam", &session, &form)).unwrap().status,
            403,
            "{form}"
        );
    }
    fixture.is_untouched();
}

fn no_action_of_the_role_is_superfluous() {
    let whole = for_user(&policy("role"), &format!("/{USER}"));
    let run_without = |action: &str| {
        let fixture = helpless("/");
        let arn = role(&fixture, "lacking", &without(&whole, action));
        let fixed = role(&fixture, "whole", &whole);
        let token = token(&fixture);
        let ended = rotate(&fixture, |run| by(run, &arn, &token));
        lacks(&fixture, &ended, action);
        assert_eq!(rotate(&fixture, |run| by(run, &fixed, &token)).code, 0, "{action}");
        fixture.is_rotated();
    };
    std::thread::scope(|scope| {
        let cases = ACTIONS.map(|action| scope.spawn(move || run_without(action)));
        for (case, action) in cases.into_iter().zip(ACTIONS) {
            assert!(case.join().is_ok(), "without {action}");
        }
    });
}

fn another_project_branch_or_audience_is_not_trusted() {
    let fixture = helpless("/");
    let arn = role(&fixture, "credential-rotator", &for_user(&policy("role"), &format!("/{USER}")));
    let (aud, sub) = trusted();
    let project = sub.split(':').nth(1).unwrap();
    let others = [
        sub.replace(project, "acme/somebody-else"),
        sub.replace(project, &format!("{project}-2")),
        sub.replace(":ref:main", ":ref:feature"),
        sub.replace(":ref:main", ":ref:main-2"),
        sub.replace(":ref_type:branch:", ":ref_type:tag:"),
    ];
    for other in others {
        assert_ne!(other, sub);
        let ended = by(fixture.run(), &arn, &fixture.fake.issue_id_token(&aud, &other, 3600)).go();
        ended.ends(3, "refused");
        assert!(
            ended.report["hint"]
                .as_str()
                .unwrap_or_default()
                .contains("trust policy must allow this project and ref"),
            "{}",
            ended.stderr
        );
    }
    let ended = by(
        fixture.run(),
        &arn,
        &fixture.fake.issue_id_token("https://gitlab.example.com", &sub, 3600),
    )
    .go();
    ended.ends(3, "refused");
    assert!(ended.report["hint"].as_str().unwrap_or_default().contains("aud"), "{}", ended.stderr);
    fixture.is_untouched();
    let token = token(&fixture);
    assert_eq!(rotate(&fixture, |run| by(run, &arn, &token)).code, 0);
    fixture.is_rotated();
}

/// The role that the page's second trust policy names.
fn entry() -> String {
    let document = for_user(&policy("chain-trust"), "");
    let statement = &document["Statement"][0];
    assert_eq!(
        (&statement["Effect"], &statement["Action"]),
        (&"Allow".into(), &"sts:AssumeRole".into())
    );
    statement["Principal"]["AWS"].as_str().unwrap().to_owned()
}

fn a_chain_of_roles_rotates_a_user() {
    let fixture = helpless("/");
    let entry = entry();
    let chain = for_user(&policy("chain"), "");
    let first = role(&fixture, entry.rsplit('/').next().unwrap(), &chain);
    assert_eq!(first, entry);
    let rights = for_user(&policy("role"), &format!("/{USER}"));
    let second = fixture.fake.add_role(
        "credential-rotator",
        Trust::Principal(entry),
        3600,
        &rights.to_string(),
    );
    assert_eq!(chain["Statement"][0]["Resource"], second.as_str());
    let token = token(&fixture);
    rotate(&fixture, |run| by(run, &format!("{first},{second}"), &token)).ends(0, "resumed");
    fixture.is_rotated();
}

fn a_chain_begins_with_the_role_that_is_trusted() {
    let fixture = helpless("/");
    let first = role(&fixture, "somebody-else", &for_user(&policy("chain"), ""));
    let rights = for_user(&policy("role"), &format!("/{USER}"));
    let second = fixture.fake.add_role(
        "credential-rotator",
        Trust::Principal(entry()),
        3600,
        &rights.to_string(),
    );
    let ended = by(fixture.run(), &format!("{first},{second}"), &token(&fixture)).go();
    ended.ends(3, "refused");
    assert!(
        ended.report["hint"]
            .as_str()
            .unwrap_or_default()
            .contains("a chained role must allow the role before it"),
        "{}",
        ended.stderr
    );
    fixture.is_untouched();
}
