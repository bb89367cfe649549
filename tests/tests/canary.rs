//! A search for secrets in everything that must not have them: the memory of every program, its
//! environment and command line, files, names of sockets, logs, the record, what crashes leave.
//!
//! Takes root, as CI has it: no program lets its memory be read by its own user.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::model::{Rule, Script, ScriptedModel, Step};
use testkit::system::{System, processes_with, said, wait_for};
use testkit::telegram::{BotMessage, Chat, TelegramServer};
use testkit::tls::TlsFront;

const OWNER: i64 = 7;
const CHANNEL: &str = "bulkhead-channel-telegram";

/// A secret that is searched for: invented, and different in each run.
struct Canary {
    name: &'static str,
    value: String,
    /// Plain, in base64 at each offset, in hexadecimal.
    needles: Vec<Vec<u8>>,
}

impl Canary {
    fn new(name: &'static str, value: String) -> Self {
        // Whoever uses a token sends its second half in many forms; that half is what has to be nowhere.
        let core = value
            .rsplit(':')
            .next()
            .expect("a value")
            .as_bytes()
            .to_vec();
        let mut needles = vec![core.clone()];
        needles.extend((0..3).map(|offset| base64_at(&core, offset)));
        let hex: String = core.iter().map(|byte| format!("{byte:02x}")).collect();
        needles.push(hex.to_uppercase().into_bytes());
        needles.push(hex.into_bytes());
        Self {
            name,
            value,
            needles,
        }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.needles.iter().any(|needle| find(bytes, needle))
    }
}

/// Whether the needle is there; its rarest sign first, as memory is mostly zeros.
fn find(bytes: &[u8], needle: &[u8]) -> bool {
    let first = needle[0];
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// What base64 of any text with these bytes in it holds, if they begin at this offset of three.
fn base64_at(bytes: &[u8], offset: usize) -> Vec<u8> {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // The signs before the first and after the last whole group depend on what is around.
    let skipped = (3 - offset) % 3;
    let whole = &bytes[skipped..];
    let mut text = Vec::new();
    for group in whole.chunks_exact(3) {
        let number = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        for shift in [18, 12, 6, 0] {
            text.push(SIGNS[(number >> shift & 63) as usize]);
        }
    }
    text
}

/// Letters and digits from the kernel's random numbers.
fn invented(len: usize) -> String {
    let mut text = String::new();
    while text.len() < len {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("random numbers");
        text.extend(id.chars().filter(char::is_ascii_alphanumeric));
    }
    text.truncate(len);
    text
}

/// How much of a process' memory is looked at at once.
const PIECE: usize = 16 << 20;
/// No needle is longer.
const OVERLAP: usize = 256;
/// More than any program has that it could have written to. Of what is not there the kernel gives zeros.
const MOST: u64 = 4 << 30;

/// Shows everything of a process that can be read and that could hold a secret, in pieces; how many bytes of memory
/// there were.
fn each_of_process(pid: u32, see: &mut dyn FnMut(&str, &[u8])) -> u64 {
    for name in ["environ", "cmdline"] {
        let bytes = fs::read(format!("/proc/{pid}/{name}")).expect("root may read it");
        see(name, &bytes);
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("root may read it");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("root may read it");
    let mut had = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(mode)) = (words.next(), words.next()) else {
            panic!("{line}");
        };
        // Images of programs are the same for all; what is written to is what can hold something.
        if !mode.starts_with("rw") {
            continue;
        }
        let number = |text| u64::from_str_radix(text, 16).expect("a number");
        let (start, end) = range.split_once('-').expect("two numbers");
        let (start, end) = (number(start), number(end));
        had += end - start;
        assert!(had <= MOST, "{pid} has too much to be searched: {maps}");
        each_piece(start, end, &mut |start, end| {
            let bytes = read_range(&memory, start, end);
            see(&format!("memory {line}"), &bytes);
        });
    }
    had
}

/// Pieces that overlap, so that nothing is hidden by a border.
fn each_piece(start: u64, end: u64, see: &mut dyn FnMut(u64, u64)) {
    let mut at = start;
    loop {
        let to = end.min(at + PIECE as u64);
        see(at, to);
        if to == end {
            return;
        }
        at = to - OVERLAP as u64;
    }
}

