//! Frames that ask for an answer and frames that give one, and the text in which a question waits.

use std::fmt::Debug;
use std::io::{self, Read};
use std::sync::LazyLock;

use policy::passkey::{Passkey, Point, verify};
use policy::{
    ApprovalRequest, Approved, Consent, Decision, Label, Profile, Question, Request, Signed,
};
use protocol::call::ToolCall;
use protocol::channel::{ApprovalAnswer, ChannelEvent, ChannelRequest, Needs};
use protocol::frame::{self, LinkError, MAX_FRAME};
use protocol::identity::IdentityKey;
use protocol::ids::{ApprovalId, CallId, CallRef, Digest, Nonce, Signature, TurnId, unhex};
use protocol::operator::{OperatorReply, OperatorRequest};
use protocol::passkey::{Assertion, Bytes, Proof};
use protocol::time::Millis;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::shown::assert_shows;
use crate::{Target, kind, rules};

pub(crate) const TARGET: Target = Target {
    name: "approvals",
    check,
    seeds,
    words: &[
        b"\xff\xff\xff\xff",
        b"\x00\x40\x00\x00",
        b"\x00\x40\x00\x01",
        b"\x00\x00\x00\x00",
        b"\x7f\xff\xff\xff",
        b"\"type\":\"approve\"",
        b"\"type\":\"deny\"",
        b"\"answer\":\"approve\"",
        b"\"by\":\"operator\"",
        b"\"by\":\"link\"",
        b"\"approval\":\"0101010101010101\"",
        b"\"approval\":\"0202020202020202\"",
        b"\"nonce\":\"01010101010101010101010101010101\"",
        b"\"nonce\":\"02020202020202020202020202020202\"",
        b"\"signature\":\"\"",
        b"null",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b":",
        b"\"",
        b"0",
        b"1e9",
        b"\\u0000",
        b" ",
        b"\n",
        b"rm",
        b"ls",
        b"owner",
        b"guest",
    ],
};

const NOW: Millis = Millis(1_000_000);
const EXPIRES: Millis = Millis(1_600_000);

/// What the passkey below signed once, and on which page.
const SIGNED: Digest = Digest([5; 32]);
const ORIGIN: &str = "http://localhost:4880";

/// A passkey's public key, and its one yes; made by `testkit::passkey`, whose signatures differ each time.
const POINT: &str = "04e2136c7f3673f1ecc84ab2574d98e4a4af6ff1fb4c7bfdeab01799c336fabbea2ebd29d914531af3db5b8ec41b523d27311ded0db499f1a7ca6cc2f245e08375";
const ASSERTION: [&str; 4] = [
    "5d96850c5313674233d8fd39e5d3db84",
    "49960de5880e8c687434170f6476605b8fe4aeb9a28632c7995cf3ba831d97630500000001",
    "7b226368616c6c656e6765223a2242515546425155464251554642515546425155464251554642515546425155464251554642515546425155222c2263726f73734f726967696e223a66616c73652c226f726967696e223a22687474703a2f2f6c6f63616c686f73743a34383830222c2274797065223a22776562617574686e2e676574227d",
    "30460221008900327100b18e1a752b5a109c8bc9bf6f75f7aaa493b1da1b4245c24a360831022100f0722baf1e552790d1a090793ecf8497ca0d04269bd54c932f89377e744bc837",
];

/// All that is asked about and known, made once.
struct World {
    operator: IdentityKey,
    passkey: Passkey,
    assertion: Assertion,
    waiting: Vec<Waiting>,
}

