//! The variables that hold the records of runs: one each, of a random name.

use secrecy::SecretString;

use super::variables::{Flags, VariableWrite};
use super::{ApiError, ApiErrorKind, Gitlab};
use crate::config::Owner;
use crate::fence::Fenced;
use crate::record::{self, Record};

/// A record and the variable that holds it.
pub struct StoredRecord {
    pub name: String,
    /// Whose variable it is.
    pub owner: Owner,
    /// The scope that GitLab keeps it in.
    pub scope: String,
    pub record: Record,
}

impl Gitlab {
    /// Makes a record's variable at home; gives the scope that GitLab keeps it in.
    pub async fn create_record(
        &self,
        home: &Owner,
        name: &str,
        record: &Record,
    ) -> Result<String, ApiError> {
        let value = SecretString::from(record.print());
        let sent = write(name, record::SCOPE, &value);
        match self.create_variable(home, &sent, Flags::default()).await {
            Ok(reply) => Ok(reply.environment_scope),
            // The name is random: who took it was an earlier try of ours.
            Err(error)
                if error.is_ambiguous() || error.kind() == Some(&ApiErrorKind::AlreadyExists) =>
            {
                let now = self.variables(home).await?;
                let ours = now.into_iter().find(|variable| variable.key == name);
                ours.map(|variable| variable.environment_scope).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// `Fenced` where the record is gone: another run has taken over.
    pub async fn update_record(
        &self,
        home: &Owner,
        name: &str,
        scope: &str,
        record: &Record,
    ) -> Result<(), ApiError> {
        let value = SecretString::from(record.print());
        match self.update_variable(home, &write(name, scope, &value)).await {
            Ok(_) => Ok(()),
            Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => {
                self.fence.record_is_gone();
                Err(ApiError::Fenced(Fenced::RecordGone))
            }
            Err(error) => Err(error),
        }
    }

    /// A record that is gone already counts as deleted.
    pub async fn delete_record(
        &self,
        home: &Owner,
        name: &str,
        scope: &str,
    ) -> Result<(), ApiError> {
        match self.delete_variable(home, name, scope).await {
            Err(ApiError::Denied { kind: ApiErrorKind::NotFound, .. }) => Ok(()),
            reply => reply,
        }
    }
}

/// A record's value is no secret, and too long for a masked one.
fn write<'a>(key: &'a str, scope: &'a str, value: &'a SecretString) -> VariableWrite<'a> {
    VariableWrite { key, scope, value, masked: false, description: None }
}
