//! Floor 7: the HTTP API. What every request passes through: host, origin, token, body rules.
//!
//! One file per resource below; each handler parses, calls the floors beneath, and answers. Handlers run on the
//! connection's thread. Nothing here knows an agent or a statement.

mod access;
mod approval;
mod body;
mod event;
mod login;
mod mcp;
mod meta;
mod metrics;
pub mod multipart;
pub mod openapi;
mod process;
mod provider;
mod query;
mod reader;
mod refusal;
mod route;
mod session;
mod stream;
mod team;
mod turn;
mod wait;
mod worktree;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::http::{Admission, Answer, Client, Handler, Head, Meter, Request, Response};
use crate::ledger::idempotency::{IdempotencyKey, body_hash};
use crate::ledger::{Ledger, Listed};
use crate::limits;
use crate::mcp::Gateway;
use crate::process::Processes;
use crate::provider::readiness::Readiness;
use crate::session::{GatewayAccess, Recovered, Sessions, Sidecars};
use crate::team::Teams;
use crate::worktree::Worktrees;
use access::Access;
use crossbeam_channel::Receiver;
use reader::Readers;
use refusal::Refusals;
use route::{BodyRule, ROUTES, Route};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use wait::Waits;

/// All that handlers use.
pub struct Api {
    pub config: Arc<Config>,
    pub ledger: Ledger,
    pub sessions: Sessions,
    pub processes: Processes,
    pub mcp: Gateway,
    pub readiness: Readiness,
    pub worktrees: Worktrees,
    pub teams: Teams,
    pub token: String,
    /// Where the server listens, once it does.
    pub address: SocketAddr,
    streams: Arc<Readers>,
    waits: Waits,
    /// Requests that were not let in.
    refusals: Refusals,
    started: Instant,
    /// The counters of the connections; set when they are served.
    pub http: OnceLock<Meter>,
    /// What the start took up; set when it has.
    pub recovered: OnceLock<Recovered>,
}

/// What the API answers from: the floors below it, each on what it stands on.
pub struct Floors {
    pub ledger: Ledger,
    pub sessions: Sessions,
    pub processes: Processes,
    pub mcp: Gateway,
    pub readiness: Readiness,
    pub worktrees: Worktrees,
    pub teams: Teams,
}

impl Floors {
    /// On an open ledger. What was left there is not taken up yet. Gives also what [`Worktrees::start`] is to hear.
    pub fn new(
        config: &Arc<Config>,
        ledger: Ledger,
        sidecars: Sidecars,
        gateway: Option<GatewayAccess>,
    ) -> Result<(Floors, Receiver<()>)> {
        let (worktrees, worktrees_due) = Worktrees::new(config, ledger.clone())?;
        let (keeper, ended) = (sidecars.keeper.clone(), worktrees.due());
        let processes = Processes::new(Arc::clone(config), ledger.clone(), keeper, ended);
        let bridge = sidecars.claude_bridge.clone().unwrap_or_default();
        let readiness = Readiness::new(Arc::clone(config), bridge)?;
        let sessions = Sessions::new(
            Arc::clone(config),
            ledger.clone(),
            processes.clone(),
            readiness.clone(),
            worktrees.clone(),
            sidecars,
            gateway,
        );
        let teams =
            Teams::new(Arc::clone(config), ledger.clone(), sessions.clone(), worktrees.clone());
        let mcp = Gateway::new(
            Arc::clone(config),
            ledger.clone(),
            processes.clone(),
            worktrees.clone(),
            teams.clone(),
        );
        let floors = Floors { ledger, sessions, processes, mcp, readiness, worktrees, teams };
        Ok((floors, worktrees_due))
    }
}

impl Api {
    /// `token` is the operator's; `address` is where the server listens.
    pub fn new(config: Arc<Config>, floors: Floors, token: String, address: SocketAddr) -> Api {
        let Floors { ledger, sessions, processes, mcp, readiness, worktrees, teams } = floors;
        Api {
            config,
            ledger,
            sessions,
            processes,
            mcp,
            readiness,
            worktrees,
            teams,
            token,
            address,
            streams: Arc::default(),
            waits: Waits::default(),
            refusals: Refusals::default(),
            started: Instant::now(),
            http: OnceLock::new(),
            recovered: OnceLock::new(),
        }
    }
}

/// A request on its way through a handler.
struct Call {
    request: Request,
    /// What stood in the path where the pattern has a name, in order.
    parts: Vec<String>,
}

impl Handler for Api {
    fn admit(&self, head: &Head) -> std::result::Result<Admission, Answer> {
        self.check(head).map_err(|error| self.refuse(head, &error))
    }

