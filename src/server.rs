//! The composition root: builds everything, owns every handle, and knows the order of start and shutdown.
//!
//! Start: the lock of the data folder, then the port (so a second server has changed nothing when it fails), the
//! ledger, what the last server left, and only then requests. Shutdown has a deadline for the whole: stop accepting,
//! end the streams, settle the sessions, close connections, drain the writer, checkpoint.

use crate::api::Api;
use crate::config::Config;
use crate::environment;
use crate::error::{Error, Result};
use crate::http;
use crate::ledger::event::NewEvent;
use crate::ledger::{Ledger, Tx};
use crate::mcp::Gateway;
use crate::model::event::EventKind;
use crate::process::Processes;
use crate::provider::claude::auth::Auth;
use crate::provider::readiness::Readiness;
use crate::secret;
use crate::session::{GatewayAccess, Sessions, Sidecars, TOKENS_FOLDER};
use crate::signals::Stop;
use crate::team::{Dispatch, Teams};
use crate::thread::{self, Thread};
use crate::worktree::Worktrees;
use crossbeam_channel::{Receiver, Sender};
use rustix::fs::FlockOperation;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A running server. Dropping it without [`Server::stop`] ends the threads but tells nobody.
pub struct Server {
    api: Arc<Api>,
    http: http::Server,
    dispatch: Dispatch,
    /// Closing it ends the housekeeper.
    housekeeper_end: Sender<()>,
    housekeeper: Thread,
    /// Ends by [`Worktrees::stop`].
    worktrees: Thread,
    writer: Thread,
    grace: Duration,
    /// Held until everything else is gone.
    lock: File,
}

/// How often old idempotency keys are forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);

impl Server {
    /// Starts the server. Errors: another one has the data folder or the port, or the database is not ours.
    pub fn start(config: Config) -> Result<Server> {
        make_folder(&config.root_dir)?;
        let lock = lock_folder(&config.root_dir)?;
        let listener = TcpListener::bind(config.bind).map_err(|error| {
            Error::internal(format!("the address {} can not be bound: {error}", config.bind))
                .hint("end the program that holds it, or choose another with --bind")
        })?;
        let address = listener
            .local_addr()
            .map_err(|error| Error::internal("the bound address can not be read").source(error))?;
        make_folder(&config.root_dir.join("keepers"))?;
        make_folder(&config.root_dir.join("providers"))?;
        make_folder(&config.root_dir.join(TOKENS_FOLDER))?;
        let token = token(&config)?;
        let sidecars = sidecars()?;
        let gateway = gateway_access(&config, address)?;
        let (ledger, writer) = Ledger::open(&config.sqlite_path, config.synchronous)?;
        restrict(&config.sqlite_path)?;
        let config = Arc::new(config);
        if config.providers.contains_key("claude") {
            Auth::of_config(&config).prepare()?;
        }
        let keeper = sidecars.keeper.clone();
        let processes = Processes::new(Arc::clone(&config), ledger.clone(), keeper);
        let bridge = sidecars.claude_bridge.clone().unwrap_or_default();
        let readiness = Readiness::new(Arc::clone(&config), bridge)?;
        let (worktrees, worktrees_due) = Worktrees::new(&config, ledger.clone())?;
        let sessions = Sessions::new(
            Arc::clone(&config),
            ledger.clone(),
            processes.clone(),
            readiness.clone(),
            worktrees.clone(),
            sidecars,
            gateway,
        );
        let teams = Teams::new(Arc::clone(&config), ledger.clone(), sessions.clone());
        ledger.write(tell_start)?;
        let api = Arc::new(Api {
            config: Arc::clone(&config),
            ledger: ledger.clone(),
            sessions: sessions.clone(),
            processes: processes.clone(),
            mcp: Gateway::new(ledger.clone(), config.is_mcp_enabled),
            readiness,
            worktrees: worktrees.clone(),
            teams: teams.clone(),
            token,
            address,
            streams: Arc::new(AtomicUsize::new(0)),
            started: Instant::now(),
            recovered: OnceLock::new(),
        });
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
        let limits =
            http::Limits { connections: config.connections_max, ..http::Limits::default() };
        let http =
            http::Server::start(listener, limits, Arc::clone(&api) as Arc<dyn http::Handler>)
                .map_err(|error| Error::internal("the server can not accept").source(error))?;
        let (housekeeper_end, end) = crossbeam_channel::bounded(0);
        let housekeeper =
            thread::spawn("housekeeper", move || keep_house(&ledger, &processes, &end))
                .map_err(|error| Error::internal("no thread can be started").source(error))?;
        let grace = config.shutdown_grace;
        Ok(Server {
            api,
            http,
            dispatch,
            housekeeper_end,
            housekeeper,
            worktrees,
            writer,
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
            housekeeper_end,
            housekeeper,
            worktrees,
            writer,
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
        let reason = match stop {
            Stop::Leave => "sigterm",
            Stop::EndAll => "sigint",
        };
        let payload = json!({"reason": reason}).to_string();
        let told = api.ledger.write(move |tx| {
            tx.append(NewEvent::system(EventKind::RuntimeStopped, payload)).map(|_seq| ())
        });
        if let Err(error) = told {
            log::warn!("the stop is not in the log: {error}");
        }
        http.close(deadline.saturating_duration_since(Instant::now()).max(MIN_CLOSE));
        drop(housekeeper_end);
        housekeeper.join();
        worktrees.join();
        // The last handle on the ledger: the writer drains, makes its checkpoint and ends.
        drop(api);
        writer.join();
        drop(lock);
    }
}

/// Connections get this long to finish even when the sessions have used the grace up.
const MIN_CLOSE: Duration = Duration::from_millis(200);

fn tell_start(tx: &mut Tx<'_>) -> Result<()> {
    let payload = json!({"version": env!("CARGO_PKG_VERSION"), "pid": std::process::id()});
    tx.append(NewEvent::system(EventKind::RuntimeStarted, payload.to_string())).map(|_seq| ())
}

/// The housekeeper: what is due by age alone. Ends when its channel closes.
fn keep_house(ledger: &Ledger, processes: &Processes, end: &Receiver<()>) {
    use crossbeam_channel::RecvTimeoutError::Timeout;
    let mut keys_due = Instant::now() + HOUSEKEEPING;
    loop {
        let purge_in = processes.purge_old().unwrap_or(HOUSEKEEPING);
        let due = keys_due.min(Instant::now() + purge_in);
        if end.recv_deadline(due) != Err(Timeout) {
            break;
        }
        if Instant::now() >= keys_due {
            keys_due = Instant::now() + HOUSEKEEPING;
            if let Err(error) = ledger.write(|tx| tx.expire_keys()) {
                log::warn!("old idempotency keys are still there: {error}");
            }
        }
    }
}

/// A folder that nobody else can look into.
fn make_folder(path: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Error::internal(format!("the folder {} can not be made: {error}", path.display()))
            .hint("choose another with --data-dir")
    })
}

