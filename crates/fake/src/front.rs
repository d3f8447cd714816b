//! GitLab's API: its paths, who may do what, and pages.

use serde_json::{Value, json};

use super::aws::text;
use super::clock::{Millis, date, iso};
use super::gitlab::{Home, Lab, Mood, Project, TokenSpec};
use super::serve::{Call, Reply, pairs};
use super::state::State;

/// The verb with the path's pattern, and what it is about.
pub(crate) fn action_of(lab: &Lab, call: &Call) -> (&'static str, String, String) {
    let segments = lab.segments(call).unwrap_or_else(|| vec![call.path.clone()]);
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let mut pattern: Vec<&str> = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        pattern.push(match (at, parts.get(at.wrapping_sub(1))) {
            (0, _) => part,
            (_, Some(&("projects" | "groups"))) => ":id",
            (_, Some(&"variables")) => ":key",
            (_, Some(&("jobs" | "pipelines"))) => ":number",
            (_, Some(&("commits" | "branches"))) => ":ref",
            _ => part,
        });
    }
    let input = Input::of(call);
    let scope = input.scope_filter().or_else(|| input.text("environment_scope"));
    let what = match &parts[..] {
        ["projects" | "groups", _, "variables", key] => {
            format!("{key}@{} {}", scope.as_deref().unwrap_or("?"), parts[1])
        }
        ["projects" | "groups", _, "variables"] if call.method == "POST" => {
            format!(
                "{}@{} {}",
                input.text("key").unwrap_or_default(),
                scope.as_deref().unwrap_or("?"),
                parts[1]
            )
        }
        [_, rest @ ..] => rest
            .iter()
            .filter(|part| !pattern.contains(*part))
            .copied()
            .chain([call.query.as_str()])
            .collect::<Vec<_>>()
            .join(" "),
        [] => String::new(),
    };
    ("gitlab", format!("{} /{}", call.method, pattern.join("/")), what.trim().to_owned())
}

/// The parameters of a call: of its query and its body, form or JSON.
pub(crate) struct Input {
    /// The path that was asked, for links to other pages.
    url: String,
    given: serde_json::Map<String, Value>,
}

impl Input {
    pub(crate) fn of(call: &Call) -> Self {
        let mut map = serde_json::Map::new();
        for (key, value) in pairs(&call.query).into_iter().chain(call.form.clone()) {
            let nested = key
                .split_once('[')
                .and_then(|(outer, rest)| Some((outer, rest.strip_suffix(']')?)));
            match nested {
                None => {
                    map.insert(key, value.into());
                }
                Some((outer, "")) => {
                    if let Value::Array(values) = map.entry(outer).or_insert_with(|| json!([])) {
                        values.push(value.into());
                    }
                }
                // `variables[][key]=A&variables[][value]=B`: each `key` begins another object.
                Some((outer, inner)) if inner.starts_with("][") => {
                    let Value::Array(objects) = map.entry(outer).or_insert_with(|| json!([]))
                    else {
                        continue;
                    };
                    let name = &inner[2..];
                    if objects.last().is_none_or(|last| last.get(name).is_some()) {
                        objects.push(json!({}));
                    }
                    objects.last_mut().expect("there is one")[name] = value.into();
                }
                Some((outer, inner)) => {
                    if let Value::Object(object) = map.entry(outer).or_insert_with(|| json!({})) {
                        object.insert(inner.to_owned(), value.into());
                    }
                }
            }
        }
        if text(&call.headers, "content-type")
            .is_some_and(|kind| kind.starts_with("application/json"))
            && let Ok(Value::Object(body)) = serde_json::from_slice(&call.body)
        {
            map.extend(body);
        }
        Self { url: call.path.clone(), given: map }
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.given.get(key).is_some_and(|value| !value.is_null())
    }

    pub(crate) fn raw(&self, key: &str) -> Option<&Value> {
        self.given.get(key)
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.given.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(self.given[key].to_string()),
            _ => None,
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        match self.text(key)?.as_str() {
            "true" | "1" | "t" | "on" => Some(true),
            "false" | "0" | "f" | "off" => Some(false),
            _ => None,
        }
    }

