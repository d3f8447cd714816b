//! What this process does to itself before it looks at its configuration.
//!
//! It reads no setting and knows no rotation.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, setrlimit};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Forbids core dumps, which would hold secrets, and takes empty `AWS_*` variables out of the
/// environment.
///
/// # Errors
/// The program cannot be started again.
pub fn prepare() -> anyhow::Result<()> {
    // Where the limit cannot be lowered, the run is as safe as any other process there.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    without_empty_aws_variables()
}

/// The SDK takes an empty `AWS_*` variable literally (awslabs/aws-sdk-rust#316), and a process
/// cannot safely change its own environment: the program starts again without them.
fn without_empty_aws_variables() -> anyhow::Result<()> {
    let is_aws = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with("AWS_"));
    let empty: Vec<OsString> = std::env::vars_os()
        .filter(|(name, value)| value.is_empty() && is_aws(name))
        .map(|(name, _)| name)
        .collect();
    if empty.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe().context("looking for this program's file")?;
    let mut again = Command::new(program);
    for name in empty {
        again.env_remove(name);
    }
    Err(again.exec()).context("starting again without the empty AWS_* variables")
}

/// Logs to stderr: our own lines at this level, those of the libraries from warnings on.
pub fn log(level: LevelFilter) {
    let filter = Targets::new()
        .with_default(LevelFilter::WARN.min(level))
        .with_target("credential_rotator", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
}
