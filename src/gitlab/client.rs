//! The client: HTTP under the `gitlab` crate's endpoints, with time-outs, retries, bounds and
//! GitLab's clock.
//!
//! Rules: the client follows no redirect, and no link to a next page on another host, because the
//! request carries the token. It reads a reply's body only to classify a refusal. No text of a
//! reply enters an error. It repeats only requests that are safe to repeat. Before each try of
//! anything but a GET it asks the [`Fence`] whether this run may still act.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use gitlab::api::{self, AsyncQuery, Endpoint, Pageable, Pagination, RestClient};
use http::header::{DATE, LINK};
use jiff::{SignedDuration, Timestamp, Unit};
use reqwest::{Certificate, Method, StatusCode, Url};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use super::error::{ApiError, ClientError, kind, pause};
use crate::clock::ServerClock;
use crate::config::{CaFile, Config};
use crate::fence::{Boottime, Fence, Fenced};
use crate::net::{ConnectError, connect_timeout, parse_date};
use crate::record::JobRef;

/// The largest reply that the client reads. 100 variables of 10,000 characters, each escaped, are 6
/// MB, and 100 jobs contain their commits' messages.
const REPLY_LIMIT: usize = 32 << 20;
/// The longest list: GitLab allows a project 8,000 variables and a group 30,000.
const LIST_LIMIT: usize = 40_000;
/// The largest size of all pages of a list together.
const PAGES_LIMIT: usize = 64 << 20;
/// The longest that a reply may make the client wait before the next try.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const TRIES: usize = 5;

pub struct Gitlab {
    http: reqwest::Client,
    api: Url,
    token: SecretString,
    version: Option<String>,
    /// When a job was first seen to have ended, of which GitLab does not say when.
    ended: Mutex<BTreeMap<JobRef, Timestamp>>,
    clock: ServerClock,
    calls: AtomicU32,
    pub fence: Fence,
}

impl Gitlab {
    /// # Errors
    /// A CA file that was named and cannot be used; no root certificates at all.
    pub fn new(config: &Config) -> Result<Self, ClientError> {
        let roots = config.gitlab_ca.as_ref().map(roots).transpose()?.unwrap_or_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("credential-rotator/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(config.http_timeout)
            .connect_timeout(connect_timeout(config.http_timeout))
            .tls_certs_merge(roots)
            .build()
            .map_err(|_| ClientError::NoRoots)?;
        Ok(Self {
            http,
            api: config.gitlab_url.clone(),
            token: config.gitlab_token.clone(),
            version: config.gitlab_version.clone(),
            ended: Mutex::new(BTreeMap::new()),
            clock: ServerClock::default(),
            calls: AtomicU32::new(0),
            fence: Fence::new(config),
        })
    }

    /// GitLab's clock: the `Date` of its latest reply and the time since. `None` before the first
    /// reply.
    pub fn now(&self) -> Option<Timestamp> {
        self.clock.now().and_then(|now| now.round(Unit::Millisecond).ok())
    }

    /// How far the runner's clock is from GitLab's.
    pub fn skew(&self) -> SignedDuration {
        self.now().map(|now| Timestamp::now().duration_since(now)).unwrap_or_default()
    }

    pub(super) fn first_seen_ended(&self, job: JobRef, now: Timestamp) -> Timestamp {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        *ended.entry(job).or_insert(now)
    }

    pub fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    fn host(&self) -> String {
        self.api.host_str().unwrap_or_default().to_owned()
    }

    pub(super) async fn query<T: DeserializeOwned + 'static>(
        &self,
        endpoint: impl Endpoint + Sync + Send,
    ) -> Result<T, ApiError> {
        endpoint.query_async(self).await.map_err(|error| ApiError::of(error, || self.host()))
    }

