//! Values that only their name gives away: `password = ...`, `Authorization: Bearer ...`.
//!
//! Nothing of the form of such a value says that it is secret, so here is where most false alarms
//! would come from. A value has to look like none of what stands there in manuals, in code and in
//! sentences, and for a key or a token it has to look random.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::finding::Kind;
use crate::hit::{Hit, Rank};
use crate::names::{self, Name};
use crate::options;
use crate::placeholder::{is_only_random, is_stand_in, looks_generated};
use crate::structured::base64;

pub(crate) const PASSWORD: Kind = Kind("password");
const KEY: Kind = Kind("generic_secret");
pub(crate) const BASIC: Kind = Kind("basic_auth");
const BEARER: Kind = Kind("bearer_token");
const AWS_SECRET: Kind = Kind("aws_secret_key");

/// The shortest password that is told from a word.
pub(crate) const SHORTEST_PASSWORD: usize = 6;
/// The shortest key or token.
const SHORTEST_KEY: usize = 12;
/// Longer values are no keys.
const LONGEST: usize = 1_200;

/// What a name says of its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Something that a person may have thought of.
    Password,
    /// Something that a machine made.
    Key,
    /// The value of the header of that name.
    Header,
}

const WORDS: [(&str, Expected); 43] = [
    ("password", Expected::Password),
    ("passwd", Expected::Password),
    ("passphrase", Expected::Password),
    ("passcode", Expected::Password),
    ("passwort", Expected::Password),
    ("kennwort", Expected::Password),
    ("contraseña", Expected::Password),
    ("mot de passe", Expected::Password),
    ("pwd", Expected::Password),
    ("_pass", Expected::Password),
    ("-pass", Expected::Password),
    ("pass", Expected::Password),
    ("secret", Expected::Key),
    ("token", Expected::Key),
    ("apikey", Expected::Key),
    ("api_key", Expected::Key),
    ("api-key", Expected::Key),
    ("api key", Expected::Key),
    ("key", Expected::Key),
    ("credential", Expected::Key),
    ("_auth", Expected::Key),
    ("\"auth\"", Expected::Key),
    ("sessionid", Expected::Key),
    ("session_id", Expected::Key),
    ("connect.sid", Expected::Key),
    ("phpsessid", Expected::Key),
    ("jsessionid", Expected::Key),
    ("authorization", Expected::Header),
    ("identified by", Expected::Password),
    ("webhook", Expected::Key),
    ("sonar", Expected::Key),
    ("sumo", Expected::Key),
    ("contribsys", Expected::Key),
    ("psk", Expected::Password),
    ("pw", Expected::Password),
    ("Пароль", Expected::Password),
    ("senha", Expected::Password),
    ("wachtwoord", Expected::Password),
    ("lösenord", Expected::Password),
    ("hasło", Expected::Password),
    ("пароль", Expected::Password),
    ("密码", Expected::Password),
    ("パスワード", Expected::Password),
];

static FINDER: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .kind(Some(AhoCorasickKind::DFA))
        .ascii_case_insensitive(true)
        .build(WORDS.iter().map(|(word, _)| *word).chain(options::words()))
        // The list is part of the program; a test builds it.
        .expect("a few short words make an automaton")
});

/// Adds every value that its name gives away.
pub(crate) fn find(bytes: &[u8], hits: &mut Vec<Hit>) {
    for word in FINDER.find_overlapping_iter(bytes) {
        let place = word.start()..word.end();
        let Some((_, expected)) = WORDS.get(word.pattern().as_usize()) else {
            options::at(bytes, place, hits);
            continue;
        };
        let hit = match expected {
            Expected::Header => header(bytes, place.end),
            Expected::Password => value_of(bytes, place, Expected::Password),
            Expected::Key => value_of(bytes, place, Expected::Key),
        };
        hits.extend(hit);
    }
}

