use ::safetensors::Dtype;

use super::{
    super::{
        assemble::{LOW_RANK_A, PROMPT},
        safetensors::{Safetensors, SafetensorsError},
        tensor_file::WeightsFormat,
    },
    support::{self, config, counting, load_bytes, says, tensors, tensors_of},
};

#[test]
fn every_float_type_reads_as_f32() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64] {
        let file = Safetensors::open(support::safetensors_as(&tensors(), dtype)).unwrap();
        assert_eq!(file.read(LOW_RANK_A).unwrap(), counting(&[5, 3], 20.0).values, "{dtype}");
        assert_eq!(file.infos()[LOW_RANK_A].shape, [5, 3]);
    }
}

#[test]
fn other_types_and_names_are_refused() {
    let view = ::safetensors::tensor::TensorView::new(Dtype::I32, vec![2], &[0; 8]).unwrap();
    let file = Safetensors::open(::safetensors::serialize([("x", view)], None).unwrap()).unwrap();
    says(file.read("x"), &["'x'", "expected dtype f32", "found I32"]);
    assert!(matches!(file.read("y"), Err(SafetensorsError::Unknown(name)) if name == "y"));
}

#[test]
fn a_double_beyond_f32_is_not_finite() {
    let mut bytes = support::safetensors_as(&tensors_of([(PROMPT, counting(&[2, 4], 0.0))]), Dtype::F64);
    let end = bytes.len();
    bytes[end - 8..].copy_from_slice(&1e300f64.to_le_bytes());
    let config = support::config_with(serde_json::json!({ "r": 0 }));
    let result = load_bytes(&config, WeightsFormat::Safetensors, bytes);
    says(result, &["adapter_model.safetensors", "'prompt_embeddings'", "found inf at (1, 3)"]);
}

#[test]
fn damaged_files_are_refused_wherever_they_end() {
    let whole = support::safetensors(&tensors());
    for length in 0..whole.len() {
        assert!(Safetensors::open(whole[..length].to_vec()).is_err(), "{length}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(Safetensors::open(longer).is_err());
    let mut claims = whole;
    claims[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    says(Safetensors::open(claims), &["not a safetensors file", "18446744073709551615"]);
    says(Safetensors::open(b"version https://git-lfs".to_vec()), &["not a safetensors file"]);
}

#[test]
fn a_flipped_bit_never_gives_another_shape() {
    let whole = support::safetensors(&tensors());
    let header = 8 + usize::try_from(u64::from_le_bytes(*whole.first_chunk().unwrap())).unwrap();
    for bit in 0..header * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // It may still load (a flip in free-form metadata), but then it is the same adapter.
        if let Ok(loaded) = load_bytes(&config(), WeightsFormat::Safetensors, flipped) {
            assert_eq!((loaded.weights.prompt_length(), loaded.weights.rank()), (2, 3), "bit {bit}");
        }
    }
}
