//! STS: who signs, and whether a pair works.

use std::time::Duration;

use aws_sdk_iam::config::SharedCredentialsProvider;
use aws_sdk_iam::error::SdkError;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityError;
use secrecy::SecretString;

use super::client::Aws;
use super::credentials::pair;
use super::error::AwsError;
use super::failure::Operation;
use crate::access_key::AccessKeyId;
use crate::fence::Boottime;

/// So many successes in a row, each on a new connection, make a new key verified: one success at
/// one endpoint does not mean that the next call succeeds (rhyeal/aws-rotate-iam-keys#81).
const SUCCESSES: u32 = 3;
const VERIFY_PAUSE: Duration = Duration::from_secs(1);

const WHO_SIGNS: Operation =
    Operation { what: "asking STS who signs", action: "sts:GetCallerIdentity" };
const CHECK_PAIR: Operation =
    Operation { what: "checking a key with its own credentials", action: "sts:GetCallerIdentity" };

/// Who a pair or a session is, as STS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub account: String,
    pub arn: String,
}

impl Identity {
    /// The name of the user: the last segment of its ARN, whatever its path.
    pub fn user(&self) -> Option<&str> {
        let (_, path) = self.arn.split_once(":user/")?;
        path.rsplit('/').next()
    }
}

impl Aws {
    /// Who signs, as STS says. The call needs no permission.
    pub async fn identity(&self) -> Result<Identity, AwsError> {
        let identity = self.repeat(async |credentials| self.identity_of(credentials).await).await?;
        let _ = self.account.set(identity.account.clone());
        Ok(identity)
    }

    /// The account of whoever signs, as far as it is known without a call.
    pub fn known_account(&self) -> Option<String> {
        self.account.get().filter(|account| !account.is_empty()).cloned()
    }

    /// The account of whoever signs. Where STS does not tell it, it stays unknown.
    pub async fn account(&self) -> Option<String> {
        if self.account.get().is_none() {
            let _ = self.identity().await;
        }
        self.known_account()
    }

    pub(super) async fn identity_of(
        &self,
        credentials: SharedCredentialsProvider,
    ) -> Result<Identity, AwsError> {
        let sts = self.sts(credentials);
        who(&sts).await.map_err(|error| self.error(WHO_SIGNS, None, &error))
    }

    /// Polls STS with the new key's own credentials until it works everywhere, as far as that can
    /// be seen.
    ///
    /// # Errors
    /// `NotVerifiable` after `timeout`; a clock that is wrong and a key of another principal at
    /// once.
    pub async fn verify(
        &self,
        id: &AccessKeyId,
        secret: &SecretString,
        user: &str,
        account: Option<&str>,
        timeout: Duration,
    ) -> Result<(), AwsError> {
        let started = Boottime::now();
        let mut successes = 0;
        loop {
            match self.who_is(id, secret).await {
                Ok(identity) => {
                    let same_account = account.is_none_or(|account| account == identity.account);
                    let same_user =
                        identity.user().is_some_and(|name| name.eq_ignore_ascii_case(user));
                    if !same_account || !same_user {
                        let (user, arn) = (user.to_owned(), identity.arn);
                        return Err(AwsError::AnotherPrincipal { user, arn });
                    }
                    successes += 1;
                    if successes == SUCCESSES {
                        return Ok(());
                    }
                }
                Err(error @ AwsError::ClockWrong { .. }) => return Err(error),
                // A young key is not known everywhere yet; a connection that fails says nothing
                // about it.
                Err(error) => {
                    tracing::debug!("not yet: {error}");
                    successes = 0;
                }
            }
            if started.elapsed() + VERIFY_PAUSE >= timeout {
                return Err(AwsError::NotVerifiable {
                    key: id.clone(),
                    seconds: timeout.as_secs(),
                });
            }
            tokio::time::sleep(VERIFY_PAUSE).await;
        }
    }

    /// Which of these keys a secret belongs to, as STS says. None is believed only from a second
    /// look, and of a young key only once its verification would have given up.
    pub async fn whose(
        &self,
        secret: &SecretString,
        candidates: &[AccessKeyId],
    ) -> Result<Option<AccessKeyId>, AwsError> {
        let has_young = || candidates.iter().any(|id| self.is_young(id));
        let ask = async || {
            let mut refused = Ok(None);
            for id in candidates {
                match self.who_is(id, secret).await {
                    Ok(_) => return Ok(Some(id.clone())),
                    Err(error @ AwsError::KeyRefused { .. }) => refused = Err(error),
                    Err(error) => return Err(error),
                }
            }
            refused
        };
        let asked = self.repeat_refused(has_young, async || self.repeat_passing(&ask).await);
        match asked.await {
            Err(AwsError::KeyRefused { .. }) => Ok(None),
            answer => answer,
        }
    }

    /// One `GetCallerIdentity` with this pair, on a connection of its own.
    async fn who_is(&self, id: &AccessKeyId, secret: &SecretString) -> Result<Identity, AwsError> {
        let credentials = SharedCredentialsProvider::new(pair(id, secret));
        let sts = self.sts(credentials);
        who(&sts).await.map_err(|error| self.error(CHECK_PAIR, None, &error).of_pair(id))
    }
}

async fn who(sts: &aws_sdk_sts::Client) -> Result<Identity, SdkError<GetCallerIdentityError>> {
    let reply = sts.get_caller_identity().send().await?;
    Ok(Identity { account: reply.account.unwrap_or_default(), arn: reply.arn.unwrap_or_default() })
}
