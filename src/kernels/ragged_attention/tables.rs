use crate::kernels::Place;

/// What a device needs to know of a batch's spans, copied to it by the first layer that attends over them. One for each slice
/// of spans, as long as that lives; nothing on the CPU.
#[derive(Debug, Default)]
pub struct SpanTables {
    /// Whether all rows go by one kernel, so that their bits don't depend on how many of a sequence come at once.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "the CUDA op reads it"))]
    pub(super) invariant: bool,
    #[cfg(feature = "cuda")]
    pub(super) there: std::sync::OnceLock<super::cuda::DeviceTables>,
}

impl SpanTables {
    /// For rows at `place`.
    pub fn at(place: &Place) -> Self {
        Self {
            invariant: place.invariant(),
            #[cfg(feature = "cuda")]
            there: std::sync::OnceLock::new(),
        }
    }
}
