//! The token: whether it outlives the rotation. One without the scope `api` lists no variables, so
//! the run has ended before.

use jiff::{SignedDuration, Timestamp};

use super::Findings;
use crate::config::Config;
use crate::error::Blocker;
use crate::gitlab::token::Token;

/// What the token must outlive besides verification and deploy.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);

pub(super) fn look(config: &Config, token: &Token, now: Timestamp, found: &mut Findings) {
    if !token.is_told {
        found.unknown.push("GitLab does not tell when the token expires".to_owned());
    }
    let needed = SignedDuration::try_from(config.verify_timeout).unwrap_or_default()
        + config.deploy.timeout
        + MARGIN;
    if let Some(at) = token.expires().filter(|at| *at < now + needed) {
        found.blockers.push(Blocker::TokenExpires { at });
    }
}
