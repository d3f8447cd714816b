//! The IAM policies of docs/aws.md, read from it and enforced by the fake: they allow what
//! a rotation needs, and no more.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "shapes/beside.rs"]
mod beside;
#[path = "policies/readme.rs"]
mod readme;
#[path = "policies/roles.rs"]
mod roles;
#[path = "policies/users.rs"]
mod users;

/// One test, for its cases run beside each other; those that fail are named.
#[test]
fn the_readmes_policies_allow_what_a_rotation_needs_and_no_more() {
    fake::run::use_program(env!("CARGO_BIN_EXE_credential-rotator"));
    beside::beside_each_other(&[
        users::a_user_rotates_its_own_key_and_nobody_elses(),
        roles::a_role_rotates_the_one_user_for_the_one_project_and_branch(),
    ]);
}
