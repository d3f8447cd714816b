//! The way to GitLab: our own client under the `gitlab` crate's endpoints.
//!
//! House rules. No redirect is followed, and no link to a next page that leads away, for the token
//! would follow it to another host. A reply's body is read for the reason of a refusal and dropped:
//! no text of it enters an error. Only what is safe to repeat is repeated, and before each try of
//! anything but a GET the [`Fence`] is asked whether this run may still act.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use gitlab::api::{self, AsyncQuery, Endpoint, Pageable, Pagination, RestClient};
use http::header::{DATE, LINK, LOCATION, RETRY_AFTER};
use jiff::{SignedDuration, Timestamp, Unit};
use reqwest::{Certificate, Method, StatusCode, Url};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::{CaFile, Config};
use crate::error::Error;
use crate::fence::{Boottime, Fence, Fenced};
use crate::net::ConnectError;
use crate::net::connect_timeout;
use crate::net::parse_date;
use crate::record::JobRef;

pub mod variables;

/// A reply larger than this is not one of GitLab's: 100 variables of 10,000 characters, each
/// escaped, are 6 MB; 100 jobs carry their commit's message.
const REPLY_LIMIT: usize = 32 << 20;
/// No list is longer: GitLab lets a project have 8,000 variables and a group 30,000.
const LIST_LIMIT: usize = 40_000;
/// All pages of a list together.
const PAGES_LIMIT: usize = 64 << 20;
/// Longer than this no reply may make us wait before the next try.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const TRIES: usize = 5;

pub struct Gitlab {
    http: reqwest::Client,
    api: Url,
    token: SecretString,
    clock: Mutex<Option<(Timestamp, Boottime)>>,
    calls: AtomicU32,
    pub fence: Fence,
}

/// What became of a request.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("GitLab cannot be reached")]
    Unreachable(ConnectError),
    /// Sent, but no reply that could be read: whether it had its effect is unknown.
    #[error("GitLab's reply was lost")]
    Lost,
    #[error("GitLab refused ({status})")]
    /// `doubt`: an earlier try of the same request had no clear end.
    Denied { status: u16, kind: ApiErrorKind, pause: Option<Duration>, doubt: bool },
    #[error("the reply is not one of GitLab's API")]
    Garbled,
    #[error("this run may not act any more")]
    Fenced(Fenced),
}

/// Why GitLab said no, read off the status and the texts that its source gives; an unknown text is
/// `Other`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiErrorKind {
    TokenInvalid,
    TokenExpired,
    TokenScope,
    TokenGranular,
    Blocked,
    Archived,
    ReadOnly,
    Forbidden,
    NotFound,
    Moved,
    Redirected,
    AlreadyExists,
    Unmaskable,
    RateLimited,
    PipelineEmpty,
    PipelineWorkflow,
    PipelineRef,
    PipelinePermission,
    PipelineVariables,
    PipelineInputs,
    PipelineOther,
    NotRetryable,
    Server,
    Other,
}

