//! Other runs: whose their records are, and whether they may still be alive.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use jiff::{SignedDuration, Timestamp};

use super::Context;
use crate::access_key::{AccessKeyId, Key};
use crate::error::Error;
use crate::gitlab::records::StoredRecord;
use crate::plan::{RecordSeen, TargetSeen};
use crate::record::{Kinship, Place, Record, Whose};

/// How long a record still counts as alive after its job, or its `ends`, is over.
const AFTERLIFE: SignedDuration = SignedDuration::from_mins(2);

/// Another run for this user's key.
pub(super) struct Other {
    pub(super) stored: StoredRecord,
    pub(super) life: Life,
    /// What its record tells is about this user's key.
    ours: bool,
}

/// Whether a record's run may still act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Life {
    Over,
    /// GitLab says that its job has ended; what the run has sent may still arrive until then.
    Ending(Timestamp),
    Alive,
}

/// Who this run is.
pub(super) struct Who<'a> {
    pub(super) user: &'a str,
    pub(super) keys: &'a [Key],
    pub(super) targets: &'a [TargetSeen],
}

impl Context<'_> {
    /// Of these records those that concern this run: all that tell of this user's key, and the
    /// living ones of whoever may be the same user.
    pub(super) async fn others(
        &self,
        listed: Vec<StoredRecord>,
        who: &Who<'_>,
    ) -> Result<Vec<Other>, Error> {
        let keys = who.keys.iter().map(|key| key.id.clone()).collect();
        let named = who.named_keys();
        let places: Vec<Place> = who.targets.iter().map(|target| target.place.clone()).collect();
        let known = self.aws.known_account();
        let (user, account) = (who.user, known.as_deref());
        let mut whose = Whose { user, account, keys: &keys, named: &named, places: &places };
        // It costs a call, and a record of a run that has ended in order disturbs nobody.
        let matters = |stored: &StoredRecord| {
            !stored.record.released() && stored.record.is_told_by_account(&whose)
        };
        let asked = if listed.iter().any(matters) { self.aws.account().await } else { None };
        whose.account = whose.account.or(asked.as_deref());
        let kin = listed.into_iter().filter_map(|stored| match stored.record.kinship(&whose) {
            Kinship::Ours => Some((stored, true)),
            Kinship::Namesake if !stored.record.released() => Some((stored, false)),
            Kinship::Namesake | Kinship::Foreign => None,
        });
        let others = kin.map(async |(stored, ours)| {
            let life = self.life(&stored.record).await?;
            Ok::<_, Error>(Other { stored, life, ours })
        });
        let others = try_join_all(others).await?;
        Ok(others.into_iter().filter(|other| other.ours || other.life != Life::Over).collect())
    }

    /// A record's run is alive while GitLab says that its job has not ended, and shortly after;
    /// where GitLab does not say, until its `ends`.
    async fn life(&self, record: &Record) -> Result<Life, Error> {
        let Some(ends) = record.ends else { return Ok(Life::Over) };
        let promised = |now: Timestamp| {
            if now.duration_since(ends) < AFTERLIFE { Life::Alive } else { Life::Over }
        };
        let Some(job) = record.job else {
            return Ok(self.gitlab.now().map_or(Life::Alive, promised));
        };
        let state = self.gitlab.job_state(job).await.map_err(|error| {
            Error::gitlab(format!("asking whether job {job} still runs"), error)
        })?;
        let Some(now) = self.gitlab.now() else { return Ok(Life::Alive) };
        Ok(match state {
            Some(state) if !state.status.has_ended() => Life::Alive,
            Some(state) => {
                let until = state.finished_at.unwrap_or(now) + AFTERLIFE;
                if now < until { Life::Ending(until) } else { Life::Over }
            }
            None => promised(now),
        })
    }
}

impl Who<'_> {
    fn named_keys(&self) -> BTreeSet<AccessKeyId> {
        let targets = self.targets.iter();
        let named =
            targets.flat_map(|target| target.id.key().into_iter().chain(target.secret.tag()));
        named.cloned().collect()
    }
}

impl Other {
    pub(super) fn seen(&self) -> RecordSeen {
        let record = &self.stored.record;
        RecordSeen {
            name: self.stored.name.clone(),
            at: record.at,
            released: record.released(),
            alive: self.life != Life::Over,
            until: match self.life {
                Life::Ending(until) => Some(until),
                Life::Over | Life::Alive => None,
            },
            progress: record.progress.clone().filter(|_| self.ours),
        }
    }
}
