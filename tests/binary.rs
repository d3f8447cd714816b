//! The binary against the world, by environment alone: every outcome, every exit code, and the three lines of every recognised trouble.
//!
//! Transcripts are compared as they stand; `SNAPSHOTS=overwrite cargo test --test binary` writes them anew.

mod run;
mod world;

#[path = "binary/outcomes.rs"]
mod outcomes;
