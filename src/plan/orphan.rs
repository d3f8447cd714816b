//! Keys that were made for nothing: proven to be ours, and named nowhere, they go.

use super::Refusal;
use super::model::Observed;
use super::step::{KeyRole, Query, Step};
use crate::access_key::{AccessKeyId, Key, Use};

/// A key that a dead run made and whose secret is lost: only our own verification (`sts`) may have
/// used it.
pub(super) fn retire(key: Key, seen: &Observed) -> Step {
    let places = places_of(&key.id, seen);
    match key.used {
        _ if !places.is_empty() => Step::Refuse(Refusal::StillNamed { key: key.id, places }),
        None => Step::Ask(Query::LastUse(key.id)),
        Some(Use::At { service, .. }) if service != "sts" => {
            Step::Refuse(Refusal::KeyCompromised { key: key.id, service })
        }
        Some(Use::Never | Use::At { .. }) if key.active => Step::Disable(key.id, KeyRole::Orphan),
        Some(Use::Never | Use::At { .. }) => Step::Delete(key.id, KeyRole::Orphan),
    }
}

/// The key that this process has made for nothing; unless, meanwhile, a variable names it all the
/// same.
pub(super) fn discard(key: AccessKeyId, seen: &Observed) -> Step {
    let places = places_of(&key, seen);
    if places.is_empty() {
        Step::Delete(key, KeyRole::Orphan)
    } else {
        Step::Refuse(Refusal::StillNamed { key, places })
    }
}

/// Every place that names the key or holds its secret, as far as we can see.
fn places_of(key: &AccessKeyId, seen: &Observed) -> Vec<String> {
    let targets = seen
        .targets
        .iter()
        .filter(|target| target.id.key() == Some(key) || target.secret.may_be_of(key));
    targets
        .map(|target| target.name.clone())
        .chain(seen.other_references.get(key).cloned().unwrap_or_default())
        .collect()
}
