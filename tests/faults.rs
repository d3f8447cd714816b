//! Faults.

#[path = "faults/scene.rs"]
mod scene;
mod world;
