//! Features: what may happen in a run; switched off one by one to make a failure small.

use std::fmt;

/// One thing that a run may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // The names say it.
pub enum Feature {
    Shards,
    Hostile,
    Cuts,
    SlowReaders,
    LateStore,
    FailingStore,
    LateGate,
    LawChanges,
    Wills,
    Retained,
    Shares,
    QoS1,
    QoS2,
    Version5,
    Aliases,
    Expiry,
    Takeover,
    NoLocal,
    Tight,
    Tenants,
    LongSleep,
    Expulsion,
    Announcements,
    Challenges,
    Splitting,
    LateAcks,
    Unsubscribes,
    CleanStarts,
    KeepAlive,
    EmptyPayloads,
    Drain,
    Crash,
    Disk,
}

/// All features, in the order of their bits.
pub const ALL: [Feature; 33] = [
    Feature::Shards,
    Feature::Hostile,
    Feature::Cuts,
    Feature::SlowReaders,
    Feature::LateStore,
    Feature::FailingStore,
    Feature::LateGate,
    Feature::LawChanges,
    Feature::Wills,
    Feature::Retained,
    Feature::Shares,
    Feature::QoS1,
    Feature::QoS2,
    Feature::Version5,
    Feature::Aliases,
    Feature::Expiry,
    Feature::Takeover,
    Feature::NoLocal,
    Feature::Tight,
    Feature::Tenants,
    Feature::LongSleep,
    Feature::Expulsion,
    Feature::Announcements,
    Feature::Challenges,
    Feature::Splitting,
    Feature::LateAcks,
    Feature::Unsubscribes,
    Feature::CleanStarts,
    Feature::KeepAlive,
    Feature::EmptyPayloads,
    Feature::Drain,
    Feature::Crash,
    Feature::Disk,
];

/// A set of features, printed and read as a hexadecimal mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    /// Everything.
    pub const EVERY: Features = Features((1 << ALL.len()) - 1);

    /// True where the feature is switched on.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 >> feature as u32 & 1 == 1
    }

    /// The set without one feature.
    pub const fn without(self, feature: Feature) -> Features {
        Features(self.0 & !(1 << feature as u32))
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_the_bit_of_its_place() {
        for (place, feature) in ALL.iter().enumerate() {
            assert_eq!(*feature as usize, place);
            assert!(Features::EVERY.has(*feature));
            assert!(!Features::EVERY.without(*feature).has(*feature));
        }
    }
}
