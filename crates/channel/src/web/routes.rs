//! The addresses of the page and what each does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, SET_COOKIE};
use hyper::{Method, Request, StatusCode};
use protocol::channel::{
    ApprovalAnswer, ChannelEvent, ChannelRequest, GrantCard, MAX_TEXT, TranscriptEntry,
};
use protocol::ids::{ApprovalId, Digest, MessageId, Nonce, TurnId};
use protocol::operator::MAX_REASON;
use protocol::passkey::{Assertion, Enrolment, Proof};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::assets;
use super::browsers::{self, Browser, Browsers, Halves, Tries};
use super::guard::Guard;
use super::hub::{Answer, Hub, PageEvent, Taken, Up};
use super::reply::{self, Problem, Reply};
use super::serve::Connection;
use crate::link::{Gateway, LinkState};

/// The longest body, in bytes; it holds a message with its quotes.
const MAX_BODY: usize = 64 * 1024;

/// How long a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(10);

/// How long the gateway may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a browser waits for its message to be accepted; longer than a gateway's restart.
const ACCEPT_LIMIT: Duration = Duration::from_secs(15);

/// Tries with one-time links in a minute.
const LOGINS_A_MINUTE: usize = 10;

/// Tries with cookies that are not known, in a minute.
const RESUMES_A_MINUTE: usize = 60;

/// How long a browser keeps the cookie, in seconds; how long it is good, the gateway decides.
const COOKIE_AGE: u32 = 30 * 24 * 60 * 60;

/// The longest token of a one-time link, in bytes.
const MAX_TOKEN: usize = 256;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) gateway: Gateway,
    guard: Guard,
    /// Cookies are sent to all ports of a host, so their names say which port they are for.
    cookie_name: String,
    hub: Mutex<Hub>,
    door: Mutex<Door>,
}

/// Who is in, and who knocks how often.
#[derive(Debug)]
struct Door {
    browsers: Browsers,
    logins: Tries,
    resumes: Tries,
}

/// The API: every address has one method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    Login,
    Logout,
    Events,
    Transcript,
    Message,
    Stop,
    Answer,
    Passkey,
    Grants,
    Revoke,
    Panic,
}

