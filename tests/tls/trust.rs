//! Whose certificates are trusted.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::certificates::*;
use crate::front::*;
use fake::*;

/// A fake whose GitLab is reached over TLS, with a folder for PEM files.
pub(crate) struct Place {
    pub(crate) fixture: Fixture,
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new(days: i64) -> Self {
        Self { fixture: Fixture::of_days(days), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn front(&self, identity: &Identity) -> u16 {
        let address: SocketAddr =
            self.fixture.fake.url.strip_prefix("http://").unwrap().parse().unwrap();
        tls_front(address, identity)
    }

    /// The next run; its one public root has signed nothing.
    pub(crate) fn run(&self) -> Run<'_> {
        self.fixture.run()
    }
}

pub(crate) trait Reaching {
    fn gitlab_at(self, host: &str, port: u16) -> Self;
    fn aws_at(self, host: &str, port: u16) -> Self;
}

impl Reaching for Run<'_> {
    fn gitlab_at(self, host: &str, port: u16) -> Self {
        self.set("CI_API_V4_URL", &format!("https://{host}:{port}/api/v4"))
    }

    fn aws_at(self, host: &str, port: u16) -> Self {
        self.set("AWS_ENDPOINT_URL", &format!("https://{host}:{port}"))
    }
}

/// The three lines, without the port.
#[track_caller]
pub(crate) fn says(ended: &Ended, code: i32, port: u16, expected: [&str; 3]) {
    let lines = ended
        .stderr
        .rfind("error: ")
        .map_or("", |at| &ended.stderr[at..])
        .replace(&format!(":{port}"), "");
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected, "{}", ended.stderr);
    assert_eq!(ended.code, code, "{}", ended.stderr);
    assert_eq!(ended.effects(), Vec::<String>::new());
}

const NOTHING: &str =
    "state: nothing was changed; keys and variables are as they were before this run";

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        no_root_at_all,
        a_server_that_never_greets_is_named_as_such,
        a_private_authority_is_trusted_where_its_file_is_named,
        the_runners_own_file_is_used_by_default,
        a_default_file_that_cannot_be_used_is_no_failure,
        a_named_file_that_cannot_be_used_is_a_failure,
        the_private_authority_does_not_count_at_aws,
        an_unknown_authority_is_named_as_such,
        another_name_is_named_as_such,
        an_expired_certificate_is_named_as_such,
        plain_http_behind_https_is_named_as_such,
        a_whole_rotation_goes_over_tls,
    ]
}

/// Comments, another authority, blocks that are no certificates, Windows line ends, and the one
/// that matters.
fn a_private_authority_is_trusted_where_its_file_is_named() {
    let place = Place::new(75);
    let authority = Authority::new("Acme Root");
    let port = place.front(&authority.signs(&["localhost"]));
    let file = [
        "# Acme's authorities, as the intranet has them\n\n",
        &Authority::new("Acme Old Root").pem,
        "Not a certificate:\n-----BEGIN CERTIFICATE-----\nAAAAAAAA\n-----END CERTIFICATE-----\n",
        "Nor this:\n-----BEGIN CERTIFICATE-----\n!!! no base64 !!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        &authority.pem.replace('\n', "\r\n"),
        "\n# the end\n",
    ];
    let named = place.file("roots.pem", &file.concat());
    let ended = place.run().gitlab_at("localhost", port).set("ROTATOR_GITLAB_CA_FILE", &named).go();
    ended.ends(0, "rotated");
    place.fixture.is_rotated();
}

/// It holds the whole chain, the leaf included.
fn the_runners_own_file_is_used_by_default() {
    let place = Place::new(10);
    let identity = Authority::new("Acme Root").signs(&["localhost"]);
    let port = place.front(&identity);
    let default = place.file("ca.crt", &identity.chain);
    place
        .run()
        .gitlab_at("localhost", port)
        .set("CI_SERVER_TLS_CA_FILE", &default)
        .go()
        .ends(0, "not_due");
}

