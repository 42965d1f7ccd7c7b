//! One request and its answer: where a connection calls the core.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use registry::auth::{Forwarded, UrlScheme};
use registry::budget::ClientKey;
use registry::{Client, DoorRefusal, Overload, Registry, RequestRecord, ResponseBody};
use tokio_util::task::TaskTracker;

use crate::access_log::Entry;
use crate::connections::ConnectionSlot;
use crate::metrics::{Measured, Metrics};
use crate::requests::{self, RequestSlots};
use crate::tls::TlsFiles;
use crate::transport::{Activity, Buffers, Exchange, SentBody, Timeouts, receive};
use shell::client_address::TrustedProxies;
use shell::edge::{Edge, EdgeClient, NotFromEdge};
use shell::health::{self, Health};
use shell::run_to_end::RunToEnd;

/// Answers the requests of all connections.
pub(crate) struct Service {
    pub(crate) registry: Arc<Registry>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether `/metrics` is answered here.
    pub(crate) shows_metrics: bool,
    pub(crate) proxies: TrustedProxies,
    pub(crate) timeouts: Timeouts,
    pub(crate) slots: RequestSlots,
    pub(crate) buffers: Buffers,
    /// The certificate and its key; `None` without TLS.
    pub(crate) tls: Option<TlsFiles>,
    /// The edge through which all clients come; `None`: there is none.
    pub(crate) edge: Option<Arc<Edge>>,
    /// Tracks the operations that must run to their end. The server waits for all of them.
    pub(crate) work: TaskTracker,
}

/// How a request has reached the server.
struct Arrival {
    /// The address that has opened the connection.
    peer: SocketAddr,
    /// The address of the client. `None`: it is not known.
    client: Option<IpAddr>,
    /// What the edge or a trusted proxy says about the URL that the client has used.
    forwarded: Option<Forwarded>,
}

impl Arrival {
    /// The address to which the request is charged.
    fn charged(&self) -> IpAddr {
        self.client.unwrap_or(self.peer.ip())
    }
}

/// Why a request gets no slot.
enum Refused {
    Door(DoorRefusal),
    Overload(Overload),
}

impl Refused {
    fn answer(self) -> Response<ResponseBody> {
        match self {
            Self::Door(refusal) => refusal.answer(),
            Self::Overload(overload) => overload.answer(),
        }
    }
}

impl Service {
    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Answers one request. The slot for the request is taken in this call, and not when the future is polled first,
    /// because a request that waits for its first poll already holds its head.
    pub(crate) fn exchange(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        activity: Arc<Activity>,
        admission: ConnectionSlot,
        peer: SocketAddr,
    ) -> impl Future<Output = Result<Response<SentBody>, Infallible>> + Send {
        let exchange = activity.begin();
        let arrival = self.arrival(&mut request, peer);
        let arrival = arrival.map_err(|refusal| (Refused::Door(refusal), peer.ip()));
        let taken = arrival.and_then(|arrival| {
            let client = arrival.charged();
            let slot = self.slots.take(ClientKey::of(client), &request);
            slot.map(|slot| (arrival, slot))
                .ok_or((Refused::Overload(Overload::Requests), client))
        });
        let with_slot = match taken {
            Ok((arrival, mut slot)) => {
                if !slot.is_for_health() {
                    exchange.activity().found_slot();
                }
                slot.condense(&mut request);
                Ok((request, arrival, Arc::new(slot)))
            }
            Err((refused, client)) => {
                exchange.activity().found_no_slot();
                Err((requests::essence(&request), request.into_body(), client, refused))
            }
        };
        async move {
            Ok(match with_slot {
                Ok((request, arrival, slot)) => {
                    self.answer(request, exchange.occupying(slot), admission, arrival).await
                }
                Err((request, incoming, client, refused)) => self.refuse(&request, incoming, exchange, client, refused),
            })
        }
    }

