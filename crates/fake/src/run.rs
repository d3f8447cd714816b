//! Runs the binary against a fake, by environment alone, as GitLab's runner would.
//!
//! A [`Setting`] is one fake with the usual user, key, project and pipeline; [`Setting::run`]
//! prepares one job of the rotator, which a case changes as it likes before it [`Run::go`]es.
//! Whatever a case is about, each run is also held to what is always true: the invariants of the
//! fake has found nothing, no secret is in the output, and report, exit code and log tell the same
//! story.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Entry, Fake, JobSpec, JobView, Pair, Trust, Variable, found};

pub const USER: &str = "deployer";
pub const PROJECT: u64 = 42;
pub const ID: &str = "AWS_ACCESS_KEY_ID";
pub const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

/// No run may take longer; one that does is killed and fails its case.
const PATIENCE: Duration = Duration::from_secs(120);

static PROGRAM: OnceLock<&str> = OnceLock::new();

/// Which program runs. Cargo tells its path to the tests of its own package alone, so they say it
/// (to [`crate::cases::run`], which calls this).
pub fn use_program(path: &'static str) {
    PROGRAM.get_or_init(|| path);
}

pub fn program() -> &'static str {
    PROGRAM.get().expect("the test calls `use_program` first")
}

/// A fake with the user `deployer`, the key `old` published and deployed in project 42.
pub struct Setting {
    pub fake: Fake,
    pub old: Pair,
    names: Mutex<Vec<(String, String)>>,
    next_job: AtomicU64,
}

impl Setting {
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
        let names = Mutex::new(vec![(old.id.clone(), "OLD".to_owned())]);
        Self { fake, old, names, next_job: AtomicU64::new(9001) }
    }

    /// The pair in project 42, and a production that runs with it.
    pub fn published(self) -> Self {
        self.fake.set_pair(PROJECT, &self.old);
        self.deployed()
    }

    /// A production that runs with what stands in the variables, watched by the invariants.
    pub fn deployed(self) -> Self {
        self.fake.start_pipeline(PROJECT, "push");
        self.fake.finish_pipelines();
        self.fake.watch_target(PROJECT, "*", ID, SECRET);
        self.fake.watch_deploy(PROJECT);
        self
    }

    /// How transcripts call this key.
    pub fn name(&self, id: &str, name: &str) {
        self.names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((id.to_owned(), name.to_owned()));
    }

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
        let value = |name| {
            self.fake
                .variable(PROJECT, name, "*")
                .map(|variable| variable.value)
                .unwrap_or_default()
        };
        (value(ID), value(SECRET))
    }

    /// The old key's state: none where it is gone.
    pub fn old_is_active(&self) -> Option<bool> {
        self.fake.keys(USER).into_iter().find(|key| key.id == self.old.id).map(|key| key.active)
    }

    /// The records, released or not, by their names.
    pub fn records(&self) -> Vec<Variable> {
        self.fake
            .variables(PROJECT)
            .into_iter()
            .filter(|variable| variable.key.starts_with("CREDENTIAL_ROTATOR_"))
            .collect()
    }

    /// The next scheduled job of the rotator. Nothing overlaps and no grace is given unless the
    /// case says so.
    pub fn run(&self) -> Run<'_> {
        let job = self.next_job.fetch_add(1, Ordering::Relaxed);
        self.fake.add_job(PROJECT, job, "running");
        self.run_as(PROJECT, job)
    }

    /// The rotator as this job, which exists and runs.
    pub fn run_as(&self, project: u64, job: u64) -> Run<'_> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (report, dotenv, annotations) =
            (file("report.json"), file("rotation.env"), file("annotations.json"));
        let run = Run {
            setting: self,
            job,
            env: self.fake.env(project, job).into_iter().collect(),
            watch: Vec::new(),
            alone: true,
            folder,
        };
        let run = run
            .set("ROTATOR_REPORT", &report)
            .set("ROTATOR_DOTENV", &dotenv)
            .set("ROTATOR_ANNOTATIONS", &annotations);
        run.set("ROTATOR_VERIFY_TIMEOUT", "10s")
            .set("ROTATOR_OVERLAP", "0s")
            .set("ROTATOR_GRACE_PERIOD", "0s")
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

    /// What differs from run to run, by name.
    pub fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for key in self.fresh() {
            if !names.iter().any(|(id, _)| *id == key.id) {
                names.push((key.id, "NEW".to_owned()));
            }
        }
        for (id, name) in &names {
            text = text
                .replace(id, &format!("AKIA[{name}]"))
                .replace(&format!("…{}", &id[id.len() - 4..]), &format!("…[{name}]"));
        }
        let digit = |letter: char| letter.is_ascii_digit();
        let hex = |letter: char| letter.is_ascii_hexdigit();
        let of_an_id = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit();
        text = text.replace("\x1b[0K", "").replace('\r', " ").replace(" \n", "\n");
        text =
            text.replace("9001_", "9001_~").replace("9002_", "9002_~").replace("9003_", "9003_~");
        text = after(&text, "127.0.0.1:", digit, "[PORT]");
        text = after(&text, "localhost:", digit, "[PORT]");
        text = after(&text, "/-/jobs/", digit, "[JOB]");
        text = after(&text, "/-/pipelines/", digit, "[PIPELINE]");
        text = after(&text, "pipeline 1", digit, "[PIPELINE]")
            .replace("pipeline 1[PIPELINE]", "pipeline [PIPELINE]");
        text = after(&text, "section_start:", digit, "[TIME]");
        text = after(&text, "section_end:", digit, "[TIME]");
        text = after(&text, "of commit ", hex, "[SHA]");
        text = after(&text, "…", of_an_id, "[KEY]");
        text = after(&text, "_~", hex, "[RANDOM]").replace("_~", "_");
        text = after(&text, "the job ends in ", digit, "[N]");
        text = after(&text, "the runner's clock is ", digit, "[N]");
        times(&text)
    }
}

