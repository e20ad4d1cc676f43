//! Programs of this process as clients: in batches, under the same policy and limits as everybody.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use casemate_codec::{QoS, Reason};
use casemate_engine::Settings;
use casemate_server::{Draft, Insider, Link, LinkError, Options};
use peer::{plain_options, House, Peer, Wire, PATIENCE};

/// What a test gets to hear: topic, payload, QoS.
type Heard = Vec<(String, Vec<u8>, QoS)>;

fn insider(name: &str, role: &str) -> Insider {
    Insider {
        name: name.into(),
        roles: vec![role.into()],
    }
}

fn draft<'a>(topic: &'a str, payload: &'a [u8], qos: QoS) -> Draft<'a> {
    Draft {
        topic,
        payload,
        qos,
        retain: false,
    }
}

/// Takes messages until there are so many.
fn hear(link: &mut Link, count: usize) -> Heard {
    let mut heard = Heard::new();
    while heard.len() < count {
        assert!(
            link.wait(PATIENCE).unwrap(),
            "{} of {count} came",
            heard.len()
        );
        link.take(256, |publish| {
            let topic = publish.topic.to_owned();
            heard.push((topic, publish.payload.to_vec(), publish.qos));
            Ok::<(), LinkError>(())
        })
        .unwrap();
    }
    heard
}

/// Goal: batches arrive whole and in order at every QoS, whatever shard the two ends are in.
#[test]
fn batches_arrive_whole_and_in_order() {
    for shards in [1, 2, 4] {
        let house = House::open(plain_options(shards));
        let mut reader = house.server.enter(insider("reader", "all")).unwrap();
        let mut writer = house.server.enter(insider("writer", "all")).unwrap();
        for (qos, code) in [
            (QoS::AtMostOnce, Reason::Success),
            (QoS::AtLeastOnce, Reason::GrantedQoS1),
            (QoS::ExactlyOnce, Reason::GrantedQoS2),
        ] {
            let filter = format!("lab/{}/#", qos as u8);
            assert_eq!(reader.subscribe(&[(&filter, qos)]).unwrap(), [code]);
            let topic = format!("lab/{}/t", qos as u8);
            // More than may be unacknowledged at a time, and more than one write.
            let payloads: Vec<Vec<u8>> =
                (0..3_000_u32).map(|n| n.to_be_bytes().repeat(40)).collect();
            let drafts: Vec<Draft<'_>> = payloads
                .iter()
                .map(|payload| draft(&topic, payload, qos))
                .collect();
            let hearing = thread::scope(|scope| {
                let hearing = scope.spawn(|| hear(&mut reader, payloads.len()));
                assert_eq!(writer.publish(&drafts).unwrap(), []);
                hearing.join().unwrap()
            });
            for (sent, (topic_heard, heard, qos_heard)) in payloads.iter().zip(&hearing) {
                assert_eq!((topic_heard, qos_heard), (&topic, &qos));
                assert_eq!(sent, heard);
            }
        }
    }
}

#[test]
fn programs_and_devices_hear_each_other() {
    let house = House::open(plain_options(2));
    let mut device = Peer::login(Wire::plain(house.address("plain")), "device");
    let mut program = house.server.enter(insider("program", "all")).unwrap();
    device.subscribe("to/device", QoS::AtLeastOnce);
    program
        .subscribe(&[("to/program", QoS::AtLeastOnce)])
        .unwrap();
    program
        .publish(&[draft("to/device", b"hello", QoS::AtLeastOnce)])
        .unwrap();
    assert_eq!(device.message(), b"hello");
    device.publish_and_wait("to/program", b"answer");
    assert_eq!(hear(&mut program, 1)[0].1, b"answer");
}

