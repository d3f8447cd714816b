//! A world for programs that are not tests: it stays open until the file `FOLDER/stop` appears.
//!
//! Three users whose keys are 75 days old, each with a project whose deploy reads the pair: `alpha` (101, acme/alpha), `beta` (102) and
//! `gamma` (103). Two roles that trust any ID token of the audience `sandbox`: `rotator-a` may rotate alpha and beta, `rotator-b`
//! gamma. `FOLDER/env` holds what a job needs as shell assignments, `FOLDER/state.json` what the world has seen, renewed four times a second.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use crate::fail;
use crate::world::{JobSpec, Trust, World};

const PROJECTS: [(u64, &str); 3] = [(101, "alpha"), (102, "beta"), (103, "gamma")];
/// A week: longer than anybody keeps a sandbox open.
const TOKEN_SECONDS: i64 = 7 * 86_400;

pub(crate) fn serve(folder: &Path) -> ExitCode {
    let world = World::builder().start();
    let mut env = vec![
        ("CI_API_V4_URL".to_owned(), format!("{}/api/v4", world.url)),
        ("AWS_ENDPOINT_URL".to_owned(), world.url.clone()),
        ("ROTATOR_GITLAB_TOKEN".to_owned(), world.token.clone()),
    ];
    for (project, user) in PROJECTS {
        world.add_user("/service/", user);
        let key = world.add_key(user, 75);
        world.add_project(project, &format!("acme/{user}"));
        world.set_pair(project, &key);
        world.set_pipeline_config(project, vec![JobSpec::deploy("deploy", "production")]);
        world.start_pipeline(project, "push");
        world.finish_pipelines();
        world.watch_target(project, "*", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
        world.watch_deploy(project);
        let name = user.to_uppercase();
        env.push((format!("{name}_KEY_ID"), key.id));
        env.push((format!("{name}_SECRET"), key.secret));
    }
    for (role, users) in [("rotator-a", &["alpha", "beta"][..]), ("rotator-b", &["gamma"])] {
        let trust = Trust::WebIdentity { aud: "sandbox".into(), sub: "*".into() };
        let policies: Vec<String> = users.iter().map(|user| world.rotation_policy(user)).collect();
        let arn = world.add_role(role, trust, 3600, &merged(&policies));
        env.push((role.to_uppercase().replace('-', "_") + "_ARN", arn));
    }
    env.push(("ID_TOKEN".to_owned(), world.issue_id_token("sandbox", "project_path:acme/alpha:ref_type:branch:ref:main", TOKEN_SECONDS)));
    let env: String = env.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
    if std::fs::create_dir_all(folder).and_then(|()| std::fs::write(folder.join("env"), env)).is_err() {
        return fail(&format!("{} cannot be written", folder.display()));
    }
    while !folder.join("stop").exists() {
        let written = std::fs::write(folder.join("state.new"), state(&world));
        if written.and_then(|()| std::fs::rename(folder.join("state.new"), folder.join("state.json"))).is_err() {
            return fail(&format!("{} cannot be written", folder.display()));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    ExitCode::SUCCESS
}

/// One policy document of several.
fn merged(policies: &[String]) -> String {
    let statements = policies.iter().filter_map(|policy| serde_json::from_str::<serde_json::Value>(policy).ok());
    let statements: Vec<serde_json::Value> = statements.filter_map(|policy| policy["Statement"].as_array().cloned()).flatten().collect();
    json!({ "Version": "2012-10-17", "Statement": statements }).to_string()
}

/// Ids, flags and calls; no secret.
fn state(world: &World) -> String {
    let users = PROJECTS.iter().map(|(project, user)| {
        let keys: Vec<_> = world.keys(user).iter().map(|key| json!({ "id": key.id, "active": key.active })).collect();
        let pipelines: Vec<_> = world
            .pipelines(*project)
            .iter()
            .map(|pipeline| json!({ "id": pipeline.id, "source": pipeline.source, "status": pipeline.status }))
            .collect();
        let named = world.variable(*project, "AWS_ACCESS_KEY_ID", "*").map(|variable| variable.value);
        ((*user).to_owned(), json!({ "project": project, "keys": keys, "named": named, "pipelines": pipelines }))
    });
    let users: serde_json::Map<String, serde_json::Value> = users.collect();
    let calls: Vec<_> = world
        .log()
        .iter()
        .map(|entry| json!({ "action": entry.action, "who": entry.who, "what": entry.what, "status": entry.status, "effect": entry.effect }))
        .collect();
    json!({ "users": users, "calls": calls, "violations": world.violations() }).to_string()
}
