//! What to do when GitLab says no or cannot be asked, and the exit code. The sentences stand in
//! [`crate::gitlab`].

use super::{AFTER_THE_FENCE, exit, exit_of_connect_error, hint_for_connect_error};
use crate::gitlab::{self, ApiError, ApiErrorKind, NEEDED_RIGHTS};

pub(super) fn exit_code(error: &ApiError) -> u8 {
    match error {
        ApiError::Unreachable { connect_error, .. } => exit_of_connect_error(*connect_error),
        ApiError::Lost { .. } | ApiError::Fenced(_) => exit::FAILED,
        ApiError::Garbled { .. } => exit::REFUSED,
        ApiError::Denied { kind, .. } => match kind {
            ApiErrorKind::ReadOnly
            | ApiErrorKind::AlreadyExists
            | ApiErrorKind::Locked
            | ApiErrorKind::RateLimited
            | ApiErrorKind::Server => exit::FAILED,
            ApiErrorKind::TokenInvalid
            | ApiErrorKind::TokenExpired
            | ApiErrorKind::TokenScope
            | ApiErrorKind::TokenGranular(_)
            | ApiErrorKind::Blocked
            | ApiErrorKind::SignInNeeded
            | ApiErrorKind::Archived
            | ApiErrorKind::Forbidden
            | ApiErrorKind::NotFound
            | ApiErrorKind::Moved
            | ApiErrorKind::Redirected
            | ApiErrorKind::VariableLimit
            | ApiErrorKind::Unmaskable
            | ApiErrorKind::TooOld(_)
            | ApiErrorKind::Other => exit::REFUSED,
            ApiErrorKind::PipelineRate
            | ApiErrorKind::PipelineEmpty
            | ApiErrorKind::PipelineWorkflow
            | ApiErrorKind::PipelineRef
            | ApiErrorKind::PipelinePermission
            | ApiErrorKind::PipelineVariables
            | ApiErrorKind::PipelineInputs
            | ApiErrorKind::PipelineOther
            | ApiErrorKind::NotRetryable => exit::DEPLOY,
        },
    }
}

pub(super) fn hint(error: &ApiError) -> String {
    match error {
        ApiError::Unreachable { connect_error, .. } => hint_for_connect_error(
            *connect_error,
            "ROTATOR_GITLAB_API_URL",
            "ROTATOR_GITLAB_CA_FILE",
        ),
        ApiError::Lost { .. } => {
            "run again; ROTATOR_HTTP_TIMEOUT sets how long a reply may take".to_owned()
        }
        ApiError::Garbled { .. } => {
            "ROTATOR_GITLAB_API_URL must be GitLab's API, like https://gitlab.example.com/api/v4; \
             a login page or a proxy may stand before it"
                .to_owned()
        }
        ApiError::Fenced(_) => AFTER_THE_FENCE.to_owned(),
        ApiError::Denied { kind, .. } => hint_for_kind(kind),
    }
}

/// Over 60 lines for the number of reasons that GitLab has.
fn hint_for_kind(kind: &ApiErrorKind) -> String {
    let hint = match kind {
        ApiErrorKind::TokenInvalid => {
            "store a new token in ROTATOR_GITLAB_TOKEN: it was revoked or mistyped"
        }
        ApiErrorKind::TokenExpired => {
            "create a new token (scope `api`, role Maintainer) and store it in \
             ROTATOR_GITLAB_TOKEN"
        }
        ApiErrorKind::TokenScope => {
            "create a token with the scope `api` and store it in ROTATOR_GITLAB_TOKEN"
        }
        ApiErrorKind::TokenGranular(_) => {
            let needed = NEEDED_RIGHTS.map(|(resource, actions)| format!("{resource}: {actions}"));
            return format!(
                "a token's permissions cannot be changed: create one that has, for each target and \
                 deploy project, {}; a token with the scope `api` needs none of them, except where \
                 its group takes only fine-grained tokens",
                needed.join("; ")
            );
        }
        ApiErrorKind::Blocked => "unblock the user, or use another user's token",
        ApiErrorKind::SignInNeeded => {
            "sign in to GitLab as that user: its terms are not accepted, its address is not \
             confirmed, its password has expired, or it was deactivated"
        }
        ApiErrorKind::Archived => "unarchive it, or take it out of ROTATOR_TARGETS",
        ApiErrorKind::ReadOnly => "run again when the maintenance is over",
        ApiErrorKind::Forbidden => {
            "give it the role Maintainer in each target project (Owner in a target group) and, for \
             protected branches and environments, the right to deploy; an archived project takes no \
             writes from anybody"
        }
        ApiErrorKind::NotFound => "check the id or path, and that the token's user is a member",
        ApiErrorKind::Moved => "use its new path or, better, its numeric id",
        ApiErrorKind::Redirected => {
            "ROTATOR_GITLAB_API_URL must be the API's own address, with https; a login page or a \
             bot check may stand before it"
        }
        ApiErrorKind::Locked => "run again; where it stays so, see what else changes it",
        ApiErrorKind::AlreadyExists => "run again: it reads again",
        ApiErrorKind::VariableLimit => {
            "delete a variable that nothing uses: the rotation needs room for one record"
        }
        ApiErrorKind::Unmaskable => {
            "look at the variable's settings in GitLab: it must allow a masked value"
        }
        ApiErrorKind::RateLimited => {
            "run again later; spread the schedules of many projects over the day"
        }
        ApiErrorKind::PipelineRate => {
            "run again later, and see what else starts pipelines with this user; GitLab's limit \
             counts by user, project and commit"
        }
        ApiErrorKind::PipelineEmpty => {
            "a pipeline started by the API has the source `api`: let the deploy job's `rules:` \
             allow it"
        }
        ApiErrorKind::PipelineWorkflow => "let them allow $CI_PIPELINE_SOURCE == \"api\"",
        ApiErrorKind::PipelineRef => "check the ref in ROTATOR_DEPLOY=pipeline@REF",
        ApiErrorKind::PipelinePermission => {
            "let it push or merge to the protected branch, or deploy from another ref"
        }
        ApiErrorKind::PipelineVariables => {
            "use ROTATOR_DEPLOY_INPUTS instead, or allow the token's role to set pipeline \
             variables in the project's CI/CD settings"
        }
        ApiErrorKind::PipelineInputs => {
            "compare ROTATOR_DEPLOY_INPUTS with `spec: inputs` of the project"
        }
        ApiErrorKind::PipelineOther => {
            "run a pipeline on that ref by hand (Build, Pipelines, New pipeline): GitLab shows its \
             reason there, such as a mistake in .gitlab-ci.yml"
        }
        ApiErrorKind::NotRetryable => {
            "deploy once by hand, or use ROTATOR_DEPLOY=pipeline: an archived or already retried \
             job cannot run again"
        }
        ApiErrorKind::Server => "run again; where it stays so, ask those who run this GitLab",
        ApiErrorKind::TooOld(_) => {
            let (major, minor) = gitlab::OLDEST;
            return format!("upgrade GitLab: what is asked here needs {major}.{minor} or later");
        }
        ApiErrorKind::Other => "look at the settings of the project, and at its audit events",
    };
    hint.to_owned()
}
