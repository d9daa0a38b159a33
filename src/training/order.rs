//! The order of examples: a permutation an epoch, a function of the seed alone, so that a resumed run goes on where it was.

/// SplitMix64 (Steele, Lea and Flood 2014), fixed here so that a seed means the same in every release.
#[derive(Debug, Clone)]
pub(super) struct Draws(u64);

impl Draws {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, at least 1; fair to within 2^-32.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// A number in `-1..1`.
    pub fn signed(&mut self) -> f32 {
        ((self.next() >> 40) as f32 / (1 << 23) as f32) - 1.0
    }
}

/// Which example comes at which place of a run.
#[derive(Debug, Clone)]
pub struct Order {
    seed: u64,
    epoch: u64,
    permutation: Vec<usize>,
}

impl Order {
    /// Over `count` examples, at least 1.
    pub fn new(count: usize, seed: u64) -> Self {
        let mut order = Self { seed, epoch: 0, permutation: (0..count).collect() };
        order.shuffle();
        order
    }

    /// The example at `place`, counted over all epochs.
    pub fn at(&mut self, place: u64) -> usize {
        let count = self.permutation.len() as u64;
        if place / count != self.epoch {
            self.epoch = place / count;
            self.shuffle();
        }
        self.permutation[(place % count) as usize]
    }

    /// Fisher and Yates, from the identity.
    fn shuffle(&mut self) {
        let mut draws = Draws::new(self.seed ^ self.epoch.wrapping_mul(0xD134_2543_DE82_EF95));
        self.permutation.iter_mut().enumerate().for_each(|(at, place)| *place = at);
        for at in (1..self.permutation.len()).rev() {
            self.permutation.swap(at, draws.below(at + 1));
        }
    }
}
