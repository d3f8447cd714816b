//! Access keys: who signs, and the calls to IAM and STS.
//!
//! House rules. `CreateAccessKey` is sent once and never repeated after an ambiguous reply. The
//! SDK's own retries are for reads only; effects are repeated here, each try behind the fence. A
//! secret lives in [`FreshKey`] or in `Secrets`, in nothing that can be printed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_iam::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_iam::config::{
    ConfigBag, Credentials, Intercept, ProvideCredentials, RuntimeComponents,
    SharedCredentialsProvider,
};
use aws_sdk_iam::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_iam::primitives::DateTime;
use aws_sdk_iam::types::StatusType;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::body::SdkBody;
use backon::{ExponentialBuilder, Retryable};
use http_body_util::Limited;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use crate::access_key::CreatedKey;
use crate::access_key::{AccessKeyId, Key, Use};
use crate::config::{Config, CredentialSource};
use crate::error::{CredentialAdvice, Error, RoleRefusal};
use crate::fence::{Boottime, Fenced};
use crate::net::{ConnectError, connect_timeout, is_plausible, parse_date};

/// So many successes in a row, each on a new connection, make a new key verified: one success at
/// one endpoint does not mean that the next call succeeds (rhyeal/aws-rotate-iam-keys#81).
const SUCCESSES: u32 = 3;
const VERIFY_PAUSE: Duration = Duration::from_secs(1);
/// A session or a token that ends sooner than this is renewed before it is used.
const RENEW_BEFORE: Duration = Duration::from_secs(120);
const SESSION_NAME: &str = "credential-rotator";
/// A reply larger than this is not one of AWS: a page of a hundred keys is a thirtieth of it.
const REPLY_LIMIT: usize = 1 << 20;
/// A user has two keys, an account that may have more lists a hundred to a page.
const PAGES: u32 = 20;

/// The keys of the user, as one list of IAM shows them.
pub struct Listing {
    pub user: String,
    pub keys: Vec<Key>,
    /// IAM's clock.
    pub date: Timestamp,
}

/// Who a pair or a session is, as STS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub account: String,
    pub arn: String,
}

/// Why no key was made, or why that is not known.
pub enum CreateFailure {
    Refused(Error),
    Unclear,
}

pub struct Aws {
    sdk: SdkConfig,
    credential_source: CredentialSource,
    named_user: Option<String>,
    tally: Tally,
    active_credentials: Mutex<ActiveCredentials>,
    environment_secret: Option<SecretString>,
}

/// Who may sign, strongest first.
#[derive(Default)]
struct ActiveCredentials {
    /// The new key, once the old one is to be retired by it; or a torn pair's own.
    instead: Option<Credentials>,
    session: Option<(Credentials, Boottime, Duration)>,
    /// The id of the environment's pair.
    environment: Option<AccessKeyId>,
}

