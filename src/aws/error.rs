//! What goes wrong at AWS, as far as this program tells it apart. No text of a reply enters an error.
//!
//! What a person is told to do about an error is in `crate::error`.

use std::fmt;

use super::denial::Denial;
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
        "the credentials in use may not call {action} for {}: {denial}",
        user.as_deref().unwrap_or("the user")
    )]
    Denied { action: &'static str, user: Option<String>, denial: Denial },
    #[error("the IAM user {user} does not exist in this account")]
    UserNotFound { user: String },
    #[error("the credentials in use are the root user's, whose keys are not rotated here")]
    RootUser,
    #[error("the credentials in use are a role's, so they do not say whose key is meant")]
    NoUser,
    #[error("the key belongs to {arn}, not to the user {user}")]
    AnotherPrincipal { user: String, arn: String },
    #[error("the role {role} cannot be assumed: {why}")]
    RoleRefused { role: String, why: RoleRefusal },
    #[error("{what}: {refusal}")]
    RegionRefused { what: &'static str, refusal: RegionRefusal },
    #[error("the job's ID token has expired, and with it the role's session")]
    IdTokenEnded,
    #[error("{what}: AWS throttles this account's calls")]
    Throttled { what: &'static str },
    #[error("AWS says that the user {user} already has as many access keys as it may")]
    KeyLimit { user: String },
    /// 409: several changes to one user at once, or many in the account.
    #[error("{what}: IAM takes no change to this user at the moment")]
    Conflict { what: &'static str },
    /// Any 5xx.
    #[error("{what}: AWS has an error of its own ({code})")]
    Unavailable { what: &'static str, code: String },
    /// A code that this program does not know, or none.
    #[error("{what}: AWS answered {code}")]
    Unexpected { what: &'static str, code: String },
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoleRefusal {
    #[error("{0}")]
    Denied(Denial),
    #[error("the ID token is for another audience")]
    Audience,
    #[error("the account has no OIDC provider for this GitLab")]
    NoProvider,
    #[error("AWS cannot fetch the keys of this GitLab, which the ID token is checked with")]
    KeysUnreachable,
    #[error("the certificate of this GitLab is not the one that the OIDC provider names")]
    Thumbprint,
    #[error("AWS does not accept the ID token")]
    TokenInvalid,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionRefusal {
    #[error("STS is switched off in this region for the account")]
    SwitchedOff,
    #[error("the endpoint belongs to another region than AWS_REGION")]
    NotTheEndpoints,
}

impl RoleRefusal {
    /// AWS gives up soon where GitLab is slow; a token or a trust policy stays as it is.
    pub(super) fn may_pass(self) -> bool {
        match self {
            Self::KeysUnreachable => true,
            Self::Denied(_)
            | Self::Audience
            | Self::NoProvider
            | Self::Thumbprint
            | Self::TokenInvalid => false,
        }
    }
}

impl AwsError {
    /// The same where this pair has signed, not the run's own credentials.
    pub(super) fn of_pair(self, id: &AccessKeyId) -> Self {
        let (signer, session_token) = (Signer(Some(id.clone())), false);
        match self {
            Self::KeyRefused { what, refusal: KeyRefusal::WrongSecret { .. } } => {
                Self::KeyRefused {
                    what,
                    refusal: KeyRefusal::WrongSecret { signer, session_token },
                }
            }
            Self::KeyRefused {
                what,
                refusal: KeyRefusal::Unknown { .. } | KeyRefusal::Temporary(_),
            } => Self::KeyRefused { what, refusal: KeyRefusal::Unknown { signer, session_token } },
            error => error,
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
