//! EXIF orientation: which way up the picture was taken.

use super::picture::Picture;

/// TIFF's tag 274.
const ORIENTATION: u16 = 0x0112;

/// The orientation, 1 to 8, that EXIF bytes (a TIFF header and its first directory) say; 1 where they say none.
pub(super) fn orientation(exif: &[u8]) -> u8 {
    // Within a JPEG the header may still be in front.
    let tiff = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    read(tiff).filter(|value| (1..=8).contains(value)).unwrap_or(1)
}

fn read(tiff: &[u8]) -> Option<u8> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let long = |at: usize| {
        let bytes: [u8; 4] = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = usize::from(short(directory)?);
    (0..entries).map(|entry| directory + 2 + entry * 12).find_map(|at| {
        let is_it = short(at)? == ORIENTATION;
        is_it.then(|| short(at + 8)).flatten().and_then(|value| u8::try_from(value).ok())
    })
}

/// The picture as a person would see it.
pub(super) fn upright(picture: Picture, orientation: u8) -> Picture {
    if orientation <= 1 || orientation > 8 {
        return picture;
    }
    let (width, height, channels) = (picture.width as usize, picture.height as usize, picture.channels);
    let turned = orientation >= 5;
    let (new_width, new_height) = if turned { (height, width) } else { (width, height) };
    let mut data = Vec::with_capacity(picture.data.len());
    for y in 0..new_height {
        for x in 0..new_width {
            let (from_x, from_y) = match orientation {
                2 => (width - 1 - x, y),
                3 => (width - 1 - x, height - 1 - y),
                4 => (x, height - 1 - y),
                5 => (y, x),
                6 => (y, height - 1 - x),
                7 => (width - 1 - y, height - 1 - x),
                _ => (width - 1 - y, x),
            };
            let at = (from_y * width + from_x) * channels;
            data.extend_from_slice(&picture.data[at..at + channels]);
        }
    }
    Picture { width: new_width as u32, height: new_height as u32, channels, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_orientation_turns_as_pil_does() {
        // 1 2 3 over 4 5 6; PIL's ImageOps.exif_transpose of it for each orientation.
        let picture = Picture { width: 3, height: 2, channels: 1, data: vec![1, 2, 3, 4, 5, 6] };
        for (orientation, width, data) in [
            (1, 3, [1, 2, 3, 4, 5, 6]),
            (2, 3, [3, 2, 1, 6, 5, 4]),
            (3, 3, [6, 5, 4, 3, 2, 1]),
            (4, 3, [4, 5, 6, 1, 2, 3]),
            (5, 2, [1, 4, 2, 5, 3, 6]),
            (6, 2, [4, 1, 5, 2, 6, 3]),
            (7, 2, [6, 3, 5, 2, 4, 1]),
            (8, 2, [3, 6, 2, 5, 1, 4]),
        ] {
            let turned = upright(picture.clone(), orientation);
            assert_eq!((turned.width, turned.data.as_slice()), (width, &data[..]), "{orientation}");
        }
    }

    #[test]
    fn torn_and_hostile_exif_means_upright() {
        let whole = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0";
        assert_eq!(orientation(whole), 6);
        let big = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0";
        assert_eq!(orientation(big), 8);
        for length in 0..whole.len() - 3 {
            assert_eq!(orientation(&whole[..length]), 1, "{length}");
        }
        assert_eq!(orientation(b"II*\0\xff\xff\xff\xff"), 1);
        assert_eq!(orientation(b"II*\0\x08\0\0\0\xff\xff"), 1);
        assert_eq!(orientation(b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0"), 1);
    }
}
