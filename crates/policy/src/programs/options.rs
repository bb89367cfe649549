//! Reading the arguments of a program by its grammar.

use super::table::{Grammar, Habit, Operands, Takes};

/// The words behind a program, and which of them are patterns for names of files.
#[derive(Debug)]
pub(super) struct Args<'a> {
    pub(super) words: &'a [String],
    pub(super) patterns: Vec<usize>,
}

impl<'a> Args<'a> {
    /// Words that are only words.
    pub(super) fn plain(words: &'a [String]) -> Self {
        Self {
            words,
            patterns: Vec::new(),
        }
    }

    /// The first pattern that stands elsewhere than among the paths that are read, where it may
    /// stand for any number of them.
    fn misplaced(&self, grammar: &Grammar, paths: &[&'a str]) -> Option<&'a str> {
        let many = match &grammar.operands {
            Operands::Text => return None,
            Operands::Paths { most } => *most == usize::MAX && !grammar.has(Habit::Words),
            Operands::Pattern | Operands::Sed | Operands::Awk | Operands::Jq => true,
            Operands::Plus
            | Operands::Names
            | Operands::Sub(_)
            | Operands::Targets
            | Operands::Sources
            | Operands::Bundle => false,
        };
        let is_path = |word: &str| paths.iter().any(|path| std::ptr::eq(*path, word));
        self.patterns().find(|word| !many || !is_path(word))
    }

    /// The same text, not an equal one: an option may have an equal value.
    fn is_pattern(&self, word: &str) -> bool {
        self.patterns().any(|pattern| std::ptr::eq(pattern, word))
    }

    fn patterns(&self) -> impl Iterator<Item = &'a str> {
        let words = self.patterns.iter().filter_map(|at| self.words.get(*at));
        words.map(String::as_str)
    }
}

/// What the arguments are.
#[derive(Debug, Default)]
pub(super) struct Arguments<'a> {
    /// The paths that are read.
    pub(super) paths: Vec<&'a str>,
    /// The scripts of sed and awk.
    pub(super) scripts: Vec<&'a str>,
    /// What is not in the grammar, if anything is.
    pub(super) unknown: Option<&'a str>,
    /// What executes, writes or fetches, if anything does.
    pub(super) danger: Option<&'a str>,
    operands: Vec<&'a str>,
    has_pattern: bool,
}

/// Reads the arguments. An option without its value is let pass: the program does nothing
/// then, and with one more word it is judged by that word.
pub(super) fn read<'a>(grammar: &Grammar, args: &Args<'a>) -> Arguments<'a> {
    let mut found = Arguments::default();
    if grammar.operands == Operands::Text {
        // A text is only printed, but looking for names reads folders.
        found.paths.extend(args.patterns());
        return found;
    }
    found.danger = args
        .words
        .iter()
        .map(String::as_str)
        .find(|word| is_danger(grammar, word));
    let mut words = args.words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word.strip_prefix('-') {
            _ if grammar.has(Habit::Ordered) && !found.operands.is_empty() => {
                found.operands.push(word)
            }
            None if grammar.has(Habit::Words) && ["(", ")", "!", ","].contains(&word) => {}
            None | Some("") => found.operands.push(word),
            Some("-") if !grammar.has(Habit::Words) => {
                found.operands.extend(words.by_ref());
            }
            Some(digits)
                if grammar.has(Habit::Numbers) && digits.bytes().all(|b| b.is_ascii_digit()) => {}
            Some(_) if grammar.has(Habit::Words) => found.whole_word(grammar, word, &mut words),
            Some(long) if long.starts_with('-') => found.long(grammar, word, &mut words),
            Some(letters) => found.letters(grammar, word, letters, &mut words),
        }
    }
    let values = found.paths.len();
    let first = found.operands.first().copied();
    found.sort_operands(grammar);
    // The first of its names would be what is looked for, the others would be looked into.
    if grammar.operands == Operands::Pattern {
        found
            .paths
            .extend(first.filter(|word| args.is_pattern(word)));
    }
    let misplaced = args.misplaced(grammar, &found.paths[values..]);
    found.unknown = found.unknown.or(misplaced);
    found
}

impl<'a> Arguments<'a> {
    fn long(
        &mut self,
        grammar: &Grammar,
        word: &'a str,
        words: &mut impl Iterator<Item = &'a str>,
    ) {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        match grammar.options.get(name) {
            None => {
                // Shortened, it may be one that takes a script.
                if gives_script(grammar, |option| option.starts_with(name)) {
                    self.danger.get_or_insert(word);
                }
                self.unknown(word);
            }
            Some(Takes::Nothing | Takes::NoPattern) if attached.is_some() => self.unknown(word),
            Some(Takes::Attached) => {}
            Some(takes) => self.option(*takes, || attached.or_else(|| words.next())),
        }
    }

