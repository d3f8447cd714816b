//! Time: milliseconds since 1970, and the spellings the two services use.

use jiff::Timestamp;

pub(crate) type Millis = i64;

/// The real clock. The fake's own is this plus its shift.
pub(crate) fn wall() -> Millis {
    Timestamp::now().as_millisecond()
}

fn at(ms: Millis) -> Timestamp {
    Timestamp::from_millisecond(ms).expect("a moment within range")
}

/// GitLab: `2026-01-01T00:00:00.000Z`.
pub fn iso(ms: Millis) -> String {
    at(ms).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// IAM: `2026-01-01T00:00:00Z`.
pub(crate) fn iso_seconds(ms: Millis) -> String {
    at(ms).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// SigV4: `20260101T000000Z`.
pub(crate) fn compact(ms: Millis) -> String {
    at(ms).strftime("%Y%m%dT%H%M%SZ").to_string()
}

pub(crate) fn date(ms: Millis) -> String {
    at(ms).strftime("%Y-%m-%d").to_string()
}

/// The `Date` header.
pub fn http_date(ms: Millis) -> String {
    at(ms).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub(crate) fn parse(text: &str) -> Option<Millis> {
    text.parse::<Timestamp>().ok().map(|timestamp| timestamp.as_millisecond())
}

/// Back from SigV4's spelling.
pub(crate) fn parse_compact(text: &str) -> Option<Millis> {
    let bytes = text.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' || !text.is_ascii() {
        return None;
    }
    let (d, t) = (&text[..8], &text[9..15]);
    parse(&format!("{}-{}-{}T{}:{}:{}Z", &d[..4], &d[4..6], &d[6..], &t[..2], &t[2..4], &t[4..]))
}
