//! The owner's own rules: what they can say, what they cannot, and what fails closed.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use bulkhead_policy::{BadRules, Label, Rules, Session};
use protocol::call::{ToolCall, Verdict, WORKSPACE, WorkspacePath};
use protocol::ids::AgentId;
use protocol::rules::{
    AllowedCommand, Answers, OwnerRules, Person, PolicyProfile, Rest, Role, RuleFile,
};
use protocol::runner::Leaves;
use protocol::time::Millis;

const NOW: Millis = Millis(1_795_651_200_000);

fn exec(command: &str) -> ToolCall {
    ToolCall::Exec {
        command: command.to_owned(),
    }
}

fn write(path: &str) -> ToolCall {
    ToolCall::WriteFile {
        path: WorkspacePath::parse(path).unwrap(),
        content: String::new(),
    }
}

/// What the rules say of a call of this person in a session with these labels: verdict, rule.
fn judged(rules: &Rules, who: &str, labels: &[Label], call: &ToolCall) -> (Verdict, String) {
    let session = Session {
        principal: &who.parse().unwrap(),
        channel: &"web".parse().unwrap(),
        agent: &AgentId::main(),
        labels,
    };
    let judgement = rules.judge(call, WORKSPACE, &session, NOW);
    (judgement.verdict, judgement.rule)
}

fn verdict(rules: &Rules, command: &str) -> Verdict {
    judged(rules, "owner", &[], &exec(command)).0
}

fn allowing(words: &[&str], rest: Rest) -> OwnerRules {
    OwnerRules {
        allow: vec![AllowedCommand {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            rest,
        }],
        ..OwnerRules::default()
    }
}

fn cedar(text: &str) -> OwnerRules {
    OwnerRules {
        files: vec![RuleFile {
            name: "mine.cedar".to_owned(),
            text: text.to_owned(),
        }],
        ..OwnerRules::default()
    }
}

fn refused(text: &str) -> BadRules {
    Rules::load(&cedar(text)).unwrap_err()
}

#[test]
fn a_command_that_is_allowed_is_allowed_word_by_word() {
    let exactly = Rules::load(&allowing(&["make", "test"], Rest::Nothing)).unwrap();
    for (command, expected) in [
        ("make test", Verdict::Allow),
        ("make 'test'", Verdict::Allow),
        ("make test all", Verdict::AskOnce),
        ("make", Verdict::AskOnce),
        ("make 'test all'", Verdict::AskOnce),
        ("make test > out.txt", Verdict::Allow),
        ("make test > .git/hooks/x", Verdict::AskAlways),
        ("make test; rm x", Verdict::AskAlways),
        ("make test $(x)", Verdict::AskAlways),
        ("./make test", Verdict::AskOnce),
    ] {
        assert_eq!(verdict(&exactly, command), expected, "{command}");
    }
    let open = Rules::load(&allowing(&["builder", "build"], Rest::Anything)).unwrap();
    for (command, expected) in [
        ("builder build", Verdict::Allow),
        ("builder build --release", Verdict::Allow),
        ("builder buildx", Verdict::AskOnce),
        ("builder 'build\"' x", Verdict::AskOnce),
        ("builder test", Verdict::AskOnce),
    ] {
        assert_eq!(verdict(&open, command), expected, "{command}");
    }
}

#[test]
fn no_rule_of_the_owner_allows_what_is_asked_about_every_time() {
    let rules = Rules::load(&allowing(&["rm", "-rf", "x"], Rest::Nothing)).unwrap();
    assert_eq!(verdict(&rules, "rm -rf x"), Verdict::AskAlways);
    let rules = Rules::load(&cedar(
        "@because(\"all\") permit (principal, action, resource);",
    ))
    .unwrap();
    assert_eq!(verdict(&rules, "\0"), Verdict::Deny);
    for command in ["curl http://h", "eval x", "python3 -c 1", "echo $(x)"] {
        assert_eq!(verdict(&rules, command), Verdict::AskAlways, "{command}");
    }
    assert_eq!(verdict(&rules, "make"), Verdict::Allow);
    let untrusted = [Label::Untrusted];
    assert_eq!(
        judged(&rules, "owner", &untrusted, &exec("make")),
        (Verdict::AskAlways, "untrusted-session".to_owned())
    );
}

