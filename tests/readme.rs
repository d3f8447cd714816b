//! The documents and the program say the same: variables, exit codes, failures, policies, samples
//! and links, each in the page where it belongs.

use std::fmt::Debug;
use std::fs;
use std::path::Path;

use credential_rotator::access_key::{AccessKeyId, Use};
use credential_rotator::aws::{
    AwsError, CredentialAdvice, Denial, KeyRefusal, PolicyKind, RegionRefusal, RoleRefusal, Signer,
};
use credential_rotator::config::{ConfigErrors, VARIABLES, table_markdown};
use credential_rotator::error::{Blocker, Error, Notice, Refusal, exit};
use credential_rotator::fence::Fenced;
use credential_rotator::gitlab::variables::EchoField;
use credential_rotator::gitlab::{
    ApiError, ApiErrorKind, ClientError, NEEDED_RIGHTS, OLDEST, Right,
};
use credential_rotator::net::ConnectError;
use credential_rotator::plan::Waiting;
use jiff::Timestamp;
use yaml_rust2::{Yaml, YamlLoader};

const VARIABLES_PAGE: &str = "docs/reference.md";
const FAILURES_PAGE: &str = "docs/troubleshooting.md";
const POLICIES_PAGE: &str = "docs/aws.md";

/// Stand for whatever the log names; the page has `N` for the number and leaves the status out.
const NUMBER: u16 = 4040;
const WHAT: &str = "WHAT";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("there is no {start}"));
    rest.split_once(end).unwrap_or_else(|| panic!("there is no {end} after {start}")).0
}

/// The README and every page beside it and in `docs`, as paths from the root.
fn documents() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ["", "docs/"] {
        for entry in fs::read_dir(root.join(folder)).expect("a folder of documents") {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            if name.ends_with(".md") {
                found.push(format!("{folder}{name}"));
            }
        }
    }
    assert!(found.iter().any(|path| path == "README.md"));
    assert!(found.iter().any(|path| path == FAILURES_PAGE));
    found.sort();
    found
}

#[test]
fn the_table_of_variables_is_the_programs_own() {
    let page = read(VARIABLES_PAGE);
    assert_eq!(between(&page, "<!-- variables -->\n", "<!-- /variables -->"), table_markdown());
}

