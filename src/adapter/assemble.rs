//! From what a config declares and a file holds to checked weights.

use super::{
    manifest::{LowRankShape, Manifest, Multitask, TASK_KEY, Task, UpdateShape, VARIANT_KEY},
    tensor::{Matrix, MatrixError},
    tensor_file::{TensorFile, TensorFileError, TensorInfo},
    weights::{AdapterWeights, Adept, LowRank, Update, WeightsError},
};

/// The soft prompt. `(m * submodules, d)`
pub const PROMPT: &str = "prompt_embeddings";
/// The left low-rank factor, ADePT's first matrix. `(s, r)`, ADePT's `(d, r)`
pub const LOW_RANK_A: &str = "prompt_encoder.lora_embedding_A";
/// The right low-rank factor, ADePT's second matrix. `(r, d)`
pub const LOW_RANK_B: &str = "prompt_encoder.lora_embedding_B";
/// A multitask prompt's columns. `(T, m * submodules, R)`
pub const TASK_COLS: &str = "prefix_task_cols";
/// A multitask prompt's rows. `(T, R, d)`
pub const TASK_ROWS: &str = "prefix_task_rows";
/// ADePT's first bias, told from A by case alone. `(r)`
pub const ADEPT_BIAS_A: &str = "prompt_encoder.lora_embedding_a";
/// ADePT's second bias. `(d)`
pub const ADEPT_BIAS_B: &str = "prompt_encoder.lora_embedding_b";

/// Why config and tensors do not make an adapter.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Tensors that the config calls for are not in the file.
    #[error("missing {missing}: the config declares {why}; the file holds {held}")]
    Missing {
        /// The missing tensors, quoted.
        missing: String,
        /// What in the config calls for them.
        why: String,
        /// The tensors in the file, quoted.
        held: String,
    },
    /// A tensor that the declared method does not have.
    #[error("unexpected tensor '{tensor}': an adapter of method {method} has only {expected}")]
    Unexpected {
        /// The tensor.
        tensor: String,
        /// The declared method.
        method: &'static str,
        /// The tensors it has, quoted.
        expected: String,
    },
    /// A tensor has another shape than the config declares.
    #[error("tensor '{tensor}': expected shape {expected}, found {found}")]
    Shape {
        /// The tensor.
        tensor: &'static str,
        /// The declared shape in letters and numbers.
        expected: String,
        /// The shape in the file.
        found: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("tensor '{tensor}': {source}")]
    Values {
        /// The tensor.
        tensor: &'static str,
        /// Where and what.
        source: MatrixError,
    },
    /// Shapes alone do not tell DePT from ADePT.
    #[error(
        "tensor '{LOW_RANK_A}' of shape ({dim}, {rank}) may be DePT's (s, r) or ADePT's (d, r), as max_length and token_dim are both {dim}: add \"{VARIANT_KEY}\": \"dept\" or \"adept\" to adapter_config.json"
    )]
    Ambiguous {
        /// s and d.
        dim: usize,
        /// r.
        rank: usize,
    },
    /// A multitask prompt of several tasks, and none picked.
    #[error(
        "the multitask prompt holds {tasks} tasks: say which one to serve with \"{TASK_KEY}\" (0 to {}) in adapter_config.json", tasks - 1
    )]
    TaskUnchosen {
        /// T.
        tasks: usize,
    },
    /// The file does not give a tensor.
    #[error(transparent)]
    File(#[from] TensorFileError),
    /// The parts do not fit each other.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// Reads the tensors that `manifest` declares from `file`, and only those.
///
/// # Errors
/// When one is missing, superfluous, of another shape or type, or not finite.
pub fn assemble(manifest: &Manifest, file: &mut TensorFile) -> Result<AdapterWeights, AssembleError> {
    check_names(manifest, file)?;
    let prompt = match manifest.multitask {
        Some(multitask) => multitask_prompt(manifest, multitask, file)?,
        None => prompt(manifest, file)?,
    };
    let update = match manifest.update {
        UpdateShape::None => Update::None,
        UpdateShape::LowRank(shape) => Update::LowRank(low_rank(manifest, shape, file)?),
        UpdateShape::LowRankOrAdept(shape) if is_adept(manifest, shape, file)? => {
            Update::Adept(adept(manifest, shape.rank, false, file)?)
        }
        UpdateShape::LowRankOrAdept(shape) => Update::LowRank(low_rank(manifest, shape, file)?),
        UpdateShape::Adept { rank, biases } => Update::Adept(adept(manifest, rank, biases, file)?),
    };
    Ok(AdapterWeights::new(prompt, update)?)
}

/// The tensors that the declared method has.
fn declared(manifest: &Manifest) -> Vec<&'static str> {
    let mut names = Vec::new();
    if manifest.prompt_length > 0 {
        names.push(PROMPT);
    }
    if manifest.update != UpdateShape::None {
        names.extend([LOW_RANK_A, LOW_RANK_B]);
    }
    if matches!(manifest.update, UpdateShape::Adept { biases: true, .. }) {
        names.extend([ADEPT_BIAS_A, ADEPT_BIAS_B]);
    }
    if manifest.multitask.is_some() {
        names.extend([TASK_COLS, TASK_ROWS]);
    }
    names
}