#[test]
fn what_is_read_only_no_call_may_write() {
    let rules = Rules::load(&OwnerRules {
        read_only: ["docs", "odd*name"]
            .map(|path| WorkspacePath::parse(path).unwrap())
            .to_vec(),
        ..OwnerRules::default()
    })
    .unwrap();
    for (path, expected) in [
        ("docs", Verdict::Deny),
        ("docs/a/b.md", Verdict::Deny),
        ("src/../docs/a", Verdict::Deny),
        ("docs2/a", Verdict::Allow),
        ("odd*name/a", Verdict::Deny),
        ("odd-or-name/a", Verdict::Allow),
    ] {
        assert_eq!(
            judged(&rules, "owner", &[], &write(path)).0,
            expected,
            "{path}"
        );
    }
    assert_eq!(verdict(&rules, "echo x > docs/a"), Verdict::Deny);
    assert_eq!(verdict(&rules, "cat docs/a"), Verdict::Allow);
}

#[test]
fn the_profile_contained_trades_questions_for_the_box() {
    let rules = Rules::load(&OwnerRules {
        profile: PolicyProfile::Contained,
        ..OwnerRules::default()
    })
    .unwrap();
    assert_eq!(verdict(&rules, "make"), Verdict::Allow);
    assert_eq!(verdict(&rules, "rm x"), Verdict::AskAlways);
    assert_eq!(
        judged(&rules, "owner", &[Label::Untrusted], &exec("make")).0,
        Verdict::AskAlways
    );
    assert_eq!(verdict(Rules::shipped(), "make"), Verdict::AskOnce);
}

#[test]
fn roles_say_who_may_ask_for_what_and_who_may_answer() {
    let person = |name: &str, role| Person {
        name: name.parse().unwrap(),
        role,
    };
    let people = vec![
        person("ann", Role::Approver),
        person("bob", Role::User),
        person("eve", Role::Guest),
    ];
    let load = |answers| {
        Rules::load(&OwnerRules {
            people: people.clone(),
            answers,
            ..OwnerRules::default()
        })
        .unwrap()
    };
    let rules = load(Answers::Anybody);
    let eve = |call: &ToolCall| judged(&rules, "eve", &[Label::Untrusted], call);
    assert_eq!(eve(&exec("ls")).0, Verdict::Allow);
    assert_eq!(eve(&write("a")).0, Verdict::AskAlways);
    assert_eq!(eve(&exec("rm a")), (Verdict::Deny, "guest".to_owned()));
    assert_eq!(eve(&exec("make")).0, Verdict::AskAlways);

    let may = |rules: &Rules, by: &str, asked: &str| {
        rules
            .may_answer(&by.parse().unwrap(), &asked.parse().unwrap())
            .is_ok()
    };
    for (by, asked, expected) in [
        ("owner", "eve", true),
        ("owner", "owner", true),
        ("ann", "bob", true),
        ("ann", "owner", true),
        ("bob", "bob", true),
        ("bob", "ann", false),
        ("bob", "owner", false),
        ("eve", "eve", false),
        ("stranger", "owner", false),
    ] {
        assert_eq!(may(&rules, by, asked), expected, "{by} for {asked}");
    }
    let rules = load(Answers::AnotherPerson);
    for (by, asked, expected) in [
        ("owner", "owner", false),
        ("ann", "owner", true),
        ("bob", "bob", false),
        ("ann", "ann", false),
        ("owner", "ann", true),
    ] {
        assert_eq!(may(&rules, by, asked), expected, "{by} for {asked}");
    }
}

