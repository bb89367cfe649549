//! Looks whether the owner changed the rules, and passes them on.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use config::{Config, Home};
use protocol::rules::{OwnerRules, RulesNews};

/// How often it looks. Only the state of files is looked at unless one changed.
const EVERY: Duration = Duration::from_secs(1);

/// The state of the configuration and of the files of rules: name, time, length.
pub(super) type Stamp = Vec<(String, Option<(SystemTime, u64)>)>;

/// What was last seen, and what was last told.
pub(super) struct Watch {
    home: Home,
    stamp: Stamp,
    config: Config,
    told: Told,
    next: Instant,
    /// Whether a look is under way.
    looking: Looking,
}

#[derive(PartialEq, Eq)]
enum Told {
    Sound,
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Looking {
    Yes,
    No,
}

/// What a look found: the configuration with rules that were checked, or why it cannot be used.
pub(super) type Found = Result<Box<Config>, String>;

impl Watch {
    /// With the configuration that was read at the start, and the state of its files before that.
    pub(super) fn new(home: Home, config: Config, stamp: Stamp) -> Self {
        Self {
            stamp,
            config,
            home,
            told: Told::Sound,
            next: Instant::now() + EVERY,
            looking: Looking::No,
        }
    }

    /// When it wants to look again.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Whose configuration has to be looked at, if it is time and something changed. What is
    /// found goes to [`Self::found`].
    pub(super) fn look(&mut self) -> Option<Home> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        self.next = now + EVERY;
        if self.looking == Looking::Yes {
            return None;
        }
        let stamp = stamp(&self.home);
        if stamp == self.stamp {
            return None;
        }
        self.stamp = stamp;
        self.looking = Looking::Yes;
        Some(self.home.clone())
    }

    /// What the gateway has to know of what a look found.
    pub(super) fn found(&mut self, found: Found) -> Option<RulesNews> {
        self.looking = Looking::No;
        match found {
            Err(reason) => {
                protocol::log!("bulkhead-supervisor: the rules stay as they were: {reason}");
                self.told = Told::Broken;
                Some(RulesNews::Broken { reason })
            }
            Ok(config) => self.sound(*config),
        }
    }

    fn sound(&mut self, config: Config) -> Option<RulesNews> {
        let was_broken = std::mem::replace(&mut self.told, Told::Sound) == Told::Broken;
        let rules = config.rules.clone();
        let before = std::mem::replace(&mut self.config, config.clone());
        let rest_of_before = Config {
            rules: rules.clone(),
            ..before.clone()
        };
        if config != rest_of_before {
            protocol::log!(
                "bulkhead-supervisor: the configuration was changed beyond [policy] and [[egress]]; that is taken when Bulkhead is started again"
            );
        }
        if rules != before.rules {
            return Some(RulesNews::Changed { rules });
        }
        was_broken.then_some(RulesNews::AsBefore)
    }
}

/// Reads the configuration of this home, and has its rules checked.
pub(super) fn read(home: &Home, check: impl FnOnce(&OwnerRules) -> Result<(), String>) -> Found {
    let config = Config::load(home).map_err(|error| error.to_string())?;
    check(&config.rules)?;
    Ok(Box::new(config))
}

