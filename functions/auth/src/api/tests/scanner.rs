//! Scanners for secrets report keys, and nothing else that this registry gives out.

use super::support::World;
use crate::key::scanner::found_in;

/// Access tokens and the tokens of uploads are never taken for keys, by chance or not: before each dot of an access token is a
/// capital letter among the last four, and the token of an upload has no dot.
#[tokio::test]
async fn scanners_find_keys_and_no_tokens() {
    let world = World::new().await;
    for key in [&world.key.1, &world.scoped_key, &world.robot_key] {
        assert_eq!(found_in(key), Some(key.as_str()));
        assert_eq!(found_in(&format!("password={key}\n")), Some(key.as_str()));
    }
    for number in 0..500 {
        let scope = format!(
            "repository:{}:pull+registry:catalog:*",
            "rsk_a/".repeat(number % 30) + "a"
        );
        let token = world.token(&scope).await;
        assert_eq!(found_in(&token), None, "{token}");
        let parts: Vec<_> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        for part in &parts[..2] {
            let last = &part[part.len() - 4..];
            assert!(last.bytes().any(|byte| byte.is_ascii_uppercase()), "{last}");
        }
    }
    for _ in 0..10 {
        let location = world.upload("rsk_a/b").await;
        assert_eq!(found_in(&location), None, "{location}");
        assert!(!location.contains('.'), "{location}");
    }
}
