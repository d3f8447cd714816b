//! `credential-rotator`: its arguments, its configuration, one run, its exit code.

// The type of a whole run, future in future, is deeper than the compiler's default.
#![recursion_limit = "256"]

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use credential_rotator::config::Config;
use credential_rotator::error::{Error, exit};
use credential_rotator::outcome::state_without_observation;
use credential_rotator::run::rotate;
use credential_rotator::shutdown::Shutdown;
use credential_rotator::{process, report};
use secrecy::SecretString;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let code = match (arguments.next(), arguments.next()) {
        (None, _) => run().unwrap_or_else(|error| {
            // Without a backtrace, which would not help the operator.
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
            report::remove_earlier_files();
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
    report::remove_earlier_files();
    process::prepare()?;
    let config = match Config::from_env(std::env::vars_os()) {
        Ok(config) => config,
        Err(errors) => return Ok(refuse(&Error::Configuration(errors))),
    };
    process::log(config.log);
    if let Err(error) = report::check_files(&config) {
        return Ok(refuse(&error));
    }
    let secret = std::env::var("AWS_SECRET_ACCESS_KEY").ok().filter(|secret| !secret.is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the runtime")?.block_on(async {
        let shutdown = Shutdown::listen().context("listening for signals")?;
        let (end, report) = rotate(&config, secret.map(SecretString::from), &shutdown).await;
        report.write(&config);
        let _ = report.print(&end);
        Ok(report.exit_code(&end))
    })
}

fn refuse(error: &Error) -> u8 {
    let state = state_without_observation(error);
    eprintln!("error: {error}\nstate: {state}\nhint: {}", error.hint());
    error.exit_code()
}

fn say(text: &str) -> u8 {
    let _ = std::io::stdout().write_all(text.as_bytes());
    exit::OK
}
