//! STS: who signs, and roles by web identity or by another role.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::aws::{AwsError, Pair, Principal, Session, Trust, fail, invalid_token, xml};
use super::clock::{Millis, iso_seconds};
use super::policy::{Decision, decide, glob};
use super::serve::Call;
use super::state::State;

impl State {
    pub(crate) fn sts(
        &mut self,
        call: &Call,
        action: &str,
        effect: &mut bool,
    ) -> Result<String, AwsError> {
        let parameter = |name: &str| {
            call.form.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
        };
        let result = match action {
            "GetCallerIdentity" => {
                let principal = self.credential_source(call)?;
                let id = self.who.split(' ').next().unwrap_or_default().to_owned();
                let (arn, account) = (self.aws.arn(&principal), self.aws.account.clone());
                if !call.harness {
                    self.verified(&id);
                }
                let user_id = match &principal {
                    Principal::Root => account.clone(),
                    Principal::Role(role, session) => format!("AROA{}:{session}", unique(role)),
                    Principal::User(name) | Principal::UserSession(name) => {
                        format!("AIDA{}", unique(name))
                    }
                };
                format!(
                    "<Arn>{}</Arn><UserId>{user_id}</UserId><Account>{account}</Account>",
                    xml(&arn)
                )
            }
            "AssumeRoleWithWebIdentity" => {
                let (arn, session) =
                    (parameter("RoleArn"), valid_session(parameter("RoleSessionName"))?);
                self.check_id_token(arn, parameter("WebIdentityToken"))?;
                *effect = true;
                let credentials = self.open(arn, session, parameter("DurationSeconds"))?;
                format!(
                    "{credentials}<SubjectFromWebIdentityToken>{}</SubjectFromWebIdentityToken>",
                    xml(&subject(parameter("WebIdentityToken")))
                )
            }
            "AssumeRole" => {
                let principal = self.credential_source(call)?;
                let (arn, session) =
                    (parameter("RoleArn"), valid_session(parameter("RoleSessionName"))?);
                self.check_chain(arn, &principal)?;
                *effect = true;
                self.open(arn, session, parameter("DurationSeconds"))?
            }
            _ => {
                return fail(
                    400,
                    "InvalidAction",
                    format!("Could not find operation {action} for version 2011-06-15"),
                );
            }
        };
        Ok(format!("<{action}Result>{result}</{action}Result>"))
    }

    fn credential_source(&mut self, call: &Call) -> Result<Principal, AwsError> {
        if self.knobs.sts_off && !call.harness {
            return invalid_token();
        }
        self.authenticate(call, "sts")
    }

    fn verified(&mut self, id: &str) {
        if let Some(key) = self.aws.keys.iter_mut().find(|key| key.id == id) {
            key.verified = true;
        }
    }

