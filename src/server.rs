//! The composition root: builds everything, owns every handle, and knows the order of start and shutdown.
//!
//! Start: the locks of the data folder and of the database, then the port (so a second server has changed
//! nothing when it fails), the ledger, what the last server left, and only then requests. Shutdown has a deadline for
//! the whole: stop accepting, end the streams, settle the sessions, close connections, drain the writer, checkpoint. A
//! start that fails goes the same way back, from where it has come to.

use crate::api::{Api, Floors};
use crate::config::Config;
use crate::environment;
use crate::error::{Error, Result};
use crate::folder::{self, lock_database, lock_folder, make_folder, restrict};
use crate::housekeeper::Housekeeper;
use crate::http;
use crate::ledger::event::NewEvent;
use crate::ledger::{Ledger, Tx};
use crate::model::event::EventKind;
use crate::provider::claude::auth::Auth;
use crate::secret;
use crate::session::{GatewayAccess, Sidecars, TOKENS_FOLDER};
use crate::signals::Stop;
use crate::team::Dispatch;
use crate::thread::{self, Thread};
use crate::watchdog::{self, Watchdog};
use crossbeam_channel::{Receiver, Sender};
use serde_json::json;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A running server. It is ended by [`Server::stop`] alone: to drop it would wait for threads that nobody has told.
pub struct Server {
    api: Arc<Api>,
    http: http::Server,
    begun: Begun,
    /// Ends when it is dropped.
    watchdog: Watchdog,
    grace: Duration,
    /// Of the database and of the data folder. Held until everything else is gone.
    locks: (File, File),
}

