//! The terminal: text made harmless, lines and secrets read from it.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use protocol::channel::MAX_TEXT;
use protocol::vault::SecretText;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{self, LocalModes, OptionalActions, QueueSelector, SpecialCodeIndex};

use crate::fault::Fault;

/// Text of several lines, fit to be shown: characters that steer a terminal, hide
/// themselves or turn the writing round appear as `U+XXXX`. Newlines and tabs stay.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    made_visible(text, |c| steers(c) && c != '\n' && c != '\t')
}

/// The same for what has to stay on one line.
pub(crate) fn harmless_line(text: &str) -> Cow<'_, str> {
    made_visible(text, steers)
}

fn made_visible(text: &str, hide: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&hide) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match hide(c) {
        true => format!("U+{:04X}", u32::from(c)),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Control characters (C0, DEL, C1), bidirectional controls (Unicode TR 9), characters
/// without width that no writing needs, line separators, tags. The joiners U+200C and
/// U+200D stay: writings and emoji need them.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether a person can be asked here: they see standard error and type on standard input.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The text in faint letters, if standard error is a terminal.
pub(crate) fn dim(text: &str) -> String {
    match io::stderr().is_terminal() {
        true => format!("\x1b[2m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

/// What came from standard input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A line without its newline.
    Line(String),
    /// Nothing, in the time given.
    Nothing,
    /// Standard input is at its end.
    End,
}

/// Lines of standard input, read only when asked for, so that the rest of the program goes
/// on meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    ended: bool,
}

impl Lines {
    /// Forgets what was typed before now: an answer counts only after its question.
    pub(crate) fn forget(&mut self) {
        self.buffer.clear();
        // Only a terminal has such a queue.
        let _ = termios::tcflush(io::stdin().as_fd(), QueueSelector::IFlush);
    }

    /// The next line, if it comes in this time.
    pub(crate) fn next(&mut self, wait: Duration) -> Result<Typed, Fault> {
        self.next_from(io::stdin().as_fd(), wait)
    }

    fn next_from(&mut self, input: impl AsFd, wait: Duration) -> Result<Typed, Fault> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Typed::Line(text_of(&line[..end])));
            }
            if self.buffer.len() > MAX_TEXT {
                return Err(Fault::Usage(format!("a line has at most {MAX_TEXT} bytes")));
            }
            if self.ended && self.buffer.is_empty() {
                return Ok(Typed::End);
            }
            if self.ended {
                let line = std::mem::take(&mut self.buffer);
                return Ok(Typed::Line(text_of(&line)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable(&input, left)? {
                return Ok(Typed::Nothing);
            }
            let mut bytes = [0; 4096];
            match rustix::io::read(&input, &mut bytes) {
                Ok(0) => self.ended = true,
                Ok(got) => self.buffer.extend(&bytes[..got]),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Fault::io("read standard input")(error.into())),
            }
        }
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_end_matches('\r')
        .to_owned()
}

fn readable(input: &impl AsFd, wait: Duration) -> Result<bool, Fault> {
    let limit = Timespec::try_from(wait).ok();
    let mut fds = [PollFd::new(input, PollFlags::IN)];
    match poll(&mut fds, limit.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(Fault::io("wait for standard input")(error.into())),
    }
}

/// Asks on standard error and waits for a line; `None` at the end of input. What was typed at a terminal
/// before the question is no answer to it.
pub(crate) fn ask_line(question: &str) -> Result<Option<String>, Fault> {
    eprint!("{question}");
    let mut lines = Lines::default();
    lines.forget();
    loop {
        match lines.next(Duration::from_secs(3600))? {
            Typed::Line(line) => return Ok(Some(line.trim().to_owned())),
            Typed::End => return Ok(None),
            Typed::Nothing => {}
        }
    }
}

/// What a yes-or-no question got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum YesNo {
    /// An explicit `y` or `yes`.
    Yes,
    /// An explicit `n` or `no`.
    No,
}

impl YesNo {
    /// Only explicit words count; anything else is no answer.
    pub(crate) fn of(line: &str) -> Option<Self> {
        match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Some(Self::Yes),
            "n" | "no" => Some(Self::No),
            _ => None,
        }
    }
}

/// Asks until there is an explicit answer; the end of input is a no.
pub(crate) fn ask_yes_no(question: &str) -> Result<YesNo, Fault> {
    loop {
        let Some(line) = ask_line(&format!("{question} [y/n] "))? else {
            return Ok(YesNo::No);
        };
        if let Some(answer) = YesNo::of(&line) {
            return Ok(answer);
        }
    }
}

