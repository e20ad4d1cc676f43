//! Records read as they were written, and what they amount to.

use casemate_codec::QoS;
use proptest::prelude::*;

use super::*;
use crate::outbox::{GroupRef, NO_GROUP};
use crate::wire::Reader;

fn draft() -> Draft<'static> {
    Draft {
        tenant: 7,
        topic: "a/é",
        properties: &[1, 1],
        payload: b"21.5",
        qos: QoS::ExactlyOnce,
        retain: true,
        expires_at: 5_000,
        publisher: 42,
        whole: Whole::NONE,
    }
}

fn entry(ids: Vec<u32>, group: GroupRef, whole: Whole) -> Record<'static> {
    Record::Entry(EntryLine {
        session: 64,
        entry: 2,
        message: 128,
        qos: QoS::AtLeastOnce,
        retain: true,
        is_launched: false,
        ids,
        group,
        whole,
    })
}

fn line(will: Option<WillLine<'static>>) -> SessionLine<'static> {
    SessionLine {
        number: 64,
        tenant: 7,
        realm: "account",
        name: "ann",
        client_id: "c",
        is_bound: true,
        roles: vec!["sensor", "console"],
        expiry_s: 3_600,
        will,
    }
}

/// One record of each kind, and of each form that a kind may have.
fn all() -> Vec<Record<'static>> {
    [of_sessions(), of_messages(), of_the_rest()].concat()
}

fn of_sessions() -> Vec<Record<'static>> {
    let session = 64;
    let will = WillLine {
        draft: draft(),
        delay_s: 5,
        expiry_s: Some(60),
    };
    let detached = |will_due_at| Record::Detached {
        session,
        expiry_s: 3_600,
        ends_at: 9_000,
        will_due_at,
    };
    vec![
        Record::Session(line(None)),
        Record::Session(line(Some(will.clone()))),
        Record::Session(line(Some(WillLine {
            expiry_s: None,
            ..will
        }))),
        detached(None),
        detached(Some(0)),
        detached(Some(6_000)),
        Record::Ended { session },
        Record::WillGone { session },
        Record::Subscribed(SubscriptionLine {
            session,
            filter: "$share/g/a/+",
            qos: QoS::AtLeastOnce,
            no_local: true,
            retain_as_published: true,
            id: 300,
        }),
        Record::Unsubscribed {
            session,
            filter: "a/#",
        },
    ]
}

fn of_messages() -> Vec<Record<'static>> {
    let (session, entry_number, position) = (64, 2, 1);
    let whole = Whole::new(2, 9);
    vec![
        Record::Message {
            number: 128,
            draft: draft(),
        },
        entry(Vec::new(), NO_GROUP, Whole::NONE),
        entry(vec![1, 268_435_455], GroupRef(3), whole),
        Record::Launched {
            session,
            entry: entry_number,
            qos: QoS::AtLeastOnce,
        },
        Record::Gone {
            session,
            entry: entry_number,
        },
        Record::Lowered { session, position },
        Record::Taken { session, position },
        Record::Done { session, position },
        Record::Position {
            session,
            next: 70_000,
        },
        Record::Whole(whole),
    ]
}

fn of_the_rest() -> Vec<Record<'static>> {
    let (session, group) = (64, GroupRef(3));
    vec![
        Record::Incoming {
            session,
            id: 65_535,
        },
        Record::Released {
            session,
            id: 65_535,
        },
        Record::Retained(draft()),
        Record::Forgotten {
            tenant: 7,
            topic: "a/é",
        },
        Record::Group {
            group,
            tenant: 7,
            name: "g",
            filter: "a/+",
        },
        Record::GroupGone { group },
        Record::Seeds([1, 2, 3, u64::MAX]),
    ]
}

