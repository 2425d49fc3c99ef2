//! The demo's endpoints: three that take everything, one that answers 500 twice and then recovers, one that never does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::cli::Error;

/// How often the warehouse fails before it recovers.
const WAREHOUSE_FAILURES: u32 = 2;

/// A running receiver. It ends with the runtime.
pub struct Receiver {
    address: SocketAddr,
    secret: String,
}

impl Receiver {
    /// Listens on a free port of loopback.
    pub async fn start() -> Result<Self, Error> {
        let failed = |error| Error::Failed(format!("the receiver can't listen: {error}"));
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let warehouse = Arc::new(AtomicU32::new(0));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let warehouse = Arc::clone(&warehouse);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, Arc::clone(&warehouse)));
                    // A connection that breaks is the router's to notice.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { address, secret: format!("whsec_{}", STANDARD.encode(random_bytes()?)) })
    }

    /// The variables that `config/demo.toml` names.
    pub fn variables(&self) -> HashMap<String, String> {
        let mut variables = HashMap::from([("DEMO_WAREHOUSE_SECRET".to_owned(), self.secret.clone())]);
        for name in ["slack", "discord", "sendgrid", "warehouse", "legacy-crm"] {
            let variable = format!("DEMO_{}_URL", name.replace('-', "_").to_uppercase());
            variables.insert(variable, format!("http://{}/{name}", self.address));
        }
        variables
    }
}

async fn answer(request: Request<Incoming>, warehouse: Arc<AtomicU32>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    // Read to its end so that the connection can be used again; what it says does not matter here.
    let _ = body.collect().await;
    let status = match parts.uri.path() {
        "/slack" | "/discord" | "/sendgrid" => StatusCode::OK,
        "/warehouse" if warehouse.fetch_add(1, Ordering::Relaxed) >= WAREHOUSE_FAILURES => StatusCode::OK,
        "/warehouse" | "/legacy-crm" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::NOT_FOUND,
    };
    let mut response = Response::new(Full::new(Bytes::from_static(b"demo")));
    *response.status_mut() = status;
    Ok(response)
}

/// A key nobody can guess, for this run only.
pub fn random_text() -> Result<String, Error> {
    Ok(random_bytes()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random_bytes() -> Result<[u8; 24], Error> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| Error::Failed(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}
