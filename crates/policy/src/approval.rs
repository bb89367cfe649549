//! A question to a person, bound to one exact call.

use protocol::call::{ToolCall, Verdict};
use protocol::channel::{ApprovalCard, Needs};
use protocol::event::Event;
use protocol::ids::{ApprovalId, CallRef, Digest, Nonce, PrincipalId};
use protocol::record::{NewRow, Recordable};
use protocol::time::Millis;
use serde::{Deserialize, Serialize};

use crate::consent::Consent;
use crate::decision::Question;
use crate::exact::Exact;
use crate::judge::Judgement;
use crate::permit::Permit;
use crate::requests;
use crate::rules::Rules;
use crate::visible;

/// Asks whether one exact call may run. Becomes a [`Permit`] by a matching yes in time, and
/// never by anything else.
#[must_use]
#[derive(Debug)]
pub struct ApprovalRequest {
    exact: Exact,
    judgement: Judgement,
    question: Question,
    digest: Digest,
}

/// A yes, with what was shown to the person who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Approved {
    /// The approval that was answered.
    pub approval: ApprovalId,
    /// The digest that was shown.
    pub digest: Digest,
    /// The nonce that came with it.
    pub nonce: Nonce,
}

/// A yes that does not count, and the request, which is as open as before unless it expired.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct ApprovalRefused {
    /// Still to be answered.
    pub request: Box<ApprovalRequest>,
    /// Why this answer does not count.
    pub why: WhyRefused,
}

/// Why a yes does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyRefused {
    /// It answers another request.
    #[error("the answer is to another request")]
    OtherApproval,
    /// It was shown something else.
    #[error("the answer is to another call than the one that is asked about; look at it again")]
    OtherCall,
    /// The nonce is not the one that was given out.
    #[error("the answer does not come from where the request was shown")]
    OtherNonce,
    /// It came too late.
    #[error("the request has expired; the call has to be asked for again")]
    Expired,
    /// Nobody signed it, and it needs that.
    #[error(
        "this call needs a signature: approve it on the page with a passkey, or in a terminal with `bulkhead approvals approve`"
    )]
    NotSigned,
    /// What was signed is another call.
    #[error("the signature is over another call than the one that is asked about")]
    OtherSigned,
}

impl ApprovalRequest {
    pub(crate) fn new(exact: Exact, judgement: Judgement, question: Question) -> Self {
        let digest = exact.digest(&judgement, Some(question));
        Self {
            exact,
            judgement,
            question,
            digest,
        }
    }

    /// Turns a yes into the permit. The request is used up by it.
    pub fn approved(
        self,
        yes: &Approved,
        consent: &Consent,
        now: Millis,
    ) -> Result<Permit, ApprovalRefused> {
        match self.check_yes(yes, consent, now) {
            Ok(()) => Ok(Permit::approved(
                self.exact,
                self.judgement,
                self.question,
                self.digest,
            )),
            Err(why) => Err(ApprovalRefused {
                request: Box::new(self),
                why,
            }),
        }
    }

    /// Whether a yes counts: it is to this request, in time, and signed if it has to be.
    pub fn check_yes(
        &self,
        yes: &Approved,
        consent: &Consent,
        now: Millis,
    ) -> Result<(), WhyRefused> {
        self.check(yes, now)?;
        match (self.needs(), consent) {
            (_, Consent::Signed(signed)) if signed.digest() != self.digest => {
                Err(WhyRefused::OtherSigned)
            }
            (Needs::Answer | Needs::Signature, Consent::Signed(_))
            | (Needs::Answer, Consent::Unsigned) => Ok(()),
            (Needs::Signature, Consent::Unsigned) => Err(WhyRefused::NotSigned),
        }
    }

    /// What a yes takes. Whatever is not tier 2 takes a signature.
    pub fn needs(&self) -> Needs {
        match self.judgement.verdict {
            Verdict::AskOnce => Needs::Answer,
            Verdict::Allow | Verdict::AskAlways | Verdict::Deny => Needs::Signature,
        }
    }

    /// Whether an answer, a yes or a no, is to this request and comes in time. A no that is
    /// to something else does not count either: another call may have been meant.
    pub fn check(&self, answer: &Approved, now: Millis) -> Result<(), WhyRefused> {
        match () {
            () if answer.approval != self.question.approval => Err(WhyRefused::OtherApproval),
            () if answer.digest != self.digest => Err(WhyRefused::OtherCall),
            () if answer.nonce != self.question.nonce => Err(WhyRefused::OtherNonce),
            () if self.is_expired(now) => Err(WhyRefused::Expired),
            () => Ok(()),
        }
    }

    /// Whether it counts as a no by now.
    pub fn is_expired(&self, now: Millis) -> bool {
        now >= self.question.expires
    }

    /// What it is called by.
    pub fn id(&self) -> ApprovalId {
        self.question.approval
    }

    /// Which call it is about.
    pub fn reference(&self) -> &CallRef {
        &self.exact.reference
    }

    /// The call itself.
    pub fn call(&self) -> &ToolCall {
        &self.exact.call
    }

    /// Who asked for the turn.
    pub fn principal(&self) -> &PrincipalId {
        &self.exact.principal
    }

    /// [`Verdict::AskOnce`] or [`Verdict::AskAlways`].
    pub fn verdict(&self) -> Verdict {
        self.judgement.verdict
    }

