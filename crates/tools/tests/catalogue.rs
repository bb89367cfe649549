//! The catalogue and the reading of calls, as the gateway uses them.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use bulkhead_tools::{BadCall, MAX_ARGS, MAX_COMMAND, catalogue, resolve};
use protocol::call::{ToolCall, WorkspacePath};

fn path(text: &str) -> WorkspacePath {
    WorkspacePath::parse(text).unwrap()
}

fn refused(name: &str, args: &str) -> String {
    match resolve(name, args, "/home/owner/work") {
        Ok(call) => panic!("{name} {args} was read as {call:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_tool_has_a_closed_schema_and_a_description() {
    let tools = catalogue();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "read_file",
            "write_file",
            "edit_file",
            "list_files",
            "search_files",
            "exec",
            "web_fetch",
            "http_request"
        ]
    );
    for tool in tools {
        let schema = tool.parameters;
        assert_eq!(schema["type"], "object", "{}", tool.name);
        assert_eq!(schema["additionalProperties"], false, "{}", tool.name);
        assert!(
            !tool.description.contains("  "),
            "{}: {}",
            tool.name,
            tool.description
        );
        let known = schema["properties"].as_object().unwrap();
        for required in schema["required"].as_array().unwrap() {
            assert!(
                known.contains_key(required.as_str().unwrap()),
                "{}",
                tool.name
            );
        }
        assert!(
            known
                .values()
                .all(|property| property["description"].is_string()),
            "{}",
            tool.name
        );
    }
}

