//! The scripted model as a client sees it, read by the decoder that the agent uses.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "the helpers of a test may fail it"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use bulkhead_testkit::http;
use bulkhead_testkit::model::{Rule, Script, ScriptedModel, Speaks, Step, Then};
use model::{Call, CutOff, Decoder, DoneCall, Message, ModelEvent, ModelFault};
use protocol::agent::{ModelApi, ModelSpec, ToolCalling, ToolSpec};
use protocol::ids::ToolName;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);
const BOTH: [ModelApi; 2] = [ModelApi::Ollama, ModelApi::Openai];

fn spec(api: ModelApi, tool_calls: ToolCalling) -> ModelSpec {
    ModelSpec {
        api,
        name: "scripted".to_owned(),
        tool_calls,
        context_tokens: 4_000,
        answer_tokens: 500,
    }
}

fn tools() -> Vec<ToolSpec> {
    vec![ToolSpec {
        name: ToolName::parse("exec").unwrap(),
        description: "Run.".to_owned(),
        parameters: json!({ "type": "object", "properties": { "command": { "type": "string" } }, "required": ["command"] }),
    }]
}

fn user(text: &str) -> Vec<Message> {
    vec![Message::User(text.to_owned())]
}

fn body(spec: &ModelSpec, conversation: &[Message]) -> Value {
    serde_json::from_str(&model::request_body(spec, "s", &tools(), conversation)).unwrap()
}

/// Asks, and reads the whole answer.
fn ask(
    server: &ScriptedModel,
    spec: &ModelSpec,
    conversation: &[Message],
) -> Result<Result<Vec<ModelEvent>, CutOff>, ModelFault> {
    let response = http::post(
        server.port(),
        model::chat_path(spec.api),
        &body(spec, conversation),
    )
    .send();
    assert_eq!(response.status, 200, "{}", response.body);
    let mut decoder = Decoder::new(spec.api, spec.tool_calls);
    let mut events = decoder.push(&response.body)?;
    Ok(decoder.end()?.map(|rest| {
        events.extend(rest);
        events
    }))
}

/// The text and the calls of a complete answer.
fn answer(
    server: &ScriptedModel,
    spec: &ModelSpec,
    conversation: &[Message],
) -> (String, Vec<Call>) {
    let (mut text, mut calls) = (String::new(), Vec::new());
    let events = ask(server, spec, conversation).unwrap().unwrap();
    assert!(
        matches!(events.last(), Some(ModelEvent::Done(done)) if done.tokens.is_some()),
        "{events:?}"
    );
    for event in events {
        match event {
            ModelEvent::Text(piece) => text.push_str(&piece),
            ModelEvent::Call(call) => calls.push(call),
            ModelEvent::Done(_) => {}
            ModelEvent::Unreadable { why, .. } => panic!("{why}"),
        }
    }
    (text, calls)
}

fn start(steps: impl IntoIterator<Item = Step>) -> ScriptedModel {
    ScriptedModel::start(Script::steps(steps)).unwrap()
}

#[test]
fn texts_and_calls_are_read_by_the_agent_s_decoder_in_both_formats_and_both_ways() {
    for api in BOTH {
        for way in [ToolCalling::Native, ToolCalling::Schema] {
            let spec = spec(api, way);
            let thinking = Step::Text {
                tokens: vec!["Grüß ".to_owned(), "\"dich\"\n😀\"".to_owned()],
                delay_ms: 1,
                thinking: match way {
                    ToolCalling::Native => vec!["Hm.".to_owned()],
                    ToolCalling::Schema => Vec::new(),
                },
                finish: "stop".to_owned(),
            };
            let server = start([thinking, Step::call("exec", json!({ "command": "ls" }))]);
            assert_eq!(
                answer(&server, &spec, &user("x")),
                ("Grüß \"dich\"\n😀\"".to_owned(), vec![])
            );
            let call = Call {
                name: "exec".to_owned(),
                args: r#"{"command":"ls"}"#.to_owned(),
            };
            assert_eq!(
                answer(&server, &spec, &user("x")),
                (String::new(), vec![call]),
                "{api:?} {way:?}"
            );
            let requests = server.requests();
            assert_eq!(requests.len(), 2);
            assert_eq!(requests[0].messages().last().unwrap(), "user: x");
        }
    }
}

