//! A scripted model server as a program: for the demo and for trying things out by hand.
//! Prints its address and serves until its standard input closes.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use bulkhead_testkit::model::{Script, ScriptedModel};

const USAGE: &str = "usage: bulkhead-scripted-model [--port PORT] (--script FILE | --echo)";

fn main() -> ExitCode {
    let (port, script) = match arguments(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(reason) => {
            eprintln!("bulkhead-scripted-model: {reason}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(port, script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-scripted-model: port {port} of 127.0.0.1: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<(u16, Script), String> {
    let (mut port, mut script) = (0, None);
    while let Some(argument) = given.next() {
        let mut value = || {
            given
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--port" => {
                let text = value()?;
                port = text.parse().map_err(|_| format!("{text} is not a port"))?;
            }
            "--script" => script = Some(read(&value()?)?),
            "--echo" => script = Some(Script::echo()),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok((port, script.ok_or("what should the model say?")?))
}

fn read(path: &str) -> Result<Script, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("{path}: {error}"))
}

fn serve(port: u16, script: Script) -> std::io::Result<()> {
    let server = ScriptedModel::start_on(port, script)?;
    println!("http://{}", server.address());
    std::io::stdout().flush()?;
    let mut ignored = [0; 256];
    while std::io::stdin().read(&mut ignored)? > 0 {}
    Ok(())
}
