//! The world is strict: every rule that other tests lean on.
#[path = "world/mod.rs"]
mod world;
use world::*;

#[test]
fn t() {
    let _w = World::builder().calm().start();
}
