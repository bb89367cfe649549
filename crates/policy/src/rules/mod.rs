//! The rules: Cedar policies over facts that the gateway sets.
//!
//! An approval is a fact of the request, and the tier of a part is the least approval with
//! which, and with more than which, the policies permit it. Cedar skips a policy that fails
//! while it is evaluated, which for a `forbid` would be failing open; here whatever fails
//! denies.

mod facts;
mod owner;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{
    Authorizer, Context, Decision, Effect, Entities, Entity, EntityId, EntityTypeName, EntityUid,
    PolicyId, PolicySet, Request, RestrictedExpression, Schema, ValidationMode, Validator,
};
use outbound::RuleSet;
use protocol::call::Verdict;
use protocol::ids::{AgentId, ChannelId, Digest, PrincipalId};
use protocol::rules::{Answers, Label, OwnerRules, PolicyProfile, Role};

use crate::judge::Effects;
use crate::programs;
pub use facts::Session;
pub(crate) use facts::{Kind, Part};

/// The rules that are shipped.
const SHIPPED: &str = include_str!("default.cedar");

/// What a rule can speak of.
const SCHEMA: &str = include_str!("schema.cedarschema");

/// Cedar compares and validates by recursion; texts of the size that is allowed fit this.
const STACK: usize = 64 * 1024 * 1024;

/// The approvals, least first.
const APPROVALS: [&str; 3] = ["none", "remembered", "fresh"];

/// Rules that cannot be used; whatever was in force stays so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct BadRules {
    /// The file, and where in it, as far as that is known.
    pub place: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// The rules in force.
pub struct Rules {
    policies: PolicySet,
    schema: Schema,
    actions: Entities,
    types: Types,
    profile: PolicyProfile,
    people: BTreeMap<PrincipalId, Role>,
    answers: Answers,
    egress: RuleSet,
    version: String,
}

/// What the policies say of one part.
pub(crate) struct Ruling {
    pub(crate) verdict: Verdict,
    pub(crate) rule: String,
    /// What the rule that decided adds to what the part is.
    pub(crate) because: Option<String>,
}

impl Ruling {
    /// Of a call without parts.
    pub(crate) fn nothing() -> Self {
        Self {
            verdict: Verdict::Deny,
            rule: Kind::Malformed.name().to_owned(),
            because: None,
        }
    }
}

/// The names of the types, parsed once.
struct Types {
    action: EntityTypeName,
    approval: EntityTypeName,
    part: EntityTypeName,
    person: EntityTypeName,
    profile: EntityTypeName,
    role: EntityTypeName,
}

/// The answer for one approval.
struct Answer {
    decision: Decision,
    /// The policies that decided, by name.
    by: Vec<PolicyId>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rules({})", self.version)
    }
}

