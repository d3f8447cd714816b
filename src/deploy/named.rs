//! The proof by named jobs: what the jobs of a pipeline, and of the pipelines that it triggers, show.
//!
//! They decide alone: the status of their pipeline does not matter, except that a named job is given
//! up only when nothing runs any more that could still bring it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::proof::Proof;
use super::tree::{JobSeen, Kind, PipelineSeen, Tree};
use super::whole::Whole;
use crate::gitlab::{Phase, Status};
use crate::plan::START_MARGIN;

/// What the pipeline that this job is part of has to show.
pub(super) struct Own<'a> {
    pub(super) drained: Timestamp,
    /// The rotation's own jobs, which prove nothing.
    pub(super) rotators: &'a BTreeSet<u64>,
}

/// The proof by named jobs. `own`: the pipeline is the one that this job is part of.
pub(super) fn of_named(tree: &Tree, wanted: &[String], own: Option<&Own<'_>>) -> Proof {
    let mut named = Named::default();
    let to_come = to_come(tree, own.is_some());
    for (name, found) in by_name(tree, wanted, own) {
        if found.is_empty() {
            named.missing.push(format!("there is no job {name}"));
        }
        for (pipeline, seen) in found {
            named.add(tree, pipeline, seen, own);
        }
    }
    // What is missing may be where this token sees nothing.
    let hidden = tree.pipelines.iter().filter(|pipeline| pipeline.hidden);
    if !named.missing.is_empty() {
        named.hidden.extend(hidden.map(PipelineSeen::as_hidden));
    }
    match own {
        Some(_) => named.in_own_pipeline(&to_come),
        None => named.in_a_deploy(tree, &to_come),
    }
}

/// What may still bring named jobs into being without a person. In our own pipeline, what has not
/// begun waits for this very job.
fn to_come(tree: &Tree, is_own: bool) -> Vec<String> {
    let mut to_come = Vec::new();
    for (index, pipeline) in tree.pipelines.iter().enumerate() {
        if is_own && index == 0 {
            let begun = pipeline.jobs.iter().filter(|seen| {
                matches!(seen.kind, Kind::Trigger(None))
                    && seen.job.status.is_alive()
                    && seen.job.status != Status::Created
            });
            to_come.extend(begun.map(JobSeen::as_it_is));
        } else {
            to_come.extend(pipeline.to_come());
        }
    }
    to_come
}

/// What the named jobs show.
#[derive(Default)]
struct Named {
    missing: Vec<String>,
    running: Vec<String>,
    /// They wait for a person.
    manual: Vec<String>,
    failed: Vec<String>,
    left_out: Vec<String>,
    /// No retry changes it.
    in_vain: Vec<String>,
    /// Pipelines that the token does not see.
    hidden: Vec<String>,
}

