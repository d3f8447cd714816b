//! Whose a record is. A user's name is unique in its account only, a key's id in the world.

use std::collections::BTreeSet;

use super::{PREFIX, Place, Progress, Record};
use crate::access_key::AccessKeyId;

/// What tells a run whose a record is.
pub struct Whose<'a> {
    pub user: &'a str,
    pub account: Option<&'a str>,
    pub keys: &'a BTreeSet<AccessKeyId>,
    /// The keys that the ids and tags of the targets name. One that is not the user's may be gone,
    /// or another user's: a person has copied a variable.
    pub named: &'a BTreeSet<AccessKeyId>,
    pub places: &'a [Place],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// Its run rotates this user's key, and what it tells is about that.
    Ours,
    /// Its run may rotate this user's key; what it tells is about another one's.
    Namesake,
    Foreign,
}

impl Record {
    /// Whether its account, where it is known, could tell a namesake from this user.
    pub fn is_told_by_account(&self, whose: &Whose<'_>) -> bool {
        self.account.is_some()
            && self.user.eq_ignore_ascii_case(whose.user)
            && !self.names_one_of(whose.keys)
    }

    pub fn kinship(&self, whose: &Whose<'_>) -> Kinship {
        let differ = |account: &str| whose.account.is_some_and(|ours| ours != account);
        if self.names_one_of(whose.keys) {
            return Kinship::Ours;
        }
        if !self.user.eq_ignore_ascii_case(whose.user)
            || self.account.as_deref().is_some_and(differ)
        {
            return Kinship::Foreign;
        }
        match &self.progress {
            Some(_) if self.names_one_of(whose.named) => Kinship::Ours,
            Some(progress) if progress.keys().next().is_some() => Kinship::Namesake,
            Some(progress) if !progress.is_about(whose.places) => Kinship::Namesake,
            Some(_) | None => Kinship::Ours,
        }
    }

    fn names_one_of(&self, keys: &BTreeSet<AccessKeyId>) -> bool {
        self.progress.iter().flat_map(Progress::keys).any(|key| keys.contains(key))
    }
}

impl Progress {
    fn keys(&self) -> impl Iterator<Item = &AccessKeyId> {
        let published = self.published.as_ref().map(|published| &published.key);
        self.from.iter().chain(self.previous.iter().flatten()).chain(published)
    }

    /// Whether one of these places is a target of the rotation.
    fn is_about(&self, places: &[Place]) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| places.contains(&target.place))
    }
}

/// Whether this is the whole name that a run gives to its record's variable: the number of its job,
/// or `L` and a moment, then eight hexadecimal digits.
pub fn is_name(key: &str) -> bool {
    let Some((whose, random)) = key.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'))
    else {
        return false;
    };
    let number = whose.strip_prefix('L').unwrap_or(whose);
    !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && random.len() == 8
        && random.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::place::{Name, Owner};
    use crate::record::{Names, RecordedTarget};

    fn key(number: u32) -> AccessKeyId {
        AccessKeyId::parse(&format!("AKIA{number:016}")).unwrap()
    }

    fn place(scope: &str) -> Place {
        let owner = Owner::Project(Name::Id(42));
        Place { owner, scope: scope.to_owned(), names: Names::default() }
    }

    fn record(account: Option<&str>, progress: Option<Progress>) -> Record {
        Record {
            user: "Deployer".to_owned(),
            account: account.map(ToOwned::to_owned),
            job: None,
            at: Timestamp::UNIX_EPOCH,
            ends: None,
            progress,
        }
    }

    fn of_key(number: u32) -> Option<Progress> {
        Some(Progress { from: vec![key(number)], ..Progress::default() })
    }

    fn first_of(scope: &str) -> Option<Progress> {
        let targets = vec![RecordedTarget { place: place(scope), published: false }];
        Some(Progress { targets, previous: vec![None], ..Progress::default() })
    }

    #[test]
    fn a_record_is_ours_by_a_key_else_by_user_account_and_place() {
        let (keys, named) = (BTreeSet::from([key(1)]), BTreeSet::from([key(3)]));
        let places = [place("production")];
        let whose =
            |user| Whose { user, account: Some("1"), keys: &keys, named: &named, places: &places };
        for (account, progress, user, kinship) in [
            (Some("1"), of_key(1), "deployer", Kinship::Ours),
            // Renamed meanwhile.
            (Some("1"), of_key(1), "other", Kinship::Ours),
            // Its keys are gone, and a target still names one.
            (Some("1"), of_key(3), "deployer", Kinship::Ours),
            (None, of_key(3), "deployer", Kinship::Ours),
            // A target bears another user's tag.
            (Some("2"), of_key(3), "deployer", Kinship::Foreign),
            (Some("1"), of_key(3), "other", Kinship::Foreign),
            (None, of_key(2), "deployer", Kinship::Namesake),
            (Some("1"), of_key(2), "deployer", Kinship::Namesake),
            (Some("2"), of_key(2), "deployer", Kinship::Foreign),
            (Some("1"), of_key(2), "other", Kinship::Foreign),
            (None, None, "deployer", Kinship::Ours),
            (Some("2"), None, "deployer", Kinship::Foreign),
            (Some("1"), None, "other", Kinship::Foreign),
            (Some("1"), first_of("production"), "deployer", Kinship::Ours),
            (Some("1"), first_of("staging"), "deployer", Kinship::Namesake),
        ] {
            let seen = record(account, progress);
            assert_eq!(seen.kinship(&whose(user)), kinship, "{seen:?} of {user}");
        }
        // As long as the own account is not known, another one says nothing.
        let unknown = Whose { account: None, ..whose("deployer") };
        assert_eq!(record(Some("2"), None).kinship(&unknown), Kinship::Ours);
        assert!(record(Some("2"), None).is_told_by_account(&unknown));
        assert!(!record(Some("2"), of_key(1)).is_told_by_account(&unknown));
    }

    #[test]
    fn only_the_whole_name_that_a_run_gives_is_a_records() {
        for name in ["CREDENTIAL_ROTATOR_98765_0a1b2c3d", "CREDENTIAL_ROTATOR_L1795824091_00c0ffee"]
        {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "CREDENTIAL_ROTATOR_TOKEN",
            "CREDENTIAL_ROTATOR_",
            "CREDENTIAL_ROTATOR_98765",
            "CREDENTIAL_ROTATOR_98765_0a1b2c3",
            "CREDENTIAL_ROTATOR_98765_0A1B2C3D",
            "CREDENTIAL_ROTATOR_98765_0a1b2c3d4",
            "CREDENTIAL_ROTATOR_98765_0a1b2c3d_OLD",
            "CREDENTIAL_ROTATOR_L_0a1b2c3d",
            "CREDENTIAL_ROTATOR_MY_0a1b2c3d",
            "credential_rotator_98765_0a1b2c3d",
            "X_CREDENTIAL_ROTATOR_98765_0a1b2c3d",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
