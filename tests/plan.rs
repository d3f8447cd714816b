//! The planner, judged from four sides: each row of its table; every small world; a model of IAM
//! and GitLab that shares no code with `apply`; and seeded histories in which everything goes wrong
//! that can.

#[path = "plan/describe.rs"]
mod describe;
#[path = "plan/ends.rs"]
mod ends;
#[path = "plan/healing.rs"]
mod healing;
#[path = "plan/invariants.rs"]
mod invariants;
#[path = "plan/kit.rs"]
mod kit;
#[path = "plan/model.rs"]
mod model;
#[path = "plan/simulation.rs"]
mod simulation;
#[path = "plan/table.rs"]
mod table;
#[path = "plan/worlds.rs"]
mod worlds;
