//! What the plan says to a person: each step in a few words, and which keys work now.

use std::fmt;

use super::{
    Checkpoint, Done, IdSeen, KeyRole, NewKeyState, Observed, Query, SecretOwner, SecretSeen, Step,
    TargetSeen, Waiting, new_key_state,
};
use crate::access_key::AccessKeyId;

impl Observed {
    /// Which keys work now and whether production is affected, in a sentence for whoever is woken
    /// by it.
    pub fn state(&self) -> String {
        let name = |id: &AccessKeyId| match self.key(id) {
            Some(key) if key.active => format!("key {id} (active)"),
            Some(_) => format!("key {id} (disabled)"),
            None => format!("key {id} (gone)"),
        };
        let works = |id: &AccessKeyId| self.key(id).is_some_and(|key| key.active);
        let Some(progress) = self.progress().filter(|progress| progress.unfinished()) else {
            return self.state_at_rest();
        };
        let made = new_key_state(progress, self);
        let new_key_state = made.key().cloned();
        let olds = self
            .keys
            .iter()
            .filter(|key| progress.previous.iter().flatten().any(|id| *id == key.id))
            .map(|key| name(&key.id));
        let olds = olds.collect::<Vec<_>>().join(", ");
        let olds = if olds.is_empty() { olds } else { format!("old {olds}, ") };
        let new_key_text = match (&new_key_state, &made) {
            (Some(id), _) => format!("new {}", name(id)),
            (None, NewKeyState::Several(_)) => "which key is the new one is not known".to_owned(),
            (None, _) => "no new key was made".to_owned(),
        };
        let torn: Vec<&str> = self
            .targets
            .iter()
            .filter(|target| {
                new_key_state.as_ref().is_some_and(|new_key_state| {
                    target.secret.is_of(new_key_state) && !target.is_on(new_key_state)
                })
            })
            .map(|target| target.name.as_str())
            .collect();
        if !torn.is_empty() {
            return format!(
                "{} HOLDS HALF OF THE NEW PAIR: jobs that start now fail until the next run; \
                 {olds}{new_key_text}",
                torn.join(", ")
            );
        }
        let dead = self.targets.iter().filter_map(|target| target.id.key()).find(|id| !works(id));
        let ours = |id: &AccessKeyId| {
            new_key_state.as_ref() == Some(id)
                || progress.previous.iter().flatten().any(|previous| previous == id)
        };
        match dead {
            Some(other) if self.key(other).is_none() && !ours(other) => {
                format!(
                    "the variables name key {other}, which this user does not have: unless it is \
                     another user's, PRODUCTION IS AFFECTED; {olds}{new_key_text}"
                )
            }
            Some(dead) => format!(
                "the variables name {}, WHICH DOES NOT WORK: production is affected; \
                 {olds}{new_key_text}",
                name(dead)
            ),
            None if self.targets.iter().all(|target| target.id.key().is_none()) => {
                format!("no variable names a key of this user; {new_key_text}")
            }
            None => format!(
                "the variables name a key that works; {olds}{new_key_text}; production is not \
                 affected"
            ),
        }
    }

    /// The same where no rotation is under way.
    fn state_at_rest(&self) -> String {
        let named = self.targets.iter().find_map(|target| target.id.key());
        if let Some(broken) = self.targets.iter().find(|target| target.is_broken()) {
            return format!(
                "{} HOLDS NO PAIR THAT WORKS: jobs that start now and use it fail",
                broken.name
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
            Some((id, Some(_))) => format!(
                "the variables name key {id} (disabled), WHICH DOES NOT \
                 WORK: production is affected"
            ),
            Some((id, None)) => {
                format!(
                    "the variables name key {id}, which this user does not have: unless it is \
                     another user's, PRODUCTION IS AFFECTED"
                )
            }
        }
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
            Self::Ask(Query::WhoseSecrets) => {
                f.write_str("ask STS which key each secret belongs to")
            }
            Self::Ask(Query::LastUse(key)) => write!(f, "ask IAM when key {key} was last used"),
            Self::Ask(Query::Preflight) => f.write_str("check everything that a rotation needs"),
            Self::Ask(Query::InFlightJobs) => {
                f.write_str("look for jobs that still run with the old pair")
            }
            Self::Ask(Query::Deploys) => f.write_str("look at the deploys"),
            Self::Claim => f.write_str("claim the rotation"),
            Self::TakeOver => f.write_str("take over the record of an earlier run"),
            Self::Record(checkpoint) => f.write_str(match checkpoint {
                Checkpoint::Begin => "record that a rotation begins",
                Checkpoint::Nothing => "record that nothing came of the rotation",
                Checkpoint::Published => "record that the new key is published",
                Checkpoint::Drained => "record that no in-flight job runs any more",
                Checkpoint::Proven => "record that the deploy runs with the new key",
                Checkpoint::Disabled => "record that the old key is disabled",
                Checkpoint::Finished => "record that the rotation is finished",
            }),
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
            Self::Disable(key, KeyRole::Old) => write!(f, "disable old key {key}"),
            Self::Disable(key, KeyRole::Orphan) => write!(f, "disable orphaned key {key}"),
            Self::Delete(key, KeyRole::Old) => write!(f, "delete old key {key}"),
            Self::Delete(key, KeyRole::Orphan) => write!(f, "delete orphaned key {key}"),
            Self::Done(Done::NotDue { key, .. }) => write!(f, "nothing: key {key} is not due"),
            Self::Done(
                Done::Tried
                | Done::InOwnDeploy
                | Done::NothingToRetire { .. }
                | Done::AlreadySetUp { .. }
                | Done::Checked { .. },
            ) => f.write_str("nothing"),
            Self::Refuse(_) => f.write_str("refuse"),
        }
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
            Self::OwnDeploy => {
                f.write_str("the pipeline's own deploy comes next, then its `retire` job proves it")
            }
            Self::Overlap { old, until } => write!(f, "old key {old} stays active until {until}"),
            Self::StillUsed { old, last, service } => {
                write!(f, "old key {old} was still used at {last} ({service})")
            }
            Self::Grace { old, until } => {
                write!(f, "old key {old} stays disabled until {until}, then it is deleted")
            }
        }
    }
}
