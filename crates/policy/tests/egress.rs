//! What leaves: requests of tools to hosts, and boxes that reach some.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use bulkhead_policy::{
    Decision, Judgement, Label, Profile, Question, Request, Rules, Session, decide,
};
use protocol::call::{Action, ToolCall, Verdict, WORKSPACE};
use protocol::egress::Approved;
use protocol::ids::{AgentId, ApprovalId, CallId, CallRef, Nonce, SecretName, TurnId};
use protocol::operator::Grant;
use protocol::outbound::{
    Asks, Attach, Budgets, ByteCount, Cleartext, Credential, EgressRule, Inspect, Method, RuleReach,
};
use protocol::rules::{AllowedCommand, OwnerRules, Person, PolicyProfile, Rest, Role};
use protocol::time::Millis;

/// 2026-11-26.
const NOW: Millis = Millis(1_795_651_200_000);

/// 2027-06-01.
const JUNE: Millis = Millis(1_811_808_000_000);

fn rule(name: &str, subject: &str, host: &str) -> EgressRule {
    EgressRule {
        name: name.parse().unwrap(),
        subject: subject.parse().unwrap(),
        host: host.parse().unwrap(),
        ports: vec![443.try_into().unwrap()],
        methods: Method::ALL.to_vec(),
        paths: vec!["/me/*".parse().unwrap()],
        owner: "me".parse().unwrap(),
        expires: "2027-06-01".parse().unwrap(),
        ask: Asks::ByMethod,
        credential: None,
        budgets: Budgets {
            upload: ByteCount::mib(1),
            ..Budgets::default()
        },
        cleartext: Cleartext::Refused,
        reach: RuleReach::Public,
        inspect: Inspect::No,
    }
}

fn rules() -> Rules {
    with(all(), OwnerRules::default())
}

fn with(egress: Vec<EgressRule>, owner: OwnerRules) -> Rules {
    Rules::load(&OwnerRules { egress, ..owner }).unwrap()
}

fn all() -> Vec<EgressRule> {
    let program = |name: &str, subject: &str, host: &str| EgressRule {
        inspect: Inspect::Yes,
        ..rule(name, subject, host)
    };
    vec![
        EgressRule {
            credential: Some(Credential {
                secret: SecretName::parse("key").unwrap(),
                attach: Attach::Bearer,
            }),
            ..rule("notes", "tool:http_request", "api.example.com")
        },
        EgressRule {
            ask: Asks::Always,
            ..rule("bank", "tool:http_request", "bank.example.com")
        },
        rule("pages", "tool:web_fetch", "pages.example.com"),
        program("git", "exec:git", "git.example.com"),
        program("make", "exec:make", "make.example.com"),
        EgressRule {
            ask: Asks::Always,
            ..program("npm", "exec:npm", "npm.example.com")
        },
        program("curl", "exec:curl", "curl.example.com"),
    ]
}

fn http(method: Method, url: &str) -> ToolCall {
    ToolCall::HttpRequest {
        method,
        url: url.to_owned(),
        headers: Vec::new(),
        body: None,
        credential: None,
    }
}

fn with_secret(method: Method, url: &str, secret: &str) -> ToolCall {
    ToolCall::HttpRequest {
        method,
        url: url.to_owned(),
        headers: Vec::new(),
        body: None,
        credential: Some(SecretName::parse(secret).unwrap()),
    }
}

fn exec(command: &str) -> ToolCall {
    ToolCall::Exec {
        command: command.to_owned(),
    }
}

fn judged_as(
    rules: &Rules,
    who: &str,
    labels: &[Label],
    call: &ToolCall,
    now: Millis,
) -> Judgement {
    let session = Session {
        principal: &who.parse().unwrap(),
        channel: &"web".parse().unwrap(),
        agent: &AgentId::main(),
        labels,
    };
    rules.judge(call, WORKSPACE, &session, now)
}

fn judged(rules: &Rules, call: &ToolCall) -> Judgement {
    judged_as(rules, "owner", &[], call, NOW)
}

const NOTES: &str = "https://api.example.com/me/notes";

