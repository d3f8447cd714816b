//! The status of jobs and pipelines, and what each word means: nowhere else is one matched.

use std::fmt;

use serde::Deserialize;

/// The status of a job, a trigger job or a pipeline: GitLab has one list of words for all of them,
/// `Ci::HasStatus::AVAILABLE_STATUSES` in `app/models/concerns/ci/has_status.rb`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Status {
    Created,
    WaitingForResource,
    Preparing,
    WaitingForCallback,
    Pending,
    Running,
    Success,
    Failed,
    Canceling,
    Canceled,
    Skipped,
    Manual,
    Scheduled,
    /// A word of a later version of GitLab, without anything that could garble a log.
    Other(String),
}

/// What a status means for who waits for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It goes on by itself. A word that this program does not know counts as alive: what is taken
    /// for ended too early could cost a key.
    Alive,
    /// It waits for a person.
    Blocked,
    Succeeded,
    /// It ended in another way.
    Failed,
}

impl Status {
    pub fn phase(&self) -> Phase {
        match self {
            Self::Created
            | Self::WaitingForResource
            | Self::Preparing
            | Self::WaitingForCallback
            | Self::Pending
            | Self::Running
            | Self::Canceling
            | Self::Scheduled
            | Self::Other(_) => Phase::Alive,
            Self::Manual => Phase::Blocked,
            Self::Success => Phase::Succeeded,
            Self::Failed | Self::Canceled | Self::Skipped => Phase::Failed,
        }
    }

    pub fn is_alive(&self) -> bool {
        self.phase() == Phase::Alive
    }

    /// Failed, canceled or skipped.
    pub fn has_failed(&self) -> bool {
        self.phase() == Phase::Failed
    }

    pub fn has_ended(&self) -> bool {
        match self.phase() {
            Phase::Succeeded | Phase::Failed => true,
            Phase::Alive | Phase::Blocked => false,
        }
    }

    /// The status in words for who waits.
    pub fn explained(&self) -> String {
        match self {
            Self::Pending => "pending: no runner has taken it yet".to_owned(),
            Self::Manual => "blocked: it waits for a person to start a manual job".to_owned(),
            Self::Scheduled => "scheduled: it waits for a delayed job".to_owned(),
            Self::WaitingForResource => "waiting for its resource group".to_owned(),
            Self::Created
            | Self::Preparing
            | Self::WaitingForCallback
            | Self::Running
            | Self::Success
            | Self::Failed
            | Self::Canceling
            | Self::Canceled
            | Self::Skipped
            | Self::Other(_) => self.to_string(),
        }
    }
}

impl From<String> for Status {
    fn from(word: String) -> Self {
        match word.as_str() {
            "created" => Self::Created,
            "waiting_for_resource" => Self::WaitingForResource,
            "preparing" => Self::Preparing,
            "waiting_for_callback" => Self::WaitingForCallback,
            "pending" => Self::Pending,
            "running" => Self::Running,
            "success" => Self::Success,
            "failed" => Self::Failed,
            "canceling" => Self::Canceling,
            "canceled" => Self::Canceled,
            "skipped" => Self::Skipped,
            "manual" => Self::Manual,
            "scheduled" => Self::Scheduled,
            other => Self::Other(
                other
                    .chars()
                    .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                    .take(40)
                    .collect(),
            ),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::WaitingForResource => "waiting_for_resource",
            Self::Preparing => "preparing",
            Self::WaitingForCallback => "waiting_for_callback",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Canceling => "canceling",
            Self::Canceled => "canceled",
            Self::Skipped => "skipped",
            Self::Manual => "manual",
            Self::Scheduled => "scheduled",
            Self::Other(word) => word,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_gitlab_is_read_printed_and_has_its_phase() {
        for (words, phase) in [
            (
                "created waiting_for_resource preparing waiting_for_callback pending running \
                 canceling scheduled",
                Phase::Alive,
            ),
            ("manual", Phase::Blocked),
            ("success", Phase::Succeeded),
            ("failed canceled skipped", Phase::Failed),
        ] {
            for word in words.split(' ') {
                let status = Status::from(word.to_owned());
                assert!(!matches!(status, Status::Other(_)), "{word}");
                assert_eq!((status.to_string().as_str(), status.phase()), (word, phase));
            }
        }
    }

    #[test]
    fn a_word_that_we_do_not_know_is_alive_and_cannot_garble_a_log() {
        let status: Status = serde_json::from_str(r#""Success\u001b[2J of_2031""#).unwrap();
        assert_eq!(status, Status::Other("Success2Jof_2031".to_owned()));
        assert!(status.is_alive() && !status.has_ended());
    }
}