fn check_names(manifest: &Manifest, file: &TensorFile) -> Result<(), AssembleError> {
    let held = file.infos();
    let declared = declared(manifest);
    let missing: Vec<_> = declared.iter().filter(|name| !held.contains_key(**name)).collect();
    if !missing.is_empty() {
        let s = if missing.len() == 1 { "" } else { "s" };
        return Err(AssembleError::Missing {
            missing: format!("tensor{s} {}", quoted(missing.iter().map(|name| **name))),
            why: describe(manifest),
            held: quoted(held.keys().map(String::as_str)),
        });
    }
    // An empty tensor says nothing: m = 0 or r = 0 is saved as one, or left out.
    let empty =
        |name: &str, info: &TensorInfo| [PROMPT, LOW_RANK_A, LOW_RANK_B].contains(&name) && info.is_empty();
    match held.iter().find(|(name, info)| !declared.contains(&name.as_str()) && !empty(name, info)) {
        None => Ok(()),
        Some((name, _)) => Err(AssembleError::Unexpected {
            tensor: name.clone(),
            method: manifest.method.as_str(),
            expected: quoted(declared.into_iter()),
        }),
    }
}

fn describe(manifest: &Manifest) -> String {
    let mut parts = vec![format!("method {}", manifest.method), format!("m = {}", manifest.prompt_length)];
    match manifest.update {
        UpdateShape::None => {}
        UpdateShape::LowRank(shape) | UpdateShape::LowRankOrAdept(shape) => {
            parts.push(format!("r = {} and s = {}", shape.rank, shape.max_length));
        }
        UpdateShape::Adept { rank, .. } => parts.push(format!("r = {rank}")),
    }
    parts.join(", ")
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.take(16).map(|name| format!("'{name}'")).collect();
    if names.is_empty() { "no tensors".into() } else { names.join(", ") }
}

/// The prompt's first m rows. `(m, d)`
fn prompt(manifest: &Manifest, file: &mut TensorFile) -> Result<Matrix, AssembleError> {
    let (m, d) = (manifest.prompt_length, manifest.hidden);
    if m == 0 {
        return Ok(Matrix::empty(d));
    }
    prompt_rows(manifest, file)?;
    let mut values = file.read(PROMPT)?;
    values.truncate(m * d);
    matrix(PROMPT, m, d, values)
}

/// Rows of `prompt_embeddings` on disk: m, or 2 m as PEFT saves prompts for encoder-decoders.
fn prompt_rows(manifest: &Manifest, file: &TensorFile) -> Result<usize, AssembleError> {
    let (m, d) = (manifest.prompt_length, manifest.hidden);
    let found = shape_of(file, PROMPT);
    let legal = match (manifest.submodules, manifest.task) {
        (Some(times), _) => vec![m * times],
        (None, Task::CausalLm) => vec![m],
        (None, Task::Seq2SeqLm) => vec![m, 2 * m],
    };
    match legal.iter().find(|rows| found == [**rows, d]) {
        Some(rows) => Ok(*rows),
        None => Err(AssembleError::Shape {
            tensor: PROMPT,
            expected: legal.iter().map(|rows| format!("({rows}, {d})")).collect::<Vec<_>>().join(" or "),
            found: dims(found),
        }),
    }
}

