//! Repeats calls: which errors pass by themselves, and when a refused key is believed to be refused.
//!
//! Never `CreateAccessKey` after an ambiguous reply: for its caller here that is no error.

use std::time::Duration;

use aws_sdk_iam::config::SharedCredentialsProvider;
use backon::{ExponentialBuilder, Retryable};
use jiff::SignedDuration;

use super::client::Aws;
use super::error::{AwsError, KeyRefusal};
use crate::access_key::AccessKeyId;
use crate::fence::Boottime;

/// How long a key counts as young: not every host of AWS may know it.
pub const YOUNG: SignedDuration = SignedDuration::from_mins(10);
/// A key that is refused is asked about again so much later before that is believed. One reply says
/// little: a key that was verified can be unknown to the next host
/// (<https://github.com/rhyeal/aws-rotate-iam-keys/issues/81>).
const SECOND_LOOK: Duration = Duration::from_secs(10);
/// A young key is asked about so often.
const YOUNG_PAUSE: Duration = Duration::from_secs(1);

impl Aws {
    /// A call of the key that signs, repeated after an error that may pass and after a refusal of
    /// that key.
    pub(super) async fn repeat<T>(
        &self,
        call: impl AsyncFn(SharedCredentialsProvider) -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        let is_young = || self.signing_key().is_some_and(|key| self.is_young(&key));
        self.repeat_refused(is_young, async || self.repeat_signed(&call).await).await
    }

    /// The same; a refusal of the key is believed at once.
    pub(super) async fn repeat_signed<T>(
        &self,
        call: impl AsyncFn(SharedCredentialsProvider) -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        // A role that cannot be assumed was tried often enough.
        let sign_and_call = async || match self.credentials().await {
            Ok(credentials) => call(credentials).await.map(Ok),
            Err(error) => Ok(Err(error)),
        };
        self.repeat_passing(sign_and_call).await?
    }

    /// Repeats a call after an error that may pass.
    pub(super) async fn repeat_passing<T>(
        &self,
        call: impl AsyncFn() -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        let schedule = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_times(5)
            .with_jitter();
        (|| Box::pin(call())).retry(schedule).when(AwsError::may_pass).await
    }

    /// Repeats a call after a refusal of the key that it is about: once, or where that key is young
    /// for the whole verification time.
    pub(super) async fn repeat_refused<T>(
        &self,
        is_young: impl Fn() -> bool,
        call: impl AsyncFn() -> Result<T, AwsError>,
    ) -> Result<T, AwsError> {
        let mut refused: Option<Boottime> = None;
        loop {
            let error = match call().await {
                Err(error) if error.is_a_refused_key() => error,
                result => return result,
            };
            let (patience, pause) = if is_young() {
                (self.verify_timeout.max(SECOND_LOOK), YOUNG_PAUSE)
            } else {
                (SECOND_LOOK, SECOND_LOOK)
            };
            let since = *refused.get_or_insert_with(|| {
                tracing::info!(
                    "AWS refuses a key; asking again for up to {} s before that is believed",
                    patience.as_secs()
                );
                Boottime::now()
            });
            if since.elapsed() >= patience {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Not every host of AWS may know this key yet.
    pub fn is_young(&self, key: &AccessKeyId) -> bool {
        self.active_credentials().young.contains(key)
    }

    pub fn take_for_young(&self, key: &AccessKeyId) {
        self.active_credentials().young.insert(key.clone());
    }
}

impl AwsError {
    /// Whether trying again soon can help, where the call is harmless when repeated.
    fn may_pass(&self) -> bool {
        match self {
            Self::Throttled { .. } | Self::Conflict { .. } | Self::Unavailable { .. } => true,
            Self::Unreachable { connect_error, .. } => connect_error.may_pass(),
            Self::RoleRefused { why, .. } => why.may_pass(),
            Self::KeyRefused { .. }
            | Self::NoCredentials { .. }
            | Self::ProfileMissing
            | Self::Denied { .. }
            | Self::UserNotFound { .. }
            | Self::RootUser
            | Self::NoUser
            | Self::AnotherPrincipal { .. }
            | Self::RegionRefused { .. }
            | Self::IdTokenEnded
            | Self::KeyLimit { .. }
            | Self::Unexpected { .. }
            | Self::ClockWrong { .. }
            | Self::NotVerifiable { .. }
            | Self::Fenced(_) => false,
        }
    }

    /// Whether a key is unknown or its secret wrong, which another host of AWS may see otherwise.
    fn is_a_refused_key(&self) -> bool {
        let Self::KeyRefused { refusal, .. } = self else { return false };
        match refusal {
            KeyRefusal::Unknown { .. } | KeyRefusal::WrongSecret { .. } => true,
            KeyRefusal::Temporary(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::{RoleRefusal, Signer};
    use super::*;

    const WHAT: &str = "disabling";

    #[test]
    fn an_error_passes_by_its_class() {
        let role = |why| AwsError::RoleRefused { role: "role".to_owned(), why };
        for (error, may_pass) in [
            (AwsError::Unavailable { what: WHAT, code: "Other".to_owned() }, true),
            (AwsError::Conflict { what: WHAT }, true),
            (AwsError::Throttled { what: WHAT }, true),
            (role(RoleRefusal::KeysUnreachable), true),
            (role(RoleRefusal::Audience), false),
            (AwsError::Unexpected { what: WHAT, code: "Other".to_owned() }, false),
        ] {
            assert_eq!(error.may_pass(), may_pass, "{error}");
        }
    }

    #[test]
    fn a_refused_key_is_no_error_that_passes_but_one_to_ask_about_again() {
        let refusal = KeyRefusal::Unknown { signer: Signer(None), session_token: false };
        let error = AwsError::KeyRefused { what: WHAT, refusal };
        assert!(error.is_a_refused_key() && !error.may_pass());
    }
}
