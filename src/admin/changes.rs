//! What operators change: nodes of the pool and their shares, and the moves that follow.
//!
//! Every change is answered when it is recorded; what it moves goes on from there (`GET /v1/ring`).

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::{Admin, Unavailable, views};
use crate::config::{NodeAddress, Secret};
use crate::mover::view::{Plan, Status, plan, status};
use crate::pool::table::Table;
use crate::pool::{ChangeError, NewNode, ShareChange};
use crate::shared::Shared;
use crate::verify::Report;

/// Whether a change is made, or only what it would move is told.
#[derive(Deserialize)]
pub(super) struct DryRun {
    #[serde(default)]
    dry_run: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for DryRun {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let asked = Query::<Self>::try_from_uri(&parts.uri);
        asked.map(|Query(dry)| dry).map_err(|_| {
            Failure::invalid(
                "what stands behind the \"?\" is not understood: only dry_run=true, or dry_run=false"
                    .to_owned(),
            )
        })
    }
}

/// A node to be added.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeBody {
    name: String,
    address: String,
    #[serde(default = "one")]
    weight: u32,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
}

/// A node's new share.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareBody {
    #[serde(default)]
    weight: Option<u32>,
    /// `null` is a zone of its own; left out, it stays.
    #[serde(default, deserialize_with = "given")]
    zone: Option<Option<String>>,
    #[serde(default)]
    draining: Option<bool>,
}

/// A JSON body; what is wrong with it is told as any other error.
pub(super) struct Body<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = axum::body::Bytes::from_request(request, state).await;
        let bytes = bytes.map_err(|error| Failure::invalid(error.to_string()))?;
        let parsed = serde_json::from_slice(&bytes);
        // Serde's own words may repeat a password that stands in the wrong place.
        parsed.map(Self).map_err(|error| {
            Failure::invalid(format!(
                "the body is not the JSON that is expected here (line {}, column {}): see docs/OPERATIONS.md",
                error.line(),
                error.column()
            ))
        })
    }
}

/// A page in somebody's browser on this host can send requests here, too, but none that says to be JSON.
pub(super) async fn only_on_purpose(request: Request, next: Next) -> Response {
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if request.method() == Method::GET || request.method() == Method::HEAD || is_json {
        return next.run(request).await;
    }
    let failure = Failure {
        status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
        error: "a change needs the header \"Content-Type: application/json\", also where it has no body"
            .into(),
    };
    failure.into_response()
}

/// Why something was not done.
pub(super) struct Failure {
    status: StatusCode,
    error: String,
}

impl Failure {
    fn invalid(error: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({"error": self.error}))).into_response()
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        let status = match &error {
            ChangeError::NoSuchNode(_) => StatusCode::NOT_FOUND,
            ChangeError::Conflict(_) => StatusCode::CONFLICT,
            ChangeError::Invalid(_) => StatusCode::BAD_REQUEST,
            ChangeError::NotRecorded => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self {
            status,
            error: error.to_string(),
        }
    }
}

impl From<Unavailable> for Failure {
    fn from(Unavailable { status, error }: Unavailable) -> Self {
        Self { status, error }
    }
}

type Answer<T> = Result<T, Failure>;

/// `POST /v1/nodes`.
pub(super) async fn add_node(
    State(admin): State<Arc<Admin>>,
    dry: DryRun,
    Body(body): Body<NodeBody>,
) -> Answer<Response> {
    let shared = admin.open()?;
    let address: NodeAddress = body
        .address
        .parse()
        .map_err(|error| Failure::invalid(format!("{:?} is no address of a node: {error}", body.address)))?;
    if body.user.is_some() && body.password.is_none() {
        return Err(Failure::invalid("a user is named without its password".into()));
    }
    let new = NewNode {
        name: body.name,
        address,
        weight: body.weight,
        zone: body.zone,
        user: body.user,
        password: body.password,
    };
    let wanted = shared.keeper.with_node(&new)?;
    let planned = plan(&shared, &wanted);
    let (keeper, databases, version) = (&shared.keeper, shared.databases, &shared.version);
    match dry.dry_run {
        true => drop(keeper.try_node(&new, databases, version).await?),
        false => keeper.add_node(&new, databases, version).await?,
    }
    Ok(changed(&planned, !dry.dry_run))
}

