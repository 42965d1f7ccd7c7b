//! Bytes in S3 and names in DynamoDB: several servers that share nothing else, and a registry that moves there.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::cloud::Cloud;
use crate::support::content::push_everything;
use crate::support::{EMPTY, Http1Client, MANIFEST_TYPE, Server, digest, eventually, manifest};

/// Parsing the root certificates of a host takes longer than everything else at a start.
#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn both_stores_share_their_connections() {
    let cloud = Cloud::new();
    let both = cloud.both();
    Cloud::succeed(&both, &["metadata", "init"]);
    let server = Cloud::serve(&both, &["--log-level", "info,connections=debug", "--pull", "proxy"]);
    let blob = server.push_blob("app", EMPTY);
    assert_eq!(
        server.request("GET", &format!("/v2/app/blobs/{blob}"), &[], b"").body,
        EMPTY
    );
    let lines = server.lines();
    let reads = lines.iter().filter(|line| line["target"] == "connections").count();
    assert_eq!(reads, 1, "{}", server.log());
}

/// What a redirect leads to, fetched as any client would.
pub(crate) fn follow(url: &str, range: Option<&str>) -> crate::support::Response {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut client = Http1Client::connect(host.parse().unwrap());
    let range = range.map(|range| format!("Range: {range}\r\n")).unwrap_or_default();
    client.send(format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\n{range}\r\n").as_bytes());
    client.response("GET")
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn three_servers_over_one_bucket_and_table_are_one_registry() {
    let cloud = Cloud::new();
    let both = cloud.both();
    Cloud::succeed(&both, &["metadata", "init"]);
    Cloud::succeed(&both, &["metadata", "init"]);
    let servers: Vec<Server> = (0..3).map(|_| Cloud::serve(&both, &["--pull", "proxy"])).collect();
    for server in &servers {
        assert_eq!(server.request("GET", "/readyz", &[], b"").status, 200);
    }
    let layer = vec![3; 700_000];
    let upload = servers[0].open_upload("app", &[]);
    let patched = servers[1].request("PATCH", &upload, &[], &layer[..300_000]);
    assert_eq!(patched.status, 202, "{patched:?}");
    let location = patched.header("location").unwrap().to_owned();
    let range = ("Content-Range", "300000-699999");
    let patched = servers[2].request("PATCH", &location, &[range], &layer[300_000..]);
    assert_eq!(patched.status, 202, "{patched:?}");
    let finish = format!("{}?digest={}", patched.header("location").unwrap(), digest(&layer));
    assert_eq!(servers[0].request("PUT", &finish, &[], b"").status, 201);
    servers[1].push_blob("app", EMPTY);
    let put = servers[2].request("PUT", "/v2/app/manifests/a", &[MANIFEST_TYPE], &manifest("a"));
    assert_eq!(put.status, 201, "{put:?}");
    for server in &servers {
        let blob = server.request("GET", &format!("/v2/app/blobs/{}", digest(&layer)), &[], b"");
        assert_eq!((blob.status, blob.body == layer), (200, true));
        assert_eq!(
            server.request("GET", "/v2/app/manifests/a", &[], b"").body,
            manifest("a")
        );
        assert!(!server.data().exists(), "nothing is kept on the host");
        assert!(!server.folder.path().join("roadstead-data").exists());
    }
    let listed = Cloud::succeed(&both, &["tag", "list", "app"]);
    assert_eq!(listed, "a\n");
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn blobs_are_redirected_by_rules_and_the_object_store_is_not_asked() {
    let cloud = Cloud::new();
    let both = cloud.both();
    Cloud::succeed(&both, &["metadata", "init"]);
    let rules = "proxy,network=192.0.2.0/24;proxy,repository=inside/**";
    let server = Cloud::serve(
        &both,
        &[
            "--pull",
            "redirect",
            "--pull-rule",
            rules,
            "--trusted-proxy",
            "127.0.0.1",
            "--allow-anonymous",
            "all",
            "--metrics",
            "here",
            "--log-level",
            "trace",
        ],
    );
    let layer: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for repository in ["app", "inside/app"] {
        server.push_blob(repository, &layer);
    }
    let requests = || {
        let metrics = String::from_utf8(server.request("GET", "/metrics", &[], b"").body).unwrap();
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with("roadstead_object_store_requests_total"));
        counts.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let before = requests();
    assert!(!before.is_empty());
    let path = format!("/v2/app/blobs/{}", digest(&layer));
    let answer = server.request("GET", &path, &[], b"");
    assert_eq!(
        (answer.status, answer.header("docker-content-digest")),
        (307, Some(&*digest(&layer)))
    );
    let url = answer.header("location").unwrap();
    let again = server.request("GET", &path, &[], b"");
    assert_eq!(again.header("location"), Some(url), "one URL for one blob, for a while");
    assert_eq!(requests(), before, "nothing was asked");
    let whole = follow(url, None);
    assert_eq!((whole.status, whole.body == layer), (200, true));
    assert_eq!(whole.header("content-type"), Some("application/octet-stream"));
    let part = follow(url, Some("bytes=4-11"));
    assert_eq!((part.status, &part.body[..]), (206, &layer[4..12]));
    assert_eq!(server.request("HEAD", &path, &[], b"").status, 200, "never redirected");

    let by_network = server.request("GET", &path, &[("X-Forwarded-For", "192.0.2.9")], b"");
    assert_eq!((by_network.status, by_network.body == layer), (200, true));
    let by_name = server.request("GET", &format!("/v2/inside/app/blobs/{}", digest(&layer)), &[], b"");
    assert_eq!((by_name.status, by_name.body == layer), (200, true));
    let log = server.log();
    let secret = std::env::var("AWS_SECRET_ACCESS_KEY").unwrap();
    for secret in ["X-Amz-Signature", "x-amz-signature", "Signature=", &secret] {
        assert!(!log.contains(secret), "{secret} is never logged");
    }
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn a_registry_moves_from_one_host_to_the_cloud_and_back() {
    let cloud = Cloud::new();
    let mut old = Server::start(&[]);
    let pushed = push_everything(&old);
    old.signal(rustix::process::Signal::TERM);
    assert!(old.wait().success());
    let (data, file) = (old.data(), old.folder.path().join("export"));
    let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    let here = [String::from("--data"), data.to_owned()];
    Cloud::succeed(&here, &["metadata", "export", "--output", file]);
    Cloud::succeed(&cloud.dynamodb(), &["metadata", "init"]);
    Cloud::succeed(&cloud.both(), &["metadata", "import", file]);
    let (bucket, s3) = (cloud.bucket(), cloud.s3());
    let to = [&here[..], &[String::from("--to"), bucket], &s3[2..]].concat();
    let copied: Value = serde_json::from_str(&Cloud::succeed(&to, &["blobs", "copy", "--json"])).unwrap();
    assert_eq!(copied["failed"], 0, "{copied}");
    let again: Value = serde_json::from_str(&Cloud::succeed(&to, &["blobs", "copy", "--json"])).unwrap();
    assert_eq!((&again["copied"], &again["skipped"]), (&0.into(), &copied["copied"]));
    let both = cloud.both();
    Cloud::succeed(&both, &["fsck", "--hash"]);
    pushed.is_all_there(&Cloud::serve(&both, &["--pull", "proxy"]));

    // And back, to another folder.
    let folder = TempDir::new().unwrap();
    let back = folder.path().join("data");
    let back = back.to_str().unwrap();
    let second = folder.path().join("export");
    let second = second.to_str().unwrap();
    Cloud::succeed(&both, &["metadata", "export", "--output", second]);
    let there = [String::from("--data"), back.to_owned()];
    Cloud::succeed(&there, &["metadata", "import", second]);
    Cloud::succeed(&both, &["blobs", "copy", "--to", &format!("disk:{back}")]);
    Cloud::succeed(&there, &["fsck", "--hash"]);
    let server = Server::start_on(Arc::new(folder), &["--data", &there[1]], &[]);
    pushed.is_all_there(&server);
    assert_eq!(records(file), records(second), "not a record has changed on the way");
}

/// The records of an export in an order of their own.
fn records(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(file)).unwrap();
    let mut records: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("{\"export\""))
        .map(ToOwned::to_owned)
        .collect();
    records.sort();
    records
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn deleted_content_is_collected_and_missing_content_is_found() {
    let cloud = Cloud::new();
    let both = cloud.both();
    Cloud::succeed(&both, &["metadata", "init"]);
    let server = Cloud::serve(&both, &["--pull", "proxy"]);
    let pushed = push_everything(&server);
    let before = cloud.objects();
    let layer = vec![8; 6 << 20];
    server.push_blob("removed", &layer);
    assert!(cloud.objects().len() > before.len());
    let path = format!("/v2/removed/blobs/{}", digest(&layer));
    assert_eq!(server.request("DELETE", &path, &[], b"").status, 202);
    Cloud::succeed(&both, &["collect"]);
    assert!(cloud.objects().len() > before.len(), "a day's grace");
    eventually("all passes that it takes", || {
        Cloud::succeed(&both, &["collect", "--grace", "1ms", "--json"]);
        (cloud.objects() == before).then_some(())
    });
    pushed.is_all_there(&server);
    Cloud::succeed(&both, &["fsck", "--hash"]);

    let size = i64::try_from(pushed.layer().len()).unwrap();
    let (key, _) = before.iter().find(|(_, found)| **found == size).unwrap();
    cloud.remove(key);
    let output = Cloud::run(&both, &["fsck"]);
    let reported = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{reported}");
    assert!(
        reported.contains("object missing") && reported.contains(&digest(pushed.layer())),
        "{reported}"
    );
}

/// The other two ways to choose stores.
#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn each_store_goes_with_each() {
    let cloud = Cloud::new();
    Cloud::succeed(&cloud.dynamodb(), &["metadata", "init"]);
    let folder = TempDir::new().unwrap();
    for (name, stores) in [("bytes in s3", cloud.s3()), ("names in dynamodb", cloud.dynamodb())] {
        let data = folder.path().join(name);
        let stores = [stores, vec!["--data".into(), data.to_str().unwrap().into()]].concat();
        let server = Cloud::serve(&stores, &["--pull", "proxy"]);
        let pushed = push_everything(&server);
        pushed.is_all_there(&server);
        Cloud::succeed(&stores, &["fsck", "--hash"]);
        let has_names = data.join("metadata.db").exists();
        assert_eq!(has_names, name == "bytes in s3", "{name}");
    }
}

#[test]
#[ignore = "needs ROADSTEAD_TEST_S3 and ROADSTEAD_TEST_DYNAMODB"]
fn a_missing_table_is_reported_with_a_remedy() {
    let cloud = Cloud::new();
    let output = Cloud::run(&cloud.both(), &["serve", "--listen", "127.0.0.1:0", "--log", "text"]);
    assert_eq!(output.status.code(), Some(1));
    let reported = String::from_utf8_lossy(&output.stderr);
    assert!(reported.contains("roadstead metadata init"), "{reported}");
}
