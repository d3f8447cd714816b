//! What both remote services share: why a host cannot be reached, dates of HTTP headers, and how far
//! clocks may be apart.

use std::fmt::Write;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A runner's clock that is further off makes signatures fail and ages wrong.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// Whether two clocks are too far apart for either to be believed.
pub fn are_apart(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).unsigned_abs() > CLOCK_TOLERANCE.unsigned_abs()
}

/// Why a host could not be reached; the sentence goes on after its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("is a name that cannot be resolved")]
    Name,
    #[error("refuses the connection")]
    Refused,
    #[error("does not answer in time")]
    TimedOut,
    #[error("shows a certificate of an unknown authority")]
    UnknownIssuer,
    #[error("shows a certificate for another name")]
    OtherName,
    #[error("shows a certificate that is not valid today")]
    Expired,
    #[error("does not speak TLS as expected")]
    Tls,
    #[error("cannot be reached through the proxy")]
    Proxy,
    #[error("cannot be reached")]
    Other,
}

impl ConnectError {
    /// Reads the whole chain of causes; the layers below have no common type to ask.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = String::new();
        let mut cause = Some(error);
        while let Some(error) = cause {
            let _ = write!(text, "{error} {error:?} ");
            cause = error.source();
        }
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        if says(&["UnknownIssuer", "CaUsedAsEndEntity"]) {
            Self::UnknownIssuer
        } else if says(&["NotValidForName"]) {
            Self::OtherName
        } else if says(&["Expired", "NotValidYet"]) {
            Self::Expired
        } else if says(&[
            "InvalidCertificate",
            "AlertReceived",
            "HandshakeFailure",
            "InvalidMessage",
            "rustls",
        ]) {
            Self::Tls
        } else if says(&["tunnel", "proxy", "Proxy"]) {
            Self::Proxy
        } else if says(&["dns error", "failed to lookup", "Name or service"]) {
            Self::Name
        } else if says(&["ConnectionRefused", "Connection refused"]) {
            Self::Refused
        } else if says(&["TimedOut", "timed out", "Elapsed", "timeout"]) {
            Self::TimedOut
        } else {
            Self::Other
        }
    }

    /// Whether trying again soon can help.
    pub fn may_pass(self) -> bool {
        match self {
            Self::Name | Self::Refused | Self::TimedOut | Self::Proxy | Self::Other => true,
            Self::UnknownIssuer | Self::OtherName | Self::Expired | Self::Tls => false,
        }
    }
}

/// How long a connection may take of what a reply may take, so that a host that never answers is
/// told from a reply that never comes.
pub fn connect_timeout(http: Duration) -> Duration {
    (http / 2).min(Duration::from_secs(10))
}

/// The date of an HTTP header. Whole seconds.
pub fn parse_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(text)
        .ok()
        .map(|date| date.timestamp())
        .filter(|date| is_plausible(*date))
}

/// Whether a date can be one of a key or a job. Sums with others fit then.
pub fn is_plausible(date: Timestamp) -> bool {
    const YEAR: i64 = 31_556_952;
    (0..7000 * YEAR).contains(&date.as_second())
}
