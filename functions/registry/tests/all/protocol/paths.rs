//! Paths: names that contain words of the protocol, and malicious paths.

use http::{Method, Uri};
use registry::Endpoint;
use serde_json::json;

use crate::support::content::{artifact, bytes_of};
use crate::support::{World, sha256};

/// Every endpoint works for repositories with the names of endpoints.
#[tokio::test]
async fn names_made_of_the_words_of_the_protocol() {
    let world = World::new().await;
    let longest = format!("a/{}", "b".repeat(253));
    for name in [
        "blobs",
        "manifests",
        "tags",
        "uploads",
        "referrers",
        "v2",
        "list",
        "a/blobs",
        "a/manifests",
        "a/tags",
        "a/uploads",
        "a/referrers",
        "a/blobs/uploads",
        "blobs/uploads",
        "a/manifests/latest",
        "a/tags/list",
        "tags/list",
        "a/referrers/b",
        "manifests/manifests/manifests",
        "blobs/uploads/blobs/uploads",
        "v2/a/blobs/uploads",
        &longest,
    ] {
        let digest = world.push_blob(name, "one").await;
        assert_eq!(world.blob(name, &digest).await.unwrap(), "one");
        let location = world.open_upload(name).await;
        let location = world.patch(location).bytes("two").send().await.expect(202).location();
        world.get(location.clone()).send().await.expect(204);
        world
            .put(format!("{location}?digest={}", sha256(b"two")))
            .send()
            .await
            .expect(201);
        world.delete(world.open_upload(name).await).send().await.expect(204);
        for tag in ["latest", "blobs", "uploads", "manifests", "tags", "list"] {
            let image = world.push_image(name, tag, "app").await;
            let by_tag = world
                .get(format!("/v2/{name}/manifests/{tag}"))
                .send()
                .await
                .expect(200);
            assert_eq!(by_tag.body, image.manifest);
            let by_digest = format!("/v2/{name}/manifests/{}", image.digest);
            assert_eq!(world.get(by_digest).send().await.expect(200).body, image.manifest);
        }
        let image = world.push_image(name, "latest", "app").await;
        world.push_blob(name, "{}").await;
        let signature = bytes_of(&artifact("application/x.sign", &image.manifest));
        world.put_manifest(name, "sig", signature).await.expect(201);
        let referrers = world
            .get(format!("/v2/{name}/referrers/{}", image.digest))
            .send()
            .await
            .expect(200);
        assert_eq!(referrers.json()["manifests"].as_array().unwrap().len(), 1);
        let tags = world.get(format!("/v2/{name}/tags/list")).send().await.expect(200);
        assert_eq!(tags.json()["name"], name);
        assert_eq!(tags.json()["tags"].as_array().unwrap().len(), 7);
        world
            .delete(format!("/v2/{name}/manifests/latest"))
            .send()
            .await
            .expect(202);
        world
            .delete(format!("/v2/{name}/blobs/{digest}"))
            .send()
            .await
            .expect(202);
    }
    let catalog = world.get("/v2/_catalog").send().await.expect(200);
    assert_eq!(catalog.json()["repositories"].as_array().unwrap().len(), 22);
}

