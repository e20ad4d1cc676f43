//! Whom a topic reaches in this shard: mostly one session, which then needs no memory of its own.

use std::slice;

use super::Target;

/// Sessions and share groups.
pub(super) enum Reach {
    Nobody,
    One(Target),
    /// Boxed because every route pays for the largest kind.
    Many(Box<Crowd>),
}

/// Several sessions, or a share group among them.
pub(super) struct Crowd {
    targets: Box<[Target]>,
    groups: Box<[u32]>,
}

impl Reach {
    /// Takes the sessions, already authorised, and the groups.
    pub fn of(mut targets: Vec<Target>, groups: Vec<u32>) -> Reach {
        if groups.is_empty() && targets.len() <= 1 {
            return targets.pop().map_or(Reach::Nobody, Reach::One);
        }
        Reach::Many(Box::new(Crowd {
            targets: targets.into(),
            groups: groups.into(),
        }))
    }

    #[inline]
    pub fn targets(&self) -> &[Target] {
        match self {
            Reach::Nobody => &[],
            Reach::One(target) => slice::from_ref(target),
            Reach::Many(crowd) => &crowd.targets,
        }
    }

    #[inline]
    pub fn groups(&self) -> &[u32] {
        match self {
            Reach::Nobody | Reach::One(_) => &[],
            Reach::Many(crowd) => &crowd.groups,
        }
    }

    /// What it takes elsewhere, bytes.
    pub fn bytes_elsewhere(&self) -> usize {
        let ids = self
            .targets()
            .iter()
            .filter_map(|target| target.ids.as_ref());
        let ids: usize = ids.map(|ids| IDS_BYTES + size_of_val(&ids[..])).sum();
        ids + match self {
            Reach::Nobody | Reach::One(_) => 0,
            Reach::Many(crowd) => {
                size_of::<Crowd>() + size_of_val(&*crowd.targets) + size_of_val(&*crowd.groups)
            }
        }
    }
}

/// Of a list of subscription identifiers without them: two counts and a vector.
const IDS_BYTES: usize = 2 * size_of::<usize>() + size_of::<Vec<u32>>();
