//! Writes a format's sample: `cargo run -p casemate-store --example sample -- FOLDER [sealed]`.
//!
//! The folder is stored below `tests/samples` when a format is new, and never written again.

use casemate_store::{random, recover, Durability, Folder, Key, Keys, Log, Options, Part};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which folder?")?;
    let keys = match arguments.next() {
        None => Keys::none(),
        Some(_) => Keys::encrypted(Key::new(&[7; 32])?),
    };
    let options = Options {
        durability: Durability::Disk,
        segment_bytes: 600,
        random,
    };
    for run in 0..2 {
        let folder = Folder::open(&path)?;
        let recovered = recover(&folder, &keys, 1, |_| {})?;
        let mut log = Log::new(folder, options, recovered);
        for number in run * 10 + 1..=run * 10 + 10 {
            let texts = [0, 1, u16::MAX].map(|shard| (shard, text(number, shard)));
            let parts = texts.iter().map(|(shard, text)| Part {
                shard: *shard,
                seq: number * 10,
                bytes: text.as_bytes(),
            });
            log.commit(parts, &mut Vec::new())?;
        }
        if run == 0 {
            let second = log.sealed().nth(1).ok_or("no second segment")?;
            log.retire(&[second])?;
        }
    }
    Ok(())
}

fn text(number: u64, shard: u16) -> String {
    format!("commit {number}, shard {shard}")
}