/// A question that waits, and the yes to it.
struct Waiting {
    request: ApprovalRequest,
    text: String,
    yes: Approved,
    signature: Signature,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let operator = IdentityKey::from_seed(&[7; 32]);
    let [credential, authenticator_data, client_data, signature] =
        ASSERTION.map(|hex| Bytes::parse(hex).expect("hexadecimal"));
    let point = unhex(POINT).expect("hexadecimal");
    let commands = [
        "rm a",
        "cargo build",
        "echo $(date)\n\u{202e}",
        "cp a b; rm b",
    ];
    let waiting = (1..).zip(commands).map(|(number, command)| {
        let call = ToolCall::Exec {
            command: command.to_owned(),
        };
        waiting(number, call, &operator)
    });
    World {
        waiting: waiting.collect(),
        passkey: Passkey {
            credential: credential.clone(),
            key: Point::new(&point).expect("a point"),
            counter: 0,
        },
        assertion: Assertion {
            credential,
            authenticator_data,
            client_data,
            signature,
        },
        operator,
    }
});

fn waiting(number: u8, call: ToolCall, operator: &IdentityKey) -> Waiting {
    let decision = policy::decide(&Request {
        call: &call,
        reference: &CallRef {
            session: "s1".parse().expect("an id"),
            turn: TurnId(3),
            call: CallId(number.into()),
        },
        rules: policy::Rules::shipped(),
        session: policy::Session {
            principal: &"owner".parse().expect("a name"),
            channel: &"web".parse().expect("a name"),
            agent: &protocol::ids::AgentId::main(),
            labels: &[Label::Private],
        },
        workspace: "/home/o/w",
        profile: &Profile::default(),
        grants: &[],
        now: NOW,
        question: Question {
            approval: ApprovalId([number; 8]),
            nonce: Nonce([number; 16]),
            expires: EXPIRES,
        },
    });
    let Decision::Ask(request) = decision else {
        panic!("{call:?} is asked about")
    };
    Waiting {
        text: request.stored().as_str().to_owned(),
        yes: Approved {
            approval: request.id(),
            digest: request.digest(),
            nonce: request.nonce(),
        },
        signature: operator.approve(request.digest()),
        request,
    }
}

/// Frames with and without their length, and what is kept.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut frame = |bytes: Vec<u8>| {
        seeds.push(bytes[4..].to_vec());
        seeds.push(bytes);
    };
    let cards = WORLD
        .waiting
        .iter()
        .map(|waiting| waiting.request.card("please"));
    frame(framed(&OperatorReply::Approvals {
        cards: cards.clone().collect(),
    }));
    for (waiting, card) in WORLD.waiting.iter().zip(cards) {
        let Waiting { yes, signature, .. } = waiting;
        let conversation = "c".parse().expect("an id");
        frame(framed(&ChannelEvent::Approval { conversation, card }));
        frame(framed(&OperatorRequest::Approve {
            approval: yes.approval,
            digest: yes.digest,
            nonce: yes.nonce,
            signature: *signature,
        }));
        frame(framed(&OperatorRequest::Deny {
            approval: yes.approval,
            digest: yes.digest,
            nonce: yes.nonce,
            reason: "no".to_owned(),
        }));
        let signature = *signature;
        let assertion = WORLD.assertion.clone();
        for proof in [
            Proof::Link,
            Proof::Operator { signature },
            Proof::Passkey { assertion },
        ] {
            frame(framed(&ChannelRequest::Answer {
                approval: yes.approval,
                digest: yes.digest,
                nonce: yes.nonce,
                sender: "someone".parse().expect("an id"),
                answer: ApprovalAnswer::Approve,
                reason: String::new(),
                proof,
            }));
        }
    }
    let code = "123456".to_owned();
    let principal = "owner".parse().expect("a name");
    for request in [
        OperatorRequest::Approvals,
        OperatorRequest::GrantRevoke { grant: 1 },
        OperatorRequest::PairApprove { code, principal },
    ] {
        frame(framed(&request));
    }
    seeds.extend(
        WORLD
            .waiting
            .iter()
            .map(|waiting| waiting.text.clone().into_bytes()),
    );
    seeds
}

fn framed<T: Serialize>(value: &T) -> Vec<u8> {
    frame::encode(value).expect("it fits into a frame")
}

