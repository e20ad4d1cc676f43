//! `plant`: plants known faults into a copy of the engine, and shows that the simulator finds each.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a program; its output is what it is for"
)]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// How to use the program.
const USAGE: &str = "\
usage: plant [--seeds N] [--ticks N] [--jobs N] [--check] [NAME ...]
  --seeds N    seeds that are tried for each fault (default 6000)
  --ticks N    length of each run in ticks (default 3000)
  --jobs N     threads of the simulator (default 2)
  --check      only checks that each fault still applies; builds and runs nothing
  NAME         plants only the faults whose file names begin like this";

/// The crates that the copy consists of.
const CRATES: [&str; 4] = ["codec", "engine", "sim", "store"];

/// One fault as its file describes it.
struct Fault {
    name: String,
    /// File that it is planted into, from the root of the project.
    file: PathBuf,
    /// Names of the invariants that may find it.
    finds: Vec<String>,
    find: String,
    replace: String,
}

/// What was asked for.
struct Wishes {
    seeds: u64,
    ticks: u64,
    jobs: u64,
    only_checks: bool,
    names: Vec<String>,
}

/// What the simulator said.
struct Finding {
    seed: String,
    ticks: String,
    invariant: String,
}

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match work() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::from(2)
        }
    }
}

/// Plants every fault; true where each was found.
fn work() -> Fallible<bool> {
    let Some(wishes) = parse()? else {
        println!("{USAGE}");
        return Ok(true);
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    let faults = read_faults(&root.join("crates/sim/faults"), &wishes.names)?;
    for fault in &faults {
        let text = fs::read_to_string(root.join(&fault.file))?;
        let places = text.matches(&fault.find).count();
        if places != 1 {
            return Err(format!("{}: its text is in {places} places", fault.name).into());
        }
    }
    println!("{} faults apply", faults.len());
    if wishes.only_checks {
        return Ok(true);
    }
    let tree = root.join("target/plant/tree");
    copy_tree(&root, &tree)?;
    let sound = simulate(&tree, &wishes)?;
    if let Some(finding) = sound {
        return Err(format!("without a fault, seed {} fails", finding.seed).into());
    }
    println!(
        "{:<34} {:>6} {:>7} {:>6}  invariant",
        "fault", "seed", "ticks", "s"
    );
    let mut all = true;
    for fault in &faults {
        all &= plant(&root, &tree, fault, &wishes)?;
    }
    Ok(all)
}

/// Reads the command line; `None` where only the usage was asked for.
fn parse() -> Fallible<Option<Wishes>> {
    let mut wishes = Wishes {
        seeds: 6_000,
        ticks: 3_000,
        jobs: 2,
        only_checks: false,
        names: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Fallible<u64> {
            let value = arguments
                .next()
                .ok_or(format!("{argument} needs a value"))?;
            Ok(value.parse()?)
        };
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--check" => wishes.only_checks = true,
            "--seeds" => wishes.seeds = number()?,
            "--ticks" => wishes.ticks = number()?,
            "--jobs" => wishes.jobs = number()?,
            option if option.starts_with('-') => return Err(format!("unknown {option}").into()),
            name => wishes.names.push(name.to_owned()),
        }
    }
    Ok(Some(wishes))
}

/// Reads the fault files, in the order of their names.
fn read_faults(folder: &Path, names: &[String]) -> Fallible<Vec<Fault>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut faults = Vec::new();
    for path in paths {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let wanted = names.is_empty() || names.iter().any(|wanted| name.starts_with(wanted));
        if wanted {
            faults.push(read_fault(name, &fs::read_to_string(&path)?)?);
        }
    }
    Ok(faults)
}

/// Reads one fault: lines `file:`, `finds:` and `why:`, then the two texts.
fn read_fault(name: String, text: &str) -> Fallible<Fault> {
    let missing = |what: &str| format!("{name}: {what} is missing");
    let (head, rest) = text
        .split_once("\n--- find\n")
        .ok_or_else(|| missing("--- find"))?;
    let (find, replace) = rest
        .split_once("--- replace\n")
        .ok_or_else(|| missing("--- replace"))?;
    let field = |key: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
            .map(str::to_owned)
    };
    field("why:").ok_or_else(|| missing("why:"))?;
    let finds = field("finds:").ok_or_else(|| missing("finds:"))?;
    Ok(Fault {
        file: field("file:").ok_or_else(|| missing("file:"))?.into(),
        finds: finds.split_whitespace().map(str::to_owned).collect(),
        find: find.to_owned(),
        replace: replace.to_owned(),
        name,
    })
}

