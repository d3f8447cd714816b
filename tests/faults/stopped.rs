//! SIGTERM and SIGINT at every call, and a job that has too little time left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::calls::{Call, clean_calls};
use crate::sample;
use crate::scene::{Aim, MODES, Mode, Scene, holds};
use fake::{Ended, Fault, ID, SECRET, Trial, USER, fallible};

/// The runner kills what still runs then.
const RUNNERS_PATIENCE: Duration = Duration::from_secs(10);
/// Where nothing has to be put in order: one write of the record, which may need a second try, on a
/// machine that is busy.
const AT_ONCE: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// The signal comes while the call is under way; the reply follows.
    Meanwhile,
    /// The call has no effect and no reply.
    Before,
    /// The call has its effect and no reply.
    After,
    /// The call has its effect and is never answered.
    Hangs,
}

fn signal(sign: i32) -> Signal {
    if sign == 15 { Signal::TERM } else { Signal::INT }
}

fn one(mode: Mode, n: usize, way: Way, sign: i32, critical: bool) -> Result<(), String> {
    for _ in 0..5 {
        let scene = Scene::calm(mode);
        let Some((ended, since)) = stop(&scene, n, way, sign) else { continue };
        return check(&scene, &ended, since, n, way, sign, critical)
            .map_err(|why| scene.told(&why));
    }
    Err(format!("call {n} never came"))
}

/// One run that is told to stop at call `n`, and how long it took to end then.
fn stop(scene: &Scene, n: usize, way: Way, sign: i32) -> Option<(Ended, Duration)> {
    let (aim, over) = (Aim::default(), Arc::new(AtomicBool::new(false)));
    let told: Arc<Mutex<Option<Instant>>> = Arc::default();
    let fire = {
        let (aim, told) = (aim.clone(), Arc::clone(&told));
        move || {
            told.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
            aim.fire(signal(sign));
        }
    };
    match way {
        Way::Before => scene.fake.fault(n, Fault::KillBefore),
        Way::After => scene.fake.fault(n, Fault::KillAfter),
        Way::Hangs => scene.fake.fault(n, Fault::Hang { effect: true }),
        // A reply takes as long as the watcher needs to see the call.
        Way::Meanwhile => scene.fake.tune(|knobs| knobs.delay_ms = 60),
    }
    let watcher = if matches!(way, Way::Meanwhile | Way::Hangs) {
        let (fake, over) = (scene.fake.clone(), Arc::clone(&over));
        Some(thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                if fake.calls() >= n {
                    return fire();
                }
                thread::sleep(Duration::from_millis(2));
            }
        }))
    } else {
        scene.fake.on_kill(fire);
        None
    };
    let job = scene.fixture.new_job();
    let mut run = scene.job(job);
    if way == Way::Hangs {
        run = run.set("ROTATOR_HTTP_TIMEOUT", "30s");
    }
    let running = run.start();
    aim.at(&running);
    let ended = running.wait();
    over.store(true, Ordering::SeqCst);
    let watched = watcher.map(thread::JoinHandle::join);
    assert!(watched.is_none_or(|watched| watched.is_ok()), "the watcher panicked");
    scene.ended_long_ago(job, &ended);
    scene.fake.tune(|knobs| knobs.delay_ms = 0);
    scene.keep(&ended);
    let told = *told.lock().unwrap_or_else(PoisonError::into_inner);
    told.map(|told| (ended.at.saturating_duration_since(told), ended))
        .map(|(since, ended)| (ended, since))
}

