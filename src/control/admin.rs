//! The admin face: what an operator, Prometheus or a load balancer in front may ask. It answers
//! questions and changes nothing; the answers are made by control's own loop. Whoever keeps it
//! waiting is dropped for the sake of the next one.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::page;

/// The paths there are, to answer a request for any other.
const PATHS: [&str; 5] = ["/metrics", "/ready", "/live", "/pools", "/config"];

/// Connections at a time. One more ends the oldest: a silent client must not keep others out.
const CONNECTIONS_MAX: usize = 128;

/// The whole head of a request, and the silence before it.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// A client that takes nothing of its answer for so long is reset.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// After a failed accept.
const AGAIN: Duration = Duration::from_millis(50);

/// One question, with the way its answer goes back.
#[derive(Debug)]
pub struct Ask {
    pub what: What,
    pub reply: oneshot::Sender<Answer>,
}

/// What the admin face was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Metrics,
    Ready,
    Pools,
    Config,
}

/// What control says to that.
#[derive(Debug)]
pub enum Answer {
    Text(String),
    Json(Value),
    /// As JSON, with 503: not now.
    Unready(Value),
}

type Asks = mpsc::Sender<Ask>;

/// Binds and begins to answer. Must run inside control's runtime.
pub async fn start(address: SocketAddr, asks: Asks) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    if !bound.ip().is_loopback() {
        tracing::warn!(
            address = %bound,
            "the admin face is bound to more than loopback: it has no password, so keep it \
             behind a firewall"
        );
    }
    let router = Router::new()
        .route("/metrics", get(|asks| ask(asks, What::Metrics)))
        .route("/ready", get(|asks| ask(asks, What::Ready)))
        .route("/live", get(|| async { axum::Json(json!({ "live": true })) }))
        .route("/pools", get(|asks| ask(asks, What::Pools)))
        .route("/config", get(|asks| ask(asks, What::Config)))
        .fallback(unknown)
        .method_not_allowed_fallback(only_get)
        .with_state(asks);
    tokio::spawn(accept(listener, router));
    Ok(bound)
}

async fn accept(listener: TcpListener, router: Router) {
    let mut connections: VecDeque<JoinHandle<()>> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // It concerns one client, or passes when descriptors are back.
            sleep(AGAIN).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= CONNECTIONS_MAX
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        connections.push_back(tokio::spawn(serve(stream, router.clone())));
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(TAKEN_WITHIN));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // How it ends is the client's affair.
    let _ = connection.await;
}

async fn ask(State(asks): State<Asks>, what: What) -> Response {
    let (reply, answer) = oneshot::channel();
    if asks.send(Ask { what, reply }).await.is_err() {
        return ending();
    }
    match answer.await {
        Ok(Answer::Text(text)) => {
            ([(header::CONTENT_TYPE, page::CONTENT_TYPE)], text).into_response()
        }
        Ok(Answer::Json(value)) => axum::Json(value).into_response(),
        Ok(Answer::Unready(value)) => {
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(value)).into_response()
        }
        Err(_) => ending(),
    }
}

fn ending() -> Response {
    fault(StatusCode::SERVICE_UNAVAILABLE, "the process is ending")
}

async fn unknown(uri: Uri) -> Response {
    let body = json!({ "error": format!("no such path: {}", uri.path()), "paths": PATHS });
    (StatusCode::NOT_FOUND, axum::Json(body)).into_response()
}

async fn only_get() -> Response {
    fault(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here")
}

fn fault(status: StatusCode, what: &str) -> Response {
    (status, axum::Json(json!({ "error": what }))).into_response()
}
