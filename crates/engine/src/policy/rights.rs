//! What the rules grant, and the proofs of it that only this room can make.

use casemate_codec::QoS;

use super::{Operation, Rule};

/// Publish grants: one bit for each QoS, and three places up the same with retain.
const RETAIN_SHIFT: u32 = 3;

/// What a rule grants, in bits: of publishing as in [`PublishRights`], of subscribing by QoS.
pub(super) fn of(rule: &Rule) -> u8 {
    let up_to_qos = (2 << rule.qos_max as u8) - 1;
    match rule.operation {
        Operation::Publish if rule.retain => up_to_qos | (up_to_qos << RETAIN_SHIFT),
        Operation::Publish | Operation::Subscribe => up_to_qos,
    }
}

/// Everything that can be granted; no further rule is asked then.
pub(super) fn all(operation: Operation) -> u8 {
    match operation {
        Operation::Publish => 0b111_111,
        Operation::Subscribe => 0b111,
    }
}

/// Which of (QoS 0, 1, 2) × (retained or not) may be published on one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishRights(u8);

impl PublishRights {
    /// Nothing.
    pub const NONE: PublishRights = PublishRights(0);

    pub(super) fn from_bits(bits: u8) -> PublishRights {
        PublishRights(bits)
    }

    /// Proves that a message of this QoS and retain flag is allowed, if it is.
    #[inline]
    pub fn permit(self, qos: QoS, retain: bool) -> Option<Permit> {
        let bit = qos as u32 + u32::from(retain) * RETAIN_SHIFT;
        (self.0 >> bit & 1 == 1).then_some(Permit {
            _only_policy_makes_it: (),
        })
    }
}

/// Proof that the policy allows this publish; whoever routes a message asks for one.
#[derive(Debug)]
pub struct Permit {
    _only_policy_makes_it: (),
}

impl Permit {
    /// For the broker's own announcements under `$SYS/`, for which nobody asks a policy.
    pub(crate) fn for_the_broker() -> Permit {
        Permit {
            _only_policy_makes_it: (),
        }
    }
}

/// Proof that the policy lets a subject receive a topic's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::manual_non_exhaustive,
    reason = "the rest of the engine must not make one either"
)]
pub struct ReceivePermit {
    /// The highest QoS among the rules that match.
    pub qos_max: QoS,
    _only_policy_makes_it: (),
}

impl ReceivePermit {
    pub(super) fn from_bits(bits: u8) -> Option<ReceivePermit> {
        Some(ReceivePermit {
            qos_max: highest(bits)?,
            _only_policy_makes_it: (),
        })
    }
}

/// Proof that the policy lets a subject subscribe to a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::manual_non_exhaustive,
    reason = "the rest of the engine must not make one either"
)]
pub struct SubscribeRight {
    /// The highest QoS among the rules that cover the filter.
    pub qos_max: QoS,
    _only_policy_makes_it: (),
}

impl SubscribeRight {
    pub(super) fn from_bits(bits: u8) -> Option<SubscribeRight> {
        Some(SubscribeRight {
            qos_max: highest(bits)?,
            _only_policy_makes_it: (),
        })
    }
}

/// The highest QoS among the bits of a subscribe grant.
fn highest(bits: u8) -> Option<QoS> {
    QoS::from_bits(bits.checked_ilog2()? as u8)
}
