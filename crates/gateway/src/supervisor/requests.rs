//! What `bulkhead` asks of the supervisor. A freeze is thrown right here: it waits for nothing.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use protocol::frame::Link;
use protocol::freeze::{By, MAX_REASON};
use protocol::identity::resumes;
use protocol::ids::{Nonce, PublicKey, Signature, random};
use protocol::supervisor::{SupervisorReply, SupervisorRequest};
use protocol::time::Millis;

use super::freeze::Switch;
use super::run::{Event, spawn};

/// How long `bulkhead` may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The most connections of `bulkhead` at once.
const MAX_REQUESTS: usize = 64;

/// How long the loop may take to tell the gateway of a freeze. What is to be killed is not left
/// running for it.
const TELL_LIMIT: Duration = Duration::from_millis(50);

/// How long the gateway gets to hear what it was just told.
pub(super) const HEARD: Duration = Duration::from_millis(10);

/// The link to a `bulkhead`.
pub(super) type Requester = Link<SupervisorReply, SupervisorRequest>;

/// What the loop has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Tell which programs run.
    Status,
    /// Stop all of them.
    Down,
    /// End this freeze; the operator key signed for it.
    Resume {
        /// Which.
        since: Millis,
    },
}

/// Takes connections of `bulkhead`, one thread each, so that a slow one holds nobody up.
pub(super) fn accept(
    listener: &UnixListener,
    events: &SyncSender<Event>,
    switch: &Switch,
    operator: PublicKey,
) {
    let open = Arc::new(());
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        if Arc::strong_count(&open) > MAX_REQUESTS {
            continue;
        }
        let (events, switch, guard) = (events.clone(), switch.clone(), open.clone());
        // Without a thread there is no answer; the connection closes, which `bulkhead` reports.
        let _ = spawn("request", move || {
            let _guard = guard;
            read(stream, &events, &switch, operator);
        });
    }
}

fn read(stream: UnixStream, events: &SyncSender<Event>, switch: &Switch, operator: PublicKey) {
    let link = Requester::new(stream);
    if link.set_timeout(Some(REQUEST_TIMEOUT)).is_err() {
        return;
    }
    let mut challenge = None;
    while let Ok(request) = link.receive() {
        let ask = match request {
            SupervisorRequest::Status => Ask::Status,
            SupervisorRequest::Down => Ask::Down,
            SupervisorRequest::Panic { reason } => {
                panic(&link, events, switch, &reason);
                continue;
            }
            SupervisorRequest::AskResume => {
                challenge = ask_resume(&link, switch);
                continue;
            }
            SupervisorRequest::Resume { signature } => {
                match may_resume(challenge.take(), &operator, &signature) {
                    Ok(since) => Ask::Resume { since },
                    Err(reason) => {
                        protocol::log!("bulkhead-supervisor: the freeze stays: {reason}");
                        refuse(&link, reason);
                        continue;
                    }
                }
            }
        };
        let Ok(to) = link.try_clone() else { return };
        // The loop has ended if this fails, and with it everything.
        if events.send(Event::Asked(ask, to)).is_err() {
            return;
        }
    }
}

fn panic(link: &Requester, events: &SyncSender<Event>, switch: &Switch, reason: &str) {
    if reason.len() > MAX_REASON {
        return refuse(
            link,
            &format!("nothing was frozen: a reason has at most {MAX_REASON} bytes"),
        );
    }
    let began = Instant::now();
    let (heard, hears) = sync_channel(1);
    let mut untold = None;
    let done = switch.throw(By::Terminal, reason, || {
        // The gateway is to hear of it before its links close, and not to take that for deaths that
        // it has to mend. A loop that is stuck is told later.
        match events.try_send(Event::Thrown(heard)) {
            Ok(()) => {
                if hears.recv_timeout(TELL_LIMIT).is_ok() {
                    thread::sleep(HEARD);
                }
            }
            Err(TrySendError::Full(event) | TrySendError::Disconnected(event)) => {
                untold = Some(event);
            }
        }
    });
    let took = began.elapsed();
    answer(
        link,
        &SupervisorReply::Frozen {
            frozen: done.status,
            thrown: done.thrown,
            killed: done.killed,
            left: done.left,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        },
    );
    if let Some(event) = untold {
        // If the loop has ended, so has everything.
        let _ = events.send(event);
    }
}

/// Has the end of the freeze signed, if there is one.
fn ask_resume(link: &Requester, switch: &Switch) -> Option<(Nonce, Millis)> {
    let Some(status) = switch.status() else {
        refuse(link, "nothing is frozen");
        return None;
    };
    let nonce = match random() {
        Ok(bytes) => Nonce(bytes),
        Err(error) => {
            refuse(link, &error.to_string());
            return None;
        }
    };
    let since = status.frozen.since;
    answer(link, &SupervisorReply::Challenge { nonce, since });
    Some((nonce, since))
}

/// Which freeze may be ended.
fn may_resume(
    challenge: Option<(Nonce, Millis)>,
    operator: &PublicKey,
    signature: &Signature,
) -> Result<Millis, &'static str> {
    let (nonce, since) = challenge.ok_or("there was no challenge, or it was used")?;
    match resumes(operator, nonce, since, signature) {
        true => Ok(since),
        false => Err(
            "the signature is not that of the operator key that was there when Bulkhead was started",
        ),
    }
}

/// Answers that it is not done.
pub(super) fn refuse(to: &Requester, reason: &str) {
    let reason = reason.to_owned();
    answer(to, &SupervisorReply::Refused { reason });
}

/// Answers.
pub(super) fn answer(to: &Requester, reply: &SupervisorReply) {
    // Who asked may be gone; that is their business.
    let _ = to.send(reply);
}

#[cfg(test)]
mod tests {
    use protocol::identity::IdentityKey;

    use super::*;

    #[test]
    fn only_the_operator_key_ends_a_freeze_and_only_the_one_it_was_asked_for() {
        let (key, _) = IdentityKey::generate().unwrap();
        let (other, _) = IdentityKey::generate().unwrap();
        let (nonce, since) = (Nonce([3; 16]), Millis(9));
        let challenge = Some((nonce, since));
        let public = key.public();
        let signed = key.resume(nonce, since);
        assert_eq!(may_resume(challenge, &public, &signed), Ok(since));
        assert!(may_resume(None, &public, &signed).is_err());
        assert!(may_resume(challenge, &public, &other.resume(nonce, since)).is_err());
        let another = Some((Nonce([4; 16]), since));
        assert!(may_resume(another, &public, &signed).is_err());
        let later = Some((nonce, Millis(10)));
        assert!(may_resume(later, &public, &signed).is_err());
    }
}
