//! The body of a request of a program in a box: nothing of it goes on before it was looked through.
//!
//! SECURITY: what a scan could still find something in is held back, some 100 KiB at most. A body that says it is
//! compressed is unpacked for the scan alone, as far as it may be long; what goes on is what came.

use std::collections::VecDeque;
use std::io::Write as _;

use flate2::GzHeader;
use flate2::write::GzDecoder;
use protocol::ids::RuleName;
use tokio::io::AsyncRead;
use tokio::time::timeout;

use crate::boxes::forward::{IDLE, No};
use crate::boxes::head::{Bad, Body, Framing, Head, Reading};
use crate::boxes::readable::Readable;
use crate::leaks::{Look, Stopped, kinds};

/// So much is unpacked at once, in packed bytes; of one come 1032 at most (RFC 1951).
const UNPACKED_AT_ONCE: usize = 256;

/// Text is looked through in pieces of this size and a little more.
const PIECE: usize = 16 * 1024;

/// So much is looked through at once of what is no text, and of what comes faster than it is looked through.
const BATCH: usize = 64 * 1024;

/// A piece of this size and more has probably the next one behind it.
const FULL: usize = 8 * 1024;

/// A body on its way.
pub(crate) struct Upload {
    body: Body,
    coding: Coding,
    text: Readable,
    look: Look,
    rule: Option<RuleName>,
    /// What was read and not let through, each with how much text there was at its end.
    held: VecDeque<(Vec<u8>, usize)>,
    held_bytes: usize,
    /// Text that was not looked through yet.
    waiting: String,
    /// Bytes of text there were, and of these let through.
    read: usize,
    passed: usize,
    state: State,
}

#[derive(PartialEq, Eq)]
enum State {
    Coming,
    Whole,
}

/// How what is read becomes what is looked through (RFC 9110, 8.4).
enum Coding {
    Plain,
    Gzip {
        unpack: GzDecoder<Vec<u8>>,
        /// Bytes that it may still unpack to.
        left: u64,
    },
}

/// Why a request that was stopped is refused, and what to do.
pub(crate) fn found(stopped: Stopped, place: &str, rule: Option<&RuleName>) -> No {
    let Stopped::Found(findings) = &stopped else {
        return No::Refused(stopped.unseen().to_owned());
    };
    let rule = rule.map_or(String::new(), |rule| format!(" `{rule}`"));
    No::Refused(format!(
        "there is a secret in {place} ({}). Programs in a box send no keys, not even their own: leave it out. \
         If this program is to use a key of its own there, the owner can say `inspect = false` in the egress rule{rule}",
        kinds(findings).join(", ")
    ))
}

impl Upload {
    /// Of a request with this head, whose head was looked through.
    pub(crate) fn new(
        head: &Head,
        (look, rule): (Look, Option<RuleName>),
        (framing, most): (Framing, u64),
    ) -> Result<Self, No> {
        Ok(Self {
            body: Body::new(framing),
            coding: match framing {
                Framing::Length(0) => Coding::Plain,
                Framing::Length(_) | Framing::Chunked => Coding::of(head, most)?,
            },
            text: Readable::default(),
            look,
            rule,
            held: VecDeque::new(),
            held_bytes: 0,
            waiting: String::new(),
            read: 0,
            passed: 0,
            state: State::Coming,
        })
    }

    /// The next piece that may go on; none at its end.
    pub(crate) async fn next<R: AsyncRead + Unpin>(
        &mut self,
        from: &mut Reading<R>,
    ) -> Result<Option<Vec<u8>>, No> {
        loop {
            if let Some((_, end)) = self.held.front()
                && *end <= self.passed
                && self.coding.is_known()
            {
                let piece = self.held.pop_front().map(|(piece, _)| piece);
                self.held_bytes -= piece.as_ref().map_or(0, Vec::len);
                return Ok(piece);
            }
            if self.state == State::Whole {
                return Ok(None);
            }
            let piece = timeout(IDLE, self.body.next(from)).await;
            let piece = piece.unwrap_or(Err(Bad::CutOff));
            match piece.map_err(|bad| No::Refused(bad.to_string()))? {
                Some(piece) => self.take(piece).await?,
                None => self.finish().await?,
            }
        }
    }

