//! Nothing stops for ever. A world is brought into each refusal and each wait, then changed as the
//! hint says, or as a person does it instead: the next run is in it no more, and later ones come to
//! rest.

use std::fmt::Debug;
use std::path::Path;

use credential_rotator::config::Action;
use credential_rotator::plan::{Checkpoint, Done, GivenPair, Step};
use jiff::SignedDuration;

use crate::kit::{DAY, FOREIGN, OLD, at, id, policy};
use crate::model::{End, Fate, Fault, Id, Model, Pair, Secret, Tick, Value};

/// A model, and what its runs are told.
#[derive(Clone)]
struct World {
    model: Model,
    action: Action,
    forced: bool,
    /// The pair that each job is given, and since when.
    given: Option<(Id, i64)>,
}

type Change = (&'static str, fn(&mut World));

/// How a run comes into this state, and what ends it.
struct Case {
    state: &'static str,
    begin: fn() -> World,
    ends: &'static [Change],
}

fn of(model: Model) -> World {
    World { model, action: Action::Rotate, forced: false, given: None }
}

/// A key that is due, in one target for each; whether its secret is hidden.
fn due(hidden: &[bool]) -> World {
    let model = Model::new(policy()).with_key(OLD, 75, false);
    let with = |model: Model, hidden: &bool| model.with_target(Some(OLD), *hidden, None);
    of(hidden.iter().fold(model, with))
}

/// A rotation whose first run has ended: the overlap runs.
fn deployed() -> World {
    due(&[false]).after(|world| {
        world.run();
        // Lists show everything.
        world.model.pass(600);
    })
}

fn disabled() -> World {
    deployed().after(|world| {
        // What the deploy replaced went on for a minute: that counts as a use.
        world.model.pass(3 * DAY);
        world.run();
    })
}

/// The pair of this key, its secret shown or hidden as it stands there.
fn stored(model: &Model, place: usize, key: Id) -> Pair {
    let hidden = model.pairs[place].value.is_some_and(|value| value.hidden);
    Pair { id: Some(key), value: Some(Value { secret: Secret::Of(key), hidden, tag: None }) }
}

impl World {
    fn after(mut self, act: impl FnOnce(&mut Self)) -> Self {
        act(&mut self);
        self
    }

    /// What a person has changed: what production makes of it is not judged.
    fn person(&mut self, act: impl FnOnce(&mut Model)) {
        self.model.tainted = true;
        self.model.operator_acts += 1;
        act(&mut self.model);
    }

    fn store(&mut self, key: Id) {
        self.person(|model| {
            for place in 0..model.pairs.len() {
                model.pairs[place] = stored(model, place, key);
            }
        });
    }

    fn delete(&mut self, key: Id) {
        self.person(|model| model.keys.retain(|known| known.id != key));
    }

    fn switch(&mut self, key: Id, active: bool) {
        self.person(|model| {
            model
                .keys
                .iter_mut()
                .filter(|known| known.id == key)
                .for_each(|key| key.active = active);
        });
    }

    /// The key that the rotation has made.
    fn new_key(&self) -> Id {
        self.model.keys.iter().map(|key| key.id).filter(|key| *key > 10).max().unwrap_or_default()
    }

    fn run(&mut self) -> End {
        self.run_until(|_| false).expect("nothing stops it")
    }

    /// A run that dies right after such a step.
    fn run_until(&mut self, dies: impl Fn(&Step) -> bool) -> Option<End> {
        let model = &mut self.model;
        let mut process = model.start_job(self.action, true);
        process.forced = self.forced.then_some(model.now);
        process.run.given = self.given.map(|(key, since)| GivenPair {
            key: id(key),
            since: at(since),
            in_target: true,
        });
        let end = (0..2000).find_map(|_| {
            let tick = model.tick(&mut process, Fault::None);
            model.pass(1);
            match tick {
                Tick::Ended(end) => Some(Some(end)),
                Tick::Went(Some(step)) if dies(&step) => Some(None),
                Tick::Went(_) => None,
                Tick::Died => Some(None),
            }
        });
        model.jobs[process.job].ended = Some(model.now);
        end.expect("a run ends")
    }

    /// A person fixes the deploy and retries it.
    fn deploys(&mut self) {
        let pair = self.model.pairs[0];
        self.person(|model| {
            model.production[0] = pair.id.zip(pair.value.map(|value| value.secret));
            model.deploys.iter_mut().for_each(|deploy| deploy.over = Some(Fate::Succeeds));
        });
    }

    fn no_waits(&mut self) {
        let policy = &mut self.model.policy;
        (policy.overlap, policy.grace_period) = (SignedDuration::ZERO, SignedDuration::ZERO);
    }

    fn forced_once(&mut self) {
        self.forced = true;
        self.run();
        self.forced = false;
    }
}

/// The name of the refusal or of the wait.
fn state(end: &End) -> String {
    match end {
        End::Done(Done::Waiting(waiting)) => name(waiting),
        End::Refused(refusal) => name(refusal),
        End::Done(done) => format!("done: {}", name(done)),
        End::Failed(what) => (*what).to_owned(),
    }
}

fn name(value: &impl Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

const REFUSALS: &[Case] = &[
    Case {
        state: "Busy",
        begin: || {
            due(&[false]).after(|world| {
                world.run_until(|step| *step == Step::Claim);
                world.model.jobs[0].ended = None;
            })
        },
        ends: &[("its job ends", |world| world.model.jobs[0].ended = Some(world.model.now))],
    },
    Case {
        state: "NoVariables",
        begin: || of(Model::new(policy()).with_target(None, false, None)),
        ends: &[
            ("setup", |world| {
                world.action = Action::Setup;
                world.run();
                world.action = Action::Rotate;
            }),
            ("a person stores a pair", |world| {
                let key = world.model.new_key(true);
                world.store(key);
            }),
        ],
    },
    Case {
        state: "PartMissing",
        begin: || due(&[false]).after(|world| world.person(|model| model.pairs[0].value = None)),
        ends: &[("stored", |world| world.store(OLD)), ("force", World::forced_once)],
    },
    Case {
        state: "PartMissing",
        begin: || due(&[true]).after(|world| world.person(|model| model.pairs[0].id = None)),
        ends: &[("stored", |world| world.store(OLD)), ("force", World::forced_once)],
    },
    Case {
        state: "Differ",
        begin: || {
            due(&[false, true])
                .after(|world| world.person(|model| model.pairs[1] = stored(model, 1, FOREIGN)))
        },
        ends: &[("stored", |world| world.store(OLD)), ("force", World::forced_once)],
    },
    Case {
        state: "Mismatch",
        begin: || {
            due(&[true]).after(|world| {
                world.person(|model| {
                    model.pairs[0].value.iter_mut().for_each(|value| value.tag = Some(FOREIGN));
                });
            })
        },
        ends: &[("stored, no tag", |world| world.store(OLD)), ("force", World::forced_once)],
    },
    Case {
        state: "Unknown",
        begin: || due(&[false]).after(|world| world.store(FOREIGN)),
        ends: &[("stored", |world| world.store(OLD)), ("force", World::forced_once)],
    },
    Case {
        state: "NoSlot",
        begin: || of(due(&[false]).model.with_key(FOREIGN, 5, true)),
        ends: &[
            ("deleted", |world| world.delete(FOREIGN)),
            ("the other one is published, the old one deleted", |world| {
                world.store(FOREIGN);
                world.delete(OLD);
            }),
        ],
    },
    Case {
        state: "Preflight",
        begin: || {
            due(&[false]).after(|world| {
                world.model.other_references.insert(OLD);
            })
        },
        ends: &[
            ("deleted", |world| world.model.other_references.clear()),
            ("a person rotates by hand", |world| {
                let key = world.model.new_key(true);
                world.store(key);
                world.delete(OLD);
            }),
        ],
    },
    Case {
        state: "Several",
        begin: || {
            due(&[false]).after(|world| {
                world.run_until(|step| *step == Step::Create);
                world.model.new_key(true);
            })
        },
        ends: &[
            ("the operator's deleted", |world| {
                let key = world.new_key();
                world.delete(key);
            }),
            ("both deleted", |world| {
                world.person(|model| model.keys.retain(|key| key.id == OLD));
            }),
        ],
    },
    Case {
        state: "AddedTarget",
        begin: || {
            deployed().after(|world| {
                let model = world.model.clone().with_target(Some(FOREIGN), false, None);
                world.model = model;
                world.model.tainted = true;
                world.model.production[1] = None;
            })
        },
        ends: &[
            ("it holds an old pair", |world| {
                world.person(|model| model.pairs[1] = stored(model, 1, OLD));
            }),
            ("it holds the published pair", |world| {
                let key = world.new_key();
                world.store(key);
            }),
            ("it is no target", |world| {
                world.model.pairs.pop();
                world.model.production.pop();
            }),
        ],
    },
    Case {
        state: "ChangedExternally",
        begin: || {
            due(&[false]).after(|world| {
                world.run_until(|step| matches!(step, Step::Verify(_)));
                world.store(FOREIGN);
            })
        },
        ends: &[
            ("restored", |world| world.store(OLD)),
            ("the new key deleted, the old pair stored", |world| {
                let key = world.new_key();
                world.delete(key);
                world.store(OLD);
            }),
        ],
    },
    Case {
        state: "NewKeyLost",
        begin: || {
            deployed().after(|world| {
                let key = world.new_key();
                world.switch(key, false);
            })
        },
        ends: &[
            ("enabled", |world| {
                let key = world.new_key();
                world.switch(key, true);
            }),
            ("deleted, the old pair stored", |world| {
                let key = world.new_key();
                world.delete(key);
                world.store(OLD);
            }),
        ],
    },
    Case {
        state: "NewKeyLost",
        begin: || {
            deployed().after(|world| {
                let key = world.new_key();
                world.delete(key);
            })
        },
        ends: &[("a pair that works", |world| world.store(OLD)), ("force", World::forced_once)],
    },
    Case {
        state: "SecretLost",
        begin: || {
            due(&[true, true])
                .after(|world| drop(world.run_until(|step| matches!(step, Step::WriteId { .. }))))
        },
        ends: &[("the old pair everywhere, no tag", |world| world.store(OLD))],
    },
    Case {
        state: "KeyCompromised",
        begin: || {
            due(&[false]).after(|world| {
                world.run_until(|step| *step == Step::Create);
                let (now, key) = (world.model.now, world.new_key());
                let used = |known: &mut crate::model::IamKey| known.used = Some((now, "s3"));
                world.model.keys.iter_mut().filter(|known| known.id == key).for_each(used);
            })
        },
        ends: &[("deleted", |world| {
            let key = world.new_key();
            world.delete(key);
        })],
    },
    Case {
        state: "NotPublishedAnyMore",
        begin: || deployed().after(|world| world.store(OLD)),
        ends: &[
            ("restored", |world| {
                let key = world.new_key();
                world.store(key);
            }),
            ("the new key deleted: the old pair is to stay", |world| {
                let key = world.new_key();
                world.delete(key);
            }),
        ],
    },
    Case {
        state: "EnabledAgain",
        begin: || disabled().after(|world| world.switch(OLD, true)),
        ends: &[
            ("disabled", |world| world.switch(OLD, false)),
            ("deleted", |world| world.delete(OLD)),
        ],
    },
    Case {
        state: "EarlierRotation",
        begin: || {
            deployed().after(|world| {
                world.model.pass(60);
                world.forced = true;
            })
        },
        ends: &[
            ("the waits are over", |world| {
                world.forced = false;
                for _ in 0..12 {
                    world.model.pass(DAY);
                    world.run();
                }
                world.forced = true;
            }),
            ("no waits", World::no_waits),
        ],
    },
    Case {
        state: "OldPairGiven",
        begin: || {
            deployed().after(|world| {
                world.model.pass(DAY);
                world.given = Some((OLD, world.model.now));
            })
        },
        ends: &[("it gets the targets' pair", |world| world.given = None)],
    },
    Case {
        state: "StillNamed",
        begin: || {
            deployed().after(|world| {
                // Whoever names it has stopped to use it: else that would be told.
                world.model.pass(3 * DAY);
                world.model.other_references.insert(OLD);
            })
        },
        ends: &[
            ("deleted", |world| world.model.other_references.clear()),
            ("the new key there", |world| {
                let key = world.new_key();
                world.model.other_references = [key].into();
            }),
        ],
    },
    Case {
        state: "TooOld",
        begin: || {
            due(&[false]).after(|world| {
                world.action = Action::Check;
                world.model.policy.max_age = SignedDuration::from_hours(70 * 24);
            })
        },
        ends: &[("a rotation", |world| {
            world.action = Action::Rotate;
            world.run();
            world.action = Action::Check;
        })],
    },
    Case {
        state: "DeployFailed",
        begin: || due(&[false]).after(|world| world.model.fates = vec![Fate::Fails]),
        ends: &[
            ("the next run starts another", |_| {}),
            ("a person fixes and retries it", World::deploys),
        ],
    },
    Case {
        state: "DeployFailed",
        begin: || {
            due(&[false]).after(|world| {
                world.model.policy.leave_deploys = true;
                world.model.fates = vec![Fate::Fails];
                world.run();
                world.model.pass(DAY);
            })
        },
        ends: &[
            ("the next one succeeds", |world| world.model.pass(DAY)),
            ("retried", World::deploys),
        ],
    },
    Case {
        state: "DeployUnproven",
        begin: || due(&[false]).after(|world| world.model.fates = vec![Fate::Unproven]),
        ends: &[
            ("its job runs", World::deploys),
            ("a person deletes the pipeline", |world| {
                world.model.deploys.iter_mut().for_each(|deploy| deploy.over = Some(Fate::Deleted));
            }),
        ],
    },
    Case {
        state: "DeployTimedOut",
        begin: || due(&[false]).after(|world| world.model.fates = vec![Fate::Hangs]),
        ends: &[
            ("a runner comes", World::deploys),
            ("GitLab drops the job: the next run starts another", |world| world.model.pass(DAY)),
        ],
    },
];

const WAITS: &[Case] = &[
    Case {
        state: "InFlightJobs",
        begin: || {
            due(&[false]).after(|world| {
                world.model.start_deploy(0, 0, 9000, Fate::Succeeds);
                world.model.pass(1);
            })
        },
        ends: &[
            ("they end", |world| world.model.pass(9000)),
            ("a person cancels them", |world| {
                let open = |deploy: &&mut crate::model::Deploy| deploy.over.is_none();
                let deploys = world.model.deploys.iter_mut();
                deploys.filter(open).for_each(|deploy| deploy.over = Some(Fate::Fails));
            }),
        ],
    },
    Case {
        state: "Deploys",
        begin: || due(&[false]).after(|world| world.model.policy.leave_deploys = true),
        ends: &[("it ends", |world| world.model.pass(DAY))],
    },
    Case {
        state: "OwnDeploy",
        begin: || due(&[false]).after(|world| world.model.policy.own_deploy = true),
        ends: &[("its pipeline deploys, and retires", |world| {
            world.model.start_deploy(0, 10, 5, Fate::Succeeds);
            world.model.pass(60);
            world.action = Action::Retire;
        })],
    },
    Case {
        state: "Overlap",
        begin: deployed,
        ends: &[("it is over", |world| world.model.pass(13 * 3600)), ("0s", World::no_waits)],
    },
    Case {
        state: "StillUsed",
        begin: || {
            deployed().after(|world| {
                world.model.pass(DAY);
                let now = world.model.now;
                let old = world.model.keys.iter_mut().filter(|key| key.id == OLD);
                old.for_each(|key| key.used = Some((now, "s3")));
            })
        },
        ends: &[
            ("nothing uses it for two days", |world| world.model.pass(49 * 3600)),
            ("0s", World::no_waits),
            ("a person deletes it", |world| world.delete(OLD)),
            ("a person disables it", |world| world.switch(OLD, false)),
        ],
    },
    Case {
        state: "Grace",
        begin: disabled,
        ends: &[
            ("it is over", |world| world.model.pass(7 * DAY)),
            ("0s", World::no_waits),
            ("a person deletes it", |world| world.delete(OLD)),
        ],
    },
    Case {
        state: "OwnSigner",
        begin: || {
            due(&[true]).after(|world| {
                world.no_waits();
                world.given = Some((OLD, world.model.now));
                world.run_until(|step| *step == Step::Record(Checkpoint::Proven));
                world.model.pass(200);
            })
        },
        ends: &[("a later job", |world| world.given = None)],
    },
];

/// What no world of this model ends in, and the test about it.
const ELSEWHERE: &[(&str, &str)] = &[
    ("Unusable", "binary/operators.rs: fn an_id_that_refers_to_another_variable"),
    ("Afterlife", "plan/table.rs: fn a_run_whose_job_has_just_ended_is_waited_for"),
    ("Unsettled", "plan/table.rs: fn what_a_run_that_has_just_ended_made_may_show_late"),
    ("Margin", "binary/outcomes.rs: fn a_gitlab_without_dates_ends_a_run_of_stages_too"),
];

/// What is wrong with this end, if anything.
fn judged(case: &Case, change: &Change) -> Result<(), String> {
    let mut world = (case.begin)();
    let first = world.run();
    if state(&first) != case.state {
        return Err(format!("it begins with {first:?}"));
    }
    (change.1)(&mut world);
    let next = world.run();
    if state(&next) == case.state {
        return Err(format!("it is still {next:?}"));
    }
    world.forced = false;
    let mut last = next;
    for day in 0..30 {
        world.model.pass(DAY);
        let retires = world.model.policy.own_deploy && day % 2 == 1;
        if retires {
            world.model.start_deploy(0, 0, 5, Fate::Succeeds);
            world.model.pass(10);
        }
        world.action = if retires { Action::Retire } else { Action::Rotate };
        last = world.run();
        if let Some(wrong) = &world.model.wrong {
            return Err(wrong.clone());
        }
        if matches!(last, End::Done(Done::NotDue { .. })) {
            return Ok(());
        }
    }
    Err(format!("it does not come to rest: {last:?}"))
}

fn each(cases: &[Case]) {
    let mut wrong = Vec::new();
    for (case, change) in cases.iter().flat_map(|case| case.ends.iter().map(move |it| (case, it))) {
        if let Err(what) = judged(case, change) {
            wrong.push(format!("{}, {}: {what}", case.state, change.0));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_refusal_ends_as_its_hint_says_and_as_a_person_does_it_instead() {
    each(REFUSALS);
}

#[test]
fn each_wait_ends() {
    each(WAITS);
}

/// A new refusal or wait needs an end here too.
#[test]
fn every_refusal_and_every_wait_has_its_end() {
    let read = |path: &str| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file")
    };
    for (file, kind) in [("src/error/refusal.rs", "Refusal"), ("src/plan/step.rs", "Waiting")] {
        let source = read(file);
        let (_, body) = source.split_once(&format!("pub enum {kind} {{\n")).expect("the enum");
        let (body, _) = body.split_once("\n}").expect("its end");
        let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
        let variants = variants.filter(|line| line.starts_with(|it: char| it.is_ascii_uppercase()));
        for variant in variants.map(|line| line.split([',', ' ', '(']).next().unwrap_or_default()) {
            let here = REFUSALS.iter().chain(WAITS).any(|case| case.state == variant);
            let elsewhere = ELSEWHERE.iter().any(|(state, _)| *state == variant);
            assert!(here != elsewhere, "{kind}::{variant} needs a case here");
        }
    }
    for (state, test) in ELSEWHERE {
        let (file, name) = test.split_once(": ").expect("a file and a name");
        assert!(read(&format!("tests/{file}")).contains(name), "{state}: {test}");
    }
}