    /// What the rules say of the call.
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// Of the exact call, with the nonce and the expiry.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Good for one answer.
    pub fn nonce(&self) -> Nonce {
        self.question.nonce
    }

    /// From then on it is a no.
    pub fn expires(&self) -> Millis {
        self.question.expires
    }

    /// The whole action for a person: nothing cut, nothing invisible, lookalikes named.
    pub fn text(&self) -> String {
        let action = visible::action(&self.judgement.action);
        match self.judgement.network.as_slice() {
            [] => action,
            rules => format!("{action}\nwith a way out to {}", requests::way_out(rules)),
        }
    }

    /// What a yes covers.
    pub fn covers(&self) -> String {
        match self.judgement.verdict {
            Verdict::AskOnce => format!(
                "this call now, and {} for 30 days when {} asks for it over {}",
                match &self.exact.call {
                    // What is written is another text each time.
                    ToolCall::WriteFile { path, .. } => format!("any other text written to {path}"),
                    ToolCall::EditFile { path, .. } => format!("any other edit of {path}"),
                    ToolCall::HttpRequest { .. } | ToolCall::WebFetch { .. } => self.covers_rule(),
                    _ => "exactly the same one again".to_owned(),
                },
                self.exact.principal,
                self.exact.channel
            ),
            Verdict::Allow | Verdict::AskAlways | Verdict::Deny => {
                "this one call; the next one like it is asked about again".into()
            }
        }
    }

    /// A yes to a request that a rule allows is one to the rule.
    fn covers_rule(&self) -> String {
        let asked = self.judgement.effects.requests.first();
        let with = match &self.exact.call {
            ToolCall::HttpRequest { headers, .. } if !requests::telling(headers).is_empty() => {
                " with the same headers"
            }
            _ => "",
        };
        match asked.and_then(|asked| asked.rule.as_ref().map(|rule| (asked.method, rule))) {
            Some((method, rule)) => {
                format!(
                    "any other {method}{with} that egress rule {:?} allows",
                    rule.as_str()
                )
            }
            None => "exactly the same one again".to_owned(),
        }
    }

    /// What a person is shown. What the model said is only quoted.
    pub fn card(&self, said: &str) -> ApprovalCard {
        let CallRef {
            session,
            turn,
            call,
        } = self.exact.reference.clone();
        ApprovalCard {
            approval: self.question.approval,
            nonce: self.question.nonce,
            digest: self.digest,
            session,
            turn,
            call,
            action: self.text(),
            reason: self.judgement.reason.clone(),
            covers: self.covers(),
            said: visible::text(said),
            expires: self.question.expires,
            needs: self.needs(),
        }
    }

    /// The form that survives a restart.
    pub fn stored(&self) -> StoredApproval {
        let stored = Stored {
            exact: self.exact.clone(),
            approval: self.question.approval,
            nonce: self.question.nonce,
            expires: self.question.expires,
            digest: self.digest,
        };
        // Texts, numbers and lists of them always have a JSON form, and memory takes it.
        StoredApproval(serde_json::to_string(&stored).expect("an approval has a JSON form"))
    }
}

impl Recordable for ApprovalRequest {
    fn row(&self) -> NewRow {
        let CallRef {
            session,
            turn,
            call,
        } = self.exact.reference.clone();
        let Question {
            approval, expires, ..
        } = self.question;
        NewRow {
            session,
            event: Event::ApprovalAsked {
                turn,
                call,
                approval,
                digest: self.digest,
                expires,
            },
        }
    }
}

/// A pending approval as a text to be kept. Loading it judges the call anew and refuses it
/// if one byte is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StoredApproval(String);

/// Why a stored approval is not one any more; it then counts as a no.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadStored {
    /// It is no JSON of the right form.
    #[error("the stored approval cannot be read: {0}")]
    Broken(String),
    /// The rules have changed since it was asked.
    #[error("the stored approval was asked under other rules")]
    OtherRules,
    /// Its parts do not belong together.
    #[error("the stored approval has been changed")]
    Changed,
}

impl StoredApproval {
    /// A text that was kept.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text to keep.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The request again, exactly as it was.
    pub fn load(&self, rules: &Rules, now: Millis) -> Result<ApprovalRequest, BadStored> {
        let stored: Stored =
            serde_json::from_str(&self.0).map_err(|e| BadStored::Broken(e.to_string()))?;
        if stored.exact.policy != rules.version() {
            return Err(BadStored::OtherRules);
        }
        let Stored {
            exact,
            approval,
            nonce,
            expires,
            ..
        } = stored;
        let judgement = rules.judge(&exact.call, &exact.workspace, &exact.session(), now);
        match judgement.verdict {
            Verdict::AskOnce | Verdict::AskAlways => {}
            Verdict::Allow | Verdict::Deny => return Err(BadStored::Changed),
        }
        let request = ApprovalRequest::new(
            exact,
            judgement,
            Question {
                approval,
                nonce,
                expires,
            },
        );
        // Compared as texts, digest and all, since the same values can be written in many ways.
        match request.stored() == *self {
            true => Ok(request),
            false => Err(BadStored::Changed),
        }
    }
}

/// What [`StoredApproval`] holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    exact: Exact,
    approval: ApprovalId,
    nonce: Nonce,
    expires: Millis,
    digest: Digest,
}
