//! Why AWS does not allow a call: each kind of policy, with its three lines.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        the_user_is_in_quarantine,
        no_permissions_boundary_allows_it,
        a_permissions_boundary_denies_it,
        no_service_control_policy_allows_it,
        a_service_control_policy_denies_it,
        no_resource_control_policy_allows_it,
        a_resource_control_policy_denies_it,
        no_session_policy_allows_it,
        a_session_policy_denies_it,
        no_policy_of_the_vpc_endpoint_allows_it,
        a_policy_of_the_vpc_endpoint_denies_it,
        a_denial_without_a_kind,
        a_deny_without_a_kind,
    ]
}

/// With one more policy, beside the user's own that allows everything needed.
fn limited(limit: impl FnOnce(&Fake)) -> Ended {
    let fixture = Fixture::of_days(75);
    limit(&fixture.fake);
    let ended = fixture.run().go();
    fixture.is_untouched();
    ended
}

const LISTING: &[&str] = &["iam:ListAccessKeys"];
const CREATING: &[&str] = &["iam:CreateAccessKey"];

fn the_user_is_in_quarantine() {
    limited(|fake| fake.quarantine(USER)).says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: AWS has put the user into quarantine
state: the variables name key …[OLD] (active); production is not affected
hint: AWS has found a key of this user in public: treat it as leaked, replace it by hand, then detach AWSCompromisedKeyQuarantine from the user

"#]]);
}

fn no_permissions_boundary_allows_it() {
    limited(|fake| fake.allow_only_by(USER, "permissions boundary", LISTING)).says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: no permissions boundary allows it
state: the variables name key …[OLD] (active); production is not affected
hint: the permissions boundary of the credentials in use must allow iam:CreateAccessKey as well; allowing more in the policy of the identity does not fix it

"#]]);
}

fn a_permissions_boundary_denies_it() {
    limited(|fake| {
        fake.deny_by(
            USER,
            "permissions boundary: arn:aws:iam::123456789012:policy/limit",
            CREATING,
        );
    })
    .says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: a permissions boundary denies it explicitly
state: the variables name key …[OLD] (active); production is not affected
hint: the permissions boundary of the credentials in use has a statement that denies iam:CreateAccessKey: take these credentials out of it; allowing more in the policy of the identity does not fix it

"#]]);
}

fn no_service_control_policy_allows_it() {
    limited(|fake| fake.allow_only_by(USER, "service control policy", LISTING)).says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: no service control policy allows it
state: the variables name key …[OLD] (active); production is not affected
hint: the service control policy that the organization puts on the account must allow iam:CreateAccessKey as well; allowing more in the policy of the identity does not fix it

"#]]);
}

fn a_service_control_policy_denies_it() {
    limited(|fake| {
        fake.deny_by(USER, "service control policy: arn:aws:organizations::210987654321:policy/o-a1b2/service_control_policy/p-c3d4", CREATING);
    }).says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: a service control policy denies it explicitly
state: the variables name key …[OLD] (active); production is not affected
hint: the service control policy that the organization puts on the account has a statement that denies iam:CreateAccessKey: take these credentials out of it; allowing more in the policy of the identity does not fix it

"#]]);
}

fn no_resource_control_policy_allows_it() {
    limited(|fake| fake.allow_only_by(USER, "resource control policy", LISTING)).says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: no resource control policy allows it
state: the variables name key …[OLD] (active); production is not affected
hint: the resource control policy that the organization puts on the account must allow iam:CreateAccessKey as well; allowing more in the policy of the identity does not fix it

"#]]);
}

fn a_resource_control_policy_denies_it() {
    limited(|fake| {
        fake.deny_by(USER, "resource control policy: arn:aws:organizations::210987654321:policy/o-a1b2/resource_control_policy/p-c3d4", CREATING);
    }).says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: a resource control policy denies it explicitly
state: the variables name key …[OLD] (active); production is not affected
hint: the resource control policy that the organization puts on the account has a statement that denies iam:CreateAccessKey: take these credentials out of it; allowing more in the policy of the identity does not fix it

"#]]);
}

fn no_session_policy_allows_it() {
    limited(|fake| fake.allow_only_by(USER, "session policy", LISTING)).says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: no session policy allows it
state: the variables name key …[OLD] (active); production is not affected
hint: the session policy that these credentials were made with must allow iam:CreateAccessKey as well; allowing more in the policy of the identity does not fix it

"#]]);
}

fn a_session_policy_denies_it() {
    limited(|fake| {
        fake.deny_by(USER, "session policy: arn:aws:iam::123456789012:policy/session", CREATING);
    })
    .says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: a session policy denies it explicitly
state: the variables name key …[OLD] (active); production is not affected
hint: the session policy that these credentials were made with has a statement that denies iam:CreateAccessKey: take these credentials out of it; allowing more in the policy of the identity does not fix it

"#]]);
}

fn no_policy_of_the_vpc_endpoint_allows_it() {
    limited(|fake| fake.allow_only_by(USER, "VPC endpoint policy", LISTING)).says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: no VPC endpoint policy allows it
state: the variables name key …[OLD] (active); production is not affected
hint: the policy of the VPC endpoint that the runner uses must allow iam:CreateAccessKey as well; allowing more in the policy of the identity does not fix it

"#]]);
}

fn a_policy_of_the_vpc_endpoint_denies_it() {
    limited(|fake| {
        fake.deny_by(USER, "VPC endpoint policy", CREATING);
    })
    .says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: a VPC endpoint policy denies it explicitly
state: the variables name key …[OLD] (active); production is not affected
hint: the policy of the VPC endpoint that the runner uses has a statement that denies iam:CreateAccessKey: take these credentials out of it; allowing more in the policy of the identity does not fix it

"#]]);
}

/// As AWS wrote before 2021, and as some of its services still do.
fn without_a_kind(reason: &str) -> Ended {
    let text = format!(
        "User: arn:aws:iam::123456789012:user/deployer is not authorized to perform: \
         iam:CreateAccessKey on resource: user deployer{reason}"
    );
    let fault = Fault::of_aws((403, "AccessDenied", &text));
    limited(|fake| fake.fault_from("iam:CreateAccessKey", 1, fault))
}

fn a_denial_without_a_kind() {
    without_a_kind("").says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: no policy allows it
state: the variables name key …[OLD] (active); production is not affected
hint: add to the policy of the credentials in use: {"Effect": "Allow", "Action": "iam:CreateAccessKey", "Resource": "arn:aws:iam::*:user/deployer"} (with the path, where the user has one)

"#]]);
}

fn a_deny_without_a_kind() {
    without_a_kind(" with an explicit deny").says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: a policy denies it explicitly
state: the variables name key …[OLD] (active); production is not affected
hint: find the statement that denies iam:CreateAccessKey (a rule that demands MFA; AWSCompromisedKeyQuarantine, then treat the key as leaked; a boundary; an SCP) and take these credentials out of it; allowing more does not fix it

"#]]);
}
