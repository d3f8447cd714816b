//! The settings of a project, as far as they concern CI/CD, and what its entity shows of them.

use serde_json::{Value, json};

use super::Fake;
use super::clock::iso;
use super::state::State;

#[derive(Clone, Debug)]
pub struct Settings {
    /// CI/CD is on.
    pub ci: bool,
    /// Who may set pipeline variables: `no_one_allowed`, `developer`, `maintainer` or `owner`.
    pub variables_role: String,
    /// Before 17.1: only `restrict_user_defined_variables` tells of it.
    pub old_variables_setting: bool,
    /// *Prevent outdated deployment jobs*.
    pub forward_deployments: bool,
    /// Fields that the entity leaves out, whoever asks.
    pub untold: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ci: true,
            variables_role: "developer".into(),
            old_variables_setting: false,
            forward_deployments: true,
            untold: Vec::new(),
        }
    }
}

impl Settings {
    /// The lowest access level that may set pipeline variables; none where nobody may.
    pub(crate) fn level_for_variables(&self) -> Option<u32> {
        match self.variables_role.as_str() {
            "developer" => Some(30),
            "maintainer" => Some(40),
            "owner" => Some(50),
            _ => None,
        }
    }
}

impl Fake {
    pub fn change_settings(&self, project: u64, change: impl FnOnce(&mut Settings)) {
        change(&mut self.lock().project(project).settings);
    }
}

impl State {
    /// The entity of a project for someone with this access level. Only Maintainers see what is
    /// under CI/CD in its settings.
    pub(crate) fn project_json(&self, id: u64, level: u32) -> Value {
        let project = &self.lab.projects[&id];
        let settings = &project.settings;
        let name = project.path.rsplit('/').next().unwrap_or_default();
        let is_empty = project.refs.is_empty();
        let default_branch = (!is_empty).then_some(&project.default_branch);
        let mut json = json!({
            "id": id, "description": null, "name": name, "path": name, "path_with_namespace": project.path, "name_with_namespace": project.path.replace('/', " / "),
            "default_branch": default_branch, "web_url": self.web(id), "archived": project.archived, "visibility": "private",
            "namespace": self.namespace_json(&project.path), "empty_repo": is_empty, "created_at": iso(0), "jobs_enabled": settings.ci,
            "builds_access_level": if settings.ci { "enabled" } else { "disabled" },
            "permissions": { "project_access": { "access_level": level, "notification_level": 3 }, "group_access": null },
        });
        if level >= 40 {
            json["ci_forward_deployment_enabled"] = settings.forward_deployments.into();
            json["ci_forward_deployment_rollback_allowed"] = true.into();
            let restricted = settings.variables_role != "developer";
            json["restrict_user_defined_variables"] = restricted.into();
            if !settings.old_variables_setting {
                json["ci_pipeline_variables_minimum_override_role"] =
                    settings.variables_role.clone().into();
            }
        }
        if let Value::Object(fields) = &mut json {
            fields.retain(|field, _| !settings.untold.contains(field));
        }
        json
    }
}
