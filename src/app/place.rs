//! Where a model computes, and in which numbers.

use candle_core::DType;

use super::LoadModelError;
use crate::{
    backbones::weights::{Format, Weights},
    config::{CpuIsa, Device, Dtype, EngineConfig, KvCacheDtype},
    kernels::{Place, linear::Isa},
    layers::Recipe,
    runner::KvDtype,
};

impl From<Dtype> for Recipe {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Auto => Self::Stored,
            Dtype::F32 => Self::F32,
            Dtype::Fine => Self::Fine,
            Dtype::I8 => Self::I8,
            // Matrices of a GPU are rounded from exact weights.
            Dtype::Bf16 => Self::F32,
        }
    }
}

/// Where and how a model computes: on the GPU that was asked for, on the first one that can be used, else on the CPU.
pub(super) fn place(config: &EngineConfig) -> Result<(Place, Recipe), LoadModelError> {
    let &EngineConfig { device, dtype, batch_invariant, .. } = config;
    let floats = if dtype == Dtype::F32 { DType::F32 } else { DType::BF16 };
    let on_card = |ordinal| Place::card(ordinal, floats, batch_invariant);
    let refused = |device, instead| LoadModelError::Dtype { dtype: dtype.name(), device, instead };
    let is_the_cpus = matches!(dtype, Dtype::I8 | Dtype::Fine);
    let place = match device {
        Device::Cpu => Place::Cpu,
        Device::Cuda(ordinal) => on_card(ordinal).map_err(|why| LoadModelError::Card { ordinal, why })?,
        Device::Auto if is_the_cpus => {
            tracing::info!("device auto: computing on the CPU, which --dtype {} is for", dtype.name());
            Place::Cpu
        }
        Device::Auto => on_card(0).unwrap_or_else(|why| {
            tracing::info!(%why, "device auto: computing on the CPU");
            Place::Cpu
        }),
    };
    match (&place, dtype) {
        (Place::Cpu, Dtype::Bf16) => {
            Err(refused("the CPU", "use auto, which keeps the bf16 of a file, or fine, f32 or i8"))
        }
        (Place::Cpu, _) => Ok((place, dtype.into())),
        (Place::Dense(_), _) if is_the_cpus => Err(refused("a GPU", "use auto, bf16 or f32")),
        (Place::Dense(_), _) => Ok((place, Recipe::F32)),
    }
}

/// The instruction set that was asked for.
pub(super) fn isa(asked: CpuIsa) -> Result<Isa, LoadModelError> {
    let isa = match asked {
        CpuIsa::Auto => return Ok(Isa::fastest()),
        CpuIsa::Amx => Isa::Amx,
        CpuIsa::Avx512 => Isa::Avx512Vnni,
        CpuIsa::Avx2 => Isa::Avx2,
        CpuIsa::Portable => Isa::Portable,
    };
    let refused = || LoadModelError::CpuIsa { asked: asked.name(), fastest: Isa::fastest().name() };
    isa.is_available().then_some(isa).ok_or_else(refused)
}

/// How keys and values of the model in `weights` are kept.
pub(super) fn kv_dtype(
    place: &Place,
    (asked, dtype): (KvCacheDtype, Dtype),
    weights: &Weights,
) -> Result<KvDtype, LoadModelError> {
    let floats = |format: &Format| matches!(format, Format::F32 | Format::F16 | Format::Bf16);
    // Rounded weights tell apart less than f16 does; beside exact ones it would be the coarsest of all.
    let rounded = || match dtype {
        Dtype::F32 | Dtype::Fine => false,
        Dtype::I8 => true,
        Dtype::Auto | Dtype::Bf16 => weights.tensors().any(|tensor| !floats(tensor.format)),
    };
    match (place, asked) {
        (Place::Dense(_), KvCacheDtype::Auto) => Ok(KvDtype::Computed),
        (Place::Dense(_), asked) => Err(LoadModelError::KvCacheDtype(asked.name())),
        (Place::Cpu, KvCacheDtype::F32) => Ok(KvDtype::Computed),
        (Place::Cpu, KvCacheDtype::F16) => Ok(KvDtype::F16),
        (Place::Cpu, KvCacheDtype::Auto) if rounded() => Ok(KvDtype::F16),
        (Place::Cpu, KvCacheDtype::Auto) => Ok(KvDtype::Computed),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::kernels::DensePlace;

    #[test]
    fn instructions_are_those_asked_for_or_refused_by_name() {
        assert_eq!(isa(CpuIsa::Auto).unwrap(), Isa::fastest());
        for asked in [CpuIsa::Amx, CpuIsa::Avx512, CpuIsa::Avx2, CpuIsa::Portable] {
            let wanted = Isa::ALL.into_iter().find(|isa| isa.name() == asked.name()).unwrap();
            match isa(asked) {
                Ok(found) => assert_eq!(found, wanted),
                Err(error) => {
                    assert!(!wanted.is_available(), "{error}");
                    let (asked, there) = (asked.name(), Isa::fastest().name());
                    let message = error.to_string();
                    assert!(message.contains(&format!("--cpu-isa {asked}: this machine")), "{message}");
                    assert!(message.contains(&format!("auto, which is {there} here")), "{message}");
                }
            }
        }
    }

    #[test]
    fn keys_and_values_are_short_beside_rounded_weights() {
        use KvCacheDtype::{Auto, F16, F32};
        let open = |path: &str| Weights::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let (floats, blocks) = (open("tests/golden/llama"), open("tests/golden/llama.q8_0.gguf"));
        for (asked, dtype, weights, expected) in [
            (Auto, Dtype::Auto, &floats, KvDtype::Computed),
            (Auto, Dtype::Auto, &blocks, KvDtype::F16),
            (Auto, Dtype::I8, &floats, KvDtype::F16),
            (Auto, Dtype::Fine, &blocks, KvDtype::Computed),
            (Auto, Dtype::F32, &blocks, KvDtype::Computed),
            (F16, Dtype::F32, &floats, KvDtype::F16),
            (F32, Dtype::Auto, &blocks, KvDtype::Computed),
        ] {
            let found = kv_dtype(&Place::Cpu, (asked, dtype), weights).unwrap();
            assert_eq!(found, expected, "{asked:?} {dtype:?} {:?}", weights.path());
        }
        let device = candle_core::Device::Cpu;
        let dense = Place::Dense(DensePlace { device, dtype: DType::BF16, invariant: false });
        assert_eq!(kv_dtype(&dense, (Auto, Dtype::Auto), &floats).unwrap(), KvDtype::Computed);
        let error = kv_dtype(&dense, (F16, Dtype::Auto), &floats).unwrap_err().to_string();
        assert!(error.contains("--kv-cache-dtype f16 is for the CPU"), "{error}");
    }
}
