//! Every way a reload can go.

use super::*;

struct Bench {
    machine: Machine,
    now_ms: u64,
}

impl Bench {
    fn new() -> Bench {
        Bench {
            machine: Machine::default(),
            now_ms: 1_000,
        }
    }

    /// Applies the event; what is to be done, without messages.
    fn on(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle(event, self.now_ms);
        std::iter::from_fn(|| self.machine.poll())
            .filter(|a| !matches!(a, Action::Say { .. }))
            .collect()
    }

    /// Worker `id` comes up as process `100 + id` and is ready.
    fn comes_up(&mut self, id: Id) -> Vec<Action> {
        self.on(Event::Spawned { id, pid: 100 + id });
        self.on(Event::Ready { id, max_reloads: 2 })
    }

    fn dies(&mut self, id: Id) -> Vec<Action> {
        let pid = 100 + id;
        self.on(Event::Exited {
            pid,
            status: Status::Signal(9),
        })
    }

    /// A bench whose worker 0 serves.
    fn served() -> Bench {
        let mut b = Bench::new();
        assert_eq!(b.on(Event::Start), [Action::Spawn { id: 0 }]);
        assert_eq!(b.comes_up(0), [Action::Go { id: 0 }]);
        assert_eq!(
            b.on(Event::Serving { id: 0 }),
            [Action::Adopt { id: 0 }, Action::Started]
        );
        b
    }

    /// A reload that goes well, from worker `old` to `new`.
    fn reloads(&mut self, old: Id, new: Id) -> Vec<Action> {
        let begun = self.on(Event::Reload { hard: false });
        assert_eq!(begun, [Action::Reloading, Action::Spawn { id: new }]);
        assert_eq!(self.comes_up(new), [Action::Hold { id: old }]);
        assert_eq!(self.on(Event::Held { id: old }), [Action::Go { id: new }]);
        let mut done = self.on(Event::Serving { id: new });
        assert!(!done.iter().any(|a| matches!(a, Action::Reloaded { .. })));
        done.extend(self.on(Event::Closed { id: old }));
        done
    }
}

fn failed(actions: &[Action]) -> bool {
    let failure = |a: &Action| {
        matches!(
            a,
            Action::Reloaded {
                outcome: Err(_),
                ..
            }
        )
    };
    actions.iter().any(failure)
}

#[test]
fn a_reload_goes_step_by_step() {
    let mut b = Bench::served();
    assert_eq!(
        b.reloads(0, 1),
        [
            Action::Adopt { id: 1 },
            Action::Drain { id: 0 },
            Action::Reloaded {
                number: 1,
                outcome: Ok(())
            }
        ]
    );
    assert_eq!(b.machine.current().map(|w| w.id), Some(1));
    assert_eq!(b.machine.workers[0].reloads, 1);
    let ended = Event::Exited {
        pid: 100,
        status: Status::Exit(0),
    };
    assert_eq!(b.on(ended), []);
    assert!(b.machine.is_calm());
}

#[test]
fn a_failure_at_any_step_leads_back_to_the_old_worker() {
    for steps in 0..4 {
        let mut b = Bench::served();
        b.on(Event::Reload { hard: false });
        b.on(Event::Spawned { id: 1, pid: 101 });
        let ready = Event::Ready {
            id: 1,
            max_reloads: 9,
        };
        for event in [ready, Event::Held { id: 0 }].into_iter().take(steps) {
            b.on(event);
        }
        if steps == 3 {
            // Not by its end, but by its silence.
            b.now_ms = b.machine.deadline().unwrap();
            let kill = Action::Kill {
                id: 1,
                signal: Signal::Kill,
            };
            assert_eq!(b.on(Event::Tick), [kill]);
        }
        let done = b.dies(1);
        assert!(failed(&done), "{steps}: {done:?}");
        assert_eq!(
            done.contains(&Action::Resume { id: 0 }),
            steps > 0,
            "{steps}: {done:?}"
        );
        assert_eq!(b.machine.in_phase(Phase::Serving), Some(0));
        assert_eq!((b.machine.counts.reloads, b.machine.counts.failed), (1, 1));
        assert!(b.machine.counts.last_failed);
        // The next one works, and is not confused by the last one's.
        b.reloads(0, 2);
        assert!(!b.machine.counts.last_failed);
    }
}