/// Inputs that are no variables: each component's own, with the same default in page and component.
#[test]
fn the_table_of_the_jobs_inputs_is_the_components_own() {
    let page = read(VARIABLES_PAGE);
    let listed = between(&page, "\n### Inputs of the job\n", "\n## ");
    let mut listed: Vec<(&str, Vec<&str>)> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .map(|(name, rest)| (name, rest.split(" | ").next().into_iter().flat_map(quoted).collect()))
        .collect();
    let mut known = Vec::new();
    for component in ["rotate", "stages"] {
        let template = read(&format!("templates/{component}.yml"));
        let (head, _) = template.split_once("\n---\n").expect("two documents");
        let inputs = YamlLoader::load_from_str(head).expect("YAML")[0]["spec"]["inputs"].clone();
        for (name, input) in inputs.as_hash().expect("inputs") {
            let name = name.as_str().expect("a name");
            let variable = format!("ROTATOR_{}", name.to_uppercase());
            if VARIABLES.iter().any(|row| row.name == variable) {
                continue;
            }
            known.push(name.to_owned());
            let (_, defaults) = listed
                .iter()
                .find(|(input, _)| *input == name)
                .unwrap_or_else(|| panic!("{VARIABLES_PAGE} has no row for {name}"));
            let default = input["default"].as_str().filter(|text| !text.is_empty());
            assert!(
                default.map_or(defaults.is_empty(), |default| defaults.contains(&default)),
                "{component}: {name}: {default:?}, in the page {defaults:?}"
            );
        }
    }
    listed.retain(|(name, _)| !known.iter().any(|input| input == name));
    assert!(listed.is_empty(), "no component has {listed:?}");
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_rights_of_a_fine_grained_token_are_those_that_the_hint_names() {
    let page = read("docs/gitlab.md");
    let listed =
        between(&page, "\n| resource | permissions | for |\n| --- | --- | --- |\n", "\n\n");
    let listed: Vec<Vec<&str>> =
        listed.lines().map(|row| row.trim_matches(['|', ' ']).split(" | ").collect()).collect();
    assert_eq!(
        listed.iter().map(|row| (row[0], row[1])).collect::<Vec<_>>(),
        NEEDED_RIGHTS.to_vec()
    );
}

#[test]
fn the_oldest_gitlab_is_the_one_that_an_error_speaks_of() {
    let oldest = format!("GitLab {}.{}", OLDEST.0, OLDEST.1);
    assert!(read("README.md").contains(&format!("You need {oldest} or later")));
    assert!(read("docs/gitlab.md").contains(&format!("**{oldest}**")));
}

#[test]
fn every_exit_code_is_listed() {
    let codes = [
        exit::OK,
        exit::FAILED,
        exit::CONFIGURATION,
        exit::REFUSED,
        exit::DEPLOY,
        exit::BUSY,
        exit::NOTICE,
        exit::SIGNAL,
    ];
    assert_eq!(
        read("src/error.rs").matches("    pub const ").count(),
        codes.len(),
        "a code that this test does not know"
    );
    for (page, heading) in
        [("README.md", "\n## When a run fails\n"), (FAILURES_PAGE, "\n## Exit codes\n")]
    {
        let text = read(page);
        let listed = between(&text, heading, "\n## ");
        for code in codes {
            assert!(listed.contains(&format!("\n| {} | ", shown(code))), "{page}: {code}");
        }
    }
}

#[test]
fn every_recognised_failure_is_in_the_table_of_errors() {
    let page = read(FAILURES_PAGE);
    let listed = between(&page, "\n## Errors\n", "\n## ");
    let rows: Vec<String> = failures()
        .iter()
        .map(|error| format!("| {} | {} |", plain(&error.to_string()), shown(error.exit_code())))
        .collect();
    let missing: Vec<_> =
        rows.iter().filter(|row| !listed.contains(&format!("\n{row} "))).collect();
    assert!(missing.is_empty(), "rows of {FAILURES_PAGE} must begin so: {missing:#?}");
}

#[test]
fn every_notice_is_in_the_table_of_warnings() {
    let page = read(FAILURES_PAGE);
    let listed = between(&page, "\n## Warnings\n", "\n## ");
    let known: Vec<String> = notices().iter().map(|notice| plain(&notice.to_string())).collect();
    let rows = listed.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows: Vec<&str> =
        rows.map(|(warning, _)| warning).filter(|row| !["warning", "---"].contains(row)).collect();
    assert_eq!(rows, known, "{FAILURES_PAGE}");
    complete("error/notice.rs", "Notice", &notices().iter().map(name).collect::<Vec<_>>());
}

/// Nothing stops for ever: whatever a run waits for or refuses has its end in the page.
#[test]
fn every_wait_and_every_refusal_is_listed_with_what_ends_it() {
    let page = read(VARIABLES_PAGE);
    let listed = between(&page, "\n## What ends a wait or a refusal\n", "\n## ");
    let rows = listed.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows: Vec<(&str, &str)> = rows.collect();
    let waits = waits();
    complete("plan/step.rs", "Waiting", &waits.iter().map(name).collect::<Vec<_>>());
    let known: Vec<String> = waits
        .iter()
        .map(|wait| plain(&wait.to_string()))
        .chain(refusals().iter().map(|refusal| plain(&refusal.to_string())))
        .collect();
    for known in &known {
        let found = rows.iter().find(|(what, _)| what == known);
        let (_, end) = found.unwrap_or_else(|| panic!("{VARIABLES_PAGE} has no row: {known}"));
        assert!(end.trim_end_matches([' ', '|']).len() > 3, "{known} never ends");
    }
    let heads = ["wait (exit code 0)", "refusal", "---"];
    for (what, _) in rows.iter().filter(|(what, _)| !heads.contains(what)) {
        assert!(known.iter().any(|known| known == what), "no wait and no refusal: {what}");
    }
}

#[test]
fn each_row_of_the_plan_that_waits_or_refuses_says_when_that_ends() {
    let plan = read("src/plan.rs");
    let rows = plan.lines().filter_map(|line| line.strip_prefix("//! | "));
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split(" | ").collect()).collect();
    assert!(rows.len() > 30);
    assert_eq!(rows[0].last(), Some(&"ends when |"));
    for row in &rows[2..] {
        let step = row[2];
        let stays = ["wait", "refuse"].iter().any(|word| step.contains(word));
        let end = row[row.len() - 1].trim_end_matches([' ', '|']);
        assert_eq!((row.len(), stays), (6, end != "–"), "{row:?}");
    }
}

