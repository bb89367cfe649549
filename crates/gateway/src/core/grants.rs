//! Grants as their person sees them, and taking them back. A grant is made by an answered
//! approval and by nothing else; here there can only become fewer.

use config::TERMINAL;
use protocol::channel::{ChannelEvent, GrantCard};
use protocol::event::Event as Fact;
use protocol::ids::{ChannelId, PrincipalId, SenderId};
use protocol::operator::Grant;
use protocol::time::Millis;

use super::approvals::page;
use super::state::Known;
use super::wire::LinkId;
use super::{Fatal, Gateway, texts};

/// The most grants that the page is told of at once; they fit a frame with room to spare.
const MAX_SHOWN: usize = 500;

impl Gateway {
    /// A browser wants to see the grants of whoever is at it.
    pub(super) fn show_grants(
        &self,
        link: LinkId,
        id: u64,
        sender: &SenderId,
    ) -> Result<(), Fatal> {
        let mut grants = match self.person_at_page(link, sender)? {
            Some(by) => of(&by, self.state.grants(Millis::now())?),
            None => Vec::new(),
        };
        let more = grants.len().saturating_sub(MAX_SHOWN);
        grants.drain(..more);
        let event = ChannelEvent::Grants {
            id,
            grants: grants.iter().map(card).collect(),
            more: more as u64,
        };
        self.surfaces.answer(link, event);
        Ok(())
    }

    /// A browser wants a grant of whoever is at it taken back. Of others' it learns nothing, not
    /// even whether they are there.
    pub(super) fn revoke_grant_at_page(
        &mut self,
        link: LinkId,
        id: u64,
        sender: &SenderId,
        number: u64,
    ) -> Result<(), Fatal> {
        let revoked = match self.person_at_page(link, sender)? {
            Some(by) => self.revoke_grant(number, Whose::Of(&by))?,
            None => Known::New,
        };
        let event = match revoked {
            Known::Already => ChannelEvent::GrantRevoked { id },
            Known::New => ChannelEvent::GrantNotRevoked {
                id,
                text: texts::NO_SUCH_GRANT.to_owned(),
            },
        };
        self.surfaces.answer(link, event);
        Ok(())
    }

    /// Takes a grant back, if there is one. Every call is judged by the grants that are there
    /// then, so it counts at once, in sessions that live too. The record need not be there: less
    /// is always allowed.
    pub(super) fn revoke_grant(&mut self, number: u64, whose: Whose<'_>) -> Result<Known, Fatal> {
        let grants = match whose {
            Whose::Of(by) => of(by, self.state.grants(Millis::now())?),
            Whose::Anybodys => self.state.grants(Millis::now())?,
        };
        let Some(known) = grants.into_iter().find(|known| known.grant == number) else {
            return Ok(Known::New);
        };
        self.state.remove_grant(number)?;
        self.grants_changed(&known.principal);
        self.note(Fact::GrantRevoked {
            principal: known.principal,
            key: known.key,
        });
        Ok(Known::Already)
    }

    /// Tells the page of this person to look again.
    pub(super) fn grants_changed(&self, principal: &PrincipalId) {
        let page = page();
        if *principal == page.principal {
            let conversation = page.conversation.clone();
            self.surfaces
                .show(&page, &ChannelEvent::GrantsChanged { conversation });
        }
    }

    /// Who is at this browser, as far as the link of the page's program asks. No other channel
    /// has grants to show.
    fn person_at_page(
        &self,
        link: LinkId,
        sender: &SenderId,
    ) -> Result<Option<PrincipalId>, Fatal> {
        match self.is_page(link) {
            true => self.principal(&page().channel, sender),
            false => Ok(None),
        }
    }
}

/// Whose grants are meant.
pub(super) enum Whose<'a> {
    /// This person's only.
    Of(&'a PrincipalId),
    /// For whoever proved to hold the operator key.
    Anybodys,
}

fn of(principal: &PrincipalId, mut grants: Vec<Grant>) -> Vec<Grant> {
    grants.retain(|grant| grant.principal == *principal);
    grants
}

fn card(grant: &Grant) -> GrantCard {
    let (what, calls) = in_words(&grant.key);
    GrantCard {
        grant: grant.grant,
        what,
        covers: format!("{calls}, when you ask for it {}", place(&grant.channel)),
        expires: grant.expires,
    }
}

fn place(channel: &ChannelId) -> String {
    match channel.as_str() {
        TERMINAL => "in the terminal".to_owned(),
        name if name == page().channel.as_str() => "on this page".to_owned(),
        name => format!("over {name}"),
    }
}

/// What a key is about, and which calls have it. Keys have nothing invisible in them.
fn in_words(key: &str) -> (String, &'static str) {
    match key.split_once(':') {
        Some((_, digest)) if digest.starts_with("sha256:") => (
            key.to_owned(),
            "exactly one call, too long to be kept; this is its digest",
        ),
        Some(("exec", command)) => (
            shell_words(command).unwrap_or_else(|| command.to_owned()),
            "exactly this command",
        ),
        Some(("write_file", path)) => (path.to_owned(), "writing any text to this file"),
        Some(("edit_file", path)) => (path.to_owned(), "any change of text in this file"),
        Some(_) | None => (key.to_owned(), "all calls with this key"),
    }
}

/// An argv in its JSON form as a shell would be given it; none if something in it would not be
/// seen then.
fn shell_words(json: &str) -> Option<String> {
    let argv: Vec<String> = serde_json::from_str(json).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,+=@%^".contains(c);
    let quoted = |word: String| match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let seen = argv.iter().all(|word| !word.contains(char::is_control));
    (seen && !argv.is_empty()).then(|| argv.into_iter().map(quoted).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
