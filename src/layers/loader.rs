use std::ops::Range;

use candle_core::Tensor;

use super::{
    MlpShape, PackedParts,
    packed_parts::Wanted,
    recipe::{Recipe, bytes, nibbles, same_recipe},
    stored::{Stored, transposed},
};
use crate::{
    backbones::weights::{MatrixRows, RawBytes, RawLinear, RawNibbles, Weights, WeightsError},
    kernels::{
        Place,
        dept_embed::TableError,
        linear::{
            ActivationBits, Dense, Epilogue, Gate, Isa, Linear, LinearError, LinearMap, LinearPart,
            LinearShape, LinearWeights, Packing,
        },
        norm::{Norm, NormError},
        pool::ComputePool,
        ragged_attention::{BiasShape, RelativeBias},
        rope::RopeTable,
    },
};

#[cfg(test)]
mod tests;

/// Why a layer could not be made from a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The checkpoint lacks a tensor or holds another one.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A linear map can't be built.
    #[error("'{module}' can't be used: {source}")]
    Linear {
        /// The module's name in the checkpoint.
        module: String,
        /// Why.
        source: LinearError,
    },
    /// A norm can't be built.
    #[error("'{module}' can't be used: {source}")]
    Norm {
        /// The module's name in the checkpoint.
        module: String,
        /// Why.
        source: NormError,
    },
    /// A device does not take it.
    #[error("'{module}' can't be brought to the device: {why}")]
    Device {
        /// The module's name in the checkpoint.
        module: String,
        /// What the device says.
        why: Box<candle_core::Error>,
    },
    /// The embedding table can't be built.
    #[error("'{module}' can't be used: {source}")]
    Table {
        /// The module's name in the checkpoint.
        module: String,
        /// Why.
        source: TableError,
    },
}

/// One of the maps that are packed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The module's name, behind the prefix that all parts share.
    pub name: &'a str,
    /// Outputs.
    pub n: usize,
    /// Whether there is a bias.
    pub bias: bool,
    /// How the weight is stored.
    pub stored: Stored,
}

/// A norm's kind and constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormKind {
    /// Root-mean-square, without a bias.
    Rms {
        /// Added to the mean square.
        eps: f32,
        /// Added to the stored weight: 1 where a checkpoint stores how far the weight is from 1.
        offset: f32,
    },
    /// Layer norm with a bias.
    Layer {
        /// Added to the variance.
        eps: f32,
    },
}

/// Makes layers from a checkpoint's tensors, all with one recipe and in one place.
#[derive(Debug)]
pub struct Loader<'a> {
    /// The checkpoint.
    pub weights: &'a Weights,
    /// The arithmetic; in f32 where matrices are dense.
    pub recipe: Recipe,
    /// Where the layers compute.
    pub place: Place,
    /// The threads of the CPU's kernels.
    pub pool: ComputePool,
    /// The instruction set of linear maps on the CPU.
    pub isa: Isa,
    /// Whether gradients go back through the layers, for training: linear maps then take twice the memory.
    pub gradients: bool,
    /// Where the CPU's packed maps come from. Those that gradients go back through are always packed.
    pub packed: PackedParts,
}

/// Maps of one input that are packed together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group<'a> {
    /// What the names of all parts begin with.
    pub prefix: &'a str,
    pub parts: &'a [Part<'a>],
    /// Inputs.
    pub k: usize,
    /// Of block formats.
    pub activations: ActivationBits,
}

/// Outputs of `k` inputs that are read at a time: about a million weights.
pub(super) fn strip(k: usize) -> usize {
    (1usize << 20).div_ceil(k.max(1))
}

impl Group<'_> {
    fn wanted(&self, epilogue: Epilogue) -> Wanted {
        let names: Vec<&str> = self.parts.iter().map(|part| part.name).collect();
        let n = self.parts.iter().map(|part| part.n).sum();
        let name = format!("{}{} {epilogue:?}", self.prefix, names.join("+"));
        let strip = match self.parts {
            [Part { stored: Stored::Rows, .. }] => strip(self.k),
            // Parts agree about their recipe, and an order other than the file's is one of all outputs.
            _ => n,
        };
        Wanted { name, shape: LinearShape { n, k: self.k }, epilogue, strip }
    }
}

