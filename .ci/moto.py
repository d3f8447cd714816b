#!/usr/bin/env python3
"""Checks the fake with moto: runs the same binary against moto as IAM and STS, in self mode and in role mode.

GitLab is the fake, kept open by the example `serve`. moto checks signatures and policies once `reset-auth` is posted; it keeps
accepting disabled keys, so what is disabled is read from its list. Usage: moto.py PROGRAM SERVE
"""
import json
import os
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import boto3
from fake import Fake

PROGRAM, SERVE = sys.argv[1:3]
PORT = 15999
MOTO = f"http://127.0.0.1:{PORT}"
PROJECT = 42
passed = 0


def proven(text):
    global passed
    passed += 1
    print(f"moto: {text}")


def wait_for(what, seconds=60):
    for _ in range(seconds * 5):
        try:
            if what():
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit("moto: gave up waiting")


def client(service, **credentials):
    return boto3.client(service, endpoint_url=MOTO, region_name="us-east-1", **credentials)


def as_credentials(key):
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def own(pair):
    """What GitLab gives to a job of the project."""
    return {"AWS_ACCESS_KEY_ID": pair["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": pair["SecretAccessKey"]}


def gitlab(env, verb, path, **form):
    data = urllib.parse.urlencode(form).encode() if form else None
    request = urllib.request.Request(env["CI_API_V4_URL"] + path, data, {"PRIVATE-TOKEN": env["ROTATOR_GITLAB_TOKEN"]}, method=verb)
    for _ in range(20):  # the fake answers 429 and 502 now and then
        try:
            with urllib.request.urlopen(request) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 502):
                raise
            time.sleep(0.3)
    sys.exit("moto: GitLab never answered")


def stored(env):
    variables = gitlab(env, "GET", f"/projects/{PROJECT}/variables?per_page=100")
    pair = {variable["key"]: variable["value"] for variable in variables}
    return {"AccessKeyId": pair["AWS_ACCESS_KEY_ID"], "SecretAccessKey": pair["AWS_SECRET_ACCESS_KEY"]}


def publish(env, key):
    for name, half in (("AWS_ACCESS_KEY_ID", "AccessKeyId"), ("AWS_SECRET_ACCESS_KEY", "SecretAccessKey")):
        form = {"value": key[half], "filter[environment_scope]": "*", "masked": "true", "raw": "true", "description": ""}
        gitlab(env, "PUT", f"/projects/{PROJECT}/variables/{name}", **form)


def check_after(calls):
    """From now on, but for so many calls, moto checks signatures and policies."""
    request = urllib.request.Request(f"{MOTO}/moto-api/reset-auth", str(calls).encode(), {"Content-Type": "text/plain"})
    urllib.request.urlopen(request).read()


def run(env, **more):
    """One run by hand: `none` as the deploy, for the fake's own deploy job signs at the fake."""
    if "ROTATOR_AWS_ROLE_ARN" in more:
        check_after(1)  # moto cannot take AssumeRoleWithWebIdentity, which is unsigned, once it checks; every later call is checked
    given = {
        "PATH": os.environ["PATH"], "CI_API_V4_URL": env["CI_API_V4_URL"], "ROTATOR_GITLAB_TOKEN": env["ROTATOR_GITLAB_TOKEN"],
        "AWS_ENDPOINT_URL": MOTO, "AWS_REGION": "us-east-1", "ROTATOR_TARGETS": f"project:{PROJECT}", "ROTATOR_DEPLOY": "none",
        "ROTATOR_OVERLAP": "0s", "ROTATOR_GRACE_PERIOD": "0s", **more,
    }
    done = subprocess.run([PROGRAM], env=given, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"moto: exit code {done.returncode}\n{done.stderr}")
    if os.environ.get("VERBOSE"):
        print(done.stderr)
    return done.stderr


def rotate(env, iam, user, mode, **credentials):
    before = stored(env)
    run(env, ROTATOR_FORCE="true", **credentials)
    after = stored(env)
    keys = {key["AccessKeyId"]: key["Status"] for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]}
    assert before["AccessKeyId"] != after["AccessKeyId"] and keys == {before["AccessKeyId"]: "Active", after["AccessKeyId"]: "Active"}, keys
    arn = client("sts", **as_credentials(after)).get_caller_identity()["Arn"]
    assert arn.endswith(f"/{user}"), arn
    proven(f"{mode}: a new key was made and published, and moto accepts its signature as {user}")
    if "AWS_ACCESS_KEY_ID" in credentials:  # GitLab gives a later job the new pair
        credentials = own(after)
    run(env, ROTATOR_ACTION="retire", **credentials)
    keys = {key["AccessKeyId"]: key["Status"] for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]}
    assert keys == {after["AccessKeyId"]: "Active"}, keys
    proven(f"{mode}: the old key was disabled and deleted, the published one is left")


def main():
    moto = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(PORT)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: urllib.request.urlopen(f"{MOTO}/moto-api/").status == 200)
        with Fake(SERVE, "in-project") as fake:
            env = fake.job("moto")
            # The runs below are started by hand. They would wait for this job if it went on running with the old pair.
            fake.end(env)
            check(env)
    finally:
        moto.terminate()
    print(f"{passed} passed, 0 failed")


def check(env):
    iam = client("iam", aws_access_key_id="admin", aws_secret_access_key="admin")
    user = "moto-deployer"
    iam.create_user(UserName=user)
    allowed = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["iam:*", "sts:*"], "Resource": "*"}]}
    iam.put_user_policy(UserName=user, PolicyName="rotation", PolicyDocument=json.dumps(allowed))
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Federated": "*"}, "Action": "sts:AssumeRoleWithWebIdentity"}]}
    role = iam.create_role(RoleName="rotator", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(RoleName="rotator", PolicyName="rotation", PolicyDocument=json.dumps(allowed))
    iam.create_user(UserName="admin")
    iam.put_user_policy(UserName="admin", PolicyName="all", PolicyDocument=json.dumps(allowed))
    keeper = iam.create_access_key(UserName="admin")["AccessKey"]
    first = iam.create_access_key(UserName=user)["AccessKey"]
    publish(env, first)
    check_after(0)
    iam = client("iam", **as_credentials(keeper))
    wrong = client("sts", **as_credentials({**first, "SecretAccessKey": "x" * 40}))
    try:
        wrong.get_caller_identity()
        sys.exit("moto: signatures are not checked")
    except wrong.exceptions.ClientError as error:
        assert "SignatureDoesNotMatch" in str(error), error
    proven("signatures are checked: a wrong secret is refused")

    rotate(env, iam, user, "self mode", **own(stored(env)))
    rotate(env, iam, user, "role mode", ROTATOR_IAM_USER=user, ROTATOR_AWS_ROLE_ARN=role, ROTATOR_AWS_ID_TOKEN=env["ROTATOR_AWS_ID_TOKEN"])
    calm = run(env, ROTATOR_IAM_USER=user, ROTATOR_AWS_ROLE_ARN=role, ROTATOR_AWS_ID_TOKEN=env["ROTATOR_AWS_ID_TOKEN"])
    assert "not due" in calm, calm
    proven("a young key is left alone")


main()
