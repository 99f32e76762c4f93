//! Tensors that lie in regions, into memory of our own and back.

use bytes::Bytes;

use super::error::RegionError;
use super::region::{Owner, Region, Regions};
use crate::base::{Datatype, Shape, Tensor};
use crate::flows::inference::NamedTensor;

/// More bytes than so many are not copied on a thread that serves others meanwhile.
const INLINE_MAX_BYTES: u64 = 256 << 10;

/// Where a tensor's elements are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::doors) struct Place {
    /// The region's name.
    pub(in crate::doors) region: String,
    /// From the region's beginning.
    pub(in crate::doors) offset: u64,
    pub(in crate::doors) bytes: u64,
}

/// An input that lies in a region.
#[derive(Debug)]
pub(in crate::doors) struct InRegion {
    pub(in crate::doors) name: String,
    pub(in crate::doors) datatype: Datatype,
    pub(in crate::doors) shape: Shape,
    pub(in crate::doors) place: Place,
}

/// An output that goes into one.
#[derive(Debug)]
pub(in crate::doors) struct ToRegion {
    pub(in crate::doors) name: String,
    pub(in crate::doors) elements: Bytes,
    pub(in crate::doors) place: Place,
}

impl Regions {
    /// The inputs of `owner` that lie in regions, copied.
    pub(in crate::doors) async fn read(
        &self,
        owner: &Owner,
        inputs: Vec<InRegion>,
    ) -> Result<Vec<NamedTensor>, RegionError> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = self.room("inputs", inputs.iter().map(|input| input.place.bytes))?;
        let found = |input: InRegion| match self.find(owner, &input.place.region) {
            Ok(region) => Ok((region, input)),
            Err(error) => Err(error.about("input", &input.name)),
        };
        let found = inputs.into_iter().map(found).collect::<Result<Vec<_>, _>>()?;
        aside(bytes, move || found.into_iter().map(|(region, input)| tensor(&region, input)).collect()).await
    }

    /// Writes outputs into regions of `owner`: all of them, or none if one does not fit.
    pub(in crate::doors) async fn write(&self, owner: &Owner, outputs: Vec<ToRegion>) -> Result<(), RegionError> {
        if outputs.is_empty() {
            return Ok(());
        }
        let bytes = self.room("outputs", outputs.iter().map(|output| output.elements.len() as u64))?;
        let mut found = Vec::with_capacity(outputs.len());
        for output in outputs {
            let about = |error: RegionError| error.about("output", &output.name);
            let (needs, given) = (output.elements.len() as u64, output.place.bytes);
            if needs > given {
                let small = format!("it has {needs} bytes, its place in region {:?} {given}", output.place.region);
                return Err(about(RegionError::Wrong(small)));
            }
            let region = self.find(owner, &output.place.region).map_err(about)?;
            region.takes(output.place.offset, given).map_err(about)?;
            found.push((region, output));
        }
        aside(bytes, move || {
            found.iter().try_for_each(|(region, output)| {
                let written = region.write(output.place.offset, &output.elements);
                written.map_err(|error| error.about("output", &output.name))
            })
        })
        .await
    }

    /// Checks that what one request has in regions is within the bound.
    fn room(&self, what: &str, bytes: impl Iterator<Item = u64>) -> Result<u64, RegionError> {
        let most = self.config()?.request_bytes_max;
        let bytes = bytes.fold(0, u64::saturating_add);
        if bytes <= most {
            return Ok(bytes);
        }
        Err(RegionError::Full(format!(
            "the {what} have {bytes} bytes in regions, the most is {most} (`request_bytes_max` in [shared_memory])"
        )))
    }
}

fn tensor(region: &Region, input: InRegion) -> Result<NamedTensor, RegionError> {
    let InRegion { name, datatype, shape, place } = input;
    let about = |error: RegionError| error.about("input", &name);
    // Before a byte is copied: what the shape says must be what is there.
    if let Some(size) = datatype.size_bytes() {
        let elements = shape.iter().try_fold(size as u64, |product, &dim| product.checked_mul(dim as u64));
        if elements != Some(place.bytes) {
            let expected = elements.map_or_else(|| "more than memory has".to_owned(), |bytes| format!("{bytes} bytes"));
            return Err(about(RegionError::Wrong(format!(
                "shape {:?} of {datatype} has {expected}, given {} in region {:?}",
                &shape[..],
                place.bytes,
                place.region
            ))));
        }
    }
    let copy = region.read(place.offset, place.bytes).map_err(about)?;
    let tensor = Tensor::from_bytes(datatype, &shape, Bytes::from(copy));
    let tensor = tensor.map_err(|error| about(RegionError::Wrong(error.to_string())))?;
    Ok(NamedTensor { name, tensor })
}

async fn aside<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> Result<T, RegionError> + Send + 'static,
) -> Result<T, RegionError> {
    if bytes <= INLINE_MAX_BYTES {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(RegionError::Changed("the gateway is stopping".to_owned())))
}
