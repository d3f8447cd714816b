//! GitLab's CI/CD variables: what the targets hold, the two writes of a pair, and the records.
//!
//! House rules. The environment scope is sent with every write, and every reply is compared with
//! what was sent: a group's PUT whose filter matches nothing changes another variable of the same
//! key (`lib/api/group_variables.rb`). Values of a list are looked at and dropped; none is kept
//! that does not belong to a target's pair.

use std::collections::BTreeMap;

use gitlab::api::common::NameOrId;
use gitlab::api::groups::variables as groups;
use gitlab::api::projects::variables as projects;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::access_key::{AccessKeyId, Key};
use crate::config::{Config, Name, Owner, Target};
use crate::error::Error;
use crate::fence::Fenced;
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab};
use crate::plan::{IdSeen, SecretOwner, SecretSeen, TargetSeen};
use crate::record::{self, Record};
use crate::tag;

/// Page size of the lists. GitLab's own limit.
const PAGE: usize = 100;

/// A variable as GitLab lists it.
#[derive(Deserialize)]
pub struct Variable {
    pub key: String,
    /// `None` where it is hidden.
    value: Option<SecretString>,
    #[serde(default)]
    masked: bool,
    #[serde(default)]
    pub protected: bool,
    #[serde(default)]
    raw: Option<bool>,
    #[serde(default)]
    hidden: Option<bool>,
    #[serde(default = "everywhere")]
    pub environment_scope: String,
    #[serde(default)]
    description: Option<String>,
}

fn everywhere() -> String {
    "*".to_owned()
}

/// All variables of one project or group.
pub struct List {
    pub owner: Owner,
    pub variables: Vec<Variable>,
}

/// The lists of every project and group that a target is in, each once.
pub struct Lists(pub Vec<List>);

/// Which half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairPart {
    Id,
    Secret,
}

/// A record and the variable that holds it.
pub struct StoredRecord {
    pub name: String,
    /// The scope that GitLab keeps it in.
    pub scope: String,
    pub record: Record,
}

/// Lists the variables of every owner, all pages.
pub async fn look(gitlab: &Gitlab, owners: &[Owner]) -> Result<Lists, Error> {
    let mut lists = Vec::new();
    for owner in owners {
        lists.push(List { owner: owner.clone(), variables: list(gitlab, owner).await? });
    }
    Ok(Lists(lists))
}

/// The projects and groups of the targets, each once, the home first.
pub fn owners(targets: &[Target]) -> Vec<Owner> {
    let mut owners: Vec<Owner> = Vec::new();
    for target in targets {
        if !owners.contains(&target.owner) {
            owners.push(target.owner.clone());
        }
    }
    owners
}

pub async fn list(gitlab: &Gitlab, owner: &Owner) -> Result<Vec<Variable>, Error> {
    let reply = match owner {
        Owner::Project(name) => {
            gitlab
                .list(built(projects::ProjectVariables::builder().project(id(name)).build())?)
                .await
        }
        Owner::Group(name) => {
            gitlab.list(built(groups::GroupVariables::builder().group(id(name)).build())?).await
        }
    };
    reply.map_err(|error| gitlab_error(gitlab, format!("listing the variables of {owner}"), error))
}

impl Lists {
    pub fn of(&self, owner: &Owner) -> &[Variable] {
        self.0.iter().find(|list| list.owner == *owner).map_or(&[], |list| &list.variables)
    }

    /// Whether a list has more than one page, so that two looks may differ.
    pub fn have_pages(&self) -> bool {
        self.0.iter().any(|list| list.variables.len() >= PAGE)
    }

    pub fn find(&self, target: &Target, key: &str) -> Option<&Variable> {
        self.of(&target.owner)
            .iter()
            .find(|variable| variable.key == key && variable.environment_scope == target.scope)
    }

