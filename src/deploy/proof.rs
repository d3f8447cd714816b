//! What the jobs of a deploy prove: those that are named (`named.rs`), or else the whole pipeline
//! (`whole.rs`).

/// What a pipeline proves, and why not more.
pub(super) enum Proof {
    Proven,
    /// Every job succeeded, and none looks like a deploy.
    NoDeploy,
    Running(String),
    /// Only a person can bring it on.
    Blocked(String),
    /// A job failed; a retry may still prove the deploy.
    Failed(String),
    /// A person may still run what was left out.
    LeftOut(String),
    /// Whatever a person does, this pipeline proves nothing.
    InVain(String),
}

impl Proof {
    /// With the pipeline in its text.
    pub(super) fn of_pipeline(self, link: &str) -> Self {
        let told = |what: String| format!("{link}: {what}");
        match self {
            Self::Proven | Self::NoDeploy => self,
            Self::Running(what) => Self::Running(told(what)),
            Self::Blocked(what) => Self::Blocked(told(what)),
            Self::Failed(what) => Self::Failed(told(what)),
            Self::LeftOut(what) => Self::LeftOut(told(what)),
            Self::InVain(what) => Self::InVain(told(what)),
        }
    }
}
