//! The calls of a rotation to which nothing happens, for each mode: what the cases are made of.
//!
//! The list of tests follows from them, so they must be known before the first test runs, and for
//! `--list` too. The clean runs take some ten seconds, and cargo-nextest starts this file once for
//! each test, so their calls are kept in cargo's folder for files of tests, for as long as the
//! program and this file are the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::thread;
use std::time::SystemTime;

use fake::Entry;
use serde::{Deserialize, Serialize};

use crate::scene::{MODES, Mode, Scene};

const FILE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/clean-calls.json");

/// One call of a clean rotation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) n: usize,
    /// Of those with the same action it is this one, from 1.
    pub(crate) nth: usize,
    pub(crate) action: String,
    pub(crate) what: String,
    pub(crate) effect: bool,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    of: String,
    calls: BTreeMap<String, Vec<Call>>,
}

pub(crate) fn clean_calls(mode: Mode) -> &'static [Call] {
    static CLEAN: LazyLock<BTreeMap<String, Vec<Call>>> = LazyLock::new(kept_or_made);
    &CLEAN[&format!("{mode:?}")]
}

fn kept_or_made() -> BTreeMap<String, Vec<Call>> {
    let of = [fake::program(), &std::env::args().next().unwrap_or_default()].map(stamp).concat();
    let kept = std::fs::read(FILE).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok());
    if let Some(kept) = kept.filter(|kept| kept.of == of) {
        return kept.calls;
    }
    let calls = thread::scope(|scope| {
        let threads = MODES.map(|mode| scope.spawn(move || (format!("{mode:?}"), shorter(mode))));
        threads.map(|thread| thread.join().expect("a clean rotation ends well")).into()
    });
    let kept = Kept { of, calls };
    // Whole or not at all: several processes may do this at once.
    let part = format!("{FILE}.{}", std::process::id());
    std::fs::write(&part, serde_json::to_vec(&kept).expect("plain data is JSON"))
        .and_then(|()| std::fs::rename(&part, FILE))
        .expect("cargo's folder for files of tests");
    kept.calls
}

/// When a file was written, and how long it is.
fn stamp(path: &str) -> String {
    let file = Path::new(path).metadata().expect("a file that is there");
    let since = file.modified().map(|time| time.duration_since(SystemTime::UNIX_EPOCH));
    format!("{path} {since:?} {}\n", file.len())
}

/// The shorter of two, for a busy machine may look once more at a deploy.
fn shorter(mode: Mode) -> Vec<Call> {
    let (one, other) = (clean_run(mode), clean_run(mode));
    if one.len() <= other.len() { one } else { other }
}

fn clean_run(mode: Mode) -> Vec<Call> {
    let scene = Scene::calm(mode);
    let jobs = scene.run_until_well(mode.jobs()).and_then(|jobs| scene.check().map(|()| jobs));
    assert_eq!(
        jobs,
        Ok(mode.jobs()),
        "{}",
        scene.told("a rotation to which nothing happens does not end well")
    );
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut call = |Entry { n, action, what, effect, service, .. }: Entry| {
        let n = n?;
        let nth = seen.entry(action.clone()).or_default();
        *nth += 1;
        let what = without_the_random_part(&what);
        Some(Call { n, nth: *nth, action, what, effect: effect && service != "sts" })
    };
    scene.fake.log().into_iter().filter_map(&mut call).collect()
}

/// A record's name ends at random, and the name of a test should not.
fn without_the_random_part(what: &str) -> String {
    match what.split_once('@') {
        Some((name, scope)) if name.starts_with("CREDENTIAL_ROTATOR_") => {
            format!("{}@{scope}", name.rsplit_once('_').map_or(name, |(name, _)| name))
        }
        _ => what.to_owned(),
    }
}