/// `Authorization: Bearer ...`, also in JSON and on command lines.
fn header(bytes: &[u8], at: usize) -> Option<Hit> {
    let separated = skip(&bytes[at..], b" \t\"'`:=,>[\\", 8);
    if separated == 0 {
        return None;
    }
    let at = at + separated;
    let scheme = bytes[at..]
        .iter()
        .take(12)
        .take_while(|b| b.is_ascii_alphabetic() || **b == b'-')
        .count();
    let name = bytes[at..at + scheme].to_ascii_lowercase();
    let is_scheme = matches!(
        name.as_slice(),
        b"bearer"
            | b"basic"
            | b"token"
            | b"bot"
            | b"apikey"
            | b"splunk"
            | b"genie"
            | b"ssws"
            | b"key"
            | b"api-key"
            | b"api-token"
    );
    let start = if is_scheme {
        at + scheme + skip(&bytes[at + scheme..], b" \t:=", 3)
    } else {
        at
    };
    let value = start..start + value_length(&bytes[start..]);
    let text = text(bytes, &value)?;
    if name == b"basic" {
        let decoded = base64(text.trim_end_matches('=').as_bytes())?;
        let decoded = std::str::from_utf8(&decoded).ok()?;
        let (_, password) = decoded.split_once(':')?;
        let real = password.len() >= 4 && !is_stand_in(password);
        return real.then(|| Hit::new(BASIC, value, Rank::Format));
    }
    let long_enough = (SHORTEST_KEY..=LONGEST * 3).contains(&text.len());
    (long_enough && !is_stand_in(text) && looks_generated(text))
        .then(|| Hit::new(BEARER, value, Rank::Context))
}

fn value_of(bytes: &[u8], word: Range<usize>, expected: Expected) -> Option<Hit> {
    let name = names::around(bytes, word.clone());
    let name_text = text_of_name(bytes, &name);
    let means = match expected {
        Expected::Password => names::means_password(&name_text),
        Expected::Key | Expected::Header => {
            names::means_key(&name_text) || names::may_mean_key(&name_text)
        }
    };
    if !means {
        return None;
    }
    let (start, said) = value_start(bytes, &name)?;
    let value = start..start + value_length(&bytes[start..]);
    let value = within_quotes(bytes, value);
    let text = text(bytes, &value)?;
    let real = match expected {
        Expected::Password => is_password(text, said),
        Expected::Key | Expected::Header => {
            is_key(text, said, &name_text) && (names::means_key(&name_text) || is_only_random(text))
        }
    };
    if !real {
        return None;
    }
    let line = line_before(bytes, start);
    let kind = match expected {
        Expected::Password => PASSWORD,
        Expected::Key | Expected::Header if is_aws_secret(text, &name_text) => AWS_SECRET,
        Expected::Key | Expected::Header => names::vendor_kind(&line, text).unwrap_or(KEY),
    };
    Some(Hit::new(kind, value, Rank::Context))
}

/// How a value was introduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// In a form that machines read: `name = "value"`.
    Assigned,
    /// In a sentence: `the password is value`.
    Told,
}

/// Where the value of a name begins.
fn value_start(bytes: &[u8], name: &Name) -> Option<(usize, Said)> {
    let after = name.place.end;
    let rest = &bytes[after..bytes.len().min(after + 80)];
    if let Some(start) = attribute(rest).or_else(|| typed(rest)) {
        return Some((after + start, Said::Assigned));
    }
    let closed = skip(rest, b"\"'`])*}\\ \t", 6);
    let closed = closed
        + match rest[closed..] {
            // `a.b::c` is a name that goes on.
            [b':', b':', next, ..] if next.is_ascii_alphabetic() => return None,
            [b'.' | b'+' | b'!', b'=', ..] => 1,
            _ => 0,
        };
    let sign = closed
        + rest[closed..]
            .iter()
            .take(4)
            .take_while(|b| is_assigning(**b) && (**b != b',' || is_quoted(&rest[..closed])))
            .count();
    let quoted = closed > 0 && matches!(rest.get(closed - 1), Some(b'\'' | b'"'));
    let blank = matches!(rest.first(), Some(b' '));
    let direct = blank
        && (name.is_option || quoted && rest[..closed - 1].iter().all(|b| *b == b' '))
        || rest.first() == Some(&b'\t') && rest.get(1) != Some(&b'\t');
    if sign == closed && !direct {
        return told(rest).map(|start| (after + start, Said::Told));
    }
    if let Some(start) = on_the_next_line(rest, sign) {
        return Some((after + start, Said::Assigned));
    }
    let start = sign + skip(&rest[sign..], b" \t\"'`([\\*{@", 8);
    if rest[sign..].starts_with(b"\n") {
        return None;
    }
    Some((after + start, Said::Assigned))
}

