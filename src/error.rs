//! What can go wrong and is recognised: one enum, made at the edges where the situation is seen.
//!
//! Each error knows what failed, what to do about it and the exit code; what works now is read
//! off the last look. No text of a reply, no secret and no full key id enters one, except in a
//! command that a person is to copy.

use std::fmt;

use jiff::Timestamp;

use crate::access_key::{AccessKeyId, Key, Use};
use crate::config::ConfigErrors;
use crate::fence::Fenced;
use crate::gitlab::{ApiError, ApiErrorKind};
use crate::net::ConnectError;
use crate::plan::{Observed, Refusal};

/// Exit codes, as the README lists them.
pub mod exit {
    pub const OK: u8 = 0;
    pub const FAILED: u8 = 1;
    pub const CONFIGURATION: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const DEPLOY: u8 = 4;
    pub const BUSY: u8 = 5;
    pub const SIGNAL: u8 = 128;
}

#[derive(Debug)]
pub enum Error {
    Configuration(ConfigErrors),
    CaFile {
        path: String,
    },
    ReportFile {
        path: String,
        variable: &'static str,
    },
    NoRoots,
    /// GitLab said no, or could not be asked. `what` is what we were doing.
    GitLab {
        what: String,
        host: String,
        error: ApiError,
    },
    EchoDiffers {
        what: String,
        field: &'static str,
    },
    /// A group's variable was made, or would have been, for every environment.
    NoGroupScopes {
        target: String,
    },
    UnreadableRecord {
        name: String,
    },
    ClaimLost(Fenced),
    AwsUnreachable {
        what: &'static str,
        host: String,
        connect_error: ConnectError,
    },
    NoAwsCredentials {
        advice: CredentialAdvice,
    },
    ProfileMissing,
    /// The pair that signs is refused.
    KeyRefused {
        what: &'static str,
        key: Option<AccessKeyId>,
        wrong_secret: bool,
        session: bool,
    },
    IamDenied {
        action: &'static str,
        user: Option<String>,
        explicit: bool,
        session: bool,
    },
    UserNotFound {
        user: String,
    },
    NoUser {
        root: bool,
    },
    AnotherPrincipal {
        user: String,
        arn: String,
    },
    RoleRefused {
        role: String,
        why: RoleRefusal,
    },
    IdTokenEnded,
    Throttled {
        what: &'static str,
    },
    KeyLimit {
        user: String,
    },
    Aws {
        what: &'static str,
        code: String,
    },
    ClockWrong {
        seconds: i64,
    },
    NotVerifiable {
        key: AccessKeyId,
        seconds: u64,
    },
    CreateUnclear,
    CreatedOrphan,
    NoTimeLeft {
        needed: i64,
        left: i64,
    },
    Stopped {
        signal: i32,
    },
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialAdvice {
    /// The variables exist, protected, and the ref is not.
    Protected,
    /// The variables exist, in an environment scope that this job is not in.
    Scoped,
    /// The variables exist and should have reached this job.
    Exists,
    NoVariables,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleRefusal {
    Denied,
    TokenInvalid,
    NoProvider,
}

/// The three lines of an error, and the exit code.
pub struct Lines {
    pub error: String,
    pub hint: String,
    pub exit: u8,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Error {
    pub fn exit(&self) -> u8 {
        self.lines().exit
    }

    /// Whether GitLab or IAM surely refused: the effect did not happen.
    pub fn is_definite(&self) -> bool {
        match self {
            // Whoever answers so in GitLab's place may have passed the request on.
            Self::GitLab { error: ApiError::Denied { status: 300..=399, .. }, .. } => false,
            Self::GitLab { error, .. } => !error.is_ambiguous(),
            Self::EchoDiffers { .. } | Self::ClaimLost(_) => false,
            _ => true,
        }
    }

    pub fn lines(&self) -> Lines {
        let lines =
            |exit: u8, error: String, hint: &str| Lines { error, hint: hint.to_owned(), exit };
        match self {
            Self::Configuration(errors) => lines(
                exit::CONFIGURATION,
                format!("the configuration has mistakes\n{errors}"),
                "fix the variables named above; `credential-rotator --help` lists them all",
            ),
            Self::CaFile { path } => lines(
                exit::CONFIGURATION,
                format!("the CA file {path} cannot be read or holds no usable certificate"),
                "ROTATOR_GITLAB_CA_FILE must name a readable file with PEM certificates",
            ),
            Self::ReportFile { path, variable } => lines(
                exit::CONFIGURATION,
                format!("the file {path} cannot be written"),
                &format!(
                    "{variable} must name a file in a directory that exists and that this \
                     user may write"
                ),
            ),
            Self::NoRoots => lines(
                exit::REFUSED,
                "no root certificates were found, so no HTTPS connection can be checked".to_owned(),
                "use the project's image, or install a CA bundle in this one (or name it in \
                 SSL_CERT_FILE)",
            ),
            Self::GitLab { what, host, error } => gitlab_lines(what, host, error),
            Self::EchoDiffers { what, field } => lines(
                exit::REFUSED,
                format!("{what}: GitLab stored another {field} than was sent"),
                "look at the variable in the project's CI/CD settings: another tool may write it \
                 at the same time; then run again",
            ),
            Self::NoGroupScopes { target } => lines(
                exit::REFUSED,
                format!(
                    "this GitLab keeps the variables of groups for every environment, so there \
                     can be no {target}"
                ),
                "scopes of group variables need Premium: leave the scope out of ROTATOR_TARGETS, \
                 or publish in the projects",
            ),
            Self::UnreadableRecord { name } => lines(
                exit::REFUSED,
                format!(
                    "the variable {name} (scope {}) is not a record that this version \
                     understands",
                    crate::record::SCOPE
                ),
                "run the version that wrote it, or, if no rotation is under way, delete that \
                 variable",
            ),
            Self::ClaimLost(why) => fenced_lines(*why),
            Self::AwsUnreachable { what, host, connect_error } => {
                let (exit, hint) = connect_error_hint(
                    *connect_error,
                    "AWS_ENDPOINT_URL* and AWS_REGION",
                    "SSL_CERT_FILE",
                );
                lines(exit, format!("{what}: {host} {}", connect_error_text(*connect_error)), &hint)
            }
            Self::NoAwsCredentials { advice } => lines(
                exit::REFUSED,
                "this job has no AWS credentials".to_owned(),
                match advice {
                    CredentialAdvice::Protected => {
                        "the project's variables are protected and this ref is not: run the \
                         schedule on a protected branch, or protect this one"
                    }
                    CredentialAdvice::Scoped => {
                        "the project's variables are scoped to an environment: give the job \
                         `environment: {name: …, action: access}` (input `environment`)"
                    }
                    CredentialAdvice::Exists => {
                        "the variables exist but did not reach this job: look for an empty \
                         variable of the same name in the pipeline, schedule or job"
                    }
                    CredentialAdvice::NoVariables => {
                        "set ROTATOR_AWS_ROLE_ARN and ROTATOR_AWS_ID_TOKEN (input `aws_role_arn`); \
                         a key can rotate itself only once its own variables are there"
                    }
                },
            ),
            Self::ProfileMissing => lines(
                exit::REFUSED,
                "AWS_PROFILE names a profile that does not exist here".to_owned(),
                "remove AWS_PROFILE from the job's variables: a pipeline job has no AWS \
                 configuration file",
            ),
            Self::KeyRefused { what, key: Some(key), session: true, .. }
                if key.is_of_a_session() =>
            {
                lines(
                    exit::REFUSED,
                    format!(
                        "{what}: AWS does not accept the temporary credentials {key} (their time is \
                     over, or they are of GetSessionToken, which IAM refuses)"
                    ),
                    "temporary credentials cannot rotate a key: store the user's own key in the \
                 variables, without AWS_SESSION_TOKEN, or use a role (ROTATOR_AWS_ROLE_ARN)",
                )
            }
            Self::KeyRefused { what, key, wrong_secret, session } => {
                let key = key.as_ref().map_or_else(
                    || "the credentials in use".to_owned(),
                    |key| format!("key {key}"),
                );
                let error = match wrong_secret {
                    true => format!("{what}: AWS knows {key}, but the secret is not its own"),
                    false => format!(
                        "{what}: AWS does not accept {key} (deleted, disabled, or of \
                         another partition)"
                    ),
                };
                let hint = match (session, wrong_secret) {
                    (true, _) => {
                        "AWS_SESSION_TOKEN stands beside the pair: remove that variable \
                         if it is a leftover"
                    }
                    (false, true) => {
                        "if the job started before the last rotation, retry it: it gets today's \
                         variables; else a person must store a matching pair"
                    }
                    (false, false) => {
                        "if the job started before the last rotation, retry it: it gets today's \
                         variables; else enable the key, or store one that works, or use a \
                         role"
                    }
                };
                lines(exit::REFUSED, error, hint)
            }
            Self::IamDenied { action, user, explicit, session } => {
                iam_denied(action, user.as_deref(), *explicit, *session)
            }
            Self::UserNotFound { user } => lines(
                exit::REFUSED,
                format!("the IAM user {user} does not exist in this account"),
                "ROTATOR_IAM_USER must be the name alone (no path, no ARN) of a user in the \
                 account of the credentials in use",
            ),
            Self::NoUser { root: true } => lines(
                exit::REFUSED,
                "the credentials in use are the root user's, whose keys are not rotated here"
                    .to_owned(),
                "delete the root user's access keys; create an IAM user or a role for this job",
            ),
            Self::NoUser { root: false } => lines(
                exit::REFUSED,
                "the credentials in use are a role's, so they do not say whose key is meant"
                    .to_owned(),
                "set ROTATOR_IAM_USER to the name of the user whose key is rotated",
            ),
            Self::AnotherPrincipal { user, arn } => lines(
                exit::REFUSED,
                format!("the key belongs to {arn}, not to the user {user}"),
                "check ROTATOR_IAM_USER and the account of the credentials in use",
            ),
            Self::RoleRefused { role, why } => lines(
                exit::REFUSED,
                format!("the role {role} cannot be assumed"),
                match why {
                    RoleRefusal::Denied => {
                        "the role's trust policy must allow this project and ref (condition on \
                         `sub`) and the token's `aud`; a chained role must allow the role before \
                         it"
                    }
                    RoleRefusal::TokenInvalid => {
                        "the ID token is not accepted: check `aud` of \
                         `id_tokens:` and the provider's audience"
                    }
                    RoleRefusal::NoProvider => {
                        "the account has no OIDC provider for this GitLab: \
                         create one for the issuer's URL"
                    }
                },
            ),
            Self::IdTokenEnded => lines(
                exit::FAILED,
                "the job's ID token has expired, and with it the role's session".to_owned(),
                "nothing to do: the next run has a new token and takes up where this one ended; \
                 where every run ends so, ROTATOR_AWS_ID_TOKEN is not the one of the job's \
                 `id_tokens:`",
            ),
            Self::Throttled { what } => lines(
                exit::FAILED,
                format!("{what}: AWS throttles this account's calls"),
                "run again; spread the schedules of many projects over the day",
            ),
            Self::KeyLimit { user } => lines(
                exit::REFUSED,
                format!("AWS says that the user {user} already has as many access keys as it may"),
                &format!(
                    "`aws iam list-access-keys --user-name {user}` shows them; delete the one \
                     that nothing uses"
                ),
            ),
            Self::Aws { what, code } => lines(
                exit::FAILED,
                format!("{what}: AWS answered {code}"),
                "run again; if it stays, look the code up in the documentation of IAM and STS",
            ),
            Self::ClockWrong { seconds } => lines(
                exit::FAILED,
                format!(
                    "the runner's clock is {} seconds {} the servers', so AWS rejects its \
                     signatures",
                    seconds.unsigned_abs(),
                    if *seconds < 0 { "behind" } else { "ahead of" }
                ),
                "fix the time synchronisation of the runner's host, then run again",
            ),
            Self::NotVerifiable { key, seconds } => lines(
                exit::FAILED,
                format!(
                    "new key {key} did not work within {seconds} seconds, so it was not \
                     published"
                ),
                "run again; where it stays so, set AWS_REGION to a region whose STS endpoint is \
                 enabled in the account",
            ),
            Self::CreateUnclear => lines(
                exit::FAILED,
                "the reply to CreateAccessKey was lost, and no new key is to be seen".to_owned(),
                "run again in a few minutes: should the key appear, that run removes it, for its \
                 secret is lost",
            ),
            Self::CreatedOrphan => lines(
                exit::FAILED,
                "the reply to CreateAccessKey was lost; the key that it made is removed, by this \
                 run or the next, for its secret is lost"
                    .to_owned(),
                "run again",
            ),
            Self::NoTimeLeft { needed, left } => lines(
                exit::FAILED,
                format!(
                    "the job ends in {left} seconds; a rotation needs {needed}, so none was \
                     begun"
                ),
                "raise the job's `timeout:` (or the runner's maximum), then run again",
            ),
            Self::Stopped { signal } => lines(
                exit::SIGNAL + u8::try_from(*signal).unwrap_or_default(),
                "the run was stopped by a signal".to_owned(),
                "run again: it goes on from here",
            ),
            Self::Refused(refusal) => refusal_lines(refusal),
        }
    }

    /// Which keys work now, and whether production is affected.
    pub fn state(&self, seen: Option<&Observed>) -> String {
        match (self, seen) {
            (Self::KeyRefused { key: Some(key), session: false, .. }, None) => {
                format!(
                    "nothing was changed; key {key} does not work, so where the variables still \
                     name it PRODUCTION IS AFFECTED"
                )
            }
            (Self::CreateUnclear, Some(seen)) => seen
                .state()
                .replace("no new key was made", "whether a new key was made is not known"),
            (Self::Configuration(_), _) | (_, None) => {
                "nothing was changed; keys and variables are as they were before this run"
                    .to_owned()
            }
            (_, Some(seen)) => seen.state(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().error)
    }
}

fn connect_error_text(connect_error: ConnectError) -> &'static str {
    match connect_error {
        ConnectError::Name => "is a name that cannot be resolved",
        ConnectError::Refused => "refuses the connection",
        ConnectError::TimedOut => "does not answer in time",
        ConnectError::UnknownIssuer => "shows a certificate of an unknown authority",
        ConnectError::OtherName => "shows a certificate for another name",
        ConnectError::Expired => "shows a certificate that is not valid today",
        ConnectError::Tls => "does not speak TLS as expected",
        ConnectError::Proxy => "cannot be reached through the proxy",
        ConnectError::Other => "cannot be reached",
    }
}

fn connect_error_hint(connect_error: ConnectError, url: &str, ca: &str) -> (u8, String) {
    match connect_error {
        ConnectError::Name => {
            (exit::FAILED, format!("check {url} and the runner's name resolution, then run again"))
        }
        ConnectError::Refused | ConnectError::TimedOut | ConnectError::Other => {
            (exit::FAILED, format!("check {url} and the runner's network, then run again"))
        }
        ConnectError::UnknownIssuer => {
            (exit::REFUSED, format!("name the authority's PEM file in {ca}"))
        }
        ConnectError::OtherName => {
            (exit::REFUSED, format!("{url} must use a name that the certificate is for"))
        }
        ConnectError::Expired => {
            (exit::REFUSED, "renew the server's certificate, or fix the runner's clock".to_owned())
        }
        ConnectError::Tls => (exit::REFUSED, format!("check scheme and port in {url}")),
        ConnectError::Proxy => {
            (exit::FAILED, "check HTTPS_PROXY and NO_PROXY, then run again".to_owned())
        }
    }
}

fn gitlab_lines(what: &str, host: &str, error: &ApiError) -> Lines {
    let (exit, why, hint): (u8, String, String) = match error {
        ApiError::Unreachable(connect_error) => {
            let (exit, hint) = connect_error_hint(
                *connect_error,
                "ROTATOR_GITLAB_API_URL",
                "ROTATOR_GITLAB_CA_FILE",
            );
            (exit, format!("{host} {}", connect_error_text(*connect_error)), hint)
        }
        ApiError::Lost => (
            exit::FAILED,
            format!("{host} gave no whole reply in time"),
            "run again; \
                 ROTATOR_HTTP_TIMEOUT sets how long a reply may take"
                .to_owned(),
        ),
        ApiError::Garbled => (
            exit::REFUSED,
            format!("{host} answered something that is not GitLab's API"),
            "ROTATOR_GITLAB_API_URL must be GitLab's API, like https://gitlab.example.com/api/v4; \
             a login page or a proxy may stand before it"
                .to_owned(),
        ),
        ApiError::Fenced(why) => return fenced_lines(*why),
        ApiError::Denied { status, kind, .. } => {
            let (exit, why, hint) = denied(kind);
            (exit, format!("{why} ({status})"), hint.to_owned())
        }
    };
    Lines { error: format!("{what}: {why}"), hint, exit }
}

fn denied(kind: &ApiErrorKind) -> (u8, &'static str, &'static str) {
    match kind {
        ApiErrorKind::TokenInvalid => (
            exit::REFUSED,
            "GitLab does not accept the token",
            "store a new token in ROTATOR_GITLAB_TOKEN: it was revoked or mistyped",
        ),
        ApiErrorKind::TokenExpired => (
            exit::REFUSED,
            "the token has expired",
            "create a new token (scope `api`, role Maintainer) and store it in \
             ROTATOR_GITLAB_TOKEN",
        ),
        ApiErrorKind::TokenScope => (
            exit::REFUSED,
            "the token lacks the scope `api`",
            "create a token with the scope `api` and store it in ROTATOR_GITLAB_TOKEN",
        ),
        ApiErrorKind::TokenGranular => (
            exit::REFUSED,
            "the fine-grained token lacks a permission",
            "give it the rights to read and write CI/CD variables, pipelines, jobs and deployments \
             of the targets, or use a token with the scope `api`",
        ),
        ApiErrorKind::Blocked => (
            exit::REFUSED,
            "the token's user is blocked",
            "unblock the user, or use another user's token",
        ),
        ApiErrorKind::Archived => (
            exit::REFUSED,
            "the project is archived",
            "unarchive it, or take it out of ROTATOR_TARGETS",
        ),
        ApiErrorKind::ReadOnly => (
            exit::FAILED,
            "GitLab is in maintenance and takes no writes",
            "run again when the maintenance is over",
        ),
        ApiErrorKind::Forbidden => (
            exit::REFUSED,
            "the token's user may not do this",
            "give it the role Maintainer in each target project (Owner in a target group) and, for \
             protected branches and environments, the right to deploy",
        ),
        ApiErrorKind::NotFound => (
            exit::REFUSED,
            "GitLab finds nothing there, or hides it from this token",
            "check the id or path, and that the token's user is a member",
        ),
        ApiErrorKind::Moved => {
            (exit::REFUSED, "the project has moved", "use its new path or, better, its numeric id")
        }
        ApiErrorKind::Redirected => (
            exit::REFUSED,
            "the address answers with a redirect or a page",
            "ROTATOR_GITLAB_API_URL must be the API's own address, with https; a login page or a \
             bot check may stand before it",
        ),
        ApiErrorKind::AlreadyExists => (
            exit::FAILED,
            "a variable of that name and scope exists already",
            "run again: it reads again",
        ),
        ApiErrorKind::Unmaskable => (
            exit::REFUSED,
            "GitLab refuses the value",
            "look at the variable's settings in GitLab: it must allow a masked value",
        ),
        ApiErrorKind::RateLimited => (
            exit::FAILED,
            "GitLab's rate limit is reached",
            "run again later; spread the schedules of many projects over the day",
        ),
        ApiErrorKind::PipelineEmpty => (
            exit::DEPLOY,
            "the pipeline would have no job",
            "a pipeline started by the API has the source `api`: let the deploy job's `rules:` \
             allow it",
        ),
        ApiErrorKind::PipelineWorkflow => (
            exit::DEPLOY,
            "`workflow:rules` keep the pipeline from running",
            "let them allow $CI_PIPELINE_SOURCE == \"api\"",
        ),
        ApiErrorKind::PipelineRef => (
            exit::DEPLOY,
            "there is no such ref, or it has no pipeline configuration",
            "check the ref in ROTATOR_DEPLOY=pipeline@REF",
        ),
        ApiErrorKind::PipelinePermission => (
            exit::DEPLOY,
            "the token's user may not run a pipeline on this ref",
            "let it push or merge to the protected branch, or deploy from another ref",
        ),
        ApiErrorKind::PipelineVariables => (
            exit::DEPLOY,
            "the project does not allow pipeline variables",
            "use ROTATOR_DEPLOY_INPUTS instead, or allow the token's role to set pipeline \
             variables in the project's CI/CD settings",
        ),
        ApiErrorKind::PipelineInputs => (
            exit::DEPLOY,
            "the pipeline does not take these inputs",
            "compare ROTATOR_DEPLOY_INPUTS with `spec: inputs` of the project",
        ),
        ApiErrorKind::PipelineOther => (
            exit::DEPLOY,
            "GitLab does not make the pipeline",
            "run a pipeline on that ref by hand (Build, Pipelines, New pipeline): GitLab shows its \
             reason there, such as a mistake in .gitlab-ci.yml",
        ),
        ApiErrorKind::NotRetryable => (
            exit::DEPLOY,
            "the deployment's job cannot be retried",
            "deploy once by hand, or use ROTATOR_DEPLOY=pipeline: an archived or already retried \
             job cannot run again",
        ),
        ApiErrorKind::Server => (
            exit::FAILED,
            "GitLab has an error of its own",
            "run again; where it stays so, ask those who run this GitLab",
        ),
        ApiErrorKind::Other => (
            exit::REFUSED,
            "GitLab refuses the request",
            "compare GitLab's version with the README's minimum, and look at the project's \
             settings",
        ),
    }
}

fn fenced_lines(why: Fenced) -> Lines {
    let error = match why {
        Fenced::JobEnded => "GitLab says that this job has ended, so it does nothing more",
        Fenced::Unseen => {
            "GitLab could not be asked whether this job still counts as running, so it does \
             nothing more"
        }
        Fenced::TimeOver => "the time that this run may take is over",
        Fenced::RecordGone => "another run has taken over",
    };
    Lines {
        error: error.to_owned(),
        hint: "nothing to do: the next run takes up where this one ended".to_owned(),
        exit: exit::FAILED,
    }
}

fn iam_denied(action: &str, user: Option<&str>, explicit: bool, session: bool) -> Lines {
    let whose = user.unwrap_or("the user");
    let error = format!("the credentials in use may not call {action} for {whose}");
    let hint = if session {
        "credentials of GetSessionToken cannot call IAM: use the key itself, or a role".to_owned()
    } else if explicit && action.ends_with("AccessKey") {
        "an explicit deny stands in the way: a quarantine policy (AWSCompromisedKeyQuarantine, \
         then treat the key as leaked), a rule that demands MFA, a boundary or an SCP; allowing \
         more does not fix it"
            .to_owned()
    } else if explicit {
        "an explicit deny stands in the way (a rule that demands MFA, a boundary or an SCP): take \
         these credentials out of it; allowing more does not fix it"
            .to_owned()
    } else {
        let name = user.unwrap_or("${aws:username}");
        format!(
            "add to the policy of the credentials in use: {{\"Effect\": \"Allow\", \"Action\": \
             \"{action}\", \"Resource\": \"arn:aws:iam::*:user/{name}\"}} (with the path, where \
             the user has one)"
        )
    };
    Lines { error, hint, exit: exit::REFUSED }
}

/// What the commands of a hint leave out: the refusals do not know the user.
const WHOSE: &str = "(with --user-name, where it is not the caller's own)";

fn refusal_lines(refusal: &Refusal) -> Lines {
    let forced =
        "or, while the user has at most one key, let ROTATOR_FORCE=true replace it everywhere";
    let (exit, error, hint): (u8, String, String) = match refusal {
        Refusal::Busy => (
            exit::BUSY,
            "another run is at work on this user's key".into(),
            "nothing to do: it finishes by itself; a run that died is replaced once GitLab says \
             that its job has ended".into(),
        ),
        Refusal::NoVariables => (
            exit::REFUSED,
            "there are no variables to rotate".into(),
            "run once with ROTATOR_ACTION=setup to create the first key and both variables, or \
             check ROTATOR_TARGETS and the variables' names".into(),
        ),
        Refusal::PartMissing { target, missing_secret: true } => {
            (exit::REFUSED, format!("{target} has the key's id but no secret"), format!("store the secret beside it, {forced}"))
        }
        Refusal::PartMissing { target, missing_secret: false } => {
            (exit::REFUSED, format!("{target} has a secret but no key id"), format!("store the id beside it, {forced}"))
        }
        Refusal::Differ(names) => {
            let list = names.iter().map(|(target, id)| id.as_ref().map_or_else(|| format!("{target}: none"), |id| format!("{target}: key {id}")));
            (
                exit::REFUSED,
                format!("the targets name different keys ({})", list.collect::<Vec<_>>().join(", ")),
                format!("store the same pair in all of them, {forced}"),
            )
        }
        Refusal::Mismatch { target, id, tag } => (
            exit::REFUSED,
            format!("{target}: the id is key {id}, but the secret belongs to key {tag}"),
            format!("store a pair that belongs together and, where the secret is hidden, take the \
                 tag out of its description, {forced}"),
        ),
        Refusal::Unknown { target, key } => (
            exit::REFUSED,
            format!("{target} names key {key}, which this user does not have"),
            format!("check ROTATOR_IAM_USER, store a pair of this user, {forced}"),
        ),
        Refusal::Unusable { target, why } => (
            exit::REFUSED,
            format!("{target}: {why}"),
            "store the plain pair in the two variables, or name others in ROTATOR_KEY_ID_VARIABLE \
             and ROTATOR_SECRET_VARIABLE".into(),
        ),
        Refusal::NoSlot { keys, named } => (
            exit::REFUSED,
            format!("no room for a new key: {}", keys.iter().map(|key| describe(key, named.as_ref())).collect::<Vec<_>>().join("; ")),
            removal(keys, named.as_ref()),
        ),
        Refusal::Preflight(findings) => (
            exit::REFUSED,
            format!("a rotation is due, but would not end well:\n- {}", findings.join("\n- ")),
            "fix what is listed; nothing was written".into(),
        ),
        Refusal::Several(keys) => (
            exit::REFUSED,
            format!(
                "several keys could be the one that an earlier run made: {}",
                keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
            "delete the one that nothing uses: `aws iam get-access-key-last-used` tells which".into(),
        ),
        Refusal::ChangedExternally { target, new_key } => (
            exit::REFUSED,
            format!("{target} was changed by someone while key {new_key} was being published"),
            format!("restore the pair that stood there, {forced}"),
        ),
        Refusal::NewKeyLost { key, disabled } => (
            exit::REFUSED,
            format!("key {key}, which this rotation published, was {} by someone", if *disabled { "disabled" } else { "deleted" }),
            if *disabled { format!("enable it again, {forced}") } else { format!("store a pair that works, {forced}") },
        ),
        Refusal::SecretLost { key, target } => (
            exit::REFUSED,
            format!("{target} does not hold key {key}, and its secret cannot be read anywhere \
                 (hidden variables)"),
            "store the old pair in every target again (GitLab shows it where it is not hidden), or \
             delete both variables where there was none, and take the tag `[credential-rotator …]` \
             out of the secret's description: the next run then removes the new key and begins \
             anew".into(),
        ),
        Refusal::KeyCompromised { key, service } => (
            exit::REFUSED,
            format!("key {key}, which an earlier run made, was used for {service}: someone has its \
                 secret"),
            format!("find out who; if nobody should, delete it: `aws iam delete-access-key \
                 --access-key-id {}` {WHOSE}", key.full()),
        ),
        Refusal::NotPublishedAnyMore { key, target } => (
            exit::REFUSED,
            format!("{target} was changed by someone after key {key} was published"),
            format!("restore the published pair there, {forced}"),
        ),
        Refusal::EnabledAgain { key } => (
            exit::REFUSED,
            format!("old key {key} was enabled again by someone, so something still needs it"),
            format!(
                "move that software to the new key, then disable the old one: `aws iam \
                 update-access-key --status Inactive --access-key-id {}` {WHOSE}",
                key.full()
            ),
        ),
        Refusal::StillNamed { key, places } => (
            exit::REFUSED,
            format!("old key {key} is still named by {}", places.join(", ")),
            "publish the new key there too, or delete what is named; the old key stays until then".into(),
        ),
        Refusal::TooOld { key, created } => (
            exit::REFUSED,
            format!("key {key} is older than ROTATOR_MAX_AGE (made {})", day(*created)),
            "look at the last scheduled runs of the rotation, or run one now".into(),
        ),
        Refusal::DeployFailed(what) => (
            exit::DEPLOY,
            format!("the deploy failed: {}", what.join("; ")),
            "fix the deploy and retry it; the next run proves it, or starts another".into(),
        ),
        Refusal::DeployUnproven(what) => (
            exit::DEPLOY,
            format!("nothing proves that the deploy ran: {}", what.join("; ")),
            "run the job that did not run, or let ROTATOR_DEPLOY_JOBS name the jobs that deploy, \
             so that only those must have run; then run this again"
                .into(),
        ),
        Refusal::DeployTimedOut(what) => (
            exit::DEPLOY,
            format!("the deploy has not ended in time: {}", what.join("; ")),
            "if it waits for a runner or a person, give it one; the next run goes on; \
             ROTATOR_DEPLOY_TIMEOUT sets how long a run waits".into(),
        ),
    };
    Lines { error, hint, exit }
}

fn describe(key: &Key, named: Option<&AccessKeyId>) -> String {
    let role = if named == Some(&key.id) { "published" } else { "unexplained" };
    let state = if key.active { "active" } else { "disabled" };
    let used = match &key.used {
        Some(Use::At { when, service }) => format!(", last used {} ({service})", day(*when)),
        Some(Use::Never) => ", never used".to_owned(),
        None => String::new(),
    };
    format!("{role} key {}, {state}, made {}{used}", key.id.full(), day(key.created))
}

fn removal(keys: &[Key], named: Option<&AccessKeyId>) -> String {
    let commands = keys
        .iter()
        .filter(|key| named != Some(&key.id))
        .map(|key| format!("`aws iam delete-access-key --access-key-id {}`", key.id.full()));
    format!(
        "if nothing uses an unexplained key, a person removes it: {} {WHOSE}",
        commands.collect::<Vec<_>>().join(", ")
    )
}

/// A date without the time of day.
fn day(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}
