//! Questions to people. Exactly one answer counts; silence means no.

use std::time::Duration;

use policy::{ApprovalRequest, Approved, Consent};
use protocol::channel::{ApprovalCard, CallState, ChannelEvent};
use protocol::event::{Answer, Event as Fact, Signer};
use protocol::ids::{ApprovalId, ChannelId, ConversationId, PrincipalId, SessionId};
use protocol::passkey::Proof;
use protocol::record::Recordable as _;
use protocol::time::Millis;

use super::inbound::owner;
use super::state::Place;
use super::wire::LinkId;
use super::{Fatal, Gateway, texts};

/// A question that waits for its answer.
pub(super) struct Pending {
    request: ApprovalRequest,
    place: Place,
    card: ApprovalCard,
    asked: Millis,
}

impl Pending {
    /// What a person is shown.
    pub(super) fn card(&self) -> &ApprovalCard {
        &self.card
    }
}

/// Who answered, and over what.
pub(super) struct Answerer<'a> {
    pub(super) principal: &'a PrincipalId,
    pub(super) channel: &'a ChannelId,
}

/// What they said.
pub(super) enum Said {
    /// Run it.
    Yes(Proof),
    /// Do not; why, for the model, if they say so.
    No(String),
}

impl Gateway {
    /// Records the question and shows it.
    pub(super) fn ask(
        &mut self,
        before: Vec<Fact>,
        request: ApprovalRequest,
        place: &Place,
        said: &str,
    ) -> Result<(), Fatal> {
        let mut facts = before;
        facts.push(request.row().event);
        let reference = request.reference().clone();
        if let Err(error) = self.record.write(&reference.session, facts) {
            return self.record_lost(&error);
        }
        let pending = Pending {
            card: request.card(said),
            request,
            place: place.clone(),
            asked: Millis::now(),
        };
        self.show_card(&reference, CallState::Waiting, "");
        for place in self.watchers(&pending.place) {
            let (conversation, card) = (place.conversation.clone(), pending.card.clone());
            self.surfaces
                .show(&place, &ChannelEvent::Approval { conversation, card });
        }
        self.pending.push(pending);
        Ok(())
    }

    /// Takes an answer; the error is for whoever gave it.
    pub(super) fn answer_approval(
        &mut self,
        given: &Approved,
        said: Said,
        who: &Answerer<'_>,
    ) -> Result<Result<(), String>, Fatal> {
        let Some(index) = self
            .pending
            .iter()
            .position(|pending| pending.request.id() == given.approval)
        else {
            return Ok(Err("That question is closed already.".to_owned()));
        };
        let request = &self.pending[index].request;
        let may = self
            .rules
            .in_force
            .may_answer(who.principal, request.principal());
        // A no of whoever asked takes nothing from anybody.
        let takes_back = matches!(said, Said::No(_)) && who.principal == request.principal();
        if let Err(why) = may
            && !takes_back
        {
            return Ok(Err(format!("{why}.")));
        }
        let now = Millis::now();
        let does_not_count = |why: &dyn std::fmt::Display| Ok(Err(texts::does_not_count(why)));
        match said {
            Said::No(reason) => {
                if let Err(why) = request.check(given, now) {
                    return does_not_count(&why);
                }
                let pending = self.pending.swap_remove(index);
                self.denied(&pending, who, &reason)?;
            }
            Said::Yes(proof) => {
                let consent = match self.consent(&proof, request.digest(), who.principal)? {
                    Ok(consent) => consent,
                    Err(why) => return does_not_count(&why),
                };
                if let Err(why) = request.check_yes(given, &consent, now) {
                    return does_not_count(&why);
                }
                let pending = self.pending.swap_remove(index);
                self.approved(pending, given, &consent, who, now)?;
            }
        }
        Ok(Ok(()))
    }

    fn denied(&mut self, pending: &Pending, who: &Answerer<'_>, reason: &str) -> Result<(), Fatal> {
        let fact = answered(&pending.card, Answer::Deny, Some(who), pending.asked, None);
        self.show_closed(
            &pending.place,
            pending.card.approval,
            Answer::Deny,
            Some(who.channel),
        );
        self.refuse(
            pending.request.reference(),
            vec![fact],
            texts::said_no(&self.redacted(reason)),
        )
    }

    fn approved(
        &mut self,
        pending: Pending,
        yes: &Approved,
        consent: &Consent,
        who: &Answerer<'_>,
        now: Millis,
    ) -> Result<(), Fatal> {
        let signer = match consent {
            Consent::Signed(signed) => Some(signed.by()),
            Consent::Unsigned => None,
        };
        let facts = vec![answered(
            &pending.card,
            Answer::Approve,
            Some(who),
            pending.asked,
            signer,
        )];
        let permit = match pending.request.approved(yes, consent, now) {
            Ok(permit) => permit,
            // It was checked with the same facts; whatever else it is, it is not a yes.
            Err(refused) => {
                return self.refuse(
                    refused.request.reference(),
                    Vec::new(),
                    refused.why.to_string(),
                );
            }
        };
        self.show_closed(
            &pending.place,
            yes.approval,
            Answer::Approve,
            Some(who.channel),
        );
        self.permit(facts, permit)?;
        // It may be remembered.
        self.grants_changed(&pending.place.principal);
        Ok(())
    }

