//! One walk over a text: what in it leads out, and the text without it.

use std::collections::HashSet;
use std::ops::Range;

use super::html::{Use, css, tag};
use super::target::{Leads, Target, host, inert_scheme, target};
use crate::finding::{Finding, Kind};

/// What a walk gives.
pub(super) struct Walked {
    pub(super) findings: Vec<Finding>,
    pub(super) inert: String,
}

/// Looks at the text once.
pub(super) fn pass(text: &str, allowed: &dyn Fn(&str) -> bool) -> Walked {
    let mut walk = Walk {
        text,
        allowed,
        at: 0,
        open: Vec::new(),
        out: String::with_capacity(text.len()),
        findings: Vec::new(),
        images: None,
    };
    while walk.at < text.len() {
        walk.step();
    }
    Walked {
        findings: walk.findings,
        inert: walk.out,
    }
}

struct Walk<'t> {
    text: &'t str,
    allowed: &'t dyn Fn(&str) -> bool,
    at: usize,
    /// Brackets that are open: where, in the text and in what came out.
    open: Vec<(usize, usize)>,
    out: String,
    findings: Vec<Finding>,
    /// The names by which images are referred to, once somebody asked.
    images: Option<HashSet<String>>,
}

/// The longest address that is read.
const LONGEST: usize = 2 * 1024;

/// Brackets that are open at once; others belong to no link.
const DEEPEST: usize = 64;