#[test]
fn the_first_worker_must_come_up() {
    let mut b = Bench::new();
    b.on(Event::Start);
    b.on(Event::Spawned { id: 0, pid: 100 });
    let ended = Event::Exited {
        pid: 100,
        status: Status::Exit(0),
    };
    assert!(b.on(ended).contains(&Action::Exit { code: 1 }));
}

#[test]
fn a_crashed_worker_is_replaced_ever_later() {
    let mut b = Bench::served();
    assert_eq!(b.dies(0), [Action::Spawn { id: 1 }]);
    let mut pauses = Vec::new();
    for id in 1..12 {
        assert_eq!(b.comes_up(id), [Action::Go { id }]);
        b.on(Event::Serving { id });
        assert_eq!(b.dies(id), []);
        pauses.push(b.machine.deadline().unwrap() - b.now_ms);
        b.now_ms += pauses.last().unwrap();
        assert_eq!(b.on(Event::Tick), [Action::Spawn { id: id + 1 }]);
    }
    assert_eq!(pauses[..4], [100, 200, 400, 800]);
    assert_eq!(pauses.last(), Some(&BACKOFF_MAX_MS));
    // One that served for a while is replaced at once.
    b.comes_up(12);
    b.on(Event::Serving { id: 12 });
    b.now_ms += GOOD_RECORD_MS;
    assert_eq!(b.dies(12), [Action::Spawn { id: 13 }]);
}

#[test]
fn the_old_worker_dies_during_a_reload() {
    // Before the new one is ready: it goes as soon as it is.
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    assert_eq!(b.dies(0), []);
    assert_eq!(b.comes_up(1), [Action::Go { id: 1 }]);
    // While it is asked to hold: nobody is left to wait for.
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    b.comes_up(1);
    assert_eq!(b.dies(0), [Action::Go { id: 1 }]);
    // Both die: another one is started.
    let done = b.dies(1);
    assert!(
        failed(&done) && done.contains(&Action::Spawn { id: 2 }),
        "{done:?}"
    );
}

#[test]
fn an_old_worker_that_hangs_does_not_stop_a_reload() {
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    b.comes_up(1);
    b.now_ms += HOLD_PATIENCE_MS;
    assert_eq!(b.on(Event::Tick), [Action::Go { id: 1 }]);
    assert!(
        b.on(Event::Serving { id: 1 })
            .contains(&Action::Drain { id: 0 })
    );
    // Its late answer changes nothing.
    assert_eq!(b.on(Event::Held { id: 0 }), []);
}

#[test]
fn a_new_worker_that_is_stopped_is_given_up() {
    let stopped = |pid| Event::Stopped { pid, signal: 19 };
    for steps in 0..3 {
        let mut b = Bench::served();
        b.on(Event::Reload { hard: false });
        b.on(Event::Spawned { id: 1, pid: 101 });
        let ready = Event::Ready {
            id: 1,
            max_reloads: 9,
        };
        for event in [ready, Event::Held { id: 0 }].into_iter().take(steps) {
            b.on(event);
        }
        // One that goes on is not given up, whoever else is stopped.
        assert_eq!(b.on(stopped(101)), []);
        assert_eq!(b.on(stopped(100)), []);
        assert_eq!(b.on(Event::Continued { pid: 101 }), []);
        let later = b.now_ms + STOPPED_PATIENCE_MS;
        assert!(b.machine.stopped.is_none());
        assert_eq!(b.on(stopped(101)), []);
        // Asked for meanwhile: it begins once the one that hangs has gone.
        b.on(Event::Reload { hard: false });
        while b.machine.deadline().is_some_and(|at| at < later) {
            b.now_ms = b.machine.deadline().unwrap();
            b.on(Event::Tick);
        }
        assert_eq!(b.machine.deadline(), Some(later));
        b.now_ms = later;
        let kill = Action::Kill {
            id: 1,
            signal: Signal::Kill,
        };
        assert_eq!(b.on(Event::Tick), [kill], "{steps}");
        let done = b.dies(1);
        let (number, why) = done.iter().find_map(why_failed).expect("a failure");
        assert_eq!(number, 1);
        assert!(
            why.contains("(101) was stopped by signal 19 for 5 s"),
            "{why}"
        );
        let next = [Action::Reloading, Action::Spawn { id: 2 }];
        assert!(done.ends_with(&next), "{done:?}");
        assert_eq!(b.comes_up(2), [Action::Hold { id: 0 }]);
    }
}

