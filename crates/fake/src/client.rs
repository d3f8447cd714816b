//! A client for tests, as small as can be: one request, one connection.

use std::time::{Duration, SystemTime};

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Fake;
use super::aws::Pair;
use super::clock::wall;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// One request on a connection of its own. `Err` where no whole answer came back.
pub async fn http(
    url: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, String> {
    let host = url.strip_prefix("http://").ok_or("plain http only")?;
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("\r\n{body}");
    let mut stream = TcpStream::connect(host).await.map_err(|error| error.to_string())?;
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
    parse(&String::from_utf8_lossy(&bytes))
}

fn parse(text: &str) -> Result<Answer, String> {
    let (head, body) = text.split_once("\r\n\r\n").ok_or("no answer")?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or("no status")?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let answer = Answer { status, headers, body: body.to_owned() };
    match answer.header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) if length != answer.body.len() => {
            Err(format!("{} bytes of {length}", answer.body.len()))
        }
        _ => Ok(answer),
    }
}

/// The headers of a call of the query protocol, signed `skew` seconds off the real clock.
pub fn signed(
    url: &str,
    service: &str,
    pair: &Pair,
    form: &str,
    skew: i64,
) -> Vec<(String, String)> {
    let host = url.split("//").nth(1).unwrap_or_default();
    let kind = "application/x-www-form-urlencoded";
    let credentials = aws_credential_types::Credentials::new(
        &pair.id,
        &pair.secret,
        pair.token.clone(),
        None,
        "fake",
    );
    let identity = credentials.into();
    let time = SystemTime::UNIX_EPOCH
        + Duration::from_millis(u64::try_from(wall() + skew * 1000).unwrap_or(0));
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name(service)
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .expect("complete parameters")
        .into();
    let uri = format!("{url}/");
    let headers = [("host", host), ("content-type", kind)];
    let request = SignableRequest::new(
        "POST",
        &uri,
        headers.into_iter(),
        SignableBody::Bytes(form.as_bytes()),
    )
    .expect("a request");
    let (instructions, _) = sign(request, &parameters).expect("a signature").into_parts();
    let (signed, _) = instructions.into_parts();
    let mut headers = vec![("content-type".to_owned(), kind.to_owned())];
    headers
        .extend(signed.iter().map(|header| (header.name().to_owned(), header.value().to_owned())));
    headers
}

impl Fake {
    /// Signs and sends `Action=…` with `pair`. For the fake this is a caller like any other.
    pub async fn aws(&self, service: &str, pair: &Pair, form: &str) -> Result<Answer, String> {
        self.aws_with(service, pair, form, 0, &[]).await
    }

    pub async fn aws_with(
        &self,
        service: &str,
        pair: &Pair,
        form: &str,
        skew: i64,
        extra: &[(&str, &str)],
    ) -> Result<Answer, String> {
        let version = if service == "sts" { "2011-06-15" } else { "2010-05-08" };
        let form = format!("{form}&Version={version}");
        let headers = signed(&self.url, service, pair, &form, skew);
        let mut headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.extend(extra);
        http(&self.url, "POST", "/", &headers, &form).await
    }

    /// Calls GitLab with the fake's own token: `fake.gitlab("GET", "/projects/42/variables",
    /// "")`. The body is a form, or JSON where it begins with `{`.
    pub async fn gitlab(&self, method: &str, path: &str, body: &str) -> Result<Answer, String> {
        self.gitlab_as(&self.token, method, path, body).await
    }

    pub async fn gitlab_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Answer, String> {
        let prefix = self.lock().lab.api();
        let kind = if body.starts_with('{') {
            "application/json"
        } else {
            "application/x-www-form-urlencoded"
        };
        http(
            &self.url,
            method,
            &format!("{prefix}{path}"),
            &[("private-token", token), ("content-type", kind)],
            body,
        )
        .await
    }

    /// Signs a real STS call with `pair`, unseen by faults, chaos and invariants; `Err` says how it was
    /// refused.
    pub async fn signs(&self, pair: &Pair) -> Result<(), String> {
        let skew = self.lock().shift / 1000;
        let answer = self
            .aws_with("sts", pair, "Action=GetCallerIdentity", skew, &[("x-fake-harness", "1")])
            .await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(format!("{}: {}", answer.status, answer.body))
        }
    }

    /// Signs a real STS call with the pair that the last successful deploy of this project has
    /// read.
    pub async fn production_signs(&self, project: u64) -> Result<(), String> {
        let pairs = self.productions(project);
        if pairs.is_empty() {
            return Err(format!("nothing of project {project} has ever been deployed"));
        }
        for (environment, pair) in pairs {
            self.signs(&pair).await.map_err(|error| {
                format!("production {environment} of {project} with {}: {error}", pair.id)
            })?;
        }
        Ok(())
    }
}
