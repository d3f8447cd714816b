//! The record of a run: what a rotation writes down, in one CI/CD variable.
//!
//! The variable is in an environment scope that no job ever has. It holds ids and dates, never a
//! secret. This module parses and prints; what a record means for the next step is decided in
//! `plan`.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access_key::AccessKeyId;
use crate::net::is_plausible;

/// The environment scope of every record.
pub const SCOPE: &str = "credential-rotator";
/// How the key of every record's variable begins.
pub const PREFIX: &str = "CREDENTIAL_ROTATOR_";

/// One run's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub user: String,
    /// Project and job id (`42/98765`); none where the run is no job.
    pub job: Option<JobRef>,
    pub at: Timestamp,
    /// The latest moment at which the run can be alive; none once it has ended in order (released).
    pub ends: Option<Timestamp>,
    pub progress: Option<Progress>,
}

/// What is known of a rotation that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The keys that were there, and those that tags named.
    pub from: Vec<AccessKeyId>,
    /// IAM's clock when it listed them.
    pub creating: Timestamp,
    /// Every id that the targets held; `None` for a target that held none.
    pub previous: Vec<Option<AccessKeyId>>,
    pub published: Option<Published>,
    /// The first look after the publication that showed no older job running.
    pub drained: Option<Timestamp>,
    pub deploys: Vec<RecordedDeploy>,
    pub deployed: Option<Timestamp>,
    pub disabled: Option<Timestamp>,
    pub finished: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub key: AccessKeyId,
    pub at: Timestamp,
}

/// A deploy that was started or adopted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedDeploy {
    /// The project as the configuration names it, and its ref or environment.
    pub place: String,
    pub pipeline: u64,
    /// The retried job, where an environment is redeployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<Timestamp>,
}

/// A job by the numeric id of its project and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobRef {
    pub project: u64,
    pub job: u64,
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.job)
    }
}

impl TryFrom<String> for JobRef {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parsed = text
            .split_once('/')
            .and_then(|(project, job)| Some((project.parse().ok()?, job.parse().ok()?)));
        parsed.map(|(project, job)| Self { project, job }).ok_or("not PROJECT/JOB")
    }
}

impl From<JobRef> for String {
    fn from(job: JobRef) -> Self {
        job.to_string()
    }
}

/// A record as it is written: one flat object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<JobRef>,
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Vec<AccessKeyId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    creating: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    previous: Vec<Option<AccessKeyId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published: Option<Published>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drained: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    deploys: Vec<RecordedDeploy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deployed: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disabled: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished: Option<Timestamp>,
}

