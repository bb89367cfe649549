//! Secrets in what programs in boxes send.

use std::io::Write as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use protocol::egress::FetchReply;
use protocol::event::Event;
use protocol::outbound::EgressRule;
use protocol::runner::RunEnd;
use serde_json::json;

use crate::Test;
use crate::inside::TOOL;
use crate::run::{DECOY, KEY, System, rule};
use crate::world::World;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_secret_in_a_request_of_a_box_stops_it_wherever_it_stands",
        a_secret_in_a_request_of_a_box_stops_it_wherever_it_stands,
    ),
    (
        "a_secret_in_the_middle_of_a_body_ends_it_before_the_rest_goes_on",
        a_secret_in_the_middle_of_a_body_ends_it_before_the_rest_goes_on,
    ),
    (
        "a_secret_of_a_box_in_pieces_is_stopped_at_the_piece_that_completes_it",
        a_secret_of_a_box_in_pieces_is_stopped_at_the_piece_that_completes_it,
    ),
    (
        "a_decoy_in_a_request_of_a_box_is_told_to_the_gateway",
        a_decoy_in_a_request_of_a_box_is_told_to_the_gateway,
    ),
    (
        "what_a_box_sends_compressed_is_looked_into_or_refused",
        what_a_box_sends_compressed_is_looked_into_or_refused,
    ),
    (
        "what_holds_no_secret_goes_through_byte_for_byte",
        what_holds_no_secret_goes_through_byte_for_byte,
    ),
    (
        "what_the_vault_holds_has_to_be_known_before_a_box_sends_anything",
        what_the_vault_holds_has_to_be_known_before_a_box_sends_anything,
    ),
];

const TLS: &str = "https://plain.acme-widgets.com/me/a";
const CLEAR: &str = "http://plain.acme-widgets.com/me/a";
const CURL: &str = "curl -sS --max-time 60";

fn rules(upload: &str) -> Vec<EgressRule> {
    let more = json!({
        "ports": [80, 443], "cleartext": "allowed", "inspect": "yes",
        "methods": ["GET", "POST", "PUT"], "paths": ["/me/*"],
        "budgets": {"per_minute": 600, "per_day": "1 GiB", "upload": upload, "download": "10 MiB"},
    });
    vec![rule("mine", "curl", "plain.acme-widgets.com", more)]
}

/// A key of a known format; invented.
fn token() -> String {
    ["glpat-", "x7Kq2mWz9RtB4vNc8YpL"].concat()
}

/// Runs it, and it has to be refused for a secret there. Of the secret nothing is told.
fn refused(system: &System, command: &str, place: &str, kind: &str) {
    let outcome = system.shell(&rules("1 MiB"), command);
    let told = outcome.stdout + &outcome.stderr;
    let says = format!("there is a secret in its {place} ({kind})");
    assert!(told.contains(&says), "{command}: {told}");
    assert!(told.contains("egress rule `mine`"), "{command}: {told}");
    system.wait_for_row(|event| matches!(event, Event::EgressRefused { .. }));
    let rows = system.rows();
    let stopped = |event: &&Event| {
        matches!(event, Event::LeakStopped { place, what, .. }
            if place == "a request of a program in a box" && what == kind)
    };
    assert_eq!(rows.iter().filter(stopped).count(), 1, "{rows:?}");
    let all = format!("{told} {rows:?}");
    for hush in [KEY, DECOY, &token()] {
        assert!(!all.contains(hush), "{all}");
    }
}

fn a_secret_in_a_request_of_a_box_stops_it_wherever_it_stands(world: &World) {
    let system = System::start(world);
    let (token, encoded) = (token(), STANDARD.encode(KEY));
    let hexed: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    for site in [TLS, CLEAR] {
        for (words, place, kind) in [
            (format!("{site}?q={KEY}"), "address", "vault_secret"),
            (format!("{site}/{token}"), "address", "gitlab_token"),
            (
                format!("-H 'X-Note: {encoded}' {site}"),
                "headers",
                "vault_secret",
            ),
            // Its own key is a key.
            (
                format!("-H 'Authorization: Bearer {token}' {site}"),
                "headers",
                "gitlab_token",
            ),
            (format!("-u me:{token} {site}"), "headers", "basic_auth"),
            (format!("-d 'hello {KEY}' {site}"), "body", "vault_secret"),
            (format!("-d {hexed} {site}"), "body", "vault_secret"),
            (
                format!("-d '{{\"a\": \"{encoded}\"}}' {site}"),
                "body",
                "vault_secret",
            ),
            (format!("-F 'file={token}' {site}"), "body", "gitlab_token"),
            (
                format!("-H 'Expect: 100-continue' -d {token} {site}"),
                "body",
                "gitlab_token",
            ),
            (
                format!("-H 'Transfer-Encoding: chunked' -d {token} {site}"),
                "body",
                "gitlab_token",
            ),
        ] {
            refused(&system, &format!("{CURL} -i {words}"), place, kind);
        }
    }
    assert!(world.heard.take().is_empty(), "a server heard of it");
    // The same without a secret goes.
    let said = system.works(
        &rules("1 MiB"),
        &format!("{CURL} -H 'X-Note: a' -d hello {TLS}"),
    );
    assert_eq!(said, "POST 5 bytes from plain.acme-widgets.com/me/a\n");
}

