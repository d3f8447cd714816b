//! What became of a pipeline that was asked for and of which no answer has come.
//!
//! Several rotations, and other tools, may start pipelines as the same user on the same ref. A
//! pipeline is taken for our own only where nothing else can have made it: a second deploy is
//! harmless, a proof that belongs to somebody else's pipeline is not.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Deployed, Looked, Place, looking};
use crate::config::Config;
use crate::error::Error;
use crate::gitlab::{ApiError, Gitlab};
use crate::plan::{APPEARS_WITHIN, DeploySeen};
use crate::record::{Asked, DeployAttempt};

/// More pipelines than this in one window are not looked at one by one: one of many is none.
const MANY: usize = 20;

/// A pipeline that may be what an attempt has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub pipeline: u64,
    pub sha: Option<String>,
    pub created: Timestamp,
}

/// What the records that this run can read tell of pipelines and attempts, its own attempt not
/// among them.
#[derive(Debug, Default)]
pub struct Noted {
    pub pipelines: BTreeSet<u64>,
    pub attempts: Vec<DeployAttempt>,
}

/// What becomes of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// What it made may still show up, or another rotation's attempt may still be answered.
    Open {
        until: Timestamp,
    },
    Made(Candidate),
    /// It made nothing, or nothing that is surely its own.
    Lost,
}

impl DeployAttempt {
    /// What it has made was made before this. A run that died has not told; a request lasts no
    /// longer than `timeout`.
    pub fn ends(&self, timeout: SignedDuration) -> Timestamp {
        self.closed.unwrap_or(self.at + timeout + APPEARS_WITHIN)
    }

    /// Whether the other attempt may have made what is made at this project and ref.
    fn rivals(&self, other: &Self) -> bool {
        self.place.project == other.place.project
            && matches!(&other.asked, Asked::Ref(_))
            && self.asked == other.asked
    }

    /// What becomes of it.
    pub fn fate(
        &self,
        candidates: &[Candidate],
        noted: &Noted,
        now: Timestamp,
        timeout: SignedDuration,
    ) -> Fate {
        let until = self.ends(timeout);
        if now < until {
            return Fate::Open { until };
        }
        let own = candidates.iter().filter(|candidate| {
            self.at < candidate.created
                && candidate.created <= until
                && !noted.pipelines.contains(&candidate.pipeline)
        });
        let own: Vec<&Candidate> = own.collect();
        let others: Vec<Timestamp> = noted
            .attempts
            .iter()
            .filter(|other| self.rivals(other))
            .filter(|other| own.iter().any(|candidate| other.covers(candidate.created, timeout)))
            .map(|other| other.ends(timeout))
            .collect();
        // As long as another attempt may be answered, a pipeline may turn out to be its.
        match (&own[..], others.iter().max()) {
            ([], _) => Fate::Lost,
            (_, Some(until)) if now < *until => Fate::Open { until: *until },
            ([candidate], None) => Fate::Made(Candidate::clone(candidate)),
            _ => Fate::Lost,
        }
    }

    fn covers(&self, moment: Timestamp, timeout: SignedDuration) -> bool {
        self.at <= moment && moment <= self.ends(timeout)
    }
}

/// The pipelines of the attempt's ref that the API started for this user since the attempt.
pub async fn candidates(
    gitlab: &Gitlab,
    place: &Place<'_>,
    attempt: &DeployAttempt,
    user: u64,
) -> Result<Vec<Candidate>, Error> {
    let candidates = read(gitlab, place, attempt, user).await;
    candidates.map_err(|error| looking(place.project, error))
}

async fn read(
    gitlab: &Gitlab,
    place: &Place<'_>,
    attempt: &DeployAttempt,
    user: u64,
) -> Result<Vec<Candidate>, ApiError> {
    let Asked::Ref(name) = &attempt.asked else { return Ok(Vec::new()) };
    let latest = gitlab.pipelines_since(place.project, name, attempt.at).await?;
    let by_the_api = latest.iter().filter(|seen| {
        seen.source.as_deref() == Some("api")
            && seen.branch.as_ref().is_none_or(|seen| seen == name)
            && seen.created_at.is_some_and(|created| created > attempt.at)
    });
    let mut candidates = Vec::new();
    for seen in by_the_api.take(MANY) {
        let whole = gitlab.pipeline(place.project, seen.id).await?;
        let is_ours = whole.and_then(|whole| whole.user).is_some_and(|owner| owner.id == user);
        if let (true, Some(created)) = (is_ours, seen.created_at) {
            candidates.push(Candidate { pipeline: seen.id, sha: seen.sha.clone(), created });
        }
    }
    Ok(candidates)
}

