//! A stand-in for the Bot API of Telegram as a program: for the benches and for trying
//! things out by hand. Prints its address and serves until its standard input closes.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use bulkhead_testkit::telegram::TelegramServer;

const USAGE: &str = "usage: bulkhead-scripted-telegram --token TOKEN";

fn main() -> ExitCode {
    let mut given = std::env::args().skip(1);
    let (Some("--token"), Some(token), None) =
        (given.next().as_deref(), given.next(), given.next())
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match serve(&token) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-scripted-telegram: 127.0.0.1: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(token: &str) -> std::io::Result<()> {
    let server = TelegramServer::start(token)?;
    println!("http://{}", server.address());
    std::io::stdout().flush()?;
    let mut ignored = [0; 256];
    while std::io::stdin().read(&mut ignored)? > 0 {}
    Ok(())
}
