//! The record of this run: how the run claims the rotation, saves its progress and releases the
//! record at the end.

use std::time::Duration;

use jiff::Timestamp;

use super::others::{Life, Who};
use super::{Context, Run};
use crate::access_key::AccessKeyId;
use crate::config::Owner;
use crate::error::Error;
use crate::fence::Fenced;
use crate::gitlab::records::StoredRecord;
use crate::outcome::End;
use crate::plan::{Checkpoint, Made, RecordSeen, Refusal, TargetSeen};
use crate::preflight;
use crate::record::{self, Progress, Record};
use crate::targets::{self, Lists, PairPart};

const WRITING: &str = "writing this run's record";

const CLAIM_TRIES: u32 = 4;
/// How many times a run tries to delete the same record.
const TAKEOVERS: usize = 3;

#[derive(Default)]
pub(super) struct OwnRecord {
    /// The variable of this run's record, and its content; `None` without a claim.
    pub(super) own: Option<StoredRecord>,
    /// The record stays as it is while this may still have its effect.
    pub(super) unclear: Option<Unclear>,
    /// Names of the records that this run took over, one entry for each delete. A record that stays
    /// after `TAKEOVERS` deletes is left to the next run.
    taken_over: Vec<String>,
}

/// What this run has asked for without knowing how it ended.
pub(super) enum Unclear {
    Creation,
    Write { target: usize, part: PairPart, key: AccessKeyId },
}

impl OwnRecord {
    /// A write that the variables show has had its effect.
    pub(super) fn settle(&mut self, targets: &[TargetSeen]) {
        let is_done = match &self.unclear {
            None | Some(Unclear::Creation) => false,
            Some(Unclear::Write { target, part, key }) => match part {
                PairPart::Id => targets[*target].id.key() == Some(key),
                PairPart::Secret => targets[*target].secret.is_of(key),
            },
        };
        if is_done {
            self.unclear = None;
        }
    }

    /// The listed records of other runs that this run may take over.
    pub(super) fn others(&self, listed: Vec<StoredRecord>) -> Vec<StoredRecord> {
        listed.into_iter().filter(|stored| self.is_another(stored)).collect()
    }

    fn is_another(&self, other: &StoredRecord) -> bool {
        let is_own = self.own.as_ref().is_some_and(|own| own.name == other.name);
        let taken = self.taken_over.iter().filter(|taken| **taken == other.name).count();
        !is_own && taken < TAKEOVERS
    }

    /// Our own record must be there; a list that was cut by another's delete is read once more.
    ///
    /// # Errors
    /// `ClaimLost` where it is gone: another run has taken over.
    pub(super) async fn confirm(
        &self,
        context: &Context<'_>,
        listed: &[StoredRecord],
    ) -> Result<(), Error> {
        let Some(own) = &self.own else { return Ok(()) };
        if listed.iter().any(|other| other.name == own.name) {
            return Ok(());
        }
        let again = targets::list(context.gitlab, context.home()).await?;
        if again.iter().any(|variable| variable.key == own.name) {
            return Ok(());
        }
        context.gitlab.fence.record_is_gone();
        Err(Error::ClaimLost(Fenced::RecordGone))
    }
}

impl Context<'_> {
    pub(super) fn home(&self) -> &Owner {
        &self.config.targets[0].owner
    }
}