    /// What each target holds.
    pub fn targets(&self, config: &Config) -> Vec<TargetSeen> {
        let seen = |target: &Target| TargetSeen {
            name: target.to_string(),
            id: self
                .find(target, &config.key_id_variable)
                .map_or(IdSeen::Absent, |variable| variable.id(config)),
            secret: self
                .find(target, &config.secret_variable)
                .map_or(SecretSeen::Absent, |variable| variable.secret(config)),
        };
        config.targets.iter().map(seen).collect()
    }

    /// The readable secrets of the targets, in their order.
    pub fn secrets(&self, config: &Config) -> Vec<Option<SecretString>> {
        let secret = |target: &Target| {
            self.find(target, &config.secret_variable)?
                .value
                .clone()
                .filter(|value| !value.expose_secret().is_empty())
        };
        config.targets.iter().map(secret).collect()
    }

    /// Where else a key's id stands, as readable values go; the targets' own id variables and the
    /// records do not count.
    pub fn other_references(
        &self,
        config: &Config,
        keys: &[Key],
    ) -> BTreeMap<AccessKeyId, Vec<String>> {
        let mut other_references: BTreeMap<AccessKeyId, Vec<String>> = BTreeMap::new();
        for List { owner, variables } in &self.0 {
            for variable in variables {
                let is_targets = variable.key == config.key_id_variable
                    && config.is_target(owner, &variable.environment_scope);
                if variable.is_record() || is_targets {
                    continue;
                }
                for key in keys.iter().filter(|key| variable.names(&key.id)) {
                    let scope = &variable.environment_scope;
                    let mut place = format!("{} of {owner}", variable.key);
                    if variable.key == config.key_id_variable {
                        place += &format!(" (scope {scope}: {owner}@{scope} in ROTATOR_TARGETS)");
                    } else if scope != "*" {
                        place += &format!(" (scope {scope})");
                    }
                    other_references.entry(key.id.clone()).or_default().push(place);
                }
            }
        }
        other_references
    }

    /// The records at home.
    ///
    /// # Errors
    /// One that this version does not understand: it may be a claim.
    pub fn records(&self, config: &Config) -> Result<Vec<StoredRecord>, Error> {
        let home = &config.targets[0].owner;
        let records = self.of(home).iter().filter(|variable| variable.is_record());
        let read = |variable: &Variable| {
            let record =
                variable.value.as_ref().and_then(|value| Record::parse(value.expose_secret()));
            let record =
                record.ok_or_else(|| Error::UnreadableRecord { name: variable.key.clone() })?;
            Ok(StoredRecord {
                name: variable.key.clone(),
                scope: variable.environment_scope.clone(),
                record,
            })
        };
        records.map(read).collect()
    }
}

impl Variable {
    pub fn is_record(&self) -> bool {
        self.key.starts_with(record::PREFIX)
            && [record::SCOPE, "*"].contains(&self.environment_scope.as_str())
    }

    fn is_reference(&self, value: &str) -> bool {
        self.raw != Some(true) && value.contains('$')
    }

    /// Whether its readable value holds this key's id.
    pub fn names(&self, key: &AccessKeyId) -> bool {
        self.value.as_ref().is_some_and(|value| value.expose_secret().contains(key.full()))
    }

    pub fn is_empty(&self) -> bool {
        self.value.as_ref().is_some_and(|value| value.expose_secret().trim().is_empty())
    }

    fn id(&self, config: &Config) -> IdSeen {
        let name = &config.key_id_variable;
        let unusable = |why: &str| IdSeen::Unusable(format!("{name} {why}"));
        let Some(value) = self.value.as_ref().map(|value| value.expose_secret().trim()) else {
            return unusable(
                "is hidden, so nobody can tell which key it names; make a visible one (the id is \
                 no secret)",
            );
        };
        match AccessKeyId::parse(value) {
            _ if value.is_empty() => IdSeen::Absent,
            _ if self.is_reference(value) => unusable("refers to another variable"),
            Some(id) if id.is_of_a_session() => {
                unusable("holds temporary credentials, which cannot be rotated")
            }
            Some(id) => IdSeen::Key(id),
            None if value.starts_with('/') => unusable("holds a path, not a key id"),
            None => unusable("does not hold a key id"),
        }
    }

