//! What a program can reach when it is taken over: what is meant to be so.

use sandbox::Program;
use serde::{Deserialize, Serialize};

/// What there is to lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asset {
    /// The token of a channel that the program does not serve.
    OtherToken,
    /// The key of a model on another machine.
    ProviderKey,
    /// The file of sealed secrets.
    VaultFile,
    /// What it is sealed with.
    MasterKey,
    /// The record's rows.
    History,
    /// What signs the record.
    SigningKey,
    /// What somebody said in a session that the program does not serve.
    OtherSession,
    /// A yes that nobody said to a call of tier 3, or what says it.
    ForgedApproval,
    /// The configuration and the owner's rules, written.
    PolicyChange,
    /// Files of the user outside of the workspace, read.
    HostFiles,
    /// The same, written.
    HostFilesWritten,
    /// Files of the workspace.
    WorkspaceFiles,
    /// A connection to a host.
    NetworkHost,
    /// Another process: its memory, its descriptors, a signal to it.
    OtherProcess,
    /// The supervisor: what it is asked, and what it does.
    Supervisor,
}

/// All assets, in the order of the table's columns.
pub const ASSETS: [Asset; 15] = [
    Asset::OtherToken,
    Asset::ProviderKey,
    Asset::VaultFile,
    Asset::MasterKey,
    Asset::History,
    Asset::SigningKey,
    Asset::OtherSession,
    Asset::ForgedApproval,
    Asset::PolicyChange,
    Asset::HostFiles,
    Asset::HostFilesWritten,
    Asset::WorkspaceFiles,
    Asset::NetworkHost,
    Asset::OtherProcess,
    Asset::Supervisor,
];

impl Asset {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::OtherToken => "another channel's token",
            Self::ProviderKey => "a provider key",
            Self::VaultFile => "the vault file",
            Self::MasterKey => "the master key",
            Self::History => "history",
            Self::SigningKey => "the signing key",
            Self::OtherSession => "another session's text",
            Self::ForgedApproval => "a forged approval",
            Self::PolicyChange => "a policy change",
            Self::HostFiles => "host files",
            Self::HostFilesWritten => "host files, written",
            Self::WorkspaceFiles => "workspace files",
            Self::NetworkHost => "a host on the network",
            Self::OtherProcess => "another process' memory",
            Self::Supervisor => "the supervisor",
        }
    }
}

