//! What a test controls and asks: time, switches, faults, the log, the invariants.

use std::sync::Arc;

use super::Fake;
use super::gitlab::Home;
use super::invariants::Target;
use super::state::{Entry, Fault, FaultView, Knobs, On, PlannedFault};

/// Time, switches, faults, log.
impl Fake {
    /// The fake's time, in milliseconds since 1970.
    pub fn now(&self) -> i64 {
        self.lock().now()
    }

    /// Every `Date` of the fake is `seconds` ahead of the real clock from now on (so the runner
    /// looks as far behind).
    pub fn shift_clock(&self, seconds: i64) {
        self.lock().shift = seconds * 1000;
    }

    /// So long passes between two runs: keys, their uses and the records lie further back. (The clock
    /// of the runner is the real one, and a run does not bear it to be days behind.)
    pub fn time_passes(&self, seconds: i64) {
        let mut state = self.lock();
        for key in &mut state.aws.keys {
            key.created -= seconds * 1000;
            key.uses.iter_mut().for_each(|(at, ..)| *at -= seconds * 1000);
        }
        let by = jiff::SignedDuration::from_secs(seconds);
        for home in state.lab.homes() {
            let variables = state.lab.variables_mut(home).into_iter().flatten();
            for record in variables.filter(|variable| variable.scope == "credential-rotator") {
                if let Ok(mut line) = serde_json::from_str(&record.value) {
                    set_back(&mut line, by);
                    record.value = line.to_string();
                }
            }
        }
    }

    pub fn tune(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.lock().knobs);
    }

    /// Plans a fault for the `n`th counted call from the start or the last `restart_count`, from 1.
    pub fn fault(&self, n: usize, fault: Fault) {
        self.plan(On::Call(n), fault);
    }

    /// Plans a fault for the `nth` call (from 1, counted from now) of this action.
    pub fn fault_on(&self, action: &str, nth: usize, fault: Fault) {
        self.plan(On::Action { pattern: action.into(), nth }, fault);
    }

    /// The same, and for every later one until `clear_faults`.
    pub fn fault_from(&self, action: &str, nth: usize, fault: Fault) {
        self.plan(On::ActionFrom { pattern: action.into(), nth }, fault);
    }

    fn plan(&self, on: On, fault: Fault) {
        self.lock().faults.push(PlannedFault {
            on,
            seen: 0,
            fault,
            hit: None,
            target: String::new(),
        });
    }

    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// What `Fault::KillBefore` and `KillAfter` call. It may not call the fake.
    pub fn on_kill(&self, act: impl Fn() + Send + Sync + 'static) {
        self.lock().on_kill = Some(Arc::new(act));
    }

    pub fn faults_hit(&self) -> Vec<FaultView> {
        let state = self.lock();
        state
            .faults
            .iter()
            .map(|planned| FaultView {
                fault: planned.fault.clone(),
                hit: planned.hit,
                target: planned.target.clone(),
            })
            .collect()
    }

    /// Counted calls since the start or the last `restart_count`.
    pub fn calls(&self) -> usize {
        self.lock().counted
    }

    pub fn restart_count(&self) {
        self.lock().counted = 0;
    }

    pub fn log(&self) -> Vec<Entry> {
        self.lock().log.clone()
    }

    /// Every secret ever issued: secret keys, session secrets and tokens, ID tokens, GitLab tokens.
    pub fn secrets(&self) -> Vec<String> {
        self.lock().secrets.clone()
    }

    /// Which invariants broke, in order.
    pub fn violations(&self) -> Vec<String> {
        self.lock().check.violations.clone()
    }

    /// This target's pair must work from now on, whoever changes what.
    pub fn watch_target(
        &self,
        home: impl Into<Home>,
        scope: &str,
        id_variable: &str,
        secret_variable: &str,
    ) {
        self.lock().as_operator(|state| {
            state.check.targets.push(Target::new(home.into(), scope, id_variable, secret_variable));
        });
    }

    /// An old key may go only after this project has been deployed with the published one.
    pub fn watch_deploy(&self, project: u64) {
        self.lock().check.deploys.insert(project);
    }

    /// Nobody runs with the pairs of this project or group any more.
    pub fn unwatch_target(&self, home: impl Into<Home>) {
        let home = home.into();
        self.lock().check.targets.retain(|target| target.home != home);
    }

    /// Nothing of this project is deployed any more.
    pub fn unwatch_deploy(&self, project: u64) {
        let mut state = self.lock();
        state.check.deploys.remove(&project);
        state.check.productions.retain(|(known, _), _| *known != project);
    }

    /// This key may be disabled and deleted.
    pub fn ours(&self, key: &str) {
        for found in self.lock().aws.keys.iter_mut().filter(|found| found.id == key) {
            found.ours = true;
        }
    }
}

/// Every date in it lies further back.
fn set_back(value: &mut serde_json::Value, by: jiff::SignedDuration) {
    match value {
        serde_json::Value::String(text) => {
            if let Ok(date) = text.parse::<jiff::Timestamp>() {
                *text = (date - by).to_string();
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| set_back(item, by)),
        serde_json::Value::Object(fields) => {
            fields.values_mut().for_each(|field| set_back(field, by));
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {}
    }
}
