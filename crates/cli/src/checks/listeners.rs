//! Who listens on a port of this machine, as proc_pid_net(5) tells it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The state of a listening socket in these tables.
const LISTEN: &str = "0A";

/// The addresses on which somebody listens on this TCP port.
pub(super) fn on(port: u16) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => found.extend(listening(&text, port)),
            // A kernel without IPv6 has no table for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Whether this address can be reached from this machine only.
pub(super) fn is_loopback(address: &IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn listening(table: &str, port: u16) -> impl Iterator<Item = IpAddr> {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (address, digits) = local.split_once(':')?;
        let same = u16::from_str_radix(digits, 16).ok()? == port;
        (same && state == LISTEN).then(|| parse(address)).flatten()
    })
}

/// Each group of four bytes is written as one number in the machine's own byte order.
fn parse(address: &str) -> Option<IpAddr> {
    if !matches!(address.len(), 8 | 32) {
        return None;
    }
    let mut bytes = Vec::with_capacity(16);
    for group in address.as_bytes().chunks(8) {
        let digits = str::from_utf8(group).ok()?;
        bytes.extend(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes());
    }
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    let bytes = <[u8; 16]>::try_from(bytes.as_slice()).ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue\n";

    fn addresses(line: &str, port: u16) -> Vec<String> {
        let table = format!("{HEAD}{line}\n");
        listening(&table, port)
            .map(|address| address.to_string())
            .collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn tables_of_both_families_are_read() {
        let loopback = "   0: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000";
        assert_eq!(addresses(loopback, 11434), ["127.0.0.1"]);
        assert!(addresses(loopback, 11435).is_empty());
        let every = "   1: 00000000:2CAA 00000000:0000 0A 00000000:00000000 00:00000000";
        assert_eq!(addresses(every, 11434), ["0.0.0.0"]);
        let six = "   2: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0";
        assert_eq!(addresses(six, 8080), ["::1"]);
        let connected = "   3: 0100007F:2CAA 0100007F:D431 01 00000000:00000000 00:00000000";
        assert!(addresses(connected, 11434).is_empty());
    }

    #[test]
    fn what_is_not_such_a_line_is_passed_over() {
        for line in [
            "",
            "x",
            "0: zz:2CAA 0:0 0A",
            "0: 7F:2CAA 0:0 0A",
            "0: 0100007F 0:0 0A",
        ] {
            assert!(addresses(line, 11434).is_empty(), "{line:?}");
        }
    }

    #[test]
    fn a_mapped_loopback_address_is_loopback_and_every_address_is_not() {
        let is = |text: &str| is_loopback(&text.parse().unwrap());
        assert!(is("127.0.0.2") && is("::1") && is("::ffff:127.0.0.1"));
        assert!(!is("0.0.0.0") && !is("::") && !is("192.168.1.2"));
    }

    #[test]
    fn a_real_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(on(address.port()).unwrap(), [address.ip()]);
    }
}
