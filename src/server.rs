//! The composition root: builds everything, owns every handle, and knows the order of start and shutdown.
//!
//! Start: the lock of the data folder, then the port (so a second server has changed nothing when it fails), the
//! ledger, what the last server left, and only then requests. Shutdown has a deadline for the whole: stop accepting,
//! end the streams, settle the sessions, close connections, drain the writer, checkpoint.

use crate::api::{Api, Floors};
use crate::config::Config;
use crate::environment;
use crate::error::{Error, Result};
use crate::folder::{self, lock_folder, make_folder, restrict};
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
use crossbeam_channel::Sender;
use serde_json::json;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A running server. Dropping it without [`Server::stop`] ends the threads but tells nobody.
pub struct Server {
    api: Arc<Api>,
    http: http::Server,
    dispatch: Dispatch,
    team_recovery: Thread,
    /// Closing it ends the housekeeper.
    housekeeper_end: Sender<()>,
    housekeeper: Thread,
    /// Ends by [`Worktrees::stop`].
    worktrees: Thread,
    writer: Thread,
    /// Ends when it is dropped.
    watchdog: Watchdog,
    grace: Duration,
    /// Held until everything else is gone.
    lock: File,
}

impl Server {
    /// Starts the server. Errors: another one has the data folder or the port, or the database is not ours.
    pub fn start(config: Config) -> Result<Server> {
        make_folder(&config.root_dir)?;
        let lock = lock_folder(&config.root_dir)?;
        let listener = TcpListener::bind(config.bind).map_err(|error| {
            Error::internal(format!("the address {} can not be bound: {error}", config.bind))
                .hint(bind_remedy(&error))
        })?;
        let address = listener
            .local_addr()
            .map_err(|error| Error::internal("the bound address can not be read").source(error))?;
        if let Err(error) = folder::sign_lock(&lock, Some(address)) {
            log::warn!("the lock does not say who holds it: {error}");
        }
        // Every id has some.
        secret::fill(&mut [0; 1])?;
        make_folder(&config.root_dir.join("keepers"))?;
        make_folder(&config.providers_dir)?;
        make_folder(&config.root_dir.join(TOKENS_FOLDER))?;
        let token = token(&config)?;
        let sidecars = sidecars()?;
        let watchdog = watchdog::start(config.stuck_after)
            .map_err(|error| Error::internal("no thread can be started").source(error))?;
        let gateway = gateway_access(&config, address)?;
        restrict(&config.sqlite_path)?;
        let (ledger, writer) = Ledger::open_bounded(
            &config.sqlite_path,
            config.synchronous,
            config.database_bytes_max,
        )?;
        let config = Arc::new(config);
        if config.providers.contains_key("claude") {
            Auth::of_config(&config).prepare()?;
        }
        let (floors, worktrees_due) = Floors::new(&config, ledger.clone(), sidecars, gateway)?;
        ledger.write(tell_start)?;
        floors.mcp.recover()?;
        let api = Arc::new(Api::new(Arc::clone(&config), floors, token, address));
        let (sessions, processes) = (api.sessions.clone(), api.processes.clone());
        let (worktrees, teams) = (api.worktrees.clone(), api.teams.clone());
        let mut recovered = sessions.recover()?;
        // Behind the sessions, which stop the children that nobody knows: what is started here is known to nobody yet.
        recovered.processes_adopted = processes.recover()?;
        let worktrees = worktrees.start(worktrees_due)?;
        let summary = json!({"summary": {
            "sessions_attached": recovered.sessions_attached,
            "sessions_resumed": recovered.sessions_resumed,
            "processes_adopted": recovered.processes_adopted,
            "orphans_stopped": recovered.orphans_stopped,
        }});
        ledger.write(move |tx| {
            let kind = EventKind::RuntimeStartupRecovered;
            tx.append(NewEvent::system(kind, summary.to_string())).map(|_seq| ())
        })?;
        drop(api.recovered.set(recovered));
        let dispatch = teams.start()?;
        let team_recovery = teams.recover()?;
        let limits =
            http::Limits { connections: config.connections_max, ..http::Limits::default() };
        let http =
            http::Server::start(listener, limits, Arc::clone(&api) as Arc<dyn http::Handler>)
                .map_err(|error| Error::internal("the server can not accept").source(error))?;
        drop(api.http.set(http.meter()));
        let (housekeeper_end, end) = crossbeam_channel::bounded(0);
        let house = Housekeeper {
            ledger,
            processes: Some(processes),
            delta_retention: config.delta_retention,
            session_retention: config.session_retention,
            team_retention: config.teams.retention,
            keepers_dir: config.root_dir.join("keepers"),
            providers_dir: config.providers_dir.clone(),
        };
        let housekeeper = thread::spawn("housekeeper", move || house.keep(&end))
            .map_err(|error| Error::internal("no thread can be started").source(error))?;
        let grace = config.shutdown_grace;
        Ok(Server {
            api,
            http,
            dispatch,
            team_recovery,
            housekeeper_end,
            housekeeper,
            worktrees,
            writer,
            watchdog,
            grace,
            lock,
        })
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
        let Server {
            api,
            http,
            dispatch,
            team_recovery,
            housekeeper_end,
            housekeeper,
            worktrees,
            writer,
            watchdog,
            lock,
            ..
        } = self;
        http.stop_accepting();
        api.ledger.tail().close();
        let dispatch = dispatch.stop();
        api.sessions.shut_down(stop == Stop::EndAll, deadline);
        dispatch.join(deadline);
        api.processes.shut_down(stop == Stop::EndAll, deadline);
        api.readiness.shut_down();
        api.worktrees.stop();
        api.teams.stop();
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
        drop(housekeeper_end);
        // A thread that hangs above may have a handle on the ledger still, so the writer is told: it does what waits,
        // makes its checkpoint and ends.
        api.ledger.close();
        drop(api);
        let deadline = deadline.max(Instant::now() + MIN_CLOSE);
        let threads = [
            ("housekeeper", housekeeper),
            ("team-recovery", team_recovery),
            ("worktrees", worktrees),
            ("writer", writer),
        ];
        for (name, thread) in threads {
            if !thread.join_by(deadline) {
                log::warn!("the thread {name} did not stop in time; the process ends without it");
            }
        }
        drop(watchdog);
        // What was left behind could use the folder still: it is free when the process has ended.
        std::mem::forget(lock);
    }
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