fn batch(records: &[Record<'_>]) -> Vec<u8> {
    let mut batch = vec![FORMAT];
    records.iter().for_each(|record| record.write(&mut batch));
    batch
}

#[test]
fn every_record_reads_as_it_was_written() {
    let records = all();
    let batch = batch(&records);
    let mut reader = Reader::new(&batch[1..]);
    for record in records {
        assert_eq!(Record::read(&mut reader), Some(record));
    }
    assert!(reader.is_empty());
}

#[test]
fn records_that_failed_come_first_in_one_batch_and_its_buffer_is_used_again() {
    let mut journal = Journal::new(true, 0, 0);
    let ended = |session| Record::Ended { session };
    assert_eq!(
        journal.take(),
        [],
        "a turn without records has no format either"
    );
    journal.write(&ended(1));
    journal.write(&ended(2));
    let first = journal.take();
    assert_eq!(first, batch(&[ended(1), ended(2)]));
    journal.renew(&first);
    journal.write(&ended(3));
    assert_eq!(journal.take(), batch(&[ended(1), ended(2), ended(3)]));
    assert!(journal.is_empty());
    journal.renew(&batch(&[ended(4)]));
    assert_eq!(journal.take(), batch(&[ended(4)]), "alone as well");
    // A turn whose buffer was in use leaves with what was given back.
    let place = first.as_ptr();
    journal.reuse(first);
    journal.take();
    journal.write(&ended(5));
    let again = journal.take();
    assert_eq!((again.as_ptr(), &again), (place, &batch(&[ended(5)])));
    // Not without bound: neither many nor large ones are kept.
    journal.reuse(Vec::with_capacity(SPARE_BYTES_MAX + 1));
    assert!(journal.spare.is_empty());
    (0..9).for_each(|_| journal.reuse(Vec::with_capacity(8)));
    assert_eq!(journal.spare.len(), SPARE_MAX);
}

#[test]
fn a_record_that_is_cut_off_is_damage_and_says_where() {
    for record in all() {
        let whole = batch(&[Record::Ended { session: 1 }, record]);
        let first = batch(&[Record::Ended { session: 1 }]).len();
        for end in first + 1..whole.len() {
            let taken = Kept::new().take(&whole[..end]);
            assert_eq!(taken, Err(Damaged::Record { at: first }));
        }
        assert_eq!(Kept::new().take(&whole), Ok(()));
    }
}

#[test]
fn another_format_is_refused_with_its_number() {
    let fault = Damaged::Format { found: FORMAT + 1 };
    assert_eq!(Kept::new().take(&[FORMAT + 1, 0]), Err(fault));
    assert!(fault
        .to_string()
        .contains(&format!("format {}", FORMAT + 1)));
}

#[test]
fn a_kind_that_is_not_known_is_damage() {
    for kind in [0, 23, 255] {
        let taken = Kept::new().take(&[FORMAT, kind, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(taken, Err(Damaged::Record { at: 1 }));
    }
}

#[test]
fn records_about_what_is_not_there_are_counted_and_change_nothing() {
    let mut kept = Kept::new();
    let taken = kept.take(&batch(&[
        Record::Done {
            session: 64,
            position: 0,
        },
        entry(Vec::new(), NO_GROUP, Whole::NONE),
        Record::Ended { session: 64 },
    ]));
    assert_eq!(taken, Ok(()));
    assert_eq!(kept.lost(), 3);
    assert!(kept.is_empty());
}

#[test]
fn the_number_of_a_group_is_not_given_again_though_its_name_was_never_written_down() {
    for is_known in [true, false] {
        let mut kept = Kept::new();
        let mut records = vec![entry(Vec::new(), GroupRef::new(3, 5, 77), Whole::NONE)];
        if is_known {
            records.insert(0, Record::Session(line(None)));
        }
        assert_eq!(kept.take(&batch(&records)), Ok(()));
        assert_eq!(kept.group_serial, 77);
    }
}

#[test]
fn a_failed_batch_comes_again_before_what_followed_it() {
    let mut journal = Journal::new(true, 0, 0);
    let [first, second] = [1, 2].map(|session| Record::Ended { session });
    journal.write(&first);
    let failed = journal.take();
    assert!(journal.is_empty());
    journal.write(&second);
    journal.renew(&failed);
    assert_eq!(journal.take(), batch(&[first, second]));
    assert!(journal.take().is_empty());
}

#[test]
fn numbers_are_given_once_among_all_shards_and_starts() {
    let mut numbers = Vec::new();
    let mut last = 0;
    for _start in 0..3 {
        let mut shards: Vec<_> = (0..64)
            .map(|index| Journal::new(true, index, last))
            .collect();
        let given = shards.iter_mut().flat_map(|it| [it.number(), it.number()]);
        numbers.extend(given);
        last = numbers.iter().map(|number| number >> 6).max().unwrap_or(0);
    }
    numbers.sort_unstable();
    let count = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
}

proptest! {
    /// Goal: nothing that stands on a disk makes a start panic. Method: any bytes, and records with
    /// any byte changed.
    #[test]
    fn any_bytes_are_taken_in_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        place in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut kept = Kept::new();
        let _ = kept.take(&bytes);
        let mut changed = batch(&all());
        *place.get_mut(&mut changed) = value;
        let _ = kept.take(&changed);
        kept.finish();
    }
}
