//! Tokens of one principal share the rules that the policy has for it.

use super::support::{PASSWORD, World, basic, bearer, login, token};

#[tokio::test]
async fn many_tokens_of_one_principal_keep_its_rules_once() {
    let (world, _) = World::new().await;
    world.put(world.user("bob")).await;
    let instance = world.instance();
    for (user, sizes) in [("alice", (3, 1)), ("bob", (6, 2))] {
        for repository in ["a", "b", "c"] {
            let scope = format!("repository:{repository}:pull");
            let token = token(&instance, &basic(user, PASSWORD), &scope).await;
            for _ in 0..2 {
                assert_eq!(login(&instance, &bearer(&token)).await, user);
            }
        }
        assert_eq!(instance.tokens.sizes(), sizes, "{user}");
    }
}
