//! The binary against the fake, by environment alone: every outcome, every exit code, and the
//! three lines of every recognised error.
//!
//! Each case is a test: `cargo test --test binary NAME` runs those whose name contains the text.
//! Transcripts are compared as they stand; `SNAPSHOTS=overwrite cargo test --test binary` writes
//! them anew.

#[path = "binary/aws.rs"]
mod aws;
#[path = "binary/clocks.rs"]
mod clocks;
#[path = "binary/configuration.rs"]
mod configuration;
#[path = "binary/denials.rs"]
mod denials;
#[path = "binary/deploys.rs"]
mod deploys;
#[path = "binary/external.rs"]
mod external;
#[path = "binary/files.rs"]
mod files;
#[path = "binary/gitlab.rs"]
mod gitlab;
#[path = "binary/gitlab_classes.rs"]
mod gitlab_classes;
#[path = "binary/operators.rs"]
mod operators;
#[path = "binary/outcomes.rs"]
mod outcomes;
#[path = "binary/patience.rs"]
mod patience;
#[path = "binary/preflight.rs"]
mod preflight;
#[path = "binary/rights.rs"]
mod rights;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        outcomes::cases(),
        configuration::cases(),
        gitlab::cases(),
        gitlab_classes::cases(),
        aws::cases(),
        denials::cases(),
        patience::cases(),
        clocks::cases(),
        operators::cases(),
        preflight::cases(),
        rights::cases(),
        deploys::cases(),
        files::cases(),
        external::cases(),
    ];
    fake::cases::run(env!("CARGO_BIN_EXE_credential-rotator"), 40, cases).exit_code()
}
