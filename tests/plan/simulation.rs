//! Seeded histories: crashes, lost replies, lagging lists, two runs at once, zombies, persons,
//! failing deploys, days.
//!
//! The invariants are judged at each effect, on the model's ground truth; what a person broke is
//! that person's. A failure is shrunk and printed with its seed. `SIM_SEED=…` repeats it,
//! `SIM_HISTORIES=100000` makes a long run of it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use credential_rotator::config::Action;
use credential_rotator::plan::Done;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

use crate::healing::{Start, starts};
use crate::kit::DAY;
use crate::model::{
    End, Fate, Fault, Id, Model, Pair, Process, Record, Secret, Tick, Value, number,
};

/// As many histories as the ordinary test has time for.
const HISTORIES: u32 = 1200;
const SEED: u64 = 1;

#[derive(Clone, Debug)]
enum Act {
    Start {
        visible: bool,
        forced: bool,
        retire: bool,
    },
    Ticks {
        run: usize,
        ticks: u8,
    },
    Goes {
        run: usize,
        fault: Fault,
    },
    /// The process is gone, and GitLab sees it.
    Kill {
        run: usize,
    },
    /// GitLab says that the job has ended; the process goes on.
    Zombie {
        run: usize,
    },
    Pass {
        seconds: i64,
    },
    Days {
        days: i64,
    },
    Lag {
        seconds: i64,
    },
    Fates {
        fates: Vec<Fate>,
    },
    SomebodyDeploys {
        place: usize,
        lasts: i64,
        fate: Fate,
    },
    Operator(Operator),
}

#[derive(Clone, Debug)]
enum Operator {
    CreatesKey {
        used: bool,
    },
    DisablesKey {
        nth: usize,
    },
    EnablesKey {
        nth: usize,
    },
    DeletesKey {
        nth: usize,
    },
    RemembersPair,
    RestoresPair {
        place: usize,
    },
    /// The old pair in every place: a rollback by hand.
    RollsBack,
    /// As the hint says.
    PutsPublishedBack,
    PutsOwnKey {
        place: usize,
        nth: usize,
    },
    DeletesVariable {
        place: usize,
        id: bool,
    },
    EditsTag {
        place: usize,
        nth: Option<usize>,
    },
    Scribbles {
        place: usize,
    },
    Mentions {
        nth: usize,
        elsewhere: bool,
    },
    ForgetsMentions,
    DeletesRecord {
        nth: usize,
    },
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![5 => Just(Fate::Succeeds), 1 => Just(Fate::Fails), 1 => Just(Fate::Hangs), 1 => Just(Fate::Unproven), 1 => Just(Fate::Deleted)]
}

fn operator() -> impl Strategy<Value = Operator> {
    prop_oneof![
        1 => any::<bool>().prop_map(|used| Operator::CreatesKey { used }),
        1 => (0..3_usize).prop_map(|nth| Operator::DisablesKey { nth }),
        1 => (0..3_usize).prop_map(|nth| Operator::EnablesKey { nth }),
        1 => (0..3_usize).prop_map(|nth| Operator::DeletesKey { nth }),
        1 => Just(Operator::RemembersPair),
        1 => (0..2_usize).prop_map(|place| Operator::RestoresPair { place }),
        2 => Just(Operator::RollsBack),
        3 => Just(Operator::PutsPublishedBack),
        1 => (0..2_usize, 0..3_usize).prop_map(|(place, nth)| Operator::PutsOwnKey { place, nth }),
        1 => (0..2_usize, any::<bool>()).prop_map(|(place, id)| Operator::DeletesVariable { place, id }),
        1 => (0..2_usize, proptest::option::of(0..3_usize))
            .prop_map(|(place, nth)| Operator::EditsTag { place, nth }),
        1 => (0..2_usize).prop_map(|place| Operator::Scribbles { place }),
        1 => (0..3_usize, any::<bool>())
            .prop_map(|(nth, elsewhere)| Operator::Mentions { nth, elsewhere }),
        1 => Just(Operator::ForgetsMentions),
        1 => (0..2_usize).prop_map(|nth| Operator::DeletesRecord { nth }),
    ]
}

