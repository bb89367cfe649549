//! Answers as servers stream them, whole, cut at every place, and broken.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use bulkhead_model::{Call, CutOff, Decoder, Done, ModelEvent, ModelFault, Stop};
use protocol::agent::{ModelApi, ToolCalling};
use protocol::event::Tokens;

use ModelApi::{Ollama, Openai};
use ToolCalling::{Native, Schema};

type Outcome = Result<Result<Vec<ModelEvent>, CutOff>, ModelFault>;

/// The events of a stream that comes in these pieces; neighbouring texts are joined.
fn decode(api: ModelApi, tool_calls: ToolCalling, pieces: &[&str]) -> Outcome {
    let mut decoder = Decoder::new(api, tool_calls);
    let mut all: Vec<ModelEvent> = Vec::new();
    for piece in pieces {
        all.extend(decoder.push(piece)?);
    }
    let complete = match decoder.end()? {
        Ok(last) => last,
        Err(cut) => return Ok(Err(cut)),
    };
    let mut joined: Vec<ModelEvent> = Vec::new();
    for event in all.into_iter().chain(complete) {
        match (joined.last_mut(), event) {
            (Some(ModelEvent::Text(last)), ModelEvent::Text(text)) => last.push_str(&text),
            (_, event) => joined.push(event),
        }
    }
    Ok(Ok(joined))
}

/// Decodes a stream whole and cut in two and in three at every place; all must give the same.
fn golden(api: ModelApi, tool_calls: ToolCalling, stream: &str) -> Outcome {
    let whole = decode(api, tool_calls, &[stream]);
    let cuts: Vec<usize> = (0..=stream.len())
        .filter(|at| stream.is_char_boundary(*at))
        .collect();
    for cut in &cuts {
        let (left, right) = stream.split_at(*cut);
        assert_eq!(
            decode(api, tool_calls, &[left, right]),
            whole,
            "cut at {cut}"
        );
        let later = cuts
            .iter()
            .copied()
            .find(|at| *at >= cut + 7)
            .unwrap_or(stream.len());
        let (middle, right) = right.split_at(later - cut);
        assert_eq!(
            decode(api, tool_calls, &[left, middle, right]),
            whole,
            "cut at {cut} and {later}"
        );
    }
    let letters: Vec<&str> = cuts
        .windows(2)
        .map(|pair| &stream[pair[0]..pair[1]])
        .collect();
    assert_eq!(decode(api, tool_calls, &letters), whole, "letter by letter");
    whole
}

fn text(text: &str) -> ModelEvent {
    ModelEvent::Text(text.to_owned())
}

fn call(name: &str, args: &str) -> ModelEvent {
    ModelEvent::Call(Call {
        name: name.to_owned(),
        args: args.to_owned(),
    })
}

fn done(prompt: u64, answer: u64) -> ModelEvent {
    ModelEvent::Done(Done {
        tokens: Some(Tokens { prompt, answer }),
        stop: Stop::Complete,
    })
}

const OLLAMA_TEXT: &str = concat!(
    r#"{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"","thinking":"Hm."},"done":false}"#,
    "\n",
    r#"{"model":"m","message":{"role":"assistant","content":"Grüß "},"done":false}"#,
    "\r\n\n",
    r#"{"model":"m","message":{"role":"assistant","content":"dich \ud83d\ude00"},"done":false}"#,
    "\n",
    r#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":5,"prompt_eval_count":26,"eval_count":4}"#,
    "\n",
);

const OLLAMA_CALLS: &str = concat!(
    r#"{"message":{"role":"assistant","content":"Looking.","tool_calls":[{"function":{"name":"read_file","arguments":{"path": "a", "lines": 1e2}}},{"function":{"index":1,"name":"list_files","arguments":{}}}]},"done":false}"#,
    "\n",
    r#"{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":3}"#,
);

const OPENAI_TEXT: &str = concat!(
    ": keep-alive\r\n\r\n",
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null}}]}\r\n\r\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"Hm.\"},\"finish_reason\":null}]}\r\n\r\n",
    "event: message\nid: 7\ndata:{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Grüß \"},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"dich 😀\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":26,\"completion_tokens\":4,\"total_tokens\":30}}\n\n",
    "data: [DONE]\n\n",
);

const OPENAI_CALLS: &str = concat!(
    r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Looking."}}]}"#,
    "\n\n",
    r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"read_file","arguments":""}}]}}]}"#,
    "\n\n",
    r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"list_files","arguments":""}}]}}]}"#,
    "\n\n",
    r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"path\":"}}]}}]}"#,
    "\n\n",
    r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"read_file","arguments":" \"a\"}"}}]}}]}"#,
    "\n\n",
    r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#,
    "\n\n",
    "data: [DONE]\n\n",
);

