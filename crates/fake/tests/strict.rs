//! The fake is strict: every rule that other tests lean on. By plain HTTP, with a client of the
//! tests' own.

use std::time::Duration;

use fake::*;

const ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";

/// A calm fake: a user with one key, published in project 42 and deployed.
fn deployed() -> (Fake, Pair) {
    let fake = Fake::builder().seed(1).calm().start();
    fake.add_user("/service/ci/", "deployer");
    let key = fake.add_key("deployer", 75);
    fake.add_project(42, "group/sub.group/app");
    fake.set_pair(42, &key);
    fake.set_pipeline_config(
        42,
        vec![JobSpec::new("build"), JobSpec::deploy("deploy", "production")],
    );
    fake.start_pipeline(42, "push");
    fake.finish_pipelines();
    fake.watch_target(42, "*", ID, SECRET);
    fake.watch_deploy(42);
    (fake, key)
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map_or("", |(found, _)| found)
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, between(&answer.body, "<Code>", "</Code>").to_owned())
}

async fn iam(fake: &Fake, pair: &Pair, form: &str) -> (u16, String) {
    code(&fake.aws("iam", pair, form).await.expect("an answer"))
}

async fn sts(fake: &Fake, pair: &Pair) -> (u16, String) {
    code(&fake.aws("sts", pair, "Action=GetCallerIdentity").await.expect("an answer"))
}

async fn create(fake: &Fake, pair: &Pair) -> Pair {
    let answer = fake.aws("iam", pair, "Action=CreateAccessKey").await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let part =
        |name: &str| between(&answer.body, &format!("<{name}>"), &format!("</{name}>")).to_owned();
    Pair { id: part("AccessKeyId"), secret: part("SecretAccessKey"), token: None }
}