/// `POST /v1/nodes/{name}/drain`.
pub(super) async fn drain(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    dry: DryRun,
) -> Answer<Response> {
    let change = ShareChange {
        draining: Some(true),
        ..ShareChange::default()
    };
    set_share(&*admin.open()?, &name, &change, dry.dry_run).await
}

/// `PATCH /v1/nodes/{name}`.
pub(super) async fn patch_node(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    dry: DryRun,
    Body(body): Body<ShareBody>,
) -> Answer<Response> {
    let change = ShareChange {
        weight: body.weight,
        zone: body.zone,
        draining: body.draining,
    };
    set_share(&*admin.open()?, &name, &change, dry.dry_run).await
}

async fn set_share(shared: &Shared, name: &str, change: &ShareChange, dry: bool) -> Answer<Response> {
    let wanted: Table = shared.keeper.with_share(name, change)?;
    let planned = plan(shared, &wanted);
    if !dry {
        shared.keeper.set_share(name, change).await?;
    }
    Ok(changed(&planned, !dry))
}

fn changed(plan: &Plan, applied: bool) -> Response {
    Json(serde_json::json!({"plan": plan, "applied": applied})).into_response()
}

/// `DELETE /v1/nodes/{name}`.
pub(super) async fn remove_node(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Answer<Response> {
    let shared = admin.open()?;
    let _joining = shared.keeper.joining.lock().await;
    let views = views(&shared).await?;
    let held = |id| {
        let of_all = views.iter().flat_map(|view| &view.partitions);
        of_all.filter(|view| view.replicas.contains(&id)).count()
    };
    shared.keeper.remove_node(&name, held).await?;
    Ok(Json(serde_json::json!({"applied": true})).into_response())
}

/// `GET /v1/ring`.
pub(super) async fn ring(State(admin): State<Arc<Admin>>) -> Answer<Json<Status>> {
    let shared = admin.open()?;
    let views = views(&shared).await?;
    Ok(Json(status(&shared, &views)))
}

/// `GET /v1/ring/plan`.
pub(super) async fn ring_plan(State(admin): State<Arc<Admin>>) -> Answer<Json<Plan>> {
    let shared = admin.open()?;
    let table = shared.keeper.table();
    Ok(Json(plan(&shared, &table)))
}

/// `POST /v1/ring/pause`.
pub(super) async fn pause(state: State<Arc<Admin>>) -> Answer<Json<Status>> {
    state.open()?.keeper.pause(true).await?;
    ring(state).await
}

/// `POST /v1/ring/resume`.
pub(super) async fn resume(state: State<Arc<Admin>>) -> Answer<Json<Status>> {
    state.open()?.keeper.pause(false).await?;
    ring(state).await
}

/// `POST /v1/ring/cancel`.
pub(super) async fn cancel(state: State<Arc<Admin>>) -> Answer<Json<Status>> {
    state.open()?.keeper.cancel().await?;
    ring(state).await
}

/// How copies are to be compared.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyBody {
    #[serde(default)]
    keys_per_s: Option<u64>,
}

/// `POST /v1/verify`.
pub(super) async fn verify(
    State(admin): State<Arc<Admin>>,
    Body(body): Body<VerifyBody>,
) -> Answer<Json<Report>> {
    let shared = admin.open()?;
    if body.keys_per_s == Some(0) {
        return Err(Failure::invalid("keys_per_s is at least 1".into()));
    }
    shared.verifier.start(body.keys_per_s);
    Ok(Json(shared.verifier.report()))
}

/// `GET /v1/verify`.
pub(super) async fn verification(State(admin): State<Arc<Admin>>) -> Answer<Json<Report>> {
    Ok(Json(admin.open()?.verifier.report()))
}

/// `DELETE /v1/verify`.
pub(super) async fn stop_verifying(State(admin): State<Arc<Admin>>) -> Answer<Json<Report>> {
    let shared = admin.open()?;
    shared.verifier.stop();
    Ok(Json(shared.verifier.report()))
}

fn one() -> u32 {
    1
}

/// Tells a `null` from what is left out.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}
