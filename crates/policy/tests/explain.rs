//! `policy explain`: a stable form, and an answer to every line.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use bulkhead_policy::{Rules, explain};
use protocol::time::Millis;
use serde_json::{Value, json};

const NOW: Millis = Millis(1_795_651_200_000);

fn answer(line: &str) -> Value {
    serde_json::from_str(&explain(Rules::shipped(), line, NOW)).unwrap()
}

#[test]
fn the_form_is_the_one_that_scripts_use() {
    let line = r#"{"id":7,"tool":"exec","args":{"command":"grep -n x src/a"},"principal":"owner","channel":"web","agent":"main","labels":["private"],"workspace":"/home/o/w"}"#;
    assert_eq!(
        explain(Rules::shipped(), line, NOW),
        r#"{"id":7,"decision":"allow","key":"exec:[\"grep\",\"-n\",\"x\",\"src/a\"]","rule":"inspection","reason":"grep only reads, inside the workspace","effects":{"programs":["grep"],"reads":["src/a"],"writes":[],"hosts":[],"opaque":false}}"#
    );
    assert_eq!(
        answer(r#"{"tool":"list_files","args":{}}"#)["id"],
        Value::Null
    );
    assert_eq!(
        answer(r#"{"id":{"a":[1]},"tool":"x","args":{}}"#)["id"],
        json!({"a": [1]})
    );
}

#[test]
fn effects_name_what_a_command_can_touch() {
    let effects = |command: &str| {
        answer(&json!({"tool": "exec", "args": {"command": command}}).to_string())["effects"]
            .clone()
    };
    assert_eq!(
        effects("curl 'https://user:pw@example.org:8/x?y'")["hosts"],
        json!(["example.org:8"])
    );
    assert_eq!(effects("cp a b")["writes"], json!(["/workspace"]));
    assert_eq!(effects("ls")["reads"], json!(["."]));
    assert_eq!(effects("ls $x")["opaque"], true);
    assert_eq!(
        effects("cat a b | grep -f c 2>/dev/null > out/d"),
        json!({
            "programs": ["cat", "grep"],
            "reads": ["a", "b", "c"],
            "writes": ["out/d"],
            "hosts": [],
            "opaque": false,
        })
    );
}

#[test]
fn a_line_that_is_no_call_is_denied_and_keeps_its_id() {
    for line in [
        "",
        " ",
        "{",
        "[]",
        "null",
        "\u{0}",
        "ls -la",
        r#"{"id":1}"#,
        r#"{"id":1,"tool":"exec"}"#,
        r#"{"id":1,"tool":1,"args":{}}"#,
        r#"{"id":1,"tool":"exec","args":{"command":"ls"},"approved":true}"#,
        r#"{"id":1,"tool":"exec","args":{"command":"ls"},"labels":["trusted"]}"#,
        r#"{"id":1,"tool":"exec","args":{"command":"ls"},"labels":"private"}"#,
        r#"{"id":1,"tool":"exec","args":{"command":"ls"},"principal":"a b"}"#,
        r#"{"id":1,"tool":"exec","args":{"command":"ls"},"workspace":"relative"}"#,
        r#"{"id":1,"tool":"exec","args":{"command":"ls"},"workspace":"/"}"#,
        r#"{"id":1,"tool":"exec","tool":"exec","args":{"command":"ls"}}"#,
        r#"{"tool":"exec","args":{"command":"ls"}} x"#,
    ] {
        let answer = answer(line);
        assert_eq!(answer["decision"], "deny", "{line}");
        assert_eq!(answer["rule"], "malformed", "{line}");
        if line.starts_with(r#"{"id":1,"#) || line == r#"{"id":1}"# {
            assert_eq!(answer["id"], 1, "{line}");
        }
    }
}

#[test]
fn every_limit_ends_in_a_refusal_or_a_question() {
    let exec = |command: String| {
        answer(&json!({"id": 1, "tool": "exec", "args": {"command": command}}).to_string())
    };
    for (command, expected) in [
        ("a".repeat(10_000_000), "deny"),
        (format!("ls {}", "a ".repeat(20_000)), "ask_always"),
        (format!("ls {}", "a ".repeat(40_000)), "deny"),
        (vec!["ls"; 51].join("; "), "ask_always"),
        (vec!["ls"; 10_000].join("; "), "ask_always"),
        (vec!["ls"; 100_000].join("; "), "deny"),
        ("(".repeat(10_000), "ask_always"),
        ("$(".repeat(10_000), "ask_always"),
        ("'".repeat(60_001), "ask_always"),
        (format!("ls {}", "../".repeat(1000)), "ask_once"),
    ] {
        let answer = exec(command);
        assert_eq!(answer["decision"], expected, "{}", answer["reason"]);
        assert_eq!(answer["id"], 1);
    }
    for deep in [
        format!(
            r#"{{"id":1,"tool":"exec","args":{}1{}}}"#,
            "[".repeat(1000),
            "]".repeat(1000)
        ),
        format!(
            r#"{{"id":1,"tool":"exec","args":{}{{}}{}}}"#,
            r#"{"command":"#.repeat(1000),
            "}".repeat(1000)
        ),
        "[".repeat(1_000_000),
        format!(
            r#"{{"id":1,"tool":"read_file","args":{{"path":"{}"}}}}"#,
            "a/".repeat(100_000)
        ),
    ] {
        let answer = answer(&deep);
        assert_eq!(answer["decision"], "deny");
        assert!(answer["reason"].to_string().len() < 1000);
    }
}

#[test]
fn what_the_model_wrote_cannot_move_a_cursor_in_the_answer() {
    for command in [
        "ls \u{1b}[2J",
        "ls '\u{202e}x'",
        "l\u{200b}s",
        "ls -\u{9b}x",
        "ls \u{e0041}",
    ] {
        let line = json!({"tool": "exec", "args": {"command": command}}).to_string();
        let answer = explain(Rules::shipped(), &line, NOW);
        assert!(!answer.chars().any(tools::text::is_hidden), "{answer:?}");
    }
    let answer = explain(
        Rules::shipped(),
        "{\"tool\":\"\u{1b}[2J\u{202e}\",\"args\":{}}",
        NOW,
    );
    assert!(!answer.chars().any(tools::text::is_hidden), "{answer:?}");
}

#[test]
fn no_command_takes_long_to_decide_however_it_is_made() {
    let pieces = [
        "a", "a ", "\n", "''\"\"", "\\ ", "*", "[", "2>&1 ", "> a ", "&&", "/", "{", "{a,", "{a..",
        "${", "$((", "((", "(", "[[", "`", "$(", "<(", "<<a", "/a/{", "=", "a=", "~", "!", "@(",
        "[[:a", "é", "#", "}", ",", "%", "-", ";;", "\\",
    ];
    let mut slowest = (std::time::Duration::ZERO, String::new());
    for length in [4000, 60_000] {
        for piece in pieces {
            let many = piece.repeat(length / piece.len());
            for command in [
                format!("ls {many}"),
                format!("awk '{many}' a"),
                format!("ls \"{many}\""),
                format!("ls a{many}|cat"),
            ] {
                let line = json!({"tool": "exec", "args": {"command": command}}).to_string();
                let started = std::time::Instant::now();
                answer(&line);
                if started.elapsed() > slowest.0 {
                    slowest = (started.elapsed(), command.chars().take(20).collect());
                }
            }
        }
    }
    // A generous bound for an unoptimised build on a busy machine.
    assert!(slowest.0.as_millis() < 2000, "{slowest:?}");
    eprintln!("{slowest:?}");
}
