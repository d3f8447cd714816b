//! A secret is only in memory and in the masked variable: every byte that the program leaves behind
//! is searched for every secret that the fake has ever issued, as it is and in other encodings,
//! while the program logs as much as it can.
//!
//! Each case is a test: `cargo test --test secrets NAME` runs those whose name contains the text.

use std::process::ExitCode;
use std::sync::Mutex;

use fake::*;

fn main() -> ExitCode {
    let cases = cases![
        a_rotation,
        a_rotation_in_a_hostile_fake,
        a_rotation_by_a_chain_of_roles,
        a_rotation_on_the_days_of_its_waiting,
        a_setup,
        a_dry_run_and_a_check,
        pipeline_variables_and_inputs,
        a_torn_pair_is_healed,
        a_failed_deploy,
        refused_tokens,
        refused_keys_and_roles,
        replies_that_echo_what_was_sent,
        replies_that_are_cut_or_garbled,
        mistakes_in_the_configuration,
    ];
    let count = u64::try_from(cases.len()).expect("a few");
    let program = env!("CARGO_BIN_EXE_credential-rotator");
    let conclusion = cases::run(program, 40, [cases]);
    let (bytes, runs) = *SEARCHED.lock().expect("nobody panics");
    // With a filter fewer run.
    if conclusion.num_passed == count {
        assert!(runs >= 30 && bytes > 30_000, "{runs} runs, {bytes} bytes");
    }
    conclusion.exit_code()
}

/// What was searched: bytes of output, and how many runs.
static SEARCHED: Mutex<(usize, usize)> = Mutex::new((0, 0));

/// Runs it as talkative as it can be, with the process's own arguments looked at meanwhile, and
/// searches everything.
fn searched(run: Run<'_>) -> Ended {
    let fake = run.fixture.fake.clone();
    let extra = [
        "glpat-NotTheTokenOfAnybody",
        "eyJhbGciOiJub25lIn0.e30.c2ln",
        "IQoJb3JpZ2luX2VjEXAMPLETOKEN",
    ];
    let talkative =
        if run.env("ROTATOR_LOG").is_empty() { "trace".to_owned() } else { run.env("ROTATOR_LOG") };
    let run = run
        .set("ROTATOR_LOG", &talkative)
        .set("RUST_LOG", "trace")
        .set("RUST_BACKTRACE", "full")
        .set("AWS_SDK_LOG", "trace");
    let ended = run.go_watching_arguments();
    let mut secrets = fake.secrets();
    secrets.extend(extra.map(str::to_owned));
    assert!(secrets.len() >= 5, "the fake has issued secrets");
    assert_eq!(
        found(&ended.raw, &secrets),
        Vec::<String>::new(),
        "in the output of a run that ended with {}",
        ended.code
    );
    let mut searched = SEARCHED.lock().expect("nobody panics");
    *searched = (searched.0 + ended.raw.len(), searched.1 + 1);
    ended
}

fn a_rotation() {
    let fixture = Fixture::of_days(75);
    searched(fixture.run()).ends(0, "rotated");
    searched(fixture.run()).ends(0, "not_due");
}

fn a_rotation_in_a_hostile_fake() {
    let fixture = Fixture::hostile(3, 75);
    searched(fixture.run()).ends(0, "rotated");
}

fn a_rotation_by_a_chain_of_roles() {
    let fixture = Fixture::of_days(75);
    let run = fixture.run().with_role();
    let first = run.env("ROTATOR_AWS_ROLE_ARN");
    let second = fixture.fake.add_role(
        "keys",
        Trust::Principal(first.clone()),
        3600,
        &fixture.fake.rotation_policy(USER),
    );
    searched(run.set("ROTATOR_AWS_ROLE_ARN", &format!("{first},{second}"))).ends(0, "rotated");
}

