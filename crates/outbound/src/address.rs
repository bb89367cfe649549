//! Which addresses may be connected to: pure, so that every form can be tested.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::host::Host;

/// What an address is for, by the special-purpose registries of IANA (RFC 6890).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A host on the internet.
    Public,
    /// This machine.
    Loopback,
    /// A home, an office, a provider's inside: RFC 1918, RFC 4193, RFC 6598.
    Private,
    /// The same wire; metadata services of clouds live here: RFC 3927, RFC 4291.
    LinkLocal,
    /// Many hosts at once: multicast and broadcast.
    Multicast,
    /// IPv6 that holds an IPv4 address: mapped, compatible, NAT64, 6to4, Teredo, ISATAP. Where it
    /// leads is not what it looks like.
    Translated,
    /// Unspecified, documentation, benchmarks, not given to anybody.
    Reserved,
}

/// What a configured host allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Loopback addresses only.
    Loopback,
    /// Public addresses only.
    Public,
    /// This address only.
    Exactly(IpAddr),
}

/// Why no address of a host may be connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An address was written where a name belongs.
    #[error("`{0}` is an address and not a name; only a loopback address may be written as one")]
    Literal(String),
    /// One of the addresses is not of the kind allowed.
    #[error("`{host}` resolves to {address}, {kind}, which is not allowed here")]
    WrongKind {
        /// The host.
        host: String,
        /// What it resolves to.
        address: IpAddr,
        /// What that is.
        kind: Kind,
    },
    /// There are no addresses.
    #[error("`{0}` has no address")]
    NoAddress(String),
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Public => "a public address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Translated => "an IPv4 address in IPv6 form",
            Self::Reserved => "a reserved address",
        })
    }
}

impl Allowed {
    /// What a host in a rule allows: a loopback address itself, `localhost` loopback, a name
    /// public addresses. Other addresses are refused before anything is resolved.
    pub fn by_rule(host: &str) -> Result<Self, Refusal> {
        match host.parse::<IpAddr>() {
            Ok(address) if kind(address) == Kind::Loopback => Ok(Self::Exactly(address)),
            Ok(_) => Err(Refusal::Literal(host.to_owned())),
            Err(_) if is_localhost(host) => Ok(Self::Loopback),
            Err(_) if reads_as_number(host) => Err(Refusal::Literal(host.to_owned())),
            Err(_) => Ok(Self::Public),
        }
    }
}

/// Whether a configured host can only be this machine.
pub fn is_loopback_host(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => kind(address) == Kind::Loopback,
        Err(_) => is_localhost(host),
    }
}

/// The addresses of a host that may be connected to, in their order; at least one. One that does
/// not fit refuses them all: who answers with a public and a private one is not to be trusted.
pub fn check(allowed: &Allowed, host: &str, addresses: &[IpAddr]) -> Result<Vec<IpAddr>, Refusal> {
    if addresses.is_empty() {
        return Err(Refusal::NoAddress(host.to_owned()));
    }
    let fits = |address: &IpAddr| match allowed {
        Allowed::Loopback => kind(*address) == Kind::Loopback,
        Allowed::Public => kind(*address) == Kind::Public,
        Allowed::Exactly(only) => address == only,
    };
    match addresses.iter().find(|address| !fits(address)) {
        Some(wrong) => Err(Refusal::WrongKind {
            host: host.to_owned(),
            address: *wrong,
            kind: kind(*wrong),
        }),
        None => Ok(addresses.to_vec()),
    }
}

/// What the address is for, if the host is one.
pub(crate) fn kind_of(host: &Host) -> Option<Kind> {
    match host {
        Host::Address(address) => Some(kind(*address)),
        Host::Name(_) => None,
    }
}

/// What an address is for.
pub fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

