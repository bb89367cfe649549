//! What a program in a box tries that is not content with its rules.

use std::time::{Duration, Instant};

use protocol::event::Event;
use protocol::outbound::EgressRule;
use protocol::runner::RunEnd;
use serde_json::json;

use crate::Test;
use crate::inside::TOOL;
use crate::run::{System, rule};
use crate::world::World;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_tunnel_leads_to_the_name_that_tls_asks_for",
        a_tunnel_leads_to_the_name_that_tls_asks_for,
    ),
    (
        "a_name_that_leads_inside_is_refused_whatever_rule_has_it",
        a_name_that_leads_inside_is_refused_whatever_rule_has_it,
    ),
    (
        "there_is_no_way_past_the_proxy_and_no_names_in_the_box",
        there_is_no_way_past_the_proxy_and_no_names_in_the_box,
    ),
    (
        "forms_that_could_be_read_in_two_ways_are_refused",
        forms_that_could_be_read_in_two_ways_are_refused,
    ),
    (
        "two_hundred_tunnels_of_one_box_are_served_at_once",
        two_hundred_tunnels_of_one_box_are_served_at_once,
    ),
    ("tunnels_end_with_their_box", tunnels_end_with_their_box),
    (
        "a_channel_s_tunnel_leads_to_the_name_that_tls_asks_for",
        a_channel_s_tunnel_leads_to_the_name_that_tls_asks_for,
    ),
    (
        "no_credential_and_no_key_is_in_a_box",
        no_credential_and_no_key_is_in_a_box,
    ),
];

fn plain() -> Vec<EgressRule> {
    vec![rule("plain", "curl", "plain.acme-widgets.com", json!({}))]
}

fn a_tunnel_leads_to_the_name_that_tls_asks_for(world: &World) {
    let system = System::start(world);
    let curl = "curl -sS -k --max-time 20";
    // CONNECT says one name, and TLS another one that the same server has.
    let other = "--connect-to other.acme-widgets.com:443:plain.acme-widgets.com:443 https://other.acme-widgets.com/";
    system.fails(&plain(), &format!("{curl} {other}"));
    let says = |text: &'static str| move |event: &Event| matches!(event, Event::EgressRefused { reason, .. } if reason.contains(text));
    system.wait_for_row(says("another server"));
    // An address as name sends none.
    system.rows();
    let nameless =
        "--connect-to 93.184.216.34:443:plain.acme-widgets.com:443 https://93.184.216.34/";
    system.fails(&plain(), &format!("{curl} {nameless}"));
    system.wait_for_row(says("names no server"));
    // No TLS at all, at the port of TLS.
    system.rows();
    system.fails(
        &plain(),
        &format!("{curl} -p http://plain.acme-widgets.com:443/"),
    );
    system.wait_for_row(says("no TLS"));
    // And where egress looks into it.
    let look = json!({"inspect": "yes", "paths": ["/me/*"]});
    let looked = vec![rule("plain", "curl", "plain.acme-widgets.com", look)];
    system.rows();
    system.fails(&looked, &format!("{curl} {other}"));
    system.wait_for_row(says("another server"));
    assert!(world.heard.take().is_empty());
}

fn a_name_that_leads_inside_is_refused_whatever_rule_has_it(world: &World) {
    let system = System::start(world);
    for host in ["meta.acme-widgets.com", "inner.acme-widgets.com"] {
        for look in ["no", "yes"] {
            let rules = vec![rule("odd", "curl", host, json!({"inspect": look}))];
            let curl = format!("curl -sS -k --max-time 20 -i https://{host}/");
            let outcome = system.shell(&rules, &curl);
            let told = outcome.stdout + &outcome.stderr;
            assert!(told.contains("403"), "{host}: {told}");
            system.wait_for_row(|event| matches!(event, Event::EgressRefused { .. }));
            system.rows();
        }
    }
    assert!(world.heard.take().is_empty());
}

fn there_is_no_way_past_the_proxy_and_no_names_in_the_box(world: &World) {
    let system = System::start(world);
    let curl = "curl -sS -k --max-time 5 --noproxy '*'";
    for text in [
        "getent hosts plain.acme-widgets.com".to_owned(),
        format!("{curl} https://plain.acme-widgets.com/"),
        format!("{curl} https://93.184.216.34/"),
        format!("{curl} http://169.254.169.254/"),
        format!("{curl} --resolve plain.acme-widgets.com:443:93.184.216.34 https://plain.acme-widgets.com/"),
        "/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)'".to_owned(),
        "/usr/bin/python3 -c 'import socket; socket.create_connection((\"93.184.216.34\", 443), 5)'".to_owned(),
        "/usr/bin/python3 -c 'import socket; socket.socket(socket.AF_INET6, socket.SOCK_STREAM)'".to_owned(),
        "/usr/bin/python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 8080))'".to_owned(),
    ] {
        system.fails(&plain(), &text);
    }
    // The same from outside works, so that it is the box that stops it.
    let here = std::process::Command::new("sh")
        .args(["-c", "getent hosts plain.acme-widgets.com && curl -sS -k --max-time 5 https://93.184.216.34/"])
        .output()
        .unwrap();
    assert!(here.status.success(), "{here:?}");
    assert_eq!(world.heard.take().len(), 1);
}

