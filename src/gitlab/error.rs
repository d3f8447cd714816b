//! What became of a request to GitLab, and why it was refused: read off the status and the reply.
//!
//! A reply's body is looked at here and dropped. What a person is told to do about an error is in
//! `crate::error`.

use std::time::Duration;

use gitlab::api;
use http::header::{LOCATION, RETRY_AFTER};
use jiff::Timestamp;
use reqwest::{Method, StatusCode};

use super::Right;
use crate::fence::Fenced;
use crate::net::{ConnectError, parse_date};

/// What became of a request.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{host} {connect_error}")]
    Unreachable { host: String, connect_error: ConnectError },
    /// Sent, but no reply that could be read: whether it had its effect is unknown.
    #[error("{host} gave no whole reply in time")]
    Lost { host: String },
    /// `doubt`: an earlier try of the same request had no clear end.
    #[error("{kind} ({status})")]
    Denied { status: u16, kind: ApiErrorKind, pause: Option<Duration>, doubt: bool },
    #[error("{host} answered something that is not GitLab's API")]
    Garbled { host: String },
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

/// Why GitLab said no, read off the status and the texts that its source gives; an unknown text is
/// `Other`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiErrorKind {
    #[error("GitLab does not accept the token")]
    TokenInvalid,
    #[error("the token has expired")]
    TokenExpired,
    #[error("the token lacks the scope `api`")]
    TokenScope,
    /// A fine-grained token, or one of another kind where a group takes only fine-grained ones.
    #[error("the token lacks the fine-grained permission {0}")]
    TokenGranular(Right),
    #[error("the token's user is blocked")]
    Blocked,
    #[error("GitLab wants the token's user to sign in first")]
    SignInNeeded,
    #[error("the project is archived")]
    Archived,
    #[error("GitLab is in maintenance and takes no writes")]
    ReadOnly,
    #[error("the token's user may not do this")]
    Forbidden,
    #[error("GitLab finds nothing there, or hides it from this token")]
    NotFound,
    #[error("the project has moved")]
    Moved,
    #[error("the address answers with a redirect or a page")]
    Redirected,
    #[error("GitLab is changing the same thing at this moment")]
    Locked,
    #[error("a variable of that name and scope exists already")]
    AlreadyExists,
    #[error("the project or group has as many variables as it may")]
    VariableLimit,
    #[error("GitLab refuses the value")]
    Unmaskable,
    #[error("GitLab's rate limit is reached")]
    RateLimited,
    #[error("the token's user has started too many pipelines there within a minute")]
    PipelineRate,
    #[error("the pipeline would have no job")]
    PipelineEmpty,
    #[error("`workflow:rules` keep the pipeline from running")]
    PipelineWorkflow,
    #[error("there is no such ref, or it has no pipeline configuration")]
    PipelineRef,
    #[error("the token's user may not run a pipeline on this ref")]
    PipelinePermission,
    #[error("the project does not allow pipeline variables")]
    PipelineVariables,
    #[error("the pipeline does not take these inputs")]
    PipelineInputs,
    #[error("GitLab does not make the pipeline")]
    PipelineOther,
    #[error("the deployment's job cannot be retried")]
    NotRetryable,
    #[error("GitLab has an error of its own")]
    Server,
    #[error("GitLab {0} refuses the request")]
    TooOld(String),
    #[error("GitLab refuses the request")]
    Other,
}

/// Why there can be no client at all.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the CA file {path} cannot be read or holds no usable certificate")]
    CaFile { path: String },
    #[error("no root certificates were found, so no HTTPS connection can be checked")]
    NoRoots,
}

impl ApiError {
    /// What GitLab would have answered, had it been asked for something that is not there.
    pub fn missing(kind: ApiErrorKind) -> Self {
        Self::Denied { status: 404, kind, pause: None, doubt: false }
    }

    pub fn kind(&self) -> Option<&ApiErrorKind> {
        match self {
            Self::Denied { kind, .. } => Some(kind),
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Garbled { .. }
            | Self::Fenced(_) => None,
        }
    }

