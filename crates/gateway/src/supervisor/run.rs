//! The loop: deaths, reports, requests of `bulkhead`, signals, and the end.

use std::collections::BTreeSet;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use protocol::control::{Control, Peer, Report};
use protocol::frame::Link;
use protocol::ids::SessionId;
use protocol::rules::RulesNews;
use protocol::supervisor::{ProgramState, ProgramStatus, SupervisorReply, SupervisorRequest};
use protocol::time::Millis;

use super::StartError;
use super::backoff::{Backoff, Relinks, Verdict};
use super::child::{Child, ChildEvent, link};
use super::plan::{LAST_ROUND, Plan, agent, programs_folder, told};
use super::watch::Watch;

/// How long programs get to end by themselves before they are killed.
const GRACE: Duration = Duration::from_secs(3);

/// The most agents at once.
const MAX_AGENTS: usize = 64;

/// How long `bulkhead` may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The most connections of `bulkhead` at once.
const MAX_REQUESTS: usize = 64;

/// Events that may wait. A program that reports faster than it is heard has to wait itself.
const MAX_EVENTS: usize = 64;

type Requester = Link<SupervisorReply, SupervisorRequest>;

enum Event {
    Child(Peer, u64, ChildEvent),
    Asked(SupervisorRequest, Requester),
    Signal,
}

/// A program and where it stands.
struct Slot {
    plan: Plan,
    state: State,
    backoff: Backoff,
    relinks: Relinks,
    restarts: u32,
}

enum State {
    Starting(Child),
    Running(Child, Millis),
    Waiting { until: Instant, last: String },
    Failed { last: String },
}

impl Slot {
    fn child(&self) -> Option<&Child> {
        match &self.state {
            State::Starting(child) | State::Running(child, _) => Some(child),
            State::Waiting { .. } | State::Failed { .. } => None,
        }
    }

    fn status(&self) -> ProgramStatus {
        let state = match &self.state {
            State::Starting(child) => ProgramState::Starting { pid: child.pid },
            State::Running(child, since) => ProgramState::Running {
                pid: child.pid,
                since: *since,
            },
            State::Waiting { until, last } => ProgramState::Waiting {
                until: Millis::now().after(until.saturating_duration_since(Instant::now())),
                last: last.clone(),
            },
            State::Failed { last } => ProgramState::Failed { last: last.clone() },
        };
        ProgramStatus {
            name: self.plan.name.to_owned(),
            state,
            restarts: self.restarts,
        }
    }
}

/// All programs.
pub(super) struct Supervisor {
    slots: Vec<Slot>,
    programs: PathBuf,
    watch: Watch,
    /// Sessions that want an agent while their earlier one is still ending.
    wanted_again: BTreeSet<SessionId>,
    starts: u64,
    children: SyncSender<(Peer, u64, ChildEvent)>,
    events: Receiver<Event>,
    sender: SyncSender<Event>,
}

impl Supervisor {
    /// Starts nothing yet.
    pub(super) fn new(plans: Vec<Plan>, watch: Watch) -> Result<Self, StartError> {
        let (sender, events) = sync_channel(MAX_EVENTS);
        let (children, from_children) = sync_channel(MAX_EVENTS);
        let onward = sender.clone();
        spawn("children", move || {
            for (peer, start, event) in from_children {
                if onward.send(Event::Child(peer, start, event)).is_err() {
                    return;
                }
            }
        })?;
        let onward = sender.clone();
        spawn("signals", move || {
            while sandbox::signals::wait_for_stop().is_ok() && onward.send(Event::Signal).is_ok() {}
        })?;
        let slots = plans.into_iter().map(|plan| Slot {
            plan,
            state: State::Waiting {
                until: Instant::now(),
                last: "not started yet".to_owned(),
            },
            backoff: Backoff::default(),
            relinks: Relinks::default(),
            restarts: 0,
        });
        Ok(Self {
            slots: slots.collect(),
            programs: programs_folder()?,
            watch,
            wanted_again: BTreeSet::new(),
            starts: 0,
            children,
            events,
            sender,
        })
    }