async fn put(fake: &Fake, key: &str, value: &str) -> u16 {
    let value =
        value.replace('%', "%25").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let path = format!("/projects/42/variables/{key}?filter%5Benvironment_scope%5D=%2A");
    fake.gitlab("PUT", &path, &format!("value={value}&masked=true&raw=true"))
        .await
        .expect("an answer")
        .status
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn ok() -> (u16, String) {
    refused(200, "")
}

#[tokio::test]
async fn a_rotation_in_the_right_order_is_no_violation() {
    let (fake, old) = deployed();
    fake.production_signs(42).await.expect("the old key works");
    let new = create(&fake, &old).await;
    assert_eq!(sts(&fake, &new).await, ok());
    assert_eq!(put(&fake, SECRET, &new.secret).await, 200);
    assert_eq!(put(&fake, ID, &new.id).await, 200);
    assert_eq!(fake.variable(42, SECRET, "*").expect("there").value, new.secret);
    let started =
        fake.gitlab("POST", "/projects/42/pipeline", "ref=main").await.expect("an answer");
    assert_eq!(started.status, 201, "{}", started.body);
    let pipeline = started.json()["id"].as_u64().expect("an id");
    fake.finish_pipelines();
    let seen = fake
        .gitlab("GET", &format!("/projects/42/pipelines/{pipeline}"), "")
        .await
        .expect("an answer");
    assert_eq!(seen.json()["status"], "success");
    assert_eq!(
        iam(&fake, &new, &format!("Action=UpdateAccessKey&AccessKeyId={}&Status=Inactive", old.id))
            .await,
        ok()
    );
    assert_eq!(
        iam(&fake, &new, &format!("Action=DeleteAccessKey&AccessKeyId={}", old.id)).await,
        ok()
    );
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert_eq!(
        fake.keys("deployer").iter().map(|key| key.id.as_str()).collect::<Vec<_>>(),
        [new.id.as_str()]
    );
    assert_eq!(fake.productions(42), [("production".to_owned(), new)]);
    fake.production_signs(42).await.expect("the new key works");
    let order: Vec<String> =
        fake.log().into_iter().filter(|entry| entry.effect).map(|entry| entry.action).collect();
    let deploy = order.iter().rposition(|action| action == "job success").expect("a deploy");
    let disable =
        order.iter().position(|action| action == "iam:UpdateAccessKey").expect("a disable");
    assert!(deploy < disable, "{order:?}");
}

#[tokio::test]
async fn the_check_sees_each_breach() {
    type Breach = fn(Fake, Pair) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;
    let violations_seen: [(&str, Breach); 7] = [
        ("(4)", |fake, old| {
            Box::pin(async move {
                let new = create(&fake, &old).await;
                put(&fake, SECRET, &new.secret).await;
            })
        }),
        ("(1)", |fake, old| {
            Box::pin(async move {
                let new = create(&fake, &old).await;
                sts(&fake, &new).await;
                put(&fake, ID, &new.id).await;
            })
        }),
        ("(1)", |fake, _| {
            Box::pin(async move {
                put(&fake, SECRET, "not-the-secret-of-any-key").await;
            })
        }),
        ("(2)", |fake, old| {
            Box::pin(async move {
                let new = create(&fake, &old).await;
                sts(&fake, &new).await;
                put(&fake, SECRET, &new.secret).await;
                put(&fake, ID, &new.id).await;
                iam(
                    &fake,
                    &new,
                    &format!("Action=UpdateAccessKey&AccessKeyId={}&Status=Inactive", old.id),
                )
                .await;
            })
        }),
        ("(3)", |fake, old| {
            Box::pin(async move {
                iam(
                    &fake,
                    &old,
                    &format!("Action=UpdateAccessKey&AccessKeyId={}&Status=Inactive", old.id),
                )
                .await;
            })
        }),
        ("(5)", |fake, old| {
            Box::pin(async move {
                let foreign = fake.operator_creates_key("deployer");
                iam(&fake, &old, &format!("Action=DeleteAccessKey&AccessKeyId={}", foreign.id))
                    .await;
            })
        }),
        ("(6)", |fake, old| {
            Box::pin(async move {
                let new = create(&fake, &old).await;
                sts(&fake, &new).await;
                put(&fake, SECRET, &new.secret).await;
                put(&fake, ID, &new.id).await;
                iam(&fake, &new, &format!("Action=DeleteAccessKey&AccessKeyId={}", old.id)).await;
            })
        }),
    ];
    for (rule, breach) in violations_seen {
        let (fake, old) = deployed();
        breach(fake.clone(), old).await;
        let violations = fake.violations();
        assert!(
            violations.iter().any(|violation| violation.starts_with(rule)),
            "{rule}: {violations:?}"
        );
    }
}

#[tokio::test]
async fn an_operator_is_not_judged_and_a_deploy_of_a_dead_key_is() {
    let (fake, old) = deployed();
    fake.operator_disables_key(&old.id);
    fake.operator_removes_variable(42, ID, "*");
    assert_eq!(fake.violations(), Vec::<String>::new());
    assert!(
        fake.production_signs(42)
            .await
            .expect_err("it is disabled")
            .contains("InvalidClientTokenId")
    );

    let (fake, old) = deployed();
    fake.start_pipeline_with(
        42,
        "push",
        "main",
        vec![JobSpec::deploy("deploy", "production").ms(200)],
    );
    tokio::time::sleep(Duration::from_millis(60)).await;
    let new = create(&fake, &old).await;
    sts(&fake, &new).await;
    put(&fake, SECRET, &new.secret).await;
    put(&fake, ID, &new.id).await;
    fake.operator_disables_key(&old.id);
    fake.finish_pipelines();
    assert!(
        fake.violations().iter().any(|violation| violation.starts_with("(2)")),
        "{:?}",
        fake.violations()
    );
}

#[tokio::test]
async fn iam_checks_who_signs() {
    let (fake, key) = deployed();
    let list = "Action=ListAccessKeys";
    assert_eq!(iam(&fake, &key, list).await, ok());
    let wrong = Pair { secret: key.secret.chars().rev().collect(), ..key.clone() };
    assert_eq!(iam(&fake, &wrong, list).await, refused(403, "SignatureDoesNotMatch"));
    let unknown = Pair { id: "AKIAAAAAAAAAAAAAAAAA".into(), ..key.clone() };
    assert_eq!(iam(&fake, &unknown, list).await, refused(403, "InvalidClientTokenId"));
    let leftover = Pair { token: Some("leftover".into()), ..key.clone() };
    assert_eq!(iam(&fake, &leftover, list).await, refused(403, "InvalidClientTokenId"));
    let unsigned = http(
        &fake.url,
        "POST",
        "/",
        &[("content-type", "application/x-www-form-urlencoded")],
        "Action=ListAccessKeys&Version=2010-05-08",
    )
    .await;
    assert_eq!(code(&unsigned.expect("an answer")), refused(403, "MissingAuthenticationToken"));
    for (skew, text) in [(-400, "Signature expired"), (400, "not yet current")] {
        let answer = fake.aws_with("iam", &key, list, skew, &[]).await.expect("an answer");
        assert_eq!(code(&answer), refused(403, "SignatureDoesNotMatch"));
        assert!(answer.body.contains(text), "{}", answer.body);
    }
    let other_service = fake.aws("sts", &key, list).await.expect("an answer");
    assert_eq!(other_service.status, 400);
    fake.operator_disables_key(&key.id);
    assert_eq!(iam(&fake, &key, list).await, refused(403, "InvalidClientTokenId"));
    assert_eq!(sts(&fake, &key).await, refused(403, "InvalidClientTokenId"));
    fake.operator_enables_key(&key.id);
    assert_eq!(sts(&fake, &key).await, ok());
    fake.tune(|knobs| knobs.sts_off = true);
    assert_eq!(sts(&fake, &key).await, refused(403, "InvalidClientTokenId"));
    fake.shift_clock(600);
    let answer = fake.aws("iam", &key, list).await.expect("an answer");
    assert_eq!(code(&answer), refused(403, "SignatureDoesNotMatch"));
    assert_eq!(answer.header("date").expect("a date"), http_date(fake.now() / 1000 * 1000));
}

#[tokio::test]
async fn keys_live_by_the_rules_of_iam() {
    let (fake, key) = deployed();
    let last_used = format!("Action=GetAccessKeyLastUsed&AccessKeyId={}", key.id);
    let second = create(&fake, &key).await;
    assert!(second.id.starts_with("AKIA") && second.id.len() == 20 && second.secret.len() == 40);
    assert_eq!(iam(&fake, &key, "Action=CreateAccessKey").await, refused(409, "LimitExceeded"));
    let unused =
        fake.aws("iam", &key, &last_used.replace(&key.id, &second.id)).await.expect("an answer");
    assert!(
        unused.body.contains("<ServiceName>N/A</ServiceName>")
            && !unused.body.contains("LastUsedDate"),
        "{}",
        unused.body
    );
    sts(&fake, &second).await;
    let used =
        fake.aws("iam", &key, &last_used.replace(&key.id, &second.id)).await.expect("an answer");
    assert!(used.body.contains("<ServiceName>sts</ServiceName>"), "{}", used.body);
    fake.tune(|knobs| knobs.last_used_lag = 3600);
    let lagging =
        fake.aws("iam", &key, &last_used.replace(&key.id, &second.id)).await.expect("an answer");
    assert!(lagging.body.contains("N/A"), "{}", lagging.body);
    assert_eq!(iam(&fake, &key, "Action=ListAccessKeys&UserName=DEPLOYER").await, ok());
    assert_eq!(
        iam(&fake, &key, "Action=UpdateAccessKey&AccessKeyId=AKIANOTTHERE&Status=Inactive").await,
        refused(404, "NoSuchEntity")
    );
    let delete = format!("Action=DeleteAccessKey&AccessKeyId={}", second.id);
    assert_eq!(iam(&fake, &key, &delete).await, ok());
    assert_eq!(iam(&fake, &key, &delete).await, refused(404, "NoSuchEntity"));
    assert_eq!(sts(&fake, &second).await, refused(403, "InvalidClientTokenId"));

    for _ in 0..5 {
        fake.operator_creates_key("deployer");
    }
    fake.tune(|knobs| knobs.iam_page = 4);
    let first = fake.aws("iam", &key, "Action=ListAccessKeys").await.expect("an answer");
    assert_eq!(first.body.matches("<member>").count(), 4);
    let marker = between(&first.body, "<Marker>", "</Marker>");
    let rest = fake
        .aws("iam", &key, &format!("Action=ListAccessKeys&Marker={marker}"))
        .await
        .expect("an answer");
    assert_eq!(rest.body.matches("<member>").count(), 2);
    assert!(
        rest.body.contains("<IsTruncated>false")
            && rest.body.contains("<UserName>deployer</UserName>")
    );
}

#[tokio::test]
async fn policies_decide() {
    let (fake, key) = deployed();
    fake.add_user("/", "other");
    let denied =
        fake.aws("iam", &key, "Action=ListAccessKeys&UserName=other").await.expect("an answer");
    let text = "User: arn:aws:iam::123456789012:user/service/ci/deployer is not authorized to \
         perform: iam:ListAccessKeys on resource: user other because no identity-based policy \
         allows the iam:ListAccessKeys action";
    assert_eq!(
        (code(&denied), denied.body.contains(text)),
        (refused(403, "AccessDenied"), true),
        "{}",
        denied.body
    );
    fake.deny("deployer", &["iam:CreateAccessKey", "iam:UpdateAccessKey"]);
    let denied = fake.aws("iam", &key, "Action=CreateAccessKey").await.expect("an answer");
    assert!(
        denied.body.contains("with an explicit deny in an identity-based policy"),
        "{}",
        denied.body
    );
    let document = |resource: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"iam:*AccessKey*","Resource":"{resource}"}}}}"#
        )
    };
    for (resource, allowed) in [
        ("*", true),
        ("arn:aws:iam::123456789012:user/service/ci/${aws:username}", true),
        ("arn:aws:iam::123456789012:user/${aws:username}", false),
        ("arn:aws:iam::*:user/service/*", true),
        ("arn:aws:iam::123456789012:user/other", false),
    ] {
        fake.set_policy_json("deployer", &document(resource));
        assert_eq!(iam(&fake, &key, "Action=ListAccessKeys").await.0 == 200, allowed, "{resource}");
    }
    fake.set_policy("deployer", &[]);
    assert_eq!(sts(&fake, &key).await, ok());
    let root = fake.add_root_key(1);
    assert_eq!(
        iam(&fake, &root, "Action=ListAccessKeys&UserName=nobody").await,
        refused(404, "NoSuchEntity")
    );
    assert_eq!(iam(&fake, &root, "Action=ListAccessKeys&UserName=other").await, ok());
}