    fn letters(
        &mut self,
        grammar: &Grammar,
        word: &'a str,
        letters: &'a str,
        words: &mut impl Iterator<Item = &'a str>,
    ) {
        for (at, letter) in letters.char_indices() {
            let end = at + letter.len_utf8();
            match grammar.options.get(&letters[at..end]) {
                Some(takes @ (Takes::Nothing | Takes::NoPattern)) => self.option(*takes, || None),
                Some(Takes::Attached) => return,
                Some(_) if grammar.has(Habit::Apart) && end < letters.len() => {
                    return self.unknown_letters(grammar, word, &letters[end..]);
                }
                Some(takes) => {
                    let attached = Some(&letters[end..]).filter(|rest| !rest.is_empty());
                    return self.option(*takes, || attached.or_else(|| words.next()));
                }
                None => return self.unknown_letters(grammar, word, &letters[at..]),
            }
        }
    }

    /// What a letter that is not known does with those behind it is not known either.
    fn unknown_letters(&mut self, grammar: &Grammar, word: &'a str, letters: &str) {
        let danger = letters.chars().any(|letter| {
            let is_it = |option: &str| option.chars().eq([letter]);
            is_danger_letter(grammar, letter) || gives_script(grammar, is_it)
        });
        if danger {
            self.danger.get_or_insert(word);
        }
        self.unknown(word);
    }

    fn whole_word(
        &mut self,
        grammar: &Grammar,
        word: &'a str,
        words: &mut impl Iterator<Item = &'a str>,
    ) {
        if let Some(takes) = grammar.options.get(word) {
            return self.option(*takes, || words.next());
        }
        let with_value = matches!(grammar.operands, Operands::Sub(_) | Operands::Sources);
        if let Some((name, _)) = word.split_once('=')
            && let Some(Takes::Text) = grammar.options.get(name)
            && with_value
        {
            return;
        }
        let attached =
            |(name, takes): (&&str, &Takes)| *takes == Takes::Attached && word.starts_with(*name);
        if !grammar.options.iter().any(attached) {
            self.unknown(word);
        }
    }

    fn option(&mut self, takes: Takes, value: impl FnOnce() -> Option<&'a str>) {
        match takes {
            Takes::Nothing | Takes::Attached => {}
            Takes::NoPattern => self.has_pattern = true,
            Takes::Text => drop(value()),
            Takes::Path => self.paths.extend(value()),
            Takes::Pattern => {
                self.has_pattern = true;
                self.scripts.extend(value());
            }
            Takes::PatternFile => {
                self.has_pattern = true;
                self.paths.extend(value());
            }
        }
    }

    fn unknown(&mut self, word: &'a str) {
        self.unknown.get_or_insert(word);
    }

    fn sort_operands(&mut self, grammar: &Grammar) {
        let operands = std::mem::take(&mut self.operands);
        match &grammar.operands {
            Operands::Text | Operands::Names => {}
            Operands::Paths { most } => {
                if let Some(word) = operands.get(*most) {
                    self.unknown(word);
                }
                // Some programs read more arguments from a file @NAME, some take +NUMBER for an option.
                self.refuse(operands.iter().find(|word| word.starts_with(['@', '+'])));
                self.paths.extend(operands);
            }
            Operands::Pattern => self
                .paths
                .extend(operands.iter().skip(usize::from(!self.has_pattern))),
            Operands::Sed | Operands::Awk | Operands::Jq => {
                let scripts = usize::from(!self.has_pattern);
                self.scripts.extend(operands.iter().take(scripts));
                self.paths.extend(operands.iter().skip(scripts));
            }
            Operands::Plus => self.refuse(operands.iter().find(|word| !word.starts_with('+'))),
            Operands::Sub(_) => {}
            Operands::Targets => self.refuse(operands.iter().find(|word| word.contains('='))),
            Operands::Sources => self.refuse(operands.iter().find(|word| word.starts_with('@'))),
            Operands::Bundle => {
                let bundle = |word: &&str| {
                    word.chars().all(|c| {
                        grammar
                            .options
                            .contains_key(c.encode_utf8(&mut [0; 4]) as &str)
                    })
                };
                self.refuse(operands.first().filter(|word| !bundle(word)));
            }
        }
    }

    fn refuse(&mut self, word: Option<&&'a str>) {
        if let Some(word) = word {
            self.unknown(word);
        }
    }
}

/// Whether a word is a dangerous option, or the beginning of a long one, wherever it stands:
/// behind an option that is not known nobody knows which words are values.
fn is_danger(grammar: &Grammar, word: &str) -> bool {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    let shortened =
        |danger: &str| name.len() > 2 && danger.starts_with("--") && danger.starts_with(name);
    let known = grammar.options.contains_key(name);
    !known
        && grammar
            .dangers
            .iter()
            .any(|danger| *danger == name || shortened(danger))
}

fn is_danger_letter(grammar: &Grammar, letter: char) -> bool {
    grammar.dangers.iter().any(|danger| {
        danger
            .strip_prefix('-')
            .is_some_and(|d| d.chars().eq([letter]))
    })
}

/// Whether such an option takes a pattern or script.
fn gives_script(grammar: &Grammar, such: impl Fn(&str) -> bool) -> bool {
    let scripts = |takes: &Takes| matches!(takes, Takes::Pattern | Takes::PatternFile);
    let mut options = grammar.options.iter();
    options.any(|(option, takes)| scripts(takes) && such(option))
}
