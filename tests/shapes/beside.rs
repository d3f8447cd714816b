//! Runs cases beside each other, each in a world of its own, and names those that fail; `CASE=text` runs only those whose name has the text.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub(crate) type Case = (String, Box<dyn Fn() + Send + Sync>);

/// Most of them wait most of the time.
const BESIDE: usize = 20;

#[track_caller]
pub(crate) fn beside_each_other(cases: &[Case]) {
    let only = std::env::var("CASE").unwrap_or_default();
    let cases: Vec<&Case> = cases.iter().filter(|(name, _)| name.contains(&only)).collect();
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
        $crate::beside::beside_each_other(&[$((stringify!($case).to_owned(), Box::new($case) as Box<dyn Fn() + Send + Sync>)),*])
    };
}
pub(crate) use cases;
