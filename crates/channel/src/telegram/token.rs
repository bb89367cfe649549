//! The bot's token. It is part of every request's path, and nowhere else.

use zeroize::Zeroizing;

use protocol::vault::SecretText;

/// A token of the form `<digits>:<letters, digits, _ and ->`. Has no Debug, Display or Clone, and
/// is wiped when dropped.
pub(super) struct Token(SecretText);

impl Token {
    /// Checks the form, so that a token can be put into a path. `None` if it is something else.
    pub(super) fn parse(text: SecretText) -> Option<Self> {
        let (id, secret) = text.expose().split_once(':')?;
        let number = (1..=20).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit());
        let letters = (1..=128).contains(&secret.len())
            && secret
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        (number && letters).then_some(Self(text))
    }

    /// The path of a method. The HTTP library copies it; its own buffers are not wiped.
    pub(super) fn path(&self, method: &'static str) -> Zeroizing<String> {
        Zeroizing::new(format!("/bot{}/{method}", self.0.expose()))
    }

    /// Whether both are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.expose() == other.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_formed_like_a_token_gets_into_a_path() {
        let parse = |text: &str| Token::parse(SecretText::new(text.to_owned()));
        let path = parse("42:aB_-9").map(|token| token.path("getMe"));
        assert_eq!(
            path.as_deref().map(String::as_str),
            Some("/bot42:aB_-9/getMe")
        );
        for wrong in [
            "",
            "42",
            ":a",
            "42:",
            "x:a",
            "42:a/b",
            "42:a b",
            "42:a\r\nHost: x",
            "42:a?",
            "42:ä",
        ] {
            assert!(parse(wrong).is_none(), "{wrong:?}");
        }
    }
}
