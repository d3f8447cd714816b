//! IAM: users and their access keys.

use super::aws::{AwsError, Principal, fail, invalid_token, xml};
use super::clock::{Millis, iso, iso_seconds, wall};
use super::invariants::Mutation;
use super::policy::{Decision, Statement, decide};
use super::serve::Call;
use super::state::{CreateDate, State};

pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) policy: Vec<Statement>,
    /// Beside it: each must allow a call, and none may deny it.
    pub(crate) limits: Vec<Limit>,
}

/// A boundary, an SCP, the quarantine of a leaked key.
pub(crate) struct Limit {
    /// As AWS calls the kind, with the policy's own name where it tells that.
    pub(crate) kind: String,
    pub(crate) statements: Vec<Statement>,
}

pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) owner: Principal,
    pub(crate) active: bool,
    pub(crate) deleted: bool,
    pub(crate) created: Millis,
    /// Real time up to which some connections do not know it.
    pub(crate) visible_after: Millis,
    pub(crate) uses: Vec<(Millis, String, String)>,
    /// Made by a caller of the fake's API, or declared ours by the test.
    pub(crate) ours: bool,
    /// It has signed a `GetCallerIdentity` of a caller, or was there from the start.
    pub(crate) verified: bool,
}

/// A key as the tests see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyView {
    pub id: String,
    pub secret: String,
    pub active: bool,
    /// Milliseconds since 1970, the fake's time.
    pub created: i64,
    pub ours: bool,
}

pub(crate) const SELF_ROTATION: [&str; 5] = [
    "iam:ListAccessKeys",
    "iam:CreateAccessKey",
    "iam:UpdateAccessKey",
    "iam:DeleteAccessKey",
    "iam:GetAccessKeyLastUsed",
];

const ID_LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const SECRET_LETTERS: &str =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789++++++//////";

impl super::aws::Aws {
    /// Names are unique without regard to case.
    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name.eq_ignore_ascii_case(name))
    }

    pub(crate) fn key(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id && !key.deleted)
    }

    fn key_mut(&mut self, id: &str) -> Option<&mut Key> {
        self.keys.iter_mut().find(|key| key.id == id && !key.deleted)
    }
}

impl State {
    pub(crate) fn iam(
        &mut self,
        call: &Call,
        action: &str,
        effect: &mut bool,
    ) -> Result<String, AwsError> {
        let principal = self.authenticate(call, "iam")?;
        if matches!(principal, Principal::UserSession(_)) {
            return invalid_token();
        }
        let parameter = |name: &str| {
            call.form
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
                .filter(|value| !value.is_empty())
        };
        let named_key = parameter("AccessKeyId");
        let owner = match action {
            "GetAccessKeyLastUsed" => match named_key.as_deref().and_then(|id| self.aws.key(id)) {
                Some(key) => key.owner.clone(),
                None => principal.clone(),
            },
            "ListAccessKeys" | "CreateAccessKey" | "UpdateAccessKey" | "DeleteAccessKey"
            | "GetUser" => self.subject(&principal, parameter("UserName"))?,
            _ => {
                return fail(
                    400,
                    "InvalidAction",
                    format!("Could not find operation {action} for version 2010-05-08"),
                );
            }
        };
        self.authorize(&principal, &format!("iam:{action}"), &owner)?;
        let user = match &owner {
            Principal::User(name) => match self.aws.user(name) {
                Some(user) => user.name.clone(),
                None => {
                    return fail(
                        404,
                        "NoSuchEntity",
                        format!("The user with name {name} cannot be found."),
                    );
                }
            },
            _ => String::new(),
        };
        let result = match action {
            "ListAccessKeys" => self.list(
                &owner,
                &user,
                parameter("Marker").as_deref(),
                parameter("MaxItems").as_deref(),
                call.connection,
            )?,
            "CreateAccessKey" => {
                *effect = self.owned(&owner).count() < self.knobs.keys_per_user;
                self.create(&owner, &user)?
            }
            "GetUser" => format!(
                "<User>{}<Path>{}</Path><Arn>{}</Arn></User>",
                user_name(&user),
                xml(&self.path(&user)),
                xml(&self.aws.arn(&owner))
            ),
            _ => {
                let Some(id) = named_key else {
                    return fail(
                        400,
                        "ValidationError",
                        "1 validation error detected: Value null at 'accessKeyId' failed to \
                         satisfy constraint: Member must not be null",
                    );
                };
                if self.aws.key(&id).is_none_or(|key| key.owner != owner) {
                    return fail(
                        404,
                        "NoSuchEntity",
                        format!("The Access Key with id {id} cannot be found."),
                    );
                }
                match action {
                    "GetAccessKeyLastUsed" => self.last_used(&id, &user),
                    "UpdateAccessKey" => {
                        *effect = self.update(&id, parameter("Status").as_deref())?;
                        return Ok(String::new());
                    }
                    _ => {
                        *effect = true;
                        let was_active = self.aws.key(&id).is_some_and(|key| key.active);
                        self.delete_key(&id);
                        self.mutated(&Mutation::KeyDeleted { id, was_active });
                        return Ok(String::new());
                    }
                }
            }
        };
        Ok(format!("<{action}Result>{result}</{action}Result>"))
    }

