//! What holds for clients that send a password with each request holds for tokens of users and of robots.

use oci::{Algorithm, Digest, MediaType};
use registry::store::access::PolicyForm;
use serde_json::json;

use super::pages::has_at_most_a_thousand;
use super::support::{PASSWORD, World};
use crate::administration::Author;
use crate::administration::policies::{MadeFrom, NewPolicy};

/// Everyone with a login may do everything in `team`.
const POLICY: &str = r#"{"syntax":1,"allow":[{"name":"team","who":["signed-in"],"repositories":["team/**"],"actions":["pull","push","delete"]}]}"#;

const DAY: u64 = 24 * 3_600_000;

/// A registry with that policy.
pub(super) async fn world() -> World {
    world_in(World::empty()).await
}

/// The same in an empty registry.
async fn world_in(empty: World) -> World {
    let world = World::new_in(empty).await;
    let policy = NewPolicy {
        form: PolicyForm::Json,
        source: POLICY.to_owned(),
        note: None,
        made_from: MadeFrom::Any,
    };
    world
        .administration
        .set_policy(&Author::operator(), &policy)
        .await
        .unwrap();
    world
}

/// A token for two repositories, of the user `alice` and of the robot `ci`.
pub(super) async fn tokens(world: &World) -> [String; 2] {
    let scope = |repository: &str| format!("repository:{repository}:pull,push,delete");
    tokens_for(world, &format!("{}&scope={}", scope("team/app"), scope("team/other"))).await
}

/// A token for a scope, of each of the two.
async fn tokens_for(world: &World, scope: &str) -> [String; 2] {
    let target = format!("/token?scope={scope}");
    let mut tokens = Vec::new();
    for (name, secret) in [("alice", PASSWORD), ("ci", &world.robot_key)] {
        let reply = world
            .request("GET", &target)
            .basic(name, secret)
            .send()
            .await
            .expect(200);
        tokens.push(reply.json()["token"].as_str().unwrap().to_owned());
    }
    tokens.try_into().unwrap()
}

/// The statuses of everything that can be done with the location of an upload.
async fn use_upload(world: &World, location: &str, token: &str) -> Vec<u16> {
    let digest = Digest::of(Algorithm::Sha256, b"");
    let mut statuses = Vec::new();
    for (method, target) in [
        ("GET", location.to_owned()),
        ("PATCH", location.to_owned()),
        ("PUT", format!("{location}?digest={digest}")),
        ("DELETE", location.to_owned()),
    ] {
        statuses.push(world.request(method, &target).bearer(token).send().await.status);
    }
    statuses
}

/// An upload belongs to one principal in one repository, however the principal has logged in.
#[tokio::test]
async fn s09_an_upload_is_of_the_principal_of_a_token() {
    let world = world().await;
    let [alice, ci] = tokens(&world).await;
    for (own, other) in [(&alice, &ci), (&ci, &alice)] {
        let open = world.request("POST", "/v2/team/app/blobs/uploads/").bearer(own);
        let location = open.send().await.expect(202).header("location").unwrap().to_owned();
        assert_eq!(use_upload(&world, &location, other).await, [403; 4]);
        let elsewhere = location.replace("team/app", "team/other");
        assert_eq!(use_upload(&world, &elsewhere, own).await, [404; 4]);
        // Without credentials, and with those that are not good any more, the token of the upload counts.
        world.request("GET", &location).send().await.expect(204);
        world
            .request("GET", &location)
            .bearer("expired")
            .send()
            .await
            .expect(204);
        let digest = Digest::of(Algorithm::Sha256, b"");
        let finish = world.request("PUT", &format!("{location}?digest={digest}")).bearer(own);
        finish.send().await.expect(201);
    }
}

