//! Runs the binary against a fake, by environment alone, as GitLab's runner would.
//!
//! A [`Run`] is one job of the rotator that has not begun, which a case changes as it likes; then
//! it is [`Running`], then [`Ended`]. Whatever a case is about, each [`Run::go`] is also held to
//! what is always true ([`Ended`] says what that is).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Fake;
use super::aws::{Pair, Trust};
use super::ended::Ended;
use super::fixture::{Fixture, ID, SECRET, USER};
use super::state::Entry;
use super::transcript::Transcript;

/// No run may take longer; one that does is killed and fails its case. The longest known wait is
/// the two minutes for a pipeline whose reply was lost.
pub(crate) const PATIENCE: Duration = Duration::from_secs(170);

/// No case needs a public root, and to read them all for each client costs a debug build most of
/// its time.
static ONE_ROOT: LazyLock<String> = LazyLock::new(|| {
    let mut root = rcgen::CertificateParams::default();
    // No certificate of a test has the same issuer by name.
    root.distinguished_name.push(rcgen::DnType::CommonName, "An authority that signs nothing");
    let key = rcgen::KeyPair::generate().expect("a key");
    root.self_signed(&key).expect("a certificate").pem()
});

static PROGRAM: OnceLock<&str> = OnceLock::new();

/// Which program runs. Cargo tells its path to the tests of its own package alone, so they say it
/// (to [`crate::cases::run`], which calls this).
pub fn use_program(path: &'static str) {
    PROGRAM.get_or_init(|| path);
}

pub fn program() -> &'static str {
    PROGRAM.get().expect("`cases::run` was told the program")
}

type Condition = Box<dyn Fn(&Entry) -> bool + Send>;
type Act = Box<dyn FnOnce() + Send>;

/// One job of the rotator that has not begun yet.
pub struct Run<'a> {
    pub fixture: &'a Fixture,
    pub job: u64,
    env: BTreeMap<String, String>,
    watch: Vec<(Condition, Act)>,
    alone: bool,
    folder: tempfile::TempDir,
}

