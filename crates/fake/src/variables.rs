//! CI/CD variables of projects and groups: GitLab's rules, its texts, and its bug.

use serde_json::{Value, json};

use super::front::{Input, message, not_found, page};
use super::gitlab::Home;
use super::invariants::Mutation;
use super::serve::{Call, Reply};
use super::state::State;

/// A variable: to set one up, and to look at one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variable {
    pub key: String,
    pub value: String,
    pub scope: String,
    pub masked: bool,
    pub hidden: bool,
    pub protected: bool,
    pub raw: bool,
    /// `file` instead of `env_var`.
    pub file: bool,
    pub description: Option<String>,
}

impl Variable {
    /// Scope `*`, raw, neither masked nor protected.
    pub fn new(key: &str, value: &str) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
            scope: "*".into(),
            masked: false,
            hidden: false,
            protected: false,
            raw: true,
            file: false,
            description: None,
        }
    }

    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = scope.into();
        self
    }

    pub fn masked(mut self) -> Self {
        self.masked = true;
        self
    }

    pub fn hidden(mut self) -> Self {
        (self.masked, self.hidden) = (true, true);
        self
    }

    pub fn protected(mut self) -> Self {
        self.protected = true;
        self
    }

    /// `$X` in it is expanded.
    pub fn expanded(mut self) -> Self {
        self.raw = false;
        self
    }

    pub fn file(mut self) -> Self {
        self.file = true;
        self
    }

    pub fn description(mut self, description: &str) -> Self {
        self.description = Some(description.into());
        self
    }

    fn json(&self) -> Value {
        json!({
            "variable_type": if self.file { "file" } else { "env_var" },
            "key": self.key,
            "value": if self.hidden { Value::Null } else { self.value.clone().into() },
            "hidden": self.hidden,
            "protected": self.protected,
            "masked": self.masked,
            "raw": self.raw,
            "environment_scope": self.scope,
            "description": self.description,
        })
    }

    /// What GitLab would say of it, field by field.
    fn faults(&self, check_mask: bool) -> serde_json::Map<String, Value> {
        let mut faults = serde_json::Map::new();
        let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if self.key.is_empty() || !self.key.chars().all(word) {
            faults.insert("key".into(), json!(["can contain only letters, digits and '_'."]));
        } else if self.key.len() > 255 {
            faults.insert("key".into(), json!(["is too long (maximum is 255 characters)"]));
        }
        if check_mask && self.masked && !maskable(&self.value, self.raw) {
            faults.insert("value".into(), json!(["is invalid"]));
        } else if self.value.len() > 10_000 {
            faults.insert("value".into(), json!(["is too long (maximum is 10000 characters)"]));
        }
        if self.description.as_ref().is_some_and(|description| description.chars().count() > 255) {
            faults.insert("description".into(), json!(["is too long (maximum is 255 characters)"]));
        }
        let scope =
            |letter: char| letter.is_ascii_alphanumeric() || " _/\\$\\{\\}.-*".contains(letter);
        if self.scope.is_empty() || !self.scope.chars().all(scope) {
            faults.insert(
                "environment_scope".into(),
                json!(["can contain only letters, digits, \
                 '-', '_', '/', '$', '{', '}', '.', '*' and spaces"]),
            );
        } else if self.scope.len() > 255 {
            faults.insert(
                "environment_scope".into(),
                json!(["is too long (maximum is 255 characters)"]),
            );
        }
        faults
    }
}

fn maskable(value: &str, raw: bool) -> bool {
    let long = value.chars().count() >= 8;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_+=/@:.~-".contains(letter);
    long && if raw { !value.chars().any(char::is_whitespace) } else { value.chars().all(plain) }
}

impl State {
    pub(crate) fn variables_api(
        &mut self,
        call: &Call,
        home: Home,
        rest: &[&str],
        input: &Input,
    ) -> Reply {
        match (call.method.as_str(), rest) {
            ("GET", []) => {
                let all =
                    self.lab.variables(home).into_iter().flatten().map(Variable::json).collect();
                page(input, all)
            }
            ("POST", []) => self.post_variable(home, input),
            (method @ ("GET" | "PUT" | "DELETE"), [key]) => {
                match self.choose(home, key, input, method == "PUT") {
                    Err(reply) => reply,
                    Ok(at) => match method {
                        "GET" => Reply::json(200, &self.variable(home, at).json()),
                        "PUT" => self.put_variable(home, at, input),
                        _ => {
                            let gone = self
                                .lab
                                .variables_mut(home)
                                .expect("the home was found")
                                .remove(at);
                            self.mutated(&Mutation::Variable {
                                home,
                                key: gone.key,
                                scope: gone.scope,
                            });
                            Reply::json(204, &Value::Null).with_effect()
                        }
                    },
                }
            }
            _ => Reply::json(405, &json!({ "error": "405 Not Allowed" })),
        }
    }

    fn variable(&self, home: Home, at: usize) -> &Variable {
        &self.lab.variables(home).expect("the home was found")[at]
    }

