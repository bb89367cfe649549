//! What is proven of the rules that are shipped, for all persons, parts and sessions: Cedar's
//! symbolic compiler turns each question into one for the solver cvc5, which has to be
//! installed (`apt-get install cvc5`; `./test` does it).

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use cedar_policy::{PolicySet, RequestEnv, Schema};
use cedar_policy_symcc::solver::LocalSolver;
use cedar_policy_symcc::{CedarSymCompiler, CompiledPolicy, CompiledPolicySet};

const SHIPPED: &str = include_str!("../../policy/src/rules/default.cedar");
const SCHEMA: &str = include_str!("../../policy/src/rules/schema.cedarschema");

/// The approvals, least first.
const APPROVALS: [&str; 3] = ["none", "remembered", "fresh"];

/// Those that are not a yes to this very call.
const BELOW_FRESH: &[&str] = &["none", "remembered"];

type Compiler = CedarSymCompiler<LocalSolver>;

fn schema() -> Schema {
    Schema::from_cedarschema_str(SCHEMA).unwrap().0
}

/// Asks a question about each kind of part; the kinds for which the answer is no.
fn fails(
    mut question: impl AsyncFnMut(&mut Compiler, &Schema, &RequestEnv) -> bool,
) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let schema = schema();
        let solver = LocalSolver::cvc5_with_args(["--strings-exp", "--tlimit=60000"])
            .expect("cvc5 is installed: apt-get install cvc5");
        let mut compiler = CedarSymCompiler::new(solver).unwrap();
        let mut failed = Vec::new();
        let kinds: Vec<_> = schema.request_envs().collect();
        assert_eq!(kinds.len(), 23, "one for each kind of part");
        for kind in kinds {
            if !question(&mut compiler, &schema, &kind).await {
                failed.push(kind.action().to_string());
            }
        }
        failed.sort();
        failed
    })
}

/// The rules with an approval in the place of the fact, and more text behind them.
fn with(rules: &str, approval: &str, more: &str) -> PolicySet {
    let literal = format!("Approval::\"{approval}\"");
    let text = rules.replace("context.approval", &literal) + more;
    text.parse().unwrap()
}

fn compiled(rules: &PolicySet, schema: &Schema, kind: &RequestEnv) -> CompiledPolicySet {
    CompiledPolicySet::compile(rules, kind, schema).unwrap()
}

fn that_can_fail(rules: &str) -> Vec<String> {
    let rules: PolicySet = rules.parse().unwrap();
    fails(async |compiler, schema, kind| {
        for policy in rules.policies() {
            let policy = CompiledPolicy::compile(policy, kind, schema).unwrap();
            if !compiler.check_never_errors_opt(&policy).await.unwrap() {
                return false;
            }
        }
        true
    })
}

/// Where some approval permits less than a smaller one.
fn not_monotone(rules: &str) -> Vec<String> {
    fails(async |compiler, schema, kind| {
        for pair in APPROVALS.windows(2) {
            let [less, more] = [pair[0], pair[1]]
                .map(|approval| compiled(&with(rules, approval, ""), schema, kind));
            if !compiler.check_implies_opt(&less, &more).await.unwrap() {
                return false;
            }
        }
        true
    })
}

/// Where this can be permitted with one of these approvals, although the condition holds.
fn permitted(rules: &str, approvals: &[&str], condition: &str) -> Vec<String> {
    let only = format!("forbid (principal, action, resource) unless {{ {condition} }};");
    fails(async |compiler, schema, kind| {
        for approval in approvals {
            let rules = compiled(&with(rules, approval, &only), schema, kind);
            if !compiler.check_always_denies_opt(&rules).await.unwrap() {
                return false;
            }
        }
        true
    })
}

/// The same rules without the one of this name.
fn without(id: &str) -> String {
    let (before, rest) = SHIPPED.split_once(&format!("@id({id:?})")).unwrap();
    let (_, after) = rest.split_once(';').unwrap();
    format!("{before}{after}")
}

