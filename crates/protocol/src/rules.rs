//! The owner's rules, as they go from the configuration to whoever decides by them.

use serde::{Deserialize, Serialize};

use crate::call::WorkspacePath;
use crate::ids::PrincipalId;
use crate::outbound::EgressRule;

/// The most bytes in one file of rules.
pub const MAX_RULE_FILE: usize = 64 * 1024;

/// The most files of rules.
pub const MAX_RULE_FILES: usize = 32;

/// What the owner adds to the rules that are shipped. Nothing in here can take away what
/// those forbid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerRules {
    /// How much the box is trusted with.
    pub profile: PolicyProfile,
    /// Commands of tier 2 that run without a question.
    pub allow: Vec<AllowedCommand>,
    /// Files and folders of the workspace that no call may write.
    pub read_only: Vec<WorkspacePath>,
    /// Who is what. Somebody who is not named is a user, and `owner` the owner.
    pub people: Vec<Person>,
    /// Who may answer a question.
    pub answers: Answers,
    /// Who may reach what.
    pub egress: Vec<EgressRule>,
    /// Cedar files, by name.
    pub files: Vec<RuleFile>,
}

/// What a session has touched. Set by the gateway, never by the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// It looked at a path outside the workspace.
    Private,
    /// Somebody else than the owner wrote in it.
    Untrusted,
}

impl Label {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Untrusted => "untrusted",
        }
    }
}

/// What the supervisor found when it looked at the configuration again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case", deny_unknown_fields)]
pub enum RulesNews {
    /// Other rules, sound as far as it can tell.
    Changed {
        /// All of them.
        rules: OwnerRules,
    },
    /// They cannot be used; those in force stay.
    Broken {
        /// Where, what, and what would be right.
        reason: String,
    },
    /// What was broken is as it was before.
    AsBefore,
}

/// What `bulkhead-gateway --check-rules` says of the [`OwnerRules`] on its standard input, in one
/// line of its standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rules", rename_all = "snake_case", deny_unknown_fields)]
pub enum RulesCheck {
    /// They can be used.
    Sound,
    /// They cannot.
    Broken {
        /// Where, what, and what would be right.
        reason: String,
    },
}

/// How much the box is trusted with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyProfile {
    /// Each new program is asked about.
    #[default]
    Strict,
    /// What stays in the box and can be undone is not asked about.
    Contained,
}

/// A command that is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedCommand {
    /// Its words.
    pub words: Vec<String>,
    /// What may follow them.
    pub rest: Rest,
}

/// What may follow the words of a command that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// Any words.
    Anything,
}

/// What a person is to the owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Who.
    pub name: PrincipalId,
    /// What they are.
    pub role: Role,
}

/// What somebody may ask for, and what they may say yes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May ask for everything and answer everything.
    Owner,
    /// May ask as a user does, and answer what others ask for.
    Approver,
    /// May ask, and answer what they asked for themselves.
    User,
    /// May look. What they write is a stranger's word.
    Guest,
}

/// Who may answer a question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answers {
    /// Whoever asked for the call, an approver, the owner.
    #[default]
    Anybody,
    /// Not whoever asked for the call.
    AnotherPerson,
}

/// A file of Cedar rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// Its name, without its folder; for messages.
    pub name: String,
    /// What is in it.
    pub text: String,
}
