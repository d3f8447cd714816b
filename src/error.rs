//! What can go wrong and is recognised: one enum, made at the edges where the situation is seen.
//!
//! An error knows what failed (its `Display`), what to do about it and the exit code. It does not
//! know which keys work now: that is read off the last look, in [`crate::outcome`]. No text of a
//! reply, no secret and no full key id enters one, except in a command that a person is to copy.

use crate::aws::AwsError;
use crate::config::ConfigErrors;
use crate::fence::Fenced;
use crate::gitlab::variables::EchoField;
use crate::gitlab::{ApiError, ClientError};
use crate::net::ConnectError;
use crate::record;

mod aws;
mod blocker;
mod gitlab;
mod notice;
mod refusal;

pub use blocker::Blocker;
pub use notice::Notice;
pub use refusal::Refusal;

/// Exit codes, as the README lists them.
pub mod exit {
    pub const OK: u8 = 0;
    pub const FAILED: u8 = 1;
    pub const CONFIGURATION: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const DEPLOY: u8 = 4;
    pub const BUSY: u8 = 5;
    /// Done, and a person should look before long.
    pub const NOTICE: u8 = 6;
    pub const SIGNAL: u8 = 128;
}

/// `what` is what we were doing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the configuration has mistakes\n{0}")]
    Configuration(ConfigErrors),
    #[error("the file {path} cannot be written")]
    ReportFile { path: String, variable: &'static str },
    #[error(transparent)]
    Client(#[from] ClientError),
    /// GitLab said no, or could not be asked.
    #[error("{what}: {error}")]
    GitLab { what: String, error: ApiError },
    #[error("{what}: GitLab stored another {field} than was sent")]
    EchoDiffers { what: String, field: EchoField },
    /// A group's variable was made, or would have been, for every environment.
    #[error(
        "this GitLab keeps the variables of groups for every environment, so there can be no \
         {target}"
    )]
    NoGroupScopes { target: String },
    #[error(
        "the variable {name} (scope {}) is not a record that this version understands",
        record::SCOPE
    )]
    UnreadableRecord { name: String },
    #[error(transparent)]
    ClaimLost(Fenced),
    #[error(transparent)]
    Aws(AwsError),
    #[error("the reply to CreateAccessKey was lost, and no new key is to be seen")]
    CreateUnclear,
    #[error(
        "the reply to CreateAccessKey was lost; the key that it made is removed, by this run or \
         the next, for its secret is lost"
    )]
    CreatedOrphan,
    #[error("the job ends in {left} seconds; a rotation needs {needed}, so none was begun")]
    NoTimeLeft { needed: i64, left: i64 },
    #[error(
        "GitLab's clock is {} seconds {} AWS's, so this run disables and deletes nothing",
        seconds.unsigned_abs(),
        if *seconds < 0 { "behind" } else { "ahead of" }
    )]
    ClocksApart { seconds: i64 },
    #[error("the run was stopped by a signal")]
    Stopped { signal: i32 },
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Error {
    pub fn gitlab(what: impl Into<String>, error: ApiError) -> Self {
        match error {
            ApiError::Fenced(why) => Self::ClaimLost(why),
            error => Self::GitLab { what: what.into(), error },
        }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Configuration(_)
            | Self::ReportFile { .. }
            | Self::Client(ClientError::CaFile { .. }) => exit::CONFIGURATION,
            Self::Client(ClientError::NoRoots)
            | Self::EchoDiffers { .. }
            | Self::NoGroupScopes { .. }
            | Self::UnreadableRecord { .. } => exit::REFUSED,
            Self::GitLab { error, .. } => gitlab::exit_code(error),
            Self::Aws(error) => aws::exit_code(error),
            Self::ClaimLost(_)
            | Self::CreateUnclear
            | Self::CreatedOrphan
            | Self::NoTimeLeft { .. }
            | Self::ClocksApart { .. } => exit::FAILED,
            Self::Stopped { signal } => exit::SIGNAL + u8::try_from(*signal).unwrap_or_default(),
            Self::Refused(refusal) => refusal.exit_code(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Configuration(_) => {
                "fix the variables named above; `credential-rotator --help` lists them all".into()
            }
            Self::ReportFile { variable, .. } => format!(
                "{variable} must name a file in a directory that exists and that this user may \
                 write"
            ),
            Self::Client(ClientError::CaFile { .. }) => {
                "ROTATOR_GITLAB_CA_FILE must name a readable file with PEM certificates".into()
            }
            Self::Client(ClientError::NoRoots) => {
                "use the project's image, or install a CA bundle in this one (or name it in \
                 SSL_CERT_FILE)"
                    .into()
            }
            Self::GitLab { error, .. } => gitlab::hint(error),
            Self::EchoDiffers { .. } => {
                "look at the variable in the project's CI/CD settings: another tool may write it \
                 at the same time; then run again"
                    .into()
            }
            Self::NoGroupScopes { .. } => {
                "scopes of group variables need Premium: leave the scope out of ROTATOR_TARGETS, \
                 or publish in the projects"
                    .into()
            }
            Self::UnreadableRecord { .. } => {
                "run the version that wrote it, or, if no rotation is under way, delete that \
                 variable"
                    .into()
            }
            Self::ClaimLost(_) => AFTER_THE_FENCE.into(),
            Self::Aws(error) => aws::hint(error),
            Self::CreateUnclear => {
                "run again in a few minutes: should the key appear, that run removes it, for its \
                 secret is lost"
                    .into()
            }
            Self::CreatedOrphan => "run again".into(),
            Self::NoTimeLeft { .. } => {
                "raise the job's `timeout:` (or the runner's maximum), then run again".into()
            }
            Self::ClocksApart { .. } => {
                "run again; where it stays so, fix the time synchronisation of the GitLab server, \
                 or of the proxy that writes `Date`"
                    .into()
            }
            Self::Stopped { .. } => "run again: it goes on from here".into(),
            Self::Refused(refusal) => refusal.hint(),
        }
    }

    /// Whether GitLab or IAM surely refused: the effect did not happen.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::GitLab { error, .. } => error.is_definite(),
            Self::EchoDiffers { .. } | Self::ClaimLost(_) => false,
            Self::Configuration(_)
            | Self::ReportFile { .. }
            | Self::Client(_)
            | Self::NoGroupScopes { .. }
            | Self::UnreadableRecord { .. }
            | Self::Aws(_)
            | Self::CreateUnclear
            | Self::CreatedOrphan
            | Self::NoTimeLeft { .. }
            | Self::ClocksApart { .. }
            | Self::Stopped { .. }
            | Self::Refused(_) => true,
        }
    }
}

