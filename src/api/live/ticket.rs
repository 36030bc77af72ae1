//! One-time tickets, for what cannot send an `Authorization` header: a browser's EventSource and WebSocket.

use axum::{
    Json as Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{Api, auth, problem::Result},
    domain::time::Timestamp,
    store::Poller,
};

/// A ticket for one connection.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
pub struct TicketView {
    /// To be sent as `?ticket=`, once.
    #[schema(pattern = "^tk_")]
    ticket: String,
    /// Until when it is good.
    expires_at: Timestamp,
}

/// Makes a ticket for one connection
///
/// Good once, for 30 seconds, and for this device only. For clients that cannot send headers; whoever can sends the token.
#[utoipa::path(post, path = "/v1/sync/ticket", operation_id = "makeTicket", tag = "polling", security(("deviceToken" = [])),
    responses((status = 201, description = "The ticket", body = TicketView,
        headers(("Cache-Control" = String, description = "`no-store`")))))]
pub async fn make(State(api): State<Api>, poller: Poller, headers: axum::http::HeaderMap) -> Result<Response> {
    api.limiters.poll(poller.device)?;
    let token = auth::token_hash(&headers).ok_or_else(auth::ended)?;
    let (ticket, expires_at) = api.store.issue_ticket(poller.app, poller.device, &token).await?;
    let ticket = TicketView { ticket: ticket.expose_secret().to_owned(), expires_at };
    let no_store = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, no_store, Body(ticket)).into_response())
}
