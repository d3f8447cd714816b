//! The files for GitLab: nothing cleans up before a job with `GIT_STRATEGY: none`, and what lies
//! there at its end is uploaded, whatever the end was.

use std::fs;
use std::path::Path;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use fake::*;

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        // No file of an earlier run is left.
        a_wrong_setting_leaves_no_file_of_yesterday,
        a_wrong_path_leaves_no_other_file_of_yesterday,
        a_wrong_argument_leaves_no_file_of_yesterday,
        a_killed_run_leaves_no_file_of_yesterday,
        a_refused_run_leaves_its_own_files,
    ]
}

const FILES: [(&str, &str); 3] = [
    ("ROTATOR_REPORT", "credential-rotator.json"),
    ("ROTATOR_DOTENV", "credential-rotator.env"),
    ("ROTATOR_ANNOTATIONS", "credential-rotator-links.json"),
];
const YESTERDAY: &str = "ROTATION_OUTCOME=rotated\n";

/// A folder with all that yesterday's run wrote, one of it half.
fn yesterday() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (_, name) in FILES {
        fs::write(folder.path().join(name), YESTERDAY).expect("a file");
    }
    fs::write(folder.path().join("credential-rotator.json.part"), YESTERDAY).expect("a file");
    folder
}

/// The job in that folder: as a variable of the project, a path may have white space around it.
fn job_in<'a>(fixture: &'a Fixture, folder: &Path) -> Run<'a> {
    FILES.iter().fold(fixture.run(), |run, (variable, name)| {
        run.set(variable, &format!(" {} ", folder.join(name).display()))
    })
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

fn a_wrong_setting_leaves_no_file_of_yesterday() {
    let (fixture, folder) = (Fixture::of_days(75), yesterday());
    let ended = job_in(&fixture, folder.path()).set("ROTATOR_OVERLAP", "2 fortnights").go();
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert_eq!(left_in(folder.path()), Vec::<String>::new());
}

fn a_wrong_path_leaves_no_other_file_of_yesterday() {
    let (fixture, folder) = (Fixture::of_days(75), yesterday());
    let ended = job_in(&fixture, folder.path()).set("ROTATOR_DOTENV", "/nowhere/rotation.env").go();
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert_eq!(left_in(folder.path()), ["credential-rotator.env"], "which no setting names");
}

fn a_wrong_argument_leaves_no_file_of_yesterday() {
    let (fixture, folder) = (Fixture::of_days(75), yesterday());
    let run = job_in(&fixture, folder.path());
    let output = run.command().arg("rotate").output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(left_in(folder.path()), Vec::<String>::new());
}

fn a_killed_run_leaves_no_file_of_yesterday() {
    let (fixture, folder) = (Fixture::of_days(75), yesterday());
    let fake = &fixture.fake;
    fake.fault_from("POST /projects/:id/variables", 1, Fault::Hang { effect: false });
    let running = job_in(&fixture, folder.path()).start();
    until(|| fake.faults_hit()[0].hit).expect("it writes its record");
    kill_process(running.pid(), Signal::KILL).expect("it runs");
    assert_eq!(running.wait().code, -9);
    assert_eq!(left_in(folder.path()), Vec::<String>::new());
}

fn a_refused_run_leaves_its_own_files() {
    let (fixture, folder) = (Fixture::of_days(75), yesterday());
    fixture.fake.set_archived(PROJECT, true);
    let ended = job_in(&fixture, folder.path()).go();
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert_eq!(left_in(folder.path()).len(), 3, "and no part of one");
    for (_, name) in FILES {
        let text = fs::read_to_string(folder.path().join(name)).expect("a file");
        assert!(!text.contains("rotated"), "{name}: {text}");
    }
    let report = fs::read_to_string(folder.path().join(FILES[0].1)).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["outcome"], "refused");
}