fn kind_v4(address: Ipv4Addr) -> Kind {
    match address.octets() {
        [127, ..] => Kind::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Kind::Private,
        // The last is a cloud's own services to the machines in it, by an address that looks public.
        [169, 254, ..] | [168, 63, 129, 16] => Kind::LinkLocal,
        [224..=239, ..] | [255, 255, 255, 255] => Kind::Multicast,
        [0, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [240..=255, ..] => Kind::Reserved,
        _ => Kind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> Kind {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Loopback,
        [0, 0, 0, 0, 0, 0, 0, 0] => Kind::Reserved,
        // Mapped, translated (RFC 2765) and compatible; NAT64 (RFC 6052, RFC 8215); Teredo; 6to4.
        [0, 0, 0, 0, 0, 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0, 0, 0, 0, 0, 0, ..]
        | [0x64, 0xff9b, ..]
        | [0x2001, 0, ..]
        | [0x2002, ..] => Kind::Translated,
        // ISATAP, below any prefix (RFC 5214).
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => Kind::Translated,
        [0xfc00..=0xfdff, ..] => Kind::Private,
        // With the site-local addresses that RFC 3879 took back.
        [0xfe80..=0xfeff, ..] => Kind::LinkLocal,
        [0xff00..=0xffff, ..] => Kind::Multicast,
        // Protocol assignments up to 2001:1ff, documentation twice.
        [0x2001, 1..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Reserved,
        [0x2000..=0x3fff, ..] => Kind::Public,
        _ => Kind::Reserved,
    }
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

/// Whether the resolver may take this for an address: `2130706433`, `0x7f.1`, `127.1`.
fn reads_as_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or(host);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let number = last.bytes().all(|b| b.is_ascii_digit());
    number || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Kind {
        kind(text.parse().unwrap())
    }

    #[test]
    fn every_form_has_its_kind() {
        let table: &[(Kind, &[&str])] = &[
            (Kind::Loopback, &["127.0.0.1", "127.255.255.255", "::1"]),
            (
                Kind::Private,
                &[
                    "10.0.0.1",
                    "10.255.255.255",
                    "172.16.0.1",
                    "172.31.255.255",
                    "192.168.0.1",
                    "100.64.0.1",
                    "100.127.255.255",
                    "fc00::1",
                    "fdff:ffff::1",
                ],
            ),
            (
                Kind::LinkLocal,
                &[
                    "169.254.169.254",
                    "169.254.0.1",
                    "fe80::1",
                    "febf::1",
                    "fec0::1",
                ],
            ),
            (
                Kind::Multicast,
                &["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1"],
            ),
            (
                Kind::Translated,
                &[
                    "::ffff:127.0.0.1",
                    "::ffff:8.8.8.8",
                    "::ffff:0:8.8.8.8",
                    "::8.8.8.8",
                    "::127.0.0.1",
                    "::2",
                    "64:ff9b::127.0.0.1",
                    "64:ff9b::808:808",
                    "64:ff9b:1::a00:1",
                    "2002:7f00:1::",
                    "2001:0:1::1",
                    "fe80::5efe:a00:1",
                    "2606:4700::200:5efe:7f00:1",
                ],
            ),
            (
                Kind::Reserved,
                &[
                    "0.0.0.0",
                    "0.1.2.3",
                    "192.0.0.1",
                    "192.0.2.1",
                    "192.88.99.1",
                    "198.18.0.1",
                    "198.19.255.255",
                    "198.51.100.1",
                    "203.0.113.1",
                    "240.0.0.1",
                    "255.255.255.254",
                    "::",
                    "100::1",
                    "2001:db8::1",
                    "2001:2::1",
                    "2001:20::1",
                    "3fff::1",
                    "4000::1",
                    "5f00::1",
                    "1000::1",
                ],
            ),
            (
                Kind::Public,
                &[
                    "8.8.8.8",
                    "1.1.1.1",
                    "9.255.255.255",
                    "11.0.0.1",
                    "172.15.255.255",
                    "172.32.0.1",
                    "192.167.255.255",
                    "192.169.0.1",
                    "100.63.255.255",
                    "100.128.0.1",
                    "169.253.0.1",
                    "198.17.0.1",
                    "198.20.0.1",
                    "223.255.255.255",
                    "126.0.0.1",
                    "128.0.0.1",
                    "192.0.1.1",
                    "2606:4700::1",
                    "2a00:1450::1",
                    "2001:67c:4e8::a",
                    "2001:200::1",
                ],
            ),
        ];
        for (kind, texts) in table {
            for text in *texts {
                assert_eq!(of(text), *kind, "{text}");
            }
        }
    }

    #[test]
    fn a_rule_s_host_says_what_is_allowed() {
        assert_eq!(Allowed::by_rule("api.telegram.org"), Ok(Allowed::Public));
        assert_eq!(Allowed::by_rule("LOCALHOST"), Ok(Allowed::Loopback));
        assert_eq!(
            Allowed::by_rule("localhost.example.com"),
            Ok(Allowed::Public)
        );
        let one = "127.0.0.2".parse().unwrap();
        assert_eq!(Allowed::by_rule("127.0.0.2"), Ok(Allowed::Exactly(one)));
        for literal in [
            "8.8.8.8",
            "10.0.0.1",
            "0.0.0.0",
            "::ffff:127.0.0.1",
            "2606:4700::1",
            "2130706433",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "0177.0.0.1",
            "127.0.0.1.",
            "1.2.3.4.",
        ] {
            assert!(
                matches!(Allowed::by_rule(literal), Err(Refusal::Literal(_))),
                "{literal}"
            );
        }
    }

    #[test]
    fn one_address_that_does_not_fit_refuses_them_all_and_so_does_none() {
        let addresses = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let public = addresses(&["8.8.8.8", "1.1.1.1", "2606:4700::1"]);
        assert_eq!(check(&Allowed::Public, "h", &public), Ok(public));
        let local = addresses(&["::1", "127.0.0.1"]);
        assert_eq!(check(&Allowed::Loopback, "h", &local), Ok(local));
        for wrong in [
            "10.0.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "::ffff:8.8.4.4",
            "fe80::1",
            "0.0.0.0",
        ] {
            for mixed in [vec!["8.8.8.8", wrong], vec![wrong, "8.8.8.8"], vec![wrong]] {
                let refused = check(&Allowed::Public, "h", &addresses(&mixed));
                assert!(
                    matches!(refused, Err(Refusal::WrongKind { .. })),
                    "{mixed:?}"
                );
            }
        }
        assert!(
            check(
                &Allowed::Loopback,
                "h",
                &addresses(&["127.0.0.1", "8.8.8.8"])
            )
            .is_err()
        );
        let one = Allowed::Exactly("127.0.0.2".parse().unwrap());
        assert!(check(&one, "h", &addresses(&["127.0.0.1"])).is_err());
        assert!(check(&one, "h", &addresses(&["127.0.0.2", "127.0.0.1"])).is_err());
        assert!(check(&one, "h", &addresses(&["127.0.0.2"])).is_ok());
        assert_eq!(
            check(&Allowed::Public, "h", &[]),
            Err(Refusal::NoAddress("h".to_owned()))
        );
    }
}