    /// On whose keys the call acts: the named user's, else the signer's own.
    fn subject(&self, principal: &Principal, named: Option<String>) -> Result<Principal, AwsError> {
        match (named, principal) {
            (Some(name), _) => {
                Ok(Principal::User(self.aws.user(&name).map_or(name, |user| user.name.clone())))
            }
            (None, Principal::User(_) | Principal::Root) => Ok(principal.clone()),
            (None, _) => fail(
                400,
                "ValidationError",
                "Must specify userName when calling with non-User credentials",
            ),
        }
    }

    fn authorize(
        &self,
        principal: &Principal,
        action: &str,
        owner: &Principal,
    ) -> Result<(), AwsError> {
        let (statements, username) = match principal {
            Principal::Root => return Ok(()),
            Principal::User(name) | Principal::UserSession(name) => {
                let user = self.aws.user(name);
                (user.map_or_else(Vec::new, |user| user.policy.clone()), Some(name.as_str()))
            }
            Principal::Role(name, _) => {
                let role = self.aws.roles.iter().find(|role| &role.name == name);
                (role.map_or_else(Vec::new, |role| role.policy.clone()), None)
            }
        };
        let arn = self.aws.arn(owner);
        let limits = username.and_then(|name| self.aws.user(name)).map(|user| &user.limits);
        let limits = limits.into_iter().flatten().map(|limit| (&*limit.kind, &limit.statements));
        let own = ("identity-based policy", &statements);
        let decided: Vec<(&str, Decision)> = limits
            .chain([own])
            .map(|(kind, statements)| (kind, decide(statements, action, &arn, username)))
            .collect();
        // AWS names one kind; an explicit deny comes first.
        let of = |wanted| decided.iter().find(|(_, decision)| *decision == wanted);
        let why = match (of(Decision::ExplicitlyDenied), of(Decision::NotAllowed)) {
            (Some((kind, _)), _) => {
                let article = if kind.starts_with('i') { "an" } else { "a" };
                format!("with an explicit deny in {article} {kind}")
            }
            (None, Some((kind, _))) => format!("because no {kind} allows the {action} action"),
            (None, None) => return Ok(()),
        };
        let subject = match owner {
            Principal::User(name) => format!("user {name}"),
            other => self.aws.arn(other),
        };
        fail(
            403,
            "AccessDenied",
            format!(
                "User: {} is not authorized to perform: {action} on resource: {subject} {why}",
                self.aws.arn(principal)
            ),
        )
    }