fn forms_that_could_be_read_in_two_ways_are_refused(world: &World) {
    let system = System::start(world);
    let clear =
        json!({"ports": [80, 443], "cleartext": "allowed", "paths": ["/me/*"], "inspect": "yes"});
    let rules = vec![rule("clear", "curl", "plain.acme-widgets.com", clear)];
    let host = r"Host: plain.acme-widgets.com\r\n";
    let get = r"GET http://plain.acme-widgets.com/me/a HTTP/1.1\r\n";
    let post = r"POST http://plain.acme-widgets.com/me/a HTTP/1.1\r\n";
    let say = |text: &str| {
        let outcome = system.run(&rules, &[TOOL, "inside", "say", text]);
        assert_eq!(outcome.end, RunEnd::Exited { code: 0 }, "{outcome:?}");
        outcome.stdout
    };
    let close = r"Connection: close\r\n\r\n";
    assert!(say(&format!("{get}{host}{close}")).contains("200 OK"));
    world.heard.take();
    let smuggled = r"GET http://plain.acme-widgets.com/you/a HTTP/1.1\r\n";
    for text in [
        format!(r"GET /me/a HTTP/1.1\r\n{host}{close}"),
        format!(r"{get}{close}"),
        format!(r"{get}Host: other.acme-widgets.com\r\n{close}"),
        format!(r"{get}{host}{host}{close}"),
        format!(r"{get}{host}{host}Host: other.acme-widgets.com\r\n{close}"),
        format!(
            r"{post}{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}{host}{close}"
        ),
        format!(r"{post}{host}Content-Length: 5\r\nContent-Length: 0\r\n{close}"),
        format!(r"{post}{host}Transfer-Encoding: chunked, identity\r\n{close}"),
        format!(r"{post}{host}Transfer-Encoding : chunked\r\n{close}"),
        format!(r"{get}{host} folded\r\n{close}"),
        r"GET http://plain.acme-widgets.com/me/a HTTP/1.1\nHost: plain.acme-widgets.com\n\n"
            .to_owned(),
        format!(r"GET http://x@plain.acme-widgets.com/me/a HTTP/1.1\r\n{host}{close}"),
        format!(r"GET http://plain.acme-widgets.com./me/a HTTP/1.1\r\n{host}{close}"),
        format!(
            r"GET http://plain.acme-widgets.com\\@other.acme-widgets.com/me/a HTTP/1.1\r\n{host}{close}"
        ),
        format!(r"GET https://plain.acme-widgets.com/me/a HTTP/1.1\r\n{host}{close}"),
        format!(r"GET ftp://plain.acme-widgets.com/me/a HTTP/1.1\r\n{host}{close}"),
        format!(r"GET http://1572395042/me/a HTTP/1.1\r\nHost: 1572395042\r\n{close}"),
        r"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        r"CONNECT plain.acme-widgets.com HTTP/1.1\r\n\r\n".to_owned(),
        r"CONNECT user@plain.acme-widgets.com:443 HTTP/1.1\r\n\r\n".to_owned(),
        r"CONNECT plain.acme-widgets.com:443 HTTP/1.1\r\nHost: other.acme-widgets.com:443\r\n\r\n"
            .to_owned(),
        r"CONNECT plain.acme-widgets.com.:443 HTTP/1.1\r\n\r\n".to_owned(),
        r"CONNECT 1572395042:443 HTTP/1.1\r\n\r\n".to_owned(),
        r"CONNECT 127.0.0.1:3128 HTTP/1.1\r\n\r\n".to_owned(),
        r"CONNECT localhost:443 HTTP/1.1\r\n\r\n".to_owned(),
        r"CONNECT [::1]:443 HTTP/1.1\r\n\r\n".to_owned(),
        r"CONNECT plain.acme-widgets.com:22 HTTP/1.1\r\n\r\n".to_owned(),
        r"\x04\x01SSH-2.0-x\r\n\r\n".to_owned(),
    ] {
        let told = say(&text);
        assert!(!told.contains("200"), "{text}: {told}");
        assert!(told.starts_with("HTTP/1.1 4"), "{text}: {told}");
    }
    // A rule that names places of what goes in the clear holds them in TLS too.
    let curl = "curl -sS -i --max-time 20 https://plain.acme-widgets.com";
    assert!(
        system
            .works(&rules, &format!("{curl}/me/a"))
            .contains("200 OK")
    );
    assert!(
        system
            .works(&rules, &format!("{curl}/you/a"))
            .contains("403 Forbidden")
    );
    // A second request on the connection is judged like the first.
    let two = say(&format!(r"{get}{host}\r\n{smuggled}{host}{close}"));
    assert!(
        two.contains("200 OK") && two.contains("403 Forbidden"),
        "{two}"
    );
    let heard = world.heard.take();
    assert!(
        heard.iter().all(|line| line.ends_with(" /me/a")),
        "{heard:?}"
    );
    assert_eq!(heard.len(), 2, "{heard:?}");
}

