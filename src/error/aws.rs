//! What to do when AWS says no or cannot be asked, and the exit code. The sentences stand in
//! [`crate::aws`].

use super::{AFTER_THE_FENCE, exit, exit_of_connect_error, hint_for_connect_error};
use crate::aws::{
    AwsError, CredentialAdvice, Denial, KeyRefusal, PolicyKind, RegionRefusal, RoleRefusal, Signer,
};

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
        | AwsError::RegionRefused { .. }
        | AwsError::KeyLimit { .. } => exit::REFUSED,
        AwsError::RoleRefused { why, .. } => exit_code_for_role(*why),
        AwsError::IdTokenEnded
        | AwsError::Throttled { .. }
        | AwsError::Conflict { .. }
        | AwsError::Unavailable { .. }
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
        AwsError::Denied { action, user, denial } => {
            hint_for_denial(action, user.as_deref(), *denial)
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
        AwsError::RoleRefused { why, .. } => hint_for_role(*why),
        AwsError::RegionRefused { refusal, .. } => hint_for_region(*refusal).into(),
        AwsError::IdTokenEnded => {
            "nothing to do: the next run has a new token and takes up where this one ended; where \
             every run ends so, ROTATOR_AWS_ID_TOKEN is not the one of the job's `id_tokens:`"
                .into()
        }
        AwsError::Throttled { .. } => {
            "run again; spread the schedules of many projects over the day".into()
        }
        AwsError::Conflict { .. } => {
            "run again in a few minutes; where it stays so, look for another tool that changes the \
             same user"
                .into()
        }
        AwsError::Unavailable { .. } => {
            "run again; where it stays so, look at https://health.aws.amazon.com/health/status"
                .into()
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

fn exit_code_for_role(why: RoleRefusal) -> u8 {
    match why {
        RoleRefusal::KeysUnreachable => exit::FAILED,
        RoleRefusal::Denied(_)
        | RoleRefusal::Audience
        | RoleRefusal::NoProvider
        | RoleRefusal::Thumbprint
        | RoleRefusal::TokenInvalid => exit::REFUSED,
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
        KeyRefusal::WrongSecret { signer: Signer(None), .. }
        | KeyRefusal::Unknown { signer: Signer(None), .. } => {
            "the session that the role gave is refused: set AWS_REGION to a region of the role's \
             partition that is enabled in its account"
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

fn hint_for_denial(action: &str, user: Option<&str>, denial: Denial) -> String {
    match denial {
        Denial::NotAllowed(kind) => match limit(kind) {
            Some(limit) => format!("{limit} must allow {action} as well; {OWN_POLICY}"),
            None => {
                let name = user.unwrap_or("${aws:username}");
                format!(
                    "add to the policy of the credentials in use: {{\"Effect\": \"Allow\", \
                     \"Action\": \"{action}\", \"Resource\": \"arn:aws:iam::*:user/{name}\"}} \
                     (with the path, where the user has one)"
                )
            }
        },
        Denial::Forbidden(kind) => match limit(kind) {
            Some(limit) => format!(
                "{limit} has a statement that denies {action}: take these credentials out of it; \
                 {OWN_POLICY}"
            ),
            None => format!(
                "find the statement that denies {action} (a rule that demands MFA; \
                 AWSCompromisedKeyQuarantine, then treat the key as leaked{}) and take these \
                 credentials out of it; allowing more does not fix it",
                if kind == PolicyKind::Unnamed { "; a boundary; an SCP" } else { "" }
            ),
        },
        Denial::Quarantine => {
            "AWS has found a key of this user in public: treat it as leaked, replace it by hand, \
             then detach AWSCompromisedKeyQuarantine from the user"
                .into()
        }
    }
}

const OWN_POLICY: &str = "allowing more in the policy of the identity does not fix it";

/// A policy that limits what the identity's own one allows.
fn limit(kind: PolicyKind) -> Option<&'static str> {
    match kind {
        PolicyKind::Identity | PolicyKind::Unnamed => None,
        PolicyKind::Boundary => Some("the permissions boundary of the credentials in use"),
        PolicyKind::ServiceControl => {
            Some("the service control policy that the organization puts on the account")
        }
        PolicyKind::ResourceControl => {
            Some("the resource control policy that the organization puts on the account")
        }
        PolicyKind::Session => Some("the session policy that these credentials were made with"),
        PolicyKind::Resource => Some("the role's trust policy"),
        PolicyKind::Endpoint => Some("the policy of the VPC endpoint that the runner uses"),
    }
}

fn hint_for_role(why: RoleRefusal) -> String {
    match why {
        RoleRefusal::Denied(Denial::NotAllowed(PolicyKind::Resource | PolicyKind::Unnamed)) => {
            "the role's trust policy must allow this project and ref (condition on `sub`) and the \
             token's `aud`; a chained role must allow the role before it"
                .into()
        }
        RoleRefusal::Denied(Denial::NotAllowed(PolicyKind::Identity)) => {
            "the policy of the role before it must allow sts:AssumeRole on this one".into()
        }
        RoleRefusal::Denied(denial) => hint_for_denial("sts:AssumeRole", None, denial),
        RoleRefusal::Audience => {
            "compare `aud` of `id_tokens:` (input `id_token_aud`) with the audiences of the OIDC \
             provider"
                .into()
        }
        RoleRefusal::NoProvider => "create an OIDC provider for the issuer's URL in the account \
                                    of the role, or check the account in ROTATOR_AWS_ROLE_ARN"
            .into(),
        RoleRefusal::KeysUnreachable => {
            "run again; where it stays so, AWS must reach /.well-known/openid-configuration of \
             this GitLab, and the `jwks_uri` in it, over the internet; where it cannot, let the \
             key rotate itself"
                .into()
        }
        RoleRefusal::Thumbprint => {
            "update the thumbprint of the OIDC provider, or give GitLab a certificate of a public \
             authority"
                .into()
        }
        RoleRefusal::TokenInvalid => {
            "ROTATOR_AWS_ID_TOKEN must be the token of the job's own `id_tokens:`".into()
        }
    }
}

fn hint_for_region(refusal: RegionRefusal) -> &'static str {
    match refusal {
        RegionRefusal::SwitchedOff => {
            "set AWS_REGION to another region, or activate STS in this one (account settings of \
             IAM)"
        }
        RegionRefusal::NotTheEndpoints => "AWS_REGION and AWS_ENDPOINT_URL* must name one region",
    }
}
