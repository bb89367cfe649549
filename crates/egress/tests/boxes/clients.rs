//! Programs as people use them.

use protocol::event::Event;
use protocol::outbound::EgressRule;
use serde_json::json;

use crate::Test;
use crate::run::{System, rule};
use crate::world::{World, on_the_host};

pub(crate) const TESTS: &[Test] = &[
    (
        "curl_reaches_what_a_rule_allows_and_nothing_else",
        curl_reaches_what_a_rule_allows_and_nothing_else,
    ),
    (
        "curl_is_held_to_methods_and_paths_where_egress_looks",
        curl_is_held_to_methods_and_paths_where_egress_looks,
    ),
    (
        "git_reaches_its_repository_and_no_other_on_the_same_host",
        git_reaches_its_repository_and_no_other_on_the_same_host,
    ),
    (
        "pip_downloads_from_its_index_and_from_no_other_place",
        pip_downloads_from_its_index_and_from_no_other_place,
    ),
    (
        "npm_installs_from_its_registry_and_from_no_other_place",
        npm_installs_from_its_registry_and_from_no_other_place,
    ),
    (
        "what_goes_in_the_clear_is_judged_too",
        what_goes_in_the_clear_is_judged_too,
    ),
];

fn plain() -> Vec<EgressRule> {
    vec![rule("plain", "curl", "plain.acme-widgets.com", json!({}))]
}

/// curl that trusts the servers' authority.
const CURL: &str = "curl -sS --max-time 20 --cacert ca.pem";

fn curl_reaches_what_a_rule_allows_and_nothing_else(world: &World) {
    let system = System::start(world);
    let said = system.works(
        &plain(),
        &format!("{CURL} https://plain.acme-widgets.com/hello"),
    );
    assert_eq!(said, "GET 0 bytes from plain.acme-widgets.com/hello\n");
    let opened = |event: &Event| {
        matches!(event, Event::BoxTunnelOpened { host, port: 443, rule, inspected: false, .. }
            if host == "plain.acme-widgets.com" && rule.to_string() == "plain")
    };
    let closed = |event: &Event| {
        matches!(event, Event::BoxTunnelClosed { bytes_up, bytes_down, .. }
            if *bytes_up > 200 && *bytes_down > 500)
    };
    system.wait_for_row(closed);
    let rows = system.rows();
    assert!(rows.iter().any(opened), "{rows:?}");
    // Another host, the address itself, another name at the same address.
    for elsewhere in [
        "https://other.acme-widgets.com/",
        "https://git.acme-widgets.com/",
        "https://93.184.216.34/",
        "https://plain.acme-widgets.com:8443/",
        "https://plain.acme-widgets.com.evil-widgets.com/",
        "http://plain.acme-widgets.com/",
        "http://169.254.169.254/latest/meta-data/",
    ] {
        let told = system.shell(&plain(), &format!("{CURL} -k -i {elsewhere}"));
        let told = told.stdout + &told.stderr;
        assert!(told.contains("403"), "{elsewhere}: {told}");
        let refused = |event: &Event| matches!(event, Event::EgressRefused { subject, .. } if subject == "exec:curl");
        system.wait_for_row(refused);
        system.rows();
    }
    // Upwards and downwards.
    let up = "head -c 3000000 /dev/zero | ";
    system.fails(
        &plain(),
        &format!("{up}{CURL} --data-binary @- https://plain.acme-widgets.com/up"),
    );
    let small = rule(
        "plain",
        "curl",
        "plain.acme-widgets.com",
        json!({"budgets": {"per_minute": 600, "per_day": "1 GiB", "upload": "1 MiB", "download": "1 MiB"}}),
    );
    let large = format!("{CURL} -o /dev/null https://plain.acme-widgets.com/large");
    system.fails(&[small], &large);
    system.works(&plain(), &large);
    let heard = world.heard.take();
    let ours = |line: &String| line.contains(" plain.acme-widgets.com /");
    assert!(heard.iter().all(ours), "{heard:?}");
}

fn looked_into() -> Vec<EgressRule> {
    let more = json!({"inspect": "yes", "methods": ["GET", "POST"], "paths": ["/me/*"]});
    vec![rule("mine", "curl", "plain.acme-widgets.com", more)]
}

