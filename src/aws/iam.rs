//! IAM: lists, creates, disables and deletes the user's keys, and asks when a key was last used.

use std::time::Duration;

use aws_sdk_iam::types::StatusType;
use backon::{ExponentialBuilder, Retryable};
use jiff::Timestamp;
use secrecy::SecretString;

use super::client::{Aws, Retry, timestamp};
use super::error::AwsError;
use super::failure::{Code, Operation, is_ambiguous};
use crate::access_key::{AccessKeyId, CreatedKey, Key, Use};
use crate::fence::Fenced;

/// The most pages that a list may have. A user has two keys; an account with a higher quota gets up
/// to 100 keys on each page.
const PAGES: u32 = 20;

const LIST: Operation =
    Operation { what: "listing the user's access keys", action: "iam:ListAccessKeys" };
const CREATE: Operation =
    Operation { what: "creating a new access key", action: "iam:CreateAccessKey" };
const LAST_USE: Operation =
    Operation { what: "asking when a key was last used", action: "iam:GetAccessKeyLastUsed" };
const DISABLE: Operation =
    Operation { what: "disabling an access key", action: "iam:UpdateAccessKey" };
const DELETE: Operation =
    Operation { what: "deleting an access key", action: "iam:DeleteAccessKey" };

/// The keys of the user, as one list of IAM shows them.
pub struct Listing {
    pub user: String,
    pub keys: Vec<Key>,
    /// IAM's clock.
    pub date: Timestamp,
}

/// Why `create` returned no key: IAM refused, or the outcome is unclear.
pub enum CreateFailure {
    Refused(AwsError),
    Unclear,
}

impl Aws {
    /// The user's keys, all pages, oldest first. One call where there are no more than a hundred.
    pub async fn list(&self) -> Result<Listing, AwsError> {
        let iam = self.iam(Retry::Reads).await?;
        let mut pages =
            iam.list_access_keys().set_user_name(self.named_user.clone()).into_paginator().send();
        let (mut keys, mut user, mut count) = (Vec::new(), self.named_user.clone(), 0);
        while let Some(page) = pages.next().await {
            count += 1;
            if count > PAGES {
                let code = "no end of pages".to_owned();
                return Err(AwsError::Unexpected { what: LIST.what, status: None, code });
            }
            let page = page.map_err(|error| self.error(LIST, user.as_deref(), &error))?;
            for metadata in page.access_key_metadata {
                if let Some(name) = metadata.user_name.filter(|name| !name.is_empty()) {
                    user = Some(name);
                }
                let id = metadata.access_key_id.as_deref().and_then(AccessKeyId::parse);
                let Some(id) = id else { continue };
                let active = metadata.status == Some(StatusType::Active);
                // A key without a date counts as made now: its age is not known, so it is not due
                // for it.
                let created = metadata.create_date.as_ref().and_then(timestamp);
                let created = created.unwrap_or_else(Timestamp::now);
                keys.push(Key { id, active, created, used: None });
            }
        }
        let user = match user {
            Some(user) => user,
            None => self.own_user().await?,
        };
        keys.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        Ok(Listing { user, keys, date: self.meter.date().unwrap_or_else(Timestamp::now) })
    }

    /// The user whose key signs; a role or the root user is none.
    async fn own_user(&self) -> Result<String, AwsError> {
        let identity = self.identity().await?;
        match identity.user() {
            Some(user) => Ok(user.to_owned()),
            None if identity.arn.ends_with(":root") => Err(AwsError::RootUser),
            None => Err(AwsError::NoUser),
        }
    }

    /// Makes a key for the user. Definite rejections that may pass are repeated; an ambiguous reply
    /// never is.
    pub async fn create(
        &self,
        user: &str,
        may_act: impl AsyncFn() -> Result<(), Fenced>,
    ) -> Result<CreatedKey, CreateFailure> {
        let try_once = async || {
            may_act().await.map_err(|why| CreateFailure::Refused(why.into()))?;
            let iam = self.iam(Retry::Never).await.map_err(CreateFailure::Refused)?;
            match iam.create_access_key().user_name(user).send().await {
                Ok(reply) => created_key(reply.access_key).ok_or(CreateFailure::Unclear),
                Err(error) if is_ambiguous(&error) => Err(CreateFailure::Unclear),
                Err(error) => Err(CreateFailure::Refused(self.error(CREATE, Some(user), &error))),
            }
        };
        let may_pass = |failure: &CreateFailure| {
            matches!(failure, CreateFailure::Refused(AwsError::Throttled { .. }))
        };
        try_once.retry(schedule()).when(may_pass).await
    }

    /// When the key was last used. Advisory: IAM may report hours late.
    pub async fn last_use(&self, id: &AccessKeyId) -> Result<Use, AwsError> {
        let iam = self.iam(Retry::Reads).await?;
        let reply = iam.get_access_key_last_used().access_key_id(id.full()).send().await;
        let user = self.named_user.as_deref();
        let reply = reply.map_err(|error| self.error(LAST_USE, user, &error))?;
        let used = reply
            .access_key_last_used
            .and_then(|used| Some((timestamp(used.last_used_date.as_ref()?)?, used.service_name)));
        Ok(used.map_or(Use::Never, |(when, service)| Use::At { when, service }))
    }

    /// Disables the key: reversible, and harmless when repeated.
    pub async fn disable(
        &self,
        user: &str,
        id: &AccessKeyId,
        may_act: impl AsyncFn() -> Result<(), Fenced>,
    ) -> Result<(), AwsError> {
        let try_once = async || {
            may_act().await?;
            let iam = self.iam(Retry::Never).await?;
            let call = iam
                .update_access_key()
                .user_name(user)
                .access_key_id(id.full())
                .status(StatusType::Inactive);
            let reply = call.send().await;
            reply.map(|_| ()).map_err(|error| self.error(DISABLE, Some(user), &error))
        };
        try_once.retry(schedule()).when(|error| self.may_pass(error)).await
    }

    /// Deletes the key; one that is gone already counts as deleted, where the list says so too.
    pub async fn delete(
        &self,
        user: &str,
        id: &AccessKeyId,
        may_act: impl AsyncFn() -> Result<(), Fenced>,
    ) -> Result<(), AwsError> {
        let try_once = async || {
            may_act().await?;
            let iam = self.iam(Retry::Never).await?;
            let call = iam.delete_access_key().user_name(user).access_key_id(id.full());
            let Err(error) = call.send().await else { return Ok(()) };
            if Code::of(&error) != Some(Code::NoSuchEntity) {
                return Err(self.error(DELETE, Some(user), &error));
            }
            let is_there = self.list().await?.keys.iter().any(|key| key.id == *id);
            if !is_there {
                return Ok(());
            }
            let code = "NoSuchEntity".to_owned();
            Err(AwsError::Unexpected { what: DELETE.what, status: Some(404), code })
        };
        try_once.retry(schedule()).when(|error| self.may_pass(error)).await
    }

    fn may_pass(&self, error: &AwsError) -> bool {
        error.may_pass(self.signs_instead())
    }
}

fn schedule() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_times(5)
        .with_jitter()
}

fn created_key(key: Option<aws_sdk_iam::types::AccessKey>) -> Option<CreatedKey> {
    let key = key?;
    let created = key.create_date.as_ref().and_then(timestamp).unwrap_or_else(Timestamp::now);
    let secret = SecretString::from(key.secret_access_key);
    Some(CreatedKey { id: AccessKeyId::parse(&key.access_key_id)?, created, secret })
}
