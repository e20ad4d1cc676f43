//! The inbox: what others have for a shard, taken in the order of its arrival.

use casemate_codec::Reason;
use casemate_engine::{Input, Millis};

use super::{Item, Shell};
use crate::chance::Chance;
use crate::history::Violation;

impl Shell {
    /// Takes what is due out of the inbox.
    pub(super) fn take_items(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(), Violation> {
        while let Some(entry) = self.stations[shard].inbox.first_entry() {
            if entry.key().0 > now || self.life.is_dead {
                break;
            }
            let item = entry.remove();
            self.take_item(shard, now, chance, item)?;
        }
        Ok(())
    }

    /// Gives one item to the shard.
    fn take_item(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
        item: Item,
    ) -> Result<(), Violation> {
        match item {
            Item::Open { link } => {
                let (id, origin) = (self.seat(shard, link), Shell::origin());
                self.handle(shard, now, chance, Input::Opened { id, origin })
            }
            Item::Adopt { link, parcel } => {
                let id = self.seat(shard, link);
                self.handle(shard, now, chance, Input::Adopted { id, parcel })
            }
            Item::Decide {
                link,
                id,
                step,
                verdict,
            } => {
                if self.seated_link(shard, id) == Some(link) {
                    self.links[link].question = None;
                }
                self.handle(shard, now, chance, Input::Decided { id, step, verdict })
            }
            Item::Forwarded { from, batch } => {
                let (bytes, number) = (batch.len(), from as u16);
                let input = Input::Forwarded {
                    from: number,
                    batch: &batch,
                };
                self.handle(shard, now, chance, input)?;
                let at = self.pipes[from][shard].taken(now, chance, bytes);
                self.post(from, at, Item::Drained { to: shard, bytes });
                Ok(())
            }
            Item::Drained { to, bytes } => {
                self.pipes[shard][to].drained(bytes);
                let to = to as u16;
                self.handle(shard, now, chance, Input::Drained { to, bytes })
            }
            order => self.take_order(shard, now, chance, order),
        }
    }

    /// Gives the shard what an operator wants.
    fn take_order(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
        order: Item,
    ) -> Result<(), Violation> {
        match order {
            Item::Policy(policy) => self.handle(shard, now, chance, Input::Policy(policy)),
            Item::Expel { name, end_sessions } => {
                let reason = Reason::AdministrativeAction;
                let (realm, name) = ("account", name.as_str());
                let input = Input::Expel {
                    realm,
                    name,
                    end_sessions,
                    reason,
                };
                self.handle(shard, now, chance, input)
            }
            Item::Announce {
                topic,
                payload,
                retain,
            } => {
                let (topic, payload) = (topic.as_str(), payload.as_slice());
                self.handle(
                    shard,
                    now,
                    chance,
                    Input::Announce {
                        topic,
                        payload,
                        retain,
                    },
                )
            }
            Item::Drain => {
                self.stations[shard].drains = true;
                let server_reference = self.plan.drain.flatten();
                self.handle(shard, now, chance, Input::Drain { server_reference })
            }
            Item::Kept { answer } => self.hear(shard, now, chance, answer),
            Item::StoreWorks => {
                self.store_works(shard, now, chance);
                Ok(())
            }
            Item::Checkpoint => self.handle(shard, now, chance, Input::Checkpoint),
            Item::Leave => self.handle(shard, now, chance, Input::Leave),
            Item::Stop { reason } => self.handle(shard, now, chance, Input::Stop { reason }),
            // The others are no orders: `take_item` has taken them.
            _ => Ok(()),
        }
    }
}
