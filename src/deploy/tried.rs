//! What a pipeline was started with: its commit and the settings. Where two of the same prove
//! nothing, a third would not either.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Place, branch};
use crate::config::Config;
use crate::gitlab::{ApiError, Gitlab};
use crate::record::{RecordedDeploy, Tried};

/// One number over the commit and all settings that decide what a pipeline has and proves. Another
/// version of this program may count otherwise: that costs one more pipeline.
pub(super) fn number(config: &Config, place: &Place<'_>, commit: Option<&str>) -> u32 {
    let deploy = &config.deploy;
    let inputs = serde_json::Value::Object(deploy.inputs.clone()).to_string();
    // A job that its rules leave out in a deploy freeze is there after it.
    let frozen = config.job.deploy_freeze && config.job.is_in(place.project);
    // A project goes by its id here, as in a record, however it is written.
    let name = serde_json::to_string(&place.name).unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    (commit, name, &deploy.jobs, inputs, &deploy.variables).hash(&mut hasher);
    (config.overlap.is_zero(), frozen).hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).unwrap_or_default()
}

/// `in_vain`: the number of the pipeline that this one replaces and that could prove nothing.
pub(super) fn started(
    config: &Config,
    place: &Place<'_>,
    commit: Option<&str>,
    in_vain: Option<u32>,
) -> Tried {
    let number = number(config, place, commit);
    Tried { number, again: in_vain == Some(number) }
}

/// Whether this deploy, which proves nothing, is the second of its kind and nothing has changed
/// since.
pub(super) async fn is_exhausted(
    gitlab: &Gitlab,
    config: &Config,
    place: &Place<'_>,
    recorded: &RecordedDeploy,
    commit: Option<&str>,
) -> Result<bool, ApiError> {
    let Some(tried) = recorded.tried.filter(|tried| tried.again) else { return Ok(false) };
    let name = branch(gitlab, config, place).await?;
    let newest = gitlab.commit(place.project, &name).await?;
    // Where GitLab does not show the branch, only a setting can have changed.
    Ok(tried.number == number(config, place, newest.as_deref().or(commit)))
}
