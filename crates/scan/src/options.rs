//! Passwords that stand where a program or a function expects one, without a name: `sshpass -p ...`,
//! `curl -u name:...`, `auth=("name", "...")`.

use std::ops::Range;

use crate::context::{BASIC, PASSWORD, SHORTEST_PASSWORD, Said, is_password, skip};
use crate::hit::{Hit, Rank};
use crate::placeholder::{is_stand_in, looks_generated};

/// What is known of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The next word is the password.
    Word,
    /// It begins right behind the option.
    Glued,
    /// `name:password`, or with another sign between.
    Pair(u8),
    /// Two texts in quotes: the name and the password.
    Quoted,
    /// `name/password@host`, `name:password@host` up to the end of the word.
    Before(u8),
}

/// Programs and functions, their option, and what follows it.
const PLACES: &[(&str, &str, Form)] = &[
    ("curl", "-u", Form::Pair(b':')),
    ("curl", "--user", Form::Pair(b':')),
    ("http -a", "", Form::Pair(b':')),
    ("smbclient", "-U", Form::Pair(b'%')),
    ("sshpass", "-p", Form::Word),
    ("sshpass", "-p", Form::Glued),
    (" login", "-p", Form::Word),
    ("redis-cli", "-a", Form::Word),
    ("ldap", "-w", Form::Word),
    ("zip", "-P", Form::Word),
    ("mosquitto", "-P", Form::Word),
    ("sqlcmd", "-P", Form::Word),
    ("ipmitool", "-P", Form::Word),
    ("mysql", "-p", Form::Glued),
    ("mariadb", "-p", Form::Glued),
    ("7z", "-p", Form::Glued),
    ("openssl", "-k", Form::Word),
    ("openssl", "pass:", Form::Glued),
    ("freerdp", "/p:", Form::Glued),
    ("ConvertTo-SecureString", "", Form::Word),
    ("sudo -S", "<<<", Form::Word),
    ("auth=(", "", Form::Quoted),
    ("BasicAuth(", "", Form::Quoted),
    ("basic_auth(", "", Form::Quoted),
    ("jdbc:oracle:thin:", "", Form::Before(b'/')),
];

/// What reads a password that another program says before it in the line.
const READERS: [&str; 3] = ["sudo -S", "--password-stdin", "passwd --stdin"];

/// `name:password@tcp(host)`: what drivers of Go call the address of a data base.
const DSN: [&str; 2] = ["@tcp(", "@unix("];

/// So far behind a program its options are looked for, in bytes.
const LINE: usize = 400;

/// What to look for: each place of one of these is to be given to [`at`].
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    let places = PLACES.iter().map(|(program, ..)| *program);
    places.chain(READERS).chain(DSN)
}

/// Adds the password that the word which stands at this place gives away, if it does.
pub(crate) fn at(bytes: &[u8], word: Range<usize>, hits: &mut Vec<Hit>) {
    let text = &bytes[word.clone()];
    let is = |one: &&str| one.as_bytes() == text;
    if READERS.iter().any(is) {
        hits.extend(said_before(bytes, word.start));
    }
    if DSN.iter().any(is) {
        hits.extend(in_front_of(bytes, word.start));
    }
    for (_, option, form) in PLACES.iter().filter(|(program, ..)| is(program)) {
        hits.extend(behind(bytes, word.end, option, *form));
    }
}

fn behind(bytes: &[u8], program: usize, option: &str, form: Form) -> Option<Hit> {
    let line = &bytes[program..bytes.len().min(program + LINE)];
    // A line goes on behind a backslash.
    let ends = |at: usize| line[at] == b'\n' && !line[..at].ends_with(b"\\");
    let line = &line[..(0..line.len()).find(|at| ends(*at)).unwrap_or(line.len())];
    let mut from = 0;
    while let Some(at) = option_in(&line[from..], option) {
        let at = from + at;
        if let Some(hit) = value_at(bytes, program + at, form) {
            return Some(hit);
        }
        if option.is_empty() {
            return None;
        }
        from = at;
    }
    None
}

