//! A fake with one rotation that is due, in each of the ways that the program knows, the rotator's
//! jobs, and the one good end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use fake::{Entry, Fake, Home, JobSpec, Pair, Trust, Variable, found, group, project};

pub(crate) const USER: &str = "deployer";
pub(crate) const PROJECT: u64 = 42;
const SECOND: u64 = 43;
const GROUP: u64 = 7;
pub(crate) const ID: &str = "AWS_ACCESS_KEY_ID";
pub(crate) const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
/// A deploy takes longer than the program to look at it first, even on a busy machine, and less
/// than until its second look.
const DEPLOY: i64 = 700;
/// No run may take longer. The longest known wait is the two minutes for a pipeline whose reply was
/// lost.
const PATIENCE: Duration = Duration::from_secs(170);
/// Overlap and grace of the patient rotation, and how long its days are.
const DAY: &str = "1s";
pub(crate) const NIGHT: Duration = Duration::from_millis(2200);
const SHORT_NIGHT: Duration = Duration::from_millis(1100);
const MINUTE: i64 = 60_000;

/// No case needs a public root, and to read them all for each client costs a debug build most of
/// its time.
static ONE_ROOT: LazyLock<String> = LazyLock::new(|| {
    let root =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let file = format!("{}/one-root.pem", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&file, root.cert.pem()).expect("the folder of this test's files");
    file
});

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
    /// The first key, a role signs.
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

pub(crate) struct Scene {
    pub(crate) fake: Fake,
    pub(crate) mode: Mode,
    /// The key that is due; none where the first one is to be made.
    pub(crate) old: Option<Pair>,
    id_token: String,
    next_job: Cell<u64>,
    told: RefCell<Vec<String>>,
    /// Secrets that show in what a run has said, in any dress.
    leaks: RefCell<Vec<String>>,
}

impl Scene {
    pub(crate) fn calm(mode: Mode) -> Self {
        Self::of(mode, Fake::builder().seed(7).calm().start())
    }

    pub(crate) fn of(mode: Mode, fake: Fake) -> Self {
        fake.add_user("/service/ci/", USER);
        let old = (mode != Mode::Setup).then(|| fake.add_key(USER, 75));
        let id_token = if mode.by_role() {
            let trust = Trust::WebIdentity { aud: "aws".into(), sub: "*".into() };
            let policy = fake.rotation_policy(USER);
            fake.add_role("rotator", trust, 3600, &policy);
            fake.issue_id_token("aws", "project_path:shop/app:ref_type:branch:ref:main", 3600)
        } else {
            String::new()
        };
        fake.add_project(PROJECT, "shop/app");
        if mode == Mode::Two {
            fake.add_group(GROUP, "acme");
            fake.add_project(SECOND, "acme/web");
        }
        if mode == Mode::Group {
            fake.add_group(GROUP, "shop");
        }
        for project in mode.projects() {
            fake.set_pipeline_config(
                project,
                vec![JobSpec::deploy("deploy", "production").stage("deploy").ms(DEPLOY)],
            );
        }
        if let Some(old) = &old {
            for home in mode.targets() {
                fake.set_variable(home, Variable::new(ID, &old.id).masked());
                let secret = Variable::new(SECRET, &old.secret).description("deploys the shop");
                fake.set_variable(
                    home,
                    if mode == Mode::Hidden { secret.hidden() } else { secret.masked() },
                );
            }
            for project in mode.projects() {
                fake.start_pipeline(project, "push");
            }
            fake.finish_pipelines();
        }
        for home in mode.targets() {
            fake.watch_target(home, "*", ID, SECRET);
        }
        for project in mode.projects() {
            fake.watch_deploy(project);
        }
        fake.restart_count();
        Self {
            fake,
            mode,
            old,
            id_token,
            next_job: Cell::new(9000),
            told: RefCell::default(),
            leaks: RefCell::default(),
        }
    }

