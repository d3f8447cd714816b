//! What the fake is made of: everything behind the one lock, its log, its knobs and its faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::aws::Aws;
use super::clock::{Millis, wall};
use super::gitlab::{Lab, Mood};
use super::invariants::Invariants;
use super::jobs::PipelineCreation;

/// Called where a `Fault::KillBefore` or `KillAfter` hits: the test kills its process there.
pub(crate) type OnKill = Arc<dyn Fn() + Send + Sync>;

pub(crate) struct State {
    pub(crate) seed: u64,
    pub(crate) rng: fastrand::Rng,
    pub(crate) url: String,
    pub(crate) shift: Millis,
    pub(crate) knobs: Knobs,
    pub(crate) aws: Aws,
    pub(crate) lab: Lab,
    pub(crate) check: Invariants,
    pub(crate) log: Vec<Entry>,
    pub(crate) secrets: Vec<String>,
    pub(crate) counted: usize,
    pub(crate) faults: Vec<PlannedFault>,
    pub(crate) on_kill: Option<OnKill>,
    /// Who makes the call that is being handled, as far as it is known yet.
    pub(crate) who: String,
}

/// One call, as the fake saw it, or (service `fake`) something that happened in a pipeline.
#[derive(Debug, Clone)]
pub struct Entry {
    pub seq: usize,
    /// Its number among the counted calls since the start or the last `restart_count`; none for the
    /// test's own.
    pub n: Option<usize>,
    /// The fake's time, in milliseconds since 1970.
    pub at: i64,
    /// `iam`, `sts`, `gitlab` or `fake`.
    pub service: String,
    pub action: String,
    /// The key id and the ARN, the first letters of a GitLab token, or `job 17`.
    pub who: String,
    pub what: String,
    /// As answered; 0 where nothing was.
    pub status: u16,
    /// Whether the call changed anything.
    pub effect: bool,
    /// Counts connections from 1; 0 inside the fake.
    pub connection: u64,
    /// The fault or the chaos that hit it.
    pub fault: Option<String>,
}

impl Entry {
    /// The look for jobs that still run; the look before a rotation asks for any job.
    pub fn looks_for_running_jobs(&self) -> bool {
        self.action == "GET /projects/:id/jobs" && self.what.contains("running")
    }
}

/// How hostile the fake is, and its switches.
#[derive(Debug, Clone)]
pub struct Knobs {
    /// How long a new key is unknown on some connections, and on how many of a hundred.
    pub invisible_for: Duration,
    pub invisible_share: u8,
    /// Per cent of GitLab's GETs and PUTs that are 502 (of PUTs half have happened nevertheless),
    /// and 429.
    pub gitlab_502: u8,
    pub gitlab_429: u8,
    /// Per cent of IAM's calls that are throttled.
    pub iam_throttling: u8,
    /// Per cent of the calls that a host of AWS refuses because it does not know the young key that
    /// signs, long after others do.
    pub forgets: u8,
    pub delay_ms: u64,
    /// Each answer ends its connection.
    pub close_connections: bool,
    /// A proxy takes the `Date` away from each answer.
    pub no_date: bool,
    /// GitLab's `Date` is so many seconds ahead of AWS's.
    pub gitlab_ahead: i64,
    /// Whether the account has an identity provider for this GitLab.
    pub oidc_provider: bool,
    /// Every signed STS call is an invalid token, as where the regional endpoint is off.
    pub sts_off: bool,
    /// Uses of a key show up in `GetAccessKeyLastUsed` only so many seconds later.
    pub last_used_lag: i64,
    pub create_date: CreateDate,
    pub keys_per_user: usize,
    /// Keys to a page of `ListAccessKeys`.
    pub iam_page: usize,
    /// `raw` of a variable made without saying.
    pub raw_default: bool,
    /// Premium: group variables may have scopes.
    pub group_scopes: bool,
    pub mood: Mood,
    /// A proxy before GitLab that decodes `%2F`.
    pub decode_slashes: bool,
    pub pipeline_creation: PipelineCreation,
    /// Pipelines that a user may start for one commit of a project within a minute.
    pub pipelines_a_minute: usize,
    /// Milliseconds a job waits for its runner.
    pub queue_ms: i64,
    /// 17.0 and up: jobs can be asked for by `scope[]=canceling` and `waiting_for_callback` (400
    /// else).
    pub new_job_scopes: bool,
    /// Deployments can be sorted by their end.
    pub deployments_by_end: bool,
    /// 19.2 and up: `/trigger_jobs` exists.
    pub trigger_jobs: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateDate {
    WholeSeconds,
    Fractions,
    Missing,
}

impl Knobs {
    pub fn calm() -> Self {
        Self {
            invisible_for: Duration::ZERO,
            invisible_share: 0,
            gitlab_502: 0,
            gitlab_429: 0,
            iam_throttling: 0,
            forgets: 0,
            delay_ms: 0,
            close_connections: false,
            no_date: false,
            gitlab_ahead: 0,
            oidc_provider: true,
            sts_off: false,
            last_used_lag: 0,
            create_date: CreateDate::WholeSeconds,
            keys_per_user: 2,
            iam_page: 100,
            raw_default: true,
            group_scopes: true,
            mood: Mood::Normal,
            decode_slashes: false,
            pipeline_creation: PipelineCreation::AtOnce,
            pipelines_a_minute: 25,
            queue_ms: 10,
            new_job_scopes: true,
            deployments_by_end: true,
            trigger_jobs: true,
        }
    }