    fn handle(&self, request: Request) -> Answer {
        let cors = self.cors_origin(&request.head);
        if request.head.method() == "OPTIONS" {
            return self.finish(Answer::Whole(preflight()), cors);
        }
        let (route, parts) = match self.route(&request.head) {
            Ok(found) => found,
            // `admit` has let it through, so it is there.
            Err(error) => return self.finish(Answer::Whole(Response::from(&error)), cors),
        };
        let call = Call { request, parts };
        let answer = (route.handle)(self, &call)
            .unwrap_or_else(|error| Answer::Whole(Response::from(&error)));
        self.finish(answer, cors)
    }
}

impl Api {
    /// What can be said before the body is read, in the order of the contract: host, origin, path, token, method, type.
    fn check(&self, head: &Head) -> Result<Admission> {
        self.check_host(head)?;
        let origin = self.check_origin(head)?;
        if head.method() == "OPTIONS" && origin {
            return Ok(Admission { body_bytes_max: 0 });
        }
        let route = match self.route(head) {
            Ok((route, _)) => route,
            Err(error) if error.code == Code::MethodNotAllowed => {
                self.check_access(head, self.access_of_path(head))?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        self.check_access(head, route.access)?;
        check_content_type(head, route.body)?;
        check_content_encoding(head)?;
        Ok(Admission { body_bytes_max: self.body_bytes_max(route) })
    }

    fn body_bytes_max(&self, route: &Route) -> usize {
        match route.body {
            BodyRule::Ignored => limits::IGNORED_BODY_BYTES,
            BodyRule::SmallJson => limits::GATEWAY_BODY_BYTES,
            BodyRule::Form => limits::MULTIPART_BYTES,
            BodyRule::Json | BodyRule::OptionalJson => limits::BODY_BYTES,
            // An image of the largest size, in base64, must fit.
            BodyRule::LargeJson => {
                limits::BODY_BYTES.max(self.config.image_bytes_max / 3 * 4 + limits::BODY_BYTES / 2)
            }
        }
    }

    fn refuse(&self, head: &Head, error: &Error) -> Answer {
        self.refusals.note(error.code, head.peer.ip());
        let mut response = Response::from(error);
        if error.code == Code::MethodNotAllowed {
            response = response.header("Allow", self.allowed_methods(head).join(", "));
        }
        self.finish(Answer::Whole(response), self.cors_origin(head))
    }

    /// The route of a request. Errors: no such path, or not with this method.
    fn route(&self, head: &Head) -> Result<(&'static Route, Vec<String>)> {
        let path = self.path_parts(head);
        let method = if head.method() == "HEAD" { "GET" } else { head.method() };
        let here = routes_at(path);
        if let Some(route) = here.iter().find(|route| route.method == method) {
            let parts = matches(route.pattern, path).expect("it is one of those that fit");
            return Ok((route, parts));
        }
        let is_known = !here.is_empty();
        let target = head.target().split('?').next().unwrap_or_default();
        if is_known {
            let methods = self.allowed_methods(head).join(", ");
            return Err(Error::new(
                Code::MethodNotAllowed,
                format!("{} is not allowed on {target}", head.method()),
            )
            .hint(format!("it takes {methods}")));
        }
        Err(Error::new(Code::NotFound, format!("there is no {target} here")))
    }

    /// The path behind the base path, if the request came with it.
    fn path_parts<'a>(&self, head: &'a Head) -> &'a [String] {
        let base = self.config.base_path.split('/').filter(|part| !part.is_empty());
        let mut rest = head.path.as_slice();
        for part in base {
            match rest.split_first() {
                Some((first, behind)) if first == part => rest = behind,
                _ => return head.path.as_slice(),
            }
        }
        rest
    }