impl Aws {
    /// Reads the SDK's configuration from the environment. No call is made.
    pub async fn new(config: &Config, environment_secret: Option<SecretString>) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(connect_timeout(config.http_timeout))
            .operation_attempt_timeout(config.http_timeout)
            .build();
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(config.region.clone()))
            .retry_config(RetryConfig::standard().with_max_attempts(4))
            .timeout_config(timeouts);
        let sdk = match &config.credential_source {
            CredentialSource::Environment => loader.load().await,
            // Nothing is ever signed with keys of the environment then.
            CredentialSource::Roles { .. } => loader.no_credentials().load().await,
        };
        let credential_source = match &config.credential_source {
            CredentialSource::Environment => CredentialSource::Environment,
            CredentialSource::Roles { arns, id_token } => {
                CredentialSource::Roles { arns: arns.clone(), id_token: id_token.clone() }
            }
        };
        Self {
            sdk,
            credential_source,
            named_user: config.iam_user.clone(),
            tally: Tally::default(),
            active_credentials: Mutex::default(),
            environment_secret,
        }
    }

    /// Calls sent to IAM and to STS so far, each try counted.
    pub fn calls(&self) -> (u32, u32) {
        (self.tally.iam.load(Ordering::Relaxed), self.tally.sts.load(Ordering::Relaxed))
    }

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

    /// The user's keys, all pages, oldest first. One call where there are no more than a hundred.
    pub async fn list(&self) -> Result<Listing, Error> {
        const WHAT: &str = "listing the user's access keys";
        let iam = self.iam(true).await?;
        let mut pages =
            iam.list_access_keys().set_user_name(self.named_user.clone()).into_paginator().send();
        let (mut keys, mut user, mut count) = (Vec::new(), self.named_user.clone(), 0);
        while let Some(page) = pages.next().await {
            count += 1;
            if count > PAGES {
                return Err(Error::Aws { what: WHAT, code: "no end of pages".to_owned() });
            }
            let page = page
                .map_err(|error| self.error(WHAT, "iam:ListAccessKeys", user.as_deref(), &error))?;
            for metadata in page.access_key_metadata {
                if let Some(name) = metadata.user_name.filter(|name| !name.is_empty()) {
                    user = Some(name);
                }
                let id = metadata.access_key_id.as_deref().and_then(AccessKeyId::parse);
                // A key without a date counts as made now: its age is not known, so it is not due
                // for it.
                let created = metadata.create_date.as_ref().and_then(timestamp);
                let Some(id) = id else { continue };
                let active = metadata.status == Some(StatusType::Active);
                keys.push(Key {
                    id,
                    active,
                    created: created.unwrap_or_else(Timestamp::now),
                    used: None,
                });
            }
        }
        let user = match user {
            Some(user) => user,
            None => self.own_user().await?,
        };
        keys.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        Ok(Listing { user, keys, date: self.tally.date().unwrap_or_else(Timestamp::now) })
    }

    /// The user whose key signs; a role or the root user is none.
    async fn own_user(&self) -> Result<String, Error> {
        let identity = self.identity().await?;
        match identity.user() {
            Some(user) => Ok(user.to_owned()),
            None => Err(Error::NoUser { root: identity.arn.ends_with(":root") }),
        }
    }

    /// Who signs, as STS says. The call needs no permission.
    pub async fn identity(&self) -> Result<Identity, Error> {
        let sts = self.sts(self.credentials().await?, RetryConfig::standard());
        who(&sts).await.map_err(|error| {
            self.error("asking STS who signs", "sts:GetCallerIdentity", None, &error)
        })
    }

    /// Makes a key for the user. Definite rejections that may pass are repeated; an ambiguous reply
    /// never is.
    pub async fn create(
        &self,
        user: &str,
        may_act: impl AsyncFn() -> Result<(), Fenced>,
    ) -> Result<CreatedKey, CreateFailure> {
        const WHAT: &str = "creating a new access key";
        let try_once = async || {
            may_act().await.map_err(|why| CreateFailure::Refused(Error::ClaimLost(why)))?;
            let iam = self.iam(false).await.map_err(CreateFailure::Refused)?;
            match iam.create_access_key().user_name(user).send().await {
                Ok(reply) => created_key(reply.access_key).ok_or(CreateFailure::Unclear),
                Err(error) if is_ambiguous(&error) => Err(CreateFailure::Unclear),
                Err(error) => Err(CreateFailure::Refused(self.error(
                    WHAT,
                    "iam:CreateAccessKey",
                    Some(user),
                    &error,
                ))),
            }
        };
        let may_pass = |failure: &CreateFailure| {
            matches!(failure, CreateFailure::Refused(Error::Throttled { .. }))
        };
        try_once.retry(schedule()).when(may_pass).await
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
    ) -> Result<(), Error> {
        let started = Boottime::now();
        let mut successes = 0;
        loop {
            match self.who_is(id, secret).await {
                Ok(identity) => {
                    let same_account = account.is_none_or(|account| account == identity.account);
                    if !same_account
                        || !identity.user().is_some_and(|name| name.eq_ignore_ascii_case(user))
                    {
                        return Err(Error::AnotherPrincipal {
                            user: user.to_owned(),
                            arn: identity.arn,
                        });
                    }
                    successes += 1;
                    if successes == SUCCESSES {
                        return Ok(());
                    }
                }
                Err(error @ Error::ClockWrong { .. }) => return Err(error),
                // A young key is not known everywhere yet; a connection that fails says nothing
                // about it.
                Err(error) => {
                    tracing::debug!("not yet: {error}");
                    successes = 0;
                }
            }
            if started.elapsed() + VERIFY_PAUSE >= timeout {
                return Err(Error::NotVerifiable { key: id.clone(), seconds: timeout.as_secs() });
            }
            tokio::time::sleep(VERIFY_PAUSE).await;
        }
    }

    /// Which of these keys a secret belongs to, as STS says.
    pub async fn whose(
        &self,
        secret: &SecretString,
        candidates: &[AccessKeyId],
    ) -> Result<Option<AccessKeyId>, Error> {
        for id in candidates {
            match self.who_is(id, secret).await {
                Ok(_) => return Ok(Some(id.clone())),
                Err(Error::KeyRefused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// One `GetCallerIdentity` with this pair, on a connection of its own.
    async fn who_is(&self, id: &AccessKeyId, secret: &SecretString) -> Result<Identity, Error> {
        let sts =
            self.sts(SharedCredentialsProvider::new(pair(id, secret)), RetryConfig::disabled());
        who(&sts).await.map_err(|error| {
            self.error(
                "checking a key with its own credentials",
                "sts:GetCallerIdentity",
                None,
                &error,
            )
        })
    }

    /// When the key was last used. Advisory: IAM may report hours late.
    pub async fn last_use(&self, id: &AccessKeyId) -> Result<Use, Error> {
        let iam = self.iam(true).await?;
        let reply = iam.get_access_key_last_used().access_key_id(id.full()).send().await;
        let user = self.named_user.as_deref();
        let reply = reply.map_err(|error| {
            self.error("asking when a key was last used", "iam:GetAccessKeyLastUsed", user, &error)
        })?;
        let used = reply
            .access_key_last_used
            .and_then(|used| Some((timestamp(used.last_used_date.as_ref()?)?, used.service_name)));
        Ok(used.map_or(Use::Never, |(when, service)| Use::At { when, service }))
    }

    /// Disables the key: reversible, and harmless when repeated.
    pub async fn disable(
        &self,
        user: &str,
        id: &AccessKeyId,
        may_act: impl AsyncFn() -> Result<(), Fenced>,
    ) -> Result<(), Error> {
        const WHAT: &str = "disabling an access key";
        let try_once = async || {
            may_act().await.map_err(Error::ClaimLost)?;
            let call = self
                .iam(false)
                .await?
                .update_access_key()
                .user_name(user)
                .access_key_id(id.full())
                .status(StatusType::Inactive);
            match call.send().await {
                Ok(_) => Ok(()),
                Err(error) => Err(self.error(WHAT, "iam:UpdateAccessKey", Some(user), &error)),
            }
        };
        try_once.retry(schedule()).when(|error| self.may_pass(error)).await
    }

    /// Deletes the key; one that is gone already counts as deleted, where the list says so too.
    pub async fn delete(
        &self,
        user: &str,
        id: &AccessKeyId,
        may_act: impl AsyncFn() -> Result<(), Fenced>,
    ) -> Result<(), Error> {
        const WHAT: &str = "deleting an access key";
        let try_once = async || {
            may_act().await.map_err(Error::ClaimLost)?;
            match self
                .iam(false)
                .await?
                .delete_access_key()
                .user_name(user)
                .access_key_id(id.full())
                .send()
                .await
            {
                Ok(_) => Ok(()),
                Err(error) if error.code() == Some("NoSuchEntity") => {
                    let is_there = self.list().await?.keys.iter().any(|key| key.id == *id);
                    if is_there {
                        Err(Error::Aws { what: WHAT, code: "NoSuchEntity".to_owned() })
                    } else {
                        Ok(())
                    }
                }
                Err(error) => Err(self.error(WHAT, "iam:DeleteAccessKey", Some(user), &error)),
            }
        };
        try_once.retry(schedule()).when(|error| self.may_pass(error)).await
    }

    /// For effects that are harmless when repeated.
    fn may_pass(&self, error: &Error) -> bool {
        match error {
            Error::Throttled { .. } => true,
            Error::AwsUnreachable { connect_error, .. } => connect_error.may_pass(),
            Error::Aws { code, .. } => {
                code.starts_with("HTTP 5") || code == "ServiceFailure" || code == "InternalFailure"
            }
            // A verified key that signs in the old one's place may still be young somewhere.
            Error::KeyRefused { .. } => self.active_credentials().instead.is_some(),
            _ => false,
        }
    }

    fn active_credentials(&self) -> std::sync::MutexGuard<'_, ActiveCredentials> {
        self.active_credentials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn iam(&self, retries: bool) -> Result<aws_sdk_iam::Client, Error> {
        let retry = if retries {
            RetryConfig::standard().with_max_attempts(4)
        } else {
            RetryConfig::disabled()
        };
        let config = aws_sdk_iam::config::Builder::from(&self.sdk)
            .credentials_provider(self.credentials().await?)
            .retry_config(retry)
            .interceptor(self.tally.of(Service::Iam));
        Ok(aws_sdk_iam::Client::from_conf(config.build()))
    }

    /// A client of its own, and with it a connection of its own.
    fn sts(
        &self,
        credentials: SharedCredentialsProvider,
        retry: RetryConfig,
    ) -> aws_sdk_sts::Client {
        let config = aws_sdk_sts::config::Builder::from(&self.sdk)
            .credentials_provider(credentials)
            .retry_config(retry)
            .interceptor(self.tally.of(Service::Sts));
        aws_sdk_sts::Client::from_conf(config.build())
    }

    /// The credentials that sign now.
    async fn credentials(&self) -> Result<SharedCredentialsProvider, Error> {
        if let Some(instead) = &self.active_credentials().instead {
            return Ok(SharedCredentialsProvider::new(instead.clone()));
        }
        match &self.credential_source {
            CredentialSource::Environment => self.environment().await,
            CredentialSource::Roles { arns, id_token } => self.session(arns, id_token).await,
        }
    }

    async fn environment(&self) -> Result<SharedCredentialsProvider, Error> {
        let nothing = || Error::NoAwsCredentials { advice: CredentialAdvice::NoVariables };
        let provider = self.sdk.credentials_provider().ok_or_else(nothing)?;
        if self.active_credentials().environment.is_none() {
            let credentials = provider.provide_credentials().await.map_err(|error| {
                let profile = std::env::var_os("AWS_PROFILE").is_some_and(|name| !name.is_empty());
                if profile {
                    Error::ProfileMissing
                } else {
                    drop(error);
                    nothing()
                }
            })?;
            self.active_credentials().environment = AccessKeyId::parse(credentials.access_key_id());
        }
        Ok(provider)
    }

    /// The session of the last role of the chain, renewed while the ID token lives.
    async fn session(
        &self,
        arns: &[String],
        id_token: &SecretString,
    ) -> Result<SharedCredentialsProvider, Error> {
        if let Some((credentials, since, life)) = &self.active_credentials().session
            && since.elapsed() + RENEW_BEFORE < *life
        {
            return Ok(SharedCredentialsProvider::new(credentials.clone()));
        }
        let mut credentials = None;
        let mut life = Duration::MAX;
        for arn in arns {
            let session = match credentials.take() {
                None => self.assume_by_token(arn, id_token).await?,
                Some(previous) => self.assume(arn, previous).await?,
            };
            let left = session
                .expiry()
                .and_then(|end| end.duration_since(std::time::SystemTime::now()).ok());
            life = life.min(left.unwrap_or(Duration::from_secs(3600)));
            credentials = Some(session);
        }
        let credentials =
            credentials.ok_or(Error::NoAwsCredentials { advice: CredentialAdvice::NoVariables })?;
        self.active_credentials().session = Some((credentials.clone(), Boottime::now(), life));
        Ok(SharedCredentialsProvider::new(credentials))
    }

    async fn assume_by_token(
        &self,
        arn: &str,
        id_token: &SecretString,
    ) -> Result<Credentials, Error> {
        let config =
            aws_sdk_sts::config::Builder::from(&self.sdk).interceptor(self.tally.of(Service::Sts));
        let sts = aws_sdk_sts::Client::from_conf(config.build());
        let call =
            sts.assume_role_with_web_identity().role_arn(arn).role_session_name(SESSION_NAME);
        let reply = call.web_identity_token(id_token.expose_secret()).send().await;
        let reply = reply.map_err(|error| self.role_error(arn, &error))?;
        session(reply.credentials).ok_or_else(|| role_refused(arn, RoleRefusal::Denied))
    }

    async fn assume(&self, arn: &str, previous: Credentials) -> Result<Credentials, Error> {
        let sts = self.sts(SharedCredentialsProvider::new(previous), RetryConfig::standard());
        let reply = sts.assume_role().role_arn(arn).role_session_name(SESSION_NAME).send().await;
        let reply = reply.map_err(|error| self.role_error(arn, &error))?;
        session(reply.credentials).ok_or_else(|| role_refused(arn, RoleRefusal::Denied))
    }

    fn role_error<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static>(
        &self,
        arn: &str,
        error: &SdkError<E>,
    ) -> Error {
        match error.code() {
            Some("AccessDenied" | "AccessDeniedException") => {
                role_refused(arn, RoleRefusal::Denied)
            }
            Some("ExpiredTokenException" | "ExpiredToken") => Error::IdTokenEnded,
            Some("InvalidIdentityToken" | "InvalidIdentityTokenException") => {
                let no_provider =
                    error.message().is_some_and(|text| text.contains("No OpenIDConnect provider"));
                role_refused(
                    arn,
                    if no_provider { RoleRefusal::NoProvider } else { RoleRefusal::TokenInvalid },
                )
            }
            _ => self.error("assuming the role", "sts:AssumeRole", None, error),
        }
    }

    /// What an error of the SDK means. Texts choose the hint only; the code decides.
    fn error<E>(
        &self,
        what: &'static str,
        action: &'static str,
        user: Option<&str>,
        error: &SdkError<E>,
    ) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let message = error.message().unwrap_or_default();
        let user = user.map(str::to_owned);
        let skew = || {
            let date = self.tally.date().unwrap_or_else(Timestamp::now);
            Error::ClockWrong { seconds: Timestamp::now().duration_since(date).as_secs() }
        };
        let key = || self.signing_key();
        let session = std::env::var_os("AWS_SESSION_TOKEN").is_some_and(|token| !token.is_empty())
            && matches!(self.credential_source, CredentialSource::Environment);
        let refused = |wrong_secret| Error::KeyRefused { what, key: key(), wrong_secret, session };
        match error.code() {
            Some("SignatureDoesNotMatch")
                if ["expired", "not yet current"].iter().any(|text| message.contains(text)) =>
            {
                skew()
            }
            Some("RequestTimeTooSkewed" | "RequestExpired") => skew(),
            Some("SignatureDoesNotMatch") => refused(true),
            Some("InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure") => {
                refused(false)
            }
            // A role's session ends with the ID token; temporary credentials of the environment are
            // nobody's to renew.
            Some("ExpiredToken" | "ExpiredTokenException")
                if matches!(self.credential_source, CredentialSource::Environment) =>
            {
                refused(false)
            }
            Some("ExpiredToken" | "ExpiredTokenException") => Error::IdTokenEnded,
            Some("AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation") => {
                Error::IamDenied {
                    action,
                    user,
                    explicit: message.contains("explicit deny"),
                    session,
                }
            }
            Some("ValidationError") if message.contains("non-User credentials") => {
                Error::NoUser { root: false }
            }
            Some("NoSuchEntity" | "NoSuchEntityException") => {
                Error::UserNotFound { user: user.unwrap_or_default() }
            }
            Some("LimitExceeded" | "LimitExceededException") => {
                Error::KeyLimit { user: user.unwrap_or_default() }
            }
            Some(
                "Throttling"
                | "ThrottlingException"
                | "RequestLimitExceeded"
                | "TooManyRequestsException",
            ) => Error::Throttled { what },
            Some(code) => Error::Aws {
                what,
                code: code.chars().filter(char::is_ascii_alphanumeric).take(64).collect(),
            },
            None => match error {
                SdkError::DispatchFailure(failure) => {
                    let cause = failure
                        .as_connector_error()
                        .map_or(ConnectError::Other, |cause| ConnectError::of(cause));
                    Error::AwsUnreachable { what, host: self.tally.host(), connect_error: cause }
                }
                SdkError::TimeoutError(_) => Error::AwsUnreachable {
                    what,
                    host: self.tally.host(),
                    connect_error: ConnectError::TimedOut,
                },
                SdkError::ResponseError(_)
                | SdkError::ServiceError(_)
                | SdkError::ConstructionFailure(_)
                | _ => {
                    let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
                    let how = if (200..300).contains(&status) {
                        "with a reply that is none of its own"
                    } else {
                        "without a reason"
                    };
                    Error::Aws { what, code: format!("HTTP {status} {how}") }
                }
            },
        }
    }
}

impl Identity {
    /// The name of the user: the last segment of its ARN, whatever its path.
    pub fn user(&self) -> Option<&str> {
        let (_, path) = self.arn.split_once(":user/")?;
        path.rsplit('/').next()
    }
}

async fn who(
    sts: &aws_sdk_sts::Client,
) -> Result<Identity, SdkError<aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityError>>
{
    let reply = sts.get_caller_identity().send().await?;
    Ok(Identity { account: reply.account.unwrap_or_default(), arn: reply.arn.unwrap_or_default() })
}

/// Whether the request may have had its effect: anything but a 4xx of the service and a connection
/// that was never made.
fn is_ambiguous<E>(error: &SdkError<E>) -> bool {
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

fn pair(id: &AccessKeyId, secret: &SecretString) -> Credentials {
    Credentials::new(id.full(), secret.expose_secret(), None, None, "pair")
}

fn schedule() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_times(5)
        .with_jitter()
}

fn role_refused(arn: &str, why: RoleRefusal) -> Error {
    Error::RoleRefused { role: arn.to_owned(), why }
}

fn timestamp(date: &DateTime) -> Option<Timestamp> {
    Timestamp::new(date.secs(), i32::try_from(date.subsec_nanos()).ok()?)
        .ok()
        .filter(|date| is_plausible(*date))
}

fn created_key(key: Option<aws_sdk_iam::types::AccessKey>) -> Option<CreatedKey> {
    let key = key?;
    let created = key.create_date.as_ref().and_then(timestamp).unwrap_or_else(Timestamp::now);
    let secret = SecretString::from(key.secret_access_key);
    Some(CreatedKey { id: AccessKeyId::parse(&key.access_key_id)?, created, secret })
}

fn session(credentials: Option<aws_sdk_sts::types::Credentials>) -> Option<Credentials> {
    let got = credentials?;
    let expiry = std::time::SystemTime::try_from(got.expiration).ok();
    Some(Credentials::new(
        got.access_key_id,
        got.secret_access_key,
        Some(got.session_token),
        expiry,
        "role",
    ))
}

/// Counts calls, keeps the servers' clock, and takes no reply that is none of theirs.
#[derive(Clone, Debug, Default)]
struct Tally {
    iam: Arc<AtomicU32>,
    sts: Arc<AtomicU32>,
    date: Arc<Mutex<Option<Timestamp>>>,
    host: Arc<Mutex<String>>,
}

#[derive(Clone, Copy, Debug)]
enum Service {
    Iam,
    Sts,
}

#[derive(Debug)]
struct Counter {
    tally: Tally,
    service: Service,
}

impl Tally {
    fn of(&self, service: Service) -> Counter {
        Counter { tally: self.clone(), service }
    }

    /// The `Date` of the latest reply. Whole seconds.
    fn date(&self) -> Option<Timestamp> {
        *self.date.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host(&self) -> String {
        self.host.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[dyn_dispatch_hint]
impl Intercept for Counter {
    fn name(&self) -> &'static str {
        "Counter"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let counter = match self.service {
            Service::Iam => &self.tally.iam,
            Service::Sts => &self.tally.sts,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let host = context.request().uri().split('/').nth(2).unwrap_or_default().to_owned();
        *self.tally.host.lock().unwrap_or_else(PoisonError::into_inner) = host;
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date").and_then(parse_date) {
            *self.tally.date.lock().unwrap_or_else(PoisonError::into_inner) = Some(date);
        }
        let body = std::mem::replace(context.response_mut().body_mut(), SdkBody::taken());
        *context.response_mut().body_mut() =
            SdkBody::from_body_1_x(Limited::new(body, REPLY_LIMIT));
        // IAM and STS say 200 where they have done something; the SDK would take any other 2xx for
        // it too.
        match context.response().status().as_u16() {
            status @ 201..=299 => Err(format!("HTTP {status} is no success of AWS").into()),
            _ => Ok(()),
        }
    }
}
