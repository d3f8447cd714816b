//! Every refusal of AWS that the program recognises, with its three lines.

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // Iam denies.
        listing_keys_is_denied,
        creating_a_key_is_denied,
        disabling_a_key_is_denied,
        deleting_a_key_is_denied,
        asking_for_the_last_use_is_denied,
        creating_is_denied_explicitly,
        listing_is_denied_explicitly,
        a_role_may_not_list,
        a_session_of_a_user_cannot_call_iam,
        // The signer is not the right one.
        no_credentials_at_all,
        protected_variables_on_an_unprotected_ref,
        scoped_variables_without_an_environment,
        variables_that_did_not_reach_the_job,
        a_profile_that_is_not_there,
        the_root_user,
        a_roles_session_without_a_user,
        a_user_who_does_not_exist,
        a_pair_that_was_disabled,
        a_pair_that_was_deleted,
        a_pair_whose_secret_is_anothers,
        a_leftover_session_token,
        a_role_that_does_not_trust_this_project,
        a_role_that_wants_another_audience,
        an_account_without_the_provider,
        a_new_key_that_belongs_to_somebody_else,
        a_token_that_is_none,
        aws_does_not_reach_this_gitlab,
        aws_does_not_reach_this_gitlab_for_a_moment,
        a_certificate_that_the_provider_does_not_name,
        sts_is_switched_off_in_the_region,
        an_endpoint_of_another_region,
        a_chain_that_breaks,
        a_chain_that_the_first_role_may_not_go_on_with,
        a_chain_that_the_organization_denies,
        a_chain_that_the_second_role_does_not_trust,
        a_chain_that_the_second_role_denies,
        an_id_token_that_has_ended,
        an_id_token_that_ends_meanwhile,
        // Keys do not come as they should.
        a_new_key_that_never_works,
        a_quota_of_one,
        a_reply_to_the_creation_that_is_lost,
        a_creation_that_is_never_seen,
        iam_throttles_for_ever,
        iam_has_an_error_for_ever,
        an_endpoint_that_nobody_listens_at,
    ]
}

const ALL: [&str; 5] = [
    "iam:ListAccessKeys",
    "iam:CreateAccessKey",
    "iam:UpdateAccessKey",
    "iam:DeleteAccessKey",
    "iam:GetAccessKeyLastUsed",
];

/// The user may do everything but this.
fn without(action: &str) -> Fixture {
    let fixture = Fixture::of_days(75);
    fixture.fake.set_policy(USER, &all_but(action));
    fixture
}

fn all_but(action: &str) -> Vec<&str> {
    ALL.into_iter().filter(|allowed| *allowed != action).collect()
}

