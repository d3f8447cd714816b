//! Whatever GitLab, IAM and STS answer, over real HTTP: it is understood or told of, in three
//! lines, and nothing panics or hangs.
#![no_main]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use credential_rotator::aws::Aws;
use credential_rotator::config::{Config, Name};
use credential_rotator::deploy;
use credential_rotator::error::Error;
use credential_rotator::gitlab::Gitlab;
use credential_rotator::record::{JobRef, RecordedDeploy};
use credential_rotator::targets::Lists;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use tokio::runtime::Runtime;

/// Those after which nothing is tried again: a pause would cost the fuzzer its time.
const STATUSES: [&str; 10] = [
    "200 OK",
    "201 Created",
    "204 No Content",
    "301 Moved Permanently",
    "400 Bad Request",
    "401 Unauthorized",
    "403 Forbidden",
    "404 Not Found",
    "405 Method Not Allowed",
    "422 Unprocessable Entity",
];

struct Fake {
    runtime: Runtime,
    config: Config,
    gitlab: Gitlab,
    aws: Aws,
    reply: Arc<Mutex<Vec<u8>>>,
}

static FAKE: LazyLock<Fake> = LazyLock::new(|| {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let reply: Arc<Mutex<Vec<u8>>> = Arc::default();
    let shared = Arc::clone(&reply);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || serve(stream, &shared));
        }
    });
    let env = [
        ("ROTATOR_GITLAB_TOKEN", "glpat-the-token-of-this-run".to_owned()),
        ("CI_API_V4_URL", format!("http://{address}/api/v4")),
        ("CI_PROJECT_ID", "42".to_owned()),
        ("CI_COMMIT_BRANCH", "main".to_owned()),
        ("ROTATOR_HTTP_TIMEOUT", "2s".to_owned()),
        ("ROTATOR_DEPLOY_JOBS", "deploy".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ];
    let config =
        Config::from_env(env.map(|(name, value)| (OsString::from(name), OsString::from(value))))
            .expect("a configuration");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let gitlab = Gitlab::new(&config).ok().expect("a client");
    let secret = SecretString::from("a-secret-of-forty-characters-as-aws-has+");
    let aws = runtime.block_on(Aws::new(&config, Some(secret)));
    Fake { runtime, config, gitlab, aws, reply }
});

/// Answers each request of a connection with what the fuzzer wants.
fn serve(mut stream: TcpStream, reply: &Mutex<Vec<u8>>) {
    let mut seen = Vec::new();
    let mut buffer = [0; 16_384];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
        let Some(head) = seen.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&seen[..head]).to_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
            .unwrap_or_default();
        if seen.len() < head + 4 + length {
            continue;
        }
        seen.clear();
        let reply = reply.lock().expect("nothing panics with it").clone();
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

// The first byte chooses the call, the second the status; the rest is the body.
fuzz_target!(|bytes: &[u8]| {
    let [call, status, body @ ..] = bytes else { return };
    let fake = &*FAKE;
    let status = STATUSES[usize::from(*status) % STATUSES.len()];
    let body = if status.starts_with("204") { &[] } else { body };
    let mut reply = format!(
        "HTTP/1.1 {status}\r\nDate: Wed, 25 Nov 2026 08:00:00 GMT\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    reply.extend_from_slice(body);
    *fake.reply.lock().expect("nothing panics with it") = reply;
    let ended = fake
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), ask(fake, *call)).await });
    if let Err(error) = ended.expect("no hang past the timeout") {
        let (sentence, hint) = (error.to_string(), error.hint());
        assert!(!sentence.is_empty() && !hint.is_empty() && error.exit_code() > 0);
    }
});

async fn ask(fake: &Fake, call: u8) -> Result<(), Error> {
    let Fake { config, gitlab, aws, .. } = fake;
    let project = Name::Id(42);
    let now = Timestamp::now();
    let places = deploy::places(config);
    let recorded = |job| RecordedDeploy {
        place: places[0].name.clone(),
        pipeline: 7,
        job,
        proven: None,
        tried: None,
    };
    match call % 10 {
        0..3 => {
            let lists = Lists::read(gitlab, config).await?;
            let _ = (
                lists.targets(config),
                lists.secrets(config).len(),
                lists.other_references(config, &[]),
                lists.records()?.len(),
            );
        }
        3 => {
            drop(deploy::look(gitlab, config, &places[0], Some(&recorded(None)), false, now).await?)
        }
        4 => drop(
            deploy::look(gitlab, config, &places[0], Some(&recorded(Some(8))), true, now).await?,
        ),
        5 => drop(deploy::in_flight_jobs(gitlab, &[project], now, &[].into(), None).await?),
        6 => drop(gitlab.project(&project).await),
        7 => drop(gitlab.job_state(JobRef { project: 42, job: 9001 }).await),
        8 => drop(aws.list().await?),
        _ => drop(aws.identity().await?),
    }
    Ok(())
}
