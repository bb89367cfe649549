//! What goes back of an answer: without the credential, within a frame, and as text or not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use protocol::egress::{Extent, FetchBody};
use protocol::ids::{NoRandom, SecretName};
use protocol::marks::{MarkKey, MarkKind, Marks, marks_of};
use protocol::vault::SecretText;
use scan::{Finding, Scanner, redact};

/// The most bytes of a body that go back. As text each takes two bytes of a frame at worst, as
/// base64 four for three.
pub(crate) const MAX_BODY: u64 = 1792 * 1024;

/// Shorter values are not looked for: every answer holds them by chance.
const SHORTEST: usize = 4;

/// The most bytes that an encoding takes for one: `&#x0041;`.
const ENCODED: usize = 8;

/// Looks for what was attached to a request, in any encoding that a scan knows.
pub(crate) struct Echo {
    name: SecretName,
    scanner: Scanner,
    /// Values with too few letters and digits for marks; looked for as they are.
    short: Vec<SecretText>,
    /// How many bytes the longest value can be in any usual encoding.
    longest: usize,
}

/// The answer holds a credential where it cannot be cut out.
pub(crate) struct Held;

impl Echo {
    /// Of a secret and of what was made from it.
    pub(crate) fn of(name: &SecretName, values: &[&str]) -> Result<Self, NoRandom> {
        let key = MarkKey::random()?;
        let (mut marks, mut short) = (Vec::new(), Vec::new());
        for value in values {
            match marks_of(&key, name.clone(), MarkKind::Secret, value) {
                Ok(mark) => marks.push(mark),
                Err(_) if value.len() >= SHORTEST => {
                    short.push(SecretText::new((*value).to_owned()))
                }
                Err(_) => {}
            }
        }
        Ok(Self {
            name: name.clone(),
            scanner: Scanner::new(Marks::new(&key, marks)),
            short,
            longest: values.iter().map(|it| it.len()).max().unwrap_or(0) * ENCODED,
        })
    }

    /// The text without it.
    pub(crate) fn out_of(&self, text: String) -> String {
        let mut text = without_the_vault_s(&self.scanner, text);
        for value in &self.short {
            if text.contains(value.expose()) {
                text = text.replace(value.expose(), &format!("[redacted: {}]", self.name));
            }
        }
        text
    }

    /// Whether it is in the text.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.scanner.scan(text).iter().any(vault_s)
            || self.short.iter().any(|value| text.contains(value.expose()))
    }
}

/// The text without what is the vault's own. Other formats of keys are what a server may well
/// write; who shows the text looks for them.
fn without_the_vault_s(scanner: &Scanner, text: String) -> String {
    let mut findings = scanner.scan(&text);
    findings.retain(vault_s);
    if findings.is_empty() {
        text
    } else {
        redact(&text, &findings)
    }
}

fn vault_s(finding: &Finding) -> bool {
    finding.name.is_some()
}

/// What is looked for in an answer.
pub(crate) struct Sought<'a> {
    /// All that the vault holds.
    pub(crate) vault: &'a Scanner,
    /// What was attached, if anything was.
    pub(crate) echo: Option<&'a Echo>,
}

impl Sought<'_> {
    /// The text without any of it.
    pub(crate) fn out_of(&self, text: String) -> String {
        let text = match self.echo {
            Some(echo) => echo.out_of(text),
            None => text,
        };
        without_the_vault_s(self.vault, text)
    }

    /// Whether any of it is in the text.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        let echoed = self.echo.is_some_and(|echo| echo.is_in(text));
        echoed || self.vault.scan(text).iter().any(vault_s)
    }

    /// The body as it goes back, and whether that is all of it. Where it is cut, the scan does not
    /// know the beginning or the end of what was attached; as much as that can be is left out
    /// there, since whoever asked may have chosen the place.
    pub(crate) fn body(
        &self,
        bytes: Vec<u8>,
        (status, extent): (StatusCode, Extent),
    ) -> Result<(FetchBody, Extent), Held> {
        let edge = self.echo.map_or(0, |echo| echo.longest);
        let (front, back) = match (status, extent) {
            (StatusCode::PARTIAL_CONTENT, _) => (edge, edge),
            (_, Extent::Truncated) => (0, edge),
            (_, Extent::Whole) => (0, 0),
        };
        let extent = if back > 0 { Extent::Truncated } else { extent };
        let body = match String::from_utf8(bytes) {
            Ok(text) if is_plain(&text) => {
                let text = self.out_of(text);
                let start = text.ceil_char_boundary(front.min(text.len()));
                let end = text.floor_char_boundary(text.len().saturating_sub(back));
                let kept = text.get(start..end).unwrap_or_default();
                FetchBody::Text {
                    text: fitting(kept.to_owned()),
                }
            }
            Ok(text) => self.binary(text.into_bytes(), (front, back))?,
            Err(error) => self.binary(error.into_bytes(), (front, back))?,
        };
        Ok((body, extent))
    }

    /// Nothing can be cut out of the middle of what is not text.
    fn binary(&self, bytes: Vec<u8>, (front, back): (usize, usize)) -> Result<FetchBody, Held> {
        // Each byte as a character, so that what stands between others is found.
        let shown: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        if self.is_in(&shown) {
            return Err(Held);
        }
        let end = bytes.len().saturating_sub(back);
        let kept = bytes.get(front..end).unwrap_or_default();
        Ok(FetchBody::Base64 {
            base64: STANDARD.encode(kept),
        })
    }
}

