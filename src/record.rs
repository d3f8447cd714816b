//! The record of a run: the claim, the progress of a rotation and, at rest, the memory of it.
//!
//! A record is one line of JSON in one CI/CD variable, in an environment scope that no job has. It
//! holds ids and dates, never a secret. This module parses and prints it; `plan` decides what it
//! means for the next step.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::access_key::AccessKeyId;
use crate::net::is_plausible;
use crate::place::{Name, Owner};

mod size;
mod whose;

pub use size::{LIMIT, longest};
pub use whose::{Kinship, Whose, is_name};

/// The environment scope of every record.
pub const SCOPE: &str = "credential-rotator";
/// How the key of every record's variable begins.
pub const PREFIX: &str = "CREDENTIAL_ROTATOR_";

/// One run's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub user: String,
    /// The user's account, where STS has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The job that this run is (`42/98765`), if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRef>,
    pub at: Timestamp,
    /// The latest moment at which the run can be alive. `None`: it has ended in order and released
    /// the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// What is known of a rotation that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// The keys that the user had before the rotation, and those that tags named.
    pub from: Vec<AccessKeyId>,
    /// IAM's clock when it listed them.
    pub creating: Timestamp,
    /// The key ids that the targets held. `None` stands for a target that held none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Option<AccessKeyId>>,
    /// Every place that was a target while this rotation published, whether it still is one or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<RecordedTarget>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
    /// When a look showed that a target does not hold the published pair; until it is published
    /// again everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_in_place: Option<Timestamp>,
    /// When a look after the publication first showed no older job running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deploys: Vec<RecordedDeploy>,
    /// Deploys that were asked for and of which no reply has come: at most one for each place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<DeployAttempt>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployed: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<Timestamp>,
    /// When a look after `disabled` first showed an old key active; until one shows it inactive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled_again: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    pub key: AccessKeyId,
    pub at: Timestamp,
}

/// Two variables of a project or group that hold a pair.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub owner: Owner,
    #[serde(default = "everywhere", skip_serializing_if = "is_everywhere")]
    pub scope: String,
    /// The names of the two variables; of most of them no record has to tell.
    #[serde(default, skip_serializing_if = "Names::are_aws_own")]
    pub names: Names,
}

/// The variable of the key's id and that of its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Names {
    pub id: String,
    pub secret: String,
}

/// A target of the rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedTarget {
    pub place: Place,
    /// It held the new pair when the rotation had published it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub published: bool,
}

/// What is deployed: a project, by a pipeline of a ref or by the jobs of an environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployPlace {
    pub project: Name,
    /// As the setting says it: `pipeline`, `pipeline@main`, `environment/production`.
    pub deploy: String,
}

/// A deploy that was started or adopted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedDeploy {
    pub place: DeployPlace,
    pub pipeline: u64,
    /// The retried job, where an environment is redeployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<Timestamp>,
    /// What the pipeline was started with, until it is proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Tried>,
}

/// What a pipeline was started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tried {
    /// Over the commit and the settings.
    pub number: u32,
    /// The one before it had the same number, and could prove nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// A deploy that was asked for, noted before the request is sent. It is there until GitLab's answer
/// is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeployAttempt {
    pub place: DeployPlace,
    pub asked: Asked,
    /// What it makes is made later than this.
    pub at: Timestamp,
    /// What it makes is made before this. `None`: the request may be under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
}

/// What GitLab is asked to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// A pipeline of this ref.
    Ref(String),
    /// The job of this name, once more.
    Job(String),
}

/// A job: the numeric id of its project, and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobRef {
    pub project: u64,
    pub job: u64,
}

impl Record {
    /// Reads the value of a record's variable. `None` where any of it is not understood: a guess at
    /// another run's state could cost a key.
    pub fn parse(value: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(value).ok()?;
        if !dates_are_plausible(&line) {
            return None;
        }
        // From the text again: a `Value` has kept only the last of two equal names.
        serde_json::from_str(value).ok()
    }

    /// One line of JSON.
    pub fn print(&self) -> String {
        serde_json::to_string(self).expect("the keys of every object are texts")
    }