impl Place<'_> {
    /// This pipeline is surely what the lost answer was about.
    pub fn adoptable(&self, config: &Config, made: &Candidate, in_vain: Option<u32>) -> Looked {
        let recorded = self.started(config, made.pipeline, made.sha.as_deref(), in_vain);
        let deployed = Deployed { pipeline: Some(made.pipeline), ..self.deployed("found") };
        Looked::new(DeploySeen::Adoptable(recorded), deployed)
    }

    /// Whether anything was started shows at this time.
    pub fn unanswered(&self, until: Timestamp) -> Looked {
        let what = format!(
            "GitLab's answer about the deploy of project {} was lost: what it has started, if \
             anything, shows by {until}",
            self.project
        );
        Looked::new(DeploySeen::Running(what), self.deployed("not known"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Name;
    use crate::record::DeployPlace;

    const TIMEOUT: SignedDuration = SignedDuration::from_secs(30);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// Given up after 30 s, so closed two minutes later.
    fn attempt(project: u64, deploy: &str, name: &str, second: i64) -> DeployAttempt {
        DeployAttempt {
            place: DeployPlace { project: Name::Id(project), deploy: deploy.to_owned() },
            asked: Asked::Ref(name.to_owned()),
            at: at(second),
            closed: Some(at(second + 150)),
        }
    }

    fn made(pipeline: u64, second: i64) -> Candidate {
        Candidate { pipeline, sha: None, created: at(second) }
    }

    fn fate(candidates: &[Candidate], noted: &Noted, now: i64) -> Fate {
        attempt(42, "pipeline", "main", 0).fate(candidates, noted, at(now), TIMEOUT)
    }

    #[test]
    fn the_only_pipeline_of_the_window_is_ours_once_the_window_is_closed() {
        let noted = Noted::default();
        assert_eq!(fate(&[made(7, 3)], &noted, 149), Fate::Open { until: at(150) });
        assert_eq!(fate(&[made(7, 3)], &noted, 150), Fate::Made(made(7, 3)));
        assert_eq!(fate(&[made(7, 3), made(8, 151)], &noted, 160), Fate::Made(made(7, 3)));
        assert_eq!(fate(&[made(7, 0)], &noted, 150), Fate::Lost, "made before it was asked for");
        assert_eq!(fate(&[], &noted, 150), Fate::Lost);
    }

    #[test]
    fn of_two_pipelines_none_is_ours() {
        assert_eq!(fate(&[made(7, 3), made(8, 9)], &Noted::default(), 150), Fate::Lost);
        let noted = Noted { pipelines: BTreeSet::from([8]), ..Noted::default() };
        assert_eq!(fate(&[made(7, 3), made(8, 9)], &noted, 150), Fate::Made(made(7, 3)));
        assert_eq!(fate(&[made(8, 9)], &noted, 150), Fate::Lost, "another rotation has noted it");
    }

    #[test]
    fn what_another_attempt_may_have_made_is_waited_for_and_then_nobodys() {
        let other = DeployAttempt { closed: None, ..attempt(42, "pipeline@main", "main", 2) };
        let noted = Noted { attempts: vec![other], ..Noted::default() };
        assert_eq!(fate(&[made(7, 3)], &noted, 151), Fate::Open { until: at(152) });
        assert_eq!(fate(&[made(7, 3)], &noted, 152), Fate::Lost);
        assert_eq!(
            fate(&[made(7, 1)], &noted, 150),
            Fate::Made(made(7, 1)),
            "made before the other asked"
        );
        for other in [
            attempt(43, "pipeline", "main", 2),
            attempt(42, "pipeline", "next", 2),
            attempt(42, "pipeline", "main", 4),
        ] {
            let noted = Noted { attempts: vec![other], ..Noted::default() };
            assert_eq!(fate(&[made(7, 3)], &noted, 150), Fate::Made(made(7, 3)));
        }
    }
}