impl Record {
    /// Reads the value of a record's variable. A line that is not wholly understood is none:
    /// guessing at another run's state could cost a key.
    pub fn parse(value: &str) -> Option<Self> {
        let line: Line = serde_json::from_str(value).ok()?;
        let progress = match (line.from, line.creating) {
            (Some(from), Some(creating)) => Some(Progress {
                from,
                creating,
                previous: line.previous,
                published: line.published,
                drained: line.drained,
                deploys: line.deploys,
                deployed: line.deployed,
                disabled: line.disabled,
                finished: line.finished,
            }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return None,
        };
        let record =
            Self { user: line.user, job: line.job, at: line.at, ends: line.ends, progress };
        let plausible = record.dates().all(is_plausible);
        plausible.then_some(record)
    }

    fn dates(&self) -> impl Iterator<Item = Timestamp> {
        let progress = self.progress.as_ref();
        let of_progress = progress.map(|progress| {
            [progress.drained, progress.deployed, progress.disabled, progress.finished]
                .into_iter()
                .flatten()
                .chain([progress.creating])
        });
        let published =
            progress.and_then(|progress| progress.published.as_ref()).map(|published| published.at);
        let proven = progress
            .into_iter()
            .flat_map(|progress| progress.deploys.iter().filter_map(|deploy| deploy.proven));
        [self.at]
            .into_iter()
            .chain(self.ends)
            .chain(published)
            .chain(of_progress.into_iter().flatten())
            .chain(proven)
    }

    /// One line of JSON.
    pub fn print(&self) -> String {
        let progress = self.progress.clone();
        let began = progress.is_some();
        let progress = progress.unwrap_or_default();
        let line = Line {
            user: self.user.clone(),
            job: self.job,
            at: self.at,
            ends: self.ends,
            from: began.then_some(progress.from),
            creating: began.then_some(progress.creating),
            previous: progress.previous,
            published: progress.published,
            drained: progress.drained,
            deploys: progress.deploys,
            deployed: progress.deployed,
            disabled: progress.disabled,
            finished: progress.finished,
        };
        serde_json::to_string(&line).unwrap_or_default()
    }

    pub fn released(&self) -> bool {
        self.ends.is_none()
    }
}

impl Progress {
    pub fn unfinished(&self) -> bool {
        self.finished.is_none()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = AccessKeyId> {
        "AKIA[A-Z2-7]{16}".prop_map(|text| AccessKeyId::parse(&text).unwrap())
    }

    fn moment() -> impl Strategy<Value = Timestamp> {
        (0_i64..4_000_000_000).prop_map(|second| Timestamp::from_second(second).unwrap())
    }

    fn deploy() -> impl Strategy<Value = RecordedDeploy> {
        (any::<String>(), any::<u64>(), any::<Option<u64>>(), proptest::option::of(moment()))
            .prop_map(|(place, pipeline, job, proven)| RecordedDeploy {
                place,
                pipeline,
                job,
                proven,
            })
    }

    fn progress() -> impl Strategy<Value = Progress> {
        let ids = (
            proptest::collection::vec(id(), 0..4),
            moment(),
            proptest::collection::vec(proptest::option::of(id()), 0..4),
            proptest::option::of((id(), moment())),
        );
        let times = [(); 4].map(|()| proptest::option::of(moment()));
        (ids, proptest::collection::vec(deploy(), 0..3), times).prop_map(
            |((from, creating, previous, published), deploys, times)| {
                let [drained, deployed, disabled, finished] = times;
                let published = published.map(|(key, at)| Published { key, at });
                Progress {
                    from,
                    creating,
                    previous,
                    published,
                    drained,
                    deploys,
                    deployed,
                    disabled,
                    finished,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            user in "[a-z+=,.@-]{1,20}", job in any::<Option<(u64, u64)>>(), at in moment(), ends in proptest::option::of(moment()),
            progress in proptest::option::of(progress()),
        ) {
            let job = job.map(|(project, job)| JobRef { project, job });
            let record = Record { user, job, at, ends, progress };
            let line = record.print();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(Record::parse(&line), Some(record));
        }

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in any::<String>()) {
            let _ = Record::parse(&text);
        }
    }

    /// Sums with such dates would be beyond what a date can be.
    #[test]
    fn a_date_that_cannot_be_is_not_understood() {
        for (name, date) in [
            ("at", "9999-12-30T21:59:59Z"),
            ("ends", "9000-01-01T00:00:00Z"),
            ("at", "-009999-01-02T01:59:59Z"),
        ] {
            let line = format!(
                r#"{{"user":"deployer","{name}":"{date}"{}}}"#,
                if name == "at" { "" } else { r#","at":"2026-01-01T00:00:00Z""# }
            );
            assert_eq!(Record::parse(&line), None, "{line}");
        }
        let progress = r#"{"user":"d","at":"2026-01-01T00:00:00Z","from":[],"creating":"2026-01-01T00:00:00Z","#;
        for fact in [
            r#""drained":"9999-12-30T21:59:59Z""#,
            r#""published":{"key":"AKIAIOSFODNN7EXAMPLE","at":"9999-12-30T21:59:59Z"}"#,
            r#""deploys":[{"place":"42","pipeline":7,"proven":"9999-12-30T21:59:59Z"}]"#,
        ] {
            assert_eq!(Record::parse(&format!("{progress}{fact}}}")), None, "{fact}");
            assert!(
                Record::parse(&format!("{progress}{}}}", fact.replace("9999", "2026"))).is_some(),
                "{fact}"
            );
        }
    }

    #[test]
    fn a_record_without_an_end_is_released() {
        for (ends, released) in [(None, true), (Some(Timestamp::UNIX_EPOCH), false)] {
            let record = Record {
                user: "deployer".to_owned(),
                job: None,
                at: Timestamp::UNIX_EPOCH,
                ends,
                progress: None,
            };
            assert_eq!(record.released(), released);
        }
    }

    #[test]
    fn a_line_with_a_word_that_we_do_not_know_is_not_understood() {
        assert_eq!(
            Record::parse(r#"{"user":"deployer","at":"2026-01-01T00:00:00Z","epoch":2}"#),
            None
        );
        assert_eq!(
            Record::parse(
                r#"{"user":"deployer","at":"2026-01-01T00:00:00Z","creating":"2026-01-01T00:00:00Z"}"#
            ),
            None
        );
        assert!(Record::parse(r#"{"user":"deployer","at":"2026-01-01T00:00:00Z"}"#).is_some());
    }
}