/// Once it may accept, it may have served: nothing but its own end, or somebody who knows what that costs, leads back.
#[test]
fn a_worker_that_may_have_served_is_not_given_up() {
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    b.comes_up(1);
    assert_eq!(b.on(Event::Held { id: 0 }), [Action::Go { id: 1 }]);
    assert_eq!(b.on(Event::Opens { id: 1 }), [Action::Open { id: 1 }]);
    assert_eq!(b.on(Event::Opens { id: 1 }), [], "once");
    let stopped = Event::Stopped {
        pid: 101,
        signal: 19,
    };
    assert_eq!(b.on(stopped), []);
    b.now_ms += OPEN_PATIENCE_MS;
    assert_eq!(b.machine.deadline(), Some(b.now_ms));
    assert_eq!(b.on(Event::Tick), []);
    b.now_ms += GO_PATIENCE_MS + STOPPED_PATIENCE_MS;
    assert_eq!(b.on(Event::Tick), []);
    assert_eq!(b.on(Event::Reload { hard: false }), []);
    let mut patient = b.on(Event::Serving { id: 1 });
    assert!(patient.contains(&Action::Drain { id: 0 }));
    patient.extend(b.on(Event::Closed { id: 0 }));
    assert!(patient.ends_with(&[Action::Reloading, Action::Spawn { id: 2 }]));
    // The next one is late, too, and this time somebody does not wait.
    b.comes_up(2);
    b.on(Event::Held { id: 1 });
    b.on(Event::Opens { id: 2 });
    assert_eq!(b.on(Event::Reload { hard: true }), [], "it is not late yet");
    b.now_ms += OPEN_PATIENCE_MS;
    b.on(Event::Tick);
    let kill = Action::Kill {
        id: 2,
        signal: Signal::Kill,
    };
    assert_eq!(b.on(Event::Reload { hard: true }), [kill]);
    assert!(b.dies(2).contains(&Action::Resume { id: 1 }));
}

/// Before that it has counted nothing.
#[test]
fn a_worker_that_lacks_something_for_too_long_is_given_up() {
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    b.comes_up(1);
    b.on(Event::Held { id: 0 });
    b.now_ms += GO_PATIENCE_MS;
    let kill = Action::Kill {
        id: 1,
        signal: Signal::Kill,
    };
    assert_eq!(b.on(Event::Tick), [kill]);
    assert_eq!(b.on(Event::Opens { id: 1 }), [], "too late");
    let done = b.dies(1);
    assert!(done.contains(&Action::Resume { id: 0 }) && failed(&done));
}

/// A soft stop lets it finish what it serves.
#[test]
fn a_soft_stop_reaches_a_worker_that_may_have_served() {
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    b.comes_up(1);
    b.on(Event::Held { id: 0 });
    b.on(Event::Opens { id: 1 });
    let signal = Signal::Usr1;
    let done = b.on(Event::SoftStop);
    assert!(done.contains(&Action::Kill { id: 1, signal }), "{done:?}");
    assert!(done.contains(&Action::Kill { id: 0, signal }), "{done:?}");
    let served = b.on(Event::Serving { id: 1 });
    assert!(served.contains(&Action::Drain { id: 0 }), "{served:?}");
}

/// Whoever drains has no doors to close or to open.
#[test]
fn pauses_are_for_whoever_serves() {
    let mut b = Bench::served();
    b.reloads(0, 1);
    for signal in [Signal::Ttou, Signal::Ttin] {
        let done = b.on(Event::PassOn(signal));
        assert_eq!(done, [Action::Kill { id: 1, signal }]);
    }
}

fn why_failed(action: &Action) -> Option<(u32, String)> {
    match action {
        Action::Reloaded {
            number,
            outcome: Err(why),
        } => Some((*number, why.clone())),
        _ => None,
    }
}