#[test]
fn a_rule_that_fails_denies_instead_of_being_skipped() {
    // It passes strict validation, and overflows when it is evaluated. Cedar alone would skip it.
    let rules = Rules::load(&cedar(
        "@because(\"x\") forbid (principal, action, resource) when { resource has program && resource.program == \"ls\" && 9223372036854775807 + 1 > 0 };",
    ))
    .unwrap();
    assert_eq!(
        judged(&rules, "owner", &[], &exec("ls")),
        (Verdict::Deny, "rules-failed".to_owned())
    );
    assert_eq!(verdict(&rules, "make"), Verdict::AskOnce);
    let always = "@because(\"x\") forbid (principal, action, resource) when { 9223372036854775807 + 1 > 0 };";
    assert!(refused(always).problem.contains("fails"));
}

#[test]
fn an_approval_that_would_permit_less_than_none_denies() {
    let rules = Rules::load(&cedar(
        "@because(\"x\") forbid (principal, action == Action::\"inspection\", resource) when { context.approval == Approval::\"fresh\" };",
    ))
    .unwrap();
    assert_eq!(verdict(&rules, "ls"), Verdict::Deny);
}

#[test]
fn rules_that_cannot_be_used_are_refused_with_their_place() {
    for (text, place, says) in [
        (
            "permit (principal, action, resource)",
            "mine.cedar:1:37",
            "unexpected end",
        ),
        ("\n  permit (principal, action, x);", "mine.cedar:2:30", ""),
        (
            "@because(\"x\") permit (principal, action == Action::\"inspecton\", resource);",
            "mine.cedar: policy0",
            "inspecton",
        ),
        (
            "@because(\"x\") permit (principal, action, resource) when { context.approval == Approval::\"frsh\" };",
            "mine.cedar: policy0",
            "frsh",
        ),
        (
            "@because(\"x\") forbid (principal, action, resource) when { resource.path like \"a*\" };",
            "mine.cedar: policy0",
            "path",
        ),
        (
            "@because(\"x\") permit (principal == ?principal, action, resource);",
            "mine.cedar",
            "slot",
        ),
        (
            "permit (principal, action, resource);",
            "mine.cedar: policy0",
            "@because",
        ),
        (
            "@id(\"a\") @because(\"x\") permit (principal, action, resource); @id(\"a\") @because(\"x\") forbid (principal, action, resource);",
            "mine.cedar: a",
            "own",
        ),
    ] {
        let error = refused(text);
        assert_eq!(error.place, place, "{text}: {error}");
        assert!(error.problem.contains(says), "{text}: {error}");
    }
}

#[test]
fn texts_that_would_end_the_parser_are_refused_before_it_sees_them() {
    let nested = format!(
        "permit (principal, action, resource) when {{ {}true{} }};",
        "(".repeat(150),
        ")".repeat(150)
    );
    assert!(refused(&nested).problem.contains("nest"));
    let chain = |times| {
        format!(
            "@because(\"x\") permit (principal, action, resource) when {{ {}true }};",
            "true&&".repeat(times)
        )
    };
    assert!(refused(&chain(2000)).problem.contains("bytes"));
    // The longest that is taken is read, checked and decided by.
    let rules = Rules::load(&cedar(&chain(1300))).unwrap();
    assert_ne!(verdict(&rules, "make"), Verdict::AskAlways);
    for deep in ["!", "-", "if true then ", "[", "{a:"] {
        let text = format!(
            "@because(\"x\") permit (principal, action, resource) when {{ {} true }};",
            deep.repeat(500)
        );
        refused(&text);
    }
    // What stands in texts and comments is no depth and no length.
    let usual: String = (0..60)
        .map(|n| {
            format!(
                "// [[[ {n}\n@id(\"{n}\") @because(\"[ {n}\") permit (principal, action in Action::\"once\", resource) when {{ resource has command && resource.command like \"[\\\"x{n}\\\",*\" }};\n"
            )
        })
        .collect();
    assert!(Rules::load(&cedar(&usual)).is_ok());
    let hidden = chain(2000).replace("true&&", "\";\"==\";\"&&");
    assert!(refused(&hidden).problem.contains("bytes"));
    let large = " ".repeat(protocol::rules::MAX_RULE_FILE + 1);
    assert!(refused(&large).problem.contains("bytes"));
}

