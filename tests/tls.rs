//! TLS and proxies: whose certificates are trusted, what is said where they are not, and the way
//! through a CONNECT proxy.
//!
//! Certificates are made here, the fake speaks TLS behind a front of this test, and the proxy is a
//! thread on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "shapes/beside.rs"]
mod beside;
#[path = "tls/certificates.rs"]
mod certificates;
#[path = "tls/front.rs"]
mod front;
#[path = "tls/proxies.rs"]
mod proxies;
#[path = "tls/trust.rs"]
mod trust;

/// One test, for its cases run beside each other; those that fail are named.
#[test]
fn tls_and_proxies_are_as_the_environment_says() {
    fake::run::use_program(env!("CARGO_BIN_EXE_credential-rotator"));
    beside::beside_each_other(&[
        trust::only_certificates_of_known_authorities_are_trusted(),
        proxies::a_proxy_is_used_as_its_variables_say(),
    ]);
}
