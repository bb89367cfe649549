//! Browsers: let in by a one-time link, known afterwards by a cookie. Only hashes are kept.

use std::time::Duration;

use protocol::channel::ChannelEvent;
use protocol::event::Event as Fact;
use protocol::ids::{Digest, SenderId, hex, random};
use protocol::time::Millis;

use super::approvals::page;
use super::inbound::owner;
use super::state::Known;
use super::wire::LinkId;
use super::{Fatal, Gateway};

/// How long a one-time link is good.
const LINK_GOOD: Duration = Duration::from_secs(600);

/// How long a browser stays known.
const BROWSER_GOOD: Duration = Duration::from_secs(30 * 86_400);

impl Gateway {
    /// A new one-time link to the page at this origin.
    pub(super) fn new_link(&self, origin: &str) -> Result<String, Fatal> {
        let token = hex(&random::<24>()?);
        self.state
            .add_login(Digest::of(&token), Millis::now().after(LINK_GOOD))?;
        // The fragment is never sent, so that the token is in no log.
        Ok(format!("{origin}/login#{token}"))
    }

    /// A browser brings the token of a link.
    pub(super) fn login(&mut self, link: LinkId, id: u64, token: &str) -> Result<(), Fatal> {
        let now = Millis::now();
        let good =
            self.is_page(link) && self.state.use_login(Digest::of(token), now)? == Known::Already;
        if !good {
            self.surfaces
                .answer(link, ChannelEvent::LoginRefused { id });
            return Ok(());
        }
        let cookie = hex(&random::<24>()?);
        let sender = SenderId::parse(format!("browser-{}", hex(&random::<6>()?)))
            .expect("it has only letters, digits and a dash");
        self.state
            .add_browser(Digest::of(&cookie), &sender, now.after(BROWSER_GOOD))?;
        self.state
            .pair(&page().channel, &sender, "a browser", &owner(), now)?;
        self.note(Fact::LoggedIn {
            channel: page().channel,
            principal: owner(),
        });
        self.let_in(link, id, cookie, sender);
        Ok(())
    }

    /// A browser brings a cookie from before.
    pub(super) fn resume(&mut self, link: LinkId, id: u64, cookie: String) -> Result<(), Fatal> {
        match self.state.browser(Digest::of(&cookie), Millis::now())? {
            Some(sender) if self.is_page(link) => self.let_in(link, id, cookie, sender),
            _ => self
                .surfaces
                .answer(link, ChannelEvent::LoginRefused { id }),
        }
        Ok(())
    }

    /// A browser logs out. The record need not be there: less is always allowed.
    pub(super) fn logout(&mut self, link: LinkId, sender: SenderId) -> Result<(), Fatal> {
        let channel = page().channel;
        if self.is_page(link) && self.state.unpair(&channel, &sender)? == Known::Already {
            self.note(Fact::Unpaired { channel, sender });
        }
        Ok(())
    }

    fn let_in(&mut self, link: LinkId, id: u64, cookie: String, sender: SenderId) {
        let conversation = page().conversation;
        self.surfaces.follow(link, &conversation);
        self.surfaces.answer(
            link,
            ChannelEvent::LoggedIn {
                id,
                cookie,
                sender,
                conversation,
            },
        );
    }

    /// Whether this is the link to the page's program.
    pub(super) fn is_page(&self, link: LinkId) -> bool {
        self.surfaces.channel(link) == Some(&page().channel)
    }
}