fn a_default_file_that_cannot_be_used_is_no_failure() {
    let place = Place::new(10);
    let authority = Authority::new("Acme Root");
    let port = place.front(&authority.signs(&["localhost"]));
    let public = place.file("public.pem", &authority.pem);
    let garbage = place.file(
        "garbage.crt",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n\0\u{fffd}",
    );
    // A folder can be read by nobody, root included.
    let unreadable = place.path("folder.crt");
    std::fs::create_dir(&unreadable).unwrap();
    for default in [
        place.path("absent.crt").display().to_string(),
        garbage,
        unreadable.display().to_string(),
        place.file("empty.crt", ""),
    ] {
        let run = place.run().gitlab_at("localhost", port).set("SSL_CERT_FILE", &public);
        run.set("CI_SERVER_TLS_CA_FILE", &default).go().ends(0, "not_due");
    }
}

fn a_named_file_that_cannot_be_used_is_a_failure() {
    let place = Place::new(75);
    let authority = Authority::new("Acme Root");
    let port = place.front(&authority.signs(&["localhost"]));
    let public = place.file("public.pem", &authority.pem);
    let unreadable = place.path("folder.crt");
    std::fs::create_dir(&unreadable).unwrap();
    let no_certificate =
        place.file("garbage.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for named in [
        place.path("absent.crt").display().to_string(),
        unreadable.display().to_string(),
        no_certificate,
    ] {
        let run = place
            .run()
            .gitlab_at("localhost", port)
            .set("SSL_CERT_FILE", &public)
            .set("CI_SERVER_TLS_CA_FILE", &public);
        let ended = run.set("ROTATOR_GITLAB_CA_FILE", &named).go();
        let error =
            format!("error: the CA file {named} cannot be read or holds no usable certificate");
        says(
            &ended,
            2,
            port,
            [
                &error,
                NOTHING,
                "hint: ROTATOR_GITLAB_CA_FILE must name a readable file with PEM certificates",
            ],
        );
    }
}

fn the_private_authority_does_not_count_at_aws() {
    let place = Place::new(75);
    let authority = Authority::new("Acme Root");
    let port = place.front(&authority.signs(&["localhost"]));
    let named = place.file("roots.pem", &authority.pem);
    let run = place
        .run()
        .gitlab_at("localhost", port)
        .aws_at("localhost", port)
        .set("ROTATOR_GITLAB_CA_FILE", &named);
    let error = "error: listing the user's access keys: localhost shows a certificate of an \
         unknown authority";
    says(
        &run.go(),
        3,
        port,
        [error, NOTHING, "hint: name the authority's PEM file in SSL_CERT_FILE"],
    );
    let run = place.run().gitlab_at("localhost", port).aws_at("localhost", port);
    run.set("SSL_CERT_FILE", &named).go().ends(0, "rotated");
}

/// GitLab, then AWS, with this identity; the other one is plain.
fn refused(identity: &Identity, roots: &str, why: &str, hints: [&str; 2]) {
    let place = Place::new(75);
    let port = place.front(identity);
    let roots = place.file("roots.pem", roots);
    let ended = place.run().gitlab_at("localhost", port).set("SSL_CERT_FILE", &roots).go();
    // Two calls go out at once; either may be the one that is told.
    let what = if ended.stderr.contains("asking about the token") {
        "asking about the token"
    } else {
        "listing the variables of project:42"
    };
    says(
        &ended,
        3,
        port,
        [&format!("error: {what}: localhost {why}"), NOTHING, &format!("hint: {}", hints[0])],
    );
    let ended = place.run().aws_at("localhost", port).set("SSL_CERT_FILE", &roots).go();
    says(
        &ended,
        3,
        port,
        [
            &format!("error: listing the user's access keys: localhost {why}"),
            NOTHING,
            &format!("hint: {}", hints[1]),
        ],
    );
    place.fixture.is_untouched();
}

