use std::{path::Path, sync::Arc};

use anyhow::Context;
use futures::StreamExt;

use crate::{
    adapter::{AdapterLease, LoadedAdapter, folder},
    api::{ApiError, Service},
    domain::{
        AdapterName, ClassifyRequest, GenerateRequest, Normalize, OverLength, Prompt, SamplingParams,
        TenantId,
    },
    tenancy::Principal,
};

/// A model in this process, with an adapter or bare.
pub(in crate::cli) struct Here<'a> {
    pub service: &'a Service,
    pub adapter: Option<AdapterLease>,
    /// What happens to sources that are too long; the card's policy where unset.
    pub truncate: Option<OverLength>,
}

/// A loaded adapter under `name`, if it fits the model.
pub(in crate::cli) fn lease_of(
    adapter: LoadedAdapter,
    name: AdapterName,
    service: &Service,
) -> anyhow::Result<AdapterLease> {
    let generation = adapter.into_generation(name);
    service.catalogue.backbone().check(&generation)?;
    Ok(AdapterLease::new(Arc::new(generation)))
}

impl<'a> Here<'a> {
    /// With the adapter in a folder, or of a name under the adapters' root; none is the bare model.
    pub async fn with_adapter(
        service: &'a Service,
        named: Option<&str>,
        truncate: Option<OverLength>,
    ) -> anyhow::Result<Self> {
        let adapter = match named {
            None => None,
            Some(path) if Path::new(path).is_dir() => {
                let whole = Path::new(path).canonicalize()?;
                let last = whole.file_name().and_then(|name| name.to_str());
                let name = last.context("the adapter's folder has no name")?.parse()?;
                Some(lease_of(folder::load(&whole)?, name, service)?)
            }
            Some(name) => {
                let found = service.adapter(&Principal::anonymous(0), Some(&name.parse()?), None).await;
                found.map_err(|error| anyhow::anyhow!("{}", error.message))?
            }
        };
        Ok(Self { service, adapter, truncate })
    }

    pub async fn generate(&self, prompts: Vec<String>, max_tokens: u32) -> anyhow::Result<Vec<String>> {
        let said = |error: ApiError| anyhow::anyhow!("{}", error.message);
        let request = GenerateRequest {
            tenant: TenantId::default_tenant(),
            adapter: None,
            prompts: prompts.into_iter().map(Prompt::Text).collect(),
            max_tokens: Some(max_tokens),
            usual_tokens: None,
            scores_prompts: false,
            grammar: None,
            min_tokens: 0,
            sampling: SamplingParams::greedy(),
            stop: Vec::new(),
            n: 1,
            truncate: self.truncate,
            priority: 0,
            timeout: None,
        };
        let principal = Principal::anonymous(0);
        let mut accepted = self.service.generate(&principal, &request, self.adapter.clone()).map_err(said)?;
        while let Some((place, event)) = accepted.events.next().await {
            accepted.gathering.take(place, event).map_err(said)?;
        }
        let results = accepted.gathering.finish().map_err(said)?;
        Ok(results.into_iter().flatten().map(|choice| choice.text).collect())
    }

    pub async fn classify(&self, prompts: Vec<String>, labels: &[String]) -> anyhow::Result<Vec<Vec<f64>>> {
        let said = |error: ApiError| anyhow::anyhow!("{}", error.message);
        // A request's sequences are its prompts times its labels.
        let most = (self.service.max_sequences / labels.len().max(1)).max(1);
        let mut all = Vec::with_capacity(prompts.len());
        for prompts in prompts.chunks(most) {
            let request = ClassifyRequest {
                tenant: TenantId::default_tenant(),
                adapter: None,
                prompts: prompts.iter().cloned().map(Prompt::Text).collect(),
                labels: Some(labels.to_vec()),
                normalize: Normalize::None,
                calibrate: false,
                truncate: self.truncate,
                priority: 0,
                timeout: None,
            };
            let principal = Principal::anonymous(0);
            let running = self.service.classify(&principal, &request, self.adapter.clone()).map_err(said)?;
            for classified in running.finish().await.map_err(said)? {
                all.push(classified.scores.iter().map(|score| score.logprob).collect());
            }
        }
        Ok(all)
    }
}
