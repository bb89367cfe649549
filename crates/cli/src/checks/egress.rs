//! Egress rules that count no more, or soon will not.

use config::Config;
use protocol::time::Millis;
use std::time::Duration;

use super::Check;

const NAME: &str = "egress rules";

/// From so long before its end on a rule is named.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// How many there are, and which have ended.
pub(super) fn rules(config: &Config) -> Check {
    at(config, Millis::now())
}

fn at(config: &Config, now: Millis) -> Check {
    let rules = &config.rules.egress;
    let ended = rules.iter().filter(|rule| !rule.is_in_force(now));
    let ended: Vec<String> = ended
        .map(|rule| format!("{} on {}", rule.name, rule.expires))
        .collect();
    let ending = rules
        .iter()
        .filter(|rule| rule.is_in_force(now) && !rule.is_in_force(now.after(SOON)));
    let ending: Vec<String> = ending
        .map(|rule| format!("{} on {}", rule.name, rule.expires))
        .collect();
    let fix = "look whether they are still wanted; then give them another `expires` in bulkhead.toml, or remove them";
    match (ended.is_empty(), ending.is_empty()) {
        (false, _) => Check::warn(
            NAME,
            format!("expired, and count for nothing: {}", ended.join(", ")),
            fix,
        ),
        (true, false) => Check::warn(NAME, format!("expire soon: {}", ending.join(", ")), fix),
        (true, true) => Check::ok(NAME, format!("{} in force", rules.len())),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use config::Home;

    use super::super::Status;
    use super::*;

    #[test]
    fn rules_that_ended_or_soon_will_are_named() {
        let text = "[model]\napi = \"ollama\"\nurl = \"http://127.0.0.1:1\"\nname = \"m\"\n\
            [[egress]]\nname = \"a\"\nsubject = \"tool:x\"\nhost = \"a.example\"\nowner = \"me\"\nexpires = \"2027-06-01\"\n";
        let home = Home::at(Path::new("/h")).unwrap();
        let config = Config::parse(text, &home, Path::new("/h/b")).unwrap();
        let day = 86_400_000;
        let june = 1_811_808_000_000;
        for (now, status, says) in [
            (june - 15 * day, Status::Ok, "1 in force"),
            (
                june - 14 * day,
                Status::Warn,
                "expire soon: a on 2027-06-01",
            ),
            (
                june,
                Status::Warn,
                "expired, and count for nothing: a on 2027-06-01",
            ),
        ] {
            let check = at(&config, Millis(now));
            assert_eq!((check.status, check.detail.as_str()), (status, says));
        }
    }
}
