//! Runs cases beside each other, each in a fake of its own, and names those that fail; `CASE=text`
//! runs only those whose name has the text.

#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "not every file of tests has cases of every kind"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub(crate) type Case = (String, Box<dyn Fn() + Send + Sync>);

/// Most of them wait most of the time.
const BESIDE: usize = 24;

#[track_caller]
pub(crate) fn beside_each_other(groups: &[Vec<Case>]) {
    let only = std::env::var("CASE").unwrap_or_default();
    let cases: Vec<&Case> =
        groups.iter().flatten().filter(|(name, _)| name.contains(&only)).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..BESIDE.min(cases.len()) {
            scope.spawn(|| {
                while let Some((name, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if catch_unwind(AssertUnwindSafe(case)).is_err() {
                        failed.lock().expect("nothing panics with it").push(name.as_str());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nothing panics with it");
    assert!(failed.is_empty(), "of {} cases these failed: {}", cases.len(), failed.join("; "));
}

/// `cases![one, other]`: functions without arguments, by their names.
macro_rules! cases {
    ($($case:path),* $(,)?) => {
        vec![$((stringify!($case).to_owned(), Box::new($case) as Box<dyn Fn() + Send + Sync>)),*]
    };
}
pub(crate) use cases;

/// The same case for each of several things.
pub(crate) fn for_each<T: Send + Sync + Copy + 'static>(
    name: &str,
    things: &[(&str, T)],
    case: fn(T),
) -> Vec<Case> {
    let one = |(of, thing): &(&str, T)| {
        let thing = *thing;
        (format!("{name}: {of}"), Box::new(move || case(thing)) as Box<dyn Fn() + Send + Sync>)
    };
    things.iter().map(one).collect()
}