/// `name="password" value="..."`, `{"name": "PASSWORD", "value": "..."}`, also over lines as in YAML.
fn attribute(rest: &[u8]) -> Option<usize> {
    let at = skip(rest, b"\"'` \t\r\n,\\", 40);
    let word = rest.get(at..at + 5)?;
    if at == 0 || !word.eq_ignore_ascii_case(b"value") {
        return None;
    }
    let closed = at + 5 + skip(&rest[at + 5..], b"\"'` \t\\", 6);
    matches!(rest.get(closed), Some(b'=' | b':'))
        .then(|| closed + 1 + skip(&rest[closed + 1..], b" \t\"'`\\", 6))
}

/// `password: String = "..."`, `password string = "..."`, `password[] = "..."`.
fn typed(rest: &[u8]) -> Option<usize> {
    let arrays = skip(rest, b"[]", 2);
    let colon = arrays + skip(&rest[arrays..], b" :", 3);
    let lifetime = b"&'static ";
    let colon = colon
        + if rest[colon..].starts_with(lifetime) {
            lifetime.len()
        } else {
            0
        };
    let kind = rest[colon..]
        .iter()
        .take(40)
        .take_while(|b| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'&' | b'\'' | b'*' | b'<' | b'>' | b'?' | b'_' | b'.')
        })
        .count();
    let at = colon + kind;
    let at = at + skip(&rest[at..], b" ", 2);
    let named = arrays == 2
        || kind > 1 && colon > 0 && rest[..colon].iter().any(|b| *b == b' ' || *b == b':');
    let assigned = matches!(rest[at..], [b'=', next, ..] if next != b'=' && next != b'>');
    (named && assigned).then(|| at + 1 + skip(&rest[at + 1..], b" @\"'`", 4))
}

/// `<password>`, and `password: |` of YAML, with the value on the next line.
fn on_the_next_line(rest: &[u8], sign: usize) -> Option<usize> {
    let opened = matches!(rest[..sign].last(), Some(b'>'));
    let folded = sign + skip(&rest[sign..], b" |>", 3);
    let folds = rest[sign..folded].iter().any(|b| *b != b' ');
    let ends = if folds {
        folded + skip(&rest[folded..], b"-+", 1)
    } else {
        sign
    };
    let lines = skip(&rest[ends..], b"\r\n \t", 60);
    let breaks = rest[ends..ends + lines].contains(&b'\n');
    ((opened || folds) && breaks).then_some(ends + lines)
}

/// A comma tells a value only of a name that was a text: `set("password", ...)`.
fn is_quoted(closed: &[u8]) -> bool {
    closed.iter().any(|b| matches!(b, b'"' | b'\''))
}

fn is_assigning(byte: u8) -> bool {
    matches!(byte, b'=' | b':' | b'>' | b',' | b'|' | b'?')
}

/// ` for the data base is `: a few words up to the one that tells.
fn told(rest: &[u8]) -> Option<usize> {
    let words = rest
        .iter()
        .take_while(|b| {
            b.is_ascii_alphanumeric()
                || matches!(b, b' ' | b'_' | b'-' | b'\'' | b'"' | b'`' | b':')
        })
        .count();
    let sentence = String::from_utf8_lossy(&rest[..words]).to_ascii_lowercase();
    let telling = [" is ", " was ", " are ", " ist ", " est ", ": ", " to "];
    let (at, word) = telling
        .iter()
        .filter_map(|w| sentence.find(w).map(|at| (at, w)))
        .min()?;
    let start = at + word.len();
    Some(start + skip(&rest[start..], b" :\"'`(*", 4))
}

pub(crate) fn skip(bytes: &[u8], signs: &[u8], most: usize) -> usize {
    bytes
        .iter()
        .take(most)
        .take_while(|b| signs.contains(b))
        .count()
}

/// Up to what ends a value that is not quoted.
pub(crate) fn value_length(bytes: &[u8]) -> usize {
    let ends = |byte: u8| {
        !byte.is_ascii_graphic() || matches!(byte, b'"' | b'\'' | b'`' | b'<' | b',' | b';' | b'|')
    };
    let length = bytes
        .iter()
        .take(LONGEST * 3)
        .take_while(|b| !ends(**b))
        .count();
    let end = bytes[..length]
        .iter()
        .rposition(|b| !matches!(b, b'.' | b')' | b']' | b'}' | b'*' | b'\\' | b':' | b'?'))
        .map_or(0, |last| last + 1);
    // Signs that end a sentence or a call are no part of the value, but those of a password are.
    if length - end > 2 { length } else { end }
}

