//! The process is killed right before and right after the effect of every call; then new jobs
//! follow.

use rustix::process::Signal;

use crate::calls::{Call, clean_calls};
use crate::sample;
use crate::scene::{Aim, MODES, Mode, Scene, holds};
use fake::{Ended, Entry, Fault, PROJECT, Trial, fallible};

/// So many more jobs may follow the one that was killed.
const FURTHER: usize = 2;

/// So long a run counts as alive after its job, and so much of it is left to wait for, in
/// milliseconds.
const AFTERLIFE: i64 = 120_000;
const WAITED_FOR: i64 = 3_000;

/// What GitLab knows of the job that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    LongAgo,
    JustNow,
    /// It says that it still runs.
    Running,
    /// It does not show jobs to this token.
    Hidden,
    /// The run was no job.
    NoJob,
}

/// A job that dies at this call; what it left is what the case goes on with. None where the call
/// never came.
fn crash(scene: &Scene, call: &Call, before: bool, job: bool) -> Option<(u64, Ended)> {
    let aim = Aim::default();
    let fault = if before { Fault::KillBefore } else { Fault::KillAfter };
    // How often a deploy is looked at depends on how fast the machine is; what is written does not.
    if call.effect {
        scene.fake.fault_on(&call.action, call.nth, fault);
    } else {
        scene.fake.fault(call.n, fault);
    }
    let shot = aim.clone();
    scene.fake.on_kill(move || shot.fire(Signal::KILL));
    loop {
        let id = scene.fixture.new_job();
        let mut run = scene.job(id);
        if !job {
            run =
                run.unset_all(|name| name.starts_with("CI_JOB") || name.starts_with("CI_PIPELINE"));
            scene.fake.remove_job(id);
        }
        let running = run.start();
        aim.at(&running);
        let ended = running.wait();
        scene.keep(&ended);
        let hit = scene.fake.faults_hit()[0].hit;
        if hit.is_some() || ended.code != 0 || scene.is_finished() {
            return hit.map(|_| (id, ended));
        }
        // The rotation takes several jobs, and a later one is to die.
        scene.ended_long_ago(id, &ended);
        std::thread::sleep(crate::scene::NIGHT);
    }
}

fn one(mode: Mode, call: &Call, before: bool, known: Known) -> Result<(), String> {
    for _ in 0..5 {
        let scene = Scene::calm(mode);
        if known == Known::Hidden {
            scene.fake.hide_jobs(PROJECT, true);
        }
        let Some((job, ended)) = crash(&scene, call, before, known != Known::NoJob) else {
            continue;
        };
        return go_on(&scene, job, &ended, known).map_err(|why| scene.told(&why));
    }
    Err(format!("call {} never came", call.n))
}

fn go_on(scene: &Scene, job: u64, ended: &Ended, known: Known) -> Result<(), String> {
    if ended.code != -9 {
        return Err(format!("the process was to be killed and ended with {}", ended.code));
    }
    let claimed = scene.records().iter().any(|record| record.value.contains("\"ends\""));
    if known == Known::LongAgo {
        scene.ended_long_ago(job, ended);
    }
    if known == Known::JustNow {
        let until = scene.fake.now() + WAITED_FOR;
        let before = until - AFTERLIFE;
        scene.fake.add_job_at(PROJECT, job, ended.status(), Some(before), Some(before));
        let next = scene.run();
        holds(&next)?;
        if next.code == 5 {
            return Err("a run that is over is not waited for".to_owned());
        }
        let is_early = |entry: &&Entry| entry.at < until - 1000 && is_foreign_effect(entry);
        if let Some(entry) = next.log.iter().filter(|_| claimed).find(is_early) {
            return Err(format!(
                "acts before the other run is over: {} {}",
                entry.action, entry.what
            ));
        }
    }
    // Whoever may still be at work is not disturbed, and is not waited for.
    if claimed && ![Known::LongAgo, Known::JustNow].contains(&known) {
        // Dates are whole seconds: what lies on the edge would only be waited for.
        std::thread::sleep(crate::scene::NIGHT);
        let before = scene.fake.log().len();
        let busy = scene.run();
        holds(&busy)?;
        if busy.code != 5 {
            return Err(format!("beside a run that may be alive a job ended with {}", busy.code));
        }
        if let Some(entry) =
            scene.fake.log()[before..].iter().find(|entry| is_foreign_effect(entry))
        {
            return Err(format!(
                "beside a run that may be alive a job did {} {}",
                entry.action, entry.what
            ));
        }
        match known {
            Known::Running => scene.ended_long_ago(job, ended),
            Known::Hidden | Known::NoJob => scene.let_promises_pass(),
            Known::LongAgo | Known::JustNow => {}
        }
    }
    let further = FURTHER + scene.mode.jobs() - 1;
    scene.run_until_well(further)?;
    scene.check()
}

/// What a call changes besides the caller's own record.
fn is_foreign_effect(entry: &Entry) -> bool {
    let own = entry.what.starts_with("CREDENTIAL_ROTATOR_");
    entry.n.is_some() && entry.effect && entry.service != "sts" && !own
}

/// In the normal run a write dies after its effect, in half of the rotations before it too (which
/// is nearly the same as after the write before), and a quarter of the calls that change nothing
/// once.
fn ways(mode: Mode, call: &Call) -> Vec<bool> {
    let lot = sample::lot(&format!("crash {mode:?} {}", call.n));
    match (call.effect, sample::all()) {
        (_, true) => vec![true, false],
        (true, false) if [Mode::Own, Mode::Two, Mode::Setup].contains(&mode) => vec![true, false],
        (true, false) => vec![false],
        (false, false) if lot.is_multiple_of(4) => vec![(lot / 4).is_multiple_of(2)],
        (false, false) => vec![],
    }
}

/// Whenever a run is killed, two more jobs end well.
pub(crate) fn cases() -> Vec<Trial> {
    MODES.into_iter().flat_map(list).collect()
}

fn list(mode: Mode) -> Vec<Trial> {
    let mut list = Vec::new();
    let mut add = |call: &Call, before: bool, known: Known| {
        let (call, when) = (call.clone(), if before { "before" } else { "after" });
        let name =
            format!("{mode:?} {when} call {} ({} {}), {known:?}", call.n, call.action, call.what);
        list.push(fallible(module_path!(), &name, move || one(mode, &call, before, known)));
    };
    for call in clean_calls(mode) {
        for before in ways(mode, call) {
            add(call, before, Known::LongAgo);
        }
        // Not the first record itself: after it there is one to be respected.
        let others = [Known::JustNow, Known::Running, Known::Hidden, Known::NoJob];
        if call.effect && mode == Mode::Own {
            others.iter().for_each(|known| add(call, false, *known));
        } else if call.effect && mode != Mode::Patient && (sample::all() || call.nth % 2 == 1) {
            // A redeployment is a job, which has to be seen.
            let others = if mode == Mode::Redeploy { &others[..2] } else { &others[..] };
            add(call, false, others[call.n % others.len()]);
        }
    }
    list
}