fn an_unknown_authority_is_named_as_such() {
    let identity = Authority::new("Somebody").signs(&["localhost"]);
    let hints = [
        "name the authority's PEM file in ROTATOR_GITLAB_CA_FILE",
        "name the authority's PEM file in SSL_CERT_FILE",
    ];
    refused(
        &identity,
        &Authority::new("Acme Root").pem,
        "shows a certificate of an unknown authority",
        hints,
    );
}

fn another_name_is_named_as_such() {
    let authority = Authority::new("Acme Root");
    let hints = [
        "ROTATOR_GITLAB_API_URL must use a name that the certificate is for",
        "AWS_ENDPOINT_URL* and AWS_REGION must use a name that the certificate is for",
    ];
    refused(
        &authority.signs(&["gitlab.acme.example"]),
        &authority.pem,
        "shows a certificate for another name",
        hints,
    );
}

fn an_expired_certificate_is_named_as_such() {
    let authority = Authority::new("Acme Root");
    let hint = "renew the server's certificate, or fix the runner's clock";
    refused(
        &authority.signed_once(&["localhost"]),
        &authority.pem,
        "shows a certificate that is not valid today",
        [hint, hint],
    );
}

fn plain_http_behind_https_is_named_as_such() {
    let place = Place::new(75);
    let port: u16 = place.fixture.fake.url.rsplit_once(':').unwrap().1.parse().unwrap();
    let ended = place.run().gitlab_at("localhost", port).go();
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("localhost does not speak TLS as expected"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("hint: check scheme and port in ROTATOR_GITLAB_API_URL"),
        "{}",
        ended.stderr
    );
    place.fixture.is_untouched();
}

/// The fake speaks TLS by itself too: everything through it, once.
fn a_whole_rotation_goes_over_tls() {
    let authority = Authority::new("Acme Root");
    let identity = authority.signs(&["localhost"]);
    let fake = Fake::builder().seed(7).calm().tls(&identity.chain, &identity.key).start();
    let fixture = Fixture::bare(fake, 75).published();
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, &authority.pem).unwrap();
    let ended = fixture.run().set("SSL_CERT_FILE", &roots.display().to_string()).go();
    ended.ends(0, "rotated");
    fixture.is_rotated();
}

fn no_root_at_all() {
    let place = Place::new(10);
    let authority = Authority::new("Acme Root");
    let port = place.front(&authority.signs(&["localhost"]));
    let ended = place
        .run()
        .gitlab_at("localhost", port)
        .set("SSL_CERT_FILE", "/nowhere/roots.pem")
        .set("SSL_CERT_DIR", "/nowhere")
        .go();
    says(
        &ended,
        3,
        port,
        [
            "error: no root certificates were found, so no HTTPS connection can be checked",
            "state: nothing was changed; keys and variables are as they were before this run",
            "hint: use the project's image, or install a CA bundle in this one (or name it in \
             SSL_CERT_FILE)",
        ],
    );
}

/// It takes connections and says nothing.
fn a_server_that_never_greets_is_named_as_such() {
    let place = Place::new(10);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let ended = place.run().gitlab_at("localhost", port).set("ROTATOR_HTTP_TIMEOUT", "2s").go();
    says(
        &ended,
        1,
        port,
        [
            "error: listing the variables of project:42: localhost does not answer in time",
            NOTHING,
            "hint: check ROTATOR_GITLAB_API_URL and the runner's network, then run again",
        ],
    );
    let ended = place.run().aws_at("localhost", port).set("ROTATOR_HTTP_TIMEOUT", "2s").go();
    says(
        &ended,
        1,
        port,
        [
            "error: listing the user's access keys: localhost does not answer in time",
            NOTHING,
            "hint: check AWS_ENDPOINT_URL* and AWS_REGION and the runner's network, then run again",
        ],
    );
}
