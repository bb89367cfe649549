//! The long run: `tools/fuzz TARGET [SECONDS | FILE]`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs};

use bulkhead_fuzz::{TARGETS, Until, run, run_one};

/// Where the input lies that is being tried.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/fuzz");

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let told = match arguments.as_slice() {
        [name] => long(name, 60, None),
        [name, what] => match what.parse() {
            Ok(seconds) => long(name, seconds, None),
            Err(_) => file(name, Path::new(what)),
        },
        [name, seconds, seed] => match (seconds.parse(), seed.parse()) {
            (Ok(seconds), Ok(seed)) => long(name, seconds, Some(seed)),
            _ => usage(),
        },
        _ => usage(),
    };
    match told {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn long(name: &str, seconds: u64, seed: Option<u64>) -> Result<String, String> {
    let target = TARGETS.iter().find(|target| target.name == name);
    let Some(target) = target else {
        return usage();
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = seed.unwrap_or_else(|| now.map_or(1, |now| now.as_secs()));
    println!("{name}, seed {seed}, {seconds} s");
    let until = Until::Time(Duration::from_secs(seconds));
    let done =
        run(target, seed, until, Some(Path::new(FOLDER))).map_err(|broken| broken.to_string())?;
    Ok(format!(
        "{} inputs, {} different outcomes, nothing broke",
        done.inputs, done.outcomes
    ))
}

fn file(name: &str, path: &Path) -> Result<String, String> {
    let target = TARGETS.iter().find(|target| target.name == name);
    let Some(target) = target else {
        return usage();
    };
    let input = fs::read(path).map_err(|error| format!("cannot read {path:?}: {error}"))?;
    run_one(target, &input).map_err(|broken| broken.to_string())
}

fn usage() -> Result<String, String> {
    let names = TARGETS.map(|target| target.name).join(", ");
    Err(format!(
        "usage: tools/fuzz TARGET [SECONDS [SEED] | FILE], where TARGET is one of {names}"
    ))
}
