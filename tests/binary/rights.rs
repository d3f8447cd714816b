//! What a rotation needs later is tried before it: the table of docs/gitlab.md against the calls of
//! whole rotations, and each right taken away in turn.

use std::fs;
use std::path::Path;

use fake::*;

use crate::outcomes::{in_job, retire_job, rotate_job, staged};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        each_call_of_a_whole_rotation_has_its_row_and_is_tried_as_it_says,
        each_right_that_can_be_tried_is_named_before_a_key_is_made,
        what_cannot_be_tried_leaves_both_keys,
        a_right_that_only_the_look_needs_is_told,
    ]
}

const CREATE: &str = "iam:CreateAccessKey";
const MODES: [&str; 3] = ["pipeline", "environment/NAME", "none"];

/// A row of the table.
#[derive(Debug)]
struct Row {
    call: String,
    mode: String,
    tried: Tried,
}

#[derive(Debug, PartialEq)]
enum Tried {
    By(String),
    Never,
    NotNeeded,
}

fn table() -> Vec<Row> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/gitlab.md");
    let page = fs::read_to_string(page).expect("the page");
    let (_, rest) =
        page.split_once("| call | `deploy` | tried |\n| --- | --- | --- |\n").expect("it");
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
        let [call, mode, tried] = cells[..] else { panic!("not three cells: {line}") };
        let call = call.trim_matches('`').to_owned();
        let by = |rest: &str| rest.split('`').nth(1).expect("a call in backticks").to_owned();
        let tried = match tried.split_once(' ').expect("two words") {
            ("by", rest) if rest.starts_with("itself") => Tried::By(call.clone()),
            ("by", rest) => Tried::By(by(rest)),
            ("cannot", _) => Tried::Never,
            ("not", _) => Tried::NotNeeded,
            _ => panic!("tried how? {line}"),
        };
        Row { call, mode: mode.trim_matches('`').to_owned(), tried }
    };
    rest.lines().take_while(|line| line.starts_with("| ")).map(row).collect()
}

/// The mode of the deploy and the calls of a whole rotation in it, from the first look until the
/// old key is gone.
type Calls = (&'static str, Vec<String>);

/// The variables of groups have no rows of their own.
fn calls(log: &[Entry]) -> Vec<String> {
    let made = log.iter().filter(|entry| entry.n.is_some());
    made.map(|entry| entry.action.replace("/groups/:id/variables", "/projects/:id/variables"))
        .collect()
}

/// Rotates, waits an overlap and a grace period out, and goes on with each later run.
fn rotation(
    mode: &'static str,
    fixture: &Fixture,
    prepare: impl for<'a> Fn(Run<'a>) -> Run<'a>,
) -> Calls {
    let mut log = Vec::new();
    for minutes in 1..=3 {
        let run = fixture.run().with_role();
        let run = run.set("ROTATOR_OVERLAP", "1m").set("ROTATOR_GRACE_PERIOD", "1m");
        let ended = prepare(run).go();
        assert!([0, 6].contains(&ended.code), "{mode}: {}", ended.stderr);
        log.extend(calls(&ended.log));
        fixture.fake.shift_clock(70 * minutes);
    }
    assert_eq!(fixture.old_is_active(), None, "{mode}");
    (mode, log)
}

fn all_jobs_of_a_pipeline() -> Calls {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    fake.add_project(43, "acme/smoke");
    fake.set_pipeline_config(43, vec![JobSpec::new("smoke")]);
    let bridge = JobSpec::bridge("downstream", 43, true);
    fake.set_pipeline_config(PROJECT, vec![JobSpec::deploy("deploy", "production"), bridge]);
    rotation("pipeline", &fixture, |run| run)
}

fn named_jobs_of_a_pipeline() -> Calls {
    let fixture = Fixture::of_days(75);
    rotation("pipeline", &fixture, |run| run.set("ROTATOR_DEPLOY_JOBS", "deploy"))
}

/// The deployment tells that it is one.
fn a_pipeline_without_a_deploy_by_name() -> Calls {
    let fixture = Fixture::of_days(75);
    let live = JobSpec::deploy("live", "production").stage("main");
    fixture.fake.set_pipeline_config(PROJECT, vec![live]);
    rotation("pipeline", &fixture, |run| run)
}

/// The project that is deployed lies in a group of the target's group.
fn below_a_group() -> Fixture {
    let fixture = Fixture::bare(Fake::builder().seed(7).calm().start(), 75);
    let fake = &fixture.fake;
    fake.add_group(7, "acme");
    fake.add_group(8, "acme/eu");
    fake.add_project(43, "acme/eu/shop");
    fake.set_pipeline_config(43, vec![JobSpec::deploy("deploy", "production")]);
    fake.set_pair(group(7), &fixture.old);
    fixture
}

fn of_a_group() -> Calls {
    let fixture = below_a_group();
    rotation("pipeline", &fixture, |run| {
        run.set("ROTATOR_TARGETS", "group:7").set("ROTATOR_DEPLOY_PROJECTS", "43")
    })
}

fn by_an_environment() -> Calls {
    let fixture = Fixture::of_days(75);
    rotation("environment/NAME", &fixture, |run| {
        run.set("ROTATOR_DEPLOY", "environment/production")
    })
}

