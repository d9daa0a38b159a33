//! Everything that a run goes on from, in one safetensors file.

use std::{collections::HashMap, path::Path};

use ::safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use super::{
    adamw::Optimiser,
    error::TrainError,
    files::write_whole,
    parameters::{AdapterShape, Tensors},
    settings::Settings,
};

/// The key of the state among the file's metadata.
const STATE: &str = "dept_training";

/// The numbers beside the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What the run was started with.
    pub settings: Settings,
    /// Steps done.
    pub step: u64,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Evaluations since then.
    pub since_best: u64,
    /// Seconds of training so far.
    pub seconds: f64,
}

/// An evaluation that none has beaten.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// After which step.
    pub step: u64,
    /// The metric's value.
    pub value: f64,
}

/// A run between two steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// The numbers.
    pub state: State,
    /// P, A and B.
    pub values: Tensors,
    /// The optimiser.
    pub optimiser: Optimiser,
}

impl Checkpoint {
    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        let read = |problem: String| TrainError::Read { path: path.to_owned(), problem };
        let groups =
            [("value", &self.values), ("mean", &self.optimiser.means), ("square", &self.optimiser.squares)];
        let mut tensors = Vec::new();
        for (group, of) in groups {
            for (name, values) in of.named() {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                tensors.push((format!("{group}.{name}"), values.len(), bytes));
            }
        }
        let views = tensors.iter().map(|(name, count, bytes)| {
            Ok((name.as_str(), TensorView::new(Dtype::F32, vec![*count], bytes)?))
        });
        let views = views.collect::<Result<Vec<_>, ::safetensors::SafeTensorError>>();
        let state = serde_json::to_string(&self.state).map_err(|error| read(error.to_string()))?;
        let metadata = HashMap::from([(STATE.to_owned(), state)]);
        let bytes = views.and_then(|views| ::safetensors::serialize(views, Some(metadata)));
        write_whole(path, &bytes.map_err(|error| read(error.to_string()))?)
    }

    /// Reads it, if there is one.
    ///
    /// # Errors
    /// When it is damaged, or of another shape than its settings say.
    pub fn load(path: &Path, hidden: usize) -> Result<Option<Self>, TrainError> {
        let broken = |problem: String| TrainError::Read { path: path.to_owned(), problem };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(broken(error.to_string())),
        };
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| broken(error.to_string()))?;
        let state = metadata.metadata().as_ref().and_then(|entries| entries.get(STATE));
        let state = state.ok_or_else(|| broken("it is no checkpoint of dept train".to_owned()))?;
        let state: State = serde_json::from_str(state).map_err(|error| broken(error.to_string()))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
        let Settings { prompt_length, rank, max_length, alpha, .. } = state.settings;
        let zeros = Tensors::zeros(&AdapterShape { prompt_length, rank, max_length, hidden, alpha });
        let group = |group: &str| {
            let tensor = |name: &str, count: usize| {
                let name = format!("{group}.{name}");
                let view = file.tensor(&name).map_err(|error| broken(error.to_string()))?;
                let values: Vec<f32> =
                    view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                let right = view.dtype() == Dtype::F32 && values.len() == count;
                right.then_some(values).ok_or_else(|| broken(format!("'{name}' is not {count} f32 values")))
            };
            Ok::<_, TrainError>(Tensors {
                prompt: tensor("P", zeros.prompt.len())?,
                a: tensor("A", zeros.a.len())?,
                b: tensor("B", zeros.b.len())?,
            })
        };
        let (values, means, squares) = (group("value")?, group("mean")?, group("square")?);
        let optimiser = Optimiser { steps: state.step, means, squares };
        Ok(Some(Self { state, values, optimiser }))
    }
}
