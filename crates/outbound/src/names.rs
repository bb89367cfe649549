//! Names that are no host of the internet, whatever they resolve to.

use std::net::Ipv4Addr;

use crate::address::{Kind, kind};

/// Why a name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// `localhost`, and names below it (RFC 6761, section 6.3).
    #[error("{0:?} is this machine")]
    Localhost(String),
    /// `intranet`: what it leads to depends on who looks it up.
    #[error("{0:?} has no dot; what it leads to depends on the machine that looks it up")]
    SingleLabel(String),
    /// `.local`, `.internal`, `.onion`: names of a place and not of the internet.
    #[error("names below {0:?} belong to a local network or to another one than the internet")]
    Local(&'static str),
    /// `metadata.google.internal`.
    #[error("{0:?} gives the keys of a machine in a cloud to whoever asks from it")]
    Metadata(String),
    /// `10.0.0.1.nip.io`.
    #[error("names of {0:?} lead to an address that is chosen by who writes the name")]
    ChosenAddress(&'static str),
    /// `127-0-0-1.example.com`.
    #[error("{0:?} spells an address that is not public")]
    SpeltAddress(String),
}

/// Ends of names that no public server is called by: RFC 6761, 6762, 7686, 8375, what ICANN keeps
/// out of the root for networks' own use, and what is used so in spite of it.
const LOCAL: [&str; 39] = [
    "local",
    "internal",
    "localdomain",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "workgroup",
    "domain.name",
    "arpa",
    "onion",
    "i2p",
    "exit",
    "alt",
    "gnu",
    "svc",
    "cluster",
    "consul",
    "docker",
    "kube",
    "kubernetes",
    "podman",
    "vagrant",
    "intra",
    "belkin",
    "router",
    "invalid",
    "fritz.box",
    "speedport.ip",
    "default",
    "routerlogin.net",
    "routerlogin.com",
    "tplinkwifi.net",
    "tplinklogin.net",
    "router.asus.com",
    "repeater.asus.com",
    "orbilogin.com",
    "miwifi.com",
];

/// What gives credentials to whoever asks from within a cloud.
const METADATA: [&str; 15] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "instance-data.amazonaws.com",
    "metadata.azure.com",
    "metadata.azure.internal",
    "metadata.packet.net",
    "metadata.platformequinix.com",
    "metadata.tencentyun.com",
    "metadata.nifcloud.com",
    "metadata.linode.com",
    "metadata.oraclecloud.com",
    "rancher-metadata",
];

/// Services whose names resolve to what the name spells, to this machine, or to one address first
/// and another one later.
const CHOSEN: [&str; 43] = [
    "nip.io",
    "sslip.io",
    "xip.io",
    "xip.name",
    "ip6.name",
    "ipq.co",
    "localtest.me",
    "lvh.me",
    "vcap.me",
    "lacolhost.com",
    "yoogle.com",
    "localho.st",
    "local.gd",
    "traefik.me",
    "backname.io",
    "smackaho.st",
    "42foo.com",
    "fuf.me",
    "fbi.com",
    "1u.ms",
    "rbndr.us",
    "rebind.network",
    "rebind.it",
    "cmpxchg8b.com",
    "spoofed.burpcollaborator.net",
    "localhost.direct",
    "lcl.host",
    "localdev.me",
    "lndo.site",
    "ddev.site",
    "loopback.jp",
    "127-0-0-1.org.uk",
    "bugbounty.dod.network",
    "mail.ebc.apple.com",
    "nip.sh",
    "dnsrebinder.net",
    "rebinder.net",
    "make-127-0-0-1-rebind-169.254-169.254-rr.1u.ms",
    "plex.direct",
    "localh.st",
    "localdomain.pw",
    "oops.cc",
    "metadata.nicv.se",
];

/// Checks what a name means. It is in lower case and without a dot at its end.
pub(crate) fn check(name: &str) -> Result<(), BadName> {
    if METADATA.contains(&name) {
        return Err(BadName::Metadata(name.to_owned()));
    }
    if is_below(name, "localhost") || is_below(name, "ip6-localhost") || is_below(name, "loopback")
    {
        return Err(BadName::Localhost(name.to_owned()));
    }
    if !name.contains('.') {
        return Err(BadName::SingleLabel(name.to_owned()));
    }
    if let Some(end) = LOCAL.iter().find(|end| is_below(name, end)) {
        return Err(BadName::Local(end));
    }
    if let Some(service) = CHOSEN.iter().find(|service| is_below(name, service)) {
        return Err(BadName::ChosenAddress(service));
    }
    match spells_an_address(name) {
        true => Err(BadName::SpeltAddress(name.to_owned())),
        false => Ok(()),
    }
}

