//! The audit trail, where a page cannot be read.

use super::support::World;

/// Only a position that no page has named is the client's fault.
#[tokio::test]
async fn a_trail_that_fails_is_no_wrong_position() {
    let world = World::new().await;
    let status = async |path: &str| world.get(path).user("audra").send().await.status;
    let page = world.get("audit?n=1").user("audra").send().await.expect(200).json();
    let next = page["next"].as_str().unwrap();
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    let next = format!("audit?n=1&after={next}");
    for (is_broken, path, expected) in [
        (false, next.as_str(), 200),
        (false, "audit?after=nowhere", 400),
        (true, "audit", 500),
        (true, &next, 500),
        (true, "audit?after=nowhere", 500),
        (false, "audit?after=nowhere", 400),
    ] {
        world.trail.set(is_broken);
        assert_eq!(status(path).await, expected, "{path}");
    }
}
