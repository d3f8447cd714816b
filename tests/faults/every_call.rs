//! A fault at every call, of every kind; then jobs follow until the rotation is finished.
//!
//! To add a kind of fault, add its name to `REFUSALS` or `OTHERS`, and an arm to `fault`.

use crate::calls::{Call, clean_calls};
use crate::sample;
use crate::scene::{MODES, Mode, Scene};
use fake::{Fault, Trial, fallible, refusals};

/// So many jobs more than without a fault.
const MORE: usize = 3;

const REFUSALS: [&str; 11] =
    ["401", "403", "404", "409", "429", "429 later", "500", "502 page", "503", "closed", "refused"];
/// What AWS alone says, and what passes by itself.
const OF_AWS: [&str; 4] = ["unknown key", "conflict", "replication", "unavailable"];
/// A `Date` of another week, beside a reply that is right.
const DATES: [&str; 2] = ["date ahead", "date behind"];
const WEEK: i64 = 7 * 86_400;
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
        "unknown key" => Fault::of_aws(refusals::UNKNOWN_KEY),
        "conflict" => Fault::of_aws(refusals::CONCURRENT_MODIFICATION),
        "replication" => Fault::of_aws(refusals::AWAITING_REPLICATION),
        "unavailable" => Fault::of_aws(refusals::SERVICE_UNAVAILABLE),
        "date ahead" => Fault::Misdate { seconds: WEEK },
        "date behind" => Fault::Misdate { seconds: -WEEK },
        status => Fault::refuse(status.parse().expect("a status")),
    }
}

/// All kinds, or of each call the two that the normal run owes it and sometimes a third.
fn kinds(mode: Mode, call: &Call) -> Vec<&'static str> {
    let is_aws = ["iam:", "sts:"].iter().any(|service| call.action.starts_with(service));
    let of_aws = if is_aws { &OF_AWS[..] } else { &[] };
    if sample::all() {
        return [&REFUSALS[..], &OTHERS, &DATES, of_aws].concat();
    }
    let lot = sample::lot(&format!("{mode:?} {}", call.n));
    let mut kinds = vec!["reply lost", REFUSALS[lot % REFUSALS.len()]];
    kinds.extend(of_aws.get(lot / 16 % OF_AWS.len()));
    if (lot / 32).is_multiple_of(4) {
        kinds.push(DATES[lot / 128 % DATES.len()]);
    }
    if call.effect && (lot / 16).is_multiple_of(4) {
        kinds.push(OTHERS[1 + lot / 32 % 3]);
    }
    kinds
}

fn one(mode: Mode, n: usize, kind: &str) -> Result<(), String> {
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
            if hit { ended } else { Err("the fault hit another call".to_owned()) },
        );
    }
    Err(format!("call {n} never came"))
}

/// Nobody listens when the call comes: not since the call before, or, where some come together,
/// since the one before those.
fn refused(mode: Mode, n: usize) -> Result<(), String> {
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
            return told(&scene, ended);
        }
        ended.map_err(|why| scene.told(&why))?;
    }
    Err(format!("call {n} was never refused"))
}

fn told(scene: &Scene, ended: Result<usize, String>) -> Result<(), String> {
    ended.and_then(|_| scene.check()).map_err(|why| scene.told(&why))
}

/// Whatever happens to any call, the rotation ends well.
pub(crate) fn cases() -> Vec<Trial> {
    MODES.into_iter().flat_map(of).collect()
}

fn of(mode: Mode) -> Vec<Trial> {
    let mut cases = Vec::new();
    for call in clean_calls(mode) {
        for kind in kinds(mode, call) {
            let n = call.n;
            // That nobody listens from the start is told by transcripts.
            if kind == "refused" && n <= BESIDE {
                continue;
            }
            let case =
                move || if kind == "refused" { refused(mode, n) } else { one(mode, n, kind) };
            let name = format!("{mode:?} call {n} ({} {}) {kind}", call.action, call.what);
            cases.push(fallible(module_path!(), &name, case));
        }
    }
    cases
}