impl From<AwsError> for Error {
    fn from(error: AwsError) -> Self {
        match error {
            AwsError::Fenced(why) => Self::ClaimLost(why),
            error => Self::Aws(error),
        }
    }
}

/// Whichever service was asked.
const AFTER_THE_FENCE: &str = "nothing to do: the next run takes up where this one ended";

fn exit_of_connect_error(error: ConnectError) -> u8 {
    match error {
        ConnectError::Name
        | ConnectError::Refused
        | ConnectError::TimedOut
        | ConnectError::Proxy
        | ConnectError::Other => exit::FAILED,
        ConnectError::UnknownIssuer
        | ConnectError::OtherName
        | ConnectError::Expired
        | ConnectError::Tls => exit::REFUSED,
    }
}

/// `url` and `ca`: the variables that name the address and the certificates.
fn hint_for_connect_error(error: ConnectError, url: &str, ca: &str) -> String {
    match error {
        ConnectError::Name => {
            format!("check {url} and the runner's name resolution, then run again")
        }
        ConnectError::Refused | ConnectError::TimedOut | ConnectError::Other => {
            format!("check {url} and the runner's network, then run again")
        }
        ConnectError::UnknownIssuer => format!("name the authority's PEM file in {ca}"),
        ConnectError::OtherName => format!("{url} must use a name that the certificate is for"),
        ConnectError::Expired => {
            "renew the server's certificate, or fix the runner's clock".to_owned()
        }
        ConnectError::Tls => format!("check scheme and port in {url}"),
        ConnectError::Proxy => "check HTTPS_PROXY and NO_PROXY, then run again".to_owned(),
    }
}
