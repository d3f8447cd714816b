//! Every variable, every error, every cross-check; and that no secret is ever shown.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Duration;

use credential_rotator::config::{
    Action, Config, ConfigError, ConfigErrors, CredentialSource, DeployMode, Name, Owner, Target,
    VARIABLES, table_markdown,
};
use jiff::SignedDuration;
use proptest::prelude::*;
use secrecy::ExposeSecret;
use tracing::level_filters::LevelFilter;

const TOKEN: &str = "glpat-XhXKfDqRsTuVwXyZ1234";
const ID_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const SESSION: &str = "FwoGZXIvYXdzEDoaDKSESSIONEXAMPLE";
const DEPLOY_VALUE: &str = "s3cr3t-value-of-a-deploy";
const ROLE: &str = "arn:aws:iam::123456789012:role/ci/rotator";

/// The smallest configuration of a job.
fn job() -> BTreeMap<String, OsString> {
    set(
        BTreeMap::new(),
        &[("ROTATOR_GITLAB_TOKEN", TOKEN), ("CI_PROJECT_ID", "42"), ("CI_JOB_ID", "98765")],
    )
}

fn role() -> BTreeMap<String, OsString> {
    set(
        job(),
        &[
            ("ROTATOR_AWS_ROLE_ARN", ROLE),
            ("ROTATOR_AWS_ID_TOKEN", ID_TOKEN),
            ("ROTATOR_IAM_USER", "deploy"),
        ],
    )
}

fn set(mut vars: BTreeMap<String, OsString>, more: &[(&str, &str)]) -> BTreeMap<String, OsString> {
    vars.extend(more.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))));
    vars
}

fn read(vars: BTreeMap<String, OsString>) -> Result<Config, ConfigErrors> {
    Config::from_env(vars.into_iter().map(|(name, value)| (name.into(), value)))
}

/// The configuration of a job that has these variables as well.
#[track_caller]
fn good(more: &[(&str, &str)]) -> Config {
    read(set(job(), more)).unwrap_or_else(|errors| panic!("{more:?} is refused:\n{errors}"))
}

/// The errors about a job that has these variables as well, one a line.
#[track_caller]
fn bad(more: &[(&str, &str)]) -> String {
    read(set(job(), more)).expect_err("an error").to_string()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn path(path: &str) -> Name {
    Name::Path(path.to_owned())
}

#[test]
fn a_job_with_a_token_alone_gets_every_default() {
    let config = good(&[]);
    assert_eq!(config.action, Action::Rotate);
    assert_eq!(config.gitlab_token.expose_secret(), TOKEN);
    assert_eq!(config.gitlab_url.as_str(), "https://gitlab.com/api/v4");
    assert!(config.gitlab_ca.is_none());
    assert_eq!(config.iam_user, None);
    assert!(matches!(config.credential_source, CredentialSource::Environment { .. }));
    assert_eq!(config.region, "us-east-1");
    assert_eq!(
        config.targets,
        [Target { owner: Owner::Project(Name::Id(42)), scope: "*".to_owned() }]
    );
    assert_eq!(config.key_id_variable, "AWS_ACCESS_KEY_ID");
    assert_eq!(config.secret_variable, "AWS_SECRET_ACCESS_KEY");
    assert_eq!((config.protected, config.hidden), (None, false));
    assert_eq!((config.rotate_after, config.max_age), (hours(60 * 24), hours(90 * 24)));
    assert_eq!((config.overlap, config.grace_period), (hours(12), hours(7 * 24)));
    assert_eq!((config.force, config.dry_run), (false, false));
    assert_eq!(config.deploy.mode, DeployMode::Pipeline { branch: None });
    assert_eq!(config.deploy.projects, [Name::Id(42)]);
    assert!(
        config.deploy.inputs.is_empty()
            && config.deploy.variables.is_empty()
            && config.deploy.jobs.is_empty()
    );
    assert_eq!(config.deploy.timeout, hours(1));
    assert_eq!(
        (config.verify_timeout, config.http_timeout),
        (Duration::from_secs(120), Duration::from_secs(30))
    );
    assert_eq!((config.report, config.dotenv, config.annotations), (None, None, None));
    assert_eq!(config.log, LevelFilter::INFO);
}

#[test]
fn every_variable_of_the_table_is_known_and_empty_means_unset() {
    for blank in ["", " ", "\t\n"] {
        let vars: Vec<_> = VARIABLES
            .iter()
            .map(|row| (row.name, blank))
            .filter(|(name, _)| *name != "ROTATOR_GITLAB_TOKEN")
            .collect();
        assert_eq!(format!("{:?}", good(&vars)), format!("{:?}", good(&[])));
    }
    assert_eq!(bad(&[("ROTATOR_GITLAB_TOKEN", "")]), bad(&[("ROTATOR_GITLAB_TOKEN", " \n")]));
    let aws = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", " "),
        ("AWS_SESSION_TOKEN", ""),
        ("AWS_REGION", ""),
    ];
    assert_eq!(good(&aws).region, "us-east-1");
    good(&[("ROTATOR_NEVER_HEARD_OF", "")]);
}