impl Gitlab {
    /// # Errors
    /// A CA file that was named and cannot be used; no root certificates at all.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let roots = config.gitlab_ca.as_ref().map(roots).transpose()?.unwrap_or_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("credential-rotator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(config.http_timeout)
            .connect_timeout(connect_timeout(config.http_timeout))
            .tls_certs_merge(roots)
            .build()
            .map_err(|_| Error::NoRoots)?;
        Ok(Self {
            http,
            api: config.gitlab_url.clone(),
            token: config.gitlab_token.clone(),
            clock: Mutex::new(None),
            calls: AtomicU32::new(0),
            fence: Fence::new(config),
        })
    }

    /// GitLab's clock: the `Date` of its latest reply and the time since. `None` before the first
    /// reply.
    pub fn now(&self) -> Option<Timestamp> {
        let clock = self.clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        clock
            .map(|(date, at)| date + at.elapsed())
            .and_then(|now| now.round(Unit::Millisecond).ok())
    }

    /// How far the runner's clock is from GitLab's.
    pub fn skew(&self) -> SignedDuration {
        self.now().map(|now| Timestamp::now().duration_since(now)).unwrap_or_default()
    }

    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    pub fn host(&self) -> String {
        self.api.host_str().unwrap_or_default().to_owned()
    }

    pub async fn ask<T: DeserializeOwned + 'static>(
        &self,
        endpoint: impl Endpoint + Sync + Send,
    ) -> Result<T, ApiError> {
        Ok(endpoint.query_async(self).await?)
    }

    /// Every page of a list.
    pub async fn list<T: DeserializeOwned + Send + 'static>(
        &self,
        endpoint: impl Endpoint + Pageable + Sync + Send,
    ) -> Result<Vec<T>, ApiError> {
        let pages = Pages { gitlab: self, received: AtomicUsize::new(0) };
        let list: Vec<T> =
            api::paged(endpoint, Pagination::Limit(LIST_LIMIT)).query_async(&pages).await?;
        if list.len() < LIST_LIMIT { Ok(list) } else { Err(ApiError::Garbled) }
    }

    /// For endpoints whose reply has no body.
    pub async fn tell(&self, endpoint: impl Endpoint + Sync + Send) -> Result<(), ApiError> {
        Ok(api::ignore(endpoint).query_async(self).await?)
    }

    /// Whether this run may still act: asked before each try of an effect, here and at IAM.
    pub async fn may_act(&self) -> Result<(), Fenced> {
        let Some(job) = self.fence.wants_to_see(self.now())? else { return Ok(()) };
        let asked = Boottime::now();
        match self.job(job).await {
            Ok(Some(state)) if state.status == "running" => self.fence.saw_running(asked),
            Ok(Some(_)) => return Err(Fenced::JobEnded),
            Ok(None) => self.fence.cannot_see(),
            // Without a word from GitLab the run may act no longer than on its last one.
            Err(_) => return Err(Fenced::Unseen),
        }
        Ok(())
    }

    /// A job's state; `None` where GitLab does not show it to this token.
    pub async fn job(&self, job: JobRef) -> Result<Option<JobState>, ApiError> {
        let endpoint =
            api::projects::jobs::Job::builder().project(job.project).job(job.job).build();
        match self.ask(endpoint.map_err(|_| ApiError::Garbled)?).await {
            Ok(state) => Ok(Some(state)),
            Err(ApiError::Denied { status: 403 | 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        headers: &http::HeaderMap,
        body: &[u8],
    ) -> Result<http::Response<Bytes>, ApiError> {
        if *method != Method::GET {
            Box::pin(self.may_act()).await.map_err(ApiError::Fenced)?;
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        let request = self
            .http
            .request(method.clone(), url.clone())
            .headers(headers.clone())
            .body(body.to_vec());
        let mut response = request
            .header("PRIVATE-TOKEN", self.token.expose_secret())
            .send()
            .await
            .map_err(|error| api_error(&error))?;
        self.note_date(response.headers());
        let mut whole = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| ApiError::Lost)? {
            if whole.len() + chunk.len() > REPLY_LIMIT {
                return Err(ApiError::Garbled);
            }
            whole.extend_from_slice(&chunk);
        }
        let status = response.status();
        if !status.is_success() {
            let pause = pause(response.headers());
            let kind = kind(status, response.headers(), &whole);
            return Err(ApiError::Denied { status: status.as_u16(), kind, pause, doubt: false });
        }
        // A record that is not gone would be deleted again and again.
        if *method == Method::DELETE && status != StatusCode::NO_CONTENT {
            return Err(ApiError::Garbled);
        }
        let mut reply = http::Response::builder().status(status);
        if let Some(headers) = reply.headers_mut() {
            *headers = response.headers().clone();
        }
        reply.body(Bytes::from(whole)).map_err(|_| ApiError::Garbled)
    }

    fn note_date(&self, headers: &http::HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(parse_date);
        let Some(date) = date else { return };
        // Dates are whole seconds: the latest moment that any reply has shown is the best that is
        // known, and never goes back.
        let known = self.now();
        if known.is_none_or(|known| known < date) {
            *self.clock.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                Some((date, Boottime::now()));
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct JobState {
    pub status: String,
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
}

impl JobState {
    /// Words that we do not know are alive.
    pub fn ended(&self) -> bool {
        matches!(self.status.as_str(), "success" | "failed" | "canceled" | "skipped")
    }
}

impl RestClient for Gitlab {
    type Error = ApiError;

    fn rest_endpoint(&self, endpoint: &str) -> Result<Url, api::ApiError<Self::Error>> {
        Ok(Url::parse(&format!("{}/{endpoint}", self.api.as_str().trim_end_matches('/')))?)
    }
}

#[async_trait::async_trait]
impl api::AsyncClient for Gitlab {
    async fn rest_async(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<http::Response<Bytes>, api::ApiError<ApiError>> {
        let request = request.body(()).map_err(|_| api::ApiError::client(ApiError::Garbled))?;
        let url = Url::parse(&request.uri().to_string())?;
        let idempotent = *request.method() != Method::POST;
        let schedule = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_times(TRIES - 1)
            .with_jitter();
        let doubt = AtomicBool::new(false);
        let sent = (|| self.send(request.method(), &url, request.headers(), &body))
            .retry(schedule)
            .notify(|error: &ApiError, _| {
                doubt.fetch_or(error.is_ambiguous(), Ordering::Relaxed);
            })
            .when(|error| error.is_worth_another_try(idempotent))
            .adjust(|error, pause| match (error, pause) {
                (ApiError::Denied { pause: Some(asked), .. }, Some(_))
                    if *asked > LONGEST_PAUSE =>
                {
                    None
                }
                (ApiError::Denied { pause: Some(asked), .. }, Some(pause)) => {
                    Some(pause.max(*asked))
                }
                (_, pause) => pause,
            })
            .await;
        sent.map_err(|error| {
            api::ApiError::client(if doubt.into_inner() { error.doubted() } else { error })
        })
    }
}

/// The pages of one list, as many as fit into memory.
struct Pages<'a> {
    gitlab: &'a Gitlab,
    received: AtomicUsize,
}

impl RestClient for Pages<'_> {
    type Error = ApiError;

    fn rest_endpoint(&self, endpoint: &str) -> Result<Url, api::ApiError<Self::Error>> {
        self.gitlab.rest_endpoint(endpoint)
    }
}

#[async_trait::async_trait]
impl api::AsyncClient for Pages<'_> {
    async fn rest_async(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<http::Response<Bytes>, api::ApiError<ApiError>> {
        let mut page = self.gitlab.rest_async(request, body).await?;
        let before = self.received.fetch_add(page.body().len(), Ordering::Relaxed);
        if before > PAGES_LIMIT {
            return Err(api::ApiError::client(ApiError::Garbled));
        }
        // The `gitlab` crate follows the link of a list that goes by keys wherever it leads.
        if let Some(next) = next_page(page.headers()) {
            let link = self.at_home(&next).and_then(|url| {
                http::HeaderValue::from_str(&format!("<{url}>; rel=\"next\"")).ok()
            });
            page.headers_mut()
                .insert(LINK, link.ok_or_else(|| api::ApiError::client(ApiError::Garbled))?);
        }
        Ok(page)
    }
}

/// The address of the next page in the `Link` headers.
fn next_page(headers: &http::HeaderMap) -> Option<String> {
    headers.get_all(LINK).iter().find_map(|links| {
        String::from_utf8_lossy(links.as_bytes()).split('<').find_map(|link| {
            let (address, what) = link.split_once('>')?;
            what.replace('"', "").contains("rel=next").then(|| address.to_owned())
        })
    })
}

impl Pages<'_> {
    /// The same path and query at the address of this API: the token goes nowhere else, and GitLab
    /// may know itself by another name.
    fn at_home(&self, address: &str) -> Option<Url> {
        let there = Url::parse(address).ok().filter(|url| url.has_host())?;
        let mut here = self.gitlab.api.clone();
        here.set_path(there.path());
        here.set_query(there.query());
        here.as_str().parse::<http::Uri>().is_ok().then_some(here)
    }
}

impl ApiError {
    /// The same, after a try that may have had its effect.
    fn doubted(self) -> Self {
        match self {
            Self::Denied { status, kind, pause, .. } => {
                Self::Denied { status, kind, pause, doubt: true }
            }
            Self::Unreachable(_) | Self::Lost => Self::Lost,
            Self::Garbled | Self::Fenced(_) => self,
        }
    }

    /// Whether the request may have had its effect.
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Self::Lost | Self::Garbled => true,
            Self::Denied { status, doubt, .. } => *doubt || *status >= 500 || *status == 408,
            Self::Unreachable(_) | Self::Fenced(_) => false,
        }
    }

    fn is_worth_another_try(&self, idempotent: bool) -> bool {
        match self {
            Self::Unreachable(connect_error) => connect_error.may_pass(),
            Self::Denied { kind: ApiErrorKind::RateLimited, .. } => true,
            Self::Denied { kind: ApiErrorKind::ReadOnly, .. } => false,
            Self::Denied { .. } | Self::Lost => idempotent && self.is_ambiguous(),
            Self::Garbled | Self::Fenced(_) => false,
        }
    }

    pub fn kind(&self) -> Option<&ApiErrorKind> {
        match self {
            Self::Denied { kind, .. } => Some(kind),
            Self::Unreachable(_) | Self::Lost | Self::Garbled | Self::Fenced(_) => None,
        }
    }
}

impl From<api::ApiError<Self>> for ApiError {
    fn from(error: api::ApiError<Self>) -> Self {
        match error {
            api::ApiError::Client { source } => source,
            // A success that is not JSON, or not of the type: the crate's error carries the body
            // and ends here.
            _ => Self::Garbled,
        }
    }
}

fn api_error(error: &reqwest::Error) -> ApiError {
    if error.is_connect() {
        return ApiError::Unreachable(ConnectError::of(error));
    }
    ApiError::Lost
}

/// What `Retry-After` (seconds or a date) or `RateLimit-Reset` (Unix time) ask for.
fn pause(headers: &http::HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let until = |moment: Timestamp| {
        Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or_default()
    };
    let after = text(RETRY_AFTER.as_str()).and_then(|text| match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => parse_date(text).map(until),
    });
    after.or_else(|| {
        let reset = text("ratelimit-reset")?.parse::<i64>().ok()?;
        Timestamp::from_second(reset).ok().map(until)
    })
}

