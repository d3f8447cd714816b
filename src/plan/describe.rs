//! What the plan says to a person: each step in a few words, and which keys work now.

use std::fmt;

use super::model::{IdSeen, Observed, SecretOwner, SecretSeen, TargetSeen};
use super::new_key::{NewKeyState, new_key_state};
use super::run_state::Attempt;
use super::stage::is_previous as is_previous_of;
use super::step::{Checkpoint, Done, KeyRole, Query, Scope, Step, Waiting};
use crate::access_key::AccessKeyId;
use crate::record::Progress;

impl Observed {
    /// Which keys work now and whether production is affected, in a sentence for whoever is woken
    /// by it.
    pub fn state(&self) -> String {
        match self.progress().filter(|progress| progress.unfinished()) {
            Some(progress) => self.state_of_rotation(progress),
            None => self.state_at_rest(),
        }
    }

    fn state_of_rotation(&self, progress: &Progress) -> String {
        let found = new_key_state(progress, self);
        let new_key = found.key();
        let is_previous =
            |id: &AccessKeyId| progress.previous.iter().flatten().any(|old| old == id);
        let keys = self.keys_of_rotation(&found, is_previous);
        let is_torn = |target: &&TargetSeen| {
            new_key.is_some_and(|key| target.secret.is_of(key) && !target.is_on(key))
                && (target.id == IdSeen::Absent || is_previous_of(progress, target))
        };
        let torn: Vec<&TargetSeen> = self.targets.iter().filter(is_torn).collect();
        if let Some(first) = torn.first() {
            let names: Vec<&str> = torn.iter().map(|target| target.name.as_str()).collect();
            let holds = self.holds(first);
            return format!(
                "{} {holds} HALF OF THE NEW PAIR: jobs that start now fail until the next \
                 run; {keys}",
                names.join(", ")
            );
        }
        let named = || self.targets.iter().filter_map(|target| target.id.key());
        let works = |id: &AccessKeyId| self.key(id).is_some_and(|key| key.active);
        match named().find(|id| !works(id)) {
            Some(id) if self.key(id).is_none() && new_key != Some(id) && !is_previous(id) => {
                format!("{}; {keys}", self.unknown_key_text(id))
            }
            Some(id) => format!("{}; {keys}", self.dead_key_text(id)),
            None if named().next().is_none() => {
                format!("no variable names a key of this user; {}", self.new_key_text(&found))
            }
            None => match self.partly_published(new_key) {
                Some((on_new, on_old)) => format!(
                    "{} holds the new pair, {} the old one, and both work; {keys}; production is \
                     not affected",
                    on_new.join(", "),
                    on_old.join(", ")
                ),
                None => format!(
                    "the variables name a key that works; {keys}; production is not affected"
                ),
            },
        }
    }

    /// Which targets name the new key and which another one, where there are both.
    fn partly_published(&self, new_key: Option<&AccessKeyId>) -> Option<(Vec<&str>, Vec<&str>)> {
        let key = new_key?;
        let (mut on_new, mut on_old) = (Vec::new(), Vec::new());
        for target in &self.targets {
            let side = if target.id.key() == Some(key) { &mut on_new } else { &mut on_old };
            side.push(target.name.as_str());
        }
        (!on_new.is_empty() && !on_old.is_empty()).then_some((on_new, on_old))
    }

    /// The old keys and the new one, with their states.
    fn keys_of_rotation(
        &self,
        found: &NewKeyState,
        is_previous: impl Fn(&AccessKeyId) -> bool,
    ) -> String {
        let olds = self.keys.iter().filter(|key| is_previous(&key.id));
        let olds: Vec<String> = olds.map(|key| self.key_and_state(&key.id)).collect();
        let old =
            if olds.is_empty() { String::new() } else { format!("old {}, ", olds.join(", ")) };
        old + &self.new_key_text(found)
    }

    fn new_key_text(&self, found: &NewKeyState) -> String {
        match (found.key(), found) {
            (Some(id), _) => format!("new {}", self.key_and_state(id)),
            (None, NewKeyState::Several(_)) => "which key is the new one is not known".to_owned(),
            (None, _) if self.run.attempt == Attempt::Unclear => {
                "whether a new key was made is not known".to_owned()
            }
            (None, _) => "no new key was made".to_owned(),
        }
    }