fn a_secret_in_the_middle_of_a_body_ends_it_before_the_rest_goes_on(world: &World) {
    let system = System::start(world);
    let text = words(200_000);
    let (front, back) = text.split_at(120_000);
    std::fs::write(
        system.workspace().join("up"),
        format!("{front} {KEY} {back}"),
    )
    .unwrap();
    for site in [TLS, CLEAR] {
        for how in ["", "-H 'Transfer-Encoding: chunked'"] {
            let command = format!("{CURL} -i {how} --data-binary @up {site}");
            refused(&system, &command, "body", "vault_secret");
            // The server hears a while later that it was broken off.
            let begun = Instant::now();
            let heard = loop {
                match world.heard.whole().pop() {
                    Some((_, body)) => break String::from_utf8(body.to_vec()).unwrap(),
                    None => assert!(begun.elapsed() < Duration::from_secs(20)),
                }
                std::thread::sleep(Duration::from_millis(10));
            };
            assert!(front.starts_with(&heard), "{} bytes", heard.len());
        }
    }
    // Over two chunks, which come one after the other.
    let chunks = |one: &str, two: &str| {
        format!(
            r"POST {CLEAR} HTTP/1.1\r\nHost: plain.acme-widgets.com\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
            one.len(),
            two.len()
        )
    };
    let say = |text: &str| {
        let outcome = system.run(&rules("1 MiB"), &[TOOL, "inside", "say", text]);
        assert_eq!(outcome.end, RunEnd::Exited { code: 0 }, "{outcome:?}");
        outcome.stdout
    };
    let (one, two) = KEY.split_at(11);
    let told = say(&chunks(&format!("hello {one}"), two));
    assert!(
        told.contains("a secret in its body (vault_secret)"),
        "{told}"
    );
    let heard = world.heard.whole();
    assert!(heard.is_empty(), "{heard:?}");
    let told = say(&chunks("hello", " again"));
    assert!(told.contains("POST 11 bytes"), "{told}");
}

fn a_secret_of_a_box_in_pieces_is_stopped_at_the_piece_that_completes_it(world: &World) {
    let system = System::start(world);
    let (one, two) = KEY.split_at(11);
    let ways: [&dyn Fn(&str) -> String; 3] = [
        &|piece| format!("{CURL} '{TLS}?a=&q={piece}'"),
        &|piece| format!("{CURL} {TLS}/{piece}"),
        &|piece| format!("{CURL} -d {piece} {CLEAR}"),
    ];
    for way in ways {
        let told = |piece: &str| system.works(&rules("1 MiB"), &way(piece));
        told("something-else-that-is-long-enough");
        told(one);
        assert!(told(two).contains("(vault_secret)"));
        // Not once more either; and what is no secret goes, whatever was refused before.
        assert!(told(two).contains("(vault_secret)"));
        assert!(told(&token()).contains("(gitlab_token)"));
        assert!(told("hello").contains("bytes from"));
    }
    assert_eq!(world.heard.take().len(), 9);
}

fn a_decoy_in_a_request_of_a_box_is_told_to_the_gateway(world: &World) {
    let system = System::start(world);
    let command = format!("{CURL} -d 'found {DECOY}' {TLS}");
    refused(&system, &command, "body", "honeytoken");
    let FetchReply::Touched {
        session,
        honeytokens,
    } = system.gateway_hears()
    else {
        panic!("the gateway heard something else");
    };
    assert_eq!(session.as_str(), "s1");
    assert_eq!(honeytokens, ["decoy".parse().unwrap()]);
    assert!(world.heard.take().is_empty());
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(text).unwrap();
    packed.finish().unwrap()
}

