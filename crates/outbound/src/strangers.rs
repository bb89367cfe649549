//! Hosts on which strangers have places of their own, so that to allow the host allows theirs.

use protocol::outbound::HostPattern;

/// Domains below which strangers have names of their own.
const NAMES: [&str; 38] = [
    "github.io",
    "githubusercontent.com",
    "gitlab.io",
    "pages.dev",
    "workers.dev",
    "vercel.app",
    "netlify.app",
    "netlify.com",
    "herokuapp.com",
    "onrender.com",
    "fly.dev",
    "railway.app",
    "web.app",
    "firebaseapp.com",
    "firebaseio.com",
    "appspot.com",
    "run.app",
    "cloudfunctions.net",
    "googleapis.com",
    "googleusercontent.com",
    "amazonaws.com",
    "cloudfront.net",
    "azurewebsites.net",
    "windows.net",
    "azureedge.net",
    "blogspot.com",
    "wordpress.com",
    "ngrok.io",
    "ngrok-free.app",
    "ngrok.app",
    "trycloudflare.com",
    "r2.dev",
    "r2.cloudflarestorage.com",
    "myshopify.com",
    "digitaloceanspaces.com",
    "backblazeb2.com",
    "hf.space",
    "replit.app",
];

/// Those of which that is so at every depth: regions and services stand between.
const AT_EVERY_DEPTH: [&str; 4] = [
    "amazonaws.com",
    "windows.net",
    "digitaloceanspaces.com",
    "backblazeb2.com",
];

/// Hosts with places of strangers behind their paths.
const HOSTS: [&str; 46] = [
    "github.com",
    "api.github.com",
    "uploads.github.com",
    "gist.github.com",
    "codeload.github.com",
    "gitlab.com",
    "bitbucket.org",
    "api.bitbucket.org",
    "codeberg.org",
    "sr.ht",
    "git.sr.ht",
    "huggingface.co",
    "pypi.org",
    "upload.pypi.org",
    "test.pypi.org",
    "registry.npmjs.org",
    "rubygems.org",
    "crates.io",
    "static.crates.io",
    "hub.docker.com",
    "registry-1.docker.io",
    "ghcr.io",
    "quay.io",
    "storage.googleapis.com",
    "www.googleapis.com",
    "drive.google.com",
    "docs.google.com",
    "s3.amazonaws.com",
    "api.telegram.org",
    "discord.com",
    "slack.com",
    "hooks.slack.com",
    "api.notion.com",
    "pastebin.com",
    "paste.rs",
    "transfer.sh",
    "file.io",
    "0x0.st",
    "webhook.site",
    "api.dropboxapi.com",
    "content.dropboxapi.com",
    "graph.microsoft.com",
    "api.openai.com",
    "api.anthropic.com",
    "sheets.googleapis.com",
    "ifconfig.me",
];

/// Whether strangers have places of their own on the hosts of a pattern, so that the host alone
/// says little about where something goes.
pub fn serves_strangers(pattern: &HostPattern) -> bool {
    match pattern {
        HostPattern::Name(name) => {
            HOSTS.contains(&name.as_str()) || NAMES.iter().any(|end| is_below(name.as_str(), end))
        }
        HostPattern::Below(name) => {
            has_names_of_strangers(name.as_str())
                || NAMES.iter().any(|end| is_below(name.as_str(), end))
                || HOSTS.iter().any(|host| is_below(host, name.as_str()))
        }
        HostPattern::Address(_) => false,
    }
}

/// Whether strangers have names directly below this one.
pub(crate) fn has_names_of_strangers(name: &str) -> bool {
    NAMES.contains(&name) || AT_EVERY_DEPTH.iter().any(|end| is_below(name, end))
}

fn is_below(name: &str, end: &str) -> bool {
    let before = name.strip_suffix(end);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_places_of_strangers_are_known() {
        let serves = |text: &str| serves_strangers(&text.parse().unwrap());
        for host in [
            "github.com",
            "*.github.com",
            "me.github.io",
            "*.github.io",
            "bucket.s3.eu-west-1.amazonaws.com",
            "huggingface.co",
        ] {
            assert!(serves(host), "{host}");
        }
        for host in ["example.com", "*.example.com", "10.0.0.1", "notgithub.com"] {
            assert!(!serves(host), "{host}");
        }
        assert!(has_names_of_strangers("s3.eu-west-1.amazonaws.com"));
        assert!(!has_names_of_strangers("me.github.io"));
    }
}