/// Where the option ends.
fn option_in(line: &[u8], option: &str) -> Option<usize> {
    if option.is_empty() {
        return Some(0);
    }
    let option = option.as_bytes();
    (1..line.len()).find_map(|at| {
        let whole = line[at..].starts_with(option) && matches!(line[at - 1], b' ' | b'\t');
        whole.then_some(at + option.len())
    })
}

fn value_at(bytes: &[u8], at: usize, form: Form) -> Option<Hit> {
    let blanks = skip(&bytes[at..], b" \t=", 4);
    match form {
        Form::Word if blanks == 0 => None,
        Form::Glued if blanks > 0 => None,
        Form::Word | Form::Glued => {
            let (place, text) = word(bytes, at + blanks)?;
            is_password(&text, Said::Assigned).then(|| Hit::new(PASSWORD, place, Rank::Context))
        }
        Form::Pair(sign) => {
            let (place, text) = word(bytes, at + blanks)?;
            is_pair(&text, char::from(sign)).then(|| Hit::new(BASIC, place, Rank::Format))
        }
        Form::Quoted => {
            let (name, _) = word(bytes, at + blanks)?;
            let comma = name.end + skip(&bytes[name.end..], b", \t\n", 12);
            let quoted =
                |place: &Range<usize>| matches!(bytes.get(place.start), Some(b'"' | b'\''));
            let (place, text) = word(bytes, comma)?;
            let real = quoted(&name) && quoted(&place) && is_password(&text, Said::Assigned);
            real.then(|| Hit::new(PASSWORD, place, Rank::Context))
        }
        Form::Before(sign) => {
            let (place, text) = word(bytes, at)?;
            let (pair, _) = text.rsplit_once('@')?;
            is_pair(pair, char::from(sign)).then(|| {
                Hit::new(
                    PASSWORD,
                    place.start..place.start + pair.len(),
                    Rank::Context,
                )
            })
        }
    }
}

/// A name and a password; or a key for a name, and no password.
fn is_pair(text: &str, sign: char) -> bool {
    let Some((name, password)) = text.split_once(sign) else {
        return false;
    };
    match password.is_empty() {
        true => name.len() >= 12 && looks_generated(name) && !is_stand_in(name),
        false => password.len() >= SHORTEST_PASSWORD && !is_stand_in(password),
    }
}

/// A word as a shell reads it, with what is quoted in it; its place holds the quotes.
fn word(bytes: &[u8], start: usize) -> Option<(Range<usize>, String)> {
    const LONGEST: usize = 300;
    let mut quote = None;
    let mut text = Vec::new();
    let mut end = start;
    for byte in bytes[start..].iter().take(LONGEST) {
        match (byte, quote) {
            (b'"' | b'\'', None) => quote = Some(*byte),
            (byte, Some(open)) if *byte == open => quote = None,
            (b'\n', _) => break,
            (b' ' | b'\t' | b';' | b'|' | b',' | b')', None) => break,
            (byte, _) => text.push(*byte),
        }
        end += 1;
    }
    let text = String::from_utf8(text).ok()?;
    (!text.is_empty()).then_some((start..end, text))
}

/// `echo ... | sudo -S`.
fn said_before(bytes: &[u8], reader: usize) -> Option<Hit> {
    let from = reader.saturating_sub(LINE);
    let line = bytes[from..reader].rsplit(|b| *b == b'\n').next()?;
    let begins = reader - line.len();
    let said = line.windows(5).rposition(|part| part == b"echo ")?;
    let (place, text) = word(bytes, begins + said + 5)?;
    is_password(&text, Said::Assigned).then(|| Hit::new(PASSWORD, place, Rank::Context))
}