fn check(
    scene: &Scene,
    ended: &Ended,
    since: Duration,
    n: usize,
    way: Way,
    sign: i32,
    critical: bool,
) -> Result<(), String> {
    holds(ended)?;
    let late = ended.is_done() && scene.is_finished();
    // A call that failed without the signal's doing is what the run tells of.
    let failed = ended.code == 1 && way != Way::Meanwhile && critical;
    if ended.code != 128 + sign && !late && !failed {
        return Err(format!("told to stop, the run ended with {}", ended.code));
    }
    let most = if critical { RUNNERS_PATIENCE } else { AT_ONCE };
    if since > most {
        return Err(format!("told to stop, the run went on for {:.1} s", since.as_secs_f64()));
    }
    scene.clean()?;
    // A creation, or a first write of the secret, whose end is not known is the next run's;
    // whatever else was made is published or gone, and no pair is torn.
    let hit = scene
        .fake
        .log()
        .into_iter()
        .find(|entry| entry.n == Some(n))
        .ok_or("the call never came")?;
    let unclear = way != Way::Meanwhile
        && (hit.action == "iam:CreateAccessKey"
            || hit.action.starts_with("POST") && hit.what.starts_with(SECRET));
    if way == Way::Hangs && !scene.records().iter().any(|record| record.value.contains("\"ends\""))
    {
        return Err(
            "the record was released, though what was asked of IAM may still come".to_owned()
        );
    }
    let keys = scene.fake.keys(USER);
    let mut named = Vec::new();
    for home in scene.mode.targets() {
        let value =
            |name: &str| scene.fake.variable(home, name, "*").map(|variable| variable.value);
        let whole = match (value(ID), value(SECRET)) {
            (Some(id), Some(secret)) => {
                named.push(id.clone());
                keys.iter().any(|key| key.id == id && key.secret == secret && key.active)
            }
            (None, None) => true,
            _ => false,
        };
        if !whole {
            return Err(format!("the pair of {home} is torn"));
        }
    }
    let old = &scene.fixture.old.id;
    let orphan = keys.iter().find(|key| !named.contains(&key.id) && key.id != *old);
    if let Some(orphan) = orphan.filter(|_| !unclear) {
        return Err(format!("key {} was left behind", orphan.id));
    }
    let further = 2 + scene.mode.jobs() - 1;
    scene.run_until_well(further)?;
    scene.check()
}

/// A run that is told to stop leaves nothing half done.
pub(crate) fn cases() -> Vec<Trial> {
    let mut cases: Vec<Trial> = MODES.into_iter().flat_map(list).collect();
    cases.extend(MODES.map(|mode| {
        let name = format!("{mode:?} too little time");
        fallible(module_path!(), &name, move || too_little_time(mode))
    }));
    cases
}

fn list(mode: Mode) -> Vec<Trial> {
    let calls = clean_calls(mode);
    let create =
        calls.iter().find(|call| call.action == "iam:CreateAccessKey").map_or(0, |call| call.n);
    let pair = |call: &&Call| call.effect && call.what.starts_with("AWS_");
    let published = calls.iter().rfind(pair).map_or(0, |call| call.n);
    // The first of the jobs only, and not its last write, after which there is nothing to stop.
    let second =
        calls.iter().filter(|call| call.action == "GET /personal_access_tokens/self").nth(1);
    let last = second.map_or(calls.len(), |second| {
        calls.iter().take_while(|call| call.n + 3 < second.n).count()
    });
    let mut list = Vec::new();
    for call in &calls[..last] {
        let critical = (create..=published).contains(&call.n);
        let lot = sample::lot(&format!("stop {mode:?} {}", call.n));
        let ways = match (sample::all() || (mode == Mode::Own && critical), critical || call.effect)
        {
            (true, _) => vec![Way::Meanwhile, Way::Before, Way::After],
            (false, true) => vec![Way::Meanwhile, [Way::Before, Way::After][lot % 2]],
            (false, false) => [Way::Meanwhile, Way::Before, Way::After]
                .into_iter()
                .filter(|_| mode == Mode::Own)
                .skip(lot % 3)
                .take(1)
                .collect(),
        };
        let mut ways: Vec<Way> =
            if sample::all() || matches!(mode, Mode::Own | Mode::Two | Mode::Setup) {
                ways
            } else {
                vec![]
            };
        if call.n == create {
            ways.push(Way::Hangs);
        }
        for way in ways {
            let (n, sign) = (call.n, if (lot / 8).is_multiple_of(2) { 15 } else { 2 });
            let name = format!(
                "{mode:?} signal {sign} at call {n} ({} {}), {way:?}",
                call.action, call.what
            );
            list.push(fallible(module_path!(), &name, move || one(mode, n, way, sign, critical)));
        }
    }
    list
}

fn too_little_time(mode: Mode) -> Result<(), String> {
    let scene = Scene::calm(mode);
    let short = || {
        let job = scene.fixture.new_job();
        let started = fake::iso(scene.fake.now() - (3600 - 240) * 1000);
        let ended = scene.job(job).set("CI_JOB_STARTED_AT", &started).start().wait();
        scene.ended_long_ago(job, &ended);
        scene.keep(&ended);
        holds(&ended)?;
        if ended.code != 1 || scene.creations() > 0 || !scene.records().is_empty() {
            return Err(format!(
                "with too little time left the run ended with {} after {} creations",
                ended.code,
                scene.creations()
            ));
        }
        scene.run_until_well(mode.jobs())?;
        scene.check()
    };
    short().map_err(|why| scene.told(&why))
}
