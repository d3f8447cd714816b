//! The fake of the tests as a process, for whatever is no Rust test: the samples in a pipeline,
//! the image, a reader.
//!
//! `serve SCENARIO FOLDER [CERTIFICATE KEY]` sets the fake up, writes `FOLDER/control` (the
//! address to ask) and serves until it is ended. To be asked, each with one GET:
//! - `/job?name=NAME&pipeline=WORD`: a job of that name starts, in the one pipeline of that word;
//!   its environment as a shell reads it.
//! - `/end?job=ID&exit=CODE`: it has ended.
//! - `/state`: what there is now, and what the fake has seen, as JSON.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fake::{Fake, JobSpec, Pair, Trust, Variable};
use serde_json::json;
use url::Url;

const ROTATOR: u64 = 7;
const SHOP: u64 = 42;

struct Scenario {
    fake: Fake,
    users: Vec<&'static str>,
    projects: Vec<u64>,
    /// Where the jobs of the rotation run.
    home: u64,
    /// Audience and subject of their ID tokens.
    claims: (&'static str, &'static str),
    /// Whether the pipeline deploys between two jobs.
    stages: bool,
}

fn main() -> ExitCode {
    let mut given = std::env::args().skip(1);
    let (Some(name), Some(folder)) = (given.next(), given.next().map(PathBuf::from)) else {
        eprintln!("usage: serve in-project|stages|central FOLDER [CERTIFICATE KEY]");
        return ExitCode::from(2);
    };
    let mut builder = Fake::builder().calm();
    if let (Some(certificate), Some(key)) = (given.next(), given.next()) {
        let read = |path| std::fs::read_to_string(path).expect("a file in PEM");
        builder = builder.tls(&read(certificate), &read(key));
    }
    let scenario = if name == "central" {
        central(builder.start())
    } else {
        own(builder.start(), name == "stages")
    };
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
    let address = listener.local_addr().expect("a bound listener has an address");
    // At once, so that who waits for the file finds it whole.
    let part = folder.join("control.part");
    std::fs::write(&part, format!("http://{address}\n")).expect("a folder to write to");
    std::fs::rename(part, folder.join("control")).expect("a folder to write to");
    let mut asked = Asked { scenario, next: 9000, pipelines: BTreeMap::new() };
    for stream in listener.incoming().flatten() {
        let _ = answer(&mut asked, stream);
    }
    ExitCode::SUCCESS
}

/// A project that rotates its own key; 75 days old.
fn own(fake: Fake, stages: bool) -> Scenario {
    fake.add_user("/service/", "svc-shop");
    project(&fake, SHOP, "acme/shop", "*", &fake.add_key("svc-shop", 75));
    Scenario {
        fake,
        users: vec!["svc-shop"],
        projects: vec![SHOP],
        home: SHOP,
        claims: ("https://gitlab.example.com", "project_path:acme/shop"),
        stages,
    }
}

/// Three users, two roles, four projects.
fn central(fake: Fake) -> Scenario {
    let claims = ("https://gitlab.example.com", "project_path:acme/rotator");
    fake.add_project(ROTATOR, "acme/rotator");
    let users = ["svc-shop", "svc-mail", "svc-billing"];
    for user in users {
        fake.add_user("/", user);
    }
    let trust = || Trust::WebIdentity { aud: claims.0.into(), sub: claims.1.into() };
    let both = [fake.rotation_policy("svc-shop"), fake.rotation_policy("svc-mail")].map(|text| {
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["Statement"][0].clone()
    });
    fake.add_role(
        "rotator-one",
        trust(),
        3600,
        &json!({ "Version": "2012-10-17", "Statement": both }).to_string(),
    );
    fake.add_role("rotator-two", trust(), 3600, &fake.rotation_policy("svc-billing"));
    let keys = users.map(|user| fake.add_key(user, 75));
    project(&fake, 42, "acme/shop", "production", &keys[0]);
    project(&fake, 43, "acme/mail", "production", &keys[1]);
    project(&fake, 44, "acme/billing", "production", &keys[2]);
    project(&fake, 45, "acme/ledger", "production", &keys[2]);
    Scenario {
        fake,
        users: users.to_vec(),
        projects: vec![42, 43, 44, 45],
        home: ROTATOR,
        claims,
        stages: false,
    }
}