fn act(operators: bool) -> BoxedStrategy<Act> {
    if operators {
        prop_oneof![11 => happening(), 1 => operator().prop_map(Act::Operator)].boxed()
    } else {
        happening().boxed()
    }
}

fn happening() -> impl Strategy<Value = Act> {
    let fault = prop_oneof![
        Just(Fault::Refused),
        Just(Fault::ReplyLost),
        Just(Fault::DieBefore),
        Just(Fault::DieAfter),
        Just(Fault::DieBetween),
        Just(Fault::Signal),
        Just(Fault::Misdirected),
    ];
    prop_oneof![
        8 => (prop::bool::weighted(0.8), prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(visible, forced, retire)| Act::Start { visible, forced, retire }),
        24 => (0..4_usize, 1..20_u8).prop_map(|(run, ticks)| Act::Ticks { run, ticks }),
        12 => (0..4_usize, 1..3_u8).prop_map(|(run, ticks)| Act::Ticks { run, ticks }),
        6 => (0..4_usize, fault).prop_map(|(run, fault)| Act::Goes { run, fault }),
        1 => (0..4_usize).prop_map(|run| Act::Kill { run }),
        2 => (0..4_usize).prop_map(|run| Act::Zombie { run }),
        8 => prop_oneof![1..60_i64, 100..400_i64].prop_map(|seconds| Act::Pass { seconds }),
        6 => prop_oneof![Just(1_i64), Just(8), Just(61)].prop_map(|days| Act::Days { days }),
        1 => (0..12_i64).prop_map(|seconds| Act::Lag { seconds }),
        2 => prop::collection::vec(fate(), 0..4).prop_map(|fates| Act::Fates { fates }),
        3 => (0..2_usize, 5..4000_i64, fate()).prop_map(|(place, lasts, fate)| Act::SomebodyDeploys { place, lasts, fate }),
    ]
}

struct History {
    model: Model,
    start: Start,
    runs: Vec<Process>,
    remembered: Vec<Pair>,
}

impl History {
    fn new(start: &Start) -> Self {
        Self {
            model: start.model.clone(),
            start: start.clone(),
            runs: Vec::new(),
            remembered: start.model.pairs.clone(),
        }
    }

    fn go(&mut self, act: &Act) {
        match act {
            Act::Start { visible, forced, retire } => {
                if self.runs.len() == 4 {
                    let oldest = self.runs.remove(0);
                    self.model.jobs[oldest.job].ended.get_or_insert(self.model.now);
                }
                let action = if self.model.policy.own_deploy && *retire {
                    Action::Retire
                } else {
                    self.start.action
                };
                let mut process = self.model.start_job(action, *visible);
                process.forced = forced.then_some(self.model.now);
                self.runs.push(process);
            }
            Act::Ticks { run, ticks } => (0..*ticks).for_each(|_| self.tick(*run, Fault::None)),
            Act::Goes { run, fault } => self.tick(*run, *fault),
            Act::Kill { run } => {
                if *run < self.runs.len() {
                    let process = self.runs.remove(*run);
                    self.model.jobs[process.job].ended.get_or_insert(self.model.now);
                }
            }
            Act::Zombie { run } => {
                if let Some(process) = self.runs.get(*run) {
                    self.model.jobs[process.job].ended.get_or_insert(self.model.now);
                }
            }
            Act::Pass { seconds } => self.model.pass(*seconds),
            Act::Days { days } => self.model.pass(days * DAY),
            Act::Lag { seconds } => self.model.lag = *seconds,
            Act::Fates { fates } => self.model.fates.clone_from(fates),
            Act::SomebodyDeploys { place, lasts, fate } => {
                let place = place % self.model.pairs.len();
                self.model.start_deploy(place, 1, *lasts, *fate);
            }
            Act::Operator(operator) => self.operator(operator),
        }
    }