/// Replaces what follows each `mark`.
fn after(text: &str, mark: &str, belongs: impl Fn(char) -> bool, with: &str) -> String {
    let mut parts = text.split(mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(&belongs);
        out += mark;
        out += if rest.len() == part.len() { "" } else { with };
        out += rest;
    }
    out
}

/// Dates and moments.
fn times(text: &str) -> String {
    let fits = |text: &[u8], form: &str| {
        text.len() >= form.len()
            && form.bytes().zip(text).all(|(form, letter)| {
                if form == b'0' { letter.is_ascii_digit() } else { form == *letter }
            })
    };
    let (mut out, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let bytes = rest.as_bytes();
        if fits(bytes, "0000-00-00T00:00:00") {
            out += "[TIME]";
            rest = rest[19..]
                .trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.')
                .trim_start_matches('Z');
        } else if fits(bytes, "0000-00-00 00:00 UTC") {
            out += "[TIME]";
            rest = &rest[20..];
        } else if fits(bytes, "0000-00-00") {
            out += "[DATE]";
            rest = &rest[10..];
        } else {
            let next = rest.chars().next().map_or(1, char::len_utf8);
            out += &rest[..next];
            rest = &rest[next..];
        }
    }
    out
}

type Condition = Box<dyn Fn(&Entry) -> bool + Send>;
type Act = Box<dyn FnOnce() + Send>;

/// One job of the rotator that has not begun yet.
pub struct Run<'a> {
    pub setting: &'a Setting,
    pub job: u64,
    env: BTreeMap<String, String>,
    watch: Vec<(Condition, Act)>,
    alone: bool,
    folder: tempfile::TempDir,
}

