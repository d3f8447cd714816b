//! The targets: what the variables of their projects and groups hold, and (in [`write()`]) the two
//! writes of a pair.
//!
//! Only the values of the targets' pairs are kept. All other values are dropped after reading.
//! [`crate::plan`] decides what they mean for the next step.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use secrecy::{ExposeSecret, SecretString};

use crate::access_key::{AccessKeyId, Key};
use crate::config::{Config, Owner, Target, distinct};
use crate::error::Error;
use crate::gitlab::Gitlab;
use crate::gitlab::records::StoredRecord;
use crate::gitlab::variables::Variable;
use crate::plan::{IdSeen, SecretOwner, SecretSeen, TargetSeen};
use crate::record::Record;
use crate::tag;

mod write;

pub use write::{PairPart, write};

/// The page size of the lists: GitLab's maximum.
const PAGE: usize = 100;

/// All variables of one project or group.
pub struct List {
    pub owner: Owner,
    pub variables: Vec<Variable>,
}

/// The lists of every project and group that a target is in, without duplicates.
pub struct Lists(pub Vec<List>);

/// The projects and groups of the targets, without duplicates, the home first.
pub fn owners(targets: &[Target]) -> Vec<Owner> {
    distinct(targets.iter().map(|target| target.owner.clone()))
}

pub async fn list(gitlab: &Gitlab, owner: &Owner) -> Result<Vec<Variable>, Error> {
    let reply = gitlab.variables(owner).await;
    reply.map_err(|error| Error::gitlab(format!("listing the variables of {owner}"), error))
}

impl Lists {
    /// Lists the variables of all targets' projects and groups, at once.
    pub async fn read(gitlab: &Gitlab, config: &Config) -> Result<Self, Error> {
        let lists = owners(&config.targets).into_iter().map(async |owner| {
            let variables = list(gitlab, &owner).await?;
            Ok::<_, Error>(List { owner, variables })
        });
        try_join_all(lists).await.map(Self)
    }

    /// The same, read before the ids of what the configuration names by path were known.
    #[must_use]
    pub fn named(mut self, config: &Config) -> Self {
        let mut lists = Vec::new();
        for owner in owners(&config.targets) {
            if let Some(at) = self.0.iter().position(|list| list.owner == owner) {
                lists.push(List { owner, ..self.0.swap_remove(at) });
            }
        }
        Self(lists)
    }

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
            place: config.place_of(target),
            id: self.find(target, &config.key_id_variable).map_or(IdSeen::Absent, id_seen),
            secret: self
                .find(target, &config.secret_variable)
                .map_or(SecretSeen::Absent, secret_seen),
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
                if variable.is_record_of(owner) || is_targets {
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

    /// The records, wherever they lie: the home of an earlier run may be another one.
    ///
    /// # Errors
    /// One that this version does not understand: it may be a claim.
    pub fn records(&self) -> Result<Vec<StoredRecord>, Error> {
        let all = self.0.iter().flat_map(|List { owner, variables }| {
            let records = variables.iter().filter(|variable| variable.is_record_of(owner));
            records.map(move |variable| (owner, variable))
        });
        let read = |(owner, variable): (&Owner, &Variable)| {
            let record =
                variable.value.as_ref().and_then(|value| Record::parse(value.expose_secret()));
            let record =
                record.ok_or_else(|| Error::UnreadableRecord { name: variable.key.clone() })?;
            Ok(StoredRecord {
                name: variable.key.clone(),
                owner: owner.clone(),
                scope: variable.environment_scope.clone(),
                record,
            })
        };
        all.map(read).collect()
    }
}

/// Whether a tag has room beside what a person has written there.
pub fn has_room_for_a_tag(secret: &Variable, id: &AccessKeyId) -> bool {
    let (text, _) = tag::read(secret.description.as_deref().unwrap_or_default());
    tag::write(&text, id).is_some()
}

fn id_seen(variable: &Variable) -> IdSeen {
    let unusable = |why: &str| IdSeen::Unusable(format!("{} {why}", variable.key));
    let Some(value) = variable.value.as_ref().map(|value| value.expose_secret().trim()) else {
        return unusable(
            "is hidden, so nobody can tell which key it names; make a visible one (the id is no \
             secret)",
        );
    };
    match AccessKeyId::parse(value) {
        _ if value.is_empty() => IdSeen::Absent,
        _ if variable.is_reference() => unusable("refers to another variable"),
        Some(id) if id.is_of_a_session() => {
            unusable("holds temporary credentials, which cannot be rotated")
        }
        Some(id) => IdSeen::Key(id),
        None if value.starts_with('/') => unusable("holds a path, not a key id"),
        None => unusable("does not hold a key id"),
    }
}

fn secret_seen(variable: &Variable) -> SecretSeen {
    let tag = variable.description.as_deref().and_then(|text| tag::read(text).1);
    match variable.value {
        None => SecretSeen::Hidden { tag },
        Some(_) if variable.is_empty() => SecretSeen::Absent,
        Some(_) if variable.is_reference() => {
            SecretSeen::Unusable(format!("{} refers to another variable", variable.key))
        }
        Some(_) => SecretSeen::Readable { tag, owner: SecretOwner::NotAsked },
    }
}