/// An upload that has ended, or is too old, takes nothing more. Its last request can be repeated.
#[tokio::test]
async fn s09_an_upload_ends_for_bearers() {
    let world = world().await;
    for number in 0..2 {
        let of = async || tokens(&world).await[number].clone();
        let other = tokens(&world).await[1 - number].clone();
        let token = of().await;
        let open = async || {
            let call = world.request("POST", "/v2/team/app/blobs/uploads/").bearer(&token);
            call.send().await.expect(202).header("location").unwrap().to_owned()
        };
        let (finished, left) = (open().await, open().await);
        let put = |digest: Digest| world.request("PUT", &format!("{finished}?digest={digest}"));
        let [empty, another] = [&b""[..], b"x"].map(|bytes| Digest::of(Algorithm::Sha256, bytes));
        put(empty).bearer(&token).send().await.expect(201);
        // The third is the repeated last request.
        assert_eq!(use_upload(&world, &finished, &token).await, [404, 404, 201, 404]);
        assert_eq!(use_upload(&world, &finished, &other).await, [403; 4]);
        put(another).bearer(&token).send().await.expect(404);

        world.clock.pass(DAY - 1);
        let token = of().await;
        world.request("GET", &left).bearer(&token).send().await.expect(204);
        put(empty).bearer(&token).send().await.expect(201);
        world.clock.pass(1);
        assert_eq!(use_upload(&world, &left, &token).await, [404; 4]);
        assert_eq!(use_upload(&world, &finished, &token).await, [404; 4]);
    }
}

/// A token of an upload that was changed is not one.
#[tokio::test]
async fn s10_tokens_of_uploads_are_verified_for_bearers() {
    let world = world().await;
    for token in tokens(&world).await {
        let open = world.request("POST", "/v2/team/app/blobs/uploads/").bearer(&token);
        let location = open.send().await.expect(202).header("location").unwrap().to_owned();
        let (path, upload) = location.rsplit_once('/').unwrap();
        let first = if upload.starts_with('A') { "B" } else { "A" };
        for changed in [
            format!("{first}{}", &upload[1..]),
            upload[1..].to_owned(),
            format!("{upload}A"),
            token.clone(),
        ] {
            let statuses = use_upload(&world, &format!("{path}/{changed}"), &token).await;
            assert_eq!(statuses, [404; 4], "{changed}");
        }
        // And the token of an upload is no access token.
        let list = world.request("GET", "/v2/team/app/tags/list").bearer(upload);
        list.send().await.expect(401);
    }
}

/// Two digests of the same bytes are two blobs.
#[tokio::test]
async fn s26_digests_are_no_aliases_for_bearers() {
    let world = world().await;
    let [short, long] = [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| Digest::of(algorithm, b"bytes"));
    for (token, repository) in tokens(&world).await.iter().zip(["team/app", "team/other"]) {
        let push = async |digest: Digest| {
            let call = world.request("POST", &format!("/v2/{repository}/blobs/uploads/?digest={digest}"));
            let call = call.bearer(token).bytes("application/octet-stream", b"bytes".to_vec());
            call.send().await.expect(201);
        };
        let status = async |method: &str, digest: Digest| {
            let call = world.request(method, &format!("/v2/{repository}/blobs/{digest}"));
            call.bearer(token).send().await.status
        };
        push(short).await;
        assert_eq!((status("GET", short).await, status("GET", long).await), (200, 404));
        push(long).await;
        assert_eq!(status("DELETE", short).await, 202);
        assert_eq!((status("GET", short).await, status("GET", long).await), (404, 200));
    }
}