    /// Looks through one more piece.
    async fn take(&mut self, piece: Vec<u8>) -> Result<(), No> {
        match self.coding {
            Coding::Plain => {
                let text = self.text.push(&piece);
                self.wait(&text);
            }
            Coding::Gzip { .. } => {
                for packed in piece.chunks(UNPACKED_AT_ONCE) {
                    let text = self.text.push(&self.coding.unpack(packed)?);
                    self.wait(&text);
                    if self.waiting.len() >= PIECE {
                        self.look().await?;
                    }
                }
            }
        }
        let may_wait = match self.text.is_cut() {
            true => self.held_bytes < BATCH,
            false => self.waiting.len() < BATCH && piece.len() >= FULL,
        };
        self.held_bytes += piece.len();
        self.held.push_back((piece, self.read));
        match self.text.is_cut() {
            _ if may_wait => Ok(()),
            true => self.let_through().await,
            false => self.look().await,
        }
    }

    /// All of it was read: what is held back is the end of it.
    async fn finish(&mut self) -> Result<(), No> {
        let rest = self.coding.end()?;
        let text = self.text.push(&rest) + &self.text.finish();
        self.wait(&text);
        self.let_through().await?;
        self.state = State::Whole;
        Ok(())
    }

    fn wait(&mut self, text: &str) {
        self.waiting.push_str(text);
        self.read += text.len();
    }

    async fn look(&mut self) -> Result<(), No> {
        let text = std::mem::take(&mut self.waiting);
        if !text.is_empty() {
            let passed = self.look.along(text).await;
            self.passed += passed.map_err(|stopped| self.found(stopped))?;
        }
        Ok(())
    }

    /// Nothing that was read goes on in what follows.
    async fn let_through(&mut self) -> Result<(), No> {
        self.look().await?;
        let passed = self.look.end().await;
        self.passed += passed.map_err(|stopped| self.found(stopped))?;
        Ok(())
    }

    fn found(&self, stopped: Stopped) -> No {
        found(stopped, "its body", self.rule.as_ref())
    }
}

impl Coding {
    fn of(head: &Head, most: u64) -> Result<Self, No> {
        let bad = |bad: Bad| No::Refused(bad.to_string());
        let Some(coding) = head.one("content-encoding").map_err(bad)? else {
            return Ok(Self::Plain);
        };
        match coding.to_ascii_lowercase().as_slice() {
            b"identity" => Ok(Self::Plain),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip {
                unpack: GzDecoder::new(Vec::new()),
                left: most,
            }),
            _ => Err(No::Refused(
                "its body is compressed in a way that nobody can look into; send it as it is, or as gzip"
                    .to_owned(),
            )),
        }
    }

    /// Whether nothing can come of what was read that is not in what it unpacked to.
    fn is_known(&self) -> bool {
        match self {
            Self::Plain => true,
            Self::Gzip { unpack, .. } => unpack.header().is_some(),
        }
    }

    /// What these bytes unpack to, as far as that is known.
    fn unpack(&mut self, packed: &[u8]) -> Result<Vec<u8>, No> {
        match self {
            Self::Plain => Ok(packed.to_vec()),
            Self::Gzip { unpack, left } => {
                // Also what follows its end, which nobody unpacks.
                let all = unpack.write_all(packed).and_then(|()| unpack.flush());
                all.map_err(|_| no_gzip())?;
                if unpack.header().is_some_and(says_more) {
                    return Err(no_gzip());
                }
                within(left, std::mem::take(unpack.get_mut()))
            }
        }
    }

    /// The rest.
    fn end(&mut self) -> Result<Vec<u8>, No> {
        match self {
            Self::Plain => Ok(Vec::new()),
            Self::Gzip { unpack, left } => {
                unpack.try_finish().map_err(|_| no_gzip())?;
                within(left, std::mem::take(unpack.get_mut()))
            }
        }
    }
}

fn within(left: &mut u64, unpacked: Vec<u8>) -> Result<Vec<u8>, No> {
    let rest = left.checked_sub(unpacked.len() as u64);
    *left = rest.ok_or_else(|| {
        No::Refused("its body unpacks to more than its rule allows up".to_owned())
    })?;
    Ok(unpacked)
}

/// Whether it has texts of its own beside what it packs (RFC 1952, 2.3).
fn says_more(header: &GzHeader) -> bool {
    header.filename().is_some() || header.comment().is_some() || header.extra().is_some()
}

fn no_gzip() -> No {
    No::Refused("its body is not gzip, or more than what it packs".to_owned())
}
