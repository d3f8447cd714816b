//! Places besides the targets that may hold an old key: what was a target of this rotation once, and
//! the projects that it deploys or has deployed.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Run;
use crate::access_key::AccessKeyId;
use crate::config::Owner;
use crate::error::Error;
use crate::gitlab::ApiErrorKind;
use crate::targets::{self, List, Lists};

/// So many lists are read at once.
const AT_ONCE: usize = 8;

type References = BTreeMap<AccessKeyId, Vec<String>>;

impl Run<'_> {
    /// Reads the variables of every place that may name an old key, the targets' last.
    pub(super) async fn observe_everywhere(&mut self) -> Result<(), Error> {
        let elsewhere = self.references_elsewhere().await?;
        self.observe_variables().await?;
        self.add_references(elsewhere);
        Ok(())
    }

    pub(super) fn add_references(&mut self, elsewhere: References) {
        for (key, places) in elsewhere {
            self.seen.other_references.entry(key).or_default().extend(places);
        }
    }

    /// Which readable variables of other places than the targets name which key. What the token may
    /// not read is told, once.
    pub(super) async fn references_elsewhere(&mut self) -> Result<References, Error> {
        let context = &self.context;
        let read = stream::iter(self.elsewhere()).map(async |owner| {
            match targets::list(context.gitlab, &owner).await {
                Ok(variables) => Ok((List { owner, variables }, true)),
                Err(Error::GitLab { error, .. })
                    if error.kind().is_some_and(ApiErrorKind::is_out_of_reach) =>
                {
                    Ok((List { owner, variables: Vec::new() }, false))
                }
                Err(error) => Err(error),
            }
        });
        let read: Vec<(List, bool)> = read.buffered(AT_ONCE).try_collect().await?;
        for (List { owner, .. }, is_readable) in &read {
            if !is_readable && !self.unreadable.contains(owner) {
                tracing::warn!(
                    "the token may not read the variables of {owner}: whether one of them names an \
                     old key is not known"
                );
                self.unreadable.push(owner.clone());
            }
        }
        let lists = Lists(read.into_iter().map(|(list, _)| list).collect());
        Ok(lists.other_references(self.context.config, &self.seen.keys))
    }

    fn elsewhere(&self) -> Vec<Owner> {
        let config = self.context.config;
        let progress = self.seen.progress();
        let published = progress.iter().flat_map(|progress| &progress.targets);
        let published = published.map(|target| target.place.owner.clone());
        let recorded = progress.iter().flat_map(|progress| &progress.deploys);
        let recorded = recorded.map(|deploy| &deploy.place.project);
        let deployed = recorded.chain(&config.deploy.projects).cloned().map(Owner::Project);
        let targets = targets::owners(&config.targets);
        let mut elsewhere: Vec<Owner> = Vec::new();
        for owner in published.chain(deployed) {
            if !targets.contains(&owner) && !elsewhere.contains(&owner) {
                elsewhere.push(owner);
            }
        }
        elsewhere
    }
}