/// What was put in the place of something may be longer than that was.
fn fitting(mut text: String) -> String {
    let most = usize::try_from(MAX_BODY).unwrap_or(usize::MAX);
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
    text
}

fn is_plain(text: &str) -> bool {
    let odd = |byte: u8| byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r');
    !text.bytes().any(odd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::egress::{FetchOutcome, FetchReply};
    use protocol::frame;

    fn sought(echo: Option<&Echo>) -> FetchBody {
        let vault = Scanner::of_formats();
        let sought = Sought {
            vault: &vault,
            echo,
        };
        sought
            .body(
                b"plain \"text\"\n".to_vec(),
                (StatusCode::OK, Extent::Whole),
            )
            .ok()
            .unwrap()
            .0
    }

    #[test]
    fn a_body_is_text_where_it_can_be_and_fits_a_frame_whatever_it_is() {
        assert!(matches!(sought(None), FetchBody::Text { text } if text == "plain \"text\"\n"));
        let vault = Scanner::of_formats();
        let sought = Sought {
            vault: &vault,
            echo: None,
        };
        let most = usize::try_from(MAX_BODY).unwrap();
        for byte in [b'"', b'\n', 0, 0xff, b'x'] {
            let body = sought
                .body(vec![byte; most], (StatusCode::OK, Extent::Truncated))
                .ok()
                .unwrap()
                .0;
            let text = matches!(body, FetchBody::Text { .. });
            assert_eq!(text, byte != 0 && byte != 0xff, "{byte}");
            let outcome = FetchOutcome {
                status: 200,
                final_url: "x".repeat(8192),
                headers: vec![("x".to_owned(), "\"".repeat(2048)); 16],
                body,
                extent: protocol::egress::Extent::Truncated,
                redirects: vec!["x".repeat(8192); 5],
                bytes_up: 1,
                bytes_down: 1,
                ms: 1,
            };
            let call = protocol::ids::CallRef {
                session: "s".parse().unwrap(),
                turn: protocol::ids::TurnId(1),
                call: protocol::ids::CallId(1),
            };
            frame::encode(&FetchReply::Fetched { call, outcome }).unwrap();
        }
    }

    #[test]
    fn what_was_attached_does_not_come_back() {
        let name: SecretName = "key".parse().unwrap();
        // Invented.
        let secret = ["Zq8hT2vX", "w91LmPc4Rb6Y"].concat();
        let echo = Echo::of(&name, &[&secret, "pin9"]).ok().unwrap();
        let back = echo.out_of(format!(
            "you sent {secret}, or {} and pin9",
            STANDARD.encode(&secret)
        ));
        assert!(!back.contains(&secret) && !back.contains("pin9"), "{back}");
        assert!(!back.contains(&STANDARD.encode(&secret)), "{back}");
        assert!(back.starts_with("you sent [redacted"), "{back}");
        let vault = Scanner::of_formats();
        let sought = Sought {
            vault: &vault,
            echo: Some(&echo),
        };
        let mut bytes = vec![0, 0xff];
        bytes.extend(secret.bytes());
        assert!(sought.body(bytes, (StatusCode::OK, Extent::Whole)).is_err());
        assert!(
            sought
                .body(vec![0, 0xff], (StatusCode::OK, Extent::Whole))
                .is_ok()
        );
    }
}