#[test]
fn text_comes_out_the_same_wherever_the_stream_is_cut() {
    let events = Ok(Ok(vec![text("Grüß dich 😀"), done(26, 4)]));
    assert_eq!(golden(Ollama, Native, OLLAMA_TEXT), events);
    assert_eq!(golden(Openai, Native, OPENAI_TEXT), events);
}

#[test]
fn calls_come_out_whole_and_their_arguments_as_they_were_written() {
    let events = |args: &str| {
        Ok(Ok(vec![
            text("Looking."),
            call("read_file", args),
            call("list_files", "{}"),
            done(9, 3),
        ]))
    };
    assert_eq!(
        golden(Ollama, Native, OLLAMA_CALLS),
        events(r#"{"path": "a", "lines": 1e2}"#)
    );
    assert_eq!(
        golden(Openai, Native, OPENAI_CALLS),
        events(r#"{"path": "a"}"#)
    );
}

#[test]
fn arguments_that_are_not_json_are_passed_on() {
    let stream = r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"x","arguments":"{\"a\":"}}]},"finish_reason":"tool_calls"}]}"#;
    assert_eq!(
        golden(Openai, Native, stream).unwrap().unwrap()[0],
        call("x", r#"{"a":"#)
    );
    let stream = r#"{"message":{"tool_calls":[{"function":{"name":"x","arguments":"no object"}}]},"done":true}"#;
    assert_eq!(
        golden(Ollama, Native, stream).unwrap().unwrap()[0],
        call("x", "no object")
    );
}

#[test]
fn calls_without_an_index_are_told_apart_by_their_names() {
    let piece = |name: &str, args: &str| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"function\":{{{name}\"arguments\":\"{args}\"}}}}]}}}}]}}\n\n"
        )
    };
    let stream = [
        piece("\"name\":\"a\",", "1"),
        piece("", "2"),
        piece("\"name\":\"b\",", "3"),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat();
    let events = golden(Openai, Native, &stream).unwrap().unwrap();
    assert_eq!(events[..2], [call("a", "12"), call("b", "3")]);
}

#[test]
fn an_answer_at_its_limit_says_so() {
    let length = |tokens| {
        Ok(Ok(vec![
            text("a"),
            ModelEvent::Done(Done {
                tokens,
                stop: Stop::Length,
            }),
        ]))
    };
    let stream = r#"{"message":{"content":"a"},"done":true,"done_reason":"length"}"#;
    assert_eq!(golden(Ollama, Native, stream), length(None));
    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n";
    assert_eq!(golden(Openai, Native, stream), length(None));
}

#[test]
fn a_stream_without_its_end_is_cut_off_and_never_an_answer() {
    for stream in [OLLAMA_TEXT, OLLAMA_CALLS] {
        let last = stream.trim_end().rfind('\n').unwrap();
        for end in (0..stream.trim_end().len()).filter(|end| stream.is_char_boundary(*end)) {
            assert_eq!(
                decode(Ollama, Native, &[&stream[..end]]),
                Ok(Err(CutOff)),
                "ends at {end} of {last}"
            );
        }
    }
    for stream in [OPENAI_TEXT, OPENAI_CALLS] {
        let finish = stream.find("finish_reason\":\"").unwrap();
        for end in (0..finish).filter(|end| stream.is_char_boundary(*end)) {
            assert_eq!(
                decode(Openai, Native, &[&stream[..end]]),
                Ok(Err(CutOff)),
                "ends at {end}"
            );
        }
    }
}

#[test]
fn a_finish_reason_ends_an_answer_whose_server_leaves_out_done() {
    let stream = OPENAI_TEXT.strip_suffix("data: [DONE]\n\n").unwrap();
    assert_eq!(
        golden(Openai, Native, stream),
        Ok(Ok(vec![text("Grüß dich 😀"), done(26, 4)]))
    );
}

#[test]
fn what_follows_the_end_is_ignored() {
    let more = format!("{OPENAI_TEXT}data: nonsense\n\n");
    assert_eq!(
        decode(Openai, Native, &[&more]),
        decode(Openai, Native, &[OPENAI_TEXT])
    );
    let mut decoder = Decoder::new(Ollama, Native);
    decoder.push(OLLAMA_TEXT).unwrap();
    assert!(decoder.is_done());
    assert_eq!(decoder.push("nonsense\n"), Ok(Vec::new()));
    assert_eq!(decoder.end(), Ok(Ok(Vec::new())));
}

