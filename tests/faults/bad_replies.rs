//! Replies that make no sense: HTML, nothing, other types, too much, a redirect to another host.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::calls::clean_calls;
use crate::sample;
use crate::scene::{Mode, NIGHT, Scene, holds};
use fake::{Fault, Trial, fallible};

/// Beyond what the program takes of GitLab.
const HUGE: usize = 40 << 20;
/// Where only replies are bad a run does not wait for long, but for a pipeline or a key that may
/// have come into being.
const NOT_LONG: Duration = Duration::from_secs(60);

const BODIES: [&str; 17] = [
    "page",
    "nothing",
    "null",
    "list",
    "object",
    "number",
    "text",
    "other types",
    "list of other types",
    "deep",
    "other xml",
    "half xml",
    "cut",
    "redirect",
    "moved",
    "no content",
    "next page",
];

/// The status, the body and the headers; `to` is another host.
fn bad(kind: &str, service: &str, to: &str) -> (u16, String, Vec<(String, String)>) {
    let with = |body: &str| (200, body.to_owned(), Vec::new());
    let away = |status: u16, path: &str| {
        (
            status,
            "<html><body>You are being redirected.</body></html>".to_owned(),
            vec![("Location".to_owned(), format!("http://{to}{path}"))],
        )
    };
    let others = r#"{"id":"one","key":7,"value":{},"environment_scope":3,"masked":"yes","raw":[],"status":7,"created_at":"soon","finished_at":5,"default_branch":8,"web_url":false,"user":[],"scopes":"api","expires_at":9,"user_id":"me"}"#;
    match kind {
        "page" => with("<!DOCTYPE html><html><body>Welcome to the intranet</body></html>"),
        // No body at all would be the manner of the service.
        "nothing" => with("\n"),
        "null" => with("null"),
        "list" => with("[]"),
        "object" => with("{}"),
        "number" => with("17"),
        "text" => with("\"all is well\""),
        "other types" => with(others),
        "list of other types" => with(&format!("[{others}]")),
        "deep" => with(&"[".repeat(100_000)),
        "other xml" => with(
            "<?xml version=\"1.0\"?><OtherResponse \
             xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><OtherResult/></OtherResponse>",
        ),
        "half xml" => with(
            "<CreateAccessKeyResponse \
             xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><CreateAccessKeyResult><AccessKey><UserName>deployer</UserName>",
        ),
        "cut" => with(if service == "gitlab" {
            "[{\"key\":\"AWS_ACCESS"
        } else {
            "<ListAccessKeysResponse><ListAcc"
        }),
        "redirect" => away(302, "/api/v4/projects/42/variables"),
        "moved" => away(308, "/"),
        "no content" => (204, String::new(), Vec::new()),
        "next page" => {
            let items =
                serde_json::Value::from_iter((0..100).map(
                    |id| serde_json::json!({ "id": id, "name": "build", "status": "success" }),
                ));
            (
                200,
                items.to_string(),
                vec![(
                    "Link".to_owned(),
                    format!("<http://{to}/api/v4/projects/42/jobs?page=2>; rel=\"next\""),
                )],
            )
        }
        "huge" => with(&"a".repeat(HUGE)),
        _ => unreachable!("a kind of reply"),
    }
}

/// Another host, which nobody should ask anything.
struct Elsewhere {
    address: String,
    listener: TcpListener,
}

impl Elsewhere {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("an address").to_string();
        Self { address, listener }
    }

    /// Nobody accepts, so whoever has connected since it was opened is still in the queue.
    fn heard_nothing(&self) -> Result<(), String> {
        let Ok((mut stream, _)) = self.listener.accept() else { return Ok(()) };
        let mut bytes = [0; 16384];
        let count = stream.read(&mut bytes).unwrap_or_default();
        let heard = String::from_utf8_lossy(&bytes[..count]).replace("glpat-", "A TOKEN ");
        Err(format!("another host was asked: {heard}"))
    }
}

/// How often the bad reply comes, and whether what was asked for happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    Once { effect: bool },
    Always,
}

