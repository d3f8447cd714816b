//! What IAM and STS share: principals, credentials, the query protocol and SigV4.

use axum::http::HeaderMap;
use sha2::{Digest, Sha256};

use super::clock::{Millis, compact, parse_compact, wall};
use super::iam::{Key, User};
use super::policy::Statement;
use super::serve::{Call, Reply};
use super::state::State;

pub(crate) struct Aws {
    pub(crate) account: String,
    pub(crate) partition: String,
    pub(crate) users: Vec<User>,
    pub(crate) keys: Vec<Key>,
    pub(crate) roles: Vec<Role>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) id_tokens: Vec<IdToken>,
}

/// An access key id and its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    pub id: String,
    pub secret: String,
    /// Of temporary credentials only.
    pub token: Option<String>,
}

pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) trust: Trust,
    pub(crate) seconds: i64,
    pub(crate) policy: Vec<Statement>,
}

/// Who may assume a role.
#[derive(Clone, Debug)]
pub enum Trust {
    /// An ID token with this audience and subject (`*` stands for anything).
    WebIdentity { aud: String, sub: String },
    /// The role or user with this ARN.
    Principal(String),
}

pub(crate) struct IdToken {
    pub(crate) token: String,
    pub(crate) aud: String,
    pub(crate) sub: String,
    pub(crate) ends: Millis,
}

pub(crate) struct Session {
    pub(crate) pair: Pair,
    pub(crate) principal: Principal,
    pub(crate) ends: Millis,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    User(String),
    Root,
    /// Role and session name.
    Role(String, String),
    /// From `GetSessionToken` without MFA: works everywhere but in IAM.
    UserSession(String),
}