    /// Whoever has not answered by now has said no.
    pub(super) fn expire_approvals(&mut self) -> Result<(), Fatal> {
        let now = Millis::now();
        self.close_approvals(Answer::Expired, "nobody answered in time", |pending| {
            pending.request.is_expired(now)
        })
    }

    /// The turn is over or stopped; nobody needs to answer any more.
    pub(super) fn cancel_approvals_of(&mut self, id: &SessionId) -> Result<(), Fatal> {
        let id = id.clone();
        self.close_approvals(
            Answer::Cancelled,
            "the person stopped this turn",
            move |pending| pending.card.session == id,
        )
    }

    /// Drops all questions; what the record has to hold of them, by session.
    pub(super) fn withdraw_approvals(&mut self) -> Vec<(SessionId, Fact)> {
        let withdraw = |pending: &Pending| {
            let card = &pending.card;
            self.show_closed(&pending.place, card.approval, Answer::Cancelled, None);
            let fact = answered(card, Answer::Cancelled, None, pending.asked, None);
            (card.session.clone(), fact)
        };
        let facts = self.pending.iter().map(withdraw).collect();
        self.pending.clear();
        facts
    }

    /// Drops the questions of a session without a word in the record.
    pub(super) fn forget_approvals_of(&mut self, id: &SessionId) {
        let (gone, kept) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|pending| pending.card.session == *id);
        self.pending = kept;
        let gone: Vec<Pending> = gone;
        for pending in gone {
            self.show_closed(
                &pending.place,
                pending.request.id(),
                Answer::Cancelled,
                None,
            );
        }
    }

    pub(super) fn close_approvals(
        &mut self,
        how: Answer,
        reason: &str,
        over: impl Fn(&Pending) -> bool,
    ) -> Result<(), Fatal> {
        while let Some(index) = self.pending.iter().position(&over) {
            let Pending {
                request,
                place,
                card,
                asked,
            } = self.pending.swap_remove(index);
            let reference = request.reference().clone();
            self.show_closed(&place, card.approval, how, None);
            self.refuse(
                &reference,
                vec![answered(&card, how, None, asked, None)],
                reason.to_owned(),
            )?;
        }
        Ok(())
    }

    fn show_closed(
        &self,
        place: &Place,
        approval: ApprovalId,
        answer: Answer,
        over: Option<&ChannelId>,
    ) {
        for place in self.watchers(place) {
            let conversation = place.conversation.clone();
            self.surfaces.show(
                &place,
                &ChannelEvent::ApprovalClosed {
                    conversation,
                    approval,
                    answer,
                    over: over.cloned(),
                },
            );
        }
    }

    /// Where a question is shown: where the call was asked for, and on the owner's page.
    fn watchers(&self, place: &Place) -> Vec<Place> {
        let page = page();
        match *place == page {
            true => vec![page],
            false => vec![place.clone(), page],
        }
    }

    /// Shows what waits to somebody who just came to this place.
    pub(super) fn show_pending(&self, link: LinkId, place: &Place) {
        for pending in self
            .pending
            .iter()
            .filter(|pending| self.watchers(&pending.place).contains(place))
        {
            let (conversation, card) = (place.conversation.clone(), pending.card.clone());
            self.surfaces
                .answer(link, ChannelEvent::Approval { conversation, card });
        }
    }

    /// Shows what waits on a channel whose program was started again.
    pub(super) fn show_pending_to(&self, channel: &ChannelId) {
        for pending in &self.pending {
            for place in self
                .watchers(&pending.place)
                .iter()
                .filter(|place| place.channel == *channel)
            {
                let (conversation, card) = (place.conversation.clone(), pending.card.clone());
                self.surfaces
                    .show(place, &ChannelEvent::Approval { conversation, card });
            }
        }
    }
}

/// The owner's page.
pub(super) fn page() -> Place {
    Place {
        principal: owner(),
        channel: ChannelId::parse("web").expect("it has only letters"),
        conversation: ConversationId::parse("main").expect("it has only letters"),
    }
}

pub(super) fn answered(
    card: &ApprovalCard,
    answer: Answer,
    who: Option<&Answerer<'_>>,
    asked: Millis,
    signed: Option<Signer>,
) -> Fact {
    let after = Millis::now().since(asked);
    Fact::ApprovalAnswered {
        turn: card.turn,
        call: card.call,
        approval: card.approval,
        answer,
        by: who.map(|who| who.principal.clone()),
        channel: who.map(|who| who.channel.clone()),
        after_ms: Duration::as_millis(&after).try_into().unwrap_or(u64::MAX),
        signed,
    }
}