/// Brings the copy of the crates up to date, without touching what has not changed.
fn copy_tree(root: &Path, tree: &Path) -> Fallible<()> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let members = CRATES.map(|name| format!("\"crates/{name}\"")).join(", ");
    let lines = manifest.lines().map(|line| match line {
        line if line.starts_with("members = ") => format!("members = [{members}]"),
        line if line.starts_with("exclude = ") => String::new(),
        line => line.to_owned(),
    });
    let manifest: Vec<String> = lines.collect();
    write_if_new(&tree.join("Cargo.toml"), manifest.join("\n").as_bytes())?;
    write_if_new(
        &tree.join("Cargo.lock"),
        &fs::read(root.join("Cargo.lock"))?,
    )?;
    for name in CRATES {
        let folder = Path::new("crates").join(name);
        copy_folder(&root.join(&folder), &tree.join(&folder))?;
    }
    Ok(())
}

/// Copies a folder; files that the original no longer has are removed.
fn copy_folder(from: &Path, to: &Path) -> Fallible<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        let is_stale = !from.join(entry.file_name()).exists();
        if is_stale && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else if is_stale {
            fs::remove_file(entry.path())?;
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            write_if_new(&target, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Writes a file unless it already says the same, so that cargo builds only what changed.
fn write_if_new(path: &Path, bytes: &[u8]) -> Fallible<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, bytes)?)
}

/// Plants one fault, runs the simulator, takes the fault away; true where it was found.
fn plant(root: &Path, tree: &Path, fault: &Fault, wishes: &Wishes) -> Fallible<bool> {
    let started = Instant::now();
    let sound = fs::read_to_string(root.join(&fault.file))?;
    let planted = sound.replacen(&fault.find, &fault.replace, 1);
    fs::write(tree.join(&fault.file), planted)?;
    let finding = simulate(tree, wishes);
    fs::write(tree.join(&fault.file), sound)?;
    let seconds = started.elapsed().as_secs();
    let name = &fault.name;
    let Some(Finding {
        seed,
        ticks,
        invariant,
    }) = finding?
    else {
        println!("{name:<34} {:>6} {:>7} {seconds:>6}  NOT FOUND", "-", "-");
        return Ok(false);
    };
    let expected = fault.finds.contains(&invariant);
    let note = if expected {
        ""
    } else {
        "  (another one was expected)"
    };
    println!("{name:<34} {seed:>6} {ticks:>7} {seconds:>6}  {invariant}{note}");
    Ok(expected)
}

/// Builds the copy and runs its simulator; `None` where every seed passes.
fn simulate(tree: &Path, wishes: &Wishes) -> Fallible<Option<Finding>> {
    let target = tree.join("../target");
    let built = Command::new("cargo")
        .args([
            "build",
            "--quiet",
            "--package",
            "casemate-sim",
            "--bin",
            "casemate-sim",
        ])
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "--cap-lints allow")
        .output()?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned().into());
    }
    let run = Command::new(target.join("debug/casemate-sim"))
        .args(["--seeds", &format!("0..{}", wishes.seeds)])
        .args(["--ticks", &wishes.ticks.to_string()])
        .args(["--jobs", &wishes.jobs.to_string(), "--no-shrink"])
        .output()?;
    if run.status.success() {
        return Ok(None);
    }
    let told = String::from_utf8_lossy(&run.stderr).into_owned();
    let mut lines = told
        .lines()
        .skip_while(|line| !line.contains(" failed after "));
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let invariant = lines
        .next()
        .and_then(|line| line.split(' ').next())
        .unwrap_or_default();
    if words.len() < 5 || invariant.is_empty() {
        return Err(format!("the simulator ended badly: {told}").into());
    }
    Ok(Some(Finding {
        seed: words[1].to_owned(),
        ticks: words[4].to_owned(),
        invariant: invariant.to_owned(),
    }))
}