#[test]
fn good_values_are_read() {
    let all = [
        ("ROTATOR_ACTION", "check"),
        ("ROTATOR_GITLAB_API_URL", "https://git.example.org:8443/gitlab/api/v4/"),
        ("ROTATOR_GITLAB_CA_FILE", " /etc/ca.pem "),
        ("ROTATOR_IAM_USER", "de+pl=oy,.@-_"),
        ("ROTATOR_KEY_ID_VARIABLE", "KEY_ID"),
        ("ROTATOR_SECRET_VARIABLE", "SECRET"),
        ("ROTATOR_PROTECTED", "yes"),
        ("ROTATOR_HIDDEN", "1"),
        ("ROTATOR_ROTATE_AFTER", "30d"),
        ("ROTATOR_MAX_AGE", "30d"),
        ("ROTATOR_FORCE", "TRUE"),
        ("ROTATOR_DRY_RUN", "Yes"),
        ("ROTATOR_DEPLOY", "pipeline@release/1.x"),
        ("ROTATOR_DEPLOY_PROJECTS", "7, group/sub/app.web,"),
        ("ROTATOR_DEPLOY_INPUTS", r#"{"a": "x", "b": 2, "c": true, "d": ["y", 1]}"#),
        ("ROTATOR_DEPLOY_VARIABLES", r#"{"WHY": "rotation", "N": "1"}"#),
        ("ROTATOR_DEPLOY_JOBS", "deploy production, deploy:eu 1/2,"),
        ("ROTATOR_DEPLOY_TIMEOUT", "0s"),
        ("ROTATOR_OVERLAP", "0s"),
        ("ROTATOR_GRACE_PERIOD", "1w"),
        ("ROTATOR_VERIFY_TIMEOUT", "10s"),
        ("ROTATOR_HTTP_TIMEOUT", "1m"),
        ("ROTATOR_REPORT", "report.json"),
        ("ROTATOR_DOTENV", "rotation.env"),
        ("ROTATOR_ANNOTATIONS", "links.json"),
        ("ROTATOR_LOG", "Trace"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
    ];
    let config = good(&all);
    assert_eq!(config.action, Action::Check);
    assert_eq!(config.gitlab_url.as_str(), "https://git.example.org:8443/gitlab/api/v4");
    let ca = config.gitlab_ca.expect("named");
    assert_eq!((ca.path.as_path(), ca.named), (Path::new("/etc/ca.pem"), true));
    assert_eq!(config.iam_user.as_deref(), Some("de+pl=oy,.@-_"));
    assert_eq!(
        (config.key_id_variable.as_str(), config.secret_variable.as_str()),
        ("KEY_ID", "SECRET")
    );
    assert_eq!(
        (config.protected, config.hidden, config.force, config.dry_run),
        (Some(true), true, true, true)
    );
    assert_eq!((config.rotate_after, config.max_age), (hours(30 * 24), hours(30 * 24)));
    assert_eq!((config.overlap, config.grace_period), (hours(0), hours(7 * 24)));
    assert_eq!(config.deploy.mode, DeployMode::Pipeline { branch: Some("release/1.x".to_owned()) });
    assert_eq!(config.deploy.projects, [Name::Id(7), path("group/sub/app.web")]);
    assert_eq!(config.deploy.inputs.len(), 4);
    let variables: BTreeMap<_, _> = config.deploy.variables.into_iter().collect();
    assert_eq!(
        variables,
        [("WHY", "rotation"), ("N", "1")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    );
    assert_eq!(config.deploy.jobs, ["deploy production", "deploy:eu 1/2"]);
    assert_eq!(config.deploy.timeout, hours(0));
    assert_eq!(
        (config.verify_timeout, config.http_timeout),
        (Duration::from_secs(10), Duration::from_secs(60))
    );
    assert_eq!(config.report.as_deref(), Some(Path::new("report.json")));
    assert_eq!(config.dotenv.as_deref(), Some(Path::new("rotation.env")));
    assert_eq!(config.annotations.as_deref(), Some(Path::new("links.json")));
    assert_eq!(config.log, LevelFilter::TRACE);
    assert_eq!(config.region, "eu-central-1");
}

#[test]
fn every_word_of_a_choice_is_understood() {
    for action in ["rotate", "setup", "check"] {
        assert_eq!(good(&[("ROTATOR_ACTION", action)]).action.to_string(), action);
    }
    for (level, filter) in [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("DEBUG", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ] {
        assert_eq!(good(&[("ROTATOR_LOG", level)]).log, filter);
    }
    for (text, flag) in
        [("true", true), ("1", true), ("YES", true), ("False", false), ("0", false), ("no", false)]
    {
        assert_eq!(good(&[("ROTATOR_FORCE", text)]).force, flag);
        assert_eq!(good(&[("ROTATOR_PROTECTED", text)]).protected, Some(flag));
    }
    assert_eq!(good(&[("ROTATOR_PROTECTED", "Auto")]).protected, None);
    let environment = good(&[("ROTATOR_DEPLOY", "environment/review/my app")]);
    assert_eq!(environment.deploy.mode, DeployMode::Environment("review/my app".to_owned()));
}

#[test]
fn targets_of_every_shape_are_read_and_shown_as_written() {
    let text = "project:42,project:group/sub.group/app@production,group:7@review/*,\
         group:my-group/123,project:1/2@a b-${c}";
    let shown: Vec<_> =
        good(&[("ROTATOR_TARGETS", text)]).targets.iter().map(ToString::to_string).collect();
    assert_eq!(shown.join(","), text);
    let config = good(&[("ROTATOR_TARGETS", " group:7 , project: 42 @ production , project:42@*")]);
    assert_eq!(
        config.targets[1],
        Target { owner: Owner::Project(Name::Id(42)), scope: "production".to_owned() }
    );
    assert_eq!(config.targets[2].to_string(), "project:42");
    assert_eq!(config.deploy.projects, [Name::Id(42)], "each project target once, no group");
}

/// A record is one variable.
#[test]
fn more_places_than_a_record_can_hold_are_a_mistake() {
    let list = |count: u32, name: &dyn Fn(u32) -> String| {
        (0..count).map(name).collect::<Vec<_>>().join(",")
    };
    let long = |n| format!("acme/platform/services/backend/payment-service-number-{n:03}");
    // What a path is long does not matter: the record has ids.
    good(&[("ROTATOR_DEPLOY_PROJECTS", &list(40, &long))]);
    let error = bad(&[("ROTATOR_DEPLOY_PROJECTS", &list(150, &long))]);
    assert!(
        error.starts_with("ROTATOR_DEPLOY_PROJECTS: names too many places")
            && error.contains("and a variable takes 10000"),
        "{error}"
    );
    let scopes = list(150, &|n| format!("group:7@review/{n}"));
    let more = [("ROTATOR_TARGETS", scopes.as_str()), ("ROTATOR_DEPLOY_PROJECTS", "42")];
    assert!(bad(&more).starts_with("ROTATOR_TARGETS: names too many places"));
}

/// Other paths are looked up when the run begins.
#[test]
fn the_jobs_own_project_is_one_under_its_id_and_its_path() {
    let config = good(&[
        ("CI_PROJECT_PATH", "group/app"),
        ("ROTATOR_TARGETS", "project:Group/App,project:42,project:group/other,project:42@staging"),
        ("ROTATOR_DEPLOY_PROJECTS", "42,group/app,group/other"),
    ]);
    let shown: Vec<String> = config.targets.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["project:Group/App", "project:group/other", "project:42@staging"]);
    assert_eq!(config.targets[0].owner.name().id(), Some(42));
    assert_eq!(config.deploy.projects, [Name::Id(42), path("group/other")]);
    assert_eq!(config.paths(), [Owner::Project(path("group/other"))]);
    let known = config.with_ids(&[(Owner::Project(path("Group/Other")), 42)]);
    assert_eq!(known.targets.len(), 2, "it was another name of the same project");
    assert_eq!(known.deploy.projects, [Name::Id(42)]);
    assert!(known.paths().is_empty());
}

#[test]
fn the_predefined_variables_describe_the_job() {
    let config = good(&[
        ("CI_API_V4_URL", "https://git.example.org/api/v4"),
        ("CI_PROJECT_PATH", "group/app"),
        ("CI_PIPELINE_ID", "7"),
        ("CI_PIPELINE_SOURCE", "schedule"),
        ("CI_PIPELINE_CREATED_AT", "2026-11-25T02:25:00Z"),
        ("CI_JOB_STARTED_AT", "2026-11-25T03:26:00+01:00"),
        ("CI_JOB_TIMEOUT", "3600"),
        ("CI_COMMIT_BRANCH", "main"),
        ("CI_COMMIT_REF_PROTECTED", "true"),
        ("CI_ENVIRONMENT_NAME", "production"),
        ("CI_JOB_URL", "https://git.example.org/group/app/-/jobs/98765"),
        ("CI_SERVER_TLS_CA_FILE", "/builds/app.tmp/CI_SERVER_TLS_CA_FILE"),
    ]);
    assert_eq!(config.gitlab_url.as_str(), "https://git.example.org/api/v4");
    let ca = config.gitlab_ca.expect("the runner's");
    assert!(!ca.named && ca.path.ends_with("CI_SERVER_TLS_CA_FILE"));
    let job = config.job;
    assert_eq!((job.id, job.project, job.pipeline), (Some(98765), Some(42), Some(7)));
    assert_eq!(job.project_path.as_deref(), Some("group/app"));
    assert_eq!(job.pipeline_source.as_deref(), Some("schedule"));
    assert_eq!(job.pipeline_created_at, "2026-11-25T02:25:00Z".parse().ok());
    assert_eq!(job.started_at, "2026-11-25T02:26:00Z".parse().ok());
    assert_eq!(job.timeout, Some(hours(1)));
    assert_eq!((job.branch.as_deref(), job.ref_protected), (Some("main"), Some(true)));
    assert_eq!(job.environment.as_deref(), Some("production"));
    assert_eq!(job.url.as_deref(), Some("https://git.example.org/group/app/-/jobs/98765"));
}

#[test]
fn predefined_variables_that_cannot_be_read_count_as_absent() {
    let mut vars = set(
        job(),
        &[
            ("ROTATOR_TARGETS", "project:7"),
            ("CI_PROJECT_ID", "forty-two"),
            ("CI_JOB_ID", "-1"),
            ("CI_JOB_TIMEOUT", "99999999999999999999"),
            ("CI_PIPELINE_CREATED_AT", "yesterday"),
            ("CI_COMMIT_REF_PROTECTED", "maybe"),
            ("CI_CI_JOB_ID", "1"),
            ("CI_job_id", "2"),
        ],
    );
    vars.insert("CI_COMMIT_BRANCH".to_owned(), OsString::from_vec(vec![0xff]));
    vars.insert("PATH".to_owned(), OsString::from_vec(vec![0xff]));
    let job = read(vars).expect("a configuration").job;
    assert_eq!((job.id, job.project, job.timeout), (None, None, None));
    assert_eq!((job.pipeline_created_at, job.ref_protected, job.branch), (None, None, None));
}

#[test]
fn a_role_and_the_region_find_each_other() {
    let config = read(role()).expect("a configuration");
    let CredentialSource::Roles { arns, id_token } = config.credential_source else {
        panic!("roles")
    };
    assert_eq!(
        (arns.as_slice(), id_token.expose_secret()),
        ([ROLE.to_owned()].as_slice(), ID_TOKEN)
    );

    for (partition, named, region) in [
        ("aws", None, "us-east-1"),
        ("aws", Some("eu-west-3"), "eu-west-3"),
        ("aws-cn", None, "cn-north-1"),
        ("aws-cn", Some("cn-northwest-1"), "cn-northwest-1"),
        ("aws-us-gov", None, "us-gov-west-1"),
        ("aws-us-gov", Some("us-gov-east-1"), "us-gov-east-1"),
        ("aws-eusc", None, "eusc-de-east-1"),
    ] {
        let arns = format!(
            "arn:{partition}:iam::123456789012:role/a, \
             arn:{partition}:iam::210987654321:role/x/y/b"
        );
        let vars =
            set(role(), &[("ROTATOR_AWS_ROLE_ARN", &arns), ("AWS_REGION", named.unwrap_or(""))]);
        let config = read(vars).expect("a configuration");
        assert_eq!(config.region, region);
        assert!(
            matches!(config.credential_source, CredentialSource::Roles { arns, .. } if arns.len() == 2)
        );
    }
    assert_eq!(
        good(&[("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "eu-west-2")]).region,
        "eu-west-1"
    );
}

#[test]
fn keys_of_the_environment_do_not_matter_with_a_role() {
    read(set(
        role(),
        &[("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"), ("AWS_SESSION_TOKEN", SESSION)],
    ))
    .expect("a configuration");
    read(set(role(), &[("AWS_SECRET_ACCESS_KEY", SECRET_KEY)])).expect("a configuration");
}

#[test]
fn a_whole_pair_in_the_environment_is_fine() {
    good(&[("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)]);
    good(&[
        ("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", SESSION),
    ]);
}

#[test]
fn plain_http_is_for_loopback_only() {
    for url in ["http://localhost:3000/api/v4", "http://127.0.0.2/api/v4", "http://[::1]:80/api/v4"]
    {
        good(&[("ROTATOR_GITLAB_API_URL", url)]);
    }
    for url in [
        "http://gitlab.example.com/api/v4",
        "http://10.0.0.1/api/v4",
        "http://[::2]/api/v4",
        "http://localhost.example.com/api/v4",
    ] {
        assert_eq!(
            bad(&[("ROTATOR_GITLAB_API_URL", url)]),
            "ROTATOR_GITLAB_API_URL: is plain http, which would send the token in the clear; use \
             https in ROTATOR_GITLAB_API_URL"
        );
    }
}

/// One bad value each, and all that is said about it.
#[test]
fn each_bad_value_is_named_with_what_would_be_right() {
    let duration =
        |value: &str| format!("{value:?} is not a duration; write it like 90d, 12h or 30s");
    let url = "write it like https://gitlab.example.com/api/v4";
    let target = "write it like project:42, project:group/name@production or group:name";
    let not_target = |value: &str| format!("{value:?} is not a target; {target}");
    let no_scope =
        |value: &str| format!("{value:?} has no valid environment scope after the @; {target}");
    let not_project = |value: &str| {
        format!("{value:?} is not a project; write its id or its full path, like 42 or group/name")
    };
    let user = |value: &str| {
        format!("{value:?} is not the name of an IAM user: 1 to 64 letters, digits and _+=,.@-")
    };
    let user_path = |value: &str| {
        format!("{value:?} is an ARN or a path; give just the name, the part after the last /")
    };
    let variable = |value: &str| {
        format!("{value:?} is not the name of a GitLab variable: 1 to 255 letters, digits and _")
    };
    let deploy = |value: &str| {
        format!(
            "{value:?} is not a way to deploy; use pipeline, pipeline@REF, environment/NAME or \
             none"
        )
    };
    let object = r#"write it like {"name": "value"}"#;
    let useless = |kind: &str| {
        format!(
            "is {kind}, which cannot write variables; use a project, group or service account \
             token with the scope api"
        )
    };
    let white = "contains white space or a line break; store the token alone, without any";
    let nothing = "names nothing between its commas";
    let long = "a".repeat(256);

    let cases: Vec<(&str, &str, String)> = vec![
        (
            "ROTATOR_ACTION",
            "rotat",
            r#""rotat" is not an action; use rotate, retire, setup or check"#.into(),
        ),
        (
            "ROTATOR_GITLAB_TOKEN",
            "",
            "is needed: a project, group or service account token with \
             the scope api and the role Maintainer"
                .into(),
        ),
        ("ROTATOR_GITLAB_TOKEN", "glpat-one two", white.into()),
        ("ROTATOR_GITLAB_TOKEN", "glpat-one\n", white.into()),
        (
            "ROTATOR_GITLAB_TOKEN",
            "glpat-ön",
            "contains a character that no token has; copy it \
             again"
                .into(),
        ),
        ("ROTATOR_GITLAB_TOKEN", "glcbt-64_abcdefghij", useless("a job token")),
        ("ROTATOR_GITLAB_TOKEN", "gldt-abcdefghij", useless("a deploy token")),
        ("ROTATOR_GITLAB_TOKEN", "glrt-abcdefghij", useless("a runner token")),
        ("ROTATOR_GITLAB_TOKEN", "glptt-abcdefghij", useless("a trigger token")),
        (
            "ROTATOR_GITLAB_API_URL",
            "gitlab.example.com/api/v4",
            format!(
                "is not a URL (relative \
             URL without a base); {url}"
            ),
        ),
        (
            "ROTATOR_GITLAB_API_URL",
            "ssh://gitlab.example.com/api/v4",
            format!("does not start with https://; {url}"),
        ),
        (
            "ROTATOR_GITLAB_API_URL",
            "https://me:pass@gitlab.example.com/api/v4",
            format!(
                "carries a user name or password; {url}, and give the token in \
                 ROTATOR_GITLAB_TOKEN"
            ),
        ),
        (
            "ROTATOR_GITLAB_API_URL",
            "https://gitlab.example.com/api/v4?x=1",
            format!("carries a query or fragment (? or #); {url}"),
        ),
        (
            "ROTATOR_GITLAB_API_URL",
            "https://gitlab.example.com/api/v4#x",
            format!("carries a query or fragment (? or #); {url}"),
        ),
        (
            "ROTATOR_GITLAB_API_URL",
            "https://gitlab.example.com:8443/git/",
            "is not the address of the API; write https://gitlab.example.com:8443/git/api/v4"
                .into(),
        ),
        (
            "CI_API_V4_URL",
            "http://gitlab.example.com/api/v4",
            "is plain http, which would send the token in the clear; use https in \
             ROTATOR_GITLAB_API_URL"
                .into(),
        ),
        (
            "ROTATOR_GITLAB_CA_FILE",
            "-----BEGIN CERTIFICATE-----\nMIIB",
            "holds a certificate, not the path of a file; make it a variable of type File".into(),
        ),
        (
            "ROTATOR_IAM_USER",
            "arn:aws:iam::123456789012:user/ci/deploy",
            user_path("arn:aws:iam::123456789012:user/ci/deploy"),
        ),
        ("ROTATOR_IAM_USER", "ci/deploy", user_path("ci/deploy")),
        ("ROTATOR_IAM_USER", "de ploy", user("de ploy")),
        ("ROTATOR_IAM_USER", "déploy", user("déploy")),
        ("ROTATOR_IAM_USER", &long, user(&long)),
        ("ROTATOR_TARGETS", ",", nothing.into()),
        ("ROTATOR_TARGETS", "42", not_target("42")),
        ("ROTATOR_TARGETS", "project:0", not_target("project:0")),
        ("ROTATOR_TARGETS", "project:+42", not_target("project:+42")),
        (
            "ROTATOR_TARGETS",
            "project:99999999999999999999",
            not_target("project:99999999999999999999"),
        ),
        ("ROTATOR_TARGETS", "project:app", not_target("project:app")),
        ("ROTATOR_TARGETS", "project:", not_target("project:")),
        ("ROTATOR_TARGETS", "project:group//app", not_target("project:group//app")),
        ("ROTATOR_TARGETS", "project:group/../app", not_target("project:group/../app")),
        ("ROTATOR_TARGETS", "project:group%2Fapp", not_target("project:group%2Fapp")),
        (
            "ROTATOR_TARGETS",
            "project:https://gitlab.com/a/b",
            not_target("project:https://gitlab.com/a/b"),
        ),
        ("ROTATOR_TARGETS", "group:-x", not_target("group:-x")),
        ("ROTATOR_TARGETS", "user:me", not_target("user:me")),
        ("ROTATOR_TARGETS", "project:42@", no_scope("project:42@")),
        ("ROTATOR_TARGETS", "project:42@a@b", no_scope("project:42@a@b")),
        ("ROTATOR_TARGETS", "project:42@prod\u{7}", no_scope("project:42@prod\u{7}")),
        ("ROTATOR_TARGETS", "project:42,project:42@*", r#""project:42@*" is named twice"#.into()),
        (
            "ROTATOR_TARGETS",
            "project:a/b@x,project:A/b@x",
            r#""project:A/b@x" is named twice"#.into(),
        ),
        (
            "ROTATOR_TARGETS",
            "project:42@credential-rotator",
            "\"project:42@credential-rotator\" is the scope where the records \
             of this program are kept; use another one"
                .into(),
        ),
        ("ROTATOR_KEY_ID_VARIABLE", "AWS-KEY", variable("AWS-KEY")),
        ("ROTATOR_SECRET_VARIABLE", &long, variable(&long)),
        (
            "ROTATOR_SECRET_VARIABLE",
            "CREDENTIAL_ROTATOR_X",
            "\"CREDENTIAL_ROTATOR_X\" is a name that this program keeps for \
             its records; use another one"
                .into(),
        ),
        ("ROTATOR_PROTECTED", "maybe", r#""maybe" is not one of auto, true and false"#.into()),
        ("ROTATOR_HIDDEN", "2", r#""2" is neither true nor false"#.into()),
        ("ROTATOR_FORCE", "now", r#""now" is neither true nor false"#.into()),
        ("ROTATOR_DRY_RUN", "y", r#""y" is neither true nor false"#.into()),
        ("ROTATOR_ROTATE_AFTER", "0s", r#""0s" is too short; it must be at least 1s"#.into()),
        ("ROTATOR_ROTATE_AFTER", "60", duration("60")),
        ("ROTATOR_MAX_AGE", "3654d", r#""3654d" is too long; it must be at most 10 years"#.into()),
        ("ROTATOR_MAX_AGE", "99999999999999999999d", duration("99999999999999999999d")),
        ("ROTATOR_OVERLAP", "12x", duration("12x")),
        ("ROTATOR_OVERLAP", "-12h", r#""-12h" is negative; write it like 90d, 12h or 30s"#.into()),
        (
            "ROTATOR_GRACE_PERIOD",
            "1mo",
            "\"1mo\" has months or years, which differ in length; write it in \
             days, like 90d"
                .into(),
        ),
        (
            "ROTATOR_GRACE_PERIOD",
            "1y",
            "\"1y\" has months or years, which differ in length; write it in \
             days, like 90d"
                .into(),
        ),
        ("ROTATOR_DEPLOY_TIMEOUT", "soon", duration("soon")),
        ("ROTATOR_VERIFY_TIMEOUT", "9s", r#""9s" is too short; it must be at least 10s"#.into()),
        ("ROTATOR_VERIFY_TIMEOUT", "31m", r#""31m" is too long; it must be at most 30m"#.into()),
        ("ROTATOR_HTTP_TIMEOUT", "0.5s", r#""0.5s" is too short; it must be at least 1s"#.into()),
        ("ROTATOR_HTTP_TIMEOUT", "1h", r#""1h" is too long; it must be at most 1m"#.into()),
        ("ROTATOR_DEPLOY", "Pipeline", deploy("Pipeline")),
        ("ROTATOR_DEPLOY", "pipeline@", deploy("pipeline@")),
        ("ROTATOR_DEPLOY", "pipeline@a b", deploy("pipeline@a b")),
        ("ROTATOR_DEPLOY", "environment/", deploy("environment/")),
        ("ROTATOR_DEPLOY_PROJECTS", "app", not_project("app")),
        ("ROTATOR_DEPLOY_PROJECTS", "7,7", r#""7" is named twice"#.into()),
        ("ROTATOR_DEPLOY_PROJECTS", ",", nothing.into()),
        ("ROTATOR_DEPLOY_INPUTS", "{a: 1}", format!("is not JSON (line 1, column 2); {object}")),
        ("ROTATOR_DEPLOY_INPUTS", "[1]", format!("is not a JSON object; {object}")),
        (
            "ROTATOR_DEPLOY_INPUTS",
            r#"{"a": {}}"#,
            r#"the input "a" must be a string, number, boolean or array"#.into(),
        ),
        (
            "ROTATOR_DEPLOY_INPUTS",
            r#"{"a": null}"#,
            r#"the input "a" must be a string, number, boolean or array"#.into(),
        ),
        ("ROTATOR_DEPLOY_VARIABLES", "\"x\"", format!("is not a JSON object; {object}")),
        (
            "ROTATOR_DEPLOY_VARIABLES",
            r#"{"A": 1}"#,
            "the value of A must be a string, in quotes".into(),
        ),
        (
            "ROTATOR_DEPLOY_VARIABLES",
            r#"{"a-b": "1"}"#,
            r#""a-b" is not the name of a variable: letters, digits and _"#.into(),
        ),
        ("ROTATOR_DEPLOY_JOBS", " , ", nothing.into()),
        (
            "ROTATOR_LOG",
            "loud",
            r#""loud" is not a log level; use error, warn, info, debug, trace or off"#.into(),
        ),
        (
            "AWS_REGION",
            "eu west",
            r#""eu west" is not a region; write it like eu-central-1"#.into(),
        ),
        (
            "AWS_DEFAULT_REGION",
            "Paris",
            r#""Paris" is not a region; write it like eu-central-1"#.into(),
        ),
        ("ROTATOR_OVERLAPP", "12h", "is not known; the nearest name is ROTATOR_OVERLAP".into()),
        ("ROTATOR_ROLE_ARN", ROLE, "is not known; the nearest name is ROTATOR_AWS_ROLE_ARN".into()),
        ("rotator_action", "check", "is not known; names are in capitals: ROTATOR_ACTION".into()),
        ("Rotator_Log", "info", "is not known; names are in capitals: ROTATOR_LOG".into()),
        ("ROTATOR_ROTATOR_LOG", "info", "is not known; the nearest name is ROTATOR_LOG".into()),
        ("ROTATOR_LO\u{212a}", "info", "is not known; the nearest name is ROTATOR_LOG".into()),
    ];
    for (variable, value, message) in &cases {
        assert_eq!(bad(&[(variable, value)]), format!("{variable}: {message}"), "for {value:?}");
    }
    let spoken_of: Vec<_> = cases.iter().map(|(variable, ..)| *variable).collect();
    let roles_and_paths = [
        "ROTATOR_AWS_ROLE_ARN",
        "ROTATOR_AWS_ID_TOKEN",
        "ROTATOR_REPORT",
        "ROTATOR_DOTENV",
        "ROTATOR_ANNOTATIONS",
    ];
    for row in VARIABLES {
        assert!(
            spoken_of.contains(&row.name) || roles_and_paths.contains(&row.name),
            "{} has no bad value here",
            row.name
        );
    }
}

#[test]
fn a_name_in_two_cases_is_an_error_about_the_wrong_one() {
    assert_eq!(
        bad(&[("ROTATOR_LOG", "info"), ("ROTATOR_Log", "debug")]),
        "ROTATOR_Log: is not known; names are in capitals: ROTATOR_LOG"
    );
}

#[test]
fn bad_roles_are_named_with_what_would_be_right() {
    let not_a_role = |arn: &str| {
        format!(
            "{arn:?} is not the ARN of a role; write it like arn:aws:iam::123456789012:role/NAME"
        )
    };
    let cases = [
        ("arn:aws:iam::12345:role/x", not_a_role("arn:aws:iam::12345:role/x")),
        ("arn:aws:iam::123456789012:user/x", not_a_role("arn:aws:iam::123456789012:user/x")),
        (
            "arn:aws:sts::123456789012:assumed-role/x/y",
            not_a_role("arn:aws:sts::123456789012:assumed-role/x/y"),
        ),
        (
            "arn:aws:iam:eu-west-1:123456789012:role/x",
            not_a_role("arn:aws:iam:eu-west-1:123456789012:role/x"),
        ),
        ("arn:moon:iam::123456789012:role/x", not_a_role("arn:moon:iam::123456789012:role/x")),
        ("arn:aws:iam::123456789012:role/", not_a_role("arn:aws:iam::123456789012:role/")),
        ("rotator", not_a_role("rotator")),
        (
            "arn:aws:iam::123456789012:role/x,arn:aws-cn:iam::123456789012:role/x",
            "names roles of several partitions; one cannot assume the other".to_owned(),
        ),
    ];
    for (arn, message) in cases {
        let errors = read(set(role(), &[("ROTATOR_AWS_ROLE_ARN", arn)])).expect_err("an error");
        assert_eq!(errors.to_string(), format!("ROTATOR_AWS_ROLE_ARN: {message}"));
    }
    let errors = read(set(role(), &[("ROTATOR_AWS_ID_TOKEN", "eyJ a")])).expect_err("an error");
    assert_eq!(
        errors.to_string(),
        "ROTATOR_AWS_ID_TOKEN: contains white space or a line break; store the token alone, \
         without any"
    );
}

#[test]
fn an_id_token_without_a_role_means_nothing_for_the_components_give_it_to_every_job() {
    let config = good(&[("ROTATOR_AWS_ID_TOKEN", ID_TOKEN)]);
    assert!(matches!(config.credential_source, CredentialSource::Environment { .. }));
}

#[test]
fn what_does_not_go_together_is_said() {
    let user_needed = "ROTATOR_IAM_USER: is needed with ROTATOR_AWS_ROLE_ARN: a role has no key of \
         its own, so name the user whose key is rotated";
    let token_needed = "ROTATOR_AWS_ID_TOKEN: is needed with ROTATOR_AWS_ROLE_ARN; declare it \
         under `id_tokens:` of the job (the input id_token_aud of the component, which must not be \
         empty then)";
    let reason = "is it protected, or scoped to an environment that this job does not name?";
    let after = "ROTATOR_ROTATE_AFTER: must be longer than ROTATOR_OVERLAP and \
         ROTATOR_GRACE_PERIOD together: \
                 the old key has to be gone before the next rotation is due";
    let sent = |variable: &str| {
        format!(
            "{variable}: can only be sent with a new pipeline; leave it unset, or set \
             ROTATOR_DEPLOY to pipeline"
        )
    };
    let outrank = |name: &str| {
        format!(
            "ROTATOR_DEPLOY_VARIABLES: {name} would outrank the rotated one in the deploy; leave \
             it out"
        )
    };
    let jobs_needed = "ROTATOR_DEPLOY_JOBS: is needed with ROTATOR_ACTION=retire: name the jobs of \
         this pipeline that prove the deploy";
    let partition = |from: &str, variable: &str, region: &str, fits: &str| {
        format!(
            "ROTATOR_AWS_ROLE_ARN: is in the partition {from}, but {variable} is {region:?}, which \
             is in {fits}"
        )
    };
    let with_role = |variable, region| {
        vec![
            ("ROTATOR_AWS_ROLE_ARN", ROLE),
            ("ROTATOR_AWS_ID_TOKEN", ID_TOKEN),
            ("ROTATOR_IAM_USER", "x"),
            (variable, region),
        ]
    };
    let chinese = "arn:aws-cn:iam::123456789012:role/x";

    let cases: Vec<(Vec<(&str, &str)>, String)> = vec![
        (
            vec![("ROTATOR_AWS_ROLE_ARN", ROLE), ("ROTATOR_AWS_ID_TOKEN", ID_TOKEN)],
            user_needed.into(),
        ),
        (vec![("ROTATOR_AWS_ROLE_ARN", ROLE), ("ROTATOR_IAM_USER", "x")], token_needed.into()),
        (vec![("ROTATOR_AWS_ROLE_ARN", ROLE)], format!("{user_needed}\n{token_needed}")),
        (
            with_role("AWS_REGION", "cn-north-1"),
            partition("aws", "AWS_REGION", "cn-north-1", "aws-cn"),
        ),
        (
            with_role("AWS_DEFAULT_REGION", "us-gov-west-1"),
            partition("aws", "AWS_DEFAULT_REGION", "us-gov-west-1", "aws-us-gov"),
        ),
        (
            with_role("AWS_REGION", "eusc-de-east-1"),
            partition("aws", "AWS_REGION", "eusc-de-east-1", "aws-eusc"),
        ),
        (
            [with_role("AWS_REGION", "eu-west-1"), vec![("ROTATOR_AWS_ROLE_ARN", chinese)]]
                .concat(),
            partition("aws-cn", "AWS_REGION", "eu-west-1", "aws"),
        ),
        (
            vec![("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")],
            format!("AWS_SECRET_ACCESS_KEY: is missing, though AWS_ACCESS_KEY_ID is set; {reason}"),
        ),
        (
            vec![("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("AWS_ACCESS_KEY_ID", "")],
            format!("AWS_ACCESS_KEY_ID: is missing, though AWS_SECRET_ACCESS_KEY is set; {reason}"),
        ),
        (
            vec![
                ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
                ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
                ("AWS_SESSION_TOKEN", SESSION),
            ],
            "AWS_SESSION_TOKEN: is set beside a long-lived key (AKIA…), which has none, so AWS \
             would refuse the pair; remove this leftover"
                .into(),
        ),
        (
            vec![("CI_PROJECT_ID", "")],
            "ROTATOR_TARGETS: is needed where CI_PROJECT_ID is not set; write it like project:42 \
             or project:group/name"
                .into(),
        ),
        (
            vec![("ROTATOR_SECRET_VARIABLE", "AWS_ACCESS_KEY_ID")],
            "ROTATOR_SECRET_VARIABLE: is the same as ROTATOR_KEY_ID_VARIABLE; the pair needs two \
             variables"
                .into(),
        ),
        (vec![("ROTATOR_ROTATE_AFTER", "7d12h")], after.into()),
        (
            vec![
                ("ROTATOR_ROTATE_AFTER", "1s"),
                ("ROTATOR_OVERLAP", "0s"),
                ("ROTATOR_GRACE_PERIOD", "1s"),
            ],
            after.into(),
        ),
        (
            vec![("ROTATOR_MAX_AGE", "59d")],
            "ROTATOR_MAX_AGE: must be at least ROTATOR_ROTATE_AFTER, else `check` fails before a \
             rotation is due"
                .into(),
        ),
        (
            vec![("ROTATOR_ACTION", "check"), ("ROTATOR_ROTATE_AFTER", "91d")],
            "ROTATOR_MAX_AGE: must be at least ROTATOR_ROTATE_AFTER, else `check` fails before a \
             rotation is due"
                .into(),
        ),
        (
            vec![("ROTATOR_DEPLOY", "none"), ("ROTATOR_DEPLOY_JOBS", "deploy")],
            "ROTATOR_DEPLOY_JOBS: has no use with ROTATOR_DEPLOY=none, except with \
             ROTATOR_ACTION=retire; leave it unset"
                .into(),
        ),
        (
            vec![("ROTATOR_DEPLOY", "none"), ("ROTATOR_DEPLOY_PROJECTS", "7")],
            "ROTATOR_DEPLOY_PROJECTS: has no use with ROTATOR_DEPLOY=none; leave it unset".into(),
        ),
        (
            vec![("ROTATOR_TARGETS", "group:7,group:8")],
            "ROTATOR_DEPLOY_PROJECTS: is needed, as every target is a group: name the projects to \
             deploy, or set ROTATOR_DEPLOY to none"
                .into(),
        ),
        (
            vec![("ROTATOR_DEPLOY", "environment/x"), ("ROTATOR_DEPLOY_INPUTS", "{}")],
            sent("ROTATOR_DEPLOY_INPUTS"),
        ),
        (
            vec![("ROTATOR_DEPLOY", "none"), ("ROTATOR_DEPLOY_VARIABLES", "{}")],
            sent("ROTATOR_DEPLOY_VARIABLES"),
        ),
        (
            vec![("ROTATOR_DEPLOY_VARIABLES", r#"{"AWS_ACCESS_KEY_ID": "x"}"#)],
            outrank("AWS_ACCESS_KEY_ID"),
        ),
        (
            vec![("ROTATOR_SECRET_VARIABLE", "S"), ("ROTATOR_DEPLOY_VARIABLES", r#"{"S": "x"}"#)],
            outrank("S"),
        ),
        (
            vec![("ROTATOR_ACTION", "retire"), ("ROTATOR_DEPLOY_JOBS", "deploy")],
            "ROTATOR_DEPLOY: must be none with ROTATOR_ACTION=retire: there the pipeline itself \
             deploys"
                .into(),
        ),
        (vec![("ROTATOR_ACTION", "retire"), ("ROTATOR_DEPLOY", "none")], jobs_needed.into()),
        (
            vec![("ROTATOR_REPORT", "x"), ("ROTATOR_DOTENV", " x")],
            "ROTATOR_DOTENV: is the same \
             file as ROTATOR_REPORT; give each its own"
                .into(),
        ),
        (
            vec![("ROTATOR_DOTENV", "x"), ("ROTATOR_ANNOTATIONS", "x")],
            "ROTATOR_ANNOTATIONS: is the same file as ROTATOR_REPORT or ROTATOR_DOTENV; give each \
             its own"
                .into(),
        ),
        (
            vec![("CI_JOB_TOKEN", TOKEN)],
            "ROTATOR_GITLAB_TOKEN: is a job token, which cannot write variables; use a project, \
             group or service account token with the scope api"
                .into(),
        ),
    ];
    for (vars, errors) in cases {
        assert_eq!(bad(&vars), errors, "for {vars:?}");
    }
}

#[test]
fn a_cross_check_keeps_quiet_about_what_did_not_parse() {
    assert_eq!(
        bad(&[("ROTATOR_ROTATE_AFTER", "x"), ("ROTATOR_OVERLAP", "99d")]).lines().count(),
        1
    );
    assert_eq!(bad(&[("ROTATOR_TARGETS", "x")]).lines().count(), 1);
    assert_eq!(bad(&[("ROTATOR_DEPLOY", "x"), ("ROTATOR_TARGETS", "group:7")]).lines().count(), 1);
}

#[test]
fn groups_alone_need_no_deploy_project_where_nothing_is_deployed() {
    let config = good(&[("ROTATOR_TARGETS", "group:7"), ("ROTATOR_DEPLOY", "none")]);
    assert_eq!(config.deploy.projects, []);
    let config = good(&[("ROTATOR_TARGETS", "group:7"), ("ROTATOR_DEPLOY_PROJECTS", "9")]);
    assert_eq!(config.deploy.projects, [Name::Id(9)]);
}

/// What a component passes in any case must never be a mistake.
#[test]
fn the_default_of_what_has_no_effect_is_no_mistake() {
    let late = good(&[("ROTATOR_ROTATE_AFTER", "1000d"), ("ROTATOR_MAX_AGE", "90d")]);
    assert_eq!(
        late.rotate_after,
        SignedDuration::from_hours(24_000),
        "only `check` reads the other one"
    );
    for action in ["rotate", "setup", "check"] {
        for deploy in ["pipeline", "environment/production", "none"] {
            let given = [
                ("ROTATOR_ACTION", action),
                ("ROTATOR_DEPLOY", deploy),
                ("ROTATOR_DEPLOY_PROJECTS", ""),
                ("ROTATOR_DEPLOY_INPUTS", ""),
                ("ROTATOR_DEPLOY_VARIABLES", ""),
                ("ROTATOR_DEPLOY_JOBS", ""),
                ("ROTATOR_DEPLOY_TIMEOUT", "1h"),
                ("ROTATOR_HIDDEN", "false"),
                ("ROTATOR_PROTECTED", "auto"),
            ];
            good(&given);
        }
    }
}

#[test]
fn what_has_no_effect_in_a_mode_is_a_mistake() {
    let settings = [
        ("ROTATOR_DEPLOY_PROJECTS", "acme/shop"),
        ("ROTATOR_DEPLOY_INPUTS", r#"{"a": 1}"#),
        ("ROTATOR_DEPLOY_VARIABLES", r#"{"A": "1"}"#),
        ("ROTATOR_DEPLOY_JOBS", "deploy"),
    ];
    let of_modes = [
        ("pipeline", [true; 4]),
        ("environment/production", [true, false, false, true]),
        ("none", [false; 4]),
    ];
    for action in ["rotate", "setup", "check"] {
        for (mode, effects) in of_modes {
            for (setting, has_effect) in settings.into_iter().zip(effects) {
                let given = [("ROTATOR_ACTION", action), ("ROTATOR_DEPLOY", mode), setting];
                if has_effect {
                    good(&given);
                } else {
                    let told = bad(&given);
                    assert_eq!(told.lines().count(), 1, "{told}");
                    assert!(told.starts_with(setting.0), "{action}, {mode}: {told}");
                }
            }
        }
    }
}

#[test]
fn retire_by_hand_needs_no_list_of_jobs() {
    let retire = [("ROTATOR_ACTION", "retire"), ("ROTATOR_DEPLOY", "none")];
    assert_eq!(
        good(&[retire.as_slice(), &[("CI_PIPELINE_SOURCE", "web")]].concat()).action,
        Action::Retire
    );
    good(&[retire.as_slice(), &[("CI_JOB_ID", "")]].concat());
    good(&[retire.as_slice(), &[("ROTATOR_DEPLOY_JOBS", "deploy")]].concat());
}

#[test]
fn values_that_are_not_text_are_reported_by_name() {
    let garbled = OsString::from_vec(vec![b'a', 0xff]);
    for variable in VARIABLES.iter().map(|row| row.name).chain([
        "AWS_SECRET_ACCESS_KEY",
        "AWS_REGION",
        "CI_API_V4_URL",
    ]) {
        let mut vars = role();
        vars.insert(variable.to_owned(), garbled.clone());
        let errors = read(vars).expect_err("an error");
        let message = "is not valid UTF-8; set it again as plain text".to_owned();
        assert!(
            errors.0.contains(&ConfigError { variable: variable.to_owned(), message }),
            "{errors}"
        );
    }
    let name = OsString::from_vec(b"ROTATOR_LO\xff".to_vec());
    let vars =
        job().into_iter().map(|(name, value)| (name.into(), value)).chain([(name, "info".into())]);
    let errors = Config::from_env(vars).expect_err("an error").to_string();
    assert_eq!(errors, "ROTATOR_LO\u{fffd}: is not known; the nearest name is ROTATOR_LOG");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let wrong: Vec<_> = VARIABLES
        .iter()
        .map(|row| (row.name, if row.name.ends_with("TOKEN") { "a b" } else { "/%!" }))
        .chain([("ROTATOR_NONSENSE", "1"), ("AWS_REGION", "x y")])
        .collect();
    let errors = read(set(BTreeMap::new(), &wrong)).expect_err("errors");
    // Any text can name a job or a file. The two other files are rejected as the same file.
    let never = ["ROTATOR_REPORT", "ROTATOR_DEPLOY_JOBS", "ROTATOR_GITLAB_CA_FILE"];
    for (variable, _) in wrong.iter().filter(|(name, _)| !never.contains(name)) {
        assert_eq!(
            errors.0.iter().filter(|error| error.variable == *variable).count(),
            1,
            "{variable}: {errors}"
        );
    }
    assert_eq!(errors.0.len(), wrong.len() - never.len(), "{errors}");
}

#[test]
fn an_environment_without_anything_says_what_is_needed() {
    let errors = read(BTreeMap::new()).expect_err("errors").to_string();
    let variables: Vec<_> = errors.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(variables, ["ROTATOR_GITLAB_TOKEN", "ROTATOR_TARGETS"]);
}

#[test]
fn debug_and_errors_never_show_a_secret() {
    let deploy = format!(r#"{{"PASSWORD": "{DEPLOY_VALUE}"}}"#);
    let secrets = [TOKEN, ID_TOKEN, SECRET_KEY, SESSION, DEPLOY_VALUE];
    let vars = set(
        role(),
        &[
            ("ROTATOR_DEPLOY_VARIABLES", &deploy),
            ("ROTATOR_DEPLOY_INPUTS", &deploy),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_SESSION_TOKEN", SESSION),
        ],
    );
    let shown = format!("{:?}", read(vars.clone()).expect("a configuration"));
    assert!(
        shown.contains("PASSWORD") && secrets.iter().all(|secret| !shown.contains(secret)),
        "{shown}"
    );

    // Each secret, pasted into every other field and used as a name.
    for secret in secrets {
        for row in VARIABLES
            .iter()
            .filter(|row| !row.name.ends_with("TOKEN") && row.name != "ROTATOR_DEPLOY_VARIABLES")
        {
            if let Err(errors) = read(set(vars.clone(), &[(row.name, secret)])) {
                assert!(!errors.to_string().contains(secret), "{errors}");
            }
        }
        let name = format!("ROTATOR_{secret}");
        assert!(
            !read(set(vars.clone(), &[(&name, "x")]))
                .expect_err("unknown")
                .to_string()
                .contains(secret)
        );
    }
    for wrong in [
        format!("{{\"A\": \"{DEPLOY_VALUE}\", \"B\": 1}}"),
        format!("\"{DEPLOY_VALUE}\""),
        DEPLOY_VALUE.to_owned(),
    ] {
        let errors = bad(&[("ROTATOR_DEPLOY_VARIABLES", &wrong)]);
        assert!(!errors.contains(DEPLOY_VALUE), "{errors}");
    }
    for wrong in
        [format!("{TOKEN} x"), format!("{TOKEN}\n"), format!("glcbt-{TOKEN}"), format!("{TOKEN}ä")]
    {
        let errors = bad(&[("ROTATOR_GITLAB_TOKEN", &wrong)]);
        assert!(!errors.contains(TOKEN), "{errors}");
    }
}

#[test]
fn the_help_and_the_markdown_table_have_every_row() {
    let (help, table) = (Config::help(), table_markdown());
    assert_eq!(table.lines().count(), VARIABLES.len() + 2);
    for row in VARIABLES {
        assert!(help.contains(&format!("\n  {} [{}]\n", row.name, row.default)), "{help}");
        assert!(table.contains(&format!("| `{}` | ", row.name)), "{table}");
        assert!(!row.meaning.is_empty() && !row.meaning.contains('|'), "{}", row.name);
    }
    assert!(table.contains("| `ROTATOR_OVERLAP` | `12h` | "));
    assert!(table.contains("| `ROTATOR_GITLAB_TOKEN` | required | "));
    assert!(!help.contains('`'));
}

/// Values that people and machines get wrong, with secrets among them.
fn value() -> impl Strategy<Value = OsString> {
    let pasted = prop::sample::select(vec![TOKEN, ID_TOKEN, SECRET_KEY, SESSION, DEPLOY_VALUE]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..24).prop_map(OsString::from_vec),
        any::<String>().prop_map(OsString::from),
        "[-+]?[0-9]{1,25}(y|mo|w|d|h|m|s|ns)?( ago)?".prop_map(OsString::from),
        "(project|group|pipeline|environment)?[:/@,]?[a-z0-9/.@*-]{0,12}".prop_map(OsString::from),
        "https?://[a-z0-9.:@\\[\\]/?#%-]{0,20}".prop_map(OsString::from),
        "\\{\"[A-Z]\": ?[\"0-9a-z{}\\[\\]]{0,6}\\}".prop_map(OsString::from),
        ("[ -~]{0,4}", pasted, "[ -~\n]{0,4}")
            .prop_map(|(before, secret, after)| format!("{before}{secret}{after}").into()),
    ]
}

fn name() -> impl Strategy<Value = OsString> {
    let known: Vec<_> = VARIABLES.iter().map(|row| row.name).collect();
    let theirs = vec![
        "CI_API_V4_URL",
        "CI_PROJECT_ID",
        "CI_JOB_TIMEOUT",
        "CI_JOB_STARTED_AT",
        "CI_COMMIT_BRANCH",
        "AWS_REGION",
        "AWS_ACCESS_KEY_ID",
    ];
    prop_oneof![
        6 => prop::sample::select(known).prop_map(OsString::from),
        2 => prop::sample::select(theirs).prop_map(OsString::from),
        1 => "(ROTATOR_|rotator_|CI_|AWS_){1,2}[A-Za-z_\u{212a}\u{130}]{0,8}"
            .prop_map(OsString::from),
        1 => prop::collection::vec(any::<u8>(), 0..12).prop_map(OsString::from_vec),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2048,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_environment_makes_it_panic_or_show_a_secret(
        wild in prop::collection::vec((name(), value()), 0..12),
    ) {
        let deploy = format!(r#"{{"PASSWORD": "{DEPLOY_VALUE}"}}"#);
        let secrets = [
            ("ROTATOR_GITLAB_TOKEN", TOKEN),
            ("ROTATOR_AWS_ID_TOKEN", ID_TOKEN),
            ("ROTATOR_DEPLOY_VARIABLES", &deploy),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_SESSION_TOKEN", SESSION),
        ];
        // Of two equal names the first counts, so the secrets are in their own variables whatever
        // the generated names are.
        let vars = secrets
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .into_iter()
            .chain(wild);
        let shown = match Config::from_env(vars) {
            // `Debug` may show a value of a variable that holds no secret, but none of the secrets.
            Ok(config) => format!(
                "{:?} {:?} {:?}",
                config.gitlab_token,
                config.credential_source,
                config.deploy.variables.is_empty()
            ),
            Err(errors) => errors.to_string(),
        };
        for secret in [TOKEN, ID_TOKEN, SECRET_KEY, SESSION, DEPLOY_VALUE] {
            prop_assert!(!shown.contains(secret), "{}", shown);
        }
    }
}