#[test]
fn a_reload_during_a_reload_comes_after_it() {
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    assert_eq!(b.machine.reload_number(), 1);
    assert_eq!(b.on(Event::Reload { hard: false }), []);
    assert_eq!(b.on(Event::Reload { hard: true }), []);
    assert_eq!(b.machine.reload_number(), 2);
    b.comes_up(1);
    b.on(Event::Held { id: 0 });
    b.on(Event::Serving { id: 1 });
    let done = b.on(Event::Closed { id: 0 });
    assert!(
        done.ends_with(&[Action::Reloading, Action::Spawn { id: 2 }]),
        "{done:?}"
    );
    b.comes_up(2);
    b.on(Event::Held { id: 1 });
    let done = b.on(Event::Serving { id: 2 });
    let both = [Action::Drain { id: 1 }, Action::Cut { id: 1 }];
    assert!(
        done.windows(2).any(|two| two == both),
        "the hard one wins: {done:?}"
    );
    b.on(Event::Closed { id: 1 });
    // It is killed if it does not end.
    b.now_ms = b.machine.deadline().unwrap();
    let kill = Action::Kill {
        id: 1,
        signal: Signal::Kill,
    };
    assert_eq!(b.on(Event::Tick), [kill]);
    assert_eq!(b.machine.deadline(), None);
}

#[test]
fn workers_survive_so_many_reloads() {
    let mut b = Bench::served();
    b.reloads(0, 1);
    b.reloads(1, 2);
    let done = b.reloads(2, 3);
    assert!(done.contains(&Action::Cut { id: 0 }), "{done:?}");
    b.dies(0);
    assert_eq!(b.machine.deadline(), None, "it has ended");
}

#[test]
fn stopping() {
    let kill = |signal| Action::Kill { id: 0, signal };
    for (event, signal, code) in [
        (Event::Term, Signal::Term, 0),
        (Event::Int, Signal::Term, 130),
        (Event::SoftStop, Signal::Usr1, 0),
    ] {
        let mut b = Bench::served();
        let done = b.on(event);
        assert!(done.contains(&kill(signal)), "{done:?}");
        assert!(done.contains(&Action::CloseDuplicates));
        assert!(failed(&b.on(Event::Reload { hard: false })));
        let ended = Event::Exited {
            pid: 100,
            status: Status::Exit(143),
        };
        assert_eq!(b.on(ended), [Action::Exit { code }]);
    }
    // A hard stop cuts a soft one short, during a reload, too.
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    b.on(Event::Spawned { id: 1, pid: 101 });
    let done = b.on(Event::SoftStop);
    let gone = Action::Kill {
        id: 1,
        signal: Signal::Term,
    };
    assert!(
        done.contains(&gone) && done.contains(&kill(Signal::Usr1)),
        "{done:?}"
    );
    assert!(b.on(Event::Term).contains(&kill(Signal::Term)));
    assert_eq!(b.dies(1), []);
    assert_eq!(b.dies(0), [Action::Exit { code: 0 }]);
}

#[test]
fn a_reload_is_over_when_the_old_worker_listens_no_more() {
    let over = |done: &[Action]| {
        let fine = Action::Reloaded {
            number: 1,
            outcome: Ok(()),
        };
        done.contains(&fine)
    };
    for how in 0..4 {
        let mut b = Bench::served();
        b.on(Event::Reload { hard: false });
        b.comes_up(1);
        b.on(Event::Held { id: 0 });
        assert!(!over(&b.on(Event::Serving { id: 1 })));
        assert!(!b.machine.is_calm());
        assert_eq!(
            b.on(Event::Reload { hard: false }),
            [],
            "the next one waits"
        );
        let done = match how {
            0 => b.on(Event::Closed { id: 0 }),
            1 => {
                b.now_ms = b.machine.deadline().unwrap();
                b.on(Event::Tick)
            }
            2 => b.dies(0),
            _ => b.dies(1),
        };
        assert!(over(&done), "{how}: {done:?}");
        assert!(done.contains(&Action::Spawn { id: 2 }), "{how}: {done:?}");
        assert_eq!(b.on(Event::Closed { id: 0 }), [], "late");
    }
}

