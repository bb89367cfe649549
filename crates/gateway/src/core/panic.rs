//! A freeze, as the gateway lives through it. The supervisor has killed what works by the time
//! this hears of it; what is left is to end the turns, to tell people and to write it down.

use std::collections::{BTreeMap, BTreeSet};

use protocol::channel::ChannelEvent;
use protocol::control::{Peer, Report};
use protocol::event::{Event as Fact, TurnEnd};
use protocol::freeze::{By, Frozen, How};
use protocol::ids::{PublicKey, SenderId, SessionId, TurnId};
use protocol::record::freeze_session;
use protocol::rules::Role;
use protocol::time::Millis;

use super::approvals::page;
use super::inbound::Inbound;
use super::past::{self, Past, open_outcome};
use super::record::RecordLost;
use super::state::Place;
use super::wire::LinkId;
use super::{Fatal, Gateway, outlive_full_disk, texts};

/// A freeze and what is still to be done about it.
pub(super) struct Freeze {
    frozen: Frozen,
    /// Sessions whose people were told already.
    told: BTreeSet<SessionId>,
    /// Questions that were withdrawn and are not yet in the record so.
    withdrawn: BTreeMap<SessionId, Vec<Fact>>,
}

impl Freeze {
    /// Who wanted it.
    pub(super) fn by(&self) -> &By {
        &self.frozen.by
    }
}

impl Gateway {
    /// Whether nothing may begin.
    pub(super) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// The supervisor froze everything, perhaps long ago.
    pub(super) fn freeze(&mut self, frozen: Frozen) -> Result<(), Fatal> {
        protocol::log!("bulkhead-gateway: everything is frozen by {}", frozen.by);
        let is_news = self.frozen.is_none();
        let text = texts::frozen(&frozen.by);
        self.frozen.get_or_insert_with(|| Freeze {
            frozen,
            told: BTreeSet::new(),
            withdrawn: BTreeMap::new(),
        });
        for (link, id) in std::mem::take(&mut self.freezing) {
            self.surfaces.answer(link, ChannelEvent::Panicked { id });
        }
        self.drop_all_work()?;
        if is_news {
            self.notice(&page(), None, text)?;
        }
        self.settle()
    }

    /// Ends all turns here, and tells whoever waits for one. The record follows in [`Self::settle`].
    fn drop_all_work(&mut self) -> Result<(), Fatal> {
        let withdrawn = self.withdraw_approvals();
        // Agents and boxes are dead; what they still had to say is history.
        self.runner.forget_all();
        let sessions = std::mem::take(&mut self.sessions);
        let mut told = BTreeSet::new();
        for (id, session) in sessions {
            if let Some(turn) = session.turn {
                self.tell_frozen_turn(&id, turn.id, &turn.message.place)?;
                told.insert(id.clone());
            }
            // With the numbers that these turns get in the record.
            for (message, number) in session.waiting.iter().zip(session.last_turn + 1..) {
                let turn = TurnId(number);
                let started = ChannelEvent::TurnStarted {
                    conversation: message.place.conversation.clone(),
                    session: id.clone(),
                    turn,
                };
                self.surfaces.show(&message.place, &started);
                self.tell_frozen_turn(&id, turn, &message.place)?;
            }
        }
        if let Some(freeze) = &mut self.frozen {
            freeze.told.extend(told);
            for (session, fact) in withdrawn {
                freeze.withdrawn.entry(session).or_default().push(fact);
            }
        }
        Ok(())
    }

    /// Brings the record up to the freeze. Tried again later if it takes nothing; the freeze does
    /// not wait for that.
    pub(super) fn settle(&mut self) -> Result<(), Fatal> {
        let Some(since) = self.frozen.as_ref().map(|freeze| freeze.frozen.since) else {
            return Ok(());
        };
        match self.settle_rows()? {
            Ok(()) => Ok(self.control.send(&Report::FreezeRecorded { since })?),
            Err(error) => {
                protocol::log!(
                    "bulkhead-gateway: {error}. The freeze holds; its row is written when that works again"
                );
                self.recovery.later();
                self.ask_for_ledger()
            }
        }
    }

