//! The description of the API (OpenAPI 3.1.0). Handlers describe themselves; here is what goes for all of them.

use serde_json::{Map, Value, json};
use utoipa::openapi::{
    ComponentsBuilder, ContactBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder,
    security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    tag::TagBuilder,
};

use super::{
    credentials::CredentialName,
    operations::{ErasableFeed, UserName},
    problem::{self, KINDS, Kind, ProblemDocument},
    stats::Seconds,
};
use crate::domain::limits;

/// What routes are about, in the order in which people read.
const TAGS: &[(&str, &str)] = &[
    ("events", "What backends tell: appended to feeds, made durable, then announced by pushes that carry no state."),
    ("devices", "Who is woken: registered by backends for their signed-in users."),
    ("polling", "What phones ask for. Pushes are hints; the poll is the truth."),
    ("credentials", "What the relay shows to Apple and Google."),
    ("what happened", "Every call, every decision with its reason, and what pushes were worth."),
    ("operator", "Apps and their keys."),
    ("service", "The relay's own."),
];

/// What the description begins with.
pub fn frame() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Reveille")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .contact(Some(ContactBuilder::new().name(Some("Reveille")).build()))
        .license(Some(License::builder().name("Apache-2.0").identifier(Some("Apache-2.0")).build()));
    let bearer = |says: &str| {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(says.to_owned());
        SecurityScheme::Http(scheme)
    };
    let components = ComponentsBuilder::new()
        .schema_from::<ProblemDocument>()
        // Those that only paths and queries name are not found by themselves.
        .schema_from::<CredentialName>()
        .schema_from::<ErasableFeed>()
        .schema_from::<UserName>()
        .schema_from::<Seconds>()
        .security_scheme("operatorKey", bearer("The operator's key: apps and keys. With `Reveille-App: app_…` it stands for that app's key with all scopes."))
        .security_scheme("appKey", bearer("`rk_…`, a backend's key; the scopes that a route takes are named there, and `admin` is all of them."))
        .security_scheme("deviceToken", bearer("`dt_…`, one device's key to its own polls."))
        .security_scheme("ticket", SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::with_description("ticket", "`tk_…`, from `POST /v1/sync/ticket`: once, in 30 seconds."))));
    let tags = TAGS.iter().map(|(name, says)| TagBuilder::new().name(*name).description(Some(*says)).build());
    OpenApiBuilder::new().info(info).components(Some(components.build())).tags(Some(tags)).build()
}

const ABOUT: &str = "Reveille is a push relay for the backends of mobile apps. A backend appends events to feeds; devices follow feeds; each \
device that has something new gets one small push that carries no state; the app then polls, and so tells that it is awake.\n\n\
All bodies are JSON, all times RFC 3339 UTC, all ids TypeIDs. Errors are problem documents (RFC 9457). A foreign or unknown object is 404, \
never 403. Unknown fields and query parameters are refused.";

/// The description with what goes for all routes: problems, their examples, headers.
pub fn complete(description: OpenApi) -> Value {
    let mut document = serde_json::to_value(description).unwrap_or_default();
    let paths = document.get_mut("paths").and_then(Value::as_object_mut);
    for item in paths.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        for (_, operation) in item.iter_mut().filter(|(_, operation)| operation.get("responses").is_some()) {
            complete_operation(operation);
        }
    }
    document["components"]["responses"] = problems();
    document["components"]["headers"] = headers();
    document["components"]["parameters"] = json!({"Reveille-App": {
        "name": "Reveille-App", "in": "header", "required": false, "schema": {"type": "string"},
        "description": "With the operator key: the app in whose stead it asks, `app_…`. Other keys' is ignored.",
    }});
    // An operation on a key needs the key (JSON Schema 2020-12, validation §6.5.4), which a derived schema cannot say.
    document["components"]["schemas"]["EventDraft"]["dependentRequired"] = json!({"op": ["key"]});
    document
}

