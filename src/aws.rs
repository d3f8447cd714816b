//! AWS: the calls to IAM and STS about access keys, with typed replies.
//!
//! House rules. `CreateAccessKey` is sent once and never repeated after an ambiguous reply. The
//! SDK's own retries are for reads only; effects are repeated here, each try behind the fence. A
//! secret lives in [`CreatedKey`](crate::access_key::CreatedKey), in the credentials that sign, or
//! in the run's secrets, and in nothing that can be printed.

mod client;
mod credentials;
mod error;
mod failure;
mod iam;
mod meter;
mod sts;

pub use client::Aws;
pub use error::{AwsError, CredentialAdvice, KeyRefusal, RoleRefusal, Signer};
pub use iam::{CreateFailure, Listing};
pub use sts::Identity;