#[test]
fn a_request_is_what_its_rule_says_of_it() {
    let rules = rules();
    for (call, verdict, rule) in [
        (http(Method::Get, NOTES), Verdict::Allow, "host-by-rule"),
        (http(Method::Head, NOTES), Verdict::Allow, "host-by-rule"),
        (
            http(Method::Post, NOTES),
            Verdict::AskOnce,
            "host-asked-once",
        ),
        (
            with_secret(Method::Get, NOTES, "key"),
            Verdict::AskOnce,
            "credential",
        ),
        (
            with_secret(Method::Get, NOTES, "other"),
            Verdict::Deny,
            "host-refused",
        ),
        (
            with_secret(Method::Get, "https://evil.com/", "key"),
            Verdict::Deny,
            "host-refused",
        ),
        (
            http(Method::Get, "https://bank.example.com/me/x"),
            Verdict::AskAlways,
            "host-asked-always",
        ),
        (
            http(Method::Get, "https://api.example.com/you/notes"),
            Verdict::Deny,
            "host-refused",
        ),
        (
            http(Method::Get, "https://evil.com/"),
            Verdict::AskAlways,
            "host-not-allowed",
        ),
        (
            http(Method::Get, "http://169.254.169.254/"),
            Verdict::Deny,
            "host-refused",
        ),
        (
            http(Method::Get, "https://localhost/"),
            Verdict::Deny,
            "host-refused",
        ),
        (http(Method::Get, "nonsense"), Verdict::Deny, "host-refused"),
        (
            ToolCall::WebFetch {
                url: "https://pages.example.com/me/x".into(),
            },
            Verdict::Allow,
            "host-by-rule",
        ),
        (
            ToolCall::WebFetch { url: NOTES.into() },
            Verdict::AskAlways,
            "host-not-allowed",
        ),
    ] {
        let judgement = judged(&rules, &call);
        assert_eq!(
            (judgement.verdict, judgement.rule.as_str()),
            (verdict, rule),
            "{call:?}: {}",
            judgement.reason
        );
    }
}

#[test]
fn what_goes_out_is_in_the_effects_and_in_the_order() {
    let judgement = judged(
        &rules(),
        &http(Method::Get, "https://API.example.com:443/me/x/../notes"),
    );
    assert_eq!(judgement.effects.hosts, ["api.example.com:443"]);
    let request = &judgement.effects.requests[0];
    assert_eq!((request.url.as_str(), request.port), (NOTES, 443));
    assert_eq!(request.rule.as_ref().unwrap().as_str(), "notes");
    let Action::Fetch { order } = judgement.action else {
        panic!("it is no request")
    };
    assert_eq!(
        (order.url.as_str(), order.approved),
        (NOTES, Approved::Rule),
        "what was judged is sent"
    );
    assert_eq!(
        judgement.touches,
        [(Label::Untrusted, "api.example.com answered".to_owned())]
    );
    let asked = judged(&rules(), &http(Method::Post, NOTES));
    let Action::Fetch { order } = asked.action else {
        panic!("it is no request")
    };
    assert_eq!(order.approved, Approved::Person);
}

#[test]
fn a_body_over_what_the_rule_lets_out_is_refused_at_once() {
    let call = |bytes: usize| ToolCall::HttpRequest {
        method: Method::Post,
        url: NOTES.to_owned(),
        headers: Vec::new(),
        body: Some("x".repeat(bytes)),
        credential: None,
    };
    assert_eq!(judged(&rules(), &call(1 << 20)).verdict, Verdict::AskOnce);
    assert_eq!(
        judged(&rules(), &call((1 << 20) + 1)).verdict,
        Verdict::Deny
    );
}

#[test]
fn a_rule_that_expired_lets_nothing_out() {
    let rules = rules();
    let late = |call: &ToolCall| judged_as(&rules, "owner", &[], call, JUNE);
    assert_eq!(late(&http(Method::Get, NOTES)).verdict, Verdict::AskAlways);
    assert_eq!(
        late(&with_secret(Method::Get, NOTES, "key")).verdict,
        Verdict::Deny
    );
    assert!(judged(&rules, &exec("git fetch")).network.len() == 1);
    assert!(late(&exec("git fetch")).network.is_empty());
}

#[test]
fn a_session_that_could_be_a_theft_is_asked_before_anything_leaves() {
    let rules = rules();
    let get = http(Method::Get, NOTES);
    let of =
        |labels: &[Label], call: &ToolCall| judged_as(&rules, "owner", labels, call, NOW).verdict;
    assert_eq!(of(&[Label::Untrusted], &get), Verdict::Allow);
    assert_eq!(of(&[Label::Private], &get), Verdict::Allow);
    assert_eq!(
        of(&[Label::Private, Label::Untrusted], &get),
        Verdict::AskAlways
    );
    assert_eq!(
        of(&[Label::Untrusted], &http(Method::Post, NOTES)),
        Verdict::AskAlways
    );
    assert_eq!(
        of(&[Label::Untrusted], &with_secret(Method::Get, NOTES, "key")),
        Verdict::AskAlways
    );
    assert_eq!(
        of(&[Label::Untrusted], &exec("make fetch")),
        Verdict::AskAlways
    );
}

