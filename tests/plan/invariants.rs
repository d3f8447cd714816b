//! The invariants that every step keeps, whatever is seen: one check each, written from the design
//! and sharing no code with the plan. The enumeration and the model use them.

use credential_rotator::access_key::{AccessKeyId, Key, Use};
use credential_rotator::config::Action;
use credential_rotator::plan::{
    Attempt, Checkpoint, Claim, DeploySeen, Done, FailureKind, Freshness, IdSeen, KeyRole,
    Observed, Policy, Query, RecordSeen, Refusal, SecretOwner, SecretSeen, Step, TargetSeen,
    Waiting,
};
use credential_rotator::record::Progress;
use jiff::SignedDuration;

use crate::kit::{FOREIGN, NEW, OLD, id};

/// What is wrong with this step, if anything.
pub(crate) fn check(seen: &Observed, policy: &Policy, step: &Step) -> Result<(), &'static str> {
    let progress = progress_seen(seen).filter(|progress| progress.finished.is_none());
    let planned = Planned { seen, policy, step, progress };
    INVARIANTS.iter().try_for_each(|invariant| invariant(&planned))
}

type Judgement = Result<(), &'static str>;

const INVARIANTS: &[fn(&Planned) -> Judgement] = &[
    check_and_own_deploy_change_nothing,
    a_look_is_whole,
    effects_need_the_claim,
    effects_rest_on_fresh_observations,
    a_stopped_run_only_puts_in_order,
    questions_are_asked_once,
    a_rotation_begins_with_cause,
    a_rotation_is_forgotten_with_cause,
    a_key_is_made_once_and_recorded_before,
    a_key_is_verified_before_it_is_written,
    a_pair_is_written_secret_first,
    a_publication_is_whole,
    a_deploy_starts_and_counts_after_the_publication,
    an_old_key_goes_after_the_deploy,
    an_orphan_goes_only_when_it_is_ours,
    a_record_tells_of_the_old_key,
    a_proof_is_taken_out_with_cause,
    a_rotation_is_superseded_with_cause,
    refusals_are_confirmed,
    errors_are_told,
    an_end_is_an_end,
];

/// A step, and what it was planned from.
struct Planned<'a> {
    seen: &'a Observed,
    policy: &'a Policy,
    step: &'a Step,
    /// Of the unfinished rotation.
    progress: Option<&'a Progress>,
}

fn ensure(holds: bool, wrong: &'static str) -> Judgement {
    if holds { Ok(()) } else { Err(wrong) }
}