    pub(crate) fn number(&self, key: &str) -> Option<usize> {
        self.text(key)?.parse().ok()
    }

    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        match self.given.get(key) {
            Some(Value::Array(values)) => {
                values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
            }
            Some(Value::String(text)) => vec![text.clone()],
            _ => Vec::new(),
        }
    }

    /// A blank filter is no filter.
    pub(crate) fn scope_filter(&self) -> Option<String> {
        self.given
            .get("filter")?
            .get("environment_scope")?
            .as_str()
            .map(str::to_owned)
            .filter(|scope| !scope.trim().is_empty())
    }
}

pub(crate) fn message(status: u16, text: &str) -> Reply {
    Reply::json(status, &json!({ "message": text }))
}

pub(crate) fn not_found(what: &str) -> Reply {
    message(404, &format!("404 {what} Not Found"))
}

pub(crate) fn forbidden() -> Reply {
    message(403, "403 Forbidden")
}

/// One page of a list, with its headers.
pub(crate) fn page(input: &Input, items: Vec<Value>) -> Reply {
    let size = input.number("per_page").unwrap_or(20).clamp(1, 100);
    let number = input.number("page").unwrap_or(1).max(1);
    let (total, pages) = (items.len(), items.len().div_ceil(size).max(1));
    let of_page: Vec<Value> = items.into_iter().skip((number - 1) * size).take(size).collect();
    let mut reply = Reply::json(200, &Value::Array(of_page));
    let next = if number < pages { (number + 1).to_string() } else { String::new() };
    let previous = if number > 1 { (number - 1).to_string() } else { String::new() };
    let links =
        [("prev", &previous), ("next", &next)].into_iter().filter(|(_, number)| !number.is_empty());
    let links: Vec<String> = links
        .map(|(rel, number)| format!("<{}page={number}&per_page={size}>; rel=\"{rel}\"", input.url))
        .collect();
    for (name, value) in [
        ("Link", links.join(", ")),
        ("X-Page", number.to_string()),
        ("X-Per-Page", size.to_string()),
        ("X-Next-Page", next),
        ("X-Prev-Page", previous),
        ("X-Total", total.to_string()),
        ("X-Total-Pages", pages.to_string()),
    ] {
        if name != "Link" || !value.is_empty() {
            reply.headers.push((name.into(), value));
        }
    }
    reply
}