    /// Starts all programs and keeps them alive, until a signal or `bulkhead down`.
    pub(super) fn run(mut self, requests: UnixListener) -> Result<(), StartError> {
        let sender = self.sender.clone();
        spawn("requests", move || accept(&requests, &sender))?;
        loop {
            let next = self.start_those_due();
            self.look_at_rules();
            let look = self.watch.next();
            match self.wait(Some(next.map_or(look, |next| next.min(look)))) {
                None => {}
                Some(Event::Child(peer, start, event)) => self.child_event(&peer, start, event),
                Some(Event::Asked(SupervisorRequest::Status, to)) => {
                    let programs = self.slots.iter().map(Slot::status).collect();
                    answer(
                        &to,
                        &SupervisorReply::Status {
                            pid: std::process::id(),
                            programs,
                        },
                    );
                }
                Some(Event::Asked(SupervisorRequest::Down, to)) => {
                    self.stop();
                    answer(&to, &SupervisorReply::Stopped);
                    return Ok(());
                }
                Some(Event::Signal) => {
                    self.stop();
                    return Ok(());
                }
            }
        }
    }

    /// Tells whoever has to know that the owner changed the rules, and remembers it for its next start.
    fn look_at_rules(&mut self) {
        let Some(news) = self.watch.look() else {
            return;
        };
        for slot in &mut self.slots {
            match (&slot.plan.peer, &news) {
                (Peer::Gateway, RulesNews::Changed { rules }) => {
                    slot.plan.config["rules"] = told(rules);
                }
                (Peer::Workspace, RulesNews::Changed { rules }) => {
                    slot.plan.config["read_only"] = told(&rules.read_only);
                }
                (Peer::Egress, RulesNews::Changed { rules }) => {
                    slot.plan.config["rules"] = told(&rules.egress);
                }
                (Peer::Gateway | Peer::Workspace | Peer::Egress, _) => {}
                _ => continue,
            }
            if let Some(program) = slot.child() {
                // One that is just dying is told when it is started again.
                let _ = program.tell(&Control::Rules { news: news.clone() });
            }
        }
    }

    /// The next event, or none if `until` comes first.
    fn wait(&self, until: Option<Instant>) -> Option<Event> {
        // Without a date there is still a senders' side, which this struct holds itself.
        let limit = until.map_or(Duration::from_secs(3600), |at| {
            at.saturating_duration_since(Instant::now())
        });
        self.events.recv_timeout(limit).ok()
    }

