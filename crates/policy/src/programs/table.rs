//! The table of programs, read from `programs.txt`.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The table itself.
pub(super) const SOURCE: &str = include_str!("programs.txt");

/// What is known of a program.
#[derive(Debug)]
pub(super) enum Class {
    /// Only reads, with listed options.
    Inspect(Grammar),
    /// Ordinary with listed options only.
    Guarded(Grammar),
    /// Ordinary with a script file only.
    Interpreter,
    /// Asked about every time.
    Always {
        /// Why, as what it does.
        because: &'static str,
    },
}

/// How the arguments of a program are read.
#[derive(Debug)]
pub(super) struct Grammar {
    pub(super) operands: Operands,
    /// By name with its dashes; an option of one letter by its letter.
    pub(super) options: HashMap<&'static str, Takes>,
    /// Options that execute, write or fetch.
    pub(super) dangers: Vec<&'static str>,
    pub(super) habits: Vec<Habit>,
}

/// How a program reads its arguments otherwise than most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// Options have one dash and a whole word.
    Words,
    /// `-5` is an option.
    Numbers,
    /// Its standard input means nothing to it.
    Deaf,
    /// Every word behind the first operand is an operand.
    Ordered,
    /// What an option of one letter takes is always the next word.
    Apart,
    /// It tells of the machine or waits: nothing for a list of commands.
    Alone,
    /// No option of it executes or writes, whichever it is.
    Handed,
}

impl Grammar {
    /// Whether the program reads them so.
    pub(super) fn has(&self, habit: Habit) -> bool {
        self.habits.contains(&habit)
    }
}

/// What the words are that are no options.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operands {
    Paths { most: usize },
    Text,
    Pattern,
    Sed,
    Awk,
    Jq,
    Plus,
    Names,
    Sub(Vec<&'static str>),
    Targets,
    Sources,
    Bundle,
}

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Nothing,
    Text,
    Path,
    Pattern,
    PatternFile,
    Attached,
    /// Nothing, and the first operand is no pattern.
    NoPattern,
}

/// What the table says of a name, exactly as it is written there.
pub(super) fn find(name: &str) -> Option<&'static Class> {
    // A test reads the table: it is a part of the program.
    static TABLE: LazyLock<HashMap<&str, Class>> =
        LazyLock::new(|| read(SOURCE).expect("the table of programs is in order"));
    TABLE.get(name)
}