    fn tick(&mut self, run: usize, fault: Fault) {
        let Some(process) = self.runs.get_mut(run) else { return };
        let tick = self.model.tick(process, fault);
        self.model.pass(1);
        if matches!(tick, Tick::Ended(_) | Tick::Died) {
            let process = self.runs.remove(run);
            self.model.jobs[process.job].ended.get_or_insert(self.model.now);
        }
    }

    fn operator(&mut self, operator: &Operator) {
        let model = &mut self.model;
        model.operator_acts += 1;
        let nth = |model: &Model, nth: usize| model.keys.get(nth).map(|key| key.id);
        match operator {
            Operator::CreatesKey { used } => {
                if model.keys.len() < 2 {
                    let id = model.new_key(true);
                    let now = model.now;
                    model
                        .keys
                        .iter_mut()
                        .filter(|key| key.id == id && *used)
                        .for_each(|key| key.used = Some((now, "s3")));
                }
            }
            Operator::DisablesKey { nth } | Operator::EnablesKey { nth } => {
                let active = matches!(operator, Operator::EnablesKey { .. });
                model.keys.iter_mut().skip(*nth).take(1).for_each(|key| key.active = active);
                model.tainted = true;
            }
            Operator::DeletesKey { nth } => {
                if *nth < model.keys.len() {
                    model.keys.remove(*nth);
                    model.tainted = true;
                }
            }
            Operator::RemembersPair => self.remembered.clone_from(&model.pairs),
            Operator::RestoresPair { place } => {
                let place = place % model.pairs.len();
                let hidden = model.pairs[place].value.is_some_and(|value| value.hidden);
                let pair = self.remembered[place];
                model.pairs[place] =
                    Pair { value: pair.value.map(|value| Value { hidden, ..value }), ..pair };
                let works = model.pair_works(&model.pairs[place]);
                model.displace();
                model.tainted |= !works;
            }
            Operator::RollsBack => {
                let old = self.start.model.pairs[0].id;
                self.store_everywhere(old);
            }
            Operator::PutsPublishedBack => {
                let published = |record: &Record| {
                    let progress = record.progress.as_ref()?;
                    Some(number(&progress.published.as_ref()?.key))
                };
                let key = model.records.iter().find_map(published);
                self.store_everywhere(key);
            }
            Operator::PutsOwnKey { place, nth: key } => {
                if let Some(id) = nth(model, *key) {
                    let place = place % model.pairs.len();
                    let hidden = model.pairs[place].value.is_some_and(|value| value.hidden);
                    model.pairs[place] = Pair {
                        id: Some(id),
                        value: Some(Value { secret: Secret::Of(id), hidden, tag: None }),
                    };
                    let works = model.pair_works(&model.pairs[place]);
                    model.displace();
                    // Nobody but the program has the secret of a key that it made.
                    let is_theirs = model.key(id).is_some_and(|key| key.foreign);
                    model.tainted |= !works || !is_theirs;
                }
            }
            Operator::DeletesVariable { place, id } => {
                let place = place % model.pairs.len();
                if *id {
                    model.pairs[place].id = None;
                } else {
                    model.pairs[place].value = None;
                }
                model.tainted = true;
            }
            Operator::EditsTag { place, nth: key } => {
                let place = place % model.pairs.len();
                let tag = key.and_then(|key| nth(model, key));
                model.pairs[place].value.iter_mut().for_each(|value| value.tag = tag);
                model.tainted = true;
            }
            Operator::Scribbles { place } => {
                let place = place % model.pairs.len();
                model.pairs[place].value.iter_mut().for_each(|value| value.secret = Secret::Junk);
                model.tainted = true;
            }
            Operator::Mentions { nth: key, elsewhere } => {
                let named = nth(model, *key);
                let place =
                    if *elsewhere { &mut model.elsewhere } else { &mut model.other_references };
                place.extend(named);
            }
            Operator::ForgetsMentions => {
                model.other_references.clear();
                model.elsewhere.clear();
            }
            Operator::DeletesRecord { nth } => {
                if *nth < model.records.len() {
                    model.records.remove(*nth);
                    // A claim taken away by hand: the run that held it may be in the middle of a
                    // step.
                    model.tainted = true;
                }
            }
        }
    }

