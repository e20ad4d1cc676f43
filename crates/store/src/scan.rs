//! Reading a whole folder in order, without changing it.

use std::fmt;

use std::sync::Arc;

use crate::disk::{Disk, File};
use crate::error::StoreError;
use crate::frame::ALIGNMENT;
use crate::gone::{uncovered, Gone};
use crate::part::{Part, Parts, Place};
use crate::seal::{KeyId, Keys};
use crate::segment::{read_opening, Header, Name, Opening, Segment, StoreId, FORMAT};
use crate::walk::{Step, Walk};

/// One part as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The number of the commit that it came with.
    pub number: u64,
    /// What was given to the log. A commit of format 1 is one part: of shard 0, with the commit's
    /// own number as `seq`.
    pub part: Part<'a>,
    /// Where it is.
    pub place: Place,
}

/// Something that an operator must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Bytes of a segment are no commit, though commits stand behind them.
    Bytes {
        /// The file.
        name: String,
        /// Where they begin.
        from: u64,
        /// How many.
        bytes: u64,
    },
    /// A file's beginning is damaged, so that nothing in it can be trusted. Recovery gives it the
    /// further suffix `.damaged`.
    Header {
        /// The file.
        name: String,
    },
    /// Commits with these numbers are nowhere: what they promised is lost.
    Missing {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Bytes { name, from, bytes } => {
                write!(f, "{name}: {bytes} bytes from {from} on are no commit")
            }
            Damage::Header { name } => {
                write!(f, "{name}: its beginning is damaged; it was set aside")
            }
            Damage::Missing { first, last } if first == last => {
                write!(f, "commit {first} is nowhere")
            }
            Damage::Missing { first, last } => write!(f, "commits {first} to {last} are nowhere"),
        }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Commits that were read.
    pub commits: u64,
    /// Parts in them.
    pub parts: u64,
    /// Bytes of those.
    pub part_bytes: u64,
    /// Bytes behind the last commit of a segment: what a crash has left of one that nobody was
    /// promised.
    pub torn_bytes: u64,
    /// What must be told.
    pub damage: Vec<Damage>,
}

/// One segment, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file.
    pub name: String,
    /// Its serial, as places name it.
    pub serial: u32,
    /// Its format.
    pub format: u16,
    /// The key that it is encrypted under; none where it is in plain.
    pub key: Option<KeyId>,
    /// Bytes of the file.
    pub bytes: u64,
    /// The first and the last number of its commits that count.
    pub numbers: Option<(u64, u64)>,
    /// Commits that count.
    pub commits: u64,
    /// Parts of them, by shard; as long as the highest shard needs.
    pub parts_by_shard: Vec<u64>,
    /// As in [`Report`].
    pub torn_bytes: u64,
    /// True where bytes of it are damaged.
    pub is_damaged: bool,
}

/// A folder as it was found.
pub(crate) struct Scan {
    /// Oldest first. Those that were not read have no commits in their report.
    pub segments: Vec<(Arc<Segment>, SegmentReport)>,
    pub gone: Vec<Gone>,
    /// Files that were made in the moment of a crash, and hold nothing that counts.
    pub unborn: Vec<String>,
    /// Not to be trusted.
    pub unreadable: Vec<Name>,
    pub store: Option<StoreId>,
    /// The number of the next commit.
    pub next: u64,
    /// The serial of the next segment; none where there are no more.
    pub serial: Option<u32>,
    /// The last commit, where it is in the newest segment: its number, and where it begins.
    pub last: Option<(u64, u64)>,
    pub report: Report,
}