#[derive(Debug)]
pub(crate) struct AwsError {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

pub(crate) fn fail<T>(
    status: u16,
    code: &'static str,
    message: impl Into<String>,
) -> Result<T, AwsError> {
    Err(AwsError { status, code, message: message.into() })
}

pub(crate) fn invalid_token<T>() -> Result<T, AwsError> {
    fail(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
}

impl Aws {
    pub(crate) fn new(partition: &str) -> Self {
        Self {
            account: "123456789012".into(),
            partition: partition.into(),
            users: Vec::new(),
            keys: Vec::new(),
            roles: Vec::new(),
            sessions: Vec::new(),
            id_tokens: Vec::new(),
        }
    }

    pub(crate) fn arn(&self, principal: &Principal) -> String {
        let (partition, account) = (&self.partition, &self.account);
        match principal {
            Principal::User(name) | Principal::UserSession(name) => self.user_arn(name),
            Principal::Root => format!("arn:{partition}:iam::{account}:root"),
            Principal::Role(role, session) => {
                format!("arn:{partition}:sts::{account}:assumed-role/{role}/{session}")
            }
        }
    }

    pub(crate) fn user_arn(&self, name: &str) -> String {
        let path = self.user(name).map_or("/", |user| &user.path);
        format!("arn:{}:iam::{}:user{path}{name}", self.partition, self.account)
    }

    pub(crate) fn role_arn(&self, name: &str) -> String {
        format!("arn:{}:iam::{}:role/{name}", self.partition, self.account)
    }
}

/// The action of a call, with its service, as the log names it.
pub(crate) fn action_of(call: &Call) -> (&'static str, String, String) {
    let parameter = |name: &str| {
        call.form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    };
    let service = if parameter("Version") == "2011-06-15" { "sts" } else { "iam" };
    let what = ["UserName", "AccessKeyId", "Status", "RoleArn"].map(parameter).join(" ");
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    (service, format!("{service}:{}", parameter("Action")), what)
}

impl State {
    /// One call of the query protocol.
    pub(crate) fn aws(&mut self, call: &Call) -> Reply {
        let (service, action, _) = action_of(call);
        let name = action.split_once(':').map_or("", |(_, name)| name).to_owned();
        let mut effect = false;
        let result = match (call.method.as_str(), call.path.as_str(), service) {
            ("POST", "/", "sts") => self.sts(call, &name, &mut effect),
            ("POST", "/", _) => self.iam(call, &name, &mut effect),
            _ => fail(400, "InvalidAction", "Could not find operation"),
        };
        let namespace = match service {
            "sts" => "https://sts.amazonaws.com/doc/2011-06-15/",
            _ => "https://iam.amazonaws.com/doc/2010-05-08/",
        };
        let id = format!("{:032x}", self.rng.u128(..));
        let (status, body) = match result {
            Ok(result) => (
                200,
                format!(
                    "<{name}Response \
                     xmlns=\"{namespace}\">{result}<ResponseMetadata><RequestId>{id}</RequestId></ResponseMetadata></{name}Response>"
                ),
            ),
            Err(error) => (
                error.status,
                format!(
                    "<ErrorResponse \
                     xmlns=\"{namespace}\"><Error><Type>Sender</Type><Code>{}</Code><Message>{}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>",
                    error.code,
                    xml(&error.message)
                ),
            ),
        };
        Reply {
            status,
            headers: vec![("x-amzn-RequestId".into(), id)],
            content_type: "text/xml",
            body: body.into(),
            effect,
        }
    }

    /// Who signed this, if it is well signed.
    pub(crate) fn authenticate(
        &mut self,
        call: &Call,
        service: &str,
    ) -> Result<Principal, AwsError> {
        let Some(header) = text(&call.headers, "authorization") else {
            return fail(
                403,
                "MissingAuthenticationToken",
                "Request is missing Authentication Token",
            );
        };
        let Some(signed) = Signed::parse(header) else {
            return fail(
                400,
                "IncompleteSignature",
                "Authorization header requires 'Credential' parameter.",
            );
        };
        self.who = signed.key.into();
        let (secret, principal) = self.credential(call, signed.key)?;
        if !call.harness && self.is_young(signed.key) && self.chance(self.knobs.forgets) {
            return invalid_token();
        }
        let Some(date) = text(&call.headers, "x-amz-date").and_then(parse_compact) else {
            return fail(
                400,
                "IncompleteSignature",
                "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' \
                 header.",
            );
        };
        let (now, limit) = (self.now(), 5 * 60 * 1000);
        if date < now - limit {
            let message = format!(
                "Signature expired: {} is now earlier than {} ({} - 5 min.)",
                compact(date),
                compact(now - limit),
                compact(now)
            );
            return fail(403, "SignatureDoesNotMatch", message);
        }
        if date > now + limit {
            let message = format!(
                "Signature not yet current: {} is still later than {} ({} + 5 min.)",
                compact(date),
                compact(now + limit),
                compact(now)
            );
            return fail(403, "SignatureDoesNotMatch", message);
        }
        if signed.service != service {
            return fail(
                403,
                "SignatureDoesNotMatch",
                format!("Credential should be scoped to correct service: '{service}'. "),
            );
        }
        if signed.expected(call, date, &secret).as_deref() != Some(signed.signature) {
            return fail(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. \
                 Check your AWS Secret Access Key and signing method. Consult the service \
                 documentation for details.",
            );
        }
        self.used(signed.key, service, signed.region);
        self.who = format!("{} {}", signed.key, self.aws.arn(&principal));
        Ok(principal)
    }

    fn credential(&self, call: &Call, id: &str) -> Result<(String, Principal), AwsError> {
        let token = text(&call.headers, "x-amz-security-token");
        if let Some(session) = self.aws.sessions.iter().find(|session| session.pair.id == id) {
            if token != session.pair.token.as_deref() {
                return invalid_token();
            }
            if self.now() >= session.ends {
                return fail(
                    403,
                    "ExpiredToken",
                    "The security token included in the request is expired",
                );
            }
            return Ok((session.pair.secret.clone(), session.principal.clone()));
        }
        let Some(key) = self.aws.keys.iter().find(|key| key.id == id && !key.deleted && key.active)
        else {
            return invalid_token();
        };
        if token.is_some() || self.unseen(key, call.connection) {
            return invalid_token();
        }
        Ok((key.secret.clone(), key.owner.clone()))
    }

    /// Whether the eventually consistent part of AWS behind this connection does not know the key
    /// yet.
    pub(crate) fn unseen(&self, key: &Key, connection: u64) -> bool {
        connection != 0
            && wall() < key.visible_after
            && self.hash(connection, &key.id) % 100 < u64::from(self.knobs.invisible_share)
    }

    /// Made by a caller in the last ten minutes.
    fn is_young(&self, id: &str) -> bool {
        let since = self.now() - 10 * 60 * 1000;
        self.aws.key(id).is_some_and(|key| key.visible_after > 0 && key.created > since)
    }

    fn used(&mut self, id: &str, service: &str, region: &str) {
        let now = self.now();
        if let Some(key) = self.aws.keys.iter_mut().find(|key| key.id == id) {
            key.uses.push((now, service.into(), region.into()));
        }
    }
}

/// The parts of an `Authorization` header.
struct Signed<'a> {
    key: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Signed<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let rest = header.strip_prefix("AWS4-HMAC-SHA256")?;
        let part = |name: &str| {
            rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        };
        let scope: Vec<&str> = part("Credential")?.split('/').collect();
        let [key, day, region, service, "aws4_request"] = scope[..] else { return None };
        let headers = part("SignedHeaders")?.split(';').collect();
        Some(Self { key, day, region, service, headers, signature: part("Signature")? })
    }

    /// The signature this request should have, computed from what really arrived.
    fn expected(&self, call: &Call, date: Millis, secret: &str) -> Option<String> {
        if !self.headers.contains(&"host") || !compact(date).starts_with(self.day) {
            return None;
        }
        let security = "x-amz-security-token";
        if call.headers.contains_key(security) && !self.headers.contains(&security) {
            return None;
        }
        let mut headers = String::new();
        for name in &self.headers {
            let values: Vec<String> = call
                .headers
                .get_all(*name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .map(squeeze)
                .collect();
            headers += &format!("{name}:{}\n", values.join(","));
        }
        let mut query: Vec<&str> = call.query.split('&').filter(|part| !part.is_empty()).collect();
        query.sort_unstable();
        let canonical = [
            call.method.as_str(),
            &call.path,
            &query.join("&"),
            &headers,
            &self.headers.join(";"),
            &hex::encode(Sha256::digest(&call.body)),
        ]
        .join("\n");
        let scope = format!("{}/{}/{}/aws4_request", self.day, self.region, self.service);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
            compact(date),
            hex::encode(Sha256::digest(&canonical))
        );
        let time =
            std::time::UNIX_EPOCH + std::time::Duration::from_millis(u64::try_from(date).ok()?);
        let key =
            aws_sigv4::sign::v4::generate_signing_key(secret, time, self.region, self.service);
        Some(aws_sigv4::sign::v4::calculate_signature(key, to_sign.as_bytes()))
    }
}

fn squeeze(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(crate) fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
