//! A freeze: how long it takes until all that works is gone, with a tool running in each session.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use protocol::channel::ChannelRequest;
use protocol::frame::Link;
use protocol::ids::{ConversationId, MessageId, SenderId, hex, random};
use protocol::supervisor::{SupervisorReply, SupervisorRequest};

use crate::connect::{Supervisor, terminal};
use crate::fault::Fault;
use crate::frozen;
use crate::scratch::Scratch;

/// Asks for a tool that runs on.
pub(super) const STAY: &str = "stay a while";

/// How long the tools may take to run, and to be gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at the processes.
const GLANCE: Duration = Duration::from_millis(2);

/// The command that runs on; its number is no other process' on this machine.
pub(super) fn command() -> String {
    format!("sleep 600.{}", std::process::id())
}

/// Freezes so many sessions so often, each with a running tool. Everything runs, and is to be allowed
/// [`command`] without a question.
pub(super) fn measure(
    scratch: &Scratch,
    sessions: usize,
    times: usize,
) -> Result<Vec<Duration>, Fault> {
    let mut took = Vec::with_capacity(times);
    for time in 0..times {
        if time > 0 {
            scratch.up()?;
        }
        took.push(freeze(scratch, sessions)?);
        scratch.down()?;
        // What is started next is not to be frozen.
        let mark = scratch.home().freeze_mark();
        fs::remove_file(&mark).map_err(Fault::io(format!("remove {mark:?}")))?;
    }
    Ok(took)
}

fn freeze(scratch: &Scratch, sessions: usize) -> Result<Duration, Fault> {
    // The link stays open, as those of people do.
    let link = terminal(scratch.home())?;
    for _ in 0..sessions {
        begin(&link)?;
    }
    wait_for(sessions)?;
    let supervisor = Supervisor::connect(scratch.home())?;
    let began = Instant::now();
    let reason = String::new();
    match supervisor.ask(&SupervisorRequest::Panic { reason })? {
        SupervisorReply::Frozen { left: 0, .. } => {}
        SupervisorReply::Frozen { left, .. } => {
            return Err(Fault::Refused(format!("{left} programs did not end")));
        }
        reply => return Err(frozen::refusal(reply)),
    }
    wait_for(0)?;
    Ok(began.elapsed())
}

/// Somebody new asks for the tool.
fn begin(link: &Link<ChannelRequest, protocol::channel::ChannelEvent>) -> Result<(), Fault> {
    let name = format!("c-{}", hex(&random::<8>()?));
    let id = |error: protocol::ids::BadId| Fault::Usage(error.to_string());
    link.send(&ChannelRequest::Inbound {
        message: MessageId::parse(name.clone()).map_err(id)?,
        sender: SenderId::parse(name.clone()).map_err(id)?,
        sender_name: "you".to_owned(),
        conversation: ConversationId::parse(name).map_err(id)?,
        text: STAY.to_owned(),
    })
    .map_err(Fault::link("the gateway"))
}

/// Waits until so many of the tools run.
fn wait_for(count: usize) -> Result<(), Fault> {
    let began = Instant::now();
    loop {
        let runs = running().map_err(Fault::io("look at the processes in /proc"))?;
        if runs == count {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            return Err(Fault::Refused(format!(
                "{runs} tools run instead of {count}"
            )));
        }
        thread::sleep(GLANCE);
    }
}

/// How many processes on this machine are the command itself.
fn running() -> std::io::Result<usize> {
    let line = format!("{}\0", command().replace(' ', "\0"));
    let is_it = |path: &Path| {
        // One that ended in between, or waits to be reaped, has no command line.
        fs::read(path.join("cmdline")).is_ok_and(|read| read == line.as_bytes())
    };
    let entries = fs::read_dir("/proc")?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| is_it(path)).count())
}
