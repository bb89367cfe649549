//! Changing `bulkhead.toml` without touching what the person wrote around it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use config::{Config, Home};

use crate::fault::Fault;

/// The file as lines. It is a text edit, so the result is read as configuration before it
/// is kept.
#[derive(Debug, Default)]
pub(crate) struct ConfigText(Vec<String>);

impl ConfigText {
    /// The file of this home; nothing, if there is none.
    pub(crate) fn read(home: &Home) -> Result<Self, Fault> {
        let path = home.config_file();
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::of(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Fault::io(format!("read {path:?}"))(error)),
        }
    }

    fn of(text: &str) -> Self {
        Self(text.lines().map(str::to_owned).collect())
    }

    /// Makes the section, if it is not there.
    pub(crate) fn add_section(&mut self, section: &str) {
        if self.header(section).is_some() {
            return;
        }
        if !self.0.is_empty() {
            self.0.push(String::new());
        }
        self.0.push(format!("[{section}]"));
    }

    /// Sets a key of a section to a value, which is written as TOML already.
    pub(crate) fn set(&mut self, section: &str, key: &str, value: &str) {
        self.add_section(section);
        let Some(header) = self.header(section) else {
            return;
        };
        let end = self.end_of(header);
        let line = format!("{key} = {value}");
        let of_key = |line: &String| {
            let rest = line.trim_start().strip_prefix(key);
            rest.is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        match self.0[header + 1..end].iter().position(of_key) {
            Some(at) => self.0[header + 1 + at] = line,
            None => {
                let blank = |line: &&String| line.trim().is_empty();
                let trailing = self.0[header + 1..end]
                    .iter()
                    .rev()
                    .take_while(blank)
                    .count();
                self.0.insert(end - trailing, line);
            }
        }
    }

    /// Takes a section out; says whether it was there.
    pub(crate) fn remove_section(&mut self, section: &str) -> Removed {
        match self.header(section) {
            Some(header) => {
                let end = self.end_of(header);
                self.0.drain(header..end);
                Removed::Yes
            }
            None => Removed::WasNotThere,
        }
    }

    fn header(&self, section: &str) -> Option<usize> {
        let wanted = format!("[{section}]");
        let name = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
        self.0.iter().position(|line| name(line) == wanted)
    }

    fn end_of(&self, header: usize) -> usize {
        let next = |line: &String| line.trim_start().starts_with('[');
        let after = self.0[header + 1..].iter().position(next);
        after.map_or(self.0.len(), |at| header + 1 + at)
    }

    fn text(&self) -> String {
        let mut text = self.0.join("\n");
        text.push('\n');
        text
    }

    /// Reads the text as configuration.
    pub(crate) fn check(&self, home: &Home) -> Result<Config, Fault> {
        Ok(Config::parse(&self.text(), home, &home.config_file())?)
    }

    /// Writes the text if it is a configuration: whole or not at all.
    pub(crate) fn save(&self, home: &Home) -> Result<Config, Fault> {
        let config = self.check(home)?;
        let path = home.config_file();
        let text = self.text();
        let beside = path.with_extension("toml.new");
        let written = || -> io::Result<()> {
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, &path)
        };
        written().map_err(Fault::io(format!("write {path:?}")))?;
        Ok(config)
    }
}

/// Whether there was something to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removed {
    /// It is gone.
    Yes,
    /// There was nothing.
    WasNotThere,
}

/// A text as TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FILE: &str = "# mine\n[model] # the one\napi = \"ollama\"\nurl = \"http://127.0.0.1:1\"\nname = \"a\" # small\n\n[channel.web]\nport = 4880\n";

    #[test]
    fn values_change_and_everything_else_stays() {
        let mut text = ConfigText::of(FILE);
        text.set("model", "name", &quoted("b\"c"));
        text.set("model", "tool_calls", "\"schema\"");
        text.set("box", "pids", "64");
        assert_eq!(
            text.text(),
            "# mine\n[model] # the one\napi = \"ollama\"\nurl = \"http://127.0.0.1:1\"\nname = \"b\\\"c\"\ntool_calls = \"schema\"\n\n[channel.web]\nport = 4880\n\n[box]\npids = 64\n"
        );
    }

    #[test]
    fn a_section_goes_with_its_keys_alone() {
        let mut text = ConfigText::of(FILE);
        text.add_section("channel.telegram");
        assert_eq!(text.remove_section("channel.web"), Removed::Yes);
        assert_eq!(text.remove_section("channel.web"), Removed::WasNotThere);
        assert!(
            text.text()
                .ends_with("name = \"a\" # small\n\n[channel.telegram]\n")
        );
    }

    #[test]
    fn what_is_no_configuration_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        let mut text = ConfigText::of(FILE);
        text.save(&home).unwrap();
        text.set("model", "api", "\"telepathy\"");
        assert!(text.save(&home).is_err());
        assert!(
            fs::read_to_string(home.config_file())
                .unwrap()
                .contains("ollama")
        );
        assert!(!Path::new(&home.config_file().with_extension("toml.new")).exists());
    }

    #[test]
    fn quoted_text_reads_as_itself() {
        assert_eq!(quoted("a\"\\\n"), "\"a\\\"\\\\\\u000A\"");
    }

    #[test]
    fn the_example_reads_and_the_defaults_that_it_shows_are_the_defaults() {
        let example = include_str!("../../../etc/bulkhead.toml");
        let is_default = |line: &&str| {
            line.starts_with('#') && line[1..].starts_with(|c: char| c.is_ascii_lowercase())
        };
        let defaults = example.lines().filter(is_default).count();
        let spelt_out: String = example
            .lines()
            .map(|line| match is_default(&line) {
                true => format!("{}\n", &line[1..]),
                false => format!("{line}\n"),
            })
            .collect();
        let home = Home::at(Path::new("/h")).unwrap();
        let parse = |text: &str| Config::parse(text, &home, Path::new("x")).unwrap();
        assert_eq!(parse(example), parse(&spelt_out));
        assert!(defaults > 10, "{defaults}");
    }
}
