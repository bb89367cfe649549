//! What the policies are asked about, as types; the names are those of the schema.

use std::collections::HashMap;

use cedar_policy::RestrictedExpression;
use protocol::ids::{AgentId, ChannelId, PrincipalId};
use protocol::rules::{Label, PolicyProfile, Role};

use crate::judge::Effects;
use crate::requests::HostRequest;

/// Makes the kinds and their names.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// What a part of a call is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            /// The action of the schema.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }

            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$kind),*];
        }
    };
}

kinds! {
    /// A file tool that reads.
    ReadInWorkspace = "read-in-workspace",
    /// A file tool or a redirection that writes.
    WriteInWorkspace = "write-in-workspace",
    /// The same where git on the host would obey it.
    WriteInGitFolder = "write-in-git-folder",
    /// A program that only reads.
    Inspection = "inspection",
    /// A program of which nothing is known.
    Ordinary = "ordinary",
    /// An inspection program with an option that is not known to be harmless.
    UnknownOption = "unknown-option",
    /// It looks outside of the workspace.
    PathOutside = "path-outside-workspace",
    /// A path that looks like something for a shell.
    OddPath = "odd-path",
    /// A pipe into a program that does not read it.
    OddPipe = "odd-pipe",
    /// One command after another.
    Several = "several-commands",
    /// A pattern where names decide what happens.
    Pattern = "pattern",
    /// No name for a program.
    OddName = "odd-program-name",
    /// It can start other programs, or destroy.
    HighRisk = "high-risk",
    /// An interpreter that is given code.
    InterpreterCode = "interpreter-code",
    /// A command that is not understood.
    NotUnderstood = "not-understood",
    /// A request that an egress rule lets out.
    HostByRule = "host-by-rule",
    /// One that a rule lets out after a yes.
    HostAskedOnce = "host-asked-once",
    /// One that a rule lets out after a yes each time, or that may be there to carry something out.
    HostAskedAlways = "host-asked-always",
    /// One to a host that no rule is about.
    HostNotAllowed = "host-not-allowed",
    /// A secret that goes with a request, where a rule sends it.
    Credential = "credential",
    /// A box from which programs reach hosts by egress rules.
    BoxWithNetwork = "box-with-network",
    /// A request that no yes lets out.
    HostRefused = "host-refused",
    /// Nothing that could run.
    Malformed = "malformed",
}

/// One part of a call.
pub(crate) struct Part<'a> {
    pub(crate) tool: &'a str,
    pub(crate) kind: Kind,
    pub(crate) effects: &'a Effects,
    /// The words of a program.
    pub(crate) words: Option<&'a [String]>,
    /// The one file that it is about.
    pub(crate) path: Option<&'a str>,
}

impl Part<'_> {
    /// Whether something is another afterwards.
    fn changes(&self) -> bool {
        let mut requests = self.effects.requests.iter();
        self.effects.opaque || !self.effects.writes.is_empty() || requests.any(HostRequest::changes)
    }

    /// The attributes of the entity.
    pub(super) fn attributes(&self) -> HashMap<String, RestrictedExpression> {
        let text = RestrictedExpression::new_string;
        let mut attributes = HashMap::from([
            ("tool".to_owned(), text(self.tool.to_owned())),
            (
                "changes".to_owned(),
                RestrictedExpression::new_bool(self.changes()),
            ),
            (
                "leaves".to_owned(),
                RestrictedExpression::new_bool(!self.effects.hosts.is_empty()),
            ),
        ]);
        if let Some(words) = self.words {
            let name = words.first().map_or("", String::as_str);
            let name = name.rsplit('/').next().unwrap_or(name);
            attributes.insert("command".to_owned(), text(command(words)));
            attributes.insert("program".to_owned(), text(name.to_owned()));
        }
        if let Some(request) = self.effects.requests.first() {
            attributes.insert("host".to_owned(), text(request.host.clone()));
            attributes.insert("method".to_owned(), text(request.method.to_string()));
            if let Some(rule) = &request.rule {
                attributes.insert("egress_rule".to_owned(), text(rule.to_string()));
            }
        }
        if let Some(path) = self.path {
            attributes.insert("path".to_owned(), text(path.to_owned()));
        }
        attributes
    }
}

/// The words of a program as rules see them.
pub(super) fn command(words: &[String]) -> String {
    // A list of texts always has a JSON form, and memory takes it.
    serde_json::to_string(words).expect("words have a JSON form")
}

/// Who asks, where, and what the session has touched. All of it is set by the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// Who asked for the turn.
    pub principal: &'a PrincipalId,
    /// Over which channel.
    pub channel: &'a ChannelId,
    /// Whom they talk to.
    pub agent: &'a AgentId,
    /// What the session has touched.
    pub labels: &'a [Label],
}

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Approver => "approver",
        Role::User => "user",
        Role::Guest => "guest",
    }
}

pub(super) fn profile(profile: PolicyProfile) -> &'static str {
    match profile {
        PolicyProfile::Strict => "strict",
        PolicyProfile::Contained => "contained",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cedar_policy::Schema;

    use super::*;

    #[test]
    fn the_kinds_are_the_actions_of_the_schema() {
        let (schema, _) = Schema::from_cedarschema_str(super::super::SCHEMA).unwrap();
        let of_schema: BTreeSet<_> = schema
            .request_envs()
            .map(|kind| kind.action().id().unescaped().to_owned())
            .collect();
        let kinds: BTreeSet<_> = Kind::ALL
            .iter()
            .map(|kind| kind.name().to_owned())
            .collect();
        assert_eq!(of_schema, kinds);
    }
}