impl State {
    pub(crate) fn gitlab(&mut self, call: &Call) -> Reply {
        let writes = call.method != "GET" && call.method != "HEAD";
        match self.knobs.mood {
            Mood::NotGitlab => {
                return Reply::html(
                    200,
                    "<!DOCTYPE html><html><body>Welcome to the intranet</body></html>",
                );
            }
            Mood::Challenge => {
                return Reply::html(
                    403,
                    "<!DOCTYPE html><html><title>Just a moment...</title></html>",
                );
            }
            Mood::Down => {
                return Reply::html(503, "<html><body>GitLab is not responding</body></html>");
            }
            Mood::Maintenance if writes => {
                return message(503, "503 GitLab Maintenance: system is in maintenance mode");
            }
            Mood::ReadOnly if writes => {
                if text(&call.headers, "content-type") == Some("application/json") {
                    let refusal = "You cannot perform write operations on a read-only instance";
                    return message(403, refusal);
                }
                let mut away = Reply::html(301, "");
                away.headers.push(("Location".into(), format!("{}/", self.url)));
                return away;
            }
            _ => {}
        }
        let Some(segments) = self.lab.segments(call) else {
            let mut away = Reply::html(302, "<html><body>You are being redirected.</body></html>");
            away.headers.push(("Location".into(), format!("{}/users/sign_in", self.url)));
            return away;
        };
        if self.knobs.decode_slashes && call.path.to_lowercase().contains("%2f") {
            return Reply::json(404, &json!({ "error": "404 Not Found" }));
        }
        let token = match self.token(call) {
            Ok(token) => token,
            Err(reply) => return reply,
        };
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (boundary, right) = right_for(&call.method, &parts);
        if token.lacks.contains(&right) {
            return Reply::json(
                403,
                &json!({ "error": "insufficient_granular_scope", "error_description": format!("Access \
                     denied: This operation requires a fine-grained personal access token with the \
                     following {boundary} permissions: [{right}].") }),
            );
        }
        let mut input = Input::of(call);
        // Links keep whatever else was asked for (`scope[]`, `pagination=keyset`).
        let kept: String = call
            .query
            .split('&')
            .filter(|part| {
                !part.is_empty() && !part.starts_with("page=") && !part.starts_with("per_page=")
            })
            .fold(String::new(), |kept, part| kept + part + "&");
        input.url = format!("{}{}?{kept}", self.url, call.path);
        match (call.method.as_str(), &parts[..]) {
            ("GET", ["user"]) => Reply::json(200, &self.user_json(token.user)),
            ("GET", ["personal_access_tokens", "self"]) if token.tells_about_itself => {
                Reply::json(200, &token_json(&token, self.now()))
            }
            ("GET", ["personal_access_tokens", "self"]) => forbidden(),
            ("GET", ["version"]) => {
                Reply::json(200, &json!({ "version": "18.11.0-ee", "revision": "0123abc" }))
            }
            (_, ["projects", named, rest @ ..]) => match self.find_project(named, &token) {
                Err(reply) => reply,
                Ok((_, true)) if writes => {
                    message(405, "Non GET methods are not allowed for moved projects")
                }
                Ok((id, true)) => {
                    let mut moved = message(301, "This resource has been moved permanently");
                    let rest: Vec<&str> =
                        call.path.split('/').skip(self.lab.api().split('/').count() + 2).collect();
                    let tail = if rest.is_empty() {
                        String::new()
                    } else {
                        format!("/{}", rest.join("/"))
                    };
                    let query = if call.query.is_empty() {
                        String::new()
                    } else {
                        format!("?{}", call.query)
                    };
                    moved.headers.push((
                        "Location".into(),
                        format!("{}{}/projects/{id}{tail}{query}", self.url, self.lab.api()),
                    ));
                    moved
                }
                Ok((id, false)) => self.in_project(call, &token, id, rest, &input),
            },
            (_, ["groups", named, rest @ ..]) => match self.find_group(named, &token) {
                None => not_found("Group"),
                Some(id) => self.in_group(call, &token, id, rest, &input),
            },
            _ => Reply::json(404, &json!({ "error": "404 Not Found" })),
        }
    }

    fn token(&mut self, call: &Call) -> Result<TokenSpec, Reply> {
        let unauthorized = || message(401, "401 Unauthorized");
        let bearer =
            text(&call.headers, "authorization").and_then(|value| value.strip_prefix("Bearer "));
        let given = text(&call.headers, "private-token").or(bearer).ok_or_else(unauthorized)?;
        self.who = given.chars().take(9).collect();
        let token = self
            .lab
            .tokens
            .iter()
            .find(|token| token.token == given)
            .cloned()
            .ok_or_else(unauthorized)?;
        let invalid = |why: &str| {
            Reply::json(401, &json!({ "error": "invalid_token", "error_description": why }))
        };
        if token.revoked {
            return Err(invalid("Token was revoked. You have to re-authorize from the user."));
        }
        if token.expires_at.is_some_and(|ends| self.now() >= ends) {
            return Err(invalid(
                "Token is expired. You can either do re-authorization or token refresh.",
            ));
        }
        if token.blocked {
            return Err(message(403, "403 Forbidden - Your account has been blocked."));
        }
        let reads = call.method == "GET";
        let about_itself = call.path.ends_with("/personal_access_tokens/self");
        let has = |scope: &str| token.scopes.iter().any(|known| known == scope);
        // Every verb on variables, listing too, needs `api`.
        let variables = call.path.contains("/variables");
        if !(has("api")
            || has("granular")
            || about_itself
            || (reads && has("read_api") && !variables))
        {
            return Err(Reply::json(
                403,
                &json!({ "error": "insufficient_scope", "error_description": "The request requires \
                     higher privileges than provided by the access token.", "scope": "api" }),
            ));
        }
        Ok(token)
    }