    /// A new job of the rotator, which runs now.
    pub(crate) fn new_job(&self) -> u64 {
        let job = self.next_job.get() + 1;
        self.next_job.set(job);
        self.fake.add_job(PROJECT, job, "running");
        job
    }

    /// The environment of this job: what GitLab gives it, and the configuration.
    pub(crate) fn env(&self, job: u64) -> BTreeMap<String, String> {
        let mut env: BTreeMap<String, String> = self.fake.env(PROJECT, job).into_iter().collect();
        let mut set = |name: &str, value: &str| env.insert(name.to_owned(), value.to_owned());
        let days = if self.mode == Mode::Patient { DAY } else { "0s" };
        set("SSL_CERT_FILE", &ONE_ROOT);
        set("ROTATOR_LOG", "trace");
        set("ROTATOR_OVERLAP", days);
        set("ROTATOR_GRACE_PERIOD", days);
        set("ROTATOR_VERIFY_TIMEOUT", "10s");
        set("ROTATOR_HTTP_TIMEOUT", "2s");
        match self.mode {
            Mode::Two => {
                set("ROTATOR_TARGETS", "project:42,group:7");
                set("ROTATOR_DEPLOY_PROJECTS", "42,43");
            }
            Mode::Group => {
                set("ROTATOR_TARGETS", "group:7");
                set("ROTATOR_DEPLOY_PROJECTS", "42");
            }
            Mode::Redeploy => {
                set("ROTATOR_DEPLOY", "environment/production");
            }
            Mode::Setup => {
                set("ROTATOR_ACTION", "setup");
            }
            Mode::Own | Mode::Role | Mode::Hidden | Mode::Patient => {}
        }
        if self.mode.by_role() {
            set("ROTATOR_IAM_USER", USER);
            set("ROTATOR_AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/rotator");
            set("ROTATOR_AWS_ID_TOKEN", &self.id_token);
        }
        env
    }

    pub(crate) fn start(&self, job: u64) -> Running {
        Running::start(&self.env(job))
    }

    /// A new job, from its start to its end. The job has then ended, long ago.
    pub(crate) fn run(&self) -> Ended {
        self.run_with(&[])
    }

    pub(crate) fn run_with(&self, more: &[(&str, &str)]) -> Ended {
        let job = self.new_job();
        let mut env = self.env(job);
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let ended = Running::start(&env).wait();
        self.ended_long_ago(job, &ended);
        self.keep(&ended);
        ended
    }

    pub(crate) fn ended_long_ago(&self, job: u64, ended: &Ended) {
        let (status, now) = (if ended.code == 0 { "success" } else { "failed" }, self.fake.now());
        self.fake.add_job_at(
            PROJECT,
            job,
            status,
            Some(now - 20 * MINUTE),
            Some(now - 10 * MINUTE),
        );
    }