impl Walk<'_> {
    fn step(&mut self) {
        let rest = &self.text[self.at..];
        let Some(sign) = rest.chars().next() else {
            return;
        };
        let done = match sign {
            '[' => self.bracket(),
            ']' => self.closed(rest),
            '<' => self.angle(),
            'u' | 'U' | '@' => self.css(rest),
            _ => false,
        };
        if done || self.at_word_start() && (self.bare(rest) || self.domain(rest)) {
            return;
        }
        self.out.push(sign);
        self.at += sign.len_utf8();
    }

    fn at_word_start(&self) -> bool {
        !self.text[..self.at].ends_with(|c: char| c.is_ascii_alphanumeric())
    }

    fn is_bad(&self, target: &Target) -> bool {
        target.leads == Leads::Code || !(self.allowed)(&target.host)
    }

    fn found(&mut self, kind: Kind, place: Range<usize>) {
        self.findings.push(Finding {
            kind,
            name: None,
            start: place.start,
            end: place.end,
        });
    }

    fn found_link(&mut self, target: &Target, place: Range<usize>) {
        if target.carries_data() {
            self.found(Kind::LINK, place);
        }
    }

    fn bracket(&mut self) -> bool {
        if self.open.len() == DEEPEST {
            self.open.remove(0);
        }
        self.open.push((self.at, self.out.len()));
        false
    }

    /// `](address)`, `]: address`, or the end of something else.
    fn closed(&mut self, rest: &str) -> bool {
        let before = &self.text[..self.at];
        let slashes = before.len() - before.trim_end_matches('\\').len();
        if slashes % 2 == 1 {
            return false;
        }
        let open = self.open.pop();
        let after = rest[1..].trim_start_matches('\u{200b}');
        let (inside, definition) = match after.chars().next() {
            Some('(') => (&after[1..], false),
            Some(':') => (&after[1..], true),
            _ => return false,
        };
        let offset = self.text.len() - inside.len();
        let Some((target, length)) = self.bad_address(inside, definition) else {
            return false;
        };
        let end = offset + length;
        if definition {
            self.definition(&target, open, end);
        } else {
            self.inline(&target, open, end);
        }
        self.at = end;
        true
    }

    fn inline(&mut self, target: &Target, open: Option<(usize, usize)>, end: usize) {
        let (start, from) = open.unwrap_or((self.at, self.out.len()));
        let is_image = open.is_some() && self.out[..from].ends_with('!');
        let label = self.out.get(from + 1..).unwrap_or_default().to_owned();
        if is_image {
            self.found(Kind::IMAGE, start - 1..end);
            self.out.truncate(from - 1);
            self.out.push_str(&image(&label, target));
        } else {
            self.found_link(target, start..end);
            self.out.truncate(from);
            let label = label.trim();
            let inert = target.inert();
            match label.is_empty() {
                true => self.out.push_str(&inert),
                false => self.out.push_str(&format!("{label} ({inert})")),
            }
        }
    }

    /// A definition is an image's if one refers to it.
    fn definition(&mut self, target: &Target, open: Option<(usize, usize)>, end: usize) {
        let (start, from) = open.unwrap_or((self.at, self.out.len()));
        let name = self.out.get(from + 1..).unwrap_or_default().to_owned();
        if self.is_image(&name) {
            self.found(Kind::IMAGE, start..end);
        } else {
            self.found_link(target, start..end);
        }
        self.out.truncate(from);
        self.out.push_str(&format!("{name}: {}", target.inert()));
    }

    fn is_image(&mut self, name: &str) -> bool {
        let text = self.text;
        let images = self.images.get_or_insert_with(|| image_names(text));
        images.contains(&reference(name))
    }

    /// The address that begins here if it leads to where it must not, and the length of it with what
    /// ends it.
    fn bad_address(&self, inside: &str, definition: bool) -> Option<(Target, usize)> {
        let blanks = inside.len() - inside.trim_start().len();
        let address = &inside[blanks..];
        for (raw, length) in addresses(address, definition).into_iter().flatten() {
            if let Some(target) = target(&raw).filter(|target| self.is_bad(target)) {
                return Some((target, blanks + length));
            }
        }
        None
    }

    /// A tag, or an address in angle brackets.
    fn angle(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let inside = &rest[1..];
        let end = inside.find(['>', '<', ' ', '\n']).unwrap_or(inside.len());
        let closed = inside[end..].starts_with('>');
        let address = &inside[..end];
        if closed && let Some(target) = self.automatic(address) {
            let place = self.at..self.at + end + 2;
            self.found_link(&target, place.clone());
            self.out.push_str(&target.inert());
            self.at = place.end;
            return true;
        }
        let Some(tag) = tag(self.text, self.at) else {
            return false;
        };
        let bad: Vec<_> = tag
            .targets
            .iter()
            .filter(|(_, target)| self.is_bad(target))
            .collect();
        let Some((_, first)) = bad.first() else {
            return false;
        };
        let loaded = bad.iter().any(|(how, _)| *how == Use::Loaded);
        let sends = matches!(tag.name.as_str(), "form" | "button" | "input");
        if loaded {
            self.found(Kind::IMAGE, tag.place.clone());
        } else if sends || bad.iter().any(|(_, target)| target.carries_data()) {
            self.found(Kind::LINK, tag.place.clone());
        }
        let inert = match loaded {
            true => image(&tag.alt, first),
            false => first.inert(),
        };
        self.out.push_str(&inert);
        self.at = tag.place.end;
        true
    }

    /// `<https://...>` and `<name@host>`.
    fn automatic(&self, address: &str) -> Option<Target> {
        let is_mail = address.contains('@') && !address.contains([':', '/', '"', '\'', '=']);
        let found = if is_mail {
            target(&format!("mailto:{address}"))
        } else if address.contains(':') {
            target(address)
        } else {
            None
        };
        found.filter(|target| self.is_bad(target))
    }

    /// `url(...)` and `@import` of a style sheet.
    fn css(&mut self, rest: &str) -> bool {
        let opening = ["url(", "@import"].into_iter().find(|opening| {
            rest.get(..opening.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(opening))
        });
        let Some(opening) = opening else {
            return false;
        };
        let end = rest[..floor(rest, LONGEST)]
            .find([')', ';', '\n'])
            .unwrap_or(opening.len());
        let found = css(&rest[..end.max(opening.len())])
            .first()
            .and_then(|raw| target(raw));
        let Some(target) = found.filter(|target| self.is_bad(target)) else {
            return false;
        };
        self.found(Kind::IMAGE, self.at..self.at + end);
        self.out.push_str(&format!(
            "{} {}",
            opening.trim_end_matches('('),
            target.inert()
        ));
        self.at += end + usize::from(rest[end..].starts_with(')'));
        true
    }

    /// An address that stands there as text: `scheme://host...`, `www.host...`.
    fn bare(&mut self, rest: &str) -> bool {
        let scheme = rest
            .bytes()
            .take(24)
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
            .count();
        let behind = &rest[scheme..];
        let slashes = [
            "://",
            ":\\/\\/",
            ":\\\\",
            ":/\\",
            ":\\/",
            "%3A%2F%2F",
            "%3a%2f%2f",
            "&colon;//",
            "&#58;//",
            "&#x3a;//",
        ];
        let slash = slashes.into_iter().find(|slash| behind.starts_with(slash));
        let word = &rest[..scheme];
        if is_unslashed(word) && behind.starts_with(':') {
            return self.unslashed(rest, scheme);
        }
        let is_www = word.to_ascii_lowercase().starts_with("www.");
        let start = match slash {
            Some(slash) if scheme > 0 => scheme + slash.len(),
            _ if is_www => 0,
            _ => return false,
        };
        if word.to_ascii_lowercase().starts_with("hxxp")
            || !is_www && !word.starts_with(|c: char| c.is_ascii_alphabetic())
        {
            return false;
        }
        let length = start + address_length(&rest[start..]);
        let raw = &rest[..length];
        let plain = format!(
            "{}//{}",
            if is_www {
                "https:".to_owned()
            } else {
                format!("{word}:")
            },
            &rest[start..length]
        );
        let Some(target) = target(&plain).or_else(|| target(raw)) else {
            return false;
        };
        if !self.is_bad(&target) {
            // All of it, so that nothing within is taken for another.
            self.out.push_str(raw);
            self.at += length;
            return true;
        }
        self.found_link(&target, self.at..self.at + length);
        let authority = authority_length(&rest[start..length]);
        if !is_www {
            self.out.push_str(&inert_scheme(word));
            self.out.push_str("//");
        }
        self.out.push_str(&broken(&rest[start..start + authority]));
        self.at += start + authority;
        true
    }

    /// `mailto:name@host`, `javascript:...`, as some readers take them out of a text.
    fn unslashed(&mut self, rest: &str, scheme: usize) -> bool {
        let length = address_length(rest);
        if length <= scheme + 1 {
            return false;
        }
        let Some(target) = target(&rest[..length]).filter(|target| self.is_bad(target)) else {
            return false;
        };
        self.found_link(&target, self.at..self.at + length);
        self.out.push_str(&target.inert());
        self.at += length;
        true
    }

    /// `host.tld/path` without a scheme, of which many clients make a link.
    fn domain(&mut self, rest: &str) -> bool {
        let before = self.text[..self.at].chars().next_back();
        let follows = before
            .is_some_and(|c| matches!(c, '/' | '.' | '\\' | '-' | '_' | '@' | ':' | '%' | ']'));
        let length = rest
            .bytes()
            .take(254)
            .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
            .count();
        let name = &rest[..length];
        let end = name.rsplit('.').next().unwrap_or_default();
        let is_host = name.contains('.')
            && is_top_level(end)
            && !name.contains("..")
            && rest[length..].starts_with(['/', '?', '#']);
        if follows || !is_host || (self.allowed)(&host(&name.to_ascii_lowercase())) {
            return false;
        }
        let whole = address_length(rest);
        if let Some(target) = target(&format!("//{}", &rest[..whole])) {
            self.found_link(&target, self.at..self.at + whole);
        }
        self.out.push_str(&broken(name));
        self.at += length;
        true
    }
}

