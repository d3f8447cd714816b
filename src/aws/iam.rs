//! IAM: lists, creates, disables and deletes the user's keys, and asks when a key was last used.

use aws_sdk_iam::config::SharedCredentialsProvider;
use aws_sdk_iam::types::StatusType;
use jiff::Timestamp;
use secrecy::SecretString;

use super::client::{Aws, timestamp};
use super::credentials::pair;
use super::error::AwsError;
use super::failure::{Code, Operation, is_ambiguous};
use super::repeat::YOUNG;
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
    /// The user's keys, all pages, oldest first. One call where there are no more than a hundred. A
    /// refusal of the key that signs is not asked about again: see [`Aws::list_again`].
    pub async fn list(&self) -> Result<Listing, AwsError> {
        self.repeat_signed(async |credentials| self.list_by(credentials).await).await
    }

    /// The same after the key that signs was refused once. `tag`: a key that may sign instead, with
    /// the environment's secret, where the pair of the environment is torn; it replaces the signer
    /// only if it works.
    pub async fn list_again(&self, tag: Option<&AccessKeyId>) -> Result<Listing, AwsError> {
        let signer = self.signing_key();
        let has_young = || tag.into_iter().chain(&signer).any(|key| self.is_young(key));
        let tagged = tag.zip(self.environment_secret.as_ref());
        self.repeat_refused(has_young, async || {
            if let Some((id, secret)) = tagged
                && let pair = SharedCredentialsProvider::new(pair(id, secret))
                && let Ok(listing) = self.list_by(pair).await
            {
                self.sign_with(id, secret);
                return Ok(listing);
            }
            self.list().await
        })
        .await
    }

    async fn list_by(&self, credentials: SharedCredentialsProvider) -> Result<Listing, AwsError> {
        let iam = self.iam(credentials.clone());
        let mut pages =
            iam.list_access_keys().set_user_name(self.named_user.clone()).into_paginator().send();
        let (mut keys, mut user, mut count) = (Vec::new(), self.named_user.clone(), 0);
        while let Some(page) = pages.next().await {
            count += 1;
            if count > PAGES {
                let code = "no end of pages".to_owned();
                return Err(AwsError::Unexpected { what: LIST.what, code });
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
            None => self.own_user(credentials).await?,
        };
        keys.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
        let date = self.meter.date().unwrap_or_else(Timestamp::now);
        for key in keys.iter().filter(|key| date.duration_since(key.created) < YOUNG) {
            self.take_for_young(&key.id);
        }
        Ok(Listing { user, keys, date })
    }

    /// The user whose key signs; a role or the root user is none.
    async fn own_user(&self, credentials: SharedCredentialsProvider) -> Result<String, AwsError> {
        let identity = self.identity_of(credentials).await?;
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
        let made = self.repeat(async |credentials| {
            let iam = self.iam(credentials);
            may_act().await?;
            match iam.create_access_key().user_name(user).send().await {
                Ok(reply) => Ok(created_key(reply.access_key)),
                Err(error) if is_ambiguous(&error) => Ok(None),
                Err(error) => Err(self.error(CREATE, Some(user), &error)),
            }
        });
        let key = made.await.map_err(CreateFailure::Refused)?.ok_or(CreateFailure::Unclear)?;
        self.take_for_young(&key.id);
        Ok(key)
    }

    /// When the key was last used. Advisory: IAM may report hours late.
    pub async fn last_use(&self, id: &AccessKeyId) -> Result<Use, AwsError> {
        self.repeat(async |credentials| {
            let iam = self.iam(credentials);
            let reply = iam.get_access_key_last_used().access_key_id(id.full()).send().await;
            let user = self.named_user.as_deref();
            let reply = reply.map_err(|error| self.error(LAST_USE, user, &error))?;
            let used = reply.access_key_last_used.and_then(|used| {
                Some((timestamp(used.last_used_date.as_ref()?)?, used.service_name))
            });
            Ok(used.map_or(Use::Never, |(when, service)| Use::At { when, service }))
        })
        .await
    }

    /// Disables the key: reversible, and harmless when repeated.
    pub async fn disable(
        &self,
        user: &str,
        id: &AccessKeyId,
        may_act: impl AsyncFn() -> Result<(), Fenced>,
    ) -> Result<(), AwsError> {
        self.repeat(async |credentials| {
            let iam = self.iam(credentials);
            let call = iam
                .update_access_key()
                .user_name(user)
                .access_key_id(id.full())
                .status(StatusType::Inactive);
            may_act().await?;
            let reply = call.send().await;
            reply.map(|_| ()).map_err(|error| self.error(DISABLE, Some(user), &error))
        })
        .await
    }

    /// Deletes the key; one that is gone already counts as deleted, where the list says so too.
    pub async fn delete(
        &self,
        user: &str,
        id: &AccessKeyId,
        may_act: impl AsyncFn() -> Result<(), Fenced>,
    ) -> Result<(), AwsError> {
        self.repeat(async |credentials| {
            let iam = self.iam(credentials);
            let call = iam.delete_access_key().user_name(user).access_key_id(id.full());
            may_act().await?;
            let Err(error) = call.send().await else { return Ok(()) };
            if Code::of(&error) != Some(Code::NoSuchEntity) {
                return Err(self.error(DELETE, Some(user), &error));
            }
            let is_there = self.list().await?.keys.iter().any(|key| key.id == *id);
            if !is_there {
                return Ok(());
            }
            let code = "NoSuchEntity".to_owned();
            Err(AwsError::Unexpected { what: DELETE.what, code })
        })
        .await
    }
}

fn created_key(key: Option<aws_sdk_iam::types::AccessKey>) -> Option<CreatedKey> {
    let key = key?;
    let created = key.create_date.as_ref().and_then(timestamp).unwrap_or_else(Timestamp::now);
    let secret = SecretString::from(key.secret_access_key);
    Some(CreatedKey { id: AccessKeyId::parse(&key.access_key_id)?, created, secret })
}