    /// A pair of this key that works, with the description as it was.
    fn store_everywhere(&mut self, key: Option<Id>) {
        let Some(key) = key else { return };
        for pair in &mut self.model.pairs {
            let hidden = pair.value.is_some_and(|value| value.hidden);
            let value = Value { secret: Secret::Of(key), hidden, tag: Some(key) };
            *pair = Pair { id: Some(key), value: Some(value) };
        }
        let works = self.model.pairs.iter().all(|pair| self.model.pair_works(pair));
        self.model.displace();
        self.model.tainted |= !works;
    }

    fn checked(&self) -> Result<(), TestCaseError> {
        self.model.wrong.as_ref().map_or(Ok(()), |wrong| Err(TestCaseError::fail(wrong.clone())))
    }

    /// Everybody is gone and nothing goes wrong any more: daily runs come to rest, or refuse for a
    /// person's sake.
    fn settle(&mut self) -> Result<End, TestCaseError> {
        for process in self.runs.drain(..) {
            self.model.jobs[process.job].ended.get_or_insert(self.model.now);
        }
        (self.model.lag, self.model.fates) = (0, Vec::new());
        // A pipeline that proves nothing needs a person: one of them is deleted, the next run
        // starts another.
        for deploy in &mut self.model.deploys {
            deploy.fate = if deploy.fate == Fate::Unproven { Fate::Deleted } else { deploy.fate };
            deploy.over =
                deploy.over.map(|over| if over == Fate::Unproven { Fate::Deleted } else { over });
        }
        let mut last = None;
        for day in 0..40 {
            self.model.pass(DAY);
            let retire = self.model.policy.own_deploy && day % 2 == 1;
            if retire {
                for place in 0..self.model.pairs.len() {
                    self.model.start_deploy(place, 1, 5, Fate::Succeeds);
                }
                self.model.pass(10);
            }
            let action = if retire { Action::Retire } else { Action::Rotate };
            let mut process = self.model.start_job(action, true);
            let mut end = None;
            for _ in 0..1000 {
                let tick = self.model.tick(&mut process, Fault::None);
                self.model.pass(1);
                self.checked()?;
                if let Tick::Ended(ended) = tick {
                    end = Some(ended);
                    break;
                }
            }
            self.model.jobs[process.job].ended = Some(self.model.now);
            let Some(end) = end else { return Err(TestCaseError::fail("a run does not end")) };
            if day > 3
                && matches!(end, End::Done(Done::NotDue { .. }) | End::Refused(_))
                && last.as_ref() == Some(&end)
            {
                return Ok(end);
            }
            if !retire {
                last = Some(end);
            }
        }
        last.ok_or_else(|| TestCaseError::fail("no run"))
    }
}

fn live(
    start: &Start,
    acts: &[Act],
    operators: bool,
    totals: &RefCell<BTreeMap<&'static str, u64>>,
) -> Result<(), TestCaseError> {
    let mut history = History::new(start);
    for act in acts {
        history.go(act);
        history.checked()?;
    }
    let end = history.settle()?;
    let Model { keys, pairs, records, production, counts, .. } = &history.model;
    let mut totals = totals.borrow_mut();
    let kind = match &end {
        End::Done(Done::NotDue { .. }) => "ended at rest",
        End::Done(_) => "ended waiting",
        End::Refused(_) => "ended refusing",
        End::Failed(_) => "ended failing",
    };
    for (what, count) in
        counts.iter().chain([(&kind, &1), (&"acts", &(acts.len() as u64)), (&"histories", &1)])
    {
        *totals.entry(what).or_default() += count;
    }
    drop(totals);
    let fail =
        |what: &str| Err(TestCaseError::fail(format!("{what}: {end:?}\n{:#?}", history.model)));
    if matches!(end, End::Failed(_)) {
        return fail("nothing goes wrong any more and a run fails");
    }
    let is_broken = || {
        let works = |(id, secret): &(Id, Secret)| history.model.works(Some(*id), Some(*secret));
        !production.iter().flatten().all(works)
    };
    if operators {
        let is_theirs = history.model.tainted || history.model.displaced;
        return if is_theirs || !is_broken() { Ok(()) } else { fail("production is broken") };
    }
    // Nobody but the program has touched anything: one working key, the published one, and
    // production on it; a foreign second key stays.
    let id = pairs[0].id;
    if !matches!(end, End::Done(Done::NotDue { .. })) {
        return fail("not at rest");
    }
    // A bare record of a run that died is nothing to write for: the next rotation takes it away.
    let told = records.iter().filter(|record| record.progress.is_some()).count();
    if keys.iter().filter(|key| !key.foreign).count() != 1 || told > 1 {
        return fail("something is left behind");
    }
    if !pairs.iter().all(|pair| pair.id == id && history.model.pair_works(pair)) {
        return fail("what is published does not work");
    }
    if is_broken() {
        return fail("production is broken");
    }
    Ok(())
}

