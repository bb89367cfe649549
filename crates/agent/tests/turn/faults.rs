//! What goes wrong with the model, its server and the limits.

use std::time::Duration;

use bulkhead_agent::turn::Input;
use protocol::agent::{AgentRequest, TurnFault};
use protocol::egress::EgressFault;
use serde_json::json;

use crate::bench::{Bench, TURN, broken, calls, contents, done, spec, start, text};

#[test]
fn a_model_that_asks_for_tools_for_ever_is_stopped_at_the_limit() {
    let mut bench = Bench::with(start(spec(), Vec::new(), 3));
    bench.turn("x");
    for round in 1..=3 {
        bench.body();
        bench.answer(&[calls("", &[("read_file", json!({}))])]);
        if round < 3 {
            bench.call(round, "read_file", "{}", "");
            bench.result(round, "r");
        }
    }
    // The last calls are not made: nobody would read what came of them.
    bench.fails_with(TurnFault::TooManyRounds { limit: 3 });
}

#[test]
fn every_fault_of_egress_ends_the_turn_with_its_own_name() {
    let detail = || "no status line".to_owned();
    for (fault, expected) in [
        (
            EgressFault::Unreachable { detail: detail() },
            TurnFault::ModelDown,
        ),
        (EgressFault::CutOff, TurnFault::ModelCutOff),
        (EgressFault::Slow { seconds: 60 }, TurnFault::ModelSlow),
        (
            EgressFault::TooLarge { bytes: 9 },
            broken("the answer is over 9 bytes"),
        ),
        (
            EgressFault::Protocol { detail: detail() },
            broken("no status line"),
        ),
        (EgressFault::NoRecord, TurnFault::NoRecord),
        (
            EgressFault::NotAllowed {
                reason: "not loopback".to_owned(),
            },
            TurnFault::ModelRefused {
                status: 0,
                message: "not loopback".to_owned(),
            },
        ),
    ] {
        let mut early = Bench::asked("x");
        early.failed(fault.clone());
        early.fails_with(expected.clone());
        let mut midway = Bench::asked("x");
        midway.status(200);
        midway.chunk(&text("half"));
        midway.token("half");
        midway.failed(fault);
        midway.fails_with(expected);
    }
}

#[test]
fn a_connection_that_breaks_behind_the_whole_answer_does_no_harm() {
    for fault in [EgressFault::CutOff, EgressFault::Slow { seconds: 60 }] {
        let mut bench = Bench::asked("x");
        bench.status(200);
        bench.chunk(&(text("ok") + &done("stop")));
        bench.token("ok");
        bench.failed(fault);
        bench.finished("ok");
    }
    let mut bench = Bench::asked("x");
    bench.status(200);
    bench.chunk(&(text("ok") + &done("stop")));
    bench.token("ok");
    bench.feed(Input::ModelLost).unwrap();
    bench.finished("ok");
}

#[test]
fn an_answer_that_the_record_did_not_take_is_no_answer() {
    let mut bench = Bench::asked("x");
    bench.status(200);
    bench.chunk(&(text("ok") + &done("stop")));
    bench.token("ok");
    bench.failed(EgressFault::NoRecord);
    bench.fails_with(TurnFault::NoRecord);
}

#[test]
fn a_stream_that_ends_before_the_answer_does_is_cut_off() {
    let mut bench = Bench::asked("x");
    bench.status(200);
    bench.chunk(&text("half"));
    bench.token("half");
    bench.end();
    bench.fails_with(TurnFault::ModelCutOff);
    let mut bench = Bench::asked("x");
    bench.status(200);
    bench.end();
    bench.fails_with(TurnFault::ModelCutOff);
}

#[test]
fn a_lost_egress_fails_the_turn_and_the_next_one_works() {
    let mut bench = Bench::asked("x");
    bench.status(200);
    bench.feed(Input::ModelLost).unwrap();
    bench.fails_with(TurnFault::ModelDown);
    bench.turn("y");
    bench.body();
    bench.answer(&[text("ok")]);
    bench.token("ok");
    bench.finished("ok");
}

#[test]
fn a_busy_server_and_one_that_refuses_are_told_apart() {
    for status in [429, 503] {
        let mut bench = Bench::asked("x");
        bench.status(status);
        bench.chunk("{\"error\":\"busy\"}");
        bench.end();
        bench.fails_with(TurnFault::ModelBusy {
            retry_after: Some(9),
        });
    }
    let refused = |status, message: &str| TurnFault::ModelRefused {
        status,
        message: message.to_owned(),
    };
    let mut bench = Bench::asked("x");
    bench.status(404);
    bench.chunk("{\"error\":\"model \\\"m\\\" ");
    bench.chunk("not found\"}");
    bench.end();
    bench.fails_with(refused(404, "model \"m\" not found"));
    // A refusal stays one when its body breaks off, or never ends.
    let mut bench = Bench::asked("x");
    bench.status(500);
    for _ in 0..100 {
        bench.chunk(&"x".repeat(10_000));
    }
    bench.failed(EgressFault::CutOff);
    bench.fails_with(refused(500, &format!("{}…", "x".repeat(300))));
}

#[test]
fn broken_streams_drop_the_request() {
    let not_json = "a line of the stream is not JSON";
    let mut bench = Bench::asked("x");
    bench.status(200);
    bench.chunk("{\"message\":\n");
    bench.dropped();
    bench.fails_with(broken(not_json));

    let mut bench = Bench::asked("x");
    bench.status(200);
    bench.chunk("{\"error\":\"out of memory\"}\n");
    bench.dropped();
    bench.fails_with(TurnFault::ModelRefused {
        status: 200,
        message: "out of memory".to_owned(),
    });

    let mut bench = Bench::asked("x");
    bench.chunk("x");
    bench.dropped();
    bench.fails_with(broken("a piece came before the status"));
}

#[test]
fn an_answer_without_text_and_calls_is_a_fault() {
    let mut bench = Bench::asked("x");
    bench.answer(&[text(" \n")]);
    bench.token(" \n");
    bench.fails_with(broken("the answer is empty"));
    let mut bench = Bench::asked("x");
    bench.status(200);
    bench.chunk(&done("length"));
    bench.end();
    bench.fails_with(broken(
        "the model reached the limit of 500 tokens before it answered",
    ));
}

#[test]
fn a_silent_egress_is_given_up_after_an_hour_but_not_while_it_speaks() {
    let mut bench = Bench::asked("x");
    bench.status(200);
    let tick = |bench: &mut Bench, seconds| {
        bench
            .feed(Input::Tick(Duration::from_secs(seconds)))
            .unwrap()
    };
    for hour in 0..5 {
        tick(&mut bench, hour * 3_600);
        tick(&mut bench, hour * 3_600 + 3_599);
        bench.quiet();
        bench.chunk(&text("."));
        bench.token(".");
    }
    tick(&mut bench, 100_000);
    tick(&mut bench, 103_600);
    bench.dropped();
    bench.fails_with(TurnFault::ModelSlow);
}

#[test]
fn a_message_that_does_not_fit_is_too_long_and_the_next_one_is_answered() {
    let mut bench = Bench::new();
    bench.turn(&"x".repeat(12_000));
    bench.fails_with(TurnFault::TooLong);
    bench.turn("short");
    assert!(matches!(
        bench.sent(),
        AgentRequest::Trimmed {
            turn: TURN,
            results: 0,
            items: 1
        }
    ));
    assert_eq!(contents(&bench.body()), ["system: be brief", "user: short"]);
}
