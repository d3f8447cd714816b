//! What stands in the way of a rotation, found before anything is written: it would fail, or could
//! not be proven. The sentence stands at the variant, what to do in a total match.
//!
//! Made by `preflight`. Targets, projects and places go by their names.

use jiff::Timestamp;

use crate::access_key::AccessKeyId;
use crate::gitlab::Right;
use crate::record;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocker {
    #[error("the job ends in {left} seconds; a rotation needs {needed}")]
    JobTooShort { needed: i64, left: i64 },
    #[error(
        "the STS endpoint of {region} refuses credentials that IAM accepts, so it could not \
         verify a new key"
    )]
    StsRefuses { region: String },
    /// `fix`: what the same denial in the midst of a rotation would hint at.
    #[error("the credentials in use may not call {action}, which the overlap needs")]
    Denied { action: &'static str, fix: String },
    #[error("the GitLab token expires at {at}, before this rotation could end")]
    TokenExpires { at: Timestamp },
    #[error("every target's secret is hidden, so a run that dies half-way could not be continued")]
    AllHidden,
    #[error("key {key} is also named by {}", places.join(", "))]
    OtherReference { key: AccessKeyId, places: Vec<String> },
    #[error("the description of {secret} in {target} leaves no room for the rotation's tag")]
    NoRoomForTag { secret: String, target: String },
    #[error(
        "{owner} has a variable AWS_SESSION_TOKEN (scope {scope}), which makes the pair invalid"
    )]
    SessionToken { owner: String, scope: String },
    /// A secret alone in a closer scope than the target's works with the old id only.
    #[error(
        "{secret} of {owner} stands alone in scope {scope}, so jobs there get the id of {target} \
         with it"
    )]
    HalfPair { secret: String, owner: String, scope: String, target: String },
    #[error(
        "{variable} of {owner} in scope {scope} outranks {target} in environment {environment}"
    )]
    CloserScope {
        variable: String,
        owner: String,
        scope: String,
        target: String,
        environment: String,
    },
    /// A project or a group nearer to the deploy than a target.
    #[error("{owner} has its own {variable} (scope {scope}), which outranks that of {target}")]
    CloserOwner { variable: String, owner: String, scope: String, target: String },
    /// Paths of projects that cannot be looked up take more room than ids.
    #[error(
        "the record of the rotation would need {length} characters, and a variable takes {}",
        record::LIMIT
    )]
    RecordTooLong { length: usize },
    #[error("the GitLab token cannot see the deploy project {project}")]
    ProjectHidden { project: String },
    #[error("the fine-grained GitLab token lacks {right} in project {project}")]
    TokenLacks { right: Right, project: String },
    /// `right`: as the rights of fine-grained tokens are called.
    #[error("the GitLab token's user may not do in project {project} what GitLab calls {right}")]
    NotAllowed { right: Right, project: String },
    #[error("project {project} is archived, so nothing can be deployed there")]
    ProjectArchived { project: String },
    #[error("CI/CD is off in project {project}, so nothing can be deployed there")]
    CiOff { project: String },
    #[error(
        "project {project} does not let the GitLab token's user set pipeline variables, and \
         ROTATOR_DEPLOY_VARIABLES has some"
    )]
    PipelineVariables { project: String },
    #[error("project {project} has no ref {name} to deploy")]
    NoRef { project: String, name: String },
    #[error("project {project} has no branch to deploy")]
    NoBranch { project: String },
    #[error(
        "project {project} has no successful deployment to {environment}, so there is nothing to \
         redeploy"
    )]
    NoDeployment { project: String, environment: String },
    #[error(
        "the pipeline of job {job}, which deployed project {project} to {environment}, is \
         archived, so GitLab does not run it again"
    )]
    JobArchived { project: String, environment: String, job: String },
    #[error("no deployment of project {project} to {environment} was made by job {job}")]
    NothingByJob { project: String, environment: String, job: String },
    #[error(
        "job {job}, which deployed project {project} to {environment}, is a trigger job or cannot \
         be seen, so it cannot be run again"
    )]
    TriggerJob { project: String, environment: String, job: String },
    /// Which of them still deploy nobody but a person knows.
    #[error(
        "project {project} was deployed to {environment} by {} too since the key was made, and the \
         live pipeline has no such job",
        jobs.join(", ")
    )]
    FurtherJobs { project: String, environment: String, jobs: Vec<String> },
}

impl Blocker {
    /// What to do about it.
    pub fn fix(&self) -> String {
        match self {
            Self::JobTooShort { .. } => {
                "raise the job's `timeout:` (or the runner's maximum)".into()
            }
            Self::Denied { fix, .. } => {
                format!("{fix}; or set ROTATOR_OVERLAP=0s, with which nobody asks")
            }
            Self::StsRefuses { .. } => {
                "set AWS_REGION to a region that is enabled in the account".into()
            }
            Self::TokenExpires { .. } => "create a new one".into(),
            Self::AllHidden => "make one of them visible (masked)".into(),
            Self::OtherReference { .. } => "publish there too, or delete what is named".into(),
            Self::NoRoomForTag { .. } => "shorten it to 210 characters".into(),
            Self::SessionToken { .. } => "delete it".into(),
            Self::HalfPair { owner, scope, .. } => {
                format!("publish there too ({owner}@{scope} in ROTATOR_TARGETS), or delete it")
            }
            Self::CloserScope { owner, scope, .. } => {
                format!("name {owner}@{scope} in ROTATOR_TARGETS, or delete that variable")
            }
            Self::CloserOwner { owner, scope, .. } => {
                let place = if scope == "*" { owner.clone() } else { format!("{owner}@{scope}") };
                format!("name {place} in ROTATOR_TARGETS, or delete that variable")
            }
            Self::RecordTooLong { .. } => {
                "name projects and groups by their numeric ids, or name fewer of them".into()
            }
            Self::ProjectHidden { .. } => {
                "check the name, and add the token's user as Maintainer".into()
            }
            Self::TokenLacks { .. } => {
                "create a token that has it as well, for the rights of a token cannot be changed \
                 (a person's classic token gets this answer where the group demands fine-grained \
                 ones)"
                    .into()
            }
            Self::NotAllowed { .. } => "give it the role Maintainer there".into(),
            Self::CiOff { .. } => "switch it on, or deploy another project".into(),
            Self::PipelineVariables { .. } => {
                "use ROTATOR_DEPLOY_INPUTS instead, or allow its role to set them in the \
                 project's CI/CD settings"
                    .into()
            }
            Self::ProjectArchived { .. } => "unarchive it, or deploy another project".into(),
            Self::NoRef { .. } => "check ROTATOR_DEPLOY".into(),
            Self::NoBranch { .. } => "its repository is empty; push to it".into(),
            Self::NoDeployment { .. } | Self::JobArchived { .. } => {
                "deploy once, or use ROTATOR_DEPLOY=pipeline".into()
            }
            Self::NothingByJob { .. } => "check ROTATOR_DEPLOY_JOBS".into(),
            Self::TriggerJob { .. } => "use ROTATOR_DEPLOY=pipeline".into(),
            Self::FurtherJobs { .. } => {
                "name every job that deploys there in ROTATOR_DEPLOY_JOBS".into()
            }
        }
    }

    /// The sentence and what to do, as a line of a list.
    pub fn line(&self) -> String {
        format!("{self}: {}", self.fix())
    }
}