/// A value in quotes goes on to where they close, over commas and semicolons.
fn within_quotes(bytes: &[u8], value: Range<usize>) -> Range<usize> {
    let quote = match value.start.checked_sub(1).map(|at| bytes[at]) {
        Some(quote @ (b'"' | b'\'' | b'`')) => quote,
        _ => return value,
    };
    let length = bytes[value.start..]
        .iter()
        .take(LONGEST)
        .take_while(|b| **b != quote && b.is_ascii_graphic())
        .count();
    let closed = bytes.get(value.start + length) == Some(&quote);
    if closed {
        value.start..value.start + length
    } else {
        value
    }
}

fn text<'a>(bytes: &'a [u8], place: &Range<usize>) -> Option<&'a str> {
    std::str::from_utf8(&bytes[place.clone()])
        .ok()
        .filter(|text| !text.is_empty())
}

fn text_of_name(bytes: &[u8], name: &Name) -> String {
    String::from_utf8_lossy(&bytes[name.place.clone()]).to_ascii_lowercase()
}

fn line_before(bytes: &[u8], at: usize) -> String {
    let from = at.saturating_sub(120);
    let line = bytes[from..at]
        .rsplit(|b| *b == b'\n')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(line).to_ascii_lowercase()
}

pub(crate) fn is_password(text: &str, said: Said) -> bool {
    let mixture = crate::alphabet::Mixture::of(text.as_bytes());
    let signs = mixture.others;
    let letters = mixture.lower + mixture.upper;
    let long_enough = match said {
        Said::Assigned => SHORTEST_PASSWORD,
        Said::Told => SHORTEST_PASSWORD + 2,
    };
    let mixed = (mixture.digits > 0 && letters > 0 && mixture.classes() >= 2)
        || (signs > 0 && mixture.upper > 0 && mixture.lower > 0 && has_odd_sign(text))
        || (text.len() >= 16 && mixture.changes >= 4);
    (long_enough..=LONGEST).contains(&text.len()) && mixed && !is_stand_in(text) && !is_code(text)
}

/// A sign that stands in no name and no address.
fn has_odd_sign(text: &str) -> bool {
    text.bytes().any(|b| {
        matches!(
            b,
            b'!' | b'#' | b'$' | b'%' | b'^' | b'&' | b'*' | b'?' | b'@' | b'+' | b'~'
        )
    })
}

fn is_key(text: &str, said: Said, name: &str) -> bool {
    let shortest = match said {
        Said::Assigned => SHORTEST_KEY,
        Said::Told => SHORTEST_KEY + 4,
    };
    let named = names::vendor_fits(name, text);
    (shortest..=LONGEST).contains(&text.len())
        && !is_stand_in(text)
        && !is_code(text)
        && (named || looks_generated(text))
}

/// What names a value, calls for one or describes it.
fn is_code(text: &str) -> bool {
    let called = text.split_once('(').is_some_and(|(name, _)| {
        let part = |b: u8| b.is_ascii_alphabetic() || matches!(b, b'_' | b'.');
        name.len() >= 3 && name.bytes().all(part)
    });
    let call = called || text.contains('(') && text.contains(')');
    let address = text.contains("://")
        || text.starts_with('/')
        || text.starts_with("./")
        || text.starts_with("../");
    let reference = text.starts_with('$') && !text.contains(['!', '#', '%'])
        || text.starts_with("process.")
        || text.starts_with("os.")
        || text.starts_with("env.")
        || text.starts_with("self.")
        || text.starts_with("this.")
        || text.starts_with("config.")
        || text.starts_with("var.")
        || text.starts_with("secrets.")
        || text.starts_with("arn:")
        || text.contains("::")
        || text.contains("->")
        || text.contains("[\"")
        || text.contains("['");
    let hash = [
        "$2a$",
        "$2b$",
        "$2y$",
        "$argon2",
        "$6$",
        "$5$",
        "$1$",
        "sha256-",
        "sha384-",
        "sha512-",
        "sha1-",
        "sha256:",
        "sha512:",
        "md5:",
        "pbkdf2",
        "scrypt:",
        "{ssha}",
        "enc[",
        "aws:kms:",
        "projects/",
        "vault:",
        "base64,",
    ];
    let lower = text.to_ascii_lowercase();
    call || address
        || reference
        || hash.iter().any(|start| lower.starts_with(start))
        || is_dotted_name(text)
        || is_number(text)
}

/// `2063u32`: a number and its type.
fn is_number(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '_');
    let kinds = [
        "u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "f32", "f64", "ull",
    ];
    rest.len() < text.len() && kinds.contains(&rest.to_ascii_lowercase().as_str())
}