    fn secret(&self, config: &Config) -> SecretSeen {
        let tag = self.description.as_deref().and_then(|text| tag::read(text).1);
        match self.value.as_ref().map(|value| value.expose_secret().trim()) {
            None => SecretSeen::Hidden { tag },
            Some("") => SecretSeen::Absent,
            Some(value) if self.is_reference(value) => SecretSeen::Unusable(format!(
                "{} refers to another variable",
                config.secret_variable
            )),
            Some(_) => SecretSeen::Readable { tag, owner: SecretOwner::NotAsked },
        }
    }

    /// Whether a tag has room beside what a person has written.
    pub fn has_room_for_a_tag(&self, id: &AccessKeyId) -> bool {
        let (text, _) = tag::read(self.description.as_deref().unwrap_or_default());
        tag::write(&text, id).is_some()
    }

    pub fn is_hidden(&self) -> bool {
        self.hidden == Some(true) || self.value.is_none()
    }
}

/// Writes one half of the pair to a target: the variable that is there keeps its flags, type and a
/// person's description; where there is none it is made as the configuration says.
///
/// # Errors
/// A refusal; an ambiguous end; a reply that differs from what was sent.
pub async fn write(
    gitlab: &Gitlab,
    config: &Config,
    lists: &Lists,
    target: &Target,
    part: PairPart,
    id_: &AccessKeyId,
    value: &SecretString,
) -> Result<(), Error> {
    let key = match part {
        PairPart::Id => &config.key_id_variable,
        PairPart::Secret => &config.secret_variable,
    };
    let what = format!("writing {key} to {target}");
    let there = lists.find(target, key);
    let (text, _) = there
        .and_then(|variable| variable.description.as_deref())
        .map(tag::read)
        .unwrap_or_default();
    // Preflight has seen that the tag fits.
    let description = match part {
        PairPart::Secret => tag::write(&text, id_),
        PairPart::Id => None,
    };
    // Between the list and this write lies the verification of the key: what a group has lost
    // meanwhile would be written to another variable.
    if there.is_some() && matches!(target.owner, Owner::Group(_)) {
        let now = list(gitlab, &target.owner).await?;
        if !now
            .iter()
            .any(|variable| variable.key == *key && variable.environment_scope == target.scope)
        {
            return Err(gitlab_error(
                gitlab,
                what,
                ApiError::Denied {
                    status: 404,
                    kind: ApiErrorKind::NotFound,
                    pause: None,
                    doubt: false,
                },
            ));
        }
    }
    let reply = match there {
        Some(_) => {
            put(gitlab, &target.owner, key, &target.scope, value, true, description.as_deref())
                .await
        }
        None => {
            let hidden = config.hidden && part == PairPart::Secret;
            let protected =
                config.protected.unwrap_or_else(|| config.job.ref_protected == Some(true));
            let new = New {
                key,
                scope: &target.scope,
                value,
                masked: true,
                hidden,
                protected,
                description: description.as_deref(),
            };
            match post(gitlab, &target.owner, &new).await {
                // The reply to an earlier try may be lost: what is there now decides.
                Err(error)
                    if error.is_ambiguous()
                        || error.kind() == Some(&ApiErrorKind::AlreadyExists) =>
                {
                    let now = list(gitlab, &target.owner).await?;
                    let is_in = |scope: &str| {
                        now.iter().any(|variable| {
                            variable.key == *key && variable.environment_scope == scope
                        })
                    };
                    if is_in(&target.scope) {
                        put(
                            gitlab,
                            &target.owner,
                            key,
                            &target.scope,
                            value,
                            true,
                            description.as_deref(),
                        )
                        .await
                    } else if is_in("*")
                        && !error.is_ambiguous()
                        && matches!(target.owner, Owner::Group(_))
                    {
                        return Err(Error::NoGroupScopes { target: target.to_string() });
                    } else {
                        return Err(gitlab_error(gitlab, what, error));
                    }
                }
                // Made for every environment: what was not asked for is taken away again.
                Ok(made)
                    if matches!(target.owner, Owner::Group(_))
                        && made.key == *key
                        && made.environment_scope == "*"
                        && target.scope != "*" =>
                {
                    delete(gitlab, &target.owner, key, "*")
                        .await
                        .map_err(|_| Error::EchoDiffers { what, field: "environment scope" })?;
                    return Err(Error::NoGroupScopes { target: target.to_string() });
                }
                reply => reply,
            }
        }
    };
    let reply = reply.map_err(|error| gitlab_error(gitlab, what.clone(), error))?;
    check(&reply, key, &target.scope, value, description.as_deref())
        .map_err(|field| Error::EchoDiffers { what, field })
}