impl Server {
    /// Starts the server. Errors: another one has the data folder or the port, the database is not ours, or the system
    /// does not give what is needed. What was begun by then has ended, or was told to end and did not in its time:
    /// nothing but the end of the process should follow.
    pub fn start(config: Config) -> Result<Server> {
        make_folder(&config.root_dir)?;
        let lock = lock_folder(&config.root_dir)?;
        let locks = (lock_database(&config.sqlite_path)?, lock);
        let listener = TcpListener::bind(config.bind).map_err(|error| {
            Error::internal(format!("the address {} can not be bound: {error}", config.bind))
                .hint(bind_remedy(&error))
        })?;
        let address = listener
            .local_addr()
            .map_err(|error| Error::internal("the bound address can not be read").source(error))?;
        if let Err(error) = folder::sign_lock(&locks.1, Some(address)) {
            log::warn!("the lock does not say who holds it: {error}");
        }
        // Every id has some.
        secret::fill(&mut [0; 1])?;
        make_folder(&config.root_dir.join("keepers"))?;
        make_folder(&config.providers_dir)?;
        make_folder(&config.root_dir.join(TOKENS_FOLDER))?;
        let token = token(&config)?;
        let sidecars = sidecars()?;
        let watchdog = watchdog::start(config.stuck_after).map_err(no_thread)?;
        let gateway = gateway_access(&config, address)?;
        restrict(&config.sqlite_path)?;
        let (ledger, writer) = Ledger::open_bounded(
            &config.sqlite_path,
            config.synchronous,
            config.database_bytes_max,
        )?;
        let grace = config.shutdown_grace;
        let config = Arc::new(config);
        let mut begun = Begun::new(ledger.clone(), writer);
        let served = Floors::new(&config, ledger, sidecars, gateway).and_then(|(floors, due)| {
            let api = Arc::new(Api::new(config, floors, token, address));
            begun.go_on(&api, due, listener).map(|http| (api, http))
        });
        match served {
            Ok((api, http)) => Ok(Server { api, http, begun, watchdog, grace, locks }),
            Err(error) => {
                let deadline = Instant::now() + grace;
                begun.settle(false, deadline);
                begun.end(deadline);
                std::mem::forget(locks);
                Err(error)
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.api.address
    }

    pub fn public_base_url(&self) -> String {
        self.api.public_base_url()
    }

    /// Ends everything within the grace of the configuration, whatever clients and agents do.
    pub fn stop(self, stop: Stop) {
        let deadline = Instant::now() + self.grace;
        let Server { api, http, mut begun, watchdog, locks, .. } = self;
        http.stop_accepting();
        api.ledger.tail().close();
        begun.settle(stop == Stop::EndAll, deadline);
        let reason = match stop {
            Stop::Leave => "sigterm",
            Stop::EndAll => "sigint",
        };
        let payload = json!({"reason": reason}).to_string();
        let told = api.ledger.write(move |tx| {
            tx.append(NewEvent::system(EventKind::RuntimeStopped, payload.as_str())).map(|_seq| ())
        });
        if let Err(error) = told {
            log::warn!("the stop is not in the log: {error}");
        }
        http.close(deadline.saturating_duration_since(Instant::now()).max(MIN_CLOSE));
        drop(api);
        begun.end(deadline);
        drop(watchdog);
        // What was left behind could use the folder still: it is free when the process has ended.
        std::mem::forget(locks);
    }
}

/// What runs behind the connections, as far as a start has come. These threads hold handles on each other: all are told
/// to end before the first is waited for, also when the start fails half-way.
struct Begun {
    ledger: Ledger,
    writer: Thread,
    api: Option<Arc<Api>>,
    /// Ends by [`Worktrees::stop`].
    worktrees: Option<Thread>,
    dispatch: Option<Dispatch>,
    /// Ends by [`Teams::stop`].
    team_recovery: Option<Thread>,
    /// Closing the channel ends it.
    housekeeper: Option<(Sender<()>, Thread)>,
}

impl Begun {
    fn new(ledger: Ledger, writer: Thread) -> Begun {
        let (api, worktrees, dispatch) = (None, None, None);
        let (team_recovery, housekeeper) = (None, None);
        Begun { ledger, writer, api, worktrees, dispatch, team_recovery, housekeeper }
    }

    /// Takes up what the last server left, then begins with everything else; requests come last.
    fn go_on(
        &mut self,
        api: &Arc<Api>,
        worktrees_due: Receiver<()>,
        listener: TcpListener,
    ) -> Result<http::Server> {
        self.api = Some(Arc::clone(api));
        let config = &api.config;
        if config.providers.contains_key("claude") {
            Auth::of_config(config).prepare()?;
        }
        api.ledger.write(tell_start)?;
        api.mcp.recover()?;
        let mut recovered = api.sessions.recover()?;
        // Behind the sessions, which stop the children that nobody knows: what is started here is known to nobody yet.
        recovered.processes_adopted = api.processes.recover()?;
        self.worktrees = Some(api.worktrees.start(worktrees_due)?);
        let summary = json!({"summary": {
            "sessions_attached": recovered.sessions_attached,
            "sessions_resumed": recovered.sessions_resumed,
            "processes_adopted": recovered.processes_adopted,
            "orphans_stopped": recovered.orphans_stopped,
        }});
        api.ledger.write(move |tx| {
            let kind = EventKind::RuntimeStartupRecovered;
            tx.append(NewEvent::system(kind, summary.to_string())).map(|_seq| ())
        })?;
        drop(api.recovered.set(recovered));
        self.dispatch = Some(api.teams.start()?);
        self.team_recovery = Some(api.teams.recover()?);
        let (housekeeper_end, end) = crossbeam_channel::bounded(0);
        let house = Housekeeper {
            ledger: api.ledger.clone(),
            processes: Some(api.processes.clone()),
            delta_retention: config.delta_retention,
            session_retention: config.session_retention,
            team_retention: config.teams.retention,
            keepers_dir: config.root_dir.join("keepers"),
            providers_dir: config.providers_dir.clone(),
        };
        let housekeeper =
            thread::spawn("housekeeper", move || house.keep(&end)).map_err(no_thread)?;
        self.housekeeper = Some((housekeeper_end, housekeeper));
        let limits =
            http::Limits { connections: config.connections_max, ..http::Limits::default() };
        let http = http::Server::start(listener, limits, Arc::clone(api) as Arc<dyn http::Handler>)
            .map_err(|error| Error::internal("the server can not accept").source(error))?;
        drop(api.http.set(http.meter()));
        Ok(http)
    }

    /// Tells all that works to end, and waits for it until the deadline. Agents and processes stay with their keepers
    /// unless it is final.
    fn settle(&mut self, is_final: bool, deadline: Instant) {
        let Some(api) = &self.api else { return };
        let dispatch = self.dispatch.take().map(Dispatch::stop);
        api.sessions.shut_down(is_final, deadline);
        if let Some(dispatch) = dispatch {
            dispatch.join(deadline);
        }
        api.processes.shut_down(is_final, deadline);
        // A probe that is told to end needs a moment, also when others have used the grace up.
        api.readiness.shut_down(deadline.max(Instant::now() + MIN_CLOSE));
        api.worktrees.stop();
        api.teams.stop();
    }

    /// Ends the rest, the writer last. What does not end is left to the end of the process.
    fn end(self, deadline: Instant) {
        let Begun { ledger, writer, api, worktrees, team_recovery, housekeeper, .. } = self;
        let housekeeper = housekeeper.map(|(end, thread)| {
            drop(end);
            thread
        });
        // A thread that hangs may have a handle on the ledger still, so the writer is told: it does what waits, makes
        // its checkpoint and ends.
        ledger.close();
        drop((ledger, api));
        let deadline = deadline.max(Instant::now() + MIN_CLOSE);
        let threads = [
            ("housekeeper", housekeeper),
            ("team-recovery", team_recovery),
            ("worktrees", worktrees),
            ("writer", Some(writer)),
        ];
        for (name, thread) in threads {
            if thread.is_some_and(|thread| !thread.join_by(deadline)) {
                log::warn!("the thread {name} did not stop in time; the process ends without it");
            }
        }
    }
}

fn no_thread(error: io::Error) -> Error {
    Error::internal("no thread can be started").source(error)
}

/// Connections, and then the writer, get this long to finish even when others have used the grace up.
const MIN_CLOSE: Duration = Duration::from_millis(500);

fn tell_start(tx: &mut Tx<'_>) -> Result<()> {
    let payload = json!({"version": env!("CARGO_PKG_VERSION"), "pid": std::process::id()});
    tx.append(NewEvent::system(EventKind::RuntimeStarted, payload.to_string())).map(|_seq| ())
}

/// The operator's token: configured, or in its file, or made now.
fn token(config: &Config) -> Result<String> {
    if let Some(token) = &config.token {
        return Ok(token.clone());
    }
    match folder::read_token(&config.token_file)? {
        Some(token) => Ok(token),
        None => folder::make_token(&config.token_file),
    }
}

/// How agents on this machine reach the gateway; None when it is switched off. The address is written where agents find
/// it that were started by a server before this one.
fn gateway_access(config: &Config, address: SocketAddr) -> Result<Option<GatewayAccess>> {
    if !config.is_mcp_enabled {
        return Ok(None);
    }
    let program = match std::env::var_os("GG_MCP_SERVER_PATH").filter(|path| !path.is_empty()) {
        None => sidecar("gg-mcp-server")?,
        Some(path) if Path::new(&path).is_file() => PathBuf::from(path),
        Some(path) => {
            let path = Path::new(&path).display();
            return Err(Error::internal(format!("GG_MCP_SERVER_PATH is {path}, which is no file"))
                .hint("name the program gg-mcp-server, or leave the variable out"));
        }
    };
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let url = format!("http://{address}/v1/mcp");
    let url_file = config.root_dir.join("gateway-url");
    // Beside it first: whoever reads it finds a whole line.
    let fresh = url_file.with_extension("new");
    secret::write(&fresh, &url).and_then(|()| std::fs::rename(&fresh, &url_file)).map_err(
        |error| Error::internal(format!("{} can not be written: {error}", url_file.display())),
    )?;
    Ok(Some(GatewayAccess { program, url, url_file }))
}

/// The names of the programs that come with this one.
pub const SIDECARS: &[&str] = &["gg-keeper", "gg-demo-agent", "gg-mcp-server", "claude-bridge"];

/// The programs that come with this one.
pub fn sidecars() -> Result<Sidecars> {
    let claude_bridge = match named_bridge()? {
        Some(named) => Some(named),
        None => sidecar("claude-bridge").ok().map(|path| {
            // What follows is for the program behind it.
            vec![path.to_string_lossy().into_owned(), "--".to_owned()]
        }),
    };
    let (keeper, demo_agent) = (sidecar("gg-keeper")?, sidecar("gg-demo-agent")?);
    Ok(Sidecars { keeper, demo_agent, claude_bridge })
}

/// A program that comes with this one: beside it (a build), or under `sidecars/` of its bundle.
pub fn sidecar(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()
        .and_then(std::fs::canonicalize)
        .map_err(|error| Error::internal("the program's own path can not be read").source(error))?;
    let folder = here.parent().unwrap_or(Path::new("/"));
    let bundle = folder.parent().unwrap_or(folder);
    [folder.join(name), bundle.join("sidecars").join(name).join(name)]
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::internal(format!("{name} is not beside {}", here.display()))
                .hint("build the whole workspace (make build), or install the whole bundle")
        })
}

