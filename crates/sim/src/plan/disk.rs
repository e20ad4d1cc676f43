//! The disk under the store of a run, and how it breaks.

use super::Plan;
use crate::chance::Chance;
use crate::feature::Feature;

/// Of 100 runs with crashes, in how many the store is a real one.
const RUNS_PERCENT: u64 = 50;

/// The store of the shards is the real one, on a disk.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// How long a commit takes at the most, ms.
    pub commit_ms_max: u64,
    /// How long an answer is on its way to its shard at the most, ms.
    pub answer_ms_max: u64,
    /// Before how many of 1,000 commits some syncs are made to fail.
    pub bad_syncs_permille: u64,
    /// Before how many of 1,000 commits the disk becomes full for a while.
    pub full_permille: u64,
    /// A segment that has reached this size gets nothing more, bytes.
    pub segment_bytes: u64,
    /// When so much was written everything is written anew, bytes.
    pub compact_bytes: u64,
    /// What a shard may have under way, bytes.
    pub shard_bytes_max: usize,
    /// What a commit may hold, bytes.
    pub commit_bytes_max: usize,
    /// Whether it is encrypted.
    pub is_encrypted: bool,
}

impl DiskPlan {
    /// Decides by numbers of its own, so that a run without a disk is what it was before.
    pub fn new(chance: &Chance, plan: &Plan) -> Option<DiskPlan> {
        let mut chance = Chance::new(chance.clone().bits().rotate_left(17));
        let has_one = plan.features.has(Feature::Disk) && plan.crashes.is_some();
        if !has_one || !chance.percent(RUNS_PERCENT) {
            return None;
        }
        let breaks = plan.features.has(Feature::FailingStore) && chance.percent(40);
        let often = |chance: &mut Chance| match breaks {
            true => *chance.pick(&[0, 5, 50]),
            false => 0,
        };
        let is_late = plan.features.has(Feature::LateStore);
        Some(DiskPlan {
            commit_ms_max: if is_late {
                *chance.pick(&[0, 2, 20, 300])
            } else {
                0
            },
            answer_ms_max: if is_late {
                *chance.pick(&[0, 0, 5, 50])
            } else {
                0
            },
            bad_syncs_permille: often(&mut chance),
            full_permille: often(&mut chance),
            segment_bytes: *chance.pick(&[4_096, 20_000, 200_000]),
            compact_bytes: *chance.pick(&[10_000, 60_000, 400_000]),
            shard_bytes_max: *chance.pick(&[2_000, 50_000, 1 << 24]),
            commit_bytes_max: *chance.pick(&[1_000, 20_000, 1 << 20]),
            is_encrypted: chance.percent(25),
        })
    }

    /// True where something may fail.
    pub fn breaks(&self) -> bool {
        self.bad_syncs_permille + self.full_permille > 0
    }
}