fn check(input: &[u8]) -> String {
    let kinds = [
        stream::<OperatorRequest>(input),
        stream::<OperatorReply>(input),
        stream::<ChannelRequest>(input),
        stream::<ChannelEvent>(input),
    ];
    // The same bytes as the body of a frame whose length is right.
    let bodies = [
        body::<OperatorRequest>(input).map(|request| of_operator(&request)),
        body::<ChannelRequest>(input).map(|request| of_channel(&request)),
        body::<OperatorReply>(input).map(|reply| variant(&reply)),
        body::<ChannelEvent>(input).map(|event| variant(&event)),
    ];
    let stored = stored(&String::from_utf8_lossy(input));
    let bodies: Vec<_> = bodies.into_iter().flatten().collect();
    format!("{} {bodies:?} {stored}", kinds.join(" "))
}

/// Reads the input as what comes over a link: no byte beyond the frame, none of a frame over the limit.
fn stream<T>(input: &[u8]) -> String
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let mut from = Pieces {
        rest: input,
        size: 1 + input.len() % 5,
        interrupts: true,
    };
    let read = frame::read::<T>(&mut from);
    let taken = input.len() - from.rest.len();
    let header = input.first_chunk::<4>();
    let announced = header.map(|header| u32::from_be_bytes(*header) as usize);
    match announced {
        None => assert!(read.is_err(), "half a length"),
        Some(length) if length > MAX_FRAME => {
            assert_eq!(taken, 4, "read on, though {length} bytes are too many");
            assert!(matches!(read, Err(LinkError::TooLong(_))), "{read:?}");
        }
        Some(length) => {
            assert!(taken <= 4 + length, "{taken} bytes of a frame of {length}");
            let whole = input[4..].get(..length);
            let of_body = whole.and_then(body::<T>);
            let of_link = read.as_ref().ok();
            assert_eq!(of_link, of_body.as_ref(), "in pieces, and at once");
        }
    }
    match read {
        Ok(value) => variant(&value),
        Err(error) => {
            let words = error.to_string();
            assert!(words.len() < 120, "holds what the peer sent: {words}");
            kind(&words)
        }
    }
}

/// Reads the input as one frame's body.
fn body<T>(input: &[u8]) -> Option<T>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let value: T = frame::decode(input).ok()?;
    let again = framed(&value);
    let read = frame::decode::<T>(&again[4..]).ok();
    assert_eq!(read.as_ref(), Some(&value), "written and read again");
    let more = [input, b"0"].concat();
    assert!(frame::decode::<T>(&more).is_err(), "bytes are left over");
    let twice = String::from_utf8_lossy(input).replacen('{', r#"{"type":"deny","#, 1);
    let twice = frame::decode::<T>(twice.as_bytes());
    assert!(twice.is_err(), "it says twice what it is: {twice:?}");
    let json = serde_json::to_value(&value).expect("it was JSON");
    for at in 0.. {
        let mut more = json.clone();
        let mut left = at;
        if !add_field(&mut more, &mut left) {
            break;
        }
        let read = frame::decode::<T>(more.to_string().as_bytes());
        assert!(read.is_err(), "an unknown field is passed over: {more}");
    }
    Some(value)
}

/// Adds a field that nobody knows to one of the objects in a value; says whether there are so many. Not to those
/// with a tag alone: serde takes any fields of a variant that has none, and no such variant answers a question.
fn add_field(value: &mut Value, left: &mut usize) -> bool {
    match value {
        Value::Object(fields) if fields.len() > 1 && *left == 0 => {
            fields.insert("unheard_of".to_owned(), Value::Null);
            true
        }
        Value::Object(fields) => {
            *left -= usize::from(fields.len() > 1);
            fields.values_mut().any(|value| add_field(value, left))
        }
        Value::Array(values) => values.iter_mut().any(|value| add_field(value, left)),
        _ => false,
    }
}

/// A variant's name.
fn variant(value: &impl Debug) -> String {
    let words = format!("{value:?}");
    let end = words.find(|c: char| !c.is_alphanumeric());
    words[..end.unwrap_or(words.len())].to_owned()
}