fn project(fake: &Fake, id: u64, path: &str, scope: &str, pair: &Pair) {
    fake.add_project(id, path);
    fake.set_variable(id, Variable::new("AWS_ACCESS_KEY_ID", &pair.id).masked().scope(scope));
    fake.set_variable(
        id,
        Variable::new("AWS_SECRET_ACCESS_KEY", &pair.secret).masked().scope(scope),
    );
    fake.set_pipeline_config(
        id,
        vec![JobSpec::new("build"), JobSpec::deploy("deploy", "production").stage("deploy")],
    );
    fake.start_pipeline(id, "push");
    fake.finish_pipelines();
    fake.watch_target(id, scope, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
    fake.watch_deploy(id);
}

struct Asked {
    scenario: Scenario,
    next: u64,
    pipelines: BTreeMap<String, u64>,
}

fn answer(asked: &mut Asked, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    request.read_line(&mut line)?;
    let mut header = String::new();
    while request.read_line(&mut header)? > 2 {
        header.clear();
    }
    let target = line.split(' ').nth(1).unwrap_or_default();
    let url = Url::parse("http://control/")
        .and_then(|base| base.join(target))
        .map_err(std::io::Error::other)?;
    let of = |name: &str| {
        url.query_pairs()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    };
    let body = match url.path() {
        "/job" => asked.job(&of("name"), &of("pipeline")),
        "/end" => asked.end(&of("job"), &of("exit")),
        "/state" => asked.state(),
        _ => String::new(),
    };
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

impl Asked {
    fn job(&mut self, name: &str, pipeline: &str) -> String {
        let Scenario { fake, home, .. } = &self.scenario;
        let id = if self.scenario.stages {
            let jobs = || {
                let held = |name: &str, stage: &str| JobSpec::new(name).stage(stage).never_ends();
                vec![
                    held("rotate-key", "rotate"),
                    JobSpec::deploy("deploy", "production").stage("deploy"),
                    held("retire-key", "retire"),
                ]
            };
            let of = *self
                .pipelines
                .entry(pipeline.to_owned())
                .or_insert_with(|| fake.start_pipeline_with(*home, "schedule", "main", jobs()));
            self.wait_for(of, name)
        } else {
            self.next += 1;
            fake.add_job(*home, self.next, "running");
            self.next
        };
        let (aud, sub) = self.scenario.claims;
        let mut env = fake.env(*home, id);
        env.push(("ROTATOR_AWS_ID_TOKEN".into(), fake.issue_id_token(aud, sub, 3600)));
        // Which kind of pipeline it is, the pipeline says.
        env.retain(|(name, _)| name != "CI_PIPELINE_SOURCE" && name != "CI_JOB_NAME");
        env.into_iter()
            .map(|(name, value)| format!("export {name}='{}'\n", value.replace('\'', r"'\''")))
            .collect()
    }

    /// The job of this pipeline that has started.
    fn wait_for(&self, pipeline: u64, name: &str) -> u64 {
        loop {
            let jobs = self.scenario.fake.jobs(self.scenario.home);
            if let Some(job) = jobs
                .iter()
                .find(|job| job.pipeline == pipeline && job.name == name && job.status == "running")
            {
                return job.id;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn end(&self, job: &str, exit: &str) -> String {
        if let Ok(id) = job.parse() {
            self.scenario.fake.job_set_status(id, if exit == "0" { "success" } else { "failed" });
        }
        String::new()
    }

    fn state(&self) -> String {
        let Scenario { fake, users, projects, .. } = &self.scenario;
        let mut actions: BTreeMap<String, usize> = BTreeMap::new();
        for entry in fake.log().iter().filter(|entry| entry.n.is_some()) {
            *actions.entry(entry.action.clone()).or_default() += 1;
        }
        let keys = |user: &&str| {
            let keys: Vec<_> = fake
                .keys(user)
                .into_iter()
                .map(|key| json!({ "id": key.id, "active": key.active }))
                .collect();
            (user.to_string(), json!(keys))
        };
        let of_project = |id: &u64| {
            let named = fake
                .variables(*id)
                .into_iter()
                .find(|variable| variable.key == "AWS_ACCESS_KEY_ID")
                .map(|variable| variable.value);
            let pipelines: Vec<_> = fake
                .pipelines(*id)
                .into_iter()
                .map(|pipeline| json!({ "source": pipeline.source, "status": pipeline.status }))
                .collect();
            let runs: BTreeMap<_, _> = fake
                .productions(*id)
                .into_iter()
                .map(|(environment, pair)| (environment, pair.id))
                .collect();
            (id.to_string(), json!({ "named": named, "runs": runs, "pipelines": pipelines }))
        };
        json!({
            "keys": users.iter().map(keys).collect::<BTreeMap<_, _>>(),
            "projects": projects.iter().map(of_project).collect::<BTreeMap<_, _>>(),
            "actions": actions,
            "violations": fake.violations(),
        })
        .to_string()
    }
}