impl Planned<'_> {
    fn only_looks(&self) -> bool {
        self.policy.dry_run || self.policy.action == Action::Check
    }

    fn changes_something(&self) -> bool {
        match self.step {
            Step::Claim
            | Step::TakeOver
            | Step::Record(_)
            | Step::Create
            | Step::Verify(_)
            | Step::WriteSecret { .. }
            | Step::WriteId { .. }
            | Step::StartDeploy(_)
            | Step::Disable(..)
            | Step::Delete(..) => true,
            Step::Ask(_)
            | Step::Wait(_)
            | Step::Observe(_)
            | Step::Confirm(_)
            | Step::Abandon(_)
            | Step::Retry
            | Step::Done(_)
            | Step::Refuse(_)
            | Step::Stop => false,
        }
    }

    fn key(&self, id: &AccessKeyId) -> Option<&Key> {
        self.seen.keys.iter().find(|key| key.id == *id)
    }

    fn is_active(&self, id: &AccessKeyId) -> bool {
        self.key(id).is_some_and(|key| key.active)
    }

    fn all_on(&self, id: &AccessKeyId) -> bool {
        self.seen.targets.iter().all(|target| names(target, id) && holds(target, id))
    }

    fn is_unnamed(&self, id: &AccessKeyId) -> bool {
        let named = |target: &TargetSeen| names(target, id) || may_hold(target, id);
        !self.seen.targets.iter().any(named) && !self.seen.other_references.contains_key(id)
    }

    fn deploy(&self, place: usize) -> Option<&DeploySeen> {
        self.seen.deploys.as_ref().and_then(|deploys| deploys.get(place))
    }

    fn published(&self) -> Option<&AccessKeyId> {
        self.progress.and_then(|progress| progress.published.as_ref()).map(|it| &it.key)
    }

    fn is_not_in_place(&self) -> bool {
        self.progress.is_some_and(|progress| progress.not_in_place.is_some())
    }

    /// The record tells of targets, and not that the pair was published to this one.
    fn is_added(&self, target: &TargetSeen) -> bool {
        self.progress.is_some_and(|progress| {
            let published = progress.targets.iter().filter(|known| known.published);
            !progress.targets.is_empty()
                && !published.into_iter().any(|it| it.place == target.place)
        })
    }

    fn is_intact(&self) -> bool {
        self.published().is_some_and(|key| self.is_active(key) && self.all_on(key))
    }

    fn was_given_an_old_pair(&self) -> bool {
        let published = self.progress.and_then(|progress| progress.published.as_ref());
        published.zip(self.seen.run.given.as_ref()).is_some_and(|(published, given)| {
            given.since > published.at
                && given.key != published.key
                && self.is_previous(Some(&given.key))
        })
    }

    fn is_previous(&self, id: Option<&AccessKeyId>) -> bool {
        let is_it = |previous: &Option<AccessKeyId>| previous.as_ref() == id;
        self.progress.is_some_and(|progress| progress.previous.iter().any(is_it))
    }

    fn was_known_before(&self, id: &AccessKeyId) -> bool {
        self.progress.is_some_and(|progress| progress.from.contains(id))
    }

    /// Made when this rotation may have made it.
    fn is_born(&self, key: &Key) -> bool {
        self.progress.is_some_and(|progress| {
            let age = key.created.as_second() - progress.creating.as_second();
            (0..=120).contains(&age) && !progress.from.contains(&key.id)
        })
    }

    fn is_new_key(&self, id: &AccessKeyId) -> bool {
        self.seen.run.new_key.as_ref().is_some_and(|new_key| new_key.key == *id)
    }

    /// The job was given this key, and does not know the new one's secret.
    fn is_only_signer(&self, id: &AccessKeyId) -> bool {
        let knows = |new: &AccessKeyId| self.is_new_key(new) || self.shows_secret_of(new);
        self.seen.run.given.as_ref().is_some_and(|given| given.key == *id)
            && !self.published().is_some_and(knows)
    }

    fn is_abandoned(&self, id: &AccessKeyId) -> bool {
        self.is_new_key(id) && self.seen.run.new_key.as_ref().is_some_and(|key| key.abandoned)
    }

    fn shows_secret_of(&self, id: &AccessKeyId) -> bool {
        self.seen.targets.iter().any(|target| {
            matches!(&target.secret, SecretSeen::Readable { owner: SecretOwner::Key(owner), .. }
                if owner == id)
        })
    }

    /// A tag names a key that was not there before and is gone: it, not the one by its date, was
    /// the new key.
    fn a_tag_explains_the_new_key(&self) -> bool {
        [OLD, NEW, FOREIGN].into_iter().map(id).any(|id| {
            tag_of(self.seen, &id)
                && self.key(&id).is_none()
                && self.progress.is_some_and(|progress| !progress.from.contains(&id))
        })
    }

    /// A target has the secret of a key that was not there before, beside another id.
    fn has_torn_target(&self) -> bool {
        let seen = self.seen;
        let new = |key: &&Key| !self.was_known_before(&key.id);
        seen.keys.iter().filter(new).any(|key| {
            seen.targets.iter().any(|target| holds(target, &key.id) && !names(target, &key.id))
        })
    }

    fn is_blank(&self) -> bool {
        let blank = |target: &TargetSeen| {
            target.id == IdSeen::Absent && target.secret == SecretSeen::Absent
        };
        self.seen.targets.iter().all(blank)
    }

    fn is_due(&self, key: &Key) -> bool {
        !key.active
            || key.created + self.policy.rotate_after <= self.seen.now
            || self.policy.forced.is_some_and(|since| key.created < since)
    }
}

fn check_and_own_deploy_change_nothing(planned: &Planned) -> Judgement {
    let waits = matches!(planned.step, Step::Wait(_) | Step::Retry);
    ensure(
        !planned.only_looks() || !planned.changes_something() && !waits,
        "`check` or a dry run does something",
    )?;
    ensure(
        !planned.seen.in_own_deploy || !planned.changes_something(),
        "a job of the own deploy does something",
    )
}

