//! The clients of IAM and STS: time-outs, retries, who signs, and what counts the calls.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_iam::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_iam::primitives::DateTime;
use jiff::Timestamp;
use secrecy::SecretString;

use super::meter::{Meter, Service};
use crate::access_key::AccessKeyId;
use crate::config::{Config, CredentialSource};
use crate::fence::Boottime;
use crate::net::{connect_timeout, is_plausible};

pub struct Aws {
    pub(super) sdk: SdkConfig,
    pub(super) credential_source: CredentialSource,
    /// The user that the configuration names.
    pub(super) named_user: Option<String>,
    pub(super) meter: Meter,
    pub(super) active_credentials: Mutex<ActiveCredentials>,
    pub(super) environment_secret: Option<SecretString>,
    /// The account of whoever signs, once STS has told it.
    pub(super) account: OnceLock<String>,
    /// How long a young key may be refused.
    pub(super) verify_timeout: Duration,
}

/// Who may sign, strongest first.
#[derive(Default)]
pub(super) struct ActiveCredentials {
    /// The new key, once the old one is to be retired by it; or a torn pair's own.
    pub(super) instead: Option<Credentials>,
    pub(super) session: Option<Session>,
    /// The id of the environment's pair.
    pub(super) environment: Option<AccessKeyId>,
    /// The keys that not every host of AWS may know yet.
    pub(super) young: BTreeSet<AccessKeyId>,
}

pub(super) struct Session {
    pub(super) credentials: Credentials,
    pub(super) since: Boottime,
    pub(super) life: Duration,
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
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        let sdk = match &config.credential_source {
            CredentialSource::Environment { .. } => loader.load().await,
            // Nothing is ever signed with keys of the environment then.
            CredentialSource::Roles { .. } => loader.no_credentials().load().await,
        };
        Self {
            sdk,
            credential_source: config.credential_source.clone(),
            named_user: config.iam_user.clone(),
            meter: Meter::default(),
            active_credentials: Mutex::default(),
            environment_secret,
            account: OnceLock::new(),
            verify_timeout: config.verify_timeout,
        }
    }

    /// Calls sent to IAM and to STS so far, each try counted.
    pub fn calls(&self) -> (u32, u32) {
        (self.meter.calls(Service::Iam), self.meter.calls(Service::Sts))
    }

    pub(super) fn iam(&self, credentials: SharedCredentialsProvider) -> aws_sdk_iam::Client {
        let config = aws_sdk_iam::config::Builder::from(&self.sdk)
            .credentials_provider(credentials)
            .interceptor(self.meter.of(Service::Iam));
        aws_sdk_iam::Client::from_conf(config.build())
    }

    /// A client of its own, and with it a connection of its own.
    pub(super) fn sts(&self, credentials: SharedCredentialsProvider) -> aws_sdk_sts::Client {
        let config = aws_sdk_sts::config::Builder::from(&self.sdk)
            .credentials_provider(credentials)
            .interceptor(self.meter.of(Service::Sts));
        aws_sdk_sts::Client::from_conf(config.build())
    }
}

pub(super) fn timestamp(date: &DateTime) -> Option<Timestamp> {
    Timestamp::new(date.secs(), i32::try_from(date.subsec_nanos()).ok()?)
        .ok()
        .filter(|date| is_plausible(*date))
}
