//! Where a pixel of the model's input lies in the picture that was sent.

/// `x_sent = x_input * scale + offset`, in pixels of the upright picture; pixel corners, not centres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// Of the upright picture.
    pub width: u32,
    /// Of the upright picture.
    pub height: u32,
    /// Of the model's input.
    pub(super) input: (u32, u32),
    pub(super) scale: (f64, f64),
    pub(super) offset: (f64, f64),
}

impl Geometry {
    /// A picture as it is.
    pub(super) fn of(width: u32, height: u32) -> Self {
        Self { width, height, input: (width, height), scale: (1.0, 1.0), offset: (0.0, 0.0) }
    }

    /// The input was stretched to this size.
    pub(super) fn resized(&mut self, width: u32, height: u32) {
        self.scale.0 *= f64::from(self.input.0) / f64::from(width);
        self.scale.1 *= f64::from(self.input.1) / f64::from(height);
        self.input = (width, height);
    }

    /// The input became the part of this size that begins at (`left`, `top`), which may lie outside of it.
    pub(super) fn cut(&mut self, left: i64, top: i64, width: u32, height: u32) {
        self.offset.0 += left as f64 * self.scale.0;
        self.offset.1 += top as f64 * self.scale.1;
        self.input = (width, height);
    }

    /// A point of the input in the picture, held inside of it.
    pub(super) fn sent(&self, x: f64, y: f64) -> (f64, f64) {
        let held = |value: f64, most: u32| value.clamp(0.0, f64::from(most));
        (held(x * self.scale.0 + self.offset.0, self.width), held(y * self.scale.1 + self.offset.1, self.height))
    }

    /// A point of the picture in the input.
    pub(super) fn input_of(&self, x: f64, y: f64) -> (f64, f64) {
        ((x - self.offset.0) / self.scale.0, (y - self.offset.1) / self.scale.1)
    }
}
