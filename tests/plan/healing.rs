//! From many starts: a run ends within a bound, every picture is what a look would show, and
//! whatever dies or fails once is healed by two further runs.

use credential_rotator::config::Action;
use credential_rotator::plan::{Done, Refusal};
use jiff::SignedDuration;

use crate::kit::{DAY, OLD, STRANGE, With, policy};
use crate::model::{End, Fate, Fault, Process, Secret, Tick, Value, World};

/// More steps (questions and waits not counted) than any run may need.
const BOUND: u32 = 60;

#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) name: String,
    pub(crate) world: World,
    pub(crate) action: Action,
    pub(crate) forced: bool,
    /// It ends with a new key; otherwise it refuses.
    rotates: bool,
}

pub(crate) fn starts() -> Vec<Start> {
    let mut starts = Vec::new();
    let mut add = |name: &str, world: World, action, forced, rotates| {
        starts.push(Start { name: name.to_owned(), world, action, forced, rotates })
    };
    let shapes: [&[bool]; 5] = [&[false], &[true], &[false, false], &[true, false], &[false, true]];
    let hasty = policy().with(|policy| {
        (policy.overlap, policy.grace_period) = (SignedDuration::ZERO, SignedDuration::ZERO)
    });
    let own = policy().with(|policy| policy.own_deploy = true);
    let leave = policy().with(|policy| policy.leave_deploys = true);
    for (kind, policy) in
        [("patient", policy()), ("hasty", hasty), ("own deploy", own), ("left deploys", leave)]
    {
        for shape in shapes {
            let world = |age| {
                let world = World::new(policy.clone()).with_key(OLD, age, false);
                shape
                    .iter()
                    .fold(world, |world, hidden| world.with_target(Some(OLD), *hidden, None))
            };
            let named = |what: &str| format!("{what}, {kind}, hidden {shape:?}");
            add(&named("due"), world(75), Action::Rotate, false, true);
            let mut disabled = world(10);
            disabled.keys[0].active = false;
            disabled.tainted = true;
            add(&named("disabled"), disabled, Action::Rotate, false, true);
            add(&named("forced"), world(10), Action::Rotate, true, true);
            add(
                &named("no slot"),
                world(75).with_key(STRANGE, 5, true),
                Action::Rotate,
                false,
                false,
            );
            let mut unknown = world(75);
            unknown.pairs[0].id = Some(STRANGE);
            add(&named("unknown key"), unknown, Action::Rotate, false, false);
            let mut wrong_tag = world(75);
            for value in wrong_tag.pairs.iter_mut().filter_map(|pair| pair.value.as_mut()) {
                value.tag = Some(STRANGE);
            }
            let readable = shape.iter().all(|hidden| !hidden);
            add(&named("a wrong tag"), wrong_tag, Action::Rotate, false, readable);
            let setup = shape
                .iter()
                .fold(World::new(policy.clone()), |world, _| world.with_target(None, false, None));
            add(&named("setup"), setup.clone(), Action::Setup, false, true);
            add(
                &named("setup beside a key"),
                setup.clone().with_key(STRANGE, 5, true),
                Action::Setup,
                false,
                true,
            );
            add(&named("nothing"), setup, Action::Rotate, false, false);
            let mut elders = world(75);
            elders.start_deploy(0, 0, 900, Fate::Succeeds);
            elders.pass(1);
            add(&named("an older job"), elders, Action::Rotate, false, true);
            let mut lagging = world(75);
            lagging.lag = 8;
            add(&named("lists lag"), lagging, Action::Rotate, false, true);
            let mut failing = world(75);
            failing.fates = vec![Fate::Deleted, Fate::Fails];
            add(&named("failing deploys"), failing, Action::Rotate, false, true);
            if shape.len() > 1 {
                let mut differ = world(75);
                differ.pairs[1].id = Some(STRANGE);
                differ.pairs[1].value =
                    Some(Value { secret: Secret::Junk, hidden: shape[1], tag: None });
                add(&named("different keys"), differ.clone(), Action::Rotate, false, false);
                differ.tainted = true;
                add(&named("different keys, forced"), differ, Action::Rotate, true, true);
            }
        }
    }
    starts
}

