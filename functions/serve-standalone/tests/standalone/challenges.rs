//! How clients are asked for credentials, and the URL of the server.

use std::net::TcpStream;
use std::sync::Arc;

use tempfile::TempDir;

use crate::support::tls::{Authority, shake_with};
use crate::support::{Http1Client, Server, folder_with_users, run};

const BASIC: &str = r#"Basic realm="roadstead", charset="UTF-8""#;

/// The realm is that of `--public-url`, of a trusted proxy, or of this machine. No stranger steers it by `Host` or
/// `X-Forwarded-…`. A proxy that is not trusted has clients on other machines, although its `Host` may be this machine.
#[test]
fn s29_the_realm_is_configured_or_proved() {
    const FORWARDED: &[(&str, &str)] = &[
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Host", "other.example:8443"),
        ("X-Forwarded-Proto", "https"),
    ];
    const WITHOUT_SCHEME: &[(&str, &str)] = &[("X-Forwarded-For", "192.0.2.1")];
    const HERE: Option<&str> = Some(r#"Bearer realm="http://localhost/token",service="roadstead""#);
    const PUBLIC: Option<&str> = Some(r#"Bearer realm="https://registry.example/token",service="registry.example""#);
    const PROXY: Option<&str> = Some(r#"Bearer realm="https://other.example:8443/token",service="roadstead""#);

    for (flags, direct, forwarded, without_scheme, of_stranger) in [
        (&[][..], HERE, Some(BASIC), Some(BASIC), Some(BASIC)),
        (
            &["--public-url", "https://registry.example/"],
            PUBLIC,
            PUBLIC,
            PUBLIC,
            PUBLIC,
        ),
        (
            &["--public-url", "https://registry.example", "--challenge", "basic"],
            Some(BASIC),
            Some(BASIC),
            Some(BASIC),
            Some(BASIC),
        ),
        // A proxy that is not this one.
        (
            &["--trusted-proxy", "192.0.2.0/24"],
            HERE,
            Some(BASIC),
            Some(BASIC),
            Some(BASIC),
        ),
        (
            &["--trusted-proxy", "127.0.0.0/8,::1"],
            HERE,
            PROXY,
            Some(BASIC),
            Some(BASIC),
        ),
    ] {
        let folder = folder_with_users(&[("alice", "secret")]);
        let server = Server::start_in(folder, &[&["--htpasswd", "users"][..], flags].concat());
        for (headers, expected) in [
            (&[][..], direct),
            (FORWARDED, forwarded),
            (WITHOUT_SCHEME, without_scheme),
        ] {
            let ping = server.request("GET", "/v2/", headers, b"");
            let found = (ping.status, ping.header("www-authenticate"));
            assert_eq!(found, (401, expected), "{flags:?} {headers:?}");
        }
        let mut client = server.connect();
        client.send(b"GET /v2/ HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        let ping = client.response("GET");
        assert_eq!(
            (ping.status, ping.header("www-authenticate")),
            (401, of_stranger),
            "{flags:?}"
        );
    }
}

/// nginx without `proxy_set_header`: its own name for the server is in `Host`, HTTP/1.0 is all that tells it from a client.
#[test]
fn a_proxy_that_says_nothing_about_its_clients_sends_none_to_their_own_machine() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(folder, &["--htpasswd", "users"]);
    let mut proxy = server.connect();
    proxy.send(b"GET /v2/ HTTP/1.0\r\nHost: 127.0.0.1:5000\r\nConnection: close\r\n\r\n");
    let ping = proxy.response("GET");
    assert_eq!((ping.status, ping.header("www-authenticate")), (401, Some(BASIC)));
}

/// Over the server's own TLS, the certificate proves the URL: a client gets tokens without a flag that says it.
#[test]
fn the_certificate_proves_the_realm() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let authority = Authority::new();
    let pair = authority.issue_for(&["registry.example", "*.wild.example", "127.0.0.1"]);
    pair.write(folder.path());
    let server = Authority::serve_in(folder, &["--htpasswd", "users"]);
    for (name, host, field, realm) in [
        (
            "registry.example",
            "registry.example",
            "",
            Some("https://registry.example"),
        ),
        (
            "registry.example",
            "Registry.example:8443",
            "",
            Some("https://registry.example:8443"),
        ),
        ("a.wild.example", "a.wild.example", "", Some("https://a.wild.example")),
        // Not the host of the handshake.
        ("registry.example", "a.wild.example", "", None),
        ("registry.example", "evil.example", "", None),
        // A handshake for an address says no name.
        ("127.0.0.1", "registry.example", "", None),
        // A proxy that speaks TLS to the server has clients that do not see its certificate.
        (
            "registry.example",
            "registry.example",
            "X-Forwarded-For: 192.0.2.1\r\n",
            None,
        ),
    ] {
        let socket = TcpStream::connect(server.address).unwrap();
        let stream = shake_with(socket, authority.client(&["http/1.1"], false), name).unwrap();
        let mut client = Http1Client::over(stream);
        client.send(format!("GET /v2/ HTTP/1.1\r\nHost: {host}\r\n{field}\r\n").as_bytes());
        let ping = client.response("GET");
        let expected = realm.map_or(BASIC.to_owned(), |url| {
            format!(r#"Bearer realm="{url}/token",service="roadstead""#)
        });
        let found = (ping.status, ping.header("www-authenticate"));
        assert_eq!(found, (401, Some(expected.as_str())), "{name} {host} {field}");
    }
}

/// A large head is reduced to the fields that are read, including those of a trusted proxy.
#[test]
fn a_large_head_keeps_what_a_proxy_says() {
    let folder = folder_with_users(&[("alice", "secret")]);
    let server = Server::start_in(folder, &["--htpasswd", "users", "--trusted-proxy", "127.0.0.0/8,::1"]);
    let filler = "x".repeat(12 << 10);
    let headers = [
        ("X-Filler", filler.as_str()),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "registry.example"),
    ];
    let ping = server.request("GET", "/v2/", &headers, b"");
    assert_eq!(
        ping.header("www-authenticate"),
        Some(r#"Bearer realm="https://registry.example/token",service="roadstead""#)
    );
}

/// A public URL of plain http is allowed. The server warns of it, unless it leads to this machine.
#[test]
fn s29_passwords_that_can_be_read_on_the_network_are_warned_of() {
    const WARNING: &str = "the public URL is plain http";

    for (url, warned) in [
        ("http://registry.example:5000", true),
        ("http://127.0.0.1:5000", false),
        ("https://registry.example", false),
    ] {
        let server = Server::start(&["--public-url", url, "--allow-anonymous", "all"]);
        assert_eq!(server.request("GET", "/v2/", &[], b"").status, 200, "{url}");
        let lines = server.lines();
        let is_warning = |line: &&serde_json::Value| line["message"].as_str().unwrap_or_default().starts_with(WARNING);
        let warning = lines.iter().find(is_warning);
        assert_eq!(warning.is_some(), warned, "{url}: {lines:?}");
        if let Some(warning) = warning {
            assert_eq!(
                (&warning["level"], &warning["public_url"]),
                (&"WARN".into(), &url.into())
            );
        }
    }
}

/// Clients send their passwords with every request where the URL is not known. The server says so at its start, also with
/// accounts alone.
#[test]
fn passwords_with_every_request_are_warned_of() {
    const EVERY_REQUEST: &str = "clients on other hosts send their passwords with every request";
    const DOCKER: &str = "docker cannot pull without a login";
    const ANYWHERE: &[&str] = &["--listen", "0.0.0.0:0"];
    const PULL: &[&str] = &["--allow-anonymous", "pull"];

    let folder = Arc::new(TempDir::new().unwrap());
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let added = run(["user", "add", "alice", "--admin", "--no-password", "--data", data]);
    assert!(added.status.success(), "{added:?}");
    for (flags, expected) in [
        (vec![ANYWHERE], &[EVERY_REQUEST][..]),
        (vec![ANYWHERE, PULL], &[EVERY_REQUEST, DOCKER]),
        (vec![ANYWHERE, PULL, &["--public-url", "https://registry.example"]], &[]),
        (vec![ANYWHERE, PULL, &["--trusted-proxy", "10.0.0.2"]], &[]),
        (vec![ANYWHERE, PULL, &["--challenge", "basic"]], &[DOCKER]),
        (vec![ANYWHERE, &["--challenge", "basic"]], &[]),
        // Clients on this machine reach it by a host that needs no proof.
        (vec![PULL], &[]),
    ] {
        let server = Server::start_in(folder.clone(), &flags.concat());
        let lines = server.lines();
        let said: Vec<_> = [EVERY_REQUEST, DOCKER]
            .into_iter()
            .filter(|text| {
                let message = |line: &serde_json::Value| line["message"].as_str().unwrap_or_default().to_owned();
                let found = lines.iter().filter(|line| message(line).starts_with(text));
                let found: Vec<_> = found.map(|line| &line["level"]).collect();
                assert!(found.is_empty() || found == ["WARN"], "once: {lines:?}");
                !found.is_empty()
            })
            .collect();
        assert_eq!(said, expected, "{flags:?}");
    }
}

/// Without users, a proxy on this machine would open the registry to the clients of other hosts.
#[test]
fn s15_a_loopback_address_behind_a_proxy_is_refused_without_authentication() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    for flags in [
        &["--trusted-proxy", "127.0.0.1"][..],
        &["--public-url", "https://registry.example"],
    ] {
        let output = run([&["serve", "--listen", "127.0.0.1:0", "--data", data], flags].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {text}");
        for remedy in [
            "roadstead user add NAME --admin",
            "--allow-anonymous",
            "without --trusted-proxy",
        ] {
            assert!(text.contains(remedy), "{flags:?}: {text}");
        }
    }
    assert!(!folder.path().join("data").exists(), "nothing is made before that");
}

#[test]
fn a_public_url_has_a_scheme_and_no_path() {
    for (url, words) in [
        ("registry.example", "begins with https://"),
        ("https://registry.example/v2/", "without a path"),
        ("https://alice@registry.example", "without a user name"),
        ("https://", "a host name or an address"),
    ] {
        let output = run(["serve", "--public-url", url]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{url}: {text}");
        assert!(text.contains(words), "{url}: {text}");
    }
}
