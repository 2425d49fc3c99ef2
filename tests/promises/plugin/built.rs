//! The shipped plugins run their fixtures in the router's own sandbox, where they have been built.

#[tokio::test(flavor = "multi_thread")]
async fn probe() {}