fn listing_keys_is_denied() {
    let fixture = without("iam:ListAccessKeys");
    fixture.run().go().says(3, str![[r#"
error: the credentials in use may not call iam:ListAccessKeys for the user: no identity-based policy allows it
state: nothing was changed; keys and variables are as they were before this run
hint: add to the policy of the credentials in use: {"Effect": "Allow", "Action": "iam:ListAccessKeys", "Resource": "arn:aws:iam::*:user/${aws:username}"} (with the path, where the user has one)

"#]]);
    fixture.is_untouched();
}

fn creating_a_key_is_denied() {
    let fixture = without("iam:CreateAccessKey");
    fixture.run().go().says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: no identity-based policy allows it
state: the variables name key …[OLD] (active); production is not affected
hint: add to the policy of the credentials in use: {"Effect": "Allow", "Action": "iam:CreateAccessKey", "Resource": "arn:aws:iam::*:user/deployer"} (with the path, where the user has one)

"#]]);
    fixture.is_untouched();
}

fn disabling_a_key_is_denied() {
    let fixture = without("iam:UpdateAccessKey");
    fixture.run().go().says(3, str![[r#"
error: the credentials in use may not call iam:UpdateAccessKey for deployer: no identity-based policy allows it
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: add to the policy of the credentials in use: {"Effect": "Allow", "Action": "iam:UpdateAccessKey", "Resource": "arn:aws:iam::*:user/deployer"} (with the path, where the user has one)

"#]]);
    // Published and deployed: only the old key stays, until the right is there.
    assert_eq!((fixture.old_is_active(), fixture.stored().0), (Some(true), fixture.new_key().id));
    fixture.fake.set_policy(USER, &ALL);
    fixture.run().go().ends(0, "resumed");
    fixture.is_rotated();
}

fn deleting_a_key_is_denied() {
    let fixture = without("iam:DeleteAccessKey");
    fixture.run().go().says(3, str![[r#"
error: the credentials in use may not call iam:DeleteAccessKey for deployer: no identity-based policy allows it
state: the variables name a key that works; old key …[OLD] (disabled), new key …[NEW] (active); production is not affected
hint: add to the policy of the credentials in use: {"Effect": "Allow", "Action": "iam:DeleteAccessKey", "Resource": "arn:aws:iam::*:user/deployer"} (with the path, where the user has one)

"#]]);
    assert_eq!(fixture.old_is_active(), Some(false));
}

/// The preflight has asked before; the right is taken away in between.
fn asking_for_the_last_use_is_denied() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().set("ROTATOR_OVERLAP", "1m");
    run().go().ends(0, "rotated");
    fixture.fake.shift_clock(100);
    fixture.fake.set_policy(USER, &all_but("iam:GetAccessKeyLastUsed"));
    run().go().says(3, str![[r#"
error: the credentials in use may not call iam:GetAccessKeyLastUsed for the user: no identity-based policy allows it
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: add to the policy of the credentials in use: {"Effect": "Allow", "Action": "iam:GetAccessKeyLastUsed", "Resource": "arn:aws:iam::*:user/${aws:username}"} (with the path, where the user has one)

"#]]);
    assert_eq!(fixture.old_is_active(), Some(true));
}

fn creating_is_denied_explicitly() {
    let fixture = Fixture::of_days(75);
    fixture.fake.deny(USER, &["iam:CreateAccessKey", "iam:UpdateAccessKey"]);
    fixture.run().go().says(3, str![[r#"
error: the credentials in use may not call iam:CreateAccessKey for deployer: an identity-based policy denies it explicitly
state: the variables name key …[OLD] (active); production is not affected
hint: find the statement that denies iam:CreateAccessKey (a rule that demands MFA; AWSCompromisedKeyQuarantine, then treat the key as leaked) and take these credentials out of it; allowing more does not fix it

"#]]);
    fixture.is_untouched();
}

fn listing_is_denied_explicitly() {
    let fixture = Fixture::of_days(75);
    fixture.fake.deny(USER, &["iam:*"]);
    fixture.run().go().says(3, str![[r#"
error: the credentials in use may not call iam:ListAccessKeys for the user: an identity-based policy denies it explicitly
state: nothing was changed; keys and variables are as they were before this run
hint: find the statement that denies iam:ListAccessKeys (a rule that demands MFA; AWSCompromisedKeyQuarantine, then treat the key as leaked) and take these credentials out of it; allowing more does not fix it

"#]]);
}

fn a_role_may_not_list() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let trust = Trust::WebIdentity { aud: "*".into(), sub: "*".into() };
    let other =
        fixture.fake.add_role("elsewhere", trust, 3600, &fixture.fake.rotation_policy("somebody"));
    run.set("ROTATOR_AWS_ROLE_ARN", &other).go().says(3, str![[r#"
error: the credentials in use may not call iam:ListAccessKeys for deployer: no identity-based policy allows it
state: nothing was changed; keys and variables are as they were before this run
hint: add to the policy of the credentials in use: {"Effect": "Allow", "Action": "iam:ListAccessKeys", "Resource": "arn:aws:iam::*:user/deployer"} (with the path, where the user has one)

"#]]);
}

fn a_session_of_a_user_cannot_call_iam() {
    let fixture = Fixture::of_days(75);
    let session = fixture.fake.user_session(USER, 3600);
    fixture.run().with_pair(&session).go().says(3, str![[r#"
error: listing the user's access keys: AWS does not accept the temporary credentials …[KEY] (their time is over, or they are of GetSessionToken, which IAM refuses)
state: nothing was changed; keys and variables are as they were before this run
hint: temporary credentials cannot rotate a key: store the user's own key in the variables, without AWS_SESSION_TOKEN, or use a role (ROTATOR_AWS_ROLE_ARN)

"#]]);
}

fn no_credentials_at_all() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.run().go().says(
        3,
        str![[r#"
error: this job has no AWS credentials
state: nothing was changed; keys and variables are as they were before this run
hint: set ROTATOR_AWS_ROLE_ARN and ROTATOR_AWS_ID_TOKEN (input `aws_role_arn`); a key can rotate itself only once its own variables are there

"#]],
    );
}

/// The variables are like this, and the job does not get them.
fn unreached(change: impl Fn(Variable) -> Variable) -> Fixture {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.set_variable(PROJECT, change(Variable::new(ID, &fixture.old.id).masked()));
    fixture.fake.set_variable(PROJECT, change(Variable::new(SECRET, &fixture.old.secret).masked()));
    fixture
}

fn protected_variables_on_an_unprotected_ref() {
    let fixture = unreached(Variable::protected);
    fixture.fake.start_pipeline_with(
        PROJECT,
        "schedule",
        "feature",
        vec![JobSpec::new("rotate").never_ends()],
    );
    let job = fixture.running_job(PROJECT, "rotate").id;
    fixture.run_as(PROJECT, job).go().says(
        3,
        str![[r#"
error: this job has no AWS credentials
state: nothing was changed; keys and variables are as they were before this run
hint: the project's variables are protected and this ref is not: run the schedule on a protected branch, or protect this one

"#]],
    );
}

fn scoped_variables_without_an_environment() {
    let fixture = unreached(|variable| variable.scope("production"));
    fixture.run().set("ROTATOR_TARGETS", "project:42@production").go().says(
        3,
        str![[r#"
error: this job has no AWS credentials
state: nothing was changed; keys and variables are as they were before this run
hint: the project's variables are scoped to an environment: give the job `environment: {name: …, action: access}` (input `environment`)

"#]],
    );
}

fn variables_that_did_not_reach_the_job() {
    let fixture = Fixture::of_days(75);
    fixture.run().set(ID, "").set(SECRET, "").go().says(
        3,
        str![[r#"
error: this job has no AWS credentials
state: nothing was changed; keys and variables are as they were before this run
hint: the variables exist but did not reach this job: look for an empty variable of the same name in the pipeline, schedule or job

"#]],
    );
}

fn a_profile_that_is_not_there() {
    let fixture = Fixture::of_days(75);
    fixture.run().unset(ID).unset(SECRET).set("AWS_PROFILE", "deploy").go().says(
        3,
        str![[r#"
error: AWS_PROFILE names a profile that does not exist here
state: nothing was changed; keys and variables are as they were before this run
hint: remove AWS_PROFILE from the job's variables: a pipeline job has no AWS configuration file

"#]],
    );
}

fn the_root_user() {
    let fixture = Fixture::of_days(75);
    let root = fixture.fake.add_root_key(400);
    fixture.run().with_pair(&root).go().says(
        3,
        str![[r#"
error: the credentials in use are the root user's, whose keys are not rotated here
state: nothing was changed; keys and variables are as they were before this run
hint: delete the root user's access keys; create an IAM user or a role for this job

"#]],
    );
}

fn a_roles_session_without_a_user() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let session = fixture.fake.role_session("rotator", 3600);
    let run =
        run.unset("ROTATOR_AWS_ROLE_ARN").unset("ROTATOR_AWS_ID_TOKEN").unset("ROTATOR_IAM_USER");
    run.with_pair(&session).go().says(
        3,
        str![[r#"
error: the credentials in use are a role's, so they do not say whose key is meant
state: nothing was changed; keys and variables are as they were before this run
hint: set ROTATOR_IAM_USER to the name of the user whose key is rotated

"#]],
    );
}

fn a_user_who_does_not_exist() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let trust = Trust::WebIdentity { aud: "*".into(), sub: "*".into() };
    let policy = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:*", "Resource": "*"}]}"#;
    let admin = fixture.fake.add_role("admin", trust, 3600, policy);
    run.set("ROTATOR_AWS_ROLE_ARN", &admin).set("ROTATOR_IAM_USER", "deploier").go().says(
        3,
        str![[r#"
error: the IAM user deploier does not exist in this account
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_IAM_USER must be the name alone (no path, no ARN) of a user in the account of the credentials in use

"#]],
    );
}

fn a_pair_that_was_disabled() {
    let fixture = Fixture::of_days(75);
    fixture.fake.operator_disables_key(&fixture.old.id);
    fixture.run().go().says(
        3,
        str![[r#"
error: listing the user's access keys: AWS does not accept key …[OLD] (deleted, disabled, or of another partition)
state: nothing was changed; key …[OLD] does not work, so where the variables still name it PRODUCTION IS AFFECTED
hint: if the job started before the last rotation, retry it: it gets today's variables; else enable the key, or store one that works, or use a role

"#]],
    );
}

fn a_pair_that_was_deleted() {
    let fixture = Fixture::of_days(75);
    fixture.fake.operator_deletes_key(&fixture.old.id);
    fixture.run().go().says(
        3,
        str![[r#"
error: listing the user's access keys: AWS does not accept key …[OLD] (deleted, disabled, or of another partition)
state: nothing was changed; key …[OLD] does not work, so where the variables still name it PRODUCTION IS AFFECTED
hint: if the job started before the last rotation, retry it: it gets today's variables; else enable the key, or store one that works, or use a role

"#]],
    );
}

fn a_pair_whose_secret_is_anothers() {
    let fixture = Fixture::of_days(75);
    fixture.run().set(SECRET, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").go().says(
        3,
        str![[r#"
error: listing the user's access keys: AWS knows key …[OLD], but the secret is not its own
state: nothing was changed; key …[OLD] does not work, so where the variables still name it PRODUCTION IS AFFECTED
hint: if the job started before the last rotation, retry it: it gets today's variables; else a person must store a matching pair

"#]],
    );
}

fn a_leftover_session_token() {
    // An `ASIA` pair whose session is over.
    let fixture = Fixture::of_days(75);
    let session = fixture.fake.user_session(USER, -60);
    fixture.run().with_pair(&session).go().says(3, str![[r#"
error: listing the user's access keys: AWS does not accept the temporary credentials …[KEY] (their time is over, or they are of GetSessionToken, which IAM refuses)
state: nothing was changed; keys and variables are as they were before this run
hint: temporary credentials cannot rotate a key: store the user's own key in the variables, without AWS_SESSION_TOKEN, or use a role (ROTATOR_AWS_ROLE_ARN)

"#]]);
}

fn a_role_that_does_not_trust_this_project() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let token = fixture.fake.issue_id_token(
        "https://aws.example",
        "project_path:acme/other:ref_type:branch:ref:main",
        3600,
    );
    run.set("ROTATOR_AWS_ID_TOKEN", &token).go().says(
        3,
        str![[r#"
error: the role arn:aws:iam::123456789012:role/rotator cannot be assumed: no trust policy allows it
state: nothing was changed; keys and variables are as they were before this run
hint: the role's trust policy must allow this project and ref (condition on `sub`) and the token's `aud`; a chained role must allow the role before it

"#]],
    );
}

fn a_role_that_wants_another_audience() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let token = fixture.fake.issue_id_token(
        "https://gitlab.example",
        "project_path:acme/shop:ref_type:branch:ref:main",
        3600,
    );
    run.set("ROTATOR_AWS_ID_TOKEN", &token).go().says(
        3,
        str![[r#"
error: the role arn:aws:iam::123456789012:role/rotator cannot be assumed: the ID token is for another audience
state: nothing was changed; keys and variables are as they were before this run
hint: compare `aud` of `id_tokens:` (input `id_token_aud`) with the audiences of the OIDC provider

"#]],
    );
}

fn an_account_without_the_provider() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.oidc_provider = false);
    fixture.run().with_role().go().says(
        3,
        str![[r#"
error: the role arn:aws:iam::123456789012:role/rotator cannot be assumed: the account has no OIDC provider for this GitLab
state: nothing was changed; keys and variables are as they were before this run
hint: create an OIDC provider for the issuer's URL in the account of the role, or check the account in ROTATOR_AWS_ROLE_ARN

"#]],
    );
}

/// An STS endpoint that is a stub, or another partition's, knows every key as somebody else's.
fn a_new_key_that_belongs_to_somebody_else() {
    let fixture = Fixture::of_days(75);
    let body = "<GetCallerIdentityResponse \
         xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Arn>arn:aws:iam::000000000000:root</Arn><UserId>000000000000</UserId><Account>000000000000</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
    let stub = Fault::Refuse {
        status: 200,
        body: body.into(),
        headers: vec![("content-type".into(), "text/xml".into())],
    };
    fixture.fake.fault_from("sts:GetCallerIdentity", 2, stub);
    fixture.run().go().says(
        3,
        str![[r#"
error: the key belongs to arn:aws:iam::000000000000:root, not to the user deployer
state: the variables name key …[OLD] (active); production is not affected
hint: check ROTATOR_IAM_USER and the account of the credentials in use

"#]],
    );
    assert_eq!((fixture.old_is_active(), fixture.fresh().len()), (Some(true), 0));
}

fn a_token_that_is_none() {
    let fixture = Fixture::of_days(75);
    fixture
        .run()
        .with_role()
        .set("ROTATOR_AWS_ID_TOKEN", "eyJhbGciOiJub25lIn0.e30.c2ln")
        .go()
        .says(
            3,
            str![[r#"
error: the role arn:aws:iam::123456789012:role/rotator cannot be assumed: AWS does not accept the ID token
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_AWS_ID_TOKEN must be the token of the job's own `id_tokens:`

"#]],
        );
}

/// The job has a role, and STS answers so each time that it is assumed.
fn assumed_with(refusal: refusals::AwsRefusal<'_>) -> Ended {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    fixture.fake.fault_from("sts:AssumeRoleWithWebIdentity", 1, Fault::of_aws(refusal));
    let ended = run.go();
    fixture.is_untouched();
    ended
}

fn aws_does_not_reach_this_gitlab() {
    let ended = assumed_with(refusals::VERIFICATION_KEY);
    ended.says(1, str![[r#"
error: the role arn:aws:iam::123456789012:role/rotator cannot be assumed: AWS cannot fetch the keys of this GitLab, which the ID token is checked with
state: nothing was changed; keys and variables are as they were before this run
hint: run again; where it stays so, AWS must reach /.well-known/openid-configuration of this GitLab, and the `jwks_uri` in it, over the internet; where it cannot, let the key rotate itself

"#]]);
    let tries = ended.log.iter().filter(|entry| entry.service == "sts").count();
    assert!(tries > 3, "{tries} tries");
}

fn aws_does_not_reach_this_gitlab_for_a_moment() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    for (nth, refusal) in [(1, refusals::VERIFICATION_KEY), (2, refusals::IDP_COMMUNICATION)] {
        fixture.fake.fault_on("sts:AssumeRoleWithWebIdentity", nth, Fault::of_aws(refusal));
    }
    run.go().ends(0, "rotated");
    fixture.is_rotated();
}

fn a_certificate_that_the_provider_does_not_name() {
    assumed_with(refusals::THUMBPRINT).says(3, str![[r#"
error: the role arn:aws:iam::123456789012:role/rotator cannot be assumed: the certificate of this GitLab is not the one that the OIDC provider names
state: nothing was changed; keys and variables are as they were before this run
hint: update the thumbprint of the OIDC provider, or give GitLab a certificate of a public authority

"#]]);
}

fn sts_is_switched_off_in_the_region() {
    assumed_with(refusals::REGION_DISABLED).says(
        3,
        str![[r#"
error: assuming the role: STS is switched off in this region for the account
state: nothing was changed; keys and variables are as they were before this run
hint: set AWS_REGION to another region, or activate STS in this one (account settings of IAM)

"#]],
    );
}

fn an_endpoint_of_another_region() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("iam:ListAccessKeys", 1, Fault::of_aws(refusals::ANOTHER_REGION));
    fixture.run().go().says(
        3,
        str![[r#"
error: listing the user's access keys: the endpoint belongs to another region than AWS_REGION
state: nothing was changed; keys and variables are as they were before this run
hint: AWS_REGION and AWS_ENDPOINT_URL* must name one region

"#]],
    );
    fixture.is_untouched();
}

fn a_chain_that_breaks() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let first = run.env("ROTATOR_AWS_ROLE_ARN");
    let fake = &fixture.fake;
    let second = fake.add_role(
        "keys",
        Trust::Principal("arn:aws:iam::123456789012:role/other".into()),
        3600,
        &fake.rotation_policy(USER),
    );
    run.set("ROTATOR_AWS_ROLE_ARN", &format!("{first},{second}")).go().says(
        3,
        str![[r#"
error: the role arn:aws:iam::123456789012:role/keys cannot be assumed: no policy allows it
state: nothing was changed; keys and variables are as they were before this run
hint: the role's trust policy must allow this project and ref (condition on `sub`) and the token's `aud`; a chained role must allow the role before it

"#]],
    );
}

/// The second role of a chain, and why the first one does not get there.
fn chained(reason: &str) -> Ended {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let first = run.env("ROTATOR_AWS_ROLE_ARN");
    let second = "arn:aws:iam::210987654321:role/keys";
    let text = format!(
        "User: arn:aws:sts::123456789012:assumed-role/rotator/credential-rotator is not authorized \
         to perform: sts:AssumeRole on resource: {second} {reason}"
    );
    fixture.fake.fault_from("sts:AssumeRole", 1, Fault::of_aws((403, "AccessDenied", &text)));
    let ended = run.set("ROTATOR_AWS_ROLE_ARN", &format!("{first},{second}")).go();
    fixture.is_untouched();
    ended
}

fn a_chain_that_the_first_role_may_not_go_on_with() {
    chained("because no identity-based policy allows the sts:AssumeRole action").says(3, str![[r#"
error: the role arn:aws:iam::210987654321:role/keys cannot be assumed: no identity-based policy allows it
state: nothing was changed; keys and variables are as they were before this run
hint: the policy of the role before it must allow sts:AssumeRole on this one

"#]]);
}

fn a_chain_that_the_organization_denies() {
    chained("with an explicit deny in a service control policy").says(3, str![[r#"
error: the role arn:aws:iam::210987654321:role/keys cannot be assumed: a service control policy denies it explicitly
state: nothing was changed; keys and variables are as they were before this run
hint: the service control policy that the organization puts on the account has a statement that denies sts:AssumeRole: take these credentials out of it; allowing more in the policy of the identity does not fix it

"#]]);
}

fn a_chain_that_the_second_role_does_not_trust() {
    chained("because no role trust policy allows the sts:AssumeRole action").says(3, str![[r#"
error: the role arn:aws:iam::210987654321:role/keys cannot be assumed: no trust policy allows it
state: nothing was changed; keys and variables are as they were before this run
hint: the role's trust policy must allow this project and ref (condition on `sub`) and the token's `aud`; a chained role must allow the role before it

"#]]);
}

fn a_chain_that_the_second_role_denies() {
    chained("with an explicit deny in a role trust policy").says(3, str![[r#"
error: the role arn:aws:iam::210987654321:role/keys cannot be assumed: a trust policy denies it explicitly
state: nothing was changed; keys and variables are as they were before this run
hint: the role's trust policy has a statement that denies sts:AssumeRole: take these credentials out of it; allowing more in the policy of the identity does not fix it

"#]]);
}

fn an_id_token_that_has_ended() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let token = fixture.fake.issue_id_token(
        "https://aws.example",
        "project_path:acme/shop:ref_type:branch:ref:main",
        -10,
    );
    run.set("ROTATOR_AWS_ID_TOKEN", &token).go().says(1, str![[r#"
error: the job's ID token has expired, and with it the role's session
state: nothing was changed; keys and variables are as they were before this run
hint: nothing to do: the next run has a new token and takes up where this one ended; where every run ends so, ROTATOR_AWS_ID_TOKEN is not the one of the job's `id_tokens:`

"#]]);
}

fn an_id_token_that_ends_meanwhile() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    // Each session is too short to be used twice, and the token ends while the new key is verified.
    let trust = Trust::WebIdentity { aud: "*".into(), sub: "*".into() };
    let short = fixture.fake.add_role("short", trust, 60, &fixture.fake.rotation_policy(USER));
    let token = fixture.fake.issue_id_token(
        "https://aws.example",
        "project_path:acme/shop:ref_type:branch:ref:main",
        200,
    );
    let fake = fixture.fake.clone();
    let created = move |entry: &Entry| entry.action == "iam:CreateAccessKey";
    let run = run
        .set("ROTATOR_AWS_ROLE_ARN", &short)
        .set("ROTATOR_AWS_ID_TOKEN", &token)
        .once(created, move || fake.shift_clock(240));
    run.go().says(1, str![[r#"
error: the job's ID token has expired, and with it the role's session
state: the variables name a key that works; old key …[OLD] (active), new key …[NEW] (active); production is not affected
hint: nothing to do: the next run has a new token and takes up where this one ended; where every run ends so, ROTATOR_AWS_ID_TOKEN is not the one of the job's `id_tokens:`

"#]]);
}

fn a_new_key_that_never_works() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| {
        (knobs.invisible_for, knobs.invisible_share) = (std::time::Duration::from_secs(600), 100);
    });
    fixture.run().go().says(
        1,
        str![[r#"
error: new key …[KEY] did not work within 10 seconds, so it was not published
state: the variables name key …[OLD] (active); production is not affected
hint: run again; where it stays so, set AWS_REGION to a region whose STS endpoint is enabled in the account

"#]],
    );
    assert_eq!(
        (fixture.old_is_active(), fixture.fresh().len()),
        (Some(true), 0),
        "the new key is gone again"
    );
    assert_eq!(fixture.stored().0, fixture.old.id);
}

fn a_quota_of_one() {
    let fixture = Fixture::of_days(75);
    fixture.fake.tune(|knobs| knobs.keys_per_user = 1);
    fixture.run().go().says(
        3,
        str![[r#"
error: AWS says that the user deployer already has as many access keys as it may
state: the variables name key …[OLD] (active); production is not affected
hint: `aws iam list-access-keys --user-name deployer` shows them; delete the one that nothing uses

"#]],
    );
    fixture.is_untouched();
}

fn a_reply_to_the_creation_that_is_lost() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on("iam:CreateAccessKey", 1, Fault::LoseReply);
    fixture.run().go().says(
        1,
        str![[r#"
error: the reply to CreateAccessKey was lost; the key that it made is removed, by this run or the next, for its secret is lost
state: the variables name key …[OLD] (active); production is not affected
hint: run again

"#]],
    );
    assert_eq!(
        (fixture.old_is_active(), fixture.fresh().len()),
        (Some(true), 0),
        "the orphan is gone"
    );
    fixture.run().go().ends(0, "rotated");
    fixture.is_rotated();
}

fn a_creation_that_is_never_seen() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on("iam:CreateAccessKey", 1, Fault::Close);
    fixture.run().go().says(
        1,
        str![[r#"
error: the reply to CreateAccessKey was lost, and no new key is to be seen
state: the variables name a key that works; old key …[OLD] (active), whether a new key was made is not known; production is not affected
hint: run again in a few minutes: should the key appear, that run removes it, for its secret is lost

"#]],
    );
    fixture.fake.clear_faults();
    assert_eq!(fixture.stored().0, fixture.old.id);
}

fn iam_throttles_for_ever() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("iam:ListAccessKeys", 1, Fault::refuse(400));
    fixture.run().go().says(
        1,
        str![[r#"
error: listing the user's access keys: AWS throttles this account's calls
state: nothing was changed; keys and variables are as they were before this run
hint: run again; spread the schedules of many projects over the day

"#]],
    );
}

fn iam_has_an_error_for_ever() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_from("iam:ListAccessKeys", 1, Fault::refuse(500));
    fixture.run().go().says(
        1,
        str![[r#"
error: listing the user's access keys: AWS has an error of its own (InternalFailure)
state: nothing was changed; keys and variables are as they were before this run
hint: run again; where it stays so, look at https://health.aws.amazon.com/health/status

"#]],
    );
}

fn an_endpoint_that_nobody_listens_at() {
    let fixture = Fixture::of_days(75);
    let nobody = Port::reserve();
    fixture
        .run()
        .set("AWS_ENDPOINT_URL_IAM", &format!("http://127.0.0.1:{}", nobody.number))
        .go()
        .says(
            1,
            str![[r#"
error: listing the user's access keys: 127.0.0.1:[PORT] refuses the connection
state: nothing was changed; keys and variables are as they were before this run
hint: check AWS_ENDPOINT_URL* and AWS_REGION and the runner's network, then run again

"#]],
        );
}
