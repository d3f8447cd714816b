//! The summary at the end of the log: five lines that a person understands without knowing the
//! program.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::files::Json;
use super::{Did, days};
use crate::access_key::{AccessKeyId, Key};
use crate::config::{Action, Config, USES_SHOW_WITHIN};
use crate::deploy::Deployed;
use crate::outcome::{End, Outcome, begins_a_rotation};
use crate::plan::{Done, Observed, Step, Waiting};

pub(super) struct Summary {
    key: String,
    why: String,
    published: String,
    deploy: String,
    next: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, text) in [
            ("Key", &self.key),
            ("Why", &self.why),
            ("Published", &self.published),
            ("Deploy", &self.deploy),
            ("Next", &self.next),
        ] {
            writeln!(f, "{name:<10} {text}")?;
        }
        Ok(())
    }
}

impl Summary {
    pub(super) fn new(
        config: &Config,
        end: &End,
        seen: &Observed,
        did: &Did,
        json: &Json,
        old: Option<&AccessKeyId>,
    ) -> Self {
        let named = seen.targets.iter().find_map(|target| target.id.key());
        let key = named.and_then(|id| seen.key(id));
        Self {
            key: key_line(seen, named, old),
            why: why(config, end, did, json.outcome),
            published: json.targets.join(", "),
            deploy: deploy_line(&json.deploys),
            next: next(config, end, key),
        }
    }
}

fn key_line(seen: &Observed, named: Option<&AccessKeyId>, old: Option<&AccessKeyId>) -> String {
    let user = &seen.user;
    match named.map(|id| (id, seen.key(id))) {
        Some((id, Some(key))) => {
            let age = days(seen.now.duration_since(key.created));
            let old = old.map(|old| format!("; replaces key {old}")).unwrap_or_default();
            format!("key {id} of user {user}, created {} ({age} days old){old}", date(key.created))
        }
        Some((id, None)) => format!("key {id}, which the user {user} does not have"),
        None => format!("the user {user} has no published key"),
    }
}

fn why(config: &Config, end: &End, did: &Did, outcome: Outcome) -> String {
    match end {
        End::Done(Done::DryRun(_)) => "dry run: nothing was changed".to_owned(),
        End::Error(error) => error.to_string().lines().next().unwrap_or_default().to_owned(),
        End::Done(Done::Checked { next, .. }) => match &**next {
            next if begins_a_rotation(next) => {
                "checked only; a rotation would: replace the key".to_owned()
            }
            Step::Done(Done::NotDue { due, .. }) => {
                format!("checked only; {}", not_due(config, *due))
            }
            next => format!("checked only; a rotation would: {next}"),
        },
        End::Done(Done::InOwnDeploy) => {
            "this job is part of the rotation's own deploy, so it does nothing".to_owned()
        }
        End::Done(_) if did.created => why_created(config, did),
        End::Done(Done::AlreadySetUp { .. }) => {
            "the variables are there already, so nothing was set up".to_owned()
        }
        End::Done(Done::NothingToRetire { .. }) if !did.retired.is_empty() => {
            format!("finished the rotation: {}", did.retired.join(", "))
        }
        End::Done(Done::Superseded { key, .. }) => {
            format!("key {key} is published; the rotation that was under way is over")
        }
        End::Done(_) if outcome == Outcome::Resumed => {
            "went on with a rotation that an earlier run had begun".to_owned()
        }
        End::Done(Done::NothingToRetire { .. }) => {
            "no rotation is under way, so there is nothing to retire".to_owned()
        }
        End::Done(Done::NotDue { due, .. }) => not_due(config, *due),
        End::Done(Done::Waiting(_) | Done::Tried) => "a rotation is under way and waits".to_owned(),
    }
}

fn not_due(config: &Config, due: Timestamp) -> String {
    let after = span(config.rotate_after);
    format!("not due: a key is replaced after {after}, this one on {}", date(due))
}

fn why_created(config: &Config, did: &Did) -> String {
    if config.action == Action::Setup {
        return "set up: the first key, and the variables that hold it".to_owned();
    }
    if config.force {
        return "rotated because it was forced".to_owned();
    }
    match &did.replaced {
        Some(key) if !key.active => "rotated because the key was disabled".to_owned(),
        Some(_) | None => {
            format!("rotated because the key was older than {}", span(config.rotate_after))
        }
    }
}

fn deploy_line(deploys: &[Deployed]) -> String {
    let line = |deploy: &Deployed| {
        let sha = deploy.sha.as_deref().map(|sha| sha.get(..8).unwrap_or(sha));
        let commit = sha.map(|sha| format!(" of commit {sha}")).unwrap_or_default();
        let link = deploy.url.as_deref().map(|url| format!(" {url}")).unwrap_or_default();
        format!("project {}{commit}: {}{link}", deploy.project, deploy.status)
    };
    match deploys {
        [] => "none in this run".to_owned(),
        deploys => deploys.iter().map(line).collect::<Vec<_>>().join("; "),
    }
}

fn next(config: &Config, end: &End, key: Option<&Key>) -> String {
    match end {
        End::Done(Done::Waiting(waiting)) => next_after(waiting, config),
        End::Error(error) => error.hint(),
        End::Done(Done::DryRun(_)) => "run without ROTATOR_DRY_RUN".to_owned(),
        End::Done(Done::Checked { next, .. }) if begins_a_rotation(next) => {
            "the next scheduled run of the rotation replaces this key".to_owned()
        }
        End::Done(_) => key.map_or_else(
            || "nothing".to_owned(),
            |key| {
                let due = date(key.created + config.rotate_after);
                format!("the next scheduled run looks again; this key is replaced on {due}")
            },
        ),
    }
}

fn next_after(waiting: &Waiting, config: &Config) -> String {
    match waiting {
        Waiting::InFlightJobs(_) | Waiting::Deploys(_) => {
            format!("{waiting}; the next run goes on; both keys work until then")
        }
        Waiting::Unsettled { .. } => format!("{waiting}; the next run looks again"),
        Waiting::Margin { .. } | Waiting::Afterlife { .. } => {
            format!("{waiting}; the next run goes on")
        }
        Waiting::OwnSigner { .. } => waiting.to_string(),
        Waiting::OwnDeploy => format!("{waiting}; both keys work until then"),
        Waiting::Overlap { old, until } => {
            let grace = match days(config.grace_period) {
                0 => format!("{} min", config.grace_period.as_mins()),
                1 => "a day".to_owned(),
                days => format!("{days} days"),
            };
            let hours = USES_SHOW_WITHIN.as_hours();
            let short = if config.overlap_is_short() {
                format!("; AWS shows a use late, so an overlap under {hours} hours can miss one")
            } else {
                String::new()
            };
            format!(
                "the next scheduled run after {} disables old key {old}, and a run {grace} later \
                 deletes it{short}",
                time(*until)
            )
        }
        Waiting::StillUsed { .. } => format!("{waiting}; then it is disabled"),
        Waiting::Grace { old, until } => {
            format!("the next scheduled run after {} deletes old key {old}", time(*until))
        }
    }
}

/// A duration as the configuration is written, in its largest whole unit.
fn span(span: SignedDuration) -> String {
    match span.as_secs() {
        seconds if seconds >= 86_400 && seconds % 86_400 == 0 => {
            format!("{} days", seconds / 86_400)
        }
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{} hours", seconds / 3600),
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{} minutes", seconds / 60),
        seconds => format!("{seconds} seconds"),
    }
}

fn date(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}
