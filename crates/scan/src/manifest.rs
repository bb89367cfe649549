//! Secrets of Kubernetes: documents in YAML or JSON whose `kind` says that their data is secret, in
//! base 64 and under names of the owner's choice.

use std::ops::Range;

use crate::alphabet::BASE64;
use crate::context::skip;
use crate::finding::Kind;
use crate::hit::{Hit, Rank};
use crate::structured::{base64, position};

const KUBERNETES: Kind = Kind("kubernetes_secret");

/// So far from its kind the data is looked for, in bytes.
const NEAR: usize = 4_000;

/// Signs of the shortest value in base 64.
const SHORTEST: usize = 12;

/// Reads a `kind` at this place; what is found is all of the data.
pub(crate) fn manifest(bytes: &[u8], start: usize, end: usize) -> Option<Hit> {
    let rest = &bytes[end..bytes.len().min(end + 40)];
    let quotes = skip(rest, b"\"'\\", 2);
    let colon = quotes + skip(&rest[quotes..], b": \t", 4);
    let said = colon + skip(&rest[colon..], b"\"'\\", 2);
    let kind = rest.get(said..said + 6)?;
    let whole = !rest.get(said + 6).is_some_and(u8::is_ascii_alphanumeric);
    if !rest[quotes..colon].contains(&b':') || !kind.eq_ignore_ascii_case(b"secret") || !whole {
        return None;
    }
    let document = document(bytes, start);
    let text = &bytes[document.clone()];
    let data = data(text)?;
    let mut values = values(text, data);
    let first = values.next()?;
    let last = values.last().unwrap_or_else(|| first.clone());
    let place = document.start + first.start..document.start + last.end;
    Some(Hit::new(KUBERNETES, place, Rank::Format))
}

/// What stands around it up to a line of three dashes.
fn document(bytes: &[u8], at: usize) -> Range<usize> {
    let from = at.saturating_sub(NEAR);
    let before = &bytes[from..at];
    let start = (0..before.len()).rfind(|at| before[*at..].starts_with(b"\n---"));
    let rest = &bytes[at..bytes.len().min(at + NEAR)];
    let end = position(rest, "\n---").unwrap_or(rest.len());
    start.map_or(from, |start| from + start + 4)..at + end
}

/// The inside of `data:`: in JSON up to the bracket, in YAML the lines that are further in.
fn data(text: &[u8]) -> Option<Range<usize>> {
    let names = crate::structured::places(text, "data");
    names
        .filter(|at| *at == 0 || matches!(text[at - 1], b'\n' | b' ' | b'\t' | b'"' | b'\'' | b'{'))
        .find_map(|at| {
            let closed = at + 4 + skip(&text[at + 4..], b"\"'", 1);
            (text.get(closed) == Some(&b':')).then_some(())?;
            let inside = closed + 1 + skip(&text[closed + 1..], b" \t", 4);
            if text.get(inside) == Some(&b'{') {
                let end = position(&text[inside..], "}")?;
                return Some(inside..inside + end);
            }
            let line = text[..at]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |at| at + 1);
            let depth = indent(&text[line..]);
            let mut end = inside;
            for line in text[inside..].split_inclusive(|b| *b == b'\n').skip(1) {
                if indent(line) <= depth && !line.trim_ascii().is_empty() {
                    break;
                }
                end += line.len();
            }
            let first = text[inside..].split_inclusive(|b| *b == b'\n').next()?;
            Some(inside..end + first.len())
        })
}

fn indent(line: &[u8]) -> usize {
    line.iter()
        .take_while(|b| matches!(b, b' ' | b'\t'))
        .count()
}

/// Values in base 64: what is no name before a colon and can be decoded.
fn values(text: &[u8], inside: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = inside.start;
    std::iter::from_fn(move || {
        while at < inside.end {
            let length = text[at..inside.end]
                .iter()
                .take_while(|b| BASE64.has(**b))
                .count();
            let padding = skip(&text[at + length..inside.end], b"=", 2);
            let place = at..at + length + padding;
            at = place.end + 1;
            let name = text.get(place.end) == Some(&b':');
            let whole = place.len().is_multiple_of(4) && place.len() >= SHORTEST;
            if whole && !name && base64(&text[place.clone()]).is_some() {
                return Some(place);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        crate::structured::places(text.as_bytes(), "kind")
            .filter_map(|at| manifest(text.as_bytes(), at, at + 4))
            .map(|hit| &text[hit.start..hit.end])
            .collect()
    }

    const VALUE: &str = "azhXcTItejcxMjM0NQ==";

    #[test]
    fn the_data_of_a_secret_is_found_before_and_after_its_kind() {
        for text in [
            format!(
                "apiVersion: v1\nkind: Secret\ndata:\n  extra: {VALUE}\nmetadata:\n  name: abcdefghijkl\n"
            ),
            format!(
                "data:\n  # in base 64\n  extra: '{VALUE}'\nkind: \"Secret\"\nmetadata:\n  name: n\n"
            ),
            format!("kind: secret\ndata:\n  .dockercfg: |\n    {VALUE}\n"),
            format!(
                "{{\"kind\": \"Secret\", \"data\": {{\"extra\": \"{VALUE}\"}}, \"type\": \"abcdefghijkl\"}}"
            ),
        ] {
            assert_eq!(found(&text), [VALUE], "{text}");
        }
        let two = format!("kind: Secret\ndata:\n  a: {VALUE}\n  b: {VALUE}\n");
        assert_eq!(found(&two), [format!("{VALUE}\n  b: {VALUE}")]);
    }

    #[test]
    fn other_kinds_and_other_documents_are_nothing() {
        for text in [
            format!("kind: ConfigMap\ndata:\n  extra: {VALUE}\n"),
            format!("kind: SecretStore\ndata:\n  extra: {VALUE}\n"),
            format!("kind: Secret\n---\nkind: ConfigMap\ndata:\n  extra: {VALUE}\n"),
            format!("kind: Secret\nmetadata:\n  name: {VALUE}\n"),
            "kind: Secret\ndata:\n  a: \"\"\n  b: {{ .Values.b }}\n".to_owned(),
            "a kind: secrets are kept".to_owned(),
        ] {
            assert_eq!(found(&text), Vec::<&str>::new(), "{text}");
        }
    }
}