/// Due or not: what would end badly is found in time.
fn a_look_is_whole(planned: &Planned) -> Judgement {
    let preflight = &planned.seen.preflight;
    if !planned.only_looks() {
        return Ok(());
    }
    match planned.step {
        Step::Done(Done::InOwnDeploy) => Ok(()),
        Step::Done(_) => ensure(
            preflight.as_ref().is_some_and(Vec::is_empty),
            "`check` or a dry run ends well although something stands in the way",
        ),
        Step::Refuse(_) => ensure(preflight.is_some(), "`check` or a dry run has looked at half"),
        _ => Ok(()),
    }
}

fn effects_need_the_claim(planned: &Planned) -> Judgement {
    let seen = planned.seen;
    let is_alive = |other: &RecordSeen| other.alive && !other.released;
    let is_over = |other: &RecordSeen| other.released || !other.alive;
    match planned.step {
        Step::Claim => {
            ensure(seen.claim.is_none(), "a second claim")?;
            ensure(!seen.records.iter().any(is_alive), "a claim while another run is at work")
        }
        Step::TakeOver => {
            ensure(seen.claim.is_some(), "an effect without a claim")?;
            ensure(seen.records.iter().any(is_over), "nothing to take over")
        }
        _ if planned.changes_something() => {
            ensure(seen.claim.is_some(), "an effect without a claim")?;
            ensure(
                !seen.records.iter().any(is_over),
                "an effect before what is over was taken over",
            )
        }
        _ => Ok(()),
    }
}

fn effects_rest_on_fresh_observations(planned: &Planned) -> Judgement {
    let freshness = planned.seen.run.freshness;
    let only_waits_on = matches!(planned.step, Step::Record(Checkpoint::Drained));
    let takes_a_key = matches!(planned.step, Step::Disable(id, _) | Step::Delete(id, _) if !planned.is_abandoned(id));
    let is_first_write =
        matches!(planned.step, Step::WriteSecret { .. }) && !planned.seen.run.secret_sent;
    ensure(
        !is_first_write
            || matches!(freshness, Freshness::Fresh | Freshness::Searched)
            || planned.policy.dry_run,
        "the first write of a pair without reading the variables right before",
    )?;
    ensure(
        !takes_a_key || freshness == Freshness::Searched,
        "a key is touched without looking for it everywhere right before",
    )?;
    match freshness {
        Freshness::Fresh | Freshness::Searched | Freshness::Applied => Ok(()),
        Freshness::AfterWait => ensure(
            !planned.changes_something() || only_waits_on,
            "an effect after a long wait without a new observation",
        ),
        Freshness::VariablesOutdated | Freshness::Outdated => {
            let first = matches!(
                planned.step,
                Step::Observe(_) | Step::Abandon(_) | Step::Retry | Step::Stop
            );
            // A dry run supposes that all goes well.
            ensure(first || planned.policy.dry_run, "goes on with what is out of date")
        }
    }
}

fn a_stopped_run_only_puts_in_order(planned: &Planned) -> Judgement {
    let run = &planned.seen.run;
    if !run.stop_requested || planned.policy.action == Action::Check {
        return Ok(());
    }
    ensure(!matches!(planned.step, Step::Done(_) | Step::Refuse(_)), "a signal is forgotten")?;
    let allowed = match planned.step {
        Step::Delete(key, KeyRole::Orphan) => planned.is_abandoned(key),
        Step::WriteId { .. } => true,
        Step::WriteSecret { .. } => run.secret_sent,
        Step::Record(Checkpoint::Nothing) => run.attempt != Attempt::No,
        Step::Record(Checkpoint::AttemptWithdrawn(_)) => run.asking.is_some(),
        Step::Record(Checkpoint::AttemptClosed(_)) => is_failed_deploy(planned),
        // Whatever an abandoned key still needs.
        _ if run.new_key.as_ref().is_some_and(|key| key.abandoned) => true,
        _ => !planned.changes_something(),
    };
    ensure(allowed, "goes on although it was told to stop")
}