impl Run<'_> {
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn unset(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    pub fn env(&self, name: &str) -> String {
        self.env.get(name).cloned().unwrap_or_default()
    }

    /// Another run is at work in the same fake: the calls in its log are not all of this one.
    pub fn beside_another(mut self) -> Self {
        self.alone = false;
        self
    }

    /// Another pair signs: these credentials instead of the project's.
    pub fn with_pair(self, pair: &Pair) -> Self {
        let run = self.set(ID, &pair.id).set(SECRET, &pair.secret);
        match &pair.token {
            Some(token) => run.set("AWS_SESSION_TOKEN", token),
            None => run,
        }
    }

    /// The job's ID token and a role that it may assume, which may rotate the user's key.
    pub fn with_role(self) -> Self {
        let trust = Trust::WebIdentity {
            aud: "https://aws.example".into(),
            sub: "project_path:acme/shop:*".into(),
        };
        let fake = &self.setting.fake;
        let role = fake.add_role("rotator", trust, 3600, &fake.rotation_policy(USER));
        let token = fake.issue_id_token(
            "https://aws.example",
            "project_path:acme/shop:ref_type:branch:ref:main",
            3600,
        );
        self.set("ROTATOR_AWS_ROLE_ARN", &role)
            .set("ROTATOR_AWS_ID_TOKEN", &token)
            .set("ROTATOR_IAM_USER", USER)
    }

    /// What happens as soon as the fake's log shows such an entry of this run.
    pub fn once(
        mut self,
        seen: impl Fn(&Entry) -> bool + Send + 'static,
        act: impl FnOnce() + Send + 'static,
    ) -> Self {
        self.watch.push((Box::new(seen), Box::new(act)));
        self
    }

    /// Runs to the end, and the job ends with it.
    pub fn go(self) -> Ended {
        let (setting, job) = (self.setting.fake.clone(), self.job);
        let ended = self.go_on();
        setting.job_set_status(job, if ended.code == 0 { "success" } else { "failed" });
        ended
    }

    /// The same; what `/proc` shows of the process to everybody on the machine belongs to its
    /// output.
    pub fn go_watching_arguments(self) -> Ended {
        let (setting, job) = (self.setting.fake.clone(), self.job);
        let (mut ended, arguments) = self.go_through(|child| {
            std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).unwrap_or_default()
        });
        ended.raw += &arguments;
        setting.job_set_status(job, if ended.code == 0 { "success" } else { "failed" });
        ended
    }

    /// Runs until the fake's log shows such an entry, is told to stop, and ends.
    pub fn go_until(self, seen: impl Fn(&Entry) -> bool + Send + 'static) -> Ended {
        let (fake, job, before) =
            (self.setting.fake.clone(), self.job, self.setting.fake.log().len());
        let (ended, stopper) = self.go_through(|child| {
            let pid = rustix::process::Pid::from_child(child);
            let fake = fake.clone();
            thread::spawn(move || {
                until(|| fake.log()[before..].iter().any(&seen).then_some(()))
                    .expect("the case's moment comes");
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
            })
        });
        stopper.join().expect("it was told to stop");
        fake.job_set_status(job, "canceled");
        ended
    }

    /// Runs to the end, but GitLab does not know that yet.
    pub fn go_on(self) -> Ended {
        self.go_through(|_| ()).0
    }

    fn go_through<T>(self, look: impl FnOnce(&Child) -> T) -> (Ended, T) {
        let (setting, before) = (self.setting, self.setting.fake.log().len());
        let file =
            |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        let mut child = self.command().spawn().expect("the binary starts");
        let reads = [drain(child.stdout.take()), drain(child.stderr.take())];
        let watchers = self
            .watch
            .into_iter()
            .map(|(seen, act)| watch(&setting.fake, before, seen, act))
            .collect::<Vec<_>>();
        let looked = look(&child);
        let status = wait(&mut child);
        for (stop, watcher) in watchers {
            let _ = stop.send(());
            assert!(
                watcher.join().expect("what happens meanwhile does not panic"),
                "what the case waited for never came"
            );
        }
        let [stdout, stderr] = reads.map(|read| read.join().expect("output is read"));
        let log = setting.fake.log().split_off(before);
        let (report, dotenv, annotations) =
            (file("report.json"), file("rotation.env"), file("annotations.json"));
        let text =
            setting.redact(&stderr).replace(&self.folder.path().display().to_string(), "[DIR]");
        let ended = Ended {
            code: code(status),
            report: serde_json::from_str(&report).unwrap_or_default(),
            annotations: serde_json::from_str(&annotations).unwrap_or_default(),
            raw: [stdout.clone(), stderr.clone(), report, dotenv.clone(), annotations].concat(),
            text,
            stdout,
            stderr,
            dotenv,
            log,
        };
        ended.holds(&setting.fake);
        if self.alone {
            ended.counts_its_calls();
        }
        (ended, looked)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.env_clear().envs(&self.env).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8(bytes).expect("output is UTF-8")
    })
}

fn wait(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the binary can be waited for") {
            return status;
        }
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            return child.wait().expect("it was killed");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Looks at the log until it shows what is waited for, then acts; false where the run ended before.
fn watch(
    fake: &Fake,
    from: usize,
    seen: Condition,
    act: Act,
) -> (std::sync::mpsc::Sender<()>, thread::JoinHandle<bool>) {
    let (stop, stopped) = std::sync::mpsc::channel();
    let fake = fake.clone();
    let watcher = thread::spawn(move || {
        let mut next = from;
        loop {
            let ended = stopped.try_recv().is_ok();
            let log = fake.log();
            // The last entry may still be in the making.
            let under_way = |entry: &Entry| entry.n.is_some() && entry.status == 0;
            if log[next..].iter().any(|entry| !under_way(entry) && seen(entry)) {
                act();
                return true;
            }
            if ended {
                return false;
            }
            next = log.iter().skip(next).position(under_way).map_or(log.len(), |at| next + at);
            thread::sleep(Duration::from_millis(2));
        }
    });
    (stop, watcher)
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| -status.signal().unwrap_or_default())
}