    pub fn released(&self) -> bool {
        self.ends.is_none()
    }
}

impl Progress {
    pub fn unfinished(&self) -> bool {
        self.finished.is_none()
    }

    /// Whether this place became a target only after the pair was published everywhere. A record
    /// that tells of no target says nothing about it.
    pub fn is_added(&self, place: &Place) -> bool {
        !self.targets.is_empty() && !self.is_published_at(place)
    }

    /// The deploy of this place that was asked for without an answer.
    pub fn attempt_at(&self, place: &DeployPlace) -> Option<&DeployAttempt> {
        self.attempts.iter().find(|attempt| attempt.place == *place)
    }

    /// Whether the rotation has published the new pair there.
    pub fn is_published_at(&self, place: &Place) -> bool {
        self.targets.iter().any(|target| target.published && target.place == *place)
    }

    /// Notes a target; `published`: it holds the new pair.
    pub fn record_target(&mut self, place: &Place, published: bool) {
        match self.targets.iter_mut().find(|target| target.place == *place) {
            Some(known) => known.published |= published,
            None => self.targets.push(RecordedTarget { place: place.clone(), published }),
        }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self { id: "AWS_ACCESS_KEY_ID".to_owned(), secret: "AWS_SECRET_ACCESS_KEY".to_owned() }
    }
}

impl Names {
    fn are_aws_own(&self) -> bool {
        *self == Self::default()
    }
}

fn everywhere() -> String {
    "*".to_owned()
}

fn is_everywhere(scope: &str) -> bool {
    scope == "*"
}