fn is_below(name: &str, end: &str) -> bool {
    let before = name.strip_suffix(end);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether four numbers in a row, between dots or hyphens, are an address that is not public, or
/// a label is one of the usual ones in hexadecimal.
fn spells_an_address(name: &str) -> bool {
    let not_public = |address: Ipv4Addr| kind(address.into()) != Kind::Public;
    let words: Vec<&str> = name.split(['.', '-']).collect();
    let number = |word: &&str| word.parse::<u8>().ok().filter(|_| word.len() <= 3);
    let spelt = words.windows(4).any(|four| {
        let numbers: Option<Vec<u8>> = four.iter().map(number).collect();
        let octets = numbers.and_then(|numbers| <[u8; 4]>::try_from(numbers).ok());
        octets.is_some_and(|octets| not_public(octets.into()))
    });
    let usual = [
        "7f000001",
        "0x7f000001",
        "a9fea9fe",
        "0xa9fea9fe",
        "2130706433",
        "2852039166",
    ];
    spelt || words.iter().any(|word| usual.contains(word))
}

/// Why a name may be there to carry something out and not to be looked up, if so: the server of
/// whoever owns the domain gets to see all of it.
pub(crate) fn carries_data(name: &str) -> Option<String> {
    let mut labels: Vec<&str> = name.split('.').collect();
    labels.truncate(labels.len().saturating_sub(2));
    let length: usize = labels.iter().map(|label| label.len()).sum();
    if let Some(label) = labels.iter().find(|label| looks_random(label)) {
        return Some(format!(
            "{label:?} in the host's name looks like data and not like a name"
        ));
    }
    (length > 80 || labels.len() > 6).then(|| {
        format!(
            "the host's name is long enough to carry data out ({length} bytes below its domain)"
        )
    })
}

/// Whether a label is longer than names are, or holds more than words do.
fn looks_random(label: &str) -> bool {
    let digits = label.bytes().filter(u8::is_ascii_digit).count();
    let changes = label
        .as_bytes()
        .windows(2)
        .filter(|pair| pair[0].is_ascii_digit() != pair[1].is_ascii_digit())
        .count();
    let vowels = label.bytes().filter(|b| b"aeiouy".contains(b)).count();
    let no_words = |least: usize| !label.contains('-') && vowels * 6 < least;
    label.len() > 40
        || label.len() >= 20 && (digits >= 2 && changes >= 4 || no_words(label.len()))
        || label.len() >= 16 && label.bytes().all(|b| b.is_ascii_hexdigit()) && digits >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_hosts_of_the_internet_are_refused_with_the_reason() {
        type Row<'a> = (fn(&BadName) -> bool, &'a [&'a str]);
        let table: &[Row<'_>] = &[
            (
                |bad| matches!(bad, BadName::Localhost(_)),
                &["localhost", "a.localhost", "ip6-localhost"],
            ),
            (
                |bad| matches!(bad, BadName::SingleLabel(_)),
                &["intranet1", "com", "printer"],
            ),
            (
                |bad| matches!(bad, BadName::Local(_)),
                &[
                    "printer.local",
                    "a.b.internal",
                    "x.localdomain",
                    "router.home.arpa",
                    "a.onion",
                    "1.0.0.127.in-addr.arpa",
                    "kubernetes.default.svc",
                    "db.svc.cluster.local",
                    "host.docker.internal",
                    "fritz.box",
                ],
            ),
            (
                |bad| matches!(bad, BadName::Metadata(_)),
                &[
                    "metadata",
                    "metadata.google.internal",
                    "instance-data",
                    "metadata.goog",
                ],
            ),
            (
                |bad| matches!(bad, BadName::ChosenAddress(_)),
                &[
                    "127.0.0.1.nip.io",
                    "nip.io",
                    "a.sslip.io",
                    "x.lvh.me",
                    "localtest.me",
                    "7f000001.c0a80001.rbndr.us",
                ],
            ),
            (
                |bad| matches!(bad, BadName::SpeltAddress(_)),
                &[
                    "127.0.0.1.example.com",
                    "169-254-169-254.example.com",
                    "app-10-0-0-1.example.com",
                    "7f000001.example.com",
                ],
            ),
        ];
        for (is, names) in table {
            for name in *names {
                let bad = check(name).unwrap_err();
                assert!(is(&bad), "{name}: {bad:?}");
            }
        }
    }

    #[test]
    fn usual_names_are_taken() {
        for name in [
            "example.com",
            "api.github.com",
            "notlocalhost.com",
            "local.example.com",
            "internal.example.com",
            "snip.io",
            "ec2-3-8-100-200.eu-west-2.compute.amazonaws.com",
            "xn--mnchen-3ya.de",
            "8.8.8.8.example.com",
            "metadata.example.com",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_carry_data_are_seen() {
        for name in [
            "48656c6c6f20776f726c64.evil.com",
            "mfrggzdfmztwq2lknnwg23tpobyxe43u.evil.com",
            "aws-secret-AKIA.x.evil.com"
                .to_lowercase()
                .replace("x.", &format!("{}.", "a".repeat(50)))
                .as_str(),
            "a.b.c.d.e.f.g.h.evil.com",
            "c2vjcmv0lxrva2vulxrvlwnhcnj5.evil.com",
        ] {
            assert!(carries_data(name).is_some(), "{name}");
        }
        for name in [
            "example.com",
            "api.github.com",
            "d111111abcdef8.cloudfront.net",
            "objects.githubusercontent.com",
            "raw.githubusercontent.com",
            "my-bucket-of-pictures.s3.eu-west-1.amazonaws.com",
            "r3---sn-4g5e6nsz.googlevideo.com",
            "ec2-3-8-100-200.eu-west-2.compute.amazonaws.com",
            "generativelanguage.googleapis.com",
            "accounts.google.com",
            "fonts.gstatic.com",
            "registry.npmjs.org",
            "files.pythonhosted.org",
            "production.cloudflare.docker.com",
        ] {
            assert_eq!(carries_data(name), None, "{name}");
        }
    }
}
