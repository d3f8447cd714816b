//! Who signs: the environment's pair, a session of a role, or the new key in the old one's place.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_sdk_iam::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_iam::error::SdkError;
use aws_sdk_sts::error::ProvideErrorMetadata;
use secrecy::{ExposeSecret, SecretString};

use super::client::{ActiveCredentials, Aws, Session};
use super::denial::{Denial, PolicyKind};
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

    /// Whether another key signs in the place of the environment's.
    pub fn signs_instead(&self) -> bool {
        self.active_credentials().instead.is_some()
    }

    /// The credentials that sign now.
    pub(super) async fn credentials(&self) -> Result<SharedCredentialsProvider, AwsError> {
        if let Some(instead) = &self.active_credentials().instead {
            return Ok(SharedCredentialsProvider::new(instead.clone()));
        }
        match &self.credential_source {
            CredentialSource::Environment { profile, .. } => self.environment(*profile).await,
            CredentialSource::Roles { arns, id_token } => {
                Box::pin(self.session(arns, id_token)).await
            }
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
        self.repeat_passing(async || {
            let call =
                sts.assume_role_with_web_identity().role_arn(arn).role_session_name(SESSION_NAME);
            let reply = call.web_identity_token(id_token.expose_secret()).send().await;
            session(reply.map_err(|error| self.role_error(arn, &error))?.credentials)
        })
        .await
    }

    async fn assume(&self, arn: &str, previous: Credentials) -> Result<Credentials, AwsError> {
        let sts = self.sts(SharedCredentialsProvider::new(previous));
        self.repeat_passing(async || {
            let call = sts.assume_role().role_arn(arn).role_session_name(SESSION_NAME);
            let reply = call.send().await;
            session(reply.map_err(|error| self.role_error(arn, &error))?.credentials)
        })
        .await
    }

    fn role_error<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static>(
        &self,
        arn: &str,
        error: &SdkError<E>,
    ) -> AwsError {
        let refused = |why| AwsError::RoleRefused { role: arn.to_owned(), why };
        let text = error.message().unwrap_or_default();
        match Code::of(error) {
            Some(Code::AccessDenied) => refused(RoleRefusal::Denied(match Denial::of(text) {
                // A reply about a web identity names no policy; only the trust policy knows of one.
                Denial::NotAllowed(PolicyKind::Unnamed) if text.contains("WebIdentity") => {
                    Denial::NotAllowed(PolicyKind::Resource)
                }
                denial => denial,
            })),
            Some(Code::ExpiredToken) => AwsError::IdTokenEnded,
            Some(Code::InvalidIdentityToken) => refused(token_refusal(text)),
            Some(Code::IdpUnreachable) => refused(RoleRefusal::KeysUnreachable),
            Some(
                Code::SignatureDoesNotMatch
                | Code::ClockSkew
                | Code::UnknownKey
                | Code::RegionDisabled
                | Code::Invalid
                | Code::NoSuchEntity
                | Code::LimitExceeded
                | Code::Conflict
                | Code::Throttled
                | Code::Other,
            )
            | None => self.error(ASSUME_ROLE, None, error),
        }
    }

    pub(super) fn active_credentials(&self) -> MutexGuard<'_, ActiveCredentials> {
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

/// `InvalidIdentityToken` has several causes, and only its text tells them apart.
fn token_refusal(text: &str) -> RoleRefusal {
    let causes = [
        ("audience", RoleRefusal::Audience),
        ("No OpenIDConnect provider", RoleRefusal::NoProvider),
        ("retrieve verification key", RoleRefusal::KeysUnreachable),
        ("thumbprint", RoleRefusal::Thumbprint),
    ];
    let cause = causes.into_iter().find(|(words, _)| text.contains(words));
    cause.map_or(RoleRefusal::TokenInvalid, |(_, why)| why)
}

fn session(credentials: Option<aws_sdk_sts::types::Credentials>) -> Result<Credentials, AwsError> {
    let got = credentials.ok_or_else(|| AwsError::Unexpected {
        what: ASSUME_ROLE.what,
        code: "no credentials".to_owned(),
    })?;
    let expiry = SystemTime::try_from(got.expiration).ok();
    Ok(Credentials::new(
        got.access_key_id,
        got.secret_access_key,
        Some(got.session_token),
        expiry,
        "role",
    ))
}
