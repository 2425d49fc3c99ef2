//! The bare pipe: accept a request, POST its body on, answer when that is answered. No store, no routing, no plugin.

use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::cli::Error;

/// Forwards until it is killed.
pub async fn run(port: u16, receiver: u16) -> Result<(), Error> {
    let failed = |error| Error::Failed(format!("the pipe can't listen: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(failed)?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector);
    let target = format!("http://127.0.0.1:{receiver}/");
    loop {
        let (stream, _) = listener.accept().await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (client, target) = (client.clone(), target.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let (client, target) = (client.clone(), target.clone());
                async move {
                    let status = match forward(&client, &target, request).await {
                        Ok(()) => StatusCode::ACCEPTED,
                        Err(_) => StatusCode::BAD_GATEWAY,
                    };
                    let mut response = Response::new(Full::new(Bytes::from_static(b"{\"status\":\"accepted\"}")));
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            });
            // A connection that breaks is the producer's to notice.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn forward(
    client: &Client<HttpConnector, Full<Bytes>>,
    target: &str,
    request: Request<Incoming>,
) -> Result<(), Failure> {
    let body = request.into_body().collect().await?.to_bytes();
    let onward = Request::post(target).header("content-type", "application/json").body(Full::new(body))?;
    let response = client.request(onward).await?;
    let success = response.status().is_success();
    response.into_body().collect().await?;
    if success { Ok(()) } else { Err("the receiver refused".into()) }
}