/// A name as it is compared: without its case, and with single blanks (CommonMark, section 4.7).
fn reference(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

/// The names in `![name]` and in `![text][name]`, in lower case.
fn image_names(text: &str) -> HashSet<String> {
    let mut names = HashSet::new();
    for (at, _) in text.match_indices("![") {
        let inside = &text[at + 2..];
        let inside = &inside[..floor(inside, LONGEST)];
        let mut parts = inside.split(']');
        names.extend(parts.next().map(reference));
        // The text may have brackets of its own; whatever follows one may be the name.
        let referred = parts.take(8).filter_map(|part| part.strip_prefix('['));
        names.extend(referred.map(reference));
    }
    names
}

/// Two ways to read where an address ends: as Markdown does, and up to the bracket whatever is in it.
fn addresses(text: &str, definition: bool) -> [Option<(String, usize)>; 2] {
    let bounded = &text[..floor(text, LONGEST)];
    let markdown = match bounded.strip_prefix('<') {
        Some(inside) => inside
            .find(['>', '\n'])
            .map(|end| (unescaped(&inside[..end]), end + 2)),
        None => {
            let end = balanced(bounded);
            Some((unescaped(&bounded[..end]), end))
        }
    };
    let close = if definition {
        bounded.find('\n')
    } else {
        bounded.find(')')
    };
    let markdown = markdown.map(|(raw, end)| {
        let rest = &bounded[end.min(bounded.len())..];
        // A title and what closes it belong to it.
        let title = if definition { 0 } else { title_length(rest) };
        (raw, end + title)
    });
    let lenient = close.map(|end| {
        let raw = bounded[..end].trim_start_matches('<').to_owned();
        (raw, end + usize::from(!definition))
    });
    [markdown, lenient]
}

/// Up to a blank or the bracket that closes the address.
fn balanced(text: &str) -> usize {
    let mut depth = 0;
    let mut escaped = false;
    for (at, sign) in text.char_indices() {
        match sign {
            _ if escaped => {}
            '(' => depth += 1,
            ')' if depth == 0 => return at,
            ')' => depth -= 1,
            sign if sign.is_whitespace() => return at,
            _ => {}
        }
        escaped = sign == '\\' && !escaped;
    }
    text.len()
}

fn title_length(rest: &str) -> usize {
    let blanks = rest.len() - rest.trim_start().len();
    let inside = &rest[blanks..];
    match inside.chars().next() {
        Some(')') => blanks + 1,
        Some(quote @ ('"' | '\'' | '(')) => {
            let close = if quote == '(' { ')' } else { quote };
            let end = inside[1..].find(close).map(|end| end + 2);
            let after = end.map(|end| &inside[end..]);
            match (end, after.map(str::trim_start)) {
                (Some(end), Some(after)) if after.starts_with(')') => {
                    let gap = inside[end..].len() - after.len();
                    blanks + end + gap + 1
                }
                _ => inside.find(')').map_or(0, |end| blanks + end + 1),
            }
        }
        _ => inside
            .find(')')
            .filter(|end| *end < 200)
            .map_or(0, |end| blanks + end + 1),
    }
}

/// Markdown's escapes read (CommonMark, section 2.4).
fn unescaped(text: &str) -> String {
    let mut read = String::new();
    let mut signs = text.chars().peekable();
    while let Some(sign) = signs.next() {
        match signs.peek() {
            Some(next) if sign == '\\' && next.is_ascii_punctuation() => {}
            _ => read.push(sign),
        }
    }
    read
}

fn image(alt: &str, target: &Target) -> String {
    let alt: String = alt
        .chars()
        .map(|sign| {
            if matches!(sign, '[' | ']' | '<' | '>' | '!' | '\n' | '\r') {
                ' '
            } else {
                sign
            }
        })
        .collect();
    let host = match target.leads {
        Leads::Code => "a script".to_owned(),
        Leads::Out => target
            .host
            .chars()
            .filter(|c| !matches!(c, '[' | ']' | '<' | '>' | '(' | ')'))
            .collect::<String>()
            .replace('.', "[.]"),
    };
    match alt.trim() {
        "" => format!("[image: from {host}]"),
        alt => format!("[image: {alt}, from {host}]"),
    }
}

/// The dots of a host, whatever they are written as, in brackets.
fn broken(host: &str) -> String {
    host.replace("%2e", ".")
        .replace("%2E", ".")
        .replace(['。', '．', '｡'], ".")
        .replace('.', "[.]")
        .replace('@', "[@]")
}

fn address_length(text: &str) -> usize {
    let ends = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '<' | '>' | '"' | '`' | '\'' | '|' | '[' | ']')
    };
    let bounded = &text[..floor(text, LONGEST)];
    let length = bounded.find(ends).unwrap_or(bounded.len());
    let mut end = balanced(&bounded[..length]);
    while bounded[..end].ends_with(['.', ',', ';', '!', '?', '*', '_', ':']) {
        end -= 1;
    }
    end
}

