//! Pixels in memory, and sizes as training code computes them.

/// Rows of pixels, channels side by side.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    /// 3 (red, green, blue) or 1.
    pub(super) channels: usize,
    pub(super) data: Vec<u8>,
}

impl Picture {
    /// PIL's `convert("L")`: (19595 R + 38470 G + 7471 B + 32768) / 65536.
    pub(super) fn grey(self) -> Self {
        if self.channels == 1 {
            return self;
        }
        let luma = |pixel: &[u8]| {
            let sum = u32::from(pixel[0]) * 19_595 + u32::from(pixel[1]) * 38_470 + u32::from(pixel[2]) * 7_471;
            ((sum + 32_768) >> 16) as u8
        };
        Self { channels: 1, data: self.data.chunks_exact(3).map(luma).collect(), ..self }
    }

    /// The part that begins at (`left`, `top`), filled with `fill` where there is no picture.
    pub(super) fn cut(&self, left: i64, top: i64, width: u32, height: u32, fill: u8) -> Self {
        let channels = self.channels;
        let mut data = vec![fill; width as usize * height as usize * channels];
        let first = left.max(0);
        let last = (left + i64::from(width)).min(i64::from(self.width));
        if first < last {
            let bytes = (last - first) as usize * channels;
            let into = (first - left) as usize * channels;
            for (row, target) in data.chunks_exact_mut(width as usize * channels).enumerate() {
                let source = top + row as i64;
                if (0..i64::from(self.height)).contains(&source) {
                    let from = (source as usize * self.width as usize + first as usize) * channels;
                    target[into..into + bytes].copy_from_slice(&self.data[from..from + bytes]);
                }
            }
        }
        Self { width, height, channels, data }
    }
}

/// torchvision's `Resize(shorter)`: the other side is cut to a whole number.
pub(super) fn with_shorter(width: u32, height: u32, shorter: u32) -> (u32, u32) {
    let other = |long: u32, short: u32| {
        let size = u64::from(shorter) * u64::from(long) / u64::from(short);
        u32::try_from(size).unwrap_or(u32::MAX).max(1)
    };
    if width <= height { (shorter, other(height, width)) } else { (other(width, height), shorter) }
}

/// The size of `picture` inside of `width` x `height`, sides in proportion.
pub(super) fn inside(picture: &Picture, width: u32, height: u32, enlarge: bool) -> (u32, u32) {
    let by_width = f64::from(width) / f64::from(picture.width);
    let by_height = f64::from(height) / f64::from(picture.height);
    let ratio = by_width.min(by_height).min(if enlarge { f64::INFINITY } else { 1.0 });
    let side = |given: u32, most: u32| ((f64::from(given) * ratio).round_ties_even() as u32).clamp(1, most);
    (side(picture.width, width), side(picture.height, height))
}

/// Where a part of `wanted` begins in the middle of `given`: torchvision's `CenterCrop`, which rounds half to even and
/// pads the smaller half in front.
pub(super) fn middle(given: u32, wanted: u32) -> i64 {
    let (given, wanted) = (i64::from(given), i64::from(wanted));
    if given >= wanted { ((given - wanted) as f64 / 2.0).round_ties_even() as i64 } else { -((wanted - given) / 2) }
}
