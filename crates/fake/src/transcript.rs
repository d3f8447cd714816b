//! Transcripts: what a run has said, with a placeholder for whatever differs from run to run.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use snapbox::Redactions;

/// What no test knows beforehand. Of overlapping patterns snapbox takes the longest first.
const PATTERNS: [(&str, &str); 11] = [
    ("[PORT]", "(?:127.0.0.1|localhost):(?<redacted>[0-9]+)"),
    ("[JOB]", "/-/jobs/(?<redacted>[0-9]+)"),
    ("[PIPELINE]", "/-/pipelines/(?<redacted>[0-9]+)"),
    ("[PIPELINE]", "pipeline (?<redacted>1[0-9]+)"),
    ("[SHA]", "of commit (?<redacted>[0-9a-f]+)"),
    ("[KEY]", "…(?<redacted>[A-Z0-9]+)"),
    ("[N]", "(?:the job ends in|'s clock is) (?<redacted>[0-9]+)"),
    ("[TIME]", "section_(?:start|end):(?<redacted>[0-9]+)"),
    ("[TIME]", "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z?"),
    ("[TIME]", "[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2} UTC"),
    ("[DATE]", "[0-9]{4}-[0-9]{2}-[0-9]{2}"),
];

static ALWAYS: LazyLock<Redactions> = LazyLock::new(|| {
    let mut redactions = Redactions::new();
    for (placeholder, pattern) in PATTERNS {
        insert(&mut redactions, placeholder, pattern);
    }
    redactions
});

fn insert(redactions: &mut Redactions, placeholder: &'static str, pattern: &str) {
    let pattern = Regex::new(pattern).expect("a pattern");
    redactions.insert(placeholder, pattern).expect("a placeholder in brackets");
}

/// One run's output, as a terminal shows it.
pub(crate) struct Transcript {
    text: String,
    redactions: Redactions,
}

impl Transcript {
    /// Keys by their placeholders, and the folder of the run's files.
    pub(crate) fn new(stderr: &str, keys: &[(String, &'static str)], folder: &Path) -> Self {
        let mut redactions = ALWAYS.clone();
        for (id, placeholder) in keys {
            // Whole, or by its last four characters.
            let (head, tail) = id.split_at(id.len() - 4);
            let head = head.trim_start_matches("AKIA");
            let pattern = format!("(?:AKIA|…)(?<redacted>(?:{head})?{tail})");
            insert(&mut redactions, placeholder, &pattern);
        }
        redactions
            .insert("[DIR]", folder.display().to_string())
            .expect("a placeholder in brackets");
        let text = stderr.replace("\x1b[0K", "").replace('\r', " ").replace(" \n", "\n");
        Self { text, redactions }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn redacted(&self) -> String {
        self.redactions.redact(&self.text)
    }

    /// Compares a part of it; `SNAPSHOTS=overwrite` writes what is expected anew.
    #[track_caller]
    pub(crate) fn compare(&self, part: &str, expected: impl snapbox::IntoData) {
        snapbox::Assert::new()
            .action_env(snapbox::assert::DEFAULT_ACTION_ENV)
            .redact_with(self.redactions.clone())
            .eq(snapbox::Data::text(part), expected);
    }
}
