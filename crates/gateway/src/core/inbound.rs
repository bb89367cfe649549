//! Messages: who wrote it, may they, which session is it for; recorded, then accepted.

use std::time::{Duration, Instant};

use config::TERMINAL;
use policy::Approved;
use protocol::channel::{ApprovalAnswer, ChannelEvent, ChannelRequest, MAX_TEXT, Retry};
use protocol::event::Event as Fact;
use protocol::ids::{
    ChannelId, ConversationId, MessageId, PrincipalId, SenderId, SessionId, TurnId, hex, random,
};
use protocol::record::system_session;
use protocol::time::Millis;

use super::approvals::{Answerer, Said};
use super::limits::Room;
use super::past::{self, Message};
use super::session::{MAX_WAITING, Session};
use super::state::{Known, Place};
use super::wire::LinkId;
use super::{Fatal, Gateway, labels, texts};

/// How long a pairing code is good.
const CODE_GOOD: Duration = Duration::from_secs(3600);

/// Strangers who may wait at once; beyond that they get no code.
const MAX_STRANGERS: u64 = 100;

/// The one who installed it.
pub(super) fn owner() -> PrincipalId {
    PrincipalId::parse("owner").expect("it has only letters")
}

/// A message as it came in.
pub(super) struct Inbound {
    pub(super) link: LinkId,
    pub(super) channel: ChannelId,
    pub(super) message: MessageId,
    pub(super) sender: SenderId,
    pub(super) conversation: ConversationId,
    pub(super) text: String,
}

impl Gateway {
    pub(super) fn channel_request(
        &mut self,
        link: LinkId,
        request: ChannelRequest,
    ) -> Result<(), Fatal> {
        // A link that is no longer in use may still have had something to say.
        let Some(channel) = self.surfaces.channel(link).cloned() else {
            return Ok(());
        };
        match request {
            ChannelRequest::Prove { .. } => self.surfaces.cut(link),
            ChannelRequest::Inbound {
                message,
                sender,
                sender_name,
                conversation,
                text,
            } => {
                let id = message.clone();
                let inbound = Inbound {
                    link,
                    channel,
                    message,
                    sender,
                    conversation,
                    text,
                };
                let taken = self.inbound(inbound, &sender_name);
                if let Err(Fatal::State(_)) = taken {
                    self.state.refused();
                    let (retry, text) = (Retry::Later, texts::NO_RECORD.to_owned());
                    let refused = ChannelEvent::NotAccepted {
                        message: id,
                        retry,
                        text,
                    };
                    self.surfaces.answer(link, refused);
                }
                taken?;
            }
            ChannelRequest::Answer {
                approval,
                digest,
                nonce,
                sender,
                answer,
                reason,
                proof,
            } => {
                let said = match answer {
                    // Meant as a no or as a yes: nobody can tell.
                    ApprovalAnswer::Approve if !reason.is_empty() => {
                        Err(texts::does_not_count(&texts::REASON_WITH_YES))
                    }
                    ApprovalAnswer::Approve => Ok(Said::Yes(proof)),
                    ApprovalAnswer::Deny => Ok(Said::No(reason)),
                };
                let given = Approved {
                    approval,
                    digest,
                    nonce,
                };
                self.channel_answer(link, &channel, sender, &given, said)?;
            }
            ChannelRequest::Cancel {
                sender,
                conversation,
            } => {
                if let Some(session) = self.session_for(&channel, &sender, &conversation)? {
                    self.cancel(&session)?;
                }
            }
            ChannelRequest::Delivered { delivery } => self.state.delivered(&channel, delivery)?,
            ChannelRequest::Login { id, token } => self.login(link, id, &token)?,
            ChannelRequest::Resume { id, cookie } => self.resume(link, id, cookie)?,
            ChannelRequest::Logout { sender } => self.logout(link, sender)?,
            ChannelRequest::EnrolPasskey {
                id,
                sender,
                code,
                enrolment,
            } => self.enrol_passkey(link, id, &sender, &code, &enrolment)?,
            ChannelRequest::History {
                id,
                sender,
                conversation,
            } => {
                self.transcript(link, id, &channel, &sender, &conversation)?;
            }
            ChannelRequest::Grants { id, sender } => self.show_grants(link, id, &sender)?,
            ChannelRequest::RevokeGrant { id, sender, grant } => {
                self.revoke_grant_at_page(link, id, &sender, grant)?;
            }
            ChannelRequest::Panic { id, sender } => self.panic_at_page(link, id, &sender)?,
        }
        Ok(())
    }

