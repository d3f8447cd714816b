#!/usr/bin/env python3
"""Draws the pictures of the documents: the log of a job that rotates a key, and the life of two keys over nine days.

The log is that of a real run in the fake, with names, dates and addresses made constant. The life follows from the
defaults that `--help` prints and a daily schedule. Usage: docs/pictures.py PROGRAM SERVE
"""
import datetime
import html
import pathlib
import re
import subprocess
import sys
import textwrap

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / ".ci"))
from fake import Fake

PROGRAM, SERVE = sys.argv[1:3]
FOLDER = pathlib.Path(__file__).parent
BEGIN = datetime.datetime(2026, 1, 1, 4)
DAYS = 9
FONT = "font-family='ui-monospace, SFMono-Regular, Menlo, Consolas, monospace'"


def job_log():
    """What a run with the defaults prints; the fake's seconds are those of today."""
    with Fake(SERVE, "in-project") as fake:
        job = fake.job("rotate-key")
        # The run is nobody's job: one that went on running would have the old pair, and be waited for.
        fake.end(job)
        env = {name: value for name, value in job.items() if name not in ("GITLAB_CI", "CI_JOB_ID")}
        old = env["AWS_ACCESS_KEY_ID"]
        began = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
        done = subprocess.run([PROGRAM], env=env, stderr=subprocess.PIPE, text=True, check=True)
    text = done.stderr.replace(f"…{old[-4:]}", "…WXYZ")
    text = re.sub(r"…(?!WXYZ)[A-Z0-9]{4}", "…ABCD", text)
    text = re.sub(r"http://127\.0\.0\.1:\d+", "https://gitlab.example.com", text)
    text = re.sub(r"of commit [0-9a-f]{8}", "of commit 0a1b2c3d", text)
    return re.sub(r"\d{4}-\d\d-\d\d( \d\d:\d\d UTC)?", lambda found: constant(found, began), text)


def constant(found, began):
    """The same moment, had the run begun at `BEGIN`; times of day to the hour."""
    if not found[1]:
        day = datetime.date.fromisoformat(found[0])
        return str(BEGIN.date() + (day - began.date()))
    moment = datetime.datetime.strptime(found[0], "%Y-%m-%d %H:%M UTC")
    hours = round((moment - began) / datetime.timedelta(hours=1))
    return (BEGIN + datetime.timedelta(hours=hours)).strftime("%Y-%m-%d %H:%M UTC")


def picture_of_log(text):
    lines = []
    for line in text.rstrip().splitlines():
        if not line.strip():
            lines.append("")
        lines += textwrap.wrap(line, 108, subsequent_indent=" " * 11, drop_whitespace=True, replace_whitespace=False)
    width, height = 930, 20 * len(lines) + 24
    out = [f"<rect width='{width}' height='{height}' rx='6' fill='#1f1e24'/>"]
    for number, line in enumerate(lines):
        title = line and not line.startswith(" ") and not re.match(r"[A-Z][a-z]+ {2,}", line) and "INFO" not in line
        style = "fill='#fc9d54' font-weight='bold'" if title else "fill='#e3e3e3'"
        out.append(f"<text x='16' y='{28 + 20 * number}' {style} xml:space='preserve'>{html.escape(line)}</text>")
    return svg(width, height, "The log of a job that rotates a key", out)


def hours(text):
    units = {"d": 24, "h": 1, "m": 1 / 60, "s": 1 / 3600}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([dhms])", text))


def picture_of_life():
    shown = subprocess.run([PROGRAM, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    default = dict(re.findall(r"(ROTATOR_\w+) \[(.*?)\]", shown))
    overlap, grace = default["ROTATOR_OVERLAP"], default["ROTATOR_GRACE_PERIOD"]
    # A daily run does what is due by then.
    disabled = 1 + max(1, -(-hours(overlap) // 24))
    deleted = disabled + -(-hours(grace) // 24)
    if deleted > DAYS:
        sys.exit("pictures: the defaults need more than nine days")
    left, step = 150, 84

    def at(day):
        return left + step * (day - 1)

    def bar(start, stop, y, fill):
        return f"<rect x='{start:g}' y='{y}' width='{stop - start:g}' height='26' fill='{fill}'/>"

    def word(x, y, text, more=""):
        return f"<text x='{x:g}' y='{y}' {more}>{html.escape(text)}</text>"

    end = at(DAYS) + 64
    width, height = end + 20, 236
    out = [f"<rect width='{width}' height='{height}' rx='6' fill='#ffffff'/>", "<g fill='#28272d'>"]
    for day in range(1, DAYS + 1):
        out.append(word(at(day), 28, f"day {day}", "text-anchor='middle'"))
        out.append(f"<line x1='{at(day)}' y1='38' x2='{at(day)}' y2='182' stroke='#dcdcde'/>")
    out += [word(16, 68, "old key"), word(16, 116, "new key"), word(16, 164, "variables")]
    out += [bar(left - 40, at(disabled), 50, "#2f6f4f"), bar(at(disabled), at(deleted), 50, "#b8b8bd"), bar(at(1), end, 98, "#1f68b8")]
    out += [bar(left - 40, at(1), 146, "#2f6f4f"), bar(at(1), end, 146, "#1f68b8"), "</g>", "<g fill='#ffffff' font-size='12'>"]
    out += [word(at(1) + 8, 68, "active"), word(at(1) + 8, 116, "active, deployed"), word(at(1) + 8, 164, "name the new key")]
    out += ["</g>", "<g fill='#28272d' font-size='12'>", word(at(disabled) + 8, 68, "disabled: can be enabled again"), word(at(deleted) + 6, 68, "deleted")]
    out += [word(at(1), y, text, "text-anchor='middle'") for y, text in [(204, "created, verified,"), (220, "published, deployed")]]
    out += [word(at(disabled), 204, f"overlap of {overlap} is over")]
    out += [word(end, 204, f"grace period of {grace} is over", "text-anchor='end'"), "</g>"]
    return svg(width, height, "The life of two keys over nine days", out)


def svg(width, height, title, out):
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width:g} {height:g}' width='{width:g}' height='{height:g}' {FONT} font-size='13'>"
    return "\n".join([head, f"<title>{title}</title>", *out, "</svg>"]) + "\n"


(FOLDER / "job-log.svg").write_text(picture_of_log(job_log()))
(FOLDER / "key-life.svg").write_text(picture_of_life())