impl Named {
    fn add(&mut self, tree: &Tree, pipeline: &PipelineSeen, seen: &JobSeen, own: Option<&Own<'_>>) {
        let is_late = |own: &Own<'_>| {
            seen.job.started_at.is_some_and(|start| start > own.drained + START_MARGIN)
        };
        match (seen.job.status.phase(), &seen.kind) {
            (Phase::Alive, _) => self.running.push(seen.as_it_is()),
            (Phase::Blocked, _) => self.manual.push(seen.as_it_is()),
            // It may need a manual job, which sets it off in the end.
            (Phase::Failed, _) if seen.is_left_out_of(pipeline) && own.is_none() => {
                let waits = |other: &&JobSeen| other.job.status.phase() == Phase::Blocked;
                match pipeline.jobs.iter().find(waits) {
                    Some(other) => self.manual.extend([seen.as_it_is(), other.as_it_is()]),
                    None => self.in_vain.push(seen.as_it_is()),
                }
            }
            (Phase::Failed, _) => self.failed.push(seen.as_it_is()),
            (Phase::Succeeded, _) if !own.is_none_or(is_late) => self.in_vain.push(format!(
                "{} started before the new pair was in place ({})",
                seen.called(),
                seen.job.link()
            )),
            (Phase::Succeeded, Kind::Job) => {}
            (Phase::Succeeded, Kind::Trigger(None)) => self.in_vain.push(format!(
                "{} shows no pipeline that it has triggered ({})",
                seen.called(),
                seen.job.link()
            )),
            (Phase::Succeeded, Kind::Trigger(Some(below))) => {
                let whole = Whole::of(&tree.below(*below));
                self.running.extend(whole.running);
                self.manual.extend(whole.manual);
                self.failed.extend(whole.failed);
                self.left_out.extend(whole.canceled);
                self.left_out.extend(whole.may_fail);
                self.hidden.extend(whole.hidden);
            }
        }
    }

    fn lacks_nothing(&self) -> bool {
        self.lacks().is_empty()
    }

    /// All that is still to be shown.
    fn lacks(&self) -> Vec<String> {
        let lists = [
            &self.missing,
            &self.in_vain,
            &self.failed,
            &self.left_out,
            &self.running,
            &self.manual,
            &self.hidden,
        ];
        lists.into_iter().flatten().cloned().collect()
    }

    /// Nothing is started here, so what cannot run any more is told at once.
    fn in_own_pipeline(&self, to_come: &[String]) -> Proof {
        let running = [&self.running[..], to_come, &self.manual].concat();
        if running.len() > self.manual.len() {
            Proof::Running(running.join(", "))
        } else if !self.manual.is_empty() {
            Proof::Blocked(self.manual.join(", "))
        } else if self.lacks_nothing() {
            Proof::Proven
        } else {
            Proof::LeftOut(self.lacks().join(", "))
        }
    }

    fn in_a_deploy(&self, tree: &Tree, to_come: &[String]) -> Proof {
        // Another part of a named job may be among them.
        let lacks = [&self.lacks()[..], to_come].concat().join(", ");
        if !self.running.is_empty() || !to_come.is_empty() {
            return Proof::Running(lacks);
        }
        if !self.manual.is_empty() {
            return Proof::Blocked(lacks);
        }
        if lacks.is_empty() {
            return Proof::Proven;
        }
        let open = tree.pipelines.iter().filter(|pipeline| !pipeline.has_ended());
        let open: Vec<String> = open
            .map(|pipeline| format!("{pipeline} is {}", pipeline.status.explained()))
            .chain(self.could_bring(tree, Phase::Blocked))
            .collect();
        if !open.is_empty() {
            let what = format!("{lacks}, but {}", open.join(", "));
            let runs = tree.pipelines.iter().any(|pipeline| pipeline.status.is_alive());
            return if runs { Proof::Running(what) } else { Proof::Blocked(what) };
        }
        if !self.hidden.is_empty() {
            return Proof::LeftOut(lacks);
        }
        // What a failed trigger job would have brought comes with its retry.
        let untriggered: Vec<String> = self.could_bring(tree, Phase::Failed).collect();
        if !self.in_vain.is_empty() || (!self.missing.is_empty() && untriggered.is_empty()) {
            Proof::InVain(lacks)
        } else if !self.failed.is_empty() || !self.missing.is_empty() {
            Proof::Failed([vec![lacks], untriggered].concat().join(", "))
        } else {
            Proof::LeftOut(lacks)
        }
    }

    /// The trigger jobs in this phase that could bring what is missing.
    fn could_bring<'a>(&self, tree: &'a Tree, phase: Phase) -> impl Iterator<Item = String> + 'a {
        let is_missing = !self.missing.is_empty();
        let could = move |(pipeline, seen): &(&PipelineSeen, &JobSeen)| {
            is_missing
                && matches!(seen.kind, Kind::Trigger(None))
                && seen.job.status.phase() == phase
                && !seen.is_left_out_of(pipeline)
        };
        tree.jobs().filter(could).map(|(_, seen)| seen.as_it_is())
    }
}