#[tokio::test]
async fn names_and_paths_that_are_refused() {
    let world = World::new().await;
    let digest = world.push_blob("a/b", "one").await;
    world.push_image("a/b", "latest", "app").await;
    let too_long = format!("/v2/{}/tags/list", "a".repeat(256));
    let much_too_long = format!("/v2/{}/tags/list", "a/".repeat(4000));
    for (target, status, code) in [
        ("//", 404, "UNSUPPORTED"),
        ("/%2F", 404, "UNSUPPORTED"),
        ("/index.html", 404, "UNSUPPORTED"),
        ("/v1/", 404, "UNSUPPORTED"),
        ("/v2x/", 404, "UNSUPPORTED"),
        ("/V2/", 404, "UNSUPPORTED"),
        ("//v2/", 404, "UNSUPPORTED"),
        ("/v2//", 404, "UNSUPPORTED"),
        ("/v2/a", 404, "UNSUPPORTED"),
        ("/v2/_catalog//", 404, "UNSUPPORTED"),
        ("/v2/a/b/tags/list//", 404, "UNSUPPORTED"),
        ("/v2/a/b/manifests/latest/", 404, "UNSUPPORTED"),
        ("/v2/a/b/referrers/x/", 404, "UNSUPPORTED"),
        ("/v2/a/b/blobs/x/", 404, "UNSUPPORTED"),
        ("/v2/a/b/blobs/uploads//", 404, "UNSUPPORTED"),
        ("/v2/a/b/tags/", 404, "UNSUPPORTED"),
        ("/v2/a/b/tags", 404, "UNSUPPORTED"),
        ("/v2/tags/list", 400, "NAME_INVALID"),
        ("/v2//tags/list", 400, "NAME_INVALID"),
        ("/v2/a//b/tags/list", 400, "NAME_INVALID"),
        ("/v2//a/b/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/b//tags/list", 400, "NAME_INVALID"),
        ("/v2/a/../b/tags/list", 400, "NAME_INVALID"),
        ("/v2/../v2/a/b/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/./b/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/%2e%2e/a/b/tags/list", 400, "NAME_INVALID"),
        // An encoded slash is decoded once. The resulting path is checked like any other path.
        ("/v2/a%2f/b/tags/list", 400, "NAME_INVALID"),
        ("/v2/%2Fa/b/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%2F..%2Fa/b/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%2F%2e%2e%2fa/b/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%2F.%2Fb/tags/list", 400, "NAME_INVALID"),
        ("/v2%2F..%2Fv2/a/b/tags/list", 400, "NAME_INVALID"),
        ("/..%2Fv2/a/b/tags/list", 404, "UNSUPPORTED"),
        ("/v2/a%252fb/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%252Fb/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%25252Fb/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%c0%afb/tags/list", 404, "UNSUPPORTED"),
        ("/v2/a%EF%BC%8Fb/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%5cb/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%00/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%0a/tags/list", 400, "NAME_INVALID"),
        ("/v2/a%20b/tags/list", 400, "NAME_INVALID"),
        ("/v2/A/B/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/-b/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/b-/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/b___c/tags/list", 400, "NAME_INVALID"),
        ("/v2/%C3%A9/tags/list", 400, "NAME_INVALID"),
        ("/v2/%EF%BD%81/tags/list", 400, "NAME_INVALID"),
        ("/v2/%ff/tags/list", 404, "UNSUPPORTED"),
        ("/v2/a/b/manifests/", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/b/manifests/..", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/b/manifests/%2e%2e", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/b/manifests/lat%65st/x", 404, "UNSUPPORTED"),
        ("/v2/a/b/manifests/la%2ftest", 404, "UNSUPPORTED"),
        ("/v2/a/b/manifests/%00", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/b/manifests/-latest", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/b/manifests/sha256:1", 400, "DIGEST_INVALID"),
        ("/v2/a/b/manifests/sha256:../../etc/passwd", 404, "UNSUPPORTED"),
        ("/v2/a/b/blobs/", 400, "DIGEST_INVALID"),
        ("/v2/a/b/blobs/latest", 400, "DIGEST_INVALID"),
        ("/v2/a/b/blobs/sha256:..%2f..%2fx", 404, "UNSUPPORTED"),
        ("/v2/a/b/blobs/sha256:..%252f..%252fx", 400, "DIGEST_INVALID"),
        ("/v2/a/b/referrers/", 400, "DIGEST_INVALID"),
        ("/v2/a/b/referrers/latest", 400, "DIGEST_INVALID"),
        ("/v2/a/b/blobs/uploads/nonsense", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/b/blobs/uploads/%2e%2e", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/b/blobs/uploads/a%2fb", 404, "UNSUPPORTED"),
        (&too_long, 400, "NAME_INVALID"),
        (&much_too_long, 400, "NAME_INVALID"),
    ] {
        world.get(target).send().await.expect_error(status, code);
        // It is a fault of the client for every method.
        for method in [
            "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW",
        ] {
            let answer = world.call(method.parse().unwrap(), target).send().await;
            assert!(
                matches!(answer.status, 400 | 404 | 405),
                "{method} {target}: {}",
                answer.status
            );
        }
    }
    assert_eq!(world.blob("a/b", &digest).await.unwrap(), "one", "nothing has changed");
}

/// Escaped characters that need no escape change nothing.
#[tokio::test]
async fn encoded_letters_are_letters() {
    let world = World::new().await;
    let image = world.push_image("a/b", "latest", "app").await;
    let encoded = image.digest.to_string().replace(':', "%3A");
    for target in [
        "/v2/%61/%62/manifests/latest".to_owned(),
        "/v2/a/b/manifests/l%61test".to_owned(),
        "/v2/a/b/%6danifests/latest".to_owned(),
        format!("/v2/a/b/manifests/{encoded}"),
    ] {
        assert_eq!(world.get(target).send().await.expect(200).body, image.manifest);
    }
}

/// Clients that escape the whole name of a repository (as Portainer does) reach every endpoint of it.
#[tokio::test]
async fn an_encoded_slash_is_a_slash() {
    let world = World::new().await;
    let image = world.push_image("a/b/c", "latest", "app").await;
    for name in ["a%2Fb%2Fc", "a%2fb/c", "a/b%2Fc", "%61%2f%62%2F%63"] {
        let v2 = format!("/v2/{name}");
        let manifest = world.get(format!("{v2}/manifests/latest")).send().await.expect(200);
        assert_eq!(manifest.body, image.manifest);
        let blob = format!("{v2}/blobs/{}", image.layer);
        assert_eq!(world.get(blob.clone()).send().await.expect(200).body, "layer of app");
        let tags = world.get(format!("{v2}/tags/list")).send().await.expect(200);
        assert_eq!(tags.json(), json!({ "name": "a/b/c", "tags": ["latest"] }));
        let referrers = format!("{v2}/referrers/{}", image.digest);
        world.get(referrers).send().await.expect(200);
        // Later URLs contain the name without escapes.
        let opened = world.post(format!("{v2}/blobs/uploads/")).send().await.expect(202);
        let location = opened.location();
        assert!(location.starts_with("/v2/a/b/c/blobs/uploads/"), "{location}");
        let encoded = location.replace("/v2/a/b/c/", &format!("{v2}/"));
        let put = world.put(format!("{encoded}?digest={}", sha256(b"two"))).bytes("two");
        let stored = put.send().await.expect(201);
        assert_eq!(stored.location(), format!("/v2/a/b/c/blobs/{}", sha256(b"two")));
    }
    // The whole path escaped: it has the same meaning as without escapes.
    let whole = world.get("/v2%2Fa%2Fb%2Fc%2Fmanifests%2Flatest").send().await;
    assert_eq!(whole.expect(200).body, image.manifest);
    let from = format!("/v2/a/blobs/uploads/?mount={}&from=a%2Fb%2Fc", image.layer);
    world.post(from).send().await.expect(201);
    assert_eq!(
        world.get("/v2/_catalog").send().await.expect(200).json(),
        json!({ "repositories": ["a/b/c"] })
    );
}

/// distribution v3 redirects these to the list itself.
#[tokio::test]
async fn a_slash_at_the_end_of_a_list() {
    let world = World::new().await;
    for tag in ["one", "two"] {
        world.push_image("a/b", tag, "app").await;
    }
    for (list, body) in [
        ("/v2/_catalog", json!({ "repositories": ["a/b"] })),
        ("/v2/a/b/tags/list", json!({ "name": "a/b", "tags": ["one", "two"] })),
    ] {
        for target in [
            list.to_owned(),
            format!("{list}/"),
            format!("{list}%2F"),
            format!("{list}/?n=1000"),
        ] {
            assert_eq!(
                world.get(target.clone()).send().await.expect(200).json(),
                body,
                "{target}"
            );
            world.head(target).send().await.expect(200);
        }
    }
    let page = world.get("/v2/a/b/tags/list/?n=1").send().await.expect(200);
    assert_eq!(page.next().as_deref(), Some("/v2/a/b/tags/list?n=1&last=one"));
}

/// It loads nothing either, and repeats nothing of the request.
#[tokio::test]
async fn s19_the_page_for_people_runs_nothing() {
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let world = World::new().await;
    world.push_image("secret/name", "latest", "app").await;
    for (accept, content_type) in [
        (None, "text/plain; charset=utf-8"),
        (Some("*/*"), "text/plain; charset=utf-8"),
        (Some("application/json"), "text/plain; charset=utf-8"),
        (Some("text/htmlx"), "text/plain; charset=utf-8"),
        (Some(BROWSER), "text/html; charset=utf-8"),
        (Some("application/xml, Text/HTML;q=0.5"), "text/html; charset=utf-8"),
    ] {
        for (method, target) in [("GET", "/"), ("HEAD", "/"), ("GET", "/?x=<script>")] {
            let mut call = world.call(method.parse().unwrap(), target.replace('<', "%3C").replace('>', "%3E"));
            call = call.header("host", "evil.example").header("cookie", "a=b");
            if let Some(accept) = accept {
                call = call.header("accept", accept);
            }
            let answer = call.send().await.expect(200);
            assert_eq!(answer.header("content-type"), content_type, "{accept:?}");
            assert!(
                answer
                    .header("content-security-policy")
                    .starts_with("default-src 'none';")
            );
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.header("vary"), "accept");
            assert_eq!(answer.record.endpoint, Some(Endpoint::Home));
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            if method == "GET" {
                assert!(
                    text.contains("container registry") && text.contains("docker push "),
                    "{text}"
                );
            }
            for word in ["script", "evil", "secret", "style", "http:", "https:"] {
                assert!(!text.contains(word), "{word}: {text}");
            }
        }
    }
    for method in ["PUT", "POST", "PATCH", "DELETE", "OPTIONS"] {
        let refused = world.call(method.parse().unwrap(), "/").send().await.expect(405);
        assert_eq!(refused.header("allow"), "GET, HEAD");
    }
}