fn check(
    reply: &Variable,
    key: &str,
    scope: &str,
    value: &SecretString,
    description: Option<&str>,
) -> Result<(), &'static str> {
    if reply.key != key {
        return Err("key");
    }
    if reply.environment_scope != scope {
        return Err("environment scope");
    }
    if reply.value.as_ref().is_some_and(|echo| echo.expose_secret() != value.expose_secret()) {
        return Err("value");
    }
    if !reply.masked {
        return Err("masking");
    }
    if reply.raw == Some(false) {
        return Err("expansion (`raw`)");
    }
    if description.is_some()
        && reply.description.is_some()
        && reply.description.as_deref() != description
    {
        return Err("description");
    }
    Ok(())
}

/// Makes a record's variable at home; gives the scope that GitLab keeps it in.
pub async fn make_record(
    gitlab: &Gitlab,
    home: &Owner,
    name: &str,
    record: &Record,
) -> Result<String, Error> {
    let what = "writing this run's record".to_owned();
    let value = SecretString::from(record.print());
    let new = New {
        key: name,
        scope: record::SCOPE,
        value: &value,
        masked: false,
        hidden: false,
        protected: false,
        description: None,
    };
    match post(gitlab, home, &new).await {
        Ok(reply) => Ok(reply.environment_scope),
        // The name is random: who took it was an earlier try of ours.
        Err(error)
            if error.is_ambiguous() || error.kind() == Some(&ApiErrorKind::AlreadyExists) =>
        {
            let now = list(gitlab, home).await?;
            let ours = now.into_iter().find(|variable| variable.key == name);
            ours.map(|variable| variable.environment_scope)
                .ok_or_else(|| gitlab_error(gitlab, what, error))
        }
        Err(error) => Err(gitlab_error(gitlab, what, error)),
    }
}

/// # Errors
/// `ClaimLost` where the record is gone: another run has taken over.
pub async fn update_record(
    gitlab: &Gitlab,
    home: &Owner,
    name: &str,
    scope: &str,
    record: &Record,
) -> Result<(), Error> {
    let value = SecretString::from(record.print());
    match put(gitlab, home, name, scope, &value, false, None).await {
        Ok(_) => Ok(()),
        Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => {
            gitlab.fence.record_is_gone();
            Err(Error::ClaimLost(Fenced::RecordGone))
        }
        Err(error) => Err(gitlab_error(gitlab, "writing this run's record".to_owned(), error)),
    }
}

/// A record that is gone already counts as deleted.
pub async fn delete_record(
    gitlab: &Gitlab,
    home: &Owner,
    name: &str,
    scope: &str,
) -> Result<(), Error> {
    match delete(gitlab, home, name, scope).await {
        Ok(()) | Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => Ok(()),
        Err(error) => Err(gitlab_error(gitlab, "deleting a record".to_owned(), error)),
    }
}

