//! Who may call: hosts, origins of pages, and the path that a proxy adds.

use crate::stage::{Stage, check_error, check_told};
use gooselake_harness::client::Reply;

#[test]
fn only_hosts_of_this_server_are_answered() {
    let stage = Stage::with_config(
        "[server]\nallowed_hosts = [\"goose.example\"]\npublic_base_url = \"https://Lake.example/x\"\n",
    );
    let ask = |host: &str| stage.client.request("GET", "/health", &[("Host", host)], b"");
    for host in ["localhost", "127.0.0.1:80", "[::1]:9", "Goose.Example:7", "lake.example"] {
        assert_eq!(ask(host).status, 200, "{host}");
    }
    for host in ["evil.example", "goose.example.evil", "localhost.evil", "10.0.0.1"] {
        check_told(&ask(host), 403, "host_not_allowed", host);
    }
    // A refused host learns nothing of paths and tokens.
    let nowhere = stage.client.request("GET", "/nowhere", &[("Host", "evil.example")], b"");
    check_error(&nowhere, 403, "host_not_allowed");
}

#[test]
fn pages_from_elsewhere_may_not_call() {
    let stage = Stage::new();
    let ask = |method: &str, origin: &str| {
        let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        stage.client.request(method, "/v1/sessions", &headers, b"")
    };
    for origin in ["http://evil.example", "null", "http://localhost:1"] {
        for method in ["GET", "OPTIONS"] {
            let reply = ask(method, origin);
            check_told(&reply, 403, "origin_not_allowed", origin);
            assert_eq!(reply.header("access-control-allow-origin"), None);
        }
    }
    // A page that this server served itself would be of its own origin.
    ask("GET", &format!("http://{}", stage.server.address())).expect(200);
}

#[test]
fn a_page_on_the_list_gets_its_preflight_and_its_answers() {
    let page = "https://app.example";
    let stage = Stage::with_config(&format!("[server]\ncors_origins = [\"{page}\"]\n"));
    let words = |reply: &Reply, name: &str| -> Vec<String> {
        let value = reply.header(name).unwrap_or_default().to_lowercase();
        value.split(',').map(|word| word.trim().to_owned()).collect()
    };
    let headers = [
        ("Origin", page),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization, content-type"),
    ];
    // A browser sends a preflight without the token.
    let reply = stage.anonymous().request("OPTIONS", "/v1/sessions", &headers, b"").expect(204);
    assert_eq!(reply.header("access-control-allow-origin"), Some(page));
    assert_eq!(reply.header("vary"), Some("Origin"));
    for method in ["get", "post", "delete"] {
        assert!(words(&reply, "access-control-allow-methods").contains(&method.to_owned()));
    }
    let wanted =
        ["authorization", "content-type", "idempotency-key", "last-event-id", "x-request-id"];
    for header in wanted {
        assert!(words(&reply, "access-control-allow-headers").contains(&header.to_owned()));
    }
    let origin = [("Origin", page)];
    let reply = stage.client.request("GET", "/v1/sessions", &origin, b"").expect(200);
    assert_eq!(reply.header("access-control-allow-origin"), Some(page));
    let exposed = words(&reply, "access-control-expose-headers");
    for header in ["x-request-id", "x-next-cursor", "x-as-of-seq", "retry-after", "allow"] {
        assert!(exposed.contains(&header.to_owned()), "{header} is not in {exposed:?}");
    }
    // The page must be able to read errors too, those before the handler and those of it.
    for path in ["/v1/nothing", "/v1/sessions/sess_0", "/v1/sessions?limit=x"] {
        let reply = stage.client.request("GET", path, &origin, b"");
        assert!(reply.status >= 400, "{reply}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(page), "{reply}");
    }
    let reply = stage.anonymous().request("GET", "/v1/sessions", &origin, b"");
    check_error(&reply, 401, "unauthorized");
    assert_eq!(reply.header("access-control-allow-origin"), Some(page));
}

#[test]
fn paths_work_with_and_without_the_base_path() {
    let stage = Stage::with_config("[server]\nbase_path = \"/gooselake/\"\n");
    for path in ["/health", "/gooselake/health", "/v1/sessions", "/gooselake/v1/sessions"] {
        stage.client.get(path).expect(200);
    }
    let told = stage.get("/gooselake/health")["public_base_url"].clone();
    assert_eq!(told, format!("http://{}/gooselake", stage.server.address()));
    check_error(&stage.client.get("/other/v1/sessions"), 404, "not_found");
    check_error(&stage.client.get("/gooselake"), 404, "not_found");
    let reply = stage.client.request("PUT", "/gooselake/v1/sessions", &[], b"");
    check_error(&reply, 405, "method_not_allowed");
    let reply = stage.anonymous().get("/gooselake/v1/sessions");
    check_error(&reply, 401, "unauthorized");
}
