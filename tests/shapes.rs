//! Every shape of project: where a key is published, what its variables hold, and how it is deployed.
//!
//! The binary against the world, by environment alone. Whatever a case is about, its run is also held to what `run` holds every run to.

mod run;
mod world;

#[path = "shapes/beside.rs"]
mod beside;
#[path = "shapes/deploys.rs"]
mod deploys;
#[path = "shapes/elders.rs"]
mod elders;
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