/// The state of the files as it is now.
pub(super) fn stamp(home: &Home) -> Stamp {
    let state = |path: &Path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    let mut stamp = vec![(String::new(), state(&home.config_file()))];
    // A folder that cannot be read is seen when the configuration is read next.
    let entries = fs::read_dir(home.rules()).into_iter().flatten().flatten();
    stamp.extend(entries.map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, state(&entry.path()))
    }));
    stamp.sort();
    stamp
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "[model]\napi = \"ollama\"\nurl = \"http://127.0.0.1:1\"\nname = \"m\"\n";

    fn write(home: &Home, text: &str) {
        fs::write(home.config_file(), text).unwrap();
    }

    fn watch() -> (tempfile::TempDir, Home, Watch) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(&dir.path().join("h")).unwrap();
        home.create().unwrap();
        write(&home, CONFIG);
        let stamp = stamp(&home);
        let watch = Watch::new(home.clone(), Config::load(&home).unwrap(), stamp);
        (dir, home, watch)
    }

    fn look(watch: &mut Watch) -> Option<RulesNews> {
        watch.next = Instant::now();
        let home = watch.look()?;
        let check = |rules: &OwnerRules| {
            let loaded = policy::Rules::load(rules);
            loaded.map(drop).map_err(|error| error.to_string())
        };
        watch.found(read(&home, check))
    }

    #[test]
    fn changed_rules_are_told_once_and_broken_ones_with_their_place() {
        let (_dir, home, mut watch) = watch();
        assert_eq!(look(&mut watch), None);
        write(
            &home,
            &format!("{CONFIG}[policy]\nallow = [\"make test\"]\n"),
        );
        let Some(RulesNews::Changed { rules }) = look(&mut watch) else {
            panic!("nothing was told")
        };
        assert_eq!(rules.allow[0].words, ["make", "test"]);
        assert_eq!(look(&mut watch), None);

        write(&home, &format!("{CONFIG}[policy]\nalow = []\n"));
        let Some(RulesNews::Broken { reason }) = look(&mut watch) else {
            panic!("nothing was told")
        };
        assert!(reason.contains("line 6"), "{reason}");
        write(&home, &format!("{CONFIG}[policy]\nallow = ['make test']\n"));
        assert_eq!(look(&mut watch), Some(RulesNews::AsBefore));
    }

    #[test]
    fn one_look_is_under_way_at_a_time_and_what_changes_meanwhile_is_seen_after_it() {
        let (_dir, home, mut watch) = watch();
        write(&home, &format!("{CONFIG}[policy]\nallow = ['a']\n"));
        watch.next = Instant::now();
        let slow = watch.look().unwrap();
        let found = read(&slow, |_| Ok(()));
        write(&home, &format!("{CONFIG}[policy]\nallow = ['a', 'b']\n"));
        watch.next = Instant::now();
        assert!(watch.look().is_none());
        assert!(matches!(
            watch.found(found),
            Some(RulesNews::Changed { .. })
        ));
        let Some(RulesNews::Changed { rules }) = look(&mut watch) else {
            panic!("nothing was told")
        };
        assert_eq!(rules.allow.len(), 2);
    }

    #[test]
    fn changed_egress_rules_are_told_as_well() {
        const RULE: &str = "[[egress]]\nname = \"r\"\nsubject = \"tool:http_request\"\nhost = \"a.example\"\nowner = \"me\"\nexpires = \"2027-06-01\"\n";
        let (_dir, home, mut watch) = watch();
        assert_eq!(look(&mut watch), None);
        write(&home, &format!("{CONFIG}{RULE}"));
        let Some(RulesNews::Changed { rules }) = look(&mut watch) else {
            panic!("nothing was told")
        };
        assert_eq!(rules.egress[0].name.as_str(), "r");
        write(&home, &format!("{CONFIG}{RULE}private = true\n"));
        assert!(matches!(look(&mut watch), Some(RulesNews::Broken { .. })));
        write(&home, CONFIG);
        let Some(RulesNews::Changed { rules }) = look(&mut watch) else {
            panic!("nothing was told")
        };
        assert!(rules.egress.is_empty());
    }

    #[test]
    fn a_file_of_rules_is_checked_before_it_is_told() {
        let (_dir, home, mut watch) = watch();
        fs::create_dir(home.rules()).unwrap();
        let file = home.rules().join("mine.cedar");
        fs::write(&file, "permit (principal, action, nonsense);").unwrap();
        let Some(RulesNews::Broken { reason }) = look(&mut watch) else {
            panic!("nothing was told")
        };
        assert!(reason.contains("mine.cedar:1:28"), "{reason}");
        fs::write(
            &file,
            "@id(\"no-make\") @because(\"no\") forbid (principal, action, resource) when { resource has program && resource.program == \"make\" };",
        )
        .unwrap();
        assert!(matches!(look(&mut watch), Some(RulesNews::Changed { .. })));
        fs::remove_file(&file).unwrap();
        assert!(matches!(look(&mut watch), Some(RulesNews::Changed { .. })));
    }
}
