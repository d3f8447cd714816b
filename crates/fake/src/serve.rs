//! The server, its faults and its chaos: the way from a request to its answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, Response};
use percent_encoding::percent_decode_str;
use tokio::sync::oneshot;

use super::clock::http_date;
use super::line::{Away, Line, Lines, Port};
use super::outside::acceptor;
use super::state::{Entry, Fault, OnKill, State};
use super::{aws, front};

/// One request, read whole.
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The body, where it is a form.
    pub(crate) form: Vec<(String, String)>,
    pub(crate) connection: u64,
    /// The test's own call: not counted, no fault, no chaos, never a violation.
    pub(crate) harness: bool,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) effect: bool,
}

/// What becomes of a call.
enum Outcome {
    Answer(Reply, Duration),
    Misdated(Reply, i64),
    ThenRefuse(Reply, Duration),
    Truncate(Reply),
    Endless(&'static str),
    Close,
    Hang,
    Kill(Option<OnKill>),
}

pub(crate) struct Server {
    pub(crate) port: u16,
    stop: Option<oneshot::Sender<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

impl Server {
    /// On a thread and a runtime of its own: a test may block as it likes.
    pub(crate) fn start(state: Arc<Mutex<State>>, tls: Option<&(String, String)>) -> Self {
        let port = Port::reserve();
        let number = port.number;
        let tls = tls.map(|(chain, key)| acceptor(chain, key));
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Whoever asks the fake next is to find it there.
        let listener = {
            let _entered = runtime.enter();
            port.listen()
        };
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let (lines, away) = Lines::open(port, listener, tls);
                let router =
                    Router::new().fallback(move |line: ConnectInfo<Line>, request: Request| {
                        let (state, away) = (Arc::clone(&state), away.clone());
                        async move { handle(&state, line.0, &away, request).await }
                    });
                let service = router.into_make_service_with_connect_info::<Line>();
                tokio::select! {
                    _ = axum::serve(lines, service) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port: number, stop: Some(stop) }
    }
}

async fn handle(
    state: &Arc<Mutex<State>>,
    line: Line,
    away: &Away,
    request: Request,
) -> Response<Body> {
    let Some(call) = read(request, line.number).await else {
        line.cut();
        return Response::new(Body::empty());
    };
    let (outcome, ahead, (close, no_date)) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let knobs = (state.knobs.close_connections, state.knobs.no_date);
        let ahead = if state.lab.serves(&call) { state.knobs.gitlab_ahead } else { 0 };
        (state.take(&call), ahead, knobs)
    };
    let mut response = answer(state, &line, away, outcome, ahead).await;
    if no_date {
        // Without one the server would add its own.
        response.headers_mut().insert("date", http::HeaderValue::from_static("none"));
    }
    if close {
        response.headers_mut().insert("connection", http::HeaderValue::from_static("close"));
    }
    response
}

async fn answer(
    state: &Arc<Mutex<State>>,
    line: &Line,
    away: &Away,
    outcome: Outcome,
    ahead: i64,
) -> Response<Body> {
    let dated = |state: &Arc<Mutex<State>>, ahead: i64| {
        http_date(state.lock().unwrap_or_else(PoisonError::into_inner).now() + ahead * 1000)
    };
    let date = |state| dated(state, ahead);
    match outcome {
        Outcome::Misdated(reply, seconds) => reply.into_response(&dated(state, seconds)),
        Outcome::Answer(reply, delay) => {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            reply.into_response(&date(state))
        }
        Outcome::ThenRefuse(reply, time) => {
            away.go(time).await;
            reply.into_response(&date(state))
        }
        Outcome::Truncate(reply) => {
            line.cut_body_after(reply.body.len() / 2);
            reply.into_response(&date(state))
        }
        Outcome::Endless(text) => {
            let chunk = axum::body::Bytes::from(text.repeat(65_536 / text.len()));
            let body = futures_util::stream::repeat_with(move || {
                Ok::<_, std::convert::Infallible>(chunk.clone())
            });
            Response::builder()
                .header("date", date(state))
                .body(Body::from_stream(body))
                .expect("a valid response")
        }
        Outcome::Close => {
            line.cut();
            Response::new(Body::empty())
        }
        Outcome::Hang => std::future::pending().await,
        Outcome::Kill(on_kill) => {
            if let Some(on_kill) = on_kill {
                on_kill();
            }
            line.cut();
            Response::new(Body::empty())
        }
    }
}

async fn read(request: Request, connection: u64) -> Option<Call> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.ok()?.to_vec();
    let is_form = aws::text(&parts.headers, "content-type")
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    let form = if is_form { pairs(&String::from_utf8_lossy(&body)) } else { Vec::new() };
    Some(Call {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        harness: parts.headers.contains_key("x-fake-harness"),
        headers: parts.headers,
        body,
        form,
        connection,
    })
}

/// Decodes `a=b&c=d`.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    let decode =
        |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

