//! What shows that a person said yes: the operator key's signature, or a passkey's. Passkeys
//! are enrolled with a one-time code from a terminal, which no channel's program can make.

use std::time::Duration;

use config::OPERATOR;
use policy::passkey::{self, Used};
use policy::{Consent, Signed};
use protocol::channel::ChannelEvent;
use protocol::event::Event as Fact;
use protocol::ids::{Digest, PrincipalId, SenderId, hex, random};
use protocol::operator::MAX_NAME;
use protocol::passkey::{Assertion, Enrolment, Proof};
use protocol::record::system_session;
use protocol::time::Millis;

use super::approvals::page;
use super::inbound::owner;
use super::state::Known;
use super::wire::LinkId;
use super::{Fatal, Gateway, texts};

/// How long a one-time code is good.
const CODE_GOOD: Duration = Duration::from_secs(600);

/// The most passkeys that are kept.
const MAX_PASSKEYS: usize = 64;

impl Gateway {
    /// What a yes of this person to the approval with this digest rests on; the error is for
    /// whoever gave it.
    pub(super) fn consent(
        &self,
        proof: &Proof,
        digest: Digest,
        by: &PrincipalId,
    ) -> Result<Result<Consent, String>, Fatal> {
        match proof {
            Proof::Link => Ok(Ok(Consent::Unsigned)),
            Proof::Operator { signature } => {
                let operator = self
                    .config
                    .channels
                    .iter()
                    .find(|(name, _)| name.as_str() == OPERATOR);
                let Some((_, key)) = operator.filter(|_| *by == owner()) else {
                    return Ok(Err("the operator key is not yours".to_owned()));
                };
                let signed = Signed::by_operator(key, digest, signature);
                Ok(signed.map(Consent::Signed).map_err(|why| why.to_string()))
            }
            Proof::Passkey { assertion } => self.passkey_consent(assertion, digest, by),
        }
    }

    fn passkey_consent(
        &self,
        assertion: &Assertion,
        digest: Digest,
        by: &PrincipalId,
    ) -> Result<Result<Consent, String>, Fatal> {
        let Some(origin) = &self.config.web_origin else {
            return Ok(Err("there is no page on which a passkey counts".to_owned()));
        };
        let known = self.state.passkey(&assertion.credential)?;
        let Some((passkey, _)) = known.filter(|(_, principal)| principal == by) else {
            return Ok(Err(texts::PASSKEY_UNKNOWN.to_owned()));
        };
        match passkey::verify(assertion, &passkey, digest, origin) {
            Ok(Used { signed, counter }) => {
                self.state.count_passkey(&passkey.credential, counter)?;
                Ok(Ok(Consent::Signed(signed)))
            }
            Err(why) => Ok(Err(format!("the passkey's answer is not taken: {why}"))),
        }
    }

    /// A new one-time link with which the page enrols a passkey of the owner.
    pub(super) fn passkey_link(&self, name: &str) -> Result<Result<String, String>, Fatal> {
        let Some(origin) = &self.config.web_origin else {
            return Ok(Err(texts::NO_PAGE.to_owned()));
        };
        if name.is_empty() || name.len() > MAX_NAME || texts::visible(name) != name {
            return Ok(Err(format!(
                "a passkey's name has 1 to {MAX_NAME} bytes, none of them invisible"
            )));
        }
        if self.state.passkeys()?.len() >= MAX_PASSKEYS {
            return Ok(Err(format!(
                "there are {MAX_PASSKEYS} passkeys already; remove one with `bulkhead passkey remove`"
            )));
        }
        let code = hex(&random::<24>()?);
        let expires = Millis::now().after(CODE_GOOD);
        self.state
            .add_passkey_code(Digest::of(&code), &owner(), name, expires)?;
        // The fragment is never sent, so that the code is in no log.
        Ok(Ok(format!("{origin}/passkey#{code}")))
    }

    /// A browser made a passkey.
    pub(super) fn enrol_passkey(
        &mut self,
        link: LinkId,
        id: u64,
        sender: &SenderId,
        code: &str,
        enrolment: &Enrolment,
    ) -> Result<(), Fatal> {
        let event = match self.enrolled(link, sender, code, enrolment)? {
            Ok(()) => ChannelEvent::PasskeyEnrolled { id },
            Err(text) => ChannelEvent::PasskeyRefused { id, text },
        };
        self.surfaces.answer(link, event);
        Ok(())
    }

    fn enrolled(
        &mut self,
        link: LinkId,
        sender: &SenderId,
        code: &str,
        enrolment: &Enrolment,
    ) -> Result<Result<(), String>, Fatal> {
        let (now, channel) = (Millis::now(), page().channel);
        let by = self.state.principal(&channel, sender)?;
        let (Some(origin), Some(by), true) =
            (self.config.web_origin.clone(), by, self.is_page(link))
        else {
            return Ok(Err(texts::STRANGER_ANSWERS.to_owned()));
        };
        // Used up by the first try, whatever comes of it.
        let code = Digest::of(code);
        let taken = self.state.use_passkey_code(code, now)?;
        let Some((principal, name)) = taken.filter(|(principal, _)| *principal == by) else {
            return Ok(Err(texts::CODE_USED.to_owned()));
        };
        let passkey = match passkey::enrol(enrolment, code, &origin) {
            Ok(passkey) => passkey,
            Err(why) => return Ok(Err(format!("The passkey is not taken: {why}."))),
        };
        if self.state.passkey(&passkey.credential)?.is_some() {
            return Ok(Err("This passkey is enrolled already.".to_owned()));
        }
        let fact = Fact::PasskeyEnrolled {
            principal: principal.clone(),
            credential: Digest::of(passkey.credential.as_slice()),
            key: Digest::of(passkey.key.as_slice()),
        };
        // More authority is never given without its row.
        if self.record.write(&system_session(), vec![fact]).is_err() {
            return Ok(Err(texts::NO_RECORD.to_owned()));
        }
        self.state.add_passkey(&passkey, &principal, &name, now)?;
        Ok(Ok(()))
    }

    /// Forgets a passkey. The record need not be there: less is always allowed.
    pub(super) fn remove_passkey(&mut self, number: u64) -> Result<Known, Fatal> {
        let passkeys = self.state.passkeys()?;
        let Some(known) = passkeys.into_iter().find(|one| one.passkey == number) else {
            return Ok(Known::New);
        };
        self.state.remove_passkey(number)?;
        self.note(Fact::PasskeyRemoved {
            principal: known.principal,
            credential: known.credential,
        });
        Ok(Known::Already)
    }
}
