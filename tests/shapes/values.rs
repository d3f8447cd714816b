//! What the variables hold: files, references, white space, half pairs, many pages, and secrets
//! byte for byte.

use credential_rotator::access_key::AccessKeyId;
use credential_rotator::config::Config;
use credential_rotator::gitlab::Gitlab;
use credential_rotator::targets::{self, Lists, PairPart};
use secrecy::SecretString;

use crate::scene::*;
use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        file_variables_stay_files,
        a_reference_for_an_id_is_never_overwritten,
        a_reference_for_a_secret_is_never_overwritten,
        white_space_around_a_pair_is_none_of_it,
        an_id_without_a_secret_is_refused,
        an_id_with_an_empty_secret_is_refused,
        an_id_with_a_blank_secret_is_refused,
        a_secret_without_an_id_is_refused,
        values_that_could_not_be_masked_are_replaced_by_masked_ones,
        among_hundreds_of_variables_the_pair_is_found,
        an_echo_that_differs_is_looked_into_before_the_id_is_written,
        a_secret_that_was_changed_after_it_was_written_gets_no_id,
        an_echo_of_another_scope_gets_no_id,
        an_echo_of_another_name_gets_no_id,
        a_secret_arrives_byte_for_byte,
    ]
}

/// A role signs, and the deploy reads no pair: what stands in the variables is of no use to a job
/// as it is.
fn with_variables(id: impl Fn(&Pair) -> Variable, secret: impl Fn(&Pair) -> Variable) -> Fixture {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    fixture.fake.ours(&fixture.old.id);
    fixture.fake.set_variable(PROJECT, id(&fixture.old));
    fixture.fake.set_variable(PROJECT, secret(&fixture.old));
    fixture.fake.set_pipeline_config(PROJECT, vec![JobSpec::new("deploy")]);
    fixture
}

fn file_variables_stay_files() {
    let fixture = with_variables(
        |old| Variable::new(ID, &old.id).file(),
        |old| Variable::new(SECRET, &old.secret).file().masked(),
    );
    fixture.run().with_role().go().ends(0, "rotated");
    fixture.is_rotated();
    for name in [ID, SECRET] {
        let variable = fixture.fake.variable(PROJECT, name, "*").unwrap();
        assert!(variable.file && variable.masked && variable.raw, "{name}");
    }
}

fn a_reference_for_an_id_is_never_overwritten() {
    refuses_a_reference(&with_variables(
        |_| Variable::new(ID, "$TEAM_KEY").expanded(),
        |old| Variable::new(SECRET, &old.secret),
    ));
}

fn a_reference_for_a_secret_is_never_overwritten() {
    refuses_a_reference(&with_variables(
        |old| Variable::new(ID, &old.id),
        |_| Variable::new(SECRET, "${TEAM_SECRET}").expanded(),
    ));
}

/// Not by force either: somebody wants it to be one.
fn refuses_a_reference(fixture: &Fixture) {
    let before = fixture.fake.variables(PROJECT);
    let ended = fixture.run().with_role().set("ROTATOR_FORCE", "true").go();
    ended.ends(3, "refused");
    assert!(ended.stderr.contains("refers to another variable"), "{}", ended.stderr);
    assert_eq!(fixture.fake.variables(PROJECT), before);
    assert_eq!((fixture.fresh().len(), fixture.old_is_active()), (0, Some(true)));
}

fn white_space_around_a_pair_is_none_of_it() {
    let fixture = with_variables(
        |old| Variable::new(ID, &format!("  {}\n", old.id)),
        |old| Variable::new(SECRET, &format!("{}\r\n", old.secret)),
    );
    fixture.run().with_role().go().ends(0, "rotated");
    fixture.is_rotated();
}

fn an_id_without_a_secret_is_refused() {
    half_a_pair_is_refused(true, None);
}

fn an_id_with_an_empty_secret_is_refused() {
    half_a_pair_is_refused(true, Some(""));
}

fn an_id_with_a_blank_secret_is_refused() {
    half_a_pair_is_refused(true, Some("  "));
}

fn a_secret_without_an_id_is_refused() {
    half_a_pair_is_refused(false, Some("the old one"));
}