    pub fn hostile() -> Self {
        Self {
            invisible_for: Duration::from_millis(1500),
            invisible_share: 50,
            gitlab_502: 3,
            gitlab_429: 3,
            iam_throttling: 5,
            forgets: 3,
            delay_ms: 30,
            ..Self::calm()
        }
    }
}

/// What goes wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This answer, and no effect.
    Refuse { status: u16, body: String, headers: Vec<(String, String)> },
    /// An HTML page with this status, and no effect.
    Html(u16),
    /// The connection is closed before anything happens.
    Close,
    /// The effect, then the connection is closed without an answer.
    LoseReply,
    /// The effect and its answer; then nobody listens for so many milliseconds. Needs
    /// `close_connections`, or the next call comes all the same.
    ThenRefuse { ms: u64 },
    /// No answer ever, with or without the effect.
    Hang { effect: bool },
    /// The effect, and an answer that is cut in the middle of its body.
    Truncate,
    /// The effect, but another answer.
    Instead { status: u16, body: String, headers: Vec<(String, String)> },
    /// The effect and its answer, whose `Date` is so many seconds off.
    Misdate { seconds: i64 },
    /// No effect, and a body of this text, again and again, without an end.
    Endless(&'static str),
    /// `on_kill` is called before the effect (and it does not happen), no answer.
    KillBefore,
    /// `on_kill` is called after the effect, no answer.
    KillAfter,
}

impl Fault {
    /// A refusal in the manner of the service that is asked.
    pub fn refuse(status: u16) -> Self {
        Self::Refuse { status, body: String::new(), headers: vec![] }
    }

    pub fn retry_after(status: u16, seconds: u32) -> Self {
        Self::Refuse {
            status,
            body: String::new(),
            headers: vec![("Retry-After".into(), seconds.to_string())],
        }
    }

    pub(crate) fn spares_effect(&self) -> bool {
        matches!(
            self,
            Self::Refuse { .. }
                | Self::Html(_)
                | Self::Endless(_)
                | Self::Close
                | Self::KillBefore
                | Self::Hang { effect: false }
        )
    }
}

pub(crate) struct PlannedFault {
    pub(crate) on: On,
    pub(crate) seen: usize,
    pub(crate) fault: Fault,
    pub(crate) hit: Option<usize>,
    pub(crate) target: String,
}

pub(crate) enum On {
    Call(usize),
    Action {
        pattern: String,
        nth: usize,
    },
    /// From the nth on, for ever.
    ActionFrom {
        pattern: String,
        nth: usize,
    },
}

#[derive(Debug, Clone)]
pub struct FaultView {
    pub fault: Fault,
    /// The number of the log's entry (`seq`) that it hit first.
    pub hit: Option<usize>,
    /// The action it hit.
    pub target: String,
}

impl State {
    pub(crate) fn new(seed: u64, partition: &str, prefix: &str) -> Self {
        Self {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            url: String::new(),
            shift: 0,
            knobs: Knobs::calm(),
            aws: Aws::new(partition),
            lab: Lab::new(prefix),
            check: Invariants::default(),
            log: Vec::new(),
            secrets: Vec::new(),
            counted: 0,
            faults: Vec::new(),
            on_kill: None,
            who: String::new(),
        }
    }

    pub(crate) fn now(&self) -> Millis {
        wall() + self.shift
    }

    /// Writes down what happens inside the fake.
    pub(crate) fn note(&mut self, at: Millis, action: &str, who: &str, what: &str) {
        let seq = self.log.len() + 1;
        self.log.push(Entry {
            seq,
            n: None,
            at,
            service: "fake".into(),
            action: action.into(),
            who: who.into(),
            what: what.into(),
            status: 0,
            effect: true,
            connection: 0,
            fault: None,
        });
    }

    /// The fault planned for this call, if any; counts it.
    pub(crate) fn fault_for(
        &mut self,
        n: usize,
        action: &str,
        what: &str,
        seq: usize,
    ) -> Option<Fault> {
        let mut chosen = None;
        for planned in &mut self.faults {
            let due = match &planned.on {
                On::Call(wanted) => *wanted == n && planned.hit.is_none(),
                On::Action { pattern, nth } => {
                    let named = names(pattern, action, what);
                    planned.seen += usize::from(named);
                    named && planned.seen == *nth
                }
                On::ActionFrom { pattern, nth } => {
                    let named = names(pattern, action, what);
                    planned.seen += usize::from(named);
                    named && planned.seen >= *nth
                }
            };
            if due && chosen.is_none() {
                planned.hit.get_or_insert(seq);
                planned.target = format!("{action} {what}");
                chosen = Some(planned.fault.clone());
            }
        }
        chosen
    }

    /// True in `per_cent` of a hundred cases.
    pub(crate) fn chance(&mut self, per_cent: u8) -> bool {
        per_cent > 0 && self.rng.u8(0..100) < per_cent
    }

    /// The same answer for the same connection and thing, whatever else happens.
    pub(crate) fn hash(&self, connection: u64, thing: &str) -> u64 {
        let mut hash = self.seed ^ connection.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in thing.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        hash ^= hash >> 31;
        hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 17
    }

    pub(crate) fn random(&mut self, alphabet: &str, length: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..length).map(|_| letters[self.rng.usize(..letters.len())]).collect()
    }

    pub(crate) fn random_token(&mut self, prefix: &str, length: usize) -> String {
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
        format!("{prefix}{}", self.random(letters, length))
    }

    pub(crate) fn keep_secret(&mut self, secret: &str) {
        if !self.secrets.iter().any(|known| known == secret) {
            self.secrets.push(secret.into());
        }
    }
}

/// Whether `action what` is, or begins with, the words of `pattern`.
fn names(pattern: &str, action: &str, what: &str) -> bool {
    let full = format!("{action} {what}");
    match full.strip_prefix(pattern) {
        Some(rest) => action == pattern || rest.is_empty() || rest.starts_with([' ', '@']),
        None => action == pattern,
    }
}

pub(crate) type Map<T> = BTreeMap<u64, T>;
