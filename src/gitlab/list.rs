//! Lists of a project for which the `gitlab` crate has no endpoint, or one without the filter that
//! is needed.

use std::borrow::Cow;

use gitlab::api::Pageable;
use gitlab::api::endpoint_prelude::{Endpoint, QueryParams};
use http::Method;

use super::id;
use crate::config::Name;

/// `GET /projects/:id/PATH` with these filters.
pub(super) struct List<'a> {
    pub(super) project: &'a Name,
    pub(super) path: String,
    pub(super) filters: Vec<(&'static str, String)>,
}

impl Endpoint for List<'_> {
    fn method(&self) -> Method {
        Method::GET
    }

    fn endpoint(&self) -> Cow<'static, str> {
        format!("projects/{}/{}", id(self.project), self.path).into()
    }

    fn parameters(&self) -> QueryParams<'_> {
        let mut parameters = QueryParams::default();
        for (name, value) in &self.filters {
            parameters.push(*name, value);
        }
        parameters
    }
}

impl Pageable for List<'_> {}

/// The first so many of a list.
pub(super) struct OnePage<L> {
    pub(super) list: L,
    pub(super) count: u64,
}

impl<L: Endpoint> Endpoint for OnePage<L> {
    fn method(&self) -> Method {
        self.list.method()
    }

    fn endpoint(&self) -> Cow<'static, str> {
        self.list.endpoint()
    }

    fn parameters(&self) -> QueryParams<'_> {
        let mut parameters = self.list.parameters();
        parameters.push("per_page", self.count);
        parameters
    }
}
