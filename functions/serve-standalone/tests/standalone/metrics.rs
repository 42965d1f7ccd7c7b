//! The metrics that Prometheus reads, and their address.

use std::net::SocketAddr;

use crate::support::{EMPTY, Http1Client, MANIFEST_TYPE, Response, Server, digest, folder_with_users, manifest, run};

pub(crate) fn scrape(address: SocketAddr) -> Response {
    Http1Client::connect(address).request("GET", "/metrics", &[], b"")
}

/// The value of a series, by its name and labels as they are written.
pub(crate) fn value(text: &str, series: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[test]
fn metrics_are_nowhere_unless_asked_for() {
    let server = Server::start(&[]);
    assert_eq!(scrape(server.address).status, 404);
}

#[test]
fn what_the_server_did_is_counted_under_names_that_no_client_chose() {
    let server = Server::start(&["--metrics", "here"]);
    server.push_blob("team/secret-project", EMPTY);
    let layer = vec![7; 100_000];
    let blob = server.push_blob("team/secret-project", &layer);
    let put = server.request(
        "PUT",
        "/v2/team/secret-project/manifests/v1",
        &[MANIFEST_TYPE],
        &manifest("a"),
    );
    assert_eq!(put.status, 201);
    for _ in 0..3 {
        let path = format!("/v2/team/secret-project/blobs/{blob}");
        assert_eq!(server.request("GET", &path, &[], b"").body.len(), layer.len());
        assert_eq!(server.request("HEAD", &path, &[], b"").status, 200);
    }
    assert_eq!(server.request("BREW", "/v2/", &[], b"").status, 405);
    let absent = format!("/v2/x/blobs/{}", digest(b"absent"));
    assert_eq!(server.request("GET", &absent, &[], b"").status, 404);
    // A request is counted when its last byte is written, which its client may see a moment earlier.
    let all = "roadstead_request_duration_seconds_count{endpoint=\"GetBlob\"}";
    let answer = crate::support::eventually("all requests are counted", || {
        let answer = scrape(server.address);
        let text = String::from_utf8(answer.body.clone()).unwrap();
        (value(&text, all) == Some(7)).then_some(answer)
    });
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = String::from_utf8(answer.body).unwrap();
    let count = |method: &str, endpoint: &str, status: u16| {
        let series =
            format!("roadstead_requests_total{{method=\"{method}\",endpoint=\"{endpoint}\",status=\"{status}\"}}");
        value(&text, &series).unwrap_or_else(|| panic!("{series} in\n{text}"))
    };
    assert_eq!(count("POST", "OpenUpload", 202), 2);
    assert_eq!(count("PUT", "FinishUpload", 201), 2);
    assert_eq!(count("PUT", "PutManifest", 201), 1);
    assert_eq!(count("GET", "GetBlob", 200), 3);
    assert_eq!(count("HEAD", "GetBlob", 200), 3);
    assert_eq!(count("GET", "GetBlob", 404), 1);
    assert_eq!(count("other", "none", 405), 1);
    assert_eq!(value(&text, "roadstead_answers_cut_total"), Some(0));
    let pushed = (EMPTY.len() + layer.len() + manifest("a").len()) as u64;
    assert_eq!(value(&text, "roadstead_received_bytes_total"), Some(pushed));
    assert!(value(&text, "roadstead_sent_bytes_total").unwrap() >= 3 * layer.len() as u64);
    assert_eq!(value(&text, "roadstead_uploads_open"), Some(0));
    assert!(value(&text, "roadstead_table_reads_total").unwrap() > 0);
    assert!(value(&text, "roadstead_table_writes_total").unwrap() > 0);
    let build = format!("roadstead_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&text, &build), Some(1));
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("secret-project") && !text.contains("sha256"), "{text}");
}

/// The text of the metrics.
pub(crate) fn text_of(server: &Server) -> String {
    String::from_utf8(scrape(server.address).body).unwrap()
}

#[test]
fn an_upload_in_progress_is_seen() {
    let server = Server::start(&["--metrics", "here"]);
    let upload = server.open_upload("app", &[]);
    let mut client = server.connect();
    client.send_head("PATCH", &upload, &[], 1_000_000);
    client.send(&[0; 1000]);
    let open = || {
        value(
            &String::from_utf8(scrape(server.address).body).unwrap(),
            "roadstead_uploads_open",
        )
    };
    crate::support::eventually("the upload is counted", || (open() == Some(1)).then_some(()));
    client.hang_up();
    crate::support::eventually("its end is counted", || (open() == Some(0)).then_some(()));
}

/// The address of `--metrics 127.0.0.1:0`.
pub(crate) fn own_address(server: &Server) -> SocketAddr {
    let line = server.wait_for_line("the addresses are logged", |line| line["message"] == "listening");
    let url = line["metrics"].as_str().unwrap();
    let address = url.strip_prefix("http://").unwrap().strip_suffix("/metrics").unwrap();
    address.parse().unwrap()
}

#[test]
fn an_address_of_its_own_serves_metrics_and_nothing_else() {
    let server = Server::start(&["--metrics", "127.0.0.1:0"]);
    let address = own_address(&server);
    assert_eq!(scrape(address).status, 200);
    assert_eq!(scrape(server.address).status, 404, "not among what everyone may ask");
    let ask = |method: &str, path: &str| Http1Client::connect(address).request(method, path, &[], b"").status;
    assert_eq!(ask("GET", "/v2/"), 404);
    assert_eq!(ask("POST", "/metrics"), 405);
    assert_eq!(ask("HEAD", "/metrics"), 200);
}

/// Also beside a registry that asks for passwords, because it asks for none.
#[test]
fn s32_pages_of_other_sites_do_not_read_what_is_counted_on_this_machine() {
    let users = folder_with_users(&[("alice", "secret")]);
    let flags = [
        "--htpasswd",
        "users",
        "--metrics",
        "127.0.0.1:0",
        "--allow-host",
        "host.docker.internal",
    ];
    let server = Server::start_in(users, &flags);
    let address = own_address(&server);
    for (fields, expected) in [
        (&["Host: localhost:9090"][..], 200),
        (&["Host: 127.0.0.1"], 200),
        (&["Host: host.docker.internal:9090"], 200),
        (&["Host: evil.example:9090"], 403),
        (&["Host: localhost", "Origin: https://evil.example"], 403),
        (&["Host: localhost", "Sec-Fetch-Site: cross-site"], 403),
        (&["Host: localhost", "Host: localhost"], 400),
        (&[], 400),
    ] {
        for path in ["/metrics", "/"] {
            let mut client = Http1Client::connect(address);
            client.send(format!("GET {path} HTTP/1.1\r\n").as_bytes());
            for field in fields {
                client.send(format!("{field}\r\n").as_bytes());
            }
            client.send(b"\r\n");
            let answer = client.response("GET");
            let expected = if path == "/" && expected == 200 { 404 } else { expected };
            assert_eq!(answer.status, expected, "{path} {fields:?}");
            assert_eq!(
                String::from_utf8_lossy(&answer.body).contains("roadstead_"),
                answer.status == 200
            );
        }
    }
}

#[test]
fn an_address_that_is_taken_is_reported() {
    let server = Server::start(&[]);
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    let taken = server.address.to_string();
    let output = run([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--log",
        "text",
        "--metrics",
        &taken,
        "--data",
        data.to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let reported = String::from_utf8(output.stderr).unwrap();
    assert!(reported.contains("metrics") && reported.contains(&taken), "{reported}");
}