/// Asks for a secret, which is not shown while it is typed. Ctrl-C gives up.
pub(crate) fn ask_secret(question: &str) -> Result<SecretText, Fault> {
    eprint!("{question}");
    let secret = {
        let _quiet = Quiet::start()?;
        typed_secret()
    };
    eprintln!();
    secret
}

fn typed_secret() -> Result<SecretText, Fault> {
    let mut typed = Vec::new();
    loop {
        let mut byte = [0];
        match rustix::io::read(io::stdin(), &mut byte) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(Fault::io("read the secret")(error.into())),
        }
        match byte[0] {
            b'\n' | b'\r' | 0x04 => break,
            0x03 => return Err(Fault::Refused("given up; nothing was changed".to_owned())),
            0x7f | 0x08 => drop(typed.pop()),
            other if typed.len() < MAX_TEXT => typed.push(other),
            _ => return Err(Fault::Usage("that is too long for a secret".to_owned())),
        }
    }
    secret_of(typed)
}

/// Reads a secret from something that is not a terminal; one newline at its end is not part of it.
pub(crate) fn read_secret(from: impl Read) -> Result<SecretText, Fault> {
    let mut bytes = Vec::new();
    from.take(MAX_TEXT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(Fault::io("read the secret"))?;
    if bytes.len() > MAX_TEXT {
        return Err(Fault::Usage("that is too long for a secret".to_owned()));
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    secret_of(bytes)
}

fn secret_of(bytes: Vec<u8>) -> Result<SecretText, Fault> {
    match String::from_utf8(bytes) {
        Ok(text) if !text.is_empty() => Ok(SecretText::new(text)),
        Ok(_) => Err(Fault::Usage("what was given is empty".to_owned())),
        Err(_) => Err(Fault::Usage("what was given is not UTF-8 text".to_owned())),
    }
}

/// The terminal without echo, lines and signals; as it was, when dropped.
struct Quiet(termios::Termios);

impl Quiet {
    fn start() -> Result<Self, Fault> {
        let failed = |error: rustix::io::Errno| {
            Fault::io("switch off the echo of the terminal")(error.into())
        };
        let before = termios::tcgetattr(io::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        // Without signals, Ctrl-C is a byte, and the terminal is put right before the end.
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(io::stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // There is nobody left to tell if even this fails.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_steers_a_terminal_is_made_visible() {
        assert_eq!(harmless("a\tb\nc"), "a\tb\nc");
        assert_eq!(harmless("\x1b[2Jx\r"), "U+001B[2JxU+000D");
        assert_eq!(harmless("\u{9b}1m\u{7f}"), "U+009B1mU+007F");
        assert_eq!(harmless("a\u{202e}b\u{2066}"), "aU+202EbU+2066");
        assert_eq!(harmless("\u{e0041}\u{200b}\u{feff}"), "U+E0041U+200BU+FEFF");
        assert_eq!(harmless("é 👩\u{200d}💻 漢"), "é 👩\u{200d}💻 漢");
        assert_eq!(harmless_line("a\nb"), "aU+000Ab");
    }

    #[test]
    fn only_explicit_words_are_answers() {
        assert_eq!(YesNo::of(" Yes "), Some(YesNo::Yes));
        assert_eq!(YesNo::of("n"), Some(YesNo::No));
        for other in ["", "yep", "ok", "yy", "да"] {
            assert_eq!(YesNo::of(other), None, "{other:?}");
        }
    }

    #[test]
    fn lines_come_whole_and_the_last_needs_no_newline() {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let mut lines = Lines::default();
        let wait = Duration::from_millis(10);
        writer.write_all(b"one\r\ntw").unwrap();
        let mut next = || lines.next_from(&reader, wait).unwrap();
        assert_eq!(next(), Typed::Line("one".to_owned()));
        assert_eq!(next(), Typed::Nothing);
        writer.write_all(b"o\nlast").unwrap();
        drop(writer);
        assert_eq!(next(), Typed::Line("two".to_owned()));
        assert_eq!(next(), Typed::Line("last".to_owned()));
        assert_eq!(next(), Typed::End);
    }

    #[test]
    fn secrets_are_bounded_and_lose_one_newline() {
        assert_eq!(read_secret(&b"s3cret\n"[..]).unwrap().expose(), "s3cret");
        assert!(read_secret(&b"\n"[..]).is_err());
        assert!(read_secret(&b"\xff"[..]).is_err());
        assert!(read_secret(io::repeat(b'a')).is_err());
    }
}
