//! Every shape of project: where a key is published, what its variables hold, and how it is
//! deployed.
//!
//! The binary against the fake, by environment alone. Whatever a case is about, its run is also
//! held to what `run` holds every run to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "shapes/beside.rs"]
mod beside;
#[path = "shapes/deploys.rs"]
mod deploys;
#[path = "shapes/in_flight.rs"]
mod in_flight_jobs;
#[path = "shapes/proofs.rs"]
mod proofs;
#[path = "shapes/scene.rs"]
mod scene;
#[path = "shapes/targets.rs"]
mod targets;
#[path = "shapes/torn.rs"]
mod torn;
#[path = "shapes/values.rs"]
mod values;

/// One test, for its cases run beside each other; those that fail are named.
#[test]
fn every_shape_of_project_is_served() {
    fake::run::use_program(env!("CARGO_BIN_EXE_credential-rotator"));
    beside::beside_each_other(&[
        deploys::a_pipeline_is_started_once_whatever_becomes_of_it(),
        deploys::an_environment_is_redeployed_by_its_live_job(),
        in_flight_jobs::no_in_flight_job_is_what_stays_deployed(),
        proofs::a_deploy_is_proven_by_its_jobs_wherever_they_are(),
        targets::one_key_is_published_wherever_the_targets_say(),
        torn::torn_and_partly_published_targets_are_healed_forward(),
        torn::what_only_a_operator_can_have_left_is_refused_with_both_keys_alive(),
        values::whatever_the_variables_hold_is_taken_for_what_it_is(),
    ]);
}