#[tokio::test]
async fn roles_sessions_and_chains() {
    let (fake, key) = deployed();
    let trust = Trust::WebIdentity { aud: "sts".into(), sub: "project_path:group/app:*".into() };
    let arn = fake.add_role("rotator", trust, 2, &fake.rotation_policy("deployer"));
    let far = fake.add_role(
        "far",
        Trust::Principal(arn.clone()),
        3600,
        &fake.rotation_policy("deployer"),
    );
    let assume = |token: &str| {
        format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn={arn}&RoleSessionName=job-1&WebIdentityToken={token}"
        )
    };
    let open = async |form: String| {
        http(
            &fake.url,
            "POST",
            "/",
            &[("content-type", "application/x-www-form-urlencoded")],
            &form,
        )
        .await
        .expect("an answer")
    };
    let good = fake.issue_id_token("sts", "project_path:group/app:ref:main", 60);
    for (token, expected) in [
        (fake.issue_id_token("sts", "project_path:other", 60), refused(403, "AccessDenied")),
        (
            fake.issue_id_token("other", "project_path:group/app:x", 60),
            refused(400, "InvalidIdentityToken"),
        ),
        (
            fake.issue_id_token("sts", "project_path:group/app:x", -1),
            refused(400, "ExpiredTokenException"),
        ),
        ("nonsense".into(), refused(400, "InvalidIdentityToken")),
    ] {
        assert_eq!(code(&open(assume(&token)).await), expected);
    }
    let answer = open(assume(&good)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let session = session_of(&answer);
    assert_eq!(iam(&fake, &session, "Action=ListAccessKeys&UserName=deployer").await, ok());
    assert_eq!(
        iam(&fake, &session, "Action=ListAccessKeys").await,
        refused(400, "ValidationError")
    );
    let chained = fake
        .aws("sts", &session, &format!("Action=AssumeRole&RoleArn={far}&RoleSessionName=job-1"))
        .await
        .expect("an answer");
    assert_eq!(
        iam(&fake, &session_of(&chained), "Action=ListAccessKeys&UserName=deployer").await,
        ok()
    );
    assert_eq!(
        code(
            &fake
                .aws("sts", &key, &format!("Action=AssumeRole&RoleArn={far}&RoleSessionName=job-1"))
                .await
                .expect("an answer")
        ),
        refused(403, "AccessDenied")
    );
    let user_session = fake.user_session("deployer", 60);
    assert_eq!(sts(&fake, &user_session).await, ok());
    assert_eq!(
        iam(&fake, &user_session, "Action=ListAccessKeys").await,
        refused(403, "InvalidClientTokenId")
    );
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(
        iam(&fake, &session, "Action=ListAccessKeys&UserName=deployer").await,
        refused(403, "ExpiredToken")
    );
}

fn session_of(answer: &Answer) -> Pair {
    let part =
        |name: &str| between(&answer.body, &format!("<{name}>"), &format!("</{name}>")).to_owned();
    Pair {
        id: part("AccessKeyId"),
        secret: part("SecretAccessKey"),
        token: Some(part("SessionToken")),
    }
}

