//! A server whose keys are in a file of its operator.

use serde_json::json;

use super::support::World;
use crate::accounts::TokenSignerSource;
use crate::signing_key::TokenSigner;

/// The keys of the file are shown, and no request changes anything about keys: the file stays what it is, and the table has
/// no seeds.
#[tokio::test]
async fn the_keys_of_a_file_are_shown_and_not_rotated() {
    let keys = [1, 2].map(|number| TokenSigner::from_seed(&[number; 32]));
    let world = World::with_settings(|settings| settings.signers = TokenSignerSource::File(keys.to_vec()));
    let world = World::new_in(world).await;
    let before = world.administration.state().await.unwrap();
    for body in [json!({}), json!({ "now": true })] {
        let call = world.call("POST", "signing-keys/rotate").user("root");
        let reply = call.json(&body).send().await.expect(409);
        assert!(reply.text.contains("--token-key-file"), "{reply:?}");
    }
    assert_eq!(world.administration.state().await.unwrap(), before);
    assert!(world.administration.signing_keys().await.unwrap().is_empty());
    let shown = world.get("signing-keys").user("audra").send().await.expect(200).json();
    let shown: Vec<_> = shown["items"].as_array().unwrap().iter().collect();
    let found: Vec<_> = shown.iter().map(|key| (&key["kid"], &key["condition"])).collect();
    let kids = keys.map(|key| json!(key.kid().to_string()));
    assert_eq!(found, [(&kids[0], &json!("signing")), (&kids[1], &json!("verifying"))]);
}