fn simulate(operators: bool, share: u32, told: &str) {
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("SIM_SEED").unwrap_or(SEED);
    let cases = number("SIM_HISTORIES")
        .map_or(HISTORIES, |count| u32::try_from(count).unwrap_or(u32::MAX))
        / share;
    let config = Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let starts: Vec<Start> = starts()
        .into_iter()
        .filter(|start| start.action == Action::Rotate && (operators || usual(start)))
        .collect();
    let acts = prop::collection::vec(act(operators), 10..120);
    let totals = RefCell::new(BTreeMap::new());
    let result = TestRunner::new(config).run(&(0..starts.len(), acts), |(start, acts)| {
        live(&starts[start], &acts, operators, &totals)
    });
    eprintln!("{told}, seed {seed}: {:?}", totals.into_inner());
    if let Err(failure) = result {
        panic!("repeat it with SIM_SEED={seed} SIM_HISTORIES={}\n{failure}", cases * share);
    }
}

/// Starts that nothing but the program has made.
fn usual(start: &Start) -> bool {
    ["due", "forced", "an older job", "lists lag", "failing deploys"]
        .iter()
        .any(|name| start.name.starts_with(name))
}

#[test]
fn histories_without_persons_end_with_one_working_key_the_published_one() {
    simulate(false, 2, "without persons");
}

#[test]
fn histories_with_persons_keep_every_key_that_is_not_provably_ours() {
    simulate(true, 2, "with persons");
}

/// What ran on the restored pair is deployed anew before the old key goes.
#[test]
fn a_rollback_that_a_run_has_seen_ends_what_was_proven() {
    // The old key stays, and each deploy is over when its run is.
    let keeps_the_old_key = |start: &&Start| {
        start.name.starts_with("due, patient") || start.name.starts_with("due, own deploy")
    };
    for start in starts().iter().filter(keeps_the_old_key) {
        let places = start.model.pairs.len();
        let mut history = History::new(start);
        let run = |history: &mut History| {
            let [visible, forced, retire] = [true, false, false];
            history.go(&Act::Start { visible, forced, retire });
            history.go(&Act::Ticks { run: 0, ticks: 200 });
            assert!(history.runs.is_empty(), "{}: a run goes on", start.name);
        };
        run(&mut history);
        let new = history.model.pairs[0].id;
        history.operator(&Operator::RollsBack);
        for place in 0..places {
            history.go(&Act::SomebodyDeploys { place, lasts: 5, fate: Fate::Succeeds });
        }
        history.go(&Act::Pass { seconds: 60 });
        let runs_on = |history: &History, key| {
            history.model.production.iter().flatten().all(|(id, _)| Some(*id) == key)
        };
        let old = start.model.pairs[0].id;
        assert!(runs_on(&history, old), "{}: {:?}", start.name, history.model);
        run(&mut history);
        history.operator(&Operator::PutsPublishedBack);
        let end = history.settle();
        assert!(matches!(end, Ok(End::Done(_))), "{}: {end:?}", start.name);
        assert!(runs_on(&history, new), "{}", start.name);
    }
}
