//! What AWS says where it refuses, word for word: status, code and text of its API references and of
//! public reports. For those that a policy or a switch of the fake does not bring about.

use super::state::Fault;

/// Status, code and text.
pub type AwsRefusal<'a> = (u16, &'a str, &'a str);

pub const CONCURRENT_MODIFICATION: AwsRefusal<'_> = (
    409,
    "ConcurrentModification",
    "The request was rejected because multiple requests to change this object were submitted \
     simultaneously. Wait a few minutes and submit your request again.",
);
/// <https://github.com/aws/aws-sdk-go/issues/807>
pub const AWAITING_REPLICATION: AwsRefusal<'_> = (
    409,
    "LimitExceeded",
    "Your account has a large number of updates awaiting replication, please try again later.",
);
pub const SERVICE_UNAVAILABLE: AwsRefusal<'_> =
    (503, "ServiceUnavailable", "The request has failed due to a temporary failure of the server.");
pub const SERVICE_FAILURE: AwsRefusal<'_> = (
    500,
    "ServiceFailure",
    "The request processing has failed because of an unknown error, exception or failure.",
);
pub const THROTTLING: AwsRefusal<'_> = (400, "Throttling", "Rate exceeded");
pub const UNKNOWN_KEY: AwsRefusal<'_> =
    (403, "InvalidClientTokenId", "The security token included in the request is invalid.");
pub const OPT_IN_REQUIRED: AwsRefusal<'_> =
    (403, "OptInRequired", "The AWS Access Key Id needs a subscription for the service");
/// <https://github.com/turbot/steampipe-plugin-aws/issues/1510>. `GetCallerIdentity` is answered all
/// the same.
pub const REGION_DISABLED: AwsRefusal<'_> = (
    403,
    "RegionDisabledException",
    "STS is not activated in this region for account:123456789012. Your account administrator can \
     activate STS in this region using the IAM Console.",
);
pub const ANOTHER_REGION: AwsRefusal<'_> = (
    403,
    "SignatureDoesNotMatch",
    "Credential should be scoped to a valid region, not 'eu-west-1'. ",
);
/// <https://github.com/aws/aws-cli/issues/7194>
pub const VERIFICATION_KEY: AwsRefusal<'_> = (
    400,
    "InvalidIdentityToken",
    "Couldn't retrieve verification key from your identity provider,  please reference \
     AssumeRoleWithWebIdentity documentation for requirements",
);
pub const IDP_COMMUNICATION: AwsRefusal<'_> = (
    400,
    "IDPCommunicationError",
    "The request could not be fulfilled because the identity provider (IDP) that was asked to \
     verify the incoming identity token could not be reached.",
);
pub const THUMBPRINT: AwsRefusal<'_> = (
    400,
    "InvalidIdentityToken",
    "OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint",
);

impl Fault {
    /// AWS refuses so, and there is no effect.
    pub fn of_aws((status, code, text): AwsRefusal<'_>) -> Self {
        let kind = if status >= 500 { "Receiver" } else { "Sender" };
        let body = format!(
            "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\">\
             <Error><Type>{kind}</Type><Code>{code}</Code><Message>{text}</Message></Error>\
             <RequestId>0</RequestId></ErrorResponse>"
        );
        Self::Refuse { status, body, headers: Vec::new() }
    }
}
