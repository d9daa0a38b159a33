use std::{num::NonZeroUsize, path::PathBuf};

use crate::{
    backbones::{
        decoder::{Decoder, DecoderConfig},
        t5::{Reach, T5, T5Config},
        weights::Weights,
    },
    kernels::{Place, linear::Isa, pool::ComputePool},
    layers::{Loader, PackedParts, Recipe},
    training::Backbone,
};

pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)
}

/// One of the tiny golden models, in f32.
pub fn tiny(name: &str) -> Backbone {
    let weights = Weights::open(&golden(name)).unwrap();
    let pool = ComputePool::new(NonZeroUsize::new(2).unwrap()).unwrap();
    let loader = Loader {
        weights: &weights,
        place: Place::Cpu,
        recipe: Recipe::F32,
        pool,
        isa: Isa::fastest(),
        gradients: true,
        packed: PackedParts::Fresh,
    };
    if name.starts_with("t5") {
        let reach = Reach { prompt: 60, new_tokens: 12 };
        return Backbone::T5(Box::new(T5::load(&loader, T5Config::read(&weights).unwrap(), reach).unwrap()));
    }
    let config = DecoderConfig::read(&weights).unwrap();
    Backbone::Decoder(Box::new(Decoder::load(&loader, config, 60).unwrap()))
}