    pub(crate) fn level(&self, token: &TokenSpec, home: Home) -> u32 {
        let general = if matches!(home, Home::Group(_)) { token.group_level } else { token.level };
        token.levels.get(&home).copied().unwrap_or(general)
    }

    /// The project, and whether it was named by a path that it has left.
    fn find_project(&self, named: &str, token: &TokenSpec) -> Result<(u64, bool), Reply> {
        let by_id = named
            .parse()
            .ok()
            .filter(|id| self.lab.projects.contains_key(id))
            .map(|id| (id, false));
        let by_path = || {
            self.lab
                .projects
                .iter()
                .find(|(_, project)| project.path.eq_ignore_ascii_case(named))
                .map(|(id, _)| (*id, false))
        };
        let by_old = || {
            self.lab
                .projects
                .iter()
                .find(|(_, project)| project.old_paths.iter().any(|old| old == named))
                .map(|(id, _)| (*id, true))
        };
        match by_id.or_else(by_path).or_else(by_old) {
            Some((id, moved)) if self.level(token, Home::Project(id)) > 0 => Ok((id, moved)),
            _ => Err(not_found("Project")),
        }
    }

    fn find_group(&self, named: &str, token: &TokenSpec) -> Option<u64> {
        let by_id = named.parse().ok().filter(|id| self.lab.groups.contains_key(id));
        let by_path = || {
            self.lab
                .groups
                .iter()
                .find(|(_, group)| group.path.eq_ignore_ascii_case(named))
                .map(|(id, _)| *id)
        };
        by_id.or_else(by_path).filter(|id| self.level(token, Home::Group(*id)) > 0)
    }

    fn in_project(
        &mut self,
        call: &Call,
        token: &TokenSpec,
        id: u64,
        rest: &[&str],
        input: &Input,
    ) -> Reply {
        let level = self.level(token, Home::Project(id));
        let writes = call.method != "GET";
        let Project { archived, settings, .. } = &self.lab.projects[&id];
        let (archived, ci) = (*archived, settings.ci);
        match rest {
            [
                "variables" | "pipeline" | "pipelines" | "jobs" | "environments" | "deployments",
                ..,
            ] if !ci => forbidden(),
            ["variables", ..] if level < 40 || (writes && archived) => forbidden(),
            ["variables", rest @ ..] => self.variables_api(call, Home::Project(id), rest, input),
            [] if !writes => Reply::json(200, &self.project_json(id, level)),
            _ if level < 20 || (writes && (level < 30 || archived)) => forbidden(),
            ["repository", "commits", name] => self.commit(id, name).map_or_else(
                || not_found("Commit"),
                |sha| Reply::json(200, &self.commit_json(id, &sha)),
            ),
            ["repository", "branches", name] => match self.lab.projects[&id].refs.get(*name) {
                Some(found) => Reply::json(
                    200,
                    &json!({ "name": name, "protected": found.protected, "default": *name == self.lab.projects[&id].default_branch, "commit": self.commit_json(id, &found.sha) }),
                ),
                None => not_found("Branch"),
            },
            _ => self.pipelines_api(call, token, id, rest, input),
        }
    }

    fn in_group(
        &mut self,
        call: &Call,
        token: &TokenSpec,
        id: u64,
        rest: &[&str],
        input: &Input,
    ) -> Reply {
        match rest {
            ["variables", ..] if self.level(token, Home::Group(id)) < 50 => forbidden(),
            ["variables", rest @ ..] => self.variables_api(call, Home::Group(id), rest, input),
            [] => {
                let path = &self.lab.groups[&id].path;
                Reply::json(
                    200,
                    &json!({ "id": id, "path": path.rsplit('/').next(), "full_path": path, "parent_id": self.group_of(path), "web_url": format!("{}/groups/{path}", self.url) }),
                )
            }
            _ => Reply::json(404, &json!({ "error": "404 Not Found" })),
        }
    }