fn half_a_pair_is_refused(id: bool, secret: Option<&str>) {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    if id {
        fixture.fake.set_variable(PROJECT, Variable::new(ID, &fixture.old.id));
    }
    if let Some(secret) = secret {
        fixture.fake.set_variable(
            PROJECT,
            Variable::new(SECRET, if id { secret } else { &fixture.old.secret }),
        );
    }
    let ended = fixture.run().unset(ID).unset(SECRET).with_role().go();
    ended.ends(3, "refused");
    let missing = if id {
        "project:42 has the key's id but no secret"
    } else {
        "project:42 has a secret but no key id"
    };
    assert!(ended.stderr.contains(missing), "{}", ended.stderr);
    assert_eq!(
        (fixture.fresh().len(), fixture.old_is_active(), fixture.records().len()),
        (0, Some(true), 0)
    );
}

fn values_that_could_not_be_masked_are_replaced_by_masked_ones() {
    let fixture = with_variables(
        |old| Variable::new(ID, &format!("{} ", old.id)).expanded(),
        |_| Variable::new(SECRET, "a b").expanded().description("typed by hand"),
    );
    fixture.run().with_role().go().ends(0, "rotated");
    fixture.is_rotated();
    for name in [ID, SECRET] {
        let variable = fixture.fake.variable(PROJECT, name, "*").unwrap();
        assert!(variable.masked && variable.raw, "{name}");
    }
    let description = fixture.fake.variable(PROJECT, SECRET, "*").unwrap().description.unwrap();
    assert_eq!(description, format!("typed by hand [credential-rotator {}]", fixture.new_key().id));
}

fn among_hundreds_of_variables_the_pair_is_found() {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    for number in 0..350 {
        let name = format!("SETTING_{number}");
        fixture.fake.set_variable(
            PROJECT,
            Variable::new(&name, "a plain value").scope(if number % 2 == 0 {
                "*"
            } else {
                "staging"
            }),
        );
    }
    let fixture = fixture.published();
    let before: Vec<Variable> = fixture
        .fake
        .variables(PROJECT)
        .into_iter()
        .filter(|variable| variable.key.starts_with("SETTING_"))
        .collect();
    let ended = fixture.run().go();
    ended.ends(0, "rotated");
    fixture.is_rotated();
    let after: Vec<Variable> = fixture
        .fake
        .variables(PROJECT)
        .into_iter()
        .filter(|variable| variable.key.starts_with("SETTING_"))
        .collect();
    assert!(before == after, "a variable that is none of ours was changed");
    assert_eq!(ended.calls("GET /projects/:id/variables") % 4, 0, "each look has all four pages");
    assert_eq!(fixture.records().len(), 1);
}

fn another_value() -> Fault {
    let body = serde_json::json!({
        "key": SECRET, "value": "not-what-was-sent", "masked": true, "raw": true, "protected": false, "environment_scope": "*", "variable_type": "env_var",
    });
    Fault::Instead { status: 200, body: body.to_string(), headers: vec![] }
}

/// Position of the first entry that is meant.
#[track_caller]
fn first(log: &[Entry], what: &str, is: impl Fn(&Entry) -> bool) -> usize {
    log.iter().position(is).unwrap_or_else(|| panic!("no {what}"))
}

fn puts(entry: &Entry, name: &str) -> bool {
    entry.action == "PUT /projects/:id/variables/:key" && entry.what.starts_with(name)
}

fn an_echo_that_differs_is_looked_into_before_the_id_is_written() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on(
        "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY",
        1,
        another_value(),
    );
    let ended = fixture.run().go();
    ended.ends(0, "rotated");
    assert!(ended.stderr.contains("GitLab stored another value than was sent"), "{}", ended.stderr);
    assert!(fixture.fake.faults_hit().iter().all(|fault| fault.hit.is_some()));
    let (secret, id) = (
        first(&ended.log, "secret", |entry| puts(entry, "AWS_SECRET")),
        first(&ended.log, "id", |entry| puts(entry, "AWS_ACCESS")),
    );
    let looked = ended.log[secret..id]
        .iter()
        .any(|entry| entry.action == "GET /projects/:id/variables" && entry.status == 200);
    assert!(looked, "the id was written on the strength of an echo that differs");
    fixture.is_rotated();
}

