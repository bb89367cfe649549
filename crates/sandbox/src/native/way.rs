//! The way to egress of a box that may reach something: a socket that listens on the box' own loopback and
//! that somebody outside takes the connections of.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use protocol::box_link::PORT;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use super::spec::{BoxEnd, Failure, Kind, Report, ToBox};
use crate::sys;

/// Where the certificates that programs are to trust are inside, if somebody inspects.
pub(crate) const AUTHORITIES: &str = "/run/bulkhead/authorities.pem";

/// Public roots on the host, in one file; Debian's place and Fedora's.
const HOST_AUTHORITIES: [&str; 2] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];
/// The longest such file that is read.
const MAX_AUTHORITIES: u64 = 4 * 1024 * 1024;
/// Connections that may wait to be taken.
const WAITING: i32 = 256;

/// What a box has beside its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// No way out.
    None,
    /// A port of its loopback leads to egress.
    Egress {
        /// What programs are to trust, PEM; empty if that is what they always trust.
        authorities: String,
    },
}

/// Opens the way of a box, if it is of a kind that has one, and waits until somebody stands at its other end.
/// Before the root of the host is left and before anything is given up.
pub(crate) fn open(link: &BoxEnd, kind: Kind) -> Result<Way, Failure> {
    match kind {
        Kind::Exec | Kind::Tool => return Ok(Way::None),
        Kind::Online => {}
    }
    let listener = listener().map_err(Failure::at("listening on the loopback of the box"))?;
    link.send_with(&Report::Listening, listener)
        .map_err(Failure::because)?;
    match link.receive().map_err(Failure::because)? {
        (ToBox::Served { authority }, _) => Ok(Way::Egress {
            authorities: trusted(authority),
        }),
        (ToBox::Build { .. } | ToBox::Go { .. }, _) => {
            Err(Failure::because("told to go on before anybody listens"))
        }
    }
}

/// The socket does not stay in the box.
fn listener() -> std::io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sys::switch_loopback_on(&socket)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT))?;
    listen(&socket, WAITING)?;
    Ok(socket)
}

/// The inspector's certificate and the host's own: not every host that a box may reach is inspected.
fn trusted(authority: String) -> String {
    if authority.is_empty() {
        return authority;
    }
    let host = HOST_AUTHORITIES.iter().find(|path| {
        fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() <= MAX_AUTHORITIES)
    });
    // Without a list of its own the host verifies nobody, and nor does the box.
    let host = host.and_then(|path| fs::read_to_string(path).ok());
    authority + "\n" + &host.unwrap_or_default()
}

impl Way {
    /// What a command finds in its environment because of it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        /// Where programs that know proxies look. Those in capitals are not read by programs that fear a
        /// web server's own variables, so there are both.
        const PROXIES: [&str; 8] = [
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "npm_config_proxy",
            "npm_config_https_proxy",
        ];
        /// Where programs look for the certificates they trust.
        const TRUST: [&str; 9] = [
            "SSL_CERT_FILE",
            "CURL_CA_BUNDLE",
            "REQUESTS_CA_BUNDLE",
            "PIP_CERT",
            "GIT_SSL_CAINFO",
            "NODE_EXTRA_CA_CERTS",
            "npm_config_cafile",
            "CARGO_HTTP_CAINFO",
            "AWS_CA_BUNDLE",
        ];
        let authorities = match self {
            Self::None => return Vec::new(),
            Self::Egress { authorities } => authorities,
        };
        let proxy = format!("http://{}:{PORT}", Ipv4Addr::LOCALHOST);
        let mut all: Vec<_> = PROXIES.iter().map(|name| (*name, proxy.clone())).collect();
        // Node's own requests go there only when told.
        all.push(("NODE_USE_ENV_PROXY", "1".to_owned()));
        // There is nobody to ask for a password.
        all.push(("GIT_TERMINAL_PROMPT", "0".to_owned()));
        if !authorities.is_empty() {
            all.extend(TRUST.iter().map(|name| (*name, AUTHORITIES.to_owned())));
        }
        all
    }

    /// What goes to [`AUTHORITIES`]; nothing if there is no such file.
    pub(crate) fn authorities(&self) -> &str {
        match self {
            Self::None => "",
            Self::Egress { authorities } => authorities,
        }
    }
}
