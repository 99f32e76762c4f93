//! What a caller sees when there is no answer.

use tonic::Status;

use crate::doors::shared_memory::RegionError;
use crate::flows::inference::InferError;
use crate::flows::repository::RepositoryError;

/// A request that cannot be read.
pub(super) fn bad(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}

pub(super) fn of_inference(error: &InferError) -> Status {
    let message = error.to_string();
    match error {
        InferError::NoModel(_) | InferError::NoVersion(_) => Status::not_found(message),
        InferError::NotServing { .. } => Status::unavailable(message),
        InferError::Shape { .. } => Status::invalid_argument(message),
        InferError::Busy { .. } => Status::resource_exhausted(message),
        InferError::Deadline { .. } => Status::deadline_exceeded(message),
        InferError::Failed { .. } => Status::internal(message),
    }
}

pub(super) fn of_repository(error: &RepositoryError) -> Status {
    let message = error.to_string();
    match error {
        RepositoryError::Unknown { .. } | RepositoryError::NotThere(_) | RepositoryError::NoSuch(_) => {
            Status::not_found(message)
        }
        RepositoryError::Refused { .. }
        | RepositoryError::Configuration { .. }
        | RepositoryError::Alias(_)
        | RepositoryError::Traffic(_) => Status::invalid_argument(message),
        // It is the caller's mistake; Triton calls it internal, and its clients' programs look for that.
        RepositoryError::Files { .. } => Status::internal(message),
        RepositoryError::InUse { .. } => Status::failed_precondition(message),
        RepositoryError::Disk(_) | RepositoryError::Closing => Status::unavailable(message),
    }
}

pub(super) fn of_region(error: &RegionError) -> Status {
    let message = error.to_string();
    match error {
        RegionError::Off => Status::unimplemented(message),
        RegionError::Forbidden(_) => Status::permission_denied(message),
        RegionError::Unknown(_) => Status::not_found(message),
        RegionError::Full(_) => Status::resource_exhausted(message),
        RegionError::Wrong(_) => Status::invalid_argument(message),
        RegionError::Changed(_) => Status::failed_precondition(message),
    }
}
