//! The IAM policies of docs/aws.md, read from it and enforced by the fake: they allow what
//! a rotation needs, and no more.
//!
//! Each case is a test: `cargo test --test policies NAME` runs those whose name contains the text.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "policies/readme.rs"]
mod readme;
#[path = "policies/roles.rs"]
mod roles;
#[path = "policies/users.rs"]
mod users;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [users::cases(), roles::cases()];
    fake::cases::run(env!("CARGO_BIN_EXE_credential-rotator"), 24, cases).exit_code()
}