    /// How a request has reached the server. Fails if it does not come from the edge. Health checks come from elsewhere.
    fn arrival(&self, request: &mut Request<Incoming>, peer: SocketAddr) -> Result<Arrival, DoorRefusal> {
        let edge = self.edge.as_ref();
        let Some(edge) = edge.filter(|_| !health::is_asked(request.uri().path())) else {
            return Ok(Arrival {
                peer,
                client: self.proxies.client(peer, request.headers()),
                forwarded: self.proxies.forwarded(peer, request.headers()),
            });
        };
        let admitted = edge.admit(request);
        let EdgeClient { address, forwarded } = admitted.map_err(|NotFromEdge| DoorRefusal::NotFromEdge)?;
        Ok(Arrival {
            peer,
            client: address,
            forwarded: Some(forwarded),
        })
    }

    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        exchange: Exchange,
        admission: ConnectionSlot,
        arrival: Arrival,
    ) -> Response<SentBody> {
        let charged = arrival.charged();
        if let Some(client) = arrival.client {
            request.extensions_mut().insert(Client(client));
        }
        if let Some(forwarded) = arrival.forwarded {
            request.extensions_mut().insert(forwarded);
        }
        if self.tls.is_some() {
            request.extensions_mut().insert(UrlScheme::Https);
        }
        let mut measured = Measured::begin(self.metrics.clone(), request.method(), request.uri().path());
        let mut entry = Entry::begin(&request, charged);
        let timeouts = self.timeouts;
        let response = if admission.has_slot() || health::is_asked(request.uri().path()) || admission.wait().await {
            self.handle(request, &exchange).await
        } else {
            no_slot(exchange.activity())
        };
        let record = response.extensions().get::<RequestRecord>();
        measured.answered(response.status(), record);
        if let Some(entry) = &mut entry {
            entry.answered(response.status(), record);
        }
        response.map(|body| SentBody::new(body, exchange, &timeouts, measured, entry))
    }

    /// Answers a request that gets no slot. Only these parts of it were kept.
    fn refuse(
        &self,
        request: &Request<()>,
        incoming: Incoming,
        exchange: Exchange,
        client: IpAddr,
        refused: Refused,
    ) -> Response<SentBody> {
        let activity = exchange.activity();
        let (body, leftover) = receive(
            incoming,
            activity.is_multiplexed(),
            &self.timeouts,
            self.metrics.clone(),
        );
        drop(body);
        if let Some(leftover) = leftover {
            leftover.discard(activity, request.headers().contains_key(EXPECT));
        }
        let mut measured = Measured::begin(self.metrics.clone(), request.method(), request.uri().path());
        let mut entry = Entry::begin(request, client);
        let response = refused.answer();
        measured.answered(response.status(), Some(&RequestRecord::default()));
        if let Some(entry) = &mut entry {
            entry.answered(response.status(), None);
        }
        response.map(|body| SentBody::new(body, exchange, &self.timeouts, measured, entry))
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>, exchange: &Exchange) -> Response<ResponseBody> {
        let activity = exchange.activity();
        let awaited = request.headers().contains_key(EXPECT);
        let (head, incoming) = request.into_parts();
        let (body, leftover) = receive(
            incoming,
            activity.is_multiplexed(),
            &self.timeouts,
            self.metrics.clone(),
        );
        let reads = head.method == Method::GET || head.method == Method::HEAD;
        let response = if let Some(response) = self.health.answer(&head.method, &head.uri).await {
            drop(body);
            response
        } else if self.shows_metrics && head.uri.path() == "/metrics" {
            drop(body);
            match self.registry.refuse(&head) {
                Some(refusal) => refusal,
                None => self.metrics.answer(&head.method),
            }
        } else if reads {
            self.registry.handle(Request::from_parts(head, body)).await
        } else {
            // The operation holds its slot as long as it runs, even if its client has gone.
            let (work, slot) = (self.work.token(), exchange.slot());
            RunToEnd::new(async move {
                let response = self.registry.handle(Request::from_parts(head, body)).await;
                drop((work, slot));
                response
            })
            .await
        };
        if let Some(leftover) = leftover {
            leftover.discard(activity, awaited);
        }
        response
    }
}

/// The answer to a request on a connection that has not got a slot.
fn no_slot(activity: &Activity) -> Response<ResponseBody> {
    let mut response = Overload::Connections.answer();
    if !activity.is_multiplexed() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