    fn channel_answer(
        &mut self,
        link: LinkId,
        channel: &ChannelId,
        sender: SenderId,
        given: &Approved,
        said: Result<Said, String>,
    ) -> Result<(), Fatal> {
        let refused = match (self.principal(channel, &sender)?, said) {
            (Some(_), Err(text)) => Err(text),
            (Some(by), Ok(said)) => {
                let who = Answerer {
                    principal: &by,
                    channel,
                };
                self.answer_approval(given, said, &who)?
            }
            (None, _) => Err(texts::STRANGER_ANSWERS.to_owned()),
        };
        if let Err(text) = refused {
            let approval = given.approval;
            let event = ChannelEvent::AnswerRefused {
                approval,
                sender,
                text,
            };
            self.surfaces.answer(link, event);
        }
        Ok(())
    }

    fn inbound(&mut self, inbound: Inbound, sender_name: &str) -> Result<(), Fatal> {
        let refuse = |gateway: &Self, retry, text: &str| {
            let (message, text) = (inbound.message.clone(), text.to_owned());
            gateway.surfaces.answer(
                inbound.link,
                ChannelEvent::NotAccepted {
                    message,
                    retry,
                    text,
                },
            );
        };
        if inbound.text.len() > MAX_TEXT {
            refuse(self, Retry::Never, texts::TOO_LONG);
            return Ok(());
        }
        // Before any limit, and whether or not anything can be recorded.
        if self.is_panic(&inbound)? {
            let text = self.panic_by_word(&inbound)?;
            refuse(self, Retry::Never, &text);
            return Ok(());
        }
        if let Some(session) = self.state.seen(&inbound.channel, &inbound.message)?
            && self.is_recorded(&session, &inbound.message)
        {
            let message = inbound.message.clone();
            self.surfaces.follow(inbound.link, &inbound.conversation);
            self.surfaces
                .answer(inbound.link, ChannelEvent::Accepted { message, session });
            return Ok(());
        }
        if self
            .rates
            .take(&inbound.channel, &inbound.sender, Instant::now())
            == Room::Later
        {
            refuse(self, Retry::Later, texts::TOO_FAST);
            return Ok(());
        }
        let Some(principal) = self.principal(&inbound.channel, &inbound.sender)? else {
            let text = self.stranger(&inbound, sender_name)?;
            refuse(self, Retry::Never, &text);
            return Ok(());
        };
        if let Some(freeze) = &self.frozen {
            refuse(self, Retry::Never, &texts::frozen(freeze.by()));
            return Ok(());
        }
        let place = Place {
            principal,
            channel: inbound.channel.clone(),
            conversation: inbound.conversation.clone(),
        };
        self.surfaces.follow(inbound.link, &inbound.conversation);
        let session = match self.session_at(&place)? {
            Ok(session) => session,
            Err(reason) => {
                refuse(self, Retry::Never, &reason);
                return Ok(());
            }
        };
        if self
            .sessions
            .get(&session)
            .is_some_and(|session| session.waiting.len() >= MAX_WAITING)
        {
            refuse(self, Retry::Later, texts::TOO_FAST);
            return Ok(());
        }
        self.state
            .set_seen(&inbound.channel, &inbound.message, &session, Millis::now())?;
        let accepted = ChannelEvent::Accepted {
            message: inbound.message.clone(),
            session: session.clone(),
        };
        // The record keeps it for ever, and the model is given it without secrets anyway.
        let (text, found) = self.out_of(&inbound.text);
        let fact = Fact::Inbound {
            channel: inbound.channel.clone(),
            message: inbound.message.clone(),
            sender: inbound.sender.clone(),
            principal: place.principal.clone(),
            conversation: inbound.conversation.clone(),
            text: text.clone(),
        };
        if let Some(command) = Command::parse(&inbound.text) {
            // A command has no turn; it stands in the chain of the system, not in a conversation.
            if let Err(error) = self.record.write(&system_session(), vec![fact]) {
                refuse(self, Retry::Later, texts::NO_RECORD);
                return self.record_lost(&error);
            }
            self.surfaces.answer(inbound.link, accepted);
            return self.command(command, &session, &place);
        }
        if self.state.is_halted(&session)? {
            refuse(self, Retry::Never, texts::HALTED);
            return Ok(());
        }
        let message = Message {
            id: inbound.message.clone(),
            place: place.clone(),
            text,
        };
        let touched = self.touched_by_message(&message.place);
        let touched = self.new_labels(&session, &touched)?;
        let mut facts = vec![fact];
        facts.extend(touched.iter().map(labels::fact));
        self.state.add_labels(&session, &touched)?;
        match self.take_in(&session, message, facts) {
            Ok(()) => {
                self.surfaces.answer(inbound.link, accepted);
                self.tell_labels(&place, &touched)?;
                self.begin(&session)?;
                self.leaked(&session, "a message", &found)
            }
            Err(error) => {
                refuse(self, Retry::Later, texts::NO_RECORD);
                self.record_lost(&error)
            }
        }
    }