/// Lets a process run until it ends or dies.
fn run(world: &mut World, process: &mut Process, mut fault: impl FnMut() -> Fault) -> Option<End> {
    for _ in 0..1000 {
        let tick = world.tick(process, fault());
        world.pass(1);
        assert!(process.steps <= BOUND, "more than {BOUND} steps in one run");
        if let Tick::Ended(end) = tick {
            world.jobs[process.job].ended = Some(world.now);
            return Some(end);
        }
        if tick == Tick::Died {
            world.jobs[process.job].ended = Some(world.now);
            return None;
        }
    }
    panic!("a run does not end");
}

/// The next run of this start: with the pipeline's own deploy, a deploy and `retire` follow each
/// rotating job.
fn next(world: &mut World, start: &Start, number: usize) -> Process {
    let retire = world.policy.own_deploy && number % 2 == 1;
    if retire {
        for place in 0..world.pairs.len() {
            world.start_deploy(place, 3, 10, Fate::Succeeds);
        }
        world.pass(20);
    }
    let action = if retire { Action::Retire } else { start.action };
    // Once the first pair is there `setup` is done, and `rotate` goes on.
    let action =
        if start.action == Action::Setup && number >= 2 && !retire && world.pairs[0].id.is_some() {
            Action::Rotate
        } else {
            action
        };
    let mut process = world.start_job(action, true);
    process.forced = start.forced.then_some(start.world.now);
    process
}

fn at_rest(world: &World, end: Option<&End>) -> bool {
    let key = world.pairs[0].id;
    let settled = matches!(
        end,
        Some(End::Done(
            Done::NotDue { .. } | Done::NothingToRetire { .. } | Done::AlreadySetUp { .. }
        ))
    );
    let ours = world.keys.iter().filter(|iam| !iam.foreign).count();
    let running = world.papers.iter().filter(|paper| paper.ends.is_some()).count();
    settled
        && world.pairs.iter().all(|pair| pair.id == key && world.pair_works(pair))
        && ours == 1
        && running == 0
        && world.papers.len() <= 1
        && world.production.iter().all(|running| {
            running.is_some_and(|(id, secret)| Some(id) == key && world.works(key, Some(secret)))
        })
}

/// Runs, day by day, until nothing is left to do.
fn to_rest(
    world: &mut World,
    start: &Start,
    compare: bool,
    mut number: usize,
) -> (usize, Option<End>) {
    let mut end = None;
    for _ in 0..30 {
        let mut process = next(world, start, number);
        process.compare = compare;
        end = run(world, &mut process, || Fault::None);
        number += 1;
        let refused = !start.rotates && matches!(end, Some(End::Refused(_)));
        if world.wrong.is_some() || refused || at_rest(world, end.as_ref()) {
            break;
        }
        let apart = if world.policy.own_deploy && number % 2 == 1 { 60 } else { DAY };
        world.pass(apart);
    }
    (number, end)
}

#[test]
fn every_picture_is_what_a_look_would_show_and_every_start_comes_to_rest() {
    let (mut runs, mut compared, mut begun) = (0, 0, 0);
    for start in starts() {
        let mut world = start.world.clone();
        let (number, end) = to_rest(&mut world, &start, true, 0);
        assert!(world.wrong.is_none(), "{}: {}", start.name, world.wrong.unwrap_or_default());
        if start.rotates {
            assert!(at_rest(&world, end.as_ref()), "{}: {end:?}\n{world:#?}", start.name);
            let new = world.keys.iter().any(|key| key.id > 10) || start.name.starts_with("setup");
            assert!(new, "{}: no new key", start.name);
        } else {
            assert!(
                matches!(&end, Some(End::Refused(refusal)) if refusal.blames_a_person()),
                "{}: {end:?}",
                start.name
            );
            assert_eq!(world.keys.len(), start.world.keys.len(), "{}", start.name);
            assert!(world.papers.is_empty(), "{}", start.name);
        }
        runs += number;
        compared += world.counts.get("pictures compared").copied().unwrap_or_default();
        begun += world.counts.get("rotations begun").copied().unwrap_or_default();
    }
    assert!(compared > 1000 && begun > 100);
    eprintln!(
        "{} starts, {runs} runs, {compared} pictures compared, {begun} rotations",
        starts().len()
    );
}

