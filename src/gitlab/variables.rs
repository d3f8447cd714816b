//! CI/CD variables of projects and groups: list, create, update, delete.
//!
//! House rules. The environment scope is sent with every write, and [`Variable::differs_from`]
//! compares every reply with what was sent: a group's PUT whose filter matches nothing changes
//! another variable of the same key (`lib/api/group_variables.rb`).

use std::fmt;

use gitlab::api::groups::variables as groups;
use gitlab::api::projects::variables as projects;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{ApiError, Gitlab, built, id};
use crate::access_key::AccessKeyId;
use crate::config::Owner;
use crate::record;

/// A variable as GitLab lists it.
#[derive(Deserialize)]
pub struct Variable {
    pub key: String,
    /// `None` where it is hidden.
    pub value: Option<SecretString>,
    #[serde(default)]
    masked: bool,
    #[serde(default)]
    pub protected: bool,
    #[serde(default)]
    raw: Option<bool>,
    #[serde(default = "everywhere")]
    pub environment_scope: String,
    #[serde(default)]
    pub description: Option<String>,
}

fn everywhere() -> String {
    "*".to_owned()
}

/// What is written to a variable; always without expansion (`raw`).
pub struct VariableWrite<'a> {
    pub key: &'a str,
    pub scope: &'a str,
    pub value: &'a SecretString,
    pub masked: bool,
    /// `None` leaves the description as it is.
    pub description: Option<&'a str>,
}

/// What only a new variable is given.
#[derive(Clone, Copy, Default)]
pub struct Flags {
    pub hidden: bool,
    pub protected: bool,
}

/// In what GitLab's reply to a write differs from what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoField {
    Key,
    Scope,
    Value,
    Masking,
    Expansion,
    Description,
}

impl EchoField {
    /// Whether another variable was written than the one that was meant.
    pub fn is_another_variable(self) -> bool {
        match self {
            Self::Key | Self::Scope => true,
            Self::Value | Self::Masking | Self::Expansion | Self::Description => false,
        }
    }
}

impl fmt::Display for EchoField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Scope => "environment scope",
            Self::Value => "value",
            Self::Masking => "masking",
            Self::Expansion => "expansion (`raw`)",
            Self::Description => "description",
        })
    }
}

impl Variable {
    /// Whether this variable of that owner is a run's record. A group may have dropped the scope.
    pub fn is_record_of(&self, owner: &Owner) -> bool {
        let is_in_scope = match (owner, self.environment_scope.as_str()) {
            (Owner::Project(_) | Owner::Group(_), record::SCOPE) | (Owner::Group(_), "*") => true,
            (Owner::Project(_) | Owner::Group(_), _) => false,
        };
        is_in_scope && record::is_name(&self.key)
    }

    /// Whether a job gets another variable's value in its place.
    pub fn is_reference(&self) -> bool {
        self.raw != Some(true)
            && self.value.as_ref().is_some_and(|value| value.expose_secret().contains('$'))
    }

    /// Whether its readable value holds this key's id.
    pub fn names(&self, key: &AccessKeyId) -> bool {
        self.value.as_ref().is_some_and(|value| value.expose_secret().contains(key.full()))
    }

    pub fn is_empty(&self) -> bool {
        self.value.as_ref().is_some_and(|value| value.expose_secret().trim().is_empty())
    }

    /// In what this reply differs from what was sent. What a reply leaves out does not differ.
    pub fn differs_from(&self, sent: &VariableWrite<'_>) -> Option<EchoField> {
        let is_other = |echo: &SecretString| echo.expose_secret() != sent.value.expose_secret();
        if self.key != sent.key {
            Some(EchoField::Key)
        } else if self.environment_scope != sent.scope {
            Some(EchoField::Scope)
        } else if self.value.as_ref().is_some_and(is_other) {
            Some(EchoField::Value)
        } else if sent.masked && !self.masked {
            Some(EchoField::Masking)
        } else if self.raw == Some(false) {
            Some(EchoField::Expansion)
        } else if sent.description.is_some()
            && self.description.is_some()
            && self.description.as_deref() != sent.description
        {
            Some(EchoField::Description)
        } else {
            None
        }
    }
}