fn curl_is_held_to_methods_and_paths_where_egress_looks(world: &World) {
    let system = System::start(world);
    let (rules, curl) = (looked_into(), "curl -sS --max-time 20");
    let site = "https://plain.acme-widgets.com";
    // The box' own authority is trusted by what is in the environment alone.
    let said = system.works(&rules, &format!("{curl} '{site}/me/a?b=c'"));
    assert_eq!(said, "GET 0 bytes from plain.acme-widgets.com/me/a\n");
    let said = system.works(&rules, &format!("{curl} -d 12345 {site}/me/a {site}/me/b"));
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.starts_with("POST 5 bytes from"), "{said}");
    let chunked = "-H 'Transfer-Encoding: chunked' --data-binary @-";
    let said = system.works(
        &rules,
        &format!("head -c 100000 /dev/zero | {curl} {chunked} {site}/me/a"),
    );
    assert!(said.starts_with("POST 100000 bytes"), "{said}");
    let said = system.works(
        &rules,
        &format!("head -c 100000 /dev/zero | {curl} -H 'Expect: 100-continue' --data-binary @- {site}/me/a"),
    );
    assert!(said.starts_with("POST 100000 bytes"), "{said}");
    system.works(&rules, &format!("{curl} -I {site}/me/a || true"));
    let requests = |event: &Event| matches!(event, Event::BoxRequest { url, .. } if url == "https://plain.acme-widgets.com/me/a");
    let rows = system.rows();
    assert!(rows.iter().any(requests), "{rows:?}");
    assert!(
        rows.iter()
            .any(|event| matches!(event, Event::BoxResponse { status: 200, .. }))
    );
    world.heard.take();

    for (what, why) in [
        (format!("{site}/you/a"), "this path"),
        (format!("{site}/me/../you/a --path-as-is"), "this path"),
        (format!("{site}/me/%2e%2e/you/a --path-as-is"), "this path"),
        (format!("{site}/me%2f..%2fyou/a --path-as-is"), "this path"),
        (format!("-X DELETE {site}/me/a"), "this method"),
        (format!("-X TRACE {site}/me/a"), "not a method"),
        (
            format!("-H 'Host: other.acme-widgets.com' {site}/me/a"),
            "another host",
        ),
        (
            format!("-H 'Upgrade: websocket' -H 'Connection: Upgrade' {site}/me/a"),
            "another protocol",
        ),
        (
            format!("-H 'Content-Length: 3' -H 'Transfer-Encoding: chunked' -d abc {site}/me/a"),
            "both",
        ),
        (
            format!("--request-target 'https://other.acme-widgets.com/me/a' {site}/me/a"),
            "no path",
        ),
    ] {
        let outcome = system.shell(&rules, &format!("{curl} -i {what}"));
        let told = outcome.stdout + &outcome.stderr;
        assert!(told.contains("403"), "{what}: {told}");
        assert!(told.contains(why), "{what}: {told}");
    }
    let up = format!("head -c 3000000 /dev/zero | {curl} -i --data-binary @- {site}/me/a");
    let told = system.shell(&rules, &up);
    let told = told.stdout + &told.stderr;
    assert!(told.contains("1048576 bytes up"), "{told}");
    assert!(!told.contains("200 OK"), "{told}");
    // Nothing of all that was heard by a server, but what was cut off.
    let heard = world.heard.take();
    assert!(
        heard
            .iter()
            .all(|line| line == "POST plain.acme-widgets.com /me/a"),
        "{heard:?}"
    );
}

fn git_reaches_its_repository_and_no_other_on_the_same_host(world: &World) {
    let system = System::start(world);
    let site = world.repositories.path();
    for of in ["me/notes.git", "you/notes.git"] {
        let path = site.join(of);
        on_the_host(
            site,
            &["git", "init", "-q", "--bare", path.to_str().unwrap()],
        );
    }
    let draft = tempfile::tempdir().unwrap();
    let in_draft = |words: &[&str]| on_the_host(draft.path(), words);
    in_draft(&["git", "init", "-q", "-b", "main"]);
    std::fs::write(draft.path().join("note"), "a note of mine\n").unwrap();
    in_draft(&["git", "add", "note"]);
    in_draft(&["git", "commit", "-q", "-m", "a note"]);
    for of in ["me/notes.git", "you/notes.git"] {
        let path = site.join(of);
        in_draft(&["git", "push", "-q", path.to_str().unwrap(), "main"]);
        on_the_host(&path, &["git", "symbolic-ref", "HEAD", "refs/heads/main"]);
    }
    let look = json!({"inspect": "yes", "methods": ["GET", "POST"],
        "paths": ["/me/notes.git/info/refs", "/me/notes.git/git-upload-pack"]});
    let read = vec![rule("notes", "git", "git.acme-widgets.com", look)];
    let url = "https://git.acme-widgets.com";
    let clone = format!("git clone -q {url}/me/notes.git /tmp/n && cat /tmp/n/note");
    assert_eq!(system.works(&read, &clone), "a note of mine\n");
    // The repository of somebody else on the same host (C15).
    let told = system.fails(&read, &format!("git clone {url}/you/notes.git /tmp/n"));
    assert!(told.contains("403"), "{told}");
    let change = "cd /tmp/n && echo more >> note && \
        git -c user.name=a -c user.email=a@acme-widgets.com commit -q -a -m more";
    let told = system.fails(
        &read,
        &format!("{clone} && {change} && git push -q origin main"),
    );
    assert!(told.contains("403"), "{told}");
    // A rule that says so lets it write, and only there.
    let all = json!({"inspect": "yes", "methods": ["GET", "POST"], "paths": ["/me/notes.git/*"]});
    let write = vec![rule("notes", "git", "git.acme-widgets.com", all)];
    system.works(
        &write,
        &format!("{clone} && {change} && git push -q origin main"),
    );
    let told = system.fails(
        &write,
        &format!("{clone} && {change} && git push {url}/you/notes.git main"),
    );
    assert!(told.contains("403"), "{told}");
    let heard = world.heard.take();
    assert!(heard.iter().all(|line| line.contains(" /me/")), "{heard:?}");
}

