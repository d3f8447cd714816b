//! How a test sets AWS up, and what it asks afterwards.

use super::Fake;
use super::aws::{Pair, Principal, Role, Trust};
use super::iam::{KeyView, Limit, SELF_ROTATION, User};
use super::policy::Statement;

const DAY: i64 = 86_400_000;

impl Fake {
    /// Another account than 123456789012: users of one name may be in both.
    pub fn set_account(&self, account: &str) {
        self.lock().aws.account = account.to_owned();
    }

    /// A user in account 123456789012, allowed to rotate its own keys. Returns its ARN.
    pub fn add_user(&self, path: &str, name: &str) -> String {
        let mut state = self.lock();
        state.aws.users.push(User {
            name: name.into(),
            path: path.into(),
            policy: Vec::new(),
            limits: Vec::new(),
        });
        let arn = state.aws.user_arn(name);
        state.aws.users.last_mut().expect("just added").policy =
            vec![Statement::allow(&SELF_ROTATION, &[&arn])];
        arn
    }

    /// Moves the user to another path, which changes its ARN.
    pub fn set_user_path(&self, name: &str, path: &str) {
        for user in self.lock().aws.users.iter_mut().filter(|user| user.name == name) {
            user.path = path.into();
        }
    }

    /// A key of any age, visible everywhere. It is foreign until a variable names it or `ours` is
    /// called.
    pub fn add_key(&self, user: &str, age_days: i64) -> Pair {
        self.add_key_of(Principal::User(user.into()), age_days)
    }

    pub fn add_root_key(&self, age_days: i64) -> Pair {
        self.add_key_of(Principal::Root, age_days)
    }

    fn add_key_of(&self, owner: Principal, age_days: i64) -> Pair {
        let mut state = self.lock();
        let created = state.now() - age_days * DAY;
        let id = state.make_key(owner, created, false);
        let secret = state.aws.key(&id).expect("just made").secret.clone();
        Pair { id, secret, token: None }
    }

    /// Exactly these actions on itself.
    pub fn set_policy(&self, user: &str, actions: &[&str]) {
        let arn = self.user_arn(user);
        self.set_statements(user, &[Statement::allow(actions, &[&arn])]);
    }

    /// A whole policy document: Effect, Action, Resource (`${aws:username}`, wildcards), simple
    /// conditions.
    pub fn set_policy_json(&self, user: &str, document: &str) {
        self.set_statements(user, &Statement::parse(document));
    }

    fn set_statements(&self, user: &str, statements: &[Statement]) {
        for found in self.lock().aws.users.iter_mut().filter(|found| found.name == user) {
            found.policy = statements.to_vec();
        }
    }

    /// Another policy beside it that denies these actions on everything, such as an MFA rule.
    pub fn deny(&self, user: &str, actions: &[&str]) {
        self.deny_by(user, "identity-based policy", actions);
    }

    /// A policy of this kind (`service control policy`, with `: ARN` where AWS tells which) denies
    /// these actions on everything.
    pub fn deny_by(&self, user: &str, kind: &str, actions: &[&str]) {
        let deny = Statement { deny: true, ..Statement::allow(actions, &["*"]) };
        self.limit_by(user, kind, vec![deny, Statement::allow(&["*"], &["*"])]);
    }

    /// A policy of this kind (`permissions boundary`) allows these actions alone.
    pub fn allow_only_by(&self, user: &str, kind: &str, actions: &[&str]) {
        self.limit_by(user, kind, vec![Statement::allow(actions, &["*"])]);
    }

    fn limit_by(&self, user: &str, kind: &str, statements: Vec<Statement>) {
        let mut state = self.lock();
        let found = state.aws.users.iter_mut().find(|found| found.name == user);
        found.expect("a user").limits.push(Limit { kind: kind.to_owned(), statements });
    }

    /// What AWS does where it finds a key of this user in public.
    pub fn quarantine(&self, user: &str) {
        let policy = "identity-based policy: arn:aws:iam::aws:policy/AWSCompromisedKeyQuarantineV3";
        let denied =
            ["iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey", "s3:GetObject"];
        self.deny_by(user, policy, &denied);
    }

    /// A role and what it may do (a policy document); its sessions last so long at most. Returns
    /// its ARN.
    pub fn add_role(&self, name: &str, trust: Trust, seconds: i64, policy: &str) -> String {
        let mut state = self.lock();
        state.aws.roles.push(Role {
            name: name.into(),
            trust,
            seconds,
            policy: Statement::parse(policy),
        });
        state.aws.role_arn(name)
    }

    /// A policy document that lets a role rotate the keys of this user.
    pub fn rotation_policy(&self, user: &str) -> String {
        let actions = SELF_ROTATION;
        serde_json::json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": self.user_arn(user) }] })
            .to_string()
    }

    /// An ID token as a job gets it in `id_tokens:`, ending so many seconds from now.
    pub fn issue_id_token(&self, aud: &str, sub: &str, seconds: i64) -> String {
        let mut state = self.lock();
        let ends = state.now() + seconds * 1000;
        state.id_token(aud, sub, ends)
    }

    /// Temporary credentials of a user, as `GetSessionToken` gives them: good everywhere but in
    /// IAM.
    pub fn user_session(&self, user: &str, seconds: i64) -> Pair {
        let mut state = self.lock();
        let ends = state.now() + seconds * 1000;
        state.session(Principal::UserSession(user.into()), ends)
    }

    /// Temporary credentials of a role, as a job may have got them elsewhere.
    pub fn role_session(&self, role: &str, seconds: i64) -> Pair {
        let mut state = self.lock();
        let ends = state.now() + seconds * 1000;
        state.session(Principal::Role(role.into(), "elsewhere".into()), ends)
    }

    pub fn user_arn(&self, user: &str) -> String {
        self.lock().aws.user_arn(user)
    }

    /// The user's keys that exist, oldest first as they were made.
    pub fn keys(&self, user: &str) -> Vec<KeyView> {
        let state = self.lock();
        let keys = state
            .aws
            .keys
            .iter()
            .filter(|key| !key.deleted && key.owner == Principal::User(user.into()));
        keys.map(|key| KeyView {
            id: key.id.clone(),
            secret: key.secret.clone(),
            active: key.active,
            created: key.created,
            ours: key.ours,
        })
        .collect()
    }

    /// Makes the key look so much older.
    pub fn age_key(&self, id: &str, seconds: i64) {
        for key in self.lock().aws.keys.iter_mut().filter(|key| key.id == id) {
            key.created -= seconds * 1000;
        }
    }

    /// Records a use of the key by this service, so many seconds ago.
    pub fn use_key(&self, id: &str, service: &str, seconds_ago: i64) {
        let mut state = self.lock();
        let at = state.now() - seconds_ago * 1000;
        for key in state.aws.keys.iter_mut().filter(|key| key.id == id) {
            key.uses.push((at, service.into(), "us-east-1".into()));
            key.uses.sort();
        }
    }
}