    /// For what is told of a case that fails.
    pub(crate) fn keep(&self, ended: &Ended) {
        self.leaks.borrow_mut().extend(found(&ended.stderr, &self.fake.secrets()));
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
            ended.holds()?;
            if ended.code == 0 && self.is_finished() {
                return Ok(count + 1);
            }
        }
        Err(format!("after {most} more jobs the rotation is not finished: {}", self.left()))
    }

    /// The judge has found nothing, and what is left is the one good end.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.clean()?;
        let [key] = &self.fake.keys(USER)[..] else {
            return Err(format!("not one key is left: {}", self.left()));
        };
        if !key.active || self.old.as_ref().is_some_and(|old| old.id == key.id) {
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

    /// The judge has found nothing so far, at no instant.
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
        self.fake
            .variables(self.mode.home())
            .into_iter()
            .filter(|variable| variable.key.starts_with("CREDENTIAL_ROTATOR_"))
            .collect()
    }

    /// Lets the moment pass until which a run promised to be alive.
    pub(crate) fn let_promises_pass(&self) {
        for record in self.records() {
            let Some((before, rest)) = record.value.split_once("\"ends\":\"") else { continue };
            let Some((_, after)) = rest.split_once('"') else { continue };
            let value =
                format!("{before}\"ends\":\"{}\"{after}", fake::iso(self.fake.now() - 10 * MINUTE));
            self.fake.operator_edits_variable(
                self.mode.home(),
                &record.key,
                &record.scope,
                |variable| variable.value = value,
            );
        }
    }

    /// What a person would see.
    pub(crate) fn left(&self) -> String {
        let keys: Vec<String> = self
            .fake
            .keys(USER)
            .iter()
            .map(|key| format!("{} {}", key.id, if key.active { "active" } else { "disabled" }))
            .collect();
        let mut text = format!(
            "\n  old key {}\n  keys {}",
            self.old.as_ref().map_or("none", |old| &old.id),
            keys.join(", ")
        );
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

/// The binary at work.
pub(crate) struct Running {
    child: Child,
    stderr: mpsc::Receiver<Vec<u8>>,
    started: Instant,
}

impl Running {
    pub(crate) fn start(env: &BTreeMap<String, String>) -> Self {
        let mut command = Command::new(fake::program());
        command
            .env_clear()
            .envs(env)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().expect("the binary starts");
        let (send, stderr) = mpsc::channel();
        let mut pipe = child.stderr.take().expect("a pipe was asked for");
        thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            let _ = send.send(bytes);
        });
        Self { child, stderr, started }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id fits")
    }

    /// Its output ends with it.
    pub(crate) fn wait(mut self) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        let left = PATIENCE.saturating_sub(self.started.elapsed());
        let (stderr, overdue) = match self.stderr.recv_timeout(left) {
            Ok(bytes) => (bytes, false),
            Err(_) => {
                let _ = self.child.kill();
                (self.stderr.recv().unwrap_or_default(), true)
            }
        };
        let status = self.child.wait().expect("the binary can be waited for");
        let (took, stderr) =
            (self.started.elapsed(), String::from_utf8_lossy(&stderr).into_owned());
        Ended {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap_or_default()),
            stderr,
            took,
            at: Instant::now(),
            overdue,
        }
    }
}

/// A run that has ended.
pub(crate) struct Ended {
    /// The exit code, or minus the signal that killed it.
    pub(crate) code: i32,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    pub(crate) at: Instant,
    overdue: bool,
}

impl Ended {
    /// What holds for every run, whatever has happened to it.
    pub(crate) fn holds(&self) -> Result<(), String> {
        if self.overdue {
            return Err(format!("a run did not end within {} s", PATIENCE.as_secs()));
        }
        if self.stderr.contains("panicked") || self.stderr.contains("RUST_BACKTRACE") {
            return Err("a run panicked".to_owned());
        }
        if ![0, 1, 3, 4, 5, 130, 143].contains(&self.code) && self.code != -9 {
            return Err(format!("a run ended with {}", self.code));
        }
        let lines: Vec<&str> = self.stderr.trim_end().lines().collect();
        // What a preflight finds is a list below the error's line.
        let error =
            lines.iter().rposition(|line| line.starts_with("error: ")).unwrap_or(lines.len());
        let rest: Vec<&&str> =
            lines.iter().skip(error + 1).skip_while(|line| line.starts_with("- ")).collect();
        let three = matches!(&rest[..], [state, hint] if state.starts_with("state: ") && hint.starts_with("hint: "));
        if self.code > 0 && !three {
            return Err("a run failed without its three lines".to_owned());
        }
        if self.code == 0 && self.stderr.contains("\nerror: ") {
            return Err("a run told of an error and ended with 0".to_owned());
        }
        Ok(())
    }
}

/// Sends signals to a process that is not known yet when the fake is told to.
#[derive(Clone, Default)]
pub(crate) struct Aim(Arc<AtomicI32>);

impl Aim {
    pub(crate) fn at(&self, running: &Running) {
        self.0.store(running.pid(), Ordering::SeqCst);
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