    /// Whether a message that was seen also came into the record.
    fn is_recorded(&mut self, session: &SessionId, message: &MessageId) -> bool {
        let there = |rows: Vec<protocol::record::Row>| {
            rows.iter()
                .any(|row| matches!(&row.event, Fact::Inbound { message: id, .. } if id == message))
        };
        let system = system_session();
        self.record.read(session).is_ok_and(there) || self.record.read(&system).is_ok_and(there)
    }

    /// Records a message, and the start of its turn if nothing else runs.
    fn take_in(
        &mut self,
        id: &SessionId,
        message: Message,
        before: Vec<Fact>,
    ) -> Result<(), super::RecordLost> {
        let session = self.sessions.entry(id.clone());
        let session = match session {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let last_turn = past::past(&self.record.read(id)?).last_turn;
                entry.insert(Session::new(last_turn))
            }
        };
        let mut facts = before;
        let starts = !session.is_busy();
        if starts {
            let turn = TurnId(session.last_turn + 1);
            facts.push(Fact::TurnStarted {
                turn,
                message: message.id.clone(),
            });
        }
        self.record.write(id, facts)?;
        session.waiting.push_back(message);
        Ok(())
    }

    /// Whom this sender is known as. The terminal's is whoever holds its key.
    pub(super) fn principal(
        &self,
        channel: &ChannelId,
        sender: &SenderId,
    ) -> Result<Option<PrincipalId>, Fatal> {
        if channel.as_str() == TERMINAL {
            return Ok(Some(owner()));
        }
        Ok(self.state.principal(channel, sender)?)
    }

    /// The session of a conversation as this sender sees it, if there is one.
    pub(super) fn session_for(
        &self,
        channel: &ChannelId,
        sender: &SenderId,
        conversation: &ConversationId,
    ) -> Result<Option<SessionId>, Fatal> {
        let Some(principal) = self.principal(channel, sender)? else {
            return Ok(None);
        };
        let place = Place {
            principal,
            channel: channel.clone(),
            conversation: conversation.clone(),
        };
        Ok(match named_session(&place) {
            Some(session) => self
                .state
                .place(&session)?
                .filter(|at| at.principal == place.principal)
                .map(|_| session),
            None => self.state.session_of(&place)?,
        })
    }

    /// The session that a message at this place belongs to, made if need be; or why there is none.
    fn session_at(&self, place: &Place) -> Result<Result<SessionId, String>, Fatal> {
        if let Some(session) = named_session(place) {
            let known = self
                .state
                .place(&session)?
                .is_some_and(|at| at.principal == place.principal);
            return Ok(if known {
                Ok(session)
            } else {
                Err(format!("There is no session {session} of yours."))
            });
        }
        if let Some(session) = self.state.session_of(place)? {
            return Ok(Ok(session));
        }
        let session = new_session()?;
        self.state.set_session(place, &session)?;
        Ok(Ok(session))
    }

    /// What a stranger is told.
    fn stranger(&mut self, inbound: &Inbound, name: &str) -> Result<String, Fatal> {
        let now = Millis::now();
        if self.state.strangers(now)? >= MAX_STRANGERS {
            return Ok(texts::TOO_FAST.to_owned());
        }
        let code = hex(&random::<4>()?);
        let name = texts::shortened(&texts::visible(name), 64);
        let (channel, sender) = (&inbound.channel, &inbound.sender);
        let (code, known) =
            self.state
                .stranger(channel, sender, &name, code, now, now.after(CODE_GOOD))?;
        if known == Known::New {
            self.note(Fact::StrangerSeen {
                channel: channel.clone(),
                sender: sender.clone(),
            });
        }
        Ok(texts::pairing(&code))
    }

    fn command(
        &mut self,
        command: Command,
        session: &SessionId,
        place: &Place,
    ) -> Result<(), Fatal> {
        let text = match command {
            Command::Help => texts::HELP,
            Command::Stop => match self.cancel(session)? {
                // The turn's own notice says it, but not to a terminal that only came to stop it.
                Stopped::Something if place.channel.as_str() != TERMINAL => return Ok(()),
                Stopped::Something => texts::STOPPING,
                Stopped::Nothing => texts::NOTHING_RUNS,
            },
            Command::New => {
                self.cancel(session)?;
                self.state.set_session(place, &new_session()?)?;
                texts::NEW_SESSION
            }
        };
        self.notice(place, None, text.to_owned())
    }

    /// Tells somebody something, and keeps it until it is delivered.
    pub(super) fn notice(
        &self,
        place: &Place,
        ends: Option<(&SessionId, TurnId)>,
        text: String,
    ) -> Result<(), Fatal> {
        let (conversation, ends_turn) = (place.conversation.clone(), ends.map(|(_, turn)| turn));
        let event = ChannelEvent::Notice {
            delivery: 0,
            conversation,
            ends_turn,
            text,
        };
        self.surfaces.deliver(&self.state, place, ends, event);
        Ok(())
    }

    fn transcript(
        &mut self,
        link: LinkId,
        id: u64,
        channel: &ChannelId,
        sender: &SenderId,
        conversation: &ConversationId,
    ) -> Result<(), Fatal> {
        let Some(principal) = self.principal(channel, sender)? else {
            return Ok(());
        };
        self.surfaces.follow(link, conversation);
        let session = self.session_for(channel, sender, conversation)?;
        let rows = session
            .as_ref()
            .map(|session| self.record.read(session))
            .transpose();
        let entries = match rows {
            Ok(rows) => past::transcript(&rows.unwrap_or_default(), |name, args| {
                self.title(name, args)
            }),
            Err(_) => vec![protocol::channel::TranscriptEntry::Notice {
                text: texts::NO_RECORD.to_owned(),
            }],
        };
        let running = session.and_then(|session| {
            self.sessions
                .get(&session)?
                .turn
                .as_ref()
                .map(|turn| turn.id)
        });
        let mut entries = entries;
        entries.extend(self.frozen.as_ref().map(|freeze| {
            protocol::channel::TranscriptEntry::Notice {
                text: texts::frozen(freeze.by()),
            }
        }));
        let entries = last_that_fit(entries);
        self.surfaces.answer(
            link,
            ChannelEvent::Transcript {
                id,
                entries,
                running,
            },
        );
        let place = Place {
            principal,
            channel: channel.clone(),
            conversation: conversation.clone(),
        };
        self.show_pending(link, &place);
        Ok(())
    }
}