#[test]
fn several_calls_come_in_one_answer_and_broken_arguments_as_they_are() {
    for api in BOTH {
        let server = start([Step::calls([("a", json!({})), ("b", json!("{\"x\":"))])]);
        let (_, calls) = answer(&server, &spec(api, ToolCalling::Native), &user("x"));
        let names: Vec<(&str, &str)> = calls
            .iter()
            .map(|call| (call.name.as_str(), call.args.as_str()))
            .collect();
        assert_eq!(names, [("a", "{}"), ("b", "{\"x\":")]);
    }
}

#[test]
fn an_endless_loop_of_tools_goes_on_and_echo_repeats_the_person() {
    let server = ScriptedModel::start(Script::endless("exec", json!({ "command": "ls" }))).unwrap();
    let spec = spec(ModelApi::Openai, ToolCalling::Native);
    for _ in 0..5 {
        assert_eq!(answer(&server, &spec, &user("x")).1.len(), 1);
    }
    let server = ScriptedModel::start(Script::echo()).unwrap();
    assert_eq!(
        answer(&server, &spec, &user("hello there")).0,
        "You said: hello there"
    );
}

#[test]
fn rules_follow_a_conversation_whichever_way_tools_are_called() {
    let steps = vec![
        Step::call("exec", json!({ "command": "date" })),
        Step::text("It is noon."),
    ];
    let rules = vec![Rule {
        contains: "time".to_owned(),
        steps,
    }];
    let server = ScriptedModel::start(Script {
        rules,
        then: Then::Echo,
        ..Script::default()
    })
    .unwrap();
    for way in [ToolCalling::Native, ToolCalling::Schema] {
        let spec = spec(ModelApi::Ollama, way);
        let mut conversation = user("what time is it?");
        let (_, mut calls) = answer(&server, &spec, &conversation);
        let done = DoneCall {
            call: calls.remove(0),
            result: "12:00".to_owned(),
        };
        conversation.push(Message::Calls {
            said: String::new(),
            calls: vec![done],
        });
        assert_eq!(answer(&server, &spec, &conversation).0, "It is noon.");
        conversation.extend([
            Message::Assistant("It is noon.".to_owned()),
            Message::User("thanks".to_owned()),
        ]);
        assert_eq!(answer(&server, &spec, &conversation).0, "You said: thanks");
    }
}

#[test]
fn faults_in_the_stream_are_what_they_are_called() {
    let tokens = || vec!["half ".to_owned()];
    for api in BOTH {
        for way in [ToolCalling::Native, ToolCalling::Schema] {
            let server = start([
                Step::EndEarly { tokens: tokens() },
                Step::BrokenJson { tokens: tokens() },
                Step::ErrorInStream {
                    tokens: tokens(),
                    message: "out of memory".to_owned(),
                },
                Step::Raw {
                    body: String::new(),
                },
            ]);
            let spec = spec(api, way);
            assert_eq!(ask(&server, &spec, &user("x")), Ok(Err(CutOff)));
            assert_eq!(ask(&server, &spec, &user("x")), Err(ModelFault::NotJson));
            let reported = ask(&server, &spec, &user("x"));
            assert!(
                matches!(&reported, Err(ModelFault::Reported { message, .. }) if message == "out of memory"),
                "{reported:?}"
            );
            assert_eq!(ask(&server, &spec, &user("x")), Ok(Err(CutOff)));
        }
    }
}

#[test]
fn statuses_come_with_their_headers_and_messages() {
    let server = start([Step::busy(7), Step::status(404, "no such model")]);
    let spec = spec(ModelApi::Openai, ToolCalling::Native);
    let send = || {
        http::post(
            server.port(),
            "/v1/chat/completions",
            &body(&spec, &user("x")),
        )
        .send()
    };
    let busy = send();
    assert_eq!((busy.status, busy.header("retry-after")), (429, Some("7")));
    let refused = send();
    assert_eq!(
        model::error_message(refused.status, &refused.body),
        "no such model"
    );
    let over = send();
    assert_eq!(
        (over.status, model::error_message(500, &over.body)),
        (500, "the script is over".to_owned())
    );
}

