//! Nothing is ever lost: the binary against the fake, with a fault at every single call, and run
//! again until it ends well.
//!
//! Each case has a fake of its own, which checks the invariants after every change; what is left in
//! the end is compared with the one state in which a rotation may end: one working key, published,
//! in production, nothing else.
//!
//! Each case is a test: `cargo test --test faults NAME` runs those whose name contains the text.
//! A normal run takes a fixed sample (each call of each kind of rotation is refused once and its
//! reply is lost once); `FAULTS=all cargo test --test faults` runs every case. Cases wait most of
//! the time, so many run at once; `-- --test-threads=N` changes how many.

#[path = "faults/bad_replies.rs"]
mod bad_replies;
#[path = "faults/calls.rs"]
mod calls;
#[path = "faults/every_call.rs"]
mod every_call;
#[path = "faults/every_crash.rs"]
mod every_crash;
#[path = "faults/in_flight.rs"]
mod in_flight;
#[path = "faults/memory.rs"]
mod memory;
#[path = "faults/sample.rs"]
mod sample;
#[path = "faults/scene.rs"]
mod scene;
#[path = "faults/stopped.rs"]
mod stopped;
#[path = "faults/two_at_once.rs"]
mod two_at_once;

use std::process::ExitCode;

const PROGRAM: &str = env!("CARGO_BIN_EXE_credential-rotator");

fn main() -> ExitCode {
    // What the cases are is seen in clean runs, before any case.
    fake::use_program(PROGRAM);
    let cases = [
        every_call::cases(),
        every_crash::cases(),
        bad_replies::cases(),
        memory::cases(),
        stopped::cases(),
        two_at_once::cases(),
        in_flight::cases(),
    ];
    let mut cases: Vec<_> = cases.into_iter().flatten().collect();
    // Those that wait for minutes first.
    cases.sort_by_key(|case| !case.name().contains("POST /projects/:id/pipeline"));
    fake::cases::run(PROGRAM, 64, [cases]).exit_code()
}