/// One thing goes wrong in the next tick of this process; what follows goes well.
fn heal(
    start: &Start,
    mut world: World,
    mut process: Process,
    number: usize,
    fault: Fault,
    gap: i64,
) {
    let told = format!(
        "{}: {fault:?} after {} s (job {}), the next run {gap} s later",
        start.name,
        world.now - start.world.now,
        process.job
    );
    let mut next_fault = Some(fault);
    run(&mut world, &mut process, || next_fault.take().unwrap_or(Fault::None));
    let mut number = number + 1;
    let between = |number: usize, world: &World| {
        if world.policy.own_deploy && number % 2 == 1 { 60 } else { gap }
    };
    world.pass(gap);
    for further in 0..2 {
        let mut process = next(&mut world, start, number);
        process.compare = number.is_multiple_of(4);
        let end = run(&mut world, &mut process, || Fault::None);
        number += 1;
        // A deploy that failed is started once more by each run; the pipeline's own is proven by
        // the next pipeline.
        let fine = matches!(
            &end,
            Some(
                End::Done(_) | End::Refused(Refusal::DeployFailed(_) | Refusal::DeployUnproven(_))
            )
        );
        assert!(further == 0 || fine, "{told}: {end:?}\n{world:#?}");
        assert!(
            further == 0
                || world.pairs.iter().all(|pair| pair.id.is_none() || world.pair_works(pair)),
            "{told}: {world:#?}"
        );
        world.pass(between(number, &world));
    }
    let (_, end) = to_rest(&mut world, start, false, number);
    assert!(world.wrong.is_none(), "{told}: {}", world.wrong.unwrap_or_default());
    assert!(at_rest(&world, end.as_ref()), "{told}: {end:?}\n{world:#?}");
}

/// Before each tick of each run of a rotation, each fault. One case in [`STRIDE`] is looked at; all
/// of them (some minutes) with `PLAN_ALL=1`.
#[test]
fn whatever_dies_or_fails_once_is_healed_by_two_further_runs() {
    const STRIDE: usize = 61;
    let stride = if std::env::var_os("PLAN_ALL").is_some() { 1 } else { STRIDE };
    let faults =
        [Fault::DieBefore, Fault::DieAfter, Fault::DieBetween, Fault::Refused, Fault::ReplyLost];
    let (mut cases, mut looked_at) = (0, 0);
    for start in starts().into_iter().filter(|start| start.rotates && start.world.lag == 0) {
        for (visible, gaps) in [(true, &[200, DAY][..]), (false, &[DAY])] {
            let (mut world, mut number, mut end) = (start.world.clone(), 0, None);
            while !at_rest(&world, end.as_ref()) && number < 40 {
                let mut process = next(&mut world, &start, number);
                world.jobs[process.job].visible = visible;
                end = None;
                while end.is_none() {
                    for (fault, gap) in
                        faults.iter().flat_map(|fault| gaps.iter().map(move |gap| (*fault, *gap)))
                    {
                        cases += 1;
                        if cases % stride == 0 {
                            looked_at += 1;
                            heal(&start, world.clone(), process.clone(), number, fault, gap);
                        }
                    }
                    if let Tick::Ended(ended) = world.tick(&mut process, Fault::None) {
                        end = Some(ended);
                    }
                    world.pass(1);
                }
                world.jobs[process.job].ended = Some(world.now);
                number += 1;
                let apart = if world.policy.own_deploy && number % 2 == 1 { 60 } else { DAY };
                world.pass(apart);
            }
        }
    }
    assert!(looked_at > 1000);
    eprintln!("{looked_at} of {cases} mishaps, all healed");
}

#[test]
fn a_run_that_comes_while_the_dead_one_still_counts_as_alive_is_busy() {
    let start = starts().remove(0);
    let mut busy = 0;
    for n in 0..40 {
        let mut world = start.world.clone();
        let mut process = world.start_job(Action::Rotate, true);
        let mut left = n;
        let mut fault = || {
            left -= 1;
            if left < 0 { Fault::DieAfter } else { Fault::None }
        };
        if run(&mut world, &mut process, &mut fault).is_some() {
            break;
        }
        world.pass(60);
        let keys = world.keys.len();
        let mut process = world.start_job(Action::Rotate, true);
        let end = run(&mut world, &mut process, || Fault::None);
        if world.papers.iter().any(|paper| paper.ends.is_some()) {
            assert!(
                matches!(end, Some(End::Refused(Refusal::Busy) | End::Done(Done::Waiting(_)))),
                "tick {n}: {end:?}"
            );
            assert_eq!(world.keys.len(), keys);
            busy += 1;
        }
        assert_eq!(world.wrong, None);
    }
    assert!(busy > 10);
}
