//! Under load commits gather: when, how long, and who never waits.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod disk;
mod hearing;

use std::sync::mpsc;
use std::time::Duration;

use casemate_store::{
    recover, Answer, Audience, Committer, Core, Event, Keys, Log, Next, Pace, Submitter,
};
use disk::FaultyDisk;
use hearing::{ms, pace, run, Notes, SMALL};

/// A pace that gathers for 5 ms after a commit of 500 bytes.
fn gathering() -> Pace {
    Pace {
        gather: ms(5),
        gather_bytes_min: 500,
        ..pace(2)
    }
}

fn begin_gathering(disk: &FaultyDisk) -> (Core<FaultyDisk>, Vec<Submitter>) {
    let recovered = recover(disk, &Keys::none(), 1, |_| {}).unwrap();
    Core::new(Log::new(disk.clone(), SMALL, recovered), gathering())
}

#[test]
fn under_load_commits_gather_and_nobody_waits_longer_than_that() {
    let (mut core, mut shards) = begin_gathering(&FaultyDisk::default());
    let mut notes = Notes::default();
    // The first has nobody to wait for, however much it is.
    shards[0].submit(1, vec![0; 500]).unwrap();
    assert_eq!(run(&mut core, ms(10), &mut notes), Next::News);
    assert_eq!(notes.heard(), [(0, 1, true)]);
    // It carried much: what comes next waits for more, from when that one began.
    shards[0].submit(2, vec![0; 10]).unwrap();
    assert_eq!(run(&mut core, ms(11), &mut notes), Next::Later(ms(15)));
    shards[1].submit(1, vec![0; 10]).unwrap();
    assert_eq!(run(&mut core, ms(14), &mut notes), Next::Later(ms(15)));
    assert_eq!(notes.heard(), []);
    assert_eq!(run(&mut core, ms(15), &mut notes), Next::News);
    assert_eq!(notes.heard(), [(0, 2, true), (1, 1, true)]);
    // That one carried little: who comes now is alone again.
    shards[0].submit(3, vec![0; 10]).unwrap();
    assert_eq!(run(&mut core, ms(15), &mut notes), Next::News);
    assert_eq!(notes.heard(), [(0, 3, true)]);
    assert_eq!(core.into_log().next_number(), 4);
}

#[test]
fn what_came_while_the_disk_was_busy_gathers_too() {
    let (mut core, mut shards) = begin_gathering(&FaultyDisk::default());
    let mut notes = Notes::default();
    shards[0].submit(1, vec![0; 10]).unwrap();
    assert_eq!(core.step(ms(1), &mut notes), Next::News);
    shards[0].submit(2, vec![0; 300]).unwrap();
    shards[1].submit(1, vec![0; 300]).unwrap();
    assert_eq!(run(&mut core, ms(2), &mut notes), Next::Later(ms(6)));
    assert_eq!(run(&mut core, ms(6), &mut notes), Next::News);
    assert_eq!(notes.heard(), [(0, 1, true), (0, 2, true), (1, 1, true)]);
}

#[test]
fn little_at_a_time_and_a_full_commit_never_wait() {
    let (mut core, mut shards) = begin_gathering(&FaultyDisk::default());
    let mut notes = Notes::default();
    for seq in 1..20 {
        shards[0].submit(seq, vec![0; 400]).unwrap();
        assert_eq!(run(&mut core, ms(0), &mut notes), Next::News);
        assert_eq!(notes.heard(), [(0, seq, true)]);
    }
    // Of more than a commit holds, only the rest is worth a moment.
    for seq in 20..27 {
        shards[0].submit(seq, vec![0; 500]).unwrap();
    }
    assert_eq!(run(&mut core, ms(0), &mut notes), Next::Later(ms(5)));
    assert_eq!(notes.heard().len(), 6);
    assert_eq!(run(&mut core, ms(5), &mut notes), Next::News);
    assert_eq!(notes.heard(), [(0, 26, true)]);
}

#[test]
fn orders_a_failing_disk_and_the_end_do_not_wait_for_what_gathers() {
    let disk = FaultyDisk::default();
    let (mut core, mut shards) = begin_gathering(&disk);
    let mut notes = Notes::default();
    let orders = core.orders();
    shards[0].submit(1, vec![0; 600]).unwrap();
    run(&mut core, ms(0), &mut notes);
    shards[0].submit(2, vec![0; 600]).unwrap();
    assert_eq!(run(&mut core, ms(1), &mut notes), Next::Later(ms(5)));
    // An order is carried out, and what gathered with it.
    orders.rotate(None);
    assert_eq!(run(&mut core, ms(1), &mut notes), Next::News);
    assert_eq!(notes.heard(), [(0, 1, true), (0, 2, true)]);
    disk.fail_syncs(9);
    shards[0].submit(3, vec![0; 600]).unwrap();
    assert_eq!(run(&mut core, ms(6), &mut notes), Next::At(ms(16)));
    shards[1].submit(1, vec![0; 600]).unwrap();
    assert_eq!(run(&mut core, ms(7), &mut notes), Next::At(ms(16)));
    assert_eq!(notes.heard(), [(0, 3, false), (1, 1, false)]);
    disk.fail_syncs(0);
    assert_eq!(run(&mut core, ms(16), &mut notes), Next::News);
    shards.iter_mut().for_each(Submitter::go_on);
    shards[0].submit(4, vec![0; 600]).unwrap();
    run(&mut core, ms(17), &mut notes);
    shards[0].submit(5, vec![0; 600]).unwrap();
    assert_eq!(run(&mut core, ms(18), &mut notes), Next::Later(ms(22)));
    orders.close();
    assert_eq!(run(&mut core, ms(18), &mut notes), Next::Ended);
    assert_eq!(notes.heard(), [(0, 4, true), (0, 5, true)]);
}

/// Sends all answers to one channel.
struct Letters(mpsc::Sender<Answer>);

impl Audience for Letters {
    fn answer(&mut self, answer: Answer) {
        let _ = self.0.send(answer);
    }

    fn wake(&mut self, _: u16) {}

    fn tell(&mut self, event: Event) {
        panic!("{event:?}");
    }
}

/// Goal: with its thread, what gathers is written when the committer stops, and at once. Method: a
/// clock that stands still, so that what gathers would do so for an hour and then again.
#[test]
fn stopping_does_not_wait_for_what_gathers() {
    let disk = FaultyDisk::default();
    let recovered = recover(&disk, &Keys::none(), 1, |_| {}).unwrap();
    let pace = Pace {
        gather: Duration::from_secs(3_600),
        ..gathering()
    };
    let (core, mut shards) = Core::new(Log::new(disk.clone(), SMALL, recovered), pace);
    let (sender, answers) = mpsc::channel();
    let committer = Committer::start(core, || Duration::ZERO, Letters(sender)).unwrap();
    shards[0].submit(1, vec![0; 600]).unwrap();
    assert_eq!(answers.recv().unwrap().seq, 1);
    shards[0].submit(2, vec![0; 600]).unwrap();
    shards[1].submit(1, vec![0; 10]).unwrap();
    committer.stop().unwrap();
    assert!(answers
        .iter()
        .map(|one| (one.shard, one.seq))
        .eq([(0, 2), (1, 1)]));
}