impl Loader<'_> {
    /// The maps `{prefix}{name}` of `k` inputs, each with its outputs, as one packed map.
    ///
    /// # Errors
    /// When one is missing, has another shape or is not finite.
    pub fn linear(&self, prefix: &str, parts: &[(&str, usize)], k: usize) -> Result<LinearMap, LoadError> {
        let plain = parts.iter().map(|&(name, n)| Part { name, n, bias: false, stored: Stored::Rows });
        self.packed(prefix, &plain.collect::<Vec<_>>(), k)
    }

    /// The maps `parts` of `k` inputs, with their biases, as one packed map.
    ///
    /// # Errors
    /// When one is missing, has another shape or is not finite.
    pub fn packed(&self, prefix: &str, parts: &[Part<'_>], k: usize) -> Result<LinearMap, LoadError> {
        self.group(Group { prefix, parts, k, activations: ActivationBits::Eight }, Epilogue::Plain)
    }

    /// The inner map of an MLP: one part, or gate and up where the shape is gated. Its activation is part of it, but where
    /// gradients go back through it: then it is an op of its own.
    ///
    /// # Errors
    /// When a part is missing, has another shape or is not finite, or their number does not fit the shape.
    pub fn mlp_inner(
        &self,
        prefix: &str,
        parts: &[Part<'_>],
        k: usize,
        shape: MlpShape,
    ) -> Result<(LinearMap, Option<Gate>), LoadError> {
        if self.gradients {
            return Ok((self.packed(prefix, parts, k)?, Some(shape.gate(self.pool.clone()))));
        }
        let group = Group { prefix, parts, k, activations: ActivationBits::Eight };
        Ok((self.group(group, shape.epilogue())?, None))
    }

    /// The maps of a group as one.
    pub(super) fn group(&self, group: Group<'_>, epilogue: Epilogue) -> Result<LinearMap, LoadError> {
        if !epilogue.takes(group.parts.len()) {
            let source = LinearError::Parts { epilogue, parts: group.parts.len() };
            return Err(LoadError::Linear { module: group.prefix.to_owned(), source });
        }
        self.map(group.prefix, group.wanted(epilogue), |outputs| self.parts(group, outputs))
    }

    /// The map that is wanted, as it is kept or as `parts` of some of its outputs make it; `module` is what errors call it.
    pub(super) fn map(
        &self,
        module: &str,
        wanted: Wanted,
        parts: impl Fn(Range<usize>) -> Result<Vec<LinearPart>, LoadError>,
    ) -> Result<LinearMap, LoadError> {
        let failed = |source| LoadError::Linear { module: module.to_owned(), source };
        let Wanted { shape, epilogue, strip, .. } = wanted;
        let all = || parts(0..shape.n);
        let told = |rows| MatrixRows { module, shape: (shape.n, shape.k), rows }.told();
        Ok(match &self.place {
            Place::Dense(place) => LinearMap::Dense(Dense::pack(all()?, epilogue, place).map_err(failed)?),
            Place::Cpu if self.gradients => {
                let linear = Linear::differentiable(all()?, self.pool.clone()).map_err(failed)?;
                linear.with_isa(self.isa).map_err(failed)?.into()
            }
            Place::Cpu => {
                let pack = || {
                    let mut packing = Packing::new(shape, epilogue).map_err(failed)?;
                    for first in (0..shape.n).step_by(strip) {
                        let end = shape.n.min(first + strip);
                        let parts = parts(first..end)?;
                        // What was read lies in `parts`: the file's pages are not to be there beside.
                        self.weights.release();
                        let packed = parts.into_iter().try_for_each(|part| packing.push(part));
                        packed.map_err(|source| LoadError::Linear { module: told(first..end), source })?;
                    }
                    packing.finish(self.pool.clone()).map_err(failed)
                };
                self.packed.map(wanted, &self.pool, pack)?.with_isa(self.isa).map_err(failed)?.into()
            }
        })
    }

    /// The parts of a group; of the only one, if there is one, `outputs`.
    fn parts(&self, group: Group<'_>, outputs: Range<usize>) -> Result<Vec<LinearPart>, LoadError> {
        let Group { prefix, parts, k, activations } = group;
        let read = |part: &Part<'_>| {
            let module = format!("{prefix}{}", part.name);
            let rows = if let [_] = parts { outputs.clone() } else { 0..part.n };
            let bias = part.bias.then(|| self.weights.tensor_f32(&format!("{module}.bias"), &[part.n]));
            let bias = bias.transpose()?.map(|bias| part.stored.bias(bias)[rows.clone()].to_vec());
            let shape = LinearShape { n: rows.len(), k };
            let wanted = MatrixRows { module: &module, shape: (part.n, k), rows };
            Ok(LinearPart { shape, weights: self.part_weights(&wanted, part.stored, activations)?, bias })
        };
        let parts = parts.iter().map(read).collect::<Result<Vec<_>, LoadError>>()?;
        same_recipe(parts).map_err(|source| LoadError::Linear { module: prefix.to_owned(), source })
    }

    /// A part's weights in the recipe: 4-bit formats as they are where that is the recipe.
    fn part_weights(
        &self,
        wanted: &MatrixRows<'_>,
        stored: Stored,
        bits: ActivationBits,
    ) -> Result<LinearWeights, LoadError> {
        let (n, k) = wanted.shape;
        let bits = self.recipe.activations(bits);
        let raw = match stored {
            // Never cut: its outputs lie apart.
            Stored::Transposed => {
                let floats = self.weights.tensor_floats(&format!("{}.weight", wanted.module), &[k, n])?;
                RawLinear::Floats(transposed(floats, n))
            }
            stored => {
                if let Some(raw) = self.nibbles(wanted)? {
                    return Ok(nibbles(stored.ordered_nibbles(raw, k), bits));
                }
                if let Some(raw) = self.bytes(wanted)? {
                    return Ok(bytes(stored.ordered_bytes(raw, k), bits));
                }
                stored.ordered(self.weights.linear(wanted)?, k)
            }
        };
        let weights = self.recipe.weights(raw, LinearShape { n: wanted.rows.len(), k }, bits);
        weights.map_err(|source| LoadError::Linear { module: wanted.told(), source })
    }

    /// The weights of 4 bits, where the file has such and the recipe keeps them.
    pub(super) fn nibbles(&self, wanted: &MatrixRows<'_>) -> Result<Option<RawNibbles>, LoadError> {
        match self.recipe {
            Recipe::Stored | Recipe::Fine => Ok(self.weights.nibbles(wanted)?),
            Recipe::F32 | Recipe::I8 => Ok(None),
        }
    }

    /// The weights of bytes in blocks, likewise.
    pub(super) fn bytes(&self, wanted: &MatrixRows<'_>) -> Result<Option<RawBytes>, LoadError> {
        match self.recipe {
            Recipe::Stored | Recipe::Fine => Ok(self.weights.blocks_of_bytes(wanted)?),
            Recipe::F32 | Recipe::I8 => Ok(None),
        }
    }

    /// The norm `module` over `d` elements.
    ///
    /// # Errors
    /// When it is missing, has another shape or is not finite.
    pub fn norm(&self, module: &str, d: usize, kind: NormKind) -> Result<Norm, LoadError> {
        let mut weight = self.weights.tensor_f32(&format!("{module}.weight"), &[d])?;
        let norm = match kind {
            NormKind::Rms { eps, offset } => {
                weight.iter_mut().for_each(|weight| *weight += offset);
                Norm::rms(weight, eps, self.pool.clone())
            }
            NormKind::Layer { eps } => {
                let bias = self.weights.tensor_f32(&format!("{module}.bias"), &[d])?;
                Norm::layer(weight, bias, eps, self.pool.clone())
            }
        };
        let norm = norm.map_err(|source| LoadError::Norm { module: module.to_owned(), source })?;
        self.placed(module, norm.on(&self.place))
    }

    /// The turns of positions `0..reach`.
    ///
    /// # Errors
    /// When the device has no memory for them.
    pub fn rope(&self, frequencies: &[f32], reach: usize) -> Result<RopeTable, LoadError> {
        self.placed("rotary table", RopeTable::new(frequencies, reach).on(&self.place))
    }

    /// The relative bias `module` `(buckets, heads)`, for distances up to `reach`.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn relative_bias(
        &self,
        module: &str,
        shape: BiasShape,
        reach: usize,
    ) -> Result<RelativeBias, LoadError> {
        let weight = self.weights.tensor_f32(&format!("{module}.weight"), &[shape.buckets, shape.heads])?;
        self.placed(module, RelativeBias::new(shape, &weight, reach).on(&self.place))
    }

    /// The rows of the table `module` `(rows, d)` as a tensor, in f32.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn rows(&self, module: &str, rows: usize, d: usize) -> Result<Tensor, LoadError> {
        let values = self.weights.tensor_f32(&format!("{module}.weight"), &[rows, d])?;
        self.placed(module, Tensor::from_vec(values, (rows, d), self.place.device()))
    }

    pub(super) fn placed<T>(&self, module: &str, placed: candle_core::Result<T>) -> Result<T, LoadError> {
        placed.map_err(|why| LoadError::Device { module: module.to_owned(), why: Box::new(why) })
    }
}
