//! The loop: deaths, reports, requests of `bulkhead`, signals, and the end.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use protocol::control::{Control, Peer, Report};
use protocol::ids::{PublicKey, SessionId};
use protocol::rules::RulesNews;
use protocol::supervisor::{ProgramState, ProgramStatus, SupervisorReply};
use protocol::time::Millis;

use super::StartError;
use super::backoff::{Backoff, Relinks, Verdict};
use super::child::{Child, ChildEvent, link};
use super::freeze::{Fate, Switch, fate};
use super::plan::{LAST_ROUND, Plan, agent, programs_folder, told};
use super::requests::{Ask, Requester, accept, answer};
use super::resume::Resuming;
use super::rules::Checker;
use super::watch::{self, Found, Watch};

/// How long programs get to end by themselves before they are killed.
const GRACE: Duration = Duration::from_secs(3);

/// The most agents at once.
const MAX_AGENTS: usize = 64;

/// The stack of the thread that reads the configuration, in bytes; as large as that of the thread
/// that read it first.
const LOOK_STACK: usize = 8 * 1024 * 1024;

/// Events that may wait. A program that reports faster than it is heard has to wait itself.
const MAX_EVENTS: usize = 64;

/// What reaches the loop.
pub(super) enum Event {
    /// A program did something.
    Child(Peer, u64, ChildEvent),
    /// `bulkhead` wants something.
    Asked(Ask, Requester),
    /// Somebody looked at the configuration.
    Looked(Found),
    /// Everything is being frozen, by whoever read the request and waits to hear that this was heard.
    Thrown(SyncSender<()>),
    /// It is to end.
    Signal,
}

/// A program and where it stands.
pub(super) struct Slot {
    pub(super) plan: Plan,
    pub(super) state: State,
    pub(super) backoff: Backoff,
    relinks: Relinks,
    restarts: u32,
}

pub(super) enum State {
    Starting(Child),
    Running(Child, Millis),
    Waiting {
        until: Instant,
        last: String,
    },
    /// Until the freeze ends.
    Frozen,
    Failed {
        last: String,
    },
}

impl Slot {
    pub(super) fn child(&self) -> Option<&Child> {
        match &self.state {
            State::Starting(child) | State::Running(child, _) => Some(child),
            State::Waiting { .. } | State::Frozen | State::Failed { .. } => None,
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
            State::Frozen => ProgramState::Frozen,
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
    pub(super) slots: Vec<Slot>,
    pub(super) switch: Switch,
    /// Who waits for the end of the freeze.
    pub(super) resuming: Option<Resuming>,
    /// Whose signature ends a freeze.
    pub(super) operator: PublicKey,
    programs: PathBuf,
    watch: Watch,
    checker: Checker,
    /// Sessions that want an agent while their earlier one is still ending.
    pub(super) wanted_again: BTreeSet<SessionId>,
    starts: u64,
    children: SyncSender<(Peer, u64, ChildEvent)>,
    events: Receiver<Event>,
    sender: SyncSender<Event>,
}

impl Supervisor {
    /// Starts nothing yet.
    pub(super) fn new(
        plans: Vec<Plan>,
        watch: Watch,
        checker: Checker,
        switch: Switch,
        operator: PublicKey,
    ) -> Result<Self, StartError> {
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
            switch,
            resuming: None,
            operator,
            programs: programs_folder()?,
            watch,
            checker,
            wanted_again: BTreeSet::new(),
            starts: 0,
            children,
            events,
            sender,
        })
    }

