//! What the committer promises to shards, step by step on a disk that fails, and with its thread.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod disk;
mod hearing;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use casemate_store::{
    recover, Answer, Audience, Committer, Core, Event, Keys, Log, Next, Pace, Refused, Submitter,
};
use disk::{keys, Chance, FaultyDisk};
use hearing::{begin, ms, pace, run, Notes, SMALL};

#[test]
fn what_was_gathered_is_one_commit_and_each_shard_is_woken_once() {
    let disk = FaultyDisk::default();
    let (mut core, mut shards) = begin(&disk, 3);
    let mut notes = Notes::default();
    for seq in 1..4 {
        shards[2].submit(seq, vec![2; 50]).unwrap();
        shards[0].submit(seq, vec![0; 50]).unwrap();
    }
    assert_eq!(run(&mut core, ms(0), &mut notes), Next::News);
    let expected = (1..4).flat_map(|seq| [(2, seq, true), (0, seq, true)]);
    assert!(notes.heard().into_iter().eq(expected));
    assert_eq!(notes.woken, [0, 2]);
    assert_eq!(core.into_log().next_number(), 2);
}

#[test]
fn a_commit_takes_no_part_that_would_make_it_too_large_unless_it_is_the_only_one() {
    let disk = FaultyDisk::default();
    let (mut core, mut shards) = begin(&disk, 1);
    let mut notes = Notes::default();
    // Of 2,048 bytes: two of 1,000 with 16 and 8 around each; then one that is larger by itself.
    for bytes in [1_000, 1_000, 1] {
        shards[0].submit(1, vec![0; bytes]).unwrap();
    }
    run(&mut core, ms(0), &mut notes);
    shards[0].submit(2, vec![0; 10_000]).unwrap();
    run(&mut core, ms(0), &mut notes);
    assert!(notes.heard().iter().all(|one| one.2));
    let mut commits = BTreeMap::new();
    recover(&disk, &Keys::none(), 1, |found| {
        commits
            .entry(found.number)
            .or_insert_with(Vec::new)
            .push(found.part.bytes.len());
    })
    .unwrap();
    let commits: Vec<_> = commits.into_values().collect();
    assert_eq!(commits, [vec![1_000, 1_000], vec![1], vec![10_000]]);
}

#[test]
fn a_shard_that_floods_is_held_back_alone_and_goes_on_after_its_answer() {
    let disk = FaultyDisk::default();
    let (mut core, mut shards) = begin(&disk, 2);
    let mut notes = Notes::default();
    let mut taken = 0;
    let refused = loop {
        match shards[0].submit(taken, vec![7; 100]) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, Refused::Busy(vec![7; 100]), "it comes back");
    assert_eq!(taken, 4_096 / (100 + 64));
    // Empty ones count too.
    let mut empty = 0;
    while shards[1].submit(empty, Vec::new()).is_ok() {
        empty += 1;
    }
    assert_eq!(empty, 4_096 / 64);
    run(&mut core, ms(0), &mut notes);
    assert_eq!(notes.heard().len() as u64, taken + empty);
    // One that is larger than the bound goes, but only alone.
    shards[0].submit(taken, vec![7; 10_000]).unwrap();
    assert!(matches!(
        shards[0].submit(taken + 1, vec![]),
        Err(Refused::Busy(_))
    ));
    run(&mut core, ms(0), &mut notes);
    shards[0].submit(taken + 1, vec![]).unwrap();
    assert!(matches!(
        shards[0].submit(taken + 2, vec![7; 10_000]),
        Err(Refused::Busy(_))
    ));
}

#[test]
fn buffers_come_back_as_they_were() {
    let disk = FaultyDisk::default();
    let (mut core, mut shards) = begin(&disk, 1);
    let mut notes = Notes::default();
    let mut buffer = Vec::with_capacity(1_000);
    buffer.extend_from_slice(b"kept");
    let place = buffer.as_ptr();
    for seq in 0..10 {
        shards[0].submit(seq, buffer).unwrap();
        if seq == 5 {
            disk.fail_syncs(9);
        }
        run(&mut core, ms(0), &mut notes);
        let answer = notes.answers.pop_front().unwrap();
        assert_eq!((answer.seq, &answer.bytes[..]), (seq, &b"kept"[..]));
        assert_eq!(answer.place.is_some(), seq < 5);
        buffer = answer.bytes;
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, 1_000));
    }
}