#[test]
fn every_blocker_is_in_the_table_of_findings() {
    let page = read(FAILURES_PAGE);
    let listed = between(&page, "\n## Findings\n", "\n## ");
    let known: Vec<String> = blockers().iter().map(|blocker| plain(&blocker.to_string())).collect();
    let rows = listed.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(" | "));
    let rows: Vec<&str> =
        rows.map(|(finding, _)| finding).filter(|row| !["finding", "---"].contains(row)).collect();
    assert_eq!(rows, known, "{FAILURES_PAGE}");
    complete("error/blocker.rs", "Blocker", &blockers().iter().map(name).collect::<Vec<_>>());
}

/// A failure, a blocker or a notice that no transcript shows has never been seen.
#[test]
fn every_recognised_failure_is_provoked_by_a_test() {
    let mut transcripts = String::new();
    for folder in ["tests/binary", "tests/tls"] {
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
            .expect("a folder of tests")
        {
            transcripts += &fs::read_to_string(file.expect("a file").path()).expect("a text");
        }
    }
    let lines: Vec<&str> = transcripts.lines().collect();
    let known = failures();
    let never: Vec<String> = known
        .iter()
        .map(|error| plain(&error.to_string()))
        .chain(blockers().iter().map(|blocker| plain(&blocker.to_string())))
        .chain(notices().iter().map(|notice| plain(&notice.to_string())))
        .filter(|error| !lines.iter().any(|line| shows(line, error)))
        .collect();
    assert!(never.is_empty(), "no transcript shows: {never:#?}");
}

/// Whether a transcript's line has all that does not vary of an error, in its order.
fn shows(line: &str, error: &str) -> bool {
    let varies = |word: &&str| {
        !word.chars().any(|letter| letter.is_ascii_lowercase())
            && word.chars().any(|letter| letter.is_ascii_uppercase())
    };
    let mut rest = line;
    let constant = error.split(' ').filter(|word| !varies(word) && !word.starts_with('…'));
    constant.into_iter().all(|word| {
        let found = rest.find(word);
        rest = found.map_or("", |at| &rest[at + word.len()..]);
        found.is_some()
    })
}

#[test]
fn what_is_listed_as_a_failure_is_one() {
    let page = read(FAILURES_PAGE);
    let listed = between(&page, "\n## Errors\n", "\n## ");
    let known: Vec<String> = failures().iter().map(|error| plain(&error.to_string())).collect();
    let rows = listed
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .map(|(error, _)| error);
    // The one that is not an `Error` is the binary's own.
    let of_the_binary = "the only arguments are --help and --version";
    assert!(read("src/main.rs").contains(of_the_binary));
    for row in rows.filter(|row| !["error", "---", of_the_binary].contains(row)) {
        assert!(known.iter().any(|error| error == row), "the program never says: {row}");
    }
}

