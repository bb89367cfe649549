//! What a passkey's yes has to be, and all that is not one.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use bulkhead_policy::passkey::{BadPasskey, Passkey, Point, enrol, verify};
use protocol::event::Signer;
use protocol::ids::{Digest, hex};
use protocol::passkey::Bytes;
use testkit::passkey::{Made, PRESENT_AND_VERIFIED, SoftKey};

const ORIGIN: &str = "http://localhost:4880";
const CODE: &str = "a one-time code";
const DIGEST: Digest = Digest([5; 32]);

fn enrolled(key: &SoftKey) -> Passkey {
    let enrolment = key.enrol(&Made::enrolment(CODE, ORIGIN));
    enrol(&enrolment, Digest::of(CODE), ORIGIN).unwrap()
}

fn yes() -> Made {
    Made::yes(DIGEST, ORIGIN)
}

fn check(key: &SoftKey, passkey: &Passkey, made: &Made) -> Result<u32, BadPasskey> {
    verify(&key.sign(made), passkey, DIGEST, ORIGIN).map(|used| used.counter)
}

fn changed(bytes: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = bytes.as_slice().to_vec();
    change(&mut bytes);
    Bytes::new(bytes).unwrap()
}

#[test]
fn what_is_enrolled_says_yes_to_exactly_the_digest_that_it_signed() {
    let key = SoftKey::generate();
    let passkey = enrolled(&key);
    assert_eq!(passkey.key.as_slice(), key.point());
    let used = verify(&key.sign(&yes()), &passkey, DIGEST, ORIGIN).unwrap();
    assert_eq!((used.signed.digest(), used.counter), (DIGEST, 1));
    let credential = Digest::of(key.credential().as_slice());
    assert_eq!(used.signed.by(), Signer::Passkey { credential });
    // The same for another approval, or another nonce of the same call, which has another digest.
    for other in [Digest([6; 32]), Digest([0; 32])] {
        let refused = verify(&key.sign(&yes()), &passkey, other, ORIGIN);
        assert_eq!(refused, Err(BadPasskey::Challenge));
    }
}

#[test]
fn every_part_that_is_not_as_it_has_to_be_is_refused_by_its_name() {
    let key = SoftKey::generate();
    let passkey = enrolled(&key);
    assert_eq!(check(&key, &passkey, &yes()), Ok(1));
    let kind = Made {
        kind: "webauthn.create".into(),
        ..yes()
    };
    assert_eq!(check(&key, &passkey, &kind), Err(BadPasskey::Kind));
    for origin in [
        "http://localhost:4881",
        "http://localhost",
        "https://localhost:4880",
        "http://127.0.0.1:4880",
        "http://localhost:4880/",
        "http://evil.example",
        "null",
        "",
    ] {
        let made = Made {
            origin: origin.into(),
            ..yes()
        };
        assert_eq!(check(&key, &passkey, &made), Err(BadPasskey::Origin));
    }
    for rp_id in ["127.0.0.1", "evil.example", "LOCALHOST", ""] {
        let made = Made {
            rp_id: rp_id.into(),
            ..yes()
        };
        assert_eq!(check(&key, &passkey, &made), Err(BadPasskey::RpId));
    }
    for (flags, refused) in [
        (0b000, BadPasskey::NotPresent),
        (0b001, BadPasskey::NotVerified),
        (0b100, BadPasskey::NotPresent),
        (PRESENT_AND_VERIFIED | 1 << 6, BadPasskey::AuthenticatorData),
    ] {
        assert_eq!(
            check(&key, &passkey, &Made { flags, ..yes() }),
            Err(refused)
        );
    }
    for challenge in [
        vec![],
        DIGEST.0[..31].to_vec(),
        [DIGEST.0, [0; 32]].concat(),
    ] {
        let made = Made { challenge, ..yes() };
        assert_eq!(check(&key, &passkey, &made), Err(BadPasskey::Challenge));
    }
}

#[test]
fn a_page_within_another_page_is_refused() {
    let key = SoftKey::generate();
    let mut assertion = key.sign(&yes());
    let text = String::from_utf8(assertion.client_data.as_slice().to_vec()).unwrap();
    let text = text.replace("\"crossOrigin\":false", "\"crossOrigin\":true");
    assertion.client_data = Bytes::new(text.into_bytes()).unwrap();
    let refused = verify(&assertion, &enrolled(&key), DIGEST, ORIGIN);
    assert_eq!(refused, Err(BadPasskey::Origin));
}

#[test]
fn another_key_s_signature_does_not_hold() {
    let (key, other) = (SoftKey::generate(), SoftKey::generate());
    let passkey = enrolled(&key);
    assert_eq!(
        check(&other, &passkey, &yes()),
        Err(BadPasskey::OtherPasskey)
    );
    // As the first one's id, too.
    let mut forged = other.sign(&yes());
    forged.credential = key.credential();
    let refused = verify(&forged, &passkey, DIGEST, ORIGIN);
    assert_eq!(refused, Err(BadPasskey::Signature));
}

#[test]
fn a_counter_that_does_not_go_up_is_that_of_a_copy() {
    let key = SoftKey::generate();
    let at = |counter| Passkey {
        counter,
        ..enrolled(&key)
    };
    let made = |counter| Made { counter, ..yes() };
    for (was, is) in [(7, 7), (7, 6), (7, 0), (u32::MAX, 1)] {
        let refused = Err(BadPasskey::Counter { was, is });
        assert_eq!(check(&key, &at(was), &made(is)), refused);
    }
    for (was, is) in [(0, 0), (0, 1), (7, 8), (7, u32::MAX)] {
        assert_eq!(check(&key, &at(was), &made(is)), Ok(is));
    }
}