fn one(mode: Mode, action: &str, kind: &str, comes: Comes) -> Result<(), String> {
    let (scene, elsewhere) = (Scene::calm(mode), Elsewhere::open());
    // Whoever can sign for AWS and says 200 has done what was asked: the SDK reads no more of these
    // replies.
    let believed = status_is_believed(action, kind);
    let comes = if believed { Comes::Once { effect: true } } else { comes };
    let service = action
        .split(':')
        .next()
        .filter(|service| ["iam", "sts"].contains(service))
        .unwrap_or("gitlab");
    let (status, body, headers) = bad(kind, service, &elsewhere.address);
    match comes {
        Comes::Once { effect: true } => {
            scene.fake.fault_on(action, 1, Fault::Instead { status, body, headers });
        }
        Comes::Once { effect: false } => {
            scene.fake.fault_on(action, 1, Fault::Refuse { status, body, headers });
        }
        Comes::Always => scene.fake.fault_from(action, 1, Fault::Refuse { status, body, headers }),
    }
    // Half a pair is written again and again until the job ends, so this one ends soon after the
    // key was made.
    let over = Arc::new(AtomicBool::new(false));
    let short = comes == Comes::Always && action.contains(" AWS_");
    if short {
        let (fake, over) = (scene.fake.clone(), Arc::clone(&over));
        thread::spawn(move || {
            while !over.load(Ordering::SeqCst)
                && !fake.log().iter().any(|entry| entry.action == "iam:CreateAccessKey")
            {
                thread::sleep(Duration::from_millis(20));
            }
            fake.shift_clock(290);
        });
    }
    let go = || {
        let mut ended =
            if short { scene.run_with(&[("CI_JOB_TIMEOUT", "335")]) } else { scene.run() };
        over.store(true, Ordering::SeqCst);
        // A patient rotation takes three jobs.
        while scene.fake.faults_hit()[0].hit.is_none() {
            if ended.code != 0 || scene.is_finished() {
                return Err(format!("{action} was never asked"));
            }
            thread::sleep(NIGHT);
            ended = scene.run();
        }
        holds(&ended)?;
        let may_wait = action.contains("/pipeline") || action == "iam:CreateAccessKey";
        if ended.took > NOT_LONG && !may_wait {
            return Err(format!("a run with bad replies took {} s", ended.took.as_secs()));
        }
        scene.clean()?;
        scene.fake.clear_faults();
        scene.run_until_well(3)?;
        scene.check()?;
        elsewhere.heard_nothing()
    };
    go().map_err(|why| scene.told(&why))
}

fn status_is_believed(action: &str, kind: &str) -> bool {
    ["iam:UpdateAccessKey", "iam:DeleteAccessKey"].contains(&action)
        && !["redirect", "moved", "no content"].contains(&kind)
}

/// A bad reply costs three lines and nothing else.
pub(crate) fn cases() -> Vec<Trial> {
    let mut cases = Vec::new();
    let mut seen = BTreeSet::new();
    for mode in [Mode::Own, Mode::Role, Mode::Redeploy, Mode::Patient, Mode::Group] {
        for call in clean_calls(mode) {
            // The two halves of the pair are told apart, records are not.
            let half = call
                .what
                .split(' ')
                .next()
                .filter(|what| what.starts_with("AWS_"))
                .unwrap_or_default();
            let action = format!("{} {half}", call.action).trim().to_owned();
            if !seen.insert(action.clone()) {
                continue;
            }
            let mut add = |kind: &'static str, comes: Comes| {
                let action = action.clone();
                let name = format!("{action}: {kind}, {comes:?}");
                cases
                    .push(fallible(module_path!(), &name, move || one(mode, &action, kind, comes)));
            };
            for (at, kind) in BODIES.into_iter().enumerate() {
                let lot = sample::lot(&format!("{action} {kind}"));
                let always = ["page", "object", "redirect", "list of other types"].contains(&kind);
                // A pipeline that may have come into being is looked for through two minutes.
                let slow = action == "POST /projects/:id/pipeline" && !sample::all();
                let away = kind == "redirect"
                    || kind == "next page"
                        && action.starts_with("GET ")
                        && action.ends_with("/jobs");
                if sample::all() || (at + lot).is_multiple_of(4) && !slow || away {
                    add(kind, Comes::Once { effect: lot.is_multiple_of(2) });
                }
                if sample::all() && call.effect {
                    add(kind, Comes::Once { effect: !lot.is_multiple_of(2) });
                }
                if always && !slow && (sample::all() || lot.is_multiple_of(2)) {
                    add(kind, Comes::Always);
                }
            }
            if ["GET /projects/:id/variables", "iam:ListAccessKeys", "sts:GetCallerIdentity"]
                .contains(&action.as_str())
            {
                add("huge", Comes::Once { effect: false });
            }
        }
    }
    cases
}