#[test]
fn a_guest_sends_nothing_without_a_yes_and_goes_nowhere_new() {
    let guest = Person {
        name: "gus".parse().unwrap(),
        role: Role::Guest,
    };
    let rules = with(
        all(),
        OwnerRules {
            people: vec![guest],
            ..OwnerRules::default()
        },
    );
    let of = |call: &ToolCall| judged_as(&rules, "gus", &[], call, NOW).verdict;
    assert_eq!(of(&http(Method::Post, NOTES)), Verdict::AskAlways);
    assert_eq!(
        of(&with_secret(Method::Get, NOTES, "key")),
        Verdict::AskAlways
    );
    assert_eq!(of(&http(Method::Get, "https://evil.com/")), Verdict::Deny);
}

#[test]
fn a_box_reaches_something_only_if_each_program_in_it_may() {
    let rules = rules();
    let names = |command: &str| {
        let judgement = judged(&rules, &exec(command));
        let names = judgement.network.iter().map(|rule| rule.name.to_string());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("git fetch"), ["git"]);
    assert_eq!(names("/usr/bin/git fetch"), ["git"]);
    assert_eq!(names("git fetch | grep x"), ["git"]);
    assert_eq!(names("git fetch && make"), ["git", "make"]);
    assert_eq!(names("curl https://curl.example.com/me/x"), ["curl"]);
    for without in [
        "git status",
        "ls",
        "git fetch && cargo build",
        "git fetch | sh",
        "./git fetch",
        "/tmp/git fetch",
        "cargo build",
        "git fetch $(x)",
        "eval git fetch",
        "echo x > y",
    ] {
        assert_eq!(names(without), [""; 0], "{without}");
    }
}

#[test]
fn a_box_with_a_way_out_is_asked_about_and_the_question_says_where() {
    let contained = OwnerRules {
        profile: PolicyProfile::Contained,
        allow: vec![AllowedCommand {
            words: vec!["make".into()],
            rest: Rest::Anything,
        }],
        ..OwnerRules::default()
    };
    for owner in [OwnerRules::default(), contained] {
        let rules = with(all(), owner);
        let judgement = judged(&rules, &exec("make fetch"));
        assert_eq!(
            judgement.verdict,
            Verdict::AskOnce,
            "whatever else is allowed"
        );
        assert_eq!(judgement.effects.hosts, ["make.example.com:443"]);
        assert_eq!(
            judged(&rules, &exec("npm install")).verdict,
            Verdict::AskAlways
        );
        assert_eq!(
            judged(&rules, &exec("curl https://curl.example.com/me/x")).rule,
            "high-risk"
        );
        assert_eq!(
            judged(&rules, &exec("git status")).verdict,
            Verdict::Allow,
            "a look stays one"
        );
    }
    let ask = asked(&rules(), &exec("make fetch"), &[]);
    let Decision::Ask(request) = ask else {
        panic!("nobody is asked")
    };
    assert!(
        request.text().contains("a way out to make.example.com"),
        "{}",
        request.text()
    );
}

fn asked(rules: &Rules, call: &ToolCall, grants: &[Grant]) -> Decision {
    decide(&Request {
        call,
        reference: &CallRef {
            session: "s1".parse().unwrap(),
            turn: TurnId(1),
            call: CallId(1),
        },
        rules,
        session: Session {
            principal: &"owner".parse().unwrap(),
            channel: &"web".parse().unwrap(),
            agent: &AgentId::main(),
            labels: &[],
        },
        workspace: WORKSPACE,
        profile: &Profile::default(),
        grants,
        now: NOW,
        question: Question {
            approval: ApprovalId([1; 8]),
            nonce: Nonce([2; 16]),
            expires: Millis(NOW.0 + 900_000),
        },
    })
}

fn grant(key: &str) -> Grant {
    Grant {
        grant: 1,
        principal: "owner".parse().unwrap(),
        channel: "web".parse().unwrap(),
        agent: AgentId::main(),
        key: key.to_owned(),
        expires: Millis(NOW.0 + 1000),
    }
}

#[test]
fn a_remembered_yes_is_to_the_rule_as_it_was() {
    for call in [
        http(Method::Post, NOTES),
        with_secret(Method::Get, NOTES, "key"),
        exec("make fetch"),
    ] {
        let granted = grant(&judged(&rules(), &call).key);
        assert!(
            matches!(
                asked(&rules(), &call, std::slice::from_ref(&granted)),
                Decision::Allow(_)
            ),
            "{call:?}"
        );
        let mut wider = all();
        for rule in &mut wider {
            rule.paths.push("/you/*".parse().unwrap());
        }
        let wider = with(wider, OwnerRules::default());
        assert!(
            matches!(
                asked(&wider, &call, std::slice::from_ref(&granted)),
                Decision::Ask(_)
            ),
            "{call:?}"
        );
    }
    // Of the same rule another path is another request and the same yes, another method is not.
    let key = |method, url: &str| judged(&rules(), &http(method, url)).key;
    assert_eq!(
        key(Method::Post, NOTES),
        key(Method::Post, "https://api.example.com/me/other")
    );
    assert_ne!(key(Method::Post, NOTES), key(Method::Put, NOTES));
    assert_ne!(
        key(Method::Post, NOTES),
        judged(&rules(), &with_secret(Method::Post, NOTES, "key")).key
    );
    let without = with(Vec::new(), OwnerRules::default());
    assert_ne!(
        judged(&rules(), &exec("make fetch")).key,
        judged(&without, &exec("make fetch")).key
    );
}