/// Asks until there is an answer; a minute is enough for anything that a calm fake does by itself.
pub fn until<T>(ask: impl Fn() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// A run that has ended, and everything it left behind.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// What was written to stderr, redacted.
    pub text: String,
    pub report: Value,
    pub dotenv: String,
    pub annotations: Value,
    /// Every byte of output and files.
    pub raw: String,
    /// What the fake saw meanwhile.
    pub log: Vec<Entry>,
}

impl Ended {
    /// What holds for every run.
    #[track_caller]
    fn holds(&self, fake: &Fake) {
        assert_eq!(fake.violations(), Vec::<String>::new(), "{}", self.stderr);
        assert_eq!(
            found(&self.raw, &fake.secrets()),
            Vec::<String>::new(),
            "a secret is in the output or the files"
        );
        if self.report.is_null() {
            return;
        }
        let outcome = self.outcome();
        let fits: &[&str] = match self.code {
            0 => &[
                "rotated",
                "resumed",
                "deploying",
                "waiting",
                "not_due",
                "due",
                "healthy",
                "dry_run",
            ],
            2 | 3 => &["refused"],
            4 => &["deploy_failed"],
            5 => &["busy"],
            143 => &["failed"],
            _ => &["failed"],
        };
        assert!(
            fits.contains(&outcome.as_str()),
            "exit code {} and outcome {outcome}\n{}",
            self.code,
            self.stderr
        );
        assert!(
            self.dotenv.starts_with(&format!("ROTATION_OUTCOME={outcome}\n")),
            "{}",
            self.dotenv
        );
        if self.code != 0 {
            let tail = format!(
                "state: {}\nhint: {}\n",
                self.report["state"].as_str().unwrap_or_default(),
                self.report["hint"].as_str().unwrap_or_default()
            );
            assert!(
                self.stderr.ends_with(&tail),
                "report and log differ:\n{tail}\n{}",
                self.stderr
            );
        }
    }

    #[track_caller]
    fn counts_its_calls(&self) {
        for service in ["iam", "sts", "gitlab"] {
            let (seen, told) =
                (u64::try_from(self.calls(service)).ok(), self.report["calls"][service].as_u64());
            // A call that no server saw is counted by the program only.
            assert!(told.is_none() || told >= seen, "{service}: {seen:?}, reported {told:?}");
        }
    }

    pub fn outcome(&self) -> String {
        self.report["outcome"].as_str().unwrap_or_default().to_owned()
    }

    /// How often this action, or any of this service, was asked of the fake by the run.
    pub fn calls(&self, of: &str) -> usize {
        self.log
            .iter()
            .filter(|entry| entry.n.is_some() && (entry.service == of || entry.action == of))
            .count()
    }

    /// The calls that changed something, in order.
    pub fn effects(&self) -> Vec<String> {
        let done = self
            .log
            .iter()
            .filter(|entry| entry.n.is_some() && entry.effect && entry.service != "sts");
        done.map(|entry| format!("{} {}", entry.action, entry.what)).collect()
    }

    #[track_caller]
    pub fn ends(&self, code: i32, outcome: &str) -> &Self {
        assert_eq!((self.code, self.outcome().as_str()), (code, outcome), "\n{}", self.stderr);
        self
    }

    /// The transcript from `error:` on.
    #[track_caller]
    pub fn says(&self, code: i32, expected: impl snapbox::IntoData) -> &Self {
        let lines = self.text.rfind("error: ").map_or("", |at| &self.text[at..]);
        assert!(
            lines.contains("\nstate: ") && lines.contains("\nhint: "),
            "three lines are missing:\n{}",
            self.stderr
        );
        assert_eq!(self.code, code, "\n{}", self.stderr);
        compare(lines, expected);
        self
    }

    /// The whole transcript, but for what it waited for on the way: a matter of moments.
    #[track_caller]
    pub fn shows(&self, expected: impl snapbox::IntoData) -> &Self {
        let lines =
            self.text.split_inclusive('\n').filter(|line| !line.starts_with(" INFO waiting: "));
        compare(&lines.collect::<String>(), expected);
        self
    }

    /// The summary that people read.
    #[track_caller]
    pub fn sums_up(&self, expected: impl snapbox::IntoData) -> &Self {
        let lines = self.text.rfind("\nKey  ").map_or("", |at| &self.text[at + 1..]);
        compare(lines, expected);
        self
    }
}

#[track_caller]
fn compare(actual: &str, expected: impl snapbox::IntoData) {
    let actual = snapbox::Data::text(actual);
    snapbox::Assert::new().action_env(snapbox::assert::DEFAULT_ACTION_ENV).eq(actual, expected);
}
