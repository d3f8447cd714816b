//! The components, the program and what it tells about itself agree; the samples use them rightly.
//!
//! GitLab puts inputs into the nodes of the YAML, other tools into its text. Both are done here and
//! must come to the same: a value that breaks out of its quotes shows.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use credential_rotator::config::{Config, VARIABLES};
use credential_rotator::error::exit;
use yaml_rust2::yaml::Hash;
use yaml_rust2::{Yaml, YamlLoader};

/// Set by the runner, or not for a person to set.
const NO_INPUT: [&str; 5] = [
    "ROTATOR_GITLAB_TOKEN",
    "ROTATOR_AWS_ID_TOKEN",
    "ROTATOR_REPORT",
    "ROTATOR_DOTENV",
    "ROTATOR_ANNOTATIONS",
];
/// Inputs that concern the job, not the program.
const OF_THE_JOB: [&str; 11] = [
    "stage",
    "job_name",
    "retire_stage",
    "retire_job_name",
    "image",
    "tags",
    "timeout",
    "schedule",
    "environment",
    "resource_group",
    "id_token_aud",
];
/// What the `stages` form decides itself, and what only `setup` or `check` uses.
const FIXED_IN_STAGES: [&str; 8] = [
    "action",
    "protected",
    "hidden",
    "max_age",
    "deploy",
    "deploy_projects",
    "deploy_inputs",
    "deploy_variables",
];

struct Component {
    name: &'static str,
    inputs: Hash,
    /// The second document, as text.
    text: String,
}

fn component(name: &'static str) -> Component {
    let text = read(&format!("templates/{name}.yml"));
    let (head, body) = text.split_once("\n---\n").expect("two documents");
    let inputs = parse(head)["spec"]["inputs"].as_hash().expect("inputs").clone();
    Component { name, inputs, text: body.to_owned() }
}

fn components() -> [Component; 2] {
    [component("rotate"), component("stages")]
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn parse(text: &str) -> Yaml {
    let documents =
        YamlLoader::load_from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let [document] = &documents[..] else { panic!("not one document:\n{text}") };
    document.clone()
}

fn strings(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec().expect("a list").iter().map(|word| word.as_str().expect("a string")).collect()
}

/// The variable of an input.
fn variable_of(input: &str) -> String {
    format!("ROTATOR_{}", input.to_uppercase())
}

/// What the program does with an unset one is no value of it.
fn default_of(variable: &str) -> Option<&'static str> {
    let row = VARIABLES.iter().find(|row| row.name == variable)?;
    let in_words = row.default.contains([' ', '$']) || ["unset", "required"].contains(&row.default);
    Some(if in_words { "" } else { row.default })
}

impl Component {
    fn names(&self) -> Vec<&str> {
        self.inputs.keys().map(|name| name.as_str().expect("a name")).collect()
    }

    fn input(&self, name: &str) -> &Yaml {
        &self.inputs[&Yaml::String(name.to_owned())]
    }

    /// As GitLab puts it into the text: strings as they are, everything else as JSON.
    fn default(&self, name: &str) -> Option<String> {
        match &self.input(name)["default"] {
            Yaml::String(text) => Some(text.clone()),
            Yaml::Boolean(value) => Some(value.to_string()),
            Yaml::Array(list) if list.is_empty() => Some("[]".to_owned()),
            Yaml::BadValue => None,
            other => panic!("{}: default of {name}: {other:?}", self.name),
        }
    }

    fn defaults(&self) -> BTreeMap<&str, String> {
        let required = |name| if name == "deploy_jobs" { Some("deploy".to_owned()) } else { None };
        let value = |name| self.default(name).or_else(|| required(name)).expect("a default");
        self.names().into_iter().map(|name| (name, value(name))).collect()
    }

    fn with(&self, inputs: &BTreeMap<&str, String>) -> Yaml {
        let mut text = self.text.clone();
        for (name, value) in inputs {
            text = text.replace(&format!("$[[ inputs.{name} ]]"), value);
        }
        assert!(!text.contains("$[["), "{}: not all inputs are known", self.name);
        let by_text = parse(&last_of_equal_keys(&text));
        let by_node = interpolated(&parse(&self.text), inputs);
        assert_eq!(by_node, by_text, "{}: text and nodes come to the same", self.name);
        by_text
    }
}

