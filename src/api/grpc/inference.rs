//! `InferenceService`: the use cases, asked over gRPC.

use std::sync::Arc;

use futures::stream::BoxStream;
use tonic::{Request, Response, Status, async_trait};

use super::{
    Answer,
    convert::{Writer, classify_request, classify_response, generate_request, tokenize_request},
    deadline::Deadline,
    proto::{
        ClassifyRequest, ClassifyResponse, GenerateRequest, GenerateResponse, GenerateStreamRequest,
        GenerateStreamResponse, TokenizeRequest, TokenizeResponse,
        inference_service_server::InferenceService,
    },
    status::carrying,
    stream,
};
use crate::{
    api::{
        Accepted, ApiError, Events, Gathering, Service, Tokens, collect,
        frame::{
            account::{Account, Streams},
            aside_unless, off_the_loop,
            request_id::RequestId,
        },
    },
    tenancy::Principal,
};

/// The service. Cheap to clone.
#[derive(Clone)]
pub(super) struct Inference {
    pub service: Arc<Service>,
}

/// What the frame has found out about a call.
pub(super) struct Caller {
    pub id: String,
    pub account: Arc<Account>,
    pub principal: Principal,
    pub deadline: Option<Deadline>,
}

impl Caller {
    /// Who makes the call.
    pub fn of<T>(request: &Request<T>) -> Result<Self, ApiError> {
        let extensions = request.extensions();
        let (id, account, principal) = (
            extensions.get::<RequestId>(),
            extensions.get::<Arc<Account>>().cloned(),
            extensions.get::<Principal>().cloned(),
        );
        match (id, account, principal) {
            (Some(RequestId(id)), Some(account), Some(principal)) => {
                Ok(Self { id: id.clone(), account, principal, deadline: extensions.get().copied() })
            }
            _ => {
                tracing::error!("an rpc has been reached around its frame");
                Err(ApiError::internal())
            }
        }
    }
}

impl Inference {
    /// Starts to generate.
    async fn start(
        &self,
        caller: &Caller,
        message: GenerateRequest,
        streams: bool,
    ) -> Result<(Writer, Events, Gathering), ApiError> {
        let principal = caller.principal.clone();
        let left = caller.deadline.map(Deadline::left);
        let request = generate_request(message, principal.tenant().id.clone(), left)?;
        let (wanted, trace) = (request.adapter.as_ref(), caller.account.trace());
        if let Some(trace) = trace {
            trace.generates("text_completion", &self.service.asked_for(wanted), &request, streams);
        }
        let adapter = self.service.adapter(&principal, wanted, trace).await?;
        let service = Arc::clone(&self.service);
        let light = request.is_light();
        let accepted = aside_unless(light, move || service.generate(&principal, &request, adapter)).await?;
        let Accepted { model, adapter, events, gathering, .. } = accepted.traced(&caller.account);
        let tokenizer = self.service.tokenizer.clone();
        let writer = Writer { id: caller.id.clone(), model: model.name.clone(), adapter, tokenizer };
        Ok((writer, events, gathering))
    }

    async fn answer(&self, request: Request<GenerateRequest>) -> Result<GenerateResponse, ApiError> {
        let caller = Caller::of(&request)?;
        let (writer, events, gathering) = self.start(&caller, request.into_inner(), false).await?;
        let mut results = collect(events, gathering).await?;
        Ok(writer.response(results.pop().ok_or_else(ApiError::internal)?))
    }

    async fn score(&self, request: Request<ClassifyRequest>) -> Result<ClassifyResponse, ApiError> {
        let Caller { id, account, principal, deadline } = Caller::of(&request)?;
        let (tenant, left) = (principal.tenant().id.clone(), deadline.map(Deadline::left));
        let request = classify_request(request.into_inner(), tenant, left)?;
        let wanted = request.adapter.as_ref();
        if let Some(trace) = account.trace() {
            trace.classifies(&self.service.asked_for(wanted), &request);
        }
        let adapter = self.service.adapter(&principal, wanted, account.trace()).await?;
        let service = Arc::clone(&self.service);
        let light = request.is_light();
        let running = aside_unless(light, move || service.classify(&principal, &request, adapter)).await?;
        let running = running.traced(&account);
        let (model, adapter) = (running.model.clone(), running.adapter.clone());
        let classified = running.finish().await?.pop().ok_or_else(ApiError::internal)?;
        Ok(classify_response((id, model), adapter.as_ref(), classified))
    }

    async fn cut(&self, request: Request<TokenizeRequest>) -> Result<TokenizeResponse, ApiError> {
        let principal = Caller::of(&request)?.principal;
        let (adapter, prompt) = tokenize_request(request.into_inner())?;
        let adapter = self.service.adapter(&principal, adapter.as_ref(), None).await?;
        let service = Arc::clone(&self.service);
        let Tokens { ids, pieces } =
            off_the_loop(move || service.tokenize(adapter.as_ref(), &prompt)).await?;
        Ok(TokenizeResponse { ids, pieces })
    }
}

#[async_trait]
impl InferenceService for Inference {
    async fn generate(&self, request: Request<GenerateRequest>) -> Answer<GenerateResponse> {
        self.answer(request).await.map(Response::new).map_err(carrying)
    }

    type GenerateStreamStream = BoxStream<'static, Result<GenerateStreamResponse, Status>>;

    async fn generate_stream(
        &self,
        request: Request<GenerateStreamRequest>,
    ) -> Answer<Self::GenerateStreamStream> {
        let caller = Caller::of(&request).map_err(carrying)?;
        let missing = || ApiError::invalid("request", "request is missing: send one");
        let message = request.into_inner().request.ok_or_else(missing).map_err(carrying)?;
        let (writer, events, gathering) = self.start(&caller, message, true).await.map_err(carrying)?;
        let mut response = Response::new(stream::messages(writer, events, gathering, caller.account));
        response.extensions_mut().insert(Streams);
        Ok(response)
    }

    async fn classify(&self, request: Request<ClassifyRequest>) -> Answer<ClassifyResponse> {
        self.score(request).await.map(Response::new).map_err(carrying)
    }

    async fn tokenize(&self, request: Request<TokenizeRequest>) -> Answer<TokenizeResponse> {
        self.cut(request).await.map(Response::new).map_err(carrying)
    }
}
