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

/// Audience and subject of the page's trust policy, which must be exact.
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
    assert!(
        !aud.contains('*')
            && !sub.contains('*')
            && sub.starts_with("project_path:")
            && sub.contains(":ref_type:branch:ref:"),
        "{aud} {sub}"
    );
    (aud, sub)
}

fn role(setting: &Setting, name: &str, document: &Value) -> String {
    let (aud, sub) = trusted();
    setting.fake.add_role(name, Trust::WebIdentity { aud, sub }, 3600, &document.to_string())
}

fn token(setting: &Setting) -> String {
    let (aud, sub) = trusted();
    setting.fake.issue_id_token(&aud, &sub, 3600)
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
fn helpless(path: &str) -> Setting {
    let setting = user_at(path);
    setting.fake.set_policy(USER, &[]);
    setting
}

fn the_role_rotates_a_user() {
    rotates("/");
}

fn the_role_rotates_a_user_under_a_path() {
    rotates("/service/ci/");
}

fn rotates(path: &str) {
    let setting = helpless(path);
    let arn =
        role(&setting, "credential-rotator", &for_user(&policy("role"), &format!("{path}{USER}")));
    let token = token(&setting);
    rotate(&setting, |run| by(run, &arn, &token)).ends(0, "resumed");
    setting.is_rotated();
}

fn the_role_may_touch_no_other_user() {
    let setting = helpless("/");
    let arn = role(&setting, "credential-rotator", &for_user(&policy("role"), &format!("/{USER}")));
    for other in ["other", "deployer2"] {
        setting.fake.add_user("/", other);
        setting.fake.add_key(other, 90);
        let ended = by(setting.run(), &arn, &token(&setting)).set("ROTATOR_IAM_USER", other).go();
        lacks(&setting, &ended, "iam:ListAccessKeys");
        assert_eq!(setting.fake.keys(other).len(), 1);
    }
    let session = setting.fake.role_session("credential-rotator", 3600);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = &setting.fake.keys("other")[0].id;
    for form in [
        "Action=ListAccessKeys&UserName=other".to_owned(),
        "Action=CreateAccessKey&UserName=other".into(),
        format!("Action=UpdateAccessKey&UserName=other&AccessKeyId={key}&Status=Inactive"),
        format!("Action=DeleteAccessKey&UserName=other&AccessKeyId={key}"),
        format!("Action=GetAccessKeyLastUsed&AccessKeyId={key}"),
    ] {
        assert_eq!(
            runtime.block_on(setting.fake.aws("iam", &session, &form)).unwrap().status,
            403,
            "{form}"
        );
    }
    setting.is_untouched();
}

fn no_action_of_the_role_is_superfluous() {
    let whole = for_user(&policy("role"), &format!("/{USER}"));
    let run_without = |action: &str| {
        let setting = helpless("/");
        let arn = role(&setting, "lacking", &without(&whole, action));
        let mended = role(&setting, "whole", &whole);
        let token = token(&setting);
        let ended = rotate(&setting, |run| by(run, &arn, &token));
        lacks(&setting, &ended, action);
        assert_eq!(rotate(&setting, |run| by(run, &mended, &token)).code, 0, "{action}");
        setting.is_rotated();
    };
    std::thread::scope(|scope| {
        let cases = ACTIONS.map(|action| scope.spawn(move || run_without(action)));
        for (case, action) in cases.into_iter().zip(ACTIONS) {
            assert!(case.join().is_ok(), "without {action}");
        }
    });
}

fn another_project_branch_or_audience_is_not_trusted() {
    let setting = helpless("/");
    let arn = role(&setting, "credential-rotator", &for_user(&policy("role"), &format!("/{USER}")));
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
        let ended = by(setting.run(), &arn, &setting.fake.issue_id_token(&aud, &other, 3600)).go();
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
        setting.run(),
        &arn,
        &setting.fake.issue_id_token("https://gitlab.example.com", &sub, 3600),
    )
    .go();
    ended.ends(3, "refused");
    assert!(ended.report["hint"].as_str().unwrap_or_default().contains("aud"), "{}", ended.stderr);
    setting.is_untouched();
    let token = token(&setting);
    assert_eq!(rotate(&setting, |run| by(run, &arn, &token)).code, 0);
    setting.is_rotated();
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
    let setting = helpless("/");
    let entry = entry();
    let chain = for_user(&policy("chain"), "");
    let first = role(&setting, entry.rsplit('/').next().unwrap(), &chain);
    assert_eq!(first, entry);
    let rights = for_user(&policy("role"), &format!("/{USER}"));
    let second = setting.fake.add_role(
        "credential-rotator",
        Trust::Principal(entry),
        3600,
        &rights.to_string(),
    );
    assert_eq!(chain["Statement"][0]["Resource"], second.as_str());
    let token = token(&setting);
    rotate(&setting, |run| by(run, &format!("{first},{second}"), &token)).ends(0, "resumed");
    setting.is_rotated();
}

fn a_chain_begins_with_the_role_that_is_trusted() {
    let setting = helpless("/");
    let first = role(&setting, "somebody-else", &for_user(&policy("chain"), ""));
    let rights = for_user(&policy("role"), &format!("/{USER}"));
    let second = setting.fake.add_role(
        "credential-rotator",
        Trust::Principal(entry()),
        3600,
        &rights.to_string(),
    );
    let ended = by(setting.run(), &format!("{first},{second}"), &token(&setting)).go();
    ended.ends(3, "refused");
    assert!(
        ended.report["hint"]
            .as_str()
            .unwrap_or_default()
            .contains("a chained role must allow the role before it"),
        "{}",
        ended.stderr
    );
    setting.is_untouched();
}