    /// Starts what waits and is due; when the next one is.
    fn start_those_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for index in 0..self.slots.len() {
            let State::Waiting { until, .. } = &self.slots[index].state else {
                continue;
            };
            if *until > now {
                next = Some(next.map_or(*until, |earlier| earlier.min(*until)));
            } else {
                self.start(index);
            }
        }
        next
    }

    fn start(&mut self, index: usize) {
        self.starts += 1;
        let slot = &mut self.slots[index];
        match Child::start(&slot.plan, self.starts, &self.children) {
            Ok(child) => {
                slot.state = State::Starting(child);
                self.link_with_all(index);
            }
            Err(error) => {
                let last = format!(
                    "cannot be started from {}: {error}",
                    slot.plan.path.display()
                );
                eprintln!("bulkhead-supervisor: {} {last}", slot.plan.name);
                slot.state = State::Failed { last };
            }
        }
    }

    /// Links a program that was just started with each living one that it has to do with.
    fn link_with_all(&self, index: usize) {
        for other in (0..self.slots.len()).filter(|other| *other != index) {
            self.link_two(index, other);
        }
    }

    fn link_two(&self, one: usize, other: usize) {
        let (one, other) = (&self.slots[one], &self.slots[other]);
        let due =
            one.plan.links.contains(&other.plan.peer) || other.plan.links.contains(&one.plan.peer);
        let (true, Some(a), Some(b)) = (due, one.child(), other.child()) else {
            return;
        };
        if let Err(error) = link((&one.plan.peer, a), (&other.plan.peer, b)) {
            eprintln!(
                "bulkhead-supervisor: cannot link {} and {}: {error}",
                one.plan.name, other.plan.name
            );
        }
    }

    fn index(&self, peer: &Peer) -> Option<usize> {
        self.slots.iter().position(|slot| slot.plan.peer == *peer)
    }

    fn child_event(&mut self, peer: &Peer, start: u64, event: ChildEvent) {
        let Some(index) = self.index(peer) else {
            return;
        };
        // What an earlier start of the same program still had to say is history.
        if self.slots[index]
            .child()
            .is_none_or(|child| child.start != start)
        {
            return;
        }
        match event {
            ChildEvent::Gone(how) => self.gone(index, how),
            ChildEvent::Said(report) => self.said(index, report),
        }
    }

    fn gone(&mut self, index: usize, how: String) {
        if let Peer::Agent(session) = self.slots[index].plan.peer.clone() {
            // The gateway sees its link close, and asks for another one when it needs it.
            self.slots.remove(index);
            if self.wanted_again.remove(&session) {
                self.start_agent(session);
            }
            return;
        }
        let slot = &mut self.slots[index];
        eprintln!("bulkhead-supervisor: {} {how}", slot.plan.name);
        slot.state = match slot.backoff.died(Instant::now()) {
            Verdict::Wait(wait) => {
                slot.restarts += 1;
                State::Waiting {
                    until: Instant::now() + wait,
                    last: how,
                }
            }
            Verdict::GiveUp => {
                let last = format!(
                    "{how}, and kept doing so; it is not started again. Its own words are above or in the log"
                );
                eprintln!("bulkhead-supervisor: {} {last}", slot.plan.name);
                State::Failed { last }
            }
        };
    }

    fn said(&mut self, index: usize, report: Report) {
        let from_gateway = self.slots[index].plan.peer == Peer::Gateway;
        let slot = &mut self.slots[index];
        match report {
            Report::Ready => {
                slot.state = match std::mem::replace(
                    &mut slot.state,
                    State::Failed {
                        last: String::new(),
                    },
                ) {
                    State::Starting(child) => State::Running(child, Millis::now()),
                    other => other,
                };
            }
            Report::Failed { reason } => self.give_up(index, reason),
            Report::StartAgent { session } if from_gateway => self.start_agent(session),
            Report::StopAgent { session } if from_gateway => {
                self.wanted_again.remove(&session);
                let agent = self.index(&Peer::Agent(session));
                agent
                    .and_then(|index| self.slots[index].child())
                    .inspect(|child| child.kill());
            }
            Report::Relink { peer } => match slot.relinks.allow(Instant::now()) {
                true => {
                    if let Some(other) = self.index(&peer) {
                        self.link_two(index, other);
                    }
                }
                false => self.give_up(index, "asked for links without end".to_owned()),
            },
            Report::StartAgent { .. } | Report::StopAgent { .. } => {
                self.give_up(index, "asked for what only the gateway may ask".to_owned());
            }
        }
    }

    /// Stops a program that cannot or must not go on, and does not start it again. An agent
    /// is forgotten when it is gone; its session may have another one.
    fn give_up(&mut self, index: usize, last: String) {
        let slot = &mut self.slots[index];
        eprintln!("bulkhead-supervisor: {}: {last}", slot.plan.name);
        slot.child().inspect(|child| child.kill());
        if !matches!(slot.plan.peer, Peer::Agent(_)) {
            slot.state = State::Failed { last };
        }
    }

    fn start_agent(&mut self, session: SessionId) {
        let peer = Peer::Agent(session.clone());
        let agents = self
            .slots
            .iter()
            .filter(|slot| matches!(slot.plan.peer, Peer::Agent(_)))
            .count();
        if self.index(&peer).is_some() {
            self.wanted_again.insert(session);
            return;
        }
        let reason = if agents >= MAX_AGENTS {
            "too many agents are at work; try again when one is done"
        } else {
            let index = self.slots.len();
            let state = State::Waiting {
                until: Instant::now(),
                last: String::new(),
            };
            let plan = agent(&self.programs, peer.clone());
            self.slots.push(Slot {
                plan,
                state,
                backoff: Backoff::default(),
                relinks: Relinks::default(),
                restarts: 0,
            });
            self.start(index);
            match self.slots[index].child() {
                Some(_) => return,
                None => {
                    self.slots.remove(index);
                    "its program cannot be started"
                }
            }
        };
        if let Some(gateway) = self
            .index(&Peer::Gateway)
            .and_then(|index| self.slots[index].child())
        {
            // A gateway that is just dying asks again when it is back.
            let _ = gateway.tell(&Control::NoAgent {
                session,
                reason: reason.to_owned(),
            });
        }
    }

    /// Stops everything in order: who takes messages first, who writes the record last.
    fn stop(&mut self) {
        for round in 0..=LAST_ROUND {
            let in_round = |slot: &&Slot| slot.plan.stop_round == round;
            for child in self.slots.iter().filter(in_round).filter_map(Slot::child) {
                // A program that does not take it is killed below.
                let _ = child.tell(&Control::Stop);
            }
            let deadline = Instant::now() + GRACE;
            while self
                .slots
                .iter()
                .filter(in_round)
                .any(|slot| slot.child().is_some())
            {
                if Instant::now() >= deadline {
                    self.slots
                        .iter()
                        .filter(in_round)
                        .filter_map(Slot::child)
                        .for_each(Child::kill);
                }
                let look_again = deadline.max(Instant::now() + Duration::from_millis(50));
                match self.wait(Some(look_again)) {
                    Some(Event::Child(peer, start, ChildEvent::Gone(_))) => {
                        self.stopped(&peer, start)
                    }
                    Some(Event::Asked(_, to)) => to.close(),
                    Some(Event::Child(_, _, ChildEvent::Said(_)) | Event::Signal) | None => {}
                }
            }
        }
    }

    fn stopped(&mut self, peer: &Peer, start: u64) {
        if let Some(index) = self.index(peer)
            && self.slots[index]
                .child()
                .is_some_and(|child| child.start == start)
        {
            self.slots[index].state = State::Failed {
                last: "stopped".to_owned(),
            };
        }
    }
}

/// Takes connections of `bulkhead`, one thread each, so that a slow one holds nobody up.
fn accept(listener: &UnixListener, events: &SyncSender<Event>) {
    let open = std::sync::Arc::new(());
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if std::sync::Arc::strong_count(&open) > MAX_REQUESTS {
            continue;
        }
        let (events, guard) = (events.clone(), open.clone());
        // Without a thread there is no answer; the connection closes, which `bulkhead` reports.
        let _ = spawn("request", move || {
            let _guard = guard;
            read_requests(stream, &events);
        });
    }
}

fn read_requests(stream: UnixStream, events: &SyncSender<Event>) {
    let link = Requester::new(stream);
    if link.set_timeout(Some(REQUEST_TIMEOUT)).is_err() {
        return;
    }
    while let Ok(request) = link.receive() {
        let Ok(to) = link.try_clone() else { return };
        // The loop has ended if this fails, and with it everything.
        if events.send(Event::Asked(request, to)).is_err() {
            return;
        }
    }
}

fn answer(to: &Requester, reply: &SupervisorReply) {
    // Who asked may be gone; that is their business.
    let _ = to.send(reply);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(128 * 1024)
        .spawn(work);
    thread
        .map(drop)
        .map_err(StartError::system("start a thread"))
}
