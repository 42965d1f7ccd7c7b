//! What holds for clients that send a password with each request holds for tokens of users and of robots.

use oci::{Algorithm, Digest};
use registry::store::access::PolicyForm;

use super::support::{PASSWORD, World};
use crate::administration::Author;
use crate::administration::policies::{MadeFrom, NewPolicy};

/// Everyone with a login may do everything in `team`.
const POLICY: &str = r#"{"syntax":1,"allow":[{"name":"team","who":["signed-in"],"repositories":["team/**"],"actions":["pull","push","delete"]}]}"#;

/// A registry with that policy.
async fn world() -> World {
    let world = World::new().await;
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
async fn tokens(world: &World) -> [String; 2] {
    let scope = |repository: &str| format!("repository:{repository}:pull,push,delete");
    let target = format!("/token?scope={}&scope={}", scope("team/app"), scope("team/other"));
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