fn questions_are_asked_once(planned: &Planned) -> Judgement {
    let seen = planned.seen;
    let Step::Ask(query) = planned.step else { return Ok(()) };
    let has_published = planned.published().is_some();
    match query {
        Query::WhoseSecrets => {
            let unasked = |target: &TargetSeen| {
                matches!(target.secret, SecretSeen::Readable { owner: SecretOwner::NotAsked, .. })
            };
            ensure(seen.targets.iter().any(unasked), "asked whose secrets again")
        }
        Query::LastUse(id) => ensure(
            planned.key(id).is_some_and(|key| key.used.is_none()),
            "asked for the last use again",
        ),
        Query::Preflight => ensure(seen.preflight.is_none(), "asked the preflight again"),
        Query::InFlightJobs => {
            ensure(seen.in_flight_jobs.is_none() && has_published, "asked for older jobs again")
        }
        Query::Deploys => {
            ensure(seen.deploys.is_none() && has_published, "asked for deploys again")
        }
    }
}

fn a_rotation_begins_with_cause(planned: &Planned) -> Judgement {
    let Step::Record(Checkpoint::Begin) = planned.step else { return Ok(()) };
    let (seen, policy) = (planned.seen, planned.policy);
    ensure(seen.keys.len() < 2, "a rotation without a slot")?;
    ensure(seen.preflight.as_ref().is_some_and(Vec::is_empty), "a rotation without a preflight")?;
    ensure(!seen.run.stop_requested, "a rotation although it was told to stop")?;
    // What was recorded may be recorded again, of a newer list.
    let again = seen.run.attempt == Attempt::Recorded && seen.run.new_key.is_none();
    ensure(seen.run.attempt == Attempt::No || again, "a second rotation in one run")?;
    if again {
        return ensure(
            planned.progress.is_some_and(|progress| progress.creating != seen.listed),
            "recorded again for nothing",
        );
    }
    let forced = policy.forced.is_some();
    ensure(planned.progress.is_none() || forced, "begun anew without force")?;
    let may_begin = matches!(policy.action, Action::Rotate | Action::Setup);
    ensure(may_begin, "`retire` begins a rotation")?;
    let blank = planned.is_blank();
    ensure(blank || policy.action == Action::Rotate, "`setup` although there are variables")?;
    ensure(
        !blank || policy.action == Action::Setup || planned.progress.is_some(),
        "a first key without `setup`",
    )?;
    let is_named = |key: &&Key| seen.targets.iter().any(|target| names(target, &key.id));
    let named: Vec<&Key> = seen.keys.iter().filter(is_named).collect();
    let is_due = named.is_empty() || named.iter().any(|key| planned.is_due(key));
    ensure(planned.progress.is_some() || forced || is_due, "not due")
}

fn a_rotation_is_forgotten_with_cause(planned: &Planned) -> Judgement {
    let Step::Record(Checkpoint::Nothing) = planned.step else { return Ok(()) };
    let seen = planned.seen;
    let is_unpublished = planned.progress.is_some() && planned.published().is_none();
    ensure(is_unpublished, "a published rotation is forgotten")?;
    // Nothing that may be the new key is left behind, unless a person has used force on it. A run
    // that has sent nothing yet has made nothing.
    let new_key_is_gone =
        seen.run.new_key.as_ref().is_some_and(|new_key| planned.key(&new_key.key).is_none());
    ensure(
        !seen.keys.iter().any(|key| planned.is_born(key))
            || seen.run.attempt == Attempt::Recorded
            || new_key_is_gone
            || planned.a_tag_explains_the_new_key(),
        "an orphan is forgotten",
    )
}

fn a_key_is_made_once_and_recorded_before(planned: &Planned) -> Judgement {
    let Step::Create = planned.step else { return Ok(()) };
    let (seen, run) = (planned.seen, &planned.seen.run);
    ensure(
        run.attempt == Attempt::Recorded
            && planned.progress.is_some()
            && planned.published().is_none(),
        "created before it was recorded",
    )?;
    ensure(
        run.new_key.is_none()
            && seen.keys.len() < 2
            && !seen.keys.iter().any(|key| planned.is_born(key)),
        "a second new key",
    )?;
    ensure(
        planned.progress.is_some_and(|progress| progress.creating == seen.listed)
            && run.list_age.as_secs() <= 45,
        "created long after the list that was recorded",
    )
}

fn a_key_is_verified_before_it_is_written(planned: &Planned) -> Judgement {
    let new_key = planned.seen.run.new_key.as_ref();
    match planned.step {
        Step::Verify(id) => ensure(
            new_key.is_some_and(|new_key| new_key.key == *id && !new_key.verified),
            "verified what this process has not made",
        ),
        Step::WriteSecret { key, .. } => ensure(
            new_key.is_some_and(|it| it.key == *key && it.verified && !it.abandoned)
                || planned.shows_secret_of(key),
            "a secret that is neither verified nor accepted by STS",
        ),
        _ => Ok(()),
    }
}

