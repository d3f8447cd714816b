//! The binary against the world, by environment alone: every outcome, every exit code, and the three lines of every recognised trouble.
//!
//! Transcripts are compared as they stand; `SNAPSHOTS=overwrite cargo test --test binary` writes them anew, and `CASE=text` runs only the
//! cases whose name contains the text.

mod run;
mod world;

#[path = "binary/aws.rs"]
mod aws;
#[path = "binary/configuration.rs"]
mod configuration;
#[path = "binary/deploys.rs"]
mod deploys;
#[path = "binary/gitlab.rs"]
mod gitlab;
#[path = "binary/outcomes.rs"]
mod outcomes;
#[path = "binary/persons.rs"]
mod persons;
#[path = "binary/preflight.rs"]
mod preflight;
