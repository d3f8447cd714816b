//! Two runs started together, in a hostile fake and without any `resource_group`: one rotates, the
//! other does nothing.

use std::thread;
use std::time::Duration;

use crate::scene::{Mode, Scene, holds};
use fake::{Fake, Running, Trial, fallible};

const PAIRS: u64 = 100;

fn mode(seed: u64) -> Mode {
    match seed % 10 {
        0..4 => Mode::Own,
        4 => Mode::Role,
        5 => Mode::Group,
        6 => Mode::Two,
        _ => Mode::Setup,
    }
}

fn one(seed: u64) -> Result<(), String> {
    let scene = Scene::of(mode(seed), Fake::builder().seed(seed).start());
    together(&scene, Duration::from_millis(seed * 37 % 400)).map_err(|why| scene.told(&why))
}

fn together(scene: &Scene, apart: Duration) -> Result<(), String> {
    let jobs = [scene.fixture.new_job(), scene.fixture.new_job()];
    let first = scene.job(jobs[0]).start();
    thread::sleep(apart);
    let second = scene.job(jobs[1]).start();
    let fake = &scene.fake;
    let end = |running: Running<'_>, job: u64| {
        let ended = running.wait();
        // GitLab knows at once that this job has ended; the other may still be at work.
        fake.job_set_status(job, ended.status());
        ended
    };
    let ended = thread::scope(|scope| {
        let second = scope.spawn(move || end(second, jobs[1]));
        [end(first, jobs[0]), second.join().expect("a run that can be waited for")]
    });
    ended.iter().for_each(|ended| scene.keep(ended));
    ended.iter().try_for_each(holds)?;
    scene.clean()?;
    if scene.creations() > 1 {
        return Err(format!("{} keys were made", scene.creations()));
    }
    for entry in scene.fake.log() {
        if ["iam:UpdateAccessKey", "iam:DeleteAccessKey"].contains(&entry.action.as_str())
            && !entry.what.contains(&scene.fixture.old.id)
        {
            return Err(format!("{} {}: that is not the old key", entry.action, entry.what));
        }
    }
    let mut codes = ended.each_ref().map(|ended| ended.code);
    codes.sort_unstable();
    let one_failed = match codes {
        [0, 0 | 5] => false,
        // The fake was too hostile for one of them; what it left is the next one's.
        [0 | 1, 1] | [1, 5] => true,
        _ => return Err(format!("the two ended with {codes:?}")),
    };
    if !one_failed && !scene.is_finished() {
        return Err("one of them should have finished the rotation".to_owned());
    }
    for (job, ended) in jobs.iter().zip(&ended) {
        scene.ended_long_ago(*job, ended);
    }
    scene.run_until_well(3)?;
    scene.check()
}

/// Of two runs started together one rotates.
pub(crate) fn cases() -> Vec<Trial> {
    let case = |seed| {
        let name = format!("pair {seed} {:?}", mode(seed));
        fallible(module_path!(), &name, move || one(seed))
    };
    (0..PAIRS).map(case).collect()
}
