//! The binary against the fake, by environment alone: every outcome, every exit code, and the
//! three lines of every recognised error.
//!
//! Transcripts are compared as they stand; `SNAPSHOTS=overwrite cargo test --test binary` writes
//! them anew, and `CASE=text` runs only the cases whose name contains the text. There are two tests
//! only, because some forty cases at a time wait beside each other.

#[path = "binary/aws.rs"]
mod aws;
#[path = "binary/configuration.rs"]
mod configuration;
#[path = "binary/deploys.rs"]
mod deploys;
#[path = "binary/gitlab.rs"]
mod gitlab;
#[path = "binary/operators.rs"]
mod operators;
#[path = "binary/outcomes.rs"]
mod outcomes;
#[path = "binary/preflight.rs"]
mod preflight;

use fake::run::at_once;

#[test]
fn every_outcome_is_reached() {
    fake::run::use_program(env!("CARGO_BIN_EXE_credential-rotator"));
    at_once(&[
        outcomes::A_RUN_ENDS_AS_THE_KEY_NEEDS_IT,
        outcomes::EVERY_ACTION_DOES_ITS_PART,
        outcomes::EVERY_SHAPE_OF_PROJECT_IS_SERVED,
    ]);
}

#[test]
fn every_error_is_told_in_three_lines() {
    fake::run::use_program(env!("CARGO_BIN_EXE_credential-rotator"));
    at_once(&[
        configuration::A_RUN_THAT_CANNOT_BEGIN_SAYS_WHY,
        gitlab::THE_TOKEN_IS_NOT_ENOUGH,
        gitlab::THE_PROJECT_IS_NOT_AS_IT_WAS,
        gitlab::THE_ADDRESS_IS_WRONG,
        aws::IAM_DENIES,
        aws::THE_SIGNER_IS_NOT_THE_RIGHT_ONE,
        aws::KEYS_DO_NOT_COME_AS_THEY_SHOULD,
        operators::VARIABLES_ARE_NOT_A_PAIR_OF_THIS_USER,
        operators::KEYS_ARE_NOT_AS_THE_ROTATION_LEFT_THEM,
        preflight::A_ROTATION_THAT_WOULD_NOT_END_WELL_DOES_NOT_BEGIN,
        deploys::THE_PIPELINE_IS_REFUSED,
        deploys::THE_DEPLOY_PROVES_NOTHING,
    ]);
}
