//! One write of half a pair to a target: the variable that is there keeps its flags, its type and
//! a person's description; where there is none it is made as the configuration says.

use secrecy::SecretString;

use super::{Lists, list};
use crate::access_key::AccessKeyId;
use crate::config::{Config, Owner, Target};
use crate::error::Error;
use crate::gitlab::variables::{EchoField, Flags, Variable, VariableWrite};
use crate::gitlab::{ApiError, ApiErrorKind, Gitlab};
use crate::tag;

/// Which half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairPart {
    Id,
    Secret,
}

/// # Errors
/// A refusal; an ambiguous end; a reply that differs from what was sent.
pub async fn write(
    gitlab: &Gitlab,
    config: &Config,
    lists: &Lists,
    target: &Target,
    part: PairPart,
    id: &AccessKeyId,
    value: &SecretString,
) -> Result<(), Error> {
    let key = match part {
        PairPart::Id => &config.key_id_variable,
        PairPart::Secret => &config.secret_variable,
    };
    let there = lists.find(target, key);
    let text = there
        .and_then(|variable| variable.description.as_deref())
        .map(|description| tag::read(description).0)
        .unwrap_or_default();
    // Preflight has seen that the tag fits.
    let description = match part {
        PairPart::Secret => tag::write(&text, id),
        PairPart::Id => None,
    };
    let sent = VariableWrite {
        key,
        scope: &target.scope,
        value,
        masked: true,
        description: description.as_deref(),
    };
    let write = PairWrite { gitlab, target, sent };
    let reply = match there {
        Some(_) => write.update().await?,
        None => {
            let hidden = config.hidden && part == PairPart::Secret;
            let protected =
                config.protected.unwrap_or_else(|| config.job.ref_protected == Some(true));
            write.create(Flags { hidden, protected }).await?
        }
    };
    reply.differs_from(&write.sent).map_or(Ok(()), |field| Err(write.differs(field)))
}

struct PairWrite<'a> {
    gitlab: &'a Gitlab,
    target: &'a Target,
    sent: VariableWrite<'a>,
}

impl PairWrite<'_> {
    async fn update(&self) -> Result<Variable, Error> {
        let owner = &self.target.owner;
        // Between the list and this write lies the verification of the key: what a group has lost
        // meanwhile would be written to another variable.
        if self.is_of_a_group() {
            let now = list(self.gitlab, owner).await?;
            if !self.is_in(&now, &self.target.scope) {
                return Err(self.failed(ApiError::missing(ApiErrorKind::NotFound)));
            }
        }
        let reply = self.gitlab.update_variable(owner, &self.sent).await;
        reply.map_err(|error| self.failed(error))
    }

    async fn create(&self, flags: Flags) -> Result<Variable, Error> {
        let owner = &self.target.owner;
        match self.gitlab.create_variable(owner, &self.sent, flags).await {
            Err(error)
                if error.is_ambiguous() || error.kind() == Some(&ApiErrorKind::AlreadyExists) =>
            {
                self.settle(error).await
            }
            // Made for every environment: what was not asked for is taken away again.
            Ok(made)
                if self.is_of_a_group()
                    && made.key == self.sent.key
                    && made.environment_scope == "*"
                    && self.target.scope != "*" =>
            {
                let deleted = self.gitlab.delete_variable(owner, self.sent.key, "*").await;
                deleted.map_err(|_| self.differs(EchoField::Scope))?;
                Err(self.no_group_scopes())
            }
            reply => reply.map_err(|error| self.failed(error)),
        }
    }

    /// The reply to an earlier try may be lost: what is there now decides.
    async fn settle(&self, error: ApiError) -> Result<Variable, Error> {
        let now = list(self.gitlab, &self.target.owner).await?;
        if self.is_in(&now, &self.target.scope) {
            let reply = self.gitlab.update_variable(&self.target.owner, &self.sent).await;
            reply.map_err(|error| self.failed(error))
        } else if self.is_in(&now, "*") && !error.is_ambiguous() && self.is_of_a_group() {
            Err(self.no_group_scopes())
        } else {
            Err(self.failed(error))
        }
    }

    fn is_of_a_group(&self) -> bool {
        matches!(self.target.owner, Owner::Group(_))
    }

    fn is_in(&self, variables: &[Variable], scope: &str) -> bool {
        variables
            .iter()
            .any(|variable| variable.key == self.sent.key && variable.environment_scope == scope)
    }

    fn failed(&self, error: ApiError) -> Error {
        Error::gitlab(self.what(), error)
    }

    fn differs(&self, field: EchoField) -> Error {
        Error::EchoDiffers { what: self.what(), field }
    }

    fn no_group_scopes(&self) -> Error {
        Error::NoGroupScopes { target: self.target.to_string() }
    }

    fn what(&self) -> String {
        format!("writing {} to {}", self.sent.key, self.target)
    }
}
