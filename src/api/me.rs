//! Who is asking: what tools show to the people who have given them a key.

use axum::{Json as Body, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    apps::{self, KeyView},
    auth::Caller,
    problem::{self, Problem, Result},
};
use crate::domain::id::{AppId, kind};

/// Who is asking.
#[derive(Serialize, ToSchema)]
#[serde(tag = "caller", rename_all = "lowercase")]
pub enum Me {
    /// The holder of the operator key.
    Operator {
        /// In whose stead, if `Reveille-App` names one.
        app: Option<NamedApp>,
    },
    /// The holder of an app key.
    App {
        /// Whose key it is.
        app: NamedApp,
        key: KeyView,
    },
}

/// An app by its id and name.
#[derive(Serialize, ToSchema)]
pub struct NamedApp {
    #[schema(value_type = kind::App)]
    id: AppId,
    /// For people.
    name: String,
}

/// Tells who is asking
#[utoipa::path(get, path = "/v1/me", operation_id = "whoAmI", tag = "service", security(("operatorKey" = []), ("appKey" = [])),
    responses((status = 200, description = "The key and its app", body = Me)))]
pub async fn show(State(api): State<Api>, caller: Caller) -> Result<Body<Me>> {
    let named = async |app| apps::known(&api, app).await.map(|app| NamedApp { id: app.id, name: app.name });
    Ok(Body(match caller {
        Caller::Operator(None) => Me::Operator { app: None },
        Caller::Operator(Some(app)) => Me::Operator { app: Some(named(app).await?) },
        Caller::Key(holder) => {
            let key = api.store.key(holder.app, holder.key).await?.ok_or_else(|| Problem::not_found("key"))?;
            Me::App { app: named(holder.app).await?, key: key.into() }
        }
        Caller::Device(_) => {
            return Err(Problem::new(problem::FORBIDDEN, "this route takes the operator key or an app key"));
        }
    }))
}