impl Api {
    fn at(method: &Method, path: &str) -> Option<Self> {
        match (method.as_str(), path) {
            ("POST", "/login") => Some(Self::Login),
            ("POST", "/logout") => Some(Self::Logout),
            ("GET", "/events") => Some(Self::Events),
            ("GET", "/transcript") => Some(Self::Transcript),
            ("POST", "/message") => Some(Self::Message),
            ("POST", "/stop") => Some(Self::Stop),
            ("POST", "/answer") => Some(Self::Answer),
            ("POST", "/passkey") => Some(Self::Passkey),
            ("GET", "/grants") => Some(Self::Grants),
            ("POST", "/revoke") => Some(Self::Revoke),
            ("POST", "/panic") => Some(Self::Panic),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody {
    token: String,
}

#[derive(Serialize)]
struct LoginReply<'a> {
    page_key: &'a str,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MessageBody {
    /// Chosen by the page, so that the same message sent twice is one message.
    id: MessageId,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerBody {
    approval: ApprovalId,
    digest: Digest,
    nonce: Nonce,
    answer: ApprovalAnswer,
    /// Why not, for the model, if it is said.
    #[serde(default)]
    reason: String,
    /// What a passkey signed, if one did.
    #[serde(default)]
    passkey: Option<Assertion>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasskeyBody {
    code: String,
    enrolment: Enrolment,
}

/// An empty object: what is wanted stands in the address.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PanicBody {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RevokeBody {
    grant: u64,
}

/// The grants, for the page.
#[derive(Serialize)]
struct GrantsReply {
    grants: Vec<GrantCard>,
    more: u64,
}

/// What was said, for the page.
#[derive(Serialize)]
struct TranscriptReply {
    entries: Vec<TranscriptEntry>,
    running: Option<TurnId>,
}

/// Serves a request; problems are replies too.
pub(super) async fn serve(
    site: &Site,
    request: Request<Incoming>,
    connection: Arc<Connection>,
) -> Reply {
    site.serve(request, connection)
        .await
        .unwrap_or_else(|problem| problem.reply())
}

impl Site {
    pub(super) fn new(gateway: Gateway, port: u16) -> Self {
        Self {
            gateway,
            guard: Guard::new(port),
            cookie_name: format!("bulkhead_{port}"),
            hub: Mutex::default(),
            door: Mutex::new(Door {
                browsers: Browsers::default(),
                logins: Tries::a_minute(LOGINS_A_MINUTE),
                resumes: Tries::a_minute(RESUMES_A_MINUTE),
            }),
        }
    }

    /// Takes an event of the gateway.
    pub(super) fn take(&self, event: ChannelEvent) {
        if let ChannelEvent::LoggedOut { sender } = &event {
            self.door().browsers.forget_sender(sender);
        }
        let confirmation = self.hub().take(event);
        if let Some(confirmation) = confirmation {
            // If it does not get through, the event comes again and is confirmed then.
            let _ = self.gateway.send(confirmation);
        }
    }

    pub(super) fn link_changed(&self, state: LinkState) {
        let up = match state {
            LinkState::Up => Up::Yes,
            LinkState::Down | LinkState::Stuck => Up::No,
        };
        self.hub().link_changed(shown(state), up);
    }

    pub(super) fn keep_alive(&self) {
        self.hub().keep_alive();
    }

    async fn serve(
        &self,
        request: Request<Incoming>,
        connection: Arc<Connection>,
    ) -> Result<Reply, Problem> {
        let (head, body) = request.into_parts();
        self.guard.check(&head)?;
        let path = head.uri.path();
        let Some(api) = Api::at(&head.method, path) else {
            let file = assets::at(path).filter(|_| head.method == Method::GET);
            let is_page = file.as_ref().is_some_and(|file| file.is_page());
            if is_page && !self.guard.is_by_name(&head) {
                return Ok(reply::moved(&self.guard.by_name(path)));
            }
            return file.map(reply::asset).ok_or(Problem::NotFound);
        };
        self.guard.check_own_page(&head)?;
        if api == Api::Login {
            return self.login(read(&head.headers, body).await?).await;
        }
        let browser = self.browser(&head.headers).await?;
        match api {
            // Done above; nobody can log in twice with one request.
            Api::Login => Err(Problem::NotUnderstood),
            Api::Logout => self.logout(browser),
            Api::Events => self.events(browser, connection),
            Api::Transcript => self.transcript(browser).await,
            Api::Message => {
                self.message(browser, read(&head.headers, body).await?)
                    .await
            }
            Api::Stop => self.stop(browser),
            Api::Answer => self.answer(browser, read(&head.headers, body).await?),
            Api::Passkey => {
                self.passkey(browser, read(&head.headers, body).await?)
                    .await
            }
            Api::Grants => self.grants(browser).await,
            Api::Revoke => self.revoke(browser, read(&head.headers, body).await?).await,
            Api::Panic => {
                let PanicBody {} = read(&head.headers, body).await?;
                self.panic(browser).await
            }
        }
    }

    async fn login(&self, LoginBody { token }: LoginBody) -> Result<Reply, Problem> {
        if !self.door().logins.take(Instant::now()) {
            return Err(Problem::TooOften);
        }
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Problem::LinkUsed);
        }
        match self.ask(|id| ChannelRequest::Login { id, token }).await? {
            Answer::LoggedIn {
                secret,
                sender,
                conversation,
            } => {
                let Some(Halves { cookie, page }) = browsers::halve(&secret) else {
                    protocol::log!(
                        "bulkhead-channel-web: the gateway gave a secret that no browser can keep"
                    );
                    return Err(Problem::GatewayGone);
                };
                let browser = Browser {
                    key: Digest::of(&secret),
                    sender,
                    conversation,
                };
                self.door().browsers.keep(browser, Instant::now());
                let reply = reply::json(StatusCode::OK, &LoginReply { page_key: page });
                self.with_cookie(reply, cookie, COOKIE_AGE)
            }
            Answer::LoginRefused
            | Answer::PasskeyEnrolled
            | Answer::PasskeyRefused(_)
            | Answer::Transcript { .. }
            | Answer::Grants { .. }
            | Answer::GrantRevoked
            | Answer::GrantNotRevoked(_)
            | Answer::Panicked
            | Answer::PanicRefused(_) => Err(Problem::LinkUsed),
        }
    }

    /// Who makes this request.
    async fn browser(&self, headers: &HeaderMap) -> Result<Browser, Problem> {
        let secret = browsers::secret_of(headers, &self.cookie_name).ok_or(Problem::NotLoggedIn)?;
        let key = Digest::of(&secret);
        if let Some(browser) = self.door().browsers.find(key, Instant::now()) {
            return Ok(browser);
        }
        if !self.door().resumes.take(Instant::now()) {
            return Err(Problem::TooOften);
        }
        match self
            .ask(|id| ChannelRequest::Resume { id, cookie: secret })
            .await?
        {
            Answer::LoggedIn {
                sender,
                conversation,
                ..
            } => {
                let browser = Browser {
                    key,
                    sender,
                    conversation,
                };
                self.door().browsers.keep(browser.clone(), Instant::now());
                Ok(browser)
            }
            Answer::LoginRefused
            | Answer::PasskeyEnrolled
            | Answer::PasskeyRefused(_)
            | Answer::Transcript { .. }
            | Answer::Grants { .. }
            | Answer::GrantRevoked
            | Answer::GrantNotRevoked(_)
            | Answer::Panicked
            | Answer::PanicRefused(_) => Err(Problem::NotLoggedIn),
        }
    }

    fn logout(&self, Browser { sender, .. }: Browser) -> Result<Reply, Problem> {
        self.door().browsers.forget_sender(&sender);
        self.hub().close_tabs(&sender);
        self.gateway.send(ChannelRequest::Logout { sender })?;
        self.with_cookie(reply::done(), "", 0)
    }

    fn events(&self, browser: Browser, connection: Arc<Connection>) -> Result<Reply, Problem> {
        connection.streams();
        let link = shown(self.gateway.state());
        Ok(reply::events(
            self.hub().open_tab(browser, connection, link)?,
        ))
    }

    async fn transcript(&self, browser: Browser) -> Result<Reply, Problem> {
        let Browser {
            sender,
            conversation,
            ..
        } = browser;
        match self
            .ask(|id| ChannelRequest::History {
                id,
                sender,
                conversation,
            })
            .await?
        {
            Answer::Transcript { entries, running } => Ok(reply::json(
                StatusCode::OK,
                &TranscriptReply { entries, running },
            )),
            Answer::LoggedIn { .. }
            | Answer::LoginRefused
            | Answer::PasskeyEnrolled
            | Answer::PasskeyRefused(_)
            | Answer::Grants { .. }
            | Answer::GrantRevoked
            | Answer::GrantNotRevoked(_)
            | Answer::Panicked
            | Answer::PanicRefused(_) => Err(Problem::GatewayGone),
        }
    }

    /// Passes a new passkey on; whether it counts is for the gateway to say.
    async fn passkey(
        &self,
        Browser { sender, .. }: Browser,
        PasskeyBody { code, enrolment }: PasskeyBody,
    ) -> Result<Reply, Problem> {
        if code.is_empty() || code.len() > MAX_TOKEN {
            return Err(Problem::NotUnderstood);
        }
        let answer = self
            .ask(|id| ChannelRequest::EnrolPasskey {
                id,
                sender,
                code,
                enrolment,
            })
            .await?;
        match answer {
            Answer::PasskeyEnrolled => Ok(reply::done()),
            Answer::PasskeyRefused(text) => Err(Problem::NotTaken(text)),
            Answer::LoggedIn { .. }
            | Answer::LoginRefused
            | Answer::Transcript { .. }
            | Answer::Grants { .. }
            | Answer::GrantRevoked
            | Answer::GrantNotRevoked(_)
            | Answer::Panicked
            | Answer::PanicRefused(_) => Err(Problem::GatewayGone),
        }
    }

    /// The grants of whoever is at this browser; who that is, the gateway knows.
    async fn grants(&self, Browser { sender, .. }: Browser) -> Result<Reply, Problem> {
        match self.ask(|id| ChannelRequest::Grants { id, sender }).await? {
            Answer::Grants { grants, more } => {
                Ok(reply::json(StatusCode::OK, &GrantsReply { grants, more }))
            }
            Answer::LoggedIn { .. }
            | Answer::LoginRefused
            | Answer::PasskeyEnrolled
            | Answer::PasskeyRefused(_)
            | Answer::Transcript { .. }
            | Answer::GrantRevoked
            | Answer::GrantNotRevoked(_)
            | Answer::Panicked
            | Answer::PanicRefused(_) => Err(Problem::GatewayGone),
        }
    }

    /// Has a grant taken back; whether it is theirs, the gateway knows.
    async fn revoke(
        &self,
        Browser { sender, .. }: Browser,
        RevokeBody { grant }: RevokeBody,
    ) -> Result<Reply, Problem> {
        let answer = self
            .ask(|id| ChannelRequest::RevokeGrant { id, sender, grant })
            .await?;
        match answer {
            Answer::GrantRevoked => Ok(reply::done()),
            Answer::GrantNotRevoked(text) => Err(Problem::NotTaken(text)),
            Answer::LoggedIn { .. }
            | Answer::LoginRefused
            | Answer::PasskeyEnrolled
            | Answer::PasskeyRefused(_)
            | Answer::Transcript { .. }
            | Answer::Grants { .. }
            | Answer::Panicked
            | Answer::PanicRefused(_) => Err(Problem::GatewayGone),
        }
    }

    /// Has everything frozen; whether whoever is at this browser may, the gateway knows.
    async fn panic(&self, Browser { sender, .. }: Browser) -> Result<Reply, Problem> {
        match self.ask(|id| ChannelRequest::Panic { id, sender }).await? {
            Answer::Panicked => Ok(reply::done()),
            Answer::PanicRefused(text) => Err(Problem::NotTaken(text)),
            Answer::LoggedIn { .. }
            | Answer::LoginRefused
            | Answer::PasskeyEnrolled
            | Answer::PasskeyRefused(_)
            | Answer::Transcript { .. }
            | Answer::Grants { .. }
            | Answer::GrantRevoked
            | Answer::GrantNotRevoked(_) => Err(Problem::GatewayGone),
        }
    }

    /// Answers when the message is accepted, so that the page knows. One that is not accepted in
    /// time stays with [`Gateway::send`], and the page may send it again with the same id.
    async fn message(
        &self,
        browser: Browser,
        MessageBody { id, text }: MessageBody,
    ) -> Result<Reply, Problem> {
        if text.trim().is_empty() {
            return Err(Problem::NotUnderstood);
        }
        if text.len() > MAX_TEXT {
            return Err(Problem::TooLarge);
        }
        let mut taken =
            self.hub()
                .await_message(id.clone(), browser.conversation.clone(), text.clone());
        self.gateway.send(ChannelRequest::Inbound {
            message: id,
            sender: browser.sender,
            sender_name: "web page".to_owned(),
            conversation: browser.conversation,
            text,
        })?;
        let end = tokio::time::Instant::now() + ACCEPT_LIMIT;
        let mut why = Problem::GatewayGone;
        while let Ok(Some(state)) = tokio::time::timeout_at(end, taken.recv()).await {
            match state {
                Taken::Accepted => return Ok(reply::done()),
                Taken::Later(text) => why = Problem::NotYet(text),
                Taken::Never(text) => return Err(Problem::NotTaken(text)),
            }
        }
        Err(why)
    }

    fn stop(&self, browser: Browser) -> Result<Reply, Problem> {
        let Browser {
            sender,
            conversation,
            ..
        } = browser;
        self.gateway.send(ChannelRequest::Cancel {
            sender,
            conversation,
        })?;
        Ok(reply::done())
    }

    /// Passes an answer on, with what was signed if anything was; neither is looked at here.
    fn answer(&self, browser: Browser, body: AnswerBody) -> Result<Reply, Problem> {
        let AnswerBody {
            approval,
            digest,
            nonce,
            answer,
            reason,
            passkey,
        } = body;
        if answer == ApprovalAnswer::Approve && !reason.is_empty() {
            return Err(Problem::NotUnderstood);
        }
        if reason.len() > MAX_REASON {
            return Err(Problem::NotTaken(format!(
                "Nothing was answered: a reason has at most {MAX_REASON} bytes."
            )));
        }
        let proof = passkey.map_or(Proof::Link, |assertion| Proof::Passkey { assertion });
        self.gateway.send(ChannelRequest::Answer {
            approval,
            digest,
            nonce,
            sender: browser.sender,
            answer,
            reason,
            proof,
        })?;
        Ok(reply::done())
    }

    async fn ask(&self, request: impl FnOnce(u64) -> ChannelRequest) -> Result<Answer, Problem> {
        let (id, answer) = self.hub().ask()?;
        self.gateway.send(request(id))?;
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(Problem::GatewayGone),
        }
    }

    fn with_cookie(&self, mut reply: Reply, value: &str, age: u32) -> Result<Reply, Problem> {
        let name = &self.cookie_name;
        let cookie = format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={age}");
        let value = HeaderValue::try_from(cookie).map_err(|_| Problem::GatewayGone)?;
        reply.headers_mut().insert(SET_COOKIE, value);
        Ok(reply)
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shown(state: LinkState) -> PageEvent<'static> {
    PageEvent::Link {
        state: if state == LinkState::Up { "up" } else { "down" },
    }
}

/// Reads a JSON body, bounded in length and time.
async fn read<T: DeserializeOwned>(headers: &HeaderMap, body: Incoming) -> Result<T, Problem> {
    if headers
        .get(CONTENT_TYPE)
        .is_none_or(|value| value != "application/json")
    {
        return Err(Problem::NotUnderstood);
    }
    let whole = tokio::time::timeout(BODY_LIMIT, Limited::new(body, MAX_BODY).collect()).await;
    let bytes = match whole {
        Err(_) => return Err(Problem::TooSlow),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Problem::TooLarge),
        Ok(Err(_)) => return Err(Problem::NotUnderstood),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    serde_json::from_slice(&bytes).map_err(|_| Problem::NotUnderstood)
}
