//! The whole line with a real model: SmolLM2-135M-Instruct behind llama.cpp's own server.
//! `./test` puts both into `target/model-env`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use testkit::system::{System, free_port, said, wait_for};

/// llama.cpp's server with the model. Stopped when it is dropped.
struct ModelServer {
    child: Child,
    port: u16,
    _state: tempfile::TempDir,
}

impl ModelServer {
    fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("tests is in the workspace");
        let python = root.join("target/model-env/bin/python");
        assert!(
            python.exists(),
            "{} is missing: run tools/model-env target/model-env",
            python.display()
        );
        let state = tempfile::tempdir().expect("a temporary folder");
        let child = Command::new(python)
            .arg(root.join("etc/model-server.py"))
            .arg("--state")
            .arg(state.path())
            .args(["--first-port", &free_port().to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("the model's server starts");
        let mut server = Self {
            child,
            port: 0,
            _state: state,
        };
        let file = server._state.path().join("server.url");
        server.port = wait_for("the model is loaded", || {
            let url = fs::read_to_string(&file).ok()?;
            url.trim().rsplit(':').next()?.parse().ok()
        });
        server
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_model_answers_through_the_whole_line() {
    let server = ModelServer::start();
    let system = System::prepare(server.port, "");
    let model = "name = \"scripted\"";
    let small = "name = \"smollm2-135m-instruct\"\nanswer_tokens = 48";
    system.configure(|config| config.replace(model, small));
    system.up();
    let output = system.bulkhead(&["ask", "What is the capital of France?"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("Paris"),
        "{}",
        said(&output)
    );
    let response = &system.rows("model_response")[0]["event"];
    assert_eq!(response["status"], 200);
    assert!(
        response["tokens"]["answer"]
            .as_u64()
            .is_some_and(|tokens| tokens > 0),
        "{response}"
    );
    system.assert_record_is_sound();
}

#[test]
fn a_real_model_that_is_made_to_choose_answers_in_the_form_it_is_given() {
    let server = ModelServer::start();
    let system = System::prepare(server.port, "");
    let model = "name = \"scripted\"";
    let small = "name = \"smollm2-135m-instruct\"\nanswer_tokens = 96\ntool_calls = \"schema\"";
    system.configure(|config| {
        config
            .replace(model, small)
            .replace("[channel.web]", "[agent]\nmax_rounds = 2\n[channel.web]")
    });
    system.up();
    // What so small a model chooses is its own affair: a reply, a call, or rounds without end.
    // The form has to hold: whatever it chose was read, judged and recorded.
    let output = system.bulkhead(&["ask", "Say hello."]);
    let told = said(&output);
    let chosen = !system.rows("tool_intent").is_empty() || !system.rows("reply").is_empty();
    assert!(chosen, "neither a call nor a reply was understood: {told}");
    let responses = system.rows("model_response");
    assert!(
        responses.iter().all(|row| row["event"]["status"] == 200),
        "{told}"
    );
    system.assert_record_is_sound();
}