/// Whether A is ADePT's `(d, r)` and not DePT's `(s, r)`.
fn is_adept(manifest: &Manifest, shape: LowRankShape, file: &TensorFile) -> Result<bool, AssembleError> {
    let (s, r, d) = (shape.max_length, shape.rank, manifest.hidden);
    match shape_of(file, LOW_RANK_A) == [d, r] {
        true if s == d => Err(AssembleError::Ambiguous { dim: d, rank: r }),
        found => Ok(found),
    }
}

fn low_rank(
    manifest: &Manifest,
    shape: LowRankShape,
    file: &mut TensorFile,
) -> Result<LowRank, AssembleError> {
    let (s, r, d) = (shape.max_length, shape.rank, manifest.hidden);
    expect_shape(file, LOW_RANK_A, &[s, r])?;
    expect_shape(file, LOW_RANK_B, &[r, d])?;
    let a = matrix(LOW_RANK_A, s, r, file.read(LOW_RANK_A)?)?;
    let b = matrix(LOW_RANK_B, r, d, file.read(LOW_RANK_B)?)?;
    Ok(LowRank::new(a, b, shape.scale())?)
}

/// ADePT's network; where it has no biases, zeros.
fn adept(manifest: &Manifest, r: usize, biases: bool, file: &mut TensorFile) -> Result<Adept, AssembleError> {
    let d = manifest.hidden;
    expect_shape(file, LOW_RANK_A, &[d, r])?;
    expect_shape(file, LOW_RANK_B, &[r, d])?;
    let mut bias = |tensor, len| {
        if !biases {
            return matrix(tensor, 1, len, vec![0.0; len]);
        }
        expect_shape(file, tensor, &[len])?;
        matrix(tensor, 1, len, file.read(tensor)?)
    };
    let (bias_a, bias_b) = (bias(ADEPT_BIAS_A, r)?, bias(ADEPT_BIAS_B, d)?);
    let a = matrix(LOW_RANK_A, d, r, file.read(LOW_RANK_A)?)?;
    let b = matrix(LOW_RANK_B, r, d, file.read(LOW_RANK_B)?)?;
    Ok(Adept::new(a, bias_a, b, bias_b)?)
}

/// One task's prompt, P * (cols . rows) element by element. `(m, d)`
fn multitask_prompt(
    manifest: &Manifest,
    multitask: Multitask,
    file: &mut TensorFile,
) -> Result<Matrix, AssembleError> {
    let (m, d) = (manifest.prompt_length, manifest.hidden);
    let Multitask { tasks, ranks, task_id } = multitask;
    let task = task_id.ok_or(AssembleError::TaskUnchosen { tasks })?;
    let on_disk = prompt_rows(manifest, file)?;
    expect_shape(file, TASK_COLS, &[tasks, on_disk, ranks])?;
    expect_shape(file, TASK_ROWS, &[tasks, ranks, d])?;
    let shared = prompt(manifest, file)?;
    let cols = matrix(TASK_COLS, tasks * on_disk, ranks, file.read(TASK_COLS)?)?;
    let rows = matrix(TASK_ROWS, tasks * ranks, d, file.read(TASK_ROWS)?)?;
    let mut values = Vec::with_capacity(m * d);
    for i in 0..m {
        let mut factor = vec![0f32; d];
        for (k, weight) in cols.row(task * on_disk + i).iter().enumerate() {
            for (sum, value) in factor.iter_mut().zip(rows.row(task * ranks + k)) {
                *sum += weight * value;
            }
        }
        values.extend(shared.row(i).iter().zip(&factor).map(|(p, f)| p * f));
    }
    matrix(PROMPT, m, d, values)
}

fn shape_of<'a>(file: &'a TensorFile, tensor: &str) -> &'a [usize] {
    file.infos().get(tensor).map_or(&[], |info| &info.shape)
}

fn expect_shape(file: &TensorFile, tensor: &'static str, expected: &[usize]) -> Result<(), AssembleError> {
    let found = shape_of(file, tensor);
    if found == expected {
        return Ok(());
    }
    Err(AssembleError::Shape { tensor, expected: dims(expected), found: dims(found) })
}

fn matrix(tensor: &'static str, rows: usize, cols: usize, values: Vec<f32>) -> Result<Matrix, AssembleError> {
    Matrix::new(rows, cols, values).map_err(|source| AssembleError::Values { tensor, source })
}

/// A shape as people write it: `(60, 768)`.
fn dims(shape: &[usize]) -> String {
    let dims: Vec<_> = shape.iter().map(usize::to_string).collect();
    format!("({})", dims.join(", "))
}
