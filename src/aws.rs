//! AWS: the calls to IAM and STS about access keys, with typed replies.
//!
//! House rules. `CreateAccessKey` is sent once and never repeated after an ambiguous reply. The
//! SDK's own retries are off: `repeat` decides what is repeated, each try of an effect behind the
//! fence. A secret lives in [`CreatedKey`](crate::access_key::CreatedKey), in the credentials that sign, or
//! in the run's secrets, and in nothing that can be printed.

mod client;
mod credentials;
mod denial;
mod error;
mod failure;
mod iam;
mod meter;
mod repeat;
mod sts;

pub use client::Aws;
pub use denial::{Denial, PolicyKind};
pub use error::{AwsError, CredentialAdvice, KeyRefusal, RegionRefusal, RoleRefusal, Signer};
pub use iam::{CreateFailure, Listing};
pub use repeat::YOUNG;
pub use sts::Identity;