    fn allowed_methods(&self, head: &Head) -> Vec<&'static str> {
        let mut methods = Vec::new();
        for route in routes_at(self.path_parts(head)) {
            methods.push(route.method);
            if route.method == "GET" {
                methods.push("HEAD");
            }
        }
        methods
    }

    /// Who may know which methods a path takes: an agent where it may call one of them.
    fn access_of_path(&self, head: &Head) -> Access {
        let here = routes_at(self.path_parts(head));
        let is_gateway = here.iter().any(|route| route.access == Access::Gateway);
        if is_gateway { Access::Gateway } else { Access::Operator }
    }

    /// A page that a browser loaded from elsewhere must not reach this server under a name of its own.
    fn check_host(&self, head: &Head) -> Result<()> {
        let host = head.header("host").unwrap_or_default();
        let name = host_name(host).unwrap_or_default().to_lowercase();
        let address = host_address(&name);
        let is_here = match address {
            Some(address) => {
                address.is_loopback()
                    || self.address.ip().is_unspecified()
                    || address == self.address.ip()
            }
            None => name == "localhost",
        };
        if name.is_empty() && !host.is_empty() {
            return Err(Error::new(Code::HostNotAllowed, format!("{host:?} is no host and port")));
        }
        let public = self.config.public_base_url.as_deref().map(url_host).unwrap_or_default();
        let is_named = self.config.allowed_hosts.contains(&name);
        if is_here || is_named || (!public.is_empty() && public == name) || host.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::HostNotAllowed, format!("the host {host:?} is not this server's"))
            .hint("add it to server.allowed_hosts, or set server.public_base_url"))
    }

    /// True when the request comes from a page that may call. Errors: a page that may not.
    fn check_origin(&self, head: &Head) -> Result<bool> {
        let Some(origin) = head.header("origin") else { return Ok(false) };
        let is_own = head.header("host").is_some_and(|host| {
            origin.strip_prefix("http://").or(origin.strip_prefix("https://")) == Some(host)
        });
        if is_own || self.config.cors_origins.iter().any(|allowed| allowed == origin) {
            return Ok(true);
        }
        Err(Error::new(
            Code::OriginNotAllowed,
            format!("pages of the origin {origin:?} may not call this server"),
        )
        .hint("add it to server.cors_origins"))
    }

    fn cors_origin(&self, head: &Head) -> Option<String> {
        let origin = head.header("origin")?;
        self.config.cors_origins.iter().find(|allowed| *allowed == origin).cloned()
    }

    /// The headers that every answer has.
    fn finish(&self, answer: Answer, cors: Option<String>) -> Answer {
        let Some(origin) = cors else { return answer };
        let headers = [
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Expose-Headers", EXPOSED_HEADERS.to_owned()),
            ("Vary", "Origin".to_owned()),
        ];
        match answer {
            Answer::Whole(mut response) => {
                response.headers.extend(headers);
                Answer::Whole(response)
            }
            Answer::Stream(mut head, run) => {
                head.headers.extend(headers);
                Answer::Stream(head, run)
            }
        }
    }
}

/// What a page of another origin may read of an answer, beside what browsers let it read anyway.
const EXPOSED_HEADERS: &str = "X-Request-Id, X-Next-Cursor, X-As-Of-Seq, Retry-After, Allow";

fn preflight() -> Response {
    Response::new(204)
        .header("Access-Control-Allow-Methods", "GET, POST, DELETE")
        .header(
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Gooselake-Lenient, \
             X-Request-Id",
        )
        .header("Access-Control-Max-Age", "600")
}

/// The routes of a path. Where two patterns fit, the one with fewer names is meant.
fn routes_at(path: &[String]) -> Vec<&'static Route> {
    let names = |route: &Route| route.pattern.matches('{').count();
    let fitting: Vec<&Route> =
        ROUTES.iter().filter(|route| matches(route.pattern, path).is_some()).collect();
    let fewest = fitting.iter().map(|route| names(route)).min();
    fitting.into_iter().filter(|route| Some(names(route)) == fewest).collect()
}

/// The path segments that stand where the pattern has names, if the path fits.
fn matches(pattern: &str, path: &[String]) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut path = path.iter();
    for expected in pattern.split('/').skip(1) {
        let given = path.next()?;
        if expected.starts_with('{') {
            if given.is_empty() {
                return None;
            }
            parts.push(given.clone());
        } else if expected != given {
            return None;
        }
    }
    path.next().is_none().then_some(parts)
}

fn check_content_type(head: &Head, rule: BodyRule) -> Result<()> {
    let given = head.header("content-type").unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    let is_json = media.eq_ignore_ascii_case("application/json");
    let is_missing = given.is_empty();
    match rule {
        BodyRule::Ignored => Ok(()),
        BodyRule::OptionalJson if is_missing || is_json => Ok(()),
        BodyRule::Json | BodyRule::LargeJson | BodyRule::SmallJson if is_json => Ok(()),
        BodyRule::Form if media.eq_ignore_ascii_case("multipart/form-data") => Ok(()),
        _ => {
            let wanted = match rule {
                BodyRule::Form => "send a form with Content-Type: multipart/form-data",
                _ => "send JSON with Content-Type: application/json",
            };
            let text = format!("the Content-Type is {given:?}");
            Err(Error::new(Code::UnsupportedMediaType, text).hint(wanted))
        }
    }
}