fn a_pair_is_written_secret_first(planned: &Planned) -> Judgement {
    let (Step::WriteSecret { target: index, key } | Step::WriteId { target: index, key }) =
        planned.step
    else {
        return Ok(());
    };
    let target = &planned.seen.targets[*index];
    ensure(planned.is_active(key) && !planned.was_known_before(key), "not the new key's")?;
    let is_added = planned.is_added(target) && planned.is_not_in_place();
    ensure(
        planned.published().is_none() || planned.published() == Some(key) && is_added,
        "a target that was published is written again",
    )?;
    let is_ours = names(target, key) || planned.is_previous(id_of(target));
    ensure(is_ours, "a person's variable is overwritten")?;
    if matches!(planned.step, Step::WriteId { .. }) {
        ensure(holds(target, key), "an id without its secret")?;
        return ensure(!names(target, key), "written twice");
    }
    ensure(!holds(target, key), "written twice")?;
    let is_behind = |target: &TargetSeen| !(names(target, key) && holds(target, key));
    let is_readable = |target: &TargetSeen| !matches!(target.secret, SecretSeen::Hidden { .. });
    let mut targets = planned.seen.targets.iter();
    ensure(
        is_readable(target) || !targets.any(|target| is_readable(target) && is_behind(target)),
        "a hidden target before a readable one",
    )
}

fn a_publication_is_whole(planned: &Planned) -> Judgement {
    let Step::Record(Checkpoint::Published) = planned.step else { return Ok(()) };
    let IdSeen::Key(key) = &planned.seen.targets[0].id else { return Err("nothing is published") };
    ensure(
        planned.all_on(key)
            && planned.is_active(key)
            && !planned.was_known_before(key)
            && (planned.published().is_none() || planned.is_not_in_place()),
        "not published",
    )
}

fn a_deploy_starts_and_counts_after_the_publication(planned: &Planned) -> Judgement {
    let seen = planned.seen;
    let drained = planned.progress.and_then(|progress| progress.drained);
    let deployed = planned.progress.and_then(|progress| progress.deployed);
    match planned.step {
        _ if planned.was_given_an_old_pair() => ensure(
            !matches!(
                planned.step,
                Step::Record(Checkpoint::Drained | Checkpoint::Proven) | Step::StartDeploy(_)
            ),
            "goes on with an old pair that is no target's",
        ),
        Step::Record(Checkpoint::Drained) => ensure(
            planned.is_intact()
                && !planned.is_not_in_place()
                && seen.in_flight_jobs.as_ref().is_some_and(Vec::is_empty),
            "not drained",
        ),
        Step::StartDeploy(place) => {
            ensure(
                planned.is_intact() && drained.is_some() && deployed.is_none(),
                "a deploy too early",
            )?;
            ensure(seen.run.asking == Some(*place), "a deploy that is not noted first")?;
            ensure(
                !planned.policy.own_deploy || planned.policy.action == Action::Retire,
                "a deploy that is not ours to start",
            )
        }
        Step::Record(Checkpoint::Attempt(place)) => ensure(
            planned.is_intact()
                && drained.is_some()
                && seen.run.asking.is_none()
                && matches!(planned.deploy(*place), Some(DeploySeen::Startable { .. })),
            "a deploy is noted without cause",
        ),
        Step::Record(Checkpoint::Adopted(place)) => ensure(
            matches!(planned.deploy(*place), Some(DeploySeen::Adoptable(_))),
            "a deploy is adopted without cause",
        ),
        Step::Record(Checkpoint::AttemptWithdrawn(place)) => ensure(
            seen.run.asking == Some(*place)
                && (seen.run.stop_requested || is_failed_deploy(planned)),
            "an attempt is taken out that may be answered",
        ),
        Step::Record(Checkpoint::Proven) => {
            ensure(planned.is_intact() && drained.is_some(), "proven too early")?;
            let is_proven = |deploy: &DeploySeen| matches!(deploy, DeploySeen::Proven(_));
            ensure(
                seen.deploys
                    .as_ref()
                    .is_some_and(|deploys| deploys.is_empty() || deploys.iter().any(is_proven)),
                "not proven",
            )
        }
        _ => Ok(()),
    }
}

