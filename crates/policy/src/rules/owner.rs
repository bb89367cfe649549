//! What the owner adds: easy things as policies of their own, and Cedar files.

use cedar_policy::{Policy, PolicyId, PolicySet};
use protocol::call::WorkspacePath;
use protocol::rules::{AllowedCommand, MAX_RULE_FILE, MAX_RULE_FILES, OwnerRules, Rest, RuleFile};

use super::facts::command;
use super::{BadRules, bad};

/// How deep brackets may nest. Cedar's parser ends the program on some hundred.
const MAX_DEPTH: usize = 40;

/// The longest policy, in bytes: what is chained in it is compared by recursion.
const MAX_POLICY: usize = 8 * 1024;

/// Where the easy things stand.
const CONFIG: &str = "bulkhead.toml";

/// Refuses what the parser could not survive, before it sees it.
pub(super) fn check_size(files: &[RuleFile]) -> Result<(), BadRules> {
    if files.len() > MAX_RULE_FILES {
        return Err(bad(
            "rules",
            format!("there are more than {MAX_RULE_FILES} files"),
        ));
    }
    for RuleFile { name, text } in files {
        if text.len() > MAX_RULE_FILE {
            return Err(bad(name, format!("it has more than {MAX_RULE_FILE} bytes")));
        }
        if let Some(at) = too_deep(text) {
            let problem =
                format!("brackets nest more than {MAX_DEPTH} deep; say it in several rules");
            return Err(bad(placed(name, text, at), problem));
        }
        if let Some(at) = too_long(text) {
            let problem = format!("a rule has more than {MAX_POLICY} bytes; say it in several");
            return Err(bad(placed(name, text, at), problem));
        }
    }
    Ok(())
}

/// Where brackets nest too deep.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    plain(text).find_map(|(at, byte)| {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth > MAX_DEPTH).then_some(at)
    })
}

/// Where a policy begins that is too long.
fn too_long(text: &str) -> Option<usize> {
    let (mut begin, mut length) = (0, 0);
    plain(text).find_map(|(at, byte)| {
        match byte {
            b';' => (begin, length) = (at + 1, 0),
            byte if byte.is_ascii_whitespace() => {}
            _ => length += 1,
        }
        (length > MAX_POLICY).then_some(begin)
    })
}

/// The bytes that are in no text and no comment. A text counts by its quotes only.
fn plain(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let mut bytes = text.bytes().enumerate().peekable();
    std::iter::from_fn(move || {
        loop {
            let (at, byte) = bytes.next()?;
            match byte {
                b'"' => {
                    while let Some((_, inner)) = bytes.next() {
                        match inner {
                            b'\\' => drop(bytes.next()),
                            b'"' => break,
                            _ => {}
                        }
                    }
                    return Some((at, byte));
                }
                b'/' if bytes.next_if(|(_, next)| *next == b'/').is_some() => {
                    bytes.by_ref().find(|(_, inner)| *inner == b'\n');
                }
                _ => return Some((at, byte)),
            }
        }
    })
}

/// `file:line:column`, counted from one.
fn placed(name: &str, text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("{name}:{line}:{column}")
}

/// Adds the policies of a file. The name of each is its `@id`, after the name of the file.
pub(super) fn add_file(all: &mut PolicySet, name: &str, text: &str) -> Result<(), BadRules> {
    let parsed: PolicySet = text.parse().map_err(|error| {
        let error: cedar_policy::ParseErrors = error;
        let first = error.iter().next();
        let at = first
            .and_then(|error| miette_offset(error))
            .map_or_else(|| name.to_owned(), |at| placed(name, text, at));
        let problem = first.map_or_else(|| error.to_string(), ToString::to_string);
        bad(at, problem)
    })?;
    if parsed.templates().next().is_some() {
        return Err(bad(
            name,
            "a rule has a slot (?principal, ?resource), which nothing fills in",
        ));
    }
    for policy in parsed.policies() {
        let own = policy
            .annotation("id")
            .unwrap_or_else(|| policy.id().as_ref());
        let id = match name {
            "" => own.to_owned(),
            name => format!("{name}: {own}"),
        };
        if policy.annotation("because").is_none() && !name.is_empty() {
            let place = id;
            return Err(bad(
                place,
                "it has no @because(\"...\"), which people are shown as the reason",
            ));
        }
        all.add(policy.new_id(PolicyId::new(&id)))
            .map_err(|_| bad(&id, "two rules have this @id; give each its own"))?;
    }
    Ok(())
}

/// The byte at which the parser stumbled.
fn miette_offset(error: &dyn miette::Diagnostic) -> Option<usize> {
    error.labels()?.next().map(|label| label.offset())
}

/// Adds what bulkhead.toml says.
pub(super) fn add_simple(all: &mut PolicySet, owner: &OwnerRules) -> Result<(), BadRules> {
    let allowed = (owner.allow.iter()).map(|allow| ("policy.allow", allowing(allow)));
    let kept = (owner.read_only.iter()).map(|path| ("policy.read_only", read_only(path)));
    for (number, (key, text)) in allowed.chain(kept).enumerate() {
        let id = format!("{CONFIG}: {key} {}", number + 1);
        let policy =
            Policy::parse(Some(PolicyId::new(&id)), &text).map_err(|error| bad(&id, error))?;
        all.add(policy).map_err(|error| bad(&id, error))?;
    }
    Ok(())
}

/// Only what would be asked about once: what is asked about every time no rule can allow.
fn allowing(allow: &AllowedCommand) -> String {
    let words = command(&allow.words);
    let open = words.strip_suffix(']').unwrap_or(&words);
    let which = match allow.rest {
        Rest::Nothing => format!("resource.command == {words:?}"),
        Rest::Anything => format!(
            "(resource.command == {words:?} || resource.command like \"{}*\")",
            pattern(&format!("{open},"))
        ),
    };
    format!(
        "@because({:?}) permit (principal, action in Action::\"once\", resource) \
         when {{ resource has command && {which} }};",
        format!("{CONFIG} allows {}", allow.words.join(" "))
    )
}

fn read_only(path: &WorkspacePath) -> String {
    let (path, shown) = (path.as_str(), path.to_string());
    format!(
        "@because({:?}) forbid (principal, action, resource) \
         when {{ resource.changes && resource has path && \
         (resource.path == {path:?} || resource.path like \"{}/*\") }};",
        format!("{CONFIG} keeps {shown} read-only"),
        pattern(path)
    )
}

/// A text within a pattern for `like`, without quotes.
fn pattern(text: &str) -> String {
    let quoted = format!("{text:?}");
    quoted[1..quoted.len() - 1].replace('*', "\\*")
}