fn a_secret_that_was_changed_after_it_was_written_gets_no_id() {
    let fixture = Fixture::of_days(75);
    fixture.fake.fault_on(
        "PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY",
        1,
        another_value(),
    );
    let fake = fixture.fake.clone();
    let mangled = move || {
        fake.operator_edits_variable(PROJECT, SECRET, "*", |variable| {
            variable.value = "another/tool+wrote=this%20one".into();
        });
    };
    let ended = fixture.run().once(|entry| puts(entry, "AWS_SECRET"), mangled).go();
    ended.ends(0, "rotated");
    // The invariants check that no id was ever beside a value that is no key's secret.
    assert_eq!(ended.log.iter().filter(|entry| puts(entry, "AWS_SECRET")).count(), 2);
    fixture.is_rotated();
}

fn an_echo_of_another_scope_gets_no_id() {
    an_echo_of_another_variable_gets_no_id("environment_scope", "production");
}

fn an_echo_of_another_name_gets_no_id() {
    an_echo_of_another_variable_gets_no_id("key", "OTHER_KEY");
}

fn an_echo_of_another_variable_gets_no_id(field: &str, value: &str) {
    let fixture = Fixture::of_days(75);
    let mut body = serde_json::json!({ "key": SECRET, "value": null, "hidden": true, "masked": true, "raw": true, "environment_scope": "*" });
    body[field] = value.into();
    let fault = Fault::Instead { status: 200, body: body.to_string(), headers: vec![] };
    fixture.fake.fault_on("PUT /projects/:id/variables/:key AWS_SECRET_ACCESS_KEY", 1, fault);
    let ended = fixture.run().go();
    ended.ends(0, "rotated");
    let (secret, id) = (
        first(&ended.log, "secret", |entry| puts(entry, "AWS_SECRET")),
        first(&ended.log, "id", |entry| puts(entry, "AWS_ACCESS")),
    );
    let looked = ended.log[secret..id]
        .iter()
        .any(|entry| entry.action == "GET /projects/:id/variables" && entry.status == 200);
    assert!(looked, "{field}");
    fixture.is_rotated();
}

/// AWS's secrets have `/` and `+`; what comes next year may have more.
fn a_secret_arrives_byte_for_byte() {
    let fixture = Fixture::of_days(75);
    fixture.fake.add_group(7, "acme");
    publish(&fixture, group(7), "*");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = AccessKeyId::parse("AKIAIOSFODNN7EXAMPLE").unwrap();
    let mut env = fixture.fake.env(PROJECT, {
        fixture.fake.add_job(PROJECT, 9001, "running");
        9001
    });
    env.push(("ROTATOR_TARGETS".into(), "project:acme/shop,group:7".into()));
    let config =
        Config::from_env(env.into_iter().map(|(name, value)| (name.into(), value.into()))).unwrap();
    let gitlab = Gitlab::new(&config).unwrap_or_else(|error| panic!("{error}"));
    let secrets = [
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY=",
        "++++++++//////========%%%%%%%%",
        "%2F%2B%3D%25%00%0A",
        "a+b/c=d%e&f;g?h#i@j:k~l.m-n_o!p$q'r(s)t*u,v[w]x{y}z|\\\"<>^`",
        "%%%2525==&value=injected&masked=false",
        "ümläut-ß-€-漢字-🔑",
    ];
    runtime.block_on(async {
        for secret in secrets {
            for target in &config.targets {
                let lists =
                    Lists::read(&gitlab, &config).await.unwrap_or_else(|error| panic!("{error}"));
                let value = SecretString::from(secret);
                let written = targets::write(
                    &gitlab,
                    &config,
                    &lists,
                    target,
                    PairPart::Secret,
                    &key,
                    &value,
                )
                .await;
                written.unwrap_or_else(|error| panic!("{secret}: {error}"));
            }
            for home in [project(PROJECT), group(7)] {
                assert_eq!(fixture.stored_in(home, "*").1, secret);
                assert!(fixture.fake.variable(home, SECRET, "*").unwrap().masked);
            }
        }
    });
}