impl Rules {
    /// The rules that are shipped, and nothing beside them.
    pub fn shipped() -> &'static Self {
        static SHIPPED: LazyLock<Rules> = LazyLock::new(|| {
            Rules::load(&OwnerRules::default()).expect("the rules that are shipped are right")
        });
        &SHIPPED
    }

    /// The rules that are shipped and what the owner adds, checked against the schema.
    pub fn load(owner: &OwnerRules) -> Result<Self, BadRules> {
        owner::check_size(&owner.files)?;
        let thread = std::thread::Builder::new().stack_size(STACK);
        std::thread::scope(|scope| {
            thread
                .spawn_scoped(scope, || Self::build(owner))
                .map_err(|error| bad("policy", format!("no thread to read the rules: {error}")))?
                .join()
                .unwrap_or_else(|_| Err(bad("policy", "the rules cannot be read")))
        })
    }

    fn build(owner: &OwnerRules) -> Result<Self, BadRules> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA)
            .map_err(|error| bad("schema.cedarschema", error))?;
        let actions = schema
            .action_entities()
            .map_err(|error| bad("schema.cedarschema", error))?;
        let mut policies = PolicySet::new();
        owner::add_file(&mut policies, "", SHIPPED)?;
        owner::add_simple(&mut policies, owner)?;
        for file in &owner.files {
            owner::add_file(&mut policies, &file.name, &file.text)?;
        }
        let found = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
        if let Some(error) = found.validation_errors().min_by_key(ToString::to_string) {
            return Err(bad(error.policy_id(), error));
        }
        let rules = Self {
            policies,
            schema,
            actions,
            types: Types::new(),
            profile: owner.profile,
            people: (owner.people.iter())
                .map(|person| (person.name.clone(), person.role))
                .collect(),
            answers: owner.answers,
            egress: RuleSet::new(owner.egress.clone())
                .map_err(|error| bad("bulkhead.toml: [[egress]]", error))?,
            version: version(owner),
        };
        rules.check_answers()?;
        Ok(rules)
    }

    /// Rules that fail for each call would take the place of good ones.
    fn check_answers(&self) -> Result<(), BadRules> {
        let session = Session {
            principal: &PrincipalId::parse("owner").expect("it is a name"),
            channel: &ChannelId::parse("terminal").expect("it is a name"),
            agent: &AgentId::main(),
            labels: &[],
        };
        let words = ["make".to_owned()];
        for (words, path) in [(None, None), (Some(&words[..]), None), (None, Some("a"))] {
            let part = Part {
                tool: "exec",
                kind: Kind::Ordinary,
                effects: &Effects::default(),
                words,
                path,
            };
            if self.answers(&part, &session).is_none() {
                return Err(bad(
                    "rules",
                    "a rule fails when it is evaluated, so that all calls would be denied",
                ));
            }
        }
        Ok(())
    }

    /// What was decided by: the rules that are not data, the table of programs and all rules.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Who may reach what.
    pub fn egress(&self) -> &RuleSet {
        &self.egress
    }

    /// SHA-256 of the version.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.version)
    }

    /// What a person is to the owner.
    pub fn role(&self, principal: &PrincipalId) -> Role {
        match self.people.get(principal) {
            Some(role) => *role,
            None if principal.as_str() == "owner" => Role::Owner,
            None => Role::User,
        }
    }

    /// Whether this person may answer a question about a call that `asked` asked for.
    pub fn may_answer(&self, by: &PrincipalId, asked: &PrincipalId) -> Result<(), &'static str> {
        match (self.answers, self.role(by)) {
            (Answers::AnotherPerson, _) if by == asked => {
                Err("whoever asked for a call cannot answer for it; somebody else has to")
            }
            (_, Role::Guest) => Err("a guest cannot answer for a call"),
            (_, Role::Owner | Role::Approver) => Ok(()),
            (_, Role::User) if by == asked => Ok(()),
            (_, Role::User) => {
                Err("only who asked for a call, an approver and the owner can answer for it")
            }
        }
    }

    /// The tier of a part.
    pub(crate) fn rule(&self, part: &Part<'_>, session: &Session<'_>) -> Ruling {
        let Some(answers) = self.answers(part, session) else {
            return Ruling {
                verdict: Verdict::Deny,
                rule: "rules-failed".to_owned(),
                because: Some("the rules failed, and what fails denies".to_owned()),
            };
        };
        // Less than all that is more would make no sense as an approval.
        let refusals = answers
            .iter()
            .rposition(|answer| answer.decision == Decision::Deny)
            .map_or(0, |last| last + 1);
        let verdict = match refusals {
            0 => Verdict::Allow,
            1 => Verdict::AskOnce,
            2 => Verdict::AskAlways,
            _ => Verdict::Deny,
        };
        // What raised it there, or else what permitted it.
        let said = match refusals.checked_sub(1) {
            Some(last) => self.speaking(&answers[last], Effect::Forbid),
            None => self.speaking(&answers[0], Effect::Permit),
        };
        match said {
            Some((rule, because)) => Ruling {
                verdict,
                rule,
                because: Some(because),
            },
            None => Ruling {
                verdict,
                rule: part.kind.name().to_owned(),
                because: None,
            },
        }
    }

    /// The first of the policies that decided which says something about itself.
    fn speaking(&self, answer: &Answer, effect: Effect) -> Option<(String, String)> {
        answer.by.iter().find_map(|id| {
            let policy = self.policies.policy(id)?;
            let because = policy.annotation("because")?;
            (policy.effect() == effect).then(|| (id.to_string(), because.to_owned()))
        })
    }

    /// For each approval, least first; none if something failed.
    fn answers(&self, part: &Part<'_>, session: &Session<'_>) -> Option<[Answer; 3]> {
        let types = &self.types;
        let person = uid(&types.person, session.principal.as_str());
        let role = self.role(session.principal);
        let attributes = [
            ("name", text(session.principal.as_str())),
            ("role", entity(&types.role, facts::role(role))),
        ];
        let person_entity = Entity::new(person.clone(), owned(attributes), HashSet::new()).ok()?;
        let part_uid = uid(&types.part, "this");
        let part_entity = Entity::new(part_uid.clone(), part.attributes(), HashSet::new()).ok()?;
        let entities = self
            .actions
            .clone()
            .add_entities([person_entity, part_entity], Some(&self.schema))
            .ok()?;
        let action = uid(&types.action, part.kind.name());
        let ask = |approval| {
            let (person, action, part) = (person.clone(), action.clone(), part_uid.clone());
            let context = self.context(session, approval)?;
            let request = Request::new(person, action, part, context, Some(&self.schema)).ok()?;
            self.ask(&request, &entities)
        };
        let [none, remembered, fresh] = APPROVALS.map(ask);
        Some([none?, remembered?, fresh?])
    }

    fn context(&self, session: &Session<'_>, approval: &str) -> Option<Context> {
        let types = &self.types;
        let labelled = |label| RestrictedExpression::new_bool(session.labels.contains(&label));
        Context::from_pairs(owned([
            ("approval", entity(&types.approval, approval)),
            (
                "profile",
                entity(&types.profile, facts::profile(self.profile)),
            ),
            ("channel", text(session.channel.as_str())),
            ("agent", text(session.agent.as_str())),
            ("private", labelled(Label::Private)),
            ("untrusted", labelled(Label::Untrusted)),
        ]))
        .ok()
    }

    /// None if something failed.
    fn ask(&self, request: &Request, entities: &Entities) -> Option<Answer> {
        let response = Authorizer::new().is_authorized(request, &self.policies, entities);
        let diagnostics = response.diagnostics();
        if diagnostics.errors().next().is_some() {
            return None;
        }
        // Cedar gives them in no order.
        let mut by: Vec<_> = diagnostics.reason().cloned().collect();
        by.sort();
        Some(Answer {
            decision: response.decision(),
            by,
        })
    }
}

impl Types {
    fn new() -> Self {
        let name = |name: &str| name.parse().expect("it is the name of a type");
        Self {
            action: name("Action"),
            approval: name("Approval"),
            part: name("Part"),
            person: name("Person"),
            profile: name("Profile"),
            role: name("Role"),
        }
    }
}

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

fn entity(of: &EntityTypeName, id: &str) -> RestrictedExpression {
    RestrictedExpression::new_entity_uid(uid(of, id))
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn owned<const N: usize>(
    pairs: [(&str, RestrictedExpression); N],
) -> HashMap<String, RestrictedExpression> {
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

fn bad(place: impl ToString, problem: impl ToString) -> BadRules {
    BadRules {
        place: place.to_string(),
        problem: problem.to_string(),
    }
}

/// Everything that a decision depends on beside its request, as one text.
fn version(owner: &OwnerRules) -> String {
    // Texts and lists of them always have a JSON form, and memory takes it.
    let owner = serde_json::to_string(owner).expect("rules have a JSON form");
    let rules = Digest::of([SCHEMA, SHIPPED, &owner].join("\0"));
    format!("{}, rules {rules}", programs::version())
}