fn given(approval: &ApprovalId, digest: &Digest, nonce: &Nonce) -> Approved {
    Approved {
        approval: *approval,
        digest: *digest,
        nonce: *nonce,
    }
}

fn of_operator(request: &OperatorRequest) -> String {
    let OperatorRequest::Approve {
        approval,
        digest,
        nonce,
        signature,
    } = request
    else {
        return variant(request);
    };
    let counts = counts(
        &given(approval, digest, nonce),
        &Proof::Operator {
            signature: *signature,
        },
    );
    format!("{} {counts:?}", variant(request))
}

fn of_channel(request: &ChannelRequest) -> String {
    let ChannelRequest::Answer {
        approval,
        digest,
        nonce,
        proof,
        ..
    } = request
    else {
        return variant(request);
    };
    let counts = counts(&given(approval, digest, nonce), proof);
    format!("{} {} {counts:?}", variant(request), variant(proof))
}

/// For which of the questions this yes counts: only for the one that it names in every byte, and for tier 3 only
/// with the true signature.
fn counts(yes: &Approved, proof: &Proof) -> Vec<bool> {
    let World {
        operator,
        passkey,
        assertion: true_assertion,
        waiting,
    } = &*WORLD;
    let consent = match proof {
        Proof::Link => Consent::Unsigned,
        Proof::Operator { signature } => {
            Signed::by_operator(&operator.public(), yes.digest, signature)
                .map_or(Consent::Unsigned, Consent::Signed)
        }
        Proof::Passkey { assertion } => {
            let used = verify(assertion, passkey, SIGNED, ORIGIN);
            assert_eq!(used.is_ok(), assertion == true_assertion, "{assertion:?}");
            used.map_or(Consent::Unsigned, |used| Consent::Signed(used.signed))
        }
    };
    let one = |waiting: &Waiting| {
        let Waiting { request, .. } = waiting;
        let late = request.check_yes(yes, &consent, EXPIRES);
        assert!(late.is_err(), "too late");
        let is_named = *yes == waiting.yes;
        let is_enough = match (request.needs(), proof) {
            // A passkey's yes to something else counts for nothing, not even as the word of a channel.
            (_, Proof::Passkey { assertion }) if assertion == true_assertion => false,
            (Needs::Answer, _) => true,
            (Needs::Signature, Proof::Operator { signature }) => *signature == waiting.signature,
            (Needs::Signature, Proof::Link | Proof::Passkey { .. }) => false,
        };
        let counts = request.check_yes(yes, &consent, NOW).is_ok();
        assert_eq!(counts, is_named && is_enough, "{yes:?} with {proof:?}");
        counts
    };
    waiting.iter().map(one).collect()
}

/// Reads the input as a question that was kept: it is what it was to the last byte, or none.
fn stored(text: &str) -> String {
    let request = match rules::loaded(text) {
        Ok(request) => request,
        Err(error) => return kind(&error.to_string()),
    };
    assert_eq!(request.stored().as_str(), text, "kept in one way only");
    let card = request.card(text);
    for shown in [&card.action, &card.reason, &card.covers, &card.said] {
        assert_shows(shown);
    }
    let mut is_known = false;
    for waiting in &WORLD.waiting {
        let is_same = waiting.text == text;
        is_known |= is_same;
        let has_digest = request.digest() == waiting.request.digest();
        assert_eq!(has_digest, is_same, "one digest, one call: {text}");
        let signed = Signed::by_operator(
            &WORLD.operator.public(),
            waiting.yes.digest,
            &waiting.signature,
        );
        let consent = Consent::Signed(signed.expect("the operator signed it"));
        let counts = request.check_yes(&waiting.yes, &consent, NOW).is_ok();
        assert_eq!(counts, is_same, "a yes to another call: {text}");
    }
    format!("a question, known: {is_known}")
}

/// A link that delivers a few bytes at a time and is interrupted in between.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
    interrupts: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupts = !self.interrupts;
        if !self.interrupts && self.size == 1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = self.size.min(buffer.len());
        self.rest.read(&mut buffer[..most])
    }
}