    /// Whether the request may have had its effect.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Garbled { .. } => true,
            Self::Denied { status, kind, doubt, .. } => {
                *doubt || *status >= 500 || *status == 408 || *kind == ApiErrorKind::Locked
            }
            Self::Unreachable { .. } | Self::Fenced(_) => false,
        }
    }

    /// Whether GitLab surely refused: the request had no effect.
    pub fn is_definite(&self) -> bool {
        match self {
            // Whoever answers so in GitLab's place may have passed the request on.
            Self::Denied { status: 300..=399, .. } => false,
            Self::Denied { .. }
            | Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Garbled { .. }
            | Self::Fenced(_) => !self.is_ambiguous(),
        }
    }

    pub(super) fn is_worth_another_try(&self, idempotent: bool) -> bool {
        match self {
            Self::Unreachable { connect_error, .. } => connect_error.may_pass(),
            Self::Denied {
                kind: ApiErrorKind::RateLimited | ApiErrorKind::PipelineRate, ..
            } => true,
            Self::Denied { kind: ApiErrorKind::ReadOnly, .. } => false,
            Self::Denied { .. } | Self::Lost { .. } => idempotent && self.is_ambiguous(),
            Self::Garbled { .. } | Self::Fenced(_) => false,
        }
    }

    /// The same, after a try that may have had its effect.
    pub(super) fn doubted(self) -> Self {
        match self {
            Self::Denied { status, kind, pause, .. } => {
                Self::Denied { status, kind, pause, doubt: true }
            }
            Self::Unreachable { host, .. } | Self::Lost { host } => Self::Lost { host },
            Self::Garbled { .. } | Self::Fenced(_) => self,
        }
    }

    /// What the `gitlab` crate makes of a request. A success that is not JSON, or not of the type,
    /// is an error that carries the body, and ends here.
    pub(super) fn of(error: api::ApiError<Self>, host: impl FnOnce() -> String) -> Self {
        match error {
            api::ApiError::Client { source } => source,
            _ => Self::Garbled { host: host() },
        }
    }
}

/// GitLab counts the pipelines of a user, a project and a commit by the minute: as long as all tries
/// together take.
const PIPELINE_PAUSE: Duration = Duration::from_secs(16);
/// What the components need; the program itself needs less in places.
pub const OLDEST: (u32, u32) = (18, 1);

impl ApiErrorKind {
    /// Whether the token may not read it, or not under this name, while others may be read.
    pub fn is_out_of_reach(&self) -> bool {
        matches!(
            self,
            Self::NotFound
                | Self::Forbidden
                | Self::Moved
                | Self::TokenGranular(_)
                | Self::Archived
        )
    }

    pub(super) fn pause(&self) -> Option<Duration> {
        (*self == Self::PipelineRate).then_some(PIPELINE_PAUSE)
    }

    /// A refusal without a reason of a version that is too old has this one.
    pub(super) fn explained_by(self, version: Option<&str>) -> Self {
        match (self, version) {
            (Self::Other, Some(version)) if is_too_old(version) => Self::TooOld(
                version
                    .chars()
                    .filter(|c| c.is_ascii_alphanumeric() || ".-".contains(*c))
                    .collect(),
            ),
            (kind, _) => kind,
        }
    }
}

fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    major.zip(minor).is_some_and(|version: (u32, u32)| version < OLDEST)
}

/// What `Retry-After` (seconds or a date) or `RateLimit-Reset` (Unix time) ask for.
pub(super) fn pause(headers: &http::HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let until = |moment: Timestamp| {
        Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or_default()
    };
    let after = text(RETRY_AFTER.as_str()).and_then(|text| match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => parse_date(text).map(until),
    });
    after.or_else(|| {
        let reset = text("ratelimit-reset")?.parse::<i64>().ok()?;
        Timestamp::from_second(reset).ok().map(until)
    })
}

