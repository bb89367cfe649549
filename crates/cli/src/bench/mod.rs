//! `bulkhead bench`: what the line costs, the model excluded.
//!
//! Each figure is measured together with what the machine itself takes for the least that has
//! to happen (one synced write, one process), so that figures of different machines, and of
//! busy hours, can be compared.

mod boxes;
mod decisions;
mod door;
mod freeze;
mod line;
mod machine;
mod measure;
mod peers;
mod rig;
mod tunnels;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use config::BaseUrl;
use protocol::supervisor::{ProgramState, ProgramStatus, SupervisorReply, SupervisorRequest};
use protocol::vault::SecretText;
use serde_json::json;

use crate::commands::channel;
use crate::config_text::{ConfigText, quoted};
use crate::connect::Supervisor;
use crate::fault::Fault;
use crate::output;
use crate::scratch::{Afterwards, Scratch, Speaker, StandIn};

pub(crate) use boxes::BoxExtent;
use door::DoorExtent;
use line::Line;
use machine::Memory;
use measure::{HEAD, Measure, Reached, all_reached};
pub(crate) use tunnels::TunnelExtent;

/// The token of the bot that the stand-in for Telegram knows.
const TOKEN: &str = "1000:bench";

/// Until the programs have done what they do after a start.
const SETTLE: Duration = Duration::from_secs(2);

/// How it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A table.
    Text,
    /// One line of JSON.
    Json,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Synced writes.
    syncs: usize,
    /// Processes.
    processes: usize,
    /// Starts of everything.
    starts: usize,
    /// Sessions.
    sessions: usize,
    /// Turns of each kind in each session, after its first one.
    turns: usize,
    /// Decisions about each of a few calls.
    decisions: usize,
    /// Sessions that are frozen, each with a running tool, and how often.
    frozen: (usize, usize),
    /// Boxes.
    boxes: BoxExtent,
    /// Answers through the door.
    door: DoorExtent,
    /// Ways out of them.
    tunnels: TunnelExtent,
}

impl Extent {
    /// Figures to be quoted.
    pub(crate) const FULL: Self = Self {
        syncs: 300,
        processes: 100,
        starts: 10,
        sessions: 10,
        turns: 20,
        decisions: 10_000,
        frozen: (50, 5),
        boxes: BoxExtent::SHORT,
        door: DoorExtent {
            answers: 40,
            tokens: 200,
        },
        tunnels: TunnelExtent::FULL,
    };

    /// Whether it works at all.
    pub(crate) const QUICK: Self = Self {
        syncs: 20,
        processes: 10,
        starts: 2,
        sessions: 2,
        turns: 3,
        decisions: 500,
        frozen: (10, 1),
        boxes: BoxExtent::QUICK,
        door: DoorExtent {
            answers: 3,
            tokens: 50,
        },
        tunnels: TunnelExtent::QUICK,
    };
}

/// What a missed target means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// It is shown.
    Show,
    /// The command fails.
    Demand,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Everything between a person and a model, and boxes by themselves.
    Line(Extent),
    /// Boxes, also against what others have.
    Boxes {
        /// How much.
        extent: BoxExtent,
        /// The socket of the Docker engine, if not its own default.
        docker: Option<PathBuf>,
    },
    /// The ways out of boxes.
    Tunnels(TunnelExtent),
}

