//! A run that has ended: what always holds for it, and what a case asks of it.
//!
//! Always: no invariant broke, no secret is in the output, and report, exit code and log agree.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::Fake;
use super::encodings::found;
use super::run::PATIENCE;
use super::state::Entry;
use super::transcript::Transcript;

/// The exit code of a run that is done and has something to tell.
const NOTICE: i32 = 6;

/// A run that has ended, and everything it left behind.
pub struct Ended {
    /// The exit code, or minus the signal that killed it.
    pub code: i32,
    pub took: Duration,
    pub at: Instant,
    pub stdout: String,
    pub stderr: String,
    pub report: Value,
    pub dotenv: String,
    pub annotations: Value,
    /// Every byte of output and files.
    pub raw: String,
    /// What the fake saw meanwhile.
    pub log: Vec<Entry>,
    pub(crate) overdue: bool,
    pub(crate) transcript: Transcript,
}

/// What holds for every run.
impl Ended {
    #[track_caller]
    pub(crate) fn is_sound(&self, fake: &Fake) {
        assert_eq!(fake.violations(), Vec::<String>::new(), "{}", self.stderr);
        assert_eq!(
            found(&self.raw, &fake.secrets()),
            Vec::<String>::new(),
            "a secret is in the output or the files"
        );
        if let Err(why) = self.holds() {
            panic!("{why}\n{}", self.stderr);
        }
    }

    /// Whatever has happened to the run. (Whether the invariants hold the fake says.)
    pub fn holds(&self) -> Result<(), String> {
        if self.overdue {
            return Err(format!("a run did not end within {} s", PATIENCE.as_secs()));
        }
        if self.stderr.contains("panicked") || self.stderr.contains("RUST_BACKTRACE") {
            return Err("a run panicked".to_owned());
        }
        if ![0, 1, 2, 3, 4, 5, NOTICE, 130, 143, -9].contains(&self.code) {
            return Err(format!("a run ended with {}", self.code));
        }
        if self.is_done() && self.stderr.contains("\nerror: ") {
            return Err("a run told of an error and ended as if it were done".to_owned());
        }
        self.ends_with_its_hint()?;
        self.report_agrees()
    }

    fn ends_with_its_hint(&self) -> Result<(), String> {
        let lines: Vec<&str> = self.stderr.trim_end().lines().collect();
        let error = lines.iter().rposition(|line| line.starts_with("error: "));
        let rest = error.map_or(&[][..], |error| &lines[error + 1..]);
        // What a preflight finds, and what is wrong with a configuration, is a list between.
        let three = matches!(rest, [list @ .., state, hint]
            if (self.code == 2 || list.iter().all(|line| line.starts_with("- ")))
                && state.starts_with("state: ")
                && hint.starts_with("hint: "));
        let warns = matches!(&lines[..], [.., warning, hint]
            if warning.starts_with("warning: ") && hint.starts_with("hint: "));
        match self.code {
            NOTICE if !warns => Err("a run with a notice does not end with it".to_owned()),
            NOTICE => Ok(()),
            1.. if !three => Err("a run failed without its three lines".to_owned()),
            _ => Ok(()),
        }
    }

    fn report_agrees(&self) -> Result<(), String> {
        if self.report.is_null() {
            return Ok(());
        }
        let outcome = self.outcome();
        let fits: &[&str] = match self.code {
            0 | NOTICE => &[
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
            _ => &["failed"],
        };
        if !fits.contains(&outcome.as_str()) {
            return Err(format!("exit code {} and outcome {outcome}", self.code));
        }
        if !self.dotenv.starts_with(&format!("ROTATION_OUTCOME={outcome}\n")) {
            return Err(format!("outcome {outcome}, and for later jobs {}", self.dotenv));
        }
        let text = |name: &str| self.report[name].as_str().unwrap_or_default();
        let warnings = self.report["warnings"].as_array().map_or(0, Vec::len);
        if self.is_done() && (self.code == NOTICE) != (warnings > 0) {
            return Err(format!("exit code {} and {warnings} warnings", self.code));
        }
        let tail = format!("state: {}\nhint: {}\n", text("state"), text("hint"));
        if !self.is_done() && !self.stderr.ends_with(&tail) {
            return Err(format!("report and log differ:\n{tail}"));
        }
        Ok(())
    }

    #[track_caller]
    pub(crate) fn counts_its_calls(&self) {
        for service in ["iam", "sts", "gitlab"] {
            let (seen, told) =
                (u64::try_from(self.calls(service)).ok(), self.report["calls"][service].as_u64());
            // A call that no server saw is counted by the program only.
            assert!(told.is_none() || told >= seen, "{service}: {seen:?}, reported {told:?}");
        }
    }
}

/// What a case asks.
impl Ended {
    /// Whether the run ended without an error, with a notice or not.
    pub fn is_done(&self) -> bool {
        matches!(self.code, 0 | NOTICE)
    }

    /// How GitLab calls the end of this job.
    pub fn status(&self) -> &'static str {
        if self.code == 0 { "success" } else { "failed" }
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

    /// What was written to stderr, with placeholders.
    pub fn text(&self) -> String {
        self.transcript.redacted()
    }

    /// The transcript from `error:` on.
    #[track_caller]
    pub fn says(&self, code: i32, expected: impl snapbox::IntoData) -> &Self {
        let text = self.transcript.text();
        let lines = text.rfind("error: ").map_or("", |at| &text[at..]);
        assert!(
            lines.contains("\nstate: ") && lines.contains("\nhint: "),
            "three lines are missing:\n{}",
            self.stderr
        );
        assert_eq!(self.code, code, "\n{}", self.stderr);
        self.transcript.compare(lines, expected);
        self
    }

    /// The whole transcript, but for what it waited for on the way: a matter of moments.
    #[track_caller]
    pub fn shows(&self, expected: impl snapbox::IntoData) -> &Self {
        let lines = self.transcript.text().split_inclusive('\n');
        let lines: String = lines.filter(|line| !line.starts_with(" INFO waiting: ")).collect();
        self.transcript.compare(&lines, expected);
        self
    }

    /// The summary that people read.
    #[track_caller]
    pub fn sums_up(&self, expected: impl snapbox::IntoData) -> &Self {
        let text = self.transcript.text();
        let lines = text.rfind("\nKey  ").map_or("", |at| &text[at + 1..]);
        self.transcript.compare(lines, expected);
        self
    }
}
