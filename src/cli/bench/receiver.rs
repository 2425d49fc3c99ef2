//! The endpoint: answers 200 at once and counts. A GET is answered with the count.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::cli::Error;

/// How often the count is asked for.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Receives until it is killed.
pub async fn run(port: u16) -> Result<(), Error> {
    let failed = |error| Error::Failed(format!("the receiver can't listen: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(failed)?;
    let count = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let count = Arc::clone(&count);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let count = Arc::clone(&count);
                async move {
                    if request.method() == Method::GET {
                        let text = count.load(Ordering::Relaxed).to_string();
                        return Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))));
                    }
                    if request.into_body().collect().await.is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(Response::new(Full::new(Bytes::new())))
                }
            });
            // A connection that breaks is the sender's to notice.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Waits until the receiver on `port` has counted `count` events; more than that is an error.
pub async fn wait_for_count(port: u16, count: u64) -> Result<(), Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Failed(format!("the receiver can't be asked: {error}"));
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let uri: http::Uri = format!("http://127.0.0.1:{port}/").parse().map_err(|error| failed(&error))?;
    loop {
        let response = client.get(uri.clone()).await.map_err(|error| failed(&error))?;
        let body = response.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
        let counted: u64 = String::from_utf8_lossy(&body).parse().map_err(|error| failed(&error))?;
        if counted > count {
            return Err(Error::Failed(format!("{counted} events arrived, {count} were sent")));
        }
        if counted == count {
            return Ok(());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}