/// A failure that is missing here is missing in the page.
#[test]
fn the_failures_of_this_test_are_all_that_there_are() {
    let some = failures();
    let inner =
        |pick: fn(&Error) -> Option<String>| some.iter().filter_map(pick).collect::<Vec<_>>();
    complete("error.rs", "Error", &some.iter().map(name).collect::<Vec<_>>());
    let client =
        inner(|error| if let Error::Client(error) = error { Some(name(error)) } else { None });
    complete("gitlab/error.rs", "ClientError", &client);
    let aws = inner(|error| if let Error::Aws(error) = error { Some(name(error)) } else { None });
    complete("aws/error.rs", "AwsError", &aws);
    let errors =
        inner(
            |error| {
                if let Error::GitLab { error, .. } = error { Some(name(error)) } else { None }
            },
        );
    complete("gitlab/error.rs", "ApiError", &errors);
    let reasons = inner(|error| match error {
        Error::GitLab { error: ApiError::Denied { kind, .. }, .. } => Some(name(kind)),
        _ => None,
    });
    complete("gitlab/error.rs", "ApiErrorKind", &reasons);
    let connect_error = inner(|error| {
        if let Error::Aws(AwsError::Unreachable { connect_error, .. }) = error {
            Some(name(connect_error))
        } else {
            None
        }
    });
    complete("net.rs", "ConnectError", &connect_error);
    complete(
        "fence.rs",
        "Fenced",
        &inner(|error| if let Error::ClaimLost(why) = error { Some(name(why)) } else { None }),
    );
    complete(
        "error/refusal.rs",
        "Refusal",
        &inner(
            |error| {
                if let Error::Refused(refusal) = error { Some(name(refusal)) } else { None }
            },
        ),
    );
    let advice = inner(|error| {
        if let Error::Aws(AwsError::NoCredentials { advice }) = error {
            Some(name(advice))
        } else {
            None
        }
    });
    complete("aws/error.rs", "CredentialAdvice", &advice);
    let refused = inner(|error| {
        if let Error::Aws(AwsError::KeyRefused { refusal, .. }) = error {
            Some(name(refusal))
        } else {
            None
        }
    });
    complete("aws/error.rs", "KeyRefusal", &refused);
    complete(
        "aws/error.rs",
        "RoleRefusal",
        &inner(|error| {
            if let Error::Aws(AwsError::RoleRefused { why, .. }) = error {
                Some(name(why))
            } else {
                None
            }
        }),
    );
    let regions = inner(|error| match error {
        Error::Aws(AwsError::RegionRefused { refusal, .. }) => Some(name(refusal)),
        _ => None,
    });
    complete("aws/error.rs", "RegionRefusal", &regions);
    let denied: Vec<String> = denials().iter().map(name).collect();
    complete("aws/denial.rs", "Denial", &denied);
    let kinds = denials().into_iter().filter_map(|denial| match denial {
        Denial::NotAllowed(kind) => Some(name(&kind)),
        Denial::Forbidden(_) | Denial::Quarantine => None,
    });
    complete("aws/denial.rs", "PolicyKind", &kinds.collect::<Vec<_>>());
}

/// Each reason why AWS does not allow a call has its row, and its transcript.
#[test]
fn every_denial_is_in_its_table_and_provoked_by_a_test() {
    let page = read(POLICIES_PAGE);
    let listed = between(&page, "\n## When AWS does not allow a call\n", "\n## ");
    let transcripts = read("tests/binary/aws.rs") + &read("tests/binary/denials.rs");
    for denial in denials() {
        assert!(listed.contains(&format!("\n| {denial} | ")), "{POLICIES_PAGE}: {denial}");
        let of_a_role = matches!(
            denial,
            Denial::NotAllowed(PolicyKind::Resource) | Denial::Forbidden(PolicyKind::Resource)
        );
        let line = if of_a_role { format!("assumed: {denial}") } else { format!(": {denial}") };
        assert!(transcripts.contains(&format!("{line}\n")), "no transcript shows: {denial}");
    }
}

#[test]
fn the_policies_to_copy_are_json() {
    let page = read(POLICIES_PAGE);
    let mut names = Vec::new();
    for rest in page.split("<!-- policy: ").skip(1) {
        let (name, block) =
            rest.split_once(" -->\n```json\n").expect("a block of JSON right behind the marker");
        let (block, _) = block.split_once("\n```").expect("an end of the block");
        let policy: serde_json::Value =
            serde_json::from_str(block).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(policy["Version"], "2012-10-17", "{name}");
        assert!(policy["Statement"].is_array(), "{name}");
        names.push(name);
    }
    assert_eq!(names, ["self", "self-path", "role", "role-trust", "chain", "chain-trust"]);
}

#[test]
fn the_samples_are_yaml_and_name_inputs_that_the_components_have() {
    let mut includes = 0;
    for file in documents() {
        for block in samples(&read(&file)) {
            // Interpolation is GitLab's, before YAML.
            let documents =
                YamlLoader::load_from_str(&block.replace("$[[ ", "").replace(" ]]", ""))
                    .unwrap_or_else(|error| panic!("{file}: {error}\n{block}"));
            for document in &documents {
                for include in document["include"].as_vec().into_iter().flatten() {
                    check_include(&file, include);
                    includes += 1;
                }
            }
        }
    }
    assert!(includes >= 2);
}

/// The blocks of YAML; one inside a list is indented as far as its fence.
fn samples(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix("```yaml").filter(|rest| rest.trim().is_empty())
        else {
            continue;
        };
        let end = format!("{indent}```");
        let mut block = String::new();
        loop {
            match lines.next().expect("an end of the block") {
                line if line == end => break,
                "" => block += "\n",
                line => block += &format!("{}\n", line.strip_prefix(indent).expect("its indent")),
            }
        }
        found.push(block);
    }
    found
}