/// Whether every text that reads as a date is a plausible one: the plan adds to these dates, and a
/// sum beyond the last date panics. It looks at the JSON, so that no field can be forgotten.
fn dates_are_plausible(value: &Value) -> bool {
    match value {
        Value::String(text) => text.parse().map_or(true, is_plausible),
        Value::Array(items) => items.iter().all(dates_are_plausible),
        Value::Object(fields) => fields.values().all(dates_are_plausible),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = AccessKeyId> {
        "AKIA[A-Z2-7]{16}".prop_map(|text| AccessKeyId::parse(&text).unwrap())
    }

    fn moment() -> impl Strategy<Value = Timestamp> {
        (0_i64..4_000_000_000).prop_map(|second| Timestamp::from_second(second).unwrap())
    }

    fn name() -> impl Strategy<Value = Name> {
        prop_oneof![
            any::<u64>().prop_map(Name::Id),
            "[a-z]{1,9}/[0-9a-z]{1,9}".prop_map(Name::Path)
        ]
    }

    fn target() -> impl Strategy<Value = RecordedTarget> {
        let owner = (any::<bool>(), name()).prop_map(|(group, name)| {
            if group { Owner::Group(name) } else { Owner::Project(name) }
        });
        let names = proptest::option::of(("[A-Z_]{1,9}", "[A-Z_]{1,9}"));
        (owner, "[*a-z/]{1,9}", names, any::<bool>()).prop_map(
            |(owner, scope, names, published)| {
                let names = names.map(|(id, secret)| Names { id, secret }).unwrap_or_default();
                RecordedTarget { place: Place { owner, scope, names }, published }
            },
        )
    }

    fn deploy_place() -> impl Strategy<Value = DeployPlace> {
        (name(), any::<String>()).prop_map(|(project, deploy)| DeployPlace { project, deploy })
    }

    fn deploy() -> impl Strategy<Value = RecordedDeploy> {
        let tried = any::<Option<(u32, bool)>>();
        (deploy_place(), any::<u64>(), any::<Option<u64>>(), proptest::option::of(moment()), tried)
            .prop_map(|(place, pipeline, job, proven, tried)| RecordedDeploy {
                place,
                pipeline,
                job,
                proven,
                tried: tried.map(|(number, again)| Tried { number, again }),
            })
    }

    fn attempt() -> impl Strategy<Value = DeployAttempt> {
        let asked = prop_oneof![
            any::<String>().prop_map(Asked::Ref),
            any::<String>().prop_map(Asked::Job),
        ];
        (deploy_place(), asked, moment(), proptest::option::of(moment()))
            .prop_map(|(place, asked, at, closed)| DeployAttempt { place, asked, at, closed })
    }

    fn progress() -> impl Strategy<Value = Progress> {
        let ids = (
            vec(id(), 0..4),
            moment(),
            vec(proptest::option::of(id()), 0..4),
            proptest::option::of((id(), moment())),
        );
        let times = [(); 6].map(|()| proptest::option::of(moment()));
        let lists = (vec(target(), 0..3), vec(deploy(), 0..3), vec(attempt(), 0..3));
        (ids, lists, times).prop_map(
            |((from, creating, previous, published), (targets, deploys, attempts), times)| {
                let [not_in_place, drained, deployed, disabled, enabled_again, finished] = times;
                let published = published.map(|(key, at)| Published { key, at });
                Progress {
                    from,
                    creating,
                    previous,
                    targets,
                    published,
                    not_in_place,
                    drained,
                    deploys,
                    attempts,
                    deployed,
                    disabled,
                    enabled_again,
                    finished,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            user in "[a-z+=,.@-]{1,20}",
            account in proptest::option::of("[0-9]{12}"),
            job in any::<Option<(u64, u64)>>(),
            at in moment(),
            ends in proptest::option::of(moment()),
            progress in proptest::option::of(progress()),
        ) {
            let job = job.map(|(project, job)| JobRef { project, job });
            let record = Record { user, account, job, at, ends, progress };
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
        for fact in [
            r#""drained":"9999-12-30T21:59:59Z""#,
            r#""published":{"key":"AKIAIOSFODNN7EXAMPLE","at":"9999-12-30T21:59:59Z"}"#,
            r#""deploys":[{"place":{"project":42,"deploy":"pipeline"},"pipeline":7,"proven":"9999-12-30T21:59:59Z"}]"#,
            r#""attempts":[{"place":{"project":42,"deploy":"pipeline"},"asked":{"ref":"main"},"at":"9999-12-30T21:59:59Z"}]"#,
        ] {
            assert_eq!(Record::parse(&with_progress(fact)), None, "{fact}");
            assert!(
                Record::parse(&with_progress(&fact.replace("9999", "2026"))).is_some(),
                "{fact}"
            );
        }
    }

    /// A record whose progress has this fact too.
    fn with_progress(fact: &str) -> String {
        let progress = format!(r#"{{"from":[],"creating":"2026-01-01T00:00:00Z",{fact}}}"#);
        format!(r#"{{"user":"d","at":"2026-01-01T00:00:00Z","progress":{progress}}}"#)
    }

    #[test]
    fn a_record_without_an_end_is_released() {
        for (ends, released) in [(None, true), (Some(Timestamp::UNIX_EPOCH), false)] {
            let record = Record {
                user: "deployer".to_owned(),
                account: None,
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
        let bare = r#""user":"deployer","at":"2026-01-01T00:00:00Z""#;
        assert!(Record::parse(&format!("{{{bare}}}")).is_some());
        for more in [
            r#""epoch":2"#,
            r#""at":"2026-01-01T00:00:00Z""#,
            r#""creating":"2026-01-01T00:00:00Z""#,
            r#""progress":{"creating":"2026-01-01T00:00:00Z"}"#,
            r#""progress":{"from":[]}"#,
        ] {
            assert_eq!(Record::parse(&format!("{{{bare},{more}}}")), None, "{more}");
        }
        for fact in [
            r#""epoch":2"#,
            r#""published":{"key":"AKIAIOSFODNN7EXAMPLE","at":"2026-01-01T00:00:00Z","epoch":2}"#,
            r#""deploys":[{"place":{"project":42,"deploy":"pipeline"},"pipeline":7,"epoch":2}]"#,
            r#""attempts":[{"place":{"project":42,"deploy":"pipeline"},"asked":{"tag":"v1"},"at":"2026-01-01T00:00:00Z"}]"#,
        ] {
            assert_eq!(Record::parse(&with_progress(fact)), None, "{fact}");
        }
    }
}
