//! The rules of the API, for any request: no handler panics, errors are JSON with a code, and what is a stream has a
//! head that can be written.
//!
//! The API stands on a real ledger, without providers, processes and worktrees: nothing that an input says starts a
//! program or makes a folder. It is called as connections call it, on this thread; streams are made and not run.

use gooselake::api::{Api, Floors};
use gooselake::config::{Config, Overrides};
use gooselake::http::{Answer, Client, Handler, Head, Request};
use gooselake::ledger::Ledger;
use gooselake::ledger::event::NewEvent;
use gooselake::model::event::EventKind;
use gooselake::session::Sidecars;
use gooselake_harness::temp::TempDir;
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// The operator's token, as seeds send it.
pub(crate) const TOKEN: &str = "token";

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

pub(crate) fn check(input: &[u8]) {
    let end = input.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end.map(|at| at + 4) else { return };
    let Ok(head) = Head::parse(&input[..end], 64, ADDRESS) else { return };
    let api = api();
    let answer = match api.admit(&head) {
        Err(answer) => answer,
        Ok(admission) => {
            let body = input[end..].to_vec();
            if body.len() > admission.body_bytes_max {
                return;
            }
            api.handle(Request { head, body, client: Client::default() })
        }
    };
    let (status, headers) = match &answer {
        Answer::Whole(response) => (response.status, &response.headers),
        Answer::Stream(head, _) => (head.status, &head.headers),
    };
    assert!((200..600).contains(&status) && status != 500, "status {status}");
    for (name, value) in headers {
        assert!(!value.contains(['\r', '\n', '\0']), "{name}: {value:?}");
    }
    if let Answer::Whole(response) = &answer
        && status >= 400
    {
        let body = response.body.as_bytes();
        let told: Value = serde_json::from_slice(body).unwrap_or_default();
        // The gateway's errors are those of JSON-RPC, its envelope has its own.
        let is_told = told["code"].is_string() || told["error"].is_object();
        assert!(is_told, "{status} {:?}", String::from_utf8_lossy(body));
        assert!(body.len() <= 16 * 1024 + 14 * input.len(), "{} bytes", body.len());
    }
}

fn api() -> &'static Api {
    static API: OnceLock<(Api, TempDir)> = OnceLock::new();
    &API.get_or_init(make).0
}

fn make() -> (Api, TempDir) {
    let folder = TempDir::new("gg-fuzz-api");
    let overrides = Overrides {
        bind: Some("127.0.0.1:0".to_owned()),
        data_dir: Some(folder.path().to_owned()),
        ..Overrides::default()
    };
    let text = "[processes]\nenabled = false\n[worktrees]\nenabled = false\n";
    let mut config = Config::parse(text, folder.path(), "", &overrides).unwrap();
    config.providers.clear();
    let (ledger, writer) =
        Ledger::open_bounded(&config.sqlite_path, config.synchronous, None).unwrap();
    // It ends with the process.
    std::mem::forget(writer);
    for _ in 0..3 {
        ledger
            .write(|tx| tx.append(NewEvent::system(EventKind::RuntimeStarted, "{}".to_owned())))
            .unwrap();
    }
    let config = Arc::new(config);
    let nowhere = PathBuf::from("/nowhere");
    let sidecars = Sidecars { keeper: nowhere.clone(), demo_agent: nowhere, claude_bridge: None };
    let (floors, _due) = Floors::new(&config, ledger, sidecars, None).unwrap();
    let api = Api::new(config, floors, TOKEN.to_owned(), ADDRESS);
    (api, folder)
}