impl Gitlab {
    /// The variables of a project or group, all pages.
    pub async fn variables(&self, owner: &Owner) -> Result<Vec<Variable>, ApiError> {
        match owner {
            Owner::Project(name) => {
                let endpoint = projects::ProjectVariables::builder().project(id(name)).build();
                self.query_all(built(endpoint)).await
            }
            Owner::Group(name) => {
                let endpoint = groups::GroupVariables::builder().group(id(name)).build();
                self.query_all(built(endpoint)).await
            }
        }
    }

    pub async fn create_variable(
        &self,
        owner: &Owner,
        sent: &VariableWrite<'_>,
        flags: Flags,
    ) -> Result<Variable, ApiError> {
        /// The two builders have the same setters and no common type.
        macro_rules! build {
            ($endpoint:expr) => {{
                let mut endpoint = $endpoint;
                endpoint
                    .key(sent.key)
                    .value(sent.value.expose_secret())
                    .environment_scope(sent.scope)
                    .protected(flags.protected)
                    .raw(true);
                if flags.hidden {
                    endpoint.masked_and_hidden(true);
                } else {
                    endpoint.masked(sent.masked);
                }
                if let Some(description) = sent.description {
                    endpoint.description(description);
                }
                built(endpoint.build())
            }};
        }
        match owner {
            Owner::Project(name) => {
                let endpoint =
                    projects::CreateProjectVariable::builder().project(id(name)).to_owned();
                self.query(build!(endpoint)).await
            }
            Owner::Group(name) => {
                let endpoint = groups::CreateGroupVariable::builder().group(id(name)).to_owned();
                self.query(build!(endpoint)).await
            }
        }
    }

    /// Writes to the variable of this key and scope, which keeps its other flags and its type.
    pub async fn update_variable(
        &self,
        owner: &Owner,
        sent: &VariableWrite<'_>,
    ) -> Result<Variable, ApiError> {
        macro_rules! build {
            ($endpoint:expr, $filter:expr) => {{
                let mut endpoint = $endpoint;
                let filter = built($filter.environment_scope(sent.scope).build());
                endpoint.key(sent.key).value(sent.value.expose_secret()).filter(filter).raw(true);
                if sent.masked {
                    endpoint.masked(true);
                }
                if let Some(description) = sent.description {
                    endpoint.description(description);
                }
                built(endpoint.build())
            }};
        }
        match owner {
            Owner::Project(name) => {
                let endpoint =
                    projects::UpdateProjectVariable::builder().project(id(name)).to_owned();
                self.query(build!(endpoint, projects::ProjectVariableFilter::builder())).await
            }
            Owner::Group(name) => {
                let endpoint = groups::UpdateGroupVariable::builder().group(id(name)).to_owned();
                self.query(build!(endpoint, groups::GroupVariableFilter::builder())).await
            }
        }
    }

    pub async fn delete_variable(
        &self,
        owner: &Owner,
        key: &str,
        scope: &str,
    ) -> Result<(), ApiError> {
        macro_rules! build {
            ($endpoint:expr, $filter:expr) => {{
                let filter = built($filter.environment_scope(scope).build());
                built($endpoint.key(key).filter(filter).build())
            }};
        }
        match owner {
            Owner::Project(name) => {
                let endpoint = build!(
                    projects::DeleteProjectVariable::builder().project(id(name)),
                    projects::ProjectVariableFilter::builder()
                );
                self.query_empty(endpoint).await
            }
            Owner::Group(name) => {
                let endpoint = build!(
                    groups::DeleteGroupVariable::builder().group(id(name)),
                    groups::GroupVariableFilter::builder()
                );
                self.query_empty(endpoint).await
            }
        }
    }
}
