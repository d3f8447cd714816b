//! The token: whether it outlives the rotation. One without the scope `api` lists no variables, so
//! the run has ended before.

use jiff::{SignedDuration, Timestamp};

use crate::config::Config;
use crate::error::Blocker;
use crate::gitlab::token::Token;

/// What the token must outlive besides verification and deploy.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);

pub(super) fn blocker(config: &Config, token: &Token, now: Timestamp) -> Option<Blocker> {
    let needed = SignedDuration::try_from(config.verify_timeout).unwrap_or_default()
        + config.deploy.timeout
        + MARGIN;
    let at = token.expires().filter(|at| *at < now + needed)?;
    Some(Blocker::TokenExpires { at })
}