fn two_hundred_tunnels_of_one_box_are_served_at_once(world: &World) {
    let system = System::start(world);
    // The first message of TLS for this name, without any way to go on: the server answers with an alert.
    let hello = hello("plain.acme-widgets.com");
    let place = "plain.acme-widgets.com:443";
    let begun = Instant::now();
    let outcome = system.run(&plain(), &[TOOL, "inside", "many", "200", place, &hello]);
    assert_eq!(outcome.stdout, "200\n", "{outcome:?}");
    println!("200 tunnels in {} ms", begun.elapsed().as_millis());
    let rows = {
        system.wait_for_row(|event| matches!(event, Event::BoxTunnelClosed { tunnel: 200, .. }));
        std::thread::sleep(Duration::from_secs(1));
        system.rows()
    };
    let count = |fits: fn(&Event) -> bool| rows.iter().filter(|event| fits(event)).count();
    assert_eq!(
        count(|event| matches!(event, Event::BoxTunnelOpened { .. })),
        200
    );
    assert_eq!(
        count(|event| matches!(event, Event::BoxTunnelClosed { .. })),
        200
    );
}

/// In hexadecimal digits.
fn hello(name: &str) -> String {
    let vector = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&length[..], bytes].concat()
    };
    let entry = [&[0][..], &vector(name.as_bytes())].concat();
    let extension = [&[0, 0][..], &vector(&vector(&entry))].concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(vector(&[0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(vector(&extension));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length[1..], &body].concat();
    let record = [&[22, 3, 1][..], &vector(&message)].concat();
    record.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A channel's tunnel is held to the name of its rule in the same way.
fn a_channel_s_tunnel_leads_to_the_name_that_tls_asks_for(world: &World) {
    use std::io::{Read as _, Write as _};
    let system = System::start(world);
    let bytes = |digits: &str| -> Vec<u8> {
        let pairs = (0..digits.len()).step_by(2);
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        pairs.map(byte).collect()
    };
    let answered = |first: &[u8]| {
        let mut tunnel = system.channel_tunnel();
        tunnel.write_all(first).unwrap();
        tunnel.read(&mut [0; 5]).unwrap_or(0)
    };
    assert!(answered(&bytes(&hello("plain.acme-widgets.com"))) > 0);
    for first in [
        bytes(&hello("other.acme-widgets.com")),
        b"GET / HTTP/1.1\r\nHost: plain.acme-widgets.com\r\n\r\n".to_vec(),
    ] {
        system.rows();
        assert_eq!(answered(&first), 0);
        system.wait_for_row(|event| {
            matches!(event, Event::EgressRefused { subject, .. } if subject == "channel:telegram")
        });
    }
}

fn tunnels_end_with_their_box(world: &World) {
    let system = System::start(world);
    let hold = "import socket, time\n\
         s = socket.create_connection(('127.0.0.1', 3128))\n\
         s.sendall(b'CONNECT plain.acme-widgets.com:443 HTTP/1.1\\r\\n\\r\\n')\n\
         s.recv(100)\n\
         time.sleep(100)\n";
    let (send, killer) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            system.run_killable(&plain(), &["/usr/bin/python3", "-c", hold], |killer| {
                send.send(killer).unwrap();
            })
        });
        let killer = killer.recv().unwrap();
        system.wait_for_row(|event| matches!(event, Event::BoxTunnelOpened { .. }));
        killer.kill();
        assert_eq!(running.join().unwrap().end, RunEnd::Killed);
    });
    system.wait_for_row(|event| {
        matches!(event, Event::BoxTunnelClosed { end, .. } if end.contains("box is gone") || end.contains("no TLS"))
    });
    // Nothing of it is left at egress.
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", system.egress()))
            .unwrap()
            .count()
    };
    let begun = Instant::now();
    let before = descriptors();
    system.works(&plain(), "true");
    while descriptors() > before {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn no_credential_and_no_key_is_in_a_box(world: &World) {
    let system = System::start(world);
    std::fs::write(system.workspace().join("plain"), "x").unwrap();
    let look = json!({"inspect": "yes", "paths": ["/me/*"]});
    let rules = vec![rule("plain", "curl", "plain.acme-widgets.com", look)];
    // A certificate is there, and nowhere the key that belongs to it, nor any descriptor or process of egress.
    let said = system.works(
        &rules,
        "head -1 $SSL_CERT_FILE; grep -rl 'PRIVATE KEY' $SSL_CERT_FILE /tmp /workspace /etc 2>/dev/null; \
         ls -l /proc/self/fd | grep -c socket; env | grep -ci 'key=\\|token\\|secret'; true",
    );
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "-----BEGIN CERTIFICATE-----", "{said}");
    assert!(!said.contains('/'), "{said}");
    assert_eq!(&lines[1..], ["0", "0"], "{said}");
}
