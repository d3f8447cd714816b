//! `credential-rotator`: logs, configuration, one run, its exit code.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Context;
use credential_rotator::config::Config;
use credential_rotator::error::{Error, exit};
use credential_rotator::outcome::End;
use credential_rotator::report;
use credential_rotator::run::rotate;
use credential_rotator::shutdown::Shutdown;
use secrecy::SecretString;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let code = match (arguments.next(), arguments.next()) {
        (None, _) => run().unwrap_or_else(|error| {
            // Not with Debug: a backtrace helps nobody at four in the morning.
            eprintln!(
                "error: {error:#}\nstate: nothing was changed; keys and variables are as \
                 they were before this run\nhint: this machine lacks something that every process \
                 needs; run again elsewhere"
            );
            exit::FAILED
        }),
        (Some(help), None) if help == "--help" => say(&Config::help()),
        (Some(version), None) if version == "--version" => {
            say(concat!("credential-rotator ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        _ => {
            eprint!(
                "error: the only arguments are --help and --version\nstate: nothing was \
                 changed\nhint: everything is configured by environment variables: --help\n"
            );
            exit::CONFIGURATION
        }
    };
    ExitCode::from(code)
}

fn run() -> anyhow::Result<u8> {
    without_empty_aws_variables()?;
    // A core dump would hold secrets.
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    );
    let config = match Config::from_env(std::env::vars_os()) {
        Ok(config) => config,
        Err(errors) => return Ok(refuse(&Error::Configuration(errors))),
    };
    log(config.log);
    if let Err(error) = report::open_files(&config) {
        return Ok(refuse(&error));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(async {
        let shutdown = Shutdown::listen().context("listening for signals")?;
        let secret = std::env::var("AWS_SECRET_ACCESS_KEY")
            .ok()
            .filter(|secret| !secret.is_empty())
            .map(SecretString::from);
        let (end, report) = rotate(&config, secret, &shutdown).await;
        report.write(&config);
        let _ = report.print(&end);
        Ok(match end {
            End::Done(_) => exit::OK,
            End::Error(error) => error.exit(),
        })
    })
}

/// The SDK takes empty `AWS_*` variables literally (awslabs/aws-sdk-rust#316): the program starts
/// anew without them.
fn without_empty_aws_variables() -> anyhow::Result<()> {
    let is_empty = |name: &OsString, value: &OsString| {
        value.is_empty() && name.to_str().is_some_and(|name| name.starts_with("AWS_"))
    };
    let empty: Vec<OsString> = std::env::vars_os()
        .filter(|(name, value)| is_empty(name, value))
        .map(|(name, _)| name)
        .collect();
    if empty.is_empty() {
        return Ok(());
    }
    let mut again =
        Command::new(std::env::current_exe().context("looking for this program's file")?);
    for name in empty {
        again.env_remove(name);
    }
    Err(again.exec()).context("starting anew without the empty AWS_* variables")
}

fn log(level: LevelFilter) {
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

fn refuse(error: &Error) -> u8 {
    let lines = error.lines();
    eprintln!("error: {}\nstate: {}\nhint: {}", lines.error, error.state(None), lines.hint);
    lines.exit
}

fn say(text: &str) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    exit::OK
}