impl State {
    /// Everything that a call does, and what the caller gets to know of it.
    fn take(&mut self, call: &Call) -> Outcome {
        self.advance();
        let is_gitlab = self.lab.serves(call);
        let (service, action, what) =
            if is_gitlab { front::action_of(&self.lab, call) } else { aws::action_of(call) };
        self.who.clear();
        let seq = self.log.len() + 1;
        let mut n = None;
        let mut fault = None;
        let mut chaos = None;
        let mut delay = Duration::ZERO;
        if !call.harness {
            self.counted += 1;
            n = Some(self.counted);
            fault = self.fault_for(self.counted, &action, &what, seq);
            if fault.is_none() {
                chaos = self.chaos(service, &call.method);
            }
            if self.knobs.delay_ms > 0 {
                delay = Duration::from_millis(self.rng.u64(0..=self.knobs.delay_ms));
            }
        }
        // The place is taken first, so that what follows from the call comes after it in the log.
        let named = fault.as_ref().or(chaos.as_ref()).map(|fault| format!("{fault:?}"));
        let (at, connection) = (self.now(), call.connection);
        self.log.push(Entry {
            seq,
            n,
            at,
            service: service.into(),
            action,
            who: String::new(),
            what,
            status: 0,
            effect: false,
            connection,
            fault: named,
        });

        let fault = fault.or(chaos);
        let reply = match &fault {
            Some(fault) if fault.spares_effect() => None,
            _ => Some(if is_gitlab { self.gitlab(call) } else { self.aws(call) }),
        };
        let effect = reply.as_ref().is_some_and(|reply| reply.effect);
        let outcome = match (fault, reply) {
            (None, Some(reply)) if reply.status == 0 => Outcome::Close,
            (None, Some(reply)) => Outcome::Answer(reply, delay),
            (
                Some(
                    Fault::Refuse { status, body, headers }
                    | Fault::Instead { status, body, headers },
                ),
                _,
            ) => Outcome::Answer(Reply::refusal(service, status, body, headers), delay),
            (Some(Fault::Html(status)), _) => Outcome::Answer(
                Reply::html(status, "<html><body><h1>Bad Gateway</h1></body></html>"),
                delay,
            ),
            (Some(Fault::Misdate { seconds }), Some(reply)) => Outcome::Misdated(reply, seconds),
            (Some(Fault::Truncate), Some(reply)) if reply.body.len() > 1 => {
                Outcome::Truncate(reply)
            }
            (Some(Fault::ThenRefuse { ms }), Some(reply)) => {
                Outcome::ThenRefuse(reply, Duration::from_millis(ms))
            }
            (Some(Fault::Endless(text)), _) => Outcome::Endless(text),
            (Some(Fault::Hang { .. }), _) => Outcome::Hang,
            (Some(Fault::KillBefore | Fault::KillAfter), _) => Outcome::Kill(self.on_kill.clone()),
            (Some(_), _) | (None, None) => Outcome::Close,
        };
        let status = match &outcome {
            Outcome::Answer(reply, _)
            | Outcome::Misdated(reply, _)
            | Outcome::ThenRefuse(reply, _)
            | Outcome::Truncate(reply) => reply.status,
            _ => 0,
        };
        let who = std::mem::take(&mut self.who);
        let entry = &mut self.log[seq - 1];
        (entry.status, entry.effect, entry.who) = (status, effect, who);
        outcome
    }

    /// The chaos of a hostile fake.
    fn chaos(&mut self, service: &str, method: &str) -> Option<Fault> {
        let knobs = self.knobs.clone();
        match (service, method) {
            ("iam", _) if self.chance(knobs.iam_throttling) => {
                Some(Fault::Refuse { status: 400, body: String::new(), headers: Vec::new() })
            }
            ("gitlab", "GET" | "PUT") if self.chance(knobs.gitlab_429) => Some(Fault::Refuse {
                status: 429,
                body: "Retry later\n".into(),
                headers: vec![("Retry-After".into(), "1".into())],
            }),
            ("gitlab", "GET") if self.chance(knobs.gitlab_502) => Some(Fault::Html(502)),
            ("gitlab", "PUT") if self.chance(knobs.gitlab_502) => {
                let body = "<html><body><h1>502</h1>Whoops, GitLab is taking too much time to \
                     respond.</body></html>"
                    .to_owned();
                if self.rng.bool() {
                    Some(Fault::Html(502))
                } else {
                    Some(Fault::Instead { status: 502, body, headers: Vec::new() })
                }
            }
            _ => None,
        }
    }
}

impl Reply {
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        let body = if status == 204 { Vec::new() } else { body.to_string().into_bytes() };
        Self { status, headers: Vec::new(), content_type: "application/json", body, effect: false }
    }

    pub(crate) fn html(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            content_type: "text/html; charset=utf-8",
            body: body.into(),
            effect: false,
        }
    }

    pub(crate) fn with_effect(mut self) -> Self {
        self.effect = true;
        self
    }

    /// The manner of the service, unless the test gives a body.
    fn refusal(service: &str, status: u16, body: String, headers: Vec<(String, String)>) -> Self {
        let (content_type, own) = match service {
            "gitlab" if status == 429 => ("text/plain", "Retry later\n".to_owned()),
            "gitlab" => (
                "application/json",
                serde_json::json!({ "message": format!("{status} {}", reason(status)) })
                    .to_string(),
            ),
            _ => ("text/xml", {
                let code = match status {
                    400 | 429 => "Throttling",
                    401 | 403 => "AccessDenied",
                    404 => "NoSuchEntity",
                    409 => "LimitExceeded",
                    503 => "ServiceUnavailable",
                    _ => "InternalFailure",
                };
                let message = if code == "Throttling" {
                    "Rate exceeded"
                } else {
                    "The fake refuses this call"
                };
                format!(
                    "<ErrorResponse \
                     xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>0</RequestId></ErrorResponse>"
                )
            }),
        };
        let content_type = if body.trim_start().starts_with('<') && service == "gitlab" {
            "text/html"
        } else {
            content_type
        };
        let body = if body.is_empty() { own } else { body };
        Self { status, headers, content_type, body: body.into(), effect: false }
    }

    fn into_response(self, date: &str) -> Response<Body> {
        let mut response = Response::builder().status(self.status).header("date", date);
        let has_type =
            self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        if self.status != 204 && !has_type {
            response = response.header("content-type", self.content_type);
        }
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        response.body(Body::from(self.body)).expect("a valid response")
    }
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error")
}