#[test]
fn a_full_disk_fails_everything_tells_it_once_and_is_used_again_when_there_is_room() {
    let disk = FaultyDisk::default();
    let (mut core, mut shards) = begin(&disk, 2);
    let mut notes = Notes::default();
    disk.set_room(Some(0));
    shards[0].submit(1, vec![0; 10]).unwrap();
    shards[1].submit(1, vec![0; 10]).unwrap();
    let mut next = run(&mut core, ms(0), &mut notes);
    assert_eq!(notes.heard(), [(0, 1, false), (1, 1, false)]);
    // The pause doubles up to its limit; what comes meanwhile is answered at once.
    for pause in [10, 20, 40, 80, 80] {
        let Next::At(time) = next else {
            panic!("{next:?}")
        };
        let before = time - ms(1);
        shards[0].go_on();
        shards[0].submit(2, vec![]).unwrap();
        assert_eq!(run(&mut core, before, &mut notes), next, "pause {pause}");
        assert_eq!(notes.heard(), [(0, 2, false)]);
        next = run(&mut core, time, &mut notes);
        let longer = ms((pause * 2).min(80));
        assert_eq!(next, Next::At(time + longer));
    }
    let Next::At(time) = next else {
        panic!("{next:?}")
    };
    // Too little room to begin with.
    disk.set_room(Some(8_191));
    let next = run(&mut core, time, &mut notes);
    assert!(matches!(next, Next::At(_)));
    disk.set_room(Some(8_192));
    assert_eq!(run(&mut core, time + ms(80), &mut notes), Next::News);
    match &notes.events[..] {
        [Event::Failing { fault }, Event::Recovered { parts: 7 }] => assert!(fault.is_full()),
        events => panic!("{events:?}"),
    }
    shards[0].go_on();
    shards[0].submit(3, vec![]).unwrap();
    run(&mut core, time + ms(81), &mut notes);
    assert_eq!(notes.heard(), [(0, 3, true)]);
}

#[test]
fn what_a_shard_submits_before_it_heard_of_its_failure_fails_too() {
    let disk = FaultyDisk::default();
    let (mut core, mut shards) = begin(&disk, 3);
    let mut notes = Notes::default();
    disk.fail_syncs(9);
    shards[0].submit(1, vec![]).unwrap();
    shards[1].submit(1, vec![]).unwrap();
    run(&mut core, ms(0), &mut notes);
    disk.fail_syncs(0);
    assert_eq!(run(&mut core, ms(10), &mut notes), Next::News);
    assert!(matches!(notes.events[1], Event::Recovered { parts: 2 }));
    notes.heard();
    // The disk works again; the first has not heard of it, the second has, the third lost nothing.
    shards[0].submit(2, vec![]).unwrap();
    shards[1].go_on();
    shards[1].submit(2, vec![]).unwrap();
    shards[2].submit(1, vec![]).unwrap();
    shards[0].go_on();
    shards[0].submit(3, vec![]).unwrap();
    run(&mut core, ms(11), &mut notes);
    let mut heard = notes.heard();
    heard.sort_unstable();
    assert_eq!(
        heard,
        [(0, 2, false), (0, 3, true), (1, 2, true), (2, 1, true)]
    );
}

#[test]
fn a_retired_segment_makes_room_and_the_disk_is_tried_at_once() {
    let disk = FaultyDisk::default();
    let (mut core, mut shards) = begin(&disk, 1);
    let mut notes = Notes::default();
    let orders = core.orders();
    for seq in 0..100 {
        shards[0].submit(seq, vec![0; 100]).unwrap();
        run(&mut core, ms(0), &mut notes);
    }
    let sealed = orders.sealed();
    assert!(sealed.len() > 2);
    disk.set_room(Some(0));
    shards[0].submit(100, vec![0; 4_000]).unwrap();
    assert_eq!(run(&mut core, ms(0), &mut notes), Next::At(ms(10)));
    notes.events.clear();
    disk.set_room(Some(100_000));
    orders.retire([sealed[0], 4_711]);
    assert_eq!(run(&mut core, ms(1), &mut notes), Next::News);
    match &notes.events[..] {
        [Event::Retired { segment }, Event::Recovered { parts: 1 }] => {
            assert_eq!(*segment, sealed[0]);
        }
        events => panic!("{events:?}"),
    }
}

#[test]
fn a_key_is_changed_between_two_commits() {
    let disk = FaultyDisk::default();
    let old = keys(1);
    let recovered = recover(&disk, &old, 1, |_| {}).unwrap();
    let (mut core, mut shards) = Core::new(Log::new(disk.clone(), SMALL, recovered), pace(1));
    let mut notes = Notes::default();
    shards[0].submit(1, vec![1]).unwrap();
    run(&mut core, ms(0), &mut notes);
    let new = casemate_store::Key::new(&[2; 32]).unwrap();
    core.orders().rotate(Some(new.clone()));
    shards[0].submit(2, vec![2]).unwrap();
    run(&mut core, ms(0), &mut notes);
    assert_eq!(notes.heard(), [(0, 1, true), (0, 2, true)]);
    assert!(recover(&disk, &old, 1, |_| {}).is_err());
    let mut found = Vec::new();
    recover(&disk, &old.and_former(new), 1, |one| {
        found.push(one.part.seq);
    })
    .unwrap();
    assert_eq!(found, [1, 2]);
}

