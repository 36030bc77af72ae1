//! What every handler reads: strict JSON bodies, strict queries, ids from the path.

use std::fmt::Display;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::error::Category;
use utoipa::{IntoParams, ToSchema};

use super::problem::{self, Problem, Result};
use crate::domain::{Invalid, limits};

/// A raw body within the limit.
pub struct Raw(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let too_large = |actual: Option<usize>| {
            let more = actual.map_or_else(|| "more".to_owned(), |bytes| bytes.to_string());
            let detail = format!("a request body has at most {} bytes, this one has {more}", limits::BODY_BYTES);
            Problem::new(problem::TOO_LARGE, detail).with("limit", limits::BODY_BYTES).with("actual", actual)
        };
        let announced =
            request.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > limits::BODY_BYTES) {
            return Err(too_large(announced));
        }
        let body: Body = request.into_body();
        to_bytes(body, limits::BODY_BYTES).await.map(Self).map_err(|_| too_large(None))
    }
}

/// A body of strict JSON.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let Raw(body) = Raw::from_request(request, state).await?;
        parse(&body).map(Self)
    }
}

/// Reads strict JSON; a wrong value is named by its pointer.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| json_problem(&error))?;
    let trailing = |error: serde_json::Error| Problem::new(problem::MALFORMED, error.to_string());
    deserializer.end().map_err(trailing)?;
    Ok(value)
}

/// Bad syntax is malformed, anything else is a value that is not allowed.
pub fn json_problem(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let inner = error.inner();
    if matches!(inner.classify(), Category::Syntax | Category::Eof | Category::Io) {
        return Problem::new(problem::MALFORMED, inner.to_string());
    }
    let mut pointer = String::new();
    for segment in error.path() {
        use serde_path_to_error::Segment;
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { variant } => pointer.push_str(&format!("/{variant}")),
            Segment::Unknown => {}
        }
    }
    let message = inner.to_string();
    let detail = message.rsplit_once(" at line ").map_or(message.as_str(), |(detail, _)| detail).to_owned();
    for kind in ["unknown field `", "missing field `"] {
        let name = detail.strip_prefix(kind).and_then(|rest| rest.split('`').next());
        if let Some(name) = name.filter(|name| !pointer.ends_with(&format!("/{name}"))) {
            pointer.push_str(&format!("/{name}"));
        }
    }
    vec![Invalid::new(pointer, detail)].into()
}

/// A strict query: unknown and malformed parameters are refused by name.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        if parts.uri.query().is_some_and(has_nul) {
            return Err(Problem::new(problem::INVALID, "query: the character U+0000 is in no value"));
        }
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let detail = rejection.body_text();
                let detail = detail.strip_prefix("Failed to deserialize query string: ").unwrap_or(&detail);
                Err(Problem::new(problem::INVALID, format!("query: {detail}")))
            }
        }
    }
}

/// Whether an escaped U+0000 is in a part of a URI. PostgreSQL's text cannot hold it, so nothing has it in its name.
fn has_nul(part: &str) -> bool {
    part.contains("%00")
}

/// One part of the path, parsed; one that cannot be is an object that does not exist.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        if has_nul(parts.uri.path()) {
            return Err(Problem::not_found("object"));
        }
        let path = <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value)).map_err(|rejection| no_such_object(&rejection.body_text()))
    }
}

/// Nothing is called as the path says. Where a part of it is one of a few words, they are named.
fn no_such_object(why: &str) -> Problem {
    let unknown = why.split_once("unknown variant ").and_then(|(_, words)| words.rsplit_once(", expected "));
    match unknown {
        Some((given, few)) => {
            Problem::new(problem::NOT_FOUND, format!("there is no such object: {given} should be {few}"))
        }
        None => Problem::not_found("object"),
    }
}

/// `?cursor=&limit=` of every list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
    /// How many items the page has at most.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// A list's page size.
pub const LIST_DEFAULT: usize = 100;

impl ListQuery {
    /// Where the page begins, and how many it has.
    pub fn page(self) -> Result<(String, usize)> {
        self.page_of(LIST_DEFAULT)
    }

    /// As [`Self::page`], with another size where the query does not say.
    pub fn page_of(self, default: usize) -> Result<(String, usize)> {
        Ok((self.cursor.unwrap_or_default(), limit(self.limit, default)?))
    }
}

/// A `limit` within its bounds.
pub fn limit(given: Option<usize>, default: usize) -> Result<usize> {
    match given {
        None => Ok(default),
        Some(limit) if (1..=limits::PAGE_EVENTS).contains(&limit) => Ok(limit),
        Some(limit) => {
            let detail = format!("query: limit must be 1 to {}, is {limit}", limits::PAGE_EVENTS);
            Err(Problem::new(problem::INVALID, detail))
        }
    }
}

/// The answer to a list's `cursor` that does not lead there.
pub fn wrong_cursor() -> Problem {
    Problem::new(problem::CURSOR_INVALID, "the cursor is not one of this list")
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<String>,
}

/// A page of a list: `next` is the last item's place if the page is full.
pub fn list<T, V, I: Display>(
    items: Vec<T>,
    limit: usize,
    place: impl Fn(&T) -> I,
    show: impl FnMut(T) -> V,
) -> axum::Json<List<V>> {
    let next = items.last().filter(|_| items.len() == limit).map(|item| place(item).to_string());
    axum::Json(List { items: items.into_iter().map(show).collect(), next })
}

/// All that there is, on one page.
pub fn whole<V>(items: impl IntoIterator<Item = V>) -> axum::Json<List<V>> {
    axum::Json(List { items: items.into_iter().collect(), next: None })
}

/// The value of a header, if it is there and readable.
pub fn header<'a>(parts: &'a axum::http::HeaderMap, name: &str) -> Option<&'a str> {
    parts.get(name)?.to_str().ok()
}
