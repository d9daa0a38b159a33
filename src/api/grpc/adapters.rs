//! `AdapterService`: what a client does with adapters, over gRPC.

use std::sync::Arc;

use tonic::{Request, Response, Streaming, async_trait};

use super::{
    Answer,
    convert::{adapter, precondition, site},
    inference::Caller,
    proto::{
        DeleteAdapterRequest, DeleteAdapterResponse, GetAdapterRequest, GetAdapterResponse,
        ListAdaptersRequest, ListAdaptersResponse, UploadAdapterRequest, UploadAdapterResponse,
        adapter_service_server::AdapterService,
    },
    status::carrying,
    upload::{self, Upload},
};
use crate::{
    adapter::catalogue::Change,
    api::{ApiError, Service, frame::turns::Turns},
    domain::{AdapterName, AdapterRef, NameError},
};

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

/// The service.
pub(super) struct Adapters {
    pub service: Arc<Service>,
    pub uploads: Arc<Turns>,
    pub max_adapter_bytes: usize,
}

impl Adapters {
    async fn put(
        &self,
        request: Request<Streaming<UploadAdapterRequest>>,
    ) -> Result<UploadAdapterResponse, ApiError> {
        let principal = Caller::of(&request)?.principal;
        let _turn = self.uploads.take(&principal.tenant().id).await;
        let Upload { start, files } = upload::read(request.into_inner(), self.max_adapter_bytes).await?;
        let name: AdapterName = start.name.parse().map_err(about("name"))?;
        let place = (site(start.namespace)?, &name);
        let condition = precondition(&start.if_version, start.only_new)?;
        let published = self.service.put_adapter(&principal, place, files, condition).await?;
        Ok(UploadAdapterResponse {
            adapter: Some(adapter(&name, &published.found)),
            created: published.change == Change::Created,
        })
    }

    async fn show(&self, request: Request<GetAdapterRequest>) -> Result<GetAdapterResponse, ApiError> {
        let principal = Caller::of(&request)?.principal;
        let wanted: AdapterRef = request.into_inner().name.parse().map_err(about("name"))?;
        let found = self.service.find_adapter(&principal, &wanted).await?;
        Ok(GetAdapterResponse { adapter: Some(adapter(&wanted.name, &found)) })
    }

    fn list(&self, request: Request<ListAdaptersRequest>) -> Result<ListAdaptersResponse, ApiError> {
        let principal = Caller::of(&request)?.principal;
        let ListAdaptersRequest { page_size, page_token } = request.into_inner();
        let limit = if page_size == 0 { DEFAULT_PAGE } else { page_size };
        if limit > MAX_PAGE {
            let message = format!("page_size is {limit}: use 1 to {MAX_PAGE}");
            return Err(ApiError::invalid("page_size", message));
        }
        let after: Option<AdapterName> = match page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(about("page_token"))?),
        };
        let (list, more) = self.service.list_adapters(&principal, limit as usize, after.as_ref());
        let next = list.last().filter(|_| more).map(|(name, _)| name.to_string());
        let adapters = list.iter().map(|(name, found)| adapter(name, found)).collect();
        Ok(ListAdaptersResponse { adapters, next_page_token: next.unwrap_or_default() })
    }

    async fn remove(
        &self,
        request: Request<DeleteAdapterRequest>,
    ) -> Result<DeleteAdapterResponse, ApiError> {
        let principal = Caller::of(&request)?.principal;
        let DeleteAdapterRequest { name, namespace, version, if_version } = request.into_inner();
        let name: AdapterName = name.parse().map_err(about("name"))?;
        let version = match version.as_str() {
            "" => None,
            version => Some(version.parse().map_err(about("version"))?),
        };
        let (place, condition) = ((site(namespace)?, &name), precondition(&if_version, false)?);
        self.service.delete_adapter(&principal, place, version.as_ref(), condition).await?;
        Ok(DeleteAdapterResponse {})
    }
}

fn about(param: &'static str) -> impl Fn(NameError) -> ApiError {
    move |error| ApiError::invalid(param, error.to_string())
}

#[async_trait]
impl AdapterService for Adapters {
    async fn upload_adapter(
        &self,
        request: Request<Streaming<UploadAdapterRequest>>,
    ) -> Answer<UploadAdapterResponse> {
        self.put(request).await.map(Response::new).map_err(carrying)
    }

    async fn get_adapter(&self, request: Request<GetAdapterRequest>) -> Answer<GetAdapterResponse> {
        self.show(request).await.map(Response::new).map_err(carrying)
    }

    async fn list_adapters(&self, request: Request<ListAdaptersRequest>) -> Answer<ListAdaptersResponse> {
        self.list(request).map(Response::new).map_err(carrying)
    }

    async fn delete_adapter(&self, request: Request<DeleteAdapterRequest>) -> Answer<DeleteAdapterResponse> {
        self.remove(request).await.map(Response::new).map_err(carrying)
    }
}
