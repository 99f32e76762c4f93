//! Resampling. The filters are PIL's, to the bit: each output pixel is a weighted mean of the input pixels under the
//! filter, which is as wide as an output pixel where the picture shrinks; rows first, then columns, in fixed point with
//! 22 bits (Pillow's `Image.resize`, which torchvision uses for PIL images, too). `opencv-linear` is `cv2.resize` with
//! `INTER_LINEAR`, within one step of 255: two neighbours a direction, however much the picture shrinks.

use std::f64::consts::PI;

use serde::Deserialize;

use super::picture::Picture;

/// By its name in PIL, or OpenCV's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Filter {
    Nearest,
    Box,
    #[default]
    Bilinear,
    Hamming,
    Bicubic,
    Lanczos,
    OpencvLinear,
}

const BITS: u32 = 22;

impl Filter {
    /// Half the filter's width, in output pixels where the picture shrinks.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming | Self::OpencvLinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear | Self::OpencvLinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => match x.abs() {
                0.0 => 1.0,
                x if x >= 1.0 => 0.0,
                x => sinc(x) * (0.54 + 0.46 * (x * PI).cos()),
            },
            Self::Bicubic => {
                // Keys' kernel with a = -0.5.
                let (a, x) = (-0.5, x.abs());
                if x < 1.0 {
                    ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * a
                } else {
                    0.0
                }
            }
            Self::Lanczos => {
                if (-3.0..3.0).contains(&x) {
                    sinc(x) * sinc(x / 3.0)
                } else {
                    0.0
                }
            }
        }
    }
}

/// Input pixels from `first` on, and their shares of an output pixel.
struct Taps {
    first: usize,
    shares: Vec<i32>,
}

fn taps(given: u32, wanted: u32, filter: Filter) -> Vec<Taps> {
    let scale = f64::from(given) / f64::from(wanted);
    if filter == Filter::OpencvLinear {
        return (0..wanted).map(|at| linear(given, (f64::from(at) + 0.5) * scale - 0.5)).collect();
    }
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let tap = |at: u32| {
        let centre = (f64::from(at) + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5).max(0.0) as usize).min(given as usize);
        let weight = |place: usize| filter.weight((place as f64 - centre + 0.5) * stretch.recip());
        let weights: Vec<f64> = (first..last).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let share = |weight: f64| {
            let share = if sum == 0.0 { weight } else { weight / sum };
            let scaled = share * f64::from(1 << BITS);
            (if share < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
        };
        Taps { first, shares: weights.into_iter().map(share).collect() }
    };
    (0..wanted).map(tap).collect()
}

fn linear(given: u32, at: f64) -> Taps {
    let last = given as usize - 1;
    let held = at.clamp(0.0, last as f64);
    let first = (held.floor() as usize).min(last);
    let share = ((held - first as f64) * f64::from(1 << BITS)).round() as i32;
    let shares = if first == last { vec![1 << BITS] } else { vec![(1 << BITS) - share, share] };
    Taps { first, shares }
}

/// `picture` at another size.
pub(super) fn resize(picture: &Picture, width: u32, height: u32, filter: Filter) -> Picture {
    if filter == Filter::Nearest {
        return nearest(picture, width, height);
    }
    let wide;
    let wide = if width == picture.width {
        picture
    } else {
        wide = horizontal(picture, &taps(picture.width, width, filter));
        &wide
    };
    if height == picture.height { wide.clone() } else { vertical(wide, &taps(picture.height, height, filter)) }
}

fn clipped(sum: i64) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

const HALF: i64 = 1 << (BITS - 1);

fn horizontal(picture: &Picture, taps: &[Taps]) -> Picture {
    let (channels, row_bytes) = (picture.channels, picture.width as usize * picture.channels);
    let mut data = Vec::with_capacity(taps.len() * picture.height as usize * channels);
    for row in picture.data.chunks_exact(row_bytes) {
        for tap in taps {
            let pixels = &row[tap.first * channels..(tap.first + tap.shares.len()) * channels];
            let mut sums = [HALF; 3];
            for (pixel, &share) in pixels.chunks_exact(channels).zip(&tap.shares) {
                for (sum, &byte) in sums.iter_mut().zip(pixel) {
                    *sum += i64::from(byte) * i64::from(share);
                }
            }
            data.extend(sums[..channels].iter().map(|&sum| clipped(sum)));
        }
    }
    Picture { width: taps.len() as u32, data, ..*picture }
}

fn vertical(picture: &Picture, taps: &[Taps]) -> Picture {
    let row_bytes = picture.width as usize * picture.channels;
    let mut data = Vec::with_capacity(taps.len() * row_bytes);
    let mut sums = vec![HALF; row_bytes];
    for tap in taps {
        sums.fill(HALF);
        for (place, &share) in tap.shares.iter().enumerate() {
            let row = &picture.data[(tap.first + place) * row_bytes..][..row_bytes];
            for (sum, &byte) in sums.iter_mut().zip(row) {
                *sum += i64::from(byte) * i64::from(share);
            }
        }
        data.extend(sums.iter().map(|&sum| clipped(sum)));
    }
    Picture { height: taps.len() as u32, data, ..*picture }
}