#[test]
fn broken_json_and_json_of_another_form_are_faults() {
    assert_eq!(
        decode(Ollama, Native, &["{\"message\":{\"content\":\"a\n"]),
        Err(ModelFault::NotJson)
    );
    assert_eq!(
        decode(Ollama, Native, &["<html>\n"]),
        Err(ModelFault::NotJson)
    );
    assert!(matches!(
        decode(Ollama, Native, &["{\"message\":7}\n"]),
        Err(ModelFault::WrongShape(_))
    ));
    assert!(matches!(
        decode(Ollama, Native, &["{\"models\":[]}\n"]),
        Err(ModelFault::WrongShape(_))
    ));
    assert_eq!(
        decode(Openai, Native, &["data: {\"choices\":[\n\n"]),
        Err(ModelFault::NotJson)
    );
    assert!(matches!(
        decode(Openai, Native, &["data: {\"choices\":7}\n\n"]),
        Err(ModelFault::WrongShape(_))
    ));
    assert!(matches!(
        decode(Openai, Native, &["data: {\"a\":7}\n\n"]),
        Err(ModelFault::WrongShape(_))
    ));
    assert!(matches!(
        decode(
            Openai,
            Native,
            &["{\"choices\":[{\"message\":{\"content\":\"a\"}}]}\n"]
        ),
        Err(ModelFault::WrongShape(_))
    ));
}

#[test]
fn an_error_in_the_stream_is_the_server_s_own_words() {
    let reported = |status| {
        Err(ModelFault::Reported {
            status,
            message: "out of memory".to_owned(),
        })
    };
    assert_eq!(
        golden(Ollama, Native, "{\"error\":\"out of\\u001b memory\"}\n"),
        reported(None)
    );
    for line in ["data: ", "error: ", ""] {
        let inner = "{\"code\":500,\"message\":\"out of memory\",\"type\":\"server_error\"}";
        let object = if line == "error: " {
            inner.to_owned()
        } else {
            format!("{{\"error\":{inner}}}")
        };
        assert_eq!(
            golden(Openai, Native, &format!("{line}{object}\n\n")),
            reported(Some(500)),
            "{line}"
        );
    }
}

#[test]
fn answers_lines_streams_and_calls_are_bounded() {
    let piece = |text: &str| format!("{{\"message\":{{\"content\":\"{text}\"}},\"done\":false}}\n");
    let mut decoder = Decoder::new(Ollama, Native);
    let long = piece(&"x".repeat(100_000));
    let fault = (0..10).find_map(|_| decoder.push(&long).err());
    assert!(
        matches!(fault, Some(ModelFault::AnswerTooLong(_))),
        "{fault:?}"
    );

    let fault = decode(Openai, Native, &[&"x".repeat(2_000_000)]);
    assert!(
        matches!(fault, Err(ModelFault::LineTooLong(_))),
        "{fault:?}"
    );
    let event = format!("data: {}\n", "x".repeat(900_000));
    assert!(matches!(
        decode(Openai, Native, &[&event, &event]),
        Err(ModelFault::LineTooLong(_))
    ));

    let comment = format!(": {}\n", "x".repeat(1_000_000));
    let mut decoder = Decoder::new(Openai, Native);
    let fault = (0..40).find_map(|_| decoder.push(&comment).err());
    assert!(
        matches!(fault, Some(ModelFault::StreamTooLong(_))),
        "{fault:?}"
    );

    let call = r#"{"message":{"tool_calls":[{"function":{"name":"x","arguments":{}}}]}}"#;
    let calls = format!("{call}\n").repeat(33);
    assert!(matches!(
        decode(Ollama, Native, &[&calls]),
        Err(ModelFault::TooManyCalls(_))
    ));
    let far = r#"data: {"choices":[{"delta":{"tool_calls":[{"index":99999999,"function":{"name":"x"}}]}}]}"#;
    assert!(matches!(
        decode(Openai, Native, &[&format!("{far}\n\n")]),
        Err(ModelFault::TooManyCalls(_))
    ));
}

#[test]
fn deep_nesting_is_a_fault_not_a_crash() {
    let deep = format!("{{\"message\":{}\n", "[".repeat(200_000));
    assert_eq!(
        decode(Ollama, Native, &[&deep]),
        Err(ModelFault::WrongShape("not a line of a chat answer"))
    );
    let deep = format!("{{\"error\":{}\n", "[".repeat(200_000));
    assert_eq!(decode(Ollama, Native, &[&deep]), Err(ModelFault::NotJson));
}