/// Goal: being inside is no way around the policy. Method: a role that may nothing.
#[test]
fn a_role_without_rights_gets_none_inside() {
    let house = House::open(plain_options(1));
    let mut stranger = house.server.enter(insider("stranger", "nobody")).unwrap();
    let codes = stranger.subscribe(&[("lab/#", QoS::AtMostOnce)]).unwrap();
    assert_eq!(codes, [Reason::NotAuthorized]);
    let drafts = [
        draft("lab/a", b"x", QoS::AtMostOnce),
        draft("lab/a", b"x", QoS::AtLeastOnce),
        draft("lab/a", b"x", QoS::ExactlyOnce),
    ];
    let refused = stranger.publish(&drafts).unwrap();
    assert_eq!(
        refused,
        [(1, Reason::NotAuthorized), (2, Reason::NotAuthorized)]
    );
}

#[test]
fn what_cannot_be_said_is_found_before_anything_is_sent() {
    let settings = Settings {
        packet_bytes_max: 1_024,
        ..Settings::default()
    };
    let house = House::open(Options {
        settings,
        ..plain_options(1)
    });
    let mut reader = house.server.enter(insider("reader", "all")).unwrap();
    reader.subscribe(&[("lab/#", QoS::AtMostOnce)]).unwrap();
    let mut writer = house.server.enter(insider("writer", "all")).unwrap();
    let large = [7; 1_024];
    for wrong in [
        draft("lab/#", b"x", QoS::AtMostOnce),
        draft("", b"x", QoS::AtMostOnce),
        draft("lab/\0", b"x", QoS::AtMostOnce),
        draft("lab/a", &large, QoS::AtMostOnce),
    ] {
        let drafts = [draft("lab/a", b"before", QoS::AtMostOnce), wrong];
        let outcome = writer.publish(&drafts);
        assert!(
            matches!(outcome, Err(LinkError::Unsayable(_))),
            "{outcome:?}"
        );
    }
    let outcome = reader.subscribe(&[("lab/#/more", QoS::AtMostOnce)]);
    assert!(matches!(outcome, Err(LinkError::Unsayable(_))));
    writer
        .publish(&[draft("lab/a", b"after", QoS::AtMostOnce)])
        .unwrap();
    assert_eq!(hear(&mut reader, 1)[0].1, b"after", "nothing else had left");
}

/// Goal: a message that was given and not taken comes again. Method: a session's second link, as
/// an acknowledgement leaves with the next call only.
#[test]
fn a_second_link_of_the_same_name_takes_the_place_of_the_first() {
    let house = House::open(plain_options(1));
    let mut first = house.server.enter(insider("same", "all")).unwrap();
    let _second = house.server.enter(insider("same", "all")).unwrap();
    let outcome = loop {
        match first.wait(PATIENCE) {
            Ok(_) => {}
            Err(error) => break error,
        }
        if let Err(error) = first.take(1, |_| Ok::<(), LinkError>(())) {
            break error;
        }
    };
    assert!(
        matches!(outcome, LinkError::Ended(Reason::SessionTakenOver)),
        "{outcome:?}"
    );
}

#[test]
fn a_call_that_waits_ends_when_its_socket_is_shut_down() {
    let house = House::open(plain_options(1));
    let mut link = house.server.enter(insider("waiting", "all")).unwrap();
    let ender = link.ender().unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| link.wait(Duration::from_secs(3600)));
        ender.shutdown(Shutdown::Both).unwrap();
        assert!(matches!(waiting.join().unwrap(), Err(LinkError::Gone(_))));
    });
}

#[test]
fn nobody_comes_in_when_the_server_is_full_or_has_ended() {
    let settings = Settings {
        connections_max: 2,
        ..Settings::default()
    };
    let house = House::open(Options {
        settings,
        ..plain_options(1)
    });
    let _links = ["a", "b"].map(|name| house.server.enter(insider(name, "all")).unwrap());
    assert!(house.server.enter(insider("c", "all")).is_err());
    house.server.stop(PATIENCE);
    assert!(house.server.enter(insider("d", "all")).is_err());
}