/// An attempt by its name, and on what.
pub type Try = (Asset, &'static str);

/// What has to be tried from everywhere. Where one of these is missing, or was not answered, nobody knows.
pub const EVERYWHERE: &[Try] = &[
    (
        Asset::OtherToken,
        "ask the vault's socket for telegram-token",
    ),
    (Asset::OtherToken, "ask the vault's socket for web-token"),
    (Asset::ProviderKey, "ask the vault's socket for model-key"),
    (Asset::VaultFile, "read vault.json"),
    (Asset::VaultFile, "open the vault with its key"),
    (Asset::MasterKey, "read vault.key"),
    (Asset::History, "read ledger.db"),
    (Asset::SigningKey, "read ledger.key"),
    (Asset::OtherSession, "read state.db"),
    (Asset::ForgedApproval, "read operator.key"),
    (Asset::PolicyChange, "write bulkhead.toml"),
    (Asset::PolicyChange, "write rules"),
    (Asset::HostFiles, "read diary.txt"),
    (Asset::HostFilesWritten, "write diary.txt"),
    (Asset::HostFilesWritten, "write outside"),
    (Asset::WorkspaceFiles, "read notes.txt"),
    (Asset::NetworkHost, "connect by TCP"),
    (Asset::NetworkHost, "send by UDP"),
    (Asset::NetworkHost, "take a port by IPv6"),
    (Asset::OtherProcess, "Trace of a process"),
    (Asset::OtherProcess, "ReadMemory of a process"),
    (Asset::OtherProcess, "TakeDescriptor of a process"),
    (Asset::OtherProcess, "Environment of a process"),
    (Asset::OtherProcess, "MemoryFile of a process"),
    (Asset::OtherProcess, "Signal of a process"),
    (Asset::Supervisor, "Trace of a process"),
    (Asset::Supervisor, "ReadMemory of a process"),
    (Asset::Supervisor, "TakeDescriptor of a process"),
    (Asset::Supervisor, "Environment of a process"),
    (Asset::Supervisor, "MemoryFile of a process"),
    (Asset::Supervisor, "Signal of a process"),
    (Asset::Supervisor, "ask over its socket"),
];

/// What a channel says as a stranger, as another channel and as its own owner.
const AS_A_CHANNEL: &[Try] = &[
    (Asset::OtherSession, "prove to be operator"),
    (Asset::OtherSession, "prove to be terminal"),
    (Asset::OtherSession, "ask for its transcript"),
    (Asset::OtherSession, "write as its person"),
    (Asset::OtherSession, "log in"),
    (Asset::ForgedApproval, "answer by a press"),
    (Asset::ForgedApproval, "answer with a signature"),
    (Asset::ForgedApproval, "answer by a press as the owner"),
    (
        Asset::ForgedApproval,
        "answer with a signature as the owner",
    ),
    (
        Asset::ForgedApproval,
        "answer by a press as the owner, to another channel",
    ),
    (
        Asset::ForgedApproval,
        "answer with a signature as the owner, to another channel",
    ),
    (Asset::OtherSession, "ask for its transcript as the owner"),
];

/// What the vault is asked for, for each purpose, by who has a link to it.
const FOR_THE_WEB_TOKEN: &[Try] = &[
    (Asset::OtherToken, "ask the vault for web-token for a model"),
    (Asset::OtherToken, "ask the vault for web-token for a tool"),
    (Asset::OtherToken, "ask the vault for web-token for itself"),
];

/// The same.
const FOR_THE_TELEGRAM_TOKEN: &[Try] = &[
    (
        Asset::OtherToken,
        "ask the vault for telegram-token for a model",
    ),
    (
        Asset::OtherToken,
        "ask the vault for telegram-token for a tool",
    ),
    (
        Asset::OtherToken,
        "ask the vault for telegram-token for itself",
    ),
];

/// The same.
const FOR_THE_MODEL_KEY: &[Try] = &[
    (
        Asset::ProviderKey,
        "ask the vault for model-key for a model",
    ),
    (Asset::ProviderKey, "ask the vault for model-key for a tool"),
    (Asset::ProviderKey, "ask the vault for model-key for itself"),
];

/// What is asked of the supervisor by who has none.
const WITHOUT_A_LINK: &[Try] = &[
    (Asset::OtherToken, "get a link to the vault"),
    (Asset::ProviderKey, "get a link to the vault"),
];

/// What is said to programs that take no answers.
const AS_THE_OPERATOR: &[Try] = &[(Asset::ForgedApproval, "answer as the operator")];

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The program's file.
    pub name: &'static str,
    /// Its confinement.
    pub program: Program,
    /// What it reaches by design; everything else it must not.
    pub yes: &'static [Asset],
    /// What has to be tried over its links before it counts as not reached, beside [`EVERYWHERE`].
    pub tries: &'static [&'static [Try]],
    /// Why, for people.
    pub why: &'static str,
}