#[test]
fn after_the_end_nothing_is_taken_and_what_was_taken_is_answered() {
    let disk = FaultyDisk::default();
    let (mut core, mut shards) = begin(&disk, 1);
    let mut notes = Notes::default();
    shards[0].submit(1, vec![0; 2_000]).unwrap();
    shards[0].submit(2, vec![0; 1_000]).unwrap();
    core.orders().close();
    assert_eq!(shards[0].submit(3, vec![3]), Err(Refused::Stopped(vec![3])));
    assert_eq!(run(&mut core, ms(0), &mut notes), Next::Ended);
    assert_eq!(notes.heard(), [(0, 1, true), (0, 2, true)]);
}

/// What a shard of the simulation has submitted: the number of each part, how often the shard had
/// heard of a failure, and what it was told.
#[derive(Default)]
struct Told {
    parts: Vec<(u64, u64, Option<bool>)>,
    epoch: u64,
}

/// Writes down what the shards were told.
fn hear(told: &mut [Told], notes: &mut Notes, seed: u64) {
    for answer in notes.answers.drain(..) {
        let parts = &mut told[usize::from(answer.shard)].parts;
        let open = parts.iter_mut().find(|one| one.2.is_none()).unwrap();
        assert_eq!(open.0, answer.seq, "seed {seed}: not in order");
        open.2 = Some(answer.place.is_some());
    }
}

/// One thing that a shard does.
fn act(shard: &mut Submitter, told: &mut Told, chance: &mut Chance) {
    let has_failed = told.parts.iter().any(|one| one.2 == Some(false));
    if has_failed && chance.one_in(4) {
        shard.go_on();
        told.epoch += 1;
        return;
    }
    let seq = told.parts.len() as u64;
    let bytes = vec![seq as u8; chance.below(500) as usize];
    if shard.submit(seq, bytes).is_ok() {
        told.parts.push((seq, told.epoch, None));
    }
}

/// Compares what one shard was told with what is found of it; parts that failed.
fn judge(told: &Told, found: &[u64], may_come_back: bool, seed: u64) -> usize {
    assert!(found.is_sorted_by(|a, b| a < b), "seed {seed}: {found:?}");
    let mut ended = None;
    for (seq, epoch, answer) in &told.parts {
        let is_found = found.contains(seq);
        match answer {
            Some(true) => assert!(is_found, "seed {seed}: {seq} was promised"),
            Some(false) if !may_come_back => assert!(!is_found, "seed {seed}: {seq} had failed"),
            _ => {}
        }
        if is_found {
            assert_ne!(ended, Some(*epoch), "seed {seed}: a gap before {seq}");
        } else {
            ended = Some(*epoch);
        }
    }
    let failed = told.parts.iter().filter(|one| one.2 == Some(false));
    failed.count()
}

/// Goal: answers come once and in order; what was called safe is found after a crash; and what is
/// found of a shard, between two failures that it has heard of, begins at the beginning and has no
/// gap. Method: by seed, shards that submit and hear late, a disk that fails, fills up and crashes.
#[test]
fn whatever_the_disk_does_shards_are_told_the_truth() {
    let mut failures = 0;
    for seed in 0..3_000 {
        let mut chance = Chance(seed);
        let disk = FaultyDisk::default();
        let recovered = recover(&disk, &Keys::none(), 1, |_| {}).unwrap();
        let pace = Pace {
            gather: ms(seed % 3),
            gather_bytes_min: 200,
            ..pace(3)
        };
        let (mut core, mut shards) = Core::new(Log::new(disk.clone(), SMALL, recovered), pace);
        let mut told: Vec<Told> = (0..3).map(|_| Told::default()).collect();
        let mut notes = Notes::default();
        let mut now = ms(0);
        for _ in 0..chance.below(200) {
            now += ms(chance.below(4));
            match chance.below(24) {
                0 => disk.fail_syncs(chance.below(5) as u32),
                1 => disk.set_room(Some(chance.below(20_000) as usize)),
                2..4 => disk.set_room(None),
                4..8 => {
                    core.step(now, &mut notes);
                }
                _ => {
                    let shard = chance.below(3) as usize;
                    act(&mut shards[shard], &mut told[shard], &mut chance);
                }
            }
            hear(&mut told, &mut notes, seed);
        }
        let may_come_back = matches!(core.step(now, &mut notes), Next::At(_));
        hear(&mut told, &mut notes, seed);
        drop(core);
        disk.set_room(None);
        disk.crash(&mut chance);
        let mut found: Vec<Vec<u64>> = vec![Vec::new(); 3];
        let recovered = recover(&disk, &Keys::none(), 1, |one| {
            let seq = one.part.seq;
            assert!(one.part.bytes.iter().all(|byte| *byte == seq as u8));
            found[usize::from(one.part.shard)].push(seq);
        });
        assert_eq!(recovered.unwrap().report.damage, [], "seed {seed}");
        for (told, found) in told.iter().zip(&found) {
            failures += judge(told, found, may_come_back, seed);
        }
    }
    assert!(failures > 1_000, "{failures}: the disk is too good");
}