fn authority_length(text: &str) -> usize {
    text.find(['/', '?', '#', '\\']).unwrap_or(text.len())
}

fn floor(text: &str, most: usize) -> usize {
    text.floor_char_boundary(most.min(text.len()))
}

/// Schemes whose addresses have no slashes.
fn is_unslashed(scheme: &str) -> bool {
    [
        "mailto",
        "sms",
        "tel",
        "xmpp",
        "sip",
        "javascript",
        "vbscript",
        "data",
    ]
    .iter()
    .any(|one| scheme.eq_ignore_ascii_case(one))
}

/// What can end a host's name and seldom ends a file's.
fn is_top_level(end: &str) -> bool {
    const FILES: [&str; 48] = [
        "rs", "py", "sh", "md", "js", "ts", "jsx", "tsx", "c", "h", "cc", "cpp", "hpp", "go", "rb",
        "pl", "pm", "ps", "java", "kt", "cs", "php", "html", "htm", "css", "txt", "toml", "yaml",
        "yml", "json", "xml", "csv", "log", "lock", "conf", "cfg", "ini", "zip", "gz", "tar",
        "png", "jpg", "svg", "pdf", "so", "d", "git", "local",
    ];
    let lower = end.to_ascii_lowercase();
    (2..=24).contains(&end.len())
        && end.bytes().all(|b| b.is_ascii_alphabetic())
        && !FILES.contains(&lower.as_str())
}