fn with_headers(method: Method, headers: &[(&str, &str)]) -> ToolCall {
    let headers = headers.iter();
    ToolCall::HttpRequest {
        method,
        url: NOTES.to_owned(),
        headers: headers
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: None,
        credential: None,
    }
}

#[test]
fn a_remembered_yes_is_to_the_headers_that_could_say_more_than_the_method() {
    let plain = with_headers(Method::Put, &[("accept", "text/plain"), ("if-match", "x")]);
    let telling = |value: &str| with_headers(Method::Put, &[("x-note", value)]);
    let granted = [grant(&judged(&rules(), &http(Method::Put, NOTES)).key)];
    assert!(matches!(
        asked(&rules(), &plain, &granted),
        Decision::Allow(_)
    ));
    let Decision::Ask(request) = asked(&rules(), &telling("a"), &granted) else {
        panic!("nobody is asked")
    };
    assert!(request.text().contains("x-note: a"), "{}", request.text());
    let covers = request.covers();
    assert!(covers.contains("PUT with the same headers"), "{covers}");
    let granted = [grant(&judged(&rules(), &telling("a")).key)];
    for (call, is_covered) in [
        (telling("a"), true),
        (telling("b"), false),
        (http(Method::Put, NOTES), false),
    ] {
        let decision = asked(&rules(), &call, &granted);
        let allowed = matches!(decision, Decision::Allow(_));
        assert_eq!(allowed, is_covered, "{call:?}");
    }
}

#[test]
fn headers_that_could_carry_something_out_are_asked_about_each_time() {
    let of = |bytes: usize| {
        let call = with_headers(Method::Get, &[("x-note", &"x".repeat(bytes))]);
        judged(&rules(), &call).verdict
    };
    assert_eq!(of(300), Verdict::Allow);
    assert_eq!(of(600), Verdict::AskAlways);
}

#[test]
fn where_a_box_may_reach_is_in_the_digest_of_the_call() {
    let digest = |egress: Vec<EgressRule>| match asked(
        &with(egress, OwnerRules::default()),
        &exec("git fetch"),
        &[],
    ) {
        Decision::Ask(request) => request.digest(),
        other => panic!("{other:?}"),
    };
    let mut wider = all();
    for rule in &mut wider {
        rule.paths.push("/you/*".parse().unwrap());
    }
    let digests = [digest(Vec::new()), digest(all()), digest(wider)];
    assert!(digests[0] != digests[1] && digests[1] != digests[2]);
}

#[test]
fn an_owner_s_rule_can_speak_of_hosts_and_methods_and_cannot_let_out_what_is_refused() {
    let file = protocol::rules::RuleFile {
        name: "mine.cedar".to_owned(),
        text: r#"
            @id("no-deletes") @because("nothing is deleted there")
            forbid (principal, action, resource)
            when { resource has host && resource.host == "api.example.com" && resource has method && resource.method == "DELETE" };
            @id("everything") @because("I like it")
            permit (principal, action, resource);
        "#
        .to_owned(),
    };
    let rules = with(
        all(),
        OwnerRules {
            files: vec![file],
            ..OwnerRules::default()
        },
    );
    assert_eq!(
        judged(&rules, &http(Method::Delete, NOTES)).rule,
        "mine.cedar: no-deletes"
    );
    assert_eq!(
        judged(&rules, &http(Method::Post, NOTES)).verdict,
        Verdict::Allow
    );
    assert_eq!(
        judged(&rules, &http(Method::Get, "http://127.0.0.1/")).verdict,
        Verdict::Deny
    );
    assert_eq!(
        judged(&rules, &http(Method::Get, "https://evil.com/")).verdict,
        Verdict::AskAlways
    );
}

#[test]
fn egress_rules_that_contradict_themselves_or_share_a_name_are_not_taken() {
    let twice = vec![
        rule("a", "tool:x", "a.example.com"),
        rule("a", "tool:y", "b.example.com"),
    ];
    let private = EgressRule {
        reach: RuleReach::Private,
        ..rule("a", "tool:x", "a.example.com")
    };
    for egress in [twice, vec![private]] {
        assert!(
            Rules::load(&OwnerRules {
                egress,
                ..OwnerRules::default()
            })
            .is_err()
        );
    }
    assert_ne!(rules().version(), Rules::shipped().version());
}
