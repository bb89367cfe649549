//! The owner's commands.

use std::sync::mpsc::Sender;

use config::OPERATOR;
use policy::Approved;
use protocol::channel::ChannelEvent;
use protocol::event::Event as Fact;
use protocol::ids::ChannelId;
use protocol::operator::{OperatorReply, OperatorRequest, SessionStatus};
use protocol::passkey::Proof;
use protocol::record::system_session;
use protocol::time::Millis;

use super::approvals::{Answerer, Said, page};
use super::grants::Whose;
use super::inbound::owner;
use super::record::RecordLost;
use super::session::Agent;
use super::state::Known;
use super::{Fatal, Gateway, texts};

impl Gateway {
    /// Answers, or has it answered when the program that keeps the workspace has.
    pub(super) fn operator_request(
        &mut self,
        request: OperatorRequest,
        answer_to: Sender<OperatorReply>,
    ) -> Result<(), Fatal> {
        let now = Millis::now();
        let reply = match request {
            OperatorRequest::History { most } => {
                self.show_history(most, answer_to);
                return Ok(());
            }
            OperatorRequest::UndoPreview { to, diff } => {
                self.preview_undo(to, diff, answer_to);
                return Ok(());
            }
            OperatorRequest::Undo { to, digest } => return self.undo(&to, digest, answer_to),
            OperatorRequest::Status => self.status()?,
            OperatorRequest::Approvals => {
                let mut cards: Vec<_> = self
                    .pending
                    .iter()
                    .map(|pending| pending.card().clone())
                    .collect();
                cards.sort_by_key(|card| card.expires);
                OperatorReply::Approvals { cards }
            }
            OperatorRequest::Approve {
                approval,
                digest,
                nonce,
                signature,
            } => {
                let given = Approved {
                    approval,
                    digest,
                    nonce,
                };
                self.operator_answer(&given, Said::Yes(Proof::Operator { signature }))?
            }
            OperatorRequest::Deny {
                approval,
                digest,
                nonce,
                reason,
            } => {
                let given = Approved {
                    approval,
                    digest,
                    nonce,
                };
                self.operator_answer(&given, Said::No(reason))?
            }
            OperatorRequest::Pairs => OperatorReply::Pairs {
                pairs: self.state.pairs(now)?,
            },
            OperatorRequest::PairApprove { code, principal } => {
                match self.state.stranger_with(&code, now)? {
                    None => refused(format!(
                        "no sender waits with the code {code}; see `bulkhead pair list`"
                    )),
                    Some((channel, sender, name)) => {
                        let (at, who) = (channel.clone(), sender.clone());
                        match self.fact(Fact::Paired {
                            channel,
                            sender,
                            principal: principal.clone(),
                        }) {
                            Ok(()) => {
                                self.state.pair(&at, &who, &name, &principal, now)?;
                                OperatorReply::Done
                            }
                            Err(error) => refused(error.to_string()),
                        }
                    }
                }
            }
            OperatorRequest::PairRevoke { channel, sender } => {
                match self.fact(Fact::Unpaired {
                    channel: channel.clone(),
                    sender: sender.clone(),
                }) {
                    Err(error) => refused(error.to_string()),
                    Ok(()) => match self.state.unpair(&channel, &sender)? {
                        Known::Already => {
                            if channel == page().channel {
                                self.surfaces
                                    .show(&page(), &ChannelEvent::LoggedOut { sender });
                            }
                            OperatorReply::Done
                        }
                        Known::New => refused(format!(
                            "{sender} on {channel} is not paired; see `bulkhead pair list`"
                        )),
                    },
                }
            }
            OperatorRequest::Grants => OperatorReply::Grants {
                grants: self.state.grants(now)?,
            },
            OperatorRequest::GrantRevoke { grant } => {
                match self.revoke_grant(grant, Whose::Anybodys)? {
                    Known::Already => OperatorReply::Done,
                    Known::New => refused(format!(
                        "there is no grant {grant}; see `bulkhead grants list`"
                    )),
                }
            }
            OperatorRequest::LoginLink => match self.config.web_origin.clone() {
                Some(origin) => OperatorReply::LoginLink {
                    url: self.new_link(&origin)?,
                },
                None => refused(texts::NO_PAGE.to_owned()),
            },
            OperatorRequest::PasskeyLink { name } => match self.passkey_link(&name)? {
                Ok(url) => OperatorReply::PasskeyLink { url },
                Err(reason) => refused(reason),
            },
            OperatorRequest::Passkeys => OperatorReply::Passkeys {
                passkeys: self.state.passkeys()?,
            },
            OperatorRequest::PasskeyRemove { passkey } => match self.remove_passkey(passkey)? {
                Known::Already => OperatorReply::Done,
                Known::New => refused(format!(
                    "there is no passkey {passkey}; see `bulkhead passkey list`"
                )),
            },
        };
        // Who asked may be gone; that is their business.
        let _ = answer_to.send(reply);
        Ok(())
    }

    fn operator_answer(&mut self, given: &Approved, said: Said) -> Result<OperatorReply, Fatal> {
        let (owner, channel) = (
            owner(),
            ChannelId::parse(OPERATOR).expect("it has only letters"),
        );
        let who = Answerer {
            principal: &owner,
            channel: &channel,
        };
        Ok(match self.answer_approval(given, said, &who)? {
            Ok(()) => OperatorReply::Done,
            Err(reason) => refused(reason),
        })
    }

    fn fact(&mut self, fact: Fact) -> Result<(), RecordLost> {
        self.record.write(&system_session(), vec![fact])
    }

    fn status(&self) -> Result<OperatorReply, Fatal> {
        let mut sessions = Vec::new();
        for (id, session) in &self.sessions {
            let Some(place) = self.state.place(id)? else {
                continue;
            };
            if matches!(session.agent, Agent::Live { .. }) || session.turn.is_some() {
                let running = session.turn.as_ref().map(|turn| turn.id);
                let (session, principal, channel) = (id.clone(), place.principal, place.channel);
                let labels = self.state.labels(&session)?;
                sessions.push(SessionStatus {
                    labels,
                    session,
                    principal,
                    channel,
                    running,
                });
            }
        }
        let channels = self
            .config
            .channels
            .iter()
            .map(|(name, _)| name)
            .filter(|name| name.as_str() != OPERATOR);
        Ok(OperatorReply::Status {
            channels: self.surfaces.status(channels),
            sessions,
            approvals: u32::try_from(self.pending.len()).unwrap_or(u32::MAX),
            record: self.record_status(),
            rules: self.rules.status(Millis::now()),
        })
    }
}

fn refused(reason: String) -> OperatorReply {
    OperatorReply::Refused { reason }
}
