//! Real folders: who may have them, what they are made of, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and one is a process that speaks to another"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use casemate_store::{
    random, recover, Answer, Audience, Committer, Core, Disk, Durability, Event, File, Folder,
    Keys, Log, Options, Pace, Part, Refused, StoreError,
};

const OPTIONS: Options = Options {
    durability: Durability::Disk,
    segment_bytes: 4_096,
    random,
};

/// A place for one test, emptied before and after.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("casemate-store-{}", std::process::id()));
        let path = path.join(name);
        // Another test's end may take the parent away in between.
        while fs::create_dir_all(&path).is_err() {}
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Scratch(path)
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(&self.0, fs::Permissions::from_mode(mode)).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.set_mode(0o700);
        let _ = fs::remove_dir_all(&self.0);
        // The last test takes the parent with it.
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

fn refused(path: &PathBuf) -> String {
    Folder::open(path).unwrap_err().to_string()
}

#[test]
fn a_new_folder_and_its_files_are_their_owners_alone() {
    let scratch = Scratch::new("new");
    let path = scratch.0.join("deep/store");
    let folder = Folder::open(&path).unwrap();
    let recovered = recover(&folder, &Keys::none(), 1, |_| {}).unwrap();
    let mut log = Log::new(folder.clone(), OPTIONS, recovered);
    let part = Part {
        shard: 1,
        seq: 2,
        bytes: &[9; 3_000],
    };
    for _ in 0..4 {
        log.commit([part], &mut Vec::new()).unwrap();
    }
    let first = log.sealed().next().unwrap();
    log.retire(&[first]).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    let mut files = 0;
    for file in fs::read_dir(&path).unwrap() {
        let mode = file.unwrap().metadata().unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        files += 1;
    }
    assert!(files >= 3, "a segment, a note of what is gone, the lock");
    drop((log, folder));
    // And it is a store: what was not retired comes back.
    let folder = Folder::open(&path).unwrap();
    let report = recover(&folder, &Keys::none(), 1, |found| {
        assert_eq!(found.part, part);
    })
    .unwrap()
    .report;
    assert_eq!((report.commits, report.damage), (2, vec![]));
    assert!(folder.free_bytes().unwrap() > 0);
}

#[test]
fn a_folder_is_held_once_and_given_back_with_the_last_clone() {
    let scratch = Scratch::new("twice");
    let folder = Folder::open(&scratch.0).unwrap();
    let clone = folder.clone();
    for _ in 0..2 {
        let Err(StoreError::InUse { pid, .. }) = Folder::open(&scratch.0) else {
            panic!("two have it");
        };
        assert_eq!(pid, i32::try_from(std::process::id()).ok());
    }
    // Under another name it is the same folder.
    let link = scratch.0.join("link");
    std::os::unix::fs::symlink(&scratch.0, &link).unwrap();
    assert!(refused(&link).contains("is in use by process"));
    drop(folder);
    assert!(matches!(
        Folder::open(&scratch.0),
        Err(StoreError::InUse { .. })
    ));
    drop(clone);
    Folder::open(&scratch.0).unwrap();
}

/// The other process of the next test; by itself it does nothing.
#[test]
fn holder_of_a_folder() {
    if let Some(path) = std::env::var_os("STORE_FOLDER_TO_HOLD") {
        let folder = Folder::open(path);
        println!("\nheld: {}", folder.is_ok());
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
    }
}

/// Goal: a second broker is refused and hears who has the folder; when that process is gone, in
/// whatever way, the folder is free. Method: this program once more as the other process, killed.
#[test]
fn another_process_is_named_and_its_end_frees_the_folder() {
    let scratch = Scratch::new("process");
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holder_of_a_folder", "--nocapture"])
        .env("STORE_FOLDER_TO_HOLD", &scratch.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(other.stdout.take().unwrap()).lines();
    let said = lines.map(Result::unwrap).find(|line| line.contains("held"));
    assert_eq!(said.unwrap(), "held: true");
    let told = refused(&scratch.0);
    let pid = format!("is in use by process {};", other.id());
    assert!(told.contains(&pid), "{told}");
    assert!(told.contains(scratch.0.to_str().unwrap()), "{told}");
    // Whoever only looks needs no lock.
    Folder::look(&scratch.0).unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    Folder::open(&scratch.0).unwrap();
}

#[test]
fn a_folder_that_cannot_be_trusted_is_refused_with_what_to_do() {
    let scratch = Scratch::new("mode");
    for (mode, fault) in [
        (0o770, "others may write to it (mode 0770); chmod 700 it"),
        (0o702, "others may write to it (mode 0702); chmod 700 it"),
        (0o500, "its owner may not use it (mode 0500); chmod 700 it"),
    ] {
        scratch.set_mode(mode);
        let told = refused(&scratch.0);
        assert!(told.ends_with(fault), "{told}");
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0, "no trace");
    }
    scratch.set_mode(0o755);
    Folder::open(&scratch.0).unwrap();
}