/// Measures it and prints it.
pub(crate) fn run(
    form: Form,
    what: &What,
    targets: Targets,
    folder: Option<&Path>,
) -> Result<(), Fault> {
    let folder = folder.map_or_else(on_disk, Path::to_owned);
    let scratch = Scratch::new(&folder, "bench", Afterwards::Remove)?;
    let (measures, tables) = match what {
        What::Tunnels(extent) => {
            let mut measures = tunnels::measure(*extent)?;
            measures.extend(busy());
            (measures, Vec::new())
        }
        What::Line(extent) => {
            let (mut measures, memory) = measure_all(&scratch, *extent)?;
            let (boxes, notes) = boxes::measure(scratch.root(), extent.boxes)?;
            measures.extend(decisions::measure(extent.decisions)?);
            measures.extend(boxes);
            measures.extend(door::measure(extent.door)?);
            measures.extend(tunnels::measure(extent.tunnels)?);
            (measures, vec![(["PROGRAM", "MiB"], memory), (NOTES, notes)])
        }
        What::Boxes { extent, docker } => {
            let pressure = busy();
            let (mut measures, mut notes) = boxes::measure(scratch.root(), *extent)?;
            let (peers, found) = peers::measure(scratch.root(), *extent, docker.as_deref())?;
            measures.extend(peers);
            measures.extend(pressure);
            notes.extend(found);
            (measures, vec![(NOTES, notes)])
        }
    };
    match form {
        Form::Json => output::json(&measures)?,
        Form::Text => {
            let rows: Vec<_> = measures.iter().map(Measure::row).collect();
            output::table(HEAD, &rows)?;
            for (head, rows) in tables {
                output::line("")?;
                output::table(head, &rows)?;
            }
        }
    }
    match (targets, all_reached(&measures)) {
        (Targets::Demand, Reached::No) => Err(Fault::Said),
        (Targets::Demand, Reached::Yes) | (Targets::Show, _) => Ok(()),
    }
}

/// The head of what was compared.
const NOTES: [&str; 2] = ["COMPARED", "HOW"];

/// `TMPDIR`, or `/var/tmp`: unlike `/tmp` it is on a disk, as a home is.
fn on_disk() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

type Table = Vec<[String; 2]>;

fn measure_all(scratch: &Scratch, extent: Extent) -> Result<(Vec<Measure>, Table), Fault> {
    let model = model(scratch.root())?;
    let telegram = StandIn::start(
        "bulkhead-scripted-telegram",
        &[OsStr::new("--token"), OsStr::new(TOKEN)],
    )?;
    configure(scratch, &model, &telegram)?;
    let syncs = machine::syncs(scratch.root(), extent.syncs)
        .map_err(Fault::io(format!("write to {:?}", scratch.root())))?;
    let syncs = Measure::of_times("fdatasync", &syncs);
    let processes = machine::processes(extent.processes).map_err(Fault::io("start /bin/true"))?;
    let processes = Measure::of_times("fork_exec", &processes);
    let pressure = busy();

    let starts = Measure::of_times("up_to_ready", &starts(scratch, extent.starts)?);
    thread::sleep(SETTLE);
    let (memory, table) = memory(scratch)?;
    let url = BaseUrl::parse(model.url()).map_err(|error| Fault::Usage(error.to_string()))?;
    let turns = Line::new(Speaker::open(scratch.home())?, url).measure(extent)?;
    scratch.down()?;
    let freezes = freezes(scratch, extent.frozen)?;

    let (sync, process) = (syncs.p50, processes.p50);
    let mut measures = vec![
        syncs,
        processes,
        Measure::of_times("model_direct", &turns.direct),
        Measure::of("turn_no_tools", "ms", &turns.no_tools).against_disk(sync),
        Measure::of("turn_one_tool", "ms", &turns.one_tool).against(process),
        Measure::of("turn_first", "ms", &turns.first).against(process),
        starts,
        Measure::of_times("panic_to_gone", &freezes),
        match memory {
            Memory::Proportional(sum) => Measure::of("idle_pss", "MiB", &[sum]),
            Memory::Resident(sum) => {
                eprintln!(
                    "The kernel shows shares of memory (PSS) of these programs to root alone; \
                     this is the resident set (RSS), which counts shared pages several times."
                );
                Measure::of("idle_rss", "MiB", &[sum])
            }
        },
    ];
    measures.extend(pressure);
    Ok((measures, table))
}

/// What else the machine does.
fn busy() -> Option<Measure> {
    machine::pressure().map(|percent| Measure::of("cpu_pressure_avg10", "%", &[percent]))
}

