//! The fixture of all tests: a fake with one user, one key and one project.
//!
//! [`Fixture::of_days`] is the usual one; a case changes it as it likes. [`Fixture::run`] prepares
//! the next job of the rotator.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Fake;
use super::aws::Pair;
use super::gitlab::{Home, project};
use super::jobs::{JobSpec, JobView};
use super::run::{Run, until};
use super::variables::Variable;

pub const USER: &str = "deployer";
pub const PROJECT: u64 = 42;
pub const ID: &str = "AWS_ACCESS_KEY_ID";
pub const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

/// A fake with the user `deployer`, the key `old` published and deployed in project 42.
pub struct Fixture {
    pub fake: Fake,
    pub old: Pair,
    /// How transcripts call keys.
    names: Mutex<Vec<(String, &'static str)>>,
    next_job: AtomicU64,
}

/// Set up.
impl Fixture {
    /// In a calm fake, with a key of so many days.
    pub fn of_days(days: i64) -> Self {
        Self::bare(Fake::builder().seed(7).calm().start(), days).published()
    }

    /// In a hostile one.
    pub fn hostile(seed: u64, days: i64) -> Self {
        Self::bare(Fake::builder().seed(seed).start(), days).published()
    }

    /// User, key and project with its pipeline; nothing published yet.
    pub fn bare(fake: Fake, days: i64) -> Self {
        fake.add_user("/service/ci/", USER);
        let old = fake.add_key(USER, days);
        fake.add_project(PROJECT, "acme/shop");
        fake.set_pipeline_config(
            PROJECT,
            vec![JobSpec::new("build"), JobSpec::deploy("deploy", "production")],
        );
        let names = Mutex::new(vec![(old.id.clone(), "[OLD]")]);
        Self { fake, old, names, next_job: AtomicU64::new(9001) }
    }

    /// The pair in project 42, and a production that runs with it.
    pub fn published(self) -> Self {
        self.fake.set_pair(PROJECT, &self.old);
        self.deployed()
    }

    /// A production that runs with what is in the variables, watched by the invariants.
    pub fn deployed(self) -> Self {
        self.deploy(PROJECT);
        self.fake.watch_target(PROJECT, "*", ID, SECRET);
        self
    }

    /// What is in the variables of this project goes live.
    pub fn deploy(&self, project: u64) {
        self.fake.start_pipeline(project, "push");
        self.fake.finish_pipelines();
        self.fake.watch_deploy(project);
    }

    /// How transcripts call this key, in brackets.
    pub fn name(&self, id: &str, placeholder: &'static str) {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((id.to_owned(), placeholder));
    }
}

/// Jobs of the rotator.
impl Fixture {
    /// The next scheduled job of the rotator. Nothing overlaps and no grace is given unless the
    /// case says so.
    pub fn run(&self) -> Run<'_> {
        let job = self.new_job();
        self.run_as(PROJECT, job)
    }

    /// A new job of the rotator, which runs now.
    pub fn new_job(&self) -> u64 {
        let job = self.next_job.fetch_add(1, Ordering::Relaxed);
        self.fake.add_job(PROJECT, job, "running");
        job
    }

    /// The rotator as this job, which exists and runs.
    pub fn run_as(&self, project: u64, job: u64) -> Run<'_> {
        Run::new(self, project, job)
    }
}

/// Questions.
impl Fixture {
    /// The one new key.
    pub fn new_key(&self) -> Pair {
        let [key] = &self.fresh()[..] else {
            panic!("not one new key: {:?}", self.fake.keys(USER))
        };
        key.clone()
    }

    /// One working key is left, and it is a new one that the variables hold.
    pub fn is_rotated(&self) {
        let new = self.new_key();
        assert_eq!(self.stored(), (new.id, new.secret));
        assert_eq!(self.old_is_active(), None);
    }

    /// Nothing has changed: the old pair is published and its key the only one.
    pub fn is_untouched(&self) {
        assert_eq!(self.stored(), (self.old.id.clone(), self.old.secret.clone()));
        assert_eq!((self.old_is_active(), self.fresh().len()), (Some(true), 0));
        assert_eq!(self.records().len(), 0);
    }

    /// The user's keys but the old one.
    pub fn fresh(&self) -> Vec<Pair> {
        let keys = self.fake.keys(USER).into_iter().filter(|key| key.id != self.old.id);
        keys.map(|key| Pair { id: key.id, secret: key.secret, token: None }).collect()
    }

    /// The pair that the variables hold.
    pub fn stored(&self) -> (String, String) {
        self.stored_in(project(PROJECT), "*")
    }

    /// The pair of another place; what is not there is empty.
    pub fn stored_in(&self, home: Home, scope: &str) -> (String, String) {
        let value = |name| {
            self.fake.variable(home, name, scope).map(|variable| variable.value).unwrap_or_default()
        };
        (value(ID), value(SECRET))
    }

    /// The old key's state: none where it is gone.
    pub fn old_is_active(&self) -> Option<bool> {
        self.fake.keys(USER).into_iter().find(|key| key.id == self.old.id).map(|key| key.active)
    }

    /// The records of project 42, released or not, by their names.
    pub fn records(&self) -> Vec<Variable> {
        self.records_in(project(PROJECT))
    }

    pub fn records_in(&self, home: Home) -> Vec<Variable> {
        self.fake
            .variables(home)
            .into_iter()
            .filter(|variable| variable.key.starts_with("CREDENTIAL_ROTATOR_"))
            .collect()
    }

    /// The job of this name that runs now.
    pub fn running_job(&self, project: u64, name: &str) -> JobView {
        let find = || {
            self.fake
                .jobs(project)
                .into_iter()
                .find(|job| job.name == name && job.status == "running")
        };
        until(find).unwrap_or_else(|| panic!("no job {name} of project {project} runs"))
    }

    /// How transcripts call the keys that there are: a new one without a name is `[NEW]`.
    pub(crate) fn names(&self) -> Vec<(String, &'static str)> {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for key in self.fresh() {
            if !names.iter().any(|(id, _)| *id == key.id) {
                names.push((key.id, "[NEW]"));
            }
        }
        names
    }
}