fn check_include(file: &str, include: &Yaml) {
    let component = include["component"].as_str().expect("a component");
    let (name, version) =
        component.rsplit('/').next().and_then(|last| last.split_once('@')).expect("NAME@VERSION");
    assert_eq!(version, env!("CARGO_PKG_VERSION"), "{file}: {component}");
    let template = read(&format!("templates/{name}.yml"));
    for input in include["inputs"].as_hash().expect("inputs").keys() {
        let input = input.as_str().expect("a name");
        assert!(
            template.contains(&format!("\n    {input}:\n")),
            "{file}: {name} has no input {input}"
        );
    }
}

/// Who arrives reads the README; every other page answers one question, and is found from there.
#[test]
fn the_readme_is_short_and_leads_to_pages_of_one_question() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 200, "the README is too long: move it to a page in docs/");
    for page in documents().iter().filter(|path| path.starts_with("docs/")) {
        assert!(readme.contains(&format!("]({page})")), "the README does not link {page}");
        let text = read(page);
        let (_, body) = text.split_once("\n\n").expect("a heading");
        assert!(body.starts_with("This page answers:"), "{page} begins with its question");
        assert!(text.lines().count() <= 350, "{page} is too long: make two pages of it");
    }
}

#[test]
fn the_picture_of_the_keys_life_shows_the_defaults() {
    let picture = read("docs/key-life.svg");
    for (name, words) in
        [("ROTATOR_OVERLAP", "overlap of"), ("ROTATOR_GRACE_PERIOD", "grace period of")]
    {
        let row = VARIABLES.iter().find(|row| row.name == name).expect("a row");
        assert!(
            picture.contains(&format!("{words} {} is over", row.default)),
            "run docs/pictures.py: {name}"
        );
    }
}

#[test]
fn every_variable_and_every_link_exists() {
    for file in documents() {
        let text = read(&file);
        for rest in text.split("`ROTATOR_").skip(1) {
            let name: String = rest
                .chars()
                .take_while(|letter| letter.is_ascii_uppercase() || *letter == '_')
                .collect();
            let known = name.is_empty()
                || VARIABLES.iter().any(|row| row.name == format!("ROTATOR_{name}"));
            assert!(known, "{file}: ROTATOR_{name}");
        }
        for rest in text.split("](").skip(1) {
            let (link, _) = rest.split_once(')').expect("a link");
            if !link.starts_with("https://") {
                follow(&file, link);
            }
        }
    }
}

/// A link goes from the folder of its file to a file, and to a heading of it where it names one.
fn follow(file: &str, link: &str) {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = match path {
        "" => root.join(file),
        path => root.join(file).parent().expect("a folder").join(path),
    };
    assert!(target.exists(), "{file}: {link}");
    if !heading.is_empty() {
        let text = fs::read_to_string(&target).expect("a text");
        assert!(headings(&text).any(|known| anchor(known) == heading), "{file}: {link}");
    }
}

/// The headings, without what looks like one in a block of code.
fn headings(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        code ^= line.trim_start().starts_with("```");
        !code && line.starts_with('#')
    })
}

/// As GitLab makes the link of a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

fn shown(code: u8) -> String {
    if code >= exit::SIGNAL { "128+n".to_owned() } else { code.to_string() }
}

/// The first line of an error, without what it was about.
fn plain(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let line = line.strip_prefix(&format!("{WHAT}: ")).unwrap_or(line);
    let line = denials()
        .iter()
        .fold(line.to_owned(), |line, denial| line.replace(&format!(": {denial}"), ": REASON"));
    let line = line
        .replace(&format!(" ({NUMBER})"), "")
        .replace(&NUMBER.to_string(), "N")
        .replace("1970-01-01T00:00:00Z", "DATE")
        .replace("1970-01-01", "DATE")
        .replace("another value than", "another FIELD than");
    line.trim_end_matches(" ()").trim_end_matches([':', ' ']).to_owned()
}