/// Targets that are not a path, and bytes that are not ASCII.
#[tokio::test]
async fn odd_targets() {
    let world = World::new().await;
    for (bytes, [get, options, put]) in [
        ("*".as_bytes(), [404, 404, 404]),
        (b"example.com:443", [404, 404, 404]),
        (b"http://example.com/x", [404, 404, 404]),
        (b"http://other.example/v2/a/tags/list", [404, 405, 405]),
        ("/v2/\u{e9}/tags/list".as_bytes(), [400, 400, 400]),
        ("/v2/a\u{2215}b/tags/list".as_bytes(), [400, 400, 400]),
    ] {
        let uri = Uri::try_from(bytes).unwrap();
        for (method, status) in [(Method::GET, get), (Method::OPTIONS, options), (Method::PUT, put)] {
            let call = world.call(method.clone(), String::from_utf8_lossy(bytes));
            let answer = call.send_to(uri.clone()).await;
            assert_eq!(answer.status, status, "{method} {uri}");
        }
    }
    // Invalid targets never reach a registry.
    for bytes in [
        &b"/v2/a/tags/list?\xff\xfe"[..],
        b"/v2/a\0/tags/list",
        b"/v2/a b/tags/list",
        b"",
        b"/v2/\x7f",
    ] {
        assert!(Uri::try_from(bytes).is_err(), "{bytes:?}");
    }
}

