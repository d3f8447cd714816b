//! Projects and groups, and the places in them where a pair is published.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A project or group by numeric id or full path. `Display` shows it as written. Two names are equal
/// where they are known to name the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum Name {
    Id(u64),
    Path(String),
    /// Written as a path, and GitLab has told the id.
    Known {
        id: u64,
        path: String,
    },
}

/// A name in a record: by its id wherever that is known.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Id(u64),
    Path(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    Project(Name),
    Group(Name),
}

/// One place where the pair is published. `Display`: `project:42@production` (no `@` for scope
/// `*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub owner: Owner,
    /// The environment scope, `*` unless given.
    pub scope: String,
}

impl Name {
    pub fn id(&self) -> Option<u64> {
        match self {
            Self::Id(id) | Self::Known { id, .. } => Some(*id),
            Self::Path(_) => None,
        }
    }

    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Path(path) | Self::Known { path, .. } => Some(path),
            Self::Id(_) => None,
        }
    }

    /// Whether this names what has this id and this path, as far as they are known. GitLab's paths
    /// have no case.
    pub fn is(&self, id: Option<u64>, path: Option<&str>) -> bool {
        match (self.id(), id) {
            (Some(named), Some(id)) => named == id,
            (Some(_), None) | (None, _) => {
                let same = |named: &str| path.is_some_and(|path| named.eq_ignore_ascii_case(path));
                self.path().is_some_and(same)
            }
        }
    }

    fn learn(&mut self, id: u64) {
        if let Self::Path(path) = self {
            *self = Self::Known { id, path: std::mem::take(path) };
        }
    }
}

impl Owner {
    pub fn name(&self) -> &Name {
        match self {
            Self::Project(name) | Self::Group(name) => name,
        }
    }

    /// GitLab has told the id of what is named by its path.
    pub fn learn(&mut self, id: u64) {
        match self {
            Self::Project(name) | Self::Group(name) => name.learn(id),
        }
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.id(), other.path())
    }
}

impl Eq for Name {}

impl From<Written> for Name {
    fn from(written: Written) -> Self {
        match written {
            Written::Id(id) => Self::Id(id),
            Written::Path(path) => Self::Path(path),
        }
    }
}

impl From<Name> for Written {
    fn from(name: Name) -> Self {
        match name {
            Name::Id(id) | Name::Known { id, .. } => Self::Id(id),
            Name::Path(path) => Self::Path(path),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Path(path) | Self::Known { path, .. } => f.write_str(path),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(name) => write!(f, "project:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope.as_str() {
            "*" => write!(f, "{}", self.owner),
            scope => write!(f, "{}@{scope}", self.owner),
        }
    }
}
