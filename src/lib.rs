//! Rotates the AWS IAM access key of a GitLab project.
//!
//! One run is one story: [`config`] reads the environment, [`run`] observes IAM and GitLab, [`plan`]
//! decides one step, [`run`] executes it and decides again, until the plan says that the run is done
//! or refuses. [`aws`] and [`gitlab`] are the requests; [`targets`], [`deploy`] and `preflight` say
//! what their replies mean; [`record`] is what a rotation writes down, [`report`] what it tells,
//! [`error`] what it says when it cannot go on.

pub mod access_key;
pub mod aws;
pub mod clock;
pub mod config;
pub mod deploy;
pub mod error;
pub mod fence;
pub mod gitlab;
pub mod net;
pub mod outcome;
pub mod place;
pub mod plan;
mod preflight;
pub mod process;
pub mod record;
pub mod report;
pub mod run;
pub mod shutdown;
pub mod tag;
pub mod targets;
