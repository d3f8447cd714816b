//! Errors before the first request: arguments, configuration, files.

use std::process::{Command, Stdio};

use snapbox::str;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // A run that cannot begin says why.
        help_is_the_table,
        the_version_is_told,
        other_arguments_are_refused,
        every_mistake_is_told_at_once,
        half_a_pair_in_the_environment_names_the_missing_half,
        a_session_token_beside_a_long_lived_key_is_a_leftover,
        a_role_without_its_user_or_token_is_half_a_role,
        a_job_token_cannot_write_variables,
        a_report_that_cannot_be_written_costs_nothing,
        a_ca_file_without_certificates_is_no_ca_file,
    ]
}

/// The binary with these arguments and an empty environment: exit code, stdout, stderr.
fn with_arguments(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_credential-rotator"));
    let output = command
        .env_clear()
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn help_is_the_table() {
    let (code, out, err) = with_arguments(&["--help"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for variable in credential_rotator::config::VARIABLES {
        assert!(
            out.contains(&format!("\n  {} [{}]\n", variable.name, variable.default)),
            "{}",
            variable.name
        );
    }
    snapbox::assert_data_eq!(
        out.lines().take(6).collect::<Vec<_>>().join("\n"),
        str![[r#"
Rotates the access key of an IAM user and the GitLab variables that hold it.

Usage: credential-rotator [--help | --version]

Everything else comes from environment variables; an empty one counts as unset.
Durations are written like 90d, 12h or 30s.
"#]]
    );
}

fn the_version_is_told() {
    let version = concat!("credential-rotator ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(with_arguments(&["--version"]), (Some(0), version.to_owned(), String::new()));
}

fn other_arguments_are_refused() {
    for arguments in [&["rotate"][..], &["-h"], &["--help", "--version"], &["--version", "x"]] {
        let (code, out, err) = with_arguments(arguments);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        snapbox::assert_data_eq!(
            err,
            str![[r#"
error: the only arguments are --help and --version
state: nothing was changed
hint: everything is configured by environment variables: --help

"#]]
        );
    }
}

fn every_mistake_is_told_at_once() {
    let fixture = Fixture::of_days(75);
    let run = fixture
        .run()
        .unset("ROTATOR_GITLAB_TOKEN")
        .set("ROTATOR_FOERCE", "true")
        .set("ROTATOR_OVERLAP", "2 fortnights");
    let run = run
        .set("ROTATOR_TARGETS", "42")
        .set("ROTATOR_DEPLOY", "production")
        .set("ROTATOR_GITLAB_API_URL", "http://gitlab.example.com");
    let ended = run.go();
    ended.says(
        2,
        str![[r#"
error: the configuration has mistakes
ROTATOR_FOERCE: is not known; the nearest name is ROTATOR_FORCE
ROTATOR_GITLAB_TOKEN: is needed: a project, group or service account token with the scope api and the role Maintainer
ROTATOR_GITLAB_API_URL: is plain http, which would send the token in the clear; use https in ROTATOR_GITLAB_API_URL
ROTATOR_TARGETS: "42" is not a target; write it like project:42, project:group/name@production or group:name
ROTATOR_OVERLAP: "2 fortnights" is not a duration; write it like 90d, 12h or 30s
ROTATOR_DEPLOY: "production" is not a way to deploy; use pipeline, pipeline@REF, environment/NAME or none
state: nothing was changed; keys and variables are as they were before this run
hint: fix the variables named above; `credential-rotator --help` lists them all

"#]],
    );
    assert_eq!(ended.log.iter().filter(|entry| entry.n.is_some()).count(), 0);
}

fn half_a_pair_in_the_environment_names_the_missing_half() {
    let fixture = Fixture::of_days(75);
    fixture.run().unset(SECRET).go().says(
        2,
        str![[r#"
error: the configuration has mistakes
AWS_SECRET_ACCESS_KEY: is missing, though AWS_ACCESS_KEY_ID is set; is it protected, or scoped to an environment that this job does not name?
state: nothing was changed; keys and variables are as they were before this run
hint: fix the variables named above; `credential-rotator --help` lists them all

"#]],
    );
}

fn a_session_token_beside_a_long_lived_key_is_a_leftover() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjEXAMPLE").go().says(
        2,
        str![[r#"
error: the configuration has mistakes
AWS_SESSION_TOKEN: is set beside a long-lived key (AKIA…), which has none, so AWS would refuse the pair; remove this leftover
state: nothing was changed; keys and variables are as they were before this run
hint: fix the variables named above; `credential-rotator --help` lists them all

"#]],
    );
}

fn a_role_without_its_user_or_token_is_half_a_role() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/rotator").go().says(
        2,
        str![[r#"
error: the configuration has mistakes
ROTATOR_IAM_USER: is needed with ROTATOR_AWS_ROLE_ARN: a role has no key of its own, so name the user whose key is rotated
ROTATOR_AWS_ID_TOKEN: is needed with ROTATOR_AWS_ROLE_ARN; declare it under `id_tokens:` of the job (the input id_token_aud of the component, which must not be empty then)
state: nothing was changed; keys and variables are as they were before this run
hint: fix the variables named above; `credential-rotator --help` lists them all

"#]],
    );
}

fn a_job_token_cannot_write_variables() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_GITLAB_TOKEN", "glcbt-64_aBcDeFgHiJkLmNoPqRsT").go().says(
        2,
        str![[r#"
error: the configuration has mistakes
ROTATOR_GITLAB_TOKEN: is a job token, which cannot write variables; use a project, group or service account token with the scope api
state: nothing was changed; keys and variables are as they were before this run
hint: fix the variables named above; `credential-rotator --help` lists them all

"#]],
    );
}

fn a_report_that_cannot_be_written_costs_nothing() {
    let fixture = Fixture::of_days(75);
    let ended = fixture.run().set("ROTATOR_DOTENV", "/nowhere/rotation.env").go();
    ended.says(
        2,
        str![[r#"
error: the file /nowhere/rotation.env cannot be written
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_DOTENV must name a file in a directory that exists and that this user may write

"#]],
    );
    assert_eq!(ended.log.iter().filter(|entry| entry.n.is_some()).count(), 0);
    fixture.is_untouched();
}

fn a_ca_file_without_certificates_is_no_ca_file() {
    let fixture = Fixture::of_days(75);
    fixture.run().set("ROTATOR_GITLAB_CA_FILE", "/dev/null").go().says(
        2,
        str![[r#"
error: the CA file /dev/null cannot be read or holds no usable certificate
state: nothing was changed; keys and variables are as they were before this run
hint: ROTATOR_GITLAB_CA_FILE must name a readable file with PEM certificates

"#]],
    );
}