/// Adds the problems that a route can answer by what it takes.
fn complete_operation(operation: &mut Value) {
    let is_closed = operation.get("security").is_some();
    let schemes = operation.get("security").and_then(Value::as_array);
    let takes_app_key = schemes.is_some_and(|schemes| schemes.iter().any(|scheme| scheme.get("appKey").is_some()));
    let places = |place: &str| {
        let parameters = operation.get("parameters").and_then(Value::as_array);
        parameters.is_some_and(|all| all.iter().any(|parameter| parameter["in"] == place))
    };
    let (has_path, has_query, has_header) = (places("path"), places("query"), places("header"));
    let has_body = operation.get("requestBody").is_some();
    let all = [
        (has_body, vec![413]),
        (has_body || has_query, vec![400]),
        (is_closed, vec![401, 403, 429]),
        // The app or the device may be gone by now.
        (is_closed || has_path, vec![404]),
        (has_body || has_query || has_header || has_path, vec![422]),
        (true, vec![500, 503]),
    ];
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for status in all.into_iter().filter(|(applies, _)| *applies).flat_map(|(_, statuses)| statuses) {
        let reference = json!({"$ref": format!("#/components/responses/{status}")});
        responses.entry(status.to_string()).or_insert(reference);
    }
    for response in responses.values_mut().filter(|response| response.get("$ref").is_none()) {
        let headers = response.get_mut("headers").and_then(Value::as_object_mut);
        for header in headers.into_iter().flat_map(Map::values_mut) {
            header["required"] = (!strip_null(&mut header["schema"])).into();
        }
        response["headers"]["X-Request-Id"] = json!({"$ref": "#/components/headers/X-Request-Id"});
    }
    let mut parameters = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    for parameter in &mut parameters {
        strip_null(&mut parameter["schema"]);
    }
    if takes_app_key {
        let operators = json!({"operatorKey": []});
        let schemes = operation.get_mut("security").and_then(Value::as_array_mut);
        if let Some(schemes) = schemes.filter(|schemes| !schemes.contains(&operators)) {
            schemes.push(operators);
        }
        parameters.push(json!({"$ref": "#/components/parameters/Reveille-App"}));
    }
    operation["parameters"] = parameters.into();
}

/// What is optional in a header or a query is left out: there is no null. Answers whether it was there.
fn strip_null(schema: &mut Value) -> bool {
    if let Some([Value::String(kind), Value::String(null)]) = schema["type"].as_array().map(Vec::as_slice)
        && null == "null"
    {
        schema["type"] = kind.as_str().into();
        return true;
    }
    if let Some([other, null]) = schema["oneOf"].as_array().map(Vec::as_slice)
        && *null == json!({"type": "null"})
    {
        *schema = other.clone();
        return true;
    }
    false
}

fn headers() -> Value {
    let integer = |says: &str| json!({"description": says, "schema": {"type": "integer", "minimum": 0}});
    json!({
        "X-Request-Id": {
            "description": "The request's own, if it brought one of at most 128 printable characters; the log has it.",
            "schema": {"type": "string", "maxLength": 128},
            "required": true,
        },
        "Retry-After": integer("In how many seconds to try again."),
    })
}

/// One response for each status, with an example of each kind of problem that has it.
fn problems() -> Value {
    let mut responses: Map<String, Value> = Map::new();
    for kind in KINDS {
        let entry = responses.entry(kind.status.as_u16().to_string());
        let response = entry.or_insert_with(|| {
            json!({
                "description": "",
                "headers": {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}},
                "content": {"application/problem+json": {
                    "schema": {"$ref": "#/components/schemas/Problem"}, "examples": {},
                }},
            })
        });
        response["content"]["application/problem+json"]["examples"][kind.slug] =
            json!({"summary": kind.title, "description": kind.help, "value": example(kind)});
        let told = response["description"].as_str().unwrap_or_default().to_owned();
        let and = if told.is_empty() { "" } else { "; " };
        response["description"] = format!("{told}{and}`{}`: {}", kind.slug, kind.title).into();
        if matches!(kind.status.as_u16(), 429 | 503) {
            response["headers"]["Retry-After"] = json!({"$ref": "#/components/headers/Retry-After"});
        }
    }
    responses.into()
}

fn example(kind: &Kind) -> Value {
    let mut shown = json!({
        "type": format!("/problems/{}", kind.slug), "title": kind.title, "status": kind.status.as_u16(), "detail": kind.title,
    });
    if *kind == problem::INVALID {
        shown["detail"] = "/feed: a feed name starts with a letter or digit, \"!\" does not".into();
        shown["errors"] =
            json!([{"pointer": "/feed", "detail": "a feed name starts with a letter or digit, \"!\" does not"}]);
    } else if *kind == problem::TOO_LARGE {
        let (limit, actual) = (limits::BODY_BYTES, limits::BODY_BYTES + 1);
        shown["detail"] = format!("a request body has at most {limit} bytes, this one has {actual}").into();
        (shown["limit"], shown["actual"]) = (limit.into(), actual.into());
    }
    shown
}
