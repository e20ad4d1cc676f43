//! Acknowledging what was received, at once or later, in order.

use casemate_codec::{Packet, PacketId};

use super::act::plain_ack;
use super::{Answer, Client, Scene};
use crate::history::Violation;

impl Client {
    /// Owes an acknowledgement; those owed earlier are written earlier ([MQTT-4.6.0-2]).
    pub(super) fn owe(&mut self, scene: &mut Scene<'_>, answer: Answer) {
        let most_ms = self.persona.habits.acknowledge_ms_max;
        let at = match scene.is_calm {
            true => scene.now,
            false => scene.now + scene.chance.between(0, most_ms),
        };
        let last = self.answers.back().map_or(0, |(at, _)| *at);
        self.answers.push_back((at.max(last), answer));
    }

    /// Writes the acknowledgements that are due.
    pub(super) fn answer(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        while let Some((at, answer)) = self.answers.front().copied() {
            if at > scene.now && !scene.is_calm {
                break;
            }
            self.answers.pop_front();
            match answer {
                Answer::Puback(packet_id) => {
                    self.close_flight(scene, packet_id);
                    self.send(scene, &Packet::Puback(plain_ack(packet_id)), (None, None))?;
                }
                Answer::Pubrec(packet_id) => {
                    self.send(scene, &Packet::Pubrec(plain_ack(packet_id)), (None, None))?;
                }
                Answer::Pubcomp(packet_id) => {
                    self.close_flight(scene, packet_id);
                    self.send(scene, &Packet::Pubcomp(plain_ack(packet_id)), (None, None))?;
                }
            }
        }
        Ok(())
    }

    /// A packet id may be used again by the broker.
    fn close_flight(&mut self, scene: &mut Scene<'_>, packet_id: PacketId) {
        let session = &mut scene.oracle.sessions[self.index];
        if let Some(flight) = session.flights.get_mut(&packet_id.get()) {
            flight.answered = true;
        }
    }
}