/// Whether something was stopped.
pub(super) enum Stopped {
    Something,
    Nothing,
}

/// What a person can ask of the gateway itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    Stop,
    New,
    Help,
}

impl Command {
    fn parse(text: &str) -> Option<Self> {
        // Telegram writes `/stop@name_of_the_bot` in groups.
        match text.trim().split('@').next() {
            Some("/stop") => Some(Self::Stop),
            Some("/new") => Some(Self::New),
            Some("/help" | "/start") => Some(Self::Help),
            _ => None,
        }
    }
}

/// The session that a terminal names in place of a conversation.
fn named_session(place: &Place) -> Option<SessionId> {
    let name = place.conversation.as_str().strip_prefix("session:")?;
    if place.channel.as_str() != TERMINAL {
        return None;
    }
    SessionId::parse(name).ok()
}

fn new_session() -> Result<SessionId, Fatal> {
    Ok(SessionId::parse(format!("s-{}", hex(&random::<6>()?)))
        .expect("it has only letters, digits and a dash"))
}

/// The newest entries that fit a frame with room to spare.
fn last_that_fit(
    mut entries: Vec<protocol::channel::TranscriptEntry>,
) -> Vec<protocol::channel::TranscriptEntry> {
    const MOST: usize = 1024 * 1024;
    let mut bytes = 0;
    let fit = entries.iter().rev().take_while(|entry| {
        bytes += serde_json::to_vec(entry).map_or(MOST, |json| json.len());
        bytes <= MOST
    });
    let fit = fit.count();
    entries.drain(..entries.len() - fit);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_whole_messages_only() {
        assert_eq!(Command::parse(" /stop "), Some(Command::Stop));
        assert_eq!(Command::parse("/stop@a_bot"), Some(Command::Stop));
        assert_eq!(Command::parse("please /stop"), None);
        assert_eq!(Command::parse("/stopping"), None);
    }

    #[test]
    fn only_a_terminal_can_name_a_session() {
        let place = |channel: &str| Place {
            principal: owner(),
            channel: ChannelId::parse(channel).unwrap(),
            conversation: ConversationId::parse("session:s-1").unwrap(),
        };
        assert!(named_session(&place("terminal")).is_some());
        assert!(named_session(&place("telegram")).is_none());
    }
}
