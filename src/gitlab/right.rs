//! The rights of fine-grained tokens, by the names that GitLab gives them.
//!
//! Which one a refused request lacked follows from the request: the text of the reply is not used.

use std::fmt;

use http::Method;

/// What a fine-grained token needs: resource and actions. docs/gitlab.md shows the same table.
/// <https://docs.gitlab.com/auth/tokens/fine_grained_access_tokens_rest/>
pub const NEEDED: [(&str, &str); 9] = [
    ("Variable", "Create, Read, Update, Delete"),
    ("Pipeline", "Create, Read"),
    ("Job", "Read, Run"),
    ("Deployment", "Read"),
    ("Environment", "Read"),
    ("Project", "Read"),
    ("Group", "Read"),
    ("Commit", "Read"),
    ("Personal Access Token", "Read"),
];

/// One right, such as `Variable: Create`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    pub resource: &'static str,
    pub action: &'static str,
}

impl Right {
    /// The right that a request needs.
    pub fn of(method: &Method, path: &str) -> Self {
        let path = path.split_once("/api/v4/").map_or(path, |(_, path)| path);
        let segments: Vec<&str> = path.split('/').collect();
        let resource = match segments[..] {
            ["personal_access_tokens", ..] => "Personal Access Token",
            ["projects" | "groups", _, "variables", ..] => "Variable",
            ["projects", _, "pipeline" | "pipelines", ..] => "Pipeline",
            ["projects", _, "jobs", ..] => "Job",
            ["projects", _, "deployments", ..] => "Deployment",
            ["projects", _, "environments", ..] => "Environment",
            ["projects", _, "repository", "commits", ..] => "Commit",
            ["groups", ..] => "Group",
            _ => "Project",
        };
        let action = match method.as_str() {
            "POST" if resource == "Job" => "Run",
            "POST" => "Create",
            "PUT" => "Update",
            "DELETE" => "Delete",
            _ => "Read",
        };
        Self { resource, action }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.resource, self.action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_the_right_that_gitlab_names() {
        for (request, right) in [
            ("GET /api/v4/projects/42/variables", "Variable: Read"),
            ("POST /gitlab/api/v4/groups/acme%2Fteam/variables", "Variable: Create"),
            ("PUT /api/v4/projects/42/variables/AWS_ACCESS_KEY_ID", "Variable: Update"),
            ("DELETE /api/v4/groups/7/variables/A", "Variable: Delete"),
            ("POST /api/v4/projects/42/pipeline", "Pipeline: Create"),
            ("GET /api/v4/projects/42/pipelines/7/jobs", "Pipeline: Read"),
            ("GET /api/v4/projects/42/pipelines/7/bridges", "Pipeline: Read"),
            ("GET /api/v4/projects/42/jobs", "Job: Read"),
            ("POST /api/v4/projects/42/jobs/9/retry", "Job: Run"),
            ("GET /api/v4/projects/42/deployments", "Deployment: Read"),
            ("GET /api/v4/projects/42/environments", "Environment: Read"),
            ("GET /api/v4/projects/acme%2Fshop", "Project: Read"),
            ("GET /api/v4/groups/7", "Group: Read"),
            ("GET /api/v4/projects/42/repository/commits/main", "Commit: Read"),
            ("GET /api/v4/personal_access_tokens/self", "Personal Access Token: Read"),
        ] {
            let (method, path) = request.split_once(' ').expect("two words");
            let found = Right::of(&method.parse().expect("a method"), path);
            assert_eq!(found.to_string(), right, "{request}");
            let (_, actions) = NEEDED
                .iter()
                .find(|(resource, _)| *resource == found.resource)
                .expect("it is in the list of what is needed");
            assert!(actions.split(", ").any(|action| action == found.action), "{right}");
        }
    }
}
