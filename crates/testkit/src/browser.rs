//! Headless Chromium, driven over WebDriver (W3C Recommendation "WebDriver").

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::http;
use crate::system::wait_for;

/// Chromium speaks to nobody but the page: its own services are switched off.
const ARGUMENTS: [&str; 13] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1100,820",
    "--hide-scrollbars",
    "--force-device-scale-factor=2",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost , EXCLUDE 127.0.0.1",
];

/// The key under which WebDriver gives the name of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// What an authenticator finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifies {
    /// By finger, face or PIN, who touches it.
    WhoTouchesIt,
    /// Only that somebody touches it.
    Nobody,
}

/// A browser with one window.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts `chromedriver`, and with it Chromium, with an empty profile.
    pub fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect(
                "chromedriver is installed; ./test installs it (Debian: chromium, chromium-driver)",
            );
        let port = announced_port(driver.stdout.take().expect("a pipe"));
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            _profile: profile,
        };
        let data = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments: Vec<&str> = ARGUMENTS.into_iter().chain([data.as_str()]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
        }}});
        let answer = http::post(port, "/session", &wanted).send().json();
        browser.session = answer["value"]["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned();
        browser
    }

    /// From here on the page finds an authenticator that keeps passkeys and, if it `knows` who
    /// touches it, says so (Web Authentication Level 2, section 11, "User Agent Automation").
    pub fn add_authenticator(&self, knows: Verifies) {
        let wanted = json!({
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": true,
            "isUserConsenting": true, "hasUserVerification": true,
            "isUserVerified": knows == Verifies::WhoTouchesIt,
        });
        self.post("webauthn/authenticator", &wanted);
    }

    /// Opens an address.
    pub fn open(&self, url: &str) {
        self.post("url", &json!({ "url": url }));
    }

    /// Waits for an element that is shown; its WebDriver name.
    pub fn find(&self, selector: &str) -> String {
        wait_for(&format!("the page shows {selector}"), || {
            let answer = self.call(
                "element",
                &json!({"using": "css selector", "value": selector}),
            );
            let element = answer["value"][ELEMENT].as_str()?.to_owned();
            let shown = http::get(
                self.port,
                &self.path(&format!("element/{element}/displayed")),
            )
            .send()
            .json();
            (shown["value"] == true).then_some(element)
        })
    }

    /// Waits until an element can be clicked, and clicks it.
    pub fn click(&self, selector: &str) {
        wait_for(&format!("{selector} can be clicked"), || {
            let element = self.find(selector);
            let enabled = http::get(self.port, &self.path(&format!("element/{element}/enabled")))
                .send()
                .json();
            (enabled["value"] == true).then_some(())?;
            let clicked = self.call(&format!("element/{element}/click"), &json!({}));
            clicked["value"].is_null().then_some(())
        });
    }

    /// Types into an element.
    pub fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.post(
            &format!("element/{element}/value"),
            &json!({ "text": text }),
        );
    }

    /// The text that the page shows.
    pub fn text(&self) -> String {
        let text = self.run("return document.body ? document.body.innerText : ''");
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page shows this text.
    pub fn wait_for_text(&self, text: &str) {
        wait_for(&format!("the page shows {text:?}"), || {
            self.text().contains(text).then_some(())
        });
    }

    /// Runs a script in the page.
    pub fn run(&self, script: &str) -> Value {
        self.post("execute/sync", &json!({"script": script, "args": []}))["value"].clone()
    }

    /// Loads the page anew.
    pub fn reload(&self) {
        self.post("refresh", &json!({}));
    }

    /// Makes the part of the window that shows the page this large, in CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let frame = self.run("return [outerWidth - innerWidth, outerHeight - innerHeight]");
        let outer = |side: usize, inner: u32| frame[side].as_u64().unwrap_or(0) + u64::from(inner);
        self.post(
            "window/rect",
            &json!({"width": outer(0, width), "height": outer(1, height)}),
        );
    }

    /// A picture of what the window shows, PNG.
    pub fn screenshot(&self) -> Vec<u8> {
        let answer = http::get(self.port, &self.path("screenshot")).send().json();
        let picture = answer["value"].as_str().expect("a picture");
        from_base64(picture).expect("the picture is base64")
    }

    fn end_session(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let session = &self.session;
        write!(
            stream,
            "DELETE /session/{session} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        )?;
        stream.read_exact(&mut [0])
    }

    fn path(&self, command: &str) -> String {
        format!("/session/{}/{command}", self.session)
    }

    fn call(&self, command: &str, body: &Value) -> Value {
        http::post(self.port, &self.path(command), body)
            .send()
            .json()
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        let answer = self.call(command, body);
        assert!(answer["value"]["error"].is_null(), "{command}: {answer}");
        answer
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session, if the driver is still there to end it.
        let _ = self.end_session();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Where the driver says that it listens. What it says afterwards is read and dropped.
fn announced_port(stdout: ChildStdout) -> u16 {
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let port = lines.find_map(|line| {
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    thread::spawn(move || lines.for_each(drop));
    port.expect("chromedriver says where it listens")
}

/// The bytes of a text in base64 (RFC 4648, section 4); `None` if it is something else.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_as_rfc_4648_writes_it() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYmFy", "foobar"),
        ] {
            assert_eq!(from_base64(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(from_base64("a-b_"), None);
    }
}