fn an_old_key_goes_after_the_deploy(planned: &Planned) -> Judgement {
    let (Step::Disable(id, KeyRole::Old) | Step::Delete(id, KeyRole::Old)) = planned.step else {
        return Ok(());
    };
    let (seen, policy) = (planned.seen, planned.policy);
    ensure(planned.is_unnamed(id), "a variable names it")?;
    ensure(!planned.was_given_an_old_pair(), "an old pair that is no target's is forgotten")?;
    ensure(
        planned.is_intact() && planned.is_previous(Some(id)) && planned.published() != Some(id),
        "not an old key of this rotation",
    )?;
    let progress = planned.progress.ok_or("no rotation")?;
    let deployed = progress.deployed.ok_or("before the deploy is proven")?;
    let key = planned.key(id).ok_or("no such key")?;
    if matches!(planned.step, Step::Delete(..)) {
        let disabled = progress.disabled.ok_or("deleted before it was disabled")?;
        ensure(!key.active, "an active key is deleted")?;
        ensure(progress.enabled_again.is_none(), "the grace period did not begin anew")?;
        return ensure(
            policy.grace_period.is_zero() || disabled + policy.grace_period <= seen.now,
            "within the grace period",
        );
    }
    ensure(key.active && progress.disabled.is_none(), "disabled twice")?;
    ensure(!planned.is_only_signer(id), "a run takes away the key that it signs with")?;
    let quiet = policy.overlap.max(SignedDuration::from_hours(49));
    let is_unused = match &key.used {
        Some(Use::At { when, .. }) => *when <= deployed || *when + quiet <= seen.now,
        Some(Use::Never) => true,
        None => false,
    };
    ensure(
        policy.overlap.is_zero() || deployed + policy.overlap <= seen.now && is_unused,
        "within the overlap, or still used",
    )
}

fn an_orphan_goes_only_when_it_is_ours(planned: &Planned) -> Judgement {
    let (Step::Disable(id, KeyRole::Orphan) | Step::Delete(id, KeyRole::Orphan)) = planned.step
    else {
        return Ok(());
    };
    ensure(planned.is_unnamed(id), "a variable names it")?;
    ensure(
        planned.progress.is_some()
            && planned.published().is_none()
            && !planned.was_known_before(id),
        "not an orphan of this rotation",
    )?;
    let key = planned.key(id).ok_or("no such key")?;
    let deletes = matches!(planned.step, Step::Delete(..));
    if planned.is_abandoned(id) {
        return ensure(deletes, "an abandoned key is only disabled");
    }
    ensure(
        planned.is_born(key) || planned.is_new_key(id) || tag_of(planned.seen, id),
        "not proven to be ours",
    )?;
    let only_sts = match &key.used {
        Some(Use::Never) => true,
        Some(Use::At { service, .. }) => service == "sts",
        None => false,
    };
    ensure(only_sts, "somebody uses it")?;
    ensure(key.active != deletes, "disabled first, then deleted")
}

fn a_proof_is_taken_out_with_cause(planned: &Planned) -> Judgement {
    let Step::Record(Checkpoint::NotInPlace) = planned.step else { return Ok(()) };
    let published = planned.published().ok_or("taken out before the publication")?;
    ensure(planned.is_active(published), "taken out although the key is lost")?;
    ensure(!planned.is_not_in_place(), "taken out twice")?;
    ensure(planned.policy.action != Action::Check, "`check` takes a proof out")?;
    if planned.seen.targets.iter().any(|target| planned.is_added(target)) {
        return Ok(());
    }
    ensure(!planned.all_on(published), "taken out although the pair is in place")?;
    let suspected = planned.seen.run.suspected.as_ref();
    ensure(
        matches!(suspected, Some(Refusal::NotPublishedAnyMore { .. })),
        "taken out after one look",
    )
}