/// As GitLab does it (`lib/gitlab/ci/config/interpolation/config.rb`), but that a whole node which
/// is no array stays text: what it becomes as a variable is the same.
fn interpolated(node: &Yaml, inputs: &BTreeMap<&str, String>) -> Yaml {
    match node {
        Yaml::Hash(pairs) => {
            let mut replaced = Hash::new();
            for (key, value) in pairs {
                replaced.insert(interpolated(key, inputs), interpolated(value, inputs));
            }
            Yaml::Hash(replaced)
        }
        Yaml::Array(list) => {
            Yaml::Array(list.iter().map(|item| interpolated(item, inputs)).collect())
        }
        Yaml::String(text) if text == "$[[ inputs.tags ]]" => parse(&inputs["tags"]),
        Yaml::String(text) => {
            let replaced = inputs.iter().fold(text.clone(), |text, (name, value)| {
                text.replace(&format!("$[[ inputs.{name} ]]"), value)
            });
            Yaml::String(replaced)
        }
        other => other.clone(),
    }
}

/// Of equal keys GitLab takes the last; this parser refuses them.
fn last_of_equal_keys(text: &str) -> String {
    let mut blocks: Vec<(String, String)> = vec![(String::new(), String::new())];
    for line in text.lines() {
        if line.starts_with(|first: char| !first.is_whitespace() && first != '#') {
            blocks.retain(|(key, _)| key != line);
            blocks.push((line.to_owned(), String::new()));
        }
        let (_, block) = blocks.last_mut().expect("the first is there");
        *block += line;
        *block += "\n";
    }
    blocks.into_iter().map(|(_, block)| block).collect()
}

/// The job with what it extends, as far as one key of it goes: what counts most is first.
fn merged<'a>(document: &'a Yaml, job: &str, key: &str) -> Vec<&'a Yaml> {
    let part = &document[job];
    assert!(!part.is_badvalue(), "there is no {job}");
    let mut found: Vec<&Yaml> =
        Some(&part[key]).into_iter().filter(|it| !it.is_badvalue()).collect();
    let extends = &part["extends"];
    let several = extends.as_vec().into_iter().flatten().rev();
    for name in extends.as_str().into_iter().chain(several.filter_map(Yaml::as_str)) {
        found.extend(merged(document, name, key));
    }
    found
}

/// The variables of a job; one that is no string is shown as what it became.
fn variables(document: &Yaml, job: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, value) in merged(document, job, "variables")
        .into_iter()
        .flat_map(|part| part.as_hash().expect("variables"))
    {
        let value =
            value.as_str().map_or_else(|| format!("not a string: {value:?}"), str::to_owned);
        variables.entry(name.as_str().expect("a name").to_owned()).or_insert(value);
    }
    variables
}

fn jobs(inputs: &BTreeMap<&str, String>) -> Vec<String> {
    ["job_name", "retire_job_name"].iter().filter_map(|name| inputs.get(name)).cloned().collect()
}

