//! Production: which variables a job gets from GitLab, and whether AWS accepts the pair.

use super::aws::Pair;
use super::client::signed;
use super::gitlab::Home;
use super::policy::glob;
use super::serve::{Call, pairs};
use super::state::State;

impl State {
    /// The variables that a job of this pipeline and environment gets, by GitLab's precedence.
    pub(crate) fn job_variables(&self, job: u64) -> Vec<(String, String)> {
        let job = &self.lab.jobs[&job];
        let pipeline = &self.lab.pipelines[&job.pipeline];
        let project = &self.lab.projects[&pipeline.project];
        let protected = project.refs.get(&pipeline.name).is_some_and(|found| found.protected);
        let environment = job.spec.environment.as_deref();
        let mut groups: Vec<_> = self
            .lab
            .groups
            .iter()
            .filter(|(_, group)| project.path.starts_with(&format!("{}/", group.path)))
            .collect();
        groups.sort_by_key(|(_, group)| group.path.len());
        let homes =
            groups.iter().map(|(id, _)| Home::Group(**id)).chain([Home::Project(pipeline.project)]);
        let mut given: Vec<(String, String, bool)> = Vec::new();
        let mut give = |key: &str, value: String, raw: bool| {
            given.retain(|(known, ..)| known != key);
            given.push((key.to_owned(), value, raw));
        };
        for home in homes {
            let mut here: Vec<_> = self.lab.variables(home).into_iter().flatten().collect();
            here.retain(|variable| {
                (!variable.protected || protected) && covers(&variable.scope, environment)
            });
            here.sort_by_key(|variable| (!variable.scope.contains('*'), variable.scope.len()));
            for variable in here {
                let path = format!("/builds/{}.tmp/{}", project.path, variable.key);
                give(
                    &variable.key,
                    if variable.file { path } else { variable.value.clone() },
                    variable.raw || variable.file,
                );
            }
        }
        for (key, value) in &pipeline.variables {
            give(key, value.clone(), true);
        }
        let plain: Vec<(String, String)> =
            given.iter().map(|(key, value, _)| (key.clone(), value.clone())).collect();
        given
            .into_iter()
            .map(|(key, value, raw)| (key, if raw { value } else { expand(&value, &plain) }))
            .collect()
    }

    /// A job's own STS call, signed as any other and checked as any other, without the way over the
    /// network.
    pub(crate) fn job_signs(&mut self, job: u64, pair: &Pair) -> Result<(), String> {
        let form = "Action=GetCallerIdentity&Version=2011-06-15";
        let url = "http://fake";
        let mut headers = http::HeaderMap::new();
        headers.insert("host", http::HeaderValue::from_static("fake"));
        for (name, value) in signed(url, "sts", pair, form, self.shift / 1000) {
            let name: http::HeaderName = name.parse().map_err(|_| "no header")?;
            headers.insert(name, value.parse().map_err(|_| "the pair does not fit into a header")?);
        }
        let call = Call {
            method: "POST".into(),
            path: "/".into(),
            query: String::new(),
            headers,
            body: form.into(),
            form: pairs(form),
            connection: 0,
            harness: true,
        };
        let reply = self.aws(&call);
        let now = self.now();
        self.note(now, "sts:GetCallerIdentity", &format!("job {job}"), &pair.id);
        let entry = self.log.last_mut().expect("just noted");
        (entry.status, entry.effect, entry.service) = (reply.status, false, "sts".into());
        if reply.status == 200 {
            Ok(())
        } else {
            Err(format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body)))
        }
    }
}

/// Without an environment a job gets what is there for `*` only.
fn covers(scope: &str, environment: Option<&str>) -> bool {
    scope == "*" || environment.is_some_and(|environment| glob(scope, environment))
}

/// `$X` and `${X}`, once; what is not there is empty.
fn expand(value: &str, given: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        out += &rest[..at];
        rest = &rest[at + 1..];
        let braced = rest.starts_with('{');
        let name_from = usize::from(braced);
        let length = rest[name_from..]
            .chars()
            .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
            .count();
        let name = &rest[name_from..name_from + length];
        if name.is_empty() {
            out.push('$');
            continue;
        }
        out += given.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
        rest = &rest[name_from + length..];
        rest = if braced { rest.strip_prefix('}').unwrap_or(rest) } else { rest };
    }
    out + rest
}
