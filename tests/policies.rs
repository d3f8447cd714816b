//! The IAM policies that the README prints, read from it and enforced by the world: they allow what a rotation needs, and no more.

mod run;
mod world;

#[path = "shapes/beside.rs"]
mod beside;
#[path = "policies/readme.rs"]
mod readme;
#[path = "policies/roles.rs"]
mod roles;
#[path = "policies/users.rs"]
mod users;