/// Reads every commit from number `from` on and hands its parts to `visit`, in order. Segments
/// that end before are not read.
///
/// # Errors
/// The folder cannot be read, or holds a segment that these keys or this version cannot read.
pub(crate) fn scan<D: Disk>(
    disk: &D,
    keys: &Keys,
    from: u64,
    mut visit: impl FnMut(Found<'_>),
) -> Result<Scan, StoreError> {
    let (mut scan, segments) = open(disk, keys)?;
    let firsts: Vec<u64> = segments.iter().map(|segment| segment.first).collect();
    scan.next = from.max(1);
    for (index, segment) in segments.into_iter().enumerate() {
        let end = firsts.get(index + 1).copied().unwrap_or(u64::MAX);
        let fail = || StoreError::disk("a segment cannot be read");
        // Opened again: a log has more segments than a process may have open files.
        let file = disk.open(&segment.name.file()).map_err(fail())?;
        let mut report = SegmentReport::of(&segment, file.length().map_err(fail())?);
        if end > from {
            scan.read(&segment, &file, end, &mut report, &mut visit)?;
        }
        scan.segments.push((segment, report));
    }
    // The last segment was begun for its first number, so all before had been promised.
    let begun = firsts.last().copied().unwrap_or(0);
    let retired = scan.gone.iter().map(|gone| gone.last.saturating_add(1));
    scan.reach(retired.max().unwrap_or(0).max(begun));
    let next = scan.next;
    // One in an older segment was safe before the newest was begun.
    scan.last = scan
        .last
        .filter(|(number, _)| *number >= begun && number + 1 == next);
    Ok(scan)
}

impl Scan {
    /// Reads one segment, whose numbers end before `end`.
    fn read<F: File>(
        &mut self,
        segment: &Arc<Segment>,
        file: &F,
        end: u64,
        report: &mut SegmentReport,
        visit: &mut impl FnMut(Found<'_>),
    ) -> Result<(), StoreError> {
        let fail = StoreError::disk("a segment cannot be read");
        let mut walk = Walk::new(file, segment).map_err(fail)?;
        self.last = None;
        // None, but where a crash came before the file of a retired segment was removed.
        let reaches_in = |gone: &&Gone| gone.first < end && gone.last >= segment.first;
        let gone: Vec<Gone> = self.gone.iter().filter(reaches_in).copied().collect();
        let is_gone = |number| {
            let covers = |gone: &Gone| (gone.first..=gone.last).contains(&number);
            gone.iter().any(covers)
        };
        while let Some(step) = walk.next() {
            match step {
                // A number that a later segment begins at was given up: the later one counts.
                Step::Commit { number, .. } if number >= end => {}
                // Before what is to be read.
                Step::Commit { number, at, .. } if number < self.next => {
                    self.last = Some((number, at))
                }
                Step::Commit { number, .. } if is_gone(number) => self.reach(number + 1),
                Step::Commit { number, body, at } => {
                    self.reach(number);
                    self.next = number + 1;
                    self.last = Some((number, at));
                    self.report.commits += 1;
                    report.commit(number);
                    visit_parts(segment, (number, at), body, &mut |found| {
                        self.report.parts += 1;
                        self.report.part_bytes += found.part.bytes.len() as u64;
                        report.part(found.part.shard);
                        visit(found);
                    });
                }
                Step::Damage { from, bytes } => {
                    report.is_damaged = true;
                    let name = segment.name.file();
                    let damage = Damage::Bytes { name, from, bytes };
                    self.report.damage.push(damage);
                }
                Step::Tail { bytes } => {
                    self.report.torn_bytes += bytes;
                    report.torn_bytes += bytes;
                }
            }
        }
        Ok(())
    }

    /// Goes on at a number; those before it that are neither read nor retired are missing.
    fn reach(&mut self, number: u64) {
        if number > self.next {
            let runs = uncovered(&self.gone, self.next, number - 1);
            let missing = runs.into_iter();
            let missing = missing.map(|(first, last)| Damage::Missing { first, last });
            self.report.damage.extend(missing);
            self.next = number;
        }
    }
}

impl SegmentReport {
    fn of(segment: &Segment, bytes: u64) -> SegmentReport {
        SegmentReport {
            name: segment.name.file(),
            serial: segment.serial,
            format: segment.format,
            key: segment.key,
            bytes,
            numbers: None,
            commits: 0,
            parts_by_shard: Vec::new(),
            torn_bytes: 0,
            is_damaged: false,
        }
    }

    fn commit(&mut self, number: u64) {
        let first = self.numbers.map_or(number, |numbers| numbers.0);
        self.numbers = Some((first, number));
        self.commits += 1;
    }

    fn part(&mut self, shard: u16) {
        let shard = usize::from(shard);
        if self.parts_by_shard.len() <= shard {
            self.parts_by_shard.resize(shard + 1, 0);
        }
        self.parts_by_shard[shard] += 1;
    }
}

pub(crate) fn visit_parts(
    segment: &Segment,
    (number, at): (u64, u64),
    body: &[u8],
    visit: &mut impl FnMut(Found<'_>),
) {
    let place = |from: usize, bytes: usize| Place {
        segment: segment.serial,
        // All fit: a segment ends before 32 GiB, a body before 4.
        frame: (at / ALIGNMENT as u64) as u32,
        from: from as u32,
        bytes: bytes as u32,
    };
    if segment.format == 1 {
        let part = Part {
            shard: 0,
            seq: number,
            bytes: body,
        };
        let place = place(0, body.len());
        return visit(Found {
            number,
            part,
            place,
        });
    }
    for (part, from) in Parts::of(body).into_iter().flatten() {
        let place = place(from, part.bytes.len());
        visit(Found {
            number,
            part,
            place,
        });
    }
}

/// Reads the beginning of all segments, oldest first, before anything else is read or changed.
fn open<D: Disk>(disk: &D, keys: &Keys) -> Result<(Scan, Vec<Arc<Segment>>), StoreError> {
    let fail = StoreError::disk("the folder of the log cannot be read");
    let files = disk.list().map_err(fail)?;
    let mut names: Vec<Name> = files.iter().filter_map(|file| Name::of(file)).collect();
    names.sort_unstable();
    let unfinished = files.iter().filter(|file| Name::is_unfinished(file));
    let mut scan = Scan {
        segments: Vec::new(),
        gone: files.iter().filter_map(|file| Gone::of(file)).collect(),
        unborn: unfinished.cloned().collect(),
        last: None,
        unreadable: Vec::new(),
        store: None,
        next: 1,
        serial: Some(1),
        report: Report::default(),
    };
    let mut known: Vec<Arc<Segment>> = Vec::new();
    for name in names {
        let fail = StoreError::disk("a segment cannot be opened");
        let file = disk.open(&name.file()).map_err(fail)?;
        let header = match read_opening(name, &file) {
            Opening::Known(header) => header,
            Opening::TooNew { format } => {
                return Err(StoreError::TooNew {
                    name: name.file(),
                    found: format,
                    known: FORMAT,
                });
            }
            Opening::Unborn => {
                scan.unborn.push(name.file());
                continue;
            }
            Opening::Unreadable => {
                scan.unreadable.push(name);
                continue;
            }
        };
        let key = match header.key() {
            Some(id) => Some(keys.find(id).ok_or_else(|| StoreError::WrongKey {
                name: name.file(),
                wanted: id,
            })?),
            None if keys.reads_plain() => None,
            None => return Err(StoreError::Plain { name: name.file() }),
        };
        same_store(&known, &header, name)?;
        // Those of format 1 come first and are numbered as they stand; nothing written by their
        // version holds a place.
        match header.segment(known.len() as u32, key) {
            Some(segment) => known.push(Arc::new(segment)),
            None => scan.unreadable.push(name),
        }
    }
    scan.store = known.iter().find_map(|segment| segment.store);
    for name in &scan.unreadable {
        let name = name.file();
        scan.report.damage.push(Damage::Header { name });
    }
    scan.serial = next_serial(&known, &scan.gone, &files);
    Ok((scan, known))
}

/// A serial above all that any file has, set aside or retired ones included.
fn next_serial(known: &[Arc<Segment>], gone: &[Gone], files: &[String]) -> Option<u32> {
    let named = files.iter().filter_map(|file| {
        let file = file.strip_suffix(".damaged").unwrap_or(file);
        match Name::of(file)? {
            Name::Serial(serial) => Some(serial),
            Name::One { .. } => None,
        }
    });
    let used = known.iter().map(|segment| segment.serial);
    let used = used.chain(gone.iter().map(|gone| gone.serial));
    let last = used.chain(named).max();
    last.map_or(Some(1), |last| last.checked_add(1))
}

/// Refuses a segment of another store than those before it.
fn same_store(known: &[Arc<Segment>], header: &Header, name: Name) -> Result<(), StoreError> {
    let Some(store) = header.store() else {
        return Ok(());
    };
    let other = known.iter().find(|segment| segment.store.is_some());
    match other {
        Some(other) if other.store != Some(store) => Err(StoreError::Foreign {
            name: name.file(),
            other: other.name.file(),
        }),
        _ => Ok(()),
    }
}
