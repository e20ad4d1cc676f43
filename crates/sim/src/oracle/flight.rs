//! Flights: packet identifier and DUP of what comes again, and of what must not seem to.

use casemate_codec::QoS;

use super::session::Flight;
use super::{Delivery, Message, Oracle};
use crate::history::{ensure, Violation};
use crate::shell::Link;

impl Oracle {
    /// Packet id and DUP must follow the rules of redelivery; says whether the copy is a new one.
    pub(super) fn check_flight(
        &self,
        links: &[Link],
        message: &Message,
        replays: u32,
        delivery: &Delivery,
    ) -> Result<bool, Violation> {
        let session = &self.sessions[delivery.client];
        let (client, serial) = (delivery.client, message.serial);
        let known = delivery
            .packet_id
            .and_then(|packet_id| Some((packet_id, session.flights.get(&packet_id)?)));
        let Some((packet_id, flight)) = known else {
            return Ok(true);
        };
        if flight.link == delivery.link {
            ensure!(
                flight.answered,
                Window,
                "client {client} got message {serial} under the packet id {packet_id} in use by {}",
                flight.serial
            );
            return Ok(true);
        }
        if may_be_unknown(links, flight, delivery) {
            return Ok(!delivery.dup || flight.serial != serial);
        }
        if delivery.dup {
            ensure!(
                flight.serial == serial || flight.answered || is_excused(&self.messages, flight),
                Window,
                "client {client} got message {serial} again under the packet id {packet_id} of {}",
                flight.serial
            );
            return Ok(flight.serial != serial);
        }
        let redelivered = flight.serial == serial && message.causes() == 1 && replays == 0;
        ensure!(
            !redelivered,
            Protocol,
            "client {client} got message {serial} again without DUP"
        );
        ensure!(
            flight.answered || is_excused(&self.messages, flight),
            Window,
            "client {client} has not answered message {} under the packet id {packet_id} of \
             {serial}",
            flight.serial
        );
        Ok(true)
    }
}

/// A process that dies may take with it what it knew of an exchange of QoS 1.
fn may_be_unknown(links: &[Link], flight: &Flight, delivery: &Delivery) -> bool {
    let process = |link: usize| links[link].process;
    flight.qos == QoS::AtLeastOnce && process(flight.link) < process(delivery.link)
}

/// A message in flight may vanish where it expired or where nobody can tell.
fn is_excused(messages: &[Message], flight: &Flight) -> bool {
    let place = (flight.serial as usize).wrapping_sub(1);
    messages
        .get(place)
        .is_none_or(|message| message.expiry_s.is_some())
}
