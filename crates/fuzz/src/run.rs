//! Trying one input after the other.

use std::any::Any;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, panic};

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::Target;
use crate::mutate::Mutator;

/// The most that one input may cost: seconds of the processor, which do not depend on what else runs.
const MOST_SECONDS: i64 = 5;

/// What all of the process may take, in bytes. One that takes more ends.
const MOST_MEMORY: u64 = 1 << 30;

/// How often, and for how long, a shorter input is tried in place of one that broke something.
const SHORTER: usize = 2000;
const SHORTER_TIME: Duration = Duration::from_secs(30);

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After so many inputs.
    Inputs(u64),
    /// After so long.
    Time(Duration),
}

/// Nothing broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// How many inputs were tried.
    pub inputs: u64,
    /// How many different things came of them.
    pub outcomes: usize,
}

/// Something does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The input is a literal of Rust, to be pasted into a test.
    #[error(
        "{target}, seed {seed}, input {number}: {problem}\n    b\"{}\"\n  shorter:\n    b\"{}\"",
        .input.escape_ascii(), .shorter.escape_ascii()
    )]
    Input {
        /// Which target.
        target: &'static str,
        /// With which the same inputs are made again.
        seed: u64,
        /// Counted from 0; first the seeds themselves.
        number: u64,
        /// The input.
        input: Vec<u8>,
        /// The same without what is not needed to break something.
        shorter: Vec<u8>,
        /// What does not hold.
        problem: String,
    },
    /// The inputs cannot be kept, or memory cannot be limited.
    #[error("cannot prepare {0}")]
    Io(String, #[source] io::Error),
}

/// Tries inputs. The one that is being tried lies in `folder`, if there is one, for when it ends the process
/// or the process has to be ended.
pub fn run(
    target: &Target,
    seed: u64,
    until: Until,
    folder: Option<&Path>,
) -> Result<Done, Broken> {
    let last = folder.map(|folder| Last::new(folder, target)).transpose()?;
    let most = Some(MOST_MEMORY);
    let limit = Rlimit {
        current: most,
        maximum: most,
    };
    setrlimit(Resource::As, limit)
        .map_err(|error| Broken::Io("the limit of memory".to_owned(), error.into()))?;

    let begin = Instant::now();
    let seeds = (target.seeds)();
    let mut mutator = Mutator::new(seed, seeds.clone(), target.words);
    let mut seeds = seeds.into_iter();
    let mut outcomes = HashSet::new();
    let mut number = 0;
    while match until {
        Until::Inputs(most) => number < most,
        Until::Time(most) => begin.elapsed() < most,
    } {
        let (input, is_new) = match seeds.next() {
            Some(seed) => (seed, false),
            None => (mutator.make(), true),
        };
        if let Some(last) = &last {
            last.write(&input)?;
        }
        match one(target, &input) {
            Ok(outcome) => {
                if outcomes.insert(outcome) && is_new {
                    mutator.keep(input);
                }
            }
            Err(problem) => {
                return Err(Broken::Input {
                    target: target.name,
                    seed,
                    number,
                    shorter: shorter(target, input.clone()),
                    input,
                    problem,
                });
            }
        }
        number += 1;
    }
    Ok(Done {
        inputs: number,
        outcomes: outcomes.len(),
    })
}

/// The input that is being tried.
struct Last {
    path: PathBuf,
    file: File,
}

impl Last {
    fn new(folder: &Path, target: &Target) -> Result<Self, Broken> {
        let path = folder.join(format!("{}.last", target.name));
        match fs::create_dir_all(folder).and_then(|()| File::create(&path)) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(Broken::Io(format!("{path:?}"), error)),
        }
    }

    fn write(&self, input: &[u8]) -> Result<(), Broken> {
        let Self { path, file } = self;
        file.set_len(0)
            .and_then(|()| file.write_all_at(input, 0))
            .map_err(|error| Broken::Io(format!("{path:?}"), error))
    }
}

/// Tries this input alone, and says what came of it.
pub fn run_one(target: &Target, input: &[u8]) -> Result<String, Broken> {
    one(target, input).map_err(|problem| Broken::Input {
        target: target.name,
        seed: 0,
        number: 0,
        shorter: shorter(target, input.to_vec()),
        input: input.to_vec(),
        problem,
    })
}

fn one(target: &Target, input: &[u8]) -> Result<String, String> {
    let before = processor();
    let outcome = panic::catch_unwind(|| (target.check)(input)).map_err(|panic| words_of(&*panic));
    match processor() - before {
        seconds if seconds >= MOST_SECONDS => Err(format!("it took {seconds} s of the processor")),
        _ => outcome,
    }
}

/// Seconds of the processor that this thread has used.
fn processor() -> i64 {
    clock_gettime(ClockId::ThreadCPUTime).tv_sec
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked without words").to_owned()
}

/// Takes away from an input what is not needed for it to break something.
fn shorter(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let mut length = input.len() / 2;
    let mut tries = 0;
    let begin = Instant::now();
    let is_enough = |tries| tries >= SHORTER || begin.elapsed() >= SHORTER_TIME;
    while length > 0 && !is_enough(tries) {
        let mut at = 0;
        while at < input.len() && !is_enough(tries) {
            let mut less = input.clone();
            less.drain(at..input.len().min(at + length));
            match one(target, &less) {
                Ok(_) => at += length,
                Err(_) => input = less,
            }
            tries += 1;
        }
        length /= 2;
    }
    panic::set_hook(hook);
    input
}
