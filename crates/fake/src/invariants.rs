//! The invariants of `ARCHITECTURE.md`, checked after every single change, with all that the fake
//! knows and no caller can know.
//!
//! What an operator does (through the tests' own functions) is never a violation; what it breaks
//! is taken as it then is.

use std::collections::{BTreeMap, BTreeSet};

use super::aws::Pair;
use super::gitlab::Home;
use super::state::State;

#[derive(Default)]
pub(crate) struct Invariants {
    pub(crate) targets: Vec<Target>,
    pub(crate) deploys: BTreeSet<u64>,
    /// What runs: by project and environment, the pair its last successful deploy has read.
    pub(crate) productions: BTreeMap<(u64, String), Pair>,
    /// Every key that a watched target has ever named.
    pub(crate) published: BTreeSet<String>,
    pub(crate) violations: Vec<String>,
    /// An operator is at work: nothing is a violation.
    pub(crate) operator: bool,
}

pub(crate) struct Target {
    pub(crate) home: Home,
    pub(crate) scope: String,
    pub(crate) id_variable: String,
    pub(crate) secret_variable: String,
    /// The id of the last pair here that worked.
    last: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Variable { home: Home, key: String, scope: String },
    KeyCreated,
    KeyEnabled,
    KeyDisabled(String),
    KeyDeleted { id: String, was_active: bool },
    Deployed { project: u64, environment: String, pair: Pair },
}

impl Target {
    pub(crate) fn new(home: Home, scope: &str, id_variable: &str, secret_variable: &str) -> Self {
        Self {
            home,
            scope: scope.into(),
            id_variable: id_variable.into(),
            secret_variable: secret_variable.into(),
            last: None,
            error: None,
        }
    }
}

impl State {
    /// To be called after every change, under the same lock.
    pub(crate) fn mutated(&mut self, mutation: &Mutation) {
        if let Mutation::Deployed { project, environment, pair } = mutation {
            self.check.productions.insert((*project, environment.clone()), pair.clone());
        }
        let mut found = Vec::new();
        match mutation {
            Mutation::Variable { home, key, scope } => {
                self.check_variable(*home, key, scope, &mut found);
            }
            Mutation::KeyDisabled(id) => self.check_retirement(id, "disabled", true, &mut found),
            Mutation::KeyDeleted { id, was_active } => {
                self.check_retirement(id, "deleted", *was_active, &mut found);
            }
            Mutation::Deployed { project, environment, pair } => {
                if !self.works(pair) {
                    found.push(format!(
                        "(2) project {project} {environment} was deployed with {}, \
                         which does not work any more",
                        pair.id
                    ));
                }
            }
            Mutation::KeyCreated | Mutation::KeyEnabled => {}
        }
        self.check_targets(&mut found);
        if !self.check.operator {
            let at = format!("at call {} of the log", self.log.len());
            self.check
                .violations
                .extend(found.into_iter().map(|text| format!("{text}, {at} by {}", self.who)));
        }
    }

    fn works(&self, pair: &Pair) -> bool {
        self.aws.key(&pair.id).is_some_and(|key| key.active && key.secret == pair.secret)
    }

    /// (4): nothing of an unverified key in a variable.
    fn check_variable(&self, home: Home, name: &str, scope: &str, found: &mut Vec<String>) {
        let variable = self
            .lab
            .variables(home)
            .into_iter()
            .flatten()
            .find(|variable| variable.key == name && variable.scope == scope);
        let Some(value) = variable.map(|variable| variable.value.trim()) else { return };
        for key in self.aws.keys.iter().filter(|key| !key.verified) {
            if value == key.id || value == key.secret {
                found.push(format!(
                    "(4) {name}@{scope} of {home} was given key {} before it had \
                     signed a GetCallerIdentity",
                    key.id
                ));
            }
        }
    }

