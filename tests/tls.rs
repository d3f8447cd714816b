//! TLS and proxies: whose certificates are trusted, what is said where they are not, and the way
//! through a CONNECT proxy.
//!
//! Certificates are made here, the fake speaks TLS behind a front of this test, and the proxy is a
//! thread on loopback.
//!
//! Each case is a test: `cargo test --test tls NAME` runs those whose name contains the text.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/front.rs"]
mod front;
#[path = "tls/proxies.rs"]
mod proxies;
#[path = "tls/trust.rs"]
mod trust;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [trust::cases(), proxies::cases()];
    fake::cases::run(env!("CARGO_BIN_EXE_credential-rotator"), 24, cases).exit_code()
}