async fn delete(gitlab: &Gitlab, owner: &Owner, key: &str, scope: &str) -> Result<(), ApiError> {
    macro_rules! build {
        ($endpoint:expr, $filter:expr) => {{
            let filter = $filter.environment_scope(scope).build().map_err(|_| ApiError::Garbled)?;
            $endpoint.key(key).filter(filter).build().map_err(|_| ApiError::Garbled)?
        }};
    }
    match owner {
        Owner::Project(name) => {
            let endpoint = build!(
                projects::DeleteProjectVariable::builder().project(id(name)),
                projects::ProjectVariableFilter::builder()
            );
            gitlab.tell(endpoint).await
        }
        Owner::Group(name) => {
            let endpoint = build!(
                groups::DeleteGroupVariable::builder().group(id(name)),
                groups::GroupVariableFilter::builder()
            );
            gitlab.tell(endpoint).await
        }
    }
}

/// A variable to be made.
struct New<'a> {
    key: &'a str,
    scope: &'a str,
    value: &'a SecretString,
    masked: bool,
    hidden: bool,
    protected: bool,
    description: Option<&'a str>,
}

async fn post(gitlab: &Gitlab, owner: &Owner, new: &New<'_>) -> Result<Variable, ApiError> {
    /// The two builders have the same setters and no common type.
    macro_rules! build {
        ($endpoint:expr) => {{
            let mut endpoint = $endpoint;
            endpoint
                .key(new.key)
                .value(new.value.expose_secret())
                .environment_scope(new.scope)
                .protected(new.protected)
                .raw(true);
            if new.hidden {
                endpoint.masked_and_hidden(true);
            } else {
                endpoint.masked(new.masked);
            }
            if let Some(description) = new.description {
                endpoint.description(description);
            }
            endpoint.build().map_err(|_| ApiError::Garbled)?
        }};
    }
    match owner {
        Owner::Project(name) => {
            gitlab
                .ask(build!(
                    projects::CreateProjectVariable::builder().project(id(name)).to_owned()
                ))
                .await
        }
        Owner::Group(name) => {
            gitlab
                .ask(build!(groups::CreateGroupVariable::builder().group(id(name)).to_owned()))
                .await
        }
    }
}

async fn put(
    gitlab: &Gitlab,
    owner: &Owner,
    key: &str,
    scope: &str,
    value: &SecretString,
    masked: bool,
    description: Option<&str>,
) -> Result<Variable, ApiError> {
    macro_rules! build {
        ($endpoint:expr, $filter:expr) => {{
            let mut endpoint = $endpoint;
            let filter = $filter.environment_scope(scope).build().map_err(|_| ApiError::Garbled)?;
            endpoint.key(key).value(value.expose_secret()).filter(filter).raw(true);
            if masked {
                endpoint.masked(true);
            }
            if let Some(description) = description {
                endpoint.description(description);
            }
            endpoint.build().map_err(|_| ApiError::Garbled)?
        }};
    }
    match owner {
        Owner::Project(name) => {
            let endpoint = projects::UpdateProjectVariable::builder().project(id(name)).to_owned();
            gitlab.ask(build!(endpoint, projects::ProjectVariableFilter::builder())).await
        }
        Owner::Group(name) => {
            let endpoint = groups::UpdateGroupVariable::builder().group(id(name)).to_owned();
            gitlab.ask(build!(endpoint, groups::GroupVariableFilter::builder())).await
        }
    }
}

/// A project or group as the endpoints take it.
pub fn id(name: &Name) -> NameOrId<'_> {
    match name {
        Name::Id(id) => NameOrId::Id(*id),
        Name::Path(path) => NameOrId::Name(path.as_str().into()),
    }
}

/// A builder lacks a field only by a mistake of ours: no input leads there.
pub fn built<T, E>(endpoint: Result<T, E>) -> Result<T, Error> {
    endpoint.map_err(|_| Error::Aws { what: "building a request", code: "incomplete".to_owned() })
}

pub fn gitlab_error(gitlab: &Gitlab, what: String, error: ApiError) -> Error {
    match error {
        ApiError::Fenced(why) => Error::ClaimLost(why),
        error => Error::GitLab { what, host: gitlab.host(), error },
    }
}