    /// Which of the variables of this key is meant.
    fn choose(&self, home: Home, key: &str, input: &Input, put: bool) -> Result<usize, Reply> {
        let of_key: Vec<(usize, &Variable)> = self
            .lab
            .variables(home)
            .into_iter()
            .flatten()
            .enumerate()
            .filter(|(_, variable)| variable.key == key)
            .collect();
        if of_key.is_empty() {
            return Err(not_found("Variable"));
        }
        match input.scope_filter() {
            None if of_key.len() > 1 => Err(message(
                409,
                "There are multiple variables with provided parameters. Please use \
                 'filter[environment_scope]'",
            )),
            None => Ok(of_key[0].0),
            Some(scope) => match of_key.iter().find(|(_, variable)| variable.scope == scope) {
                Some((at, _)) => Ok(*at),
                // lib/api/group_variables.rb: another variable of the same key is updated.
                None if put && matches!(home, Home::Group(_)) => Ok(of_key[0].0),
                None => Err(not_found("Variable")),
            },
        }
    }

    fn post_variable(&mut self, home: Home, input: &Input) -> Reply {
        let missing: Vec<String> = ["key", "value"]
            .iter()
            .filter(|name| !input.has(name))
            .map(|name| format!("{name} is missing"))
            .collect();
        if !missing.is_empty() {
            return Reply::json(400, &json!({ "error": missing.join(", ") }));
        }
        if let Err(reply) = check_types(input) {
            return reply;
        }
        let hidden = input.flag("masked_and_hidden").unwrap_or(false);
        let mut variable = Variable {
            key: input.text("key").unwrap_or_default(),
            value: String::new(),
            scope: "*".into(),
            masked: hidden || input.flag("masked").unwrap_or(false),
            hidden,
            protected: false,
            raw: self.knobs.raw_default,
            file: false,
            description: None,
        };
        self.assign(&mut variable, home, input);
        let faults = variable.faults(true);
        self.save(home, None, variable, faults, 201)
    }

    fn put_variable(&mut self, home: Home, at: usize, input: &Input) -> Reply {
        if let Err(reply) = check_types(input) {
            return reply;
        }
        let mut variable = self.variable(home, at).clone();
        if variable.hidden && input.flag("masked") == Some(false) {
            return Reply::json(
                400,
                &json!({ "message": { "base": ["The visibility setting cannot be changed for \
                     masked and hidden variables."] } }),
            );
        }
        self.assign(&mut variable, home, input);
        if let Some(masked) = input.flag("masked") {
            variable.masked = masked;
        }
        let faults = variable.faults(true);
        self.save(home, Some(at), variable, faults, 200)
    }

    /// What POST and PUT have in common.
    fn assign(&self, variable: &mut Variable, home: Home, input: &Input) {
        if let Some(value) = input.text("value") {
            variable.value = value;
        }
        if let Some(protected) = input.flag("protected") {
            variable.protected = protected;
        }
        if let Some(raw) = input.flag("raw") {
            variable.raw = raw;
        }
        if let Some(kind) = input.text("variable_type") {
            variable.file = kind == "file";
        }
        if input.raw("description").is_some() {
            variable.description = input.text("description");
        }
        if let Some(scope) = input
            .text("environment_scope")
            .filter(|_| self.knobs.group_scopes || matches!(home, Home::Project(_)))
        {
            variable.scope = scope;
        }
    }

    fn save(
        &mut self,
        home: Home,
        at: Option<usize>,
        variable: Variable,
        mut faults: serde_json::Map<String, Value>,
        status: u16,
    ) -> Reply {
        let taken =
            self.lab.variables(home).into_iter().flatten().enumerate().any(|(other, known)| {
                Some(other) != at && known.key == variable.key && known.scope == variable.scope
            });
        if taken {
            faults.insert(
                "key".into(),
                json!([format!("({}) has already been taken", variable.key)]),
            );
        }
        if !faults.is_empty() {
            return Reply::json(400, &json!({ "message": faults }));
        }
        let reply = Reply::json(status, &variable.json()).with_effect();
        let mutation =
            Mutation::Variable { home, key: variable.key.clone(), scope: variable.scope.clone() };
        let variables = self.lab.variables_mut(home).expect("the home was found");
        match at {
            Some(at) => variables[at] = variable,
            None => variables.push(variable),
        }
        self.mutated(&mutation);
        reply
    }
}

fn check_types(input: &Input) -> Result<(), Reply> {
    let bad = |name: &str| Err(Reply::json(400, &json!({ "error": format!("{name} is invalid") })));
    for name in ["masked", "protected", "raw", "masked_and_hidden"] {
        if input.has(name) && input.flag(name).is_none() {
            return bad(name);
        }
    }
    for name in ["value", "description", "environment_scope", "key"] {
        if input.has(name) && input.text(name).is_none() {
            return bad(name);
        }
    }
    match input.text("variable_type").as_deref() {
        None | Some("env_var" | "file") => Ok(()),
        Some(_) => {
            Err(Reply::json(400, &json!({ "error": "variable_type does not have a valid value" })))
        }
    }
}
