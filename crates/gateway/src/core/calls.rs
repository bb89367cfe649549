//! Tool calls: read, judged, recorded, run, answered. In this order.

use protocol::agent::AgentCommand;
use protocol::call::ToolCall;
use protocol::channel::{CallCard, CallState, ChannelEvent};
use protocol::control::Peer;
use protocol::egress::FetchReply;
use protocol::event::{CallOutcome, Event as Fact};
use protocol::ids::{AgentId, ApprovalId, CallId, CallRef, Nonce, SessionId, TurnId, random};
use protocol::runner::{RunOutcome, RunReply};
use protocol::time::Millis;
use std::time::Duration;

use scan::Finding;

use policy::{Decision, Permit, Profile, Question, Request};

use super::leaks;
use super::runner::By;
use super::session::{Agent, MAX_CALLS, MAX_OPEN_CALLS, OpenCall};
use super::state::Place;
use super::wire::LinkId;
use super::{Fatal, Gateway, changes, labels, texts};

/// The longest words of a model that are kept with a call, in bytes.
const MAX_SAID: usize = 4096;

/// The longest name of a tool that is kept, in bytes.
const MAX_NAME: usize = 200;

/// The longest name and arguments that are kept of a call, in bytes.
const MAX_CALL: usize = 512 * 1024;

/// What an agent wants, as it came.
pub(super) struct Wanted {
    pub(super) call: CallId,
    pub(super) name: String,
    pub(super) args: String,
    pub(super) said: String,
    /// What of the vault is in the arguments.
    pub(super) own: Vec<Finding>,
}