#[test]
fn every_change_of_the_rules_changes_their_version() {
    let of = |owner: &OwnerRules| Rules::load(owner).unwrap().version().to_owned();
    let shipped = of(&OwnerRules::default());
    assert_eq!(shipped, Rules::shipped().version());
    for owner in [
        allowing(&["make"], Rest::Nothing),
        allowing(&["make"], Rest::Anything),
        cedar("// a comment"),
        OwnerRules {
            profile: PolicyProfile::Contained,
            ..OwnerRules::default()
        },
    ] {
        assert_ne!(of(&owner), shipped);
    }
}

#[test]
fn what_nobody_said_yes_to_leaves_plain_files_only() {
    let contained = Rules::load(&OwnerRules {
        profile: PolicyProfile::Contained,
        ..OwnerRules::default()
    })
    .unwrap();
    let leaves = |rules: &Rules, command: &str| {
        let session = Session {
            principal: &"owner".parse().unwrap(),
            channel: &"web".parse().unwrap(),
            agent: &AgentId::main(),
            labels: &[],
        };
        rules
            .judge(&exec(command), WORKSPACE, &session, NOW)
            .leaves()
    };
    assert_eq!(leaves(&contained, "make"), Leaves::Files);
    assert_eq!(leaves(Rules::shipped(), "make"), Leaves::Changes);
    assert_eq!(leaves(&contained, "git diff > out"), Leaves::Files);
    assert_eq!(leaves(Rules::shipped(), "cat a > b"), Leaves::Files);
    assert_eq!(leaves(Rules::shipped(), "git diff"), Leaves::Nothing);
}

#[test]
fn whatever_looks_outside_makes_a_session_private() {
    let touches = |command: &str| {
        let session = Session {
            principal: &"owner".parse().unwrap(),
            channel: &"web".parse().unwrap(),
            agent: &AgentId::main(),
            labels: &[],
        };
        let judgement = Rules::shipped().judge(&exec(command), WORKSPACE, &session, NOW);
        judgement
            .touches
            .iter()
            .map(|(label, _)| *label)
            .collect::<Vec<_>>()
    };
    for command in [
        "cat /etc/passwd",
        "cat /etc/p*",
        "sort --foo /etc/passwd",
        "cp /etc/passwd x",
        "cp ../x y",
        "cat $X",
        "ls; wc -l /etc/passwd",
    ] {
        assert_eq!(touches(command), [Label::Private], "{command}");
    }
    for command in [
        "ls",
        "cat a/b",
        "cp a b",
        "cat /workspace/a",
        "make > out",
        "cat a 2>/dev/null",
        "grep -rn '/api/v1' src",
    ] {
        assert_eq!(touches(command), [], "{command}");
    }
}

#[test]
fn the_rules_in_the_documentation_are_taken() {
    let page = include_str!("../../../docs/rules.md");
    let examples = page.split("```cedar\n").skip(1);
    let examples: String = examples
        .filter_map(|rest| rest.split("```").next())
        .collect();
    let rules = Rules::load(&cedar(&examples)).unwrap();
    let deploy = exec("deploy now");
    assert_eq!(
        judged(&rules, "ann", &[], &deploy),
        (Verdict::Deny, "mine.cedar: no-deploys-by-others".to_owned())
    );
    assert_eq!(judged(&rules, "owner", &[], &deploy).0, Verdict::AskOnce);
    assert_eq!(verdict(&rules, "lint src"), Verdict::Allow);
    assert_eq!(verdict(&rules, "linter src"), Verdict::AskOnce);
}