/// A model that answers at once, with a call of `ls` where that is asked for.
fn model(root: &Path) -> Result<StandIn, Fault> {
    let text = json!({ "text": { "tokens": ["done"] } });
    let call = json!({ "name": "exec", "args": { "command": "ls" } });
    let stay = json!({ "name": "exec", "args": { "command": freeze::command() } });
    let script = json!({ "rules": [
        { "contains": line::ONE_TOOL, "steps": [{ "tool_calls": { "calls": [call] } }, text] },
        { "contains": line::NO_TOOLS, "steps": [text] },
        { "contains": freeze::STAY, "steps": [{ "tool_calls": { "calls": [stay] } }, text] },
    ] });
    let path = root.join("script.json");
    fs::write(&path, script.to_string()).map_err(Fault::io(format!("write {path:?}")))?;
    StandIn::start(
        "bulkhead-scripted-model",
        &[OsStr::new("--script"), path.as_os_str()],
    )
}

/// Everything that an ordinary installation has: the web page and Telegram.
fn configure(scratch: &Scratch, model: &StandIn, telegram: &StandIn) -> Result<(), Fault> {
    let home = scratch.home();
    scratch.configure(&format!(
        "[model]\napi = \"openai\"\nurl = \"{}\"\nname = \"scripted\"\n\
         [channel.web]\nport = {}\n",
        model.url(),
        free_port()?
    ))?;
    channel::add_telegram(home, SecretText::new(TOKEN.to_owned()))?;
    let mut text = ConfigText::read(home)?;
    text.set("channel.telegram", "api", &quoted(telegram.url()));
    text.save(home).map(drop)
}

fn free_port() -> Result<u16, Fault> {
    let bound = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
    let address = bound.and_then(|listener| listener.local_addr());
    Ok(address
        .map_err(Fault::io("find a free port on 127.0.0.1"))?
        .port())
}

/// Starts everything so many times; it runs afterwards.
fn starts(scratch: &Scratch, count: usize) -> Result<Vec<Duration>, Fault> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        if number > 0 {
            scratch.down()?;
        }
        let began = Instant::now();
        scratch.up()?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// Freezes everything, with so many sessions, so often. Nothing runs afterwards.
fn freezes(scratch: &Scratch, (sessions, times): (usize, usize)) -> Result<Vec<Duration>, Fault> {
    let mut text = ConfigText::read(scratch.home())?;
    text.set(
        "policy",
        "allow",
        &format!("[{}]", quoted(&freeze::command())),
    );
    text.save(scratch.home())?;
    scratch.up()?;
    freeze::measure(scratch, sessions, times)
}

/// What all programs take while nobody wants anything. No agent runs then.
fn memory(scratch: &Scratch) -> Result<(Memory, Table), Fault> {
    let reply = Supervisor::connect(scratch.home())?.ask(&SupervisorRequest::Status)?;
    let SupervisorReply::Status { pid, programs, .. } = reply else {
        return Err(Fault::Unexpected("the supervisor"));
    };
    let running = |program: ProgramStatus| match program.state {
        ProgramState::Running { pid, .. } => Ok((program.name, pid)),
        ProgramState::Starting { .. }
        | ProgramState::Waiting { .. }
        | ProgramState::Frozen
        | ProgramState::Failed { .. } => {
            Err(Fault::Refused(format!("{} does not run", program.name)))
        }
    };
    let mut named = vec![("bulkhead-supervisor".to_owned(), pid)];
    for program in programs {
        named.push(running(program)?);
    }
    let pids: Vec<u32> = named.iter().map(|(_, pid)| *pid).collect();
    let (memory, each) = machine::memory(&pids).map_err(Fault::io("read memory from /proc"))?;
    let row = |((name, _), mib): ((String, u32), f64)| [name, format!("{mib:.2}")];
    Ok((memory, named.into_iter().zip(each).map(row).collect()))
}
