//! A fault at every call, of every kind; then jobs follow until the rotation is finished.

use crate::cases::{self, Case};
use crate::scene::{Call, MODES, Mode, Scene, clean_calls};
use fake::Fault;

/// So many jobs more than without a fault.
const MORE: usize = 3;

const REFUSALS: [&str; 11] =
    ["401", "403", "404", "409", "429", "429 later", "500", "502 page", "503", "closed", "refused"];
/// So long nobody listens: longer than until the program's second try.
const AWAY: u64 = 900;
/// So many calls come together, at most.
const BESIDE: usize = 4;
const OTHERS: [&str; 4] = ["reply lost", "hang before", "hang after", "truncated"];

fn fault(kind: &str) -> Fault {
    match kind {
        "429 later" => Fault::retry_after(429, 1),
        "502 page" => Fault::Html(502),
        "closed" => Fault::Close,
        "reply lost" => Fault::LoseReply,
        "hang before" => Fault::Hang { effect: false },
        "hang after" => Fault::Hang { effect: true },
        "truncated" => Fault::Truncate,
        status => Fault::refuse(status.parse().expect("a status")),
    }
}

/// All kinds, or of each call the two that the normal run owes it and sometimes a third.
fn kinds(mode: Mode, call: &Call) -> Vec<&'static str> {
    if cases::all() {
        return REFUSALS.iter().chain(&OTHERS).copied().collect();
    }
    let lot = cases::lot(&format!("{mode:?} {}", call.n));
    let mut kinds = vec!["reply lost", REFUSALS[lot % REFUSALS.len()]];
    if call.effect && (lot / 16).is_multiple_of(4) {
        kinds.push(OTHERS[1 + lot / 32 % 3]);
    }
    kinds
}

fn one(mode: Mode, n: usize, kind: &str) -> Result<String, String> {
    // Under load a deploy may be over sooner than in the clean run, and the rotation shorter by a
    // look at it.
    for _ in 0..5 {
        let scene = Scene::calm(mode);
        scene.fake.fault(n, fault(kind));
        let ended = scene.run_until_well(mode.jobs() + MORE);
        let Some(at) = scene.fake.faults_hit()[0].hit else { continue };
        let hit = scene.fake.log()[at - 1].n == Some(n);
        return told(
            &scene,
            mode,
            if hit { ended } else { Err("the fault hit another call".to_owned()) },
        );
    }
    Err(format!("call {n} never came"))
}

/// Nobody listens when the call comes: not since the call before, or, where some come together,
/// since the one before those.
fn refused(mode: Mode, n: usize) -> Result<String, String> {
    for before in (n - BESIDE..n).rev().chain(n - BESIDE..n) {
        let scene = Scene::calm(mode);
        scene.fake.tune(|knobs| knobs.close_connections = true);
        scene.fake.fault(before, Fault::ThenRefuse { ms: AWAY });
        let ended = scene.run_until_well(mode.jobs() + MORE);
        let log = scene.fake.log();
        let Some(away) = scene.fake.faults_hit()[0].hit.map(|hit| log[hit - 1].at) else {
            continue;
        };
        let came = log.iter().find(|entry| entry.n == Some(n)).map_or(away, |entry| entry.at);
        if came >= away + i64::try_from(AWAY).unwrap_or_default() {
            return told(&scene, mode, ended);
        }
        ended.map_err(|why| scene.told(&why))?;
    }
    Err(format!("call {n} was never refused"))
}

fn told(scene: &Scene, mode: Mode, ended: Result<usize, String>) -> Result<String, String> {
    let checked = ended.and_then(|jobs| scene.check().map(|()| jobs));
    checked
        .map(|jobs| format!("took {} more jobs", jobs.saturating_sub(mode.jobs())))
        .map_err(|why| scene.told(&why))
}

fn of(mode: Mode) {
    let calls = clean_calls(mode);
    let mut list = Vec::new();
    for call in calls {
        for kind in kinds(mode, call) {
            let n = call.n;
            // That nobody listens from the start is told by transcripts.
            if kind == "refused" && n <= BESIDE {
                continue;
            }
            let case =
                move || if kind == "refused" { refused(mode, n) } else { one(mode, n, kind) };
            list.push(Case::new(
                format!("{mode:?} call {n} ({} {}) {kind}", call.action, call.what),
                case,
            ));
        }
    }
    // Those that wait for minutes first.
    list.sort_by_key(|case| !case.name.contains("POST /projects/:id/pipeline"));
    cases::run(&format!("{mode:?}, a fault at each of {} calls", calls.len()), list);
}

#[test]
fn whatever_happens_to_any_call_the_rotation_ends_well() {
    std::thread::scope(|scope| {
        let threads = MODES.map(|mode| scope.spawn(move || of(mode)));
        let failed = threads.into_iter().filter_map(|thread| thread.join().err()).count();
        assert_eq!(failed, 0, "rotations of {failed} kinds did not always end well");
    });
}