    fn settle_rows(&mut self) -> Result<Result<(), RecordLost>, Fatal> {
        let open = match self.record_freeze() {
            Ok(open) => open,
            Err(error) => return Ok(Err(error)),
        };
        for id in open {
            match self.close_frozen(&id) {
                Ok((past, ends)) => self.tell_frozen_turns(&id, &past, &ends)?,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(self.close_open_undo())
    }

    /// Writes the row of the freeze, if it is not the newest of its chain already; the sessions
    /// that were left open.
    fn record_freeze(&mut self) -> Result<Vec<SessionId>, RecordLost> {
        let chain = freeze_session();
        let rows = self.record.read(&chain)?;
        if let Some(freeze) = &self.frozen {
            let Frozen { since, by, reason } = freeze.frozen.clone();
            let reason = self.redacted(&reason);
            let newest = rows.last().map(|row| &row.event);
            let written =
                matches!(newest, Some(Fact::Panicked { since: its, .. }) if *its == since);
            if !written {
                let fact = Fact::Panicked { since, by, reason };
                self.record.write_and_sign(&chain, vec![fact])?;
            }
        }
        self.record.unfinished()
    }

    /// Closes what a session was at, and what waited in it. Nothing of it is taken up again.
    fn close_frozen(&mut self, id: &SessionId) -> Result<(Past, Vec<TurnId>), RecordLost> {
        let past = past::past(&self.record.read(id)?);
        let mut facts = Vec::new();
        if let Some(freeze) = &self.frozen {
            facts.extend(freeze.withdrawn.get(id).cloned().unwrap_or_default());
        }
        for (turn, open) in &past.open_calls {
            let (call, outcome) = open_outcome(*open);
            facts.push(Fact::Outcome {
                turn: *turn,
                call,
                outcome,
            });
        }
        let mut ends: Vec<TurnId> = past.open.iter().map(|open| open.turn).collect();
        let fault = TurnEnd::Frozen;
        facts.extend(ends.iter().map(|turn| Fact::TurnFailed {
            turn: *turn,
            fault: fault.clone(),
        }));
        for (message, number) in past.waiting.iter().zip(past.last_turn + 1..) {
            let (turn, message) = (TurnId(number), message.id.clone());
            ends.push(turn);
            facts.push(Fact::TurnStarted { turn, message });
            let fault = fault.clone();
            facts.push(Fact::TurnFailed { turn, fault });
        }
        if !facts.is_empty() {
            self.record.write_and_sign(id, facts)?;
        }
        if let Some(freeze) = &mut self.frozen {
            freeze.withdrawn.remove(id);
        }
        Ok((past, ends))
    }

    /// Tells the people of a session that was left open by an earlier start of this program.
    fn tell_frozen_turns(
        &mut self,
        id: &SessionId,
        past: &Past,
        ends: &[TurnId],
    ) -> Result<(), Fatal> {
        let told = |freeze: &mut Freeze| !freeze.told.insert(id.clone());
        if self.frozen.as_mut().is_none_or(told) {
            return Ok(());
        }
        let open = past.open.iter().map(|open| &open.message);
        for (message, turn) in open.chain(&past.waiting).zip(ends) {
            // On a full disk a reply may come twice; the row of the freeze does not wait for that.
            outlive_full_disk(
                self.state.forget_replies(id, *turn).map_err(Fatal::from),
                (),
            )?;
            self.tell_frozen_turn(id, *turn, &message.place)?;
        }
        Ok(())
    }

    fn tell_frozen_turn(&self, id: &SessionId, turn: TurnId, place: &Place) -> Result<(), Fatal> {
        self.notice(place, Some((id, turn)), texts::FROZEN_TURN.to_owned())
    }

    /// The operator key ended the freeze: recorded, then so.
    pub(super) fn end_freeze(
        &mut self,
        since: Millis,
        key: PublicKey,
        until: Millis,
    ) -> Result<(), Fatal> {
        if Millis::now() >= until {
            let reason = "the gateway took too long to hear of it; try again".to_owned();
            return Ok(self.control.send(&Report::NotResumed { reason })?);
        }
        let ended = match self.settle_rows()? {
            Ok(()) => {
                let fact = Fact::Resumed { since, key };
                self.record.write_and_sign(&freeze_session(), vec![fact])
            }
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            let reason = format!("{error}. See `bulkhead status`, then try again");
            self.control.send(&Report::NotResumed { reason })?;
            self.recovery.later();
            return self.ask_for_ledger();
        }
        self.frozen = None;
        // It is started anew with a link; a second one would end what runs over the first.
        self.unlinked.retain(|peer| *peer != Peer::Sandbox);
        self.control.send(&Report::Resumed { since })?;
        self.notice(&page(), None, texts::RESUMED.to_owned())?;
        self.recover()
    }

    /// Whether this message is the word, from somebody who may freeze everything by it.
    pub(super) fn is_panic(&self, inbound: &Inbound) -> Result<bool, Fatal> {
        let word = self.config.panic_word.as_ref();
        if !word.is_some_and(|word| word.is(&inbound.text)) {
            return Ok(false);
        }
        let principal = self.principal(&inbound.channel, &inbound.sender)?;
        Ok(principal.is_some_and(|by| self.may_freeze(&by)))
    }

    fn may_freeze(&self, who: &protocol::ids::PrincipalId) -> bool {
        match self.rules.in_force.role(who) {
            Role::Owner | Role::Approver => true,
            Role::User | Role::Guest => false,
        }
    }

    /// Has everything frozen; what whoever wrote the word is told. A platform that brings the same
    /// message again, since its confirmation was cut off, does not freeze what was resumed since.
    pub(super) fn panic_by_word(&mut self, inbound: &Inbound) -> Result<String, Fatal> {
        let (channel, message) = (&inbound.channel, &inbound.message);
        // What cannot be looked up was not seen.
        if matches!(self.state.seen(channel, message), Ok(Some(_))) {
            return Ok(texts::FROZEN_BEFORE.to_owned());
        }
        let principal = self
            .principal(channel, &inbound.sender)?
            .unwrap_or_else(super::inbound::owner);
        let by = By::Person {
            principal,
            channel: channel.clone(),
            how: How::Word,
        };
        let text = texts::frozen(&by);
        self.control.send(&Report::Panic { by })?;
        // Only now: what was seen and not sent would never freeze anything.
        if let Err(error) = self
            .state
            .set_seen(channel, message, &freeze_session(), Millis::now())
        {
            protocol::log!("bulkhead-gateway: {error}");
        }
        Ok(text)
    }

    /// Whoever is at this browser wants everything frozen. Answered when it is.
    pub(super) fn panic_at_page(
        &mut self,
        link: LinkId,
        id: u64,
        sender: &SenderId,
    ) -> Result<(), Fatal> {
        let channel = page().channel;
        let at_page = self.surfaces.channel(link) == Some(&channel);
        let who = match at_page {
            true => self.principal(&channel, sender)?,
            // No other channel has a button; its people write the word.
            false => None,
        };
        match who.filter(|who| self.may_freeze(who)) {
            Some(principal) => {
                let how = How::Button;
                let by = By::Person {
                    principal,
                    channel,
                    how,
                };
                self.freezing.push((link, id));
                Ok(self.control.send(&Report::Panic { by })?)
            }
            None => {
                let text = texts::MAY_NOT_FREEZE.to_owned();
                self.surfaces
                    .answer(link, ChannelEvent::PanicRefused { id, text });
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
