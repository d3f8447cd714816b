//! What goes wrong at AWS, as far as this program tells it apart. No text of a reply enters an error.
//!
//! What a person is told to do about an error is in `crate::error`.

use std::fmt;

use crate::access_key::AccessKeyId;
use crate::fence::Fenced;
use crate::net::ConnectError;

/// `what` is what we were doing.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    #[error("{what}: {host} {connect_error}")]
    Unreachable { what: &'static str, host: String, connect_error: ConnectError },
    #[error("this job has no AWS credentials")]
    NoCredentials { advice: CredentialAdvice },
    #[error("AWS_PROFILE names a profile that does not exist here")]
    ProfileMissing,
    /// The pair that signs is refused.
    #[error("{what}: AWS {refusal}")]
    KeyRefused { what: &'static str, refusal: KeyRefusal },
    #[error(
        "the credentials in use may not call {action} for {}",
        user.as_deref().unwrap_or("the user")
    )]
    Denied { action: &'static str, user: Option<String>, explicit: bool, session_token: bool },
    #[error("the IAM user {user} does not exist in this account")]
    UserNotFound { user: String },
    #[error("the credentials in use are the root user's, whose keys are not rotated here")]
    RootUser,
    #[error("the credentials in use are a role's, so they do not say whose key is meant")]
    NoUser,
    #[error("the key belongs to {arn}, not to the user {user}")]
    AnotherPrincipal { user: String, arn: String },
    #[error("the role {role} cannot be assumed")]
    RoleRefused { role: String, why: RoleRefusal },
    #[error("the job's ID token has expired, and with it the role's session")]
    IdTokenEnded,
    #[error("{what}: AWS throttles this account's calls")]
    Throttled { what: &'static str },
    #[error("AWS says that the user {user} already has as many access keys as it may")]
    KeyLimit { user: String },
    /// A code that this program does not know, or none. `status`: where there was a reply.
    #[error("{what}: AWS answered {code}")]
    Unexpected { what: &'static str, status: Option<u16>, code: String },
    #[error(
        "the runner's clock is {} seconds {} the servers', so AWS rejects its signatures",
        seconds.unsigned_abs(),
        if *seconds < 0 { "behind" } else { "ahead of" }
    )]
    ClockWrong { seconds: i64 },
    #[error("new key {key} did not work within {seconds} seconds, so it was not published")]
    NotVerifiable { key: AccessKeyId, seconds: u64 },
    #[error(transparent)]
    Fenced(#[from] Fenced),
}

/// Which pair is refused, and why. `session_token`: one stands beside it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    #[error("does not accept {signer} (deleted, disabled, or of another partition)")]
    Unknown { signer: Signer, session_token: bool },
    #[error("knows {signer}, but the secret is not its own")]
    WrongSecret { signer: Signer, session_token: bool },
    #[error(
        "does not accept the temporary credentials {0} (their time is over, or they are of \
         GetSessionToken, which IAM refuses)"
    )]
    Temporary(AccessKeyId),
}

/// The key that signs, where it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer(pub Option<AccessKeyId>);

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

impl AwsError {
    /// Whether trying again soon can help, where the call is harmless when repeated. `young`: a
    /// verified key signs in the old one's place, which may not be known everywhere.
    pub(super) fn may_pass(&self, young: bool) -> bool {
        match self {
            Self::Throttled { .. } => true,
            Self::Unreachable { connect_error, .. } => connect_error.may_pass(),
            Self::Unexpected { status, .. } => status.is_some_and(|status| status >= 500),
            Self::KeyRefused { .. } => young,
            Self::NoCredentials { .. }
            | Self::ProfileMissing
            | Self::Denied { .. }
            | Self::UserNotFound { .. }
            | Self::RootUser
            | Self::NoUser
            | Self::AnotherPrincipal { .. }
            | Self::RoleRefused { .. }
            | Self::IdTokenEnded
            | Self::KeyLimit { .. }
            | Self::ClockWrong { .. }
            | Self::NotVerifiable { .. }
            | Self::Fenced(_) => false,
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(key) => write!(f, "key {key}"),
            None => f.write_str("the credentials in use"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_on_the_side_of_aws_may_pass_whatever_its_code() {
        for (status, may_pass) in [
            (Some(500), true),
            (Some(503), true),
            (Some(404), false),
            (Some(200), false),
            (None, false),
        ] {
            let code = "ServiceUnavailable".to_owned();
            let error = AwsError::Unexpected { what: "disabling", status, code };
            assert_eq!(error.may_pass(false), may_pass, "{status:?}");
        }
    }

    #[test]
    fn a_key_that_is_refused_may_pass_only_where_it_is_young() {
        let refusal = KeyRefusal::Unknown { signer: Signer(None), session_token: false };
        let error = AwsError::KeyRefused { what: "disabling", refusal };
        assert!(error.may_pass(true) && !error.may_pass(false));
    }
}
