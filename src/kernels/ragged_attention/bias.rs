use std::ops::Range;

use candle_core::Result;

use crate::kernels::Place;

/// Which distances a relative bias tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Keys before and behind the query (encoder).
    Both,
    /// Keys up to the query (decoder).
    Past,
}

/// The bucket rule of T5's relative position bias (Raffel et al. 2020, section 2.1; transformers'
/// `_relative_position_bucket`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BiasShape {
    /// Rows of the bias weight.
    pub buckets: usize,
    /// Distances from here on share the last bucket.
    pub max_distance: usize,
    /// Heads, columns of the bias weight.
    pub heads: usize,
    /// Which distances are told apart.
    pub direction: Direction,
}

impl BiasShape {
    /// The bucket of `key position - query position`.
    pub fn bucket(&self, relative: i64) -> usize {
        let (buckets, behind, distance) = match self.direction {
            Direction::Both => {
                let half = self.buckets / 2;
                (half, if relative > 0 { half } else { 0 }, relative.unsigned_abs() as usize)
            }
            Direction::Past => (self.buckets, 0, (-relative).max(0) as usize),
        };
        let exact = buckets / 2;
        if distance < exact {
            return behind + distance;
        }
        let log = |distance: usize| (distance as f64 / exact as f64).ln();
        // In f64, with a margin far above its rounding: a distance on the edge of two buckets (16, 32 and 64 of 128) belongs to the
        // farther one, as in transformers, however a system's library rounds logarithms.
        let step = log(distance) / log(self.max_distance) * (buckets - exact) as f64 + 1e-6;
        behind + (exact + step as usize).min(buckets - 1)
    }
}

/// An additive attention bias by head and distance, laid out so that a row of scores adds a run of it.
#[derive(Debug, Clone)]
pub struct RelativeBias {
    #[cfg(any(test, feature = "cuda"))]
    pub(super) shape: BiasShape,
    /// As the checkpoint has it, for a device. `(buckets, heads)`
    #[cfg(any(test, feature = "cuda"))]
    pub(super) weight: Vec<f32>,
    #[cfg(feature = "cuda")]
    there: Option<super::cuda::DeviceBias>,
    reach: usize,
    /// `(heads, 2 reach + 1)`, by `key - query + reach`.
    by_distance: Vec<f32>,
}

impl RelativeBias {
    /// Lays out `weight` `(buckets, heads)` for distances up to `reach` either way.
    ///
    /// # Panics
    /// When `weight` has another size.
    pub fn new(shape: BiasShape, weight: &[f32], reach: usize) -> Self {
        assert_eq!(weight.len(), shape.buckets * shape.heads, "a bias weight is (buckets, heads)");
        let distances = -(reach as i64)..=reach as i64;
        let buckets: Vec<usize> = distances.map(|relative| shape.bucket(relative)).collect();
        let by_distance = (0..shape.heads)
            .flat_map(|head| buckets.iter().map(move |bucket| weight[bucket * shape.heads + head]))
            .collect();
        Self {
            #[cfg(any(test, feature = "cuda"))]
            shape,
            #[cfg(any(test, feature = "cuda"))]
            weight: weight.to_vec(),
            #[cfg(feature = "cuda")]
            there: None,
            reach,
            by_distance,
        }
    }

    /// The same bias, ready for rows at `place`.
    ///
    /// # Errors
    /// When the device has no memory for it.
    #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "only a CUDA device has its own copy"))]
    pub fn on(mut self, place: &Place) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if place.device().is_cuda() {
            self.there = Some(super::cuda::DeviceBias::new(&self, place.device())?);
        }
        let _ = place;
        Ok(self)
    }

    #[cfg(feature = "cuda")]
    pub(super) fn on_device(&self) -> Result<&super::cuda::DeviceBias> {
        self.there.as_ref().ok_or_else(|| candle_core::Error::msg("the relative bias is not on the device"))
    }

    /// Largest distance in the table.
    pub fn reach(&self) -> usize {
        self.reach
    }

    /// The biases of the keys at `keys` for a query at `position`. `(keys)`
    ///
    /// # Panics
    /// When a distance lies beyond the reach.
    #[inline]
    pub fn row(&self, head: usize, position: usize, keys: Range<usize>) -> &[f32] {
        let start = head * (2 * self.reach + 1) + self.reach - position;
        &self.by_distance[start + keys.start..start + keys.end]
    }
}