#[test]
fn somebody_elses_folder_is_refused() {
    let scratch = Scratch::new("owner");
    let theirs = scratch.0.join("theirs");
    fs::create_dir(&theirs).unwrap();
    // Who may not give a folder away has one of another owner at hand.
    let theirs = match chown(&theirs, Some(65_534), None) {
        Ok(()) => theirs,
        Err(_) => PathBuf::from("/"),
    };
    let told = refused(&theirs);
    assert!(told.contains("it belongs to user"), "{told}");
    assert!(told.ends_with("run the broker as its owner, or chown it"));
}

#[test]
fn what_is_no_folder_or_cannot_be_made_is_refused() {
    let scratch = Scratch::new("none");
    let file = scratch.0.join("file");
    fs::write(&file, b"a file").unwrap();
    assert!(refused(&file).contains("it is no folder"));
    assert!(refused(&file.join("below")).contains("create it by hand"));
    assert!(Folder::look(&file).is_err());
    let absent = scratch.0.join("absent");
    assert!(Folder::look(&absent).is_err());
    assert!(!absent.exists(), "looking makes nothing");
    // The lock's name is taken by something that cannot be locked.
    fs::create_dir(scratch.0.join("lock")).unwrap();
    assert!(refused(&scratch.0).contains("make it writable"));
}

#[test]
fn who_only_looks_changes_nothing() {
    let scratch = Scratch::new("look");
    fs::write(scratch.0.join("00000001.log"), b"").unwrap();
    let folder = Folder::look(&scratch.0).unwrap();
    let outcomes = [
        folder.create("x").map(drop),
        folder.remove("00000001.log"),
        folder.rename("00000001.log", "y"),
        recover(&folder, &Keys::none(), 1, |_| {})
            .map(drop)
            .map_err(|_| std::io::ErrorKind::PermissionDenied.into()),
    ];
    for outcome in outcomes {
        let kind = outcome.unwrap_err().kind();
        assert_eq!(kind, std::io::ErrorKind::PermissionDenied);
    }
    assert_eq!(folder.list().unwrap(), ["00000001.log"]);
}

/// A log of one folder with segments as large as they usually are.
fn usual(scratch: &Scratch) -> (Folder, Log<Folder>) {
    let folder = Folder::open(&scratch.0).unwrap();
    let recovered = recover(&folder, &Keys::none(), 1, |_| {}).unwrap();
    let options = Options {
        segment_bytes: 64 * 1024 * 1024,
        ..OPTIONS
    };
    (folder.clone(), Log::new(folder, options, recovered))
}

fn commit(log: &mut Log<Folder>, bytes: usize) {
    let bytes = vec![7; bytes];
    let part = Part {
        shard: 0,
        seq: 1,
        bytes: &bytes,
    };
    log.commit([part], &mut Vec::new()).unwrap();
}

#[test]
fn a_file_grows_ahead_and_ends_where_its_commits_end() {
    let scratch = Scratch::new("ahead");
    let (folder, mut log) = usual(&scratch);
    let path = scratch.0.join("00000001.log");
    let length = || fs::metadata(&path).unwrap().len();
    commit(&mut log, 1_000);
    let grown = length();
    assert!((64 * 1024..256 * 1024).contains(&grown), "{grown}");
    for _ in 0..20 {
        commit(&mut log, 1_000);
    }
    assert_eq!(length(), grown, "a sync of these writes no new length");
    // What is large itself needs no zeros for as much again.
    commit(&mut log, 300_000);
    let commits = (136 + 21 * (24 + 16 + 1_000) + 24 + 16 + 300_000) as u64;
    assert_eq!(length(), commits);
    // The more there is, the more zeros at a time, up to a bound.
    for _ in 0..40 {
        commit(&mut log, 60_000);
    }
    let ahead = length() - commits - 40 * (24 + 16 + 60_000);
    assert!((1..=1024 * 1024).contains(&ahead), "{ahead}");
    drop((log, folder));
    assert_eq!(length(), commits + 40 * (24 + 16 + 60_000));
    let (_, mut log) = usual(&scratch);
    commit(&mut log, 10);
    assert_eq!(length(), commits + 40 * (24 + 16 + 60_000), "never touched");
}