/// Texts from GitLab's own source and its API documentation; only the hint depends on them.
pub(super) fn kind(
    method: &Method,
    path: &str,
    status: StatusCode,
    headers: &http::HeaderMap,
    body: &[u8],
) -> ApiErrorKind {
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let json = body.first() == Some(&b'{');
    match status.as_u16() {
        301..=308 if leads_to_a_project(headers) => ApiErrorKind::Moved,
        301 if *method != Method::GET && leads_to_the_front_page(headers) => ApiErrorKind::ReadOnly,
        300..=399 => ApiErrorKind::Redirected,
        400 | 422 if says(&["has already been taken"]) => ApiErrorKind::AlreadyExists,
        400 | 422 if says(&["maximum number of"]) => ApiErrorKind::VariableLimit,
        400 | 429 if says(&["too many pipelines created"]) => ApiErrorKind::PipelineRate,
        400 => match refused_pipeline_or_value(says) {
            // Its exit code is a deploy's all the same.
            ApiErrorKind::Other if path.ends_with("/pipeline") => ApiErrorKind::PipelineOther,
            kind => kind,
        },
        408 => ApiErrorKind::Server,
        409 if says(&["resource lock"]) => ApiErrorKind::Locked,
        401 if says(&["expired"]) => ApiErrorKind::TokenExpired,
        401 => ApiErrorKind::TokenInvalid,
        403 if says(&["insufficient_granular_scope"]) => {
            ApiErrorKind::TokenGranular(Right::of(method, path))
        }
        403 if says(&["insufficient_scope"]) => ApiErrorKind::TokenScope,
        403 if says(&[
            "must accept the terms",
            "deactivated",
            "not confirmed",
            "password expired",
        ]) =>
        {
            ApiErrorKind::SignInNeeded
        }
        403 if says(&["blocked"]) => ApiErrorKind::Blocked,
        403 if says(&["archived"]) => ApiErrorKind::Archived,
        403 if says(&["not retryable"]) => ApiErrorKind::NotRetryable,
        403 | 503 if says(&["read-only", "maintenance"]) => ApiErrorKind::ReadOnly,
        403 if json => ApiErrorKind::Forbidden,
        404 if json => ApiErrorKind::NotFound,
        405 if says(&["moved project"]) => ApiErrorKind::Moved,
        405 if json => ApiErrorKind::Other,
        403..=405 => ApiErrorKind::Redirected,
        429 => ApiErrorKind::RateLimited,
        500..=599 => ApiErrorKind::Server,
        _ => ApiErrorKind::Other,
    }
}

fn leads_to_a_project(headers: &http::HeaderMap) -> bool {
    let location = headers.get(LOCATION).and_then(|to| to.to_str().ok());
    location.is_some_and(|to| to.contains("/api/v4/projects/"))
}

/// Where GitLab's middleware sends whoever writes to a read-only instance, unless the request is
/// JSON (`lib/gitlab/middleware/read_only/controller.rb`).
fn leads_to_the_front_page(headers: &http::HeaderMap) -> bool {
    let location = headers.get(LOCATION).and_then(|to| to.to_str().ok());
    location.is_some_and(|to| !to.contains("/api/") && !to.contains("/sign_in"))
}

fn refused_pipeline_or_value(says: impl Fn(&[&str]) -> bool) -> ApiErrorKind {
    if says(&["would have been empty", "will not run for the selected trigger", "no stages / jobs"])
    {
        ApiErrorKind::PipelineEmpty
    } else if says(&["workflow:rules", "workflow rules"]) {
        ApiErrorKind::PipelineWorkflow
    } else if says(&["reference not found", "missing ci config"]) {
        ApiErrorKind::PipelineRef
    } else if says(&["insufficient permissions to set pipeline variables", "pipeline variables"]) {
        ApiErrorKind::PipelineVariables
    } else if says(&["permission to run a pipeline", "permission to create a new pipeline"]) {
        ApiErrorKind::PipelinePermission
    } else if says(&["input"]) {
        ApiErrorKind::PipelineInputs
    } else if says(&["\"value\"", "masked"]) {
        ApiErrorKind::Unmaskable
    } else {
        ApiErrorKind::Other
    }
}