/// How long the lock of a server that was just killed may outlive it.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// One server for one data folder: the lock is taken before anything in it is read.
fn lock_folder(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| {
            Error::internal(format!("{} can not be opened: {error}", path.display()))
                .hint("make the data folder writable for the user that runs the server")
        })?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok(file);
    }
    // A server that was killed while it started a program: until that program has begun, its process holds all that the
    // server held, the lock too. It lets go in a moment, another server does not.
    let (locked, lock) = crossbeam_channel::bounded(1);
    let waiter = thread::spawn("lock-wait", move || {
        let taken = rustix::fs::flock(&file, FlockOperation::LockExclusive);
        drop(locked.send(taken.map(|()| file)));
    })
    .map_err(|error| Error::internal("no thread can be started").source(error))?;
    if let Ok(Ok(file)) = lock.recv_timeout(LOCK_WAIT) {
        return Ok(file);
    }
    // It waits as long as the other server runs; this process ends without it.
    std::mem::forget(waiter);
    Err(Error::internal(format!("another server runs on the data folder {}", root.display()))
        .hint("stop it, or choose another folder with --data-dir"))
}

/// The database holds prompts and environments: for its owner alone.
fn restrict(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        if file.exists() {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).map_err(
                |error| {
                    Error::internal(format!("{} can not be made private", file.display()))
                        .source(error)
                },
            )?;
        }
    }
    Ok(())
}

/// The operator's token: configured, or in its file, or made now.
fn token(config: &Config) -> Result<String> {
    if let Some(token) = &config.token {
        return Ok(token.clone());
    }
    let path = &config.token_file;
    let told = |error: std::io::Error| {
        Error::internal(format!("the token file {}: {error}", path.display()))
    };
    if let Ok(text) = std::fs::read_to_string(path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let token = secret::random()?;
    secret::write(path, &token).map_err(told)?;
    Ok(token)
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

fn sidecars() -> Result<Sidecars> {
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
fn sidecar(name: &str) -> Result<PathBuf> {
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

/// Raises the bound on open files to what the system allows: each connection and each agent needs some.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        log::warn!("the bound on open files stays at {:?}: {error}", limit.current);
    }
}