impl Run<'_> {
    /// Announces this run, then looks for others. This needs no compare-and-swap, because the later
    /// of two runs always sees the other.
    pub(super) async fn claim(&mut self) -> Result<Made, Error> {
        for tries in 1..=CLAIM_TRIES {
            let name = self.announce().await?;
            let looks = if self.sources.lists.have_pages() { 2 } else { 1 };
            let mut rival = Life::Over;
            for _ in 0..looks {
                rival = rival.max(self.rival().await?);
            }
            let pause = match rival {
                Life::Over => return Ok(Made::Record(name)),
                Life::Ending(until) => {
                    let now = self.context.gitlab.now().unwrap_or(self.seen.now);
                    Duration::try_from(until.duration_since(now)).unwrap_or_default()
                }
                Life::Alive => Duration::from_millis(fastrand::u64(1000..5000)),
            };
            self.withdraw().await?;
            if tries < CLAIM_TRIES {
                self.context.shutdown.sleep(pause).await;
            }
        }
        Err(Error::Refused(Refusal::Busy))
    }

    async fn announce(&mut self) -> Result<String, Error> {
        let gitlab = self.context.gitlab;
        let now = gitlab.now().unwrap_or_else(Timestamp::now);
        let job = gitlab.fence.job();
        let whose = job.map_or_else(|| format!("L{}", now.as_second()), |job| job.job.to_string());
        let name = format!("{}{whose}_{:08x}", record::PREFIX, fastrand::u32(..));
        let ends = Some(gitlab.fence.ends(now));
        // It tells apart users of one name.
        let account = self.context.aws.account().await;
        let user = self.seen.user.clone();
        let bare = Record { user, account, job, at: now, ends, progress: None };
        // Ours from here on: should a later call fail, it is taken away at the end.
        let home = self.context.home().clone();
        let own = |scope: String| StoredRecord {
            name: name.clone(),
            owner: home.clone(),
            scope,
            record: bare.clone(),
        };
        self.record.own = Some(own(record::SCOPE.to_owned()));
        let scope = gitlab.create_record(&home, &name, &bare).await;
        let scope = scope.map_err(|error| Error::gitlab(WRITING, error))?;
        self.record.own = Some(own(scope));
        Ok(name)
    }

    async fn withdraw(&mut self) -> Result<(), Error> {
        if let Some(own) = &self.record.own {
            self.delete_record(own).await?;
        }
        self.record.own = None;
        Ok(())
    }

    /// The liveliest of the other runs, wherever its home is.
    async fn rival(&self) -> Result<Life, Error> {
        let context = &self.context;
        let lists = Lists::read(context.gitlab, context.config).await?;
        let targets = lists.targets(context.config);
        let who = Who { user: &self.seen.user, keys: &self.seen.keys, targets: &targets };
        let others = context.others(self.record.others(lists.records()?), &who).await?;
        Ok(others.iter().map(|other| other.life).max().unwrap_or(Life::Over))
    }

    /// The progress of what is over goes into our record, then the other records go.
    pub(super) async fn take_over(&mut self) -> Result<(), Error> {
        let progress = self.seen.progress().filter(|progress| progress.unfinished()).cloned();
        if progress.is_some() {
            self.write_record(progress, true).await?;
        }
        let over: Vec<String> = self
            .seen
            .records
            .iter()
            .filter(|record| RecordSeen::is_over(record))
            .map(|record| record.name.clone())
            .collect();
        for other in self.sources.records.iter().filter(|other| over.contains(&other.name)) {
            self.delete_record(other).await?;
        }
        self.record.taken_over.extend(over);
        Ok(())
    }

    /// Writes down that the checkpoint is reached.
    pub(super) async fn reach(&mut self, checkpoint: Checkpoint) -> Result<(), Error> {
        if checkpoint == Checkpoint::Begin {
            let context = &self.context;
            preflight::enough_time(context.config, &context.gitlab.fence, self.seen.now)?;
        }
        let progress = Progress::after(&self.seen, checkpoint);
        self.write_record(progress, !checkpoint.ends_the_rotation()).await?;
        // Where it cannot be noted, the run ends with this error.
        if let Checkpoint::AttemptClosed(_) = checkpoint
            && let Some(error) = self.error.take()
        {
            tracing::warn!("{error}; what it has started may still show up");
        }
        if checkpoint.ends_the_rotation() {
            self.record.own = None;
        }
        Ok(())
    }

    /// `held`: the run goes on; else the record is released with it.
    pub(super) async fn write_record(
        &mut self,
        progress: Option<Progress>,
        held: bool,
    ) -> Result<(), Error> {
        let gitlab = self.context.gitlab;
        let Some(own) = &self.record.own else { return Ok(()) };
        let ends = own.record.ends.filter(|_| held);
        let record = Record { progress, ends, ..own.record.clone() };
        let written = gitlab.update_record(&own.owner, &own.name, &own.scope, &record).await;
        written.map_err(|error| Error::gitlab(WRITING, error))?;
        if let Some(own) = &mut self.record.own {
            own.record = record;
        }
        Ok(())
    }

    async fn delete_record(&self, stored: &StoredRecord) -> Result<(), Error> {
        let StoredRecord { owner, name, scope, .. } = stored;
        let deleted = self.context.gitlab.delete_record(owner, name, scope).await;
        deleted.map_err(|error| Error::gitlab("deleting a record", error))
    }

    /// An end in order takes `ends` out of the record, and a record without progress away.
    pub(super) async fn release(&mut self, end: &End) {
        let Some(own) = &self.record.own else { return };
        let is_lost = matches!(end, End::Error(Error::ClaimLost(why)) if why.is_final());
        if is_lost || self.record.unclear.is_some() {
            return;
        }
        let released = match own.record.progress.clone() {
            Some(progress) => self.write_record(Some(progress), false).await,
            None => self.withdraw().await,
        };
        if released.is_err() {
            tracing::warn!(
                "this run's record could not be released; it counts until GitLab says that the job \
                 has ended"
            );
        }
    }
}