fn a_rotation_is_superseded_with_cause(planned: &Planned) -> Judgement {
    let Step::Record(Checkpoint::Superseded) = planned.step else { return Ok(()) };
    let seen = planned.seen;
    let Some(Refusal::NewKeyLost { key, disabled: false }) = &seen.run.suspected else {
        return Err("a rotation ends after one look");
    };
    ensure(planned.key(key).is_none(), "a rotation ends although its key is there")?;
    ensure(planned.policy.forced.is_none(), "a rotation ends although another is asked for")?;
    let progress = planned.progress.ok_or("no rotation ends")?;
    ensure(
        seen.now.as_second() >= progress.creating.as_second() + 120,
        "a rotation ends although lists may lag",
    )?;
    let pair = id_of(&seen.targets[0]).ok_or("a rotation ends without a pair")?;
    let works = |target: &TargetSeen| {
        let owner = SecretOwner::Key(pair.clone());
        let is_its =
            matches!(&target.secret, SecretSeen::Readable { owner: it, .. } if *it == owner);
        names(target, pair) && is_its
    };
    ensure(
        planned.is_active(pair) && seen.targets.iter().all(works),
        "a rotation ends without a pair that works everywhere",
    )
}

fn a_record_tells_of_the_old_key(planned: &Planned) -> Judgement {
    let is_old =
        |key: &Key| planned.is_previous(Some(&key.id)) && planned.published() != Some(&key.id);
    let is_deployed = planned.progress.is_some_and(|progress| progress.deployed.is_some());
    match planned.step {
        Step::Record(Checkpoint::Disabled) => {
            ensure(planned.is_intact() && is_deployed, "disabled too early")?;
            let is_disabled = |key: &Key| !key.active && planned.is_previous(Some(&key.id));
            ensure(planned.seen.keys.iter().any(is_disabled), "nothing is disabled")?;
            let again = planned.progress.is_some_and(|progress| {
                progress.disabled.is_none() || progress.enabled_again.is_some()
            });
            ensure(again, "the grace period begins anew for nothing")
        }
        Step::Record(Checkpoint::EnabledAgain) => {
            let is_active_again = |key: &Key| key.active && is_old(key);
            ensure(
                planned.is_intact()
                    && planned.progress.is_some_and(|progress| {
                        progress.disabled.is_some() && progress.enabled_again.is_none()
                    })
                    && planned.seen.keys.iter().any(is_active_again),
                "nothing was enabled again",
            )?;
            ensure(planned.seen.run.suspected.is_some(), "noted after one look")
        }
        Step::Record(Checkpoint::Finished) => {
            ensure(planned.is_intact() && is_deployed, "finished too early")?;
            ensure(!planned.seen.keys.iter().any(is_old), "finished with an old key left")
        }
        _ => Ok(()),
    }
}

fn refusals_are_confirmed(planned: &Planned) -> Judgement {
    let run = &planned.seen.run;
    match planned.step {
        Step::Refuse(refusal) => ensure(
            !refusal.needs_confirmation() || run.suspected.as_ref() == Some(refusal),
            "a refusal that was not confirmed",
        ),
        Step::Confirm(refusal) => ensure(
            refusal.needs_confirmation() && run.suspected.as_ref() != Some(refusal),
            "confirmed twice",
        ),
        _ => Ok(()),
    }
}

fn errors_are_told(planned: &Planned) -> Judgement {
    let run = &planned.seen.run;
    let holds_unsent_key =
        !run.secret_sent && run.new_key.as_ref().is_some_and(|new_key| !new_key.abandoned);
    match planned.step {
        Step::Done(_) => ensure(!run.error_deferred, "an error is forgotten"),
        Step::Refuse(_) => {
            ensure(!run.error_deferred, "an error is forgotten")?;
            ensure(!holds_unsent_key, "a key that went nowhere is left behind")
        }
        Step::Stop => ensure(
            run.error_deferred || run.stop_requested || run.failure.is_some(),
            "stops for nothing",
        ),
        Step::Retry => ensure(
            planned.has_torn_target()
                || run.failure.as_ref().is_some_and(|failure| {
                    matches!(*failure.step, Step::WriteSecret { .. })
                        && failure.kind == FailureKind::Unclear
                }),
            "tries again although no pair can be torn",
        ),
        Step::Record(Checkpoint::AttemptClosed(_)) => {
            ensure(is_failed_deploy(planned), "closes an attempt that may be answered")
        }
        Step::Record(Checkpoint::AttemptWithdrawn(_)) => ensure(
            run.failure.is_none() || is_failed_deploy(planned),
            "goes on as if nothing had failed",
        ),
        _ => ensure(
            run.failure.is_none() || matches!(planned.step, Step::Abandon(_) | Step::Observe(_)),
            "goes on as if nothing had failed",
        ),
    }
}

