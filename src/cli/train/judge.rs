use super::prepare::Prepared;
use crate::{
    adapter::LoadedAdapter,
    app::Resident,
    cli::measure::{Answerer, Here, Question, command_line, lease_of},
    domain::AdapterName,
    evaluation::Report,
    training::{Judge, Verdict},
};

/// Asks the engine that would serve the adapter.
pub(super) struct EngineJudge<'a> {
    pub runtime: &'a tokio::runtime::Runtime,
    pub resident: &'a Resident,
    pub prepared: &'a Prepared,
}

impl EngineJudge<'_> {
    fn report(&self, adapter: LoadedAdapter) -> anyhow::Result<Verdict> {
        let Some(evaluation) = &self.prepared.evaluation else {
            anyhow::bail!("there is nothing to evaluate on")
        };
        let name: AdapterName = "in-training".parse()?;
        let service = &*self.resident.service;
        let lease = lease_of(adapter, name, service)?;
        let here = Here { service, adapter: Some(lease), truncate: self.prepared.truncate };
        let labels = self.prepared.answers();
        let question = Question { by: evaluation.by, labels: &labels, max_tokens: evaluation.max_tokens };
        let answerer = Answerer::Here(here);
        let answers = answerer.answers(&evaluation.examples, question, |_| {});
        let report = Report::of(evaluation.metric, &self.runtime.block_on(answers)?);
        let measurement = report.measurement(evaluation.dataset.clone(), Some(command_line()));
        Ok(Verdict { value: report.value, measurement })
    }
}

impl Judge for EngineJudge<'_> {
    fn judge(&mut self, adapter: LoadedAdapter) -> Result<Verdict, String> {
        self.report(adapter).map_err(|error| format!("{error:#}"))
    }
}
