//! What an error of the SDK means. Texts of a reply choose the hint only; the code decides, and no
//! text enters an error.
//!
//! What a person is told to do about an error is in `crate::error`.

use std::fmt;

use aws_sdk_iam::error::{ProvideErrorMetadata, SdkError};
use jiff::Timestamp;

use super::client::Aws;
use crate::access_key::AccessKeyId;
use crate::config::CredentialSource;
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

/// A call, as its errors name it.
#[derive(Clone, Copy)]
pub(super) struct Operation {
    pub(super) what: &'static str,
    pub(super) action: &'static str,
}

/// The codes of IAM and STS that this program tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    SignatureDoesNotMatch,
    ClockSkew,
    UnknownKey,
    ExpiredToken,
    InvalidIdentityToken,
    AccessDenied,
    Invalid,
    NoSuchEntity,
    LimitExceeded,
    Throttled,
    Other,
}

impl Code {
    /// `None` where the reply, if there was one, has no code.
    pub(super) fn of(error: &impl ProvideErrorMetadata) -> Option<Self> {
        Some(match error.code()? {
            "SignatureDoesNotMatch" => Self::SignatureDoesNotMatch,
            "RequestTimeTooSkewed" | "RequestExpired" => Self::ClockSkew,
            "InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure" => {
                Self::UnknownKey
            }
            "ExpiredToken" | "ExpiredTokenException" => Self::ExpiredToken,
            "InvalidIdentityToken" | "InvalidIdentityTokenException" => Self::InvalidIdentityToken,
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                Self::AccessDenied
            }
            "ValidationError" => Self::Invalid,
            "NoSuchEntity" | "NoSuchEntityException" => Self::NoSuchEntity,
            "LimitExceeded" | "LimitExceededException" => Self::LimitExceeded,
            "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException" => Self::Throttled,
            _ => Self::Other,
        })
    }
}

impl Aws {
    pub(super) fn error<E>(
        &self,
        operation: Operation,
        user: Option<&str>,
        error: &SdkError<E>,
    ) -> AwsError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let Operation { what, action } = operation;
        let Some(code) = Code::of(error) else { return self.without_code(what, error) };
        let says = |text: &str| error.message().is_some_and(|message| message.contains(text));
        let user = || user.unwrap_or_default().to_owned();
        match code {
            Code::SignatureDoesNotMatch if says("expired") || says("not yet current") => {
                self.clock_wrong()
            }
            Code::ClockSkew => self.clock_wrong(),
            Code::SignatureDoesNotMatch => self.key_refused(what, true),
            Code::UnknownKey => self.key_refused(what, false),
            // A role's session ends with the ID token; temporary credentials of the environment are
            // nobody's to renew.
            Code::ExpiredToken => match self.credential_source {
                CredentialSource::Environment { .. } => self.key_refused(what, false),
                CredentialSource::Roles { .. } => AwsError::IdTokenEnded,
            },
            Code::AccessDenied => AwsError::Denied {
                action,
                user: Some(user()).filter(|user| !user.is_empty()),
                explicit: says("explicit deny"),
                session_token: self.has_session_token(),
            },
            Code::Invalid if says("non-User credentials") => AwsError::NoUser,
            Code::NoSuchEntity => AwsError::UserNotFound { user: user() },
            Code::LimitExceeded => AwsError::KeyLimit { user: user() },
            Code::Throttled => AwsError::Throttled { what },
            Code::Invalid | Code::InvalidIdentityToken | Code::Other => {
                let letters = error.code().unwrap_or_default().chars();
                let code = letters.filter(char::is_ascii_alphanumeric).take(64).collect();
                AwsError::Unexpected { what, status: status(error), code }
            }
        }
    }

    fn without_code<E>(&self, what: &'static str, error: &SdkError<E>) -> AwsError {
        let unreachable =
            |connect_error| AwsError::Unreachable { what, host: self.meter.host(), connect_error };
        match error {
            SdkError::DispatchFailure(failure) => unreachable(
                failure
                    .as_connector_error()
                    .map_or(ConnectError::Other, |cause| ConnectError::of(cause)),
            ),
            SdkError::TimeoutError(_) => unreachable(ConnectError::TimedOut),
            SdkError::ResponseError(_)
            | SdkError::ServiceError(_)
            | SdkError::ConstructionFailure(_)
            | _ => {
                let status = status(error);
                let how = if status.is_some_and(|status| (200..300).contains(&status)) {
                    "with a reply that is none of its own"
                } else {
                    "without a reason"
                };
                let code = format!("HTTP {} {how}", status.unwrap_or_default());
                AwsError::Unexpected { what, status, code }
            }
        }
    }

    fn clock_wrong(&self) -> AwsError {
        let (now, date) = (Timestamp::now(), self.meter.date());
        AwsError::ClockWrong { seconds: now.duration_since(date.unwrap_or(now)).as_secs() }
    }

    fn key_refused(&self, what: &'static str, wrong_secret: bool) -> AwsError {
        let session_token = self.has_session_token();
        let refusal = match (self.signing_key(), wrong_secret) {
            (Some(key), _) if session_token && key.is_of_a_session() => KeyRefusal::Temporary(key),
            (key, true) => KeyRefusal::WrongSecret { signer: Signer(key), session_token },
            (key, false) => KeyRefusal::Unknown { signer: Signer(key), session_token },
        };
        AwsError::KeyRefused { what, refusal }
    }

    /// Whether AWS_SESSION_TOKEN stands beside the pair that signs.
    fn has_session_token(&self) -> bool {
        match self.credential_source {
            CredentialSource::Environment { session_token, .. } => session_token,
            CredentialSource::Roles { .. } => false,
        }
    }
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

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|raw| raw.status().as_u16())
}

/// Whether the request may have had its effect: anything but a 4xx of the service and a connection
/// that was never made.
pub(super) fn is_ambiguous<E>(error: &SdkError<E>) -> bool {
    match error {
        SdkError::ServiceError(service) => !(400..500).contains(&service.raw().status().as_u16()),
        SdkError::ConstructionFailure(_) => false,
        SdkError::DispatchFailure(failure) => !failure.as_connector_error().is_some_and(|cause| {
            matches!(
                ConnectError::of(cause),
                ConnectError::Name
                    | ConnectError::Refused
                    | ConnectError::UnknownIssuer
                    | ConnectError::OtherName
                    | ConnectError::Expired
            )
        }),
        _ => true,
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
