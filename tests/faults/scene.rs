//! The fixture with a rotation that is due, in each mode that the program knows, and the one good
//! end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fake::*;
use rustix::process::{Pid, Signal, kill_process};

const SECOND: u64 = 43;
const GROUP: u64 = 7;
/// A deploy takes longer than the program to look at it first, even on a busy machine, and less
/// than until its second look.
const DEPLOY: i64 = 700;
/// Overlap and grace of the patient rotation, and how long its days are.
const DAY: &str = "1s";
pub(crate) const NIGHT: Duration = Duration::from_millis(2200);
const SHORT_NIGHT: Duration = Duration::from_millis(1100);
const MINUTE: i64 = 60_000;

/// What kind of rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The project's own pair signs.
    Own,
    /// An assumed role signs.
    Role,
    /// A project (the home) and a group, each with a project that is deployed.
    Two,
    /// A group alone, which is the home too.
    Group,
    /// The secret cannot be read back.
    Hidden,
    /// The user has no key any more and nothing is published; a role makes the first one.
    Setup,
    /// The live deployment's job is retried instead of a new pipeline.
    Redeploy,
    /// Overlap and grace period, so a rotation takes three jobs.
    Patient,
}

pub(crate) const MODES: [Mode; 8] = [
    Mode::Own,
    Mode::Role,
    Mode::Two,
    Mode::Group,
    Mode::Hidden,
    Mode::Setup,
    Mode::Redeploy,
    Mode::Patient,
];

impl Mode {
    /// How many jobs a rotation takes where nothing goes wrong.
    pub(crate) fn jobs(self) -> usize {
        if self == Self::Patient { 3 } else { 1 }
    }

    pub(crate) fn by_role(self) -> bool {
        matches!(self, Self::Role | Self::Setup)
    }

    pub(crate) fn targets(self) -> Vec<Home> {
        match self {
            Self::Two => vec![project(PROJECT), group(GROUP)],
            Self::Group => vec![group(GROUP)],
            Self::Own
            | Self::Role
            | Self::Hidden
            | Self::Setup
            | Self::Redeploy
            | Self::Patient => vec![project(PROJECT)],
        }
    }

    /// Where the records are.
    pub(crate) fn home(self) -> Home {
        self.targets()[0]
    }

    fn projects(self) -> Vec<u64> {
        if self == Self::Two { vec![PROJECT, SECOND] } else { vec![PROJECT] }
    }
}

/// The one fixture in a mode, and what the runs in it have said.
pub(crate) struct Scene {
    pub(crate) fake: Fake,
    pub(crate) fixture: Fixture,
    pub(crate) mode: Mode,
    id_token: String,
    told: RefCell<Vec<String>>,
    /// Secrets that show in what a run has left, in any encoding.
    leaks: RefCell<Vec<String>>,
}

/// The old pair in each target, and in production.
fn publish(fixture: &Fixture, mode: Mode) {
    let (fake, old) = (&fixture.fake, &fixture.old);
    for home in mode.targets() {
        fake.set_variable(home, Variable::new(ID, &old.id).masked());
        let secret = Variable::new(SECRET, &old.secret).description("deploys the shop");
        let hidden = mode == Mode::Hidden;
        fake.set_variable(home, if hidden { secret.hidden() } else { secret.masked() });
    }
    for project in mode.projects() {
        fake.start_pipeline(project, "push");
    }
    fake.finish_pipelines();
}

/// A deploy that was asked for without an answer is waited for: these two minutes pass at once. Ends
/// with the test.
fn pass_windows(fake: &Fake, home: Home) {
    let fake = fake.clone();
    thread::spawn(move || {
        let (mut seen, mut shift): (BTreeMap<String, u32>, i64) = (BTreeMap::new(), 0);
        loop {
            thread::sleep(Duration::from_millis(300));
            for record in fake.variables(home) {
                let Some((_, attempts)) = record.value.split_once("\"attempts\"") else { continue };
                let attempt = attempts.split_once(']').map_or(attempts, |(first, _)| first);
                let times = seen.entry(attempt.to_owned()).or_default();
                *times += 1;
                // A request that is under way is answered, or given up, before that.
                if *times == if attempt.contains("closed") { 1 } else { 9 } {
                    shift += 125;
                    fake.shift_clock(shift);
                }
            }
        }
    });
}

impl Scene {
    pub(crate) fn calm(mode: Mode) -> Self {
        Self::of(mode, Fake::builder().seed(7).calm().start())
    }