/// `settings.database.password2`: words with dots between.
fn is_dotted_name(text: &str) -> bool {
    text.contains('.')
        && text.split('.').all(|word| {
            let mut letters = word.bytes();
            letters
                .next()
                .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
                && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && word.bytes().filter(u8::is_ascii_digit).count() <= 1
                && word.len() <= 24
        })
}

/// 40 signs of base 64 under a name of AWS.
fn is_aws_secret(text: &str, name: &str) -> bool {
    let signs = text.bytes().all(|b| crate::alphabet::BASE64.has(b));
    let named = name.contains("aws")
        || name.contains("secretaccesskey")
        || name.contains("secret_access")
        || name.contains("secret_key");
    text.len() == 40 && signs && named && !text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, &str)> {
        let mut hits = Vec::new();
        find(text.as_bytes(), &mut hits);
        let mut found: Vec<_> = hits
            .iter()
            .map(|hit| (hit.kind.as_str(), &text[hit.start..hit.end]))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    #[test]
    fn values_are_found_in_every_way_of_assigning() {
        for text in [
            "password = 'k8Wq2-zz71'",
            "PASSWORD=k8Wq2-zz71",
            "\"password\": \"k8Wq2-zz71\",",
            "password: k8Wq2-zz71",
            "db_password := \"k8Wq2-zz71\"",
            "'password' => 'k8Wq2-zz71'",
            "<password>k8Wq2-zz71</password>",
            "mysql --password k8Wq2-zz71 -h x",
            "my password is k8Wq2-zz71.",
            "the password for the data base is k8Wq2-zz71",
            "set(\"password\", \"k8Wq2-zz71\")",
            "| password | k8Wq2-zz71 |",
            "**Password:** `k8Wq2-zz71`",
            "CREATE USER x IDENTIFIED BY 'k8Wq2-zz71'",
            "ALTER USER x WITH PASSWORD 'k8Wq2-zz71';",
            "$password .= \"k8Wq2-zz71\";",
            "password += 'k8Wq2-zz71'",
            "var password string = \"k8Wq2-zz71\"",
            "val password: String = \"k8Wq2-zz71\"",
            "let password: &'static str = \"k8Wq2-zz71\";",
            "char password[] = \"k8Wq2-zz71\";",
            "NSString *password = @\"k8Wq2-zz71\";",
            "<password>\n    k8Wq2-zz71\n</password>",
            "password: |\n  k8Wq2-zz71\n",
            "password: >-\n  k8Wq2-zz71\n",
            "<add key=\"Password\" value=\"k8Wq2-zz71\" />",
            "<property name=\"db.password\" value=\"k8Wq2-zz71\"/>",
            "{\"name\": \"DB_PASSWORD\", \"value\": \"k8Wq2-zz71\"}",
            "- name: DB_PASSWORD\n  value: k8Wq2-zz71\n",
            "ENV DB_PASSWORD k8Wq2-zz71",
            "setx DB_PASSWORD k8Wq2-zz71",
            "machine example.org login me password k8Wq2-zz71",
            "machine example.org\n  login me\n  password k8Wq2-zz71",
            "password\tk8Wq2-zz71",
            "pw: k8Wq2-zz71",
            "WIFI_PSK=k8Wq2-zz71",
            "пароль: k8Wq2-zz71",
            "senha: k8Wq2-zz71",
        ] {
            assert_eq!(found(text), [("password", "k8Wq2-zz71")], "{text}");
        }
    }

    #[test]
    fn passwords_that_people_think_of_are_found_and_what_stands_for_one_is_not() {
        for value in ["SuperSecretPass147!", "Summer2026!", "Sup3r$ecretPassword"] {
            assert_eq!(found(&format!("password = {value}")), [("password", value)]);
        }
        for value in [
            "secret-password",
            "MySecretPassword",
            "test1234",
            "password123",
        ] {
            assert_eq!(found(&format!("password = {value}")), [], "{value}");
        }
    }

    #[test]
    fn keys_are_found_under_their_names() {
        let value = "q2Vt8Zs1Lk0Xo5Jh7Gd3Fa9R";
        for text in [
            format!("api_key = \"{value}\""),
            format!("API_KEY={value}"),
            format!("x-api-key: {value}"),
            format!("client_secret: {value}"),
            format!("{{\"accessToken\":\"{value}\"}}"),
            format!("export SERVICE_TOKEN={value}"),
            format!("The API key is {value}."),
            format!("//registry.example.org/:_authToken={value}"),
            format!("const weatherKey = \"{value}\";"),
            format!("login_token = {value}"),
            format!("NEXTAUTH_SECRET={value}"),
            format!("pagerduty_token: {value}"),
        ] {
            assert_eq!(found(&text), [("generic_secret", value)], "{text}");
        }
        let hex = "9f86d081884c7d659a2feaa0c55ad015";
        assert_eq!(
            found(&format!("secret_key = {hex}")),
            [("generic_secret", hex)]
        );
    }

    #[test]
    fn headers_are_read() {
        let token = "q2Vt8Zs1Lk0Xo5Jh7Gd3Fa9R";
        assert_eq!(
            found(&format!("Authorization: Bearer {token}")),
            [("bearer_token", token)]
        );
        assert_eq!(
            found(&format!("-H 'Authorization: token {token}'")),
            [("bearer_token", token)]
        );
        let basic = "YWRtaW46azhXcTItejcx";
        assert_eq!(
            found(&format!("Authorization: Basic {basic}")),
            [("basic_auth", basic)]
        );
        assert_eq!(found("Authorization: Bearer <token>"), []);
        assert_eq!(found("Authorization: Basic dXNlcjpwYXNzd29yZA=="), []);
        assert_eq!(
            found("curl -u admin:k8Wq2z71 https://x"),
            [("basic_auth", "admin:k8Wq2z71")]
        );
    }

    #[test]
    fn what_stands_in_manuals_code_and_sentences_is_nothing() {
        for text in [
            "password = \"changeme\"",
            "password: ********",
            "password: <your-password>",
            "PASSWORD=${DB_PASSWORD}",
            "password = os.environ[\"PASSWORD\"]",
            "password = getpass.getpass()",
            "const password = process.env.PASSWORD2;",
            "password: string",
            "password: { type: 'string', minLength: 12 }",
            "Your password is required to be 12 characters long.",
            "The token is invalid or has expired.",
            "token_type: bearer",
            "max_tokens: 4096",
            "secret_name = \"my-app-prod-2\"",
            "password_hash = \"$2b$12$KIXQ2JH7yZ1a2b3c4d5e6f\"",
            "api_key: YOUR_API_KEY_123456",
            "integrity: sha512-q2Vt8Zs1Lk0Xo5Jh7Gd3Fa9Rb6Nc4Me2Wy1Ux8Pv5Q",
            "cache_key = 9f86d081884c7d659a2feaa0c55ad015",
            "public_key: q2Vt8Zs1Lk0Xo5Jh7Gd3Fa9Rb6Nc4Me2",
            "primary key: id",
            "key: value-of-something-2",
            "next_page_token: q2Vt8Zs1Lk0Xo5Jh7Gd3Fa9R",
            "the secret is out, 2 people know",
            "token = \"{{ secrets.TOKEN_1 }}\"",
            "token: 128000",
            "tokenizer = AutoTokenizer2.from_pretrained(x)",
            "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "password = \"hunter2hunter2\" # never do this",
            "keyboard: qwerty-us-104",
            "credentialsId: '29f63271-dc2f-4734-8221-5b31b5169bac'",
            "ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }",
            "const PrivateKeyExportable: X509CertificateTemplatePrivateKeyFlag = 16i32;",
            "objectKey = \"q2Vt8Zs1Lk0Xo5Jh7Gd3Fa9R\"",
            "weatherKey = \"9f86d081884c7d659a2feaa0c55ad015\"",
            "weatherKey = \"users/by-name/2026/page-2\"",
            "passport: AB1234567",
            "password value must have 12 letters",
            "pub const ERROR_PASSWORD_OLD: u32 = 12014u32;",
            "name=\"authenticity_token\" value=\"q2Vt8Zs1Lk0Xo5Jh7Gd3Fa9R\"",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }

    #[test]
    fn the_secret_of_aws_is_known_by_its_name_and_length() {
        let secret = "q2Vt8Zs1Lk0Xo5Jh7Gd3/a9Rb6Nc4Me2Wy1Ux8P+";
        assert_eq!(
            found(&format!("aws_secret_access_key = {secret}")),
            [("aws_secret_key", secret)]
        );
        assert_eq!(
            found(&format!("\"SecretAccessKey\": \"{secret}\"")),
            [("aws_secret_key", secret)]
        );
    }
}
