//! Every shape of project: where a key is published, what its variables hold, and how it is
//! deployed.
//!
//! The binary against the fake, by environment alone. Whatever a case is about, its run is also
//! held to what holds for every run; see [`fake::Run`].
//!
//! Each case is a test: `cargo test --test shapes NAME` runs those whose name contains the text.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "shapes/deploys.rs"]
mod deploys;
#[path = "shapes/external.rs"]
mod external;
#[path = "shapes/in_flight.rs"]
mod in_flight;
#[path = "shapes/named.rs"]
mod named;
#[path = "shapes/names.rs"]
mod names;
#[path = "shapes/own_pipeline.rs"]
mod own_pipeline;
#[path = "shapes/proofs.rs"]
mod proofs;
#[path = "shapes/records.rs"]
mod records;
#[path = "shapes/references.rs"]
mod references;
#[path = "shapes/scene.rs"]
mod scene;
#[path = "shapes/targets.rs"]
mod targets;
#[path = "shapes/torn.rs"]
mod torn;
#[path = "shapes/values.rs"]
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        deploys::pipelines(),
        deploys::environments(),
        external::cases(),
        in_flight::cases(),
        named::cases(),
        names::cases(),
        own_pipeline::cases(),
        proofs::cases(),
        records::cases(),
        references::cases(),
        targets::cases(),
        torn::healed(),
        torn::refused(),
        torn::while_gitlab_is_away(),
        values::cases(),
    ];
    fake::cases::run(env!("CARGO_BIN_EXE_credential-rotator"), 24, cases).exit_code()
}