/// Sends all answers to one channel, as a server's letters would go.
struct Letters(mpsc::Sender<Answer>);

impl Audience for Letters {
    fn answer(&mut self, answer: Answer) {
        assert_ne!(
            answer.seq,
            u64::MAX,
            "the audience panics when it is told to"
        );
        let _ = self.0.send(answer);
    }

    fn wake(&mut self, _: u16) {}

    fn tell(&mut self, event: Event) {
        panic!("{event:?}");
    }
}

/// A clock that stands still: nothing here waits for time to pass.
fn still() -> Duration {
    Duration::ZERO
}

/// Goal: with its thread, many shards at once, each as fast as it is let: everything is answered
/// safe, in each shard's order, and is on the disk. Method: four threads with small bounds, so that
/// they are held back all the time and go on by their answers alone.
#[test]
fn shards_on_threads_get_all_their_answers() {
    const PARTS: u64 = 2_000;
    let disk = FaultyDisk::default();
    let (core, shards) = begin(&disk, 4);
    let (sender, answers) = mpsc::channel();
    let committer = Committer::start(core, still, Letters(sender)).unwrap();
    let mut ways: Vec<mpsc::Sender<Answer>> = Vec::new();
    let mut threads = Vec::new();
    for mut shard in shards {
        let (way, own) = mpsc::channel::<Answer>();
        ways.push(way);
        threads.push(std::thread::spawn(move || {
            let mut heard = 0;
            let mut buffer = vec![1; 200];
            for seq in 0..PARTS {
                while let Err(refused) = shard.submit(seq, buffer) {
                    let Refused::Busy(back) = refused else {
                        panic!("{refused:?}");
                    };
                    buffer = back;
                    assert_eq!(own.recv().unwrap().seq, heard);
                    heard += 1;
                }
                buffer = vec![1; 200];
            }
            for answer in own {
                assert_eq!(answer.seq, heard);
                heard += 1;
                if heard == PARTS {
                    return;
                }
            }
        }));
    }
    for answer in answers.iter().take(4 * PARTS as usize) {
        assert!(answer.place.is_some());
        let _ = ways[usize::from(answer.shard)].send(answer);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    let log = committer.stop().unwrap();
    assert!(log.next_number() <= 4 * PARTS);
    let report = recover(&disk, &Keys::none(), 1, |_| {}).unwrap().report;
    assert_eq!(report.parts, 4 * PARTS);
}

#[test]
fn stopping_answers_all_that_was_taken() {
    let disk = FaultyDisk::default();
    let (core, mut shards) = begin(&disk, 1);
    let (sender, answers) = mpsc::channel();
    let committer = Committer::start(core, still, Letters(sender)).unwrap();
    for seq in 0..20 {
        shards[0].submit(seq, vec![0; 100]).unwrap();
    }
    committer.stop().unwrap();
    assert!(answers.iter().map(|one| one.seq).eq(0..20));
    assert!(matches!(
        shards[0].submit(20, vec![]),
        Err(Refused::Stopped(_))
    ));
}

#[test]
fn an_audience_that_panics_ends_the_committer_and_nobody_submits_into_the_void() {
    let disk = FaultyDisk::default();
    let (core, mut shards) = begin(&disk, 2);
    let (sender, answers) = mpsc::channel();
    let committer = Committer::start(core, still, Letters(sender)).unwrap();
    shards[0].submit(u64::MAX, vec![]).unwrap();
    // The sender goes with the thread.
    assert!(answers.recv().is_err());
    assert!(committer.stop().is_none());
    let outcome = shards[1].submit(1, vec![]);
    assert!(matches!(outcome, Err(Refused::Stopped(_))));
}
