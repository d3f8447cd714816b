//! Which cases a normal run takes: a sample that is always the same. `FAULTS=all` takes all.

/// Whether every case runs, not the sample only.
pub(crate) fn all() -> bool {
    std::env::var("FAULTS").is_ok_and(|value| value == "all")
}

/// A random but fixed number for a sample: the same for the same text.
pub(crate) fn lot(text: &str) -> usize {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from((hash ^ (hash >> 29)) & 0xffff_ffff).unwrap_or_default()
}
