use std::{ops::Deref, sync::OnceLock};

use candle_core::{Device, Result, Tensor};

/// A number a row that every layer of a step reads, such as its position: on the host, and on a device from the first layer
/// on that asks for it there.
#[derive(Debug, Default)]
pub struct RowIndices {
    values: Vec<u32>,
    there: OnceLock<Tensor>,
}

impl RowIndices {
    /// Empties it and keeps its memory on the host.
    pub fn clear(&mut self) {
        self.there.take();
        self.values.clear();
    }

    /// Adds a row's number.
    pub fn push(&mut self, value: u32) {
        self.there.take();
        self.values.push(value);
    }

    /// The numbers on a device, always the same one. `(rows)`
    ///
    /// # Errors
    /// When there is no memory for them.
    pub fn on(&self, device: &Device) -> Result<&Tensor> {
        if let Some(there) = self.there.get() {
            return Ok(there);
        }
        let copied = Tensor::from_slice(&self.values, self.values.len(), device)?; // (rows)
        Ok(self.there.get_or_init(|| copied))
    }
}

impl Deref for RowIndices {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.values
    }
}

impl Extend<u32> for RowIndices {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, values: I) {
        self.there.take();
        self.values.extend(values);
    }
}

impl FromIterator<u32> for RowIndices {
    fn from_iter<I: IntoIterator<Item = u32>>(values: I) -> Self {
        values.into_iter().collect::<Vec<_>>().into()
    }
}

impl From<Vec<u32>> for RowIndices {
    fn from(values: Vec<u32>) -> Self {
        Self { values, there: OnceLock::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_a_device_follows_the_host() {
        let mut rows = RowIndices::from(vec![3, 1]);
        let there = |rows: &RowIndices| rows.on(&Device::Cpu).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(there(&rows), [3, 1]);
        rows.push(4);
        assert_eq!(there(&rows), [3, 1, 4]);
        rows.extend([1, 5]);
        assert_eq!(there(&rows), [3, 1, 4, 1, 5]);
        rows.clear();
        rows.push(9);
        assert_eq!((there(&rows), &rows[..]), (vec![9], &[9][..]));
    }
}
