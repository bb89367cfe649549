//! Whatever a text is: no panic, places that are borders of characters, time in proportion.

use std::time::Duration;

use protocol::ids::SecretName;
use protocol::marks::{MarkKey, MarkKind, Marks, marks_of};
use rustix::time::{ClockId, clock_gettime};
use scan::{Kind, Scanner, Stream, links, redact};

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

const SECRET: &str = "Zx9-kQ2w!Er5ty7Ui1op";

fn scanner() -> Scanner {
    let key = MarkKey::from_bytes([9; 32]);
    let mark = |name: &str, kind, value| {
        let name = SecretName::parse(name).expect("a name");
        marks_of(&key, name, kind, value).expect("long enough")
    };
    let marks = vec![
        mark("secret", MarkKind::Secret, SECRET),
        mark("decoy", MarkKind::Honeytoken, "h0neyT0ken-4-nobody"),
    ];
    Scanner::new(Marks::new(&key, marks))
}

#[test]
fn no_text_brings_it_down_and_places_are_borders_of_characters() {
    const PIECES: &[&str] = &[
        "gh",
        "p_",
        "eyJ",
        "-----BEGIN ",
        "PRIVATE KEY-----",
        "password=",
        "\"",
        "\\u00",
        "%4",
        "1%",
        "&#",
        "65;",
        "\u{200b}",
        "é",
        "日",
        "\u{1F600}",
        "\u{E0041}",
        "AKIA",
        "://",
        "@",
        ":",
        "=",
        "\n",
        "\0",
        " ",
        "a b c ",
        "41 42 ",
        "QUJDREVG",
        "\\",
        "'",
        "+",
        "sig=",
        "Authorization: ",
        "x",
        "0",
        "Zx9",
        "-kQ2w",
        ".",
        "://a:",
    ];
    let scanner = scanner();
    let mut random = Random(0x1234_5678_9ABC_DEF1);
    for round in 0..4_000 {
        let length = random.next(60);
        let text: String = if round % 2 == 0 {
            (0..length)
                .map(|_| PIECES[random.next(PIECES.len())])
                .collect()
        } else {
            let bytes: Vec<u8> = (0..length * 4).map(|_| random.next(256) as u8).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let findings = scanner.scan(&text);
        let mut end = 0;
        for finding in &findings {
            assert!(
                finding.start >= end && finding.end > finding.start,
                "{findings:?} in {text:?}"
            );
            assert!(text.is_char_boundary(finding.start) && text.is_char_boundary(finding.end));
            end = finding.end;
        }
        let _ = redact(&text, &findings);
        let _ = links::find(&text, &|_| false);
        let _ = links::defang(&text, &|_| false);
        let mut stream = Stream::new();
        let _ = stream.push(&scanner, &text);
        let _ = stream.finish(&scanner);
    }
}

#[test]
fn the_vaults_own_values_are_found_however_they_are_written() {
    let scanner = scanner();
    let hex: String = SECRET.bytes().map(|b| format!("{b:02x}")).collect();
    let spelled: Vec<String> = SECRET.chars().map(String::from).collect();
    let decimal: Vec<String> = SECRET.bytes().map(|b| b.to_string()).collect();
    let percent: String = SECRET.bytes().map(|b| format!("%25{b:02X}")).collect();
    let rot13: String = SECRET
        .chars()
        .map(|c| match c {
            'a'..='m' | 'A'..='M' => char::from(c as u8 + 13),
            'n'..='z' | 'N'..='Z' => char::from(c as u8 - 13),
            c => c,
        })
        .collect();
    for written in [
        SECRET.to_owned(),
        SECRET.to_uppercase(),
        SECRET.chars().rev().collect(),
        hex,
        spelled.join(" - "),
        spelled.join("\u{200b}"),
        decimal.join(", "),
        percent,
        rot13,
        "Wng5LWtRMnchRXI1dHk3VWkxb3A=".to_owned(),
    ] {
        let text = format!("so here it is: {written} and that was it");
        let findings = scanner.scan(&text);
        let kinds: Vec<_> = findings
            .iter()
            .map(|f| (f.kind, f.name.as_ref().map(SecretName::as_str)))
            .collect();
        assert_eq!(kinds, [(Kind::SECRET, Some("secret"))], "{text}");
        assert!(!redact(&text, &findings).contains(&written), "{text}");
    }
    let decoy = scanner.scan("h0ney T0ken 4 nobody");
    assert_eq!(decoy[0].kind, Kind::HONEYTOKEN);
    assert_eq!(scanner.scan("some Zx9-kQ2w words"), []);
}

#[test]
fn a_secret_on_the_border_of_two_pieces_is_found_wherever_it_is() {
    let scanner = scanner();
    for before in [65_520, 65_530, 65_536, 77_820, 77_824, 131_070] {
        for filler in ["x ", "abcdefgh"] {
            let mut text = filler.repeat(before / filler.len() + 1);
            text.truncate(before);
            let place = text.len() + 1;
            text.push_str(&format!(" {SECRET} "));
            text.push_str(&filler.repeat(30_000));
            let found: Vec<_> = scanner
                .scan(&text)
                .into_iter()
                .map(|f| (f.kind, f.start))
                .collect();
            assert_eq!(found, [(Kind::SECRET, place)], "{before} {filler}");
        }
    }
}

/// Each text is looked through in two sizes; what grows faster than the text would show. What other programs take
/// meanwhile is not counted.
#[test]
fn the_time_it_takes_grows_with_the_text_and_no_faster() {
    let scanner = scanner();
    let base64 = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5eg";
    for (what, piece) in [
        (
            "prose",
            "An answer with ordinary words in it, of some length, and more of them. ",
        ),
        ("one letter", "a"),
        ("base 64", base64),
        ("percent signs", "%2525252541"),
        ("entities", "&#38;#38;#38;#65;"),
        ("numbers", "65 66 67 68 "),
        ("spelled", "a b c d "),
        ("brackets", "[a](b ![c]( <d "),
        ("quotes", "password=\"'`"),
        ("tokens", "eyJhbGciOiJub25lIn0.eyJ."),
        ("addresses", "x://a:b@c "),
        ("begins", "-----BEGIN PRIVATE KEY-----\n"),
        ("dots", "a."),
        ("hidden", "a\u{200b}\u{E0041}"),
    ] {
        let small = piece.repeat(200_000 / piece.len());
        let large = small.repeat(4);
        let time = |text: &str| {
            let start = clock_gettime(ClockId::ThreadCPUTime);
            let _ = scanner.scan(text);
            let _ = links::find(text, &|_| false);
            let took = clock_gettime(ClockId::ThreadCPUTime) - start;
            Duration::try_from(took).expect("clocks go forward")
        };
        let (one, four) = (time(&small), time(&large));
        assert!(
            four < one * 10 + Duration::from_millis(200),
            "{what}: {one:?} for one, {four:?} for four"
        );
        assert!(four < Duration::from_secs(20), "{what}: {four:?}");
    }
}