/// No body is unpacked here, so none can grow when it is.
fn check_content_encoding(head: &Head) -> Result<()> {
    match head.header("content-encoding") {
        None => Ok(()),
        Some(given) if given.eq_ignore_ascii_case("identity") => Ok(()),
        Some(given) => {
            let text = format!("the Content-Encoding is {given:?}");
            Err(Error::new(Code::UnsupportedMediaType, text).hint("send the body as it is"))
        }
    }
}

/// The host without its port. None: there is something behind it that is no port.
fn host_name(host: &str) -> Option<&str> {
    let end = match host.starts_with('[') {
        true => host.find(']')? + 1,
        false => host.find(':').unwrap_or(host.len()),
    };
    let (name, behind) = host.split_at(end);
    let port = if behind.is_empty() { "" } else { behind.strip_prefix(':')? };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.len() <= 5;
    is_port.then_some(name)
}

/// The address that a host is, if it is one: IPv6 in brackets, IPv4 without.
fn host_address(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn url_host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    host_name(rest.split('/').next().unwrap_or(rest)).unwrap_or_default().to_lowercase()
}

impl Call {
    fn head(&self) -> &Head {
        &self.request.head
    }

    /// Whoever waits for the answer.
    fn client(&self) -> &Client {
        &self.request.client
    }

    /// The n-th named part of the path.
    fn part(&self, n: usize) -> &str {
        &self.parts[n]
    }

    /// The idempotency key that the request came with.
    fn idempotency(&self, api: &Api) -> Result<Option<IdempotencyKey>> {
        let Some(key) = self.head().header("idempotency-key") else { return Ok(None) };
        if key.is_empty() || key.len() > 255 {
            return Err(Error::bad_request("Idempotency-Key must have 1 to 255 characters"));
        }
        // The base path of a proxy names no other resource.
        let path = api.path_parts(self.head()).join("/");
        Ok(Some(IdempotencyKey {
            route: format!("{} /{path}", self.head().method()),
            key: key.to_owned(),
            body_hash: body_hash(&self.request.body),
        }))
    }

    fn accepts(&self, media_type: &str) -> bool {
        self.head().header("accept").is_some_and(|accept| {
            accept.split(',').any(|part| part.split(';').next().map(str::trim) == Some(media_type))
        })
    }
}

/// A JSON answer of ours.
fn json(status: u16, body: impl Into<crate::http::Body>) -> Answer {
    Answer::Whole(Response::json(status, body).header("Cache-Control", "no-store"))
}

/// A JSON array of records, with the cursor of the next page when there may be one: `place` is where it begins.
fn page<T: serde::Serialize>(listed: &Listed<T>, place: impl FnOnce(&T) -> String) -> Response {
    let Listed { records, is_cut } = listed;
    let response =
        Response::json(200, crate::ledger::to_json(&records)).header("Cache-Control", "no-store");
    match records.last() {
        Some(last) if *is_cut => response.header("X-Next-Cursor", place(last)),
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_its_own_paths_only() {
        let path = |text: &str| text.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
        let pattern = "/v1/sessions/{session_id}/turns";
        assert_eq!(matches(pattern, &path("/v1/sessions/s/turns")), Some(vec!["s".to_owned()]));
        for other in ["/v1/sessions/s", "/v1/sessions/s/turns/", "/v1/sessions//turns", "/v1"] {
            assert_eq!(matches(pattern, &path(other)), None, "{other}");
        }
    }

    #[test]
    fn of_two_patterns_the_one_with_fewer_names_is_meant() {
        let path = |text: &str| text.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>();
        let methods = |text: &str| -> Vec<&str> {
            routes_at(&path(text)).iter().map(|route| route.method).collect()
        };
        assert_eq!(methods("/v1/teams/team_1/members/spawn"), ["POST"]);
        assert_eq!(methods("/v1/teams/team_1/members/sess_1"), ["DELETE"]);
        assert_eq!(methods("/v1/teams"), ["POST", "GET"]);
        assert!(methods("/v1/nothing").is_empty());
    }

    #[test]
    fn hosts_are_named_without_their_port() {
        for (host, name) in
            [("a.b:80", "a.b"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("a:", "a")]
        {
            assert_eq!(host_name(host), Some(name));
        }
        for host in ["a:b", "a:80:80", "[::1]a", "[::1].a:80", "[::1", "a:123456", "a:-1"] {
            assert_eq!(host_name(host), None, "{host}");
        }
        assert!(host_address("[::1]").is_some() && host_address("127.0.0.1").is_some());
        for name in ["::1", "[127.0.0.1]", "127.1", "0x7f000001", "2130706433", "127.0.0.1."] {
            assert_eq!(host_address(name), None, "{name}");
        }
        assert_eq!(url_host("https://Example.org:8443/x"), "example.org");
    }
}