/// The pages of a range; those that are not there read as zeros.
fn read_range(memory: &File, start: u64, end: u64) -> Vec<u8> {
    let len = usize::try_from(end - start).expect("a piece");
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        match memory.read_at(&mut bytes[have..], start + have as u64) {
            Ok(got @ 1..) => have += got,
            // A hole, or what the kernel does not give: the next page.
            Ok(0) | Err(_) => {
                let page = (start + have as u64) / 4096 + 1;
                have = usize::try_from(page * 4096 - start).expect("a piece");
            }
        }
    }
    bytes
}

/// The address of the model, in a network of the test's own.
const ELSEWHERE: &str = "93.184.216.34";
/// What says that this process is in that network already.
const MARK: &str = "BULKHEAD_TEST_IN_NAMESPACE";

/// Runs this test once more, in a network namespace that has that address and no way out.
fn in_a_network_of_its_own(test: &str, body: impl FnOnce()) {
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let script = format!(
        "ip link set lo up && ip address add {ELSEWHERE}/32 dev lo && exec \"$1\" --exact \"$2\" --nocapture"
    );
    let output = Command::new("unshare")
        .args(["--net", "--", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().expect("a test has a path"))
        .arg(test)
        .env(MARK, "1")
        .output()
        .expect("unshare runs");
    assert!(
        output.status.success() && said(&output).contains("1 passed"),
        "{}",
        said(&output)
    );
}

struct Rig {
    system: System,
    server: TelegramServer,
    /// Before the model, and before the host that a tool asks.
    fronts: [TlsFront; 2],
    _servers: [ScriptedModel; 2],
    canaries: Vec<Canary>,
    decoy: PathBuf,
}

impl Rig {
    fn start() -> Self {
        let token = Canary::new("telegram-token", format!("4242:{}", invented(35)));
        let canaries = vec![
            token,
            Canary::new("model-key", invented(40)),
            Canary::new("hub", invented(40)),
        ];
        let rule = Rule {
            contains: "make one".to_owned(),
            steps: vec![
                Step::call("exec", json!({ "command": "touch one" })),
                Step::text("That was one."),
            ],
        };
        // Any server does: what counts is what it is sent.
        let host = ScriptedModel::start(Script::echo()).expect("a server");
        let hub = TlsFront::start("127.0.0.1", host.port()).expect("TLS before it");
        let url = format!("https://{}/v1/models", hub.address());
        let asks = Rule {
            contains: "ask the hub".to_owned(),
            steps: vec![
                Step::call("http_request", json!({ "url": url, "credential": "hub" })),
                Step::text("That was the hub."),
            ],
        };
        let script = Script {
            rules: vec![rule, asks],
            ..Script::echo()
        };
        let model = ScriptedModel::start(script).expect("a scripted model");
        let remote = TlsFront::start(ELSEWHERE, model.port()).expect("TLS before it");
        let server = TelegramServer::start(&canaries[0].value).expect("a Telegram server");
        let folder = tempfile::Builder::new()
            .prefix("bulkhead-decoy-")
            .tempdir()
            .expect("a folder");
        let folder = folder.keep();
        let roots = [("model.pem", remote.root()), ("hub.pem", hub.root())].map(|(name, root)| {
            let path = folder.join(name);
            fs::write(&path, root).expect("a certificate is written");
            path
        });
        let more = format!(
            "[channel.telegram]\napi = \"http://{}\"\n[network]\nextra_roots = {roots:?}\n\
             [[egress]]\nname = \"hub\"\nsubject = \"tool:http_request\"\nhost = \"127.0.0.1\"\n\
             ports = [{}]\nprivate = true\nask = \"never\"\nowner = \"me\"\nexpires = \"2099-01-01\"\n\
             credential = {{ secret = \"hub\", as = \"bearer\" }}\n",
            server.address(),
            hub.address().port(),
        );
        let system = System::prepare(model.port(), &more);
        system.configure(|config| {
            let loopback = format!("http://127.0.0.1:{}", model.port());
            let section = format!(
                "[model.remote]\nhost = \"{ELSEWHERE}\"\nsecret = \"model-key\"\n[channel.web]"
            );
            config
                .replace(&loopback, &format!("https://{}", remote.address()))
                .replace("[channel.web]", &section)
        });
        let mut rig = Self {
            system,
            server,
            fronts: [remote, hub],
            _servers: [model, host],
            canaries,
            decoy: folder.join("credentials"),
        };
        rig.fill();
        rig.system.up();
        rig.turn();
        rig
    }

    fn fill(&mut self) {
        let subjects: [&[&str]; 3] = [
            &["--for", "channel:telegram"],
            &["--for", "model", "--host", ELSEWHERE],
            &["--for", "tool", "--host", "127.0.0.1"],
        ];
        for (canary, subject) in self.canaries.iter().zip(subjects) {
            let words = [&["vault", "add", canary.name], subject].concat();
            let added = self.system.bulkhead_with(&words, &canary.value);
            assert!(added.status.success(), "{}", said(&added));
        }
        let decoy = self.decoy.display().to_string();
        let added = self.system.bulkhead(&[
            "vault",
            "add",
            "aws-root",
            "--honeytoken",
            "--plant",
            &decoy,
        ]);
        assert!(added.status.success(), "{}", said(&added));
        let text = fs::read_to_string(&self.decoy).expect("the decoy");
        let value = text
            .rsplit(' ')
            .next()
            .expect("its value")
            .trim()
            .to_owned();
        self.canaries.push(Canary::new("aws-root", value));
    }

    /// Turns over Telegram: with a call that is asked about and runs in a box, and with a request that takes a
    /// credential. The model takes its key each time.
    fn turn(&self) {
        let writes = |text: &str| self.server.user_writes(OWNER, &Chat::private(OWNER), text);
        writes("hello");
        let asked = self.told("pair approve");
        let code: String = (asked.split("pair approve ").nth(1).expect("a code").chars())
            .take_while(char::is_ascii_alphanumeric)
            .collect();
        let paired = self
            .system
            .bulkhead(&["pair", "approve", &code, "--as", "owner"]);
        assert!(paired.status.success(), "{}", said(&paired));
        writes("make one");
        self.approves("touch one");
        self.told("That was one.");
        assert!(self.system.workspace().join("one").exists());
        writes("ask the hub");
        self.approves("with the secret `hub`");
        self.told("That was the hub.");
        // That they were used, or there would be nothing to find.
        for (front, canary) in self.fronts.iter().zip(&self.canaries[1..]) {
            let heard = front.heard();
            assert!(
                find(&heard, canary.value.as_bytes()),
                "{} did not arrive: {}",
                canary.name,
                String::from_utf8_lossy(&heard)
            );
        }
    }

    fn approves(&self, part: &str) {
        let question = wait_for("a question", || {
            let asks = |message: &BotMessage| {
                message.text.contains(part) && message.buttons.iter().any(|b| b.text == "Approve")
            };
            self.server.messages().into_iter().rfind(asks)
        });
        let mut buttons = question.buttons.iter();
        let yes = buttons.find(|button| button.text == "Approve");
        let data = &yes.expect("a button").callback_data;
        self.server.user_presses(OWNER, question.id, data);
    }

    fn told(&self, part: &str) -> String {
        wait_for(part, || {
            let mut texts = self.server.texts(OWNER).into_iter();
            texts.find(|text| text.contains(part))
        })
    }

    /// Which programs have which secret, and where else one is.
    fn search(&self) -> BTreeSet<(String, &'static str)> {
        let mut hits = BTreeSet::new();
        for (program, pid) in self.programs() {
            let memory = each_of_process(pid, &mut |place, bytes| {
                for canary in self.canaries.iter().filter(|canary| canary.is_in(bytes)) {
                    eprintln!("{} is in {program}: {place}", canary.name);
                    hits.insert((program.clone(), canary.name));
                }
            });
            assert!(memory > 0, "{program} cannot be searched");
        }
        each_file(self.system.home(), &mut |path| {
            let mut bytes = path.display().to_string().into_bytes();
            // Sockets have a name and no bytes.
            bytes.extend(fs::read(path).unwrap_or_default());
            for canary in self.canaries.iter().filter(|canary| canary.is_in(&bytes)) {
                hits.insert((path.display().to_string(), canary.name));
            }
        });
        hits
    }

    /// All processes of this home by the name of their program.
    fn programs(&self) -> Vec<(String, u32)> {
        let home = self.system.home().display().to_string();
        let pids: BTreeSet<u32> = (self.system.pids().into_iter())
            .chain(processes_with(&home))
            .collect();
        let name = |pid: u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let path = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            path.rsplit('/').next().unwrap_or_default().to_owned()
        };
        let own = std::process::id();
        pids.into_iter()
            .filter(|pid| *pid != own)
            .map(|pid| (name(pid), pid))
            .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Left behind it would only be untidy.
        if let Some(folder) = self.decoy.parent() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn each_file(folder: &Path, each: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let kind = entry.file_type().expect("its kind");
        if kind.is_dir() {
            each_file(&path, each);
        } else if !kind.is_symlink() {
            each(&path);
        }
    }
}

#[test]
fn no_program_file_or_record_has_a_secret_that_is_not_its_own() {
    in_a_network_of_its_own(
        "no_program_file_or_record_has_a_secret_that_is_not_its_own",
        search_for_secrets,
    );
}

fn search_for_secrets() {
    let rig = Rig::start();
    let names: BTreeMap<String, u32> = rig.programs().into_iter().collect();
    for name in [
        "supervisor",
        "gateway",
        "agent",
        "egress",
        "vault",
        "ledger",
        "sandbox",
        "workspace",
        "channel-web",
    ] {
        assert!(
            names.contains_key(&format!("bulkhead-{name}")),
            "{name}: {names:?}"
        );
    }
    // That the search sees: the channel has its own token. Egress carries its bytes, which the stand-in wants
    // in the clear; a real server gets them by TLS, which ends in the channel. What egress attaches may still be in
    // the buffers of a connection that it keeps.
    let own = (CHANNEL.to_owned(), "telegram-token");
    let foreign = |hits: &BTreeSet<(String, &'static str)>| -> Vec<_> {
        let meant = |(program, canary): &&(String, &'static str)| {
            program == "bulkhead-egress" && *canary != "aws-root"
                || (program.as_str(), *canary) == (CHANNEL, own.1)
        };
        hits.iter().filter(|hit| !meant(hit)).cloned().collect()
    };
    let hits = rig.search();
    assert!(hits.contains(&own), "the search is blind: {hits:?}");
    assert_eq!(foreign(&hits), []);

    // What is left when programs die in the middle: no core, nothing in the log.
    for name in [
        "bulkhead-vault",
        CHANNEL,
        "bulkhead-egress",
        "bulkhead-gateway",
    ] {
        rig.system.signal(name, "ABRT");
    }
    rig.server
        .user_writes(OWNER, &Chat::private(OWNER), "are you there?");
    rig.told("You said: are you there?");
    assert_eq!(foreign(&rig.search()), [], "after crashes");
    let log = fs::read_to_string(rig.system.home().join("log/bulkhead.log")).expect("the log");
    assert!(log.contains("signal 6"), "nothing crashed: {log}");
    let record: Vec<Value> = rig.system.record();
    let text = serde_json::to_string(&record).expect("JSON");
    assert!(text.contains("secret_used"), "names are on the record");
    for name in ["telegram-token", "model-key", "hub"] {
        assert!(text.contains(name), "{name} is on the record");
    }
    assert!(
        rig.canaries
            .iter()
            .all(|canary| !canary.is_in(text.as_bytes()))
    );
    rig.system.assert_record_is_sound();
}

#[test]
fn the_search_finds_each_form_of_a_secret() {
    let canary = Canary::new("x", "abcdefghijklmnopqrstuvwxyz0123456789".to_owned());
    assert!(canary.is_in(b"..abcdefghijklmnopqrstuvwxyz0123456789.."));
    assert!(canary.is_in(b"token=YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU2Nzg5Cg=="));
    // One and two bytes before it.
    assert!(canary.is_in(b"eGFiY2RlZmdoaWprbG1ub3BxcnN0dXZ3eHl6MDEyMzQ1Njc4OQ=="));
    assert!(canary.is_in(b"eHhhYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3ODk="));
    assert!(
        canary.is_in(b"6162636465666768696a6b6c6d6e6f707172737475767778797a30313233343536373839")
    );
    assert!(!canary.is_in(b"abcdefghijklmnopqrstuvwxyz012345678"));
    assert!(canary.needles.iter().all(|needle| needle.len() < OVERLAP));
}

#[test]
fn what_is_searched_in_pieces_is_searched_whole() {
    for len in [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 40 * PIECE + 7] {
        let (start, end) = (4096, 4096 + len as u64);
        let mut seen_to = start + OVERLAP as u64;
        each_piece(start, end, &mut |from, to| {
            assert!(from == start || from + OVERLAP as u64 == seen_to, "{from}");
            assert!(to > from && to - from <= PIECE as u64);
            seen_to = to;
        });
        assert_eq!(seen_to, end);
    }
}