fn what_a_box_sends_compressed_is_looked_into_or_refused(world: &World) {
    let system = System::start(world);
    let send = |body: &[u8], coding: &str| {
        std::fs::write(system.workspace().join("up"), body).unwrap();
        let header = format!("-H 'Content-Encoding: {coding}'");
        let command = format!("{CURL} -i {header} --data-binary @up {TLS}");
        let told = system.shell(&rules("1 MiB"), &command).stdout;
        (told, world.heard.whole())
    };
    let clean = gzip(words(900_000).as_bytes());
    let (told, heard) = send(&clean, "gzip");
    assert!(told.contains("200 OK"), "{told}");
    assert_eq!(heard[0].1, clean, "it goes on as it came");

    let text = words(30_000);
    let hidden = gzip(format!("{text} {KEY} {text}").as_bytes());
    for coding in ["gzip", "x-gzip"] {
        let (told, heard) = send(&hidden, coding);
        assert!(
            told.contains("a secret in its body (vault_secret)"),
            "{told}"
        );
        assert!(heard.is_empty(), "{heard:?}");
    }
    // What a server may read otherwise than it was looked through, or not at all.
    let mut named = GzBuilder::new()
        .filename(KEY)
        .write(Vec::new(), Compression::default());
    named.write_all(b"hello").unwrap();
    let two = [gzip(b"hello"), gzip(KEY.as_bytes())].concat();
    let after = [gzip(b"hello"), KEY.as_bytes().to_vec()].concat();
    let bomb = gzip(&vec![b'a'; 2 << 20]);
    for (body, coding, why) in [
        (named.finish().unwrap(), "gzip", "not gzip"),
        (two, "gzip", "not gzip"),
        (after, "gzip", "not gzip"),
        (b"hello".to_vec(), "gzip", "not gzip"),
        (clean[..1000].to_vec(), "gzip", "not gzip"),
        (bomb, "gzip", "unpacks to more"),
        (b"hello".to_vec(), "br", "compressed"),
        (b"hello".to_vec(), "gzip, gzip", "compressed"),
    ] {
        let (told, heard) = send(&body, coding);
        assert!(told.contains("403") && told.contains(why), "{why}: {told}");
        let came: usize = heard.iter().map(|(_, body)| body.len()).sum();
        assert_eq!(came, 0, "{why}");
    }
}

/// Text without repetition, of so many bytes.
fn words(bytes: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        text.push_str(["one", "apple", "river", "over"][number % 4]);
        text.push_str(&format!(" {number} "));
        if text.len() >= bytes {
            break;
        }
    }
    text.truncate(bytes);
    text
}

/// What looks random, and is the same each time (xorshift64).
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

fn what_holds_no_secret_goes_through_byte_for_byte(world: &World) {
    const SIZE: usize = 4 << 20;
    let system = System::start(world);
    let table: Vec<_> = (0..SIZE / 40)
        .map(|number| json!({"id": number, "name": format!("row {number}")}))
        .collect();
    let bodies: [(&str, Vec<u8>); 5] = [
        ("text", words(SIZE).into_bytes()),
        ("noise", noise(SIZE)),
        (
            "base64 of noise",
            STANDARD.encode(noise(SIZE / 4 * 3)).into_bytes(),
        ),
        (
            "gzip",
            gzip(&[noise(SIZE / 2), words(SIZE / 2).into_bytes()].concat()),
        ),
        ("JSON", serde_json::to_vec(&table).unwrap()),
    ];
    for (what, body) in bodies {
        std::fs::write(system.workspace().join("up"), &body).unwrap();
        for site in [TLS, CLEAR] {
            let begun = Instant::now();
            let said = system.works(&rules("64 MiB"), &format!("{CURL} -T up {site}"));
            let took = begun.elapsed().as_secs_f64();
            assert!(said.starts_with("PUT"), "{what}: {said}");
            let heard = world.heard.whole();
            assert!(heard[0].1 == body, "{what} was changed");
            let mib = body.len() as f64 / f64::from(1 << 20);
            println!("{what} to {}: {:.1} MiB/s", &site[..5], mib / took);
        }
    }
}

fn what_the_vault_holds_has_to_be_known_before_a_box_sends_anything(world: &World) {
    let system = System::without_vault(world);
    let told = system.works(&rules("1 MiB"), &format!("{CURL} -i {TLS}"));
    assert!(told.contains("403") && told.contains("vault"), "{told}");
    assert!(world.heard.take().is_empty());
}