    fn key_and_state(&self, id: &AccessKeyId) -> String {
        match self.key(id) {
            Some(key) if key.active => format!("key {id} (active)"),
            Some(_) => format!("key {id} (disabled)"),
            None => format!("key {id} (gone)"),
        }
    }

    /// What only a tag says is not certain: an operator may have left it beside another value.
    fn holds(&self, target: &TargetSeen) -> &'static str {
        match (&target.id, &target.secret) {
            (IdSeen::Key(_), SecretSeen::Hidden { .. }) if !self.run.secret_sent => "MAY HOLD",
            (_, SecretSeen::Readable { tag: Some(_), owner: SecretOwner::NotAsked }) => "MAY HOLD",
            (
                IdSeen::Absent | IdSeen::Key(_) | IdSeen::Unusable(_),
                SecretSeen::Absent
                | SecretSeen::Unusable(_)
                | SecretSeen::Hidden { .. }
                | SecretSeen::Readable { .. },
            ) => "HOLDS",
        }
    }

    /// The same where no rotation is under way.
    fn state_at_rest(&self) -> String {
        let named = self.targets.iter().find_map(|target| target.id.key());
        if let Some(broken) = self.targets.iter().find(|target| target.is_broken()) {
            let (name, holds) = (&broken.name, self.holds(broken));
            return format!(
                "{name} {holds} NO PAIR THAT WORKS: jobs that start now and use it fail"
            );
        }
        match named.map(|id| (id, self.key(id))) {
            None => "no variable names a key of this user, so what production uses cannot be told \
                 from here"
                .to_owned(),
            Some((id, Some(key))) if key.active => format!(
                "the variables name key {id} (active); \
                 production is not affected"
            ),
            Some((id, Some(_))) => self.dead_key_text(id),
            Some((id, None)) => self.unknown_key_text(id),
        }
    }

    fn dead_key_text(&self, id: &AccessKeyId) -> String {
        let key = self.key_and_state(id);
        if self.is_confirmed() {
            format!("the variables name {key}, WHICH DOES NOT WORK: production is affected")
        } else {
            format!("the variables name {key}, as one look has shown: production may be affected")
        }
    }

    fn unknown_key_text(&self, id: &AccessKeyId) -> String {
        if self.is_confirmed() {
            format!(
                "the variables name key {id}, which this user does not have: unless it is another \
                 user's, PRODUCTION IS AFFECTED"
            )
        } else {
            format!(
                "the variables name key {id}, which one look at this user's keys has not shown: \
                 production may be affected"
            )
        }
    }

    /// One list of IAM may lag: what it says of a key is certain once a second look says it too.
    fn is_confirmed(&self) -> bool {
        self.run.suspected.is_some()
    }
}