    fn check_retirement(&self, id: &str, how: &str, was_active: bool, found: &mut Vec<String>) {
        for home in self.lab.homes() {
            for variable in self
                .lab
                .variables(home)
                .into_iter()
                .flatten()
                .filter(|variable| variable.value.trim() == id)
            {
                found.push(format!(
                    "(3) key {id} was {how} while {}@{} of {home} names it",
                    variable.key, variable.scope
                ));
            }
        }
        if was_active {
            for ((project, environment), pair) in
                self.check.productions.iter().filter(|(_, pair)| pair.id == id)
            {
                found.push(format!(
                    "(2) key {} was {how} while the production {environment} of \
                     project {project} runs with it",
                    pair.id
                ));
            }
        }
        if self.aws.keys.iter().any(|key| key.id == id && !key.ours) {
            found.push(format!("(5) key {id}, which is not ours, was {how}"));
        }
        if was_active && self.check.published.contains(id) {
            for project in &self.check.deploys {
                let named: Vec<&String> =
                    self.check.targets.iter().filter_map(|target| target.last.as_ref()).collect();
                let runs: Vec<&Pair> = self
                    .check
                    .productions
                    .iter()
                    .filter(|((of, _), _)| of == project)
                    .map(|(_, pair)| pair)
                    .collect();
                if runs.is_empty()
                    || runs.iter().any(|pair| pair.id == id || !named.contains(&&pair.id))
                {
                    let with =
                        runs.iter().map(|pair| pair.id.as_str()).collect::<Vec<_>>().join(", ");
                    found.push(format!(
                        "(6) key {id} was {how} before project {project} had been deployed with \
                         the published one (it runs with '{with}')"
                    ));
                }
            }
        }
    }

    /// (1): each target names a pair that works, or the old id beside the new secret.
    fn check_targets(&mut self, found: &mut Vec<String>) {
        let mut targets = std::mem::take(&mut self.check.targets);
        for target in &mut targets {
            let value = |name: &str| {
                let variables = self.lab.variables(target.home).into_iter().flatten();
                variables
                    .filter(|variable| variable.key == name && variable.scope == target.scope)
                    .map(|variable| variable.value.clone())
                    .find(|value| !value.trim().is_empty())
            };
            let (id, secret) = (value(&target.id_variable), value(&target.secret_variable));
            if let Some(id) = &id {
                self.check.published.insert(id.clone());
            }
            let error = self.pair_error(id.as_deref(), secret.as_deref(), target.last.as_deref());
            if error.is_none()
                && id.as_deref().is_some_and(|id| {
                    self.aws.key(id).is_some_and(|key| Some(&key.secret) == secret.as_ref())
                })
            {
                target.last = id;
            }
            if let Some(text) = error.as_ref().filter(|text| target.error.as_ref() != Some(text)) {
                found.push(format!(
                    "(1) {}@{} of {}: {text}",
                    target.id_variable, target.scope, target.home
                ));
            }
            target.error = error;
        }
        self.check.targets = targets;
    }

    fn pair_error(
        &self,
        id: Option<&str>,
        secret: Option<&str>,
        last: Option<&str>,
    ) -> Option<String> {
        let active = |id: &str| self.aws.key(id).is_some_and(|key| key.active);
        match (id, secret) {
            (None, _) => last.map(|last| format!("the id is gone, it was {last}")),
            (Some(id), _) if !active(id) => Some(format!("the named key {id} is not active")),
            (Some(id), None) => Some(format!("the secret of {id} is gone")),
            (Some(id), Some(secret)) => {
                let owner = self.aws.keys.iter().find(|key| key.secret == secret);
                match owner {
                    Some(owner) if owner.id == id => None,
                    Some(owner) if active(&owner.id) && last == Some(id) => None,
                    Some(owner) => Some(format!("the id is {id}, the secret is of {}", owner.id)),
                    None => Some(format!("the secret beside {id} is of no key")),
                }
            }
        }
    }

    /// What the tests do themselves: never a violation, and the invariants take note of how
    /// things are now.
    pub(crate) fn as_operator<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.check.operator, true);
        let result = act(self);
        let mut none = Vec::new();
        self.check_targets(&mut none);
        self.check.operator = before;
        result
    }
}
