//! The way through a proxy, for GitLab and AWS alike.

use crate::certificates::*;
use crate::front::*;
use crate::trust::{Place, Reaching, says};
use fake::*;

const GITLAB: &str = "gitlab.acme.test";
const AWS: &str = "aws.acme.test";
const LOGIN: &str = "user:s3cr3t-of-the-proxy";
const PASSWORD: &str = "s3cr3t-of-the-proxy";
const NOTHING: &str =
    "state: nothing was changed; keys and variables are as they were before this run";

pub(crate) fn cases() -> Vec<Trial> {
    let mut cases = cases![
        both_services_are_reached_through_the_proxy,
        the_small_letters_count_too,
        a_proxy_for_everything_counts_too,
        what_no_proxy_names_is_reached_directly,
        plain_loopback_is_not_asked_of_an_https_proxy,
        a_proxy_that_is_down_is_named,
        a_proxys_password_is_never_shown,
        a_wrong_password_is_never_shown,
        the_password_of_a_proxy_that_is_down_is_never_shown,
    ];
    let lists = ["acme.test", ".acme.test", "example.com, acme.test", "*"].map(|list| (list, list));
    cases.extend(for_each(module_path!(), "NO_PROXY covers both hosts", &lists, |list| {
        no_proxy(list, false);
    }));
    let lists = ["example.com,test.acme", "me.test", "127.0.0.1"].map(|list| (list, list));
    cases.extend(for_each(module_path!(), "NO_PROXY covers neither host", &lists, |list| {
        no_proxy(list, true);
    }));
    let broken = [
        "http://LOGIN@[127.0.0.1",
        "http://LOGIN@127.0.0.1:99999999",
        "LOGIN@127.0.0.1:1",
        "socks9://LOGIN@x:1",
    ]
    .map(|url| (url, url));
    cases.extend(for_each(
        module_path!(),
        "the password is not shown",
        &broken,
        the_password_of_a_broken_proxy_is_never_shown,
    ));
    cases
}

/// Both services behind TLS under names that only the proxy can resolve.
fn behind_names(days: i64) -> (Place, u16, String) {
    let place = Place::new(days);
    let authority = Authority::new("Acme Root");
    let port = place.front(&authority.signs(&[GITLAB, AWS]));
    let roots = place.file("roots.pem", &authority.pem);
    (place, port, roots)
}

fn run<'a>(place: &'a Place, port: u16, roots: &str) -> Run<'a> {
    place.run().gitlab_at(GITLAB, port).aws_at(AWS, port).set("SSL_CERT_FILE", roots)
}

/// The password in no form that it has on its way.
#[track_caller]
fn is_silent(ended: &Ended) {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(LOGIN);
    for form in [PASSWORD, encoded.as_str(), &encoded[4..20]] {
        assert!(
            !ended.raw.contains(form),
            "the proxy's password is in the output:\n{}",
            ended.stderr
        );
    }
}

fn both_services_are_reached_through_the_proxy() {
    let (place, port, roots) = behind_names(75);
    let proxy = Proxy::start(None);
    let ended = run(&place, port, &roots)
        .set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port))
        .go();
    ended.ends(0, "rotated");
    place.fixture.is_rotated();
    assert_eq!(proxy.hosts(), [AWS, GITLAB]);
}

fn the_small_letters_count_too() {
    let (place, port, roots) = behind_names(10);
    let proxy = Proxy::start(None);
    run(&place, port, &roots)
        .set("https_proxy", &format!("http://127.0.0.1:{}", proxy.port))
        .go()
        .ends(0, "not_due");
    assert_eq!(proxy.hosts(), [AWS, GITLAB]);
}

fn a_proxy_for_everything_counts_too() {
    let (place, port, roots) = behind_names(10);
    let proxy = Proxy::start(None);
    run(&place, port, &roots)
        .set("ALL_PROXY", &format!("http://127.0.0.1:{}", proxy.port))
        .go()
        .ends(0, "not_due");
    assert_eq!(proxy.hosts(), [AWS, GITLAB]);
}