    pub(crate) fn of(mode: Mode, fake: Fake) -> Self {
        let fixture = Fixture::bare(fake.clone(), 75);
        let id_token = if mode.by_role() {
            let trust = Trust::WebIdentity { aud: "aws".into(), sub: "*".into() };
            let policy = fake.rotation_policy(USER);
            fake.add_role("rotator", trust, 3600, &policy);
            fake.issue_id_token("aws", "project_path:acme/shop:ref_type:branch:ref:main", 3600)
        } else {
            String::new()
        };
        if mode == Mode::Two {
            fake.add_group(GROUP, "web");
            fake.add_project(SECOND, "web/site");
        }
        if mode == Mode::Group {
            fake.add_group(GROUP, "acme");
        }
        for project in mode.projects() {
            fake.set_pipeline_config(
                project,
                vec![JobSpec::deploy("deploy", "production").stage("deploy").ms(DEPLOY)],
            );
        }
        if mode == Mode::Setup {
            fake.operator_deletes_key(&fixture.old.id);
        } else {
            publish(&fixture, mode);
        }
        for home in mode.targets() {
            fake.watch_target(home, "*", ID, SECRET);
        }
        for project in mode.projects() {
            fake.watch_deploy(project);
        }
        fake.restart_count();
        pass_windows(&fake, mode.home());
        let (told, leaks) = Default::default();
        Self { fake, fixture, mode, id_token, told, leaks }
    }

