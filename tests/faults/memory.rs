//! Replies without an end, and lists without a last page: a run reads no more than a limit and
//! ends with an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::scene::{Mode, Scene, holds};
use fake::{Ended, Fault, Trial, fallible};

/// Above what a run without a fault takes. A list may take 64 MiB of text, and what was read of it
/// as much again.
const REPLY: u64 = 120_000;
const LIST: u64 = 300_000;

/// The largest resident set of a run, in KiB, as the kernel counts it.
fn run(scene: &Scene) -> (Ended, u64) {
    let running = scene.job(scene.fixture.new_job()).start();
    let (peak, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let watcher = {
        let (peak, over, status) = (
            Arc::clone(&peak),
            Arc::clone(&over),
            format!("/proc/{}/status", running.pid().as_raw_nonzero()),
        );
        thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                let text = std::fs::read_to_string(&status).unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
                peak.fetch_max(kib.unwrap_or_default(), Ordering::SeqCst);
                thread::sleep(Duration::from_millis(3));
            }
        })
    };
    let ended = running.wait();
    over.store(true, Ordering::SeqCst);
    watcher.join().expect("the watcher ends");
    (ended, peak.load(Ordering::SeqCst))
}

fn one(mode: Mode, action: &str, fault: Fault, most: u64) -> Result<(), String> {
    let ordinary = run(&Scene::calm(mode)).1;
    let scene = Scene::calm(mode);
    scene.fake.fault_from(action, 1, fault);
    let go = || {
        let (ended, peak) = run(&scene);
        scene.keep(&ended);
        holds(&ended)?;
        if scene.fake.faults_hit()[0].hit.is_none() {
            return Err(format!("{action} was never asked"));
        }
        if ![1, 3].contains(&ended.code) {
            return Err(format!("the run ended with {}", ended.code));
        }
        if ordinary == 0 || peak > ordinary + most {
            return Err(format!("the run took {peak} KiB, one without a fault {ordinary}"));
        }
        scene.clean()
    };
    go().map_err(|why| scene.told(&why))
}

/// A page of a hundred variables.
fn page(value: &str) -> Fault {
    let variable = |n: usize| serde_json::json!({ "key": format!("V{n}"), "value": value, "environment_scope": "*" });
    let body = serde_json::Value::from_iter((0..100).map(variable)).to_string();
    Fault::Refuse {
        status: 200,
        body,
        headers: vec![("content-type".into(), "application/json".into())],
    }
}

/// No reply takes more memory than it may.
pub(crate) fn cases() -> Vec<Trial> {
    let mut cases = Vec::new();
    let endless = [
        (Mode::Own, "GET /projects/:id/variables"),
        (Mode::Own, "GET /personal_access_tokens/self"),
        (Mode::Own, "PUT /projects/:id/variables/:key"),
        (Mode::Own, "POST /projects/:id/variables"),
        (Mode::Own, "iam:ListAccessKeys"),
        (Mode::Own, "sts:GetCallerIdentity"),
        (Mode::Own, "iam:CreateAccessKey"),
        (Mode::Role, "sts:AssumeRoleWithWebIdentity"),
    ];
    for (mode, action) in endless {
        for text in ["[{\"key\":\"", "<Response><Item>", "x"] {
            let name = format!("{action}: endless {text}");
            cases.push(fallible(module_path!(), &name, move || {
                one(mode, action, Fault::Endless(text), REPLY)
            }));
        }
    }
    for (name, length) in [("short", 1), ("long", 10_000)] {
        let action = "GET /projects/:id/variables";
        let name = format!("{action}: endless pages of {name} values");
        cases.push(fallible(module_path!(), &name, move || {
            one(Mode::Own, action, page(&"x".repeat(length)), LIST)
        }));
    }
    cases
}
