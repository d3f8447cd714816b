//! GitLab: requests and typed replies, over a client of our own under the `gitlab` crate's
//! endpoints.
//!
//! Each method of [`Gitlab`] is one request. What its reply means for a rotation is decided by
//! those who ask: [`crate::targets`], [`crate::deploy`], `preflight` and [`crate::run`].

use std::fmt::Debug;

use gitlab::api::common::NameOrId;

use crate::config::Name;

mod client;
pub mod deployments;
mod error;
pub mod jobs;
mod list;
pub mod pipelines;
pub mod projects;
pub mod records;
mod right;
mod status;
pub mod token;
pub mod variables;

pub use client::Gitlab;
pub use error::{ApiError, ApiErrorKind, ClientError, OLDEST};
pub use right::{NEEDED as NEEDED_RIGHTS, Right};
pub use status::{Phase, Status};

/// A project or group as the endpoints take it.
fn id(name: &Name) -> NameOrId<'_> {
    match name {
        Name::Id(id) | Name::Known { id, .. } => NameOrId::Id(*id),
        Name::Path(path) => NameOrId::Name(path.as_str().into()),
    }
}

/// What a builder of the `gitlab` crate has built.
fn built<T, E: Debug>(endpoint: Result<T, E>) -> T {
    endpoint.expect("a builder refuses only where a field is not set, and each call sets them all")
}