fn a_rotation_on_the_days_of_its_waiting() {
    let fixture = Fixture::of_days(75);
    let run = || fixture.run().set("ROTATOR_OVERLAP", "1m").set("ROTATOR_GRACE_PERIOD", "1m");
    searched(run()).ends(0, "rotated");
    searched(run()).ends(0, "waiting");
    fixture.fake.shift_clock(100);
    searched(run()).ends(0, "resumed");
    fixture.fake.shift_clock(200);
    searched(run()).ends(0, "resumed");
}

fn a_setup() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 5);
    searched(
        fixture.run().with_role().set("ROTATOR_ACTION", "setup").set("ROTATOR_HIDDEN", "true"),
    )
    .ends(0, "rotated");
}

fn a_dry_run_and_a_check() {
    let fixture = Fixture::of_days(75);
    searched(fixture.run().set("ROTATOR_DRY_RUN", "true")).ends(0, "dry_run");
    searched(fixture.run().set("ROTATOR_ACTION", "check")).ends(0, "due");
}

fn pipeline_variables_and_inputs() {
    let fixture = Fixture::of_days(75);
    let secret = "glpat-NotTheTokenOfAnybody";
    fixture.fake.set_pipeline_inputs(PROJECT, &["tier"]);
    let run =
        fixture.run().set("ROTATOR_DEPLOY_VARIABLES", &format!(r#"{{"OTHER_TOKEN": "{secret}"}}"#));
    searched(run.set("ROTATOR_DEPLOY_INPUTS", r#"{"tier": "blue"}"#)).ends(0, "rotated");
}

fn a_torn_pair_is_healed() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on(
        "PUT /projects/:id/variables/:key AWS_ACCESS_KEY_ID",
        1,
        Fault::refuse(500),
    );
    fixture.fake.fault_on(
        "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY",
        1,
        Fault::LoseReply,
    );
    searched(fixture.run()).ends(0, "rotated");
}

fn a_failed_deploy() {
    let fixture = Fixture::of_days(75);
    fixture
        .fake
        .set_pipeline_config(PROJECT, vec![JobSpec::deploy("deploy", "production").fails()]);
    assert_eq!(searched(fixture.run()).code, 4);
}

fn refused_tokens() {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    let changes: [fn(&mut TokenSpec); 4] = [
        |token| token.scopes = vec!["read_api".into()],
        |token| (token.scopes, token.level) = (vec!["api".into()], 30),
        |token| (token.level, token.expires_at) = (40, Some(0)),
        |token| (token.expires_at, token.revoked) = (None, true),
    ];
    for change in changes {
        fake.change_token(&fake.token, change);
        assert_eq!(searched(fixture.run()).code, 3);
    }
    assert_eq!(
        searched(fixture.run().set("ROTATOR_GITLAB_TOKEN", "glpat-NotTheTokenOfAnybody")).code,
        3
    );
}

fn refused_keys_and_roles() {
    let fixture = Fixture::of_days(75);
    let session = fixture.fake.user_session(USER, 3600);
    assert_eq!(searched(fixture.run().with_pair(&session)).code, 3);
    assert_eq!(
        searched(fixture.run().set(SECRET, "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")).code,
        3
    );
    let role = fixture.run().with_role();
    let arn = role.env("ROTATOR_AWS_ROLE_ARN");
    assert_eq!(searched(role.set("ROTATOR_AWS_ID_TOKEN", "eyJhbGciOiJub25lIn0.e30.c2ln")).code, 3);
    let other = fixture.fake.issue_id_token(
        "https://aws.example",
        "project_path:acme/other:ref_type:branch:ref:main",
        3600,
    );
    let run = fixture
        .run()
        .set("ROTATOR_AWS_ROLE_ARN", &arn)
        .set("ROTATOR_IAM_USER", USER)
        .set("ROTATOR_AWS_ID_TOKEN", &other);
    assert_eq!(searched(run).code, 3);
    fixture.fake.set_policy(USER, &["iam:ListAccessKeys"]);
    assert_eq!(searched(fixture.run()).code, 3);
}

/// Servers and proxies that repeat what they were sent in their errors.
fn replies_that_echo_what_was_sent() {
    let fixture = Fixture::of_days(75);
    let (token, old) = (fixture.fake.token.clone(), fixture.old.secret.clone());
    let body = serde_json::json!({ "message": format!("private-token {token} may not write {old}"), "error": token }).to_string();
    for (action, status) in [
        ("GET /projects/:id/variables", 403),
        ("GET /projects/:id/variables", 400),
        ("GET /personal_access_tokens/self", 500),
        ("POST /projects/:id/variables", 400),
        ("PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY", 400),
    ] {
        fixture.fake.clear_faults();
        fixture.fake.fault_from(
            action,
            1,
            Fault::Refuse { status, body: body.clone(), headers: Vec::new() },
        );
        assert_ne!(searched(fixture.run()).code, 0, "{action}");
    }
    fixture.fake.clear_faults();
    let xml = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{old}</Code><Message>The secret {old} of \
         {token}</Message></Error><RequestId>0</RequestId></ErrorResponse>"
    );
    fixture.fake.fault_from(
        "iam:CreateAccessKey",
        1,
        Fault::Refuse { status: 400, body: xml, headers: Vec::new() },
    );
    assert_ne!(searched(fixture.run()).code, 0);
}

fn replies_that_are_cut_or_garbled() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on("iam:CreateAccessKey", 1, Fault::Truncate);
    assert_eq!(searched(fixture.run()).code, 1);
    fixture.fake.clear_faults();
    fixture.fake.fault_from("GET /projects/:id/variables", 1, Fault::Truncate);
    assert_eq!(searched(fixture.run()).code, 1);
    fixture.fake.clear_faults();
    // A list of another shape, with a secret in it.
    let body = format!(r#"[{{"key": 7, "value": "{}"}}]"#, fixture.old.secret);
    fixture.fake.fault_from(
        "GET /projects/:id/variables",
        1,
        Fault::Refuse { status: 200, body, headers: Vec::new() },
    );
    assert_eq!(searched(fixture.run()).code, 3);
}

/// People paste secrets into the wrong field.
fn mistakes_in_the_configuration() {
    let fixture = Fixture::of_days(75);
    let (token, secret) = (fixture.fake.token.clone(), fixture.old.secret.clone());
    // Two hold credentials by right, and two are JSON that is sent on.
    let by_right = [
        "ROTATOR_GITLAB_TOKEN",
        "ROTATOR_AWS_ID_TOKEN",
        "ROTATOR_DEPLOY_INPUTS",
        "ROTATOR_DEPLOY_VARIABLES",
    ];
    let names = credential_rotator::config::VARIABLES.iter().map(|variable| variable.name);
    for name in names.filter(|name| !by_right.contains(name)) {
        for value in [
            token.clone(),
            secret.clone(),
            format!("pipeline@{token}"),
            format!("project:group/{token}"),
        ] {
            assert_eq!(searched(fixture.run().set(name, &value)).code, 2, "{name}");
        }
    }
    for name in ["ROTATOR_DEPLOY_INPUTS", "ROTATOR_DEPLOY_VARIABLES"] {
        assert_eq!(searched(fixture.run().set(name, &token)).code, 2, "{name}");
    }
    // An ID token without a role means nothing, so what is pasted there is not looked at.
    searched(fixture.run().set("ROTATOR_DRY_RUN", "true").set("ROTATOR_AWS_ID_TOKEN", &token))
        .ends(0, "dry_run");
    assert_eq!(
        searched(
            fixture
                .run()
                .set(&format!("ROTATOR_{token}"), "x")
                .set("ROTATOR_GITLAB_TOKEN", &format!("{token} "))
        )
        .code,
        2
    );
    fixture.is_untouched();
}