/// The request for a deploy has just failed.
fn is_failed_deploy(planned: &Planned) -> bool {
    let failure = planned.seen.run.failure.as_ref();
    failure.is_some_and(|failure| matches!(*failure.step, Step::StartDeploy(_)))
}

fn an_end_is_an_end(planned: &Planned) -> Judgement {
    let seen = planned.seen;
    match planned.step {
        Step::Wait(Waiting::Margin { until }) => {
            ensure(seen.now < *until, "waits for what is over")
        }
        // Force shortens nothing, and is not forgotten: the key in use is older than it.
        Step::Done(Done::Waiting(
            Waiting::Overlap { .. } | Waiting::StillUsed { .. } | Waiting::Grace { .. },
        )) => {
            let is_made_here = |key: &Key| planned.is_new_key(&key.id);
            let published = planned.published().and_then(|key| planned.key(key));
            ensure(
                published.is_some_and(|key| {
                    is_made_here(key)
                        || planned.policy.forced.is_none_or(|since| key.created >= since)
                }),
                "a forced run ends well with an older key",
            )
        }
        Step::Wait(Waiting::Afterlife { until }) => ensure(
            *until < seen.run.ends
                && seen.claim.is_none()
                && seen.records.iter().all(|other| {
                    other.released || !other.alive || other.until.is_some_and(|end| end <= *until)
                }),
            "waits for a run that lives",
        ),
        Step::Refuse(Refusal::Busy) => ensure(
            seen.records.iter().any(|other| {
                other.alive
                    && !other.released
                    && other
                        .until
                        .is_none_or(|end| end + SignedDuration::from_mins(1) > seen.run.ends)
            }),
            "busy beside runs that are over before this one has to end",
        ),
        Step::Wait(_) => ensure(!seen.run.waited_out, "waits although its time is over"),
        Step::Done(Done::NotDue { key, .. }) => ensure(
            planned.progress.is_none()
                && planned.is_active(key)
                && seen.targets.iter().all(|target| names(target, key)),
            "at rest, but not well",
        ),
        _ => Ok(()),
    }
}

pub(crate) fn names(target: &TargetSeen, key: &AccessKeyId) -> bool {
    target.id == IdSeen::Key(key.clone())
}

/// Whatever works with a key is that key's; what cannot be asked about is its tag's.
pub(crate) fn holds(target: &TargetSeen, key: &AccessKeyId) -> bool {
    match &target.secret {
        SecretSeen::Readable { owner: SecretOwner::Key(owner), .. } => owner == key,
        SecretSeen::Readable { tag, owner: SecretOwner::NotAsked } | SecretSeen::Hidden { tag } => {
            tag.as_ref() == Some(key)
        }
        SecretSeen::Readable { owner: SecretOwner::Nobody, .. }
        | SecretSeen::Absent
        | SecretSeen::Unusable(_) => false,
    }
}

/// A value that works with no key may have been the one that its tag names.
fn may_hold(target: &TargetSeen, key: &AccessKeyId) -> bool {
    let is_nobodys = matches!(&target.secret, SecretSeen::Readable { tag, owner: SecretOwner::Nobody } if tag.as_ref() == Some(key));
    is_nobodys || holds(target, key)
}

fn progress_seen(seen: &Observed) -> Option<&Progress> {
    if let Some(Claim { progress: Some(progress), .. }) = &seen.claim {
        return Some(progress);
    }
    let mut newest: Option<&RecordSeen> = None;
    for record in &seen.records {
        if record.progress.is_some() && newest.is_none_or(|other| other.at <= record.at) {
            newest = Some(record);
        }
    }
    newest.and_then(|record| record.progress.as_ref())
}

fn id_of(target: &TargetSeen) -> Option<&AccessKeyId> {
    match &target.id {
        IdSeen::Key(id) => Some(id),
        IdSeen::Absent | IdSeen::Unusable(_) => None,
    }
}

fn tag_of(seen: &Observed, id: &AccessKeyId) -> bool {
    seen.targets.iter().any(|target| match &target.secret {
        SecretSeen::Hidden { tag } | SecretSeen::Readable { tag, .. } => tag.as_ref() == Some(id),
        SecretSeen::Absent | SecretSeen::Unusable(_) => false,
    })
}
