//! TLS and proxies: whose certificates are trusted, what is said where they are not, and the way through a CONNECT proxy.
//!
//! Certificates are made here, the world speaks TLS behind a front of this test, and the proxy is a thread on loopback.

mod run;
mod world;

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
