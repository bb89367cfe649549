//! The channels' links, and what goes out over them.

use std::collections::{BTreeMap, BTreeSet};

use config::TERMINAL;
use protocol::channel::ChannelEvent;
use protocol::ids::{ChannelId, ConversationId, SessionId, TurnId};
use protocol::operator::ChannelStatus;

use super::outlet::Outlet;
use super::state::{Place, State, StateError};
use super::wire::LinkId;

/// A link to a channel's program or to a terminal.
struct Surface {
    channel: ChannelId,
    outlet: Outlet<ChannelEvent>,
    /// The conversations that were heard of over this link. A terminal gets nothing of others'.
    conversations: BTreeSet<ConversationId>,
}

/// All such links.
#[derive(Default)]
pub(super) struct Surfaces {
    links: BTreeMap<LinkId, Surface>,
}

impl Surfaces {
    /// A program proved who it is.
    pub(super) fn up(&mut self, link: LinkId, channel: ChannelId, outlet: Outlet<ChannelEvent>) {
        if channel.as_str() != TERMINAL {
            // A program that was started again; its earlier link is dead.
            self.links.retain(|_, surface| surface.channel != channel);
        }
        self.links.insert(
            link,
            Surface {
                channel,
                outlet,
                conversations: BTreeSet::new(),
            },
        );
    }

    /// A link is gone; whose it was, if it was still in use.
    pub(super) fn down(&mut self, link: LinkId) -> Option<ChannelId> {
        self.links.remove(&link).map(|surface| surface.channel)
    }

    /// Whose link this is.
    pub(super) fn channel(&self, link: LinkId) -> Option<&ChannelId> {
        self.links.get(&link).map(|surface| &surface.channel)
    }

    /// From now on this link gets what belongs to this conversation.
    pub(super) fn follow(&mut self, link: LinkId, conversation: &ConversationId) {
        // A channel's program gets all of its channel, and chooses names of conversations freely.
        if let Some(surface) = self.links.get_mut(&link)
            && surface.channel.as_str() == TERMINAL
        {
            surface.conversations.insert(conversation.clone());
        }
    }

    /// Sends over this one link.
    pub(super) fn answer(&self, link: LinkId, event: ChannelEvent) {
        if let Some(surface) = self.links.get(&link) {
            // A link that is cut off here is reported gone by its reader.
            let _ = surface.outlet.send(event);
        }
    }

    /// Ends a link whose program broke the protocol.
    pub(super) fn cut(&self, link: LinkId) {
        if let Some(surface) = self.links.get(&link) {
            surface.outlet.close();
        }
    }

    /// Shows something that is only of use now to whoever follows this conversation.
    pub(super) fn show(&self, place: &Place, event: &ChannelEvent) {
        for surface in self.watching(place) {
            // A link that is cut off here is reported gone by its reader.
            let _ = surface.outlet.send(event.clone());
        }
    }

    /// Shows a piece of an answer. A channel gets the whole of it again, so that pieces can be
    /// left out; a terminal prints them, and has nobody's answers but its own to lose.
    pub(super) fn stream(&self, place: &Place, event: &ChannelEvent) {
        if place.channel.as_str() == TERMINAL {
            return self.show(place, event);
        }
        for surface in self.watching(place) {
            // A link that is cut off here is reported gone by its reader.
            let _ = surface.outlet.offer(event.clone());
        }
    }

    fn watching(&self, place: &Place) -> impl Iterator<Item = &Surface> {
        let terminal = place.channel.as_str() == TERMINAL;
        self.links.values().filter(move |surface| {
            surface.channel == place.channel
                && (!terminal || surface.conversations.contains(&place.conversation))
        })
    }

    /// Sends something that must not be lost: it is kept until the channel has delivered it.
    /// A terminal that is gone has nobody in front of it; nothing is kept for it.
    pub(super) fn deliver(
        &self,
        state: &State,
        place: &Place,
        turn: Option<(&SessionId, TurnId)>,
        event: ChannelEvent,
    ) {
        let kept = match place.channel.as_str() {
            TERMINAL => Ok(0),
            _ => state.keep(&place.channel, turn, &event),
        };
        // What cannot be kept is still shown to whoever is there; a reply is in the record.
        let number = kept.unwrap_or_else(|error| {
            protocol::log!("bulkhead-gateway: {error}");
            0
        });
        self.show(place, &numbered(event, number));
    }

    /// Sends again what a channel has not delivered.
    pub(super) fn deliver_again(&self, state: &State, link: LinkId) -> Result<(), StateError> {
        let Some(channel) = self.channel(link) else {
            return Ok(());
        };
        for (number, event) in state.undelivered(channel)? {
            self.answer(link, numbered(event, number));
        }
        Ok(())
    }

    /// Which of these channels have their program.
    pub(super) fn status<'a>(
        &self,
        channels: impl Iterator<Item = &'a ChannelId>,
    ) -> Vec<ChannelStatus> {
        let connected = |channel: &ChannelId| {
            self.links
                .values()
                .any(|surface| surface.channel == *channel)
        };
        channels
            .map(|channel| ChannelStatus {
                channel: channel.clone(),
                connected: connected(channel),
            })
            .collect()
    }
}

fn numbered(event: ChannelEvent, number: u64) -> ChannelEvent {
    match event {
        ChannelEvent::Reply {
            conversation,
            session,
            turn,
            text,
            ..
        } => ChannelEvent::Reply {
            delivery: number,
            conversation,
            session,
            turn,
            text,
        },
        ChannelEvent::Notice {
            conversation,
            ends_turn,
            text,
            ..
        } => ChannelEvent::Notice {
            delivery: number,
            conversation,
            ends_turn,
            text,
        },
        other => other,
    }
}
