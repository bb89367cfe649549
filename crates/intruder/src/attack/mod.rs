//! The program: take a place, confine, wait until everything runs, attack.

mod anywhere;
mod helpers;
mod known;
mod links;
mod report;
mod wire;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use protocol::control::{Control, Peer, ProgramEnd, Report};
use protocol::identity::IdentityKey;
use protocol::ids::{SessionId, unhex};
use protocol::rules::RulesCheck;
use sandbox::{Program, confine, files_of};
use serde_json::Value;

use crate::scene::{self, Later, Line, Scene};
use crate::table::{ROWS, Row};
use links::When;
use report::Reporter;

/// How long everything else may take to run.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked for meanwhile.
const GLANCE: Duration = Duration::from_millis(5);

/// The argument that makes it the attacker under no confinement, followed by the folder of the scene.
const UNCONFINED: &str = "--unconfined";

/// The program. Exit codes: 0 everything was tried, 1 it could not be, 2 there is no scene.
pub fn run() -> ExitCode {
    let mut arguments = std::env::args_os();
    let own = arguments.next().map(PathBuf::from).unwrap_or_default();
    let arguments: Vec<OsString> = arguments.collect();
    let done = match arguments.as_slice() {
        [flag, folder] if flag == UNCONFINED => unconfined(Path::new(folder)),
        // Whoever took over the gateway's image lies to the supervisor about rules, too.
        [flag] if flag == "--check-rules" => call_rules_sound(),
        _ => match ROWS.iter().find(|row| own.ends_with(row.name)) {
            Some(row) => in_place(row, &own, &arguments),
            None => {
                eprintln!(
                    "bulkhead-intruder: `bulkhead blast-radius` starts this program, nobody else"
                );
                return ExitCode::from(2);
            }
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("bulkhead-intruder: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// What an attacker has to go on.
struct Attacker {
    scene: Scene,
    later: Later,
    reporter: Arc<Reporter>,
}

/// The gateway loads them itself before they count.
fn call_rules_sound() -> Result<(), String> {
    let sound = serde_json::to_string(&RulesCheck::Sound).map_err(|error| error.to_string())?;
    println!("{sound}");
    Ok(())
}

/// In no program's place, with all rights of the user.
fn unconfined(folder: &Path) -> Result<(), String> {
    let (scene, reporter, later) = opened(folder)?;
    let attacker = Attacker {
        scene,
        later: await_later(later)?,
        reporter: Arc::new(reporter),
    };
    anywhere::attack(&attacker);
    attacker.reporter.tell(&Line::Done);
    Ok(())
}

fn opened(folder: &Path) -> Result<(Scene, Reporter, File), String> {
    let named = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let path = folder.join(scene::FILE);
    let text = fs::read(&path).map_err(|error| named(&path, &error))?;
    let scene: Scene = serde_json::from_slice(&text).map_err(|error| named(&path, &error))?;
    let report = OpenOptions::new().append(true).open(&scene.report);
    let report = report.map_err(|error| named(&scene.report, &error))?;
    let later = File::open(&scene.later).map_err(|error| named(&scene.later, &error))?;
    Ok((scene, Reporter::new(report), later))
}

/// Started by the supervisor as this program.
fn in_place(row: &'static Row, own: &Path, arguments: &[OsString]) -> Result<(), String> {
    let (scene, reporter, later) = opened(own.parent().unwrap_or(own))?;
    let over = fs::read_to_string(&scene.report).is_ok_and(|text| text.contains("\"done\""));
    let key = key_of(arguments, &reporter);
    let control = ProgramEnd::<Value>::from_stdin().map_err(|error| error.to_string())?;
    let confined = files_of(row.program, arguments.iter().cloned())
        .map_err(|error| error.to_string())
        .and_then(|files| confine(row.program, &files).map_err(|error| error.to_string()));
    if let Err(reason) = confined {
        // The supervisor says it, and so does the end of this program.
        let _ = control.send(&Report::Failed {
            reason: reason.clone(),
        });
        return Err(reason);
    }
    let config = control.start().map_err(|error| error.to_string())?;
    reporter.look("its configuration", config.to_string().as_bytes());
    for text in std::env::args().chain(std::env::vars().map(|(_, value)| value)) {
        reporter.look("its arguments and environment", text.as_bytes());
    }
    control
        .send(&Report::Ready)
        .map_err(|error| error.to_string())?;
    let reporter = Arc::new(reporter);
    let place = Arc::new(Place {
        program: row.program,
        control,
        key,
        links: Mutex::default(),
        reporter: Arc::clone(&reporter),
        command: scene.command.clone(),
    });
    let listening = Arc::clone(&place);
    let listener = thread::spawn(move || listening.listen());
    if !over {
        let attacker = Attacker {
            scene,
            later: await_later(later)?,
            reporter,
        };
        anywhere::attack(&attacker);
        links::attack(&place, &attacker, When::First);
        links::without_a_link(&place);
        attacker.reporter.tell(&Line::Done);
        links::attack(&place, &attacker, When::Last);
        place.ask_for_an_agent();
    }
    // Until the supervisor says stop, which ends the process.
    let _ = listener.join();
    Ok(())
}

/// The identity key, which a channel's program reads before it confines itself.
fn key_of(arguments: &[OsString], reporter: &Reporter) -> Option<IdentityKey> {
    let at = arguments.iter().position(|argument| argument == "--key")?;
    let text = fs::read_to_string(arguments.get(at + 1)?).ok()?;
    reporter.look("its own key", text.as_bytes());
    let seed: [u8; 32] = unhex(text.trim_end())?.try_into().ok()?;
    Some(IdentityKey::from_seed(&seed))
}

/// Waits for the line that comes when everything runs.
fn await_later(mut file: File) -> Result<Later, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut text = String::new();
        let read = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_string(&mut text));
        read.map_err(|error| format!("what is to be known later: {error}"))?;
        if text.ends_with('\n') {
            return serde_json::from_str(&text).map_err(|error| error.to_string());
        }
        if Instant::now() > until {
            return Err("nothing came for a long time".to_owned());
        }
        thread::sleep(GLANCE);
    }
}

/// A program's place: what it holds.
struct Place {
    program: Program,
    control: ProgramEnd<Value>,
    key: Option<IdentityKey>,
    links: Mutex<Vec<(Peer, UnixStream)>>,
    reporter: Arc<Reporter>,
    command: String,
}

impl Place {
    /// Takes links, and keeps up the conversations without which the others would stand still. Ends the process when
    /// the supervisor wants it, or is gone.
    fn listen(&self) {
        loop {
            match self.control.receive() {
                Ok((Control::Link { peer }, Some(fd))) => {
                    let stream = UnixStream::from(fd);
                    helpers::keep_up(self, &peer, &stream);
                    self.links().push((peer, stream));
                }
                Ok((Control::Stop, _)) | Err(_) => std::process::exit(0),
                Ok((frame, _)) => {
                    let text = format!("{frame:?}");
                    self.reporter.look("its control link", text.as_bytes());
                }
            }
        }
    }

    fn links(&self) -> std::sync::MutexGuard<'_, Vec<(Peer, UnixStream)>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest link to each peer.
    fn newest(&self) -> Vec<(Peer, UnixStream)> {
        let mut newest: Vec<(Peer, UnixStream)> = Vec::new();
        for (peer, stream) in self.links().iter() {
            let Ok(stream) = stream.try_clone() else {
                continue;
            };
            newest.retain(|(other, _)| other != peer);
            newest.push((peer.clone(), stream));
        }
        newest
    }

    /// Asks for a new link to this peer, and waits for it.
    fn fresh(&self, peer: &Peer) -> Option<UnixStream> {
        let count = |place: &Self| {
            place
                .links()
                .iter()
                .filter(|(other, _)| other == peer)
                .count()
        };
        let before = count(self);
        self.control
            .send(&Report::Relink { peer: peer.clone() })
            .ok()?;
        let until = Instant::now() + Duration::from_secs(1);
        while count(self) == before {
            if Instant::now() > until {
                return None;
            }
            thread::sleep(GLANCE);
        }
        let newest = self.newest().into_iter().find(|(other, _)| other == peer);
        newest.map(|(_, stream)| stream)
    }

    /// What only the gateway may ask for; for any other program this is the last thing it does.
    fn ask_for_an_agent(&self) {
        if let (false, Ok(session)) = (
            self.program == Program::Gateway,
            SessionId::parse("intruder"),
        ) {
            // Whoever sees it, sees it in what runs afterwards.
            let _ = self.control.send(&Report::StartAgent { session });
        }
    }
}