    fn owned<'a>(&'a self, owner: &'a Principal) -> impl Iterator<Item = &'a Key> + 'a {
        self.aws.keys.iter().filter(move |key| &key.owner == owner && !key.deleted)
    }

    fn list(
        &self,
        owner: &Principal,
        user: &str,
        marker: Option<&str>,
        max: Option<&str>,
        connection: u64,
    ) -> Result<String, AwsError> {
        let size =
            max.and_then(|max| max.parse().ok()).unwrap_or(100usize).min(self.knobs.iam_page);
        let keys: Vec<&Key> =
            self.owned(owner).filter(|key| !self.unseen(key, connection)).collect();
        let start = match marker {
            None => 0,
            Some(marker) => {
                match marker.strip_prefix("marker-").and_then(|start| start.parse::<usize>().ok()) {
                    Some(start) => start,
                    None => return fail(400, "ValidationError", "Invalid Marker."),
                }
            }
        };
        let mut members = String::new();
        for key in keys.iter().skip(start).take(size) {
            let status = if key.active { "Active" } else { "Inactive" };
            members += &format!(
                "<member>{}<AccessKeyId>{}</AccessKeyId><Status>{status}</Status>{}</member>",
                user_name(user),
                key.id,
                self.create_date(key)
            );
        }
        let next = start + size;
        let more = if next < keys.len() {
            format!("<IsTruncated>true</IsTruncated><Marker>marker-{next}</Marker>")
        } else {
            "<IsTruncated>false</IsTruncated>".to_owned()
        };
        Ok(format!("<AccessKeyMetadata>{members}</AccessKeyMetadata>{more}"))
    }

    fn create(&mut self, owner: &Principal, user: &str) -> Result<String, AwsError> {
        let limit = self.knobs.keys_per_user;
        if self.owned(owner).count() >= limit {
            return fail(
                409,
                "LimitExceeded",
                format!("Cannot exceed quota for AccessKeysPerUser: {limit}"),
            );
        }
        let id = self.make_key(owner.clone(), self.now(), true);
        let until =
            wall() + i64::try_from(self.knobs.invisible_for.as_millis()).unwrap_or(i64::MAX);
        let key = self.aws.key_mut(&id).expect("just made");
        key.visible_after = until;
        key.verified = false;
        let secret = key.secret.clone();
        let date = self.create_date(self.aws.key(&id).expect("just made"));
        self.mutated(&Mutation::KeyCreated);
        Ok(format!(
            "<AccessKey>{}<AccessKeyId>{id}</AccessKeyId><Status>Active</Status><SecretAccessKey>{secret}</SecretAccessKey>{date}</AccessKey>",
            user_name(user)
        ))
    }

    /// Whether it changed.
    fn update(&mut self, id: &str, status: Option<&str>) -> Result<bool, AwsError> {
        let active = match status {
            Some("Active") => true,
            Some("Inactive") => false,
            _ => {
                return fail(
                    400,
                    "ValidationError",
                    "1 validation error detected: Value at 'status' failed to satisfy constraint: \
                     Member must satisfy enum value set: [Active, Inactive]",
                );
            }
        };
        let changed = self.set_key_active(id, active);
        if changed {
            self.mutated(&if active {
                Mutation::KeyEnabled
            } else {
                Mutation::KeyDisabled(id.into())
            });
        }
        Ok(changed)
    }

    fn last_used(&self, id: &str, user: &str) -> String {
        let horizon = self.now() - self.knobs.last_used_lag * 1000;
        let last =
            self.aws.key(id).and_then(|key| key.uses.iter().rev().find(|(at, ..)| *at <= horizon));
        let used = match last {
            Some((at, service, region)) => {
                format!(
                    "<LastUsedDate>{}</LastUsedDate><ServiceName>{service}</ServiceName><Region>{region}</Region>",
                    iso_seconds(*at)
                )
            }
            None => "<ServiceName>N/A</ServiceName><Region>N/A</Region>".to_owned(),
        };
        format!("{}<AccessKeyLastUsed>{used}</AccessKeyLastUsed>", user_name(user))
    }

    fn create_date(&self, key: &Key) -> String {
        match self.knobs.create_date {
            CreateDate::WholeSeconds => {
                format!("<CreateDate>{}</CreateDate>", iso_seconds(key.created))
            }
            CreateDate::Fractions => format!("<CreateDate>{}</CreateDate>", iso(key.created)),
            CreateDate::Missing => String::new(),
        }
    }

    fn path(&self, user: &str) -> String {
        self.aws.user(user).map_or_else(String::new, |user| user.path.clone())
    }

    pub(crate) fn make_key(&mut self, owner: Principal, created: Millis, ours: bool) -> String {
        let id = format!("AKIA{}", self.random(ID_LETTERS, 16));
        let secret = self.random(SECRET_LETTERS, 40);
        self.keep_secret(&secret);
        self.aws.keys.push(Key {
            id: id.clone(),
            secret,
            owner,
            active: true,
            deleted: false,
            created,
            visible_after: 0,
            uses: Vec::new(),
            ours,
            verified: true,
        });
        id
    }

    pub(crate) fn set_key_active(&mut self, id: &str, active: bool) -> bool {
        self.aws.key_mut(id).is_some_and(|key| std::mem::replace(&mut key.active, active) != active)
    }

    pub(crate) fn delete_key(&mut self, id: &str) {
        if let Some(key) = self.aws.key_mut(id) {
            key.active = false;
            key.deleted = true;
        }
    }
}

fn user_name(user: &str) -> String {
    if user.is_empty() { String::new() } else { format!("<UserName>{}</UserName>", xml(user)) }
}
