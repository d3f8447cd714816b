//! Any environment is read or reported, and no error shows a secret.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use credential_rotator::config::{Config, VARIABLES};
use libfuzzer_sys::fuzz_target;

const TOKEN: &str = "glpat-the-token-of-this-run";
const OTHERS: [&str; 14] = [
    "CI_API_V4_URL",
    "CI_PROJECT_ID",
    "CI_PROJECT_PATH",
    "CI_JOB_ID",
    "CI_JOB_STARTED_AT",
    "CI_JOB_TIMEOUT",
    "CI_PIPELINE_CREATED_AT",
    "CI_PIPELINE_ID",
    "CI_COMMIT_BRANCH",
    "CI_COMMIT_REF_PROTECTED",
    "AWS_ACCESS_KEY_ID",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "ROTATOR_UNKNOWN",
];

// Lines: the first byte chooses the name, the rest is the value.
fuzz_target!(|bytes: &[u8]| {
    let names: Vec<&str> = VARIABLES.iter().map(|row| row.name).chain(OTHERS).collect();
    let line = |line: &[u8]| {
        let (name, value) = line.split_first()?;
        Some((
            OsString::from(names[usize::from(*name) % names.len()]),
            OsString::from_vec(value.to_vec()),
        ))
    };
    let given = bytes.split(|byte| *byte == b'\n').filter_map(line);
    let token = [("ROTATOR_GITLAB_TOKEN", TOKEN), ("CI_PROJECT_ID", "42")]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match Config::from_env(token.into_iter().chain(given)) {
        Ok(config) => assert!(!format!("{config:?}").contains(TOKEN)),
        Err(errors) => {
            assert!(!errors.0.is_empty());
            assert!(!errors.to_string().contains(TOKEN));
        }
    }
});
