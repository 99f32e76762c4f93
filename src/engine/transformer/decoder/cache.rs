//! What a decoder remembers of the tokens that it has read: keys and values of every layer.

/// Bounded: made for so many tokens, and no more fit.
pub(super) struct Cache {
    layers: Vec<[Vec<f32>; 2]>,
    width: usize,
    tokens: usize,
    tokens_max: usize,
}

impl Cache {
    /// For `tokens_max` tokens of `layers` layers with keys and values of `width` floats each.
    pub(super) fn new(layers: usize, width: usize, tokens_max: usize) -> Self {
        let rows = || Vec::with_capacity(tokens_max * width);
        Self { layers: (0..layers).map(|_| [rows(), rows()]).collect(), width, tokens: 0, tokens_max }
    }

    /// The same, or why there is no memory for it.
    pub(super) fn try_new(layers: usize, width: usize, tokens_max: usize) -> Result<Self, String> {
        let mut cache = Self { layers: vec![[Vec::new(), Vec::new()]; layers], width, tokens: 0, tokens_max: 0 };
        cache.grow(tokens_max)?;
        Ok(cache)
    }

    /// Makes room for `tokens_max` tokens in all.
    pub(super) fn grow(&mut self, tokens_max: usize) -> Result<(), String> {
        if tokens_max > self.tokens_max {
            let floats = tokens_max.checked_mul(self.width).ok_or("more tokens than memory can hold")?;
            for rows in self.layers.as_flattened_mut() {
                rows.try_reserve_exact(floats - rows.len()).map_err(|error| error.to_string())?;
            }
            self.tokens_max = tokens_max;
        }
        Ok(())
    }

    /// Forgets all but the first `tokens`.
    pub(super) fn truncate(&mut self, tokens: usize) {
        if tokens < self.tokens {
            self.layers.as_flattened_mut().iter_mut().for_each(|rows| rows.truncate(tokens * self.width));
            self.tokens = tokens;
        }
    }

    /// Its first `tokens`, with room for `tokens_max`.
    pub(super) fn fork(&self, tokens: usize, tokens_max: usize) -> Result<Self, String> {
        let tokens = tokens.min(self.tokens);
        let mut fork = Self::try_new(self.layers.len(), self.width, tokens_max.max(tokens))?;
        for (rows, from) in fork.layers.as_flattened_mut().iter_mut().zip(self.layers.as_flattened()) {
            rows.extend_from_slice(&from[..tokens * self.width]);
        }
        fork.tokens = tokens;
        Ok(fork)
    }

    /// Tokens that it has room for in all.
    pub(super) fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// Bytes that one token takes.
    pub(super) fn token_bytes(layers: usize, width: usize) -> usize {
        layers * width * 2 * size_of::<f32>()
    }

    /// Tokens that it has.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Tokens that still fit.
    pub(super) fn room(&self) -> usize {
        self.tokens_max - self.tokens
    }

    /// Adds a layer's keys and values of new tokens and gives all of that layer's.
    pub(super) fn push(&mut self, layer: usize, keys: &[f32], values: &[f32]) -> (&[f32], &[f32]) {
        debug_assert!(keys.len() == values.len() && keys.len() / self.width <= self.room());
        let [all_keys, all_values] = &mut self.layers[layer];
        all_keys.extend_from_slice(keys);
        all_values.extend_from_slice(values);
        (all_keys, all_values)
    }

    /// Every layer has had its keys and values of `tokens` new tokens.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }
}
