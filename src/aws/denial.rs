//! Why AWS does not allow a call: which kind of policy stands in the way, and how.
//!
//! Read from the text of the reply, which chooses the hint and nothing else. Its forms are those of
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html>: `because no
//! KIND allows the ACTION action`, or `with an explicit deny in a KIND`, with the policy's ARN
//! behind it since 2026. Older replies name no kind.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No policy of this kind allows the call.
    NotAllowed(PolicyKind),
    /// A policy of this kind denies it explicitly.
    Forbidden(PolicyKind),
    /// AWS has found a key of the user in public and denies the user most calls.
    Quarantine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyKind {
    Identity,
    Boundary,
    ServiceControl,
    ResourceControl,
    Session,
    /// The policy of what is asked for: of a role, its trust policy.
    Resource,
    Endpoint,
    /// The reply does not say which.
    Unnamed,
}

/// As AWS writes them; the first that the text contains counts.
const NAMES: [(&str, PolicyKind); 8] = [
    ("identity-based policy", PolicyKind::Identity),
    ("permissions boundary", PolicyKind::Boundary),
    ("service control policy", PolicyKind::ServiceControl),
    ("resource control policy", PolicyKind::ResourceControl),
    ("session policy", PolicyKind::Session),
    ("resource-based policy", PolicyKind::Resource),
    ("trust policy", PolicyKind::Resource),
    ("VPC endpoint policy", PolicyKind::Endpoint),
];

/// What AWS calls the policy that it attaches to the user of a leaked key; a version follows.
const QUARANTINE: &str = ":policy/AWSCompromisedKeyQuarantine";

impl Denial {
    pub(super) fn of(text: &str) -> Self {
        // Names of users and roles stand before the reason.
        let reason_after = |words| text.rsplit_once(words).map(|(_, reason): (&str, &str)| reason);
        match (reason_after("explicit deny"), reason_after("because no ")) {
            (Some(reason), _) if reason.contains(QUARANTINE) => Self::Quarantine,
            (Some(reason), _) => Self::Forbidden(PolicyKind::of(reason)),
            (None, Some(reason)) => Self::NotAllowed(PolicyKind::of(reason)),
            (None, None) => Self::NotAllowed(PolicyKind::Unnamed),
        }
    }
}

impl PolicyKind {
    fn of(reason: &str) -> Self {
        // The policy's own name stands after the colon.
        let kind = reason.split(':').next().unwrap_or_default();
        let named = NAMES.iter().find(|(name, _)| kind.contains(name));
        named.map_or(Self::Unnamed, |(_, kind)| *kind)
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed(kind) => write!(f, "no {kind} allows it"),
            Self::Forbidden(PolicyKind::Identity) => {
                write!(f, "an {} denies it explicitly", PolicyKind::Identity)
            }
            Self::Forbidden(kind) => write!(f, "a {kind} denies it explicitly"),
            Self::Quarantine => f.write_str("AWS has put the user into quarantine"),
        }
    }
}

impl fmt::Display for PolicyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity-based policy",
            Self::Boundary => "permissions boundary",
            Self::ServiceControl => "service control policy",
            Self::ResourceControl => "resource control policy",
            Self::Session => "session policy",
            Self::Resource => "trust policy",
            Self::Endpoint => "VPC endpoint policy",
            Self::Unnamed => "policy",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_policy_is_read_from_the_reason_alone() {
        let call = "User: arn:aws:iam::1:user/session policy-explicit is not authorized to \
                    perform: iam:CreateAccessKey on resource: user permissions boundary ";
        for (reason, denial) in [
            ("", Denial::NotAllowed(PolicyKind::Unnamed)),
            ("with an explicit deny", Denial::Forbidden(PolicyKind::Unnamed)),
            (
                "because no permissions boundary allows the iam:CreateAccessKey action",
                Denial::NotAllowed(PolicyKind::Boundary),
            ),
            (
                "with an explicit deny in a service control policy: \
                 arn:aws:organizations::1:policy/o-1/service_control_policy/p-1",
                Denial::Forbidden(PolicyKind::ServiceControl),
            ),
            (
                "with an explicit deny in an identity-based policy: \
                 arn:aws:iam::1:policy/session policy",
                Denial::Forbidden(PolicyKind::Identity),
            ),
            (
                "with an explicit deny in an identity-based policy: \
                 arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3",
                Denial::Quarantine,
            ),
            (
                "because no role trust policy allows the sts:AssumeRole action",
                Denial::NotAllowed(PolicyKind::Resource),
            ),
        ] {
            assert_eq!(Denial::of(&format!("{call}{reason}")), denial, "{reason}");
        }
    }
}