#[test]
fn zeros_that_a_crash_has_left_are_no_commit_and_no_damage() {
    let scratch = Scratch::new("zeros");
    let (folder, mut log) = usual(&scratch);
    for _ in 0..3 {
        commit(&mut log, 1_000);
    }
    drop((log, folder));
    let path = scratch.0.join("00000001.log");
    let whole = fs::read(&path).unwrap();
    for (tail, torn) in [(&[0; 70_001][..], 0), (&[0, 0, 0, 9, 0, 0][..], 6)] {
        fs::write(&path, [&whole, tail].concat()).unwrap();
        let folder = Folder::open(&scratch.0).unwrap();
        let report = recover(&folder, &Keys::none(), 1, |_| {}).unwrap().report;
        assert_eq!((report.commits, report.damage), (3, vec![]));
        assert_eq!(report.torn_bytes, torn);
    }
}

#[test]
fn a_copy_and_what_only_the_system_has_get_no_zeros() {
    let scratch = Scratch::new("exact");
    let folder = Folder::open(&scratch.0).unwrap();
    let mut file = folder.create("copy").unwrap();
    for _ in 0..5 {
        file.append(&[1; 100]).unwrap();
    }
    file.sync().unwrap();
    assert_eq!(file.length().unwrap(), 500);
    // Read while it is written: what was appended, then zeros.
    file.append(&[2; 100]).unwrap();
    let reader = folder.open("copy").unwrap();
    let mut bytes = [9; 700];
    assert_eq!(reader.read_at(0, &mut bytes).unwrap(), 700);
    assert!(bytes[..500].iter().all(|byte| *byte == 1));
    assert!(bytes[500..600].iter().all(|byte| *byte == 2));
    assert!(bytes[600..].iter().all(|byte| *byte == 0));
    drop((file, reader));
    assert_eq!(fs::metadata(scratch.0.join("copy")).unwrap().len(), 600);
}

/// Prints what is safe.
struct Printer;

impl Audience for Printer {
    fn answer(&mut self, answer: Answer) {
        assert!(answer.place.is_some());
        println!("\nsafe: {}", answer.seq);
    }

    fn wake(&mut self, _: u16) {}

    fn tell(&mut self, _: Event) {}
}

/// The other process of the next test; by itself it does nothing.
#[test]
fn writer_to_a_folder() {
    let Some(path) = std::env::var_os("STORE_FOLDER_TO_WRITE") else {
        return;
    };
    let folder = Folder::open(path).unwrap();
    let mut last = 0;
    let recovered = recover(&folder, &Keys::none(), 1, |found| last = found.part.seq);
    let log = Log::new(folder, OPTIONS, recovered.unwrap());
    let (core, mut shards) = Core::new(log, Pace::default());
    let began = Instant::now();
    let _committer = Committer::start(core, move || began.elapsed(), Printer).unwrap();
    for seq in last + 1.. {
        let mut buffer = seq.to_le_bytes().repeat(20);
        while let Err(refused) = shards[0].submit(seq, buffer) {
            let Refused::Busy(back) = refused else {
                return;
            };
            buffer = back;
            std::thread::yield_now();
        }
    }
}

/// Goal: what a process was told to be safe is there after it is killed, whole, in order and
/// without a gap, and the next process goes on behind it. Method: ten processes, each killed in the
/// middle of its work, at a moment that its own answers choose.
#[test]
fn what_was_called_safe_is_there_after_a_kill() {
    let scratch = Scratch::new("kill");
    let mut safe = 0;
    for round in 0..10 {
        let mut other = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer_to_a_folder", "--nocapture"])
            .env("STORE_FOLDER_TO_WRITE", &scratch.0)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(other.stdout.take().unwrap()).lines();
        let told = lines.filter_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("safe: ")?.parse::<u64>().ok()
        });
        let last = told.take(20 + round * 37).last().unwrap();
        assert!(last > safe);
        safe = last;
        other.kill().unwrap();
        other.wait().unwrap();
        let folder = Folder::open(&scratch.0).unwrap();
        let mut next = 1;
        let recovered = recover(&folder, &Keys::none(), 1, |found| {
            assert_eq!(found.part.seq, next);
            assert_eq!(found.part.bytes, next.to_le_bytes().repeat(20));
            next += 1;
        });
        assert_eq!(recovered.unwrap().report.damage, []);
        assert!(next > safe, "{safe} was safe, {} is there", next - 1);
    }
}