/// The variant's name.
fn name(value: &impl Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// Compares with the variants that the source declares.
fn complete(file: &str, kind: &str, known: &[String]) {
    let source = read(&format!("src/{file}"));
    let body = between(&source, &format!("pub enum {kind} {{\n"), "\n}");
    let variant = |line: &str| {
        line.strip_prefix("    ")
            .filter(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
            .map(name_of)
    };
    let declared: Vec<String> = body.lines().filter_map(variant).collect();
    assert!(!declared.is_empty());
    for variant in declared {
        assert!(known.contains(&variant), "{kind}::{variant} is not in `failures`");
    }
}

fn name_of(line: &str) -> String {
    line.chars().take_while(char::is_ascii_alphanumeric).collect()
}

/// Every reason why AWS does not allow a call.
fn denials() -> Vec<Denial> {
    let kinds = [
        PolicyKind::Identity,
        PolicyKind::Boundary,
        PolicyKind::ServiceControl,
        PolicyKind::ResourceControl,
        PolicyKind::Session,
        PolicyKind::Resource,
        PolicyKind::Endpoint,
        PolicyKind::Unnamed,
    ];
    let mut all = vec![Denial::Quarantine];
    for kind in kinds {
        all.extend([Denial::NotAllowed(kind), Denial::Forbidden(kind)]);
    }
    all
}

/// Every failure that is recognised, with words in capitals for what it names.
fn failures() -> Vec<Error> {
    let mut all = vec![
        Error::Configuration(ConfigErrors(Vec::new())),
        Error::ReportFile { path: text("FILE"), variable: "VARIABLE" },
        Error::Client(ClientError::CaFile { path: text("FILE") }),
        Error::Client(ClientError::NoRoots),
        Error::EchoDiffers { what: text(WHAT), field: EchoField::Value },
        Error::NoGroupScopes { target: text("TARGET") },
        Error::UnreadableRecord { name: text("NAME") },
        Error::Aws(AwsError::ProfileMissing),
        Error::Aws(AwsError::UserNotFound { user: text("USER") }),
        Error::Aws(AwsError::RootUser),
        Error::Aws(AwsError::NoUser),
        Error::Aws(AwsError::AnotherPrincipal { user: text("USER"), arn: text("ARN") }),
        Error::Aws(AwsError::IdTokenEnded),
        Error::Aws(AwsError::Throttled { what: WHAT }),
        Error::Aws(AwsError::KeyLimit { user: text("USER") }),
        Error::Aws(AwsError::Conflict { what: WHAT }),
        Error::Aws(AwsError::Unavailable { what: WHAT, code: text("CODE") }),
        Error::Aws(AwsError::Unexpected { what: WHAT, code: text("CODE") }),
        Error::Aws(AwsError::ClockWrong { seconds: NUMBER.into() }),
        Error::Aws(AwsError::NotVerifiable { key: key(), seconds: NUMBER.into() }),
        Error::CreateUnclear,
        Error::CreatedOrphan,
        Error::NoTimeLeft { needed: NUMBER.into(), left: NUMBER.into() },
        Error::ClocksApart { seconds: NUMBER.into() },
        Error::Stopped { signal: 15 },
    ];
    for session_token in [false, true] {
        let signer = || Signer(Some(key()));
        for refusal in [
            KeyRefusal::Unknown { signer: signer(), session_token },
            KeyRefusal::WrongSecret { signer: signer(), session_token },
        ] {
            all.push(Error::Aws(AwsError::KeyRefused { what: WHAT, refusal }));
        }
    }
    let refusal = KeyRefusal::Temporary(key());
    all.push(Error::Aws(AwsError::KeyRefused { what: WHAT, refusal }));
    for denial in denials() {
        let user = Some(text("USER"));
        all.push(Error::Aws(AwsError::Denied { action: "ACTION", user, denial }));
    }
    for advice in [
        CredentialAdvice::Protected,
        CredentialAdvice::Scoped,
        CredentialAdvice::Exists,
        CredentialAdvice::NoVariables,
    ] {
        all.push(Error::Aws(AwsError::NoCredentials { advice }));
    }
    for why in [
        RoleRefusal::Denied(Denial::Quarantine),
        RoleRefusal::Audience,
        RoleRefusal::NoProvider,
        RoleRefusal::KeysUnreachable,
        RoleRefusal::Thumbprint,
        RoleRefusal::TokenInvalid,
    ] {
        all.push(Error::Aws(AwsError::RoleRefused { role: text("ROLE"), why }));
    }
    for refusal in [RegionRefusal::SwitchedOff, RegionRefusal::NotTheEndpoints] {
        all.push(Error::Aws(AwsError::RegionRefused { what: WHAT, refusal }));
    }
    all.extend(fenced().map(Error::ClaimLost));
    all.extend(reaches().map(|connect_error| {
        Error::Aws(AwsError::Unreachable { what: WHAT, host: text("HOST"), connect_error })
    }));
    all.extend(fenced().map(|why| Error::Aws(AwsError::Fenced(why))));
    let errors = reaches()
        .map(|connect_error| ApiError::Unreachable { host: text("HOST"), connect_error })
        .into_iter()
        .chain(fenced().map(ApiError::Fenced))
        .chain([ApiError::Lost { host: text("HOST") }, ApiError::Garbled { host: text("HOST") }]);
    let denied = reasons().into_iter().map(|kind| ApiError::Denied {
        status: NUMBER,
        kind,
        pause: None,
        doubt: false,
    });
    all.extend(errors.chain(denied).map(|error| Error::GitLab { what: text(WHAT), error }));
    all.extend(refusals().into_iter().map(Error::Refused));
    all
}

fn reaches() -> [ConnectError; 9] {
    use ConnectError::{
        Expired, Name, Other, OtherName, Proxy, Refused, TimedOut, Tls, UnknownIssuer,
    };
    [Name, Refused, TimedOut, UnknownIssuer, OtherName, Expired, Tls, Proxy, Other]
}

fn fenced() -> [Fenced; 4] {
    [Fenced::JobEnded, Fenced::Unseen, Fenced::TimeOver, Fenced::RecordGone]
}

fn reasons() -> Vec<ApiErrorKind> {
    vec![
        ApiErrorKind::TokenInvalid,
        ApiErrorKind::TokenExpired,
        ApiErrorKind::TokenScope,
        ApiErrorKind::TokenGranular(Right { resource: "RIGHT", action: "ACTION" }),
        ApiErrorKind::Blocked,
        ApiErrorKind::SignInNeeded,
        ApiErrorKind::Archived,
        ApiErrorKind::ReadOnly,
        ApiErrorKind::Forbidden,
        ApiErrorKind::NotFound,
        ApiErrorKind::Moved,
        ApiErrorKind::Redirected,
        ApiErrorKind::Locked,
        ApiErrorKind::AlreadyExists,
        ApiErrorKind::VariableLimit,
        ApiErrorKind::Unmaskable,
        ApiErrorKind::RateLimited,
        ApiErrorKind::PipelineRate,
        ApiErrorKind::PipelineEmpty,
        ApiErrorKind::PipelineWorkflow,
        ApiErrorKind::PipelineRef,
        ApiErrorKind::PipelinePermission,
        ApiErrorKind::PipelineVariables,
        ApiErrorKind::PipelineInputs,
        ApiErrorKind::PipelineOther,
        ApiErrorKind::NotRetryable,
        ApiErrorKind::Server,
        ApiErrorKind::TooOld(text("VERSION")),
        ApiErrorKind::Other,
    ]
}

fn waits() -> Vec<Waiting> {
    let until = Timestamp::UNIX_EPOCH;
    vec![
        Waiting::Afterlife { until },
        Waiting::Unsettled { until },
        Waiting::InFlightJobs(Vec::new()),
        Waiting::Deploys(vec![text("PIPELINES")]),
        Waiting::Margin { until },
        Waiting::OwnDeploy,
        Waiting::OwnSigner { old: key() },
        Waiting::Overlap { old: key(), until },
        Waiting::StillUsed {
            old: key(),
            last: until,
            service: text("SERVICE"),
            until,
            late: false,
        },
        Waiting::Grace { old: key(), until },
    ]
}

fn refusals() -> Vec<Refusal> {
    let target = || text("TARGET");
    vec![
        Refusal::Busy,
        Refusal::NoVariables,
        Refusal::PartMissing { target: target(), missing_secret: true },
        Refusal::PartMissing { target: target(), missing_secret: false },
        Refusal::Differ(Vec::new()),
        Refusal::Mismatch { target: target(), id: key(), tag: key() },
        Refusal::Unknown { target: target(), key: key() },
        Refusal::Unusable { target: target(), why: text("REASON") },
        Refusal::NoSlot { keys: Vec::new(), named: Vec::new() },
        Refusal::Preflight(Vec::new()),
        Refusal::Several(Vec::new()),
        Refusal::ChangedExternally { target: target(), new_key: key() },
        Refusal::NewKeyLost { key: key(), disabled: true },
        Refusal::NewKeyLost { key: key(), disabled: false },
        Refusal::SecretLost { key: key(), target: target() },
        Refusal::KeyCompromised { key: key(), service: text("SERVICE") },
        Refusal::NotPublishedAnyMore { key: key(), target: target() },
        Refusal::AddedTarget { key: key(), target: target(), hidden: false },
        Refusal::AddedTarget { key: key(), target: target(), hidden: true },
        Refusal::EnabledAgain { key: key() },
        Refusal::EarlierRotation {
            old: key(),
            disabled: false,
            until: Timestamp::UNIX_EPOCH,
            used: used(),
        },
        Refusal::EarlierRotation {
            old: key(),
            disabled: true,
            until: Timestamp::UNIX_EPOCH,
            used: used(),
        },
        Refusal::OldPairGiven { key: key(), in_target: true, places: Vec::new() },
        Refusal::StillNamed { key: key(), places: vec![text("PLACES")] },
        Refusal::TooOld { key: key(), created: Timestamp::UNIX_EPOCH },
        Refusal::DeployFailed(Vec::new()),
        Refusal::DeployUnproven(Vec::new()),
        Refusal::DeployTimedOut(Vec::new()),
    ]
}

/// Every blocker, in the order of the table of findings.
fn blockers() -> Vec<Blocker> {
    let (project, target, owner) = (|| text("PROJECT"), || text("TARGET"), || text("OWNER"));
    let (variable, scope) = (|| text("VARIABLE"), || text("SCOPE"));
    let environment = || text("ENVIRONMENT");
    let right = Right { resource: "RIGHT", action: "ACTION" };
    vec![
        Blocker::JobTooShort { needed: i64::from(NUMBER), left: i64::from(NUMBER) },
        Blocker::TokenExpires { at: Timestamp::UNIX_EPOCH },
        Blocker::StsRefuses { region: text("REGION") },
        Blocker::Denied { action: "ACTION", fix: text("FIX") },
        Blocker::AllHidden,
        Blocker::OtherReference { key: key(), places: vec![text("PLACES")] },
        Blocker::NoRoomForTag { secret: variable(), target: target() },
        Blocker::SessionToken { owner: owner(), scope: scope() },
        Blocker::HalfPair { secret: variable(), owner: owner(), scope: scope(), target: target() },
        Blocker::CloserScope {
            variable: variable(),
            owner: owner(),
            scope: scope(),
            target: target(),
            environment: environment(),
        },
        Blocker::CloserOwner {
            variable: variable(),
            owner: owner(),
            scope: scope(),
            target: target(),
        },
        Blocker::RecordTooLong { length: NUMBER as usize },
        Blocker::ProjectHidden { project: project() },
        Blocker::TokenLacks { right, project: project() },
        Blocker::NotAllowed { right, project: project() },
        Blocker::ProjectArchived { project: project() },
        Blocker::CiOff { project: project() },
        Blocker::PipelineVariables { project: project() },
        Blocker::NoRef { project: project(), name: text("REF") },
        Blocker::NoBranch { project: project() },
        Blocker::NoDeployment { project: project(), environment: environment() },
        Blocker::JobArchived { project: project(), environment: environment(), job: text("JOB") },
        Blocker::NothingByJob { project: project(), environment: environment(), job: text("JOB") },
        Blocker::TriggerJob { project: project(), environment: environment(), job: text("JOB") },
        Blocker::FurtherJobs {
            project: project(),
            environment: environment(),
            jobs: vec![text("JOB")],
        },
    ]
}

/// Every notice, in the order of the table of warnings.
fn notices() -> Vec<Notice> {
    vec![
        Notice::UnexplainedKey { key: key() },
        Notice::OldKeyInUse { key: key(), last: Timestamp::UNIX_EPOCH, service: text("SERVICE") },
        Notice::Blocked(Blocker::NoRef { project: text("PROJECT"), name: text("REF") }),
        Notice::OutdatedDeployments { project: text("PROJECT") },
        Notice::NoDeploySeen { link: text("PIPELINE") },
        Notice::Superseded { key: key(), others: Vec::new() },
    ]
}

fn used() -> Use {
    Use::At { when: Timestamp::UNIX_EPOCH, service: text("SERVICE") }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn key() -> AccessKeyId {
    AccessKeyId::parse("AKIA000000000000WXYZ").expect("the form of an id")
}
