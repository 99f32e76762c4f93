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
            Self::Lanczos => if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 },
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