/// The same bytes under two digests: what is collected under one of them stays complete under the other.
#[tokio::test]
async fn s26_aliases_are_collected_apart_for_bearers() {
    let bytes = b"the same bytes";
    let [short, long] = [Algorithm::Sha256, Algorithm::Sha512].map(|algorithm| Digest::of(algorithm, bytes));
    for number in 0..2 {
        for (kept, gone) in [(short, long), (long, short)] {
            let world = world().await;
            let token = &tokens(&world).await[number];
            let config = Digest::of(Algorithm::Sha256, b"{}");
            for (digest, bytes) in [(short, &bytes[..]), (long, bytes), (config, b"{}")] {
                let call = world.request("POST", &format!("/v2/team/app/blobs/uploads/?digest={digest}"));
                let call = call.bearer(token).bytes("application/octet-stream", bytes.to_vec());
                call.send().await.expect(201);
            }
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MediaType::OCI_MANIFEST,
                "config": { "mediaType": MediaType::OCI_CONFIG, "digest": config, "size": 2 },
                "layers": [{ "mediaType": MediaType::OCI_LAYER, "digest": kept, "size": bytes.len() }],
            });
            let put = world.request("PUT", "/v2/team/app/manifests/t").bearer(token);
            put.text(MediaType::OCI_MANIFEST, manifest.to_string())
                .send()
                .await
                .expect(201);
            for (digest, status) in [(kept, 405), (gone, 202)] {
                let delete = world.request("DELETE", &format!("/v2/team/app/blobs/{digest}"));
                delete.bearer(token).send().await.expect(status);
            }
            world.collect_all().await;
            let token = &tokens(&world).await[number];
            let get = |digest: Digest| {
                let call = world.request("GET", &format!("/v2/team/app/blobs/{digest}"));
                call.bearer(token).send()
            };
            get(gone).await.expect(404);
            assert_eq!(get(kept).await.expect(200).text.as_bytes(), bytes);
        }
    }
}

/// No page has more than 1,000 items, whatever a client asks for.
#[tokio::test]
async fn s06_no_list_of_a_bearer_has_more_than_a_thousand_items() {
    let world = world().await;
    for number in 0..1_003 {
        world.put("team/app", &[&format!("t{number}")], 1).await;
        world.put(&format!("team/x{number}"), &[], 1).await;
    }
    let referrers = format!("/v2/team/app/referrers/{}", World::digest(1));
    for token in tokens_for(&world, "registry:catalog:*&scope=repository:team/app:pull").await {
        for (list, items) in [
            ("/v2/team/app/tags/list", "tags"),
            ("/v2/_catalog", "repositories"),
            (referrers.as_str(), "manifests"),
        ] {
            for (n, status) in [
                ("99999999999999999999999999", 400),
                ("2147483648", 400),
                ("-1", 400),
                ("", 400),
                ("many", 400),
                ("1,2", 400),
                ("2147483647", 200),
                ("1001", 200),
            ] {
                let call = world.request("GET", &format!("{list}?n={n}")).bearer(&token);
                let reply = call.send().await.expect(status);
                if status == 200 {
                    let expected = if items == "manifests" { 0 } else { 1_000 };
                    assert_eq!(reply.json()[items].as_array().unwrap().len(), expected, "{list} {n}");
                }
            }
        }
    }
    for token in tokens_for(&world, "registry:api:*").await {
        for list in ["repositories", "tags?repository=team/app"] {
            has_at_most_a_thousand(&world, list, Some(&token)).await;
        }
    }
}

/// A client follows a redirect with what the answer contains. It contains neither the token nor whose it is, and asks for no
/// credentials.
#[tokio::test]
async fn s28_no_token_is_in_a_redirect() {
    let world = world_in(World::redirecting()).await;
    for (token, principal) in tokens(&world).await.iter().zip(["alice", "robot:ci"]) {
        let digest = Digest::of(Algorithm::Sha256, principal.as_bytes());
        let push = world.request("POST", &format!("/v2/team/app/blobs/uploads/?digest={digest}"));
        let push = push.bearer(token).bytes("application/octet-stream", principal.into());
        push.send().await.expect(201);
        let pull = world.request("GET", &format!("/v2/team/app/blobs/{digest}"));
        let reply = pull.bearer(token).send().await.expect(307);
        let url = reply.header("location").unwrap();
        assert!(url.starts_with("https://objects.example/bucket/"), "{url}");
        let everything = format!("{:?} {}", reply.headers, reply.text).to_lowercase();
        let signature = token.rsplit('.').next().unwrap();
        for secret in [
            token.as_str(),
            signature,
            &world.robot_key,
            principal,
            "authorization",
            "bearer",
        ] {
            assert!(!everything.contains(&secret.to_lowercase()), "{everything}");
        }
        for name in ["www-authenticate", "set-cookie"] {
            assert_eq!(reply.header(name), None);
        }
    }
}
