//! A dry run: the steps that a run would take, as far as everything goes well.

use jiff::SignedDuration;

use super::model::{DeploySeen, Observed, Policy, SecretOwner, SecretSeen};
use super::plan;
use super::step::{Done, Made, Query, Step, Waiting};
use crate::access_key::{AccessKeyId, Key, Use};
use crate::place::Name;
use crate::record::{Asked, DeployPlace, RecordedDeploy};

/// A rotation has some twenty steps; the bound is for a mistake of ours.
const LONGEST: usize = 64;
/// Stands for the key that would be made.
const NEW_KEY: &str = "AKIA000000000000NEW0";

pub(super) fn rehearse(seen: &Observed, policy: &Policy) -> Vec<Step> {
    let policy = Policy { dry_run: false, ..policy.clone() };
    let mut seen = seen.clone();
    let mut steps = Vec::new();
    for _ in 0..LONGEST {
        let step = plan(&seen, &policy);
        let mut made = None;
        match &step {
            Step::Done(Done::Waiting(_)) | Step::Refuse(_) => {
                steps.push(step);
                break;
            }
            Step::Confirm(refusal) => {
                steps.push(Step::Refuse(refusal.clone()));
                break;
            }
            Step::Done(_) | Step::Stop => break,
            Step::Wait(Waiting::Margin { until }) => seen.now = *until,
            Step::Wait(Waiting::Afterlife { .. }) => {
                steps.push(step.clone());
                seen.records.iter_mut().for_each(|record| record.alive &= record.until.is_none());
            }
            Step::Wait(_) => {
                steps.push(step);
                break;
            }
            Step::Observe(_) => seen.run.list_age = SignedDuration::ZERO,
            Step::Ask(query) => suppose(&mut seen, query, policy.places),
            Step::Create => {
                let id = AccessKeyId::parse(NEW_KEY).expect("the form of a key's id");
                made = Some(Made::Key(Key { id, active: true, created: seen.now, used: None }));
            }
            Step::StartDeploy(index) => {
                let place = supposed(index + 1);
                made = Some(Made::Deploy(RecordedDeploy {
                    place,
                    pipeline: 0,
                    job: None,
                    proven: None,
                    tried: None,
                }));
            }
            Step::Claim
            | Step::TakeOver
            | Step::Record(_)
            | Step::Verify(_)
            | Step::WriteSecret { .. }
            | Step::WriteId { .. }
            | Step::Disable(..)
            | Step::Delete(..)
            | Step::Abandon(_)
            | Step::Retry => {}
        }
        if step.has_effect() {
            steps.push(step.clone());
        }
        seen.apply(&step, made);
    }
    steps
}

fn supposed(number: usize) -> DeployPlace {
    DeployPlace { project: Name::Id(0), deploy: format!("deploy {number}") }
}

/// The answer that a dry run supposes.
fn suppose(seen: &mut Observed, query: &Query, places: usize) {
    match query {
        Query::WhoseSecrets => {
            for target in &mut seen.targets {
                let id = target.id.key().cloned();
                if let SecretSeen::Readable { owner, .. } = &mut target.secret {
                    *owner = id.map_or(SecretOwner::Nobody, SecretOwner::Key);
                }
            }
        }
        Query::LastUse(id) => {
            for key in seen.keys.iter_mut().filter(|key| key.id == *id) {
                key.used = Some(Use::Never);
            }
        }
        Query::Preflight => seen.preflight = Some(Vec::new()),
        Query::InFlightJobs => seen.in_flight_jobs = Some(Vec::new()),
        Query::Deploys => {
            let recorded = seen.progress().map(|progress| progress.deploys.clone());
            let recorded = recorded.unwrap_or_default();
            let next = recorded.len() + 1;
            let deploys = recorded.into_iter().map(DeploySeen::Proven);
            let startable = |number| DeploySeen::Startable {
                place: supposed(number),
                asked: Asked::Ref(String::new()),
            };
            let deploys = deploys.chain((next..).map(startable));
            seen.deploys = Some(deploys.take(places).collect());
        }
    }
}