/// The pipeline deploys by itself, between `rotate` and `retire`.
fn by_itself() -> Calls {
    let fixture = Fixture::of_days(75);
    let deploy = JobSpec::deploy("deploy", "production").stage("2");
    staged(&fixture, "schedule", vec![rotate_job(), deploy, retire_job()]);
    let rotated = in_job(&fixture, "rotate", "rotate").set("ROTATOR_OVERLAP", "1m").go();
    rotated.ends(0, "deploying");
    let retired = in_job(&fixture, "retire", "retire").go();
    retired.ends(0, "resumed");
    ("none", [calls(&rotated.log), calls(&retired.log)].concat())
}

fn each_call_of_a_whole_rotation_has_its_row_and_is_tried_as_it_says() {
    let kinds: [fn() -> Calls; 6] = [
        all_jobs_of_a_pipeline,
        named_jobs_of_a_pipeline,
        a_pipeline_without_a_deploy_by_name,
        of_a_group,
        by_an_environment,
        by_itself,
    ];
    let rotations = std::thread::scope(|scope| {
        let rotations = kinds.map(|kind| scope.spawn(kind));
        rotations.map(|rotation| rotation.join().expect("a whole rotation"))
    });
    let rows = table();
    let fits = |row: &Row, mode: &str| row.mode == "any" || row.mode == mode;
    for (mode, log) in &rotations {
        let created = log.iter().position(|call| call == CREATE).expect("a key was made");
        for call in log {
            let mut found = rows.iter().filter(|row| row.call == *call && fits(row, mode));
            let (Some(row), None) = (found.next(), found.next()) else {
                panic!("docs/gitlab.md has not one row for {call} with deploy {mode}")
            };
            let before = |call: &String| log[..created].contains(call);
            match &row.tried {
                Tried::By(tried) => assert!(before(tried), "{mode}: {call} is not tried"),
                Tried::Never => assert!(!before(call), "{mode}: {call} is tried after all"),
                Tried::NotNeeded => {}
            }
        }
    }
    for row in &rows {
        assert!(row.mode == "any" || MODES.contains(&row.mode.as_str()), "{row:?}");
        let is_made = |(mode, log): &Calls| fits(row, mode) && log.contains(&row.call);
        assert!(rotations.iter().any(is_made), "no rotation makes this call: {row:?}");
    }
}

/// The modes whose rotation needs it, and the right.
const TRIED: [(&[&str], &str); 9] = [
    (&MODES, "Variable: Read"),
    (&MODES, "Variable: Create"),
    (&MODES, "Variable: Update"),
    (&MODES, "Project: Read"),
    (&MODES, "Job: Read"),
    (&MODES, "Pipeline: Read"),
    (&["pipeline"], "Commit: Read"),
    (&["environment/NAME"], "Deployment: Read"),
    (&["environment/NAME"], "iam:GetAccessKeyLastUsed"),
];

fn prepared<'a>(fixture: &'a Fixture, mode: &str) -> Run<'a> {
    let deploy = mode.replace("NAME", "production");
    fixture.run().set("ROTATOR_DEPLOY", &deploy).set("ROTATOR_OVERLAP", "12h")
}

fn lacking(right: &str) -> Fixture {
    let fixture = Fixture::of_days(75);
    let fake = &fixture.fake;
    if right.starts_with("iam:") {
        let rest = ["List", "Create", "Update", "Delete"].map(|verb| match verb {
            "List" => "iam:ListAccessKeys".to_owned(),
            verb => format!("iam:{verb}AccessKey"),
        });
        fake.set_policy(USER, &rest.each_ref().map(String::as_str));
    } else {
        fake.change_token(&fake.token, |token| token.make_fine_grained(&[right]));
    }
    fixture
}

fn each_right_that_can_be_tried_is_named_before_a_key_is_made() {
    for (modes, right) in TRIED {
        for mode in modes {
            let fixture = lacking(right);
            let ended = prepared(&fixture, mode).go();
            let error = ended.stderr.rfind("error: ").map_or("", |at| &ended.stderr[at..]);
            assert!(ended.code == 3 && error.contains(right), "{mode} {right}: {}", ended.stderr);
            assert_eq!(ended.calls(CREATE), 0, "{mode} {right}");
            assert_eq!(fixture.old_is_active(), Some(true), "{mode} {right}");
        }
    }
}

fn what_cannot_be_tried_leaves_both_keys() {
    for (mode, right) in [("pipeline", "Pipeline: Create"), ("environment/NAME", "Job: Run")] {
        let fixture = lacking(right);
        let ended = prepared(&fixture, mode).go();
        let error = ended.stderr.rfind("error: ").map_or("", |at| &ended.stderr[at..]);
        assert!(ended.code != 0 && error.contains(right), "{mode} {right}: {}", ended.stderr);
        assert_eq!(fixture.stored().0, fixture.new_key().id, "{mode} {right}");
        assert_eq!(fixture.old_is_active(), Some(true), "{mode} {right}");
    }
}

fn a_right_that_only_the_look_needs_is_told() {
    let fixture = lacking("Personal Access Token: Read");
    let ended = fixture.run().go();
    ended.ends(0, "rotated");
    let told = "not known: GitLab does not tell when the token expires";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);

    let fixture = below_a_group();
    let fake = &fixture.fake;
    fake.change_token(&fake.token, |token| token.make_fine_grained(&["Group: Read"]));
    let run = fixture.run().set("ROTATOR_TARGETS", "group:7");
    let ended = run.set("ROTATOR_DEPLOY_PROJECTS", "43").go();
    ended.ends(0, "rotated");
    let told = "not known: group 7 above acme/eu cannot be seen";
    assert!(ended.stderr.contains(told), "{}", ended.stderr);
}
