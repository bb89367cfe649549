//! Texts and their entities, as the server checks them.

use super::Entity;

/// The longest text of a message, in UTF-16 code units.
const MAX_TEXT: usize = 4096;

/// More entities than this are dropped without a word.
const MAX_ENTITIES: usize = 100;

const KINDS: [&str; 18] = [
    "mention",
    "hashtag",
    "cashtag",
    "bot_command",
    "url",
    "email",
    "phone_number",
    "bold",
    "italic",
    "underline",
    "strikethrough",
    "spoiler",
    "blockquote",
    "expandable_blockquote",
    "code",
    "pre",
    "text_link",
    "text_mention",
];

/// What stands in the chat for a text with entities; the error is the API's description.
pub(super) fn accept(text: &str, entities: Vec<Entity>) -> Result<(String, Vec<Entity>), String> {
    check_entities(text, &entities)?;
    let (text, mut entities) = trim(text, entities);
    if text.is_empty() {
        return Err("Bad Request: message text is empty".to_owned());
    }
    if utf16(&text) > MAX_TEXT {
        return Err("Bad Request: message is too long".to_owned());
    }
    // Sorted as the server does; what it finds itself comes after what was given.
    entities.truncate(MAX_ENTITIES);
    let found = links(&text).filter(|link| !entities.iter().any(|entity| shields(entity, link)));
    let found: Vec<Entity> = found.collect();
    entities.extend(found);
    entities.truncate(MAX_ENTITIES);
    entities.sort_by_key(|entity| (entity.offset, std::cmp::Reverse(entity.length)));
    Ok((text, entities))
}

/// The length of a text as the API counts it.
pub(super) fn utf16(text: &str) -> usize {
    text.encode_utf16().count()
}

fn check_entities(text: &str, entities: &[Entity]) -> Result<(), String> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let low = |at: usize| {
        units
            .get(at)
            .is_some_and(|unit| (0xDC00..0xE000).contains(unit))
    };
    for Entity {
        kind,
        offset,
        length,
        ..
    } in entities
    {
        if !KINDS.contains(&kind.as_str()) {
            return Err(format!(
                "Bad Request: can't parse entities: unsupported type {kind}"
            ));
        }
        let end = offset.saturating_add(*length);
        if end > units.len() {
            return Err(format!(
                "Bad Request: entity beginning at UTF-16 offset {offset} ends after the end of the text at UTF-16 offset {end}"
            ));
        }
        if low(*offset) || low(end) {
            return Err(format!(
                "Bad Request: entity beginning at UTF-16 offset {offset} begins or ends in a middle of a UTF-16 symbol"
            ));
        }
    }
    Ok(())
}

/// Cuts white space at the end, and at the beginning as far as no entity covers it.
fn trim(text: &str, entities: Vec<Entity>) -> (String, Vec<Entity>) {
    let text = text.trim_end();
    let first = entities
        .iter()
        .map(|entity| entity.offset)
        .min()
        .unwrap_or(usize::MAX);
    let mut cut = 0;
    let mut units = 0;
    for c in text.chars().take_while(|c| c.is_whitespace()) {
        if units >= first {
            break;
        }
        cut += c.len_utf8();
        units += c.len_utf16();
    }
    let end = utf16(text);
    let kept = entities.into_iter().filter_map(|mut entity| {
        entity.length = entity.length.min(end.saturating_sub(entity.offset));
        entity.offset = entity.offset.saturating_sub(units);
        (entity.length > 0).then_some(entity)
    });
    let kept = kept.collect();
    (text[cut..].to_owned(), kept)
}

/// Words that look like addresses: apps make links of them.
fn links(text: &str) -> impl Iterator<Item = Entity> {
    let mut offset = 0;
    text.split_inclusive(char::is_whitespace)
        .filter_map(move |piece| {
            let begin = offset;
            offset += utf16(piece);
            let word = piece.trim();
            let host = word.split_once("://").map_or(word, |(_, rest)| rest);
            let host = host.split(['/', '?', '#', ':']).next().unwrap_or_default();
            let top = host
                .trim_end_matches(|c: char| !c.is_alphanumeric())
                .rsplit_once('.');
            let named = top.is_some_and(|(name, top)| {
                !name.is_empty() && top.chars().count() >= 2 && top.chars().all(char::is_alphabetic)
            });
            (named || word.contains("://")).then(|| Entity {
                kind: "url".to_owned(),
                offset: begin,
                length: utf16(word),
                url: None,
                language: None,
            })
        })
}

/// Whether no link is made where this entity is.
fn shields(entity: &Entity, link: &Entity) -> bool {
    matches!(entity.kind.as_str(), "code" | "pre" | "text_link")
        && entity.offset < link.offset + link.length
        && link.offset < entity.offset + entity.length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(kind: &str, offset: usize, length: usize) -> Entity {
        Entity {
            kind: kind.to_owned(),
            offset,
            length,
            url: None,
            language: None,
        }
    }

    #[test]
    fn lengths_and_offsets_are_counted_in_utf16() {
        assert!(accept(&"😀".repeat(2048), vec![]).is_ok());
        assert!(accept(&"😀".repeat(2049), vec![]).is_err());
        assert!(accept("😀a", vec![entity("bold", 2, 1)]).is_ok());
        assert!(accept("😀a", vec![entity("bold", 1, 1)]).is_err());
        assert!(accept("😀a", vec![entity("bold", 2, 2)]).is_err());
        assert!(accept("a", vec![entity("script", 0, 1)]).is_err());
        assert!(accept(" \n", vec![]).is_err());
    }

    #[test]
    fn white_space_at_the_rim_goes_and_entities_move_with_the_text() {
        let (text, entities) = accept("  ab \n", vec![entity("bold", 2, 4)]).unwrap();
        assert_eq!(
            (text.as_str(), entities),
            ("ab", vec![entity("bold", 0, 2)])
        );
    }

    #[test]
    fn addresses_become_links_unless_they_are_code() {
        let kinds = |text: &str, given| {
            let (_, entities) = accept(text, given).unwrap();
            entities
                .into_iter()
                .map(|entity| entity.kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds("see https://a.example/x now", vec![]), ["url"]);
        assert_eq!(kinds("see evil.com.", vec![]), ["url"]);
        assert_eq!(kinds("see evil.com", vec![entity("code", 4, 8)]), ["code"]);
        assert_eq!(
            kinds("version 1.25 is out. Good", vec![]),
            Vec::<String>::new()
        );
    }
}