/// Another bridge to Claude, by the variables that operators know. Errors: the arguments are no list of texts.
fn named_bridge() -> Result<Option<Vec<String>>> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(command) = set("GG_CLAUDE_BRIDGE_COMMAND") else { return Ok(None) };
    let arguments = set("GG_CLAUDE_BRIDGE_ARGS_JSON").unwrap_or_else(|| "[]".to_owned());
    let arguments: Vec<String> = serde_json::from_str(&arguments).map_err(|error| {
        Error::internal(format!("GG_CLAUDE_BRIDGE_ARGS_JSON: {error}"))
            .hint("write a JSON list of texts, for example [\"--verbose\"]")
    })?;
    let path = set("PATH").unwrap_or_default();
    let program = environment::find_program(&command, &path).ok_or_else(|| {
        Error::internal(format!("GG_CLAUDE_BRIDGE_COMMAND: {command:?} is not on PATH"))
    })?;
    let program = program.to_string_lossy().into_owned();
    Ok(Some(std::iter::once(program).chain(arguments).collect()))
}

/// What to do when an address can not be bound.
pub fn bind_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; 127.0.0.1 is there, 0.0.0.0 is all that it has"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 want a privilege; choose a higher one",
        _ => "end the program that holds it, or choose another with --bind",
    }
}

/// Raises the bound on open files to what the system allows: each connection and each agent needs some.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        log::warn!("the bound on open files stays at {:?}: {error}", limit.current);
    }
}
