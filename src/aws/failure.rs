//! What an error of the SDK means. The code of the reply decides; its text chooses the hint only.

use aws_sdk_iam::error::{ProvideErrorMetadata, SdkError};
use jiff::Timestamp;

use super::client::Aws;
use super::denial::Denial;
use super::error::{AwsError, KeyRefusal, RegionRefusal, Signer};
use crate::config::CredentialSource;
use crate::net::ConnectError;

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
    /// AWS could not ask the identity provider.
    IdpUnreachable,
    RegionDisabled,
    AccessDenied,
    Invalid,
    NoSuchEntity,
    LimitExceeded,
    Conflict,
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
            "IDPCommunicationError" => Self::IdpUnreachable,
            "RegionDisabledException" | "RegionDisabled" => Self::RegionDisabled,
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                Self::AccessDenied
            }
            "ValidationError" => Self::Invalid,
            "NoSuchEntity" | "NoSuchEntityException" => Self::NoSuchEntity,
            "LimitExceeded" | "LimitExceededException" => Self::LimitExceeded,
            "ConcurrentModification"
            | "ConcurrentModificationException"
            | "EntityTemporarilyUnmodifiable"
            | "EntityTemporarilyUnmodifiableException" => Self::Conflict,
            "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "PriorRequestNotComplete"
            | "SlowDown" => Self::Throttled,
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
        let written = || {
            let letters = error.code().unwrap_or_default().chars();
            letters.filter(char::is_ascii_alphanumeric).take(64).collect()
        };
        match status(error) {
            Some(500..) => return AwsError::Unavailable { what, code: written() },
            Some(429) => return AwsError::Throttled { what },
            Some(_) | None => {}
        }
        let says = |text: &str| error.message().is_some_and(|message| message.contains(text));
        let user = || user.unwrap_or_default().to_owned();
        let region = |refusal| AwsError::RegionRefused { what, refusal };
        match code {
            Code::SignatureDoesNotMatch if says("expired") || says("not yet current") => {
                self.clock_wrong()
            }
            Code::ClockSkew => self.clock_wrong(),
            Code::SignatureDoesNotMatch if says("scoped to a valid region") => {
                region(RegionRefusal::NotTheEndpoints)
            }
            Code::RegionDisabled => region(RegionRefusal::SwitchedOff),
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
                denial: Denial::of(error.message().unwrap_or_default()),
            },
            Code::Invalid if says("non-User credentials") => AwsError::NoUser,
            Code::NoSuchEntity => AwsError::UserNotFound { user: user() },
            // <https://github.com/aws/aws-sdk-go/issues/807>
            Code::LimitExceeded if says("awaiting replication") => AwsError::Conflict { what },
            Code::LimitExceeded => AwsError::KeyLimit { user: user() },
            Code::Conflict => AwsError::Conflict { what },
            Code::Throttled => AwsError::Throttled { what },
            Code::Invalid | Code::InvalidIdentityToken | Code::IdpUnreachable | Code::Other => {
                AwsError::Unexpected { what, code: written() }
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
                let status = status(error).unwrap_or_default();
                match status {
                    500.. => AwsError::Unavailable { what, code: format!("HTTP {status}") },
                    429 => AwsError::Throttled { what },
                    200..300 => {
                        let code = format!("HTTP {status} with a reply that is none of its own");
                        AwsError::Unexpected { what, code }
                    }
                    _ => AwsError::Unexpected {
                        what,
                        code: format!("HTTP {status} without a reason"),
                    },
                }
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