/// Sends a question over a plain socket, so that what the connection does can be seen.
fn raw(server: &ScriptedModel) -> TcpStream {
    let spec = spec(ModelApi::Ollama, ToolCalling::Native);
    let body = body(&spec, &user("x")).to_string();
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = format!(
        "POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn a_cut_connection_ends_without_the_last_chunk_and_a_hang_up_without_a_byte() {
    let server = start([
        Step::CutOff {
            tokens: vec!["half".to_owned()],
        },
        Step::HangUp,
    ]);
    let mut all = Vec::new();
    // The server may reset the connection; what came before counts.
    let _ = raw(&server).read_to_end(&mut all);
    let text = String::from_utf8(all).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200") && text.contains("half"),
        "{text}"
    );
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    let mut all = Vec::new();
    let _ = raw(&server).read_to_end(&mut all);
    assert_eq!(all, b"");
    assert_eq!(server.disconnects(), 0);
}

#[test]
fn clients_that_go_away_are_counted_wherever_the_answer_was() {
    let tokens = vec!["once ".to_owned()];
    let late = Step::Late {
        ms: 60_000,
        text: "never".to_owned(),
    };
    let server = start([
        Step::Stall { tokens, ms: 60_000 },
        late,
        Step::slow_text(&"word ".repeat(1_000), 50),
    ]);
    let first = raw(&server);
    let mut line = String::new();
    let mut reader = BufReader::new(&first);
    while !line.contains("once ") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    drop(first);
    assert!(server.wait_for_disconnects(1, LIMIT));
    let second = raw(&server);
    assert!(server.wait_for_requests(2, LIMIT));
    drop(second);
    assert!(server.wait_for_disconnects(2, LIMIT));
    let third = raw(&server);
    assert!(server.wait_for_requests(3, LIMIT));
    drop(third);
    assert!(server.wait_for_disconnects(3, LIMIT));
    assert!(!server.wait_for_disconnects(4, Duration::from_millis(1)));
}

#[test]
fn a_server_says_what_it_can_do_and_only_in_the_format_it_speaks() {
    let script = |speaks, tool_calls| Script {
        speaks,
        tool_calls,
        ..Script::echo()
    };
    for way in [ToolCalling::Native, ToolCalling::Schema] {
        let server = ScriptedModel::start(script(Speaks::Both, way)).unwrap();
        let props = http::get(server.port(), "/props").send();
        assert_eq!(model::tool_calling_from_props(&props.body), Some(way));
        let show = http::post(server.port(), "/api/show", &json!({ "model": "scripted" })).send();
        assert_eq!(model::tool_calling_from_show(&show.body), Some(way));
    }
    let ollama = ["/api/version", "/api/tags"];
    let openai = ["/v1/models", "/props", "/health"];
    for (speaks, there, missing) in [
        (Speaks::Ollama, &ollama[..], &openai[..]),
        (Speaks::Openai, &openai, &ollama),
    ] {
        let server = ScriptedModel::start(script(speaks, ToolCalling::Native)).unwrap();
        for path in there {
            assert_eq!(http::get(server.port(), path).send().status, 200, "{path}");
        }
        for path in missing {
            assert_eq!(http::get(server.port(), path).send().status, 404, "{path}");
        }
    }
}

#[test]
fn requests_that_are_none_are_refused_and_use_up_no_step() {
    let server = start([Step::text("ok")]);
    for body in [
        json!({ "messages": [] , "stream": true }),
        json!({ "messages": [{}], "stream": false }),
        json!(7),
    ] {
        assert_eq!(
            http::post(server.port(), "/v1/chat/completions", &body)
                .send()
                .status,
            400,
            "{body}"
        );
    }
    assert_eq!(
        answer(
            &server,
            &spec(ModelApi::Openai, ToolCalling::Native),
            &user("x")
        )
        .0,
        "ok"
    );
}

#[test]
fn the_program_serves_a_script_until_its_input_closes() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(br#"{ "steps": [{ "text": { "tokens": ["from a file"] } }] }"#)
        .unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_bulkhead-scripted-model"))
        .args(["--port", "0", "--script"])
        .arg(file.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = line
        .trim()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .expect("a port");
    let spec = spec(ModelApi::Ollama, ToolCalling::Native);
    let response = http::post(port, "/api/chat", &body(&spec, &user("x"))).send();
    assert!(response.body.contains("from a file"));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());

    let wrong = Command::new(env!("CARGO_BIN_EXE_bulkhead-scripted-model"))
        .arg("--nonsense")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}