/// All programs that an attacker may get into. The supervisor reads nothing of anybody and is not among them;
/// `bulkhead-engine` lives for one call and holds a container engine, which is what whoever chooses it trusts.
pub const ROWS: [Row; 9] = [
    Row {
        name: "bulkhead-channel-web",
        program: Program::ChannelWeb,
        yes: &[],
        tries: &[
            AS_A_CHANNEL,
            WITHOUT_A_LINK,
            &[(Asset::OtherSession, "prove to be telegram")],
        ],
        why: "",
    },
    Row {
        name: "bulkhead-channel-telegram",
        program: Program::ChannelTelegram,
        yes: &[],
        tries: &[
            AS_A_CHANNEL,
            FOR_THE_WEB_TOKEN,
            FOR_THE_MODEL_KEY,
            &[
                (Asset::OtherSession, "prove to be web"),
                (Asset::NetworkHost, "a tunnel to 127.0.0.1"),
                (Asset::NetworkHost, "a tunnel to localhost"),
                (Asset::NetworkHost, "a tunnel to 2130706433"),
                (Asset::NetworkHost, "a tunnel to ::ffff:127.0.0.1"),
            ],
        ],
        why: "",
    },
    Row {
        name: "bulkhead-agent",
        program: Program::Agent,
        yes: &[],
        tries: &[
            WITHOUT_A_LINK,
            &[
                (Asset::NetworkHost, "ask for a tunnel"),
                (Asset::OtherSession, "end another's turn"),
            ],
        ],
        why: "",
    },
    Row {
        name: "bulkhead-gateway",
        program: Program::Gateway,
        yes: &[
            Asset::History,
            Asset::OtherSession,
            Asset::ForgedApproval,
            Asset::WorkspaceFiles,
            Asset::NetworkHost,
        ],
        tries: &[FOR_THE_WEB_TOKEN, FOR_THE_TELEGRAM_TOKEN, FOR_THE_MODEL_KEY],
        why: "it decides, has boxes run what it decided, and has egress send what it says was allowed",
    },
    Row {
        name: "bulkhead-egress",
        program: Program::Egress,
        yes: &[Asset::ProviderKey, Asset::OtherSession, Asset::NetworkHost],
        tries: &[
            FOR_THE_WEB_TOKEN,
            FOR_THE_TELEGRAM_TOKEN,
            &[(Asset::History, "read rows over its link")],
        ],
        why: "all that is said to models passes through it, with the key that they want",
    },
    Row {
        name: "bulkhead-vault",
        program: Program::Vault,
        yes: &[
            Asset::OtherToken,
            Asset::ProviderKey,
            Asset::VaultFile,
            Asset::MasterKey,
        ],
        tries: &[
            AS_THE_OPERATOR,
            &[(Asset::History, "read rows over its link")],
        ],
        why: "it keeps them",
    },
    Row {
        name: "bulkhead-ledger",
        program: Program::Ledger,
        yes: &[Asset::History, Asset::SigningKey, Asset::OtherSession],
        // Its link to the vault is one that the vault asks over.
        tries: &[AS_THE_OPERATOR],
        why: "it writes and signs the record, in which everything stands",
    },
    Row {
        name: "bulkhead-sandbox",
        program: Program::Sandbox,
        yes: &[Asset::HostFiles, Asset::WorkspaceFiles],
        tries: &[
            WITHOUT_A_LINK,
            AS_THE_OPERATOR,
            &[
                (Asset::NetworkHost, "a box with a rule of its own"),
                (Asset::History, "ask for the history of the workspace"),
            ],
        ],
        why: "it lays the host's programs and the workspace into boxes",
    },
    Row {
        name: "bulkhead-workspace",
        program: Program::Workspace,
        yes: &[Asset::WorkspaceFiles],
        tries: &[WITHOUT_A_LINK, AS_THE_OPERATOR],
        why: "it keeps them",
    },
];

/// Where an attacker is who holds all rights of the user, under no confinement at all: what it reaches shows that
/// the attempts can see. The rest is shown by the rows in which it is meant to be reached.
pub const CONTROL: &str = "unconfined";

/// What [`CONTROL`] has to reach.
pub const CONTROL_REACHES: &[Asset] = &[
    Asset::VaultFile,
    Asset::MasterKey,
    Asset::History,
    Asset::SigningKey,
    Asset::OtherSession,
    Asset::ForgedApproval,
    Asset::PolicyChange,
    Asset::HostFiles,
    Asset::HostFilesWritten,
    Asset::WorkspaceFiles,
    Asset::NetworkHost,
    Asset::OtherProcess,
    Asset::Supervisor,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_seen_anywhere_would_prove_nothing() {
        for asset in ASSETS {
            let seen = ROWS.iter().any(|row| row.yes.contains(&asset));
            assert!(seen || CONTROL_REACHES.contains(&asset), "{asset:?}");
        }
    }

    #[test]
    fn each_asset_is_tried_from_everywhere() {
        for asset in ASSETS {
            assert!(EVERYWHERE.iter().any(|(on, _)| *on == asset), "{asset:?}");
        }
    }

    #[test]
    fn each_asset_is_one_column() {
        for (at, asset) in ASSETS.iter().enumerate() {
            assert_eq!(ASSETS.iter().position(|other| other == asset), Some(at));
        }
    }
}
