//! The rules in force, and how they are changed while everything runs.

use policy::{BadRules, Rules};
use protocol::event::{Answer, Event as Fact};
use protocol::operator::RulesStatus;
use protocol::record::system_session;
use protocol::rules::{OwnerRules, RulesNews};
use protocol::time::Millis;

use super::{Fatal, Gateway};

/// The rules that calls are decided by, and why those in the configuration are others.
pub(super) struct Governing {
    pub(super) in_force: Rules,
    /// Whether the row that says so is written.
    recorded: bool,
    problem: String,
}

impl Governing {
    /// The rules at the start.
    pub(super) fn new(owner: &OwnerRules) -> Result<Self, BadRules> {
        Ok(Self {
            in_force: Rules::load(owner)?,
            recorded: false,
            problem: String::new(),
        })
    }

    /// For people.
    pub(super) fn status(&self, now: Millis) -> RulesStatus {
        RulesStatus {
            sha256: self.in_force.digest(),
            problem: self.problem.clone(),
            expired: self
                .in_force
                .egress()
                .expired(now)
                .map(|rule| rule.name.clone())
                .collect(),
        }
    }
}

impl Gateway {
    /// Writes which rules are in force, once for each start and each change. No call runs before.
    pub(super) fn record_rules(&mut self) -> Result<(), super::RecordLost> {
        if self.rules.recorded {
            return Ok(());
        }
        let fact = Fact::RulesInForce {
            sha256: self.rules.in_force.digest(),
        };
        self.record.write(&system_session(), vec![fact])?;
        self.rules.recorded = true;
        Ok(())
    }

    /// The supervisor looked at the configuration again.
    pub(super) fn rules_news(&mut self, news: RulesNews) -> Result<(), Fatal> {
        let rules = match news {
            RulesNews::Changed { rules } => Rules::load(&rules),
            RulesNews::Broken { reason } => {
                self.keep_rules(reason);
                return Ok(());
            }
            RulesNews::AsBefore => {
                self.rules.problem = String::new();
                return Ok(());
            }
        };
        match rules {
            Ok(rules) => self.change_rules(rules),
            Err(error) => {
                self.keep_rules(error.to_string());
                Ok(())
            }
        }
    }

    fn keep_rules(&mut self, problem: String) {
        protocol::log!("bulkhead-gateway: the rules stay as they were: {problem}");
        self.rules.problem = problem;
    }

    /// They are in force at once; as long as the row that says so is missing, nothing runs.
    fn change_rules(&mut self, rules: Rules) -> Result<(), Fatal> {
        self.rules = Governing {
            in_force: rules,
            recorded: false,
            problem: String::new(),
        };
        if let Err(error) = self.record_rules() {
            self.record_lost(&error)?;
        }
        // What was asked was asked under other rules; nobody can say what a yes would mean now.
        self.close_approvals(
            Answer::Cancelled,
            "the rules were changed while it waited; ask for it again",
            |_| true,
        )
    }
}