    /// Every page of a list.
    pub(super) async fn query_all<T: DeserializeOwned + Send + 'static>(
        &self,
        endpoint: impl Endpoint + Pageable + Sync + Send,
    ) -> Result<Vec<T>, ApiError> {
        let pages = Pages { gitlab: self, received: AtomicUsize::new(0) };
        let list: Vec<T> = api::paged(endpoint, Pagination::Limit(LIST_LIMIT))
            .query_async(&pages)
            .await
            .map_err(|error| ApiError::of(error, || self.host()))?;
        if list.len() < LIST_LIMIT { Ok(list) } else { Err(self.garbled()) }
    }

    /// For endpoints whose reply has no body, or one that does not matter.
    pub(super) async fn query_empty(
        &self,
        endpoint: impl Endpoint + Sync + Send,
    ) -> Result<(), ApiError> {
        let reply = api::ignore(endpoint).query_async(self).await;
        reply.map_err(|error| ApiError::of(error, || self.host()))
    }

    /// Whether this run may still act: asked before each try of an effect, here and at IAM.
    pub async fn may_act(&self) -> Result<(), Fenced> {
        let Some(job) = self.fence.wants_to_see(self.now())? else { return Ok(()) };
        let asked = Boottime::now();
        match self.job_state(job).await {
            Ok(Some(state)) if state.status.has_ended() => return Err(Fenced::JobEnded),
            // This process runs, whatever else GitLab says of its job: an old answer is `pending`,
            // and a job that is being canceled has a few seconds left.
            Ok(Some(_)) => self.fence.saw_alive(asked),
            Ok(None) => self.fence.cannot_see(),
            // Without a word from GitLab the run may act no longer than on its last one.
            Err(_) => return Err(Fenced::Unseen),
        }
        Ok(())
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
            .map_err(|error| self.unsent_or_lost(&error))?;
        self.note_date(response.headers());
        let mut whole = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| self.lost())? {
            if whole.len() + chunk.len() > REPLY_LIMIT {
                return Err(self.garbled());
            }
            whole.extend_from_slice(&chunk);
        }
        let status = response.status();
        if !status.is_success() {
            let kind = kind(method, url.path(), status, response.headers(), &whole);
            let kind = kind.explained_by(self.version.as_deref());
            let pause = pause(response.headers()).or_else(|| kind.pause());
            return Err(ApiError::Denied { status: status.as_u16(), kind, pause, doubt: false });
        }
        // A record that is not gone would be deleted again and again.
        if *method == Method::DELETE && status != StatusCode::NO_CONTENT {
            return Err(self.garbled());
        }
        let mut reply = http::Response::builder().status(status);
        if let Some(headers) = reply.headers_mut() {
            *headers = response.headers().clone();
        }
        reply.body(Bytes::from(whole)).map_err(|_| self.garbled())
    }

    fn unsent_or_lost(&self, error: &reqwest::Error) -> ApiError {
        if error.is_connect() {
            let connect_error = ConnectError::of(error);
            return ApiError::Unreachable { host: self.host(), connect_error };
        }
        self.lost()
    }

    fn lost(&self) -> ApiError {
        ApiError::Lost { host: self.host() }
    }

    fn garbled(&self) -> ApiError {
        ApiError::Garbled { host: self.host() }
    }

    fn note_date(&self, headers: &http::HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(parse_date);
        if date.is_some_and(|date| !self.clock.note(date)) {
            // Should the date be right, this machine has stood still without counting it.
            self.fence.forget_alive();
        }
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
        let request = request.body(()).map_err(|_| api::ApiError::client(self.garbled()))?;
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
            return Err(api::ApiError::client(self.gitlab.garbled()));
        }
        // The `gitlab` crate follows the link of a list that goes by keys wherever it leads.
        if let Some(next) = next_page(page.headers()) {
            let link = self.at_home(&next).and_then(|url| {
                http::HeaderValue::from_str(&format!("<{url}>; rel=\"next\"")).ok()
            });
            page.headers_mut()
                .insert(LINK, link.ok_or_else(|| api::ApiError::client(self.gitlab.garbled()))?);
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

/// The certificates of a PEM file, one by one: an unusable one is left out.
fn roots(file: &CaFile) -> Result<Vec<Certificate>, ClientError> {
    let unusable = || ClientError::CaFile { path: file.path.display().to_string() };
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
