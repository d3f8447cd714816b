//! How long a record can grow: a variable takes 10,000 characters.

use jiff::Timestamp;

use super::{
    Asked, DeployAttempt, DeployPlace, JobRef, Place, Progress, Published, Record, RecordedDeploy,
    Tried,
};
use crate::access_key::AccessKeyId;
use crate::place::Name;

/// What GitLab takes for a value, in characters.
pub const LIMIT: usize = 10_000;
/// Numbers of pipelines and jobs are shorter than this for a long time.
const LARGE: u64 = 99_999_999_999;
/// More keys than a rotation ever names: a user has two.
const KEYS: usize = 12;

/// More deploys than are asked for at the same time without an answer.
const ATTEMPTS: usize = 3;

/// The length of the longest record of a rotation that publishes to these places and deploys these
/// projects. `deploy`: how the record calls what is deployed there; `jobs`: of how many jobs each
/// deploy consists, none where it is a pipeline.
pub fn longest(places: &[Place], projects: &[Name], deploy: &str, jobs: usize) -> usize {
    let key = AccessKeyId::parse("AKIA0000000000000000").expect("the form of an id");
    let moment = Timestamp::from_millisecond(4_102_444_799_999).expect("a date of this century");
    let some = Some(moment);
    let is_pipeline = jobs == 0;
    // Until it is proven, and longer than the moment of the proof.
    let tried = is_pipeline.then_some(Tried { number: u32::MAX, again: true });
    let place =
        |project: &Name| DeployPlace { project: project.clone(), deploy: deploy.to_owned() };
    let one = |project: &Name| RecordedDeploy {
        place: place(project),
        pipeline: LARGE,
        job: (!is_pipeline).then_some(LARGE),
        proven: some.filter(|_| !is_pipeline),
        tried,
    };
    let attempt = |project: &Name| DeployAttempt {
        place: place(project),
        asked: Asked::Ref("x".repeat(255)),
        at: moment,
        closed: some,
    };
    let mut progress = Progress {
        from: vec![key.clone(); KEYS],
        creating: moment,
        previous: vec![Some(key.clone()); KEYS],
        targets: Vec::new(),
        published: Some(Published { key, at: moment }),
        not_in_place: some,
        drained: some,
        deploys: projects.iter().flat_map(|project| vec![one(project); jobs.max(1)]).collect(),
        // One deploy is asked for after the other; a place that has one has no attempt.
        attempts: projects.iter().take(ATTEMPTS).map(attempt).collect(),
        deployed: some,
        disabled: some,
        enabled_again: some,
        finished: some,
    };
    for place in places {
        progress.record_target(place, true);
    }
    let record = Record {
        // IAM's longest name.
        user: "x".repeat(64),
        account: Some("0".repeat(12)),
        job: Some(JobRef { project: LARGE, job: LARGE }),
        at: moment,
        ends: some,
        progress: Some(progress),
    };
    record.print().chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Owner;
    use crate::record::Names;

    #[test]
    fn so_many_places_fit() {
        let place = |id| Place {
            owner: Owner::Project(Name::Id(id)),
            scope: "*".to_owned(),
            names: Names::default(),
        };
        let places: Vec<Place> = (0..40).map(|n| place(10_000_000 + n)).collect();
        let projects: Vec<Name> = (0..40).map(|n| Name::Id(10_000_000 + n)).collect();
        assert!(longest(&places, &projects, "pipeline", 0) < LIMIT);
        let none = longest(&[], &[], "", 0);
        assert!(none < 2_000, "what every record has takes {none}");
        assert!(longest(&places, &[], "", 0) > none);
        let one = longest(&[], &projects, "environment/production", 1);
        assert!(longest(&[], &projects, "environment/production", 2) > one);
    }
}