    fn commit(&self, project: u64, name: &str) -> Option<String> {
        let refs = &self.lab.projects[&project].refs;
        refs.get(name).map(|found| found.sha.clone()).or_else(|| {
            refs.values()
                .map(|found| found.sha.clone())
                .find(|sha| sha.starts_with(name) && name.len() >= 7)
        })
    }

    /// The group that a path lies in; none where nobody has added it.
    fn group_of(&self, path: &str) -> Option<u64> {
        let (above, _) = path.rsplit_once('/')?;
        self.lab.groups.iter().find(|(_, group)| group.path == above).map(|(id, _)| *id)
    }

    /// A project that is in no group is a user's.
    pub(crate) fn namespace_json(&self, path: &str) -> Value {
        let above = path.rsplit_once('/').map_or("root", |(above, _)| above);
        let name = above.rsplit('/').next();
        match self.group_of(path) {
            Some(id) => {
                json!({ "id": id, "name": name, "path": name, "kind": "group", "full_path": above, "parent_id": self.group_of(above) })
            }
            None => {
                json!({ "id": 1, "name": name, "path": name, "kind": "user", "full_path": above, "parent_id": null })
            }
        }
    }

    pub(crate) fn web(&self, project: u64) -> String {
        format!("{}{}/{}", self.url, self.lab.prefix, self.lab.projects[&project].path)
    }

    pub(crate) fn user_json(&self, user: u64) -> Value {
        json!({ "id": user, "username": username(user), "name": format!("User {user}"), "state": "active", "locked": false, "web_url": format!("{}/{}", self.url, username(user)), "bot": true })
    }

    pub(crate) fn commit_json(&self, project: u64, sha: &str) -> Value {
        json!({
            "id": sha, "short_id": &sha[..8], "title": "A commit", "message": "A commit\n", "author_name": "A person", "author_email": "person@example.com",
            "created_at": iso(0), "committed_date": iso(0), "authored_date": iso(0), "parent_ids": [], "web_url": format!("{}/-/commit/{sha}", self.web(project)),
        })
    }
}

pub(crate) fn username(user: u64) -> String {
    format!("project_bot_{user}")
}

/// Where a fine-grained token must have which right for a call; in GitLab's source the boundary and
/// the permissions of each route.
fn right_for(method: &str, parts: &[&str]) -> (&'static str, String) {
    let boundary = match parts[0] {
        "projects" => "project",
        "groups" => "group",
        _ => "user",
    };
    let resource = match (parts.get(2).copied(), parts.get(3)) {
        (Some("variables"), _) => "Variable",
        (Some("pipeline" | "pipelines"), _) => "Pipeline",
        (Some("pipeline_schedules"), _) => "Pipeline Schedule",
        (Some("jobs"), _) => "Job",
        (Some("deployments"), _) => "Deployment",
        (Some("environments"), _) => "Environment",
        (Some("repository"), Some(&"commits")) => "Commit",
        (Some("repository"), Some(&"branches")) => "Branch",
        _ if boundary == "project" => "Project",
        _ if boundary == "group" => "Group",
        _ => "Personal Access Token",
    };
    let verb = match method {
        "POST" if parts.last() == Some(&"retry") => "Run",
        "POST" => "Create",
        "PUT" => "Update",
        "DELETE" => "Delete",
        _ => "Read",
    };
    (boundary, format!("{resource}: {verb}"))
}

fn token_json(token: &TokenSpec, now: Millis) -> Value {
    json!({
        "id": 77, "name": "rotator", "revoked": token.revoked, "created_at": iso(now - 86_400_000), "description": null, "scopes": token.scopes,
        "user_id": token.user, "last_used_at": iso(now), "active": true, "expires_at": token.expires_at.map(date),
    })
}