fn what_no_proxy_names_is_reached_directly() {
    let (place, port, roots) = behind_names(10);
    let proxy = Proxy::start(None);
    let proxied = |no_proxy: &str| {
        run(&place, port, &roots)
            .set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port))
            .set("NO_PROXY", no_proxy)
    };
    // Directly, nobody knows these names: what is left out fails, and fails alone.
    let ended = proxied(AWS).go();
    says(
        &ended,
        1,
        port,
        [
            "error: listing the user's access keys: aws.acme.test is a name that cannot be \
             resolved",
            NOTHING,
            "hint: check AWS_ENDPOINT_URL* and AWS_REGION and the runner's name resolution, then \
             run again",
        ],
    );
    assert_eq!(proxy.hosts(), [GITLAB]);
    let ended = proxied(GITLAB).go();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("gitlab.acme.test is a name that cannot be resolved"),
        "{}",
        ended.stderr
    );
}

fn no_proxy(list: &str, proxied: bool) {
    let (place, port, roots) = behind_names(10);
    let proxy = Proxy::start(None);
    let ended = run(&place, port, &roots)
        .set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port))
        .set("NO_PROXY", list)
        .go();
    assert_eq!(ended.code, i32::from(!proxied), "{}", ended.stderr);
    assert_eq!(proxy.hosts().is_empty(), !proxied);
}

fn plain_loopback_is_not_asked_of_an_https_proxy() {
    let place = Place::new(10);
    let proxy = Proxy::start(None);
    place
        .run()
        .set("HTTPS_PROXY", &format!("http://127.0.0.1:{}", proxy.port))
        .go()
        .ends(0, "not_due");
    assert_eq!(proxy.hosts(), Vec::<String>::new());
}

/// A port on which nobody listens, ever.
fn nobody() -> u16 {
    static NOBODY: std::sync::LazyLock<Port> = std::sync::LazyLock::new(Port::reserve);
    NOBODY.number
}

fn a_proxy_that_is_down_is_named() {
    let (place, port, roots) = behind_names(75);
    let down = format!("http://127.0.0.1:{}", nobody());
    let ended = run(&place, port, &roots).set("HTTPS_PROXY", &down).go();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let tail = ended.stderr.rfind("error: ").map_or("", |at| &ended.stderr[at..]);
    assert_eq!(tail.lines().count(), 3, "{}", ended.stderr);
    assert!(tail.contains("HTTPS_PROXY"), "the way out is the proxy: {tail}");
    // AWS alone behind it.
    let ended =
        place.run().aws_at(AWS, port).set("SSL_CERT_FILE", &roots).set("HTTPS_PROXY", &down).go();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let tail = ended.stderr.rfind("error: ").map_or("", |at| &ended.stderr[at..]);
    assert!(
        tail.contains("listing the user's access keys") && tail.contains("HTTPS_PROXY"),
        "{tail}"
    );
    place.fixture.is_untouched();
}

fn with_password(port: u16, login: &str) -> String {
    format!("http://{login}@127.0.0.1:{port}")
}

fn a_proxys_password_is_never_shown() {
    let (place, port, roots) = behind_names(75);
    let proxy = Proxy::start(Some(LOGIN));
    let ended = run(&place, port, &roots)
        .set("HTTPS_PROXY", &with_password(proxy.port, LOGIN))
        .set("ROTATOR_LOG", "trace")
        .go();
    ended.ends(0, "rotated");
    assert_eq!(proxy.hosts(), [AWS, GITLAB]);
    is_silent(&ended);
}

fn a_wrong_password_is_never_shown() {
    let (place, port, roots) = behind_names(75);
    let proxy = Proxy::start(Some("user:another"));
    let ended = run(&place, port, &roots)
        .set("HTTPS_PROXY", &with_password(proxy.port, LOGIN))
        .set("ROTATOR_LOG", "trace")
        .go();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("cannot be reached through the proxy")
            && ended.stderr.contains("HTTPS_PROXY"),
        "{}",
        ended.stderr
    );
    assert_eq!(proxy.hosts(), ["407"]);
    is_silent(&ended);
    place.fixture.is_untouched();
}

fn the_password_of_a_proxy_that_is_down_is_never_shown() {
    let (place, port, roots) = behind_names(75);
    let ended = run(&place, port, &roots)
        .set("HTTPS_PROXY", &with_password(nobody(), LOGIN))
        .set("ROTATOR_LOG", "trace")
        .go();
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    is_silent(&ended);
}

fn the_password_of_a_broken_proxy_is_never_shown(broken: &str) {
    let (place, port, roots) = behind_names(10);
    let ended = run(&place, port, &roots)
        .set("HTTPS_PROXY", &broken.replace("LOGIN", LOGIN))
        .set("ROTATOR_LOG", "trace")
        .go();
    assert_ne!(ended.code, 0, "{}", ended.stderr);
    is_silent(&ended);
    place.fixture.is_untouched();
}
