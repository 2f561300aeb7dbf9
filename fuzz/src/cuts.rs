//! Random numbers from a seed, and pieces of random lengths: how a network would cut a stream.

/// A generator (SplitMix64). Good enough to choose, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Everything that follows is decided by `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator that depends on `bytes` only, so that an input behaves alike whenever it is run.
    pub fn of(bytes: &[u8]) -> Self {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Self(bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 {
            0
        } else {
            (self.bits() % n as u64) as usize
        }
    }
}

/// `bytes` in pieces, most of them short.
pub fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut random = Random::of(bytes);
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let longest = [1, 3, 16, 512][random.below(4)];
        let (piece, after) = rest.split_at(rest.len().min(1 + random.below(longest)));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}
