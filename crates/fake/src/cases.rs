//! Cases as tests: each has a name, a filter and a result of its own.
//!
//! A test with `harness = false` makes a list of its cases and gives it to [`run`]. Cargo, and
//! cargo-nextest, then see each as a test: `cargo test NAME` runs those whose name contains the
//! text, `cargo test -- --list` lists them.

use libtest_mimic::{Arguments, Conclusion, Failed};

pub use libtest_mimic::Trial;

/// `cases![one, other]`: functions without arguments, as tests of their module and name.
#[macro_export]
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        vec![$($crate::cases::case(module_path!(), stringify!($case), $case)),*]
    };
}

/// A case that fails by a panic. `module` is the caller's `module_path!()`.
pub fn case(module: &str, name: &str, act: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(full_name(module, name), || {
        act();
        Ok(())
    })
}

/// A case that returns why it failed.
pub fn fallible(
    module: &str,
    name: &str,
    act: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Trial {
    Trial::test(full_name(module, name), || act().map_err(Failed::from))
}

/// The same case for each of several things.
pub fn for_each<T: Send + Copy + 'static>(
    module: &str,
    name: &str,
    things: &[(&str, T)],
    act: fn(T),
) -> Vec<Trial> {
    let one = |(of, thing): &(&str, T)| {
        let thing = *thing;
        case(module, &format!("{name}: {of}"), move || act(thing))
    };
    things.iter().map(one).collect()
}

/// Without the name of the test, which cargo says anyway.
fn full_name(module: &str, name: &str) -> String {
    module.split_once("::").map_or_else(|| name.to_owned(), |(_, path)| format!("{path}::{name}"))
}

/// Runs the cases that the command line asks for, with the program at `program`. Most cases wait
/// most of the time, so `beside` of them run at once unless the command line says how many.
pub fn run(
    program: &'static str,
    beside: usize,
    groups: impl IntoIterator<Item = Vec<Trial>>,
) -> Conclusion {
    crate::run::use_program(program);
    let cases: Vec<Trial> = groups.into_iter().flatten().collect();
    let mut names: Vec<&str> = cases.iter().map(Trial::name).collect();
    names.sort_unstable();
    let twice: Vec<&[&str]> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty(), "two cases have the same name: {twice:?}");
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(beside);
    libtest_mimic::run(&arguments, cases)
}
