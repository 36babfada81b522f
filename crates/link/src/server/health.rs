//! The health check of gRPC: this process answers, which is all it says. What a node knows of itself is in its status.

use zimcache_proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use zimcache_types::Code;

use crate::{Error, Result};

/// Our service.
const SERVICE: &str = "zimcache.node.v1.Node";

pub(super) fn check(request: &HealthCheckRequest) -> Result<HealthCheckResponse> {
    if !request.service.is_empty() && request.service != SERVICE {
        return Err(Error::Refused {
            code: Code::NotFound,
            message: "there is no such service".into(),
        });
    }
    Ok(HealthCheckResponse {
        status: ServingStatus::Serving.into(),
    })
}
