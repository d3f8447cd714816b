//! A rotation from end to end, on a machine that has nothing but Rust: `cargo run --example
//! sandbox`.
//!
//! Builds the program, starts the fake of the tests on loopback (IAM, STS and GitLab over real
//! HTTP), and runs the program as three scheduled jobs, by environment alone. A few seconds stand
//! for the days of overlap and grace. Ends with an error unless the fake's own log shows that
//! production never stopped working and that the old key is gone.

#![allow(clippy::print_stdout, reason = "this program is for people to look at")]

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use fake::{Fake, JobSpec, Variable};

const PROJECT: u64 = 42;
const USER: &str = "shop-deployer";
/// Stands for twelve hours and for seven days.
const WAIT: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let program = match build() {
        Ok(program) => program,
        Err(why) => return fail(&why),
    };
    let fake = Fake::builder().start();
    fake.add_user("/service/", USER);
    let old = fake.add_key(USER, 75);
    fake.add_project(PROJECT, "acme/shop");
    fake.set_variable(PROJECT, Variable::new("AWS_ACCESS_KEY_ID", &old.id).masked());
    fake.set_variable(
        PROJECT,
        Variable::new("AWS_SECRET_ACCESS_KEY", &old.secret)
            .masked()
            .description("deploys the shop"),
    );
    fake.set_pipeline_config(
        PROJECT,
        vec![JobSpec::new("build"), JobSpec::deploy("deploy", "production").stage("deploy")],
    );
    fake.start_pipeline(PROJECT, "push");
    fake.finish_pipelines();
    fake.watch_target(PROJECT, "*", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY");
    fake.watch_deploy(PROJECT);

    say("Before");
    show(&fake);
    for (job, day) in [
        (9001, "day 1"),
        (9002, "day 2: the overlap is over"),
        (9003, "day 9: the grace period is over"),
    ] {
        say(&format!("The scheduled job of {day}"));
        fake.add_job(PROJECT, job, "running");
        let mut command = Command::new(&program);
        command
            .env_clear()
            .envs(fake.env(PROJECT, job))
            .envs(std::env::var("ROTATOR_LOG").map(|level| ("ROTATOR_LOG", level)));
        command
            .env("ROTATOR_OVERLAP", format!("{}s", WAIT.as_secs()))
            .env("ROTATOR_GRACE_PERIOD", format!("{}s", WAIT.as_secs()));
        match command.status() {
            Ok(status) if status.success() => fake.job_set_status(job, "success"),
            Ok(status) => return fail(&format!("the job ended with {status}")),
            Err(error) => return fail(&format!("the program could not be started: {error}")),
        }
        // Dates are whole seconds: what lies on the edge is not yet over.
        std::thread::sleep(WAIT + Duration::from_millis(1500));
    }
    say("After");
    show(&fake);
    match check(&fake, &old) {
        Ok(()) => {
            say(
                "The fake's log agrees: the new pair was accepted, the old one was refused at the \
                 end, it was disabled only after the deploy, and production never stopped \
                 working.",
            );
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

/// An example does not build the program itself.
fn build() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder =
        own.parent().and_then(|examples| examples.parent()).ok_or("no target folder")?.to_owned();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--bin", "credential-rotator"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let built = build.status().map_err(|error| format!("cargo could not be started: {error}"))?;
    if built.success() {
        Ok(folder.join("credential-rotator"))
    } else {
        Err("the program could not be built".to_owned())
    }
}

fn show(fake: &Fake) {
    println!("  access keys of {USER}:");
    for key in fake.keys(USER) {
        println!("    {}  {}", key.id, if key.active { "active" } else { "disabled" });
    }
    println!("  variables of acme/shop:");
    for variable in fake.variables(PROJECT) {
        let value = if variable.key.contains("SECRET") { "[a secret]" } else { &variable.value };
        let flags = if variable.masked { "masked" } else { "not masked" };
        println!(
            "    {} = {value}  ({flags}, scope {})  {}",
            variable.key,
            variable.scope,
            variable.description.as_deref().unwrap_or_default()
        );
    }
}

/// What the fake itself saw.
fn check(fake: &Fake, old: &fake::Pair) -> Result<(), String> {
    if let Some(violation) = fake.violations().first() {
        return Err(format!("the invariants found: {violation}"));
    }
    let keys = fake.keys(USER);
    let [new] = &keys[..] else { return Err(format!("there are {} keys, not one", keys.len())) };
    let stored = |name: &str| {
        fake.variable(PROJECT, name, "*").map(|variable| variable.value).unwrap_or_default()
    };
    if stored("AWS_ACCESS_KEY_ID") != new.id || stored("AWS_SECRET_ACCESS_KEY") != new.secret {
        return Err("the variables do not hold the pair that is left".to_owned());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    // With what the last deploy has read, and with what stood there before: two signed calls that
    // the fake decides about.
    runtime.block_on(fake.production_signs(PROJECT))?;
    if runtime
        .block_on(fake.aws("sts", old, "Action=GetCallerIdentity"))
        .is_ok_and(|answer| answer.status == 200)
    {
        return Err("the old pair still works".to_owned());
    }
    let log = fake.log();
    let at = |action: &str, what: &str, status: u16| {
        log.iter()
            .find(|entry| {
                entry.action == action
                    && (entry.who.contains(what) || entry.what.contains(what))
                    && entry.status == status
            })
            .map(|entry| entry.seq)
    };
    let accepted =
        at("sts:GetCallerIdentity", &new.id, 200).ok_or("no call of the new pair was accepted")?;
    at("sts:GetCallerIdentity", &old.id, 403).ok_or("no call of the old pair was refused")?;
    let disabled =
        at("iam:UpdateAccessKey", &old.id, 200).ok_or("the old key was never disabled")?;
    let deployed = log
        .iter()
        .filter(|entry| {
            entry.action == "job success"
                && entry.what.starts_with("deploy ")
                && entry.what.contains(&new.id)
        })
        .map(|entry| entry.seq);
    let deployed = deployed
        .filter(|seq| *seq < disabled)
        .max()
        .ok_or("the old key was disabled before any deploy succeeded")?;
    if accepted > deployed {
        return Err("the deploy ran before the new pair was accepted".to_owned());
    }
    Ok(())
}

fn say(text: &str) {
    println!("\n=== {text}\n");
}

fn fail(why: &str) -> ExitCode {
    eprintln!("\nsandbox: {why}");
    ExitCode::FAILURE
}