/// A stream of Ollama's whose content is this text in pieces of three characters.
fn constrained(answer: &str, reason: &str) -> String {
    let letters: Vec<char> = answer.chars().collect();
    let line = |content: String, done: &str| {
        format!(
            "{{\"message\":{{\"content\":{}}}{done}}}\n",
            serde_json::json!(content)
        )
    };
    let mut stream: String = letters
        .chunks(3)
        .map(|piece| line(piece.iter().collect(), ""))
        .collect();
    stream.push_str(&line(
        String::new(),
        &format!(",\"done\":true,\"done_reason\":\"{reason}\",\"eval_count\":1"),
    ));
    stream
}

fn schema(answer: &str, reason: &str) -> Vec<ModelEvent> {
    let mut events = golden(Ollama, Schema, &constrained(answer, reason))
        .unwrap()
        .unwrap();
    assert!(matches!(events.pop(), Some(ModelEvent::Done(_))));
    events
}

#[test]
fn the_text_of_a_reply_is_taken_out_of_its_json() {
    assert_eq!(
        schema(r#"{"reply":"Grüß dich"}"#, "stop"),
        [text("Grüß dich")]
    );
    assert_eq!(
        schema(
            " \n{ \"reply\" : \"a\\n\\\"b\\\"\\\\ \\u00e9\\ud83d\\ude00\\/\" }\n",
            "stop"
        ),
        [text("a\n\"b\"\\ é😀/")]
    );
    assert_eq!(
        schema(r#"{"reply":"a\ud83dx\ude00\ud83d"}"#, "stop"),
        [text("a\u{fffd}x\u{fffd}\u{fffd}")]
    );
    assert_eq!(schema(r#"{"reply":""}"#, "stop"), []);
    assert_eq!(schema("", "stop"), []);
    // What was read so far stays the answer when the limit was reached.
    assert_eq!(
        schema(r#"{"reply":"once upon a"#, "length"),
        [text("once upon a")]
    );
}

#[test]
fn the_text_of_a_reply_streams_before_its_json_is_complete() {
    let mut decoder = Decoder::new(Ollama, Schema);
    let piece = "{\"message\":{\"content\":\"{\\\"reply\\\": \\\"Hel\"}}\n";
    assert_eq!(decoder.push(piece).unwrap(), [text("Hel")]);
}

#[test]
fn a_call_is_read_when_its_json_is_complete() {
    let answer = r#"{"tool":"read_file","arguments":{"path": "a\u0062"}}"#;
    assert_eq!(
        schema(answer, "stop"),
        [call("read_file", r#"{"path": "a\u0062"}"#)]
    );
    assert_eq!(
        schema(r#"{"arguments":[1], "tool":"x"}"#, "stop"),
        [call("x", "[1]")]
    );
}

#[test]
fn anything_else_is_unreadable_and_never_a_guess() {
    for answer in [
        "I will read the file.",
        r#""reply""#,
        r#"["reply"]"#,
        r#"{}"#,
        r#"{"text":"a"}"#,
        r#"{"reply":7}"#,
        r#"{"reply":"a","tool":"x","arguments":{}}"#,
        r#"{"reply":"a"} and more"#,
        r#"{"reply":"a\x"}"#,
        r#"{"reply":"a\u12g4"}"#,
        "{\"reply\":\"a\nb\"}",
        r#"{"reply":"a"#,
        r#"{"tool":"x"}"#,
        r#"{"tool":"x","arguments":{},"why":1}"#,
        r#"{"tool":"x","tool":"y","arguments":{}}"#,
        r#"{"tool":7,"arguments":{}}"#,
        r#"{"tool":"x","arguments":{"#,
        r#"{"tool":"x","arguments":{}} {}"#,
    ] {
        let events = schema(answer, "stop");
        let Some(ModelEvent::Unreadable { text, .. }) = events.last() else {
            panic!("{answer}: {events:?}")
        };
        assert_eq!(text, answer);
        assert!(
            !events
                .iter()
                .any(|event| matches!(event, ModelEvent::Call(_))),
            "{answer}"
        );
    }
    let events = schema(r#"{"tool":"x","arguments":{"#, "length");
    assert!(
        matches!(&events[..], [ModelEvent::Unreadable { why, .. }] if why.contains("limit")),
        "{events:?}"
    );
}

#[test]
fn a_call_that_nobody_offered_is_a_fault_with_a_schema() {
    assert!(matches!(
        decode(Ollama, Schema, &[OLLAMA_CALLS]),
        Err(ModelFault::WrongShape(_))
    ));
}