impl<'a> Run<'a> {
    pub(crate) fn new(fixture: &'a Fixture, project: u64, job: u64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let roots = path("one-root.pem");
        std::fs::write(&roots, &*ONE_ROOT).expect("a file in a temporary folder");
        let files = [
            ("SSL_CERT_FILE", roots),
            ("ROTATOR_REPORT", path("report.json")),
            ("ROTATOR_DOTENV", path("rotation.env")),
            ("ROTATOR_ANNOTATIONS", path("annotations.json")),
        ];
        let mut run = Self {
            fixture,
            job,
            env: fixture.fake.env(project, job).into_iter().collect(),
            watch: Vec::new(),
            alone: true,
            folder,
        };
        for (name, value) in files {
            run = run.set(name, &value);
        }
        run.set("ROTATOR_VERIFY_TIMEOUT", "10s")
            .set("ROTATOR_OVERLAP", "0s")
            .set("ROTATOR_GRACE_PERIOD", "0s")
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn unset(mut self, name: &str) -> Self {
        self.env.remove(name);
        self
    }

    /// No variables of which this is true.
    pub fn unset_all(mut self, which: impl Fn(&str) -> bool) -> Self {
        self.env.retain(|name, _| !which(name));
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
        let fake = &self.fixture.fake;
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
        let (fake, job) = (&self.fixture.fake, self.job);
        let ended = self.go_through(|_| ()).0;
        fake.job_set_status(job, ended.status());
        ended
    }

    /// The same; what `/proc` shows of the process to everybody on the machine belongs to its
    /// output.
    pub fn go_watching_arguments(self) -> Ended {
        let (fake, job) = (&self.fixture.fake, self.job);
        let (mut ended, arguments) = self.go_through(|running| {
            std::fs::read_to_string(format!("/proc/{}/cmdline", running.child.id()))
                .unwrap_or_default()
        });
        ended.raw += &arguments;
        fake.job_set_status(job, ended.status());
        ended
    }

    /// Runs until the fake's log shows such an entry, is told to stop, and ends.
    pub fn go_until(self, seen: impl Fn(&Entry) -> bool + Send + 'static) -> Ended {
        let (fake, job, before) =
            (self.fixture.fake.clone(), self.job, self.fixture.fake.log().len());
        let (ended, stopper) = self.go_through(|running| {
            let (fake, pid) = (fake.clone(), running.pid());
            thread::spawn(move || {
                until(|| fake.log()[before..].iter().any(&seen).then_some(()))
                    .expect("the case's moment comes");
                kill_process(pid, Signal::TERM).expect("it runs");
            })
        });
        stopper.join().expect("it was told to stop");
        fake.job_set_status(job, "canceled");
        ended
    }

    fn go_through<T>(mut self, look: impl FnOnce(&Running<'_>) -> T) -> (Ended, T) {
        let (fake, alone) = (&self.fixture.fake, self.alone);
        let watch_for = std::mem::take(&mut self.watch);
        let running = self.start();
        let watchers = watch_for
            .into_iter()
            .map(|(seen, act)| watch(fake, running.before, seen, act))
            .collect::<Vec<_>>();
        let looked = look(&running);
        let ended = running.wait();
        for (stop, watcher) in watchers {
            let _ = stop.send(());
            assert!(
                watcher.join().expect("what happens meanwhile does not panic"),
                "what the case waited for never came"
            );
        }
        ended.is_sound(fake);
        if alone {
            ended.counts_its_calls();
        }
        (ended, looked)
    }

    /// # Panics
    /// Nobody would watch for what the case waits for.
    pub fn command(&self) -> Command {
        assert!(self.watch.is_empty(), "`once` needs `go`");
        let mut command = Command::new(program());
        command.env_clear().envs(&self.env).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// For a case that does something to the process itself.
    pub fn start(self) -> Running<'a> {
        let (started, before) = (Instant::now(), self.fixture.fake.log().len());
        let mut child = self.command().spawn().expect("the binary starts");
        let output = [drain(child.stdout.take()), drain(child.stderr.take())];
        Running { run: self, child, output, started, before }
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

/// The binary at work.
pub struct Running<'a> {
    run: Run<'a>,
    child: Child,
    output: [mpsc::Receiver<String>; 2],
    started: Instant,
    /// How long the fake's log was when it started.
    before: usize,
}

impl Running<'_> {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Its output ends with it.
    pub fn wait(mut self) -> Ended {
        let mut overdue = false;
        let [stdout, stderr] = self.output.map(|output| {
            let left = PATIENCE.saturating_sub(self.started.elapsed());
            output.recv_timeout(left).unwrap_or_else(|_| {
                overdue = true;
                let _ = self.child.kill();
                output.recv().expect("output is read")
            })
        });
        let code = code(self.child.wait().expect("the binary can be waited for"));
        let (at, took) = (Instant::now(), self.started.elapsed());
        let fixture = self.run.fixture;
        let folder = self.run.folder.path();
        let file = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let (report, dotenv, annotations) =
            (file("report.json"), file("rotation.env"), file("annotations.json"));
        Ended {
            code,
            took,
            at,
            overdue,
            report: serde_json::from_str(&report).unwrap_or_default(),
            annotations: serde_json::from_str(&annotations).unwrap_or_default(),
            raw: [stdout.as_str(), &stderr, &report, &dotenv, &annotations].concat(),
            transcript: Transcript::new(&stderr, &fixture.names(), folder),
            stdout,
            stderr,
            dotenv,
            log: fixture.fake.log().split_off(self.before),
        }
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (send, text) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = send.send(String::from_utf8(bytes).expect("output is UTF-8"));
    });
    text
}

/// Looks at the log until it shows what is waited for, then acts; false where the run ended before.
fn watch(
    fake: &Fake,
    from: usize,
    seen: Condition,
    act: Act,
) -> (mpsc::Sender<()>, thread::JoinHandle<bool>) {
    let (stop, stopped) = mpsc::channel();
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
