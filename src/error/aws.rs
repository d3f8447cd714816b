//! What to do when AWS says no or cannot be asked, and the exit code. The sentences stand in
//! [`crate::aws`].

use super::{AFTER_THE_FENCE, exit, exit_of_connect_error, hint_for_connect_error};
use crate::aws::{AwsError, CredentialAdvice, KeyRefusal, RoleRefusal};

pub(super) fn exit_code(error: &AwsError) -> u8 {
    match error {
        AwsError::Unreachable { connect_error, .. } => exit_of_connect_error(*connect_error),
        AwsError::NoCredentials { .. }
        | AwsError::ProfileMissing
        | AwsError::KeyRefused { .. }
        | AwsError::Denied { .. }
        | AwsError::UserNotFound { .. }
        | AwsError::RootUser
        | AwsError::NoUser
        | AwsError::AnotherPrincipal { .. }
        | AwsError::RoleRefused { .. }
        | AwsError::KeyLimit { .. } => exit::REFUSED,
        AwsError::IdTokenEnded
        | AwsError::Throttled { .. }
        | AwsError::Unexpected { .. }
        | AwsError::ClockWrong { .. }
        | AwsError::NotVerifiable { .. }
        | AwsError::Fenced(_) => exit::FAILED,
    }
}

pub(super) fn hint(error: &AwsError) -> String {
    match error {
        AwsError::Unreachable { connect_error, .. } => hint_for_connect_error(
            *connect_error,
            "AWS_ENDPOINT_URL* and AWS_REGION",
            "SSL_CERT_FILE",
        ),
        AwsError::NoCredentials { advice } => hint_for_advice(*advice).into(),
        AwsError::ProfileMissing => {
            "remove AWS_PROFILE from the job's variables: a pipeline job has no AWS configuration \
             file"
                .into()
        }
        AwsError::KeyRefused { refusal, .. } => hint_for_key(refusal).into(),
        AwsError::Denied { action, user, explicit, session_token } => {
            hint_for_denial(action, user.as_deref(), *explicit, *session_token)
        }
        AwsError::UserNotFound { .. } => {
            "ROTATOR_IAM_USER must be the name alone (no path, no ARN) of a user in the account of \
             the credentials in use"
                .into()
        }
        AwsError::RootUser => {
            "delete the root user's access keys; create an IAM user or a role for this job".into()
        }
        AwsError::NoUser => {
            "set ROTATOR_IAM_USER to the name of the user whose key is rotated".into()
        }
        AwsError::AnotherPrincipal { .. } => {
            "check ROTATOR_IAM_USER and the account of the credentials in use".into()
        }
        AwsError::RoleRefused { why, .. } => hint_for_role(*why).into(),
        AwsError::IdTokenEnded => {
            "nothing to do: the next run has a new token and takes up where this one ended; where \
             every run ends so, ROTATOR_AWS_ID_TOKEN is not the one of the job's `id_tokens:`"
                .into()
        }
        AwsError::Throttled { .. } => {
            "run again; spread the schedules of many projects over the day".into()
        }
        AwsError::KeyLimit { user } => format!(
            "`aws iam list-access-keys --user-name {user}` shows them; delete the one that nothing \
             uses"
        ),
        AwsError::Unexpected { .. } => {
            "run again; if it stays, look the code up in the documentation of IAM and STS".into()
        }
        AwsError::ClockWrong { .. } => {
            "fix the time synchronisation of the runner's host, then run again".into()
        }
        AwsError::NotVerifiable { .. } => {
            "run again; where it stays so, set AWS_REGION to a region whose STS endpoint is \
             enabled in the account"
                .into()
        }
        AwsError::Fenced(_) => AFTER_THE_FENCE.into(),
    }
}

fn hint_for_advice(advice: CredentialAdvice) -> &'static str {
    match advice {
        CredentialAdvice::Protected => {
            "the project's variables are protected and this ref is not: run the schedule on a \
             protected branch, or protect this one"
        }
        CredentialAdvice::Scoped => {
            "the project's variables are scoped to an environment: give the job `environment: \
             {name: …, action: access}` (input `environment`)"
        }
        CredentialAdvice::Exists => {
            "the variables exist but did not reach this job: look for an empty variable of the \
             same name in the pipeline, schedule or job"
        }
        CredentialAdvice::NoVariables => {
            "set ROTATOR_AWS_ROLE_ARN and ROTATOR_AWS_ID_TOKEN (input `aws_role_arn`); a key can \
             rotate itself only once its own variables are there"
        }
    }
}

fn hint_for_key(refusal: &KeyRefusal) -> &'static str {
    match refusal {
        KeyRefusal::Temporary(_) => {
            "temporary credentials cannot rotate a key: store the user's own key in the variables, \
             without AWS_SESSION_TOKEN, or use a role (ROTATOR_AWS_ROLE_ARN)"
        }
        KeyRefusal::WrongSecret { session_token: true, .. }
        | KeyRefusal::Unknown { session_token: true, .. } => {
            "AWS_SESSION_TOKEN stands beside the pair: remove that variable if it is a leftover"
        }
        KeyRefusal::WrongSecret { session_token: false, .. } => {
            "if the job started before the last rotation, retry it: it gets today's variables; \
             else a person must store a matching pair"
        }
        KeyRefusal::Unknown { session_token: false, .. } => {
            "if the job started before the last rotation, retry it: it gets today's variables; \
             else enable the key, or store one that works, or use a role"
        }
    }
}

fn hint_for_denial(
    action: &str,
    user: Option<&str>,
    explicit: bool,
    session_token: bool,
) -> String {
    if session_token {
        "credentials of GetSessionToken cannot call IAM: use the key itself, or a role".into()
    } else if explicit && action.ends_with("AccessKey") {
        "an explicit deny stands in the way: a quarantine policy (AWSCompromisedKeyQuarantine, \
         then treat the key as leaked), a rule that demands MFA, a boundary or an SCP; allowing \
         more does not fix it"
            .into()
    } else if explicit {
        "an explicit deny stands in the way (a rule that demands MFA, a boundary or an SCP): take \
         these credentials out of it; allowing more does not fix it"
            .into()
    } else {
        let name = user.unwrap_or("${aws:username}");
        format!(
            "add to the policy of the credentials in use: {{\"Effect\": \"Allow\", \"Action\": \
             \"{action}\", \"Resource\": \"arn:aws:iam::*:user/{name}\"}} (with the path, where \
             the user has one)"
        )
    }
}

fn hint_for_role(why: RoleRefusal) -> &'static str {
    match why {
        RoleRefusal::Denied => {
            "the role's trust policy must allow this project and ref (condition on `sub`) and the \
             token's `aud`; a chained role must allow the role before it"
        }
        RoleRefusal::TokenInvalid => {
            "the ID token is not accepted: check `aud` of `id_tokens:` and the provider's audience"
        }
        RoleRefusal::NoProvider => {
            "the account has no OIDC provider for this GitLab: create one for the issuer's URL"
        }
    }
}