    /// Starts all programs and keeps them alive, until a signal or `bulkhead down`.
    pub(super) fn run(mut self, requests: UnixListener) -> Result<(), StartError> {
        let (sender, switch, operator) = (self.sender.clone(), self.switch.clone(), self.operator);
        spawn("requests", move || {
            accept(&requests, &sender, &switch, operator)
        })?;
        self.say_frozen();
        loop {
            let next = self.start_those_due();
            self.look_at_rules();
            self.give_up_resuming();
            let look = self.watch.next();
            match self.wait(Some(next.map_or(look, |next| next.min(look)))) {
                None => {}
                Some(Event::Child(peer, start, event)) => self.child_event(&peer, start, event),
                Some(Event::Thrown(heard)) => {
                    self.frozen();
                    // Whoever waits does so for a moment only.
                    let _ = heard.try_send(());
                    self.say_frozen();
                }
                Some(Event::Looked(found)) => self.looked(found),
                Some(Event::Asked(Ask::Status, to)) => {
                    let programs = self.slots.iter().map(Slot::status).collect();
                    answer(
                        &to,
                        &SupervisorReply::Status {
                            pid: std::process::id(),
                            programs,
                            frozen: self.switch.status(),
                        },
                    );
                }
                Some(Event::Asked(Ask::Resume { since }, to)) => self.resume(since, to),
                Some(Event::Asked(Ask::Down, to)) => {
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

    /// Has the configuration looked at, if it is time, by a thread that can wait for the program
    /// that checks rules.
    fn look_at_rules(&mut self) {
        let Some(home) = self.watch.look() else {
            return;
        };
        let (checker, sender) = (self.checker.clone(), self.sender.clone());
        let look = move || {
            let found = watch::read(&home, |rules| checker.check(rules));
            // The loop has ended if this fails, and with it everything.
            let _ = sender.send(Event::Looked(found));
        };
        if let Err(error) = spawn_with(LOOK_STACK, "look", look) {
            self.looked(Err(error.to_string()));
        }
    }

    /// Tells whoever has to know that the owner changed the rules, and remembers it for its next start.
    fn looked(&mut self, found: Found) {
        let Some(news) = self.watch.found(found) else {
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
        let slot = &mut self.slots[index];
        if !self.switch.allows(&slot.plan.peer) {
            slot.state = State::Frozen;
            return;
        }
        self.starts += 1;
        match Child::start(&slot.plan, self.starts, &self.children, &self.switch) {
            Ok(child) => {
                slot.state = State::Starting(child);
                if slot.plan.peer == Peer::Gateway {
                    // Before its links, so that it begins nothing over them.
                    self.tell_frozen();
                }
                self.link_with_all(index);
            }
            Err(error) => {
                self.switch.forget(self.starts);
                let last = format!(
                    "cannot be started from {}: {error}",
                    slot.plan.path.display()
                );
                protocol::log!("bulkhead-supervisor: {} {last}", slot.plan.name);
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
            protocol::log!(
                "bulkhead-supervisor: cannot link {} and {}: {error}",
                one.plan.name,
                other.plan.name
            );
        }
    }

    pub(super) fn index(&self, peer: &Peer) -> Option<usize> {
        self.slots.iter().position(|slot| slot.plan.peer == *peer)
    }

    fn child_event(&mut self, peer: &Peer, start: u64, event: ChildEvent) {
        if let ChildEvent::Gone(_) = &event {
            self.switch.forget(start);
        }
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
        protocol::log!("bulkhead-supervisor: {} {how}", slot.plan.name);
        if fate(&slot.plan.peer) == Fate::Dies && self.switch.status().is_some() {
            slot.state = State::Frozen;
            return;
        }
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
                protocol::log!("bulkhead-supervisor: {} {last}", slot.plan.name);
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
            Report::Panic { by } if from_gateway => self.panic(by),
            Report::FreezeRecorded { since } if from_gateway => self.switch.recorded(since),
            Report::Resumed { since } if from_gateway => self.resumed(since),
            Report::NotResumed { reason } if from_gateway => self.not_resumed(reason),
            Report::StartAgent { .. }
            | Report::StopAgent { .. }
            | Report::Panic { .. }
            | Report::FreezeRecorded { .. }
            | Report::Resumed { .. }
            | Report::NotResumed { .. } => {
                self.give_up(index, "asked for what only the gateway may ask".to_owned());
            }
        }
    }

    /// Stops a program that cannot or must not go on, and does not start it again. An agent
    /// is forgotten when it is gone; its session may have another one.
    fn give_up(&mut self, index: usize, last: String) {
        let slot = &mut self.slots[index];
        protocol::log!("bulkhead-supervisor: {}: {last}", slot.plan.name);
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
        let reason = if self.switch.status().is_some() {
            "everything is frozen"
        } else if agents >= MAX_AGENTS {
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
                    Some(
                        Event::Child(_, _, ChildEvent::Said(_))
                        | Event::Looked(_)
                        | Event::Thrown(_)
                        | Event::Signal,
                    )
                    | None => {}
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

/// A thread that needs little.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    spawn_with(128 * 1024, name, work)
}

fn spawn_with(
    stack: usize,
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), StartError> {
    let thread = thread::Builder::new()
        .name(name.to_owned())
        .stack_size(stack)
        .spawn(work);
    thread
        .map(drop)
        .map_err(StartError::system("start a thread"))
}