#[test]
fn one_changed_byte_anywhere_is_refused() {
    let key = SoftKey::generate();
    let passkey = enrolled(&key);
    let right = key.sign(&yes());
    let refused = |assertion| {
        assert!(
            verify(&assertion, &passkey, DIGEST, ORIGIN).is_err(),
            "{assertion:?}"
        );
    };
    for at in 0..right.authenticator_data.as_slice().len() {
        let mut assertion = right.clone();
        assertion.authenticator_data = changed(&right.authenticator_data, |b| b[at] ^= 2);
        refused(assertion);
    }
    for at in 0..right.client_data.as_slice().len() {
        let mut assertion = right.clone();
        assertion.client_data = changed(&right.client_data, |b| b[at] ^= 1);
        refused(assertion);
    }
    for at in 0..right.signature.as_slice().len() {
        let mut assertion = right.clone();
        assertion.signature = changed(&right.signature, |b| b[at] ^= 1);
        refused(assertion);
    }
    for (data, signature) in [(36, 0), (38, 0), (0, 0)] {
        let mut assertion = right.clone();
        assertion.authenticator_data = changed(&right.authenticator_data, |b| b.resize(data, 0));
        assertion.signature = changed(&right.signature, |b| b.truncate(signature));
        refused(assertion);
    }
    let mut longer = right.clone();
    longer.signature = changed(&right.signature, |b| b.push(0));
    refused(longer);
    assert!(verify(&right, &passkey, DIGEST, ORIGIN).is_ok());
}

#[test]
fn an_enrolment_is_taken_only_for_its_code_page_and_person() {
    let key = SoftKey::generate();
    let right = Made::enrolment(CODE, ORIGIN);
    let refused = |made: Made| {
        let enrolment = key.enrol(&made);
        enrol(&enrolment, Digest::of(CODE), ORIGIN).unwrap_err()
    };
    let made = |change: fn(&mut Made)| {
        let mut made = right.clone();
        change(&mut made);
        made
    };
    for (made, expected) in [
        (
            Made::enrolment("another code", ORIGIN),
            BadPasskey::Challenge,
        ),
        (
            Made::enrolment(CODE, "http://localhost:1"),
            BadPasskey::Origin,
        ),
        (made(|m| m.kind = "webauthn.get".into()), BadPasskey::Kind),
        (made(|m| m.rp_id = "evil.example".into()), BadPasskey::RpId),
        (made(|m| m.flags &= !0b001), BadPasskey::NotPresent),
        (made(|m| m.flags &= !0b100), BadPasskey::NotVerified),
        (made(|m| m.flags &= !(1 << 6)), BadPasskey::Credential),
    ] {
        assert_eq!(refused(made), expected);
    }
    let whole = key.enrol(&right);
    let with = |change: &dyn Fn(&mut protocol::passkey::Enrolment)| {
        let mut enrolment = whole.clone();
        change(&mut enrolment);
        enrol(&enrolment, Digest::of(CODE), ORIGIN).unwrap_err()
    };
    let other = SoftKey::generate().credential();
    assert_eq!(
        with(&|e| e.credential = other.clone()),
        BadPasskey::Credential
    );
    let none = Bytes::new(Vec::new()).unwrap();
    assert_eq!(
        with(&|e| e.credential = none.clone()),
        BadPasskey::Credential
    );
    let length = |length| changed(&whole.public_key, |b| b.resize(length, 0));
    for key in [
        length(90),
        length(92),
        length(0),
        changed(&whole.public_key, |b| b[26] = 2),
        // Another curve.
        changed(&whole.public_key, |b| b[22] ^= 1),
    ] {
        assert_eq!(with(&|e| e.public_key = key.clone()), BadPasskey::KeyForm);
    }
}

#[test]
fn a_point_that_is_not_on_the_curve_verifies_nothing() {
    let key = SoftKey::generate();
    let mut point = key.point().to_vec();
    point[64] ^= 1;
    let passkey = Passkey {
        key: Point::new(&point).unwrap(),
        ..enrolled(&key)
    };
    assert_eq!(check(&key, &passkey, &yes()), Err(BadPasskey::Signature));
}

#[test]
fn what_a_browser_adds_to_its_data_means_nothing() {
    let key = SoftKey::generate();
    let right = key.sign(&yes());
    let text = String::from_utf8(right.client_data.as_slice().to_vec()).unwrap();
    // A second origin is no addition: which of the two would count?
    let twice = text.replacen('{', "{\"origin\":\"http://localhost:4880\",", 1);
    let mut assertion = right.clone();
    assertion.client_data = Bytes::parse(&hex(twice.as_bytes())).unwrap();
    assert_eq!(
        verify(&assertion, &enrolled(&key), DIGEST, ORIGIN),
        Err(BadPasskey::ClientData)
    );
    // What is added is signed, so that a new signature is needed; it is read all the same.
    let more = text.replacen('{', "{\"other_keys_can_be_added_here\":{\"a\":[1]},", 1);
    assertion.client_data = Bytes::parse(&hex(more.as_bytes())).unwrap();
    assert_eq!(
        verify(&assertion, &enrolled(&key), DIGEST, ORIGIN),
        Err(BadPasskey::Signature)
    );
}