impl TargetSeen {
    /// Half a pair, or two halves that do not belong together, as far as that can be seen.
    fn is_broken(&self) -> bool {
        match (&self.id, &self.secret) {
            (IdSeen::Key(_), SecretSeen::Absent) => true,
            (
                IdSeen::Key(id),
                SecretSeen::Hidden { tag: Some(other) }
                | SecretSeen::Readable { owner: SecretOwner::Key(other), .. },
            ) => id != other,
            (IdSeen::Absent, SecretSeen::Hidden { .. } | SecretSeen::Readable { .. }) => true,
            (IdSeen::Absent, SecretSeen::Absent | SecretSeen::Unusable(_))
            | (IdSeen::Unusable(_), _) => false,
            (
                IdSeen::Key(_),
                SecretSeen::Unusable(_)
                | SecretSeen::Hidden { tag: None }
                | SecretSeen::Readable { .. },
            ) => false,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(query) => write!(f, "{query}"),
            Self::Claim => f.write_str("claim the rotation"),
            Self::TakeOver => f.write_str("take over the record of an earlier run"),
            Self::Record(checkpoint) => write!(f, "record that {checkpoint}"),
            Self::Create => f.write_str("create a new key"),
            Self::Verify(key) => write!(f, "verify new key {key} with its own credentials"),
            Self::WriteSecret { target, key } => {
                write!(f, "write the secret of new key {key} to target {}", target + 1)
            }
            Self::WriteId { target, key } => {
                write!(f, "write the id of new key {key} to target {}", target + 1)
            }
            Self::StartDeploy(place) => write!(f, "start deploy {}", place + 1),
            Self::Wait(waiting) | Self::Done(Done::Waiting(waiting)) => {
                write!(f, "wait: {waiting}")
            }
            Self::Disable(key, role) => write!(f, "disable {role} key {key}"),
            Self::Delete(key, role) => write!(f, "delete {role} key {key}"),
            Self::Observe(Scope::Everything) => f.write_str("read everything again"),
            Self::Observe(Scope::Variables) => f.write_str("read the variables again"),
            Self::Observe(Scope::Everywhere) => {
                f.write_str("look for the old key in the variables again, everywhere")
            }
            Self::Confirm(_) => f.write_str("read everything again before refusing"),
            Self::Abandon(_) => f.write_str("give up the new key"),
            Self::Retry => f.write_str("try the write again"),
            Self::Done(Done::NotDue { key, .. }) => write!(f, "nothing: key {key} is not due"),
            Self::Done(
                Done::Tried
                | Done::InOwnDeploy
                | Done::Superseded { .. }
                | Done::NothingToRetire { .. }
                | Done::AlreadySetUp { .. }
                | Done::Checked { .. }
                | Done::DryRun(_),
            ) => f.write_str("nothing"),
            Self::Refuse(_) => f.write_str("refuse"),
            Self::Stop => f.write_str("stop"),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WhoseSecrets => f.write_str("ask STS which key each secret belongs to"),
            Self::LastUse(key) => write!(f, "ask IAM when key {key} was last used"),
            Self::Preflight => f.write_str("check everything that a rotation needs"),
            Self::InFlightJobs => f.write_str("look for jobs that still run with the old pair"),
            Self::Deploys => f.write_str("look at the deploys"),
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin => f.write_str("a rotation begins"),
            Self::Nothing => f.write_str("nothing came of the rotation"),
            Self::Published => f.write_str("the new key is published"),
            Self::NotInPlace => {
                f.write_str("the new key is not in every target, so its deploy proves nothing")
            }
            Self::Drained => f.write_str("every job that started before the publication has ended"),
            Self::Attempt(place) => write!(f, "deploy {} is asked for", place + 1),
            Self::AttemptClosed(place) => {
                write!(f, "it is not known whether deploy {} was started", place + 1)
            }
            Self::AttemptWithdrawn(place) => write!(f, "deploy {} was not started", place + 1),
            Self::Adopted(place) => write!(f, "deploy {} was started after all", place + 1),
            Self::Proven => f.write_str("the deploy runs with the new key"),
            Self::Disabled => f.write_str("the old key is disabled"),
            Self::EnabledAgain => f.write_str("the old key was enabled again"),
            Self::Finished => f.write_str("the rotation is finished"),
            Self::Superseded => f.write_str("another pair is published, and the rotation is over"),
        }
    }
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "old",
            Self::Orphan => "orphaned",
        })
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsettled { until } => {
                write!(f, "an earlier run may have made a key that IAM shows late, until {until}")
            }
            Self::InFlightJobs(jobs) => {
                write!(f, "jobs that started with the old pair still run: {}", jobs.join(", "))
            }
            Self::Deploys(what) => write!(f, "{}", what.join(", ")),
            Self::Afterlife { until } => {
                write!(f, "another run's job has just ended; this one goes on at {until}")
            }
            Self::Margin { until } => {
                write!(f, "a job that starts before {until} would prove nothing")
            }
            Self::OwnDeploy => {
                f.write_str("the pipeline's own deploy comes next, then its `retire` job proves it")
            }
            Self::OwnSigner { old } => {
                write!(f, "this job can only sign with old key {old}, which a later job disables")
            }
            Self::Overlap { old, until } => write!(f, "old key {old} stays active until {until}"),
            Self::StillUsed { old, last, service, until, late: _ } => write!(
                f,
                "old key {old} was still used at {last} ({service}), so it stays active until \
                 {until}, or longer where it is used again"
            ),
            Self::Grace { old, until } => {
                write!(f, "old key {old} stays disabled until {until}, then it is deleted")
            }
        }
    }
}
