use super::*;
use crate::ids::SecretName;

fn reads_back<T: FromStr + fmt::Display + PartialEq + fmt::Debug>(good: &[&str], bad: &[&str])
where
    T::Err: fmt::Debug,
{
    for text in good {
        let read: T = text.parse().unwrap();
        assert_eq!(read.to_string(), *text);
    }
    for text in bad {
        assert!(text.parse::<T>().is_err(), "{text:?}");
    }
}

#[test]
fn what_is_written_reads_back_and_nothing_else_is_read() {
    reads_back::<Subject>(
        &[
            "tool:http_request",
            "exec:git",
            "exec:pip3.11",
            "channel:telegram",
            "model",
        ],
        &[
            "",
            "tool:",
            "tool",
            "exec:/bin/git",
            "exec:.git",
            "exec:a b",
            "channel:A",
            "Model",
            "mcp:x",
        ],
    );
    reads_back::<HostPattern>(
        &[
            "api.example.com",
            "*.example.com",
            "xn--mnchen-3ya.de",
            "10.0.0.1",
            "127.0.0.1",
            "::1",
            "fd00::1",
        ],
        &[
            "",
            "*",
            "*.",
            "*.com",
            "com",
            "localhost",
            "Api.example.com",
            "example.com.",
            "a..b",
            "-a.com",
            "a-.com",
            "a_b.com",
            "*.*.com",
            "a*.example.com",
            "*.10.0.0.1",
            "127.1",
            "0x7f.1",
            "1.2.3.04",
            "example.1",
            "example.0x1",
            "[::1]",
            "fe80::1%eth0",
            "münchen.de",
            "example.com:443",
            "https://example.com",
            "a b.com",
        ],
    );
    reads_back::<Method>(&["GET", "DELETE"], &["", "get", "CONNECT", "TRACE", "GET "]);
    reads_back::<RuleOwner>(&["me", "Ann B."], &["", " ", "a\nb", "\u{202e}x"]);
    reads_back::<ByteCount>(
        &["1 B", "1500 B", "1 KiB", "100 MiB", "1 GiB", "1024 GiB"],
        &[
            "",
            "0 B",
            "1",
            "1MiB",
            "1 MB",
            "1  MiB",
            "01 MiB",
            "+1 B",
            "-1 B",
            "1025 GiB",
            "99999999999999999999 B",
        ],
    );
    reads_back::<PathPattern>(
        &[
            "/",
            "/*",
            "/repos/me/notes/*",
            "/a/*/b",
            "/bot{bot}/sendMessage",
            "/a%2Fb/*",
            "/%C3%BC",
            "/a/",
        ],
        &[
            "",
            "a",
            "/notes*",
            "/*.txt",
            "/**",
            "/a/../b",
            "/./a",
            "//a",
            "/a//b",
            "/%2e%2e/a",
            "/%61",
            "/a%2fb",
            "/%zz",
            "/%2",
            "/a b",
            "/a?x",
            "/a#x",
            "/a\\b",
            "/ü",
            "/{",
            "/{}",
            "/{A}",
            "/}",
            "/%00",
        ],
    );
    reads_back::<Attach>(
        &[
            "bearer",
            "basic",
            "header X-Api-Key",
            "query key",
            "path bot",
            "field /auth/token",
            "sigv4 eu-west-1 s3",
            "oauth2 https://auth.example.com/token",
        ],
        &[
            "",
            "Bearer",
            "header",
            "header Host",
            "header content-length",
            "header a b",
            "header x\r",
            "query a&b",
            "path {bot}",
            "field token",
            "field /",
            "field /a~2",
            "sigv4 s3",
            "oauth2 http://a.example/t",
            "oauth2 https:///t",
            "oauth2 https://a.example/t?x",
            "oauth2 https://u@a.example/t",
        ],
    );
}

#[test]
fn a_rule_counts_until_its_day_begins() {
    let rule = rule();
    let day = Millis(1_811_808_000_000);
    assert_eq!(day.rfc3339(), "2027-06-01T00:00:00.000Z");
    assert!(rule.is_in_force(Millis(day.0 - 1)));
    assert!(!rule.is_in_force(day));
}

#[test]
fn a_rule_crosses_a_link_unchanged() {
    let text = serde_json::to_string(&rule()).unwrap();
    assert_eq!(serde_json::from_str::<EgressRule>(&text).unwrap(), rule());
    assert!(text.contains(r#""as":"bearer""#), "{text}");
    let more = text.replacen('{', r#"{"also":1,"#, 1);
    assert!(serde_json::from_str::<EgressRule>(&more).is_err());
}

fn rule() -> EgressRule {
    EgressRule {
        name: RuleName::parse("notes").unwrap(),
        subject: "tool:http_request".parse().unwrap(),
        host: "api.example.com".parse().unwrap(),
        ports: vec![NonZeroU16::new(443).unwrap()],
        methods: vec![Method::Get],
        paths: vec![PathPattern::all()],
        owner: "me".parse().unwrap(),
        expires: "2027-06-01".parse().unwrap(),
        ask: Asks::ByMethod,
        credential: Some(Credential {
            secret: SecretName::parse("github").unwrap(),
            attach: Attach::Bearer,
        }),
        budgets: Budgets::default(),
        cleartext: Cleartext::Refused,
        reach: RuleReach::Public,
        inspect: Inspect::No,
    }
}

#[test]
fn a_pattern_covers_its_own_host_or_what_is_below_it() {
    let pattern = |text: &str| text.parse::<HostPattern>().unwrap();
    assert!(pattern("api.example.com").covers("api.example.com"));
    assert!(!pattern("api.example.com").covers("x.api.example.com"));
    assert!(pattern("*.example.com").covers("a.b.example.com"));
    assert!(!pattern("*.example.com").covers("example.com"));
    assert!(!pattern("*.example.com").covers("notexample.com"));
    assert!(pattern("127.0.0.1").covers("127.0.0.1"));
    assert!(!pattern("127.0.0.1").covers("localhost"));
}