fn read(source: &'static str) -> Result<HashMap<&'static str, Class>, String> {
    let mut table = HashMap::new();
    let mut because = None;
    for entry in entries(source) {
        let mut words = entry.iter().copied();
        let (kind, names) = (words.next(), words.next().unwrap_or_default());
        let wrong = |what: &str| format!("{what}: {}", entry.join(" "));
        if kind == Some("because") {
            // The line stands alone, so the reason is one piece of the table.
            because = source.lines().find_map(|line| {
                let reason = line.strip_prefix("because ")?;
                reason
                    .split_whitespace()
                    .eq(entry[1..].iter().copied())
                    .then_some(reason)
            });
            continue;
        }
        let options: Vec<_> = words.collect();
        for name in names.split(',') {
            let class = match kind {
                Some("inspect") => Class::Inspect(grammar(&options).map_err(|e| wrong(&e))?),
                Some("guarded") => Class::Guarded(grammar(&options).map_err(|e| wrong(&e))?),
                Some("interpreter") if options.is_empty() => Class::Interpreter,
                Some("always") if options.is_empty() => Class::Always {
                    because: because.ok_or_else(|| wrong("no reason above"))?,
                },
                _ => return Err(wrong("not a line of the table")),
            };
            if name.is_empty() || table.insert(name, class).is_some() {
                return Err(wrong(&format!("{name:?} is empty or there twice")));
            }
        }
    }
    Ok(table)
}

/// The words of each entry, without comments, with the lines that go on.
fn entries(source: &'static str) -> Vec<Vec<&'static str>> {
    let mut entries: Vec<Vec<&str>> = Vec::new();
    for line in source
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let words = line.split_whitespace();
        match entries.last_mut() {
            Some(entry) if line.starts_with(' ') => entry.extend(words),
            _ => entries.push(words.collect()),
        }
    }
    entries
}

fn grammar(words: &[&'static str]) -> Result<Grammar, String> {
    let (first, mut rest) = words.split_first().ok_or("no operands")?;
    let operands = match *first {
        "paths" => Operands::Paths { most: usize::MAX },
        "none" => Operands::Paths { most: 0 },
        "paths<=1" => Operands::Paths { most: 1 },
        "text" => Operands::Text,
        "pattern" => Operands::Pattern,
        "sed" => Operands::Sed,
        "awk" => Operands::Awk,
        "jq" => Operands::Jq,
        "plus" => Operands::Plus,
        "names" => Operands::Names,
        "targets" => Operands::Targets,
        "sources" => Operands::Sources,
        "bundle" => Operands::Bundle,
        other => match other.strip_prefix("sub:") {
            Some(names) => Operands::Sub(names.split(',').collect()),
            None => return Err(format!("no such operands: {other}")),
        },
    };
    let mut habits = Vec::new();
    for (name, habit) in [
        ("alone", Habit::Alone),
        ("handed", Habit::Handed),
        ("deaf", Habit::Deaf),
        ("words", Habit::Words),
        ("ordered", Habit::Ordered),
        ("apart", Habit::Apart),
    ] {
        if rest.first() == Some(&name) {
            rest = &rest[1..];
            habits.push(habit);
        }
    }
    let mut grammar = Grammar {
        operands,
        options: HashMap::new(),
        dangers: Vec::new(),
        habits,
    };
    rest.iter()
        .try_for_each(|word| option(&mut grammar, word))?;
    Ok(grammar)
}

fn option(grammar: &mut Grammar, word: &'static str) -> Result<(), String> {
    if word == "-NUM" {
        grammar.habits.push(Habit::Numbers);
        return Ok(());
    }
    if let Some(danger) = word.strip_prefix('!') {
        grammar.dangers.push(danger);
        return Ok(());
    }
    let (name, takes) = match word.char_indices().last() {
        Some((end, ':')) => (&word[..end], Takes::Text),
        Some((end, '@')) => (&word[..end], Takes::Path),
        Some((end, '%')) => (&word[..end], Takes::Pattern),
        Some((end, '&')) => (&word[..end], Takes::PatternFile),
        Some((end, '?')) => (&word[..end], Takes::Attached),
        Some((end, '=')) => (&word[..end], Takes::NoPattern),
        _ => (word, Takes::Nothing),
    };
    let letters = name
        .strip_prefix('-')
        .filter(|name| !name.is_empty() && name.is_ascii());
    let letters = letters.ok_or_else(|| format!("not an option: {word}"))?;
    if grammar.has(Habit::Words) || letters.starts_with('-') {
        grammar.options.insert(name, takes);
        return Ok(());
    }
    if letters.len() == 1 {
        grammar.options.insert(letters, takes);
        return Ok(());
    }
    match takes {
        Takes::Nothing => {
            for at in 0..letters.len() {
                grammar.options.insert(&letters[at..=at], Takes::Nothing);
            }
            Ok(())
        }
        _ => Err(format!("letters in one word take nothing: {word}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        let table = read(SOURCE).unwrap();
        assert!(table.len() > 500, "{}", table.len());
        for (name, class) in table {
            if let Class::Inspect(grammar) | Class::Guarded(grammar) = class {
                for danger in &grammar.dangers {
                    let known = grammar
                        .options
                        .contains_key(danger.strip_prefix('-').unwrap_or(danger));
                    assert!(
                        !known && !grammar.options.contains_key(danger),
                        "{name} {danger} is both"
                    );
                }
            }
        }
    }
}