#[test]
fn calls_get_their_types_and_defaults() {
    let read = |name, args| resolve(name, args, "/home/owner/work").unwrap();
    assert_eq!(
        read("read_file", r#"{"path":"a/b"}"#),
        ToolCall::ReadFile {
            path: path("a/b"),
            first_line: 1,
            lines: 2000
        }
    );
    assert_eq!(
        read(
            "read_file",
            r#" {"lines":5,"path":"/home/owner/work/a","first_line":3}"#
        ),
        ToolCall::ReadFile {
            path: path("a"),
            first_line: 3,
            lines: 5
        }
    );
    assert_eq!(
        read("write_file", r#"{"path":"a","content":""}"#),
        ToolCall::WriteFile {
            path: path("a"),
            content: String::new()
        }
    );
    assert_eq!(
        read("edit_file", r#"{"path":"a","old":"x","new":""}"#),
        ToolCall::EditFile {
            path: path("a"),
            old: "x".into(),
            new: String::new()
        }
    );
    assert_eq!(
        read("list_files", "{}"),
        ToolCall::ListFiles {
            path: path("."),
            depth: 1
        }
    );
    assert_eq!(
        read("search_files", r#"{"text":"x"}"#),
        ToolCall::SearchFiles {
            text: "x".into(),
            path: path(".")
        }
    );
    assert_eq!(
        read("exec", r#"{"command":"ls -l"}"#),
        ToolCall::Exec {
            command: "ls -l".into()
        }
    );
}

#[test]
fn the_schema_and_the_reader_agree_on_what_is_required_and_what_is_known() {
    for tool in catalogue() {
        let name = tool.name.as_str();
        let sample = |property: &serde_json::Value| match property["type"].as_str() {
            Some("string") if property["enum"].is_array() => serde_json::json!("POST"),
            Some("string") => serde_json::json!("a"),
            Some("integer") => serde_json::json!(2),
            Some("object") => serde_json::json!({ "accept": "text/plain" }),
            other => panic!("{name}: {other:?}"),
        };
        let mut args = serde_json::Map::new();
        for (field, property) in tool.parameters["properties"].as_object().unwrap() {
            args.insert(field.clone(), sample(property));
        }
        if args.contains_key("url") {
            args.insert("url".into(), "https://example.com/a".into());
        }
        if name == "http_request" {
            // Without a method it is GET, with which no body goes.
            args.remove("body");
        }
        if name == "edit_file" {
            args.insert("new".into(), "b".into());
        }
        let all = serde_json::to_string(&args).unwrap();
        assert!(resolve(name, &all, "/w").is_ok(), "{name} {all}");
        for field in args.keys() {
            let mut fewer = args.clone();
            fewer.remove(field);
            let required = tool.parameters["required"]
                .as_array()
                .unwrap()
                .contains(&field.as_str().into());
            let read = resolve(name, &serde_json::to_string(&fewer).unwrap(), "/w");
            assert_eq!(read.is_err(), required, "{name} without {field}: {read:?}");
        }
        args.insert("cwd".into(), "/".into());
        assert!(
            refused(name, &serde_json::to_string(&args).unwrap()).contains("unknown field `cwd`")
        );
    }
}

#[test]
fn an_unknown_tool_is_told_the_names_that_there_are() {
    for name in ["", "Exec", "exec ", "http_requests", "../exec"] {
        assert!(
            refused(name, "{}")
                .contains("read_file, write_file, edit_file, list_files, search_files, exec")
        );
    }
    assert!(refused(&"x".repeat(1_000_000), "{}").len() < 1000);
}

#[test]
fn what_is_not_exactly_a_call_is_refused_with_what_is_right() {
    for (name, args, says) in [
        ("read_file", "", "not a JSON object"),
        ("read_file", r#"["a"]"#, "not a JSON object"),
        ("read_file", r#""a""#, "not a JSON object"),
        ("read_file", "null", "not a JSON object"),
        ("read_file", r#"{"path":1}"#, "expected a string"),
        ("read_file", r#"{"path":null}"#, "expected a string"),
        ("read_file", r#"{"path":"a","lines":"5"}"#, "expected u32"),
        ("read_file", r#"{"path":"a","lines":1.5}"#, "expected u32"),
        ("read_file", r#"{"path":"a","lines":-1}"#, "expected u32"),
        (
            "read_file",
            r#"{"path":"a","lines":0}"#,
            "goes from 1 to 100000",
        ),
        ("read_file", r#"{"path":"a","first_line":0}"#, "goes from 1"),
        ("read_file", r#"{"path":"a","path":"b"}"#, "duplicate field"),
        ("read_file", r#"{"path":"a"} x"#, "trailing characters"),
        ("read_file", r#"{"path":"a""#, "EOF"),
        ("read_file", r#"{"path":"."}"#, "the workspace itself"),
        (
            "write_file",
            r#"{"path":"","content":"x"}"#,
            "the workspace itself",
        ),
        ("list_files", r#"{"depth":6}"#, "goes from 1 to 5"),
        ("search_files", r#"{"text":""}"#, "is empty"),
        ("search_files", r#"{"text":"a\nb"}"#, "line's end"),
        (
            "edit_file",
            r#"{"path":"a","old":"","new":"x"}"#,
            "is empty",
        ),
        (
            "edit_file",
            r#"{"path":"a","old":"x","new":"x"}"#,
            "nothing would change",
        ),
        ("exec", r#"{"command":" \n"}"#, "is empty"),
        ("exec", r#"{"command":"ls\u0000"}"#, "NUL"),
        ("exec", r#"{"command":["ls"]}"#, "expected a string"),
    ] {
        let error = refused(name, args);
        assert!(error.contains(says), "{name} {args}: {error}");
    }
}

#[test]
fn paths_outside_the_workspace_are_refused() {
    for bad in [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "/home/owner/work2/x",
        "/home/owner",
        "/home/owner/work/../x",
    ] {
        for (name, more) in [
            ("read_file", ""),
            ("list_files", ""),
            ("search_files", r#","text":"x""#),
        ] {
            assert!(
                refused(name, &format!(r#"{{"path":"{bad}"{more}}}"#))
                    .contains("outside the workspace")
            );
        }
    }
    assert!(refused("read_file", r#"{"path":"a\u0000b"}"#).contains("control characters"));
    assert!(
        refused(
            "read_file",
            &format!(r#"{{"path":"{}"}}"#, "a".repeat(5000))
        )
        .contains("4095")
    );
}

#[test]
fn limits_refuse_and_errors_stay_short() {
    let long = format!(r#"{{"command":"{}"}}"#, "a".repeat(10_000_000));
    assert_eq!(
        resolve("exec", &long, "/w"),
        Err(BadCall::TooLong(long.len()))
    );
    let long = format!(r#"{{"command":"{}"}}"#, "a".repeat(MAX_COMMAND + 1));
    assert!(refused("exec", &long).contains("65536"));
    let fits = format!(r#"{{"command":"{}"}}"#, "a".repeat(MAX_COMMAND));
    assert!(resolve("exec", &fits, "/w").is_ok());
    let deep = format!(r#"{{"path":{}1{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert!(refused("read_file", &deep).len() < 1000);
    let deep = format!(
        r#"{{"x":{}1{}}}"#,
        r#"{"x":"#.repeat(1000),
        "}".repeat(1000)
    );
    assert!(refused("read_file", &deep).len() < 1000);
    let name = format!(r#"{{"{}":1}}"#, "n".repeat(MAX_ARGS - 100));
    assert!(refused("read_file", &name).len() < 1000);
    let escape = refused("read_file", r#"{"\u001b[2J":1}"#);
    assert!(!escape.contains('\u{1b}'), "{escape:?}");
}

#[test]
fn a_header_that_is_not_the_model_s_is_refused_before_anybody_is_asked() {
    let call = |name: &str, more: &str| {
        format!(
            r#"{{"method":"PUT","url":"https://example.com/a","headers":{{"{name}":"x"}}{more}}}"#
        )
    };
    for name in [
        "X-Amz-Copy-Source",
        "x-goog-copy-source",
        "x-ms-copy-source",
        "Destination",
        "X-Original-URL",
        "Authorization",
        "Host",
        "X_Forwarded_For",
    ] {
        let why = refused("http_request", &call(name, ""));
        assert!(why.contains("is not taken"), "{name}: {why}");
    }
    let secret = r#","credential":"key""#;
    assert!(resolve("http_request", &call("Range", ""), "/w").is_ok());
    assert!(refused("http_request", &call("Range", secret)).contains("whole answer"));
    assert!(resolve("http_request", &call("x-amz-meta-note", secret), "/w").is_ok());
}
