//! The token in use, as far as GitLab tells about it: some kinds are told nothing.

use gitlab::api::personal_access_tokens::PersonalAccessTokenSelf;
use jiff::Timestamp;
use serde::Deserialize;

use super::{ApiError, Gitlab, built};

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Token {
    #[serde(default)]
    pub user_id: Option<u64>,
    #[serde(default)]
    pub expires_at: Option<String>,
    /// Whether GitLab told anything.
    #[serde(skip)]
    pub is_told: bool,
}

impl Token {
    /// When it ends: at midnight UTC. `None` also where GitLab does not tell.
    pub fn expires(&self) -> Option<Timestamp> {
        let day = self.expires_at.as_deref()?.get(..10)?;
        format!("{day}T00:00:00Z").parse().ok()
    }
}

impl Gitlab {
    /// The token of this client. Nothing is known of one that may not ask; a list that is refused
    /// tells the rest.
    pub async fn token(&self) -> Result<Token, ApiError> {
        match self.query::<Token>(built(PersonalAccessTokenSelf::builder().build())).await {
            Ok(token) => Ok(Token { is_told: true, ..token }),
            Err(ApiError::Denied { status: 401 | 403 | 404, .. }) => Ok(Token::default()),
            Err(error) => Err(error),
        }
    }
}
