//! The files of an upload, put together from the parts that a door has read.

use super::{ApiError, ErrorCode};
use crate::adapter::{
    archive::{self, Limits},
    card::MAX_CARD_BYTES,
    folder::{AdapterBytes, MAX_CONFIG_BYTES},
    tensor_file::{MAX_FILE_BYTES, WeightsFormat},
};

/// A file of an adapter, or all of them packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `adapter_config.json`
    Config,
    /// `adapter_model.safetensors` or `adapter_model.bin`
    Weights,
    /// `card.toml`
    Card,
}

impl Part {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Weights => "weights",
            Self::Card => "card",
        }
    }

    /// Most bytes of it, in an upload of at most `most`.
    fn limit(self, most: usize) -> usize {
        let own = match self {
            Self::Config => MAX_CONFIG_BYTES,
            Self::Weights => MAX_FILE_BYTES,
            Self::Card => MAX_CARD_BYTES as u64,
        };
        usize::try_from(own).unwrap_or(usize::MAX).min(most)
    }
}

/// Parts of an upload that have come so far.
#[derive(Debug)]
pub(super) struct Parts {
    most: usize,
    config: Option<Vec<u8>>,
    weights: Option<Vec<u8>>,
    card: Option<Vec<u8>>,
}

impl Parts {
    /// For an upload of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { most, config: None, weights: None, card: None }
    }

    fn place(&mut self, part: Part) -> &mut Option<Vec<u8>> {
        match part {
            Part::Config => &mut self.config,
            Part::Weights => &mut self.weights,
            Part::Card => &mut self.card,
        }
    }

    /// A part begins, which may be empty.
    ///
    /// # Errors
    /// When it is there already.
    pub fn begin(&mut self, part: Part) -> Result<(), ApiError> {
        let name = part.name();
        match self.place(part).replace(Vec::new()) {
            None => Ok(()),
            Some(_) => {
                Err(ApiError::invalid(name, format!("the part '{name}' is there twice: send it once")))
            }
        }
    }

    /// Bytes of a part, behind those that it has.
    ///
    /// # Errors
    /// When they are too many.
    pub fn extend(&mut self, part: Part, bytes: &[u8]) -> Result<(), ApiError> {
        let limit = part.limit(self.most);
        let place = self.place(part).get_or_insert_default();
        if place.len() + bytes.len() > limit {
            return Err(too_large(&format!("the part '{}'", part.name()), limit));
        }
        place.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.config.is_none() && self.weights.is_none() && self.card.is_none()
    }

    /// The files.
    ///
    /// # Errors
    /// When config or weights are missing.
    pub fn files(self) -> Result<AdapterBytes, ApiError> {
        let missing = |part: Part| {
            let name = part.name();
            ApiError::invalid(name, format!("the part '{name}' is missing: send it"))
        };
        let weights = self.weights.ok_or_else(|| missing(Part::Weights))?;
        let config = self.config.ok_or_else(|| missing(Part::Config))?;
        // A torch file is a zip archive; a safetensors file begins with the length of its header.
        let format = if weights.starts_with(b"PK\x03\x04") {
            WeightsFormat::TorchBin
        } else {
            WeightsFormat::Safetensors
        };
        Ok(AdapterBytes { config, format, weights, card: self.card })
    }
}

/// The files of a zip or a gzipped tar archive. What is packed may not take more memory than what is sent as it is.
///
/// # Errors
/// When it is no archive of an adapter's files, or one of more than `most` bytes.
pub(super) fn unpack(bytes: &[u8], most: usize) -> Result<AdapterBytes, ApiError> {
    let limits = Limits { bytes: most as u64, ..Limits::default() };
    archive::read(bytes, &limits).map_err(|error| {
        let code = if error.is_too_large() { ErrorCode::TooLarge } else { ErrorCode::InvalidAdapter };
        ApiError::new(code, error.to_string()).about("body")
    })
}

/// More than an upload may have.
pub(super) fn too_large(what: &str, limit: usize) -> ApiError {
    ApiError::new(ErrorCode::TooLarge, format!("{what} is over {limit} bytes, the most this server takes"))
}