/// The jobs of each wanted name, and the parts that GitLab has made of it.
fn by_name<'a>(
    tree: &'a Tree,
    wanted: &'a [String],
    own: Option<&Own<'_>>,
) -> BTreeMap<&'a str, Vec<(&'a PipelineSeen, &'a JobSeen)>> {
    let mut by_name: BTreeMap<&str, Vec<_>> =
        wanted.iter().map(|name| (name.as_str(), Vec::new())).collect();
    for (pipeline, seen) in tree.jobs() {
        let name = seen.job.name.as_str();
        if own.is_some_and(|own| own.rotators.contains(&seen.job.id)) {
            continue;
        }
        let name = if by_name.contains_key(stem(name)) { stem(name) } else { name };
        if let Some(list) = by_name.get_mut(name) {
            list.push((pipeline, seen));
        }
    }
    by_name
}

/// The name of a job without what GitLab adds for its parts: `NAME 1/3`, `NAME: [a, b]`.
pub(super) fn stem(name: &str) -> &str {
    let name = name.split_once(": [").map_or(name, |(stem, _)| stem);
    match name.rsplit_once([' ', ':']) {
        Some((stem, part))
            if part.split_once('/').is_some_and(|(n, of)| is_number(n) && is_number(of)) =>
        {
            stem.trim_end()
        }
        _ => name,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Name;
    use crate::gitlab::jobs::Job;

    /// `NAME=STATUS` is a job, `NAME>=STATUS` a trigger job without a pipeline, `NAME>1=STATUS` one
    /// with the second pipeline; a `?` at the end: it may fail.
    fn job(id: usize, text: &str) -> JobSeen {
        let (name, status) = text.split_once('=').expect("NAME=STATUS");
        let (name, kind) = match name.split_once('>') {
            Some((name, below)) => (name, Kind::Trigger(below.parse().ok())),
            None => (name, Kind::Job),
        };
        let job = serde_json::json!({
            "id": id, "name": name.replace('_', " "), "status": status.trim_end_matches('?'),
            "allow_failure": status.ends_with('?'), "started_at": "2026-11-29T09:00:00Z",
        });
        let job: Job = serde_json::from_value(job).expect("a job");
        JobSeen { job, kind }
    }

    /// The pipelines, apart by `|`, each with its status first.
    fn tree(text: &str) -> Tree {
        let pipeline = |(number, line): (usize, &str)| {
            let mut words = line.split_whitespace();
            let status = Status::from(words.next().unwrap_or_default().to_owned());
            let jobs = words.enumerate().map(|(id, text)| job(number * 10 + id, text)).collect();
            PipelineSeen {
                project: Name::Id(42),
                id: number as u64,
                hidden: status == Status::Other("hidden".to_owned()),
                status,
                jobs,
            }
        };
        Tree { pipelines: text.split('|').enumerate().map(pipeline).collect() }
    }

    fn word(proof: &Proof) -> &'static str {
        match proof {
            Proof::Proven => "proven",
            Proof::NoDeploy => "no deploy",
            Proof::Running(_) => "running",
            Proof::Blocked(_) => "blocked",
            Proof::Failed(_) => "failed",
            Proof::LeftOut(_) => "left out",
            Proof::InVain(_) => "in vain",
        }
    }

    #[test]
    fn the_named_jobs_decide_in_every_pipeline() {
        let wanted = ["deploy".to_owned()];
        for (pipelines, expected) in [
            // The status of the pipeline does not matter.
            ("success deploy=success", "proven"),
            ("failed deploy=success notify=failed", "proven"),
            ("canceled deploy=success notify=canceled", "proven"),
            ("running deploy=success soak=running", "proven"),
            ("manual deploy=success promote=manual later=created", "proven"),
            ("success deploy_1/2=success deploy:_[eu]=success deployment=failed?", "proven"),
            // All parts, everywhere.
            ("success deploy_1/2=success deploy_2/2=failed?", "failed"),
            ("running deploy_1/2=success deploy_2/2=created", "running"),
            ("success deploy=success child>1=success|failed deploy=failed", "failed"),
            ("success deploy=success child>1=success|running deploy=running", "running"),
            ("running deploy=success child>=created", "running"),
            ("manual deploy=success approve=manual child>=created", "proven"),
            ("success deploy=success child>1=success|created", "running"),
            ("success deploy=success child>1=success|failed other=failed", "proven"),
            ("success deploy=success child>1=success|hidden", "proven"),
            // It may still run.
            ("running deploy=failed test=running", "running"),
            ("manual deploy=failed? approve=manual", "blocked"),
            ("success deploy=manual?", "blocked"),
            ("running deploy=manual test=running", "blocked"),
            ("success deploy=skipped approve=manual?", "blocked"),
            ("success build=success child>=manual?", "blocked"),
            ("success build=success child>1=success|running test=running", "running"),
            ("success build=success child>1=success|manual test=manual", "blocked"),
            ("running build=running", "running"),
            // It failed, or what would bring it did.
            ("failed deploy=failed", "failed"),
            ("canceled deploy=canceled", "failed"),
            ("failed build=failed deploy=skipped", "failed"),
            ("failed build=failed child>=skipped", "failed"),
            ("failed child>=failed", "failed"),
            // It never runs.
            ("success build=success", "in vain"),
            ("failed build=failed", "in vain"),
            ("success deploy=skipped", "in vain"),
            ("success build=success child>=skipped", "in vain"),
            ("success build=success child>1=success|success test=success", "in vain"),
            ("success build=success child>1=success|hidden", "running"),
            // A trigger job with what it triggers.
            ("success deploy>1=success|success ship=success undo=skipped", "proven"),
            ("success deploy>1=success|running ship=running", "running"),
            ("success deploy>1=success|success ship=manual?", "blocked"),
            ("success deploy>1=success|success ship=failed?", "left out"),
            ("success deploy>1=success|success ship=canceled?", "left out"),
            ("success deploy>1=success|failed ship=failed", "failed"),
            ("success deploy>1=success|success next>2=success|failed ship=failed", "failed"),
            ("success deploy>=success", "in vain"),
            ("failed deploy>1=failed|failed ship=failed", "failed"),
        ] {
            let proof = of_named(&tree(pipelines), &wanted, None);
            assert_eq!(word(&proof), expected, "{pipelines}");
        }
    }

    /// The job that looks is the last of its pipeline.
    #[test]
    fn in_the_own_pipeline_nothing_is_waited_for_that_waits_for_us() {
        let wanted = ["deploy".to_owned()];
        let rotators = BTreeSet::from([9]);
        let before: Timestamp = "2026-11-29T08:00:00Z".parse().expect("a date");
        let after: Timestamp = "2026-11-29T09:00:00Z".parse().expect("a date");
        for (pipelines, drained, expected) in [
            ("running deploy=success retire=running", before, "proven"),
            ("running deploy=success retire=running", after, "left out"),
            ("running deploy=running retire=running", before, "running"),
            ("running deploy=manual? retire=running", before, "blocked"),
            ("running deploy=failed? retire=running test=running", before, "left out"),
            ("running deploy=skipped approve=manual?", before, "left out"),
            ("running child>=created retire=running", before, "left out"),
            ("running child>=pending retire=running", before, "running"),
            ("running child>=manual? retire=running", before, "left out"),
            ("running child>1=success|running deploy=success", before, "proven"),
            ("running child>1=success|created", before, "running"),
            (
                "running a=success b=success c=success d=success e=success f=success g=success \
              h=success i=success deploy=success",
                before,
                "left out",
            ),
        ] {
            let own = Own { drained, rotators: &rotators };
            let proof = of_named(&tree(pipelines), &wanted, Some(&own));
            assert_eq!(word(&proof), expected, "{pipelines}");
        }
    }
}