/// The old worker has sealed its tables, and would wait for ever for the outcome.
#[test]
fn a_soft_stop_in_the_last_step_of_a_reload_frees_the_old_worker() {
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    b.comes_up(1);
    b.on(Event::Held { id: 0 });
    let done = b.on(Event::SoftStop);
    let gone = Action::Kill {
        id: 1,
        signal: Signal::Term,
    };
    assert!(done.contains(&gone), "{done:?}");
    assert_eq!(b.dies(1), [Action::Resume { id: 0 }]);
    assert_eq!(b.dies(0), [Action::Exit { code: 0 }]);
}

#[test]
fn whoever_does_not_end_is_killed() {
    let kill = |id, signal| Action::Kill { id, signal };
    for again in [false, true] {
        let mut b = Bench::served();
        b.reloads(0, 1);
        let both = [kill(0, Signal::Term), kill(1, Signal::Term)];
        let done = b.on(Event::Term);
        assert!(both.iter().all(|action| done.contains(action)), "{done:?}");
        // The same once more: a group of processes was meant.
        let done = b.on(Event::Term);
        assert!(!done.contains(&kill(1, Signal::Kill)), "{done:?}");
        b.dies(0);
        let done = if again {
            b.now_ms += STOP_AGAIN_MS;
            b.on(Event::Int)
        } else {
            b.now_ms = b.machine.deadline().unwrap();
            b.on(Event::Tick)
        };
        assert_eq!(done, [kill(1, Signal::Kill)]);
        assert_eq!(b.on(Event::Tick), [], "once");
        assert_eq!(b.dies(1), [Action::Exit { code: 0 }]);
    }
}

#[test]
fn a_worker_that_left_is_not_replaced() {
    let mut b = Bench::served();
    assert!(
        b.on(Event::Left { id: 0 })
            .contains(&Action::CloseDuplicates)
    );
    assert!(failed(&b.on(Event::Reload { hard: false })));
    let ended = Event::Exited {
        pid: 100,
        status: Status::Exit(0),
    };
    assert_eq!(b.on(ended), [], "it stays until it is told to end");
    assert!(b.on(Event::SoftStop).contains(&Action::Exit { code: 0 }));
}

#[test]
fn a_worker_that_comes_back_is_one_as_before() {
    let mut b = Bench::served();
    b.on(Event::Left { id: 0 });
    b.on(Event::Back { id: 0 });
    assert!(b.machine.is_calm());
    assert!(
        b.on(Event::Reload { hard: false })
            .contains(&Action::Reloading)
    );
    let mut b = Bench::served();
    b.on(Event::Left { id: 0 });
    b.on(Event::Back { id: 0 });
    let done = b.on(Event::Exited {
        pid: 100,
        status: Status::Signal(9),
    });
    assert!(done.contains(&Action::Spawn { id: 1 }), "{done:?}");
}

#[test]
fn a_first_worker_that_dies_while_it_takes_over_is_replaced() {
    for (sure, status, replaced) in [
        (None, Status::Signal(9), false),
        (Some(false), Status::Exit(1), false),
        (Some(false), Status::Signal(9), true),
        (Some(true), Status::Exit(1), true),
    ] {
        let mut b = Bench::new();
        b.on(Event::Start);
        assert_eq!(b.comes_up(0), [Action::Go { id: 0 }]);
        if let Some(sure) = sure {
            b.on(Event::Taking { id: 0, sure });
        }
        let ended = b.on(Event::Exited { pid: 100, status });
        assert_eq!(
            !ended.iter().any(|a| matches!(a, Action::Exit { .. })),
            replaced
        );
        assert_eq!(b.machine.is_first(), sure != Some(true));
        if sure == Some(false) && replaced {
            b.on(Event::Taken);
            assert!(!b.machine.is_first());
        }
        b.now_ms += 1_000;
        assert_eq!(
            b.on(Event::Tick).contains(&Action::Spawn { id: 1 }),
            replaced
        );
    }
}

#[test]
fn a_program_that_cannot_be_executed_fails_the_reload() {
    let mut b = Bench::served();
    b.on(Event::Reload { hard: false });
    let why = String::from("no such file");
    assert!(failed(&b.on(Event::NotSpawned { id: 1, why })));
    assert!(b.machine.is_calm());
}
