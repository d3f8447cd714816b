//! Projects and groups, and the places in them where a pair is published.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A project or group by numeric id or full path. `Display` shows it as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
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
    /// Whether this names what has this id and this path, as far as they are known.
    pub fn is(&self, id: Option<u64>, path: Option<&str>) -> bool {
        match self {
            Self::Id(named) => id == Some(*named),
            Self::Path(named) => path.is_some_and(|path| named.eq_ignore_ascii_case(path)),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Path(path) => f.write_str(path),
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
