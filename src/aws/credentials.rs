//! Who signs: the environment's pair, a session of a role, or the new key in the old one's place.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_sdk_iam::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_iam::error::SdkError;
use aws_sdk_sts::error::ProvideErrorMetadata;
use secrecy::{ExposeSecret, SecretString};

use super::client::{ActiveCredentials, Aws, Session};
use super::error::{AwsError, CredentialAdvice, RoleRefusal};
use super::failure::{Code, Operation};
use super::meter::Service;
use crate::access_key::AccessKeyId;
use crate::config::CredentialSource;
use crate::fence::Boottime;

/// A session or a token that ends sooner than this is renewed before it is used.
const RENEW_BEFORE: Duration = Duration::from_secs(120);
/// How long a session is taken to last whose end is not known: AWS's own default.
const UNKNOWN_LIFE: Duration = Duration::from_secs(3600);
const SESSION_NAME: &str = "credential-rotator";
const ASSUME_ROLE: Operation = Operation { what: "assuming the role", action: "sts:AssumeRole" };

impl Aws {
    /// The id of the environment's pair, where it signs.
    pub fn environment_key(&self) -> Option<AccessKeyId> {
        self.active_credentials().environment.clone()
    }

    /// The pair that signs now; none where a role does.
    pub fn signing_key(&self) -> Option<AccessKeyId> {
        let active_credentials = self.active_credentials();
        match &active_credentials.instead {
            Some(pair) => AccessKeyId::parse(pair.access_key_id()),
            None => active_credentials.environment.clone(),
        }
    }

    /// From now on this key signs.
    pub fn sign_with(&self, id: &AccessKeyId, secret: &SecretString) {
        self.active_credentials().instead = Some(pair(id, secret));
    }

    /// From now on the key of a tag signs, with the environment's secret; whether there is one.
    pub fn sign_with_tag(&self, id: &AccessKeyId) -> bool {
        let Some(secret) = &self.environment_secret else { return false };
        self.sign_with(id, secret);
        true
    }

    /// Whether a key signs in the place of the environment's.
    pub(super) fn signs_instead(&self) -> bool {
        self.active_credentials().instead.is_some()
    }

    /// The credentials that sign now.
    pub(super) async fn credentials(&self) -> Result<SharedCredentialsProvider, AwsError> {
        if let Some(instead) = &self.active_credentials().instead {
            return Ok(SharedCredentialsProvider::new(instead.clone()));
        }
        match &self.credential_source {
            CredentialSource::Environment { profile, .. } => self.environment(*profile).await,
            CredentialSource::Roles { arns, id_token } => self.session(arns, id_token).await,
        }
    }

    async fn environment(&self, profile: bool) -> Result<SharedCredentialsProvider, AwsError> {
        let provider = self.sdk.credentials_provider().ok_or_else(no_credentials)?;
        if self.active_credentials().environment.is_none() {
            let missing = |_| if profile { AwsError::ProfileMissing } else { no_credentials() };
            let credentials = provider.provide_credentials().await.map_err(missing)?;
            self.active_credentials().environment = AccessKeyId::parse(credentials.access_key_id());
        }
        Ok(provider)
    }

    /// The session of the last role of the chain, renewed while the ID token lives.
    async fn session(
        &self,
        arns: &[String],
        id_token: &SecretString,
    ) -> Result<SharedCredentialsProvider, AwsError> {
        if let Some(session) = &self.active_credentials().session
            && session.since.elapsed() + RENEW_BEFORE < session.life
        {
            return Ok(SharedCredentialsProvider::new(session.credentials.clone()));
        }
        let mut credentials = None;
        let mut life = Duration::MAX;
        for arn in arns {
            let session = match credentials.take() {
                None => self.assume_by_token(arn, id_token).await?,
                Some(previous) => self.assume(arn, previous).await?,
            };
            let left = session.expiry().and_then(|end| end.duration_since(SystemTime::now()).ok());
            life = life.min(left.unwrap_or(UNKNOWN_LIFE));
            credentials = Some(session);
        }
        let credentials = credentials.ok_or_else(no_credentials)?;
        self.active_credentials().session =
            Some(Session { credentials: credentials.clone(), since: Boottime::now(), life });
        Ok(SharedCredentialsProvider::new(credentials))
    }

    async fn assume_by_token(
        &self,
        arn: &str,
        id_token: &SecretString,
    ) -> Result<Credentials, AwsError> {
        let config =
            aws_sdk_sts::config::Builder::from(&self.sdk).interceptor(self.meter.of(Service::Sts));
        let sts = aws_sdk_sts::Client::from_conf(config.build());
        let call =
            sts.assume_role_with_web_identity().role_arn(arn).role_session_name(SESSION_NAME);
        let reply = call.web_identity_token(id_token.expose_secret()).send().await;
        let reply = reply.map_err(|error| self.role_error(arn, &error))?;
        session(reply.credentials).ok_or_else(|| role_refused(arn, RoleRefusal::Denied))
    }

    async fn assume(&self, arn: &str, previous: Credentials) -> Result<Credentials, AwsError> {
        let sts = self.sts(SharedCredentialsProvider::new(previous), RetryConfig::standard());
        let reply = sts.assume_role().role_arn(arn).role_session_name(SESSION_NAME).send().await;
        let reply = reply.map_err(|error| self.role_error(arn, &error))?;
        session(reply.credentials).ok_or_else(|| role_refused(arn, RoleRefusal::Denied))
    }

    fn role_error<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static>(
        &self,
        arn: &str,
        error: &SdkError<E>,
    ) -> AwsError {
        match Code::of(error) {
            Some(Code::AccessDenied) => role_refused(arn, RoleRefusal::Denied),
            Some(Code::ExpiredToken) => AwsError::IdTokenEnded,
            Some(Code::InvalidIdentityToken) => {
                let no_provider =
                    error.message().is_some_and(|text| text.contains("No OpenIDConnect provider"));
                role_refused(
                    arn,
                    if no_provider { RoleRefusal::NoProvider } else { RoleRefusal::TokenInvalid },
                )
            }
            Some(
                Code::SignatureDoesNotMatch
                | Code::ClockSkew
                | Code::UnknownKey
                | Code::Invalid
                | Code::NoSuchEntity
                | Code::LimitExceeded
                | Code::Throttled
                | Code::Other,
            )
            | None => self.error(ASSUME_ROLE, None, error),
        }
    }

    fn active_credentials(&self) -> MutexGuard<'_, ActiveCredentials> {
        self.active_credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn pair(id: &AccessKeyId, secret: &SecretString) -> Credentials {
    Credentials::new(id.full(), secret.expose_secret(), None, None, "pair")
}

/// What would explain it is in GitLab's variables, and told by who sees them.
fn no_credentials() -> AwsError {
    AwsError::NoCredentials { advice: CredentialAdvice::NoVariables }
}

fn role_refused(arn: &str, why: RoleRefusal) -> AwsError {
    AwsError::RoleRefused { role: arn.to_owned(), why }
}

fn session(credentials: Option<aws_sdk_sts::types::Credentials>) -> Option<Credentials> {
    let got = credentials?;
    let expiry = SystemTime::try_from(got.expiration).ok();
    Some(Credentials::new(
        got.access_key_id,
        got.secret_access_key,
        Some(got.session_token),
        expiry,
        "role",
    ))
}
