//! The commands: one file each, and the list of them.

mod approvals;
mod ask;
mod audit;
mod bench;
mod blast_radius;
pub(crate) mod channel;
mod chat;
mod demo;
mod doctor;
mod down;
mod egress;
mod grants;
mod login;
mod pair;
mod panic;
mod passkey;
mod policy;
mod resume;
mod sandbox;
mod setup;
mod status;
mod supervise;
mod undo;
pub(crate) mod up;
pub(crate) mod vault;

use clap::Subcommand;
use config::Home;

use crate::fault::Fault;

/// What can be typed after `bulkhead`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Choose a model (and Telegram, if you like); writes bulkhead.toml.
    Setup(setup::Arguments),
    /// Start everything.
    Up(up::Arguments),
    /// Stop everything, in order.
    Down,
    /// Freeze everything at once: kill agents and boxes, close the way out, lock the vault.
    Panic(panic::Arguments),
    /// End a freeze; takes the operator key.
    Resume(resume::Arguments),
    /// Show what runs and what waits.
    Status(status::Arguments),
    /// Check this machine and this installation; says what to do where something is wrong.
    Doctor(doctor::Arguments),
    /// Print a new one-time link to the web page.
    Login(login::Arguments),
    /// Ask the agent one thing and print its answer as it comes.
    Ask(ask::Arguments),
    /// Talk with the agent, line by line. /new begins a new conversation, /quit ends.
    Chat(chat::Arguments),
    /// Chat platforms: add, list, remove.
    Channel(channel::Arguments),
    /// People on chat platforms: list, approve with a pairing code, revoke.
    Pair(pair::Arguments),
    /// What waits for your answer: list, show, approve, deny, watch.
    Approvals(approvals::Arguments),
    /// Passkeys, which sign your yes on the web page: list, add, remove.
    Passkey(passkey::Arguments),
    /// Remembered approvals: list, revoke.
    Grants(grants::Arguments),
    /// Secrets: add, list, rotate, remove, lock, back up. No command shows one.
    Vault(vault::Arguments),
    /// The rules: what they say of a call, and whether the configuration is sound.
    Policy(policy::Arguments),
    /// What may go out: what the egress rules say of a request, and where secrets are in a text.
    Egress(egress::Arguments),
    /// The record: log, show, verify.
    Audit(audit::Arguments),
    /// Make the workspace as it was before a turn; shows first what that changes.
    Undo(undo::Arguments),
    /// The box that tools run in.
    Sandbox(sandbox::Arguments),
    /// See what a model turned against its owner can do: nothing. Needs no model.
    Demo(demo::Arguments),
    /// Put an attacker into each program in turn, and see what it reaches. Needs no model.
    BlastRadius(blast_radius::Arguments),
    /// Measure what the line costs on this machine, the model excluded.
    Bench(bench::Arguments),
    /// Become the supervisor, in a session of its own. `up --detach` uses it.
    #[command(hide = true)]
    Supervise,
}

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where everything lives.
    pub(crate) home: Home,
    /// The folder that `--home` named, absolute; programs that are started get it too.
    pub(crate) chosen: Option<std::path::PathBuf>,
}

impl Command {
    /// Carries it out.
    pub(crate) fn run(self, context: &Context) -> Result<(), Fault> {
        let home = &context.home;
        match self {
            Self::Setup(arguments) => setup::run(arguments, home),
            Self::Up(arguments) => up::run(&arguments, context),
            Self::Down => down::run(home),
            Self::Panic(arguments) => panic::run(&arguments, home),
            Self::Resume(arguments) => resume::run(&arguments, home),
            Self::Status(arguments) => status::run(&arguments, home),
            Self::Doctor(arguments) => doctor::run(&arguments, home),
            Self::Login(arguments) => login::run(&arguments, home),
            Self::Ask(arguments) => ask::run(&arguments, home),
            Self::Chat(arguments) => chat::run(&arguments, home),
            Self::Channel(arguments) => channel::run(arguments, home),
            Self::Pair(arguments) => pair::run(arguments, home),
            Self::Approvals(arguments) => approvals::run(arguments, home),
            Self::Passkey(arguments) => passkey::run(arguments, home),
            Self::Grants(arguments) => grants::run(arguments, home),
            Self::Vault(arguments) => vault::run(arguments, home),
            Self::Policy(arguments) => policy::run(&arguments, home),
            Self::Egress(arguments) => egress::run(&arguments, home),
            Self::Audit(arguments) => audit::run(arguments, home),
            Self::Undo(arguments) => undo::run(&arguments, home),
            Self::Sandbox(arguments) => sandbox::run(&arguments, home),
            Self::Demo(arguments) => demo::run(&arguments),
            Self::BlastRadius(arguments) => blast_radius::run(&arguments),
            Self::Bench(arguments) => bench::run(&arguments),
            Self::Supervise => supervise::run(context),
        }
    }
}
