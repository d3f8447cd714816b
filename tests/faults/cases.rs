//! Many cases beside each other: a fixed number of threads, shared by all tests of this file.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// So many cases of the whole file run at once.
const BESIDE: usize = 64;
/// Of the cases that fail so many are shown whole.
const SHOWN: usize = 8;

pub(crate) struct Case {
    pub(crate) name: String,
    /// Gives a word for the statistics.
    act: Box<dyn Fn() -> Result<String, String> + Send + Sync>,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        act: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), act: Box::new(act) }
    }
}

/// Whether every case runs, not the sample only.
pub(crate) fn all() -> bool {
    std::env::var("FAULTS").is_ok_and(|value| value == "all")
}

/// A random but fixed number for a sample: the same for the same text.
pub(crate) fn lot(text: &str) -> usize {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from((hash ^ (hash >> 29)) & 0xffff_ffff).unwrap_or_default()
}

/// Runs the cases, prints how many there were, and names those that fail.
#[track_caller]
pub(crate) fn run(what: &str, cases: Vec<Case>) {
    let only = std::env::var("FAULTS_ONLY").unwrap_or_default();
    let cases: Vec<Case> = cases.into_iter().filter(|case| case.name.contains(&only)).collect();
    let (count, started) = (cases.len(), Instant::now());
    let queue = Mutex::new(VecDeque::from(cases));
    let results = Mutex::new(Vec::new());
    let work = || {
        loop {
            let _seat = Seat::take();
            let Some(case) = lock(&queue).pop_front() else { return };
            let began = Instant::now();
            let ended = catch_unwind(AssertUnwindSafe(|| (case.act)()))
                .unwrap_or_else(|panic| Err(said(&*panic)));
            lock(&results).push((case.name, ended, began.elapsed()));
        }
    };
    thread::scope(|scope| {
        for _ in 0..seats().min(count) {
            scope.spawn(work);
        }
    });
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    let (mut whole, mut longest) = (Duration::ZERO, (Duration::ZERO, String::new()));
    for (name, ended, took) in results.into_inner().unwrap_or_else(PoisonError::into_inner) {
        whole += took;
        longest = longest.max((took, name.clone()));
        match ended {
            Ok(word) => *words.entry(word).or_default() += 1,
            Err(why) => failed.push((name, why)),
        }
    }
    failed.sort();
    let words: Vec<String> =
        words.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
    let (real, sum, (most, name)) = (started.elapsed().as_secs(), whole.as_secs(), longest);
    eprintln!(
        "{what}: {count} cases in {real} s ({sum} s one by one; the longest {} s: {name}), {} \
         failed; {}",
        most.as_secs(),
        failed.len(),
        words.join(", ")
    );
    for (name, why) in failed.iter().take(SHOWN) {
        eprintln!("\n--- {name}\n{why}");
    }
    let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
    assert!(
        failed.is_empty(),
        "{what}: of {count} cases {} failed:\n{}",
        failed.len(),
        names.join("\n")
    );
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    format!(
        "the case panicked: {}",
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn seats() -> usize {
    std::env::var("FAULTS_BESIDE").ok().and_then(|value| value.parse().ok()).unwrap_or(BESIDE)
}

/// One of the file's seats; cases of all its tests share them.
struct Seat;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Seat {
    fn take() -> Self {
        let taken = FREED.wait_while(lock(&TAKEN), |taken| *taken >= seats());
        *taken.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *lock(&TAKEN) -= 1;
        FREED.notify_one();
    }
}
