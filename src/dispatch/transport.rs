//! How a request gets out: real HTTP in `serve`, a script in tests on paused time.

use async_trait::async_trait;

use crate::delivery::{Attempt, DeliveryId, EventHead, Request};
use crate::endpoint::Endpoint;
use crate::send::Sender;

/// Makes one attempt. What happens is data, never an error.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends `request` to `endpoint` as attempt `number` of the delivery.
    async fn attempt(
        &self,
        endpoint: &Endpoint,
        delivery: &DeliveryId,
        event: &EventHead,
        subscription: &str,
        number: u32,
        request: &Request,
    ) -> Attempt;
}

#[async_trait]
impl Transport for Sender {
    async fn attempt(
        &self,
        endpoint: &Endpoint,
        delivery: &DeliveryId,
        event: &EventHead,
        subscription: &str,
        number: u32,
        request: &Request,
    ) -> Attempt {
        Self::attempt(self, endpoint, delivery, event, subscription, number, request).await
    }
}
