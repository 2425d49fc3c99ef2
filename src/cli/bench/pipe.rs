//! The bare pipe: accept a request, POST its body on, answer when that is answered. No store, no routing, no plugin.

use std::convert::Infallible;

use futures_util::future::try_join_all;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::cli::Error;

/// Why a request could not be passed on.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Forwards until it is killed, each request so many times.
pub async fn run(port: u16, receiver: u16, copies: usize) -> Result<(), Error> {
    let onward = Onward::to(receiver);
    serve(port, move |body: Bytes| {
        let onward = onward.clone();
        async move { try_join_all((0..copies).map(|_| onward.post(body.clone()))).await.map(drop) }
    })
    .await
}

/// Answers requests with 202 once `take` has taken their bodies, until it is killed.
pub async fn serve<Take, Taking>(port: u16, take: Take) -> Result<(), Error>
where
    Take: Fn(Bytes) -> Taking + Clone + Send + 'static,
    Taking: Future<Output = Result<(), Failure>> + Send,
{
    let failed = |error| Error::Failed(format!("the pipe can't listen: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(failed)?;
    loop {
        let (stream, _) = listener.accept().await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let take = take.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let take = take.clone();
                async move {
                    let taken = match request.into_body().collect().await {
                        Ok(body) => take(body.to_bytes()).await,
                        Err(error) => Err(error.into()),
                    };
                    let mut response = Response::new(Full::new(Bytes::from_static(b"{\"status\":\"accepted\"}")));
                    *response.status_mut() = if taken.is_ok() { StatusCode::ACCEPTED } else { StatusCode::BAD_GATEWAY };
                    Ok::<_, Infallible>(response)
                }
            });
            // A connection that breaks is the producer's to notice.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The way to the receiver.
#[derive(Clone)]
pub struct Onward {
    client: Client<HttpConnector, Full<Bytes>>,
    target: String,
}

impl Onward {
    /// To the receiver on this port.
    pub fn to(receiver: u16) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, target: format!("http://127.0.0.1:{receiver}/") }
    }

    /// POSTs a body and reads the answer.
    pub async fn post(&self, body: Bytes) -> Result<(), Failure> {
        let request = Request::post(&self.target).header("content-type", "application/json").body(Full::new(body))?;
        let response = self.client.request(request).await?;
        let success = response.status().is_success();
        response.into_body().collect().await?;
        if success { Ok(()) } else { Err("the receiver refused".into()) }
    }
}