impl Gateway {
    pub(super) fn call_tool(
        &mut self,
        id: &SessionId,
        turn: TurnId,
        wanted: Wanted,
    ) -> Result<(), Fatal> {
        let Wanted {
            call,
            name,
            args,
            said,
            own,
        } = wanted;
        let Some(running) = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.turn(turn))
        else {
            return Ok(());
        };
        if call.0 != running.last_call + 1 || name.len() + args.len() > MAX_CALL {
            return self.misbehaved(
                id,
                "it numbered its calls wrongly, or sent one that is too large",
            );
        }
        if running.open.len() >= MAX_OPEN_CALLS || call.0 > MAX_CALLS {
            return self.misbehaved(id, "it asked for more calls than one turn may have");
        }
        running.last_call = call.0;
        let cancelled = running.cancelled.is_some();
        let place = running.message.place.clone();
        let reference = CallRef {
            session: id.clone(),
            turn,
            call,
        };
        // What is found may reach over where it is cut.
        let (said, spoken) = self.out_of(&texts::shortened(&said, 4 * MAX_SAID));
        let (name, named) = self.out_of(&texts::shortened(&name, 4 * MAX_NAME));
        let (spoken, named) = (leaks::own(spoken), leaks::own(named));
        let said = texts::shortened(&said, MAX_SAID);
        let name = texts::shortened(&name, MAX_NAME);
        let root = self.config.workspace.to_string_lossy().into_owned();
        let resolved = tools::resolve(&name, &args, &root);
        let title = self.title(&name, &args);
        if let Some(running) = self
            .sessions
            .get_mut(id)
            .and_then(|session| session.turn(turn))
        {
            running.open.insert(call, OpenCall { title });
        }
        if !own.is_empty() || !named.is_empty() || !spoken.is_empty() {
            let args = scan::redact(&args, &own);
            let intent = Fact::ToolIntent {
                turn,
                call,
                name,
                args,
                said,
            };
            self.refuse(&reference, vec![intent], texts::HOLDS_A_SECRET.to_owned())?;
            return self.leaked(id, "a call", &[own, named, spoken].concat());
        }
        let intent = Fact::ToolIntent {
            turn,
            call,
            name,
            args,
            said: said.clone(),
        };
        if cancelled {
            return self.refuse(
                &reference,
                vec![intent],
                "the person stopped this turn".to_owned(),
            );
        }
        match resolved {
            Err(bad) => self.refuse(&reference, vec![intent], bad.to_string()),
            Ok(tool) => self.judge(&reference, &place, &tool, intent, &said),
        }
    }

    fn judge(
        &mut self,
        reference: &CallRef,
        place: &Place,
        call: &ToolCall,
        intent: Fact,
        said: &str,
    ) -> Result<(), Fatal> {
        let now = Millis::now();
        let wait = Duration::from_secs(self.config.approval_seconds.into());
        let grants = self.state.grants(now)?;
        let labels: Vec<_> = self.state.labels(&reference.session)?;
        let labels: Vec<_> = labels.iter().map(|held| held.label).collect();
        let profile = Profile {
            limits: self.config.limits.clone(),
            sandbox: self.config.backend.name().to_owned(),
            ..Profile::default()
        };
        let decision = policy::decide(&Request {
            call,
            reference,
            rules: &self.rules.in_force,
            session: policy::Session {
                principal: &place.principal,
                channel: &place.channel,
                agent: &AgentId::main(),
                labels: &labels,
            },
            workspace: &self.config.workspace.to_string_lossy(),
            profile: &profile,
            grants: &grants,
            now,
            question: Question {
                approval: ApprovalId(random()?),
                nonce: Nonce(random()?),
                expires: now.after(wait),
            },
        });
        let judgement = decision.judgement();
        let decided = Fact::Decision {
            turn: reference.turn,
            call: reference.call,
            verdict: judgement.verdict,
            rule: judgement.rule.to_string(),
            reason: judgement.reason.clone(),
            key: judgement.key.clone(),
        };
        let before = vec![intent, decided];
        match decision {
            Decision::Allow(permit) => self.permit(before, permit),
            Decision::Ask(request) => self.ask(before, request, place, said),
            Decision::Deny(reason) => {
                let reason = reason.judgement().reason.clone();
                self.refuse(
                    reference,
                    before,
                    format!("the rules do not allow it: {reason}"),
                )
            }
        }
    }

    /// Records the permit with what led to it, and runs it. There is no other way to the runner.
    pub(super) fn permit(&mut self, before: Vec<Fact>, permit: Permit) -> Result<(), Fatal> {
        let (reference, now) = (permit.call().clone(), Millis::now());
        if self.is_frozen() {
            return self.refuse(&reference, before, texts::FROZEN_CALL.to_owned());
        }
        let by = By::of(permit.action());
        if !self.runner.is_there(by) {
            return self.refuse(&reference, before, texts::not_there(by).to_owned());
        }
        if let Err(error) = self.record_rules() {
            return self.record_lost(&error);
        }
        let mut before = before;
        // A yes to something that then does not run, or is not recorded, is remembered for nothing.
        before.extend(permit.grant(now).map(|grant| Fact::GrantMade {
            principal: grant.principal,
            key: grant.key,
            expires: grant.expires,
        }));
        let touched = self.new_labels(&reference.session, &permit.judgement().touches)?;
        // Before anything else: a crash in between leaves a session with one too many, not too few.
        self.state.add_labels(&reference.session, &touched)?;
        before.extend(touched.iter().map(labels::fact));
        match self.record.record(&reference.session, before, permit) {
            Err(error) => self.record_lost(&error),
            Ok(recorded) => {
                let permit = recorded.get();
                if let Some(grant) = permit.grant(now) {
                    self.state.add_grant(&grant)?;
                }
                self.show_card(&reference, CallState::Running, "");
                if let Some(place) = self.state.place(&reference.session)? {
                    self.tell_labels(&place, &touched)?;
                }
                match self.runner.run(recorded) {
                    Ok(()) => Ok(()),
                    Err(reference) => {
                        self.refuse(&reference, Vec::new(), texts::not_there(by).to_owned())
                    }
                }
            }
        }
    }

    /// Records that a call did not run, and tells the agent.
    pub(super) fn refuse(
        &mut self,
        reference: &CallRef,
        before: Vec<Fact>,
        reason: String,
    ) -> Result<(), Fatal> {
        self.finish(reference, before, CallOutcome::NotRun { reason })
    }

    /// Records what came of a call, and tells the agent and whoever watches.
    pub(super) fn finish(
        &mut self,
        reference: &CallRef,
        before: Vec<Fact>,
        outcome: CallOutcome,
    ) -> Result<(), Fatal> {
        let CallRef {
            session,
            turn,
            call,
        } = reference;
        let (state, result) = (texts::outcome_state(&outcome), texts::outcome(&outcome));
        let detail = texts::card_detail(&outcome);
        let mut facts = before;
        facts.push(Fact::Outcome {
            turn: *turn,
            call: *call,
            outcome,
        });
        if let Err(error) = self.record.write(session, facts) {
            return self.record_lost(&error);
        }
        self.show_card(reference, state, &detail);
        let Some(living) = self.sessions.get_mut(session) else {
            return Ok(());
        };
        let Some(running) = living.turn(*turn) else {
            return Ok(());
        };
        if running.open.remove(call).is_some()
            && let Agent::Live { outlet, .. } = &living.agent
        {
            // An agent that is cut off here is reported gone by its reader.
            let _ = outlet.send(AgentCommand::ToolResult {
                turn: *turn,
                call: *call,
                result,
            });
        }
        self.end_if_quiet(session)
    }

    /// Waits no longer for what runs in a session.
    pub(super) fn give_up_calls(&mut self, id: &SessionId) -> Result<(), Fatal> {
        protocol::log!("bulkhead-gateway: what was killed in session {id} is not reported over");
        self.runner.forget_those_of(id);
        let turn = self
            .sessions
            .get(id)
            .and_then(|session| session.turn.as_ref());
        let open = turn.map(|turn| (turn.id, turn.open.keys().copied().collect::<Vec<_>>()));
        for (turn, call) in open
            .into_iter()
            .flat_map(|(turn, calls)| calls.into_iter().map(move |call| (turn, call)))
        {
            let session = id.clone();
            let reference = CallRef {
                session,
                turn,
                call,
            };
            self.finish(&reference, Vec::new(), CallOutcome::Unknown)?;
        }
        Ok(())
    }

    pub(super) fn runner_reply(
        &mut self,
        link: LinkId,
        reply: RunReply,
        found: &[Finding],
    ) -> Result<(), Fatal> {
        let (RunReply::Finished { call, .. } | RunReply::Refused { call, .. }) = &reply;
        if !self.runner.is_over(By::Boxes, link, call) {
            return Ok(());
        }
        self.leaked(&call.session.clone(), "what came of a call", found)?;
        match reply {
            RunReply::Finished { call, outcome } => {
                let run = RunOutcome {
                    changes: changes::for_the_record(outcome.changes),
                    ..outcome
                };
                self.finish(&call, Vec::new(), CallOutcome::Ran { run })
            }
            RunReply::Refused { call, reason, fix } => {
                protocol::log!("bulkhead-gateway: no box: {reason}. {fix}");
                self.refuse(
                    &call,
                    Vec::new(),
                    format!("there is no box to run it in: {reason}. {fix}"),
                )
            }
        }
    }

    pub(super) fn door_reply(
        &mut self,
        link: LinkId,
        reply: FetchReply,
        found: &[Finding],
    ) -> Result<(), Fatal> {
        let (call, outcome) = match reply {
            FetchReply::Fetched { call, outcome } => {
                (call, CallOutcome::Fetched { answer: outcome })
            }
            FetchReply::Refused { call, fault } => (call, CallOutcome::NotFetched { fault }),
            FetchReply::Touched {
                session,
                honeytokens,
            } => return self.touched(&session, &honeytokens),
        };
        match self.runner.is_over(By::Door, link, &call) {
            true => {
                self.leaked(&call.session, "what came of a call", found)?;
                self.finish(&call, Vec::new(), outcome)
            }
            false => Ok(()),
        }
    }

    /// The link to one of the programs that run things is gone.
    pub(super) fn executor_gone(&mut self, by: By, link: LinkId) -> Result<(), Fatal> {
        match self.runner.lost(by, link) {
            Some(calls) => {
                // One that a freeze killed comes with its link when the freeze is over.
                if !self.is_frozen() {
                    self.unlinked.push(match by {
                        By::Boxes => Peer::Sandbox,
                        By::Door => Peer::Egress,
                    });
                }
                self.unknown(calls)
            }
            None => Ok(()),
        }
    }

    /// What came of these is not known.
    pub(super) fn unknown(
        &mut self,
        calls: impl IntoIterator<Item = CallRef>,
    ) -> Result<(), Fatal> {
        calls
            .into_iter()
            .try_for_each(|call| self.finish(&call, Vec::new(), CallOutcome::Unknown))
    }

    /// Closes what a turn that is stopped leaves open: questions are withdrawn, and what runs
    /// is killed, its outcome to follow.
    pub(super) fn close_calls(&mut self, id: &SessionId) -> Result<(), Fatal> {
        self.runner.kill_those_of(id);
        self.cancel_approvals_of(id)
    }

    /// What a call is, in one line for a person.
    pub(super) fn title(&self, name: &str, args: &str) -> String {
        const MOST: usize = 300;
        let root = self.config.workspace.to_string_lossy();
        let title = match tools::resolve(name, args, &root) {
            Ok(ToolCall::Exec { command }) => command,
            Ok(ToolCall::ReadFile { path, .. }) => format!("read {path}"),
            Ok(ToolCall::WriteFile { path, content }) => {
                format!("write {path} ({} bytes)", content.len())
            }
            Ok(ToolCall::EditFile { path, .. }) => format!("edit {path}"),
            Ok(ToolCall::ListFiles { path, .. }) => format!("list {path}"),
            Ok(ToolCall::SearchFiles { text, path }) => format!("search {path} for {text:?}"),
            Ok(ToolCall::HttpRequest { method, url, .. }) => format!("{method} {url}"),
            Ok(ToolCall::WebFetch { url }) => format!("read {url}"),
            Err(_) => format!("{name} {args}"),
        };
        // What is found may reach over where it is cut.
        let title = self.redacted(&texts::shortened(&title, 16 * MOST));
        texts::shortened(&texts::visible(&title), MOST)
    }

    /// Shows where a call stands to whoever follows its conversation.
    pub(super) fn show_card(&mut self, reference: &CallRef, state: CallState, detail: &str) {
        let CallRef {
            session,
            turn,
            call,
        } = reference;
        let Some(running) = self
            .sessions
            .get_mut(session)
            .and_then(|session| session.turn(*turn))
        else {
            return;
        };
        let Some(open) = running.open.get(call) else {
            return;
        };
        let (title, detail) = (
            open.title.clone(),
            texts::shortened(detail, texts::CARD_BYTES),
        );
        let card = CallCard {
            turn: *turn,
            call: *call,
            title,
            state,
            detail,
        };
        let place = running.message.place.clone();
        let conversation = place.conversation.clone();
        self.surfaces
            .show(&place, &ChannelEvent::Call { conversation, card });
    }
}
