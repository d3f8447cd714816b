//! Nothing is ever lost: the binary against the fake, with a fault at every single call, and run
//! again until it ends well.
//!
//! Each case has a fake of its own; the fake's judge looks at the invariants after every change,
//! and what is left in the end is compared with the one state in which a rotation may end: one
//! working key, published, in production, nothing else. Cases run beside each other, for they sleep
//! most of the time.
//!
//! A normal run takes a fixed sample (each call of each kind of rotation is refused once and its
//! reply is lost once). `FAULTS=all cargo test --test faults` runs every case; `FAULTS_ONLY=text`
//! those whose name contains the text; `FAULTS_BESIDE=n` so many at once. `-- --nocapture` shows
//! the numbers.

#[path = "faults/bad_replies.rs"]
mod bad_replies;
#[path = "faults/cases.rs"]
mod cases;
#[path = "faults/every_call.rs"]
mod every_call;
#[path = "faults/every_crash.rs"]
mod every_crash;
#[path = "faults/in_flight.rs"]
mod in_flight_jobs;
#[path = "faults/memory.rs"]
mod memory;
#[path = "faults/scene.rs"]
mod scene;
#[path = "faults/stopped.rs"]
mod stopped;
#[path = "faults/two_at_once.rs"]
mod two_at_once;