/// The input pixel under each output pixel's centre.
fn nearest(picture: &Picture, width: u32, height: u32) -> Picture {
    let places = |given: u32, wanted: u32| -> Vec<usize> {
        let scale = f64::from(given) / f64::from(wanted);
        let place = |at: u32| (((f64::from(at) + 0.5) * scale) as usize).min(given as usize - 1);
        (0..wanted).map(place).collect()
    };
    let (columns, rows) = (places(picture.width, width), places(picture.height, height));
    let channels = picture.channels;
    let mut data = Vec::with_capacity(width as usize * height as usize * channels);
    for row in rows {
        for column in &columns {
            let at = (row * picture.width as usize + column) * channels;
            data.extend_from_slice(&picture.data[at..at + channels]);
        }
    }
    Picture { width, height, channels, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    // cv2 5.0.0, p[y][x][c] = (37 x + 59 y + 83 c + 7 x y) % 256 of 9 x 7, cv2.resize(p, (w, h), interpolation=INTER_LINEAR):
    // all of 5 x 4, the second channel of 16 x 11.
    const SMALL: [u8; 60] = [
        38, 121, 165, 109, 173, 147, 181, 168, 91, 156, 79, 162, 67, 150, 137, 146, 197, 56, 163, 66, 143, 77, 160,
        211, 145, 221, 80, 97, 91, 154, 165, 81, 164, 114, 152, 49, 229, 88, 139, 95, 171, 75, 204, 63, 127, 106, 125,
        74, 84, 71, 154, 125, 208, 131, 135, 109, 173, 144, 131, 93,
    ];
    const LARGE: [u8; 176] = [
        83, 96, 116, 137, 158, 179, 200, 221, 169, 46, 27, 48, 68, 89, 110, 123, 110, 123, 146, 169, 188, 145, 120,
        143, 126, 70, 71, 94, 116, 139, 161, 175, 147, 163, 188, 202, 207, 102, 32, 57, 82, 107, 133, 158, 170, 185,
        210, 225, 185, 202, 229, 170, 96, 84, 84, 111, 139, 167, 194, 222, 151, 91, 119, 135, 129, 148, 178, 131, 75,
        105, 135, 165, 169, 147, 163, 193, 136, 90, 120, 139, 4, 24, 57, 89, 122, 154, 187, 220, 180, 69, 62, 94, 127,
        159, 192, 212, 41, 63, 98, 133, 163, 107, 76, 111, 120, 103, 123, 158, 107, 65, 101, 122, 79, 102, 140, 144,
        139, 72, 34, 72, 110, 147, 156, 155, 91, 42, 79, 102, 116, 141, 181, 112, 28, 55, 86, 126, 166, 206, 152, 61,
        81, 111, 151, 175, 154, 132, 96, 71, 52, 95, 137, 180, 183, 147, 121, 98, 137, 167, 131, 109, 181, 120, 20, 41,
        85, 130, 174, 219, 191, 92, 96, 141, 185, 205, 106, 45,
    ];

    #[test]
    fn opencv_linear_is_within_one_step_of_opencv() {
        let pixel = |x: u32, y: u32, c: u32| ((37 * x + 59 * y + 83 * c + 7 * x * y) % 256) as u8;
        let data = (0..7).flat_map(|y| (0..9).flat_map(move |x| (0..3).map(move |c| pixel(x, y, c)))).collect();
        let picture = Picture { width: 9, height: 7, channels: 3, data };
        let near = |given: &[u8], expected: &[u8]| {
            assert_eq!(given.len(), expected.len());
            assert!(given.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{given:?} for {expected:?}");
        };
        near(&resize(&picture, 5, 4, Filter::OpencvLinear).data, &SMALL);
        let large = resize(&picture, 16, 11, Filter::OpencvLinear).data;
        near(&large.chunks_exact(3).map(|pixel| pixel[1]).collect::<Vec<_>>(), &LARGE);
    }

    #[test]
    fn every_filter_stands_any_size() {
        let data = (0..3 * 5).map(|at| at as u8 * 17).collect();
        let picture = Picture { width: 5, height: 3, channels: 1, data };
        use Filter::{Bicubic, Bilinear, Box, Hamming, Lanczos, Nearest, OpencvLinear};
        for filter in [Nearest, Box, Bilinear, Hamming, Bicubic, Lanczos, OpencvLinear] {
            for (width, height) in [(1, 1), (1, 200), (200, 1), (5, 3), (4, 4)] {
                let made = resize(&picture, width, height, filter);
                assert_eq!(made.data.len(), (width * height) as usize, "{filter:?}");
            }
            assert_eq!(resize(&picture, 5, 3, filter), picture);
        }
    }
}