    fn check_id_token(&self, arn: &str, token: &str) -> Result<(), AwsError> {
        let Some(issued) = self.aws.id_tokens.iter().find(|issued| issued.token == token) else {
            return fail(
                400,
                "InvalidIdentityToken",
                "The ID Token provided is not a valid JWT. (You may see this error if you sent an \
                 Access Token)",
            );
        };
        if !self.knobs.oidc_provider {
            return fail(
                400,
                "InvalidIdentityToken",
                format!("No OpenIDConnect provider found in your account for {}", self.url),
            );
        }
        let (now, ends) = (self.now() / 1000, issued.ends / 1000);
        if now >= ends {
            return fail(
                400,
                "ExpiredTokenException",
                format!(
                    "Token expired: current date/time {now} must be before the expiration \
                     date/time{ends}"
                ),
            );
        }
        match self.trust(arn) {
            Some(Trust::WebIdentity { aud, sub }) if !glob(aud, &issued.aud) => {
                fail(400, "InvalidIdentityToken", "Incorrect token audience")
            }
            Some(Trust::WebIdentity { sub, .. }) if glob(sub, &issued.sub) => Ok(()),
            _ => {
                fail(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
            }
        }
    }

    fn check_chain(&self, arn: &str, principal: &Principal) -> Result<(), AwsError> {
        let caller = self.aws.arn(principal);
        let (standing, statements, username) = match principal {
            Principal::Role(name, _) => {
                let role = self.aws.roles.iter().find(|role| &role.name == name);
                (
                    self.aws.role_arn(name),
                    role.map_or_else(Vec::new, |role| role.policy.clone()),
                    None,
                )
            }
            Principal::User(name) | Principal::UserSession(name) => (
                caller.clone(),
                self.aws.user(name).map_or_else(Vec::new, |user| user.policy.clone()),
                Some(name.as_str()),
            ),
            Principal::Root => {
                return fail(403, "AccessDenied", "Roles may not be assumed by root accounts.");
            }
        };
        let trusted =
            matches!(self.trust(arn), Some(Trust::Principal(trusted)) if *trusted == standing);
        let denied =
            decide(&statements, "sts:AssumeRole", arn, username) == Decision::ExplicitlyDenied;
        if trusted && !denied {
            return Ok(());
        }
        fail(
            403,
            "AccessDenied",
            format!(
                "User: {caller} is not authorized to perform: sts:AssumeRole on resource: {arn}"
            ),
        )
    }

    fn trust(&self, arn: &str) -> Option<&Trust> {
        self.aws
            .roles
            .iter()
            .find(|role| self.aws.role_arn(&role.name) == arn)
            .map(|role| &role.trust)
    }

    /// New temporary credentials, as XML.
    fn open(&mut self, arn: &str, session: &str, seconds: &str) -> Result<String, AwsError> {
        let asked = match seconds {
            "" => 3600,
            text => match text.parse::<i64>() {
                Ok(seconds) if (900..=43_200).contains(&seconds) => seconds,
                _ => {
                    return fail(
                        400,
                        "ValidationError",
                        "1 validation error detected: Value at 'durationSeconds' failed to satisfy \
                         constraint",
                    );
                }
            },
        };
        let role = self
            .aws
            .roles
            .iter()
            .find(|role| self.aws.role_arn(&role.name) == arn)
            .expect("trusted, so it exists");
        let (name, seconds) = (role.name.clone(), role.seconds.min(asked));
        let ends = self.now() + seconds * 1000;
        let pair = self.session(Principal::Role(name.clone(), session.into()), ends);
        Ok(format!(
            "<Credentials><AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials><AssumedRoleUser><AssumedRoleId>AROA{}:{session}</AssumedRoleId><Arn>{}</Arn></AssumedRoleUser>",
            pair.id,
            pair.secret,
            pair.token.as_deref().unwrap_or_default(),
            iso_seconds(ends),
            unique(&name),
            xml(&self.aws.arn(&Principal::Role(name.clone(), session.into())))
        ))
    }

    pub(crate) fn session(&mut self, principal: Principal, ends: Millis) -> Pair {
        let id = format!("ASIA{}", self.random("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16));
        let secret =
            self.random("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 40);
        let token = self
            .random("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", 120)
            + "==";
        self.keep_secret(&secret);
        self.keep_secret(&token);
        let pair = Pair { id, secret, token: Some(token) };
        self.aws.sessions.push(Session { pair: pair.clone(), principal, ends });
        pair
    }

    pub(crate) fn id_token(&mut self, aud: &str, sub: &str, ends: Millis) -> String {
        let encode = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let header = encode(serde_json::json!({"alg": "RS256", "typ": "JWT", "kid": "fake"}));
        let issued = self.now() / 1000;
        let claims = encode(serde_json::json!({
            "iss": self.url, "aud": aud, "sub": sub, "iat": issued, "nbf": issued - 5, "exp": ends / 1000, "jti": self.rng.u64(..).to_string(),
        }));
        let signature =
            self.random("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", 86);
        let token = format!("{header}.{claims}.{signature}");
        self.keep_secret(&token);
        self.aws.id_tokens.push(super::aws::IdToken {
            token: token.clone(),
            aud: aud.into(),
            sub: sub.into(),
            ends,
        });
        token
    }
}

fn valid_session(name: &str) -> Result<&str, AwsError> {
    let good = |letter: char| letter.is_ascii_alphanumeric() || "_+=,.@-".contains(letter);
    if (2..=64).contains(&name.len()) && name.chars().all(good) {
        return Ok(name);
    }
    fail(
        400,
        "ValidationError",
        format!(
            "1 validation error detected: Value '{name}' at 'roleSessionName' failed to satisfy \
             constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*"
        ),
    )
}

fn subject(token: &str) -> String {
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok())
        .unwrap_or_default();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap_or_default();
    claims["sub"].as_str().unwrap_or_default().to_owned()
}

/// The stable, opaque part of a unique id.
fn unique(name: &str) -> String {
    let sum =
        name.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    format!("{sum:016X}")
}