#[tokio::test]
async fn methods() {
    let world = World::new().await;
    let digest = sha256(b"");
    let token = world.open_upload("a").await;
    for (target, allowed) in [
        ("/", "GET, HEAD"),
        ("/v2/", "GET, HEAD"),
        ("/v2", "GET, HEAD"),
        ("/v2/_catalog", "GET, HEAD"),
        ("/v2/_catalog/", "GET, HEAD"),
        ("/v2/a/tags/list", "GET, HEAD"),
        ("/v2/a/tags/list/", "GET, HEAD"),
        (&format!("/v2/a/referrers/{digest}"), "GET, HEAD"),
        (&format!("/v2/a/blobs/{digest}"), "GET, HEAD, DELETE"),
        ("/v2/a/manifests/latest", "GET, HEAD, PUT, DELETE"),
        ("/v2/a/blobs/uploads/", "POST"),
        (&token, "GET, HEAD, PATCH, PUT, DELETE"),
    ] {
        for method in ["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "get"] {
            let answer = world.call(method.parse().unwrap(), target).send().await;
            if allowed.split(", ").any(|other| other == method) {
                assert_ne!(answer.status, 405, "{method} {target}");
            } else {
                assert_eq!(answer.status, 405, "{method} {target}");
                assert_eq!(answer.header("allow"), allowed);
            }
        }
    }
}

#[tokio::test]
async fn base() {
    let world = World::new().await;
    for target in ["/v2/", "/v2"] {
        let answer = world.get(target).send().await.expect(200);
        assert_eq!(answer.body, "{}");
        assert_eq!(answer.header("content-type"), "application/json");
        let answer = world.head(target).send().await.expect(200);
        assert_eq!(answer.header("content-length"), "2");
    }
}