fn config(variables: &[(&str, &str)]) -> Config {
    let of_the_job = [
        ("ROTATOR_GITLAB_TOKEN", "glpat-0123456789abcdefghij"),
        ("CI_PROJECT_ID", "42"),
        ("CI_API_V4_URL", "https://gitlab.example.com/api/v4"),
    ];
    let all = of_the_job
        .iter()
        .chain(variables)
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::from_env(all).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn every_input_is_typed_described_and_guarded_against_typos() {
    for component in components() {
        for name in component.names() {
            let input = component.input(name);
            let about = format!("{}: {name}", component.name);
            let kind = input["type"].as_str().unwrap_or_else(|| panic!("{about} has no type"));
            let description = input["description"]
                .as_str()
                .unwrap_or_else(|| panic!("{about} has no description"));
            assert!(description.ends_with('.'), "{about}: {description}");
            let guarded = !input["options"].is_badvalue() || !input["regex"].is_badvalue();
            assert_eq!(guarded, kind == "string", "{about}");
            assert!(["string", "boolean", "array"].contains(&kind), "{about}: {kind}");
        }
    }
}

#[test]
fn every_input_is_used_and_every_used_one_is_declared() {
    for component in components() {
        let mut used: Vec<&str> = component
            .text
            .split("$[[ inputs.")
            .skip(1)
            .map(|rest| rest.split(' ').next().expect("a name"))
            .collect();
        used.sort_unstable();
        used.dedup();
        let mut declared = component.names();
        declared.sort_unstable();
        assert_eq!(used, declared, "{}", component.name);
    }
}

#[test]
fn every_variable_of_a_job_is_one_of_the_program() {
    for component in components() {
        let inputs = component.defaults();
        let document = component.with(&inputs);
        for job in jobs(&inputs) {
            for name in variables(&document, &job).keys() {
                let known = VARIABLES.iter().any(|row| row.name == name) || name == "GIT_STRATEGY";
                assert!(known, "{}: {job}: {name}", component.name);
            }
            for tokens in merged(&document, &job, "id_tokens") {
                assert_eq!(
                    tokens.as_hash().map(|tokens| tokens.keys().cloned().collect()),
                    Some(vec![Yaml::String("ROTATOR_AWS_ID_TOKEN".to_owned())])
                );
            }
        }
    }
}

#[test]
fn every_variable_of_the_program_is_an_input_of_its_name() {
    for component in components() {
        let fixed: &[&str] = if component.name == "stages" { &FIXED_IN_STAGES } else { &[] };
        let mut wanted: Vec<String> = VARIABLES
            .iter()
            .map(|row| row.name.to_owned())
            .filter(|name| !NO_INPUT.contains(&name.as_str()))
            .collect();
        wanted.retain(|name| !fixed.iter().any(|input| variable_of(input) == *name));
        let mut inputs: Vec<String> = component
            .names()
            .into_iter()
            .filter(|name| !OF_THE_JOB.contains(name))
            .map(variable_of)
            .collect();
        wanted.sort();
        inputs.sort();
        assert_eq!(inputs, wanted, "{}", component.name);
    }
}

#[test]
fn the_defaults_are_those_of_the_program() {
    for component in components() {
        for name in component.names().into_iter().filter(|name| !OF_THE_JOB.contains(name)) {
            let default = component.default(name);
            if component.name == "stages" && name == "deploy_jobs" {
                assert_eq!(default, None, "without it the second job has no proof");
                continue;
            }
            assert_eq!(
                default.as_deref(),
                default_of(&variable_of(name)),
                "{}: {name}",
                component.name
            );
        }
    }
}

#[test]
fn an_include_without_inputs_is_the_program_without_variables() {
    let rotate = component("rotate");
    let inputs = rotate.defaults();
    let given = variables(&rotate.with(&inputs), &inputs["job_name"]);
    let files = ["ROTATOR_REPORT", "ROTATOR_DOTENV", "ROTATOR_ANNOTATIONS"];
    let given: Vec<_> = given
        .iter()
        .filter(|(name, _)| !files.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(format!("{:#?}", config(&given)), format!("{:#?}", config(&[])));
}

#[test]
fn every_option_is_a_value_that_the_program_knows() {
    for component in components() {
        for name in component.names() {
            let options = &component.input(name)["options"];
            for option in options.as_vec().into_iter().flatten() {
                let option = option.as_str().expect("a string");
                let variable = variable_of(name);
                let mut given = vec![(variable.as_str(), option)];
                if option == "retire" {
                    given.extend([("ROTATOR_DEPLOY", "none"), ("ROTATOR_DEPLOY_JOBS", "deploy")]);
                }
                config(&given);
            }
        }
    }
    let actions = component("rotate").input("action")["options"].clone();
    assert_eq!(strings(&actions), ["rotate", "setup", "check", "retire"]);
}

#[test]
fn a_value_arrives_as_it_was_given() {
    let odd = [
        ("deploy_inputs", r##"{"a": "it's \"b\": #1", "c": [true, 1]}"##),
        ("deploy_variables", r#"{"A": "x: y"}"#),
        ("deploy_jobs", r##"deploy: [eu, 1], "smoke" # 'test', off, - x, {y}"##),
        ("gitlab_ca_file", "/etc/a: b #c \"d\" \\e"),
        ("targets", "project:acme/shop@review/*, group:acme/team@production"),
        ("iam_user", "off"),
        ("log", "off"),
        ("protected", "true"),
        ("rotate_after", "30d"),
        ("key_id_variable", "1"),
        ("aws_role_arn", "arn:aws:iam::111111111111:role/a/b, arn:aws:iam::$ACCOUNT:role/c"),
        ("job_name", "rotate: \"the\" key #1"),
        ("stage", "on"),
        ("environment", "review/$CI_COMMIT_REF_SLUG"),
        ("schedule", r##"^it's\s"daily": #1$"##),
        ("tags", r#"["docker","arm64"]"#),
    ];
    for component in components() {
        let mut inputs = component.defaults();
        for (name, value) in odd {
            if let Some(place) = inputs.get_mut(name) {
                value.clone_into(place);
            }
        }
        let document = component.with(&inputs);
        for job in jobs(&inputs) {
            let given = variables(&document, &job);
            for (name, value) in &inputs {
                if let Some(given) = given.get(&variable_of(name)) {
                    assert_eq!(given, value, "{}: {job}: {name}", component.name);
                }
            }
            let environment = merged(&document, &job, "environment");
            assert_eq!(environment.len(), 1);
            assert_eq!(environment[0]["name"].as_str(), Some("review/$CI_COMMIT_REF_SLUG"));
            assert_eq!(
                environment[0]["action"].as_str(),
                Some("access"),
                "no deployment is counted"
            );
            let rules = merged(&document, &job, "rules");
            let schedule = rules[0][0]["if"].as_str().expect("a rule");
            assert!(schedule.ends_with(r##" =~ /^it's\s"daily": #1$/"##), "{schedule}");
            assert_eq!(strings(merged(&document, &job, "tags")[0]), ["docker", "arm64"]);
        }
        assert_eq!(document[inputs["job_name"].as_str()]["stage"].as_str(), Some("on"));
    }
}

/// Empty is not the same as absent: an environment needs a name, GitLab's schema wants a tag, and
/// from 19.1 on a job that declares an ID token is dropped where the project's path was another's.
#[test]
fn what_an_empty_input_leaves_out_is_not_in_the_job() {
    for component in components() {
        let mut inputs = component.defaults();
        for (input, key, empty) in [
            ("environment", "environment", ""),
            ("tags", "tags", "[]"),
            ("id_token_aud", "id_tokens", ""),
        ] {
            inputs.insert(input, empty.to_owned());
            let without = component.with(&inputs);
            for job in jobs(&inputs) {
                assert!(merged(&without, &job, key).is_empty(), "{}: {job}: {key}", component.name);
            }
        }
    }
}

/// A project that gives its jobs a runner by `default: tags` expects that of this one too.
#[test]
fn of_the_projects_defaults_the_jobs_take_the_tags_alone() {
    for component in components() {
        let inputs = component.defaults();
        for job in jobs(&inputs) {
            let document = component.with(&inputs);
            assert_eq!(strings(&merged(&document, &job, "inherit")[0]["default"]), ["tags"]);
        }
    }
}

#[test]
fn a_run_that_is_done_with_a_warning_stops_nothing() {
    for component in components() {
        let inputs = component.defaults();
        let document = component.with(&inputs);
        for job in jobs(&inputs) {
            let allowed = &merged(&document, &job, "allow_failure")[0]["exit_codes"];
            let codes: Vec<_> = allowed.as_vec().expect("codes").iter().map(Yaml::as_i64).collect();
            assert_eq!(codes, [Some(i64::from(exit::NOTICE))]);
        }
    }
}

#[test]
fn only_schedules_and_people_start_the_jobs() {
    for component in components() {
        let inputs = component.defaults();
        let document = component.with(&inputs);
        for job in jobs(&inputs) {
            let rules = merged(&document, &job, "rules");
            assert_eq!(rules.len(), 1);
            for rule in rules[0].as_vec().expect("rules") {
                let condition =
                    rule["if"].as_str().expect("a rule without a condition lets everything in");
                let source = ["schedule", "web"].iter().any(|source| {
                    condition.starts_with(&format!("$CI_PIPELINE_SOURCE == \"{source}\""))
                });
                assert!(source && !condition.contains(") ||"), "{condition}");
            }
        }
    }
}

#[test]
fn a_job_holds_still_and_keeps_what_it_wrote() {
    for component in components() {
        let inputs = component.defaults();
        let document = component.with(&inputs);
        for job in jobs(&inputs) {
            let first = |key| merged(&document, &job, key)[0].clone();
            let given = variables(&document, &job);
            assert_eq!(first("script").as_str(), Some("credential-rotator"));
            assert_eq!(first("interruptible").as_bool(), Some(false));
            assert_eq!(
                first("resource_group").as_str(),
                Some("credential-rotator-$ROTATOR_IAM_USER")
            );
            for reason in strings(&first("retry")["when"]) {
                assert!(
                    ["runner_system_failure", "scheduler_failure", "stuck_or_timeout_failure"]
                        .contains(&reason),
                    "{reason}"
                );
            }
            let artifacts = first("artifacts");
            assert_eq!(artifacts["when"].as_str(), Some("always"));
            assert_eq!(strings(&artifacts["paths"]), [given["ROTATOR_REPORT"].as_str()]);
            assert_eq!(
                artifacts["reports"]["dotenv"].as_str(),
                Some(given["ROTATOR_DOTENV"].as_str())
            );
            assert_eq!(
                artifacts["reports"]["annotations"].as_str(),
                Some(given["ROTATOR_ANNOTATIONS"].as_str())
            );
        }
    }
}

#[test]
fn the_two_components_say_the_same_of_the_inputs_that_they_share() {
    let [rotate, stages] = components();
    let own = ["stage", "deploy_jobs"];
    for name in stages
        .names()
        .into_iter()
        .filter(|name| rotate.names().contains(name) && !own.contains(name))
    {
        for key in ["type", "default", "options", "regex"] {
            assert_eq!(rotate.input(name)[key], stages.input(name)[key], "{name}: {key}");
        }
    }
}

#[test]
fn a_component_names_the_image_of_its_own_version() {
    for component in components() {
        let image = component.default("image").expect("a default");
        assert!(
            image.ends_with(&format!(":{}", env!("CARGO_PKG_VERSION"))),
            "{}: {image}",
            component.name
        );
    }
}

#[test]
fn the_help_tells_of_every_variable() {
    let help = Config::help();
    for row in VARIABLES {
        assert!(help.contains(&format!("  {} [{}]\n", row.name, row.default)), "{}", row.name);
    }
}

#[test]
fn the_samples_offer_force_and_dry_run_in_the_form_and_pass_them_on() {
    for (sample, name) in [("in-project", "rotate"), ("central", "rotate"), ("stages", "stages")] {
        let text = read(&format!("examples/{sample}/.gitlab-ci.yml"));
        let (head, body) = text.split_once("\n---\n").expect("two documents");
        let (head, body) = (parse(head), parse(body));
        let include = &body["include"][0];
        let wanted =
            format!("$CI_SERVER_FQDN/acme/credential-rotator/{name}@{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(include["component"].as_str(), Some(wanted.as_str()), "{sample}");
        for input in ["force", "dry_run"] {
            let declared = &head["spec"]["inputs"][input];
            assert_eq!(declared["type"].as_str(), Some("boolean"), "{sample}: {input}");
            assert_eq!(declared["default"].as_bool(), Some(false), "{sample}: {input}");
            assert_eq!(
                include["inputs"][input].as_str(),
                Some(format!("$[[ inputs.{input} ]]").as_str()),
                "{sample}"
            );
        }
        let known = component(name);
        for input in include["inputs"].as_hash().expect("inputs").keys() {
            assert!(known.inputs.contains_key(input), "{sample}: {input:?}");
        }
    }
}

#[test]
fn each_line_of_the_central_sample_is_a_configuration() {
    let text = read("examples/central/.gitlab-ci.yml");
    let (_, body) = text.split_once("\n---\n").expect("two documents");
    let matrix = parse(body)["rotate-key"]["parallel"]["matrix"].clone();
    let lines = matrix.as_vec().expect("a matrix");
    assert_eq!(lines.len(), 3);
    for line in lines {
        let mut given: Vec<(&str, &str)> = vec![
            ("ROTATOR_DEPLOY", "environment/production"),
            ("ROTATOR_AWS_ID_TOKEN", "header.claims.signature"),
        ];
        given.extend(line.as_hash().expect("variables").iter().map(|(name, value)| {
            (name.as_str().expect("a name"), value.as_str().expect("a string"))
        }));
        config(&given);
    }
}