    /// This job of the rotator, with the configuration of the mode.
    pub(crate) fn job(&self, job: u64) -> Run<'_> {
        let days = if self.mode == Mode::Patient { DAY } else { "0s" };
        let run = self.fixture.run_as(PROJECT, job);
        let run = run
            .set("ROTATOR_LOG", "trace")
            .set("ROTATOR_OVERLAP", days)
            .set("ROTATOR_GRACE_PERIOD", days)
            .set("ROTATOR_HTTP_TIMEOUT", "2s");
        let run = match self.mode {
            Mode::Two => run
                .set("ROTATOR_TARGETS", "project:42,group:7")
                .set("ROTATOR_DEPLOY_PROJECTS", "42,43"),
            Mode::Group => {
                run.set("ROTATOR_TARGETS", "group:7").set("ROTATOR_DEPLOY_PROJECTS", "42")
            }
            Mode::Redeploy => run.set("ROTATOR_DEPLOY", "environment/production"),
            Mode::Setup => run.set("ROTATOR_ACTION", "setup"),
            Mode::Own | Mode::Role | Mode::Hidden | Mode::Patient => run,
        };
        if !self.mode.by_role() {
            return run;
        }
        run.set("ROTATOR_IAM_USER", USER)
            .set("ROTATOR_AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/rotator")
            .set("ROTATOR_AWS_ID_TOKEN", &self.id_token)
    }

    /// A new job, from its start to its end. The job has then ended, long ago.
    pub(crate) fn run(&self) -> Ended {
        self.run_with(&[])
    }

    pub(crate) fn run_with(&self, more: &[(&str, &str)]) -> Ended {
        let job = self.fixture.new_job();
        let run = more.iter().fold(self.job(job), |run, (name, value)| run.set(name, value));
        let ended = run.start().wait();
        self.ended_long_ago(job, &ended);
        self.keep(&ended);
        ended
    }

    pub(crate) fn ended_long_ago(&self, job: u64, ended: &Ended) {
        let now = self.fake.now();
        self.fake.add_job_at(
            PROJECT,
            job,
            ended.status(),
            Some(now - 20 * MINUTE),
            Some(now - 10 * MINUTE),
        );
    }

    /// For what is told of a case that fails.
    pub(crate) fn keep(&self, ended: &Ended) {
        self.leaks.borrow_mut().extend(found(&ended.raw, &self.fake.secrets()));
        let mut told = self.told.borrow_mut();
        let number = told.len() + 1;
        told.push(format!(
            "run {number} ended with {} after {:.1} s:\n{}",
            ended.code,
            ended.took.as_secs_f64(),
            ended.stderr
        ));
    }

    /// Jobs, one after the other, until the rotation is finished: `most` at most. How many it took.
    pub(crate) fn run_until_well(&self, most: usize) -> Result<usize, String> {
        for count in 0..=most {
            if self.is_finished() {
                return Ok(count);
            }
            if count == most {
                break;
            }
            if !self.told.borrow().is_empty() {
                // Dates are whole seconds: what lies on the edge is not yet over.
                thread::sleep(if self.mode == Mode::Patient { NIGHT } else { SHORT_NIGHT });
            }
            let ended = self.run();
            holds(&ended)?;
            if ended.is_done() && self.is_finished() {
                return Ok(count + 1);
            }
        }
        Err(format!("after {most} more jobs the rotation is not finished: {}", self.left()))
    }

    /// No invariant was ever broken, and what is left is the one good end.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.clean()?;
        let [key] = &self.fake.keys(USER)[..] else {
            return Err(format!("not one key is left: {}", self.left()));
        };
        if !key.active || self.fixture.old.id == key.id {
            return Err(format!("the one key is not a new one that works: {}", self.left()));
        }
        for home in self.mode.targets() {
            let variables = self.fake.variables(home);
            let find = |name: &str| {
                variables.iter().find(|variable| variable.key == name && variable.scope == "*")
            };
            let (Some(id), Some(secret)) = (find(ID), find(SECRET)) else {
                return Err(format!("half a pair is left in {home}"));
            };
            if (&id.value, &secret.value) != (&key.id, &key.secret) {
                return Err(format!(
                    "{home} does not hold the pair of the one key: {}",
                    self.left()
                ));
            }
            let description = secret.description.as_deref().unwrap_or_default();
            let ours = self.mode != Mode::Setup;
            if !id.masked
                || !secret.masked
                || !secret.raw
                || secret.hidden != (self.mode == Mode::Hidden)
                || ours != description.starts_with("deploys the shop")
            {
                return Err(format!("flags or description of {home} have changed: {secret:?}"));
            }
            let records = usize::from(home == self.mode.home());
            if variables.len() != 2 + records {
                let names: Vec<&str> =
                    variables.iter().map(|variable| variable.key.as_str()).collect();
                return Err(format!("{home} holds more than the pair and the record: {names:?}"));
            }
        }
        if !self.is_finished() {
            return Err(format!("the record is not at rest: {}", self.left()));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        for project in self.mode.projects() {
            runtime.block_on(self.fake.production_signs(project))?;
            if self.fake.productions(project).iter().any(|(_, pair)| pair.id != key.id) {
                return Err(format!("project {project} does not run with the new key"));
            }
        }
        Ok(())
    }

    /// No invariant was ever broken so far, and no secret shows.
    pub(crate) fn clean(&self) -> Result<(), String> {
        if let Some(leak) = self.leaks.borrow().first() {
            return Err(format!("a secret shows: {leak}"));
        }
        let violations = self.fake.violations();
        if violations.is_empty() {
            Ok(())
        } else {
            Err(format!("the invariants found:\n{}", violations.join("\n")))
        }
    }

    /// Whether there is exactly one record, and it is that of a finished rotation, released.
    pub(crate) fn is_finished(&self) -> bool {
        let records = self.records();
        matches!(&records[..], [record] if record.value.contains("\"finished\"") && !record.value.contains("\"ends\""))
    }

    pub(crate) fn records(&self) -> Vec<Variable> {
        self.fixture.records_in(self.mode.home())
    }

    /// Lets the moment pass until which a run promised to be alive.
    pub(crate) fn let_promises_pass(&self) {
        for record in self.records() {
            let Some((before, rest)) = record.value.split_once("\"ends\":\"") else { continue };
            let Some((_, after)) = rest.split_once('"') else { continue };
            let value =
                format!("{before}\"ends\":\"{}\"{after}", iso(self.fake.now() - 10 * MINUTE));
            self.fake.operator_edits_variable(
                self.mode.home(),
                &record.key,
                &record.scope,
                |variable| variable.value = value,
            );
        }
    }

    /// What an operator would see.
    pub(crate) fn left(&self) -> String {
        let keys: Vec<String> = self
            .fake
            .keys(USER)
            .iter()
            .map(|key| format!("{} {}", key.id, if key.active { "active" } else { "disabled" }))
            .collect();
        let mut text = format!("\n  old key {}\n  keys {}", self.fixture.old.id, keys.join(", "));
        for home in self.mode.targets() {
            for variable in self.fake.variables(home) {
                let value = if variable.key == SECRET { "[secret]" } else { &variable.value };
                text += &format!(
                    "\n  {home} {} = {value} {}",
                    variable.key,
                    variable.description.unwrap_or_default()
                );
            }
        }
        text
    }

    /// All that helps to understand a case that has failed.
    pub(crate) fn told(&self, why: &str) -> String {
        let mut text = format!("{why}\nleft: {}\n{}", self.left(), self.told.borrow().join("\n"));
        let log = self.fake.log();
        let start = log.first().map_or(0, |entry| entry.at);
        for Entry { n, at, action, who, what, status, effect, fault, .. } in &log {
            let n = n.map_or(String::new(), |n| n.to_string());
            text += &format!(
                "\n{n:>4} +{:<6} {action} {what} -> {status}{} {} {who}",
                at - start,
                if *effect { " effect" } else { "" },
                fault.clone().unwrap_or_default()
            );
        }
        text
    }

    /// How many keys were made.
    pub(crate) fn creations(&self) -> usize {
        self.fake
            .log()
            .iter()
            .filter(|entry| entry.action == "iam:CreateAccessKey" && entry.effect)
            .count()
    }
}

/// What holds for every run, whatever has happened to it; nothing of it is the configuration's.
pub(crate) fn holds(ended: &Ended) -> Result<(), String> {
    if ended.code == 2 {
        return Err("a run did not take its configuration".to_owned());
    }
    ended.holds()
}

/// Sends signals to a process that is not known yet when the fake is told to.
#[derive(Clone, Default)]
pub(crate) struct Aim(Arc<AtomicI32>);

impl Aim {
    pub(crate) fn at(&self, running: &Running<'_>) {
        self.0.store(running.pid().as_raw_nonzero().get(), Ordering::SeqCst);
    }

    pub(crate) fn fire(&self, signal: Signal) {
        // The binary cannot have called the fake before it was started.
        let started = Instant::now();
        while self.0.load(Ordering::SeqCst) == 0 && started.elapsed() < Duration::from_secs(1) {
            thread::sleep(Duration::from_millis(1));
        }
        if let Some(pid) = Pid::from_raw(self.0.load(Ordering::SeqCst)) {
            let _ = kill_process(pid, signal);
        }
    }
}