/// Texts from GitLab's own source and its API documentation; only the hint depends on them.
fn kind(status: StatusCode, headers: &http::HeaderMap, body: &[u8]) -> ApiErrorKind {
    let text = String::from_utf8_lossy(&body[..body.len().min(4096)]).to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let json = body.first() == Some(&b'{');
    match status.as_u16() {
        301..=308
            if headers
                .get(LOCATION)
                .and_then(|to| to.to_str().ok())
                .is_some_and(|to| to.contains("/api/v4/projects/")) =>
        {
            ApiErrorKind::Moved
        }
        300..=399 => ApiErrorKind::Redirected,
        400 | 422 if says(&["has already been taken"]) => ApiErrorKind::AlreadyExists,
        400 if says(&[
            "would have been empty",
            "will not run for the selected trigger",
            "no stages / jobs",
        ]) =>
        {
            ApiErrorKind::PipelineEmpty
        }
        400 if says(&["workflow:rules", "workflow rules"]) => ApiErrorKind::PipelineWorkflow,
        400 if says(&["reference not found", "missing ci config"]) => ApiErrorKind::PipelineRef,
        400 if says(&[
            "insufficient permissions to set pipeline variables",
            "pipeline variables",
        ]) =>
        {
            ApiErrorKind::PipelineVariables
        }
        400 if says(&["permission to run a pipeline", "permission to create a new pipeline"]) => {
            ApiErrorKind::PipelinePermission
        }
        400 if says(&["input"]) => ApiErrorKind::PipelineInputs,
        400 if says(&["\"value\"", "masked"]) => ApiErrorKind::Unmaskable,
        401 if says(&["expired"]) => ApiErrorKind::TokenExpired,
        401 => ApiErrorKind::TokenInvalid,
        403 if says(&["insufficient_granular_scope"]) => ApiErrorKind::TokenGranular,
        403 if says(&["insufficient_scope"]) => ApiErrorKind::TokenScope,
        403 if says(&["blocked", "deactivated"]) => ApiErrorKind::Blocked,
        403 if says(&["archived"]) => ApiErrorKind::Archived,
        403 if says(&["not retryable"]) => ApiErrorKind::NotRetryable,
        403 | 503 if says(&["read-only", "maintenance"]) => ApiErrorKind::ReadOnly,
        403 if json => ApiErrorKind::Forbidden,
        404 if json => ApiErrorKind::NotFound,
        405 if json => ApiErrorKind::Moved,
        403..=405 => ApiErrorKind::Redirected,
        429 => ApiErrorKind::RateLimited,
        500..=599 => ApiErrorKind::Server,
        _ => ApiErrorKind::Other,
    }
}

/// The certificates of a PEM file, one by one: an unusable one is left out.
fn roots(file: &CaFile) -> Result<Vec<Certificate>, Error> {
    let unusable = || Error::CaFile { path: file.path.display().to_string() };
    let mut store = rustls::RootCertStore::empty();
    let mut certificates = Vec::new();
    let bytes = match std::fs::read(&file.path) {
        Ok(bytes) => bytes,
        Err(_) if file.named => return Err(unusable()),
        Err(_) => return Ok(Vec::new()),
    };
    for der in CertificateDer::pem_slice_iter(&bytes).flatten() {
        if store.add(der.clone()).is_ok() {
            certificates.extend(Certificate::from_der(&der));
        }
    }
    if certificates.is_empty() && file.named {
        return Err(unusable());
    }
    Ok(certificates)
}
