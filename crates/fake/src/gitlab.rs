//! What GitLab holds: projects and groups, tokens and their rights. Its API is in `front`,
//! `variables` and `pipelines_api`.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::clock::Millis;
use super::jobs::{Deployment, Job, JobSpec, Pipeline, Refusal};
use super::serve::Call;
use super::settings::Settings;
use super::state::Map;
use super::variables::Variable;

/// A project or a group, by its id. A bare number is a project.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Home {
    Project(u64),
    Group(u64),
}

pub fn project(id: u64) -> Home {
    Home::Project(id)
}

pub fn group(id: u64) -> Home {
    Home::Group(id)
}

impl From<u64> for Home {
    fn from(id: u64) -> Self {
        Self::Project(id)
    }
}

impl std::fmt::Display for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Project(id) => write!(f, "project:{id}"),
            Self::Group(id) => write!(f, "group:{id}"),
        }
    }
}

/// The state the whole of GitLab is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    Normal,
    /// Whatever is asked: an HTML page with 200.
    NotGitlab,
    /// A challenge page before it: HTML with 403.
    Challenge,
    /// 503 for writes.
    Maintenance,
    /// For writes 403, or a redirect to the front page: the middleware that refuses them knows the
    /// API by the content type of JSON alone.
    ReadOnly,
    /// 503 and HTML for everything.
    Down,
}

pub(crate) struct Lab {
    pub(crate) prefix: String,
    pub(crate) projects: Map<Project>,
    pub(crate) groups: Map<Group>,
    pub(crate) tokens: Vec<TokenSpec>,
    pub(crate) pipelines: Map<Pipeline>,
    pub(crate) jobs: Map<Job>,
    pub(crate) deployments: Vec<Deployment>,
    /// When which user asked for a pipeline, and of which project and commit.
    pub(crate) asked_for_pipelines: Vec<(Millis, u64, u64, String)>,
    pub(crate) last_id: u64,
}

pub(crate) struct Project {
    pub(crate) path: String,
    pub(crate) old_paths: Vec<String>,
    pub(crate) default_branch: String,
    pub(crate) archived: bool,
    pub(crate) refs: BTreeMap<String, Ref>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) config: Vec<JobSpec>,
    pub(crate) inputs: Vec<String>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) settings: Settings,
    /// Its jobs are hidden from the API (404).
    pub(crate) jobs_hidden: bool,
    /// A deploy freeze is on.
    pub(crate) frozen: bool,
}

pub(crate) struct Ref {
    pub(crate) sha: String,
    pub(crate) protected: bool,
}

pub(crate) struct Group {
    pub(crate) path: String,
    pub(crate) variables: Vec<Variable>,
}

/// A token and its user.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    pub token: String,
    pub scopes: Vec<String>,
    /// 20 Reporter, 30 Developer, 40 Maintainer, 50 Owner, 0 does not see it; for what `levels`
    /// does not name.
    pub level: u32,
    pub group_level: u32,
    pub levels: BTreeMap<Home, u32>,
    /// Milliseconds since 1970, the fake's time. Tokens end at midnight UTC; this one ends when
    /// you say.
    pub expires_at: Option<i64>,
    pub user: u64,
    /// Whether `GET /personal_access_tokens/self` answers (403 else).
    pub tells_about_itself: bool,
    pub blocked: bool,
    pub revoked: bool,
    /// Fine-grained: the rights that it lacks, such as `Job: Read`.
    pub lacks: Vec<String>,
}

impl TokenSpec {
    /// Scope `api`, Maintainer of every project, Owner of every group, no end.
    pub fn new(token: &str) -> Self {
        Self {
            token: token.into(),
            scopes: vec!["api".into()],
            level: 40,
            group_level: 50,
            levels: BTreeMap::new(),
            expires_at: None,
            user: 9,
            tells_about_itself: true,
            blocked: false,
            revoked: false,
            lacks: Vec::new(),
        }
    }

    /// Makes it a fine-grained one that lacks these rights.
    pub fn make_fine_grained(&mut self, without: &[&str]) {
        self.scopes = vec!["granular".into()];
        self.lacks = without.iter().map(|right| (*right).to_owned()).collect();
    }

    pub fn scopes(mut self, scopes: &[&str]) -> Self {
        self.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        self
    }

    pub fn level(mut self, level: u32) -> Self {
        (self.level, self.group_level) = (level, level);
        self
    }

    pub fn level_at(mut self, home: impl Into<Home>, level: u32) -> Self {
        self.levels.insert(home.into(), level);
        self
    }

    pub fn expires_at(mut self, ms: i64) -> Self {
        self.expires_at = Some(ms);
        self
    }

    pub fn user(mut self, user: u64) -> Self {
        self.user = user;
        self
    }

    pub fn silent_about_itself(mut self) -> Self {
        self.tells_about_itself = false;
        self
    }
}

impl Lab {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            projects: Map::new(),
            groups: Map::new(),
            tokens: Vec::new(),
            pipelines: Map::new(),
            jobs: Map::new(),
            deployments: Vec::new(),
            asked_for_pipelines: Vec::new(),
            last_id: 1000,
        }
    }

    pub(crate) fn api(&self) -> String {
        format!("{}/api/v4", self.prefix)
    }

    /// Everything that is not AWS's one path is GitLab's.
    pub(crate) fn serves(&self, call: &Call) -> bool {
        call.path != "/"
            || call.method != "POST"
            || !call.form.iter().any(|(key, _)| key == "Action")
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(crate) fn variables(&self, home: Home) -> Option<&Vec<Variable>> {
        match home {
            Home::Project(id) => self.projects.get(&id).map(|project| &project.variables),
            Home::Group(id) => self.groups.get(&id).map(|group| &group.variables),
        }
    }

    pub(crate) fn variables_mut(&mut self, home: Home) -> Option<&mut Vec<Variable>> {
        match home {
            Home::Project(id) => self.projects.get_mut(&id).map(|project| &mut project.variables),
            Home::Group(id) => self.groups.get_mut(&id).map(|group| &mut group.variables),
        }
    }

    pub(crate) fn homes(&self) -> Vec<Home> {
        self.projects
            .keys()
            .map(|id| Home::Project(*id))
            .chain(self.groups.keys().map(|id| Home::Group(*id)))
            .collect()
    }

    pub(crate) fn segments(&self, call: &Call) -> Option<Vec<String>> {
        let rest = call.path.strip_prefix(&self.api())?.strip_prefix('/')?;
        Some(
            rest.split('/')
                .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
                .collect(),
        )
    }
}