/// `name:password` up to here.
fn in_front_of(bytes: &[u8], end: usize) -> Option<Hit> {
    let is_part = |b: &&u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'`' | b'=');
    let length = bytes[..end]
        .iter()
        .rev()
        .take(200)
        .take_while(is_part)
        .count();
    let text = std::str::from_utf8(&bytes[end - length..end]).ok()?;
    is_pair(text, ':').then(|| Hit::new(PASSWORD, end - length..end, Rank::Context))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&'static str, &str)> {
        let mut hits = Vec::new();
        let mut programs: Vec<&str> = words().collect();
        programs.sort_unstable();
        programs.dedup();
        for program in programs {
            for start in crate::structured::places(text.as_bytes(), program) {
                at(text.as_bytes(), start..start + program.len(), &mut hits);
            }
        }
        hits.iter()
            .map(|hit| (hit.kind.as_str(), &text[hit.start..hit.end]))
            .collect()
    }

    #[test]
    fn passwords_are_found_where_a_program_expects_them() {
        for (text, value) in [
            ("sshpass -p k8Wq2-zz71 ssh me@host", "k8Wq2-zz71"),
            ("sshpass -p 'k8Wq2-zz71' ssh me@host", "'k8Wq2-zz71'"),
            ("mysql -u root -pk8Wq2-zz71 -h db", "k8Wq2-zz71"),
            ("redis-cli -h cache -a k8Wq2-zz71 ping", "k8Wq2-zz71"),
            ("docker login -u me -p k8Wq2-zz71 x.example", "k8Wq2-zz71"),
            ("ldapsearch -D cn=a -w k8Wq2-zz71 -b dc=x", "k8Wq2-zz71"),
            ("unzip -P k8Wq2-zz71 a.zip", "k8Wq2-zz71"),
            ("7z x -pk8Wq2-zz71 a.7z", "k8Wq2-zz71"),
            ("openssl rsa -in k -passin pass:k8Wq2-zz71", "k8Wq2-zz71"),
            (
                "ConvertTo-SecureString \"k8Wq2-zz71\" -AsPlainText",
                "\"k8Wq2-zz71\"",
            ),
            (
                "echo k8Wq2-zz71 | docker login --password-stdin",
                "k8Wq2-zz71",
            ),
            ("echo \"k8Wq2-zz71\" | sudo -S ls", "\"k8Wq2-zz71\""),
            ("sudo -S <<< \"k8Wq2-zz71\"", "\"k8Wq2-zz71\""),
            ("get(url, auth=(\"me\", \"k8Wq2-zz71\"))", "\"k8Wq2-zz71\""),
            ("HTTPBasicAuth('me', 'k8Wq2-zz71')", "'k8Wq2-zz71'"),
            (
                "jdbc:oracle:thin:app/k8Wq2-zz71@db:1521/x",
                "app/k8Wq2-zz71",
            ),
            ("app:k8Wq2-zz71@tcp(db:3306)/x", "app:k8Wq2-zz71"),
        ] {
            let hits: Vec<_> = found(text)
                .into_iter()
                .filter(|(kind, _)| *kind == "password")
                .collect();
            assert_eq!(hits, [("password", value)], "{text}");
        }
        for (text, value) in [
            ("curl -u admin:k8Wq2z71 https://x", "admin:k8Wq2z71"),
            ("curl -s --user  'me:k8 Wq2z71' $URL", "'me:k8 Wq2z71'"),
            ("curl --user me:'k8Wq2z71' -X PATCH", "me:'k8Wq2z71'"),
            (
                "curl -X POST \\\n  -u \"q2Vt8Zs1Lk0Xo5:\" https://x",
                "\"q2Vt8Zs1Lk0Xo5:\"",
            ),
            ("smbclient //x/y -U me%k8Wq2z71", "me%k8Wq2z71"),
            ("http -a me:k8Wq2z71 example.org", "me:k8Wq2z71"),
        ] {
            assert_eq!(found(text), [("basic_auth", value)], "{text}");
        }
    }

    #[test]
    fn options_of_others_and_examples_are_nothing() {
        for text in [
            "docker run -p 8080:80 nginx",
            "see http://example.org, then cp -a me:k8Wq2z71 .",
            "mysql -u root -p -h db2prod1",
            "curl -u user:password https://x",
            "curl -u \"$USER:$PASS\" https://x",
            "curl https://x\nmkdir -u admin:k8Wq2z71",
            "sshpass -p <password> ssh me@host",
            "auth=(user, password2)",
            "echo $PASSWORD1 | sudo -S ls",
            "unzip -p archive1.zip file2",
            "az login -p ${PASSWORD}",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
