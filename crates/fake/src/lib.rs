//! The fake: a stand-in for AWS IAM, AWS STS and GitLab over real HTTP on loopback.
//!
//! One [`Fake`] is one server on a thread of its own so that a test can block, with one clock, one
//! lock and one log. It is as strict as AWS and GitLab. By default it adds delays, races and
//! errors, which [`Builder::calm`] turns off. Everything random follows from a seed. After every
//! change it checks the invariants of `ARCHITECTURE.md`; [`Fake::violations`] says what broke.
//!
//! [`Fixture`] is the fake that most tests use, [`Run`] starts the program against it, and
//! [`mod@cases`] makes a test of each case. This crate does not know the program: the test passes the
//! path of the binary.
//!
//! ```no_run
//! use fake::{Fake, Fault, JobSpec, Variable};
//!
//! # async fn example() {
//! let fake = Fake::builder().seed(7).calm().start();
//! // A user in account 123456789012 that may rotate its own keys, and a key of 75 days.
//! fake.add_user("/service/ci/", "deployer");
//! let key = fake.add_key("deployer", 75);
//! // A project with the pair, and what production runs with today.
//! fake.add_project(42, "group/app");
//! fake.set_variable(42, Variable::new("AWS_ACCESS_KEY_ID", &key.id).masked());
//! fake.set_variable(42, Variable::new("AWS_SECRET_ACCESS_KEY", &key.secret).masked());
//! fake.set_pipeline_config(42, vec![JobSpec::deploy("deploy", "production")]);
//! fake.start_pipeline(42, "push");
//! fake.finish_pipelines();
//! // What the invariants are about.
//! fake.watch_target(42, "*", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
//! fake.watch_deploy(42);
//! // The rotator's own job. Its environment, and nothing else, is for the program.
//! fake.add_job(42, 98765, "running");
//! let env = fake.env(42, 98765);
//! fake.fault(3, Fault::LoseReply);
//! // … run the program …
//! fake.job_set_status(98765, "success");
//! assert!(fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
//! assert_eq!(fake.violations(), Vec::<String>::new());
//! fake.production_signs(42).await.expect("production works");
//! # }
//! ```
//!
//! Actions have names, for [`Fake::fault_on`] and in the log: `iam:CreateAccessKey`,
//! `sts:GetCallerIdentity`, and for GitLab the verb and the path with its placeholders,
//! `PUT /projects/:id/variables/:key`. What the call is about follows (`deployer AKIA…`,
//! `AWS_ACCESS_KEY_ID@*`): `PUT /projects/:id/variables/:key AWS_ACCESS_KEY_ID` is a PUT of that
//! variable.
//!
//! For a run inside a pipeline (`ROTATOR_DEPLOY=none`) make the rotator a job of the configuration,
//! `JobSpec::new("rotate").never_ends()`, find its id in [`Fake::jobs`], and end it with
//! [`Fake::job_set_status`]: the later stages follow.

mod aws;
pub mod cases;
mod client;
mod clock;
mod control;
mod encodings;
mod ended;
mod fixture;
mod front;
mod gitlab;
mod iam;
mod invariants;
mod jobs;
mod line;
mod operator;
mod outside;
mod pipelines;
mod pipelines_api;
mod policy;
mod production;
pub mod refusals;
mod run;
mod serve;
mod set_up_aws;
mod set_up_gitlab;
mod settings;
mod state;
mod sts;
mod transcript;
mod variables;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use aws::{Pair, Trust};
pub use cases::{Trial, case, fallible, for_each};
pub use client::{Answer, http, signed};
pub use clock::{http_date, iso};
pub use encodings::found;
pub use ended::Ended;
pub use fixture::{Fixture, ID, PROJECT, SECRET, USER};
pub use gitlab::{Home, Mood, TokenSpec, group, project};
pub use iam::KeyView;
pub use jobs::{JobEnd, JobSpec, JobView, PipelineCreation, PipelineView, Refusal};
pub use line::Port;
pub use run::{Run, Running, program, until, use_program};
pub use settings::Settings;
pub use state::{CreateDate, Entry, Fault, FaultView, Knobs};
pub use variables::Variable;

use serve::Server;
use state::State;

/// A handle on the fake; clones share it, and the server ends with the last one.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    /// Held, not read: it ends with the last handle.
    _server: Arc<Server>,
    /// `http://127.0.0.1:PORT`, for AWS and (with `/api/v4`) for GitLab.
    pub url: String,
    /// A GitLab token with `api`, Maintainer of every project and Owner of every group.
    pub token: String,
}

#[derive(Debug, Clone)]
pub struct Builder {
    seed: u64,
    calm: bool,
    partition: String,
    prefix: String,
    tls: Option<(String, String)>,
}

impl Fake {
    pub fn builder() -> Builder {
        Builder {
            seed: fastrand::u64(..),
            calm: false,
            partition: "aws".into(),
            prefix: String::new(),
            tls: None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance();
        state
    }
}

impl Builder {
    /// Everything random in the fake follows from it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// No slow-visible keys, no 502, no 429, no throttling, no delays.
    pub fn calm(mut self) -> Self {
        self.calm = true;
        self
    }

    /// `aws` (the default), `aws-cn`, `aws-us-gov`.
    pub fn partition(mut self, partition: &str) -> Self {
        self.partition = partition.into();
        self
    }

    /// GitLab under a relative path: `/gitlab` makes its API `/gitlab/api/v4`.
    pub fn gitlab_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Serve TLS with this certificate chain and key (PEM). `url` is then `https://localhost:PORT`.
    pub fn tls(mut self, chain_pem: &str, key_pem: &str) -> Self {
        self.tls = Some((chain_pem.into(), key_pem.into()));
        self
    }

    pub fn start(self) -> Fake {
        let mut state = State::new(self.seed, &self.partition, &self.prefix);
        state.knobs = if self.calm { Knobs::calm() } else { Knobs::hostile() };
        if !self.calm && self.seed % 2 == 1 {
            state.knobs.create_date = CreateDate::Fractions;
        }
        let state = Arc::new(Mutex::new(state));
        let server = Arc::new(Server::start(Arc::clone(&state), self.tls.as_ref()));
        let scheme = if self.tls.is_some() { "https://localhost" } else { "http://127.0.0.1" };
        let url = format!("{scheme}:{}", server.port);
        let mut fake = Fake { state, _server: server, url, token: String::new() };
        fake.lock().url.clone_from(&fake.url);
        let token = fake.lock().random_token("glpat-", 20);
        fake.token = fake.add_token(TokenSpec::new(&token));
        fake
    }
}