fn pip_downloads_from_its_index_and_from_no_other_place(world: &World) {
    let system = System::start(world);
    let more =
        json!({"inspect": "yes", "methods": ["GET"], "paths": ["/simple/widget/*", "/packages/*"]});
    let rules = vec![rule("index", "pip", "pypi.acme-widgets.com", more)];
    let pip = "/usr/bin/python3 -m pip download -q --no-input --disable-pip-version-check --no-deps --no-cache-dir --retries 0 -d /tmp/d";
    let index = "-i https://pypi.acme-widgets.com/simple";
    let said = system.works(&rules, &format!("{pip} {index} widget && ls /tmp/d"));
    assert_eq!(said, "widget-1.0-py3-none-any.whl\n");
    // pip does not say why it found nothing; the record does.
    for (words, place) in [
        (format!("{pip} {index} gadget"), "pypi.acme-widgets.com:443"),
        (
            format!("{pip} -i https://other.acme-widgets.com/simple widget"),
            "other.acme-widgets.com:443",
        ),
    ] {
        system.fails(&rules, &words);
        system.wait_for_row(
            |event| matches!(event, Event::EgressRefused { target, .. } if target == place),
        );
    }
    // Straight to the address, past the proxy.
    system.fails(
        &rules,
        &format!(
            "env -u https_proxy -u HTTPS_PROXY -u all_proxy -u ALL_PROXY {pip} {index} widget"
        ),
    );
    let heard = world.heard.take();
    assert!(
        heard.iter().all(|line| line.contains("widget")),
        "{heard:?}"
    );
}

fn npm_installs_from_its_registry_and_from_no_other_place(world: &World) {
    let system = System::start(world);
    let more = json!({"inspect": "yes", "methods": ["GET"], "paths": ["/widget", "/widget/*"]});
    let rules = vec![rule("registry", "npm", "npm.acme-widgets.com", more)];
    let npm = "cd /tmp && npm --no-audit --no-fund --no-update-notifier --fetch-retries=0";
    let registry = "--registry=https://npm.acme-widgets.com/";
    let said = system.works(&rules, &format!("{npm} {registry} view widget version"));
    assert_eq!(said.trim(), "1.0.0");
    let said = system.works(
        &rules,
        &format!("{npm} {registry} install widget && cat node_modules/widget/index.js"),
    );
    assert!(said.ends_with("module.exports = 1;\n"), "{said}");
    let told = system.fails(&rules, &format!("{npm} {registry} view gadget version"));
    assert!(told.contains("403"), "{told}");
    system.fails(
        &rules,
        &format!("{npm} --registry=https://other.acme-widgets.com/ view widget version"),
    );
    let heard = world.heard.take();
    assert!(
        heard
            .iter()
            .all(|line| line.contains(" npm.acme-widgets.com /widget")),
        "{heard:?}"
    );
}

fn what_goes_in_the_clear_is_judged_too(world: &World) {
    let system = System::start(world);
    let more = json!({"ports": [80], "cleartext": "allowed", "methods": ["GET"], "paths": ["/me/*"], "inspect": "yes"});
    let rules = vec![rule("clear", "curl", "plain.acme-widgets.com", more)];
    let (curl, site) = ("curl -sS --max-time 20 -i", "http://plain.acme-widgets.com");
    let said = system.works(&rules, &format!("{curl} {site}/me/a {site}/me/b"));
    assert!(
        said.contains("GET 0 bytes from plain.acme-widgets.com/me/b\n"),
        "{said}"
    );
    for what in [
        format!("{site}/you/a"),
        format!("-d 1 {site}/me/a"),
        "http://other.acme-widgets.com/me/a".to_owned(),
        "http://93.184.216.34/me/a".to_owned(),
        "http://127.0.0.1/me/a".to_owned(),
        format!("-H 'Host: other.acme-widgets.com' {site}/me/a"),
    ] {
        let outcome = system.shell(&rules, &format!("{curl} {what}"));
        assert!(outcome.stdout.contains("403"), "{what}: {outcome:?}");
    }
    let heard = world.heard.take();
    assert_eq!(
        heard,
        [
            "GET plain.acme-widgets.com /me/a",
            "GET plain.acme-widgets.com /me/b"
        ]
    );
}