/// The same rules and one of an owner who permits whatever can be permitted.
fn with_everything_permitted() -> String {
    format!("{SHIPPED}\npermit (principal, action, resource);")
}

#[test]
fn no_rule_can_fail_while_it_is_evaluated() {
    assert_eq!(that_can_fail(SHIPPED), [""; 0]);
    let fails = "forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };";
    assert_eq!(that_can_fail(fails).len(), 23, "this proof can fail");
}

#[test]
fn more_approval_never_permits_less() {
    assert_eq!(not_monotone(SHIPPED), [""; 0]);
    let odd = format!(
        "{SHIPPED}\nforbid (principal, action == Action::\"inspection\", resource) when {{ context.approval == Approval::\"fresh\" }};"
    );
    assert_eq!(not_monotone(&odd), ["Action::\"inspection\""]);
}

#[test]
fn nothing_of_high_risk_is_permitted_below_a_fresh_approval_whatever_else_is() {
    const RISK: &str = "action in Action::\"every-time\"";
    assert_eq!(
        permitted(&with_everything_permitted(), BELOW_FRESH, RISK),
        [""; 0]
    );
    let hole = format!(
        "{}\npermit (principal, action == Action::\"high-risk\", resource);",
        without("high-risk-floor")
    );
    assert_eq!(
        permitted(&hole, BELOW_FRESH, RISK),
        ["Action::\"high-risk\""]
    );
}

#[test]
fn nothing_leaves_a_session_that_is_private_and_untrusted_below_a_fresh_approval() {
    const THEFT: &str = "context.private && context.untrusted && resource.leaves";
    assert_eq!(
        permitted(&with_everything_permitted(), BELOW_FRESH, THEFT),
        [""; 0]
    );
    let hole = without("private-and-untrusted");
    assert_eq!(
        permitted(&hole, BELOW_FRESH, THEFT),
        [
            "Action::\"host-by-rule\"",
            "Action::\"inspection\"",
            "Action::\"read-in-workspace\"",
            "Action::\"write-in-workspace\""
        ],
        "reads of a file tool leave nowhere, but the rules alone would let them"
    );
}

#[test]
fn what_a_guest_changes_takes_a_fresh_approval() {
    const GUEST: &str = "principal.role == Role::\"guest\" && resource.changes";
    assert_eq!(
        permitted(&with_everything_permitted(), BELOW_FRESH, GUEST),
        [""; 0]
    );
    assert_ne!(permitted(&without("guest"), BELOW_FRESH, GUEST), [""; 0]);
}

#[test]
fn in_an_untrusted_session_side_effects_are_lifted_one_tier() {
    const ONCE: &str = "context.untrusted && action in Action::\"once\"";
    assert_eq!(
        permitted(&with_everything_permitted(), BELOW_FRESH, ONCE),
        [""; 0]
    );
    assert_ne!(
        permitted(&without("untrusted-session"), BELOW_FRESH, ONCE),
        [""; 0]
    );
    const FREELY: &str = "context.untrusted && action in Action::\"freely\" && resource.changes";
    let none = &APPROVALS[..1];
    assert_eq!(
        permitted(&with_everything_permitted(), none, FREELY),
        [""; 0]
    );
    assert_ne!(
        permitted(&without("untrusted-session"), none, FREELY),
        [""; 0]
    );
}

#[test]
fn a_guest_gets_nothing_dangerous_and_nobody_what_is_malformed_with_any_approval() {
    const DANGER: &str = "principal.role == Role::\"guest\" && action in Action::\"every-time\"";
    assert_eq!(
        permitted(&with_everything_permitted(), &APPROVALS, DANGER),
        [""; 0]
    );
    assert_ne!(permitted(&without("guest"), &APPROVALS, DANGER), [""; 0]);
    const NOTHING: &str = "action in Action::\"never\"";
    assert_eq!(
        permitted(&with_everything_permitted(), &APPROVALS, NOTHING),
        [""; 0]
    );
}
