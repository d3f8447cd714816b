//! A job that started in the second of the publication, still with the old pair. The dates that
//! the program sees are whole seconds, so it cannot tell that the job was earlier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::scene::{Mode, Scene, holds};
use fake::{JobSpec, PROJECT, Trial, fallible};

/// Longer than the rotation's own deploy and all that follows it.
const LONG_DEPLOY: i64 = 9_000;
/// The program starts at this many different parts of a second.
const PARTS: i64 = 12;

fn one(part: i64) -> Result<(), String> {
    let scene = Scene::calm(Mode::Own);
    scene.fake.tune(|knobs| (knobs.queue_ms, knobs.delay_ms) = (0, 60));
    let over = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (fake, over) = (scene.fake.clone(), Arc::clone(&over));
        thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                // One for the identity, three for the new key: with the last one's reply the pair
                // is published.
                let asked = fake
                    .log()
                    .iter()
                    .filter(|entry| entry.n.is_some() && entry.action == "sts:GetCallerIdentity")
                    .count();
                if asked >= 4 {
                    let jobs = vec![JobSpec::deploy("slow deploy", "production").ms(LONG_DEPLOY)];
                    fake.start_pipeline_with(PROJECT, "push", "main", jobs);
                    return true;
                }
                thread::sleep(Duration::from_millis(1));
            }
            false
        })
    };
    let late = scene.fake.now() % 1000;
    thread::sleep(Duration::from_millis(
        u64::try_from((part * 1000 / PARTS - late).rem_euclid(1000)).unwrap_or_default(),
    ));
    let ended = scene.run();
    over.store(true, Ordering::SeqCst);
    let go = || {
        holds(&ended)?;
        if !watcher.join().is_ok_and(|started| started) {
            return Err("the other deploy was never started".to_owned());
        }
        if !scene.fake.jobs(PROJECT).iter().any(|job| job.name == "slow deploy") {
            return Err("there is no slow deploy".to_owned());
        }
        scene.fake.finish_pipelines();
        scene.run_until_well(2)?;
        scene.check()
    };
    go().map_err(|why| scene.told(&why))
}

/// A deploy that began in the second of the publication is waited for.
pub(crate) fn cases() -> Vec<Trial> {
    let case =
        |part| fallible(module_path!(), &format!("part {part} of a second"), move || one(part));
    (0..PARTS).map(case).collect()
}