#[tokio::test]
async fn gitlab_checks_the_token() {
    let (fake, _) = deployed();
    fake.add_group(7, "group");
    let now = fake.now();
    let list = "/projects/42/variables";
    for (token, path, status, text) in [
        (TokenSpec::new("t-none").scopes(&["read_api"]), list, 403, "insufficient_scope"),
        (TokenSpec::new("t-dev").level(30), list, 403, "403 Forbidden"),
        (TokenSpec::new("t-away").level_at(42, 0), list, 404, "404 Project Not Found"),
        (
            TokenSpec::new("t-old").expires_at(now - 1),
            list,
            401,
            "Token is expired. You can either do re-authorization or token refresh.",
        ),
        (TokenSpec::new("t-maint").level(40), "/groups/7/variables", 403, "403 Forbidden"),
        (TokenSpec::new("t-owner"), "/groups/7/variables", 200, "[]"),
        (
            TokenSpec::new("t-self").expires_at(now + 1000),
            "/personal_access_tokens/self",
            200,
            "expires_at",
        ),
        (
            TokenSpec::new("t-mute").silent_about_itself(),
            "/personal_access_tokens/self",
            403,
            "403",
        ),
    ] {
        let name = fake.add_token(token);
        let answer = fake.gitlab_as(&name, "GET", path, "").await.expect("an answer");
        assert_eq!(
            (answer.status, answer.body.contains(text)),
            (status, true),
            "{name}: {}",
            answer.body
        );
    }
    let answer = fake.gitlab_as("unknown", "GET", list, "").await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (401, r#"{"message":"401 Unauthorized"}"#));
    fake.change_token(&fake.token, |token| token.blocked = true);
    assert_eq!(fake.gitlab("GET", list, "").await.expect("an answer").status, 403);
}

#[tokio::test]
async fn projects_are_found_by_id_and_by_path_and_may_move() {
    let (fake, _) = deployed();
    for (path, status) in [
        ("/projects/42", 200),
        ("/projects/group%2Fsub.group%2Fapp/variables", 200),
        ("/projects/group/sub.group/app/variables", 404),
        ("/projects/43", 404),
        ("/projects/42/repository/commits/main", 200),
        ("/projects/42/repository/commits/nowhere", 404),
        ("/nothing", 404),
    ] {
        assert_eq!(fake.gitlab("GET", path, "").await.expect("an answer").status, status, "{path}");
    }
    fake.move_project(42, "elsewhere/app");
    let moved = fake
        .gitlab("GET", "/projects/group%2Fsub.group%2Fapp/variables?page=2", "")
        .await
        .expect("an answer");
    assert_eq!(moved.status, 301);
    assert!(
        moved
            .header("location")
            .expect("a location")
            .ends_with("/api/v4/projects/42/variables?page=2"),
        "{moved:?}"
    );
    let write = fake
        .gitlab("POST", "/projects/group%2Fsub.group%2Fapp/variables", "key=A&value=b")
        .await
        .expect("an answer");
    assert_eq!(write.status, 405);
    fake.set_archived(42, true);
    assert_eq!(
        fake.gitlab("POST", "/projects/42/variables", "key=A&value=b")
            .await
            .expect("an answer")
            .status,
        403
    );
    assert_eq!(
        fake.gitlab("GET", "/projects/42/variables", "").await.expect("an answer").status,
        200
    );
    for (mood, status) in [(Mood::NotGitlab, 200), (Mood::Challenge, 403), (Mood::Down, 503)] {
        fake.tune(|knobs| knobs.mood = mood);
        let answer = fake.gitlab("GET", "/projects/42", "").await.expect("an answer");
        assert_eq!((answer.status, answer.body.starts_with('<')), (status, true));
    }
}

#[tokio::test]
async fn variables_live_by_the_rules_of_gitlab() {
    let (fake, _) = deployed();
    fake.add_group(7, "group");
    let long = "x".repeat(256);
    let of = |verb: &str, rest: &str, body: &str, status: u16, text: &str| {
        (
            verb.to_owned(),
            format!("/projects/42/variables{rest}"),
            body.to_owned(),
            status,
            text.to_owned(),
        )
    };
    let in_group = |verb: &str, rest: &str, body: &str, status: u16, text: &str| {
        (
            verb.to_owned(),
            format!("/groups/7/variables{rest}"),
            body.to_owned(),
            status,
            text.to_owned(),
        )
    };
    let many = "There are multiple variables with provided parameters. Please use \
         'filter[environment_scope]'";
    for (verb, path, body, status, text) in [
        of("POST", "", "key=A", 400, "value is missing"),
        of("POST", "", "key=A-B&value=x", 400, "can contain only letters"),
        of(
            "POST",
            "",
            &format!("key=A&value=x&description={long}"),
            400,
            r#"{"message":{"description":["is too long (maximum is 255 characters)"]}}"#,
        ),
        of(
            "POST",
            "",
            "key=M&value=short&masked=true",
            400,
            r#"{"message":{"value":["is invalid"]}}"#,
        ),
        of("POST", "", "key=M&value=with%20space%20in&masked=true&raw=true", 400, "is invalid"),
        of("POST", "", "key=M&value=dollar%24dollar&masked=true&raw=false", 400, "is invalid"),
        of("POST", "", "key=M&value=dollar%24dollar&masked=true&raw=true", 201, r#""masked":true"#),
        of("POST", "", "key=A&value=one", 201, r#""environment_scope":"*""#),
        of(
            "POST",
            "",
            "key=A&value=one",
            400,
            r#"{"message":{"key":["(A) has already been taken"]}}"#,
        ),
        of("GET", "/A", "", 200, r#""value":"one""#),
        of(
            "POST",
            "",
            r#"{"key":"A","value":"two","environment_scope":"review/*"}"#,
            201,
            r#""environment_scope":"review/*""#,
        ),
        of("GET", "/A", "", 409, many),
        of("PUT", "/A", "value=x", 409, many),
        of("DELETE", "/A", "", 409, many),
        of("GET", "/A?filter%5Benvironment_scope%5D=", "", 409, many),
        of("GET", "/A?filter%5Benvironment_scope%5D=review%2F%2A", "", 200, r#""value":"two""#),
        of(
            "GET",
            "/A?filter%5Benvironment_scope%5D=review",
            "",
            404,
            r#"{"message":"404 Variable Not Found"}"#,
        ),
        of("PUT", "/A", "filter%5Benvironment_scope%5D=review", 404, "404 Variable Not Found"),
        of(
            "PUT",
            "/A",
            r#"{"value":"three","filter":{"environment_scope":"*"}}"#,
            200,
            r#""value":"three""#,
        ),
        of(
            "PUT",
            "/A?filter%5Benvironment_scope%5D=%2A",
            "environment_scope=review%2F%2A",
            400,
            "has already been taken",
        ),
        of("DELETE", "/A?filter%5Benvironment_scope%5D=review%2F%2A", "", 204, ""),
        of("GET", "/A", "", 200, "three"),
        of("POST", "", "key=H&value=hidden-value&masked_and_hidden=true", 201, r#""hidden":true"#),
        of("GET", "/H", "", 200, r#""value":null"#),
        of("PUT", "/H", "value=other-value", 200, r#""value":null"#),
        of("PUT", "/H", "value=other-value&masked=false", 400, "visibility setting"),
        of("GET", "/NONE", "", 404, "404 Variable Not Found"),
        in_group("POST", "", "key=G&value=one", 201, "one"),
        in_group(
            "PUT",
            "/G",
            "filter%5Benvironment_scope%5D=prod&value=wrong",
            200,
            r#""environment_scope":"*""#,
        ),
        in_group("GET", "/G?filter%5Benvironment_scope%5D=prod", "", 404, "404"),
        in_group(
            "POST",
            "",
            "key=G&value=two&environment_scope=prod",
            201,
            r#""environment_scope":"prod""#,
        ),
        in_group("PUT", "/G", "value=x", 409, many),
    ] {
        let answer = fake.gitlab(&verb, &path, &body).await.expect("an answer");
        assert_eq!(
            (answer.status, answer.body.contains(&text)),
            (status, true),
            "{verb} {path} {body}: {} {}",
            answer.status,
            answer.body
        );
    }
    assert_eq!(fake.variable(7, "G", "*"), None);
    assert_eq!(fake.variable(group(7), "G", "*").expect("there").value, "wrong");
    fake.tune(|knobs| knobs.group_scopes = false);
    let dropped = fake
        .gitlab("POST", "/groups/7/variables", "key=S&value=one&environment_scope=prod")
        .await
        .expect("an answer");
    assert_eq!(dropped.json()["environment_scope"], "*");
    fake.tune(|knobs| knobs.raw_default = false);
    let raw =
        fake.gitlab("POST", "/projects/42/variables", "key=R&value=one").await.expect("an answer");
    assert_eq!(raw.json()["raw"], false);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let (fake, _) = deployed();
    for n in 0..130 {
        fake.set_variable(42, Variable::new(&format!("V{n}"), "x"));
    }
    let first = fake.gitlab("GET", "/projects/42/variables", "").await.expect("an answer");
    assert_eq!(first.json().as_array().map(Vec::len), Some(20));
    let last = fake
        .gitlab("GET", "/projects/42/variables?per_page=500&page=2", "")
        .await
        .expect("an answer");
    assert_eq!(last.json().as_array().map(Vec::len), Some(32));
    let header = |answer: &Answer, name: &str| answer.header(name).unwrap_or("none").to_owned();
    assert_eq!(
        (header(&first, "x-next-page"), header(&first, "x-total-pages")),
        ("2".into(), "7".into())
    );
    assert_eq!(
        (header(&last, "x-next-page"), header(&last, "x-total")),
        (String::new(), "132".into())
    );
}

#[tokio::test]
async fn pipelines_are_refused_in_gitlabs_words() {
    let (fake, _) = deployed();
    let with_variables = r#"{"ref":"main","variables":[{"key":"A","value":"b"}]}"#;
    for (refusal, body, text) in [
        (None, "ref=nowhere", "Reference not found"),
        (Some(Refusal::Empty), "ref=main", "The resulting pipeline would have been empty."),
        (Some(Refusal::Workflow), "ref=main", "The pipeline did not run."),
        (
            Some(Refusal::Permission),
            "ref=main",
            "You do not have sufficient permission to run a pipeline on 'main'.",
        ),
        (
            Some(Refusal::VariablesForbidden),
            with_variables,
            "Insufficient permissions to set pipeline variables",
        ),
        (None, r#"{"ref":"main","inputs":{"x":"y"}}"#, "Given inputs not defined"),
    ] {
        fake.refuse_pipelines(42, refusal);
        let answer = fake.gitlab("POST", "/projects/42/pipeline", body).await.expect("an answer");
        assert_eq!((answer.status, answer.body.contains(text)), (400, true), "{}", answer.body);
        assert!(answer.json()["message"]["base"].is_array());
    }
    let before = fake.pipelines(42).len();
    fake.tune(|knobs| knobs.pipeline_creation = PipelineCreation::Slow { ms: 50 });
    assert!(fake.gitlab("POST", "/projects/42/pipeline", "ref=main").await.is_err());
    let pipelines = fake.pipelines(42);
    assert_eq!(pipelines.len(), before + 1);
    fake.finish_pipelines();
    assert_eq!(fake.pipelines(42).last().expect("there").status, "success");
    fake.tune(|knobs| knobs.pipeline_creation = PipelineCreation::Stuck { lose_reply: false });
    assert_eq!(
        fake.gitlab("POST", "/projects/42/pipeline", "ref=main").await.expect("an answer").status,
        201
    );
    fake.finish_pipelines();
    let stuck = fake.pipelines(42).last().cloned().expect("there");
    assert_eq!((stuck.status.as_str(), stuck.jobs.len()), ("created", 0));
    let listed = fake
        .gitlab("GET", "/projects/42/pipelines?source=api&ref=main&status=created", "")
        .await
        .expect("an answer");
    assert_eq!(listed.json().as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn pipelines_run_stage_by_stage() {
    let (fake, _) = deployed();
    fake.add_project(43, "group/down");
    fake.set_pipeline_config(43, vec![JobSpec::new("inner")]);
    let run = |jobs: Vec<JobSpec>| {
        let id = fake.start_pipeline_with(42, "push", "main", jobs);
        fake.finish_pipelines();
        let status = fake
            .pipelines(42)
            .into_iter()
            .find(|pipeline| pipeline.id == id)
            .expect("there")
            .status;
        let mut jobs = fake.jobs(42);
        jobs.retain(|job| job.pipeline == id);
        (id, status, jobs.iter().map(|job| job.status.clone()).collect::<Vec<_>>(), jobs)
    };
    for (jobs, status, of_jobs) in [
        (
            vec![JobSpec::new("a"), JobSpec::new("b").stage("two")],
            "success",
            vec!["success", "success"],
        ),
        (
            vec![JobSpec::new("a").fails(), JobSpec::new("b").stage("two")],
            "failed",
            vec!["failed", "skipped"],
        ),
        (
            vec![JobSpec::new("a").fails().allow_failure(), JobSpec::new("b").stage("two")],
            "success",
            vec!["failed", "success"],
        ),
        (
            vec![JobSpec::new("a").manual(), JobSpec::new("b").stage("two")],
            "manual",
            vec!["manual", "created"],
        ),
        (
            vec![JobSpec::new("a").manual().allow_failure(), JobSpec::new("b").stage("two")],
            "success",
            vec!["manual", "success"],
        ),
        (vec![JobSpec::new("a").no_runner()], "pending", vec!["pending"]),
        (vec![JobSpec::new("a").never_ends()], "running", vec!["running"]),
        (vec![JobSpec::bridge("down", 43, true)], "success", vec!["success"]),
        (
            vec![
                JobSpec::new("a"),
                JobSpec::new("undo").stage("two").on_failure(),
                JobSpec::new("b").stage("three"),
            ],
            "success",
            vec!["success", "skipped", "success"],
        ),
        (
            vec![JobSpec::new("a").fails(), JobSpec::new("undo").stage("two").on_failure()],
            "failed",
            vec!["failed", "success"],
        ),
    ] {
        let (_, actual, statuses, _) = run(jobs);
        assert_eq!(
            (actual.as_str(), statuses),
            (status, of_jobs.into_iter().map(str::to_owned).collect())
        );
    }
    let (id, _, _, jobs) = run(vec![
        JobSpec::new("a").fails_once(),
        JobSpec::new("b").stage("two"),
        JobSpec::bridge("down", 43, true).stage("two"),
    ]);
    let retried = fake
        .gitlab("POST", &format!("/projects/42/jobs/{}/retry", jobs[0].id), "")
        .await
        .expect("an answer");
    assert_eq!(retried.status, 201);
    assert_ne!(retried.json()["id"], jobs[0].id);
    fake.finish_pipelines();
    let list = fake
        .gitlab("GET", &format!("/projects/42/pipelines/{id}/jobs"), "")
        .await
        .expect("an answer");
    let list = list.json().as_array().cloned().expect("a list");
    assert!(
        list.len() == 2
            && list.iter().all(|job| job["status"] == "success" && job["id"] != jobs[0].id),
        "{list:?}"
    );
    for name in ["bridges", "trigger_jobs"] {
        let bridges = fake
            .gitlab("GET", &format!("/projects/42/pipelines/{id}/{name}"), "")
            .await
            .expect("an answer");
        assert_eq!(bridges.json()[0]["downstream_pipeline"]["status"], "success");
    }
    let bridge = fake.jobs(42).into_iter().find(|job| job.name == "down" && job.pipeline == id);
    let bridge = bridge.expect("there").id;
    let seen = fake.gitlab("GET", &format!("/projects/42/jobs/{bridge}"), "").await;
    assert_eq!(seen.expect("an answer").status, 404, "a trigger job is no job");
    let again = fake
        .gitlab("POST", &format!("/projects/42/jobs/{}/retry", jobs[0].id), "")
        .await
        .expect("an answer");
    assert_eq!((again.status, again.body.contains("Job is not retryable")), (403, true));
}

#[tokio::test]
async fn a_freeze_leaves_jobs_out() {
    let (fake, _) = deployed();
    let jobs = || vec![JobSpec::new("build"), JobSpec::new("ship").not_in_a_freeze()];
    let made = |frozen: bool| {
        fake.set_frozen(42, frozen);
        let id = fake.start_pipeline_with(42, "push", "main", jobs());
        fake.jobs(42).iter().filter(|job| job.pipeline == id).count()
    };
    assert_eq!((made(true), made(false)), (1, 2));
    fake.set_pipeline_config(42, vec![JobSpec::new("ship").not_in_a_freeze()]);
    fake.set_frozen(42, true);
    let refused = fake.gitlab("POST", "/projects/42/pipeline", "ref=main").await;
    let refused = refused.expect("an answer");
    assert_eq!((refused.status, refused.body.contains("would have been empty")), (400, true));
}

#[tokio::test]
async fn a_child_runs_in_its_project_and_a_retry_in_it_counts_above() {
    let (fake, _) = deployed();
    let child = JobSpec::child("child", vec![JobSpec::new("inner").fails_once()], true);
    let id = fake.start_pipeline_with(42, "push", "main", vec![child, JobSpec::new("b")]);
    fake.finish_pipelines();
    let status = || fake.pipelines(42).into_iter().find(|pipeline| pipeline.id == id);
    assert_eq!(status().expect("there").status, "failed");
    let inner = fake.jobs(42).into_iter().find(|job| job.name == "inner").expect("there");
    assert_ne!(inner.pipeline, id);
    fake.operator_retries_job(inner.id);
    fake.finish_pipelines();
    assert_eq!(status().expect("there").status, "success");
}

#[tokio::test]
async fn deployments_are_ordered_by_the_date_that_they_are_filtered_by() {
    let (fake, _) = deployed();
    for (query, status, count) in [
        ("?order_by=updated_at", 400, None),
        ("?order_by=updated_at&updated_after=2000-01-01T00:00:00Z", 200, Some(1)),
        ("?order_by=updated_at&updated_after=2100-01-01T00:00:00Z", 200, Some(0)),
    ] {
        let reply = fake.gitlab("GET", &format!("/projects/42/deployments{query}"), "").await;
        let reply = reply.expect("an answer");
        let listed = reply.json().as_array().map(Vec::len);
        assert_eq!((reply.status, listed), (status, count), "{query}");
    }
}

#[tokio::test]
async fn jobs_and_deployments_are_seen() {
    let (fake, key) = deployed();
    fake.add_job(42, 98765, "running");
    fake.start_pipeline_with(42, "push", "main", vec![JobSpec::new("slow").never_ends()]);
    tokio::time::sleep(Duration::from_millis(30)).await;
    let running = fake
        .gitlab("GET", "/projects/42/jobs?scope%5B%5D=running&scope%5B%5D=canceling", "")
        .await
        .expect("an answer");
    assert_eq!(running.json().as_array().map(Vec::len), Some(2));
    fake.tune(|knobs| knobs.new_job_scopes = false);
    assert_eq!(
        fake.gitlab("GET", "/projects/42/jobs?scope%5B%5D=canceling", "")
            .await
            .expect("an answer")
            .status,
        400
    );
    let own = fake.gitlab("GET", "/projects/42/jobs/98765", "").await.expect("an answer").json();
    assert_eq!((&own["status"], own["finished_at"].is_null()), (&"running".into(), true));
    fake.job_set_status(98765, "success");
    let own = fake.gitlab("GET", "/projects/42/jobs/98765", "").await.expect("an answer").json();
    assert!(own["finished_at"].as_str().expect("a moment").ends_with('Z'));
    fake.hide_jobs(42, true);
    assert_eq!(
        fake.gitlab("GET", "/projects/42/jobs/98765", "").await.expect("an answer").status,
        404
    );
    let deployments =
        "/projects/42/deployments?environment=production&status=success&order_by=id&sort=desc";
    let deployments = fake.gitlab("GET", deployments, "").await.expect("an answer").json();
    assert_eq!(deployments[0]["deployable"]["name"], "deploy");
    assert_eq!(
        fake.gitlab("GET", "/projects/42/environments?name=production", "")
            .await
            .expect("an answer")
            .json()[0]["name"],
        "production"
    );
    assert_eq!(
        fake.gitlab("GET", "/projects/42/environments?name=nowhere", "")
            .await
            .expect("an answer")
            .json(),
        serde_json::json!([])
    );
    let env = fake.env(42, 98765);
    let find =
        |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    assert_eq!(
        (find(ID), find("CI_JOB_ID"), find("CI_PROJECT_ID")),
        (Some(key.id.as_str()), Some("98765"), Some("42"))
    );
}

#[tokio::test]
async fn a_job_gets_variables_by_scope_protection_and_precedence() {
    let (fake, key) = deployed();
    fake.add_group(7, "group");
    fake.set_variable(group(7), Variable::new("FROM", "group"));
    fake.set_variable(42, Variable::new("FROM", "wide"));
    fake.set_variable(42, Variable::new("FROM", "wild").scope("prod*"));
    fake.set_variable(42, Variable::new("FROM", "exact").scope("production"));
    fake.set_variable(42, Variable::new("EXPANDED", "a-${FROM}-$NONE-b").expanded());
    fake.set_variable(42, Variable::new("GUARDED", "x").protected());
    let seen = |branch: &str, environment: &str| {
        let id =
            fake.start_pipeline_with(42, "push", branch, vec![JobSpec::deploy("d", environment)]);
        let job =
            fake.pipelines(42).into_iter().find(|pipeline| pipeline.id == id).expect("there").jobs
                [0];
        let env = fake.env(42, job);
        ["FROM", "EXPANDED", "GUARDED"].map(|name| {
            env.iter()
                .find(|(key, _)| key == name)
                .map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
        })
    };
    assert_eq!(seen("main", "production"), ["exact", "a-exact--b", "x"]);
    assert_eq!(seen("main", "prod2"), ["wild", "a-wild--b", "x"]);
    assert_eq!(seen("feature", ""), ["wide", "a-wide--b", "-"]);
    fake.operator_removes_variable(42, "FROM", "*");
    assert_eq!(seen("feature", ""), ["group", "a-group--b", "-"]);
    fake.production_signs(42).await.expect("nothing has happened to it");
    assert_eq!(fake.productions(42)[0].1, key);
}

#[tokio::test]
async fn faults_hit_the_call_they_are_meant_for() {
    let (fake, key) = deployed();
    let list = "/projects/42/variables";
    let post = |key: &str| format!("key={key}&value=one");
    fake.fault(1, Fault::refuse(500));
    fake.fault(2, Fault::Html(502));
    fake.fault_on("POST /projects/:id/variables", 1, Fault::LoseReply);
    fake.fault_on("POST /projects/:id/variables", 2, Fault::Truncate);
    fake.fault_on("POST /projects/:id/variables", 3, Fault::Close);
    fake.fault_on("POST /projects/:id/variables", 4, Fault::retry_after(429, 1));
    assert_eq!(fake.gitlab("GET", list, "").await.expect("an answer").status, 500);
    assert_eq!(fake.gitlab("GET", list, "").await.expect("an answer").status, 502);
    assert!(fake.gitlab("POST", list, &post("LOST")).await.is_err());
    assert!(
        fake.gitlab("POST", list, &post("CUT")).await.expect_err("it is cut").contains("bytes of")
    );
    assert!(fake.gitlab("POST", list, &post("CLOSED")).await.is_err());
    let limited = fake.gitlab("POST", list, &post("LIMITED")).await.expect("an answer");
    assert_eq!(
        (limited.status, limited.header("retry-after"), limited.body.as_str()),
        (429, Some("1"), "Retry later\n")
    );
    let there = |key: &str| fake.variable(42, key, "*").is_some();
    assert_eq!(
        (there("LOST"), there("CUT"), there("CLOSED"), there("LIMITED")),
        (true, true, false, false)
    );
    assert!(fake.faults_hit().iter().all(|fault| fault.hit.is_some()), "{:?}", fake.faults_hit());

    let killed = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = std::sync::Arc::clone(&killed);
    fake.on_kill(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    });
    fake.fault_on("iam:CreateAccessKey", 1, Fault::KillBefore);
    fake.fault_on("iam:CreateAccessKey", 2, Fault::KillAfter);
    assert!(fake.aws("iam", &key, "Action=CreateAccessKey").await.is_err());
    assert_eq!(fake.keys("deployer").len(), 1);
    assert!(fake.aws("iam", &key, "Action=CreateAccessKey").await.is_err());
    assert_eq!(
        (fake.keys("deployer").len(), killed.load(std::sync::atomic::Ordering::SeqCst)),
        (2, 2)
    );

    fake.restart_count();
    fake.fault(1, Fault::Hang { effect: true });
    let call = fake.gitlab("POST", list, "key=HUNG&value=one");
    assert!(tokio::time::timeout(Duration::from_millis(200), call).await.is_err());
    assert!(there("HUNG"));
    let entry = fake.log().into_iter().rev().find(|entry| entry.n == Some(1)).expect("logged");
    assert_eq!((entry.status, entry.effect, entry.what.as_str()), (0, true, "HUNG@? 42"));
}

/// A boundary or an SCP is a limit: what the user's own policy allows is not enough.
#[tokio::test]
async fn the_kind_of_policy_that_stands_in_the_way_is_named() {
    let fake = Fake::builder().seed(3).calm().start();
    let create = "Action=CreateAccessKey";
    for (user, kind, allowed, reason) in [
        ("a", "permissions boundary", true, "because no permissions boundary allows the"),
        (
            "b",
            "service control policy: ARN",
            false,
            "explicit deny in a service control policy: ARN",
        ),
        ("c", "identity-based policy", false, "with an explicit deny in an identity-based policy"),
    ] {
        fake.add_user("/", user);
        let key = fake.add_key(user, 1);
        if allowed {
            fake.allow_only_by(user, kind, &["iam:ListAccessKeys"]);
        } else {
            fake.deny_by(user, kind, &["iam:CreateAccessKey"]);
        }
        let answer = fake.aws("iam", &key, create).await.expect("an answer");
        assert_eq!(answer.status, 403);
        assert!(answer.body.contains(reason), "{}", answer.body);
        let answer = fake.aws("iam", &key, "Action=ListAccessKeys").await.expect("an answer");
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn one_server_or_one_reply_can_have_another_clock() {
    let fake = Fake::builder().seed(3).calm().start();
    fake.add_user("/", "deployer");
    let key = fake.add_key("deployer", 1);
    fake.add_project(42, "group/app");
    let list = "/projects/42/variables";
    let day = |answer: &Answer| answer.header("date").map(|date| date[..16].to_owned());
    let gitlab = async || day(&fake.gitlab("GET", list, "").await.expect("an answer"));
    let today = gitlab().await;
    fake.fault_on("GET /projects/:id/variables", 1, Fault::Misdate { seconds: -86_400 });
    assert_ne!(gitlab().await, today);
    assert_eq!(gitlab().await, today);
    fake.tune(|knobs| knobs.gitlab_ahead = 86_400);
    assert_ne!(gitlab().await, today);
    let iam = fake.aws("iam", &key, "Action=ListAccessKeys").await.expect("an answer");
    assert_eq!(day(&iam), today);
}

#[tokio::test]
async fn a_hostile_fake_hides_new_keys_for_a_while_and_stumbles() {
    let fake = Fake::builder().seed(3).start();
    fake.add_user("/", "deployer");
    let key = fake.add_key("deployer", 1);
    fake.add_project(42, "group/app");
    fake.tune(|knobs| (knobs.iam_throttling, knobs.forgets) = (0, 0));
    let new = create(&fake, &key).await;
    let mut seen = [0, 0];
    for _ in 0..30 {
        seen[usize::from(sts(&fake, &new).await == ok())] += 1;
    }
    assert!(seen[0] > 3 && seen[1] > 3, "{seen:?}");
    tokio::time::sleep(Duration::from_millis(1600)).await;
    for _ in 0..10 {
        assert_eq!(sts(&fake, &new).await, ok());
    }
    // Some hosts forget a young key again; an old one they know.
    fake.tune(|knobs| knobs.forgets = 100);
    assert_eq!(sts(&fake, &new).await, (403, "InvalidClientTokenId".into()));
    assert_eq!(sts(&fake, &key).await, ok());
    let mut statuses = std::collections::BTreeMap::new();
    for _ in 0..200 {
        *statuses
            .entry(
                fake.gitlab("GET", "/projects/42/variables", "").await.expect("an answer").status,
            )
            .or_insert(0) += 1;
    }
    assert!(
        statuses.contains_key(&429) && statuses.contains_key(&502) && statuses[&200] > 150,
        "{statuses:?}"
    );
    assert!(fake.secrets().contains(&new.secret) && fake.secrets().contains(&fake.token));
}

#[tokio::test]
async fn the_fake_speaks_tls() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let fake = Fake::builder().calm().tls(&cert.pem(), &signing_key.serialize_pem()).start();
    let root = reqwest::Certificate::from_pem(cert.pem().as_bytes()).expect("a root");
    let trusting = reqwest::Client::builder().tls_certs_merge([root]).build().expect("a client");
    let address = format!("{}/api/v4/user", fake.url);
    let answer = trusting
        .get(&address)
        .header("private-token", &fake.token)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let strict = reqwest::Client::new().get(&address).send().await;
    assert!(strict.expect_err("nobody vouches for it").is_connect());
}
